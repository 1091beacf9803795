//! `muster-sim edge` at our edge, nginx and mosquitto in one command, as they take turns.
//!
//! What is looked at is that each is really visited and watched, and that the table, the JSON and the page tell it. How
//! dear they are is for a quiet machine: `simulator/README.md`.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muster_tests::Server;
use muster_tests::local::Origin;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

use super::{run, text};

/// Longest wait for a stranger's server to listen.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A stranger's server, ended with its value.
struct Stranger {
    child: Child,
    address: SocketAddr,
}

impl Stranger {
    fn start(program: &str, arguments: &[&str], address: SocketAddr) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{program} is needed: {error}"));
        let stranger = Self { child, address };
        let began = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < READY_TIMEOUT, "{program} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        stranger
    }

    /// `NAME=PID`, as the simulator takes it.
    fn pid(&self, name: &str) -> String {
        format!("{name}={}", self.child.id())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// These servers can't say which port they took; one just given back is free.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port")
}

/// What the strangers show, and a file of the roots that devices trust: theirs and ours.
fn write_certificates(server: &Server) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
    let write =
        |name: &str, text: String| std::fs::write(server.scratch().join(name), text).expect("written");
    write("stranger.pem", leaf.pem());
    write("stranger.key", key.serialize_pem());
    let ours = std::fs::read_to_string(server.ca_file()).expect("a root");
    write("roots.pem", issuer.pem() + &ours);
}

fn nginx(server: &Server) -> Stranger {
    let (address, dir, ca) = (free_address(), server.scratch().display(), text(&server.ca_file()));
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/nginx-{kind};"))
        .join(" ");
    let config = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.log; events {{}}
         http {{
           access_log off; {temporary}
           server {{
             listen {address} ssl; ssl_certificate {dir}/stranger.pem; ssl_certificate_key {dir}/stranger.key;
             ssl_client_certificate {ca}; ssl_verify_client on; ssl_verify_depth 2; ssl_protocols TLSv1.3;
             location / {{ return 200 \"ok\\n\"; }}
           }}
         }}"
    );
    let file = server.scratch().join("nginx.conf");
    std::fs::write(&file, config).expect("written");
    let log = text(&server.scratch().join("nginx.log"));
    Stranger::start("/usr/sbin/nginx", &["-e", &log, "-c", &text(&file)], address)
}

fn mosquitto(server: &Server) -> Stranger {
    let (address, dir, ca) = (free_address(), server.scratch().display(), text(&server.ca_file()));
    let config = format!(
        "listener {} 127.0.0.1\ncafile {ca}\ncertfile {dir}/stranger.pem\nkeyfile {dir}/stranger.key\n\
         require_certificate true\nuse_identity_as_username true\nallow_anonymous true\nlog_dest none\nuser root\n",
        address.port()
    );
    let file = server.scratch().join("mosquitto.conf");
    std::fs::write(&file, config).expect("written");
    Stranger::start("/usr/sbin/mosquitto", &["-c", &text(&file)], address)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_sets_our_edge_nginx_and_mosquitto_side_by_side() {
    let server = Server::start();
    let origin = Origin::start().await;
    server.muster(&["host", "set", "api.example.test", "--origin", &format!("http://{}", origin.address)]);
    write_certificates(&server);
    let program = text(&muster_tests::program::built("muster-sim"));
    let token = server.muster(&["token", "new", "--claim", "--uses", "30"]);
    let (est, ca) = (format!("https://{}", server.est_address()), text(&server.ca_file()));
    let fleet = ["fleet", "--server", &est, "--ca", &ca, "--identities", "fleet", "--devices", "30"];
    run(&server, &program, &[&fleet, ["--quiet", "--token", &token].as_slice()].concat());

    let (nginx, mosquitto) = (nginx(&server), mosquitto(&server));
    let targets = [
        "ours=https://api.example.test/".to_owned(),
        format!("nginx=https://localhost:{}/", nginx.address.port()),
        format!("mosquitto=mqtts://localhost:{}", mosquitto.address.port()),
    ];
    let address = format!("ours={}", server.https_address());
    let pids = [format!("ours={}", server.pid()), nginx.pid("nginx"), mosquitto.pid("mosquitto")];
    let mut arguments = vec!["edge", "--ca", "roots.pem", "--identities", "fleet", "--address", &address];
    for (target, pid) in targets.iter().zip(&pids) {
        arguments.extend(["--target", target, "--pid", pid]);
    }
    arguments.extend(["--rounds", "2", "--for", "2s", "--arrival", "constant:20"]);
    arguments.extend(["--json", "edge.json", "--report", "edge.html", "--slo", "errors<1"]);
    let table = run(&server, &program, &arguments);

    let results = std::fs::read(server.scratch().join("edge.json")).expect("written");
    let results: Value = serde_json::from_slice(&results).expect("JSON");
    let rows = results["comparison"].as_array().expect("a table");
    assert_eq!(rows.len(), 3);
    for (row, name) in rows.iter().zip(["ours", "nginx", "mosquitto"]) {
        assert_eq!(row["name"], name);
        assert!(row["done"].as_u64().is_some_and(|done| done >= 30) && row["failed"] == 0, "{row}");
        for figure in ["server_ms", "bounds", "ratio"] {
            assert!(row[figure]["least"].as_f64().is_some_and(|least| least > 0.0), "{row}");
        }
        assert!(
            table.lines().any(|line| line.starts_with(name) && line.matches("..").count() == 3),
            "{table}"
        );
    }
    assert_eq!(rows[0]["ratio"]["median"], 1.0);
    assert_eq!(results["runs"][1]["turns"].as_array().map(Vec::len), Some(2));
    let page = std::fs::read_to_string(server.scratch().join("edge.html")).expect("written");
    assert!(page.contains("x ours") && page.contains("mosquitto"));
    // They came through our edge with their certificates, most of the thirty: a turn ends by the clock.
    let serials = origin.serials.lock().expect("no panic").len();
    assert!((20..=30).contains(&serials), "{serials}");

    // nginx resumes sessions and we do not: that is told, and goals are about what was done.
    let (ours, at) = (server.https_address().to_string(), ["edge", "--identities", "fleet"]);
    let resume = ["--ca", "roots.pem", "--mode", "resume", "--for", "2s", "--arrival", "constant:20"];
    let told = "the server resumed no session";
    let own = ["--target", "https://api.example.test/", "--address", &ours, "--json", "resume.json"];
    let goals = ["--slo", "p99<60s", "--slo", "count>=20"];
    let table = run(&server, &program, &[&at[..], &resume, &own, &goals].concat());
    assert!(table.contains(told) && table.contains("held"), "{table}");
    let results = std::fs::read(server.scratch().join("resume.json")).expect("written");
    let results: Value = serde_json::from_slice(&results).expect("JSON");
    assert_eq!(
        (&results["main_series"], &results["facts"]["sessions_resumed"]),
        (&"handshake".into(), &0.0.into())
    );
    let table =
        run(&server, &program, &[&at[..], &resume, &["--target", &targets[1]["nginx=".len()..]]].concat());
    assert!(!table.contains(told) && table.lines().any(|line| line.starts_with("resumed ")), "{table}");
}
