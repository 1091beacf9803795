//! A local listener: takes connections, counts them, and hands each to its mode.
//!
//! At most `max_connections` at once; one more is turned away at once, in the protocol's words where they fit
//! in a packet. Every connection is a task of the relay's tracker and ends with the shutdown token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::Mode;
use super::health::RelayHealth;
use super::upstream::Upstream;
use super::{clock, http, mqtt, tcp};
use crate::identity::{Identities, Identity};

/// After a failed accept (no descriptors left): waits instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection of a relay shares.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) mode: Mode,
    pub(super) upstream: Arc<Upstream>,
    pub(super) identities: Identities,
    pub(super) health: Arc<RelayHealth>,
    pub(super) shutdown: CancellationToken,
    pub(super) pools: http::Pools,
}

/// A relay whose address is taken.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: TcpListener,
    pub(super) address: SocketAddr,
    pub(super) max_connections: usize,
}

impl Relay {
    /// The identity to present, if there is one that has not ended.
    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        let identity = self.identities.held().in_use?;
        (identity.not_after > clock::now()).then_some(identity)
    }
}

/// Take connections until shutdown, then wait for them to end.
pub(super) async fn serve(relay: Arc<Relay>, bound: Bound) {
    let tracker = TaskTracker::new();
    let places = Arc::new(Semaphore::new(bound.max_connections));
    loop {
        let accepted = tokio::select! {
            accepted = bound.listener.accept() => accepted,
            () = relay.shutdown.cancelled() => break,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                relay.health.failed(&format!("can't take a connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            relay.health.turned_away("as many local connections are open as max_connections allows");
            turn_away(relay.mode, &socket);
            continue;
        };
        let relay = Arc::clone(&relay);
        tracker.spawn(async move {
            let _open = relay.health.open();
            // Small packets matter more than full segments on loopback; without it only latency suffers.
            let _ = socket.set_nodelay(true);
            match relay.mode {
                Mode::Http => http::serve(relay, socket).await,
                Mode::Mqtt => mqtt::serve(relay, socket).await,
                Mode::Tcp => tcp::serve(relay, socket).await,
            }
            drop(place);
        });
    }
    drop(bound);
    tracker.close();
    tracker.wait().await;
}

/// One packet at most, into a socket buffer that is empty: never waits.
fn turn_away(mode: Mode, socket: &TcpStream) {
    if mode == Mode::Http {
        // The client may be gone; there is nobody else to tell.
        let _ = socket.try_write(http::FULL);
    }
}
