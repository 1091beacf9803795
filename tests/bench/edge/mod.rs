//! CPU and memory of the edge per connection.
//!
//! Rounds of loads in turn on Muster, nginx and mosquitto, which show the same certificate and demand
//! those of the same devices; ratios are taken inside a round. A certificate that a server sees for the
//! first time is one that Muster verifies; the second time it knows the chain. Then, each on processes
//! of their own: changes under load, idle connections, and edges of the library with a million revoked
//! certificates and with ten thousand hostnames. Servers have one processor, and this process the other.

pub(crate) mod alone;
mod caller;
pub(crate) mod crowd;
pub(crate) mod flood;
mod load;
mod peers;
pub(crate) mod revoke;
mod site;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use self::caller::{Caller, Line, get};
use self::load::{cpu_each, do_all};
use self::peers::{load_average, mosquitto, nginx, origin};
use self::revoke::Visits;
use self::site::{DOOR, MQTT, PROXY, Site};
use crate::fleet::Device;
use crate::processors::{self, pin};
use crate::server::Server;
use crate::{Goals, bound, median};

/// Goals; ratios in one run.
const HTTPS_TO_NGINX: f64 = 0.35;
const HTTPS_TO_BOUND: f64 = 2.0;
const KNOWN_TO_NEW: f64 = 0.85;
const MQTT_TO_MOSQUITTO: f64 = 0.30;
const PROXIED_TO_NGINX: f64 = 1.0;
const REVOKED_TO_NONE: f64 = 1.03;
const HOSTS_TO_ONE: f64 = 1.05;
const KIB_PER_HOST: f64 = 4.0;
const KIB_PER_IDLE: f64 = 18.0;

const HOSTS: usize = 10_000;
const REVOKED: usize = 1_000_000;
/// Connections before anything is measured.
const WARM_UP: usize = 256;
/// Kept connections, and requests on each, of a proxied load.
const KEPT: usize = 32;
const REQUESTS: usize = 256;
/// Clients and changes of the load under which rules change.
const VISITORS: usize = 8;
const CHANGES: usize = 20;
/// What Muster answers at DOOR, which has no origin; and the others.
const DOOR_STATUS: u16 = 502;
const OK: u16 = 200;

/// Arguments of `edge`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Certificates of a round of HTTPS.
    #[arg(long, default_value_t = 1_024)]
    https: usize,
    /// Certificates of a round of MQTT.
    #[arg(long, default_value_t = 512)]
    mqtt: usize,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Connections at once.
    #[arg(long, default_value_t = 16)]
    at_once: usize,
    /// Idle connections.
    #[arg(long, default_value_t = 5_000)]
    idle: usize,
    /// Only this load, on Muster alone; for profilers.
    #[arg(long, value_enum)]
    only: Option<Load>,
}

/// What Muster is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Load {
    /// New HTTPS connections.
    Https,
    /// New HTTPS connections of certificates that were seen before.
    Known,
    /// New MQTT connections.
    Mqtt,
    /// Requests to the origin on kept connections.
    Proxied,
}

/// The figures of all rounds, by what they are.
#[derive(Default)]
struct Figures {
    https_to_nginx: Vec<f64>,
    https_to_bound: Vec<f64>,
    known_to_new: Vec<f64>,
    mqtt_to_mosquitto: Vec<f64>,
    proxied_to_nginx: Vec<f64>,
}

/// Measures.
#[expect(clippy::print_stdout, reason = "the report of a bench")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Goals> {
    pin(processors::LOAD, std::process::id()).await?;
    let each = arguments.https + arguments.mqtt;
    let count = (each * arguments.rounds).max(arguments.idle) + WARM_UP;
    let (site, devices) = Site::found(count).await?;
    let (warm, devices) = devices.split_at(WARM_UP);
    let origin = origin().await?;
    let muster = site.serve_apart(origin).await?;
    if let Some(load) = arguments.only {
        return only(load, &site, devices, muster, &arguments).await;
    }
    let mut goals = Goals::Met;
    let mut figures = Figures::default();
    let (nginx, mosquitto) = (nginx(&site, origin).await?, mosquitto(&site).await?);
    let servers = Servers { muster, nginx, mosquitto };
    servers.round(&site, warm, warm, &arguments).await?;
    println!("CPU ms    https  known  nginx  bound   mqtt  mosq. origin  nginx  proxied  nginx   load");
    for round in devices.chunks_exact(each).take(arguments.rounds) {
        let (https, mqtt) = round.split_at(arguments.https);
        let found = servers.round(&site, https, mqtt, &arguments).await?;
        found.print();
        figures.add(&found);
    }
    figures.check(&mut goals);
    reload(&site, &servers.muster, warm).await?;
    println!("resident: muster {:.1} MiB", servers.muster.resident_mib()?);
    servers.stop().await?;
    idle(&site, devices.get(..arguments.idle).context("devices")?, origin, &mut goals).await?;
    size(&site, devices, &arguments, &mut goals).await?;
    println!("load average {}", load_average());
    Ok(goals)
}

/// One load, round after round.
#[expect(clippy::print_stdout, reason = "the report of a bench")]
async fn only(
    load: Load,
    site: &Site,
    devices: &[Device],
    muster: Server,
    arguments: &Arguments,
) -> anyhow::Result<Goals> {
    println!("muster is process {}", muster.pid());
    for round in devices.chunks_exact(arguments.https).take(arguments.rounds) {
        let round =
            if load == Load::Known { devices.get(..arguments.https).context("devices")? } else { round };
        let callers = site.callers(round)?;
        let ms = match load {
            Load::Https | Load::Known => https(&muster, &callers, (DOOR, DOOR_STATUS), arguments).await?,
            Load::Mqtt => mqtt(&muster, &callers, arguments).await?,
            Load::Proxied => proxied(&muster, callers.get(..KEPT).context("callers")?).await?,
        };
        println!("{load:?} {ms:.4} ms");
    }
    muster.stop().await?;
    Ok(Goals::Met)
}

/// The three that are compared.
struct Servers {
    muster: Server,
    nginx: Server,
    mosquitto: Server,
}

/// CPU milliseconds of one round.
struct Round {
    https: f64,
    known: f64,
    nginx: f64,
    bound: f64,
    through: f64,
    through_nginx: f64,
    mqtt: f64,
    mosquitto: f64,
    proxied: f64,
    proxied_nginx: f64,
}

impl Servers {
    async fn round(
        &self,
        site: &Site,
        first: &[Device],
        second: &[Device],
        arguments: &Arguments,
    ) -> anyhow::Result<Round> {
        let (https_callers, mqtt_callers) = (site.callers(first)?, site.callers(second)?);
        let kept = https_callers.get(..KEPT.min(https_callers.len())).context("callers")?;
        Ok(Round {
            bound: bound::measure()?.handshake,
            https: https(&self.muster, &https_callers, (DOOR, DOOR_STATUS), arguments).await?,
            nginx: https(&self.nginx, &https_callers, (DOOR, OK), arguments).await?,
            known: https(&self.muster, &https_callers, (DOOR, DOOR_STATUS), arguments).await?,
            through: https(&self.muster, &https_callers, (PROXY, OK), arguments).await?,
            through_nginx: https(&self.nginx, &https_callers, (PROXY, OK), arguments).await?,
            mqtt: mqtt(&self.muster, &mqtt_callers, arguments).await?,
            mosquitto: mqtt(&self.mosquitto, &mqtt_callers, arguments).await?,
            proxied: proxied(&self.muster, kept).await?,
            proxied_nginx: proxied(&self.nginx, kept).await?,
        })
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.muster.stop().await?;
        self.nginx.stop().await?;
        self.mosquitto.stop().await
    }
}

impl Round {
    #[expect(clippy::print_stdout, reason = "the report of a bench")]
    fn print(&self) {
        let Self {
            https,
            known,
            nginx,
            bound,
            mqtt,
            mosquitto,
            proxied,
            proxied_nginx,
            through,
            through_nginx,
        } = self;
        let load = load_average();
        println!(
            "       {https:8.3}{known:7.3}{nginx:7.3}{bound:7.3}{mqtt:7.3}{mosquitto:7.3}{through:7.3}\
             {through_nginx:7.3}{proxied:9.4}\
             {proxied_nginx:7.4}   {load}"
        );
    }
}

impl Figures {
    fn add(&mut self, round: &Round) {
        self.https_to_nginx.push(round.https / round.nginx);
        self.https_to_bound.push(round.https / round.bound);
        self.known_to_new.push(round.known / round.https);
        self.mqtt_to_mosquitto.push(round.mqtt / round.mosquitto);
        self.proxied_to_nginx.push(round.proxied / round.proxied_nginx);
    }

    fn check(self, goals: &mut Goals) {
        for (what, figures, at_most) in [
            ("new HTTPS connection, of nginx's", self.https_to_nginx, HTTPS_TO_NGINX),
            ("new HTTPS connection, of the bound", self.https_to_bound, HTTPS_TO_BOUND),
            ("known certificate, of a new one's", self.known_to_new, KNOWN_TO_NEW),
            ("CONNECT to CONNACK, of mosquitto's", self.mqtt_to_mosquitto, MQTT_TO_MOSQUITTO),
            ("proxied request, of nginx's", self.proxied_to_nginx, PROXIED_TO_NGINX),
        ] {
            goals.check(what, median(figures), at_most);
        }
    }
}

/// A new connection of each caller, with one request.
async fn https(
    server: &Server,
    callers: &[Caller],
    (host, status): (&'static str, u16),
    arguments: &Arguments,
) -> anyhow::Result<f64> {
    let address = server.address;
    let visit = |caller: Caller| async move { caller.visit(address, host, status).await };
    cpu_each(server, arguments.at_once, callers.iter().cloned().map(visit).collect()).await
}

/// A new MQTT connection of each caller.
async fn mqtt(server: &Server, callers: &[Caller], arguments: &Arguments) -> anyhow::Result<f64> {
    let address = mqtt_address(server);
    let greet = |caller: Caller| async move { caller.greet(address, MQTT, "").await.map(drop) };
    cpu_each(server, arguments.at_once, callers.iter().cloned().map(greet).collect()).await
}

fn mqtt_address(server: &Server) -> SocketAddr {
    server.mqtt.unwrap_or(server.address)
}

/// Requests to the origin on connections that are open already.
async fn proxied(server: &Server, callers: &[Caller]) -> anyhow::Result<f64> {
    let address = server.address;
    let open = |caller: Caller| async move {
        let mut line = caller.connect(address, PROXY).await?;
        get(&mut line, PROXY, OK).await?;
        Ok(line)
    };
    let lines: Vec<Line> = do_all(callers.len(), callers.iter().cloned().map(open).collect()).await?;
    let ask = |mut line: Line| async move {
        for _ in 0..REQUESTS {
            get(&mut line, PROXY, OK).await?;
        }
        anyhow::Ok(())
    };
    let per_connection = cpu_each(server, lines.len(), lines.into_iter().map(ask).collect()).await?;
    Ok(per_connection / f64::from(u32::try_from(REQUESTS)?))
}

/// Changes of rules, among them the one in use, while connections are made; none may fail.
#[expect(clippy::print_stdout, reason = "the report of a bench")]
async fn reload(site: &Site, muster: &Server, devices: &[Device]) -> anyhow::Result<()> {
    let visitors = devices.get(..VISITORS).context("devices")?;
    let visits = Visits::start(site.callers(visitors)?, muster.address);
    for change in 0..CHANGES {
        let oldest = if change % 2 == 0 { "1.2" } else { "1.3" };
        site.muster(&["host", "set", DOOR, "--min-tls", oldest]).await?;
        site.muster(&["host", "set", &format!("other-{change}.example.com")]).await?;
    }
    let visited = visits.end().await?;
    println!("goal met: {} changes during {visited} connections, none of which failed", 2 * CHANGES);
    Ok(())
}

/// Memory of MQTT connections that wait, on servers that have done nothing before.
#[expect(clippy::print_stdout, reason = "the report of a bench")]
async fn idle(site: &Site, devices: &[Device], origin: SocketAddr, goals: &mut Goals) -> anyhow::Result<()> {
    let callers = site.callers(devices)?;
    let mut found = Vec::new();
    for server in [site.serve_apart(origin).await?, mosquitto(site).await?] {
        let address = mqtt_address(&server);
        let greet = |caller: Caller| async move { caller.greet(address, MQTT, "").await };
        let before = server.resident_mib()?;
        let lines = do_all(VISITORS, callers.iter().cloned().map(greet).collect()).await?;
        let kib = (server.resident_mib()? - before) * 1024.0 / f64::from(u32::try_from(lines.len())?);
        found.push(kib);
        drop(lines);
        server.stop().await?;
    }
    let [ours, theirs] = found[..] else { anyhow::bail!("two servers") };
    println!("{} idle MQTT connections: muster {ours:.1} KiB each, mosquitto {theirs:.1}", devices.len());
    goals.check("KiB per idle MQTT connection", ours, KIB_PER_IDLE);
    goals.check("idle MQTT connection, of mosquitto's", ours / theirs, 1.0);
    Ok(())
}

/// Edges from the library, large in one way each; every certificate is new to all of them.
#[expect(clippy::print_stdout, reason = "the report of a bench")]
async fn size(
    site: &Site,
    devices: &[Device],
    arguments: &Arguments,
    goals: &mut Goals,
) -> anyhow::Result<()> {
    let plain = alone::start(site, 1, 0).await?;
    let revoked = alone::start(site, 1, REVOKED).await?;
    let hosts = alone::start(site, HOSTS, 0).await?;
    let [plain_mib, revoked_mib, hosts_mib] = [&plain, &revoked, &hosts].map(Server::resident_mib);
    let (plain_mib, revoked_mib, hosts_mib) = (plain_mib?, revoked_mib?, hosts_mib?);
    println!(
        "resident: plain {plain_mib:.1} MiB, {REVOKED} revoked {revoked_mib:.1}, {HOSTS} hosts {hosts_mib:.1}"
    );
    let (mut revoked_to_none, mut hosts_to_one) = (Vec::new(), Vec::new());
    for round in devices.chunks_exact(arguments.https).take(arguments.rounds) {
        let callers: Arc<[Caller]> = site.callers(round)?.into();
        let base = knock(&plain, &callers, 1, arguments).await?;
        let with_revoked = knock(&revoked, &callers, 1, arguments).await?;
        let with_hosts = knock(&hosts, &callers, HOSTS, arguments).await?;
        println!("CPU ms: plain {base:.3}, revoked {with_revoked:.3}, hosts {with_hosts:.3}");
        revoked_to_none.push(with_revoked / base);
        hosts_to_one.push(with_hosts / base);
    }
    goals.check("a million revoked, of none", median(revoked_to_none), REVOKED_TO_NONE);
    goals.check("ten thousand hostnames, of one", median(hosts_to_one), HOSTS_TO_ONE);
    let kib = (hosts_mib - plain_mib) * 1024.0 / f64::from(u32::try_from(HOSTS)?);
    goals.check("KiB per hostname", kib, KIB_PER_HOST);
    Ok(())
}

/// A new connection of each caller, spread over the hostnames.
async fn knock(
    server: &Server,
    callers: &Arc<[Caller]>,
    hosts: usize,
    arguments: &Arguments,
) -> anyhow::Result<f64> {
    let address = server.address;
    let visit = |(number, caller): (usize, Caller)| {
        // A step that is no divisor of the number of hostnames visits them all over.
        let host = alone::host(number * 7919 % hosts);
        async move { caller.visit(address, &host, DOOR_STATUS).await }
    };
    cpu_each(server, arguments.at_once, callers.iter().cloned().enumerate().map(visit).collect()).await
}
