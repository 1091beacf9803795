//! A server in trouble: no disk, no file descriptors, peers that stop half-way, an end in the middle of
//! a request, settings and TLS files that change below it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_policy::reason::Reason;
use muster_store::Ledger;
use muster_tests::est::{basic, certificates_of, post, read_reply};
use muster_tests::request::{request, request_with};
use muster_tests::systemd::Systemd;
use muster_tests::{Est, Maker, Reply, Server};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use time::OffsetDateTime;

/// Longest wait for something that happens by itself.
const PATIENCE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// Looks again until it is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The head of an enrolment by token, with a body that is announced and not sent.
fn head(authorization: &str, length: usize) -> String {
    format!(
        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\
         Content-Type: application/pkcs10\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    )
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_and_space_is_enough_to_go_on() {
    let mut server = Server::made("");
    server.serve_without_signal_of_file_size();
    let (_, kept) = request("meter-1");
    let first = server.token("meter-1");
    let certificate = server.est().enroll("meter-1", &first, &kept).certificate();
    let (_, der) = request("meter-2");
    let token = server.token("meter-2");
    let ready = || {
        let reply = server.ask_admin("GET", "/readyz", &[], "");
        (reply.status, reply.text())
    };
    assert_eq!(ready().0, 200);
    // A second after the last commit the file is put at rest, and can be opened anew without being written.
    let written_at = || std::fs::metadata(server.dir().join("ledger.redb")).and_then(|file| file.modified());
    let rests = || written_at().expect("a time").elapsed().is_ok_and(|past| past > Duration::from_secs(3));
    eventually("the ledger is at rest", rests);
    // Nothing can be written beyond this, as on a disk without space.
    server.limit("fsize", "16384");
    for _ in 0..3 {
        let reply = server.est().enroll("meter-2", &token, &der);
        assert_eq!(
            (reply.status, reply.reason()),
            (503, Reason::LedgerUnavailable.code()),
            "{}",
            reply.text()
        );
        assert!(reply.header("Retry-After").is_some());
    }
    // For moments, while it is opened anew, it can't be read either.
    eventually("it is not ready", || ready() == (503, "the ledger can't be written\n".to_owned()));
    assert!(server.metrics().contains("reason=\"ledger_unavailable\""));
    server.limit("fsize", "unlimited");
    // Nobody is sent to a server that is not ready, and so nobody finds out that it could.
    eventually("it is ready again by itself", || ready().0 == 200);
    // The token was not used up by what failed.
    eventually("the ledger is back", || server.est().enroll("meter-2", &token, &der).status == 200);
    assert_eq!(server.est().enroll("meter-1", &first, &kept).certificate(), certificate);
    assert_eq!(server.muster_json(&["cert", "list"]).as_array().map(Vec::len), Some(2));
    assert_eq!(server.terminate(), Some(0));
    Ledger::check(&server.dir().join("ledger.redb")).expect("the ledger is whole");
}

#[test]
fn running_out_of_file_descriptors_is_survived() {
    let server = Server::start();
    let (_, der) = request("meter-1");
    let token = server.token("meter-1");
    server.limit("nofile", "48");
    let crowd: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(server.est_address()).expect("the backlog takes it")).collect();
    // The silent ones are closed after some seconds and give their descriptors back.
    server.est().enroll("meter-1", &token, &der).certificate();
    drop(crowd);
    server.limit("nofile", "1024");
    assert!(server.metrics().contains("reason=\"accept_failed\""), "{}", server.metrics());
}

#[test]
fn a_silent_peer_is_cut_off_before_it_takes_the_place_of_a_handshake() {
    let server = Server::with_config("[est]\nhandshakes = 1\n");
    let began_at = Instant::now();
    let mut silent = TcpStream::connect(server.est_address()).expect("connects");
    silent.set_read_timeout(Some(PATIENCE)).expect("set");
    assert_eq!(server.est().get("cacerts").status, 200);
    assert!(began_at.elapsed() < Duration::from_secs(4), "the one slot was free");
    assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
    assert!(server.metrics().contains("refused_total{reason=\"silent\"} 1"), "{}", server.metrics());
}

#[test]
fn peers_that_stall_after_an_octet_keep_nobody_else_out() {
    let server =
        Server::with_config("[est]\nconnections = 24\nconnections_per_source = 16\nhandshakes = 4\n");
    let (_, der) = request("meter-1");
    let token = server.token("meter-1");
    let address = server.est_address();
    // From two addresses, more than there are places: hellos that stop after the first octet.
    let crowd: Vec<TcpStream> = (0..40)
        .map(|number: u8| {
            let mut stream = connect_from([127, 0, 0, 2 + number % 2], address);
            stream.write_all(&[22]).expect("sent");
            stream
        })
        .collect();
    let began_at = Instant::now();
    server.est().enroll("meter-1", &token, &der).certificate();
    assert!(began_at.elapsed() < Duration::from_secs(4), "it waits for none of them");
    assert!(server.metrics().contains("reason=\"connection_limit\""), "{}", server.metrics());
    drop(crowd);
}

#[test]
fn an_idle_connection_gives_way_when_another_address_has_none() {
    let server = Server::with_config("[est]\nconnections = 4\nconnections_per_source = 4\n");
    let mut idle: Vec<_> = (0..4).map(|_| server.est().connect().expect("connects")).collect();
    let oldest = idle.first_mut().expect("one");
    oldest.sock.set_read_timeout(Some(PATIENCE)).expect("set");
    let came_at = Instant::now();
    let other = connect_from([127, 0, 0, 2], server.est_address());
    // It ends, by itself it would only after the idle time.
    let ended = oldest.read(&mut [0]);
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    assert!(came_at.elapsed() < Duration::from_secs(4), "at once");
    other.set_nonblocking(true).expect("set");
    let still = (&other).read(&mut [0]);
    assert!(still.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "the newcomer stays");
}

/// Connects from an address of this machine.
fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this machine");
    socket.connect(&to.into()).expect("the backlog takes it");
    socket.into()
}

#[test]
fn a_body_that_does_not_come_is_given_up_and_uses_nothing_up() {
    let server = Server::start();
    let (_, der) = request("meter-1");
    let token = server.token("meter-1");
    let mut stream = server.est().connect().expect("connects");
    stream.write_all(head(&basic("meter-1", &token), 500).as_bytes()).expect("sent");
    assert_eq!(read_reply(&mut stream).expect("an answer").status, 100);
    stream.write_all(b"MIIB").expect("sent");
    let reply = read_reply(&mut stream).expect("an answer");
    assert_eq!((reply.status, reply.reason()), (400, Reason::BodyTimeout.code()));
    server.est().enroll("meter-1", &token, &der).certificate();
    // A body that ends early is another fault.
    let mut stream = server.est().connect().expect("connects");
    let cut = String::from_utf8(post("simpleenroll", Some(&basic("meter-1", &token)), "MIIB")).expect("text");
    let cut = cut.replace("Content-Length: 4", "Content-Length: 400");
    stream.write_all(cut.as_bytes()).expect("sent");
    stream.conn.send_close_notify();
    stream.flush().expect("sent");
    stream.sock.shutdown(Shutdown::Write).expect("open");
    // hyper may end the connection without an answer, since nobody waits for one.
    if let Ok(reply) = read_reply(&mut stream) {
        assert_eq!(reply.reason(), Reason::BodyMalformed.code());
    }
}

/// RFC 9112 §7.1 lets the size of a chunk begin with zeros, and does not say how many.
#[test]
fn a_chunk_whose_size_has_no_end_is_given_up() {
    let server = Server::start();
    let authorization = basic("meter-1", &server.token("meter-1"));
    let head = head(&authorization, 0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let mut stream = server.est().connect().expect("connects");
    stream.sock.set_write_timeout(Some(PATIENCE)).expect("an option");
    stream.write_all(head.as_bytes()).expect("sent");
    assert_eq!(read_reply(&mut stream).expect("an answer").status, 100);
    let began_at = Instant::now();
    let zeros = [b'0'; 16 * 1024];
    let mut sent = 0;
    while stream.write_all(&zeros).is_ok() {
        assert!(began_at.elapsed() < Duration::from_secs(60), "it is read for ever");
        sent += 1;
        // Bursts with pauses make the system give more room to the connection; after that there always is something
        // to read.
        if sent < 500 && sent % 12 == 0 {
            std::thread::sleep(Duration::from_millis(40));
        }
    }
    assert!(began_at.elapsed() > Duration::from_secs(10), "it was read: {:?}", began_at.elapsed());
}

#[test]
fn too_large_a_body_is_refused_before_it_is_sent() {
    let server = Server::start();
    let mut stream = server.est().connect().expect("connects");
    let authorization = basic("meter-1", &server.token("meter-1"));
    stream.write_all(head(&authorization, 1_000_000).as_bytes()).expect("sent");
    let reply = read_reply(&mut stream).expect("an answer");
    assert_eq!((reply.status, reply.reason()), (413, Reason::BodyTooLarge.code()), "not 100 first");
    // Nor is the body of somebody unknown read.
    let mut stream = server.est().connect().expect("connects");
    stream.write_all(head(&basic("meter-1", "wrong"), 500).as_bytes()).expect("sent");
    assert_eq!(read_reply(&mut stream).expect("an answer").status, 401);
}

/// Many clients write head and body one after the other, and look for an answer when both are written.
#[test]
fn who_is_refused_in_the_midst_of_its_body_hears_why() {
    let server = Server::start();
    server.muster(&[
        "host",
        "set",
        "api.example.test",
        "--mode",
        "request",
        "--origin",
        "http://127.0.0.1:9",
    ]);
    let est = server.est().connect().expect("connects");
    assert_eq!(sent_slowly(est, "/.well-known/est/simpleenroll").status, 401);
    let est = server.est().connect().expect("connects");
    assert_eq!(sent_slowly(est, "/nothing").status, 404);
    let edge = server.door("api.example.test").connect().expect("connects");
    assert_eq!(sent_slowly(edge, "/").status, 421, "the host of the request is another");
    let admin = TcpStream::connect(server.admin_address()).expect("connects");
    assert_eq!(sent_slowly(admin, "/client/v4/accounts/x/muster/tokens").status, 401);
}

/// Sends a request whose body comes in pieces, whatever is said meanwhile; the answer.
fn sent_slowly(mut stream: impl std::io::Read + std::io::Write, path: &str) -> Reply {
    let piece = [b'A'; 1_000];
    let length = 10 * piece.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    for _ in 0..10 {
        std::thread::park_timeout(Duration::from_millis(20));
        stream.write_all(&piece).expect("the other side still reads");
    }
    read_reply(&mut stream).expect("an answer")
}

#[test]
fn systemd_is_told_about_readiness_reload_and_stop() {
    let mut server = Server::start();
    assert_eq!(server.terminate(), Some(0));
    let systemd = Systemd::listen(server.scratch());
    let mut command = Command::new(muster_tests::server::program());
    command.arg("serve").arg(server.dir()).stdout(Stdio::null()).stderr(Stdio::null());
    for listener in ["admin", "est", "https", "mqtt"] {
        command.args([&format!("--listen-{listener}"), "127.0.0.1:0"]);
    }
    systemd.hears_a_life(systemd.start(&mut command));
}

#[test]
fn what_began_before_the_stop_is_answered() {
    let mut server = Server::start();
    let (_, der) = request("meter-1");
    let body = STANDARD.encode(&der);
    let authorization = basic("meter-1", &server.token("meter-1"));
    let mut stream = server.est().connect().expect("connects");
    stream.write_all(head(&authorization, body.len()).as_bytes()).expect("sent");
    assert_eq!(read_reply(&mut stream).expect("an answer").status, 100, "it reads the body now");
    server.signal("TERM");
    eventually("nobody new is let in", || TcpStream::connect(server.est_address()).is_err());
    stream.write_all(body.as_bytes()).expect("sent");
    read_reply(&mut stream).expect("an answer").certificate();
    assert_eq!(server.wait(), Some(0));
    assert!(!server.dir().join("serving.json").exists());
    let checked = Ledger::check(&server.dir().join("ledger.redb")).expect("the ledger is whole");
    assert_eq!(checked.certificates, 1);
}

#[test]
fn who_follows_events_does_not_hold_up_the_stop() {
    let mut server = Server::start();
    let mut stream = server.begin_api("GET", "/events", &[], "");
    assert_eq!(muster_tests::est::read_head(&mut stream).expect("an answer").status, 200);
    server.token("meter-1");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let mut told = String::new();
    stream.read_to_string(&mut told).expect("it ends in order");
    assert!(told.contains("event: token-set"), "{told}");
}

/// Writes a certificate for localhost and its key, as a CA of the operator's makes them; the certificate.
fn write_tls(dir: &Path, issuer: &Issuer<'_, KeyPair>) -> Vec<u8> {
    write_tls_until(dir, issuer, OffsetDateTime::now_utc() + 90 * DAY)
}

fn write_tls_until(dir: &Path, issuer: &Issuer<'_, KeyPair>, end: OffsetDateTime) -> Vec<u8> {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.not_after = end;
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    std::fs::write(dir.join("own.key"), key.serialize_pem()).expect("written");
    std::fs::write(dir.join("own.pem"), certificate.pem()).expect("written");
    certificate.der().to_vec()
}

#[test]
fn a_tls_certificate_of_ones_own_is_read_again_on_a_signal_and_kept_if_the_new_one_is_bad() {
    let mut server = Server::made("[est]\ntls_certificate = \"own.pem\"\ntls_key = \"own.key\"\n");
    let (dir, trusted) = (server.dir(), server.scratch().join("trusted.pem"));
    let ca_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(&trusted, params.self_signed(&ca_key).expect("a CA").pem()).expect("written");
    let issuer = Issuer::new(params, ca_key);
    let first = write_tls(&dir, &issuer);
    server.serve();
    let served = || {
        let stream = Est::new(server.est_address(), &trusted).connect().expect("connects");
        stream.conn.peer_certificates().expect("a certificate")[0].to_vec()
    };
    assert_eq!(served(), first);
    let second = write_tls(&dir, &issuer);
    assert_eq!(served(), first, "nothing changes before it is asked to");
    server.signal("HUP");
    eventually("the second one is served", || served() == second);
    std::fs::write(dir.join("own.pem"), "nothing").expect("written");
    server.signal("HUP");
    let log = server.log();
    let says = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("keeps its old TLS"));
    eventually("the log says so", says);
    assert_eq!(served(), second);
}

/// Nobody but the operator can renew it, and devices that refuse it tell the server nothing.
#[test]
fn that_a_tls_certificate_of_ones_own_ends_is_in_the_log() {
    let mut server = Server::made("[est]\ntls_certificate = \"own.pem\"\ntls_key = \"own.key\"\n");
    let (dir, now) = (server.dir(), OffsetDateTime::now_utc());
    let issuer = Issuer::new(CertificateParams::default(), KeyPair::generate().expect("a key"));
    write_tls_until(&dir, &issuer, now - DAY);
    server.serve();
    let log = server.log();
    let times = |what: &str| std::fs::read_to_string(&log).expect("a log").matches(what).count();
    assert_eq!((times("has ended"), times("ends soon")), (1, 0), "at the start");
    write_tls_until(&dir, &issuer, now + 5 * DAY);
    server.signal("HUP");
    eventually("it says that the next one ends soon", || times("ends soon") == 1);
    write_tls(&dir, &issuer);
    server.signal("HUP");
    eventually("the third one is taken", || times("uses a new TLS certificate") == 2);
    assert_eq!((times("has ended"), times("ends soon")), (1, 1), "each once");
}

#[test]
fn an_http_1_0_client_is_served() {
    let server = Server::start();
    let (_, der) = request("meter-1");
    let authorization = basic("meter-1", &server.token("meter-1"));
    let text = String::from_utf8(post("simpleenroll", Some(&authorization), &STANDARD.encode(&der)));
    let text = text.expect("text").replace("HTTP/1.1", "HTTP/1.0").replace("Connection: close\r\n", "");
    let reply = server.est().send(text.as_bytes()).expect("an answer");
    reply.certificate();
    assert!(reply.header("Content-Length").is_some() && reply.header("Transfer-Encoding").is_none());
}

#[test]
fn one_address_has_only_its_share_of_connections() {
    let server = Server::with_config("[est]\nconnections_per_source = 4\n");
    let kept: Vec<_> = (0..4).map(|_| server.est().connect().expect("connects")).collect();
    assert!(server.est().connect().is_err(), "the fifth is closed");
    assert!(server.metrics().contains("reason=\"source_limit\""));
    drop(kept);
    eventually("the share is back", || server.est().connect().is_ok());
}

/// Asks a listener without TLS.
fn ask(address: SocketAddr, path: &str) -> Reply {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: crl.example.test\r\nConnection: close\r\n\r\n")
        .expect("sent");
    read_reply(&mut stream).expect("an answer")
}

#[test]
fn crls_are_served_where_certificates_say_and_nothing_else_is() {
    let config = "[listen]\ncrl = \"127.0.0.1:0\"\n[ca]\ncrl_url_base = \"http://crl.example.test\"\n";
    let server = Server::with_config(config);
    let crl = server.crl_address().expect("the ready line names it");
    server.muster(&["profile", "set", "default", "crl_url=true"]);
    let (_, der) = request("meter-1");
    let certificate = server.est().enroll("meter-1", &server.token("meter-1"), &der).certificate();
    let (_, leaf) = x509_parser::parse_x509_certificate(&certificate).expect("a certificate");
    let text = format!("{:?}", leaf.extensions());
    let (_, rest) = text.split_once("http://crl.example.test").expect("a distribution point");
    let path = rest.split('"').next().expect("the rest of the URL");

    let serials = || {
        let reply = ask(crl, path);
        assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("application/pkix-crl")));
        let (_, list) = x509_parser::parse_x509_crl(&reply.body).expect("a CRL");
        assert_eq!(list.issuer(), leaf.issuer());
        list.iter_revoked_certificates().map(|entry| entry.user_certificate.clone()).collect::<Vec<_>>()
    };
    assert!(serials().is_empty());
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    assert_eq!(serials(), std::slice::from_ref(&leaf.tbs_certificate.serial), "as the command returns");

    for elsewhere in
        ["/", "/crl/", "/crl/nothing.crl", "/accounts", "/metrics", "/healthz", "/client/v4/accounts"]
    {
        assert_eq!(ask(crl, elsewhere).status, 404, "{elsewhere}");
    }
}

#[test]
fn a_profile_decides_what_is_issued_and_how_it_is_written() {
    let server = Server::with_config("[ca]\ncrl_url_base = \"http://crl.example.test\"\n");
    let fields = [
        "lifetime_s=3600",
        "backdate_s=60",
        "dns_suffix=devices.example.test",
        "crl_url=true",
        "wrap_base64=true",
        "keys=ecdsa-p384",
        "csr_attributes=none",
    ];
    server.muster(&[&["profile", "set", "special"], fields.as_slice()].concat());
    assert_eq!(server.est().get("special/csrattrs").status, 204);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    let der = request_with(&key, &[], |params| {
        params.distinguished_name.push(DnType::CommonName, "meter-1");
        params.distinguished_name.push(DnType::OrganizationName, "a wish");
    });
    let authorization = basic("meter-1", &server.token("meter-1"));
    let reply = server.est().post("special/simpleenroll", Some(&authorization), &der);
    let certificate = reply.certificate();
    assert!(reply.text().lines().count() > 1 && reply.text().lines().all(|line| line.len() <= 76));
    assert!(reply.header("Muster-Dropped").is_some_and(|names| names.contains("2.5.4.10")), "{}", reply.head);
    let (_, leaf) = x509_parser::parse_x509_certificate(&certificate).expect("a certificate");
    assert_eq!(leaf.subject().to_string(), "CN=meter-1");
    let validity = leaf.validity();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 3_600 + 60);
    let text = format!("{:?}", leaf.extensions());
    for expected in [
        "spiffe://example.test/device/meter-1",
        "meter-1.devices.example.test",
        "http://crl.example.test/crl/",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    let (_, p256) = request("meter-2");
    let authorization = basic("meter-2", &server.token("meter-2"));
    let reply = server.est().post("special/simpleenroll", Some(&authorization), &p256);
    assert_eq!(reply.reason(), Reason::KeyKindForbidden.code());
    // The template of RFC 9908 has more to say than the plain form.
    server.muster(&["profile", "set", "template", "csr_attributes=template"]);
    let template = server.est().get("template/csrattrs").decoded();
    assert!(template.len() > server.est().get("csrattrs").decoded().len());
    assert!(certificates_of(&server.est().get("special/cacerts").decoded()).len() >= 2);
}

/// Publishes a CRL on the loopback for as long as the test runs; its URL.
fn publish(crl: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/ca.crl", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", crl.len());
            let _ = stream.write_all((head + &crl).as_bytes());
        }
    });
    url
}

#[test]
fn how_the_last_crl_was_fetched_and_when_the_next_one_is_outlives_the_server() {
    let mut server = Server::with_config("[webhooks]\nloopback_http = true\n");
    let maker = Maker::known_to(&server, &[]);
    let cas = server.muster_json(&["ca", "list"]);
    let ca = cas.as_array().expect("a list").iter().find(|ca| ca["role"] == "manufacturer").expect("one");
    let ca = ca["id"].as_str().expect("an id");
    let known = |server: &Server| server.muster_json(&["ca", "crl-source", ca]);
    let url = publish(maker.crl(1, 86_400, &[]));
    server.muster(&["ca", "crl-source", ca, "--url", &url, "--every", "1h"]);
    let taken = known(&server);
    assert_eq!(taken["last_fetch"]["outcome"], "taken", "{taken}");
    server.kill();
    // The operator finds that it is none of the server's business.
    let denied = "[outbound]\ndenied_networks = [\"127.0.0.0/8\"]\n[webhooks]\nloopback_http = true\n";
    std::fs::write(server.dir().join("muster.toml"), denied).expect("written");
    server.serve();
    let again = known(&server);
    for field in ["last_fetch", "next_fetch_at"] {
        assert!(again[field] == taken[field] && !again[field].is_null(), "{field}: {taken} {again}");
    }
    let refused = server.try_muster(&["ca", "fetch-crl", ca]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let failed = known(&server);
    server.kill();
    server.serve();
    let again = known(&server);
    for known in [&failed, &again] {
        let why = known["last_fetch"]["message"].as_str().unwrap_or_default();
        assert!(why.contains("127.0.0.0/8, which outbound.denied_networks"), "{known}");
        assert!(known["last_fetch"]["failures"].as_u64() >= Some(1), "{known}");
        assert_eq!(known["list"]["number_hex"], "01", "the last good one stays");
    }
}
