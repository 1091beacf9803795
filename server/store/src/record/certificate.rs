//! Issued certificates and their revocation.

use muster_policy::enrol::{RenewalWindow, San, SubjectAttribute};
use muster_policy::identity::{AccountId, CaId, CertificateId, Fingerprint, KeyFingerprint, Serial, ZoneId};
use muster_policy::name::{DeviceId, Label};
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

/// The CRLReason values that a leaf's revocation can have (RFC 5280 §5.3.1), in the standard's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum RevocationReason {
    /// No reason is given.
    #[default]
    Unspecified,
    /// The device's key is known to others.
    KeyCompromise,
    /// The CA's key is known to others.
    CaCompromise,
    /// The names no longer hold.
    AffiliationChanged,
    /// Another certificate takes its place.
    Superseded,
    /// It is no longer needed.
    CessationOfOperation,
    /// It is put on hold; only this one is meant to be lifted.
    CertificateHold,
    /// What the certificate said is withdrawn.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// The CRLReason number (RFC 5280 §5.3.1).
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::CertificateHold => 6,
            Self::PrivilegeWithdrawn => 9,
        }
    }

    /// The reason of a CRLReason number; none for numbers that a leaf's revocation can't have.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Unspecified),
            1 => Some(Self::KeyCompromise),
            2 => Some(Self::CaCompromise),
            3 => Some(Self::AffiliationChanged),
            4 => Some(Self::Superseded),
            5 => Some(Self::CessationOfOperation),
            6 => Some(Self::CertificateHold),
            9 => Some(Self::PrivilegeWithdrawn),
            _ => None,
        }
    }
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
