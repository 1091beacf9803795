//! The door of each hostname, through the whole server: what an operator sets is what a client meets.
//!
//! The attacks and the reasons of refusal have their tests with the edge itself (`server/edge/tests`);
//! here the ledger, the API, EST and the edge work together.

use std::io::{BufRead as _, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use muster_tests::est::certificates_of;
use muster_tests::request::request;
use muster_tests::{Est, Identity, Server};
use rcgen::KeyPair;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[path = "edge/mqtt.rs"]
mod mqtt;
#[path = "edge/others.rs"]
mod others;

/// An origin that answers every request with what it was told of the client's subject.
fn origin() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut octet = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut octet).is_ok() {
                    head.push(octet[0]);
                }
                let text = String::from_utf8_lossy(&head).to_lowercase();
                let named = |line: &&str| line.starts_with("cf-") && line.contains("subject");
                let body = text.lines().filter(named).collect::<Vec<_>>().join("\n");
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            });
        }
    });
    address
}

/// Enrolls a device and hands out what makes its client certificate.
fn enrolled(server: &Server, device: &str) -> Holder {
    let (key, der) = request(device);
    let leaf = server.est().enroll(device, &server.token(device), &der).certificate();
    Holder { chain: vec![leaf], key: key.serialize_der() }
}

struct Holder {
    /// The leaf first.
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
}

impl From<Identity> for Holder {
    fn from(Identity { chain, key }: Identity) -> Self {
        Self { chain, key: key.serialize_der() }
    }
}

impl Holder {
    fn at(&self, door: Est) -> Est {
        let key = KeyPair::try_from(self.key.as_slice()).expect("a key");
        door.with(Identity { chain: self.chain.clone(), key })
    }

    /// The status, or none where the door stays shut.
    fn visits(&self, server: &Server, host: &'static str) -> Option<u16> {
        self.at(server.door(host)).visit("/").ok().map(|reply| reply.status)
    }
}

fn anonymous(server: &Server, host: &'static str) -> Option<u16> {
    server.door(host).visit("/").ok().map(|reply| reply.status)
}

fn set(server: &Server, host: &str, more: &[&str]) {
    server.muster(&[&["host", "set", host], more].concat());
}

#[test]
fn one_certificate_opens_the_hostnames_of_all_zones_of_its_account_and_no_other_ones() {
    let (server, stranger) = (Server::start(), Server::start());
    let to = format!("http://{}", origin());
    server.muster(&["zone", "add", "other.test"]);
    set(&server, "api.example.test", &["--origin", &to]);
    set(&server, "api.other.test", &["--origin", &to]);
    set(&server, "www.example.test", &["--mode", "off", "--origin", &to]);
    let device = enrolled(&server, "meter-1");
    let reply = device.at(server.door("api.example.test")).visit("/").expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.text().contains("cn=meter-1"), "the origin hears who comes: {}", reply.text());
    assert_eq!(device.visits(&server, "api.other.test"), Some(200));
    assert_eq!(anonymous(&server, "api.example.test"), None);
    assert_eq!(anonymous(&server, "www.example.test"), Some(200));
    assert_eq!(anonymous(&server, "nobody.example.test"), None);
    let foreigner = enrolled(&stranger, "meter-1");
    assert_eq!(foreigner.visits(&server, "api.example.test"), None, "a CA of another account");
}

#[test]
fn a_change_of_root_shuts_no_door_on_who_trusts_the_old_one_alone() {
    let server = Server::start();
    set(&server, "api.example.test", &["--origin", &format!("http://{}", origin())]);
    let before = enrolled(&server, "meter-1");
    let (door, est) = (|| server.door("api.example.test"), server.est());
    let old_trust = door();
    assert_eq!(before.at(door()).visit("/").expect("an answer").status, 200);
    server.muster(&["ca", "create"]);
    let answer = before.at(old_trust).visit("/").expect("the door's certificate is trusted");
    assert_eq!(answer.status, 200);
    // What the new root's CA issues opens it, too.
    let (key, der) = request("meter-2");
    let leaf = est.enroll("meter-2", &server.token("meter-2"), &der).certificate();
    let after = Holder { chain: vec![leaf], key: key.serialize_der() };
    assert_eq!(after.visits(&server, "api.example.test"), Some(200));
}

#[test]
fn what_an_operator_changes_is_in_force_when_the_command_returns() {
    let server = Server::start();
    let to = format!("http://{}", origin());
    set(&server, "api.example.test", &["--origin", &to]);
    let device = enrolled(&server, "meter-1");
    let visits = || device.visits(&server, "api.example.test");
    assert_eq!(visits(), Some(200));
    server.muster(&["device", "suspend", "meter-1"]);
    assert_ne!(visits(), Some(200));
    server.muster(&["device", "resume", "meter-1"]);
    assert_eq!(visits(), Some(200));
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    assert_eq!(visits(), None);
    server.muster(&["cert", "reactivate", "--device", "meter-1"]);
    assert_eq!(visits(), Some(200));
    set(&server, "api.example.test", &["--mode", "off"]);
    assert_eq!(anonymous(&server, "api.example.test"), Some(200));
    set(&server, "api.example.test", &["--mode", "require"]);
    assert_eq!(anonymous(&server, "api.example.test"), None);
    set(&server, "*.example.test", &["--origin", &to]);
    assert_eq!(device.visits(&server, "any.example.test"), Some(200));
    server.muster(&["host", "rm", "api.example.test"]);
    assert_eq!(visits(), Some(200), "the wildcard answers in its place");
    server.muster(&["host", "rm", "*.example.test"]);
    assert_eq!(visits(), None);
    // A CA that was replaced vouches until its last leaf ends, and the new one at once.
    set(&server, "api.example.test", &["--origin", &to]);
    server.muster(&["ca", "rotate"]);
    let second = enrolled(&server, "meter-2");
    assert_eq!((visits(), second.visits(&server, "api.example.test")), (Some(200), Some(200)));
}

/// The account's own root, associated with a hostname as if it were another CA, vouches for the same
/// certificates: those that are revoked are refused, and gone from it at once.
#[test]
fn a_revoked_certificate_does_not_come_in_by_the_root_above_its_ca() {
    let server = Server::start();
    let to = format!("http://{}", origin());
    server.muster(&["ca", "import", &server.ca_file().display().to_string()]);
    let cas = server.muster_json(&["ca", "list"]);
    let imported = cas.as_array().expect("a list").iter().find(|ca| ca["role"] == "verify-only");
    let imported = imported.unwrap_or_else(|| panic!("not imported: {cas}"))["id"].clone();
    set(&server, "api.example.test", &["--origin", &to, "--ca", imported.as_str().expect("an id")]);
    let device = enrolled(&server, "meter-1");
    let chain = certificates_of(&server.est().get("cacerts").decoded());
    let visits = || {
        let key = KeyPair::try_from(device.key.as_slice()).expect("a key");
        let chain = [device.chain.clone(), chain.clone()].concat();
        let door = server.door("api.example.test").with(Identity { chain, key });
        door.visit("/").ok().map(|reply| reply.status)
    };
    assert_eq!(visits(), Some(200));
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    assert_eq!(visits(), None);
    server.muster(&["cert", "reactivate", "--device", "meter-1"]);
    assert_eq!(visits(), Some(200));
}

#[test]
fn rules_and_revocations_outlive_a_restart() {
    let mut server = Server::start();
    let to = format!("http://{}", origin());
    set(&server, "api.example.test", &["--origin", &to]);
    let (good, bad) = (enrolled(&server, "meter-1"), enrolled(&server, "meter-2"));
    server.muster(&["cert", "revoke", "--device", "meter-2"]);
    server.kill();
    server.serve();
    assert_eq!(good.visits(&server, "api.example.test"), Some(200));
    assert_eq!(bad.visits(&server, "api.example.test"), None);
}

/// An edge in a process of its own, ended with its value.
struct OtherEdge {
    folder: tempfile::TempDir,
    child: std::process::Child,
    address: SocketAddr,
    mqtt: SocketAddr,
    figures: SocketAddr,
}

impl OtherEdge {
    /// One that follows the server.
    fn of(server: &Server, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = server.dir().join("edges.sock");
        let config = format!("[edge]\nfollow = {:?}\n{more}", socket.display().to_string());
        std::fs::write(folder.path().join("muster.toml"), config).expect("written");
        Self::start(folder)
    }

    fn start(folder: tempfile::TempDir) -> Self {
        let anywhere = "127.0.0.1:0";
        let mut child = std::process::Command::new(muster_tests::server::program())
            .args(["serve", &folder.path().display().to_string(), "--roles", "edge,admin"])
            .args(["--listen-https", anywhere, "--listen-mqtt", anywhere, "--listen-admin", anywhere])
            .stdout(std::process::Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).expect("a log"))
            .spawn()
            .expect("muster runs");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("not ready: {}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default())
        });
        assert!(ready["event"] == "ready" && ready["est"].is_null(), "{ready}");
        let text = |name: &str| ready[name].as_str().expect(name).trim_start_matches("http://").to_owned();
        let addresses = ["edge_https", "edge_mqtt", "admin"].map(|name| text(name).parse().expect(name));
        let [address, mqtt, figures] = addresses;
        Self { folder, child, address, mqtt, figures }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let killed = std::process::Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(killed.expect("kill runs").success());
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The same again, with what it has kept.
    fn again(mut self) -> Self {
        self.kill();
        let kept = tempfile::tempdir().expect("a folder");
        let copied = std::process::Command::new("cp")
            .args(["-a", &format!("{}/.", self.folder.path().display()), &kept.path().display().to_string()])
            .status();
        assert!(copied.expect("cp runs").success());
        Self::start(kept)
    }
}

impl Drop for OtherEdge {
    fn drop(&mut self) {
        self.kill();
    }
}

/// It has no ledger and no CA key. What an operator changes is in force there too when the command returns; while the
/// server is away it goes on and starts by what it knew, and for too long only where the hostname says so.
#[test]
fn an_edge_of_its_own_process_follows_and_outlives_its_server() {
    let mut server = Server::with_config("[listen]\nedges = \"edges.sock\"\n");
    let to = format!("http://{}", origin());
    set(&server, "api.example.test", &["--origin", &to]);
    set(&server, "open.example.test", &["--origin", &to, "--when-stale", "open"]);
    let (good, bad) = (enrolled(&server, "meter-1"), enrolled(&server, "meter-2"));
    let mut edge = OtherEdge::of(&server, "stale_after_s = 30\n");
    let ca = server.ca_file();
    let visits = |edge: &OtherEdge, holder: &Holder, host: &'static str| {
        holder.at(Est::new(edge.address, &ca).named(host)).visit("/").ok().map(|reply| reply.status)
    };
    let both = |edge: &OtherEdge| [&good, &bad].map(|holder| visits(edge, holder, "api.example.test"));
    assert_eq!(both(&edge), [Some(200), Some(200)]);
    let open = || Est::new(edge.address, &ca).named("api.example.test");
    assert!(open().visit("/").is_err(), "without a certificate");
    server.muster(&["cert", "revoke", "--device", "meter-2"]);
    assert_eq!(both(&edge), [Some(200), None]);
    set(&server, "www.example.test", &["--mode", "off", "--origin", &to]);
    assert_eq!(visits(&edge, &good, "www.example.test"), Some(200));
    assert!(plain(edge.figures, "/metrics").contains("muster_edge_"), "its own figures");

    server.kill();
    assert_eq!(both(&edge), [Some(200), None]);
    edge = edge.again();
    assert_eq!(both(&edge), [Some(200), None], "by what it knew last: {}", edge.log());
    let deadline = Instant::now() + Duration::from_secs(60);
    while visits(&edge, &good, "api.example.test") == Some(200) {
        assert!(Instant::now() < deadline, "its news is too old");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(visits(&edge, &good, "open.example.test"), Some(200));
    assert_eq!(visits(&edge, &bad, "open.example.test"), None, "what it knew, it knows");

    server.serve();
    while visits(&edge, &good, "api.example.test") != Some(200) {
        assert!(Instant::now() < deadline + Duration::from_secs(60), "it does not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
    server.muster(&["cert", "reactivate", "--device", "meter-2"]);
    assert_eq!(both(&edge), [Some(200), Some(200)]);
    let kept = edge.folder.path();
    assert!(!kept.join("ledger.redb").exists() && !kept.join("keys").exists(), "neither ledger nor CA keys");
}

/// What plain HTTP answers at an address.
fn plain(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn a_certificate_from_files_goes_before_the_one_made_here() {
    let server = Server::start();
    let to = format!("http://{}", origin());
    set(&server, "api.example.test", &["--mode", "off", "--origin", &to]);
    assert_eq!(anonymous(&server, "api.example.test"), Some(200));
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_file = server.scratch().join("other-ca.pem");
    std::fs::write(&ca_file, ca.self_signed(&ca_key).expect("a CA").pem()).expect("written");
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let names = vec!["api.example.test".to_owned()];
    let leaf =
        rcgen::CertificateParams::new(names).expect("a name").signed_by(&key, &issuer).expect("signed");
    let folder = server.dir().join("tls/hosts");
    std::fs::write(folder.join("api.example.test.key"), key.serialize_pem()).expect("written");
    std::fs::write(folder.join("api.example.test.crt"), leaf.pem()).expect("written");
    let deadline = Instant::now() + Duration::from_secs(10);
    let door = || Est::new(server.https_address(), &ca_file).named("api.example.test");
    while door().visit("/").is_err() {
        assert!(
            Instant::now() < deadline,
            "the files are not used: {}",
            std::fs::read_to_string(server.log()).expect("a log")
        );
    }
    assert_eq!(anonymous(&server, "api.example.test"), None, "the old certificate is gone");
}

/// Neither an older rule nor that of a wildcard above answers for a hostname without a certificate.
#[test]
fn a_rule_holds_whatever_becomes_of_its_hostnames_certificate() {
    let server = Server::start();
    let to = format!("http://{}", origin());
    let device = enrolled(&server, "meter-1");
    let files = server.dir().join("tls/hosts/api.example.test.crt");
    std::fs::write(&files, "no certificate").expect("written");
    set(&server, "*.example.test", &["--mode", "off", "--origin", &to]);
    assert_eq!(anonymous(&server, "www.example.test"), Some(200));
    assert_eq!(anonymous(&server, "api.example.test"), Some(200));
    set(&server, "api.example.test", &["--origin", &to]);
    assert_eq!(anonymous(&server, "api.example.test"), None);
    assert_eq!(device.visits(&server, "api.example.test"), None);
    std::fs::remove_file(&files).expect("removed");
    let deadline = Instant::now() + Duration::from_secs(20);
    while device.visits(&server, "api.example.test") != Some(200) {
        assert!(Instant::now() < deadline, "the certificate made here is not used");
    }
    // Files that turn bad leave the certificate before, and the rule is the new one all the same.
    std::fs::write(&files, "no certificate").expect("written");
    for (mode, status) in [("off", Some(200)), ("require", None)] {
        set(&server, "api.example.test", &["--mode", mode]);
        assert_eq!(anonymous(&server, "api.example.test"), status, "{mode}");
        assert_eq!(device.visits(&server, "api.example.test"), Some(200), "{mode}");
    }
}

/// Half of the crowd says nothing; the other half begins twice as many handshakes as there may be, from
/// several addresses, and begins anew when it has the server's work.
#[test]
fn an_honest_client_gets_in_among_silent_sockets_and_a_flood_of_handshakes() {
    const SLOTS: usize = 32;
    let server = Server::with_config(&format!("[edge]\nhandshakes = {SLOTS}\n"));
    let to = format!("http://{}", origin());
    set(&server, "api.example.test", &["--origin", &to]);
    let device = enrolled(&server, "meter-1");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (address, hello) = (server.https_address(), Arc::new(hello("api.example.test")));
    let silent: Vec<_> = (0..500).map(|_| TcpStream::connect(address).expect("connected")).collect();
    let begun = Arc::new(AtomicUsize::new(0));
    for index in 0..2 * SLOTS {
        let (hello, begun) = (Arc::clone(&hello), Arc::clone(&begun));
        let from = [127, 0, 0, 2 + u8::try_from(index % 8).expect("small")];
        runtime.spawn(async move {
            loop {
                let socket = tokio::net::TcpSocket::new_v4()?;
                socket.bind((from, 0).into())?;
                let mut stream = socket.connect(address).await?;
                stream.write_all(&hello).await?;
                // Refused for want of a slot, or the server's flight is there.
                if stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {
                    begun.fetch_add(1, Ordering::Relaxed);
                }
            }
            #[expect(unreachable_code, reason = "it says what the errors above are")]
            Ok::<_, std::io::Error>(())
        });
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while begun.load(Ordering::Relaxed) < 4 * SLOTS {
        assert!(Instant::now() < deadline, "the flood does not begin");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    for visit in 0..20 {
        assert_eq!(device.visits(&server, "api.example.test"), Some(200), "visit {visit}");
    }
    let begun = begun.load(Ordering::Relaxed);
    runtime.shutdown_background();
    assert!(begun > 8 * SLOTS, "{begun} handshakes were begun: no flood");
    drop(silent);
}

/// The first message of a client that then sends nothing more.
fn hello(name: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written");
    hello
}

/// One answer of the API: the status, and what is in it.
fn api(server: &Server, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
    let (_, token) = server.account_and_token();
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str())];
    let reply = server.ask_admin(method, &format!("/client/v4{path}"), &headers, body);
    let json = serde_json::from_str(&reply.text()).unwrap_or_else(|_| panic!("no JSON: {}", reply.text()));
    (reply.status, json)
}

/// What the tester says is what the edge then does.
#[test]
fn the_tester_foretells_the_edge() {
    let server = Server::start();
    let to = format!("http://{}", origin());
    set(
        &server,
        "api.example.test",
        &["--mode", "request", "--origin", &to, "--protocol", "https", "--protocol", "mqtt"],
    );
    let device = enrolled(&server, "meter-1");
    let (account, _) = server.account_and_token();
    let zone = server.muster_json(&["zone", "list"])[0]["id"].as_str().expect("an id").to_owned();
    let entrypoint = format!("/zones/{zone}/rulesets/phases/http_request_firewall_custom/entrypoint");
    let rules = serde_json::json!({ "rules": [
        { "expression": "http.request.uri.path eq \"/blocked\"", "action": "block", "description": "never" },
        { "expression": "cf.tls_client_auth.cert_subject_dn eq \"CN=meter-1\" and http.request.uri.path eq \"/mine\"", "action": "log" },
        { "expression": "mqtt.topic eq \"devices/meter-1/secret\"", "action": "block" },
    ]});
    assert_eq!(api(&server, "PUT", &entrypoint, &rules.to_string()).0, 200);
    let app = serde_json::json!({ "domain": "api.example.test/guarded", "type": "self_hosted", "policies": [
        { "name": "known", "decision": "non_identity", "include": [{ "common_name": { "common_name": "meter-1" } }] }] });
    assert_eq!(api(&server, "POST", &format!("/accounts/{account}/access/apps"), &app.to_string()).0, 201);
    let ask = |question: serde_json::Value| {
        let (status, answer) =
            api(&server, "POST", &format!("/accounts/{account}/muster/access_test"), &question.to_string());
        assert_eq!(status, 200, "{answer}");
        answer["result"].clone()
    };
    for (path, certificate, admitted, number, policy) in [
        ("/", None, true, None, None),
        ("/blocked", Some("meter-1"), false, Some(1), None),
        ("/mine", Some("meter-1"), true, None, None),
        ("/guarded/x", None, false, None, None),
        ("/guarded/x", Some("meter-1"), true, None, Some("known")),
    ] {
        let mut question = serde_json::json!({ "host": "api.example.test", "path": path });
        if let Some(certificate) = certificate {
            question["certificate"] = certificate.into();
        }
        let said = ask(question);
        assert_eq!(said["admitted"], admitted, "{path}: {said}");
        assert_eq!(said["rule"]["number"].as_u64(), number, "{path}: {said}");
        assert_eq!(said["policy"]["name"].as_str(), policy, "{path}: {said}");
        assert_eq!(said["device"].as_str(), certificate, "{path}: {said}");
        let noted = said["noted"].as_array().expect("a list").len();
        assert_eq!(noted, usize::from(path == "/mine"), "{said}");
        let door = server.door("api.example.test");
        let door = if certificate.is_some() { device.at(door) } else { door };
        let status = door.visit(path).expect("an answer").status;
        assert_eq!(status, if admitted { 200 } else { 403 }, "{path}");
    }
    // By what it shows itself, and by a certificate of nobody here.
    let pem = |der: &[u8]| pem::encode(&pem::Pem::new("CERTIFICATE", der));
    let own = pem(&device.chain[0]);
    let said = ask(serde_json::json!({ "host": "api.example.test", "path": "/guarded", "pem": own }));
    assert_eq!((&said["admitted"], &said["device"]), (&true.into(), &"meter-1".into()), "{said}");
    let stranger = rcgen::generate_simple_self_signed(vec!["x.test".to_owned()]).expect("a certificate");
    let said = ask(serde_json::json!({ "host": "api.example.test", "pem": pem(stranger.cert.der()) }));
    assert_eq!(said["admitted"], false, "{said}");
    assert!(said["reason"].is_string() && said["rule"].is_null(), "{said}");
    for (topic, admitted) in [("devices/meter-1/state", true), ("devices/meter-1/secret", false)] {
        let question = serde_json::json!({ "host": "api.example.test", "protocol": "mqtt", "certificate": "meter-1",
            "client_id": "meter-1", "topic": topic });
        let said = ask(question);
        assert_eq!(
            (&said["admitted"], said["rule"]["number"].as_u64()),
            (&admitted.into(), (!admitted).then_some(3)),
            "{said}"
        );
    }
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    let said = ask(serde_json::json!({ "host": "api.example.test", "certificate": "meter-1" }));
    assert_eq!(said["reason"], "certificate_revoked", "{said}");
    let said = ask(serde_json::json!({ "host": "nobody.example.test" }));
    assert_eq!(said["reason"], "host_unknown", "{said}");
    for (question, pointer) in [
        (serde_json::json!({}), "/host"),
        (serde_json::json!({ "host": "api.example.test", "certificate": "nobody" }), "/certificate"),
        (serde_json::json!({ "host": "api.example.test", "pem": "x" }), "/pem"),
        (serde_json::json!({ "host": "api.example.test", "path": "x y" }), "/path"),
    ] {
        let path = format!("/accounts/{account}/muster/access_test");
        let (status, answer) = api(&server, "POST", &path, &question.to_string());
        assert_eq!((status, &answer["errors"][0]["source"]["pointer"]), (400, &pointer.into()), "{answer}");
    }
}

/// The secrets of a run, wherever they could turn up: answers, pages, and the log.
#[test]
fn no_secret_is_in_an_answer_a_page_or_the_log() {
    let server = Server::with_config("[log]\nlevel = \"debug\"\n");
    set(&server, "api.example.test", &[]);
    let (account, token) = server.account_and_token();
    let enrollment = server.token("meter-2");
    enrolled(&server, "meter-1");
    let key = KeyPair::generate().expect("a key");
    let leaf = rcgen::CertificateParams::new(vec!["leaf.test".to_owned()]).expect("a name").self_signed(&key);
    let leaf = serde_json::json!({ "ca": false, "certificates": leaf.expect("signed").pem(), "private_key": key.serialize_pem() });
    let (status, _) =
        api(&server, "POST", &format!("/accounts/{account}/mtls_certificates"), &leaf.to_string());
    assert_eq!(status, 200);
    // Known to the server: what is in its key files, line by line, is what must not be seen.
    let mut secrets = vec![token.clone(), enrollment.clone()];
    let mut folders = vec![server.dir()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("read").map(|entry| entry.expect("read").path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let text = std::fs::read_to_string(&entry).unwrap_or_default();
            let Some((_, secret)) = text.split_once("PRIVATE KEY-----\n") else { continue };
            secrets.extend(
                secret
                    .lines()
                    .take_while(|line| !line.starts_with("---"))
                    .filter(|line| line.len() > 30)
                    .map(str::to_owned),
            );
        }
    }
    let pem = key.serialize_pem();
    secrets.push(pem.lines().nth(1).expect("a line").to_owned());
    assert!(secrets.len() > 6, "the keys were found");
    let must_be_clean = |what: &str, text: &str| {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{what} holds a secret");
        }
    };
    let own = format!("/accounts/{account}/muster");
    for path in [
        "admin_tokens",
        "approvals",
        "audit",
        "cas",
        "certificates",
        "devices",
        "hosts",
        "profiles",
        "roots",
        "status",
        "tokens",
    ] {
        let (status, answer) = api(&server, "GET", &format!("{own}/{path}"), "");
        assert_eq!(status, 200, "{path}");
        must_be_clean(path, &answer.to_string());
    }
    for path in [
        format!("/accounts/{account}/mtls_certificates"),
        "/zones".to_owned(),
        "/user".to_owned(),
        "/user/tokens/verify".to_owned(),
    ] {
        must_be_clean(&path, &api(&server, "GET", &path, "").1.to_string());
    }
    // Pages, by a session.
    let send = |method: &str, path: &str, cookie: &str, body: &str| {
        server.ask_admin(method, path, &[("Cookie", cookie)], body)
    };
    let wrong = send("POST", "/login", "", "token=msa_wrong-and-still-not-to-be-written-down");
    assert_eq!(wrong.status, 401);
    let login = send("POST", "/login", "", &format!("token={token}"));
    let cookie = login
        .header("set-cookie")
        .and_then(|set| set.split(';').next().map(str::to_owned))
        .expect("a session");
    for path in [
        "/",
        "/access",
        "/access/test?host=api.example.test&certificate=meter-1",
        "/approvals",
        "/audit",
        "/cas",
        "/certificates",
        "/devices",
        "/devices/meter-1",
        "/hosts",
        "/hosts/api.example.test",
        "/settings",
        "/tokens",
    ] {
        let page = send("GET", path, &cookie, "");
        assert_eq!(page.status, 200, "{path}");
        must_be_clean(path, &page.text());
        assert!(
            !page.text().contains(cookie.split('=').nth(1).expect("a value")),
            "{path} shows the session"
        );
    }
    must_be_clean("/metrics", &server.metrics());
    let log = std::fs::read_to_string(server.log()).expect("a log");
    must_be_clean("the log", &log);
    assert!(!log.contains("still-not-to-be-written-down"), "a wrong token is in the log");
    assert!(!log.contains(cookie.split('=').nth(1).expect("a value")), "the session is in the log");
}
