//! Bundles as people bring them: in any order, with keys of every form, and with faults.

use std::sync::Arc;

use muster_policy::enrol::San;
use muster_policy::profile::ProfileWritten;

use super::*;
use crate::authority::{Purpose, roll_over};
use crate::file_key::CaAlgorithm;
use crate::fixtures::{self, NOW, serial};
use crate::issuer::Issuer;
use crate::leaf::LeafContents;
use crate::lint::Role;

/// A CA with the text of its key.
struct Brought {
    issuer: Issuer,
    key_text: String,
}

fn block(label: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(label, der))
}

fn text_of(issuer: &Issuer) -> String {
    block("CERTIFICATE", issuer.certificate().der())
}

fn brought(passphrase: Option<&Passphrase>) -> Brought {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key");
    let key = FileKey::generate(CaAlgorithm::EcdsaP256).expect("a key");
    key.write_file(&path, passphrase).expect("is written");
    let issuer = crate::authority::new_issuing(
        fixtures::account_root(),
        &fixtures::settings("Brought", 5),
        Purpose::Devices,
        &[],
        Arc::new(key),
        serial(30),
    );
    let key_text = std::fs::read_to_string(&path).expect("is text");
    Brought { issuer: issuer.expect("an issuing CA"), key_text }
}

fn refused(text: &str) -> ImportError {
    import(text, None, NOW).expect_err("must be refused")
}

#[test]
fn any_order_comes_out_as_a_chain_with_the_key() {
    let brought = brought(None);
    let (issuing, root) = (text_of(&brought.issuer), text_of(fixtures::account_root()));
    let key = &brought.key_text;
    for text in [
        [&issuing, &root, key].map(String::as_str).concat(),
        [key, &root, &issuing].map(String::as_str).concat(),
        [&root, &issuing, key, &root].map(String::as_str).concat(),
    ] {
        let Imported { certificates, key } = import(&text, None, NOW).expect("is good");
        assert_eq!(certificates.len(), 2);
        assert_eq!(certificates[0], *brought.issuer.certificate());
        assert_eq!(certificates[1], *fixtures::account_root().certificate());
        Issuer::new(certificates[0].der(), Arc::new(key.expect("is there"))).expect("belong together");
    }
}

#[test]
fn without_a_key_the_lowest_is_the_issuing_one() {
    let text = [text_of(fixtures::account_root()), text_of(fixtures::devices())].concat();
    let imported = import(&text, None, NOW).expect("is good");
    assert_eq!(imported.certificates[0], *fixtures::devices().certificate());
    assert!(imported.key.is_none());
    // One alone is enough, whether root or not.
    assert_eq!(import(&text_of(fixtures::devices()), None, NOW).expect("is good").certificates.len(), 1);
}

#[test]
fn an_encrypted_key_needs_its_passphrase() {
    let secret = Passphrase::new("correct horse".into());
    let brought = brought(Some(&secret));
    let text = [text_of(&brought.issuer), brought.key_text].concat();
    assert!(matches!(refused(&text), ImportError::Key(FileKeyError::PassphraseNeeded)));
    let wrong = import(&text, Some(&Passphrase::new("wrong".into())), NOW).expect_err("must be refused");
    assert!(matches!(wrong, ImportError::Key(FileKeyError::PassphraseWrong)));
    assert!(import(&text, Some(&secret), NOW).expect("is good").key.is_some());
}

#[test]
fn a_leaf_is_refused_as_one() {
    let csr = fixtures::csr();
    let grant = fixtures::grant(csr.wish(), &ProfileWritten::default());
    let prepared = fixtures::devices().prepare(&grant, csr.subject_key(), serial(5), None).expect("is good");
    let leaf = block("CERTIFICATE", &prepared.sign().expect("signs").der);
    let text = [text_of(fixtures::devices()), leaf].concat();
    assert!(matches!(refused(&text), ImportError::Certificate { place: 2, error: CertificateError::NotACa }));
}

#[test]
fn what_is_out_of_date_is_refused_with_the_date() {
    let text = text_of(fixtures::devices());
    let end = fixtures::devices().certificate().not_after();
    let later = import(&text, None, UnixTime::from_secs(end.as_secs() + 1)).expect_err("must be refused");
    assert!(matches!(later, ImportError::Expired { not_after, .. } if not_after == end));
    let early = import(&text, None, UnixTime::EPOCH).expect_err("must be refused");
    assert!(matches!(early, ImportError::NotYetValid { .. }));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let text = [text_of(fixtures::devices()), brought(None).key_text].concat();
    assert!(matches!(refused(&text), ImportError::KeyMismatch));
    let two = [text_of(fixtures::devices()), brought(None).key_text, brought(None).key_text].concat();
    assert!(matches!(refused(&two), ImportError::Key(FileKeyError::Several)));
}

#[test]
fn a_stray_certificate_is_refused() {
    let brought = brought(None);
    let stray = text_of(&fixtures::root("Stray", CaAlgorithm::EcdsaP256));
    let text = [text_of(&brought.issuer), brought.key_text, stray.clone()].concat();
    assert!(matches!(refused(&text), ImportError::PathBroken { .. }));
    let without_key = [text_of(fixtures::devices()), stray].concat();
    assert!(matches!(refused(&without_key), ImportError::Ambiguous { .. }));
}

#[test]
fn a_root_of_the_same_name_that_did_not_sign_is_refused() {
    let impostor = fixtures::root("Root", CaAlgorithm::EcdsaP256);
    let text = [text_of(fixtures::devices()), text_of(&impostor)].concat();
    assert!(matches!(refused(&text), ImportError::PathBroken { .. }));
}

#[test]
fn roots_that_sign_each_other_are_refused_without_a_key() {
    let (old, new) = (fixtures::account_root(), fixtures::root("New", CaAlgorithm::EcdsaP256));
    let between = roll_over(old, &new, [serial(20), serial(21)]).expect("rolls over");
    let text = [between.old_with_new.der(), between.new_with_old.der()].map(|der| block("CERTIFICATE", der));
    assert!(matches!(refused(&text.concat()), ImportError::PathBroken { .. }));
}

#[test]
fn what_is_no_bundle_is_refused() {
    assert!(matches!(refused(""), ImportError::NoCertificate));
    assert!(matches!(refused(&brought(None).key_text), ImportError::NoCertificate));
    assert!(matches!(
        refused(&block("CERTIFICATE", b"x")),
        ImportError::Certificate { place: 1, error: CertificateError::Malformed(_) }
    ));
    assert!(matches!(refused(&" ".repeat(BUNDLE_MAX_BYTES + 1)), ImportError::TooLarge));
    let many: String = (0..=BUNDLE_MAX_CERTIFICATES)
        .map(|number| text_of(&fixtures::root(&format!("Root {number}"), CaAlgorithm::EcdsaP256)))
        .collect();
    assert!(matches!(refused(&many), ImportError::TooLarge));
}

#[test]
fn a_brought_ca_issues_under_its_own_name_byte_for_byte() {
    // OU, DC and a PrintableString, as other software makes them: nothing of it may change.
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let printable = rcgen::DnValue::PrintableString("Example".try_into().expect("printable"));
    params.distinguished_name.push(rcgen::DnType::OrganizationName, printable);
    params.distinguished_name.push(rcgen::DnType::from_oid(&[0, 9, 2342, 19_200_300, 100, 1, 25]), "com");
    params.distinguished_name.push(rcgen::DnType::CommonName, "Their CA");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let their_key = rcgen::KeyPair::generate().expect("a key");
    let theirs = params.self_signed(&their_key).expect("a certificate");
    let text = [block("CERTIFICATE", theirs.der()), their_key.serialize_pem()].concat();
    let Imported { certificates, key } = import(&text, None, NOW).expect("is good");
    let issuer = Issuer::new(certificates[0].der(), Arc::new(key.expect("is there"))).expect("an issuer");
    let leaf_key = fixtures::device_key();
    let contents = LeafContents {
        common_name: Some("meter-1"),
        sans: &[San::Uri("spiffe://example.com/device/meter-1".into())],
        not_before: NOW,
        not_after: NOW.plus(core::time::Duration::from_secs(60)),
        crl_url: None,
        role: Role::Client,
    };
    let prepared = issuer.prepare_leaf(&contents, leaf_key.subject_key(), serial(5)).expect("is good");
    let members = crate::tlv::split(prepared.tbs_der()).expect("members");
    assert_eq!(members[3], certificates[0].subject_der());
}
