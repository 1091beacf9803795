//! The carrying half, as the service runs it: started with the configuration, replaced when that changes.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::carry::{self, COMMANDS_MAX, Carry, Command, Health};
use crate::config::{CarryWritten, Config};
use crate::identity::{self, Publisher};

/// What carries now, if anything does.
#[derive(Debug)]
pub(super) struct Carrying {
    written: CarryWritten,
    commands: mpsc::Receiver<Command>,
    health: Option<Health>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// Connections get a moment to end in order.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

impl Carrying {
    /// Takes the local addresses and begins. The device publishes to the other end; without anyone who
    /// carries, it takes each candidate unseen.
    ///
    /// # Errors
    /// When the configuration is wrong or an address is taken.
    pub(super) async fn start(config: &Config, path: &Path) -> anyhow::Result<(Self, Publisher)> {
        let (publisher, identities) = identity::channel();
        let (teller, commands) = mpsc::channel(COMMANDS_MAX);
        let stop = CancellationToken::new();
        let written = config.carry_at(path);
        let (mut health, mut task) = (None, None);
        if !written.is_empty() {
            let checked = carry::Config::check(&written.relay, written.telemetry.as_ref())?;
            let carry = Carry::bind(checked).await?;
            for address in carry.addresses() {
                tracing::info!(%address, "carries local traffic");
            }
            health = Some(carry.health());
            task = Some(tokio::spawn(carry.run(identities, teller, stop.clone())));
        }
        Ok((Self { written, commands, health, stop, task }, publisher))
    }

    /// Nothing is carried; for when a changed configuration could not be followed.
    pub(super) fn nothing() -> (Self, Publisher) {
        let (publisher, _) = identity::channel();
        let (_, commands) = mpsc::channel(COMMANDS_MAX);
        let written = CarryWritten::default();
        (Self { written, commands, health: None, stop: CancellationToken::new(), task: None }, publisher)
    }

    /// Whether a configuration asks for something else than what is carried.
    pub(super) fn differs(&self, config: &Config, path: &Path) -> bool {
        self.written != config.carry_at(path)
    }

    /// The next command that came over MQTT; never one, when nothing is carried.
    pub(super) async fn command(&mut self) -> Command {
        match self.commands.recv().await {
            Some(command) => command,
            None => std::future::pending().await,
        }
    }

    /// What `status` tells of it.
    pub(super) fn health(&self) -> Option<Health> {
        self.health.clone()
    }

    /// Ends it.
    pub(super) async fn finish(self) {
        self.stop.cancel();
        if let Some(task) = self.task
            && tokio::time::timeout(DRAIN_TIMEOUT, task).await.is_err()
        {
            tracing::warn!("local connections were still open at the end");
        }
    }
}
