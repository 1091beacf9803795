//! The acceptance of the Linux agent: the real agent before the real server, local programs under load, and
//! certificates that live for a minute.
//!
//! Nobody helps: the agent renews by itself, and the local programs (rumqttc, hyper's client) know nothing of
//! it. A second device reads at the broker what the first one's programs publish.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_tests::carrying::within;
use muster_tests::local::{Asker, Origin, Program};
use muster_tests::{Agent, Server};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How many renewals are carried through.
const GENERATIONS: u64 = 20;
/// Between two messages, and between two requests.
const EVERY: Duration = Duration::from_millis(100);
/// The longest silence that a renewal may cause.
const GAP_MAX: Duration = Duration::from_secs(2);
const HOUR: Duration = Duration::from_secs(3600);
const V311: &str = "devices/meter-1/v311";
const V5: &str = "devices/meter-1/v5";

/// Every device has its own topics, and a watcher reads those of all.
const RULES: &str = r#"
[[broker.rules]]
publish = ["devices/%i/#"]
subscribe = ["devices/%i/#"]

[[broker.rules]]
groups = ["watchers"]
subscribe = ["devices/#"]
"#;

/// An account with an MQTT and an HTTPS hostname, a profile that renews within a second, and two devices.
fn account(origin: &Origin) -> Server {
    let server = Server::with_config(RULES);
    server.muster(&["host", "set", "mqtt.example.test", "--protocol", "mqtt"]);
    let to = format!("http://{}", origin.address);
    server.muster(&["host", "set", "api.example.test", "--origin", &to]);
    profile(&server, "lifetime_s=60");
    let devices = server.scratch().join("devices.csv");
    std::fs::write(&devices, "id,groups\nmeter-1,\nwatcher,watchers\n").expect("written");
    server.muster(&["device", "import", &devices.display().to_string()]);
    server
}

fn profile(server: &Server, lifetime: &str) {
    server.muster(&["profile", "set", "brief", lifetime, "renew_from_percent=1", "renew_jitter_percent=1"]);
}

/// A running agent with two relays and its telemetry, and where its local programs connect.
struct Device {
    agent: Agent,
    mqtt: SocketAddr,
    http: SocketAddr,
}

impl Device {
    /// Enrolls at one server, and carries to the edge of one, which may be another.
    fn start(ca: &Server, edge: &Server, id: &str, arguments: &[&str]) -> Self {
        let mut agent = Agent::enrolled(ca, id, arguments);
        agent.configure(&format!(
            r#"
            [pace]
            floor = "1s"
            ceiling = "2s"
            urgent_ceiling = "2s"
            spread = "1s"

            [[relay]]
            mode = "mqtt"
            listen = "127.0.0.1:0"
            upstream = "mqtts://{mqtt}"
            server_name = "mqtt.example.test"

            [[relay]]
            mode = "http"
            listen = "127.0.0.1:0"
            upstream = "https://{https}"
            server_name = "api.example.test"

            [telemetry]
            broker = "mqtts://{mqtt}"
            server_name = "mqtt.example.test"
            interval_s = 5
            "#,
            mqtt = edge.mqtt_address(),
            https = edge.https_address(),
        ));
        agent.run();
        let status = agent.wait_for("a carrying agent", |status| status["carry"]["relays"][1].is_object());
        let listens = |relay: usize| {
            let address = status["carry"]["relays"][relay]["listen"].as_str().expect("an address");
            address.parse().expect("an address")
        };
        let (mqtt, http) = (listens(0), listens(1));
        Self { agent, mqtt, http }
    }

    fn generation(&self) -> u64 {
        self.agent.status()["generation"].as_u64().expect("a certificate")
    }

    fn wait_for_generation(&self, generation: u64) -> Value {
        self.agent.wait_for("a renewal", |status| status["generation"].as_u64() >= Some(generation))
    }
}

/// Local programs at work, and who listens to them.
struct Load {
    v311: JoinHandle<(Program, u32)>,
    v5: JoinHandle<(Program, u32)>,
    asking: JoinHandle<(Vec<Instant>, Vec<String>)>,
    /// At the same device, through the same relay.
    own: Program,
    /// The same with a clean session of 3.1.1, which no state of can move.
    clean: Program,
    /// At another device, whose certificate does not change.
    watcher: Program,
    stop: CancellationToken,
}

/// What the programs met.
struct Outcome {
    v311: Program,
    v5: Program,
    own: Program,
}

impl Load {
    async fn start(device: &Device, watcher: &Device) -> Self {
        let stop = CancellationToken::new();
        let own = Program::v5(device.mqtt, "meter-1/own").listening("devices/meter-1/+").await;
        let clean = Program::v311(device.mqtt, "meter-1/clean").listening("devices/meter-1/+").await;
        let watcher = Program::v311(watcher.mqtt, "watcher/load").listening("devices/meter-1/+").await;
        let v311 = Program::v311(device.mqtt, "meter-1/v311");
        let v5 = Program::v5(device.mqtt, "meter-1/v5");
        Self {
            v311: tokio::spawn(publish(v311, V311, stop.clone())),
            v5: tokio::spawn(publish(v5, V5, stop.clone())),
            asking: tokio::spawn(ask(Asker::new(device.http), stop.clone())),
            own,
            clean,
            watcher,
            stop,
        }
    }

    /// Stops the load, and holds what came of it against what was promised.
    async fn finish(self, name: &str) -> Outcome {
        self.stop.cancel();
        let (mut v311, last_v311) = within(self.v311).await.expect("no panic");
        let (mut v5, last_v5) = within(self.v5).await.expect("no panic");
        let (times, wrong) = within(self.asking).await.expect("no panic");
        let (mut own, mut clean, mut watcher) = (self.own, self.clean, self.watcher);
        for (program, last) in [(&mut v311, last_v311), (&mut v5, last_v5)] {
            program.until("every PUBACK", |seen| seen.acknowledged >= last as usize).await;
        }
        for (topic, last) in [(V311, last_v311), (V5, last_v5)] {
            for (place, program) in [("watcher", &mut watcher), ("own", &mut own), ("clean", &mut clean)] {
                let seen = program.until("the last message", |seen| {
                    seen.numbers(topic).iter().any(|(number, _)| *number == last)
                });
                let numbers = seen.await.numbers(topic);
                check(&format!("{name}: {topic} to {place}"), &numbers, last);
            }
        }
        println!("{name}: http: {} requests, longest gap {:?}", times.len(), longest(&times));
        assert_eq!(wrong, Vec::<String>::new(), "every request is answered 200");
        assert!(longest(&times) <= GAP_MAX, "http: {:?}", longest(&times));
        for program in [&v311, &v5, &own, &clean, &watcher] {
            let seen = program.seen();
            assert_eq!((seen.connected, &seen.broken), (1, &Vec::new()), "no program notices a renewal");
        }
        Outcome { v311, v5, own }
    }
}

async fn publish(program: Program, topic: &str, stop: CancellationToken) -> (Program, u32) {
    let mut ticks = tokio::time::interval(EVERY);
    let mut number = 0;
    while !stop.is_cancelled() {
        ticks.tick().await;
        number += 1;
        program.publish(topic, number).await;
    }
    (program, number)
}

async fn ask(asker: Asker, stop: CancellationToken) -> (Vec<Instant>, Vec<String>) {
    let mut ticks = tokio::time::interval(EVERY);
    let (mut times, mut wrong) = (Vec::new(), Vec::new());
    while !stop.is_cancelled() {
        ticks.tick().await;
        let body = times.len().to_string();
        match asker.ask(body.clone()).await {
            Ok((200, echo)) if echo == body => {}
            other => wrong.push(format!("{body}: {other:?}")),
        }
        times.push(Instant::now());
    }
    (times, wrong)
}

/// Nothing is lost, and nothing is silent for long.
fn check(name: &str, numbers: &[(u32, Instant)], last: u32) {
    let lost: Vec<u32> =
        (1..=last).filter(|number| !numbers.iter().any(|(found, _)| found == number)).collect();
    let times: Vec<Instant> = numbers.iter().map(|(_, at)| *at).collect();
    let again = numbers.len() - (last as usize - lost.len());
    println!("{name}: {last} messages, {again} came again, longest gap {:?}", longest(&times));
    assert!(lost.is_empty(), "{name}: lost {lost:?} of {last}");
    assert!(longest(&times) <= GAP_MAX, "{name}: {:?}", longest(&times));
}

fn longest(times: &[Instant]) -> Duration {
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_works_on_through_twenty_renewals_until_it_is_revoked() {
    let origin = Origin::start().await;
    let server = account(&origin);
    let device = Device::start(&server, &server, "meter-1", &["--label", "brief"]);
    let watcher = Device::start(&server, &server, "watcher", &[]);
    let first = device.generation();
    let load = Load::start(&device, &watcher).await;
    let began = Instant::now();
    device.wait_for_generation(first + GENERATIONS);
    // The next certificate is for hours, and then it is quiet.
    profile(&server, "lifetime_s=36000");
    let settled = device.agent.wait_for("a long certificate", |_| {
        let identities = device.agent.identities(&server);
        identities.iter().all(|held| held.not_after.elapsed().is_err_and(|ahead| ahead.duration() > HOUR))
    });
    let outcome = load.finish("renewals").await;
    let renewals = settled["generation"].as_u64().expect("a generation") - first;
    println!("{renewals} renewals in {:?}", began.elapsed());

    // Every live session moved with every renewal. The connection of requests is made anew only where one was
    // under way or kept when the certificate changed, which on a busy machine is not every time.
    let carry = device.agent.wait_for("fresh figures", |status| {
        status["carry"]["relays"][0]["remade"].as_u64() >= Some(3 * GENERATIONS)
    });
    println!("{}", carry["carry"]);
    assert!(carry["carry"]["relays"][1]["remade"].as_u64() >= Some(GENERATIONS * 3 / 4), "{carry}");
    let serials = origin.serials.lock().expect("no panic").len() as u64;
    assert!(serials >= GENERATIONS, "{serials} certificates at the origin");

    told_by_telemetry(&watcher, &settled).await;
    revoked(&server, &device, outcome).await;
}

/// The kept status is that of the newest certificate.
async fn told_by_telemetry(watcher: &Device, settled: &Value) {
    let late = Program::v5(watcher.mqtt, "watcher/late");
    let mut late = late.listening("devices/meter-1/status").await;
    let seen = late.until("a kept status", |seen| !seen.heard.is_empty()).await;
    let kept = &seen.heard[0];
    let said: Value = serde_json::from_str(&kept.payload).expect("JSON");
    assert!(kept.retained, "{said}");
    assert_eq!((&said["online"], &said["generation"]), (&Value::from(true), &settled["generation"]));
    assert_eq!(said["not_after"], settled["identity"]["expires_at"]);
}

/// A revocation is heard at once by everyone whom it concerns, in words that they know.
async fn revoked(server: &Server, device: &Device, outcome: Outcome) {
    let Outcome { mut v311, mut v5, own } = outcome;
    drop(own);
    let asker = Asker::new(device.http);
    assert_eq!(asker.ask("before".to_owned()).await, Ok((200, "before".to_owned())));
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    let (status, words) = asker.ask("after".to_owned()).await.expect("an answer");
    assert!(status == 502 && words.contains("as revoked"), "{status} {words}");
    let seen = v5.until("a goodbye", |seen| seen.broken.len() >= 2).await.broken.clone();
    assert!(seen[0].contains("AdministrativeAction") && seen[1].contains("ServerUnavailable"), "{seen:?}");
    // 3.1.1 has no words for an end; but for a beginning it has.
    let seen = v311.until("a refusal", |seen| seen.broken.len() >= 2).await.broken.clone();
    assert!(seen[1].contains("ServiceUnavailable"), "{seen:?}");

    let renewed = device.agent.command(&["renew"]);
    let words = String::from_utf8_lossy(&renewed.stderr);
    assert!(renewed.status.code() == Some(1) && words.contains("certificate is revoked"), "{words}");
    let is_told =
        |carried: &Value| carried["last_error"].as_str().is_some_and(|why| why.contains("as revoked"));
    let status = device.agent.wait_for("the revocation in the status", |status| {
        let carry = &status["carry"];
        [&carry["relays"][0], &carry["relays"][1], &carry["telemetry"]].into_iter().all(is_told)
    });
    println!("revoked: {status}");
    assert!(status["failures"][0]["what"].as_str().is_some_and(|what| what.contains("certificate_revoked")));
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_goes_on_while_the_ca_is_away_and_renewal_catches_up() {
    let origin = Origin::start().await;
    let mut ca = account(&origin);
    // The CA and the edge are processes of their own, and one can go without the other.
    ca.kill();
    let mut edge = ca.twin();
    ca.serve();
    edge.serve();
    let device = Device::start(&ca, &edge, "meter-1", &["--label", "brief"]);
    let watcher = Device::start(&ca, &edge, "watcher", &[]);
    let load = Load::start(&device, &watcher).await;
    device.wait_for_generation(3);
    ca.kill();
    let away = device.agent.wait_for("a failure in words", |status| {
        let failures = status["failures"].as_array().map(Vec::as_slice).unwrap_or_default();
        failures
            .iter()
            .filter(|failure| failure["what"].as_str().is_some_and(|what| what.contains("can't be reached")))
            .count()
            >= 3
    });
    assert_eq!(device.agent.status()["generation"], away["generation"]);
    ca.serve_again();
    let caught_up = device.wait_for_generation(away["generation"].as_u64().expect("a generation") + 3);
    assert_eq!(caught_up["failures"], Value::from(Vec::<u8>::new()));
    load.finish("the CA away").await;
}
