//! The managed CA of an account: one root, issuing CAs under it, and the certificates of a change of root.
//!
//! An issuing CA may have only leaves (pathLen 0) of one purpose. When a root is replaced, holders of
//! either root must be able to verify the other's leaves: [`roll_over`] makes the two certificates that
//! RFC 7030 §4.1.3 and RFC 4210 §4.4 put beside the roots. So a root has room for two CAs in a path:
//! its successor, and the successor's issuing CA.
//!
//! * **1 Dec 2026, a root's path length is 2 and not 1.** With 1, no path led from an old root to a leaf of its
//!   successor, and a change of root cut off every device that trusted the old one alone.

use std::sync::Arc;

use der::asn1::ObjectIdentifier;
use muster_policy::identity::Serial;
use muster_policy::name::{Hostname, Title};
use muster_policy::time::UnixTime;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, KeyUsagePurpose, NameConstraints, SerialNumber,
};

use crate::certificate::{CaCertificate, CertificateError};
use crate::issuer::{Issuer, IssuerError};
use crate::lint::{self, CLIENT_AUTH, Lint, Role, SERVER_AUTH};
use crate::signer::{SignError, Signer};
use crate::subject_key::SubjectKey;
use crate::tbs::{self, BuildError, Draft, IssuerView};

/// Path length of a root: its successor, which it certifies in a change of root, and an issuing CA below that.
pub const ROOT_PATH_LENGTH: u8 = 2;

/// What an issuing CA is for. Its certificates are of no use for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Clients: devices (clientAuth).
    Devices,
    /// Servers of the account (serverAuth).
    Services,
}

/// Name and lifetime of a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthoritySettings {
    /// Its common name.
    pub title: Title,
    /// Its organisation.
    pub organisation: Option<Title>,
    /// Start of its validity.
    pub not_before: UnixTime,
    /// End of its validity; for an issuing CA not after its root's.
    pub not_after: UnixTime,
}

/// Why a CA can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Its certificate could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Its certificate could not be read back.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Certificate and key don't match.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// Its certificate would break a rule.
    #[error("the CA certificate breaks a rule: {0}")]
    Lint(Lint),
    /// The root allows no CA below it.
    #[error("the root's path length allows no CA below it")]
    PathLength,
    /// The key could not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// The certificates that lead from one root to the next, both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollover {
    /// The old root's key and name, signed by the new root.
    pub old_with_new: CaCertificate,
    /// The new root's key and name, signed by the old root.
    pub new_with_old: CaCertificate,
}

/// Makes a self-signed root.
///
/// # Errors
/// When the settings break a rule of RFC 5280, or the key can't sign.
pub fn new_root(
    settings: &AuthoritySettings,
    path_length: u8,
    signer: Arc<dyn Signer>,
    serial: Serial,
) -> Result<Issuer, AuthorityError> {
    let key = key_of(&*signer)?;
    let view = IssuerView {
        name_der: None,
        key_id: key.key_id(),
        algorithm: signer.algorithm(),
        not_before: settings.not_before,
        not_after: settings.not_after,
        purposes: None,
    };
    let params = settings.params(serial, path_length);
    let certificate = certify(params, None, &key, view, None, &*signer)?;
    Ok(Issuer::join(certificate, signer)?)
}

/// Makes an issuing CA of one purpose under a root.
///
/// `permitted_dns` limits the DNS names in what it issues to these domains (RFC 5280 §4.2.1.10);
/// empty for no limit. Names of other kinds, such as SPIFFE ids, are not limited by it.
///
/// # Errors
/// When the settings break a rule of RFC 5280 or outlive the root, or the root's key can't sign.
pub fn new_issuing(
    root: &Issuer,
    settings: &AuthoritySettings,
    purpose: Purpose,
    permitted_dns: &[Hostname],
    signer: Arc<dyn Signer>,
    serial: Serial,
) -> Result<Issuer, AuthorityError> {
    if root.certificate().path_length() == Some(0) {
        return Err(AuthorityError::PathLength);
    }
    let key = key_of(&*signer)?;
    let mut params = settings.params(serial, 0);
    let (usage, oid) = match purpose {
        Purpose::Devices => (ExtendedKeyUsagePurpose::ClientAuth, CLIENT_AUTH),
        Purpose::Services => (ExtendedKeyUsagePurpose::ServerAuth, SERVER_AUTH),
    };
    params.extended_key_usages = vec![usage];
    if !permitted_dns.is_empty() {
        let subtree = |name: &Hostname| GeneralSubtree::DnsName(name.as_str().to_owned());
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted_dns.iter().map(subtree).collect(),
            excluded_subtrees: Vec::new(),
        });
    }
    let certificate = certify(params, None, &key, root.view(), Some(oid), &**root.signer())?;
    Ok(Issuer::join(certificate, signer)?)
}

/// Makes the certificates that lead from an old root to a new one and back.
///
/// Both end when the old root ends: then nobody trusts it any more, and it needs no one's word.
///
/// # Errors
/// When a key can't sign, or the new root ends before the old one.
pub fn roll_over(old: &Issuer, new: &Issuer, serials: [Serial; 2]) -> Result<Rollover, AuthorityError> {
    let [first, second] = serials;
    Ok(Rollover { old_with_new: cross(old, new, old, first)?, new_with_old: cross(new, old, old, second)? })
}

/// `subject`'s name and key, signed by `issuer`, until `until` ends.
fn cross(
    subject: &Issuer,
    issuer: &Issuer,
    until: &Issuer,
    serial: Serial,
) -> Result<CaCertificate, AuthorityError> {
    let certificate = subject.certificate();
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.not_before = certificate.not_before().to_offset_date_time();
    params.not_after = until.certificate().not_after().to_offset_date_time();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = certificate.path_length().map_or(IsCa::Ca(BasicConstraints::Unconstrained), |length| {
        IsCa::Ca(BasicConstraints::Constrained(length))
    });
    params.key_usages = CA_KEY_USAGES.to_vec();
    certify(
        params,
        Some(certificate.subject_der()),
        certificate.subject_key(),
        issuer.view(),
        None,
        &**issuer.signer(),
    )
}

fn certify(
    params: CertificateParams,
    subject_der: Option<&[u8]>,
    subject_key: &SubjectKey,
    issuer: IssuerView<'_>,
    purpose: Option<ObjectIdentifier>,
    signer: &dyn Signer,
) -> Result<CaCertificate, AuthorityError> {
    let tbs = Draft { params, subject_der, subject_key, issuer }.build()?;
    lint::check(&tbs, Role::Authority { purpose }, &issuer, subject_key).map_err(AuthorityError::Lint)?;
    Ok(CaCertificate::parse(&tbs::sign(&tbs, signer)?)?)
}

fn key_of(signer: &dyn Signer) -> Result<SubjectKey, AuthorityError> {
    SubjectKey::parse(signer.spki_der()).map_err(|_| AuthorityError::Certificate(CertificateError::WeakKey))
}

impl AuthoritySettings {
    fn params(&self, serial: Serial, path_length: u8) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        params.not_before = self.not_before.to_offset_date_time();
        params.not_after = self.not_after.to_offset_date_time();
        params.distinguished_name = DistinguishedName::new();
        if let Some(organisation) = &self.organisation {
            params.distinguished_name.push(DnType::OrganizationName, organisation.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, self.title.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
        params.key_usages = CA_KEY_USAGES.to_vec();
        params
    }
}

/// RFC 5280 §4.2.1.3: a CA signs certificates and CRLs.
const CA_KEY_USAGES: [KeyUsagePurpose; 2] = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];

#[cfg(test)]
mod tests;
