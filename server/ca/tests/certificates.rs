//! CAs, leaves, chains and lists, checked by readers that did not build them.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod support;

use muster_ca::authority::{Purpose, new_issuing, roll_over};
use muster_ca::bundle::certs_only;
use muster_ca::certificate::{CaCertificate, LeafFacts};
use muster_ca::chain::{ChainVerdict, verify_client_chain};
use muster_ca::crl::{CrlSettings, Revoked};
use muster_ca::csr::Csr;
use muster_ca::file_key::CaAlgorithm;
use muster_ca::keygen::GeneratedKey;
use muster_ca::server_leaf::ServerNames;
use muster_policy::enrol::San;
use muster_policy::key::{KeyKind, WishedKey};
use support::{NOW, at, grant, house, issue, key, request, serial, settings};

const ALGORITHMS: [CaAlgorithm; 3] = [CaAlgorithm::EcdsaP256, CaAlgorithm::EcdsaP384, CaAlgorithm::Rsa3072];

#[test]
fn a_leaf_says_what_was_granted_and_nothing_else() {
    let house = house(CaAlgorithm::EcdsaP256);
    let issued = issue(&house, "meter-1");
    let facts = LeafFacts::parse(&issued.der).expect("a certificate");
    assert_eq!(facts.serial, issued.serial);
    assert_eq!(facts.fingerprint, issued.fingerprint);
    assert_eq!(facts.subject.len(), 1);
    assert_eq!(facts.sans, [San::Uri("spiffe://example.test/device/meter-1".into())]);
    assert_eq!(facts.issuer_der, house.devices.certificate().subject_der());
    assert_eq!(
        (facts.not_before, facts.not_after),
        (NOW.minus(core::time::Duration::from_secs(300)), at(90))
    );
}

#[test]
fn leaves_of_every_algorithm_lead_to_issuing_and_root_anchors() {
    for algorithm in ALGORITHMS {
        let house = house(algorithm);
        let leaf = issue(&house, "meter-1").der;
        let (issuing, root) = (house.devices.certificate().der(), house.root.certificate().der());
        assert_eq!(verify_client_chain(&leaf, &[], &[issuing], NOW), ChainVerdict::Good);
        assert_eq!(verify_client_chain(&leaf, &[issuing], &[root], NOW), ChainVerdict::Good);
        assert_eq!(verify_client_chain(&leaf, &[], &[root], NOW), ChainVerdict::Untrusted);
        assert_eq!(verify_client_chain(&leaf, &[], &[issuing], at(91)), ChainVerdict::Expired);
        assert_eq!(verify_client_chain(&leaf, &[], &[issuing], at(-2)), ChainVerdict::NotYetValid);
    }
}

#[test]
fn an_impostor_ca_of_the_same_name_vouches_for_nobody() {
    let (ours, theirs) = (house(CaAlgorithm::EcdsaP256), house(CaAlgorithm::EcdsaP256));
    let leaf = issue(&theirs, "meter-1").der;
    let anchors = [ours.devices.certificate().der(), ours.root.certificate().der()];
    let verdict = verify_client_chain(&leaf, &[theirs.devices.certificate().der()], &anchors, NOW);
    assert_eq!(verdict, ChainVerdict::Untrusted);
}

#[test]
fn a_server_certificate_is_no_client() {
    let house = house(CaAlgorithm::EcdsaP256);
    let key = GeneratedKey::generate(&WishedKey::Curve(KeyKind::EcdsaP256)).expect("a key");
    let names = ServerNames {
        hostnames: vec!["est.example.test".parse().expect("valid")],
        addresses: vec!["127.0.0.1".parse().expect("valid")],
    };
    let prepared = house.services.prepare_server(&names, at(0), at(90), key.subject_key(), serial(7));
    let server = prepared.expect("prepared").sign().expect("signed").der;
    let anchors = [house.services.certificate().der()];
    assert_eq!(verify_client_chain(&server, &[], &anchors, NOW), ChainVerdict::Unfit);
    assert_eq!(LeafFacts::parse(&server).expect("a certificate").sans.len(), 2);
    // And the devices CA can't pose as one for servers.
    assert!(house.devices.prepare_server(&names, at(0), at(90), key.subject_key(), serial(8)).is_err());
}

#[test]
fn a_grant_is_for_one_key() {
    let house = house(CaAlgorithm::EcdsaP256);
    let (_, first) = request("meter-1");
    let (_, second) = request("meter-1");
    let (first, second) = (Csr::parse(&first).expect("valid"), Csr::parse(&second).expect("valid"));
    let grant = grant(&first, "meter-1", &house.devices);
    assert!(house.devices.prepare(&grant, second.subject_key(), serial(4), None).is_err());
}

#[test]
fn no_certificate_outlives_its_issuer() {
    let house = house(CaAlgorithm::EcdsaP256);
    let long = settings("too long", 9000);
    let made = new_issuing(&house.root, &long, Purpose::Devices, &[], key(CaAlgorithm::EcdsaP256), serial(6));
    assert!(made.is_err());
}

#[test]
fn name_constraints_are_written_and_read_back() {
    let house = house(CaAlgorithm::EcdsaP256);
    let permitted = ["example.test".parse().expect("valid")];
    let made = new_issuing(
        &house.root,
        &settings("limited", 100),
        Purpose::Services,
        &permitted,
        key(CaAlgorithm::EcdsaP256),
        serial(6),
    )
    .expect("made");
    assert_eq!(made.certificate().permitted_dns(), permitted);
}

#[test]
fn a_new_root_is_tied_to_the_old_one_both_ways() {
    let (old, new) = (house(CaAlgorithm::EcdsaP256), house(CaAlgorithm::EcdsaP384));
    let tie = roll_over(&old.root, &new.root, [serial(11), serial(12)]).expect("tied");
    let leaf = issue(&new, "meter-1").der;
    // A holder of the old root follows NewWithOld to a leaf below the new root.
    let path = [new.devices.certificate().der(), tie.new_with_old.der()];
    assert_eq!(verify_client_chain(&leaf, &path, &[old.root.certificate().der()], NOW), ChainVerdict::Good);
    let leaf = issue(&old, "meter-1").der;
    let path = [old.devices.certificate().der(), tie.old_with_new.der()];
    assert_eq!(verify_client_chain(&leaf, &path, &[new.root.certificate().der()], NOW), ChainVerdict::Good);
}

#[test]
fn a_list_is_signed_by_its_ca_and_holds_every_entry() {
    for algorithm in ALGORITHMS {
        let house = house(algorithm);
        let plan = CrlSettings { number: 7, this_update: NOW, next_update: at(7) };
        let entries = (0..1000u32).map(|number| {
            let mut random = [0; 16];
            random[..4].copy_from_slice(&number.to_be_bytes());
            let serial = muster_policy::identity::Serial::new(NOW, random);
            Revoked { serial, revoked_at: NOW, reason_code: 1 }
        });
        let list = house.devices.sign_crl(&plan, entries).expect("a list");
        let parsed = webpki::BorrowedCertRevocationList::from_der(&list).expect("webpki reads it");
        assert_eq!(parsed.into_iter().filter(|entry| entry.is_ok()).count(), 1000);
    }
}

#[test]
fn a_bundle_keeps_every_byte() {
    let house = house(CaAlgorithm::EcdsaP256);
    let (root, devices) = (house.root.certificate().der(), house.devices.certificate().der());
    let bundle = certs_only(&[root, devices]);
    for der in [root, devices] {
        assert!(bundle.windows(der.len()).any(|window| window == der));
        assert!(CaCertificate::parse(der).is_ok());
    }
}
