//! csrattrs: what a request should look like (RFC 7030 §4.5.2, RFC 8951 §3.5, RFC 9908).
//!
//! Advice only: every request is checked by itself. The first allowed kind of key is advised, in the
//! order of the profile. A template client (RFC 9908) ignores the plain attributes, and old clients
//! ignore the template.

use der::asn1::ObjectIdentifier;
use muster_policy::key::KeyKind;
use muster_policy::profile::{ChannelBinding, CsrAttributes, Profile};

use crate::tlv::{self, CONTEXT_0, CONTEXT_1, INTEGER, SEQUENCE, SET};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");
/// id-aa-certificationRequestInfoTemplate (RFC 9908 §3.4).
const REQUEST_TEMPLATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.61");
/// id-aa-extensionReqTemplate (RFC 9908 §3.4).
const EXTENSION_TEMPLATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.62");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const OCTET_STRING: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
/// KeyUsage with digitalSignature alone: a BIT STRING of one bit (RFC 5280 §4.2.1.3).
const DIGITAL_SIGNATURE: [u8; 4] = [0x03, 0x02, 0x07, 0x80];

/// The DER CsrAttrs of a profile; none when the profile advises nothing.
pub fn csr_attributes(profile: &Profile) -> Option<Vec<u8>> {
    let kind = profile.keys.first()?;
    let mut members = match profile.csr_attributes {
        CsrAttributes::None => return None,
        CsrAttributes::Plain | CsrAttributes::Template => {
            vec![key_attribute(*kind, profile.rsa_min_bits), tlv::oid(&signature_algorithm(*kind))]
        }
    };
    if profile.channel_binding == ChannelBinding::Required {
        members.push(tlv::oid(&CHALLENGE_PASSWORD));
    }
    if profile.csr_attributes == CsrAttributes::Template {
        members.push(attribute(&REQUEST_TEMPLATE, &[&template(*kind)]));
    }
    let parts: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
    Some(tlv::element(SEQUENCE, &parts))
}

fn attribute(oid: &ObjectIdentifier, values: &[&[u8]]) -> Vec<u8> {
    tlv::element(SEQUENCE, &[&tlv::oid(oid), &tlv::element(SET, values)])
}

/// The kind of key as an attribute: curve, or size of the modulus (RFC 7030 §4.5.2).
fn key_attribute(kind: KeyKind, rsa_bits: u32) -> Vec<u8> {
    match kind {
        KeyKind::EcdsaP256 => attribute(&EC_PUBLIC_KEY, &[&tlv::oid(&SECP256R1)]),
        KeyKind::EcdsaP384 => attribute(&EC_PUBLIC_KEY, &[&tlv::oid(&SECP384R1)]),
        KeyKind::Ed25519 => attribute(&ED25519, &[]),
        KeyKind::Rsa => {
            let octets = rsa_bits.to_be_bytes();
            let start = octets.iter().position(|octet| *octet != 0).unwrap_or(3);
            // 2048 to 4096: two octets, the first below 0x80, so the INTEGER is positive.
            attribute(&RSA_ENCRYPTION, &[&tlv::element(INTEGER, &[octets.get(start..).unwrap_or(&[])])])
        }
    }
}

const fn signature_algorithm(kind: KeyKind) -> ObjectIdentifier {
    match kind {
        KeyKind::EcdsaP256 => ECDSA_SHA256,
        KeyKind::EcdsaP384 => ECDSA_SHA384,
        KeyKind::Ed25519 => ED25519,
        KeyKind::Rsa => RSA_SHA256,
    }
}

/// RFC 9908 §3.4: a subject whose common name the client fills in, the kind of key, and the extensions
/// that the certificate will have.
fn template(kind: KeyKind) -> Vec<u8> {
    let common_name = tlv::element(SET, &[&tlv::element(SEQUENCE, &[&tlv::oid(&COMMON_NAME)])]);
    let subject = tlv::element(SEQUENCE, &[&common_name]);
    let algorithm = match kind {
        KeyKind::EcdsaP256 => tlv::element(SEQUENCE, &[&tlv::oid(&EC_PUBLIC_KEY), &tlv::oid(&SECP256R1)]),
        KeyKind::EcdsaP384 => tlv::element(SEQUENCE, &[&tlv::oid(&EC_PUBLIC_KEY), &tlv::oid(&SECP384R1)]),
        KeyKind::Ed25519 => tlv::element(SEQUENCE, &[&tlv::oid(&ED25519)]),
        KeyKind::Rsa => tlv::element(SEQUENCE, &[&tlv::oid(&RSA_ENCRYPTION), &[0x05, 0x00]]),
    };
    let usage = extension(&KEY_USAGE, Some(&DIGITAL_SIGNATURE));
    let purpose = tlv::element(SEQUENCE, &[&tlv::oid(&crate::lint::CLIENT_AUTH)]);
    let purpose = extension(&EXTENDED_KEY_USAGE, Some(&purpose));
    let extensions = attribute(&EXTENSION_TEMPLATE, &[&tlv::element(SEQUENCE, &[&usage, &purpose])]);
    tlv::element(
        SEQUENCE,
        &[
            &tlv::element(INTEGER, &[&[0]]),
            &subject,
            // [0] IMPLICIT SEQUENCE: only the algorithm, the key is the client's.
            &tlv::element(CONTEXT_0, &[&algorithm]),
            &tlv::element(CONTEXT_1, &[&extensions]),
        ],
    )
}

fn extension(oid: &ObjectIdentifier, value: Option<&[u8]>) -> Vec<u8> {
    let critical = if *oid == KEY_USAGE { tlv::element(BOOLEAN, &[&[0xff]]) } else { Vec::new() };
    let value = value.map(|value| tlv::element(OCTET_STRING, &[value])).unwrap_or_default();
    tlv::element(SEQUENCE, &[&tlv::oid(oid), &critical, &value])
}

#[cfg(test)]
mod tests {
    use muster_policy::profile::ProfileWritten;

    use super::*;

    fn attributes(written: &ProfileWritten) -> Option<String> {
        let profile = written.check("default".parse().expect("valid")).expect("valid");
        csr_attributes(&profile).map(hex::encode)
    }

    #[test]
    fn the_default_is_the_example_that_four_clients_read() {
        assert_eq!(
            attributes(&ProfileWritten::default()).as_deref(),
            Some("3021301506072a8648ce3d0201310a06082a8648ce3d03010706082a8648ce3d040302")
        );
    }

    #[test]
    fn a_profile_that_advises_nothing_has_none() {
        let written = ProfileWritten { csr_attributes: Some(CsrAttributes::None), ..Default::default() };
        assert_eq!(attributes(&written), None);
    }

    #[test]
    fn rsa_profiles_name_the_size() {
        let written = ProfileWritten { keys: Some(vec![KeyKind::Rsa]), ..Default::default() };
        let made = attributes(&written).expect("plain");
        assert!(made.contains("06092a864886f70d010101310402020800"), "{made}");
    }

    #[test]
    fn a_required_channel_binding_is_asked_for() {
        let written =
            ProfileWritten { channel_binding: Some(ChannelBinding::Required), ..Default::default() };
        assert!(attributes(&written).expect("plain").ends_with("06092a864886f70d010907"));
    }

    #[test]
    fn the_template_stands_beside_the_plain_attributes() {
        let written = ProfileWritten { csr_attributes: Some(CsrAttributes::Template), ..Default::default() };
        let made = attributes(&written).expect("template");
        assert!(
            made.contains("060b2a864886f70d010910023d") && made.contains("06082a8648ce3d040302"),
            "{made}"
        );
    }
}
