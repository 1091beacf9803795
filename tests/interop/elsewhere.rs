//! A CA that openssl runs: its devices come in at the edge until its own CRL, or an operator, says no.
//!
//! What openssl writes is what is read here: `openssl ca` keeps the CA's index and makes its CRLs.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muster_tests::est::read_reply;
use muster_tests::local::Origin;
use muster_tests::{Est, Identity, Server};
use rcgen::KeyPair;
use serde_json::Value;

use super::shell;

const HOST: &str = "api.example.test";
/// Generous: a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

const CONFIG: &str = "
[ca]
default_ca = d
[d]
dir = .
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = byo.pem
private_key = byo.key
default_md = sha256
default_days = 30
default_crl_days = 7
policy = p
crl_extensions = crl
unique_subject = no
[p]
commonName = supplied
[crl]
authorityKeyIdentifier = keyid
[delta]
2.5.29.27 = critical,DER:020101
[indirect]
issuingDistributionPoint = critical,@scope
[scope]
indirectCRL = TRUE
[leaf]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = clientAuth
[req]
distinguished_name = dn
x509_extensions = byo
prompt = no
[dn]
CN = Elsewhere CA
[byo]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
";

/// A server whose hostname accepts the CA, which is made for the test.
struct Bench {
    server: Server,
    ca: String,
    /// The origin lives in it.
    _runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn start(config: &str) -> Self {
        let server = Server::with_config(config);
        std::fs::write(server.scratch().join("ca.cnf"), CONFIG).expect("written");
        shell(
            &server,
            "touch index.txt; echo 1001 > serial; echo 01 > crlnumber
             for ca in byo other; do
                 openssl ecparam -name prime256v1 -genkey -noout -out $ca.key
                 openssl req -new -x509 -config ca.cnf -key $ca.key -days 60 -out $ca.pem
             done
             for device in meter-1 meter-2; do
                 openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out $device.key
                 openssl req -new -config ca.cnf -key $device.key -subj /CN=$device -out $device.csr
                 openssl ca -batch -config ca.cnf -extensions leaf -in $device.csr -out $device.pem -notext 2>&1
             done",
        );
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let origin = runtime.block_on(Origin::start());
        let file = server.scratch().join("byo.pem").display().to_string();
        let ca = server.muster_json(&["ca", "import", &file])["id"].as_str().expect("an id").to_owned();
        let to = format!("http://{}", origin.address);
        server.muster(&["host", "set", HOST, "--origin", &to, "--ca", &ca]);
        Self { server, ca, _runtime: runtime }
    }

    /// The CA makes its next CRL, after it did what is said.
    fn crl(&self, before: &str, options: &str, name: &str) -> String {
        let line = format!("{before}\nopenssl ca -config ca.cnf -gencrl {options} -out {name} 2>&1");
        shell(&self.server, &line);
        self.server.scratch().join(name).display().to_string()
    }

    fn take(&self, file: &str) -> Value {
        self.server.muster_json(&["ca", "take-crl", &self.ca, file])
    }

    /// What is said to a CRL that is refused.
    fn refused(&self, file: &str) -> String {
        let output = self.server.try_muster(&["ca", "take-crl", &self.ca, file]);
        assert_eq!(output.status.code(), Some(1), "{file}");
        String::from_utf8(output.stderr).expect("text")
    }

    fn device(&self, name: &str, door: Est) -> Est {
        let file = |end: &str| std::fs::read_to_string(self.server.scratch().join(format!("{name}.{end}")));
        let key = KeyPair::from_pem(&file("key").expect("a key")).expect("a key");
        let leaf = pem::parse(file("pem").expect("a certificate")).expect("PEM").into_contents();
        door.with(Identity { chain: vec![leaf], key })
    }

    /// The status, or none where the door stays shut.
    fn visits(&self, name: &str) -> Option<u16> {
        self.device(name, self.server.door(HOST)).visit("/").ok().map(|reply| reply.status)
    }

    fn known(&self) -> Value {
        self.server.muster_json(&["ca", "crl-source", &self.ca])
    }
}

const REVOKE: &str = "openssl ca -config ca.cnf -revoke meter-1.pem -crl_reason certificateHold 2>&1";
/// Lifts the hold: openssl has no command for it but the index itself.
const LIFT: &str = "sed -i 's/^R\\t\\([^\\t]*\\)\\t[^\\t]*\\t1001/V\\t\\1\\t\\t1001/' index.txt";

#[test]
fn a_device_is_cut_by_the_crl_of_its_ca_and_comes_back_when_the_hold_is_lifted() {
    let mut bench = Bench::start("");
    assert_eq!(["meter-1", "meter-2"].map(|name| bench.visits(name)), [Some(200); 2]);
    bench.take(&bench.crl("", "", "first.pem"));
    let mut open = bench.device("meter-1", bench.server.door(HOST)).connect().expect("a handshake");
    open.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).expect("sent");
    assert_eq!(read_reply(&mut open).expect("an answer").status, 200);
    let taken = bench.take(&bench.crl(REVOKE, "", "second.pem"));
    assert_eq!(taken["newly_revoked"], 1);
    let mut rest = Vec::new();
    // Cut: whatever TLS has to say of it.
    let _ = open.read_to_end(&mut rest);
    assert_eq!(["meter-1", "meter-2"].map(|name| bench.visits(name)), [None, Some(200)]);
    let listed = bench.server.muster_json(&["ca", "revoked", &bench.ca]);
    assert_eq!(
        (&listed[0]["serial_number"], &listed[0]["reason"], listed.as_array().map(Vec::len)),
        (&"1001".into(), &"certificateHold".into(), Some(1))
    );
    bench.server.kill();
    bench.server.serve();
    assert_eq!(["meter-1", "meter-2"].map(|name| bench.visits(name)), [None, Some(200)], "durable");
    // In DER this time.
    let third = bench.crl(LIFT, "", "third.pem");
    shell(&bench.server, "openssl crl -in third.pem -outform DER -out third.der");
    assert_eq!(bench.take(&third.replace(".pem", ".der"))["reinstated"], 1);
    assert_eq!(["meter-1", "meter-2"].map(|name| bench.visits(name)), [Some(200); 2]);
    let printed = bench.server.muster(&["ca", "crl", &bench.ca]);
    assert_eq!(
        pem::parse(printed).expect("PEM"),
        pem::parse(std::fs::read(third).expect("read")).expect("PEM")
    );
}

#[test]
fn a_crl_that_is_no_good_is_refused_and_the_last_one_stays() {
    let bench = Bench::start("");
    let first = bench.crl(REVOKE, "", "first.pem");
    bench.take(&bench.crl("", "", "second.pem"));
    let of_other = "sed 's/byo\\./other./' ca.cnf > other.cnf
                    openssl ca -config other.cnf -gencrl -out other-crl.pem";
    shell(&bench.server, of_other);
    let scratch = |name: &str| bench.server.scratch().join(name).display().to_string();
    shell(
        &bench.server,
        "head -c 5000000 /dev/zero | tr '\\0' '0' > large.der; echo nonsense > nonsense.pem",
    );
    for (file, word) in [
        (first, "greater than 0x02"),
        (scratch("other-crl.pem"), "not signed by the key of this CA"),
        (bench.crl("", "-crlexts delta", "delta.pem"), "delta"),
        (bench.crl("", "-crlexts indirect", "indirect.pem"), "indirect"),
        (
            bench.crl("", "-crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z", "old.pem"),
            "was good until",
        ),
        (scratch("large.der"), "4 MiB"),
        (scratch("nonsense.pem"), "neither PEM nor DER"),
        (scratch("byo.pem"), "no `X509 CRL`"),
    ] {
        let said = bench.refused(&file);
        assert!(said.contains(word), "{file}: {said}");
    }
    assert_eq!(["meter-1", "meter-2"].map(|name| bench.visits(name)), [None, Some(200)], "nothing is lost");
    assert_eq!(bench.known()["list"]["number_hex"], "02");
}

#[test]
fn a_certificate_is_revoked_by_its_names_without_any_crl() {
    let bench = Bench::start("");
    let file = bench.server.scratch().join("meter-1.pem").display().to_string();
    let print =
        shell(&bench.server, "openssl x509 -in meter-1.pem -noout -fingerprint -sha256 | cut -d= -f2");
    let print = print.trim();
    for (revoke, back) in [
        (["--serial", "1001"], ["--serial", "1001"]),
        (["--sha256", print], ["--sha256", print]),
        (["--file", file.as_str()], ["--serial", "10:01"]),
    ] {
        let of_ca = ["--ca", bench.ca.as_str()];
        bench.server.muster(&[&["cert", "revoke"], &of_ca[..], &revoke].concat());
        assert_eq!(["meter-1", "meter-2"].map(|name| bench.visits(name)), [None, Some(200)], "{revoke:?}");
        bench.server.muster(&[&["cert", "reactivate"], &of_ca[..], &back].concat());
        assert_eq!(bench.visits("meter-1"), Some(200), "{back:?}");
    }
}

#[test]
fn a_ca_without_a_fresh_crl_is_closed_or_open_as_it_is_set() {
    let bench = Bench::start("");
    bench.take(&bench.crl("", "-crlsec 20", "short.pem"));
    let until = |wanted: Option<u16>| {
        let deadline = Instant::now() + PATIENCE;
        while bench.visits("meter-2") != wanted {
            assert!(Instant::now() < deadline, "{wanted:?} {}", bench.known());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    until(None);
    assert_eq!(bench.known()["closed"], true);
    bench.server.muster(&["ca", "crl-source", &bench.ca, "--when-stale", "open"]);
    assert_eq!(bench.visits("meter-2"), Some(200));
    bench.server.muster(&["ca", "crl-source", &bench.ca, "--when-stale", "closed"]);
    assert_eq!(bench.visits("meter-2"), None);
    bench.take(&bench.crl("", "", "next.pem"));
    assert_eq!(bench.visits("meter-2"), Some(200));
}

/// Python's file server in the scratch folder, ended with its value.
struct Publisher(Child, SocketAddr);

impl Publisher {
    fn start(server: &Server) -> Self {
        let code = "import http.server as h, sys\ns = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler)\nprint(s.server_port, flush=True)\ns.serve_forever()";
        let mut child = Command::new("python3")
            .args(["-c", code])
            .current_dir(server.scratch())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 is needed");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a port");
        Self(child, SocketAddr::from(([127, 0, 0, 1], line.trim().parse().expect("a port"))))
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An edge of its own process hears of it too.
#[test]
fn a_crl_is_fetched_from_its_address_and_every_edge_goes_by_it() {
    let bench = Bench::start("[listen]\nedges = \"edges.sock\"\n[webhooks]\nloopback_http = true\n");
    let folder = tempfile::tempdir().expect("a folder");
    let socket = bench.server.dir().join("edges.sock").display().to_string();
    std::fs::write(folder.path().join("muster.toml"), format!("[edge]\nfollow = {socket:?}\n"))
        .expect("written");
    let mut edge = Command::new(muster_tests::server::program())
        .args(["serve", &folder.path().display().to_string(), "--roles", "edge,admin"])
        .args([
            "--listen-https",
            "127.0.0.1:0",
            "--listen-mqtt",
            "127.0.0.1:0",
            "--listen-admin",
            "127.0.0.1:0",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("muster runs");
    let mut line = String::new();
    std::io::BufReader::new(edge.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {line}"));
    let address: SocketAddr = ready["edge_https"].as_str().expect("an address").parse().expect("an address");
    let ca = bench.server.ca_file();
    let at_both = |name: &str| {
        let other = bench.device(name, Est::new(address, &ca).named(HOST)).visit("/").ok();
        [bench.visits(name), other.map(|reply| reply.status)]
    };
    assert_eq!(at_both("meter-1"), [Some(200); 2]);
    let publisher = Publisher::start(&bench.server);
    let url = format!("http://{}/published.pem", publisher.1);
    let set = ["ca", "crl-source", &bench.ca, "--url", &url, "--every", "1h"];
    let missing = bench.server.try_muster(&set);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("404"), "{missing:?}");
    assert_eq!(bench.known()["url"], Value::Null);
    bench.crl(REVOKE, "", "published.pem");
    bench.server.muster(&set);
    assert_eq!((at_both("meter-1"), at_both("meter-2")), ([None; 2], [Some(200); 2]));
    bench.crl(LIFT, "", "published.pem");
    bench.server.muster(&["ca", "fetch-crl", &bench.ca]);
    assert_eq!(at_both("meter-1"), [Some(200); 2]);
    drop(publisher);
    let gone = bench.server.try_muster(&["ca", "fetch-crl", &bench.ca]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("can't be reached"), "{gone:?}");
    assert_eq!(bench.known()["last_fetch"]["failures"], 1);
    assert_eq!(at_both("meter-1"), [Some(200); 2], "the last good one stays");
    edge.kill().expect("ended");
    edge.wait().expect("ended");
}
