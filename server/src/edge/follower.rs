//! An edge in a process of its own: it has no ledger and no CA key, and goes by what a server tells it.
//!
//! While that server is away it goes on, and starts, with what it knew last; beyond `edge.stale_after_s` each
//! hostname does as it says.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use muster_edge::Update;
use muster_enroll::Clock;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Doors;
use super::wire::{read_update, send_change};
use crate::config::Config;
use crate::datadir::DataDir;

/// How soon it looks for the server again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The server says every second that nothing changed; one that is silent for so long is none.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long an edge that knows nothing waits for the server before it says that it is ready.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// The edge, its broker, and where it hears of changes.
pub(crate) struct Follower {
    doors: Doors,
    socket: PathBuf,
    has_heard: watch::Sender<bool>,
}

impl Follower {
    /// Opens what is known.
    ///
    /// # Errors
    /// In words, when something can't be opened.
    pub(crate) fn open(
        dir: &DataDir,
        config: &Config,
        socket: PathBuf,
        clock: &Clock,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let doors = Doors::open(dir, config, clock, registry)?;
        Ok(Self { doors, socket, has_heard: watch::Sender::new(false) })
    }

    /// Serves until `stop`, then drains. `ready` is called once, when it knows something or won't soon.
    ///
    /// # Errors
    /// When `ready` fails.
    pub(crate) async fn run(
        self,
        https: Option<TcpListener>,
        mqtt: Option<TcpListener>,
        stop: CancellationToken,
        ready: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Self { doors, socket, has_heard } = self;
        let mut heard = has_heard.subscribe();
        let (edge, told) = (doors.edge.clone(), stop.clone());
        let knows_nothing = edge.change() == 0;
        let following = async move {
            tokio::select! {
                () = told.cancelled() => {}
                () = follow(&edge, &socket, &has_heard) => {}
            }
        };
        let readied = async {
            if knows_nothing {
                // It may come later, too.
                let _ = timeout(FIRST_WAIT, heard.wait_for(|heard| *heard)).await;
            }
            ready()
        };
        let served = async {
            doors.serve(https, mqtt, stop, following).await;
            Ok(())
        };
        tokio::try_join!(readied, served).map(drop)
    }
}

/// Listens to the server, whenever it is there.
async fn follow(edge: &muster_edge::Edge, socket: &PathBuf, has_heard: &watch::Sender<bool>) {
    let mut is_news = true;
    loop {
        has_heard.send_replace(false);
        let Err(error) = listen(edge, socket, has_heard).await;
        // Said once, however often it is tried.
        if is_news || *has_heard.borrow() {
            let (error, change) = (format!("{error:#}"), edge.change());
            tracing::warn!(error, change, "the server is away; the edge goes by what it knows");
        }
        is_news = false;
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn listen(
    edge: &muster_edge::Edge,
    socket: &PathBuf,
    has_heard: &watch::Sender<bool>,
) -> anyhow::Result<std::convert::Infallible> {
    let stream = UnixStream::connect(socket).await;
    let mut stream = stream.with_context(|| format!("can't connect to {}", socket.display()))?;
    loop {
        let update = timeout(SILENCE_MAX, read_update(&mut stream)).await.context("it is silent")??;
        let changed = apply(edge, update).await?;
        if changed > 0 {
            tracing::info!(connections = changed, "connections were cut");
        }
        has_heard.send_replace(true);
        send_change(&mut stream, edge.change()).await?;
    }
}

/// Applies an update; how many connections were cut. A gap ends the connection, and the next one begins with
/// everything.
async fn apply(edge: &muster_edge::Edge, update: Update) -> anyhow::Result<usize> {
    let edge = edge.clone();
    Ok(tokio::task::spawn_blocking(move || edge.apply(&update)).await??.cut)
}
