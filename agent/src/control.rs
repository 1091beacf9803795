//! The socket by which `muster-agent renew` reaches a running agent: `DIR/control.sock`, 0600.
//!
//! One line with a wish comes in, one line of JSON with the outcome goes out. Whoever may write to the
//! folder is the device anyway; the only wish is one that the agent has by itself now and then.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// The outcome of a renewal that somebody asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub(crate) enum Outcome {
    /// It failed; the agent goes on trying.
    Failed {
        /// What went wrong, and what to do.
        why: String,
    },
    /// The server decides later; the agent goes on asking.
    Postponed,
    /// A new certificate is stored; with its end in Unix seconds.
    Renewed {
        /// The certificate's last second.
        expires_at: u64,
    },
}

/// Somebody wants a renewal, and waits for the outcome.
pub(crate) type Wish = oneshot::Sender<Outcome>;

/// Where the socket is.
#[must_use]
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// Opens the socket. The caller holds the folder's lock, so a socket that is there is a dead one.
///
/// # Errors
/// When the file system refuses, or the path is too long for a socket.
pub(crate) fn open(dir: &Path) -> io::Result<UnixListener> {
    let path = path(dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    // Before it has a name: whoever may write to the folder could put a link in the place of what is changed later.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(&path)?)?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// Takes wishes one after the other until the agent no longer listens.
pub(crate) async fn serve(listener: UnixListener, wishes: mpsc::Sender<Wish>) {
    while !wishes.is_closed() {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: some come back.
                tracing::warn!(%error, "a local command could not be heard");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // One caller at a time: a second one is answered when the first was.
        if let Err(error) = answer(stream, &wishes).await {
            tracing::debug!(%error, "a local command went away");
        }
    }
}

async fn answer(stream: UnixStream, wishes: &mpsc::Sender<Wish>) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut line = String::new();
    let mut reading = BufReader::new(reading.take(LINE_MAX_BYTES));
    tokio::time::timeout(LINE_TIMEOUT, reading.read_line(&mut line)).await??;
    let failed = |why: &str| Outcome::Failed { why: why.to_owned() };
    let outcome = if line == RENEW {
        // It says no more: this ends when it goes away, and whoever comes next is heard.
        let mut rest = Vec::new();
        tokio::select! {
            outcome = tokio::time::timeout(OUTCOME_TIMEOUT, renewed(wishes)) => match outcome {
                Ok(Some(outcome)) => outcome,
                Ok(None) => failed("the agent is stopping"),
                Err(_) => failed("there is no outcome yet"),
            },
            left = reading.read_to_end(&mut rest) => return left.map(drop),
        }
    } else {
        failed("the running agent does not know this command; is it of another version?")
    };
    let mut answer = serde_json::to_vec(&outcome)?;
    answer.push(b'\n');
    writing.write_all(&answer).await
}

/// The outcome of a renewal that begins now; `None` when the agent stops before.
async fn renewed(wishes: &mpsc::Sender<Wish>) -> Option<Outcome> {
    let (teller, outcome) = oneshot::channel();
    wishes.send(teller).await.ok()?;
    outcome.await.ok()
}

/// Asks the running agent to renew; `None` when none runs.
///
/// # Errors
/// When it goes away without an answer.
pub(crate) async fn ask(dir: &Path) -> io::Result<Option<Outcome>> {
    let gone = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    let mut stream = match UnixStream::connect(path(dir)).await {
        Err(error) if gone.contains(&error.kind()) => return Ok(None),
        stream => stream?,
    };
    stream.write_all(RENEW.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
    serde_json::from_slice(&answer).map(Some).map_err(io::Error::other)
}

/// Commands that wait while another one is answered.
const BACKLOG: i32 = 16;
const RENEW: &str = "renew\n";
const LINE_MAX_BYTES: u64 = 64;
/// A local program writes its line at once.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// Above the time that one try can take: each of its few steps has a minute in the device core.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const ANSWER_MAX_BYTES: u64 = 4 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_owner_s_alone_and_a_dead_one_gives_way() {
        let folder = tempfile::tempdir().expect("a folder");
        for _ in 0..2 {
            let listener = open(folder.path()).expect("opened");
            let mode = std::fs::metadata(path(folder.path())).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            drop(listener);
        }
    }

    /// The first caller's wish is under way for as long as the test.
    async fn asked_behind(first: impl AsyncFnOnce(UnixStream)) {
        let folder = tempfile::tempdir().expect("a folder");
        let (wish, mut wishes) = mpsc::channel(1);
        let serving = tokio::spawn(serve(open(folder.path()).expect("opened"), wish));
        let mut caller = UnixStream::connect(path(folder.path())).await.expect("connected");
        caller.write_all(RENEW.as_bytes()).await.expect("sent");
        let _under_way = wishes.recv().await.expect("a wish");
        first(caller).await;
        let dir = folder.path().to_owned();
        let asking = tokio::spawn(async move { ask(&dir).await });
        let wish = tokio::time::timeout(Duration::from_secs(20), wishes.recv()).await;
        wish.expect("it is heard").expect("a wish").send(Outcome::Postponed).expect("it is waited for");
        assert_eq!(asking.await.expect("no panic").expect("an answer"), Some(Outcome::Postponed));
        serving.abort();
    }

    #[tokio::test]
    async fn a_caller_that_left_keeps_nobody_waiting() {
        asked_behind(async |caller| drop(caller)).await;
    }

    #[tokio::test]
    async fn a_caller_is_told_in_the_end_that_there_is_no_outcome() {
        asked_behind(async |mut caller| {
            tokio::time::pause();
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.expect("an answer");
            assert!(answer.contains("no outcome yet"), "{answer}");
            tokio::time::resume();
        })
        .await;
    }
}
