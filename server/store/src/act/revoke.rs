//! Revoking a certificate, and taking that back.

use muster_policy::identity::{AccountId, CertificateId};

use crate::act::{By, Rejected, log};
use crate::keys;
use crate::record::{Action, Certificate, ChangeKind, Revocation, RevocationReason, RevokedEntry, Subjects};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// Revokes a certificate; one that is revoked keeps its first time and reason.
#[derive(Clone, Debug)]
pub struct RevokeCertificate {
    /// The owner.
    pub account: AccountId,
    /// The certificate.
    pub certificate: CertificateId,
    /// Why (RFC 5280 §5.3.1).
    pub reason: RevocationReason,
    /// Who revokes it, and when.
    pub by: By,
}

impl Transaction for RevokeCertificate {
    const NAME: &'static str = "revoke_certificate";
    type Output = Certificate;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Certificate, Failed<Rejected>> {
        let mut certificate = known(tables, self.account, self.certificate)?;
        if certificate.revoked.is_some() {
            return Ok(certificate);
        }
        let revocation = Revocation { at: self.by.at, reason: self.reason };
        certificate.revoked = Some(revocation);
        let key = keys::certificate(certificate.account, certificate.id);
        tables.put(&key, &certificate)?;
        tables.put(
            &key,
            &RevokedEntry {
                certificate: certificate.id,
                ca: certificate.ca,
                serial: certificate.serial,
                fingerprint: certificate.fingerprint,
                not_after: certificate.not_after,
                revocation,
            },
        )?;
        tables.count(certificate.account, |counters| {
            counters.certificates_revoked = counters.certificates_revoked.saturating_add(1);
        })?;
        let kind = ChangeKind::CertificateRevoked(certificate.id);
        log_certificate(tables, &self.by, Action::CertificateRevoked, &certificate, kind)?;
        Ok(certificate)
    }
}

/// Makes a revoked certificate good again; one that is not revoked stays as it is.
///
/// RFC 5280 §5.3.1 lifts `certificateHold` only: others who read an earlier list may keep it revoked.
#[derive(Clone, Debug)]
pub struct ReactivateCertificate {
    /// The owner.
    pub account: AccountId,
    /// The certificate.
    pub certificate: CertificateId,
    /// Who reactivates it, and when.
    pub by: By,
}

impl Transaction for ReactivateCertificate {
    const NAME: &'static str = "reactivate_certificate";
    type Output = Certificate;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Certificate, Failed<Rejected>> {
        let mut certificate = known(tables, self.account, self.certificate)?;
        if certificate.revoked.take().is_none() {
            return Ok(certificate);
        }
        let key = keys::certificate(certificate.account, certificate.id);
        tables.put(&key, &certificate)?;
        tables.remove(TableName::Revoked, &key)?;
        tables.count(certificate.account, |counters| {
            counters.certificates_revoked = counters.certificates_revoked.saturating_sub(1);
        })?;
        let kind = ChangeKind::CertificateReactivated(certificate.id);
        log_certificate(tables, &self.by, Action::CertificateReactivated, &certificate, kind)?;
        Ok(certificate)
    }
}

fn known(
    tables: &mut Tables<'_>,
    account: AccountId,
    id: CertificateId,
) -> Result<Certificate, Failed<Rejected>> {
    tables.get(&keys::certificate(account, id))?.ok_or(Failed::Refused(Rejected::CertificateUnknown))
}

fn log_certificate(
    tables: &mut Tables<'_>,
    by: &By,
    action: Action,
    certificate: &Certificate,
    kind: ChangeKind,
) -> Result<(), Fault> {
    let subjects = Subjects {
        account: Some(certificate.account),
        ca: Some(certificate.ca),
        device: Some(certificate.device.clone()),
        certificate: Some(certificate.id),
        serial: Some(certificate.serial),
        ..Subjects::default()
    };
    log(tables, by, action, subjects, kind)
}
