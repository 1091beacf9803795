//! Issued certificates and their revocation.

use muster_policy::enrol::{RenewalWindow, San, SubjectAttribute};
use muster_policy::identity::{AccountId, CaId, CertificateId, Fingerprint, KeyFingerprint, Serial, ZoneId};
use muster_policy::name::{DeviceId, Label};
use muster_policy::revocation::RevocationReason;
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::mark::Mark;
use crate::tables::{Record, TableName};

/// An issued leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its id; sorts by age.
    pub id: CertificateId,
    /// The owner of its CA.
    pub account: AccountId,
    /// The CA that signed it.
    pub ca: CaId,
    /// Its serial, unique within the CA.
    pub serial: Serial,
    /// SHA-256 of the whole certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key_fingerprint: KeyFingerprint,
    /// The device it was issued to.
    pub device: DeviceId,
    /// The profile it was issued under.
    pub profile: Label,
    /// Its subject.
    pub subject: Vec<SubjectAttribute>,
    /// Its alternative names.
    pub sans: Vec<San>,
    /// Start of its validity.
    pub not_before: UnixTime,
    /// End of its validity.
    pub not_after: UnixTime,
    /// When it should be renewed.
    pub renewal: RenewalWindow,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// What led to it.
    pub how: How,
    /// The certificate that was renewed.
    #[serde(default)]
    pub replaces: Option<CertificateId>,
    /// Set while it is revoked.
    #[serde(default)]
    pub revoked: Option<Revocation>,
    /// The certificate itself.
    pub der: ByteBuf,
    /// The request of a zone's client certificate.
    #[serde(default)]
    pub client: Option<Box<ClientRequest>>,
}

/// What was asked for when a certificate was made as a zone's client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRequest {
    /// The zone.
    pub zone: ZoneId,
    /// The request, PEM, as it came.
    pub csr: String,
    /// The subject of the request, which need not be that of the certificate.
    pub subject: Vec<SubjectAttribute>,
    /// Its lifetime in days.
    pub validity_days: u32,
}

/// What led to a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// A first enrollment.
    First,
    /// A first enrollment or renewal whose key was made here (RFC 7030 §4.4).
    Keygen,
    /// An operator's request.
    Operator,
    /// A renewal.
    Renewal,
}

/// When and why a certificate was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When.
    pub at: UnixTime,
    /// Why.
    pub reason: RevocationReason,
}

/// What a certificate is worth at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CertificateStatus {
    /// Neither revoked nor expired.
    Active,
    /// Past its end, and not revoked.
    Expired,
    /// Revoked, expired or not.
    Revoked,
}

impl Certificate {
    /// What it is worth at `now`.
    pub fn status(&self, now: UnixTime) -> CertificateStatus {
        Mark::of(self).status(now)
    }
}

/// A revoked certificate as CRLs and edges need it: small, so that the whole set fits in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedEntry {
    /// The certificate.
    pub certificate: CertificateId,
    /// Its CA.
    pub ca: CaId,
    /// Its serial.
    pub serial: Serial,
    /// SHA-256 of the whole certificate.
    pub fingerprint: Fingerprint,
    /// Its end; afterwards no list needs it (RFC 5280 §5.2.4 and §3.3).
    pub not_after: UnixTime,
    /// When and why.
    pub revocation: Revocation,
}

impl Record for Certificate {
    const TABLE: TableName = TableName::Certificates;
}

impl Record for RevokedEntry {
    const TABLE: TableName = TableName::Revoked;
}
