//! Devices enroll and renew over real TLS, with every habit of HTTP that real clients have.

use std::io::Write as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_tests::est::{basic, certificates_of, post, read_head, read_reply};
use muster_tests::request::{request, request_by};
use muster_tests::{Est, Identity, Server};
use rcgen::KeyPair;
use serde_json::Value;

/// Far less than twenty keys of RSA-4096 take.
const WITHOUT_A_KEY: Duration = Duration::from_secs(10);

/// The DER of challengePassword's object identifier (RFC 2985 §5.4.1), without its head.
const CHALLENGE_PASSWORD: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07];

/// Enrolls a device; a client that holds its certificate.
fn enrolled(server: &Server, device: &str) -> (Est, KeyPair) {
    let (key, der) = request(device);
    let certificate = server.est().enroll(device, &server.token(device), &der).certificate();
    let again = KeyPair::try_from(key.serialize_der()).expect("a key");
    (server.est().with(Identity { chain: vec![certificate], key }), again)
}

#[test]
fn a_device_enrolls_renews_and_changes_its_key() {
    let server = Server::start();
    let (holder, key) = enrolled(&server, "meter-1");
    let renewed = holder.post("simplereenroll", None, &request_by(&key, "meter-1"));
    let first = renewed.certificate();
    assert!(renewed.header("Muster-Renewal").is_some_and(|window| window.starts_with("renew-at=@")));
    let (_, other) = request("meter-1");
    let rekeyed = holder.post("simplereenroll", None, &other).certificate();
    assert_ne!(first, rekeyed);
    // A renewal repeated byte for byte is the same renewal.
    assert_eq!(holder.post("simplereenroll", None, &other).certificate(), rekeyed);
    let listed = server.muster_json(&["cert", "list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(3));
}

#[test]
fn keys_are_made_for_devices_that_ask() {
    let server = Server::start();
    for bits in ["ec", "rsa"] {
        let device = format!("meter-{bits}");
        let key = match bits {
            "rsa" => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key"),
            _ => KeyPair::generate().expect("a key"),
        };
        let authorization = basic(&device, &server.token(&device));
        let reply = server.est().post("serverkeygen", Some(&authorization), &request_by(&key, &device));
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(
            reply.header("Content-Type").is_some_and(|value| value.starts_with("multipart/mixed; boundary="))
        );
        let text = reply.text();
        let parts: Vec<&str> = text.split("\r\n\r\n").skip(1).collect();
        let decode =
            |part: &str| STANDARD.decode(part.split("\r\n").next().unwrap_or_default()).expect("base64");
        let made = KeyPair::try_from(decode(parts[0])).expect("a PKCS#8 key");
        let certificate = certificates_of(&decode(parts[1])).remove(0);
        assert_ne!(made.public_key_raw(), key.public_key_raw(), "the request's key is never certified");
        let position =
            certificate.windows(made.public_key_raw().len()).position(|part| part == made.public_key_raw());
        assert!(position.is_some(), "the certificate is for the key that was made");
    }
}

/// Each of these keys takes a second or more, and only one is made at a time.
#[test]
fn no_key_is_made_for_what_is_refused_or_waits() {
    const ASKING: usize = 20;
    let server = Server::start();
    server.muster(&["profile", "set", "large", "keys=rsa", "rsa_min_bits=4096"]);
    server.muster(&["profile", "set", "checked", "keys=rsa", "rsa_min_bits=4096", "approval=manual"]);
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_4096).expect("a key");
    let der = request_by(&key, "meter-1");
    let authorization = basic("meter-1", &server.token("meter-1"));
    let ask = |label: &str| server.est().post(&format!("{label}/serverkeygen"), Some(&authorization), &der);
    let started = Instant::now();
    for _ in 0..ASKING {
        assert_eq!(ask("checked").status, 202);
    }
    assert!(started.elapsed() < WITHOUT_A_KEY, "{:?}", started.elapsed());
    let waiting = server.muster_json(&["approval", "list"]);
    let file = server.scratch().join("request.der");
    std::fs::write(&file, &der).expect("written");
    let file = file.display().to_string();
    let asked_with = server.muster_json(&["cert", "sign", "--dry-run", "--profile", "large", &file]);
    assert_eq!(
        waiting[0]["key_sha256"], asked_with["key_sha256"],
        "the person sees the key that the device has"
    );
    server.muster(&["approval", "approve", waiting[0]["id"].as_str().expect("an id")]);
    assert_eq!(ask("checked").status, 200);
    let started = Instant::now();
    for _ in 0..ASKING {
        assert_eq!(ask("large").reason(), "token_used");
    }
    assert!(started.elapsed() < WITHOUT_A_KEY, "{:?}", started.elapsed());
}

#[test]
fn a_person_can_have_to_agree() {
    let server = Server::start();
    server.muster(&["profile", "set", "checked", "approval=manual"]);
    let (_, der) = request("meter-1");
    let token = server.token("meter-1");
    let poll = || server.est().post("checked/simpleenroll", Some(&basic("meter-1", &token)), &der);
    let waiting = poll();
    assert_eq!((waiting.status, waiting.header("Retry-After")), (202, Some("60")));
    assert_eq!(poll().status, 202);
    let listed = server.muster_json(&["approval", "list"]);
    let id = listed[0]["id"].as_str().expect("an id").to_owned();
    server.muster(&["approval", "approve", &id]);
    let certificate = poll().certificate();
    assert_eq!(poll().certificate(), certificate);
    let (_, denied) = request("meter-2");
    let token = server.token("meter-2");
    let poll = || server.est().post("checked/simpleenroll", Some(&basic("meter-2", &token)), &denied);
    assert_eq!(poll().status, 202);
    let id = server.muster_json(&["approval", "list"])[0]["id"].as_str().expect("an id").to_owned();
    server.muster(&["approval", "deny", &id]);
    assert_eq!((poll().status, poll().reason()), (403, "approval_denied"));
}

#[test]
fn a_certificate_of_another_profile_is_no_way_round_what_a_profile_asks_for() {
    let server = Server::start();
    server.muster(&["profile", "set", "checked", "approval=manual"]);
    server.muster(&["profile", "set", "strict", "credentials=certificate-and-token"]);
    server.muster(&["profile", "set", "open", "lifetime_s=7200"]);
    let (key, der) = request("meter-1");
    let certificate = server.est().enroll("meter-1", &server.token("meter-1"), &der).certificate();
    let renewal = request_by(&KeyPair::try_from(key.serialize_der()).expect("a key"), "meter-1");
    let holder = server.est().with(Identity { chain: vec![certificate], key });
    let renew = |label: &str| holder.post(&format!("{label}/simplereenroll"), None, &renewal);
    for label in ["strict", "checked"] {
        assert_eq!(renew(label).reason(), "profile_forbidden", "{label}");
    }
    renew("open").certificate();
}

#[test]
fn a_certificate_renews_under_its_own_profile_where_the_path_names_none() {
    let server = Server::with_config("[est]\ndefault_profile = \"strict\"\n");
    server.muster(&["profile", "set", "first", "lifetime_s=7200"]);
    let (key, der) = request("meter-1");
    let authorization = basic("meter-1", &server.token("meter-1"));
    let certificate = server.est().post("first/simpleenroll", Some(&authorization), &der).certificate();
    server.muster(&["profile", "set", "strict", "credentials=token", "approval=manual"]);
    let renewal = request_by(&KeyPair::try_from(key.serialize_der()).expect("a key"), "meter-1");
    let holder = server.est().with(Identity { chain: vec![certificate], key });
    holder.post("simplereenroll", None, &renewal).certificate();
    let listed = server.muster_json(&["cert", "list"]);
    let listed = listed.as_array().expect("a list");
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|certificate| certificate["profile"] == "first"), "{listed:?}");
    assert_eq!(holder.post("strict/simplereenroll", None, &renewal).reason(), "profile_forbidden");
}

#[test]
fn attributes_are_those_of_the_profile_that_a_certificate_renews_under() {
    let server = Server::with_config("[est]\ndefault_profile = \"plain\"\n");
    server.muster(&["profile", "set", "plain", "channel_binding=verify"]);
    // This is what a client that waits to be asked for the channel binding looks for.
    let asks_binding = |est: &Est, path: &str| {
        let told = est.get(path).decoded();
        told.windows(CHALLENGE_PASSWORD.len()).any(|octets| octets == CHALLENGE_PASSWORD)
    };
    server.muster(&["profile", "set", "first", "channel_binding=verify"]);
    let (key, der) = request("meter-1");
    let authorization = basic("meter-1", &server.token("meter-1"));
    let certificate = server.est().post("first/simpleenroll", Some(&authorization), &der).certificate();
    server.muster(&["profile", "set", "first", "channel_binding=required"]);
    let holder = server.est().with(Identity { chain: vec![certificate], key });
    assert!(asks_binding(&holder, "csrattrs"), "its own profile asks for it");
    assert!(!asks_binding(&holder, "plain/csrattrs"), "a label is what it says");
    assert!(!asks_binding(&server.est(), "csrattrs"), "the default profile does not");
    assert!(asks_binding(&server.est(), "first/csrattrs"));
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    assert!(!asks_binding(&holder, "csrattrs"), "it renews no more");
}

#[test]
fn ca_certificates_and_attributes_are_there_for_everyone() {
    let server = Server::start();
    let reply = server.est().get("cacerts");
    assert_eq!(certificates_of(&reply.decoded()).len(), 2);
    assert_eq!(reply.header("Content-Type"), Some("application/pkcs7-mime"));
    let wrong = server.est().send(
        format!(
            "GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n",
            basic("a", "b")
        )
        .as_bytes(),
    );
    assert_eq!(wrong.expect("an answer").status, 200, "credentials are ignored");
    assert_eq!(server.est().get("csrattrs").decoded().len(), 0x23);
    let mut stream = server.est().connect().expect("connects");
    stream.write_all(b"HEAD /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let head = read_head(&mut stream).expect("a head");
    assert_eq!((head.status, head.header("Content-Length")), (200, reply.header("Content-Length")));
    // No body came: the next answer begins where this head ended.
    stream.write_all(b"GET /.well-known/est/csrattrs HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    assert_eq!(read_reply(&mut stream).expect("an answer").status, 200);
    assert_eq!(server.est().get("nothing").status, 404);
    assert_eq!(server.est().get("unknown/cacerts").reason(), "profile_unknown");
    let put =
        server.est().send(b"PUT /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    let put = put.expect("an answer");
    assert_eq!((put.status, put.header("Allow")), (405, Some("GET, HEAD")));
}

#[test]
fn every_way_to_send_a_request_is_read() {
    let server = Server::start();
    let wrapped = |text: &str| {
        text.as_bytes()
            .chunks(64)
            .map(|line| format!("{}\r\n", String::from_utf8_lossy(line)))
            .collect::<String>()
    };
    for form in ["one-line", "wrapped", "armoured"] {
        let device = format!("meter-{form}");
        let (_, der) = request(&device);
        let body = match form {
            "one-line" => STANDARD.encode(&der),
            "wrapped" => wrapped(&STANDARD.encode(&der)),
            _ => pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der)),
        };
        let authorization = basic(&device, &server.token(&device));
        let reply = server.est().send(&post("simpleenroll", Some(&authorization), &body));
        reply.expect("an answer").certificate();
    }
    let (_, der) = request("meter-chunked");
    let authorization = basic("meter-chunked", &server.token("meter-chunked"));
    let body = STANDARD.encode(&der);
    let (first, second) = body.split_at(50);
    let chunked = format!(
        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\
         Content-Type: Application/PKCS10\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    server.est().send(chunked.as_bytes()).expect("an answer").certificate();
}

#[test]
fn a_client_may_wait_to_be_asked_for_its_body_and_keep_the_connection() {
    let server = Server::start();
    let (_, der) = request("meter-1");
    let body = STANDARD.encode(&der);
    let head = format!(
        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/pkcs10\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        server.token("meter-1"),
        body.len()
    );
    let mut stream = server.est().connect().expect("connects");
    stream.write_all(head.as_bytes()).expect("sent");
    assert_eq!(read_reply(&mut stream).expect("an answer").status, 100);
    stream.write_all(body.as_bytes()).expect("sent");
    read_reply(&mut stream).expect("an answer").certificate();
    stream.write_all(b"GET /.well-known/est/csrattrs HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    assert_eq!(read_reply(&mut stream).expect("an answer").status, 200);
}

#[test]
fn libest_gets_the_spelling_and_the_lines_it_needs() {
    let server = Server::start();
    let (_, der) = request("meter-1");
    let refused = server.est().send(&post("simpleenroll", None, &STANDARD.encode(&der))).expect("an answer");
    assert!(refused.head.contains("\r\nWWW-Authenticate: Basic realm=\""), "{}", refused.head);
    for header in ["Content-Type", "Content-Length"] {
        assert!(refused.head.contains(&format!("\r\n{header}: ")), "{}", refused.head);
    }
    let request = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\nUser-Agent: libest 3.2.0p\r\n\r\n";
    let reply = server.est().send(request).expect("an answer");
    assert!(reply.text().lines().all(|line| line.len() <= 76));
    assert_eq!(server.est().get("cacerts").text().lines().count(), 1);
}

#[test]
fn tls_1_2_clients_enroll_too() {
    let server = Server::start();
    let (_, der) = request("meter-1");
    let token = server.token("meter-1");
    server.est().on_tls12().enroll("meter-1", &token, &der).certificate();
}

#[test]
fn an_issuing_ca_and_a_root_are_replaced_without_losing_a_device() {
    let mut server = Server::start();
    let (holder, key) = enrolled(&server, "meter-1");
    let first = muster_agent::settings::certificates(&server.ca_file()).expect("a root")[0].to_vec();
    let before = certificates_of(&server.est().get("cacerts").decoded()).len();
    server.muster(&["ca", "rotate"]);
    let after = certificates_of(&server.est().get("cacerts").decoded()).len();
    assert_eq!(after, before + 1, "the one that issued before is there, too");
    let old_trust = server.est();
    let renewed = holder.post("simplereenroll", None, &request_by(&key, "meter-1")).certificate();
    let again = KeyPair::try_from(key.serialize_der()).expect("a key");
    let holder = server.est().with(Identity { chain: vec![renewed], key: again });
    server.muster(&["ca", "create"]);
    // The issuing CA, old and new root, the two certificates that tie the roots, and one more is what devices have room for.
    assert_eq!(certificates_of(&old_trust.get("cacerts").decoded()).len(), 6);
    // Who trusts the old root alone goes on, and so does who was told of both, or of the new one alone.
    holder.post("simplereenroll", None, &request_by(&key, "meter-1")).certificate();
    let roots = muster_agent::settings::certificates(&server.ca_file()).expect("roots");
    assert_eq!(roots.len(), 2, "the new one is first");
    let new_alone = server.scratch().join("new.pem");
    let pem = pem::Pem::new("CERTIFICATE", roots[0].to_vec());
    std::fs::write(&new_alone, pem::encode(&pem)).expect("written");
    for (device, trusted) in [("meter-2", &server.ca_file()), ("meter-3", &new_alone)] {
        let (_, der) = request(device);
        let fresh = Est::new(server.est_address(), trusted);
        fresh.enroll(device, &server.token(device), &der).certificate();
    }
    // It lasts through a restart, and through the next change.
    assert_eq!(server.terminate(), Some(0));
    server.serve_again();
    assert!(!server.try_muster(&["ca", "create"]).status.success(), "small devices have room for two");
    server.muster(&["ca", "create", "--cut-off"]);
    assert_eq!(Est::new(server.est_address(), &new_alone).get("cacerts").status, 200);
    assert_eq!(old_trust.get("cacerts").status, 200);
    let oldest = server.muster_json(&["ca", "list"]);
    let is_oldest = |ca: &&Value| ca["role"] == "root" && ca["state"] == "retiring";
    let of_roots = oldest.as_array().expect("a list").iter().filter(is_oldest).map(|ca| &ca["id"]);
    let oldest = of_roots.min_by_key(|id| id.to_string()).and_then(Value::as_str).expect("ids by time");
    server.muster(&["ca", "retire", oldest]);
    assert!(old_trust.connect().is_err(), "it was withdrawn");
    let new_trust = Est::new(server.est_address(), &new_alone);
    let named = certificates_of(&new_trust.get("cacerts").decoded());
    assert!(!named.contains(&first), "nobody is told to trust it");
    // The issuing CA, two roots, what ties them, and the issuing CA before.
    assert_eq!(named.len(), 6);
}

#[test]
fn a_new_zone_is_in_the_certificate_of_the_next_handshake() {
    let server = Server::start();
    server.muster(&["zone", "add", "second.test"]);
    let stream = server.est().connect().expect("connects");
    let leaf = &stream.conn.peer_certificates().expect("a certificate")[0];
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).expect("a certificate");
    let names = parsed.subject_alternative_name().expect("readable").expect("there");
    assert!(format!("{:?}", names.value).contains("est.second.test"), "{names:?}");
}

#[test]
fn stopping_is_orderly() {
    let mut server = Server::start();
    assert!(server.dir().join("serving.json").exists());
    assert_eq!(server.terminate(), Some(0));
    assert!(!server.dir().join("serving.json").exists());
}

#[test]
fn a_backup_made_while_serving_is_restored_elsewhere_and_a_broken_one_is_not() {
    let server = Server::start();
    let _ = enrolled(&server, "meter-1");
    // What an operator put there for a hostname can't be made again.
    let placed = ["tls/hosts/_.example.test.crt", "tls/hosts/_.example.test.key", "tls/outbound.key"];
    for file in placed {
        std::fs::write(server.dir().join(file), file).expect("placed");
    }
    let backup = server.scratch().join("backup");
    // What no restore would take is said when the backup is made.
    let odd = server.dir().join("tls/hosts/api (old).crt");
    std::fs::write(&odd, "x").expect("placed");
    let refused = server.try_muster(&["backup", &backup.display().to_string()]);
    assert!(!refused.status.success() && !backup.exists());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("api (old).crt can't be in a backup"));
    std::fs::remove_file(&odd).expect("removed");
    server.muster(&["backup", &backup.display().to_string()]);
    let target = server.scratch().join("restored");
    let restore = |target: &std::path::Path, file: &std::path::Path| {
        std::process::Command::new(muster_tests::server::program())
            .args(["-C", &target.display().to_string(), "restore", &file.display().to_string()])
            .output()
            .expect("muster runs")
    };
    assert!(restore(&target, &backup).status.success());
    for file in placed {
        assert_eq!(std::fs::read_to_string(target.join(file)).expect(file), file);
    }
    // Receivers of webhooks go on accepting what is signed.
    let signing = |dir: &std::path::Path| std::fs::read(dir.join("keys/webhooks.key")).expect("a key");
    assert_eq!(signing(&target), signing(&server.dir()));
    let listed = std::process::Command::new(muster_tests::server::program())
        .args(["-C", &target.display().to_string(), "device", "list", "--json"])
        .output()
        .expect("muster runs");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("meter-1"));
    let doctor = std::process::Command::new(muster_tests::server::program())
        .args(["-C", &target.display().to_string(), "doctor"])
        .output()
        .expect("muster runs");
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(doctor.status.success() && !said.contains("warn "), "{said}");
    let mut bytes = std::fs::read(&backup).expect("a backup");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let broken = server.scratch().join("broken");
    std::fs::write(&broken, bytes).expect("written");
    let other = server.scratch().join("other");
    assert_eq!(restore(&other, &broken).status.code(), Some(1));
    assert!(!other.exists());
}

/// As in `muster completions bash | head`.
#[test]
fn whoever_reads_only_the_beginning_of_a_completion_script_sees_no_panic() {
    let mut child = std::process::Command::new(muster_tests::server::program())
        .args(["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("muster runs");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}
