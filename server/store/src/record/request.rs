//! Requests that need a person, and what is being signed right now.

use muster_policy::identity::{AccountId, CaId, CertificateId, KeyFingerprint, RequestKey, Serial, TokenId};
use muster_policy::name::{DeviceId, Label};
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::record::Actor;
use crate::tables::{Record, TableName};

/// What a person has to decide, or did, about a request.
///
/// A request that needs no person, or has its certificate, has no record of its own: its key is kept
/// with the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// A person agreed; the device's next poll gets the certificate.
    Approved {
        /// Who.
        by: Actor,
        /// When.
        at: UnixTime,
    },
    /// A person refused.
    Denied {
        /// Who.
        by: Actor,
        /// When.
        at: UnixTime,
    },
    /// It waits for a person.
    Waiting(Box<WaitingRequest>),
}

impl Request {
    /// When it came into this state.
    pub const fn at(&self) -> UnixTime {
        match self {
            Self::Approved { at, .. } | Self::Denied { at, .. } => *at,
            Self::Waiting(waiting) => waiting.since,
        }
    }
}

/// A request that waits for a person, with what a person needs to judge it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingRequest {
    /// Its key.
    pub key: RequestKey,
    /// The account it is for.
    pub account: AccountId,
    /// The device that asks.
    pub device: DeviceId,
    /// The profile it asks for.
    pub profile: Label,
    /// Who asks, as proven.
    pub caller: Actor,
    /// The key to certify.
    pub key_fingerprint: KeyFingerprint,
    /// The request.
    pub csr_der: ByteBuf,
    /// Since when it waits.
    pub since: UnixTime,
    /// The address it came from.
    #[serde(default)]
    pub source: Option<String>,
}

/// What is going to be signed; stored before the signer is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The request.
    pub request: RequestKey,
    /// The account.
    pub account: AccountId,
    /// The id of the certificate to be.
    pub certificate: CertificateId,
    /// Its serial.
    pub serial: Serial,
    /// The CA that signs.
    pub ca: CaId,
    /// The device it is for.
    pub device: DeviceId,
    /// The key it is for.
    pub key_fingerprint: KeyFingerprint,
    /// The token of which a use is reserved.
    #[serde(default)]
    pub token: Option<TokenId>,
    /// When it was stored.
    pub at: UnixTime,
}

impl Record for Request {
    const TABLE: TableName = TableName::Requests;
}

impl Record for Intent {
    const TABLE: TableName = TableName::Intents;
}
