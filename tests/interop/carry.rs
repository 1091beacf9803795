//! mosquitto, its clients, paho and curl through the agent's local listeners, while the identity is renewed.
//!
//! The bound is the issue's: twenty renewals under load, a message every 100 ms through both listeners, none
//! lost at QoS 1, and no gap longer than 2 s.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use muster_agent::carry::{Mode, TelemetryWritten};
use muster_agent::identity::{Held, Verdict};
use muster_tests::carrying::{Carrying, relay, within};
use muster_tests::fleet::Fleet;
use rcgen::ExtendedKeyUsagePurpose;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::python::python;

const GENERATIONS: u32 = 20;
const EVERY: Duration = Duration::from_millis(100);
const BETWEEN_RENEWALS: Duration = Duration::from_millis(1100);
const GAP_MAX_S: f64 = 2.0;
/// What one program prints in one test.
const LINES_MAX: usize = 50_000;
const HOUR: Duration = Duration::from_secs(3600);

/// A mosquitto that demands certificates of the fleet; it ends with this.
struct Mosquitto {
    address: SocketAddr,
    folder: TempDir,
    _child: Child,
}

impl Mosquitto {
    async fn start(fleet: &Fleet) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        let server = fleet.leaf_pem(ExtendedKeyUsagePurpose::ServerAuth);
        let client = fleet.leaf_pem(ExtendedKeyUsagePurpose::ClientAuth);
        write("ca.pem", &fleet.root_pem());
        write("server.pem", &server.0);
        write("server.key", &server.1);
        write("client.pem", &client.0);
        write("client.key", &client.1);
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let at = folder.path().display();
        write(
            "mosquitto.conf",
            &format!(
                "listener {port} 127.0.0.1\ncafile {at}/ca.pem\ncertfile {at}/server.pem\nkeyfile {at}/server.key\n\
                 require_certificate true\nallow_anonymous true\npersistence false\nuser root\nlog_type all\n"
            ),
        );
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(folder.path().join("mosquitto.conf"))
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto is needed");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        within(async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        Self { address, folder, _child: child }
    }

    /// A client's arguments to reach the broker itself.
    fn direct(&self) -> Vec<String> {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let mut args = local(self.address);
        args.extend(["--cafile".into(), file("ca.pem"), "--cert".into(), file("client.pem")]);
        args.extend(["--key".into(), file("client.key")]);
        args
    }
}

fn local(address: SocketAddr) -> Vec<String> {
    vec!["-h".to_owned(), "127.0.0.1".to_owned(), "-p".to_owned(), address.port().to_string()]
}

/// A running `mosquitto_sub` that prints arrival time, topic and payload.
struct Listening {
    _child: Child,
    /// Read at once, so that the program never waits for the test.
    lines: mpsc::Receiver<String>,
}

impl Listening {
    /// Returns when the subscription is granted.
    async fn start(args: &[String], more: &[&str]) -> Self {
        let mut child = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub", "-d", "-F", "GOT %U %t %p"])
            .args(args)
            .args(more)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto_sub is needed");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        within(async {
            while !lines.next_line().await.expect("a line").expect("running").contains("Subscribed (mid") {}
        })
        .await;
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sender.try_send(line).expect("room for all lines of a test");
            }
        });
        Self { _child: child, lines: receiver }
    }

    /// Topic -> payload number -> arrival in seconds, until each topic has shown its last number.
    async fn until(&mut self, last: &BTreeMap<&str, u32>) -> BTreeMap<String, BTreeMap<u32, f64>> {
        let mut got: BTreeMap<String, BTreeMap<u32, f64>> = BTreeMap::new();
        let reading = async {
            while !last.iter().all(|(topic, last)| got.get(*topic).is_some_and(|all| all.contains_key(last)))
            {
                let line = self.lines.recv().await.expect("running");
                let Some(line) = line.strip_prefix("GOT ") else { continue };
                let words: Vec<&str> = line.split(' ').collect();
                let (at, number) = (words[0].parse().expect("a time"), words[2].parse().expect("a number"));
                got.entry(words[1].to_owned()).or_default().entry(number).or_insert(at);
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), reading).await.is_err() {
            let seen: Vec<_> =
                got.iter().map(|(topic, all)| (topic, all.len(), all.last_key_value())).collect();
            panic!("not all arrived: wanted {last:?}, got {seen:?}");
        }
        got
    }
}

/// Nothing is lost; the longest gap between arrivals, in seconds.
fn check(name: &str, got: &BTreeMap<u32, f64>, last: u32) -> f64 {
    let lost: Vec<u32> = (1..=last).filter(|number| !got.contains_key(number)).collect();
    assert!(lost.is_empty(), "{name}: lost {lost:?} of {last}");
    let mut times: Vec<f64> = got.values().copied().collect();
    times.sort_by(f64::total_cmp);
    let gap = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    println!("{name}: {last} messages, none lost, longest gap {gap:.3} s");
    gap
}

/// A stranger's program that publishes each line it is given.
fn publisher(program: &str, args: &[String]) -> Child {
    Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"))
}

const PAHO: &str = r#"
import sys, threading, paho.mqtt.client as mqtt
port, topic, version, clean, qos = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "clean", int(sys.argv[5])
kind = mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311
more = {} if version == "5" else {"clean_session": clean}
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=topic.replace("/", "-"), protocol=kind, **more)
drops = []
client.on_disconnect = lambda *a: (drops.append(a), print("dropped", topic, a[3], file=sys.stderr))
connected = threading.Event()
client.on_connect = lambda *a: connected.set()
client.will_set("wills", "gone", qos=1)
client.connect("127.0.0.1", port, keepalive=2)
client.loop_start()
connected.wait(10)
sent = [client.publish(topic, line.strip(), qos=qos) for line in sys.stdin]
for message in sent:
    message.wait_for_publish(10)
if drops or not all(message.is_published() for message in sent):
    sys.exit(f"{len(drops)} drops, {sum(not m.is_published() for m in sent)} unpublished")
client.disconnect()
client.loop_stop()
"#;

async fn curl(address: SocketAddr, number: u32) -> String {
    let output = Command::new("curl")
        .args(["-sS", "-m", "10", "-w", " %{http_code}", "--data-binary", &number.to_string()])
        .arg(format!("http://localhost:{}/message", address.port()))
        .output()
        .await
        .expect("curl is needed");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_renewals_under_load_lose_nothing_and_leave_no_gap() {
    let fleet = Fleet::new();
    let (mosquitto, origin) = (Mosquitto::start(&fleet).await, fleet.origin().await);
    let relays = [relay(Mode::Mqtt, mosquitto.address), relay(Mode::Http, origin.address)];
    let mut carrying = Carrying::start(&relays, None).await;
    let (mqtt, http) = (carrying.addresses[0], carrying.addresses[1]);
    let mut used = fleet.identity(1, HOUR);
    carrying.hold(Held { in_use: Some(used.clone()), candidate: None });

    // One listener at the broker itself, and three through the relay: clean without a client id, clean, 5.0.
    let mut wills = Told::start(&mosquitto, "wills").await;
    let mut direct = Listening::start(&mosquitto.direct(), &["-t", "load/#", "-q", "2"]).await;
    let mut unnamed = Listening::start(&local(mqtt), &["-t", "load/#", "-q", "1"]).await;
    let mut named = Listening::start(&local(mqtt), &["-t", "load/#", "-q", "1", "-i", "named"]).await;
    let mut five =
        Listening::start(&local(mqtt), &["-t", "load/#", "-q", "1", "-i", "five", "-V", "mqttv5"]).await;

    let lines = |topic: &str, version: &str| {
        let mut args = local(mqtt);
        args.extend(["-l", "-q", "1", "-t", topic, "-V", version].map(str::to_owned));
        publisher("mosquitto_pub", &args)
    };
    let paho = |topic: &str, version: &str, clean: &str, qos: &str| {
        let port = mqtt.port().to_string();
        publisher(&python(), &["-c", PAHO, &port, topic, version, clean, qos].map(str::to_owned))
    };
    let mut publishers = [
        ("load/v311", lines("load/v311", "mqttv311")),
        ("load/v5", lines("load/v5", "mqttv5")),
        ("load/paho-kept", paho("load/paho-kept", "4", "kept", "1")),
        ("load/paho-will", paho("load/paho-will", "4", "clean", "1")),
        ("load/paho-5", paho("load/paho-5", "5", "clean", "1")),
        ("load/paho-exact", paho("load/paho-exact", "5", "clean", "2")),
    ];
    let mut inputs: Vec<_> =
        publishers.iter_mut().map(|(_, child)| child.stdin.take().expect("piped")).collect();

    let requests = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        let (mut number, mut times) = (0, BTreeMap::new());
        let began = std::time::Instant::now();
        while number < 230 {
            ticks.tick().await;
            number += 1;
            assert_eq!(curl(http, number).await, format!("{number} 200"));
            times.insert(number, began.elapsed().as_secs_f64());
        }
        (number, times)
    });

    let (mut number, mut generation) = (0, 1);
    let mut ticks = tokio::time::interval(EVERY);
    let mut renewals = tokio::time::interval(BETWEEN_RENEWALS);
    renewals.tick().await;
    while generation <= GENERATIONS {
        tokio::select! {
            _ = ticks.tick() => {
                number += 1;
                for input in &mut inputs {
                    input.write_all(format!("{number}\n").as_bytes()).await.expect("a running publisher");
                }
            }
            _ = renewals.tick() => {
                // As the renewing half does it: a candidate, a verdict, and then in use.
                generation += 1;
                let next = fleet.identity(generation, HOUR);
                carrying.hold(Held { in_use: Some(used), candidate: Some(next.clone()) });
                let verdict = carrying.verdict().await;
                assert!(matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");
                used = next;
                carrying.hold(Held { in_use: Some(used.clone()), candidate: None });
            }
        }
    }
    drop(inputs);
    for (name, child) in &mut publishers {
        let ended = within(child.wait()).await.expect("ended");
        assert!(ended.success(), "{name}: {:?}", carrying.health.status());
    }
    let last: BTreeMap<&str, u32> = publishers.iter().map(|(topic, _)| (*topic, number)).collect();
    let mut gaps = Vec::new();
    for (name, listening) in
        [("direct", &mut direct), ("unnamed", &mut unnamed), ("named", &mut named), ("five", &mut five)]
    {
        let got = listening.until(&last).await;
        for (topic, _) in &publishers {
            gaps.push(check(&format!("{topic} to {name}"), &got[*topic], number));
        }
    }
    let (asked, times) = requests.await.expect("every request was answered");
    gaps.push(check("http", &times, asked));
    assert!(gaps.iter().all(|gap| *gap < GAP_MAX_S), "a gap of {GAP_MAX_S} s or more");
    let generations: std::collections::BTreeSet<u32> = origin
        .asked
        .lock()
        .expect("no panic")
        .iter()
        .filter(|(path, _)| path == "/message")
        .map(|(_, generation)| *generation)
        .collect();
    assert!(generations.contains(&1) && generations.len() > 15, "{generations:?}");
    let status = carrying.health.status();
    println!("{status:?}");
    assert!(status.relays[0].remade >= u64::from(GENERATIONS) * 8, "every session moved with every renewal");
    let will = tokio::time::timeout(Duration::from_millis(300), wills.expect("wills")).await;
    assert!(will.is_err(), "a will was published: {will:?}");
    carrying.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_tells_obeys_and_tries_the_candidate_on() {
    let fleet = Fleet::new();
    let mosquitto = Mosquitto::start(&fleet).await;
    let telemetry = TelemetryWritten {
        broker: format!("mqtts://localhost:{}", mosquitto.address.port()),
        server_name: None,
        ca: None,
        alpn: Vec::new(),
        prefix: None,
        client_suffix: String::new(),
        interval_s: None,
        commands: true,
    };
    let mut carrying = Carrying::start(&[], Some(&telemetry)).await;
    let old = fleet.identity(1, HOUR);
    carrying.hold(Held { in_use: Some(old.clone()), candidate: None });
    let mut status = Told::start(&mosquitto, "devices/meter-1/#").await;
    let said = status.expect("devices/meter-1/status").await;
    assert!(said.contains(r#""online":true"#) && said.contains(r#""generation":1"#), "{said}");

    mosquitto.tell("devices/meter-1/command", r#"{"command":"renew"}"#).await;
    let said = status.expect("devices/meter-1/response").await;
    assert!(said.contains(r#""accepted":true"#), "{said}");
    assert_eq!(within(carrying.commands.recv()).await, Some(muster_agent::carry::Command::Renew));
    mosquitto.tell("devices/meter-1/command", r#"{"command":"dance"}"#).await;
    let said = status.expect("devices/meter-1/response").await;
    assert!(said.contains(r#""accepted":false"#) && said.contains("expected"), "{said}");

    // A candidate of another CA is refused, and the old one comes back.
    let stranger = Fleet::new();
    let other = stranger.identity(2, HOUR);
    let mut other = std::sync::Arc::try_unwrap(other).expect("the only one");
    other.anchors = vec![fleet.root()];
    carrying.hold(Held { in_use: Some(old.clone()), candidate: Some(other.into()) });
    let verdict = carrying.verdict().await;
    assert!(matches!(&verdict, Verdict::Refused { why, .. } if why.contains("refused")), "{verdict:?}");
    let said = status.expect("devices/meter-1/status").await;
    assert!(said.contains(r#""generation":1"#), "{said}");

    // The next one counts as the one that was refused did.
    let good = fleet.identity(2, HOUR);
    carrying.hold(Held { in_use: Some(old), candidate: Some(good.clone()) });
    let verdict = carrying.verdict().await;
    assert!(matches!(&verdict, Verdict::Accepted { identity } if identity.is_same(&good)), "{verdict:?}");
    carrying.hold(Held { in_use: Some(good), candidate: None });
    let said = status.expect("devices/meter-1/status").await;
    assert!(said.contains(r#""generation":2"#), "{said}");
    carrying.stop().await;
    assert_eq!(status.expect("devices/meter-1/status").await, r#"{"online":false}"#);
}

/// What is published below a topic.
struct Told(Listening);

impl Told {
    async fn start(mosquitto: &Mosquitto, topic: &str) -> Self {
        Self(Listening::start(&mosquitto.direct(), &["-t", topic, "-q", "1"]).await)
    }

    /// The next payload on this topic.
    async fn expect(&mut self, topic: &str) -> String {
        within(async {
            loop {
                let line = self.0.lines.recv().await.expect("running");
                let found = line.strip_prefix("GOT ").and_then(|line| line.split_once(' '));
                if let Some(payload) = found.and_then(|(_, rest)| rest.strip_prefix(topic)) {
                    return payload.trim().to_owned();
                }
            }
        })
        .await
    }
}

impl Mosquitto {
    async fn tell(&self, topic: &str, payload: &str) {
        let output = Command::new("mosquitto_pub")
            .args(self.direct())
            .args(["-q", "1", "-t", topic, "-m", payload])
            .output()
            .await
            .expect("mosquitto_pub is needed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
