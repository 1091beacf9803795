//! `muster-sim` against the real server: a fleet enrolls, is interrupted, goes on, and renews.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use muster_tests::Server;
use serde_json::Value;

const DEVICES: u32 = 200;
/// Where records begin in a file of identities, after its magic, and less than any record is long.
const RECORDS_FROM: usize = 8;
const HALF_RECORD: usize = 40;
/// For an interrupted run to get somewhere, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `muster-sim` program, built once with this test's profile.
fn program() -> &'static Path {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| muster_tests::program::built("muster-sim"))
}

struct Fleet {
    server: Server,
    token: String,
}

impl Fleet {
    fn new() -> Self {
        let server = Server::start();
        let uses = DEVICES.to_string();
        let token = server.muster(&["token", "new", "--claim", "--uses", &uses]);
        Self { server, token }
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(["fleet", "--server", &format!("https://{}", self.server.est_address())]);
        command.arg("--ca").arg(self.server.ca_file());
        command.arg("--identities").arg(self.identities());
        command.args(["--devices", &DEVICES.to_string(), "--quiet"]).args(more);
        command
    }

    fn identities(&self) -> PathBuf {
        self.server.scratch().join("identities")
    }

    fn run(&self, more: &[&str]) -> Output {
        self.command(more).output().expect("muster-sim runs")
    }

    /// How many certificates the server holds.
    fn issued(&self) -> usize {
        let metrics = self.server.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix("muster_certificates "));
        line.expect("the metric is there").parse().expect("a number")
    }

    fn bytes(&self) -> u64 {
        std::fs::metadata(self.identities().join("shard-0000.ids")).map_or(0, |data| data.len())
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("written")).expect("JSON")
}

fn count(results: &Value, series: &str) -> u64 {
    results["series"][series]["summary"]["count"].as_u64().unwrap_or(0)
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "it gets nowhere");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a run and kills it once it has written this much.
fn killed_after(fleet: &Fleet, bytes: u64) {
    let mut command = fleet.command(&["--token", &fleet.token, "--arrival", "constant:100"]);
    let mut child = command.stdout(Stdio::null()).spawn().expect("muster-sim runs");
    wait_until(|| fleet.bytes() > bytes);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn a_fleet_goes_on_after_it_was_killed_and_no_device_enrolls_twice() {
    let fleet = Fleet::new();
    killed_after(&fleet, 40_000);
    // A record that was being written: the start of another one, so that nothing that was whole is harmed. A
    // request goes out only after its record, so what a kill cuts off was never sent.
    let file = fleet.identities().join("shard-0000.ids");
    let half = std::fs::read(&file).expect("there")[RECORDS_FROM..][..HALF_RECORD].to_vec();
    let mut handle = std::fs::OpenOptions::new().append(true).open(&file).expect("opens");
    handle.write_all(&half).expect("appended");
    let json = fleet.server.scratch().join("fleet.json");
    let token = fleet.token.clone();
    // The token is good for as many devices as there are: nobody took a second certificate.
    let arguments = ["--token", &token, "--arrival", "stampede", "--json", json.to_str().expect("text")];
    succeeded(&fleet.run(&arguments));
    let results = read(&json);
    assert_eq!(results["facts"]["identities"], f64::from(DEVICES));
    assert!(count(&results, "enroll") < u64::from(DEVICES), "some were there already");
    assert_eq!(fleet.issued(), DEVICES as usize, "each has one certificate");
    let listed = fleet.server.muster_json(&["device", "list"]);
    assert!(listed.to_string().contains("sim-0000199"), "{listed}");
    succeeded(&fleet.run(&["--token", &token]));
}

#[test]
fn a_fleet_in_two_shards_is_merged_and_renews_and_a_goal_decides_the_exit_code() {
    let fleet = Fleet::new();
    let scratch = fleet.server.scratch();
    let file = |name: &str| scratch.join(name).display().to_string();
    let (first, second, all) = (file("0.json"), file("1.json"), file("all.json"));
    for (shard, json) in [("0", &first), ("1", &second)] {
        let shards = [
            "--token",
            &fleet.token,
            "--arrival",
            "poisson:500",
            "--shards",
            "2",
            "--shard",
            shard,
            "--json",
            json,
        ];
        succeeded(&fleet.run(&shards));
    }
    let report = file("report.html");
    let merge = |more: &[&str]| {
        let mut command = Command::new(program());
        command.args(["merge", &first, &second, "--json", &all, "--report", &report]).args(more);
        command.output().expect("muster-sim runs")
    };
    succeeded(&merge(&["--slo", "count>=200", "--slo", "errors<1"]));
    assert_eq!(count(&read(Path::new(&all)), "enroll"), u64::from(DEVICES));
    let page = std::fs::read_to_string(&report).expect("written");
    assert!(page.contains("<svg") && !page.contains("src=") && !page.contains("<script"));
    assert_eq!(merge(&["--slo", "p99<1us"]).status.code(), Some(1));
    succeeded(&fleet.run(&["--renew", "--arrival", "constant:200", "--slo", "errors<1"]));
    assert_eq!(fleet.run(&["--arrival", "sometimes"]).status.code(), Some(2));
    // What makes no sense as a whole is wrong usage as well.
    assert_eq!(fleet.run(&["--shard", "2", "--shards", "2"]).status.code(), Some(2));
}

#[test]
fn a_wrong_token_is_counted_by_its_reason() {
    let fleet = Fleet::new();
    let json = fleet.server.scratch().join("fleet.json");
    let arguments = [
        "--token",
        "wrong",
        "--patience",
        "3s",
        "--arrival",
        "stampede",
        "--json",
        json.to_str().expect("text"),
    ];
    let output = fleet.run(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let errors = &read(&json)["series"]["enroll"]["errors"];
    // On a busy machine some have no answer within their patience; that is its own reason.
    let counted: u64 = errors.as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    assert_eq!(counted, u64::from(DEVICES), "{errors}");
    assert!(errors["status_401"].as_u64().is_some_and(|refused| refused > counted / 2), "{errors}");
    assert_eq!(fleet.issued(), 0);
}

/// Longest time between two lines of the demo.
const DEMO_MAX: Duration = Duration::from_secs(120);

/// A demo that stays up, and ends with the test however that ends.
struct Demo(Child);

impl Demo {
    /// Its lines as they come.
    fn lines(&mut self) -> Receiver<String> {
        let mut reader = BufReader::new(self.0.stdout.take().expect("a pipe"));
        let (sender, receiver) = std::sync::mpsc::sync_channel(1_000);
        std::thread::spawn(move || {
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
                if sender.send(core::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demo_tells_its_whole_story_and_everything_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let (report, json) = (folder.path().join("report.html"), folder.path().join("demo.json"));
    let mut demo = Command::new(program());
    demo.args(["demo", "--devices", "60", "--report"]).arg(&report).arg("--json").arg(&json);
    let mut demo = Demo(demo.stdout(Stdio::piped()).spawn().expect("muster-sim runs"));
    let lines = demo.lines();
    let mut told = String::new();
    while !told.ends_with("Ctrl-C ends it.\n") {
        let line = lines.recv_timeout(DEMO_MAX).unwrap_or_else(|error| panic!("{error} after: {told}"));
        told.push_str(&line);
    }
    assert!(!told.contains("FAILED") && told.contains("14 of 14 held"), "{told}");
    // It stays up, and what it names is the dashboard.
    let dashboard =
        told.lines().find_map(|line| line.strip_prefix("dashboard   http://")).expect("its address");
    let (address, _) = dashboard.split_once('/').expect("a path");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    write!(stream, "GET /login HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut login = String::new();
    stream.read_to_string(&mut login).expect("an answer");
    assert!(login.starts_with("HTTP/1.1 200 ") && login.contains("<form"), "{login}");
    let ended = Command::new("kill").args(["-INT", &demo.0.id().to_string()]).status().expect("kill runs");
    assert!(ended.success() && demo.0.wait().expect("it ends").success(), "all held");
    let page = std::fs::read_to_string(&report).expect("a report");
    assert!(
        page.contains("<svg") && !page.contains("http://") && !page.contains("https://"),
        "it opens from disk alone"
    );
    let checks = read(&json)["checks"].as_array().cloned().expect("checks");
    assert!(checks.iter().all(|check| check["held"] == true), "{checks:?}");
}

const LIVE: &str = "
    name = 'an hour'
    devices = 40
    for = '60m'
    use_every = '5m'
    [link]
    delay = '30ms'
    [hostile]
    wrong_id = 0.1
    foreign_certificate = 0.1
    malformed_csr = 0.1
    half_open = 0.1
    [[event]]
    at = '12m'
    what = 'slow-links'
    for = '10m'
    share = 0.5
    link = { delay = '100ms', jitter = '50ms', loss = 0.05, bytes_per_s = 20000 }
    [[event]]
    at = '15m'
    what = 'reboot'
    [[event]]
    at = '20m'
    what = 'rotate'
    share = 0.2
    [[event]]
    at = '22m'
    what = 'clock-skew'
    by = '60d'
    [[event]]
    at = '30m'
    what = 'revoke'
    share = 0.3
";

#[test]
fn a_scenario_runs_on_sockets_with_revocations_and_intruders() {
    let fleet = Fleet::new();
    let server = &fleet.server;
    server.muster(&["host", "set", "mqtt.example.test", "--protocol", "mqtt"]);
    let (file, json) = (server.scratch().join("live.toml"), server.scratch().join("live.json"));
    std::fs::write(&file, LIVE).expect("written");
    let muster = muster_tests::server::program().display().to_string();
    let revoke = format!("revoke={muster} -C {} cert revoke --device {{device}}", server.dir().display());
    let mut command = Command::new(program());
    command.arg("scenario").arg(&file).args(["--live", &format!("https://{}", server.est_address())]);
    command.arg("--ca").arg(server.ca_file()).arg("--identities").arg(fleet.identities());
    command.args(["--token", &fleet.token, "--speed", "150", "--hook", &revoke]);
    command.args([
        "--edge",
        "mqtts://mqtt.example.test",
        "--edge-address",
        &server.mqtt_address().to_string(),
    ]);
    let output = command.arg("--json").arg(&json).output().expect("muster-sim runs");
    succeeded(&output);
    let results = read(&json);
    assert!(count(&results, "edge") > 50, "{results}");
    assert!(results["facts"]["revoked"].as_f64().is_some_and(|revoked| revoked > 0.0));
    assert!(results["series"]["revoked"]["errors"].as_object().is_some_and(|reasons| !reasons.is_empty()));
    // A handshake and an answer are three round trips over the link, and no machine is faster than that.
    let edge = &results["series"]["edge"]["summary"];
    assert!(edge["p50_ms"].as_f64().is_some_and(|median| median >= 3.0 * 60.0), "{edge}");
    assert!(results["facts"]["links_slow"].as_f64().is_some_and(|slow| slow > 5.0), "{}", results["facts"]);
    // By a clock that is two months ahead it is time to renew, for far more than were told to.
    assert!(count(&results, "renew") > 20, "{results}");
    // Each kind of hostile device tried, and was turned away by somebody else than itself.
    let refused = results["series"]["hostile"]["errors"].as_object().expect("reasons");
    for kind in ["WrongId ", "ForeignCertificate ", "MalformedCsr ", "HalfOpen "] {
        let tried = refused.keys().any(|reason| reason.starts_with(kind) && !reason.ends_with(" local"));
        assert!(tried, "{kind}{refused:?}");
    }
}
