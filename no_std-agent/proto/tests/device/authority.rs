//! Keys and CAs for tests: real X.509 by rcgen, real ECDSA by p256, everything from seeds.

use std::cell::RefCell;
use std::collections::HashMap;

use muster_proto::der::Oid;
use muster_proto::x509::{PublicKey, SignatureAlgorithm, Verify, VerifyError};
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use time::OffsetDateTime;

/// A P-256 key that is the same for the same seed.
#[derive(Clone)]
pub(crate) struct TestKey {
    signing: SigningKey,
    pub(crate) point: Vec<u8>,
}

impl TestKey {
    /// Kept, because rigs look at the same keys thousands of times and each costs a multiplication on the curve.
    pub(crate) fn from_seed(seed: u64) -> Self {
        thread_local! {
            static KNOWN: RefCell<HashMap<u64, TestKey>> = RefCell::default();
        }
        KNOWN.with_borrow_mut(|known| known.entry(seed).or_insert_with(|| Self::make(seed)).clone())
    }

    fn make(seed: u64) -> Self {
        let mut scalar = [0x42; 32];
        scalar[24..].copy_from_slice(&seed.to_be_bytes());
        let signing = SigningKey::from_bytes(&scalar.into()).expect("far below the group order");
        let point = signing.verifying_key().to_encoded_point(false).as_bytes().to_vec();
        Self { signing, point }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.signing.sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

impl PublicKeyData for TestKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for TestKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Self::sign(self, message))
    }
}

/// Someone's public point, to be certified.
pub(crate) struct Point(pub(crate) Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// A certificate with its key, which may issue others.
pub(crate) struct Authority {
    pub(crate) der: Vec<u8>,
    pub(crate) issuer: Issuer<'static, TestKey>,
}

impl Authority {
    pub(crate) fn root(name: &str, seed: u64) -> Self {
        Self::self_signed(ca_params(name, BasicConstraints::Unconstrained), seed)
    }

    pub(crate) fn self_signed(params: CertificateParams, seed: u64) -> Self {
        let key = TestKey::from_seed(seed);
        let der = params.self_signed(&key).expect("sound parameters").der().to_vec();
        Self { der, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue_authority(&self, params: CertificateParams, seed: u64) -> Self {
        let key = TestKey::from_seed(seed);
        let der = self.issue(&params, &key);
        Self { der, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Vec<u8> {
        params.signed_by(key, &self.issuer).expect("sound parameters").der().to_vec()
    }
}

pub(crate) fn ca_params(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = at(START - 86_400);
    params.not_after = at(START + 20 * 365 * 86_400);
    params
}

/// A device's certificate, as the contract for issued certificates has it.
pub(crate) fn device_params(device: &str, serial: u64, not_before: u64, not_after: u64) -> CertificateParams {
    let mut params = named(device);
    params.serial_number =
        Some(SerialNumber::from_slice(&[&[0x40], serial.to_be_bytes().as_slice()].concat()));
    let uri = format!("spiffe://example.com/device/{device}");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.not_before = at(not_before);
    params.not_after = at(not_after);
    params
}

/// The EST server's own certificate.
pub(crate) fn server_params(name: &str) -> CertificateParams {
    let mut params = named("est");
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().expect("ASCII"))];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = at(START - 3600);
    params.not_after = at(START + 400 * 86_400);
    params
}

pub(crate) fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

pub(crate) fn at(unix: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix.try_into().expect("this century")).expect("this century")
}

/// Wall time at which every test begins: 2026-01-01T00:00:00Z.
pub(crate) const START: u64 = 1_767_225_600;

/// Verification by the p256 crate. Remembers what it found, for fleets that check one CA thousands of times.
#[derive(Default)]
pub(crate) struct P256Verifier {
    known: RefCell<HashMap<[Vec<u8>; 3], bool>>,
}

impl Verify for P256Verifier {
    fn verify(
        &self,
        key: &PublicKey<'_>,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        if algorithm != SignatureAlgorithm::EcdsaSha256 || key.curve != Some(Oid::SECP256R1) {
            return Err(VerifyError::Unsupported);
        }
        let case = [key.bits.to_vec(), message.to_vec(), signature.to_vec()];
        let good = *self.known.borrow_mut().entry(case).or_insert_with(|| {
            let key = VerifyingKey::from_sec1_bytes(key.bits);
            let signature = Signature::from_der(signature);
            key.is_ok_and(|key| signature.is_ok_and(|signature| key.verify(message, &signature).is_ok()))
        });
        if good { Ok(()) } else { Err(VerifyError::Invalid) }
    }
}

/// One DER element, written apart from the crate under test.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length.try_into().expect("small")),
        0x80..0x100 => out.extend([0x81, length.try_into().expect("small")]),
        _ => {
            out.push(0x82);
            out.extend(u16::try_from(length).expect("small").to_be_bytes());
        }
    }
    out.extend_from_slice(content);
    out
}

/// A certs-only CMS message.
pub(crate) fn certs_only(certificates: &[&[u8]]) -> Vec<u8> {
    let signed_data = [
        tlv(0x02, &[1]),
        tlv(0x31, &[]),
        tlv(0x30, &tlv(0x06, Oid::DATA.0)),
        tlv(0xa0, &certificates.concat()),
        tlv(0x31, &[]),
    ]
    .concat();
    tlv(0x30, &[tlv(0x06, Oid::SIGNED_DATA.0), tlv(0xa0, &tlv(0x30, &signed_data))].concat())
}
