//! PKCS#10 requests (RFC 2986): bytes -> [`Csr`], once, at the border.
//!
//! A [`Csr`] exists only when the bytes are exactly one DER CertificationRequest, every name in it
//! can be read, its key is of a known and strong kind, and its signature was made by that key. It
//! is a wish: what it says of usages, lifetime or being a CA is never looked at.

use aws_lc_rs::digest;
use der::asn1::BitStringRef;
use der::{Decode, Encode};
use muster_policy::enrol::Wish;
use muster_policy::key::WishedKey;
use muster_policy::reason::{Reason, Refusal};
use x509_cert::request::CertReq;

use crate::csr::attributes::Attributes;
use crate::names;
use crate::signature::{self, SignatureFault};
use crate::subject_key::SubjectKey;
use crate::tlv;

mod attributes;
#[cfg(test)]
mod tests;

/// Largest request: an RSA-4096 key with sixteen names is below 3 KiB; the rest is room for strangers.
pub const CSR_MAX_BYTES: usize = 16 * 1024;

/// Where a refusal speaks of the request as a whole.
const FIELD_CSR: &str = "/csr";
/// Where a refusal speaks of the subject.
const FIELD_SUBJECT: &str = "/csr/subject";
/// Where a refusal speaks of the key.
const FIELD_KEY: &str = "/csr/subjectPublicKeyInfo";
/// Where a refusal speaks of the signature.
const FIELD_SIGNATURE: &str = "/csr/signature";

/// A well-formed request that is signed by the key it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    wish: Wish,
    subject_key: SubjectKey,
    challenge_password: Option<String>,
    asks_encrypted_key: bool,
    digest: [u8; 32],
}

impl Csr {
    /// Reads a DER request and verifies its signature.
    ///
    /// # Errors
    /// The refusal names the field: too large, malformed, a name that can't be read, a weak key, a
    /// weak signature algorithm, a signature by another key.
    pub fn parse(der: &[u8]) -> Result<Self, Refusal> {
        if der.len() > CSR_MAX_BYTES {
            return Err(Refusal::new(Reason::BodyTooLarge, FIELD_CSR).with_detail(der.len()));
        }
        let request = CertReq::from_der(der).map_err(malformed)?;
        let subject_key = parse_key(&request)?;
        verify_signature(der, &subject_key)?;
        let subject = names::subject_attributes(&request.info.subject)
            .map_err(|found| Refusal::new(Reason::NameMalformed, FIELD_SUBJECT).with_detail(found.0))?;
        let attributes = Attributes::read(&request.info.attributes)?;
        let mut digest = [0; 32];
        digest.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Ok(Self {
            wish: Wish {
                key: subject_key.wished(),
                key_fingerprint: subject_key.fingerprint(),
                subject,
                sans: attributes.sans,
                changes_subject: attributes.changes_subject,
            },
            subject_key,
            challenge_password: attributes.challenge_password,
            asks_encrypted_key: attributes.asks_encrypted_key,
            digest,
        })
    }

    /// What it asks for.
    pub const fn wish(&self) -> &Wish {
        &self.wish
    }

    /// The key it carries, proven to be the requester's.
    pub const fn subject_key(&self) -> &SubjectKey {
        &self.subject_key
    }

    /// The challengePassword (RFC 2985 §5.4.1), which in EST holds the channel binding (RFC 7030 §3.5).
    pub fn challenge_password(&self) -> Option<&str> {
        self.challenge_password.as_deref()
    }

    /// Whether a server-made key is to be delivered encrypted (RFC 7030 §4.4.1).
    pub const fn asks_encrypted_key(&self) -> bool {
        self.asks_encrypted_key
    }

    /// SHA-256 of the whole DER request: the same request has the same one.
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

fn malformed(error: der::Error) -> Refusal {
    Refusal::new(Reason::CsrMalformed, FIELD_CSR).with_detail(error)
}

/// A key that can't be certified is refused before its signature costs anything.
fn parse_key(request: &CertReq) -> Result<SubjectKey, Refusal> {
    let spki = request.info.public_key.to_der().map_err(malformed)?;
    let key = SubjectKey::parse(&spki).map_err(|_| Refusal::new(Reason::CsrMalformed, FIELD_KEY))?;
    if key.is_strong() {
        return Ok(key);
    }
    let refusal = Refusal::new(Reason::KeyWeak, FIELD_KEY);
    Err(match key.wished() {
        WishedKey::Rsa { bits } => refusal.with_detail(format_args!("RSA with {bits} bits")),
        WishedKey::Curve(_) | WishedKey::Unknown => {
            refusal.with_detail(request.info.public_key.algorithm.oid)
        }
    })
}

fn verify_signature(der: &[u8], key: &SubjectKey) -> Result<(), Refusal> {
    let members = tlv::split(der).map_err(malformed)?;
    let [info, algorithm, signature] = members.as_slice() else {
        return Err(Refusal::new(Reason::CsrMalformed, FIELD_CSR));
    };
    let algorithm = tlv::sequence_contents(algorithm).map_err(malformed)?;
    let signature = BitStringRef::from_der(signature).map_err(malformed)?;
    let octets = signature.as_bytes().ok_or_else(|| Refusal::new(Reason::CsrMalformed, FIELD_SIGNATURE))?;
    signature::verify(key, algorithm, info, octets).map_err(|fault| match fault {
        SignatureFault::Weak => Refusal::new(Reason::SignatureWeak, FIELD_SIGNATURE),
        SignatureFault::Wrong => Refusal::new(Reason::SignatureWrong, FIELD_SIGNATURE),
    })
}
