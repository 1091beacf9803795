//! A carrying half of the agent that runs in the test: its local addresses, its identities, its verdicts.

use std::net::SocketAddr;
use std::time::Duration;

use muster_agent::carry::{
    COMMANDS_MAX, Carry, Command, Config, Health, Mode, RelayWritten, TelemetryWritten,
};
use muster_agent::identity::{self, Held, Publisher, Verdict};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The running half; it stops with [`Carrying::stop`], or when it is dropped.
pub struct Carrying {
    /// The local addresses, in the order of the relays.
    pub addresses: Vec<SocketAddr>,
    /// What `status` would tell.
    pub health: Health,
    /// Where commands arrive.
    pub commands: mpsc::Receiver<Command>,
    publisher: Publisher,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Carrying {
    /// Bind and run.
    pub async fn start(relays: &[RelayWritten], telemetry: Option<&TelemetryWritten>) -> Self {
        let config = Config::check(relays, telemetry).expect("a configuration");
        let carry = Carry::bind(config).await.expect("free addresses");
        let (publisher, identities) = identity::channel();
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let shutdown = CancellationToken::new();
        let (addresses, health) = (carry.addresses(), carry.health());
        let task = tokio::spawn(carry.run(identities, sender, shutdown.clone()));
        Self { addresses, health, commands, publisher, task, shutdown }
    }

    /// Replace what is held.
    pub fn hold(&self, held: Held) {
        self.publisher.publish(held);
    }

    /// The next verdict.
    pub async fn verdict(&mut self) -> Verdict {
        within(self.publisher.verdict()).await.expect("a carrying half")
    }

    /// Stop, and wait for the end.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        within(&mut self.task).await.expect("no panic");
    }
}

impl Drop for Carrying {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A relay from a free local port.
pub fn relay(mode: Mode, upstream: SocketAddr) -> RelayWritten {
    let scheme = match mode {
        Mode::Http => "https",
        Mode::Mqtt => "mqtts",
        Mode::Tcp => "tls",
    };
    RelayWritten {
        mode,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        upstream: format!("{scheme}://localhost:{}", upstream.port()),
        server_name: None,
        ca: None,
        alpn: Vec::new(),
        allow_remote: false,
        max_connections: None,
    }
}

/// Wait, but not for ever.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("within 20 s")
}
