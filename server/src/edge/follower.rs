//! An edge in a process of its own: it has no ledger and no CA key, and goes by what a server tells it.
//!
//! While that server is away it goes on, and starts, with what it knew last; beyond `edge.stale_after_s` each
//! hostname does as it says.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use muster_edge::{NoUpdate, Update};
use muster_enroll::Clock;
use muster_policy::name::EdgeName;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Doors;
use super::connections::Named;
use super::others::answer;
use super::wire::{read_update, send_change};
use crate::config::Config;
use crate::datadir::DataDir;

/// How soon it looks for the server again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Likewise when it speaks of updates in another form: until one of the two is another program nothing helps, and each try
/// has the server send everything.
const RETRY_OTHER_FORM_AFTER: Duration = Duration::from_secs(30);
/// The server says every second that nothing changed; one that is silent for so long is none.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long an edge that knows nothing waits for the server before it says that it is ready.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// The edge, its broker, and where it hears of changes.
pub(crate) struct Follower {
    doors: Doors,
    name: EdgeName,
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
        Ok(Self { doors, name: config.edge_name.clone(), socket, has_heard: watch::Sender::new(false) })
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
        let Self { doors, name, socket, has_heard } = self;
        let mut heard = has_heard.subscribe();
        let (edge, told) = (doors.edge.clone(), stop.clone());
        let knows_nothing = edge.change() == 0;
        let asked = Named { name, edge: edge.clone() };
        let following = async move {
            tokio::select! {
                () = told.cancelled() => {}
                () = follow(&edge, &socket, &has_heard) => {}
                () = answer(&asked, &socket) => {}
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
    let mut said = String::new();
    loop {
        has_heard.send_replace(false);
        let Err(error) = listen(edge, socket, has_heard).await;
        let (why, change) = (format!("{error:#}"), edge.change());
        // Said once, however often it is tried, and again when there is another reason.
        if why != said || *has_heard.borrow() {
            tracing::warn!(
                error = why,
                change,
                "the server can't be followed; the edge goes by what it knows"
            );
        }
        said = why;
        tokio::time::sleep(retry_after(&error)).await;
    }
}

fn retry_after(error: &anyhow::Error) -> Duration {
    match error.downcast_ref() {
        Some(NoUpdate::OtherForm { .. }) => RETRY_OTHER_FORM_AFTER,
        Some(NoUpdate::Malformed) | None => RETRY_AFTER,
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
    Ok(tokio::task::spawn_blocking(move || edge.apply(update)).await??.cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_of_another_form_is_asked_seldom() {
        for (octets, pause) in [
            (&[0, 0, 0, 1, 0xff][..], RETRY_OTHER_FORM_AFTER),
            (&[0, 0, 0, 0], RETRY_AFTER),
            (&[0, 0, 0, 9, 0xff], RETRY_AFTER),
        ] {
            let error = read_update(&mut &*octets).await.expect_err("no update");
            assert_eq!(retry_after(&error), pause, "{error:#}");
        }
    }
}
