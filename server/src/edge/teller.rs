//! Tells edges in other processes what the ledger says, over a socket that is its owner's alone.
//!
//! Each hears everything first, then every change as it is committed, and that nothing changed; after each it says
//! which change it goes by. One that does not answer is let go: it comes again and hears everything anew. It gets
//! the keys of all hostnames, and none of the CAs.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use muster_edge::Update;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::edges::{Edges, Seat};
use super::feed::Feed;
use super::wire::{read_change, send_update};
use super::{CERTIFICATES_INTERVAL, HEARTBEAT_INTERVAL, ticks};

/// Edges that may follow at once.
const EDGES_MAX: usize = 64;
/// How long an edge may take to go by an update. A snapshot of a large fleet is work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long accepting rests after it failed: descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens where edges come to.
///
/// # Errors
/// In words: a path that is too long for a socket, or that can't be made.
pub(crate) fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let listen = || {
        // What a server before left; that none runs, its ledger says.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(socket)
    };
    listen().with_context(|| format!("can't listen at {} (listen.edges)", path.display()))
}

/// What edges are told by.
pub(crate) struct Teller {
    feed: Arc<Feed>,
    changes: watch::Receiver<u64>,
    edges: Arc<Edges>,
}

impl Teller {
    /// Tells by this feed, when the ledger's newest change is another one.
    pub(crate) const fn new(feed: Arc<Feed>, changes: watch::Receiver<u64>, edges: Arc<Edges>) -> Self {
        Self { feed, changes, edges }
    }

    /// Tells whoever comes, until `stop`.
    pub(crate) async fn serve(self, socket: UnixListener, stop: CancellationToken) {
        let teller = Arc::new(self);
        receive(socket, stop, "follows", |stream| {
            let teller = Arc::clone(&teller);
            async move { teller.tell(stream).await }
        })
        .await;
    }

    /// Tells one edge for as long as it listens.
    async fn tell(&self, stream: UnixStream) -> anyhow::Result<()> {
        let mut changes = self.changes.clone();
        // What it was given is its own to remember.
        let feed = Arc::new(self.feed.another());
        let mut listener = Listener { stream, at: 0, seat: None };
        let snapshot = read(&feed, Feed::snapshot).await?;
        listener.hear(Update::Snapshot(Box::new(snapshot)), &self.edges).await?;
        let [mut heartbeat, mut looks] = [HEARTBEAT_INTERVAL, CERTIFICATES_INTERVAL].map(ticks);
        loop {
            let at = listener.at;
            let update = tokio::select! {
                changed = changes.changed() => {
                    changed?;
                    read(&feed, move |feed| feed.since(at).map(Some)).await
                }
                _ = heartbeat.tick() => read(&feed, move |feed| feed.since(at).map(Some)).await,
                _ = looks.tick() => read(&feed, move |feed| feed.due_certificates(at)).await,
            };
            // What can't be read now is at the next tick; an edge that is let go has to be told everything anew.
            let unread = |error: &anyhow::Error| {
                tracing::error!(error = format!("{error:#}"), "an edge can't be told of the ledger now");
            };
            if let Ok(Some(update)) = update.inspect_err(unread) {
                listener.hear(update, &self.edges).await?;
                // There may be more than is told at once.
                if listener.at > at {
                    heartbeat.reset_immediately();
                }
            }
        }
    }
}

/// Serves every edge that comes to a socket, until `stop`. `does` is what it does there.
pub(super) async fn receive<F: Future<Output = anyhow::Result<()>> + Send + 'static>(
    socket: UnixListener,
    stop: CancellationToken,
    does: &'static str,
    serve: impl Fn(UnixStream) -> F,
) {
    let (tasks, places) = (TaskTracker::new(), Arc::new(Semaphore::new(EDGES_MAX)));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = socket.accept() => accepted,
        };
        let (Ok((stream, _)), Ok(place)) = (accepted, Arc::clone(&places).try_acquire_owned()) else {
            tracing::warn!(does, "an edge can't come now");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (served, stop) = (serve(stream), stop.clone());
        tasks.spawn(async move {
            tracing::info!("an edge in another process {does}");
            let served = tokio::select! {
                () = stop.cancelled() => return,
                served = served => served,
            };
            if let Err(error) = served {
                tracing::warn!(error = format!("{error:#}"), "an edge in another process {does} no more");
            }
            drop(place);
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// An edge that is told.
struct Listener {
    stream: UnixStream,
    at: u64,
    /// Taken with the first answer: before, it serves by what it knew without us.
    seat: Option<Seat>,
}

impl Listener {
    async fn hear(&mut self, update: Update, edges: &Arc<Edges>) -> anyhow::Result<()> {
        let change = match &update {
            Update::Delta(delta) => delta.change,
            Update::Snapshot(snapshot) => snapshot.change,
        };
        let answered = async {
            send_update(&mut self.stream, &update).await?;
            read_change(&mut self.stream).await
        };
        let at = timeout(ANSWER_TIMEOUT, answered).await.context("it does not answer")??;
        anyhow::ensure!(at == change, "it is at change {at}, not {change}");
        self.at = at;
        match &self.seat {
            Some(seat) => seat.is_at(at),
            None => self.seat = Some(edges.seat(at)),
        }
        Ok(())
    }
}

/// Reads the ledger off the async threads.
async fn read<T: Send + 'static>(
    feed: &Arc<Feed>,
    read: impl FnOnce(&Feed) -> Result<T, muster_store::Fault> + Send + 'static,
) -> anyhow::Result<T> {
    let feed = Arc::clone(feed);
    Ok(tokio::task::spawn_blocking(move || read(&feed)).await??)
}
