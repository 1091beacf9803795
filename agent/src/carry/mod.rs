//! The half of the agent that carries traffic: local programs speak in clear on loopback, the fleet's servers
//! see mutual TLS with this device's certificate.
//!
//! [`Carry::bind`] takes all local addresses or none; [`Carry::run`] carries until its token is cancelled, and
//! drains. It follows [`crate::identity::Identities`]: a candidate is tried on (`tryon`), and when the one in
//! use changes, live connections move to it. Before there is an identity, and after it ended, local programs
//! are told so in their protocol's words. Bounds are named constants of the file that holds them.

mod breaker;
mod bridge;
mod clock;
mod config;
mod dialer;
mod health;
mod http;
pub mod mqtt;
mod relay;
mod report;
mod tcp;
mod telemetry;
mod tryon;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::config::{Config, ConfigFault, Mode, RelayWritten, TelemetryWritten};
pub use self::health::{Health, HealthStatus, RelayHealth, RelayStatus};
pub use self::telemetry::Command;

use self::health::RelayHealth as Living;
use self::relay::{Bound, Relay};
use self::telemetry::Telemetry;
use self::upstream::Upstream;
use crate::identity::Identities;

/// Commands that wait for the agent; one more is answered with "busy".
pub const COMMANDS_MAX: usize = 8;

/// Why carrying could not begin.
#[derive(Debug, thiserror::Error)]
pub enum CarryFault {
    /// A local address could not be taken.
    #[error("can't listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
}

/// All local addresses are taken; nothing is carried yet.
#[derive(Debug)]
pub struct Carry {
    relays: Vec<(Mode, Bound, Arc<Upstream>, Arc<Living>)>,
    telemetry: Option<(config::Telemetry, Arc<Upstream>, Arc<Living>)>,
    health: Health,
}

impl Carry {
    /// Take all local addresses.
    ///
    /// # Errors
    /// The first address that can't be taken; then none is.
    pub async fn bind(config: Config) -> Result<Self, CarryFault> {
        let mut relays = Vec::with_capacity(config.relays.len());
        for relay in config.relays {
            let fault = |error| CarryFault::Listen(relay.listen, error);
            let listener = TcpListener::bind(relay.listen).await.map_err(fault)?;
            let address = listener.local_addr().map_err(fault)?;
            let mode = match relay.mode {
                Mode::Http => "http",
                Mode::Mqtt => "mqtt",
                Mode::Tcp => "tcp",
            };
            let health = Living::new(mode, address.to_string(), relay.target.authority());
            let bound = Bound { listener, address, max_connections: relay.max_connections };
            relays.push((relay.mode, bound, Upstream::new(relay.target), health));
        }
        let telemetry = config.telemetry.map(|telemetry| {
            let health = Living::new("telemetry", String::new(), telemetry.target.authority());
            let upstream = Upstream::new(telemetry.target.clone());
            (telemetry, upstream, health)
        });
        let health = Health::new(
            relays.iter().map(|(_, _, _, health)| Arc::clone(health)).collect(),
            telemetry.as_ref().map(|(_, _, health)| Arc::clone(health)),
        );
        Ok(Self { relays, telemetry, health })
    }

    /// The local addresses, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.relays.iter().map(|(_, bound, _, _)| bound.address).collect()
    }

    /// What `status` tells; it lives on while this runs.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Carry until `shutdown` is cancelled, then drain.
    ///
    /// Commands that arrive over MQTT go to `commands`; make it with [`COMMANDS_MAX`] places.
    pub async fn run(
        self,
        identities: Identities,
        commands: mpsc::Sender<Command>,
        shutdown: CancellationToken,
    ) {
        let tasks = TaskTracker::new();
        let upstreams: Vec<(Mode, Arc<Upstream>)> =
            self.relays.iter().map(|(mode, _, upstream, _)| (*mode, Arc::clone(upstream))).collect();
        for (mode, bound, upstream, health) in self.relays {
            let relay = Arc::new(Relay {
                mode,
                upstream,
                identities: identities.clone(),
                health,
                shutdown: shutdown.clone(),
                pools: http::Pools::default(),
            });
            tasks.spawn(relay::serve(relay, bound));
        }
        if let Some((config, upstream, health)) = self.telemetry {
            let telemetry =
                Telemetry { config, upstream, health, identities, commands, shutdown: shutdown.clone() };
            tasks.spawn(telemetry.run());
        } else {
            tasks.spawn(tryon::run(upstreams, identities, shutdown.clone()));
        }
        tasks.close();
        tasks.wait().await;
    }
}
