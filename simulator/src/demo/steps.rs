//! The steps of the story, in order. Each is a function over the stage, and fails with a sentence.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::stage::{Account, Stage, Whose};
use crate::arrival::Arrival;
use crate::device::{Want, certified};
use crate::edge::{EdgeRun, Endpoint, Mode, Open, Protocol};
use crate::reason::Reason;
use crate::results::Results;
use crate::view::View;

/// One step.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) act: Act,
}

type Outcome<'s> = Pin<Box<dyn Future<Output = anyhow::Result<String>> + 's>>;
type Act = for<'s> fn(&'s mut Stage) -> Outcome<'s>;

/// All of them.
pub(super) const STEPS: [Step; 10] = [
    Step { name: "three hostnames ask for certificates", act: |stage| Box::pin(hostnames(stage)) },
    Step { name: "the fleet enrolls over EST", act: |stage| Box::pin(enroll(stage)) },
    Step { name: "a hundred devices renew", act: |stage| Box::pin(renew(stage)) },
    Step { name: "devices enter api.demo.test by mTLS", act: |stage| Box::pin(enter(stage)) },
    Step { name: "one certificate opens the other zone too", act: |stage| Box::pin(other_zone(stage)) },
    Step { name: "nobody enters without a certificate", act: |stage| Box::pin(anonymous(stage)) },
    Step { name: "another account's device is refused", act: |stage| Box::pin(stranger(stage)) },
    Step { name: "devices publish, and receive at mqtt.demo.test", act: |stage| Box::pin(messages(stage)) },
    Step { name: "no device reads another's topics", act: |stage| Box::pin(eavesdrop(stage)) },
    Step { name: "ten are revoked, and cut at once", act: |stage| Box::pin(revoke(stage)) },
];

async fn hostnames(stage: &mut Stage) -> anyhow::Result<String> {
    let origin = format!("http://{}", stage.origin);
    let https = json!({ "protocols": ["https"], "origins": [origin] });
    for (host, rule) in [(API, &https), (OTHER_API, &https), (MQTT, &json!({ "protocols": ["mqtt"] }))] {
        stage.account.api.own("PUT", &format!("/hosts/{host}"), Some(rule)).await?;
    }
    Ok(format!("{API}, {OTHER_API}, {MQTT}"))
}

async fn enroll(stage: &mut Stage) -> anyhow::Result<String> {
    let devices = stage.devices;
    let (done, failed) = stage.fleet(Whose::Ours, devices, Want::First, "enrollment").await?;
    ensure!(done == u64::from(devices), "{done} of {devices} enrolled, {failed} failed");
    Ok(format!("{done} of {devices}"))
}

async fn renew(stage: &mut Stage) -> anyhow::Result<String> {
    let devices = stage.devices.min(RENEWED);
    let (done, failed) = stage.fleet(Whose::Ours, devices, Want::Next, "renewal").await?;
    ensure!(done == u64::from(devices), "{done} of {devices} renewed, {failed} failed");
    Ok(format!("{done} of {devices}"))
}

async fn enter(stage: &mut Stage) -> anyhow::Result<String> {
    let account = &stage.account;
    let results = Results::new("edge", "edge", API, Mode::Handshake.series());
    let run = EdgeRun {
        endpoint: account.endpoint(API, https()).await?,
        directory: account.directory()?,
        devices: (0..stage.devices).collect(),
        mode: Mode::Handshake,
        arrival: Arrival::Poisson { per_s: ENTER_PER_S },
        shard: (0, 1),
        seed: 1,
        span: ENTER_FOR,
        every: Duration::from_secs(1),
        topic: String::new(),
        most_at_once: 500,
        watched: None,
        start_at: None,
    };
    let (results, view) = run.run(results, View::new(None, false, None)?, CancellationToken::new()).await?;
    view.end();
    let summary = results.summary(Mode::Handshake.series()).context("nobody came")?;
    stage.runs.push(results);
    ensure!(
        summary.count > 0 && summary.failed == 0,
        "{} entered, {} did not",
        summary.count,
        summary.failed
    );
    Ok(format!("{} handshakes, p99 {:.1} ms", summary.count, summary.p99_ms))
}

async fn other_zone(stage: &mut Stage) -> anyhow::Result<String> {
    let endpoint = stage.account.endpoint(OTHER_API, https()).await?;
    visit(&stage.account, &endpoint, 0).await.map_err(refused)?;
    Ok(OTHER_API.to_owned())
}

async fn anonymous(stage: &mut Stage) -> anyhow::Result<String> {
    let endpoint = stage.account.endpoint(API, https()).await?;
    not_let_in(endpoint.open(endpoint.wire(0, "nobody".to_owned(), None, None)).await)
}

async fn stranger(stage: &mut Stage) -> anyhow::Result<String> {
    let (done, _) = stage.fleet(Whose::Stranger, 1, Want::First, "").await?;
    ensure!(done == 1, "the stranger's device did not enroll");
    let mut told = Vec::new();
    for (host, protocol) in [(API, https()), (MQTT, Protocol::Mqtt)] {
        let endpoint = stage.account.endpoint(host, protocol).await?;
        told.push(not_let_in(visit(&stage.stranger, &endpoint, 0).await)?);
    }
    Ok(told.join(", "))
}

async fn messages(stage: &mut Stage) -> anyhow::Result<String> {
    let endpoint = stage.account.endpoint(MQTT, Protocol::Mqtt).await?;
    let devices = stage.devices.min(TALKING);
    for number in 0..devices {
        let mut open = visit(&stage.account, &endpoint, number).await.map_err(refused)?;
        let commands = format!("devices/{}/commands", stage.account.directory()?.device(number));
        let talked = async {
            endpoint.subscribe(&mut open, &commands).await?;
            endpoint.round_trip(&mut open, &commands, b"blink").await
        };
        talked.await.map_err(refused)?;
        open.close().await;
    }
    Ok(format!("{devices} devices"))
}

async fn eavesdrop(stage: &mut Stage) -> anyhow::Result<String> {
    let endpoint = stage.account.endpoint(MQTT, Protocol::Mqtt).await?;
    let mut open = visit(&stage.account, &endpoint, 0).await.map_err(refused)?;
    let others = format!("devices/{}/#", stage.account.directory()?.device(1));
    match endpoint.subscribe(&mut open, &others).await {
        Ok(()) => bail!("it may read {others}"),
        Err(reason) => Ok(reason.label()),
    }
}

async fn revoke(stage: &mut Stage) -> anyhow::Result<String> {
    let account = &stage.account;
    let endpoint = account.endpoint(MQTT, Protocol::Mqtt).await?;
    let revoked = (stage.devices / 2).clamp(1, REVOKED);
    let mut held = Vec::new();
    for number in 0..revoked * 2 {
        held.push(visit(account, &endpoint, number).await.map_err(refused)?);
    }
    let began = Instant::now();
    for number in 0..revoked {
        revoke_device(account, number).await?;
    }
    let (cut, kept) = held.split_at_mut(revoked as usize);
    for (number, open) in cut.iter_mut().enumerate() {
        let ended = tokio::time::timeout(CUT_WITHIN, open.ended()).await;
        ended.map_err(|_| anyhow::anyhow!("device {number} is still connected"))?;
    }
    let took = began.elapsed();
    for open in kept {
        endpoint
            .ask(open)
            .await
            .map_err(|reason| anyhow::anyhow!("a device that was not revoked was cut: {}", reason.label()))?;
    }
    for number in 0..revoked {
        not_let_in(visit(account, &endpoint, number).await)?;
    }
    Ok(format!("{revoked} cut within {} ms, none comes back", took.as_millis()))
}

async fn revoke_device(account: &Account, number: u32) -> anyhow::Result<()> {
    let device = account.directory()?.device(number);
    let certificates = account.api.own("GET", &format!("/certificates?device={device}"), None).await?;
    for certificate in certificates.as_array().into_iter().flatten() {
        let id = certificate.get("id").and_then(Value::as_str).context("a certificate without an id")?;
        account.api.own("POST", &format!("/certificates/{id}/revoke"), Some(&json!({}))).await?;
    }
    Ok(())
}

/// Connects a device of an account, and waits for the first answer.
async fn visit(account: &Account, endpoint: &Endpoint, number: u32) -> Result<Open, Reason> {
    let (device, identity) = identity(account, number).map_err(|_| Reason::Local)?;
    endpoint.open(endpoint.wire(number, device, Some(identity), None)).await
}

fn identity(account: &Account, number: u32) -> anyhow::Result<(String, Arc<CertifiedKey>)> {
    let directory = account.directory()?;
    let (pair, intermediates) = directory.pair(number)?.context("a device without a certificate")?;
    Ok((directory.device(number), certified(&pair, &intermediates)?))
}

fn not_let_in(outcome: Result<Open, Reason>) -> anyhow::Result<String> {
    match outcome {
        Ok(_) => bail!("it was let in"),
        Err(Reason::Local) => bail!("it has no certificate to try"),
        Err(reason) => Ok(reason.label()),
    }
}

fn refused(reason: Reason) -> anyhow::Error {
    anyhow::anyhow!("it was not let in: {}", reason.label())
}

fn https() -> Protocol {
    Protocol::Https { path: "/".to_owned() }
}

const API: &str = "api.demo.test";
const OTHER_API: &str = "api.other.test";
const MQTT: &str = "mqtt.demo.test";
const RENEWED: u32 = 100;
const TALKING: u32 = 25;
const REVOKED: u32 = 10;
const ENTER_PER_S: f64 = 200.0;
const ENTER_FOR: Duration = Duration::from_secs(5);
/// What the design promises is at once; a busy machine may take a moment.
const CUT_WITHIN: Duration = Duration::from_secs(5);
