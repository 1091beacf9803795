//! What is to be signed (TBSCertificate, RFC 5280 §4.1.2): built by rcgen, completed, signed, assembled.
//!
//! rcgen writes every field, but it would write the names and keys of others anew. Those must
//! survive byte for byte - the issuer's name as in the issuer's certificate, the key as in the
//! request, whose fingerprint policy has bound - so the exact bytes are put in their place here.
//! rcgen also signs while it builds; it is given a key that only listens, and the real signature
//! is made later, when the intent to sign is on disk.

use std::cell::RefCell;

use der::asn1::ObjectIdentifier;
use muster_policy::time::UnixTime;
use rcgen::{CertificateParams, KeyIdMethod, PublicKeyData, SigningKey};

use crate::signature::SignatureAlgorithm;
use crate::signer::{SignError, Signer};
use crate::subject_key::SubjectKey;
use crate::tlv;

/// The certificate could not be put together; a bug, or a name that no certificate can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("can't build the certificate: {0}")]
pub struct BuildError(pub(crate) String);

/// What the certificate to build takes from its issuer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IssuerView<'a> {
    /// The issuer's subject, exactly; `None` when the certificate is its own issuer.
    pub(crate) name_der: Option<&'a [u8]>,
    /// The issuer's key identifier.
    pub(crate) key_id: &'a [u8],
    pub(crate) algorithm: SignatureAlgorithm,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    /// The purposes the issuer is limited to, if it is.
    pub(crate) purposes: Option<&'a [ObjectIdentifier]>,
}

/// A certificate in the making.
pub(crate) struct Draft<'a> {
    pub(crate) params: CertificateParams,
    /// The subject, exactly; `None` for that of `params`.
    pub(crate) subject_der: Option<&'a [u8]>,
    pub(crate) subject_key: &'a SubjectKey,
    pub(crate) issuer: IssuerView<'a>,
}

impl Draft<'_> {
    /// The DER TBSCertificate.
    pub(crate) fn build(mut self) -> Result<Vec<u8>, BuildError> {
        self.params.key_identifier_method = KeyIdMethod::PreSpecified(self.subject_key.key_id().to_vec());
        self.params.use_authority_key_identifier_extension = true;
        let mut issuer_params = CertificateParams::default();
        issuer_params.key_identifier_method = KeyIdMethod::PreSpecified(self.issuer.key_id.to_vec());
        let listener = Listener { algorithm: self.issuer.algorithm.rcgen(), heard: RefCell::default() };
        let issuer = rcgen::Issuer::from_params(&issuer_params, &listener);
        self.params
            .signed_by(&Placeholder(self.issuer.algorithm.rcgen()), &issuer)
            .map_err(|error| BuildError(error.to_string()))?;
        let drafted = listener.heard.take();
        self.complete(&drafted)
    }

    /// Puts the exact names and the exact key in their places (RFC 5280 §4.1 gives the order).
    fn complete(&self, drafted: &[u8]) -> Result<Vec<u8>, BuildError> {
        let members = tlv::split(drafted).map_err(|error| BuildError(error.to_string()))?;
        let [version, serial, algorithm, _, validity, subject, _, extensions] = members.as_slice() else {
            return Err(BuildError("not the members of a v3 TBSCertificate".to_owned()));
        };
        let subject = self.subject_der.unwrap_or(subject);
        let issuer = self.issuer.name_der.unwrap_or(subject);
        let key = self.subject_key.spki_der();
        Ok(tlv::element(
            tlv::SEQUENCE,
            &[version, serial, algorithm, issuer, validity, subject, key, extensions],
        ))
    }
}

/// Signs what is to be signed, and assembles certificate or CRL (RFC 5280 §4.1.1, §5.1.1).
pub(crate) fn sign(tbs: &[u8], signer: &dyn Signer) -> Result<Vec<u8>, SignError> {
    let signature = tlv::bit_string(&signer.sign(tbs)?);
    Ok(tlv::element(tlv::SEQUENCE, &[tbs, &signer.algorithm().identifier_der(), &signature]))
}

/// A key that keeps what it is asked to sign, and answers with nothing.
struct Listener {
    algorithm: &'static rcgen::SignatureAlgorithm,
    heard: RefCell<Vec<u8>>,
}

impl PublicKeyData for &Listener {
    fn der_bytes(&self) -> &[u8] {
        &[]
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for &Listener {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.heard.replace(message.to_vec());
        Ok(Vec::new())
    }
}

/// Stands where the exact key is put later.
struct Placeholder(&'static rcgen::SignatureAlgorithm);

impl PublicKeyData for Placeholder {
    fn der_bytes(&self) -> &[u8] {
        &[]
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0
    }
}
