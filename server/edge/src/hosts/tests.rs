//! The resolver, against a plain reading of the rules, and doors across changes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use muster_policy::host::{DefaultCas, HostMode, MinTls, Protocol, WhenStale};
use muster_policy::identity::ZoneId;
use muster_policy::network::DeniedNetworks;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use serde_bytes::ByteBuf;

use super::*;
use crate::clock::Clock;
use crate::snapshot::{OriginTls, SecretKey, TlsIdentity};
use crate::standing::Standing;
use crate::tls::config::provider;
use crate::tls::verifier::Examiner;

const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);

fn maker() -> DoorMaker {
    let provider = provider();
    let standing = Arc::new(ArcSwap::from_pointee(Standing::default()));
    let examiner = Examiner::new(8, provider.signature_verification_algorithms, standing);
    DoorMaker {
        tls: ConfigMaker {
            provider: Arc::clone(&provider),
            examiner: Arc::new(examiner),
            clock: Clock::system(),
        },
        origins: OriginMaker {
            provider,
            machine_roots: Arc::new(RootCertStore::empty()),
            denied: DeniedNetworks::default(),
        },
    }
}

fn certificate() -> (ByteBuf, SecretKey) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["any.example".to_owned()]).expect("a name");
    let der = params.self_signed(&key).expect("a certificate").der().to_vec();
    (ByteBuf::from(der), SecretKey::new(key.serialize_der()))
}

fn entry(name: &str, (der, key): &(ByteBuf, SecretKey)) -> HostEntry {
    HostEntry {
        rule: HostRule {
            host: name.parse().expect("a pattern"),
            account: ACCOUNT,
            zone: ZoneId::from_bytes([2; 16]),
            mode: HostMode::Require,
            protocols: [Protocol::Https].into(),
            cas: BTreeSet::new(),
            default_cas: DefaultCas::default(),
            min_tls: MinTls::Tls13,
            origins: Vec::new(),
            when_stale: WhenStale::Closed,
            forward_certificate: true,
            origin_timeout_s: 60,
        },
        certificate: Some(TlsIdentity { chain: vec![der.clone()], key: key.clone() }),
        origin_tls: OriginTls::default(),
    }
}

fn account() -> AccountEntry {
    AccountEntry {
        id: ACCOUNT,
        trust_domain: "fleet.example".parse().expect("a domain"),
        outbound: None,
        gate: Default::default(),
    }
}

fn doors(names: &[&str]) -> Doors {
    let certificate = certificate();
    let hosts: Vec<_> = names.iter().map(|name| entry(name, &certificate)).collect();
    let doors = Doors::new(&maker(), &[account()], &[], &hosts);
    assert_eq!(doors.faults(), []);
    doors
}

fn found(doors: &Doors, name: &str) -> Option<String> {
    doors.resolve(name).map(|door| door.rule.host.to_string())
}

#[test]
fn a_name_leads_to_its_exact_rule_and_else_to_one_wildcard_label() {
    let doors = doors(&["a.example.com", "*.example.com", "*.a.example.com"]);
    for (name, rule) in [
        ("a.example.com", Some("a.example.com")),
        ("A.EXAMPLE.com.", Some("a.example.com")),
        ("b.example.com", Some("*.example.com")),
        ("B.Example.Com.", Some("*.example.com")),
        ("b.a.example.com", Some("*.a.example.com")),
        ("c.b.a.example.com", None),
        ("example.com", None),
        ("com", None),
        ("a.example.com..", None),
        (".example.com", None),
        ("*.example.com", None),
        ("a.example.com:443", None),
        ("a.example.com\0", None),
        ("127.0.0.1", None),
        ("[::1]", None),
        ("", None),
    ] {
        assert_eq!(found(&doors, name).as_deref(), rule, "{name:?}");
    }
}

#[test]
fn a_change_of_one_hostname_leaves_the_other_doors_as_they_are() {
    let (maker, certificate) = (maker(), certificate());
    let before = doors(&["a.example.com", "b.example.com"]);
    let event = Event::Host(Box::new(entry("a.example.com", &certificate)));
    let after = before.after(&maker, &[event]);
    let door = |doors: &Doors, name| Arc::clone(doors.resolve(name).expect("there"));
    assert!(Arc::ptr_eq(&door(&before, "b.example.com"), &door(&after, "b.example.com")));
    assert!(!Arc::ptr_eq(&door(&before, "a.example.com"), &door(&after, "a.example.com")));
    // Equal CAs, one set: a chain that was verified for one hostname counts for the other.
    let generation = |name| door(&after, name).anchors.generation;
    assert_eq!(generation("a.example.com"), generation("b.example.com"));
}

/// It is closed, as its old rule holds no more; the other changes of the same update hold.
#[test]
fn a_hostname_that_cannot_be_served_is_closed_and_spoils_no_other() {
    let (maker, certificate) = (maker(), certificate());
    let before = doors(&["a.example.com", "b.example.com", "*.example.com"]);
    let broken = TlsIdentity { chain: vec![certificate.0.clone()], key: SecretKey::new(b"no key".to_vec()) };
    for identity in [None, Some(broken)] {
        let mut wrong = entry("b.example.com", &certificate);
        wrong.certificate = identity;
        let good = entry("c.example.com", &certificate);
        let shut = before.after(&maker, &[Event::Host(Box::new(wrong)), Event::Host(Box::new(good))]);
        assert!(matches!(shut.faults(), [Fault::Host { host, .. }] if host.to_string() == "b.example.com"));
        let served = |doors: &Doors| {
            ["a.example.com", "b.example.com", "c.example.com", "d.example.com"]
                .map(|name| found(doors, name))
        };
        let some = |name: &str| Some(name.to_owned());
        // The wildcard answers for d, and not for b, whose own rule may demand more.
        let [a, c, d] = ["a.example.com", "c.example.com", "*.example.com"].map(some);
        assert_eq!(served(&shut), [a.clone(), None, c.clone(), d.clone()]);
        let still = shut.after(&maker, &[Event::Account(account())]);
        assert_eq!(served(&still), [a.clone(), None, c.clone(), d.clone()]);
        let mended = still.after(&maker, &[Event::Host(Box::new(entry("b.example.com", &certificate)))]);
        assert_eq!(served(&mended), [a.clone(), some("b.example.com"), c.clone(), d.clone()]);
        let gone = still.after(&maker, &[Event::HostRemoved("b.example.com".parse().expect("a pattern"))]);
        assert_eq!(served(&gone), [a, d.clone(), c, d]);
    }
}

/// Nothing of a session outlives it, and no octets of a client are unpacked (RFC 8879).
#[test]
fn no_configuration_resumes_or_unpacks() {
    let doors = doors(&["a.example.com"]);
    let config =
        doors.resolve("a.example.com").and_then(|door| door.config(ListenerKind::Https)).expect("one");
    assert!(!config.session_storage.can_cache() && !config.ticketer.enabled());
    assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
    assert!(config.cert_decompressors.is_empty() && config.cert_compressors.is_empty());
}

#[test]
fn a_ca_that_cannot_be_read_accepts_nobody() {
    let id = CaId::from_bytes([7; 16]);
    let ca = CaEntry {
        id,
        account: ACCOUNT,
        certificates: vec![ByteBuf::from(b"no certificate".to_vec())],
        is_default: true,
        vouches: true,
    };
    let after = doors(&["a.example.com"]).after(&maker(), &[Event::Ca(ca)]);
    assert!(matches!(after.faults(), [Fault::Ca { ca, .. }] if *ca == id));
    assert!(after.resolve("a.example.com").expect("served").anchors.cas.is_empty());
}

proptest! {
    /// What TLS calls a name and what HTTP calls it lead to one rule.
    #[test]
    fn server_name_and_host_lead_to_the_same_door(
        name in "[aAbB]{0,2}\\.?[a.A-]{0,3}(example|EXAMPLE)\\.com\\.?(:443)?"
    ) {
        let doors = DOORS.with(Arc::clone);
        let Ok(authority) = http::uri::Authority::try_from(name.as_str()) else { return Ok(()) };
        let by_host = found(&doors, authority.host());
        let by_sni = match ServerName::try_from(authority.host()) {
            Ok(ServerName::DnsName(name)) => found(&doors, name.as_ref()),
            _ => None,
        };
        prop_assert_eq!(&by_host, &by_sni);
        let turned = authority.host().to_ascii_uppercase();
        prop_assert_eq!(&by_host, &found(&doors, &turned));
        if !turned.ends_with('.') {
            prop_assert_eq!(&by_host, &found(&doors, &format!("{turned}.")));
        }
    }
}

thread_local! {
    static DOORS: Arc<Doors> = Arc::new(doors(&["a.example.com", "*.example.com", "*.a.example.com"]));
}
