//! Requests good and bad: made by rcgen where it can make them, else put together byte by byte.

use der::Encode;
use der::asn1::{Any, BmpString, ObjectIdentifier, OctetString};
use muster_policy::enrol::{San, SubjectAttribute};
use muster_policy::key::KeyKind;
use proptest::prelude::*;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::*;
use crate::file_key::{CaAlgorithm, FileKey};
use crate::fixtures;
use crate::signature::SignatureAlgorithm;
use crate::signer::Signer;

const CN: &str = "2.5.4.3";
const CHALLENGE: &str = "1.2.840.113549.1.9.7";
const EXTENSIONS: &str = "1.2.840.113549.1.9.14";

/// A request in the making; every part can be spoilt.
struct Written {
    subject: Vec<Vec<u8>>,
    attributes: Vec<Vec<u8>>,
    spki: Option<Vec<u8>>,
    algorithm: Option<Vec<u8>>,
    key: FileKey,
}

impl Written {
    fn new() -> Self {
        let key = FileKey::generate(CaAlgorithm::EcdsaP256).expect("a key");
        let subject = vec![name(CN, &utf8("meter-1"))];
        Self { subject, attributes: Vec::new(), spki: None, algorithm: None, key }
    }

    fn with(attributes: Vec<Vec<u8>>) -> Self {
        Self { attributes, ..Self::new() }
    }

    fn der(&self) -> Vec<u8> {
        let parts = |list: &[Vec<u8>]| list.concat();
        let info = tlv::element(
            tlv::SEQUENCE,
            &[
                &tlv::unsigned(&[0]),
                &tlv::element(tlv::SEQUENCE, &[&parts(&self.subject)]),
                self.spki.as_deref().unwrap_or_else(|| self.key.spki_der()),
                &tlv::element(tlv::CONTEXT_0, &[&parts(&self.attributes)]),
            ],
        );
        let algorithm = self.algorithm.clone().unwrap_or_else(|| self.key.algorithm().identifier_der());
        let signature = tlv::bit_string(&self.key.sign(&info).expect("signs"));
        tlv::element(tlv::SEQUENCE, &[&info, &algorithm, &signature])
    }

    fn parse(&self) -> Result<Csr, Refusal> {
        Csr::parse(&self.der())
    }

    fn refusal(&self) -> (Reason, &'static str) {
        let refusal = self.parse().expect_err("must be refused");
        (refusal.reason, refusal.field)
    }
}

fn oid(dotted: &str) -> Vec<u8> {
    tlv::oid(&ObjectIdentifier::new(dotted).expect("an OID"))
}

fn utf8(text: &str) -> Vec<u8> {
    tlv::element(0x0c, &[text.as_bytes()])
}

fn name(kind: &str, value: &[u8]) -> Vec<u8> {
    tlv::element(tlv::SET, &[&tlv::element(tlv::SEQUENCE, &[&oid(kind), value])])
}

fn attribute(kind: &str, values: &[u8]) -> Vec<u8> {
    tlv::element(tlv::SEQUENCE, &[&oid(kind), &tlv::element(tlv::SET, &[values])])
}

fn extension(kind: &str, value: &[u8]) -> Vec<u8> {
    tlv::element(tlv::SEQUENCE, &[&oid(kind), &tlv::element(tlv::OCTET_STRING, &[value])])
}

fn sans(names: Vec<GeneralName>) -> Vec<u8> {
    extension("2.5.29.17", &SubjectAltName(names).to_der().expect("encodes"))
}

fn extensions(list: &[Vec<u8>]) -> Vec<u8> {
    attribute(EXTENSIONS, &tlv::element(tlv::SEQUENCE, &[&list.concat()]))
}

#[test]
fn reads_what_another_encoder_wrote() {
    let csr = fixtures::csr();
    assert_eq!(csr.wish().subject, [SubjectAttribute { oid: CN.into(), text: "meter-1".into() }]);
    assert_eq!(csr.wish().key, WishedKey::Curve(KeyKind::EcdsaP256));
    assert_eq!(csr.wish().key_fingerprint, csr.subject_key().fingerprint());
    assert_eq!(csr.challenge_password(), None);
    assert!(!csr.asks_encrypted_key() && !csr.wish().changes_subject);
}

#[test]
fn reads_every_kind_of_key_that_can_be_certified() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256] {
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        let params = rcgen::CertificateParams::default();
        let csr = Csr::parse(params.serialize_request(&key).expect("a request").der()).expect("is good");
        assert_ne!(csr.wish().key, WishedKey::Unknown);
    }
}

#[test]
fn reads_the_attributes_est_knows() {
    let names = vec![
        GeneralName::DnsName("Meter-1.Example.COM".to_owned().try_into().expect("ASCII")),
        GeneralName::UniformResourceIdentifier(
            "spiffe://example.com/device/meter-1".to_owned().try_into().expect("ASCII"),
        ),
        GeneralName::IpAddress(OctetString::new([192, 0, 2, 1]).expect("short")),
        GeneralName::RegisteredId(ObjectIdentifier::new("1.2.3").expect("an OID")),
    ];
    let csr = Written::with(vec![
        attribute(CHALLENGE, &utf8("c2VjcmV0")),
        attribute("1.3.6.1.5.5.7.7.36", &tlv::element(tlv::SEQUENCE, &[])),
        attribute("1.2.840.113549.1.9.16.2.54", &tlv::element(tlv::OCTET_STRING, &[&[1]])),
        extensions(&[extension("2.5.29.15", &[3, 2, 7, 0x80]), sans(names)]),
    ])
    .parse()
    .expect("is good");
    assert_eq!(csr.challenge_password(), Some("c2VjcmV0"));
    assert!(csr.asks_encrypted_key() && csr.wish().changes_subject);
    let expected = [
        San::Dns("meter-1.example.com".into()),
        San::Uri("spiffe://example.com/device/meter-1".into()),
        San::Ip("192.0.2.1".into()),
        San::Other("registeredID:1.2.3".into()),
    ];
    assert_eq!(csr.wish().sans, expected);
}

#[test]
fn reads_names_of_every_string_type() {
    let bmp = Any::encode_from(&BmpString::from_utf8("meter-1").expect("BMP")).expect("encodes");
    let printable = tlv::element(0x13, &[b"meter-1"]);
    for value in [bmp.to_der().expect("encodes"), printable, tlv::element(0x14, &[b"meter-1"])] {
        let csr = Written { subject: vec![name(CN, &value)], ..Written::new() }.parse().expect("is good");
        assert_eq!(csr.wish().subject[0].text, "meter-1");
    }
}

#[test]
fn a_name_that_can_not_be_read_is_malformed() {
    for value in [tlv::element(0x0c, &[&[0xff]]), tlv::element(0x13, &[&[0xe4]]), tlv::element(0x04, &[b"m"])]
    {
        let written = Written { subject: vec![name(CN, &value)], ..Written::new() };
        assert_eq!(written.refusal(), (Reason::NameMalformed, "/csr/subject"));
    }
    let ip = GeneralName::IpAddress(OctetString::new([1, 2, 3]).expect("short"));
    let written = Written::with(vec![extensions(&[sans(vec![ip])])]);
    assert_eq!(written.refusal(), (Reason::NameMalformed, "/csr/extensions/subjectAltName"));
}

#[test]
fn what_occurs_twice_is_refused() {
    let password = attribute(CHALLENGE, &utf8("a"));
    assert_eq!(
        Written::with(vec![password.clone(), password]).refusal(),
        (Reason::CsrMalformed, "/csr/attributes")
    );
    let request = extensions(&[extension("2.5.29.15", &[3, 2, 7, 0x80])]);
    assert_eq!(
        Written::with(vec![request.clone(), request]).refusal(),
        (Reason::CsrMalformed, "/csr/attributes")
    );
    let names = || sans(vec![GeneralName::DnsName("a".to_owned().try_into().expect("ASCII"))]);
    assert_eq!(
        Written::with(vec![extensions(&[names(), names()])]).refusal(),
        (Reason::CsrMalformed, "/csr/extensions")
    );
    let values = [utf8("a"), utf8("b")].concat();
    assert_eq!(
        Written::with(vec![attribute(CHALLENGE, &values)]).refusal(),
        (Reason::CsrMalformed, "/csr/attributes/challengePassword")
    );
}

#[test]
fn a_challenge_password_has_a_limit() {
    let of = |length| Written::with(vec![attribute(CHALLENGE, &utf8(&"a".repeat(length)))]);
    assert!(of(256).parse().is_ok());
    assert_eq!(of(257).refusal().0, Reason::CsrMalformed);
}

#[test]
fn nothing_may_follow_the_request() {
    let der = fixtures::csr_der("meter-1");
    let refusal = Csr::parse(&[der.as_slice(), &[0]].concat()).expect_err("must be refused");
    assert_eq!(refusal.reason, Reason::CsrMalformed);
    assert_eq!(Csr::parse(&[]).expect_err("must be refused").reason, Reason::CsrMalformed);
}

#[test]
fn an_oversized_request_is_not_even_read() {
    let refusal = Csr::parse(&vec![0x30; CSR_MAX_BYTES + 1]).expect_err("must be refused");
    assert_eq!(refusal.reason, Reason::BodyTooLarge);
}

#[test]
fn a_signature_by_another_key_is_wrong() {
    let other = FileKey::generate(CaAlgorithm::EcdsaP256).expect("a key");
    let written = Written { spki: Some(other.spki_der().to_vec()), ..Written::new() };
    assert_eq!(written.refusal(), (Reason::SignatureWrong, "/csr/signature"));
    // The right key, but an algorithm that does not go with it.
    let algorithm = SignatureAlgorithm::RsaPkcs1Sha256.identifier_der();
    let written = Written { algorithm: Some(algorithm), ..Written::new() };
    assert_eq!(written.refusal(), (Reason::SignatureWrong, "/csr/signature"));
}

#[test]
fn sha1_and_md5_are_weak() {
    // ecdsa-with-SHA1, sha1WithRSAEncryption, md5WithRSAEncryption
    for weak in ["1.2.840.10045.4.1", "1.2.840.113549.1.1.5", "1.2.840.113549.1.1.4"] {
        let algorithm = Some(tlv::element(tlv::SEQUENCE, &[&oid(weak)]));
        let written = Written { algorithm, ..Written::new() };
        assert_eq!(written.refusal(), (Reason::SignatureWeak, "/csr/signature"));
    }
}

#[test]
fn weak_keys_are_refused_before_their_signature_is_looked_at() {
    let spki = |algorithm: &[u8], key: &[u8]| {
        Some(tlv::element(
            tlv::SEQUENCE,
            &[&tlv::element(tlv::SEQUENCE, &[algorithm]), &tlv::bit_string(key)],
        ))
    };
    let rsa = |bits: usize, exponent: &[u8]| {
        let modulus = tlv::unsigned(&vec![0xff; bits / 8]);
        let key = tlv::element(tlv::SEQUENCE, &[&modulus, &tlv::unsigned(exponent)]);
        spki(&[oid("1.2.840.113549.1.1.1"), vec![5, 0]].concat(), &key)
    };
    let ec = |curve: &str, point: &[u8]| spki(&[oid("1.2.840.10045.2.1"), oid(curve)].concat(), point);
    let weak = [
        rsa(1024, &[1, 0, 1]),
        rsa(8192, &[1, 0, 1]),
        rsa(2048, &[3]),
        rsa(2048, &[1, 0, 0]),
        rsa(2048, &[1, 0, 0, 0, 1]),
        // secp192r1; P-256 compressed; P-521.
        ec("1.2.840.10045.3.1.1", &[4; 49]),
        ec("1.2.840.10045.3.1.7", &[2; 33]),
        ec("1.3.132.0.35", &[4; 133]),
    ];
    for spki in weak {
        let written = Written { spki, ..Written::new() };
        assert_eq!(written.refusal(), (Reason::KeyWeak, "/csr/subjectPublicKeyInfo"));
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(Csr::parse(&bytes).is_err());
    }

    /// A changed request is refused or, where the change is outside what is signed, the same wish.
    #[test]
    fn mutated_requests_never_panic_and_never_wish_for_something_else(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let names = vec![GeneralName::DnsName("meter-1".to_owned().try_into().expect("ASCII"))];
        let original = Written::with(vec![attribute(CHALLENGE, &utf8("a")), extensions(&[sans(names)])]).der();
        let mut der = original.clone();
        for (place, octet) in changes {
            let place = place.index(der.len());
            der[place] = octet;
        }
        if let Ok(csr) = Csr::parse(&der) {
            let unchanged = Csr::parse(&original).expect("is good");
            prop_assert_eq!(csr.wish(), unchanged.wish());
        }
    }

    #[test]
    fn cut_requests_are_refused(length in 0_usize..200) {
        let der = fixtures::csr_der("meter-1");
        prop_assert!(Csr::parse(&der[..length.min(der.len() - 1)]).is_err());
    }
}
