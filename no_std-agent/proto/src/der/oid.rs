//! Object identifiers, kept as their encoded content so that comparing is comparing bytes.

/// The content octets of an OBJECT IDENTIFIER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oid<'a>(pub &'a [u8]);

impl Oid<'static> {
    /// id-at-commonName, 2.5.4.3.
    pub const COMMON_NAME: Self = Self(&[0x55, 0x04, 0x03]);

    /// id-ce-subjectKeyIdentifier, 2.5.29.14.
    pub const SUBJECT_KEY_IDENTIFIER: Self = Self(&[0x55, 0x1d, 0x0e]);
    /// id-ce-keyUsage, 2.5.29.15.
    pub const KEY_USAGE: Self = Self(&[0x55, 0x1d, 0x0f]);
    /// id-ce-subjectAltName, 2.5.29.17.
    pub const SUBJECT_ALT_NAME: Self = Self(&[0x55, 0x1d, 0x11]);
    /// id-ce-basicConstraints, 2.5.29.19.
    pub const BASIC_CONSTRAINTS: Self = Self(&[0x55, 0x1d, 0x13]);
    /// id-ce-authorityKeyIdentifier, 2.5.29.35.
    pub const AUTHORITY_KEY_IDENTIFIER: Self = Self(&[0x55, 0x1d, 0x23]);
    /// id-ce-extKeyUsage, 2.5.29.37.
    pub const EXTENDED_KEY_USAGE: Self = Self(&[0x55, 0x1d, 0x25]);

    /// id-kp-serverAuth, 1.3.6.1.5.5.7.3.1.
    pub const SERVER_AUTH: Self = Self(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]);
    /// id-kp-clientAuth, 1.3.6.1.5.5.7.3.2.
    pub const CLIENT_AUTH: Self = Self(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]);

    /// id-ecPublicKey, 1.2.840.10045.2.1.
    pub const EC_PUBLIC_KEY: Self = Self(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]);
    /// secp256r1, 1.2.840.10045.3.1.7.
    pub const SECP256R1: Self = Self(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
    /// secp384r1, 1.3.132.0.34.
    pub const SECP384R1: Self = Self(&[0x2b, 0x81, 0x04, 0x00, 0x22]);
    /// rsaEncryption, 1.2.840.113549.1.1.1.
    pub const RSA_ENCRYPTION: Self = Self(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]);
    /// id-Ed25519, 1.3.101.112 (key and signature).
    pub const ED25519: Self = Self(&[0x2b, 0x65, 0x70]);

    /// ecdsa-with-SHA256, 1.2.840.10045.4.3.2.
    pub const ECDSA_WITH_SHA256: Self = Self(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]);
    /// ecdsa-with-SHA384, 1.2.840.10045.4.3.3.
    pub const ECDSA_WITH_SHA384: Self = Self(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03]);
    /// sha256WithRSAEncryption, 1.2.840.113549.1.1.11.
    pub const RSA_WITH_SHA256: Self = Self(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]);
    /// sha384WithRSAEncryption, 1.2.840.113549.1.1.12.
    pub const RSA_WITH_SHA384: Self = Self(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c]);

    /// id-data, 1.2.840.113549.1.7.1.
    pub const DATA: Self = Self(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01]);
    /// id-signedData, 1.2.840.113549.1.7.2.
    pub const SIGNED_DATA: Self = Self(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02]);
    /// challengePassword, 1.2.840.113549.1.9.7.
    pub const CHALLENGE_PASSWORD: Self = Self(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07]);
    /// extensionRequest, 1.2.840.113549.1.9.14.
    pub const EXTENSION_REQUEST: Self = Self(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e]);
}

impl Oid<'_> {
    /// Whether the content is a run of base-128 arcs without padding, each complete (X.690 §8.19).
    pub(super) fn is_well_formed(self) -> bool {
        let mut at_arc_start = true;
        for &byte in self.0 {
            if at_arc_start && byte == 0x80 {
                return false;
            }
            at_arc_start = byte & 0x80 == 0;
        }
        at_arc_start && !self.0.is_empty()
    }
}
