//! PKCS#10 requests of any content, written by rcgen.

use rcgen::{Attribute, CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

/// A key and a request for `name`.
pub fn request(name: &str) -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().expect("a key");
    let der = request_by(&key, name);
    (key, der)
}

/// A request for `name` by a key that exists.
pub fn request_by(key: &KeyPair, name: &str) -> Vec<u8> {
    request_with(key, &[], |params| params.distinguished_name.push(DnType::CommonName, name))
}

/// A request of any content.
pub fn request_with(
    key: &KeyPair,
    attributes: &[(&'static [u64], &[u8])],
    change: impl FnOnce(&mut CertificateParams),
) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    // The values of an attribute are a SET (RFC 2986 §4.1).
    let attributes = attributes
        .iter()
        .map(|(oid, value)| {
            let mut values = vec![0x31, u8::try_from(value.len()).expect("short")];
            values.extend(*value);
            Attribute { oid, values }
        })
        .collect();
    params.serialize_request_with_attributes(key, attributes).expect("a request").der().to_vec()
}

/// A DNS alternative name.
pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

/// A challengePassword attribute value: a UTF8String.
pub fn challenge(text: &str) -> Vec<u8> {
    let mut value = vec![0x0c, u8::try_from(text.len()).expect("short")];
    value.extend(text.as_bytes());
    value
}

/// The OID of challengePassword (RFC 2985 §5.4.1).
pub const CHALLENGE_PASSWORD: &[u64] = &[1, 2, 840, 113549, 1, 9, 7];
