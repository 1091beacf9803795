//! What the carrying half tells about itself, for `status --json`.
//!
//! Words and counts only, no history; a reader takes a snapshot and holds nothing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// The state of all relays and of the telemetry; clones see the same.
#[derive(Clone, Debug)]
pub struct Health {
    relays: Arc<[Arc<RelayHealth>]>,
    telemetry: Option<Arc<RelayHealth>>,
}

/// The living state of one relay.
#[derive(Debug)]
pub struct RelayHealth {
    mode: &'static str,
    listen: String,
    upstream: String,
    open: AtomicUsize,
    accepted: AtomicU64,
    turned_away: AtomicU64,
    remade: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// The state of one relay at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct RelayStatus {
    /// `mqtt`, `http`, `tcp` or `telemetry`.
    pub mode: &'static str,
    /// The local address; empty for telemetry.
    pub listen: String,
    /// The upstream's host and port.
    pub upstream: String,
    /// Local connections that are open now; for telemetry 1 while the broker has it.
    pub connections: usize,
    /// Local connections taken since the start.
    pub accepted: u64,
    /// Local connections turned away since the start: too many, or no identity.
    pub turned_away: u64,
    /// Live connections that moved to a new identity since the start.
    pub remade: u64,
    /// The last thing that went wrong, in words; `null` after the next success.
    pub last_error: Option<String>,
}

/// The state of everything at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct HealthStatus {
    /// In the order of the configuration.
    pub relays: Vec<RelayStatus>,
    /// `null` when not configured.
    pub telemetry: Option<RelayStatus>,
}

/// One open connection; it is counted while this lives.
#[derive(Debug)]
pub(super) struct Open(Arc<RelayHealth>);

impl Health {
    pub(super) fn new(relays: Vec<Arc<RelayHealth>>, telemetry: Option<Arc<RelayHealth>>) -> Self {
        Self { relays: relays.into(), telemetry }
    }

    /// What is so now.
    #[must_use]
    pub fn status(&self) -> HealthStatus {
        HealthStatus {
            relays: self.relays.iter().map(|relay| relay.status()).collect(),
            telemetry: self.telemetry.as_ref().map(|telemetry| telemetry.status()),
        }
    }
}

impl RelayHealth {
    pub(super) fn new(mode: &'static str, listen: String, upstream: String) -> Arc<Self> {
        Arc::new(Self {
            mode,
            listen,
            upstream,
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            remade: AtomicU64::new(0),
            last_error: Mutex::new(None),
        })
    }

    /// Count a connection for as long as the answer lives.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    pub(super) fn turned_away(&self, why: &str) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        self.failed(why);
    }

    pub(super) fn remade(&self) {
        self.remade.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, why: &str) {
        tracing::warn!(mode = self.mode, listen = %self.listen, upstream = %self.upstream, why, "relay");
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    pub(super) fn succeeded(&self) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn status(&self) -> RelayStatus {
        RelayStatus {
            mode: self.mode,
            listen: self.listen.clone(),
            upstream: self.upstream.clone(),
            connections: self.open.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
            turned_away: self.turned_away.load(Ordering::Relaxed),
            remade: self.remade.load(Ordering::Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
