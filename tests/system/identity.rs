//! Who is let in by a certificate, and who only looks like it: impostors, leaves of leaves, CAs that
//! were brought along, and requests bound to another channel.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_policy::reason::Reason;
use muster_tests::est::{basic, certificates_of, post, read_reply};
use muster_tests::request::{CHALLENGE_PASSWORD, challenge, request, request_by, request_with};
use muster_tests::{Identity, Maker, Reply, Server};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// A device that has enrolled: its key and certificate.
struct Device {
    key: KeyPair,
    certificate: Vec<u8>,
}

impl Device {
    fn enroll(server: &Server, name: &str) -> Self {
        let (key, der) = request(name);
        let certificate = server.est().enroll(name, &server.token(name), &der).certificate();
        Self { key, certificate }
    }

    fn key(&self) -> KeyPair {
        KeyPair::try_from(self.key.serialize_der()).expect("a key")
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn ca(subject: DistinguishedName) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The parameters of a leaf with every name that a device of ours has.
fn leaf(device: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(device);
    let id = format!("spiffe://example.test/device/{device}");
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().expect("ASCII"))];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A name with the values of a real one, part for part.
fn copied_subject(certificate: &[u8]) -> DistinguishedName {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).expect("a certificate");
    let mut names = DistinguishedName::new();
    for part in parsed.subject().iter_attributes() {
        let oid = part.attr_type().iter().expect("small numbers").collect();
        names.push(DnType::CustomDnType(oid), part.as_str().expect("text"));
    }
    names
}

/// What the server says to a renewal by this certificate.
fn renewal(server: &Server, chain: Vec<Vec<u8>>, key: &KeyPair, device: &str) -> Reply {
    let der = request_by(key, device);
    let key = KeyPair::try_from(key.serialize_der()).expect("a key");
    server.est().with(Identity { chain, key }).post("simplereenroll", None, &der)
}

fn assert_refused(reply: &Reply, status: u16, reason: Reason) {
    assert_eq!((reply.status, reply.reason()), (status, reason.code()), "{}", reply.text());
}

#[test]
fn a_ca_of_the_same_name_is_another_ca() {
    let server = Server::start();
    let device = Device::enroll(&server, "meter-1");
    let real = certificates_of(&server.est().get("cacerts").decoded());
    let (_, issued) = x509_parser::parse_x509_certificate(&device.certificate).expect("a certificate");
    let subject = |der: &Vec<u8>| {
        let (_, ca) = x509_parser::parse_x509_certificate(der).expect("a certificate");
        ca.subject().as_raw().to_vec()
    };
    let issuing = real.iter().find(|der| subject(der) == issued.issuer().as_raw()).expect("its issuer");
    let (ca_key, leaf_key) = (key(), key());
    let impostor = ca(copied_subject(issuing));
    let impostor_der = impostor.self_signed(&ca_key).expect("a CA").der().to_vec();
    assert_eq!(subject(&impostor_der), issued.issuer().as_raw(), "the same name to the byte");
    let issuer = Issuer::new(impostor, ca_key);
    let mut params = leaf("meter-1");
    // Even the serial number is that of a real certificate.
    params.serial_number = Some(issued.raw_serial().to_vec().into());
    let forged = params.signed_by(&leaf_key, &issuer).expect("a leaf").der().to_vec();
    for chain in [vec![forged.clone()], vec![forged, impostor_der]] {
        let reply = renewal(&server, chain, &leaf_key, "meter-1");
        assert_refused(&reply, 401, Reason::CertificateUntrusted);
    }
    renewal(&server, vec![device.certificate.clone()], &device.key, "meter-1").certificate();
}

#[test]
fn a_certificate_of_ones_own_hand_is_none() {
    let server = Server::start();
    let device = Device::enroll(&server, "meter-1");
    let own = key();
    let copy = leaf("meter-1").self_signed(&own).expect("a certificate").der().to_vec();
    assert_refused(&renewal(&server, vec![copy], &own, "meter-1"), 401, Reason::CertificateUntrusted);
    // The real certificate below a stranger's key: the handshake proves the key, so it does not end well.
    let stolen = Identity { chain: vec![device.certificate.clone()], key: own };
    assert!(server.est().with(stolen).send(b"GET /.well-known/est/cacerts HTTP/1.1\r\n\r\n").is_err());
}

#[test]
fn a_device_is_not_a_ca() {
    let server = Server::start();
    let device = Device::enroll(&server, "meter-1");
    let issuer = Issuer::new(ca(copied_subject(&device.certificate)), device.key());
    let child = key();
    let forged = leaf("meter-2").signed_by(&child, &issuer).expect("a leaf").der().to_vec();
    let reply = renewal(&server, vec![forged, device.certificate.clone()], &child, "meter-2");
    assert_refused(&reply, 401, Reason::CertificateUntrusted);
}

/// What left the factory is revoked by name, or by the manufacturer's own CRL, which has to be a fresh one.
#[test]
fn a_manufacturer_s_own_crl_says_who_enrolls_for_as_long_as_it_is_good() {
    let server = Server::start();
    let devices = ["1", "2", "3", "4"].map(|number| (format!("meter-{number}"), format!("S-{number}")));
    let devices = devices.each_ref().map(|(device, serial)| (device.as_str(), serial.as_str()));
    let maker = Maker::known_to(&server, &devices);
    let cas = server.muster_json(&["ca", "list"]);
    let ca = cas.as_array().expect("a list").iter().find(|ca| ca["role"] == "manufacturer").expect("one");
    let ca = ca["id"].as_str().expect("an id");
    let enroll = |device: &str, idevid: Identity| {
        server.est().with(idevid).post("simpleenroll", None, &request(device).1)
    };
    let serial = |idevid: &Identity| {
        let (_, read) = x509_parser::parse_x509_certificate(&idevid.chain[0]).expect("a certificate");
        read.raw_serial().to_vec()
    };
    let take = |crl: String| {
        let file = server.scratch().join("maker.crl");
        std::fs::write(&file, crl).expect("written");
        server.muster(&["ca", "take-crl", ca, &file.display().to_string()]);
    };
    let (named, listed) = (maker.idevid("S-1"), maker.idevid("S-2"));
    server.muster(&["cert", "revoke", "--ca", ca, "--serial", &hex(&serial(&named))]);
    assert_refused(&enroll("meter-1", named), 403, Reason::CertificateRevoked);
    take(maker.crl(1, 600, &[&serial(&listed)]));
    assert_refused(&enroll("meter-2", listed), 403, Reason::CertificateRevoked);
    enroll("meter-3", maker.idevid("S-3")).certificate();
    // A factory's CA below it is a certificate of its too.
    let factory = maker.below("Factory CA");
    enroll("meter-4", factory.idevid("S-4")).certificate();
    let factory_serial = serial(&Identity { chain: factory.idevid("S-4").chain.split_off(1), key: key() });
    take(maker.crl(2, 600, &[&factory_serial]));
    assert_refused(&enroll("meter-4", factory.idevid("S-4")), 403, Reason::CertificateRevoked);
    take(maker.crl(3, 20, &[]));
    let deadline = Instant::now() + Duration::from_secs(120);
    let late = loop {
        let reply = enroll("meter-3", maker.idevid("S-3"));
        if reply.status != 200 {
            break reply;
        }
        assert!(Instant::now() < deadline, "its CRL ended");
        std::thread::sleep(Duration::from_secs(4));
    };
    assert_refused(&late, 503, Reason::CrlStale);
    server.muster(&["ca", "crl-source", ca, "--when-stale", "open"]);
    enroll("meter-3", maker.idevid("S-3")).certificate();
}

/// Some CAs name the point in lists that are complete, and others give their list in parts.
#[test]
fn a_list_of_one_distribution_point_is_taken_once_somebody_says_that_it_is_complete() {
    let server = Server::start();
    let maker = Maker::known_to(&server, &[]);
    let cas = server.muster_json(&["ca", "list"]);
    let ca = cas.as_array().expect("a list").iter().find(|ca| ca["role"] == "manufacturer").expect("one");
    let ca = ca["id"].as_str().expect("an id");
    let (whole, other) = ("http://crl.maker.test/ca.crl", "http://crl.maker.test/2.crl");
    let take = |point: &str, number| {
        let file = server.scratch().join("maker.crl");
        std::fs::write(&file, maker.crl_of(Some(point), number, 600, &[])).expect("written");
        let output = server.try_muster(&["ca", "take-crl", ca, &file.display().to_string()]);
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    };
    let refused = take(whole, 1).expect_err("it may be a part");
    assert!(refused.contains("--distribution-point") && refused.contains(whole), "{refused}");
    server.muster(&["ca", "crl-source", ca, "--distribution-point", whole]);
    take(whole, 1).expect("taken");
    assert!(take(other, 2).expect_err("a part").contains(other));
    // What is not given stays.
    let set = server.muster_json(&["ca", "crl-source", ca, "--when-stale", "open"]);
    assert_eq!(set["distribution_point"], whole);
    let set = server.muster_json(&["ca", "crl-source", ca, "--distribution-point", ""]);
    assert!(set["distribution_point"].is_null() && set["when_stale"] == "open", "{set}");
    take(whole, 2).expect_err("nobody says so any more");
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn only_a_certificate_that_was_stored_is_known() {
    let server = Server::start();
    let ca_key = key();
    let params = ca(common_name("Own devices CA"));
    let [file, key_file] = ["own.pem", "own.key"].map(|name| server.scratch().join(name));
    // Without an end of its line, as some programs write files.
    let pem = params.self_signed(&ca_key).expect("a CA").pem();
    std::fs::write(&file, pem.trim_end()).expect("written");
    std::fs::write(&key_file, ca_key.serialize_pem()).expect("written");
    let [file, key_file] = [file, key_file].map(|file| file.display().to_string());
    let imported = server.muster_json(&["ca", "import", &file, "--key", &key_file]);
    assert_eq!((&imported["has_key"], &imported["state"]), (&true.into(), &"active".into()), "{imported}");
    // Once is enough, and a second try leaves no key behind.
    let key_files = || std::fs::read_dir(server.dir().join("keys")).expect("a folder").count();
    let before = key_files();
    let twice = server.try_muster(&["ca", "import", &file, "--key", &key_file]);
    let said = String::from_utf8_lossy(&twice.stderr);
    assert!(
        said.contains("already exists") && said.contains(imported["id"].as_str().expect("an id")),
        "{said}"
    );
    assert_eq!(key_files(), before);
    // After another took over it may come again: that is the way back.
    server.muster(&["ca", "rotate"]);
    server.muster(&["ca", "import", &file, "--key", &key_file]);
    let issuer = Issuer::new(params, ca_key);
    let unknown = key();
    let der = leaf("meter-1").signed_by(&unknown, &issuer).expect("a leaf").der().to_vec();
    // Signed by the right key, and still not ours: the ledger never saw it.
    let reply = renewal(&server, vec![der], &unknown, "meter-1");
    assert_refused(&reply, 401, Reason::CertificateUnknown);
}

#[test]
fn a_ca_that_can_t_do_what_devices_need_is_not_taken() {
    let mut server = Server::start();
    let mut without_lists = ca(common_name("No lists"));
    without_lists.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let mut for_servers = ca(common_name("Servers alone"));
    for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut for_anything = ca(common_name("Anything"));
    for_anything.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    let active = |server: &Server| {
        let cas = server.muster_json(&["ca", "list"]);
        let of_devices = |ca: &&serde_json::Value| ca["role"] == "devices" && ca["state"] == "active";
        cas.as_array()
            .expect("a list")
            .iter()
            .filter(of_devices)
            .map(|ca| ca["id"].clone())
            .collect::<Vec<_>>()
    };
    let before = active(&server);
    for (params, lacks) in
        [(without_lists, "cRLSign"), (for_servers, "clientAuth"), (for_anything, "anyExtendedKeyUsage")]
    {
        let key = key();
        let bundle = server.scratch().join("brought.pem");
        let text = params.self_signed(&key).expect("a CA").pem() + &key.serialize_pem();
        std::fs::write(&bundle, text).expect("written");
        let said = server.try_muster(&["ca", "import", &bundle.display().to_string()]);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains(lacks), "{said}");
        assert_eq!(active(&server), before);
    }
    assert_eq!(server.terminate(), Some(0));
    server.serve();
    let device = Device::enroll(&server, "meter-1");
    assert!(!device.certificate.is_empty());
}

#[test]
fn a_connection_that_stays_open_does_not_outlive_what_let_it_in() {
    let server = Server::start();
    let device = Device::enroll(&server, "meter-1");
    let chain = vec![device.certificate.clone()];
    let mut stream = server.est().with(Identity { chain, key: device.key() }).connect().expect("connects");
    let body = STANDARD.encode(request_by(&device.key, "meter-1"));
    let kept = String::from_utf8(post("simplereenroll", None, &body)).expect("text");
    let kept = kept.replace("Connection: close\r\n", "");
    let mut renew = || {
        stream.write_all(kept.as_bytes()).expect("sent");
        read_reply(&mut stream).expect("an answer")
    };
    renew().certificate();
    server.muster(&["device", "suspend", "meter-1"]);
    assert_refused(&renew(), 403, Reason::DeviceSuspended);
    server.muster(&["device", "resume", "meter-1"]);
    renew().certificate();
    server.muster(&["ca", "rotate"]);
    renew().certificate();
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    assert_refused(&renew(), 403, Reason::CertificateRevoked);
}

#[test]
fn a_repeated_request_is_refused_once_its_token_or_device_is() {
    let server = Server::start();
    let (_, der) = request("meter-1");
    let token = server.token("meter-1");
    server.est().enroll("meter-1", &token, &der).certificate();
    server.muster(&["device", "suspend", "meter-1"]);
    assert_refused(&server.est().enroll("meter-1", &token, &der), 403, Reason::DeviceSuspended);
    server.muster(&["device", "resume", "meter-1"]);
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    // A revoked certificate is never handed out again, and the token had one use.
    assert_refused(&server.est().enroll("meter-1", &token, &der), 401, Reason::TokenUsed);
}

#[test]
fn one_device_does_not_renew_as_another() {
    let server = Server::start();
    let first = Device::enroll(&server, "meter-1");
    let _second = Device::enroll(&server, "meter-2");
    let reply = renewal(&server, vec![first.certificate.clone()], &first.key, "meter-2");
    assert_refused(&reply, 403, Reason::SubjectChanged);
}

#[test]
fn a_chain_without_end_is_cut_off_in_the_handshake() {
    let server = Server::start();
    let own = key();
    let copy = leaf("meter-1").self_signed(&own).expect("a certificate").der().to_vec();
    let est = server.est().with(Identity { chain: vec![copy; 5], key: own });
    assert!(est.send(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\n\r\n").is_err());
    assert_eq!(server.est().get("cacerts").status, 200);
}

#[test]
fn a_useless_certificate_does_not_hide_a_good_token_or_the_ca_certificates() {
    let server = Server::start();
    let own = key();
    let copy = leaf("meter-1").self_signed(&own).expect("a certificate").der().to_vec();
    let der = request_by(&own, "meter-1");
    let est = server.est().with(Identity { chain: vec![copy], key: own });
    assert_eq!(est.get("cacerts").status, 200);
    est.enroll("meter-1", &server.token("meter-1"), &der).certificate();
}

/// Sends a request whose challengePassword is made from the connection it is sent on.
fn bound(server: &Server, path: &str, device: &str, value: impl FnOnce([u8; 32]) -> String) -> Reply {
    let mut stream = server.est().connect().expect("connects");
    let exporter =
        stream.conn.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).expect("TLS 1.3");
    let key = key();
    let attribute = challenge(&value(exporter));
    let der = request_with(&key, &[(CHALLENGE_PASSWORD, &attribute)], |params| {
        params.distinguished_name = common_name(device);
    });
    let authorization = basic(device, &server.token(device));
    stream.write_all(&post(path, Some(&authorization), &STANDARD.encode(&der))).expect("sent");
    read_reply(&mut stream).expect("an answer")
}

#[test]
fn a_request_is_bound_to_its_channel_as_its_profile_says() {
    let server = Server::start();
    server.muster(&["profile", "set", "bound", "channel_binding=required"]);
    server.muster(&["profile", "set", "loose", "channel_binding=off"]);
    let right = |exporter: [u8; 32]| STANDARD.encode(exporter);
    bound(&server, "simpleenroll", "meter-1", right).certificate();
    bound(&server, "bound/simpleenroll", "meter-2", right).certificate();
    let flipped = |mut exporter: [u8; 32]| {
        exporter[31] ^= 1;
        STANDARD.encode(exporter)
    };
    for path in ["simpleenroll", "bound/simpleenroll"] {
        let reply = bound(&server, path, "meter-3", flipped);
        assert_refused(&reply, 400, Reason::ChannelBindingMismatch);
        let reply = bound(&server, path, "meter-3", |exporter| right(exporter)[..43].to_owned());
        assert_refused(&reply, 400, Reason::ChannelBindingMismatch);
    }
    bound(&server, "loose/simpleenroll", "meter-4", |_| "something of its own".to_owned()).certificate();
}
