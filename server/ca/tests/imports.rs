//! Keys and CAs that are brought along: every form that is read, and every reason for refusing.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use muster_ca::byo::{ImportError, import};
use muster_ca::certificate::CertificateError;
use muster_ca::file_key::{CaAlgorithm, FileKey, FileKeyError, Passphrase};
use muster_ca::signer::Signer as _;
use support::{House, NOW, at, house, issue, pem};

fn bundle(house: &House) -> String {
    pem("CERTIFICATE", house.root.certificate().der())
        + &pem("CERTIFICATE", house.devices.certificate().der())
}

fn key_text(key: &FileKey, passphrase: Option<&Passphrase>) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    key.write_file(&path, passphrase).expect("written");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    std::fs::read_to_string(path).expect("text")
}

#[test]
fn a_bundle_without_a_key_is_ordered_from_the_issuing_ca_up() {
    let house = house(CaAlgorithm::EcdsaP256);
    let imported = import(&bundle(&house), None, NOW).expect("imported");
    assert_eq!(imported.certificate.der(), house.devices.certificate().der());
    assert_eq!(imported.above.len(), 1);
    assert!(imported.key.is_none());
}

#[test]
fn the_key_says_which_certificate_is_the_ca() {
    for algorithm in [CaAlgorithm::EcdsaP256, CaAlgorithm::EcdsaP384, CaAlgorithm::Rsa3072] {
        let key = FileKey::generate(algorithm).expect("a key");
        let text = key_text(&key, None);
        let key = std::sync::Arc::new(key);
        let settings = support::settings("own root", 365);
        let root = muster_ca::authority::new_root(&settings, 1, key, support::serial(1)).expect("a root");
        let bundle = text + &pem("CERTIFICATE", root.certificate().der());
        let imported = import(&bundle, None, NOW).expect("imported");
        assert!(imported.key.is_some() && imported.above.is_empty());
    }
}

#[test]
fn refuses_with_the_reason() {
    let house = house(CaAlgorithm::EcdsaP256);
    let leaf = pem("CERTIFICATE", &issue(&house, "meter-1").der);
    let not_a_ca =
        |error| matches!(error, ImportError::Certificate { number: 1, error: CertificateError::NotACa });
    assert!(not_a_ca(import(&leaf, None, NOW).expect_err("a leaf")));
    assert!(matches!(import("", None, NOW), Err(ImportError::NoCertificate)));
    assert!(matches!(import(&bundle(&house), None, at(8000)), Err(ImportError::Expired { .. })));
    assert!(matches!(import(&bundle(&house), None, at(-100)), Err(ImportError::NotYetValid { .. })));
    let stranger = key_text(&FileKey::generate(CaAlgorithm::EcdsaP256).expect("a key"), None);
    let mismatch = import(&(stranger.clone() + &bundle(&house)), None, NOW);
    assert!(matches!(mismatch, Err(ImportError::KeyMismatch)));
    let two = import(&(stranger.clone() + &stranger + &bundle(&house)), None, NOW);
    assert!(matches!(two, Err(ImportError::Key(FileKeyError::Several))));
    let other = support::house(CaAlgorithm::EcdsaP256);
    let stray = bundle(&house) + &pem("CERTIFICATE", other.devices.certificate().der());
    assert!(matches!(import(&stray, None, NOW), Err(ImportError::PathBroken(_))));
    let many = bundle(&house).repeat(6);
    assert!(matches!(import(&many, None, NOW), Err(ImportError::TooLarge)));
    assert!(import("-----BEGIN CERTIFICATE-----\n!", None, NOW).is_err());
}

#[test]
fn an_encrypted_key_opens_with_its_passphrase_only() {
    let key = FileKey::generate(CaAlgorithm::EcdsaP256).expect("a key");
    let passphrase = Passphrase::new("correct horse".to_owned());
    let text = key_text(&key, Some(&passphrase));
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    let opened = FileKey::read_pem(&text, Some(&passphrase)).expect("opened");
    assert_eq!(opened.spki_der(), key.spki_der());
    let wrong = Passphrase::new("wrong".to_owned());
    assert!(matches!(FileKey::read_pem(&text, Some(&wrong)), Err(FileKeyError::PassphraseWrong)));
    assert!(matches!(FileKey::read_pem(&text, None), Err(FileKeyError::PassphraseNeeded)));
}

#[test]
fn a_key_file_never_replaces_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    let key = FileKey::generate(CaAlgorithm::EcdsaP256).expect("a key");
    key.write_file(&path, None).expect("written");
    assert!(key.write_file(&path, None).is_err());
}
