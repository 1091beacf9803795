//! What is granted is what is certified, and nothing else is.

use der::Decode as _;
use muster_policy::enrol::San;
use muster_policy::key::{KeyKind, WishedKey};
use muster_policy::profile::ProfileWritten;
use proptest::prelude::*;
use x509_cert::TbsCertificate;
use x509_cert::ext::pkix::{KeyUsage, KeyUsages};

use super::*;
use crate::authority::Purpose;
use crate::certificate::LeafFacts;
use crate::file_key::CaAlgorithm;
use crate::fixtures::{self, NOW, serial};
use crate::keygen::GeneratedKey;
use crate::server_leaf::ServerNames;
use crate::tlv;

fn written(crl_url: bool) -> ProfileWritten {
    ProfileWritten {
        crl_url: Some(crl_url),
        dns_suffix: Some("dev.example.com".into()),
        ..Default::default()
    }
}

#[test]
fn a_certificate_says_what_was_granted() {
    let csr = fixtures::csr();
    let grant = fixtures::grant(csr.wish(), &written(true));
    let prepared = fixtures::devices()
        .prepare(&grant, csr.subject_key(), serial(5), Some("http://crl.example.com/1"))
        .expect("is good");
    let tbs = prepared.tbs_der().to_vec();
    let issued = prepared.sign().expect("signs");
    assert_eq!(tlv::split(&issued.der).expect("members")[0], tbs);
    let facts = LeafFacts::parse(&issued.der).expect("reads");
    assert_eq!(facts.serial, serial(5));
    assert_eq!(facts.fingerprint, issued.fingerprint);
    assert_eq!(facts.key_fingerprint, csr.subject_key().fingerprint());
    assert_eq!(facts.subject[0].text, "meter-1");
    let uri = San::Uri("spiffe://example.com/device/meter-1".into());
    assert_eq!(facts.sans, [uri, San::Dns("meter-1.dev.example.com".into())]);
    assert_eq!((facts.not_before, facts.not_after), (grant.not_before(), grant.not_after()));
    assert_eq!(facts.issuer_der, fixtures::devices().certificate().subject_der());
    assert!(issued.der.windows(24).any(|window| window == b"http://crl.example.com/1"));
}

#[test]
fn an_rsa_key_may_encipher_keys_as_well() {
    let usages = |wished| {
        let key = GeneratedKey::generate(&wished).expect("a key");
        let contents = LeafContents {
            common_name: Some("meter-1"),
            sans: &[San::Uri("spiffe://example.com/device/meter-1".into())],
            not_before: NOW,
            not_after: NOW.plus(core::time::Duration::from_secs(60)),
            crl_url: None,
            role: Role::Client,
        };
        let prepared = fixtures::devices().prepare_leaf(&contents, key.subject_key(), serial(5));
        let tbs = TbsCertificate::from_der(prepared.expect("is good").tbs_der()).expect("reads");
        tbs.get_extension::<KeyUsage>().expect("reads").expect("is there").1.0
    };
    assert_eq!(usages(WishedKey::Curve(KeyKind::EcdsaP256)), KeyUsages::DigitalSignature);
    let both = KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment;
    assert_eq!(usages(WishedKey::Rsa { bits: 2048 }), both);
}

#[test]
fn the_crl_is_named_only_when_the_grant_says_so() {
    let csr = fixtures::csr();
    let grant = fixtures::grant(csr.wish(), &written(false));
    let issuer = fixtures::devices();
    let url = Some("http://crl.example.com/1");
    let prepared = issuer.prepare(&grant, csr.subject_key(), serial(5), url).expect("is good");
    assert!(!prepared.tbs_der().windows(7).any(|window| window == b"http://"));
}

#[test]
fn a_grant_for_another_key_certifies_nothing() {
    let grant = fixtures::grant(fixtures::csr().wish(), &written(false));
    let other = fixtures::csr();
    let refused = fixtures::devices().prepare(&grant, other.subject_key(), serial(5), None);
    assert_eq!(refused.expect_err("must be refused"), PrepareError::KeyMismatch);
}

#[test]
fn a_services_ca_certifies_no_device() {
    let services = fixtures::issuing(fixtures::account_root(), Purpose::Services);
    let csr = fixtures::csr();
    let grant = fixtures::grant(csr.wish(), &written(false));
    let refused = services.prepare(&grant, csr.subject_key(), serial(5), None);
    assert!(matches!(refused, Err(PrepareError::Lint(Lint { section: "4.2.1.12", .. }))));
}

#[test]
fn a_leaf_never_begins_before_its_issuer() {
    let csr = fixtures::csr();
    let early = ProfileWritten { backdate_s: Some(86_400), ..Default::default() };
    let grant = fixtures::grant(csr.wish(), &early);
    let issuer = fixtures::devices();
    let issued = issuer.prepare(&grant, csr.subject_key(), serial(5), None).map(Prepared::sign);
    let issued = issued.expect("is good").expect("signs");
    assert_eq!(issued.not_before, issuer.certificate().not_before());
    assert_eq!(LeafFacts::parse(&issued.der).expect("reads").not_before, issued.not_before);
}

#[test]
fn a_server_gets_its_names() {
    let services = fixtures::issuing(fixtures::account_root(), Purpose::Services);
    let key = fixtures::device_key();
    let names = ServerNames {
        hostnames: ["est.example.com", "*.example.com"].map(|name| name.parse().expect("a name")).into(),
        addresses: vec!["::1".parse().expect("an address")],
    };
    let later = NOW.plus(core::time::Duration::from_secs(86_400));
    let prepared =
        services.prepare_server(&names, NOW, later, key.subject_key(), serial(6)).expect("is good");
    let facts = LeafFacts::parse(&prepared.sign().expect("signs").der).expect("reads");
    let dns = |name: &str| San::Dns(name.into());
    assert_eq!(facts.sans, [dns("est.example.com"), dns("*.example.com"), San::Ip("::1".into())]);
    // Not by the devices CA, and not without a name.
    let devices = fixtures::devices();
    assert!(devices.prepare_server(&names, NOW, later, key.subject_key(), serial(6)).is_err());
    let none = ServerNames { hostnames: Vec::new(), addresses: Vec::new() };
    assert!(services.prepare_server(&none, NOW, later, key.subject_key(), serial(6)).is_err());
}

#[test]
fn every_kind_of_ca_key_signs() {
    for algorithm in [CaAlgorithm::EcdsaP256, CaAlgorithm::EcdsaP384, CaAlgorithm::Rsa3072] {
        let root = fixtures::root("Root", algorithm);
        assert_eq!(root.certificate().verify_signed_by(root.certificate().subject_key()), Ok(()));
        let issuing = fixtures::issuing(&root, Purpose::Devices);
        assert_eq!(issuing.certificate().verify_signed_by(root.certificate().subject_key()), Ok(()));
    }
}

proptest! {
    #[test]
    fn facts_of_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(LeafFacts::parse(&bytes).is_err());
    }

    #[test]
    fn facts_of_mutated_certificates_never_panic(place: prop::sample::Index, octet: u8) {
        let mut der = fixtures::devices().certificate().der().to_vec();
        let place = place.index(der.len());
        der[place] = octet;
        let _ = LeafFacts::parse(&der);
        let _ = certificate::CaCertificate::parse(&der);
    }
}
