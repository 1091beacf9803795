//! Revoking a certificate, and taking that back.

use muster_policy::identity::{AccountId, CaId, CertificateId};
use muster_policy::name::DeviceId;
use muster_policy::revocation::RevocationReason;

use crate::act::{By, Rejected, log};
use crate::keys;
use crate::mark;
use crate::record::{Action, Certificate, CertificateStatus, ChangeKind, Revocation, RevokedEntry, Subjects};
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
        revoke(tables, &mut certificate, self.reason, &self.by)?;
        Ok(certificate)
    }
}

/// Most certificates revoked at once; it bounds how long others wait.
pub const REVOKE_MAX: usize = 1_000;

/// Which certificates are revoked at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeWhich {
    /// These.
    Certificates(Vec<CertificateId>),
    /// All of these devices that have not ended.
    Devices(Vec<DeviceId>),
}

/// What became of one certificate of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokedRow {
    /// There is no such certificate.
    CertificateUnknown(CertificateId),
    /// There is no such device.
    DeviceUnknown(DeviceId),
    /// It was good, and is revoked.
    Revoked(Box<Certificate>),
    /// It was revoked already, and keeps its first time and reason.
    WasRevoked(Box<Certificate>),
}

/// Revokes many certificates in one transaction. What is not there keeps nothing else from being revoked.
#[derive(Clone, Debug)]
pub struct RevokeCertificates {
    /// The owner.
    pub account: AccountId,
    /// At most [`REVOKE_MAX`] in all, else nothing is revoked.
    pub which: RevokeWhich,
    /// Why (RFC 5280 §5.3.1).
    pub reason: RevocationReason,
    /// Who revokes them, and when.
    pub by: By,
}

impl Transaction for RevokeCertificates {
    const NAME: &'static str = "revoke_certificates";
    type Output = Vec<RevokedRow>;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Vec<RevokedRow>, Failed<Rejected>> {
        let mut rows = Vec::new();
        let mut certificates = Vec::new();
        match &self.which {
            RevokeWhich::Certificates(ids) => certificates.clone_from(ids),
            RevokeWhich::Devices(devices) => {
                for device in devices {
                    if !tables.contains(TableName::Devices, &keys::device(self.account, device))? {
                        rows.push(RevokedRow::DeviceUnknown(device.clone()));
                    }
                    certificates.extend(self.of_device(tables, device)?);
                }
            }
        }
        if certificates.len() > REVOKE_MAX {
            return Err(Failed::Refused(Rejected::TooMany { max: REVOKE_MAX }));
        }
        for id in certificates {
            let certificate: Option<Certificate> = tables.get(&keys::certificate(self.account, id))?;
            rows.push(match certificate {
                None => RevokedRow::CertificateUnknown(id),
                Some(mut certificate) => {
                    let now = revoke(tables, &mut certificate, self.reason, &self.by)?;
                    let certificate = Box::new(certificate);
                    if now { RevokedRow::Revoked(certificate) } else { RevokedRow::WasRevoked(certificate) }
                }
            });
        }
        Ok(rows)
    }
}

impl RevokeCertificates {
    /// The certificates of a device that are good; one more than may be is enough to refuse.
    fn of_device(&self, tables: &mut Tables<'_>, device: &DeviceId) -> Result<Vec<CertificateId>, Fault> {
        let prefix = keys::device_certificates(self.account, device);
        let mut good = Vec::new();
        let mut from = prefix.clone();
        loop {
            let end = keys::after(&prefix);
            let rows = tables.rows(TableName::DeviceCertificates, &from, end.as_deref(), REVOKE_MAX)?;
            for (key, _) in &rows {
                let id = key.get(prefix.len()..).unwrap_or_default();
                let stored: Option<Certificate> = tables.get(&keys::join(&[self.account.as_bytes(), id]))?;
                let stored = stored.filter(|stored| stored.status(self.by.at) == CertificateStatus::Active);
                good.extend(stored.map(|stored| stored.id));
            }
            match rows.into_iter().next_back() {
                Some((last, _)) if good.len() <= REVOKE_MAX => from = keys::join(&[&last, &[0]]),
                _ => return Ok(good),
            }
        }
    }
}

/// Revokes one; false when it was revoked already.
pub(super) fn revoke(
    tables: &mut Tables<'_>,
    certificate: &mut Certificate,
    reason: RevocationReason,
    by: &By,
) -> Result<bool, Fault> {
    if certificate.revoked.is_some() {
        return Ok(false);
    }
    let revocation = Revocation { at: by.at, reason };
    certificate.revoked = Some(revocation);
    let key = keys::certificate(certificate.account, certificate.id);
    tables.put(&key, certificate)?;
    mark::put(tables, certificate)?;
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
    log_certificate(tables, by, Action::CertificateRevoked, certificate, kind)?;
    crl_is_behind(tables, certificate.ca)?;
    Ok(true)
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
        reactivate(tables, &mut certificate, &self.by)?;
        Ok(certificate)
    }
}

/// Makes one good again.
pub(super) fn reactivate(
    tables: &mut Tables<'_>,
    certificate: &mut Certificate,
    by: &By,
) -> Result<(), Fault> {
    if certificate.revoked.take().is_none() {
        return Ok(());
    }
    let key = keys::certificate(certificate.account, certificate.id);
    tables.put(&key, certificate)?;
    mark::put(tables, certificate)?;
    tables.remove(TableName::Revoked, &key)?;
    tables.count(certificate.account, |counters| {
        counters.certificates_revoked = counters.certificates_revoked.saturating_sub(1);
    })?;
    let kind = ChangeKind::CertificateReactivated(certificate.id);
    log_certificate(tables, by, Action::CertificateReactivated, certificate, kind)?;
    crl_is_behind(tables, certificate.ca)
}

/// Notes that a list made before the newest change does not say what is revoked.
///
/// The list is made after the revocation, by whoever asked for that; should it come to nothing, this is what has it
/// made all the same.
pub(super) fn crl_is_behind(tables: &mut Tables<'_>, ca: CaId) -> Result<(), Fault> {
    let number = tables.newest_change()?;
    tables.put_meta(&keys::crl_behind(ca), &number)
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
