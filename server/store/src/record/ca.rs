//! CAs and their revocation lists.

use muster_policy::identity::{AccountId, CaId, Fingerprint, Serial};
use muster_policy::name::Title;
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::tables::{Record, TableName};

/// Where a CA comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CaKind {
    /// Brought by the operator.
    Byo,
    /// Made here.
    Managed,
}

/// What a CA is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CaRole {
    /// Issues client certificates to devices.
    Devices,
    /// A manufacturer's CA whose device certificates (IEEE 802.1AR IDevID) prove a first enrollment.
    Manufacturer,
    /// Signs issuing CAs; devices trust it.
    Root,
    /// Issues server certificates.
    Services,
    /// Its certificates are accepted at the edge; it can't issue, its key is elsewhere.
    VerifyOnly,
}

/// Whether a CA issues, or only verifies what it issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CaState {
    /// It issues.
    Active,
    /// It verifies until its last leaf ends.
    Retiring,
    /// It does neither.
    Retired,
}

/// A CA of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ca {
    /// Its id.
    pub id: CaId,
    /// Its owner.
    pub account: AccountId,
    /// What people call it.
    pub title: Title,
    /// Where it comes from.
    pub kind: CaKind,
    /// What it is for.
    pub role: CaRole,
    /// Whether it issues.
    pub state: CaState,
    /// Its certificate.
    pub certificate_der: ByteBuf,
    /// The certificates above it, its issuer first.
    #[serde(default)]
    pub chain: Vec<ByteBuf>,
    /// Name of its key file below the data directory; none when the key is elsewhere.
    #[serde(default)]
    pub key_file: Option<String>,
    /// The CA that signed it, when that is one of ours.
    #[serde(default)]
    pub issuer: Option<CaId>,
    /// Start of its validity.
    pub not_before: UnixTime,
    /// End of its validity.
    pub not_after: UnixTime,
    /// Its serial.
    pub serial: Serial,
    /// SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
    /// Its subject, for people.
    pub subject: String,
    /// Certificates that tie an old root to a new one (RFC 7030 §4.1.3: OldWithNew, NewWithOld).
    #[serde(default)]
    pub rollover: Vec<ByteBuf>,
    /// When it was added.
    pub created_at: UnixTime,
    /// How it was uploaded, when it was through the API of uploaded certificates.
    #[serde(default)]
    pub upload: Option<Upload>,
}

/// What of an upload its owner reads back as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Through which door it came.
    pub kind: UploadKind,
    /// What people call it; its length and characters are the uploader's door's business.
    pub name: Option<String>,
    /// The text, octet for octet.
    pub pem: String,
    /// When its owner last changed its name or its hostnames; none until then.
    #[serde(default)]
    pub changed_at: Option<UnixTime>,
}

/// Through which door a CA was uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UploadKind {
    /// As an Access certificate.
    Access,
    /// As an mTLS certificate.
    Custom,
}

/// The newest certificate revocation list of a CA (RFC 5280 §5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrlState {
    /// Its cRLNumber (RFC 5280 §5.2.3); grows with each list.
    pub number: u64,
    /// When it was made.
    pub this_update: UnixTime,
    /// When the next one comes at the latest.
    pub next_update: UnixTime,
    /// The list.
    pub der: ByteBuf,
}

impl Record for Ca {
    const TABLE: TableName = TableName::Cas;
}

impl Record for CrlState {
    const TABLE: TableName = TableName::Crls;
}
