//! Leaf certificates that were uploaded to be shown to others; their keys are in files of their own.

use muster_policy::identity::{AccountId, CaId, Fingerprint};
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
}

impl Record for OutboundLeaf {
    const TABLE: TableName = TableName::OutboundLeaves;
}
