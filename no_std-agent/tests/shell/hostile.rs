//! Servers that break TLS on purpose, among them the four holes of embedded-tls 0.19.

use embedded_io::Read;
use muster_nostd_agent::ec::Portable;
use muster_nostd_agent::entropy::Entropy;
use muster_nostd_agent::key::{KeyError, KeyReference, KeyStore, Signature, SlotKey};
use muster_nostd_agent::net::Deadline;
use muster_nostd_agent::software::{P256Verifier, SoftwareKeys};
use muster_nostd_agent::tls::{
    AnyServer, ClientIdentity, ConnectError, Failure, Failure::Ended, NamedServer, Peer, ServerCheck,
    TlsMemory, Unproven, connect,
};
use muster_proto::csr::P256Point;
use muster_proto::enrollment::{Ending, Slot};
use muster_proto::time::UnixTime;
use muster_proto::x509::{Anchors, Bundle, Moment, PathError, ServerName, ServerRefused, VerifyError};
use rcgen::{BasicConstraints, PublicKeyData as _};

use crate::authority::{Authority, Point, START, TestKey, ca_params, device_params, server_params};
use crate::board::{Seeded, Tcp};
use crate::scripted::{ALERT, DATA, HANDSHAKE, Message, Script, Seen, Step, handshake, honest, serve};

const NAME: &str = "est.example.com";

/// The server's key, and the chain that the root of [`house`] leads to.
struct House {
    root: Authority,
    chain: Vec<Vec<u8>>,
    key: TestKey,
    services: Authority,
}

fn house() -> House {
    let root = Authority::root("root", 1);
    let services = root.issue_authority(ca_params("services", BasicConstraints::Constrained(0)), 2);
    let key = TestKey::from_seed(3);
    let leaf = services.issue(&server_params(NAME), &key);
    House { chain: vec![leaf, services.der.clone()], root, key, services }
}

/// The outcome of one connection: what the client read first, and what the server saw.
type Outcome = (Result<Result<Vec<u8>, Failure>, ConnectError>, Seen);

fn run(script: Script, root: &[u8]) -> Outcome {
    let anchors = [root];
    let verifier = P256Verifier::new(&Portable);
    let check = NamedServer {
        name: ServerName::Dns(NAME),
        anchors: Anchors { certificates: &anchors, fingerprint: None },
        intermediates: Bundle::default(),
        moment: Moment::Known(UnixTime::from_secs(START)),
        verifier: &verifier,
    };
    run_with(script, &check)
}

fn run_with(script: Script, check: &dyn ServerCheck) -> Outcome {
    let devices = Authority::root("devices", 8);
    let mut keys = SoftwareKeys;
    let key = keys.generate(Slot::A, &mut Seeded::new(4)).expect("a key");
    let leaf =
        devices.issue(&device_params("dev-1", 1, START, START + 1000), &Point(key.point.as_bytes().to_vec()));
    let client = ClientIdentity { leaf: &leaf, keys: &mut keys, reference: &key.reference };
    run_as(script, check, client)
}

fn run_as<K: KeyStore>(script: Script, check: &dyn ServerCheck, client: ClientIdentity<'_, K>) -> Outcome {
    let (address, server) = serve(script);
    let (mut receive, mut send) = ([0; 4608], [0; 1024]);
    let mut memory = TlsMemory { receive: &mut receive, send: &mut send };
    let tcp = Tcp::open(address);
    let mut entropy = Seeded::new(5);
    let (deadline, mut place) = (Deadline::new(), None);
    let peer = Peer { name: ServerName::Dns(NAME), check };
    let connected = connect(tcp, &mut memory, &deadline, peer, Some(client), &mut entropy, &mut place);
    assert_eq!(connected.is_ok(), place.is_some(), "nothing is left of what failed");
    let outcome = connected.map(|()| {
        let connection = place.as_mut().expect("made in its place");
        let mut bytes = [0; 64];
        let read = connection.read(&mut bytes);
        read.map(|len| bytes[..len].to_vec())
    });
    // The server reads on until the client is gone.
    drop(place);
    (outcome, server.join().expect("the server keeps to its script"))
}

fn flight(messages: Vec<Message>) -> Script {
    Script { flight: vec![Step::Flight(messages)], after: vec![Step::Sealed(DATA, b"hello".to_vec())] }
}

#[track_caller]
fn untrusted(outcome: &Outcome) -> Unproven {
    match &outcome.0 {
        Err(ConnectError::Untrusted(reason)) => *reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn an_honest_server_is_believed_and_gets_the_certificate() {
    let house = house();
    let mut messages = honest(&house.chain, &house.key);
    messages.insert(1, Message::CertificateRequest);
    let (read, seen) = run(flight(messages), &house.root.der);
    assert_eq!(read.expect("connected"), Ok(b"hello".to_vec()));
    assert!(seen.finished && seen.certificate.is_some());
}

#[test]
fn hole_1_a_server_without_certificate_verify_is_refused() {
    let house = house();
    let mut messages = honest(&house.chain, &house.key);
    messages.remove(2);
    messages.insert(1, Message::CertificateRequest);
    let outcome = run(flight(messages), &house.root.der);
    assert_eq!(untrusted(&outcome), Unproven::Missing);
    assert_eq!(outcome.1.certificate, None, "a stranger learns who the device is");
}

#[test]
fn hole_1_a_server_without_certificate_is_refused() {
    let house = house();
    let messages = vec![Message::EncryptedExtensions, Message::CertificateRequest, Message::Finished];
    let outcome = run(flight(messages), &house.root.der);
    assert_eq!(untrusted(&outcome), Unproven::Missing);
    assert_eq!(outcome.1.certificate, None, "a stranger learns who the device is");
    // Nor may a server that is not asked who it is leave the proof out.
    let messages = vec![Message::EncryptedExtensions, Message::Finished];
    let verifier = P256Verifier::new(&Portable);
    assert_eq!(untrusted(&run_with(flight(messages), &AnyServer(&verifier))), Unproven::Missing);
}

#[test]
fn hole_2_a_device_certificate_is_no_ca() {
    let house = house();
    // A device of the fleet issues a server certificate with its own key.
    let device = house.services.issue_authority(device_params("dev-9", 9, START, START + 1000), 20);
    let forged_key = TestKey::from_seed(21);
    let forged = device.issue(&server_params(NAME), &forged_key);
    let chain = vec![forged, device.der, house.services.der.clone()];
    let outcome = run(flight(honest(&chain, &forged_key)), &house.root.der);
    assert_eq!(untrusted(&outcome), Unproven::Certificate(ServerRefused::Path(PathError::NotAuthority)));
}

#[test]
fn a_device_certificate_is_no_server_certificate() {
    let house = house();
    let mut params = device_params("dev-9", 9, START, START + 1000);
    params.subject_alt_names = server_params(NAME).subject_alt_names;
    let key = TestKey::from_seed(20);
    let chain = vec![house.services.issue(&params, &key), house.services.der.clone()];
    let outcome = run(flight(honest(&chain, &key)), &house.root.der);
    let reason = ServerRefused::Path(PathError::ExtendedKeyUsage);
    assert_eq!(untrusted(&outcome), Unproven::Certificate(reason));
}

#[test]
fn another_name_an_ended_certificate_and_a_foreign_root_are_refused() {
    let house = house();
    let issue = |params| vec![house.services.issue(&params, &house.key), house.services.der.clone()];
    let other = issue(server_params("other.example.com"));
    let outcome = run(flight(honest(&other, &house.key)), &house.root.der);
    assert_eq!(untrusted(&outcome), Unproven::Certificate(ServerRefused::Name));

    let mut ended = server_params(NAME);
    ended.not_after = crate::authority::at(START - 60);
    let outcome = run(flight(honest(&issue(ended), &house.key)), &house.root.der);
    assert_eq!(untrusted(&outcome), Unproven::Certificate(ServerRefused::Path(PathError::Expired)));
    assert_eq!(outcome.0.map_err(|error| error.ending()).err(), Some(Ending::ServerUntimely));

    let foreign = Authority::root("another root", 30);
    let outcome = run(flight(honest(&house.chain, &house.key)), &foreign.der);
    assert_eq!(untrusted(&outcome), Unproven::Certificate(ServerRefused::Path(PathError::UnknownIssuer)));
}

#[test]
fn a_server_key_in_compressed_form_is_refused() {
    let house = house();
    let point = house.key.der_bytes();
    assert_eq!((point.len(), point[0]), (65, 4));
    let compressed = [&[2 + point[64] % 2], &point[1..33]].concat();
    let leaf = house.services.issue(&server_params(NAME), &Point(compressed));
    let chain = vec![leaf, house.services.der.clone()];
    let outcome = run(flight(honest(&chain, &house.key)), &house.root.der);
    assert_eq!(untrusted(&outcome), Unproven::Key(VerifyError::Unsupported));
}

#[test]
fn a_proof_by_another_key_or_twice_or_before_the_certificate_is_refused() {
    let house = house();
    let wrong = honest(&house.chain, &TestKey::from_seed(77));
    assert_eq!(untrusted(&run(flight(wrong), &house.root.der)), Unproven::Signature);
    for (at, message) in [
        (3, Message::CertificateVerify(house.key.clone())),
        (3, Message::Certificate(house.chain.clone())),
        (2, Message::Certificate(house.chain.clone())),
        (1, Message::CertificateVerify(house.key.clone())),
    ] {
        let mut messages = honest(&house.chain, &house.key);
        messages.insert(at, message);
        assert_eq!(untrusted(&run(flight(messages), &house.root.der)), Unproven::OutOfOrder);
    }
}

#[test]
fn hole_3_a_record_without_content_ends_the_connection_and_not_the_device() {
    let house = house();
    let before = Script { flight: vec![Step::Inner(vec![])], after: vec![] };
    let (outcome, _) = run(before, &house.root.der);
    assert!(matches!(outcome, Err(ConnectError::Record)), "{outcome:?}");

    let after = Script {
        flight: vec![Step::Flight(honest(&house.chain, &house.key))],
        after: vec![Step::Inner(vec![])],
    };
    let (outcome, _) = run(after, &house.root.der);
    assert_eq!(outcome.expect("connected"), Err(Ended(Ending::Reset)));
}

#[test]
fn hole_3_padding_without_content_ends_the_connection_and_not_the_device() {
    let house = house();
    for len in [1, 2, 300] {
        let before = Script { flight: vec![Step::Inner(vec![0; len])], after: vec![] };
        let (outcome, _) = run(before, &house.root.der);
        assert!(matches!(outcome, Err(ConnectError::Tls(_))), "{outcome:?}");

        let after = Script {
            flight: vec![Step::Flight(honest(&house.chain, &house.key))],
            after: vec![Step::Inner(vec![0; len])],
        };
        let (outcome, _) = run(after, &house.root.der);
        assert_eq!(outcome.expect("connected"), Err(Ended(Ending::Reset)));
    }
}

#[test]
fn hole_3_a_handshake_message_in_the_clear_ends_the_connection_and_not_the_device() {
    let house = house();
    // Anyone on the path can write this into the TCP stream, at any time.
    let injected = handshake(8, &[0, 0]);
    let after = Script {
        flight: vec![Step::Flight(honest(&house.chain, &house.key))],
        after: vec![Step::Clear(HANDSHAKE, injected)],
    };
    let (outcome, _) = run(after, &house.root.der);
    assert_eq!(outcome.expect("connected"), Err(Ended(Ending::Reset)));
}

#[test]
fn a_forged_close_is_not_believed() {
    let house = house();
    let after = Script {
        flight: vec![Step::Flight(honest(&house.chain, &house.key))],
        after: vec![Step::Clear(ALERT, vec![1, 0])],
    };
    let (outcome, _) = run(after, &house.root.der);
    assert_eq!(outcome.expect("connected"), Err(Ended(Ending::Reset)), "not the orderly end");
}

#[test]
fn hole_3_an_unexpected_message_inside_tls_ends_the_connection_and_not_the_device() {
    let house = house();
    let ticket = handshake(4, &[0, 0, 14, 16, 0, 0, 0, 0, 0, 0, 1, 7, 0, 0]);
    // Every message that embedded-tls can parse, and some that it can't; also behind a ticket in the same record.
    for kind in [0, 1, 2, 5, 8, 11, 13, 15, 20, 25, 254] {
        let message = handshake(kind, &[0; 32]);
        for record in [message.clone(), [ticket.clone(), message].concat()] {
            let after = Script {
                flight: vec![Step::Flight(honest(&house.chain, &house.key))],
                after: vec![Step::Sealed(HANDSHAKE, record)],
            };
            let (outcome, _) = run(after, &house.root.der);
            assert_eq!(outcome.expect("connected"), Err(Ended(Ending::Reset)), "{kind}");
        }
    }
}

#[test]
fn a_ticket_that_hides_a_message_in_its_length_ends_the_connection_and_not_the_device() {
    // embedded-tls goes by a ticket's own fields and not by its length: the rest would be a message of its own.
    let house = house();
    let mut body = vec![0, 0, 14, 16, 0, 0, 0, 0, 0, 0, 1, 7, 0, 0];
    body.extend(handshake(8, &[0, 0]));
    let after = Script {
        flight: vec![Step::Flight(honest(&house.chain, &house.key))],
        after: vec![Step::Sealed(HANDSHAKE, handshake(4, &body)), Step::Sealed(DATA, b"hello".to_vec())],
    };
    assert_eq!(run(after, &house.root.der).0.expect("connected"), Ok(b"hello".to_vec()));
}

#[test]
fn tickets_are_passed_over() {
    let house = house();
    let ticket = handshake(4, &[0, 0, 14, 16, 0, 0, 0, 0, 0, 0, 1, 7, 0, 0]);
    let after = Script {
        flight: vec![Step::Flight(honest(&house.chain, &house.key))],
        after: vec![
            Step::Sealed(HANDSHAKE, [ticket.clone(), ticket].concat()),
            Step::Sealed(DATA, b"hello".to_vec()),
        ],
    };
    assert_eq!(run(after, &house.root.der).0.expect("connected"), Ok(b"hello".to_vec()));
}

#[test]
fn a_server_that_has_not_proven_itself_is_refused_before_what_it_says_next() {
    // The same message, but the server left its proof out: the connection does not come to exist.
    let house = house();
    let mut messages = honest(&house.chain, &house.key);
    messages.remove(2);
    let after = Script {
        flight: vec![Step::Flight(messages)],
        after: vec![Step::Sealed(HANDSHAKE, handshake(8, &[0, 0]))],
    };
    assert_eq!(untrusted(&run(after, &house.root.der)), Unproven::Missing);
}

#[test]
fn hole_4_messages_split_over_records_are_a_failed_handshake() {
    let house = house();
    for size in [100, 512] {
        let script =
            Script { flight: vec![Step::Split(honest(&house.chain, &house.key), size)], after: vec![] };
        let (outcome, _) = run(script, &house.root.der);
        let error = outcome.expect_err("embedded-tls puts messages together now: the README's note can go");
        assert_eq!(error.ending(), Ending::Reset, "{error:?}");
    }
    // Whole messages in records of their own are fine.
    let script = Script {
        flight: honest(&house.chain, &house.key)
            .into_iter()
            .map(|message| Step::Flight(vec![message]))
            .collect(),
        after: vec![Step::Sealed(DATA, b"hello".to_vec())],
    };
    assert_eq!(run(script, &house.root.der).0.expect("connected"), Ok(b"hello".to_vec()));
}

#[test]
fn a_key_update_ends_the_connection() {
    let house = house();
    let after = Script {
        flight: vec![Step::Flight(honest(&house.chain, &house.key))],
        after: vec![Step::Sealed(HANDSHAKE, handshake(24, &[0]))],
    };
    let (outcome, _) = run(after, &house.root.der);
    assert_eq!(outcome.expect("connected"), Err(Ended(Ending::Reset)));
}

#[test]
fn an_alert_as_the_first_word_means_the_certificate_if_one_was_presented() {
    let house = house();
    let refusing = |ask: bool| {
        let mut messages = honest(&house.chain, &house.key);
        if ask {
            messages.insert(1, Message::CertificateRequest);
        }
        // certificate_unknown
        let refusal = Step::Sealed(ALERT, vec![2, 46]);
        Script { flight: vec![Step::Flight(messages)], after: vec![refusal] }
    };
    let (outcome, _) = run(refusing(true), &house.root.der);
    assert_eq!(outcome.expect("connected"), Err(Ended(Ending::CertificateRefused)));
    let (outcome, _) = run(refusing(false), &house.root.der);
    assert_eq!(outcome.expect("connected"), Err(Ended(Ending::Reset)));
}

#[test]
fn a_handshake_in_the_clear_is_refused() {
    // embedded-tls takes handshake messages that are not encrypted.
    let house = house();
    let script = Script { flight: vec![Step::Clear(HANDSHAKE, handshake(8, &[0, 0]))], after: vec![] };
    let (outcome, _) = run(script, &house.root.der);
    assert!(matches!(outcome, Err(ConnectError::Record)), "{outcome:?}");
}

#[test]
fn a_record_beyond_the_memory_is_refused() {
    let house = house();
    let after = Script {
        flight: vec![Step::Flight(honest(&house.chain, &house.key))],
        after: vec![Step::Sealed(DATA, vec![1; 5000])],
    };
    let (outcome, _) = run(after, &house.root.der);
    assert_eq!(outcome.expect("connected"), Err(Ended(Ending::Reset)));
}

/// A secure element that does not answer.
struct Dead;

impl KeyStore for Dead {
    fn generate(&mut self, _: Slot, _: &mut impl Entropy) -> Result<SlotKey, KeyError> {
        Err(KeyError::Failed)
    }

    fn public(&mut self, _: &KeyReference) -> Result<P256Point, KeyError> {
        Err(KeyError::Failed)
    }

    fn sign(&mut self, _: &KeyReference, _: &[u8]) -> Result<Signature, KeyError> {
        Err(KeyError::Failed)
    }

    fn forget(&mut self, _: &KeyReference) -> Result<(), KeyError> {
        Err(KeyError::Failed)
    }
}

#[test]
fn a_key_store_that_fails_is_an_error_and_no_panic() {
    let house = house();
    let mut messages = honest(&house.chain, &house.key);
    messages.insert(1, Message::CertificateRequest);
    let reference = KeyReference::new(&[1]).expect("short");
    let client = ClientIdentity { leaf: &[1, 2, 3], keys: &mut Dead, reference: &reference };
    let (outcome, _) = run_as(flight(messages), &AnyServer(&P256Verifier::new(&Portable)), client);
    assert!(matches!(outcome, Err(ConnectError::Key)), "{outcome:?}");
}
