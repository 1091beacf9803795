//! `openssl s_server` as the origin of a hostname: it demands a client certificate, and is held to the CA
//! that an operator named for it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muster_tests::Server;
use serde_json::{Value, json};

use crate::{shell, text};

/// Longest wait for files that are looked at every few seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// An origin; it ends when this is dropped.
struct Origin {
    child: Child,
    url: String,
}

impl Origin {
    /// Shows `origin.pem` and demands a certificate of `outbound-ca.pem`.
    fn start(folder: &Path) -> Self {
        let args = "s_server -accept 127.0.0.1:0 -cert origin.pem -key origin.key -CAfile outbound-ca.pem \
            -Verify 1 -verify_return_error -www";
        let mut child = Command::new("openssl")
            .args(args.split_whitespace())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let accepts = lines.find_map(|line| Some(line.ok()?.strip_prefix("ACCEPT ")?.to_owned()));
        // Its pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        let address = accepts.expect("the line that says where it listens");
        let port = address.rsplit(':').next().expect("a port").to_owned();
        Self { child, url: format!("https://127.0.0.1:{port}") }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two CAs, the origin's pair by the first, and what the edge may show by the second, but for a stranger's.
const FILES: &str = "
    for ca in origin-ca outbound-ca; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $ca.key -out $ca.pem \
            -subj /CN=$ca -days 30
    done
    issue() { # name, CA, extensions
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.csr -subj /CN=$1
        printf '%b' \"$3\" > $1.ext
        openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -days 30 -extfile $1.ext -out $1.pem
    }
    issue origin origin-ca 'subjectAltName=DNS:origin.internal\\nextendedKeyUsage=serverAuth'
    for name in edge zone host; do issue $name outbound-ca 'extendedKeyUsage=clientAuth'; done
    issue stranger origin-ca 'extendedKeyUsage=clientAuth'";

/// What the hostname answers: status and body.
fn visit(server: &Server) -> String {
    let answer = server.door("api.example.test").visit("/").expect("the door is open");
    format!("{} {} {}", answer.status, answer.reason(), answer.text())
}

fn visited(server: &Server, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = visit(server);
        if answer.starts_with(wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "not {wanted}: {answer}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn an_origin_is_held_to_its_ca_and_shown_the_accounts_certificate() {
    let server = Server::start();
    shell(&server, &format!("({FILES}) 2>&1"));
    let origin = Origin::start(server.scratch());
    let set = |more: &[&str]| {
        server.muster(&[&["host", "set", "api.example.test", "--mode", "off"], more].concat());
    };
    set(&["--origin", &origin.url]);
    assert!(visit(&server).starts_with("502 origin_untrusted"), "no CA of the machine vouches for it");
    let [right, wrong] = ["origin-ca.pem", "outbound-ca.pem"].map(|name| text(&server.scratch().join(name)));
    set(&["--origin-ca", &right]);
    assert!(visit(&server).starts_with("502 origin_untrusted"), "it is not called 127.0.0.1");
    set(&["--origin-name", "origin.internal"]);
    assert!(visit(&server).starts_with("502 origin_failed"), "it wants a certificate");
    set(&["--origin-client-cert", "yes"]);
    assert!(visit(&server).starts_with("502 origin_failed"), "there is none");
    let put = |name: &str, ending: &str| {
        let to = server.dir().join(format!("tls/outbound.{ending}"));
        std::fs::copy(server.scratch().join(name), to).expect("copied");
    };
    put("edge.key", "key");
    put("edge.pem", "crt");
    visited(&server, "200");
    let seen = visit(&server);
    assert!(seen.contains("CN=edge") || seen.contains("CN = edge"), "the origin saw who came: {seen}");
    // Files that turn bad leave what was shown before; files that are gone leave nothing.
    std::fs::write(server.dir().join("tls/outbound.crt"), "no certificate").expect("written");
    set(&["--origin-name", "other.internal"]);
    assert!(visit(&server).starts_with("502 origin_untrusted"));
    set(&["--origin-name", "origin.internal"]);
    assert!(visit(&server).starts_with("200"));
    set(&["--origin-ca", &wrong]);
    assert!(visit(&server).starts_with("502 origin_untrusted"), "another CA");
    set(&["--origin-ca", "machine"]);
    assert!(visit(&server).starts_with("502 origin_untrusted"));
    set(&["--origin-ca", &right]);
    std::fs::remove_file(server.dir().join("tls/outbound.crt")).expect("removed");
    visited(&server, "502 origin_failed");
}

/// Uploads `NAME.pem` and `NAME.key` for origins; the id.
fn upload(server: &Server, path: &str, name: &str) -> String {
    let read = |ending: &str| std::fs::read_to_string(server.scratch().join(format!("{name}.{ending}")));
    let body =
        json!({ "certificate": read("pem").expect("made"), "private_key": read("key").expect("made") });
    let answer = done(server, "POST", path, &body);
    assert!(!answer.to_string().contains("PRIVATE KEY"), "{answer}");
    answer["id"].as_str().expect("an id").to_owned()
}

/// Asks the API below the zone, which must agree.
fn done(server: &Server, method: &str, path: &str, body: &Value) -> Value {
    let zone = server.muster_json(&["zone", "list"])[0]["id"].as_str().expect("an id").to_owned();
    let path = format!("/zones/{zone}/origin_tls_client_auth{path}");
    let (_, token) = server.account_and_token();
    let path = format!("/client/v4{path}");
    let authorization = format!("Bearer {token}");
    let reply = server.ask_admin(method, &path, &[("Authorization", &authorization)], &body.to_string());
    assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text());
    serde_json::from_str::<Value>(&reply.text()).expect("JSON")["result"].clone()
}

/// Each answer of the API comes when the edge goes by it, so one visit after it tells.
#[test]
fn an_origin_is_shown_what_its_hostname_or_zone_chose() {
    let mut server = Server::start();
    shell(&server, &format!("({FILES}) 2>&1"));
    let origin = Origin::start(server.scratch());
    let ca = text(&server.scratch().join("origin-ca.pem"));
    server.muster(&[
        "host",
        "set",
        "api.example.test",
        "--mode",
        "off",
        "--origin",
        &origin.url,
        "--origin-ca",
        &ca,
        "--origin-name",
        "origin.internal",
    ]);
    let shown = |name: Option<&str>| {
        let seen = visit(&server);
        match name {
            Some(name) => assert!(
                seen.starts_with("200")
                    && (seen.contains(&format!("CN={name}")) || seen.contains(&format!("CN = {name}"))),
                "{name}: {seen}"
            ),
            None => assert!(seen.starts_with("502 origin_failed"), "{seen}"),
        }
    };
    let enable = |enabled| done(&server, "PUT", "/settings", &json!({ "enabled": enabled }));
    let name = |wish: Value| done(&server, "PUT", "/hostnames", &json!({ "config": [wish] }));
    let host = "api.example.test";
    let stranger = upload(&server, "", "stranger");
    shown(None);
    enable(true);
    shown(None);
    let zone = upload(&server, "", "zone");
    shown(Some("zone"));
    let own = upload(&server, "/hostnames/certificates", "host");
    shown(Some("zone"));
    name(json!({ "hostname": host, "cert_id": own, "enabled": true }));
    shown(Some("host"));
    enable(false);
    shown(Some("host"));
    name(json!({ "hostname": host, "enabled": false }));
    shown(None);
    enable(true);
    shown(Some("zone"));
    name(json!({ "hostname": host, "enabled": null }));
    done(&server, "DELETE", &format!("/hostnames/certificates/{own}"), &Value::Null);
    shown(Some("zone"));
    // The one before it, and then the account's, which there is none of.
    done(&server, "DELETE", &format!("/{zone}"), &Value::Null);
    shown(None);
    done(&server, "DELETE", &format!("/{stranger}"), &Value::Null);
    shown(None);
    for (from, to) in [("edge.key", "key"), ("edge.pem", "crt")] {
        let to = server.dir().join(format!("tls/outbound.{to}"));
        std::fs::copy(server.scratch().join(from), to).expect("copied");
    }
    visited(&server, "200");
    shown(Some("edge"));
    // As it is after a restart, the key read anew.
    upload(&server, "", "zone");
    server.terminate();
    server.serve();
    let seen = visit(&server);
    assert!(seen.starts_with("200") && seen.contains("zone"), "{seen}");
}
