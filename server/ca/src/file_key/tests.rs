//! Key files: what is written can be read, and what is refused says why.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn secret() -> Passphrase {
    Passphrase::new("correct horse".to_owned())
}

#[test]
fn a_file_is_private_and_reads_back() {
    let directory = tempfile::tempdir().expect("a directory");
    for algorithm in [CaAlgorithm::EcdsaP256, CaAlgorithm::EcdsaP384, CaAlgorithm::Rsa3072] {
        let path = directory.path().join(format!("{algorithm:?}"));
        let key = FileKey::generate(algorithm).expect("a key");
        key.write_file(&path, None).expect("is written");
        let mode = path.metadata().expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = FileKey::read_file(&path, None).expect("reads");
        assert_eq!(read.spki_der(), key.spki_der());
        assert_eq!(read.algorithm(), key.algorithm());
    }
    assert_eq!(directory.path().read_dir().expect("lists").count(), 3, "no temporary file stays");
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key");
    let first = FileKey::generate(CaAlgorithm::EcdsaP256).expect("a key");
    first.write_file(&path, None).expect("is written");
    let second = FileKey::generate(CaAlgorithm::EcdsaP256).expect("a key");
    assert!(matches!(second.write_file(&path, None), Err(FileKeyError::File { .. })));
    assert_eq!(FileKey::read_file(&path, None).expect("reads").spki_der(), first.spki_der());
}

#[test]
fn an_encrypted_file_opens_with_its_passphrase_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key");
    let key = FileKey::generate(CaAlgorithm::EcdsaP256).expect("a key");
    key.write_file(&path, Some(&secret())).expect("is written");
    let text = std::fs::read_to_string(&path).expect("is text");
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    assert_eq!(FileKey::read_pem(&text, Some(&secret())).expect("opens").spki_der(), key.spki_der());
    assert!(matches!(FileKey::read_pem(&text, None), Err(FileKeyError::PassphraseNeeded)));
    let wrong = Passphrase::new("wrong".to_owned());
    assert!(matches!(FileKey::read_pem(&text, Some(&wrong)), Err(FileKeyError::PassphraseWrong)));
}

#[test]
fn says_why_a_text_is_no_key() {
    let block = |label: &str, contents: &[u8]| pem::encode(&pem::Pem::new(label, contents));
    let refused = |text: &str| FileKey::read_pem(text, Some(&secret())).expect_err("must be refused");
    assert!(matches!(refused(""), FileKeyError::Missing));
    assert!(matches!(refused(&block("CERTIFICATE", b"x")), FileKeyError::Missing));
    assert!(matches!(refused(&block("PRIVATE KEY", b"x")), FileKeyError::Malformed(_)));
    assert!(matches!(refused(&block("DSA PRIVATE KEY", b"x")), FileKeyError::Unsupported(_)));
    assert!(matches!(refused(&block("RSA PRIVATE KEY", b"x").repeat(2)), FileKeyError::Several));
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key").serialize_pem();
    assert!(matches!(refused(&ed25519), FileKeyError::Unsupported(_)));
}

#[test]
fn a_key_encryption_that_would_exhaust_the_machine_is_refused() {
    use crate::tlv::{OCTET_STRING, SEQUENCE, element, oid, unsigned};
    let oid = |dotted: &str| oid(&dotted.parse().expect("an OID"));
    let encrypted = |cost: &[u8]| {
        let salt = element(OCTET_STRING, &[&[1; 16]]);
        let scrypt = element(SEQUENCE, &[&salt, &unsigned(cost), &unsigned(&[8]), &unsigned(&[1])]);
        let kdf = element(SEQUENCE, &[&oid("1.3.6.1.4.1.11591.4.11"), &scrypt]);
        let cipher =
            element(SEQUENCE, &[&oid("2.16.840.1.101.3.4.1.42"), &element(OCTET_STRING, &[&[2; 16]])]);
        let pbes2 = element(SEQUENCE, &[&oid("1.2.840.113549.1.5.13"), &element(SEQUENCE, &[&kdf, &cipher])]);
        let der = element(SEQUENCE, &[&pbes2, &element(OCTET_STRING, &[&[3; 32]])]);
        pem::encode(&pem::Pem::new("ENCRYPTED PRIVATE KEY", der))
    };
    let cheap = FileKey::read_pem(&encrypted(&[0x40, 0]), Some(&secret()));
    assert!(matches!(cheap, Err(FileKeyError::PassphraseWrong)));
    for cost in [&[0_u8][..], &[3], &[0x40, 0, 0, 0], &[0xff; 8]] {
        let refused = FileKey::read_pem(&encrypted(cost), Some(&secret()));
        assert!(matches!(refused, Err(FileKeyError::Unsupported(_))), "{cost:?}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let key = FileKey::generate(CaAlgorithm::EcdsaP256).expect("a key");
    assert_eq!(format!("{key:?}"), "FileKey { algorithm: EcdsaP256Sha256, .. }");
    assert_eq!(format!("{:?}", secret()), "Passphrase(..)");
}
