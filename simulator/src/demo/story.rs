//! The chapters: enroll, come in, speak, hear, renew, be cut, stay out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::ProgressBar;
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Told;
use super::world::{World, origin};
use crate::arrival::Arrival;
use crate::device::{Enroller, KeyPool, Want, certified};
use crate::edge::{Endpoint, HANDSHAKE, Open, Protocol, ROUND_TRIP};
use crate::fleet::{ENROLL, FleetRun, Tokens};
use crate::identities::Directory;
use crate::reason::Reason;
use crate::results::Results;
use crate::tally::Tally;
use crate::tls::{self, Door, Groups, TlsClient};
use crate::view::View;

/// Devices at work at once: enough to keep two cores busy.
const AT_ONCE: usize = 64;
/// Longest wait for anything here.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How many renew, and how many are revoked.
const RENEWED: u32 = 100;
const REVOKED: u32 = 10;
/// The device that speaks for the operators.
const CONSOLE: u32 = 0;
const COMMAND: &[u8] = b"report";

/// Tells the whole story.
///
/// # Errors
/// When the story can't go on; what merely does not hold is noted.
pub(crate) async fn tell(world: &World, devices: u32) -> anyhow::Result<Told> {
    let mut told = Told::new(devices);
    set_up(world, &mut told).await?;
    enroll(world, devices, &mut told).await?;
    let fleet = Fleet::read(world, devices)?;
    come_in(world, &fleet, &mut told).await?;
    let mut lines = speak(world, &fleet, &mut told).await?;
    renew(world, devices, &mut told).await?;
    revoke(world, &fleet, &mut lines, &mut told).await?;
    doors(world, &fleet, &mut told).await?;
    Ok(told)
}

/// The identities of the devices, by number.
struct Fleet(Vec<(String, Arc<CertifiedKey>)>);

impl Fleet {
    fn read(world: &World, devices: u32) -> anyhow::Result<Self> {
        let directory = Directory::open(&world.identities())?;
        let of = |number| {
            let (pair, intermediates) = directory.pair(number)?.context("an enrolled device")?;
            Ok((directory.device(number), certified(&pair, &intermediates)?))
        };
        Ok(Self((0..devices).map(of).collect::<anyhow::Result<_>>()?))
    }
}

async fn set_up(world: &World, told: &mut Told) -> anyhow::Result<()> {
    let began = Instant::now();
    let to = format!("http://{}", origin().await?);
    for (host, wish) in [
        ("api.demo.test", json!({ "origins": [to] })),
        ("mqtt.demo.test", json!({ "protocols": ["mqtt"] })),
        ("www.demo.test", json!({ "mode": "off", "origins": [to] })),
        ("api.other.test", json!({ "origins": [to] })),
    ] {
        world.api.own("PUT", &format!("/hosts/{host}"), Some(&wish)).await?;
    }
    told.note(
        "an account, two zones, four hostnames",
        began,
        true,
        "api and mqtt require a certificate".to_owned(),
    );
    Ok(())
}

async fn enroll(world: &World, devices: u32, told: &mut Told) -> anyhow::Result<()> {
    let began = Instant::now();
    let results = est(world, (0..devices).collect(), Want::First).await?;
    let done = results.series.get(ENROLL).map_or(0, |series| series.hdr.count());
    let p99 = results.summary(ENROLL).map_or(0.0, |summary| summary.p99_ms);
    told.add(results);
    let outcome = format!("{done} certificates, p99 {p99:.0} ms");
    told.note("devices make keys and enroll over EST", began, done == u64::from(devices), outcome);
    Ok(())
}

/// A run of the fleet at the EST server.
async fn est(world: &World, devices: Vec<u32>, want: Want) -> anyhow::Result<Results> {
    let wanted = devices.len();
    let tokens = match want {
        Want::First => Tokens::Same(world.api.claim_token(wanted).await?),
        Want::Next => Tokens::Nothing,
    };
    let ca = world.ca_file();
    let door = door(world.est, "localhost")?;
    let tls = TlsClient::new(tls::roots(&ca)?, Groups::default(), &["http/1.1"])?;
    let keys = KeyPool::start(wanted).await;
    let directory = Directory::open_to_write(&world.identities(), PREFIX, 0)?;
    let port = world.est.port();
    let anchors = tls::certificates(&ca)?;
    let enroller = Enroller::new(
        "localhost".to_owned(),
        port,
        None,
        door,
        tls,
        anchors,
        keys,
        directory,
        SEED,
        TIMEOUT * 4,
    );
    let run = FleetRun {
        enroller,
        tokens,
        devices,
        want,
        arrival: Arrival::Stampede,
        shard: (0, 1),
        seed: SEED,
        most_at_once: AT_ONCE,
        watched: None,
        start_at: None,
    };
    let view = View::new(Some(wanted as u64), false, None)?;
    let (results, view) =
        run.run(Results::new("demo", "demo", "est", ENROLL), view, CancellationToken::new()).await?;
    view.end();
    Ok(results)
}

fn door(address: std::net::SocketAddr, name: &'static str) -> anyhow::Result<Door> {
    let name = rustls_pki_types::ServerName::try_from(name)?;
    Ok(Door { address, name, own_sources: true, timeout: TIMEOUT, links: None })
}

fn https(world: &World, host: &'static str) -> anyhow::Result<Arc<Endpoint>> {
    let tls = TlsClient::new(tls::roots(&world.ca_file())?, Groups::default(), &["http/1.1"])?;
    let protocol = Protocol::Https { path: "/".to_owned() };
    let door = door(world.https, host)?;
    Ok(Arc::new(Endpoint { door, tls, host: host.to_owned(), protocol, answer_timeout: TIMEOUT }))
}

fn mqtt(world: &World) -> anyhow::Result<Arc<Endpoint>> {
    let tls = TlsClient::new(tls::roots(&world.ca_file())?, Groups::default(), &[])?;
    let door = door(world.mqtt, "mqtt.demo.test")?;
    let host = "mqtt.demo.test".to_owned();
    Ok(Arc::new(Endpoint { door, tls, host, protocol: Protocol::Mqtt, answer_timeout: TIMEOUT }))
}

/// Does something with every device, some at once; what came of each, in their order.
async fn each<T: Send + 'static, F>(
    fleet: &Fleet,
    work: impl Fn(u32, String, Arc<CertifiedKey>) -> F,
) -> anyhow::Result<Vec<Result<T, Reason>>>
where
    F: Future<Output = Result<T, Reason>> + Send + 'static,
{
    let bar = ProgressBar::new(fleet.0.len() as u64);
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut working = JoinSet::new();
    for (number, (device, identity)) in (0_u32..).zip(&fleet.0) {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let (work, bar) = (work(number, device.clone(), Arc::clone(identity)), bar.clone());
        working.spawn(async move {
            let done = work.await;
            bar.inc(1);
            drop(slot);
            (number, done)
        });
    }
    let mut done = working.join_all().await;
    bar.finish_and_clear();
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, done)| done).collect())
}

async fn come_in(world: &World, fleet: &Fleet, told: &mut Told) -> anyhow::Result<()> {
    let began = Instant::now();
    let (endpoint, tally) = (https(world, "api.demo.test")?, Arc::new(Tally::new()));
    let done = each(fleet, |number, device, identity| {
        let (endpoint, tally) = (Arc::clone(&endpoint), Arc::clone(&tally));
        async move {
            let due = Instant::now();
            let open = endpoint.open(endpoint.wire(number, device, Some(identity), None)).await?;
            tally.done(HANDSHAKE, due.elapsed());
            open.close().await;
            Ok(())
        }
    })
    .await?;
    let let_in = done.iter().filter(|done| done.is_ok()).count();
    let mut results = Results::new("demo", "demo", "edge", HANDSHAKE);
    tally.finish(&mut results);
    let p99 = results.summary(HANDSHAKE).map_or(0.0, |summary| summary.p99_ms);
    told.add(results);
    let outcome = format!("{let_in} handshakes and answers, p99 {p99:.0} ms");
    told.note("each comes to api.demo.test", began, let_in == fleet.0.len(), outcome);
    Ok(())
}

/// An MQTT connection that stays.
type Lines = Vec<Option<Open>>;

async fn speak(world: &World, fleet: &Fleet, told: &mut Told) -> anyhow::Result<Lines> {
    let began = Instant::now();
    let (console, _) = fleet.0.first().context("a fleet")?;
    world.api.own("PATCH", &format!("/devices/{console}"), Some(&json!({ "groups": ["operators"] }))).await?;
    let (endpoint, tally) = (mqtt(world)?, Arc::new(Tally::new()));
    let done = each(fleet, |number, device, identity| {
        let (endpoint, tally) = (Arc::clone(&endpoint), Arc::clone(&tally));
        async move {
            let mut open = endpoint.open(endpoint.wire(number, device.clone(), Some(identity), None)).await?;
            let topic = format!("devices/{device}/telemetry");
            endpoint.subscribe(&mut open, &topic).await?;
            let due = Instant::now();
            endpoint.round_trip(&mut open, &topic, device.as_bytes()).await?;
            tally.done(ROUND_TRIP, due.elapsed());
            endpoint.subscribe(&mut open, "fleet/commands").await?;
            Ok(open)
        }
    })
    .await?;
    let mut lines: Lines = done.into_iter().map(Result::ok).collect();
    let connected = lines.iter().flatten().count();
    let mut results = Results::new("demo", "demo", "mqtt", ROUND_TRIP);
    tally.finish(&mut results);
    told.add(results);
    let outcome = format!("{connected} connected, published and heard themselves");
    told.note("each stays on mqtt.demo.test and publishes", began, connected == fleet.0.len(), outcome);

    let began = Instant::now();
    let console =
        lines.get_mut(CONSOLE as usize).and_then(Option::as_mut).context("the console is connected")?;
    endpoint.publish(console, "fleet/commands", COMMAND).await.map_err(spelled)?;
    let mut heard = 0;
    for open in lines.iter_mut().skip(1).flatten() {
        let (_, payload) = endpoint.receive(open).await.map_err(spelled)?;
        heard += usize::from(payload == COMMAND);
    }
    let outcome = format!("{heard} devices heard it");
    told.note("an operator commands the whole fleet", began, heard == fleet.0.len() - 1, outcome);

    let began = Instant::now();
    let device = lines.get_mut(1).and_then(Option::as_mut).context("a device is connected")?;
    let stolen = endpoint.subscribe(device, &format!("devices/{PREFIX}0000002/#")).await;
    told.note("a device may not listen to another's topics", began, stolen.is_err(), refusal(&stolen));
    Ok(lines)
}

async fn renew(world: &World, devices: u32, told: &mut Told) -> anyhow::Result<()> {
    let began = Instant::now();
    let wanted = RENEWED.min(devices / 2);
    let results = est(world, (0..wanted).collect(), Want::Next).await?;
    let done = results.series.get(ENROLL).map_or(0, |series| series.hdr.count());
    told.note(
        "a hundred renew with their certificates",
        began,
        done == u64::from(wanted),
        format!("{done} renewed"),
    );
    Ok(())
}

async fn revoke(world: &World, fleet: &Fleet, lines: &mut Lines, told: &mut Told) -> anyhow::Result<()> {
    let began = Instant::now();
    // Of those that did not renew, so that the one certificate they have is the one they show.
    let first = fleet.0.len() - REVOKED as usize;
    let mut slowest = Duration::ZERO;
    let mut cut = 0;
    for (number, (device, _)) in fleet.0.iter().enumerate().skip(first) {
        let listed =
            world.api.own("GET", &format!("/certificates?device={device}&status=active"), None).await?;
        let certificates = listed.as_array().context("a list of certificates")?;
        for certificate in certificates {
            let id = certificate.pointer("/id").and_then(Value::as_str).context("a certificate has an id")?;
            world
                .api
                .own(
                    "POST",
                    &format!("/certificates/{id}/revoke"),
                    Some(&json!({ "reason": "keyCompromise" })),
                )
                .await?;
        }
        let returned = Instant::now();
        let Some(open) = lines.get_mut(number).and_then(Option::as_mut) else { continue };
        if tokio::time::timeout(TIMEOUT, open.ended()).await.is_ok() {
            slowest = slowest.max(returned.elapsed());
            cut += 1;
        }
    }
    let outcome = format!("{cut} cut, the slowest {:.1} ms after the command", slowest.as_secs_f64() * 1e3);
    told.note("ten are revoked: their connections end", began, cut == REVOKED, outcome);

    let began = Instant::now();
    let (api, broker) = (https(world, "api.demo.test")?, mqtt(world)?);
    let mut refused = 0;
    for (number, (device, identity)) in (0_u32..).zip(&fleet.0).skip(first) {
        for endpoint in [&api, &broker] {
            let wire = endpoint.wire(number, device.clone(), Some(Arc::clone(identity)), None);
            refused += u32::from(endpoint.open(wire).await.is_err());
        }
    }
    told.note(
        "and no door opens to them again",
        began,
        refused == 2 * REVOKED,
        format!("{refused} tries refused"),
    );

    let began = Instant::now();
    let mut alive = 0;
    for open in lines.iter_mut().take(first).flatten() {
        alive += usize::from(broker.ask(open).await.is_ok());
    }
    told.note("nobody else was disturbed", began, alive == first, format!("{alive} still connected"));
    Ok(())
}

async fn doors(world: &World, fleet: &Fleet, told: &mut Told) -> anyhow::Result<()> {
    let (device, identity) = fleet.0.get(1).context("a fleet")?;
    let visit = |endpoint: Arc<Endpoint>, identity: Option<Arc<CertifiedKey>>| {
        let device = device.clone();
        async move { endpoint.open(endpoint.wire(1, device, identity, None)).await.map(drop) }
    };
    let began = Instant::now();
    let other = visit(https(world, "api.other.test")?, Some(Arc::clone(identity))).await;
    told.note("one certificate opens the other zone, too", began, other.is_ok(), refusal(&other));
    let began = Instant::now();
    let nobody = visit(https(world, "api.demo.test")?, None).await;
    told.note("without a certificate there is no answer", began, nobody.is_err(), refusal(&nobody));
    let began = Instant::now();
    let open = visit(https(world, "www.demo.test")?, None).await;
    told.note("www.demo.test demands none", began, open.is_ok(), refusal(&open));

    let began = Instant::now();
    let stranger = World::start("stranger", &["stranger.test"]).await?;
    est(&stranger, vec![1], Want::First).await?;
    let directory = Directory::open(&stranger.identities())?;
    let (pair, intermediates) = directory.pair(1)?.context("an enrolled device")?;
    let foreign = visit(https(world, "api.demo.test")?, Some(certified(&pair, &intermediates)?)).await;
    stranger.end().await?;
    told.note("a device of another account stays outside", began, foreign.is_err(), refusal(&foreign));
    Ok(())
}

fn spelled(reason: Reason) -> anyhow::Error {
    anyhow::anyhow!("{}", reason.label())
}

fn refusal(done: &Result<(), Reason>) -> String {
    match done {
        Ok(()) => "answered".to_owned(),
        Err(reason) => format!("refused: {}", reason.label()),
    }
}

const PREFIX: &str = "meter-";
const SEED: u64 = 1;
