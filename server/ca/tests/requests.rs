//! What is read from PKCS#10 requests, and what is refused, field by field.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod support;

use muster_ca::csr::{CSR_MAX_BYTES, Csr};
use muster_policy::enrol::San;
use muster_policy::key::{KeyKind, WishedKey};
use muster_policy::reason::Reason;
use proptest::prelude::*;
use rcgen::{Attribute, CustomExtension, DnType, KeyPair, SanType};
use support::{request, request_with};

fn reason(der: &[u8]) -> Reason {
    Csr::parse(der).expect_err("must be refused").reason
}

fn with_attribute(oid: &'static [u64], value: Vec<u8>) -> Vec<u8> {
    let key = KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "meter-1");
    // The values of an attribute are a SET (RFC 2986 §4.1).
    let mut values = vec![0x31, u8::try_from(value.len()).expect("short")];
    values.extend(value);
    let attribute = Attribute { oid, values };
    params.serialize_request_with_attributes(&key, vec![attribute]).expect("a request").der().to_vec()
}

#[test]
fn reads_name_key_and_alternative_names() {
    let key = KeyPair::generate().expect("a key");
    let der = request_with(&key, |params| {
        params.distinguished_name.push(DnType::CommonName, "meter-1");
        params.subject_alt_names = vec![
            SanType::DnsName("Meter-1".try_into().expect("ASCII")),
            SanType::URI("spiffe://example.test/device/meter-1".try_into().expect("ASCII")),
            SanType::IpAddress([192, 0, 2, 1].into()),
        ];
    });
    let csr = Csr::parse(&der).expect("a request");
    assert_eq!(csr.wish().subject.len(), 1);
    assert_eq!(csr.wish().subject[0].text, "meter-1");
    assert_eq!(csr.wish().key, WishedKey::Curve(KeyKind::EcdsaP256));
    let expected = [
        San::Dns("meter-1".into()),
        San::Uri("spiffe://example.test/device/meter-1".into()),
        San::Ip("192.0.2.1".into()),
    ];
    assert_eq!(csr.wish().sans, expected);
    assert!(csr.challenge_password().is_none() && !csr.asks_encrypted_key());
}

#[test]
fn reads_every_kind_of_key() {
    for (algorithm, expected) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, WishedKey::Curve(KeyKind::EcdsaP256)),
        (&rcgen::PKCS_ECDSA_P384_SHA384, WishedKey::Curve(KeyKind::EcdsaP384)),
        (&rcgen::PKCS_ED25519, WishedKey::Curve(KeyKind::Ed25519)),
        (&rcgen::PKCS_RSA_SHA256, WishedKey::Rsa { bits: 2048 }),
    ] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let der = request_with(&key, |params| params.distinguished_name.push(DnType::CommonName, "m"));
        assert_eq!(Csr::parse(&der).expect("a request").wish().key, expected);
    }
}

#[test]
fn refuses_what_is_not_exactly_one_request() {
    let (_, der) = request("meter-1");
    assert_eq!(reason(b""), Reason::CsrMalformed);
    assert_eq!(reason(&der[..der.len() - 1]), Reason::CsrMalformed);
    assert_eq!(reason(&[der.as_slice(), &[0]].concat()), Reason::CsrMalformed);
    assert_eq!(reason(&vec![0x30; CSR_MAX_BYTES + 1]), Reason::BodyTooLarge);
}

#[test]
fn refuses_a_signature_by_another_key() {
    let (_, mut der) = request("meter-1");
    let at = der.windows(7).position(|window| window == b"meter-1").expect("the name is there");
    der[at] = b'M';
    assert_eq!(reason(&der), Reason::SignatureWrong);
}

#[test]
fn reads_the_challenge_password_and_its_bounds() {
    let text = |length: usize| {
        let mut value = vec![0x0c, u8::try_from(length).expect("short")];
        value.extend(vec![b'a'; length]);
        value
    };
    let csr = Csr::parse(&with_attribute(&[1, 2, 840, 113549, 1, 9, 7], text(44))).expect("a request");
    assert_eq!(csr.challenge_password(), Some("a".repeat(44).as_str()));
}

#[test]
fn sees_wishes_that_are_not_granted() {
    let empty = vec![0x30, 0x00];
    let changes = Csr::parse(&with_attribute(&[1, 3, 6, 1, 5, 5, 7, 7, 36], empty)).expect("a request");
    assert!(changes.wish().changes_subject);
    let octets = vec![0x04, 0x01, 0x01];
    let encrypted = Csr::parse(&with_attribute(&[1, 2, 840, 113549, 1, 9, 16, 2, 37], octets.clone()));
    assert!(encrypted.expect("a request").asks_encrypted_key());
    let asymmetric = Csr::parse(&with_attribute(&[1, 2, 840, 113549, 1, 9, 16, 2, 54], octets));
    assert!(asymmetric.expect("a request").asks_encrypted_key());
}

#[test]
fn a_request_to_be_a_ca_gives_no_right_to_it() {
    let key = KeyPair::generate().expect("a key");
    let der = request_with(&key, |params| {
        params.distinguished_name.push(DnType::CommonName, "meter-1");
        // basicConstraints cA TRUE, keyUsage keyCertSign: what an attacker would like to have.
        params.custom_extensions = vec![
            CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0x03, 0x01, 0x01, 0xff]),
            CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![0x03, 0x02, 0x02, 0x04]),
        ];
    });
    let house = support::house(muster_ca::file_key::CaAlgorithm::EcdsaP256);
    let csr = Csr::parse(&der).expect("well-formed");
    let grant = support::grant(&csr, "meter-1", &house.devices);
    let issued = house
        .devices
        .prepare(&grant, csr.subject_key(), support::serial(5), None)
        .expect("prepared")
        .sign()
        .expect("signed");
    assert!(muster_ca::certificate::CaCertificate::parse(&issued.der).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Csr::parse(&bytes);
    }

    #[test]
    fn no_mutation_of_a_request_is_taken_for_another(at in 0usize..240, bit in 0u8..8) {
        let (_, der) = request("meter-1");
        let mut mutated = der.clone();
        let at = at % mutated.len();
        mutated[at] ^= 1 << bit;
        // Every bit is under the signature, or is the signature, or frames the two.
        prop_assert!(Csr::parse(&mutated).is_err());
    }
}
