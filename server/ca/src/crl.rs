//! Certificate revocation lists (RFC 5280 §5): full, version 2, one per issuing CA.
//!
//! rcgen builds the list and a listening key keeps what is to be signed; the CA's own key signs it.
//! Entries are written in the order given, in one pass, so a list of a million takes seconds.

use core::cell::RefCell;

use muster_policy::identity::Serial;
use muster_policy::time::UnixTime;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, DistinguishedName, KeyIdMethod, RevocationReason,
    RevokedCertParams, SerialNumber,
};

use crate::issuer::Issuer;
use crate::signer::SignError;
use crate::tbs::{self, BuildError, Listener};
use crate::tlv;

/// One revoked certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Its serial.
    pub serial: Serial,
    /// When it was revoked.
    pub revoked_at: UnixTime,
    /// The CRLReason number (RFC 5280 §5.3.1); 0 is left out, as the standard advises.
    pub reason_code: u8,
}

/// What a list says beside its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrlPlan {
    /// cRLNumber: grows with each list (RFC 5280 §5.2.3).
    pub number: u64,
    /// When it is made.
    pub this_update: UnixTime,
    /// When the next one comes at the latest.
    pub next_update: UnixTime,
}

/// Why there is no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// It could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The CA's keyUsage does not allow it to sign lists (RFC 5280 §4.2.1.3).
    #[error("the CA's keyUsage does not allow signing revocation lists")]
    NotForCrls,
    /// The key could not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl Issuer {
    /// Makes a list of what is revoked; DER.
    ///
    /// # Errors
    /// When the CA may not sign lists, or its key can't.
    pub fn revocation_list(
        &self,
        plan: &CrlPlan,
        revoked: impl IntoIterator<Item = RevokedCertificate>,
    ) -> Result<Vec<u8>, CrlError> {
        if !self.certificate().signs_crls() {
            return Err(CrlError::NotForCrls);
        }
        let params = CertificateRevocationListParams {
            this_update: plan.this_update.to_offset_date_time(),
            next_update: plan.next_update.to_offset_date_time(),
            crl_number: SerialNumber::from(plan.number),
            issuing_distribution_point: None,
            revoked_certs: revoked.into_iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(self.certificate().key_id().to_vec()),
        };
        let listener = Listener { algorithm: self.signer().algorithm().rcgen(), heard: RefCell::default() };
        let mut issuer_params = CertificateParams::default();
        issuer_params.distinguished_name = DistinguishedName::new();
        issuer_params.key_identifier_method = params.key_identifier_method.clone();
        issuer_params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
        let issuer = rcgen::Issuer::from_params(&issuer_params, &listener);
        params.signed_by(&issuer).map_err(|error| BuildError(error.to_string()))?;
        let tbs = self.with_own_name(&listener.heard.take())?;
        Ok(tbs::sign(&tbs, &**self.signer())?)
    }

    /// Puts the CA's exact name in its place: the third member (RFC 5280 §5.1.2).
    fn with_own_name(&self, drafted: &[u8]) -> Result<Vec<u8>, BuildError> {
        let mut members = tlv::split(drafted).map_err(|error| BuildError(error.to_string()))?;
        let name =
            members.get_mut(2).ok_or_else(|| BuildError("not the members of a TBSCertList".to_owned()))?;
        *name = self.certificate().subject_der();
        Ok(tlv::element(tlv::SEQUENCE, &members))
    }
}

fn entry(revoked: RevokedCertificate) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(revoked.serial.as_bytes()),
        revocation_time: revoked.revoked_at.to_offset_date_time(),
        reason_code: match revoked.reason_code {
            1 => Some(RevocationReason::KeyCompromise),
            2 => Some(RevocationReason::CaCompromise),
            3 => Some(RevocationReason::AffiliationChanged),
            4 => Some(RevocationReason::Superseded),
            5 => Some(RevocationReason::CessationOfOperation),
            6 => Some(RevocationReason::CertificateHold),
            9 => Some(RevocationReason::PrivilegeWithdrawn),
            _ => None,
        },
        invalidity_date: None,
    }
}
