//! Certs-only CMS: how EST hands certificates out (RFC 7030 §4.1.3, RFC 5652 §5, RFC 8551 §3.8).
//!
//! The certificates stay byte for byte what they are; only the wrapping is written here.

use der::asn1::ObjectIdentifier;

use crate::tlv::{self, CONTEXT_0, INTEGER, SEQUENCE, SET};

/// id-signedData (RFC 5652 §5.1).
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// id-data (RFC 5652 §4).
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
/// CMSVersion of a SignedData that holds X.509 certificates and no signers (RFC 5652 §5.1).
const VERSION: u8 = 1;

/// A DER ContentInfo with a SignedData that holds these certificates, and nothing signed.
pub fn certs_only(certificates: &[&[u8]]) -> Vec<u8> {
    let members = certificates.iter().map(|certificate| certificate.to_vec()).collect();
    let signed_data = tlv::element(
        SEQUENCE,
        &[
            &tlv::element(INTEGER, &[&[VERSION]]),
            &tlv::element(SET, &[]),
            &tlv::element(SEQUENCE, &[&tlv::oid(&DATA)]),
            &tlv::set_of(CONTEXT_0, members),
            &tlv::element(SET, &[]),
        ],
    );
    tlv::element(SEQUENCE, &[&tlv::oid(&SIGNED_DATA), &tlv::element(CONTEXT_0, &[&signed_data])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bundle_is_the_bytes_of_the_standard() {
        // ContentInfo { signedData, [0] SignedData { 1, {}, { data }, [0] {}, {} } }
        let expected = "302506092a864886f70d010702a01830160201013100300b06092a864886f70d010701a0003100";
        assert_eq!(hex::encode(certs_only(&[])), expected);
    }

    #[test]
    fn certificates_keep_their_bytes_and_stand_in_der_order() {
        let (low, high) = ([0x30, 0x01, 0x00], [0x30, 0x01, 0x01]);
        let made = certs_only(&[&high, &low]);
        let joined = [low, high].concat();
        assert!(made.windows(6).any(|window| window == joined));
    }
}
