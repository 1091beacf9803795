//! A CA that can sign: its certificate and its key, known to belong together.
//!
//! Everything a signature needs is read from the certificate once, here, so that issuing costs
//! little more than the signature itself.

use core::fmt;
use std::sync::Arc;

use crate::certificate::{CaCertificate, CertificateError};
use crate::signer::Signer;
use crate::tbs::IssuerView;

/// A CA certificate with the key it certifies.
#[derive(Clone)]
pub struct Issuer {
    certificate: Arc<CaCertificate>,
    signer: Arc<dyn Signer>,
}

/// Why a certificate and a key don't make an issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// The certificate can't be an issuer's.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The key is not the one that is certified.
    #[error("the key does not belong to the certificate")]
    KeyMismatch,
}

impl Issuer {
    /// Joins a DER certificate and its key.
    ///
    /// # Errors
    /// When the certificate is malformed or not a CA's, or the key is another one.
    pub fn new(certificate_der: &[u8], signer: Arc<dyn Signer>) -> Result<Self, IssuerError> {
        Self::join(CaCertificate::parse(certificate_der)?, signer)
    }

    pub(crate) fn join(certificate: CaCertificate, signer: Arc<dyn Signer>) -> Result<Self, IssuerError> {
        if certificate.subject_key().spki_der() != signer.spki_der() {
            return Err(IssuerError::KeyMismatch);
        }
        Ok(Self { certificate: Arc::new(certificate), signer })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    pub(crate) fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }

    pub(crate) fn view(&self) -> IssuerView<'_> {
        IssuerView {
            name_der: Some(self.certificate.subject_der()),
            key_id: self.certificate.key_id(),
            algorithm: self.signer.algorithm(),
            not_before: self.certificate.not_before(),
            not_after: self.certificate.not_after(),
            purposes: self.certificate.purposes(),
        }
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("subject", &self.certificate.subject()).finish_non_exhaustive()
    }
}
