//! Certificates in a CMS envelope that signs nothing (RFC 5652 §5.1, RFC 7030 §4.1.3): what EST answers with.
//!
//! DER throughout, the SET OF in its DER order, and every certificate exactly the bytes it was.

use der::asn1::ObjectIdentifier;

use crate::tlv;

/// id-signedData (RFC 5652 §5.1).
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// id-data (RFC 5652 §4).
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");

/// The DER ContentInfo that holds these DER certificates and nothing else.
pub fn certs_only(certificates: &[&[u8]]) -> Vec<u8> {
    let version = tlv::element(tlv::INTEGER, &[&[1]]);
    let nothing = tlv::element(tlv::SET, &[]);
    let content = tlv::element(tlv::SEQUENCE, &[&tlv::oid(&DATA)]);
    let members = certificates.iter().map(|certificate| certificate.to_vec()).collect();
    let certificates = tlv::set_of(tlv::CONTEXT_0, members);
    let signed_data = tlv::element(tlv::SEQUENCE, &[&version, &nothing, &content, &certificates, &nothing]);
    let content = tlv::element(tlv::CONTEXT_0, &[&signed_data]);
    tlv::element(tlv::SEQUENCE, &[&tlv::oid(&SIGNED_DATA), &content])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_degenerate_form_byte_for_byte() {
        let expected = [
            // ContentInfo { signedData, [0] SignedData { version 1, digestAlgorithms {},
            "302806092a864886f70d010702a01b3019020101",
            "3100",
            // encapContentInfo { data }, certificates [0] { INTEGER 7 }, signerInfos {} } }
            "300b06092a864886f70d010701a0030201073100",
        ]
        .concat();
        assert_eq!(hex::encode(certs_only(&[&[0x02, 0x01, 0x07]])), expected);
    }

    #[test]
    fn certificates_are_in_der_order_whatever_order_they_come_in() {
        let (first, second) = ([0x02, 0x01, 0x01], [0x02, 0x01, 0x02]);
        assert_eq!(certs_only(&[&second, &first]), certs_only(&[&first, &second]));
    }
}
