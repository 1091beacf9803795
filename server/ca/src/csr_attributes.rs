//! What csrattrs tells clients of a profile (RFC 7030 §4.5.2, RFC 9908).
//!
//! Plain: the kind of key the profile likes best, and the signature algorithm that goes with it.
//! Template: the same for old clients, and one CertificationRequestInfoTemplate (RFC 9908 §3.4) for
//! those that know it: a common name and a subjectAltName for the client to fill in, and the key.
//! Where the channel binding is required, challengePassword is listed, whatever else is not: otherwise a
//! client that waits to be asked for it, as RFC 7030 §3.5 has it, could never enroll.
//! It is advice; every request is checked as if none had been given.

use der::asn1::ObjectIdentifier;
use muster_policy::key::KeyKind;
use muster_policy::profile::{ChannelBinding, CsrAttributes, Profile};

use crate::tlv;

/// RFC 5480 §2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 5480 §2.1.1.1.
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// RFC 5480 §2.1.1.1.
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// RFC 3279 §2.3.1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// RFC 8410 §3: the same for key and signature.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 5758 §3.2.
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
/// RFC 5758 §3.2.
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
/// RFC 4055 §5.
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
/// RFC 9908 §3.4, id-aa-certificationRequestInfoTemplate.
const TEMPLATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.61");
/// RFC 9908 §3.4, id-aa-extensionReqTemplate.
const EXTENSION_TEMPLATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.62");
/// RFC 2985 §5.4.1.
const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");
/// X.520 §6.2.2.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// RFC 5280 §4.2.1.6.
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// The DER CsrAttrs of a profile; `None` when it tells clients nothing (204).
pub fn csr_attributes(profile: &Profile) -> Option<Vec<u8>> {
    // A set in the order of preference: P-256 first.
    let key = *profile.keys.first()?;
    let mut members = Vec::new();
    if profile.csr_attributes == CsrAttributes::Template {
        members.push(template(key, profile.rsa_min_bits));
    }
    if profile.csr_attributes != CsrAttributes::None {
        members.extend([key_type(key, profile.rsa_min_bits), tlv::oid(&signature_oid(key))]);
    }
    if profile.channel_binding == ChannelBinding::Required {
        members.push(tlv::oid(&CHALLENGE_PASSWORD));
    }
    if members.is_empty() {
        return None;
    }
    let parts: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
    Some(tlv::element(tlv::SEQUENCE, &parts))
}

/// RFC 7030 §4.5.2: the key's type, and its curve or size as the value.
fn key_type(key: KeyKind, rsa_bits: u32) -> Vec<u8> {
    match key {
        KeyKind::EcdsaP256 => attribute(&EC_PUBLIC_KEY, vec![tlv::oid(&SECP256R1)]),
        KeyKind::EcdsaP384 => attribute(&EC_PUBLIC_KEY, vec![tlv::oid(&SECP384R1)]),
        KeyKind::Ed25519 => attribute(&ED25519, Vec::new()),
        KeyKind::Rsa => attribute(&RSA_ENCRYPTION, vec![integer(rsa_bits)]),
    }
}

const fn signature_oid(key: KeyKind) -> ObjectIdentifier {
    match key {
        KeyKind::EcdsaP256 => ECDSA_WITH_SHA256,
        KeyKind::EcdsaP384 => ECDSA_WITH_SHA384,
        KeyKind::Ed25519 => ED25519,
        KeyKind::Rsa => SHA256_WITH_RSA,
    }
}

/// RFC 9908 §3.4; the module has implicit tags (appendix A).
fn template(key: KeyKind, rsa_bits: u32) -> Vec<u8> {
    let version = integer(0);
    // An attribute without a value: "you fill it in".
    let common_name = tlv::element(tlv::SEQUENCE, &[&tlv::oid(&COMMON_NAME)]);
    let subject = tlv::element(tlv::SEQUENCE, &[&tlv::element(tlv::SET, &[&common_name])]);
    let key = tlv::element(tlv::CONTEXT_0, &[&key_template(key, rsa_bits)]);
    let alt_name = tlv::element(tlv::SEQUENCE, &[&tlv::oid(&SUBJECT_ALT_NAME)]);
    let extensions = tlv::element(tlv::SEQUENCE, &[&alt_name]);
    let attributes = tlv::set_of(tlv::CONTEXT_1, vec![attribute(&EXTENSION_TEMPLATE, vec![extensions])]);
    let value = tlv::element(tlv::SEQUENCE, &[&version, &subject, &key, &attributes]);
    attribute(&TEMPLATE, vec![value])
}

/// The contents of SubjectPublicKeyInfoTemplate: an algorithm, and for RSA a placeholder that shows the size.
fn key_template(key: KeyKind, rsa_bits: u32) -> Vec<u8> {
    let ec = |curve: &ObjectIdentifier| {
        tlv::element(tlv::SEQUENCE, &[&tlv::oid(&EC_PUBLIC_KEY), &tlv::oid(curve)])
    };
    match key {
        KeyKind::EcdsaP256 => ec(&SECP256R1),
        KeyKind::EcdsaP384 => ec(&SECP384R1),
        KeyKind::Ed25519 => tlv::element(tlv::SEQUENCE, &[&tlv::oid(&ED25519)]),
        KeyKind::Rsa => {
            let algorithm =
                tlv::element(tlv::SEQUENCE, &[&tlv::oid(&RSA_ENCRYPTION), &tlv::element(0x05, &[])]);
            [algorithm, tlv::bit_string(&rsa_placeholder(rsa_bits))].concat()
        }
    }
}

/// An RSAPublicKey of the wanted size that can't be mistaken for a key: a modulus of ones, exponent 65537.
fn rsa_placeholder(bits: u32) -> Vec<u8> {
    let octets = usize::try_from(bits.div_ceil(8)).unwrap_or_default();
    let modulus = tlv::element(tlv::INTEGER, &[&[0], &vec![0xff; octets]]);
    tlv::element(tlv::SEQUENCE, &[&modulus, &integer(65_537)])
}

fn attribute(kind: &ObjectIdentifier, values: Vec<Vec<u8>>) -> Vec<u8> {
    tlv::element(tlv::SEQUENCE, &[&tlv::oid(kind), &tlv::set_of(tlv::SET, values)])
}

fn integer(value: u32) -> Vec<u8> {
    tlv::unsigned(&value.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use muster_policy::profile::ProfileWritten;

    use super::*;

    fn encoded(keys: &[KeyKind], csr_attributes: CsrAttributes) -> Option<String> {
        let written = ProfileWritten {
            keys: Some(keys.to_vec()),
            csr_attributes: Some(csr_attributes),
            ..Default::default()
        };
        let profile = written.check("default".parse().expect("a label")).expect("a valid profile");
        super::csr_attributes(&profile).map(hex::encode)
    }

    #[test]
    fn says_what_four_clients_were_seen_to_read() {
        assert_eq!(
            encoded(&[KeyKind::EcdsaP256], CsrAttributes::Plain).as_deref(),
            Some("3021301506072a8648ce3d0201310a06082a8648ce3d03010706082a8648ce3d040302")
        );
        // P-256 is the first choice wherever it is allowed.
        assert_eq!(
            encoded(&[KeyKind::Rsa, KeyKind::EcdsaP256], CsrAttributes::Plain),
            encoded(&[KeyKind::EcdsaP256], CsrAttributes::Plain)
        );
    }

    #[test]
    fn says_nothing_when_told_to() {
        assert_eq!(encoded(&[KeyKind::EcdsaP256], CsrAttributes::None), None);
    }

    #[test]
    fn a_binding_that_is_required_is_asked_for_also_where_nothing_else_is() {
        let required = |csr_attributes| {
            let written = ProfileWritten {
                channel_binding: Some(ChannelBinding::Required),
                csr_attributes: Some(csr_attributes),
                ..Default::default()
            };
            let profile = written.check("default".parse().expect("a label")).expect("a valid profile");
            super::csr_attributes(&profile).map(hex::encode)
        };
        assert_eq!(required(CsrAttributes::None).as_deref(), Some("300b06092a864886f70d010907"));
        let plain = encoded(&[KeyKind::EcdsaP256], CsrAttributes::Plain).expect("is told");
        assert_eq!(
            required(CsrAttributes::Plain),
            Some(format!("302c{}06092a864886f70d010907", &plain[4..]))
        );
    }

    #[test]
    fn rsa_is_told_with_its_size() {
        // SEQUENCE { rsaEncryption, SET { INTEGER 2048 } }, sha256WithRSAEncryption
        assert_eq!(
            encoded(&[KeyKind::Rsa], CsrAttributes::Plain).as_deref(),
            Some("301e301106092a864886f70d01010131040202080006092a864886f70d01010b")
        );
    }

    #[test]
    fn the_template_leaves_name_and_alternative_name_to_the_client() {
        let expected = [
            // Attribute { certificationRequestInfoTemplate, SET { SEQUENCE { version 0,
            "3052060b2a864886f70d010910023d31433041020100",
            // subject { { { commonName } } },
            "3009310730050603550403",
            // [0] { AlgorithmIdentifier }: the implicit tag takes the place of the SEQUENCE,
            "a015301306072a8648ce3d020106082a8648ce3d030107",
            // [1] { { extensionReqTemplate, { { { subjectAltName } } } } } } } }
            "a11a3018060b2a864886f70d010910023e3109300730050603551d11",
        ]
        .concat();
        let found = encoded(&[KeyKind::EcdsaP256], CsrAttributes::Template).expect("is told");
        let plain = encoded(&[KeyKind::EcdsaP256], CsrAttributes::Plain).expect("is told");
        assert_eq!(found, format!("3075{expected}{}", &plain[4..]));
    }
}
