//! Which client certificates are trusted, and what is said of the others.

use muster_policy::profile::ProfileWritten;
use proptest::prelude::*;

use super::*;
use crate::authority::{Purpose, roll_over};
use crate::file_key::CaAlgorithm;
use crate::fixtures::{self, NOW, serial};
use crate::issuer::Issuer;
use crate::server_leaf::ServerNames;
use crate::signer::Signer;
use crate::subject_key::SubjectKey;
use crate::tbs;
use crate::tlv;

const LATER: UnixTime = UnixTime::from_secs(NOW.as_secs() + 100 * 86_400);
const BEFORE: UnixTime = UnixTime::from_secs(NOW.as_secs() - 86_400);

fn leaf_of(issuer: &Issuer) -> Vec<u8> {
    let csr = fixtures::csr();
    let grant = fixtures::grant(csr.wish(), &ProfileWritten::default());
    let prepared = issuer.prepare(&grant, csr.subject_key(), serial(7), None).expect("is good");
    prepared.sign().expect("signs").der
}

fn anchors(issuers: &[&Issuer]) -> TrustAnchors {
    TrustAnchors::new(issuers.iter().map(|issuer| issuer.certificate().der())).expect("are certificates")
}

fn verify(leaf: &[u8], intermediates: &[&[u8]], anchors: &TrustAnchors, now: UnixTime) -> ClientChain {
    let intermediates: Vec<CertificateDer<'_>> =
        intermediates.iter().map(|der| CertificateDer::from(*der)).collect();
    verify_client_chain(&CertificateDer::from(leaf), &intermediates, anchors, now)
}

#[test]
fn a_device_of_the_account_is_trusted() {
    let (root, devices) = (fixtures::account_root(), fixtures::devices());
    let leaf = leaf_of(devices);
    let stranger = fixtures::root("Stranger", CaAlgorithm::EcdsaP256);
    let trusted = ClientChain::Trusted { anchor: 1 };
    assert_eq!(verify(&leaf, &[], &anchors(&[&stranger, devices]), NOW), trusted);
    let chain = [devices.certificate().der()];
    assert_eq!(verify(&leaf, &chain, &anchors(&[&stranger, root]), NOW), trusted);
    // The root alone does not do: the issuing CA is missing.
    assert_eq!(verify(&leaf, &[], &anchors(&[root]), NOW), ClientChain::Untrusted);
}

#[test]
fn impostors_are_untrusted() {
    let devices = fixtures::devices();
    let anchors = anchors(&[devices]);
    // A CA of the same names with other keys.
    let impostor_root = fixtures::root("Root", CaAlgorithm::EcdsaP256);
    let impostor = fixtures::issuing(&impostor_root, Purpose::Devices);
    assert_eq!(impostor.certificate().subject_der(), devices.certificate().subject_der());
    let chain = [impostor.certificate().der(), impostor_root.certificate().der()];
    assert_eq!(verify(&leaf_of(&impostor), &chain, &anchors, NOW), ClientChain::Untrusted);
    // The same, but with one changed octet in a signature that was good.
    let mut forged = leaf_of(devices);
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    assert_eq!(verify(&forged, &[], &anchors, NOW), ClientChain::Untrusted);
    assert_eq!(verify(&forged, &[], &anchors, LATER), ClientChain::Untrusted, "no grace for a forged one");
}

#[test]
fn a_leaf_signed_by_a_device_is_untrusted() {
    let device_key = fixtures::key(CaAlgorithm::EcdsaP256);
    let subject_key = SubjectKey::parse(device_key.spki_der()).expect("a key");
    // The device's own certificate.
    let mut wish = fixtures::csr().wish().clone();
    wish.key_fingerprint = subject_key.fingerprint();
    let grant = fixtures::grant(&wish, &ProfileWritten::default());
    let devices = fixtures::devices();
    let parent = devices.prepare(&grant, &subject_key, serial(8), None).expect("is good");
    let parent = parent.sign().expect("signs").der;
    // A leaf that names it as its issuer, and that its key signed.
    let original = leaf_of(devices);
    let tbs = tlv::split(&original).expect("members")[0].to_vec();
    let mut members = tlv::split(&tbs).expect("members");
    members[3] = members[5];
    let child = tlv::element(tlv::SEQUENCE, &members);
    let child = tbs::sign(&child, &*device_key).expect("signs");
    assert_eq!(verify(&child, &[&parent], &anchors(&[devices]), NOW), ClientChain::Untrusted);
}

#[test]
fn what_is_out_of_date_is_told_apart() {
    let devices = fixtures::devices();
    let leaf = leaf_of(devices);
    let not_after = LeafFacts::parse(&leaf).expect("reads").not_after;
    let anchors = anchors(&[devices]);
    assert_eq!(verify(&leaf, &[], &anchors, LATER), ClientChain::Expired { not_after, anchor: 0 });
    assert_eq!(verify(&leaf, &[], &anchors, BEFORE), ClientChain::NotYetValid);
}

#[test]
fn a_servers_certificate_is_not_for_clients() {
    let services = fixtures::issuing(fixtures::account_root(), Purpose::Services);
    let key = fixtures::device_key();
    let names = ServerNames { hostnames: vec!["a.example.com".parse().expect("a name")], addresses: vec![] };
    let prepared =
        services.prepare_server(&names, NOW, LATER, key.subject_key(), serial(6)).expect("is good");
    let leaf = prepared.sign().expect("signs").der;
    assert_eq!(verify(&leaf, &[], &anchors(&[&services]), NOW), ClientChain::NotForClientAuth);
}

#[test]
fn holders_of_either_root_trust_leaves_of_both() {
    let old = fixtures::account_root();
    let new = fixtures::root("New root", CaAlgorithm::EcdsaP384);
    let between = roll_over(old, &new, [serial(20), serial(21)]).expect("rolls over");
    let devices = fixtures::devices();
    let chain = [devices.certificate().der(), between.old_with_new.der()];
    let trusted = ClientChain::Trusted { anchor: 0 };
    assert_eq!(verify(&leaf_of(devices), &chain, &anchors(&[&new]), NOW), trusted);
    let next = fixtures::issuing(&new, Purpose::Devices);
    let chain = [next.certificate().der(), between.new_with_old.der()];
    assert_eq!(verify(&leaf_of(&next), &chain, &anchors(&[old]), NOW), trusted);
}

#[test]
fn a_chain_beyond_the_limits_is_untrusted() {
    let devices = fixtures::devices();
    let leaf = leaf_of(devices);
    let many = vec![devices.certificate().der(); INTERMEDIATES_MAX + 1];
    assert_eq!(verify(&leaf, &many, &anchors(&[devices]), NOW), ClientChain::Untrusted);
    let large = vec![0x30; CERTIFICATE_MAX_BYTES + 1];
    assert_eq!(verify(&leaf, &[&large], &anchors(&[devices]), NOW), ClientChain::Untrusted);
}

proptest! {
    #[test]
    fn a_changed_certificate_is_never_trusted(place: prop::sample::Index, change in 1_u8..) {
        let devices = fixtures::devices();
        let mut leaf = leaf_of(devices);
        let place = place.index(leaf.len());
        leaf[place] ^= change;
        let found = verify(&leaf, &[], &anchors(&[devices]), NOW);
        prop_assert!(!matches!(found, ClientChain::Trusted { .. } | ClientChain::Expired { .. }), "{found:?}");
    }
}
