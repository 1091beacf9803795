//! The edge and the broker in this process: what the ledger says is told to the edge, and MQTT that
//! the edge let in is handed to the broker. Edges in other processes are told the same.

mod certificates;
mod connections;
mod edges;
mod feed;
mod follower;
mod handover;
mod others;
mod teller;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use muster_admin::{EdgeFigures, ReadEdge, Rehearse};
use muster_broker::Broker;
use muster_edge::{Edge, EdgeConfig, ListenerKind, Update};
use muster_enroll::{Clock, Registrar};
use muster_policy::name::EdgeName;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::certificates::Certificates;
pub(crate) use self::connections::{Everywhere, Named};
pub(crate) use self::edges::Edges;
use self::edges::Seat;
pub(crate) use self::feed::Feed;
pub(crate) use self::follower::Follower;
use self::handover::Gate;
pub(crate) use self::others::{Others, listen_for_questions};
pub(crate) use self::teller::{Teller, listen};
use crate::config::Config;
use crate::datadir::DataDir;

/// How often the edge hears that nothing changed.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How often certificates of hostnames are looked at: a look asks the file system once per hostname.
const CERTIFICATES_INTERVAL: Duration = Duration::from_secs(5);

/// The edge and its broker.
pub(crate) struct Doors {
    edge: Edge,
    broker: Broker,
}

impl Doors {
    /// Opens both, with what they knew last.
    ///
    /// # Errors
    /// In words, when something can't be opened.
    fn open(dir: &DataDir, config: &Config, clock: &Clock, registry: &mut Registry) -> anyhow::Result<Self> {
        let mut settings = config.broker.clone();
        let file = settings.file.map_or_else(|| dir.broker(), |file| dir.path().join(file));
        settings.file = Some(file.clone());
        let broker = Broker::start(&settings, clock.now())
            .with_context(|| format!("the MQTT broker with the file {}", file.display()))?;
        handover::register(&broker, registry);
        let edge_config = EdgeConfig {
            limits: config.edge,
            staleness_allowed_for: config.stale_after,
            machine_roots: Arc::new(machine_roots()),
            denied_networks: config.denied_networks.clone(),
            last_known_good: Some(dir.edge_snapshot()),
            clock: edge_clock(clock),
            ..EdgeConfig::default()
        };
        let edge = Edge::start(edge_config, Arc::new(Gate::new(broker.clone())), registry)?;
        broker.heed(edge.senders());
        Ok(Self { edge, broker })
    }

    /// Serves while it follows what changes, then drains. `following` ends with `stop`.
    async fn serve(
        &self,
        https: Option<TcpListener>,
        mqtt: Option<TcpListener>,
        stop: CancellationToken,
        following: impl Future<Output = ()>,
    ) {
        let tasks = TaskTracker::new();
        for (socket, kind) in [(https, ListenerKind::Https), (mqtt, ListenerKind::Mqtt)] {
            let Some(socket) = socket else { continue };
            let (edge, stop) = (self.edge.clone(), stop.clone());
            tasks.spawn(async move { edge.serve(socket, kind, stop).await });
        }
        following.await;
        self.broker.drain();
        self.edge.drain().await;
        tasks.close();
        tasks.wait().await;
        self.broker.close().await;
    }
}

/// What edges are told of the account of this directory.
///
/// # Errors
/// In words, when a folder can't be made.
pub(crate) fn feed(dir: &DataDir, registrar: &Arc<Registrar>) -> anyhow::Result<Arc<Feed>> {
    let clock = registrar.clock().clone();
    let certificates = Certificates::new(dir, Arc::clone(registrar.authority()), clock)
        .context("the folder of the hostnames' certificates")?;
    Ok(Arc::new(Feed::new(registrar, certificates)))
}

/// The edge of this process, its broker, and how far it follows the ledger.
pub(crate) struct EdgeRole {
    doors: Doors,
    feed: Arc<Feed>,
    changes: watch::Receiver<u64>,
    seat: Seat,
}

impl EdgeRole {
    /// Starts both; the edge knows the whole ledger when this returns.
    ///
    /// # Errors
    /// In words, when something can't be opened.
    pub(crate) async fn start(
        dir: &DataDir,
        config: &Config,
        registrar: &Arc<Registrar>,
        feed: Arc<Feed>,
        edges: &Arc<Edges>,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let doors = Doors::open(dir, config, registrar.clock(), registry)?;
        let changes = registrar.ledger().newest_change();
        let role = Self { doors, feed, changes, seat: edges.seat(0) };
        role.take_snapshot().await?;
        Ok(role)
    }

    /// Asks the edge what would become of a visit.
    pub(crate) fn rehearse(&self) -> Rehearse {
        let edge = self.doors.edge.clone();
        Arc::new(move |rehearsal| edge.rehearse(rehearsal))
    }

    /// Reads what the edge counts.
    pub(crate) fn figures(&self) -> ReadEdge {
        let edge = self.doors.edge.clone();
        Arc::new(move || {
            let counted = edge.counters();
            let by_reason = counted.refused_by_reason.into_iter();
            EdgeFigures {
                connections_https: counted.connections_https,
                connections_mqtt: counted.connections_mqtt,
                certificates_connected: counted.certificates_connected,
                handshakes: counted.handshakes,
                handshakes_refused: counted.handshakes_refused,
                requests: counted.requests,
                cut: counted.cut,
                refused_by_reason: by_reason.map(|(reason, count)| (reason.code(), count)).collect(),
            }
        })
    }

    /// The edge by its name.
    pub(crate) fn named(&self, name: EdgeName) -> Named {
        Named { name, edge: self.doors.edge.clone() }
    }

    /// Serves until `stop`, then drains.
    pub(crate) async fn run(
        self,
        https: Option<TcpListener>,
        mqtt: Option<TcpListener>,
        stop: CancellationToken,
    ) {
        self.doors.serve(https, mqtt, stop.clone(), self.follow(&stop)).await;
    }

    /// Tells the edge of every change as it is committed.
    async fn follow(&self, stop: &CancellationToken) {
        let mut changes = self.changes.clone();
        let [mut heartbeat, mut looks] = [HEARTBEAT_INTERVAL, CERTIFICATES_INTERVAL].map(ticks);
        loop {
            let done = tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.catch_up().await
                }
                _ = heartbeat.tick() => self.catch_up().await,
                _ = looks.tick() => self.renew_certificates().await,
            };
            if let Err(error) = done {
                // The edge goes on with what it has; hosts that are to be closed then, close by staleness.
                tracing::error!(error = format!("{error:#}"), "the edge can't follow the ledger now");
            }
        }
    }

    /// Gives the edge the certificates that have to change.
    async fn renew_certificates(&self) -> anyhow::Result<()> {
        let at = self.doors.edge.change();
        match self.blocking(move |feed| feed.due_certificates(at)).await? {
            Some(update) => self.apply(update).await,
            None => Ok(()),
        }
    }

    /// Applies what there is to apply.
    async fn catch_up(&self) -> anyhow::Result<()> {
        loop {
            let at = self.doors.edge.change();
            let update = self.blocking(move |feed| feed.since(at)).await?;
            self.apply(update).await?;
            if self.doors.edge.change() == at {
                return Ok(());
            }
        }
    }

    async fn take_snapshot(&self) -> anyhow::Result<()> {
        let snapshot = self.blocking(Feed::snapshot).await?;
        self.apply(Update::Snapshot(Box::new(snapshot))).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Feed) -> Result<T, muster_store::Fault> + Send + 'static,
    ) -> anyhow::Result<T> {
        let feed = Arc::clone(&self.feed);
        Ok(tokio::task::spawn_blocking(move || read(&feed)).await??)
    }

    /// Applies an update. What of it can't be used is in the log, and all the rest is in force.
    async fn apply(&self, mut update: Update) -> anyhow::Result<()> {
        loop {
            let edge = self.doors.edge.clone();
            match tokio::task::spawn_blocking(move || edge.apply(update)).await? {
                Ok(applied) => {
                    if applied.cut > 0 {
                        tracing::info!(connections = applied.cut, "connections were cut");
                    }
                    self.seat.is_at(self.doors.edge.change());
                    return Ok(());
                }
                Err(gap) => {
                    tracing::info!(%gap, "the edge gets everything anew");
                    update = Update::Snapshot(Box::new(self.blocking(Feed::snapshot).await?));
                }
            }
        }
    }
}

/// Ticks that are not made up for.
fn ticks(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The edge judges certificates by the same clock as everything else here.
fn edge_clock(clock: &Clock) -> muster_edge::Clock {
    let clock = clock.clone();
    muster_edge::Clock::from_fn(move || clock.now())
}

/// What the machine trusts, for `https://` origins and receivers of webhooks.
pub(crate) fn machine_roots() -> rustls::RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a trusted root of this machine can't be read");
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}
