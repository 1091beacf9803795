//! The `tcp` relay: bytes both ways over mutual TLS.
//!
//! A connection keeps the identity it began with, and is closed when that ends, at the latest. Half-close is
//! passed on. Memory per connection: two buffers of [`BUFFER_BYTES`].

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::clock;
use super::relay::Relay;
use super::upstream::refusal;

/// Of each direction.
pub(super) const BUFFER_BYTES: usize = 16 * 1024;

/// How long connections may go on after shutdown.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn serve(relay: Arc<Relay>, mut local: TcpStream) {
    let Some(identity) = relay.identity() else {
        relay.health.turned_away("the device has no certificate yet, or it has ended");
        return;
    };
    let mut upstream = match relay.upstream.dial(&identity).await {
        Ok(upstream) => upstream,
        Err(fault) => {
            relay.health.failed(&fault.to_string());
            return;
        }
    };
    relay.health.succeeded();
    let copy =
        tokio::io::copy_bidirectional_with_sizes(&mut local, &mut upstream, BUFFER_BYTES, BUFFER_BYTES);
    let drained = async {
        relay.shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        copied = copy => if let Err(error) = copied {
            let why = refusal(&error).unwrap_or_else(|| format!("a connection broke: {error}"));
            relay.health.failed(&why);
        },
        () = tokio::time::sleep(clock::left_until(identity.not_after)) => {
            relay.health.failed("a connection was closed because its certificate ended");
        }
        () = drained => {}
    }
}
