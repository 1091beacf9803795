//! Leaf certificates that were uploaded to be shown to others, and which of them origins are shown; their
//! keys are in files of their own.

use muster_policy::host::HostPattern;
use muster_policy::identity::{AccountId, CaId, Fingerprint, ZoneId};
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::tables::{Record, TableName};

/// An uploaded leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundLeaf {
    /// Its id, of the same kind as that of an uploaded CA.
    pub id: CaId,
    /// Its owner.
    pub account: AccountId,
    /// What people call it.
    #[serde(default)]
    pub name: Option<String>,
    /// The certificates as they were uploaded; the leaf first.
    pub pem: String,
    /// SHA-256 of the leaf.
    pub fingerprint: Fingerprint,
    /// Name of its key file below the folder of keys.
    #[serde(default)]
    pub key_file: Option<String>,
    /// When it was uploaded.
    pub uploaded_at: UnixTime,
    /// The origins that it is for; none when it is the account's, for no origins.
    #[serde(default)]
    pub shown_to: Option<ShownTo>,
}

/// Which origins an uploaded leaf is for. It always has its key then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShownTo {
    /// Those of the hostnames in this zone that name it.
    Hostnames(ZoneId),
    /// Those of every hostname in this zone that names none; of several the newest is shown.
    Zone(ZoneId),
}

impl ShownTo {
    /// The zone.
    pub const fn zone(self) -> ZoneId {
        match self {
            Self::Hostnames(zone) | Self::Zone(zone) => zone,
        }
    }
}

/// Which leaf the origins of a hostname are shown, before that of the zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginPull {
    /// The zone.
    pub zone: ZoneId,
    /// The hostname; it need not be served yet.
    pub host: HostPattern,
    /// The leaf, one for [`ShownTo::Hostnames`] of the zone.
    pub leaf: CaId,
    /// While it is not, the hostname is like one that names no leaf.
    pub enabled: bool,
    /// When it was first set.
    pub created_at: UnixTime,
    /// When it was last changed.
    pub changed_at: UnixTime,
}

impl Record for OutboundLeaf {
    const TABLE: TableName = TableName::OutboundLeaves;
}

impl Record for OriginPull {
    const TABLE: TableName = TableName::OriginPulls;
}
