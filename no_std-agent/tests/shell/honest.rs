//! The TLS of strangers: rustls, in the settings that a server for devices has, and in some that it must not have.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use embedded_io::{Read, Write};
use muster_nostd_agent::key::KeyStore;
use muster_nostd_agent::net::Deadline;
use muster_nostd_agent::software::{P256Verifier, SoftwareKeys, SoftwareKeysBy};
use muster_nostd_agent::tls::{
    ClientIdentity, ConnectError, Connection, Failure, Failure::Ended, NamedServer, Peer, TlsMemory, connect,
};
use muster_proto::enrollment::{Ending, Slot};
use muster_proto::time::UnixTime;
use muster_proto::x509::{Anchors, Bundle, Moment, ServerName};
use rcgen::{BasicConstraints, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::authority::{Authority, Point, ca_params, device_params, server_params};
use crate::board::{Seeded, Tcp};
use crate::ec::Counting;
use crate::element::Element;

const NAME: &str = "edge.example.com";

/// In the middle of the certificates' time and of rustls' clock.
#[expect(clippy::disallowed_methods, reason = "rustls reads the same clock, and a test has no other")]
fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

struct House {
    root: Authority,
    services: Authority,
    devices: Authority,
}

fn house() -> House {
    let root = Authority::root("root", 1);
    let services = root.issue_authority(ca_params("services", BasicConstraints::Constrained(0)), 2);
    let devices = root.issue_authority(ca_params("devices", BasicConstraints::Constrained(0)), 3);
    House { root, services, devices }
}

/// A server that demands a certificate of the devices CA and echoes 20,000 bytes after the first it gets.
fn serve(house: &House, fragment: Option<usize>, accepted: &Authority) -> (SocketAddr, JoinHandle<()>) {
    let key = KeyPair::generate().expect("a key");
    let leaf = house.services.issue(&server_params(NAME), &key);
    let mut roots = RootCertStore::empty();
    // The device sends its leaf alone, so the issuing CA itself is the root here.
    roots.add(CertificateDer::from(accepted.der.clone())).expect("a CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .build()
        .expect("roots");
    let chain = vec![leaf.into(), house.services.der.clone().into()];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .expect("a key that fits");
    config.max_fragment_size = fragment;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let connection = ServerConnection::new(Arc::new(config)).expect("a configuration");
        let mut tls = StreamOwned::new(connection, stream);
        let mut first = [0; 1];
        if tls.read_exact(&mut first).is_ok() {
            let _ = tls.write_all(&[first[0]; 20_000]);
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let _ = tls.sock.shutdown(std::net::Shutdown::Write);
        let _ = tls.sock.read_to_end(&mut Vec::new());
    });
    (address, server)
}

/// Connects, says one byte, and reads to the end.
fn visit(
    house: &House,
    address: SocketAddr,
    receive: &mut [u8],
) -> Result<Result<usize, Failure>, ConnectError> {
    visit_with(&mut SoftwareKeys, house, address, receive)
}

fn visit_with(
    keys: &mut impl KeyStore,
    house: &House,
    address: SocketAddr,
    receive: &mut [u8],
) -> Result<Result<usize, Failure>, ConnectError> {
    let key = keys.generate(Slot::A, &mut Seeded::new(6)).expect("a key");
    let leaf = house
        .devices
        .issue(&device_params("dev-1", 1, now() - 60, now() + 1000), &Point(key.point.as_bytes().to_vec()));
    let anchors = [&house.root.der[..]];
    let verifier = P256Verifier::new(keys.ec());
    let check = NamedServer {
        name: ServerName::Dns(NAME),
        anchors: Anchors { certificates: &anchors, fingerprint: None },
        intermediates: Bundle::default(),
        moment: Moment::Known(UnixTime::from_secs(now())),
        verifier: &verifier,
    };
    let client = ClientIdentity { leaf: &leaf, keys, reference: &key.reference };
    let mut send = [0; 1024];
    let mut memory = TlsMemory { receive, send: &mut send };
    let mut entropy = Seeded::new(7);
    let (deadline, mut place) = (Deadline::new(), None);
    let peer = Peer { name: ServerName::Dns(NAME), check: &check };
    connect(Tcp::open(address), &mut memory, &deadline, peer, Some(client), &mut entropy, &mut place)?;
    let connection = place.as_mut().expect("made in its place");
    assert!(connection.presented());
    Ok(talk(connection))
}

/// Says one byte, and reads to the end.
fn talk(connection: &mut Connection<'_, Tcp>) -> Result<usize, Failure> {
    connection.write_all(b"x")?;
    connection.flush()?;
    let (mut total, mut bytes) = (0, [0; 700]);
    loop {
        match connection.read(&mut bytes)? {
            0 => return Ok(total),
            len => {
                assert!(bytes[..len].iter().all(|byte| *byte == b'x'));
                total += len;
            }
        }
    }
}

#[test]
fn a_device_listener_with_small_records_needs_2304_bytes() {
    let house = house();
    let (address, server) = serve(&house, Some(2048), &house.devices);
    let read = visit(&house, address, &mut [0; 2304]);
    assert_eq!(read.expect("connected"), Ok(20_000));
    server.join().expect("no panic");
}

#[test]
fn records_of_16_kib_need_as_much_memory() {
    let house = house();
    let (address, server) = serve(&house, None, &house.devices);
    assert_eq!(visit(&house, address, &mut [0; 16_640]).expect("connected"), Ok(20_000));
    server.join().expect("no panic");

    let (address, server) = serve(&house, None, &house.devices);
    let read = visit(&house, address, &mut [0; 4608]);
    assert_eq!(read.expect("connected"), Err(Ended(Ending::Reset)), "not a hang and not a panic");
    server.join().expect("no panic");
}

#[test]
fn hole_4_fragments_below_the_flight_end_the_handshake() {
    let house = house();
    let (address, server) = serve(&house, Some(512), &house.devices);
    let error = visit(&house, address, &mut [0; 4608]).expect_err("the flight is split");
    assert_eq!(error.ending(), Ending::Reset, "{error:?}");
    server.join().expect("no panic");
}

#[test]
fn a_refused_certificate_shows_in_the_first_read() {
    let house = house();
    let others = Authority::root("other devices", 9);
    let (address, server) = serve(&house, Some(2048), &others);
    let read = visit(&house, address, &mut [0; 4608]);
    assert_eq!(read.expect("the handshake is over by then"), Err(Ended(Ending::CertificateRefused)));
    server.join().expect("no panic");
}

#[test]
fn a_secure_element_signs_the_handshake() {
    let house = house();
    let (address, server) = serve(&house, Some(2048), &house.devices);
    let element = Element::default();
    let read = visit_with(&mut element.clone(), &house, address, &mut [0; 2304]);
    assert_eq!(read.expect("connected"), Ok(20_000));
    assert_eq!(element.signatures(), 1);
    server.join().expect("no panic");
}

#[test]
fn all_arithmetic_of_a_handshake_but_the_key_exchange_is_the_backends() {
    let house = house();
    let (address, server) = serve(&house, Some(2048), &house.devices);
    let backend = Counting::working();
    let read = visit_with(&mut SoftwareKeysBy(backend), &house, address, &mut [0; 2304]);
    assert_eq!(read.expect("connected"), Ok(20_000));
    // The device's key; its CertificateVerify; the leaf, the issuing CA and the server's CertificateVerify.
    assert_eq!(backend.calls(), [1, 1, 3]);
    server.join().expect("no panic");
}

#[test]
fn a_backend_that_takes_no_signature_lets_no_server_in() {
    let house = house();
    let (address, server) = serve(&house, Some(2048), &house.devices);
    let backend = Counting::refusing();
    let error = visit_with(&mut SoftwareKeysBy(backend), &house, address, &mut [0; 2304]).map(|_| ());
    assert_eq!(error.expect_err("not trusted").ending(), Ending::ServerUntrusted);
    assert_eq!(backend.calls(), [1, 0, 1]);
    server.join().expect("no panic");
}
