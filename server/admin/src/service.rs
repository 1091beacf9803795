//! What every route works with: the registrar, the settings, and the hooks into the server.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use muster_enroll::Registrar;
use muster_policy::host::{HostPattern, Protocol};
use muster_policy::identity::{AccountId, CaId, Serial};
use muster_policy::name::{DeviceId, EdgeName};
use muster_policy::rehearsal::{Rehearsal, Rehearsed};
use muster_policy::time::UnixTime;
use muster_store::{Fault, Reader};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::api::events::{self, EventStreams};
use crate::auth::Slowdown;
use crate::carry::Places;
use crate::error::ApiError;
use crate::idempotency::UnderWay;
use crate::lists::Lists;
use crate::metrics::{LedgerFigures, Requests};
use crate::outbound::{Outbound, OutboundSettings};
use crate::paging::ends::PageEnds;
use crate::webhooks::{WebhookSettings, Webhooks};

/// How long an answer waits for the edges.
const IN_FORCE_WAIT: Duration = Duration::from_secs(5);

/// Makes a backup and hands out the file to read it from. An error of the kind `InvalidInput` is told to
/// the caller, who can mend it.
pub type Backup = Arc<dyn Fn() -> BoxFuture<'static, io::Result<File>> + Send + Sync>;
/// Told after a zone was added or the services CA replaced, so that the server's own TLS names follow.
pub type ZonesChanged = Arc<dyn Fn() + Send + Sync>;

/// What the edge counts, as far as people look at it; totals count from its start.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct EdgeFigures {
    /// HTTPS connections open.
    pub connections_https: usize,
    /// MQTT connections open.
    pub connections_mqtt: usize,
    /// Distinct client certificates with an open connection.
    pub certificates_connected: usize,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Handshakes refused for the client's certificate.
    pub handshakes_refused: u64,
    /// HTTP requests answered, refusals among them.
    pub requests: u64,
    /// Connections ended because of a change, or the end of a certificate.
    pub cut: u64,
    /// Refusals in handshakes and after, by the reason's code.
    #[schema(value_type = Vec<Vec<Value>>)]
    pub refused_by_reason: Vec<(&'static str, u64)>,
}

/// How far edges go by the changes that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// One of them lags.
    Awaited,
    /// All of them go by all that was stored when it was asked.
    Complete,
}

/// Reads the edge's figures.
pub type ReadEdge = Arc<dyn Fn() -> EdgeFigures + Send + Sync>;

/// Which live connections are looked for; none means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionFilter {
    /// Only those to this edge.
    pub edge: Option<EdgeName>,
    /// Only those of this certificate.
    pub certificate: Option<(CaId, Serial)>,
    /// Only those of this device.
    pub device: Option<(AccountId, DeviceId)>,
    /// Only those to this hostname.
    pub host: Option<HostPattern>,
    /// Only the one of this number; each edge has its own numbers.
    pub number: Option<u64>,
    /// Only those that lists have behind this place.
    pub before: Option<ConnectionPlace>,
    /// How many of the newest are passed over.
    pub skip: usize,
    /// Most that are shown.
    pub limit: usize,
}

/// Where a connection stands in lists, which begin with the greatest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnectionPlace {
    /// When its handshake was done.
    pub since: UnixTime,
    /// Its edge.
    pub edge: EdgeName,
    /// Its number there.
    pub number: u64,
}

/// A live connection at an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The edge.
    pub edge: EdgeName,
    /// Its number; grows with each connection of the edge's process.
    pub number: u64,
    /// The hostname, or the wildcard it came under.
    pub host: HostPattern,
    /// HTTPS or MQTT.
    pub protocol: Protocol,
    /// Issuer and serial of its certificate; none without one.
    pub certificate: Option<(CaId, Serial)>,
    /// The device of that certificate.
    pub device: Option<DeviceId>,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// When its handshake was done.
    pub since: UnixTime,
}

impl Connection {
    /// Where it stands in lists.
    pub fn place(&self) -> ConnectionPlace {
        ConnectionPlace { since: self.since, edge: self.edge.clone(), number: self.number }
    }
}

/// Live connections that were looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// A part of them, newest first.
    pub found: Vec<Connection>,
    /// How many there are in all.
    pub total: usize,
    /// How many edges were asked, and answered.
    pub edges: usize,
}

/// Finds live connections at all edges.
pub type ReadConnections = Arc<dyn Fn(ConnectionFilter) -> BoxFuture<'static, Connections> + Send + Sync>;
/// Orders the end of live connections, and tells how many heard it first; paging is not looked at.
pub type CloseConnections = Arc<dyn Fn(ConnectionFilter) -> BoxFuture<'static, usize> + Send + Sync>;
/// Asks the edge what would become of a visit; may block the thread for one check of a certificate.
pub type Rehearse = Arc<dyn Fn(&Rehearsal) -> Rehearsed + Send + Sync>;

/// What the API asks of the server around it.
#[derive(Clone)]
pub struct Hooks {
    /// Makes a backup.
    pub backup: Backup,
    /// The zones, or the services CA, changed.
    pub zones_changed: ZonesChanged,
    /// Up to which change the edge of this process is; none when it has no edge.
    pub edge_is_at: Option<watch::Receiver<u64>>,
    /// What that edge counts.
    pub edge_figures: Option<ReadEdge>,
    /// Who is connected to it, and to edges in other processes; none when there can be no edge.
    pub edge_connections: Option<ReadConnections>,
    /// Ends connections to them.
    pub close_connections: Option<CloseConnections>,
    /// How the server makes requests by itself: to webhooks, and for CRLs of CAs.
    pub outbound: OutboundSettings,
    /// How webhooks are delivered.
    pub webhooks: WebhookSettings,
    /// Asks that edge what would become of a visit.
    pub rehearse: Option<Rehearse>,
    /// Where devices enroll, as `https://HOST:PORT`; none when they don't do it at this process.
    pub est_url: Option<String>,
}

/// The admin API of one account.
pub struct Api {
    registrar: Arc<Registrar>,
    registry: Registry,
    requests: Requests,
    local_secret: Zeroizing<String>,
    crl_lifetime: Duration,
    hooks: Hooks,
    started_at: UnixTime,
    slowdown: Slowdown,
    keys_under_way: UnderWay,
    places: Places,
    page_ends: PageEnds,
    turn: Mutex<()>,
    tasks: TaskTracker,
    streams: EventStreams,
    webhooks: Webhooks,
    lists: Lists,
    stop: CancellationToken,
}

impl Api {
    /// Puts the parts together; the figures of API and ledger are added to `registry`.
    ///
    /// `local_secret` is a bearer token that stands for someone with access to the data directory; it
    /// lives as long as the process.
    pub fn new(
        registrar: Arc<Registrar>,
        mut registry: Registry,
        local_secret: Zeroizing<String>,
        crl_lifetime: Duration,
        hooks: Hooks,
    ) -> Self {
        let requests = Requests::new(&mut registry);
        registry.register_collector(Box::new(LedgerFigures::new(Arc::clone(&registrar))));
        let started_at = registrar.clock().now();
        let outbound = Arc::new(Outbound::new(&hooks.outbound));
        let lists = Lists::new(Arc::clone(&outbound), &mut registry);
        let webhooks = Webhooks::new(hooks.webhooks.clone(), outbound);
        Self {
            registrar,
            registry,
            requests,
            local_secret,
            crl_lifetime,
            hooks,
            started_at,
            slowdown: Slowdown::default(),
            keys_under_way: UnderWay::default(),
            places: Places::default(),
            page_ends: PageEnds::default(),
            turn: Mutex::new(()),
            tasks: TaskTracker::new(),
            streams: events::streams(),
            webhooks,
            lists,
            stop: CancellationToken::new(),
        }
    }

    /// The bearer token of local commands.
    pub fn local_secret(&self) -> &str {
        &self.local_secret
    }

    /// Ends what would go on for ever: the server stops.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the server stops.
    pub(crate) async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    pub(crate) const fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    pub(crate) const fn lists(&self) -> &Lists {
        &self.lists
    }

    pub(crate) const fn streams(&self) -> &EventStreams {
        &self.streams
    }

    /// Waits until changes that outlive their clients are carried out; new ones then run no longer.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Reads the ledger off the async threads: a filtered list may take some 100 ms.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, ApiError> {
        let reader = self.registrar.ledger().reader()?;
        let done = tokio::task::spawn_blocking(move || read(&reader)).await;
        Ok(done.map_err(ApiError::internal)??)
    }

    /// Waits until the edges go by every change that is stored now.
    ///
    /// An edge that does not keep up is no reason to keep an operator waiting for ever.
    pub(crate) async fn wait_until_in_force(&self) -> Force {
        let Some(mut edge) = self.hooks.edge_is_at.clone() else { return Force::Complete };
        let newest = *self.registrar.ledger().newest_change().borrow();
        let there = edge.wait_for(|at| *at >= newest);
        if tokio::time::timeout(IN_FORCE_WAIT, there).await.is_ok_and(|there| there.is_ok()) {
            return Force::Complete;
        }
        tracing::warn!(change = newest, "the edge does not go by a change yet");
        Force::Awaited
    }

    pub(crate) const fn registrar(&self) -> &Arc<Registrar> {
        &self.registrar
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.registrar.clock().now()
    }

    pub(crate) const fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) const fn requests(&self) -> &Requests {
        &self.requests
    }

    pub(crate) const fn crl_lifetime(&self) -> Duration {
        self.crl_lifetime
    }

    pub(crate) const fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    pub(crate) const fn started_at(&self) -> UnixTime {
        self.started_at
    }

    pub(crate) const fn keys_under_way(&self) -> &UnderWay {
        &self.keys_under_way
    }

    /// Who may be carried out at once.
    pub(crate) const fn places(&self) -> &Places {
        &self.places
    }

    /// Where numbered pages ended.
    pub(crate) const fn page_ends(&self) -> &PageEnds {
        &self.page_ends
    }

    /// Waits for the turn to change what is read, merged and stored whole: hostnames, rules, Access. Of two such
    /// changes of one state at once, one would be lost or refused; in turn each is made of what the other left.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Runs what must not end with its client.
    pub(crate) const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(crate) const fn slowdown(&self) -> &Slowdown {
        &self.slowdown
    }
}
