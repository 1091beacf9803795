//! What systemd is told: that the agent is ready, that it is alive, and that it stops.
//!
//! Without systemd (no `NOTIFY_SOCKET`) all of this does nothing. The signs of life come from the same runtime
//! that carries traffic: when that hangs, they stop, and systemd starts the agent anew.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// Tell systemd that the listeners are there, and from then on that the agent is alive; returns when
/// `shutdown` is cancelled, having told that too.
pub async fn while_running(shutdown: CancellationToken) {
    tell(NotifyState::Ready);
    match sd_notify::watchdog_enabled() {
        Some(limit) => {
            let mut signs = tokio::time::interval((limit / SIGNS_PER_LIMIT).max(SIGN_INTERVAL_MIN));
            loop {
                tokio::select! {
                    _ = signs.tick() => tell(NotifyState::Watchdog),
                    () = shutdown.cancelled() => break,
                }
            }
        }
        None => shutdown.cancelled().await,
    }
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// Two signs may be late before systemd acts.
const SIGNS_PER_LIMIT: u32 = 3;
/// A limit of next to nothing must not become a busy loop.
const SIGN_INTERVAL_MIN: Duration = Duration::from_millis(100);
