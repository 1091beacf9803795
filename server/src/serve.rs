//! `muster serve`: the listeners, the upkeep, and an orderly end.
//!
//! [`Server::start`] binds everything and returns when all listeners accept; [`Server::run`] serves
//! until told to stop, then drains. Programs that embed a server use the same two.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use muster_admin::Api;
use muster_enroll::{Clock, ListenerLimits, Registrar, TlsSource, new_secret};
use muster_policy::name::Hostname;
use muster_store::act::{Retention, Tidy};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backup;
use crate::config::Config;
use crate::datadir::{DataDir, Readers, write_file};
use crate::edge::{self, EdgeRole, Edges, Everywhere, Follower, Others, Teller, machine_roots};
use crate::est_tls::EstTls;
use crate::init::{pem_of, reachable};
use crate::open;
use crate::outbound;
use crate::plain_http;
use crate::serving::Serving;
use crate::webhooks;

/// How often certificates, CRLs and old records are looked after.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Rows of one step of tidying; between steps others get their turn.
const TIDY_STEP: usize = 500;
/// Steps of one round; the rest waits for the next.
const TIDY_STEPS_MAX: usize = 200;

/// What a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// The admin API.
    pub admin: bool,
    /// The door of each hostname.
    pub edge: bool,
    /// EST.
    pub enroll: bool,
}

/// The line on standard output when all listeners accept.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    event: &'static str,
    /// Base of the admin API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// Base of EST.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub est: Option<String>,
    /// Address of the edge for HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_https: Option<String>,
    /// Address of the edge for MQTT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_mqtt: Option<String>,
    /// Base of the public CRL listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<String>,
}

/// A server whose listeners accept.
pub struct Server {
    dir: DataDir,
    config: Config,
    registrar: Arc<Registrar>,
    api: Arc<Api>,
    est_tls: Arc<EstTls>,
    edge: Option<EdgeRole>,
    teller: Teller,
    others: Arc<Others>,
    sockets: Sockets,
    ready: Ready,
    upkeep_now: Arc<Notify>,
}

struct Sockets {
    admin: Option<TcpListener>,
    est: Option<TcpListener>,
    https: Option<TcpListener>,
    mqtt: Option<TcpListener>,
    crl: Option<TcpListener>,
    edges: Option<UnixListener>,
    questions: Option<UnixListener>,
}

/// Where devices find EST: by the first name that the operator gave it, else by address.
fn est_url(config: &Config, address: SocketAddr) -> String {
    match config.est_names.first() {
        Some(name) => format!("https://{name}:{}", address.port()),
        None => format!("https://{}", reachable(address)),
    }
}

impl Server {
    /// Opens the account and binds the listeners.
    ///
    /// # Errors
    /// In words, when something can't be opened or bound.
    pub async fn start(dir: DataDir, config: Config, roles: Roles, clock: Clock) -> anyhow::Result<Self> {
        let config = within_file_limit(config);
        let (registrar, mut registry) =
            open::in_turn(|| async { open::account(&dir, &config, &clock) }).await?;
        let is_given = config.est_tls_files.is_some();
        let what =
            if is_given { "est.tls_certificate and est.tls_key" } else { "the EST server's certificate" };
        let est_tls = EstTls::start(
            dir.clone(),
            Arc::clone(registrar.authority()),
            clock,
            config.est_tls_files.clone(),
            &config.est_names,
            &zones(&registrar)?,
        );
        let est_tls = Arc::new(est_tls.context(what)?);
        write_ca_file(&dir, &registrar)?;
        let (feed, edges) = (edge::feed(&dir, &registrar)?, Edges::new());
        let edge = if roles.edge {
            let feed = Arc::clone(&feed);
            Some(EdgeRole::start(&dir, &config, &registrar, feed, &edges, &mut registry).await?)
        } else {
            None
        };
        let sockets = Sockets {
            admin: bind(roles.admin.then_some(config.listen_admin), "listen.admin")?,
            est: bind(roles.enroll.then_some(config.listen_est), "listen.est")?,
            https: bind(roles.edge.then_some(config.listen_https), "listen.https")?,
            mqtt: bind(roles.edge.then_some(config.listen_mqtt), "listen.mqtt")?,
            crl: bind(config.listen_crl.filter(|_| roles.enroll), "listen.crl")?,
            edges: config.listen_edges.as_deref().map(edge::listen).transpose()?,
            questions: config.listen_edges.as_deref().map(edge::listen_for_questions).transpose()?,
        };
        let own = edge.as_ref().map(|edge| edge.named(config.edge_name.clone()));
        let can_be_edges = own.is_some() || sockets.edges.is_some();
        let others = Others::beside(own.as_ref().map(|own| own.name.clone()));
        let everywhere = Arc::new(Everywhere { own, others: Arc::clone(&others) });
        let secret = new_secret("msl_")?;
        let hooks = muster_admin::Hooks {
            edge_is_at: Some(edges.slowest()),
            edge_figures: edge.as_ref().map(EdgeRole::figures),
            edge_connections: can_be_edges.then(|| Everywhere::reading(&everywhere)),
            close_connections: can_be_edges.then(|| Everywhere::closing(&everywhere)),
            outbound: outbound::settings(&config, machine_roots())?,
            webhooks: webhooks::settings(&dir, registrar.authority())?,
            rehearse: edge.as_ref().map(EdgeRole::rehearse),
            est_url: address(&sockets.est)?.map(|address| est_url(&config, address)),
            backup: backup::hook(&dir, &registrar),
            zones_changed: changes_hook(&dir, &est_tls, &registrar),
        };
        let api = Api::new(Arc::clone(&registrar), registry, secret, config.crl_lifetime, hooks);
        let ready = Ready {
            event: "ready",
            admin: address(&sockets.admin)?.map(|address| format!("http://{address}")),
            est: address(&sockets.est)?.map(|address| format!("https://{}", reachable(address))),
            edge_https: address(&sockets.https)?.map(reachable),
            edge_mqtt: address(&sockets.mqtt)?.map(reachable),
            crl: address(&sockets.crl)?.map(|address| format!("http://{}", reachable(address))),
        };
        let upkeep_now = Arc::new(Notify::new());
        let teller = Teller::new(feed, registrar.ledger().newest_change(), edges);
        Ok(Self {
            dir,
            config,
            registrar,
            api: Arc::new(api),
            est_tls,
            edge,
            teller,
            others,
            sockets,
            ready,
            upkeep_now,
        })
    }

    /// Wakes the upkeep: TLS files are read again, due CRLs made, at once.
    pub fn upkeep_now(&self) -> Arc<Notify> {
        Arc::clone(&self.upkeep_now)
    }

    /// Where the listeners are.
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Serves until `stop`, then drains: no new connections, what began ends, the ledger is closed.
    ///
    /// `ready` is called once, when every listener accepts.
    ///
    /// # Errors
    /// When a listener fails for good, or the note for local commands can't be written.
    pub async fn run(
        self,
        stop: CancellationToken,
        ready: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if let Err(error) = self.registrar.authority().renew_due_crls(self.config.crl_lifetime).await {
            tracing::error!(%error, "a CRL is late");
        }
        let note = self.dir.serving();
        if let Some(admin) = &self.ready.admin {
            let serving = Serving::new(admin, self.api.local_secret());
            write_file(&note, &serving.to_json()?, Readers::Owner)?;
        }
        let tasks = TaskTracker::new();
        let Self { dir, registrar, api, est_tls, edge, teller, others, config, sockets, upkeep_now, .. } =
            self;
        if let Some(socket) = sockets.est {
            let tls = est_tls.source().clone();
            tasks.spawn(serve_est(socket, Arc::clone(&registrar), tls, config.listener, stop.clone()));
        }
        if let Some(edge) = edge {
            let (https, mqtt, stop) = (sockets.https, sockets.mqtt, stop.clone());
            tasks.spawn(async move { edge.run(https, mqtt, stop).await });
        }
        if let Some(socket) = sockets.edges {
            tasks.spawn(teller.serve(socket, stop.clone()));
        }
        if let Some(socket) = sockets.questions {
            tasks.spawn(others.serve(socket, stop.clone()));
        }
        let (ending, stopped) = (Arc::clone(&api), stop.clone());
        tasks.spawn(async move {
            stopped.cancelled().await;
            ending.stop();
        });
        if let Some(socket) = sockets.admin {
            tasks.spawn(muster_admin::deliver_webhooks(Arc::clone(&api), stop.clone()));
            tasks.spawn(muster_admin::fetch_lists(Arc::clone(&api), stop.clone()));
            tasks.spawn(plain_http::serve(socket, muster_admin::router(Arc::clone(&api)), stop.clone()));
        }
        if let Some(socket) = sockets.crl {
            tasks.spawn(plain_http::serve(socket, muster_admin::crl_router(Arc::clone(&api)), stop.clone()));
        }
        tasks.spawn(upkeep(dir, Arc::clone(&registrar), est_tls, config, upkeep_now, stop.clone()));
        let writer = Arc::clone(&registrar);
        let stop_writing = CancellationToken::new();
        let written = stop_writing.clone();
        let refusals = tokio::spawn(async move { writer.write_refusals_until(&written).await });
        ready()?;
        tasks.close();
        tasks.wait().await;
        api.drain().await;
        registrar.drain().await;
        stop_writing.cancel();
        refusals.await?;
        if let Err(error) = std::fs::remove_file(&note)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the note for local commands stays");
        }
        Ok(())
    }
}

/// An edge in a process of its own, whose listeners accept.
pub struct EdgeServer {
    follower: Follower,
    https: Option<TcpListener>,
    mqtt: Option<TcpListener>,
    metrics: Option<TcpListener>,
    registry: Arc<Registry>,
    ready: Ready,
}

impl EdgeServer {
    /// Opens what it knew last, and binds the listeners. `socket` is where a server tells of changes; metrics and
    /// health are at the admin address, if that role is among them.
    ///
    /// # Errors
    /// In words, when something can't be opened or bound.
    pub fn start(
        dir: &DataDir,
        config: Config,
        socket: PathBuf,
        roles: Roles,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !roles.enroll && roles.edge,
            "an edge that follows a server runs with `--roles edge`"
        );
        let config = within_file_limit(config);
        let mut registry = Registry::with_prefix("muster");
        let follower = Follower::open(dir, &config, socket, clock, &mut registry)?;
        let https = bind(Some(config.listen_https), "listen.https")?;
        let mqtt = bind(Some(config.listen_mqtt), "listen.mqtt")?;
        let metrics = bind(roles.admin.then_some(config.listen_admin), "listen.admin")?;
        let ready = Ready {
            event: "ready",
            admin: address(&metrics)?.map(|address| format!("http://{address}")),
            est: None,
            edge_https: address(&https)?.map(reachable),
            edge_mqtt: address(&mqtt)?.map(reachable),
            crl: None,
        };
        Ok(Self { follower, https, mqtt, metrics, registry: Arc::new(registry), ready })
    }

    /// Where the listeners are.
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Serves until `stop`, then drains. `ready` is called once.
    ///
    /// # Errors
    /// When `ready` fails.
    pub async fn run(
        self,
        stop: CancellationToken,
        ready: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let tasks = TaskTracker::new();
        if let Some(socket) = self.metrics {
            tasks.spawn(plain_http::serve(socket, muster_admin::figures_router(self.registry), stop.clone()));
        }
        self.follower.run(self.https, self.mqtt, stop, ready).await?;
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

/// Of the descriptors a quarter is for EST, and most of the rest for the edge, which needs a second
/// one for the origin of each HTTP connection; some stay for the ledger and the system.
fn within_file_limit(mut config: Config) -> Config {
    let files = raise_file_limit();
    config.listener.connections = config.listener.connections.min(files / 4).max(1);
    config.edge.connections = config.edge.connections.min(files / 3 * 2).max(1);
    config
}

async fn serve_est(
    socket: TcpListener,
    registrar: Arc<Registrar>,
    tls: TlsSource,
    limits: ListenerLimits,
    stop: CancellationToken,
) {
    muster_enroll::serve(socket, registrar, tls, limits, stop).await;
}

/// Looks after what ages: the TLS certificate, CRLs, old records, rate limits.
async fn upkeep(
    dir: DataDir,
    registrar: Arc<Registrar>,
    est_tls: Arc<EstTls>,
    config: Config,
    now: Arc<Notify>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = now.notified() => {}
            () = tokio::time::sleep(UPKEEP_INTERVAL) => {}
        }
        registrar.forget_idle();
        follow(&dir, &est_tls, &registrar);
        if let Err(error) = registrar.authority().renew_due_crls(config.crl_lifetime).await {
            tracing::error!(%error, "a CRL is late");
        }
        tidy(&registrar, &config).await;
    }
}

async fn tidy(registrar: &Registrar, config: &Config) {
    let keep = Retention { certificates: config.keep_ended, ..Retention::default() };
    for _ in 0..TIDY_STEPS_MAX {
        match registrar.ledger().offer(Tidy { now: registrar.clock().now(), keep, step: TIDY_STEP }).await {
            Ok(tidied) if tidied.more => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "tidying waits for the next round");
                return;
            }
        }
    }
}

fn zones(registrar: &Registrar) -> anyhow::Result<Vec<Hostname>> {
    let zones = registrar.ledger().reader()?.zones(registrar.account())?;
    Ok(zones.into_iter().map(|zone| zone.name).collect())
}

fn changes_hook(
    dir: &DataDir,
    est_tls: &Arc<EstTls>,
    registrar: &Arc<Registrar>,
) -> muster_admin::ZonesChanged {
    let (dir, est_tls, registrar) = (dir.clone(), Arc::clone(est_tls), Arc::clone(registrar));
    Arc::new(move || follow(&dir, &est_tls, &registrar))
}

/// The server's own certificate follows zones and CAs, and `ca.pem` follows the roots.
fn follow(dir: &DataDir, est_tls: &EstTls, registrar: &Registrar) {
    if let Err(error) = zones(registrar).and_then(|zones| Ok(est_tls.refresh(&zones)?)) {
        tracing::error!(%error, "the EST listener keeps its old TLS certificate");
    }
    if let Err(error) = write_ca_file(dir, registrar) {
        tracing::error!(%error, "ca.pem keeps its old content");
    }
}

/// `ca.pem` follows the roots also when no server runs.
pub(crate) fn ca_file_hook(dir: &DataDir, registrar: &Arc<Registrar>) -> muster_admin::ZonesChanged {
    let (dir, registrar) = (dir.clone(), Arc::clone(registrar));
    Arc::new(move || {
        if let Err(error) = write_ca_file(&dir, &registrar) {
            tracing::error!(%error, "ca.pem keeps its old content");
        }
    })
}

/// Writes what clients must trust, when it changed; a restored directory has no such file yet.
fn write_ca_file(dir: &DataDir, registrar: &Registrar) -> std::io::Result<()> {
    let text = pem_of(&registrar.authority().trust().roots);
    if std::fs::read(dir.ca_file()).is_ok_and(|kept| kept == text.as_bytes()) {
        return Ok(());
    }
    write_file(&dir.ca_file(), text.as_bytes(), Readers::World)
}

/// Connections that the system keeps until they are accepted; it may have a lower bound of its own. A client that
/// finds no room tries again after a second at the earliest.
const BACKLOG: u32 = 4096;

fn bind(address: Option<SocketAddr>, field: &str) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A server that starts again does not wait for the last connections of its forerunner.
        socket.set_reuseaddr(true)?;
        // Answers are small writes, whose last segment would wait for an ACK. Connections have it from their listener.
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    Ok(Some(bind().with_context(|| format!("can't listen on {address} ({field})"))?))
}

fn address(socket: &Option<TcpListener>) -> anyhow::Result<Option<SocketAddr>> {
    Ok(socket.as_ref().map(TcpListener::local_addr).transpose()?)
}

/// Takes all file descriptors the system grants; returns how many.
fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!("the limit of open files can't be raised");
    }
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(current).unwrap_or(usize::MAX)
}
