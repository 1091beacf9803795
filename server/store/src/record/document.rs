//! What operators write for the edge to go by, and the ledger only keeps: Access, and rules.
//!
//! The text is JSON of the writer's own type, checked before it comes here. Each has a revision, so
//! that two writers can't overwrite each other unseen.

use muster_policy::identity::{AccountId, CaId, ZoneId};
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::tables::{Record, TableName};

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DocumentKind {
    /// An Access application.
    AccessApp,
    /// An Access group.
    AccessGroup,
    /// An Access policy.
    AccessPolicy,
    /// Which headers origins of a zone are sent.
    ManagedHeaders,
    /// Rules that requests are judged by.
    Ruleset,
}

impl DocumentKind {
    pub(crate) const fn octet(self) -> u8 {
        match self {
            Self::AccessApp => 1,
            Self::AccessGroup => 2,
            Self::AccessPolicy => 3,
            Self::Ruleset => 4,
            Self::ManagedHeaders => 5,
        }
    }
}

/// A document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its id; sorts by age.
    pub id: CaId,
    /// Its owner.
    pub account: AccountId,
    /// The zone it belongs to; none when it is the account's.
    #[serde(default)]
    pub zone: Option<ZoneId>,
    /// What it is.
    pub kind: DocumentKind,
    /// JSON of the type that its kind says.
    pub text: String,
    /// Grows with each change, from 1.
    pub revision: u64,
    /// When it was made.
    pub created_at: UnixTime,
    /// When it was last changed.
    pub changed_at: UnixTime,
}

impl Record for Document {
    const TABLE: TableName = TableName::Documents;
}
