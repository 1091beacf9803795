//! Asks edges in other processes who is connected to them, over a socket beside the one they follow by.
//!
//! An edge comes, says its name, and answers one question at a time for as long as it is there. Nothing is kept of its
//! answers, so nothing outlives it: one that ends, or does not answer in time, is let go until it comes again. No
//! question waits on the way of changes, which a revocation takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use muster_policy::name::EdgeName;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connections::{Answer, Named, Question};
use super::follower::RETRY_AFTER;
use super::teller::{listen, receive};
use super::wire::{hear, questions_at, say};

/// How long an edge may take for its name, or for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long somebody waits for an answer, behind others who ask.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Questions that wait for one edge. A further one waits for its turn.
const QUESTIONS_MAX: usize = 8;
/// A question has a device, a certificate and a hostname in it.
const QUESTION_MAX_BYTES: u32 = 16 << 10;
/// Ten thousand connections, the most that is asked for, are 3 MB, and 8 MB with the longest names.
const ANSWER_MAX_BYTES: u32 = 16 << 20;

/// What an edge hears when it has said its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Welcome {
    Come,
    NameTaken,
}

/// A question on its way.
struct Asked {
    question: Question,
    answer: oneshot::Sender<Answer>,
}

/// The edges in other processes that can be asked.
pub(crate) struct Others {
    /// The name of the edge of this process, which no other has.
    own: Option<EdgeName>,
    edges: Mutex<BTreeMap<EdgeName, mpsc::Sender<Asked>>>,
}

/// Listens where edges come to be asked, beside the socket they follow by.
///
/// # Errors
/// As [`listen`].
pub(crate) fn listen_for_questions(updates: &Path) -> anyhow::Result<UnixListener> {
    listen(&questions_at(updates))
}

impl Others {
    /// None yet.
    pub(crate) fn beside(own: Option<EdgeName>) -> Arc<Self> {
        Arc::new(Self { own, edges: Mutex::default() })
    }

    /// Receives whoever comes, until `stop`.
    pub(crate) async fn serve(self: Arc<Self>, socket: UnixListener, stop: CancellationToken) {
        receive(socket, stop, "tells who is connected", |stream| Arc::clone(&self).converse(stream)).await;
    }

    /// Who can be asked now.
    pub(super) fn names(&self) -> Vec<EdgeName> {
        self.edges().keys().cloned().collect()
    }

    /// Asks one; none when it is gone, or does not answer in time.
    pub(super) async fn ask(&self, name: &EdgeName, question: &Question) -> Option<Answer> {
        let asking = self.edges().get(name).cloned()?;
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            asking.send(Asked { question: question.clone(), answer }).await.ok()?;
            answered.await.ok()
        };
        timeout(ASK_TIMEOUT, exchange).await.ok()?
    }

    /// Asks one edge what there is to ask, for as long as it is there.
    async fn converse(self: Arc<Self>, mut stream: UnixStream) -> anyhow::Result<()> {
        let named = timeout(ANSWER_TIMEOUT, hear::<EdgeName>(&mut stream, QUESTION_MAX_BYTES)).await;
        let name = named.context("it did not send its name")??;
        let Some((_chair, mut questions)) = self.enter(name.clone()) else {
            say(&mut stream, &Welcome::NameTaken, QUESTION_MAX_BYTES).await?;
            anyhow::bail!("another edge is called {name} already; name this one by edge.name");
        };
        say(&mut stream, &Welcome::Come, QUESTION_MAX_BYTES).await?;
        loop {
            let asked = tokio::select! {
                said = stream.read_u8() => {
                    said.with_context(|| format!("{name} is gone"))?;
                    anyhow::bail!("{name} sent data unasked");
                }
                Some(asked) = questions.recv() => asked,
            };
            let exchange = async {
                say(&mut stream, &asked.question, QUESTION_MAX_BYTES).await?;
                hear(&mut stream, ANSWER_MAX_BYTES).await
            };
            let answer = timeout(ANSWER_TIMEOUT, exchange).await;
            let answer = answer.with_context(|| format!("{name} does not answer"))??;
            // Who asked may wait no more.
            let _ = asked.answer.send(answer);
        }
    }

    /// Gives an edge its place, if its name is free.
    fn enter(self: &Arc<Self>, name: EdgeName) -> Option<(Chair, mpsc::Receiver<Asked>)> {
        let mut edges = self.edges();
        if self.own.as_ref() == Some(&name) || edges.contains_key(&name) {
            return None;
        }
        let (asking, questions) = mpsc::channel(QUESTIONS_MAX);
        edges.insert(name.clone(), asking);
        Some((Chair { others: Arc::clone(self), name }, questions))
    }

    fn edges(&self) -> MutexGuard<'_, BTreeMap<EdgeName, mpsc::Sender<Asked>>> {
        self.edges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An edge's place among those that can be asked; given up when dropped.
struct Chair {
    others: Arc<Others>,
    name: EdgeName,
}

impl Drop for Chair {
    fn drop(&mut self) {
        self.others.edges().remove(&self.name);
    }
}

/// Answers the questions of the server that an edge follows, whenever it is there.
pub(super) async fn answer(edge: &Named, updates: &Path) {
    let (socket, mut before) = (questions_at(updates), String::new());
    loop {
        let Err(error) = attend(edge, &socket).await;
        // Said once, however often it is tried.
        let error = format!("{error:#}");
        if error != before {
            tracing::warn!(error, "the server can't see who is connected to this edge");
        }
        before = error;
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn attend(edge: &Named, socket: &Path) -> anyhow::Result<std::convert::Infallible> {
    let stream = UnixStream::connect(socket).await;
    let mut stream = stream.with_context(|| format!("can't connect to {}", socket.display()))?;
    say(&mut stream, &edge.name, QUESTION_MAX_BYTES).await?;
    let welcome = timeout(ANSWER_TIMEOUT, hear::<Welcome>(&mut stream, QUESTION_MAX_BYTES)).await;
    if welcome.context("it does not answer")?? == Welcome::NameTaken {
        anyhow::bail!("another edge is called {} already; name this one by edge.name", edge.name);
    }
    loop {
        let question: Question = hear(&mut stream, QUESTION_MAX_BYTES).await?;
        let edge = edge.clone();
        let answer = tokio::task::spawn_blocking(move || edge.answer(&question)).await?;
        say(&mut stream, &answer, ANSWER_MAX_BYTES).await?;
    }
}

#[cfg(test)]
mod tests {
    use muster_admin::ConnectionFilter;
    use tokio::io::AsyncWriteExt as _;
    use tokio::task::JoinHandle;

    use super::*;

    type Ended = JoinHandle<anyhow::Result<()>>;

    /// An edge that has said its name, what it heard, and how the server's side ends.
    async fn come(others: &Arc<Others>, name: &str) -> (UnixStream, Welcome, Ended) {
        let (mut edge, server) = UnixStream::pair().expect("a pair");
        let ended = tokio::spawn(Arc::clone(others).converse(server));
        say(&mut edge, &name, QUESTION_MAX_BYTES).await.expect("said");
        let welcome = hear(&mut edge, QUESTION_MAX_BYTES).await.expect("an answer");
        (edge, welcome, ended)
    }

    async fn why(ended: Ended) -> String {
        format!("{:#}", ended.await.expect("no panic").expect_err("it ended"))
    }

    fn name(text: &str) -> EdgeName {
        text.parse().expect("a name")
    }

    fn question() -> Question {
        Question::Find(ConnectionFilter::default())
    }

    #[tokio::test]
    async fn a_name_is_one_edge_s_until_it_is_gone() {
        let others = Others::beside(Some(name("server")));
        let (_, welcome, ended) = come(&others, "server").await;
        assert_eq!(welcome, Welcome::NameTaken);
        assert!(why(ended).await.contains("edge.name"));
        let (first, welcome, ended) = come(&others, "north").await;
        assert_eq!((welcome, others.names()), (Welcome::Come, vec![name("north")]));
        let (_, welcome, _) = come(&others, "north").await;
        assert_eq!(welcome, Welcome::NameTaken);
        drop(first);
        assert!(why(ended).await.contains("north is gone"));
        assert!(others.names().is_empty() && others.ask(&name("north"), &question()).await.is_none());
        assert_eq!(come(&others, "north").await.1, Welcome::Come);
    }

    #[tokio::test]
    async fn an_edge_answers_what_it_is_asked_and_is_let_go_for_anything_else() {
        let others = Others::beside(None);
        let north = name("north");
        let (mut edge, _, ended) = come(&others, "north").await;
        let answered = async {
            for total in [3, 4] {
                hear::<Question>(&mut edge, QUESTION_MAX_BYTES).await.expect("a question");
                say(&mut edge, &Answer::Found(Vec::new(), total), ANSWER_MAX_BYTES).await.expect("said");
            }
        };
        let asked = async { [others.ask(&north, &question()).await, others.ask(&north, &question()).await] };
        let found = |total| Some(Answer::Found(Vec::new(), total));
        assert_eq!(tokio::join!(asked, answered).0, [found(3), found(4)]);
        edge.write_all(b"x").await.expect("sent");
        assert!(why(ended).await.contains("unasked"));
        for nonsense in [&[0, 0, 0, 2, b'{', b'}'][..], &[0xff; 4], &[0, 0, 0, 9, b'{']] {
            let (mut edge, _, ended) = come(&others, "north").await;
            let answered = async {
                hear::<Question>(&mut edge, QUESTION_MAX_BYTES).await.expect("a question");
                edge.write_all(nonsense).await.expect("sent");
                drop(edge);
            };
            let question = question();
            assert_eq!(tokio::join!(others.ask(&north, &question), answered).0, None, "{nonsense:?}");
            why(ended).await;
            assert!(others.names().is_empty());
        }
    }
}
