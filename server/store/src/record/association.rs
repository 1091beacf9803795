//! Which hostnames are associated with a CA, in the order in which they were given.
//!
//! What decides is the rule of each hostname; this keeps the order for those who read the list back.

use muster_policy::host::HostPattern;
use muster_policy::identity::{AccountId, ZoneId};
use serde::{Deserialize, Serialize};

use crate::tables::{Record, TableName};

/// Whose hostnames are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssociationScope {
    /// All of an account.
    Account(AccountId),
    /// Those of one zone.
    Zone {
        /// The owner of the zone.
        account: AccountId,
        /// The zone.
        zone: ZoneId,
    },
}

impl AssociationScope {
    /// The owner.
    pub const fn account(self) -> AccountId {
        match self {
            Self::Account(account) | Self::Zone { account, .. } => account,
        }
    }
}

/// The hostnames last set for a CA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    /// In the order in which they were given.
    pub hosts: Vec<HostPattern>,
}

impl Record for Association {
    const TABLE: TableName = TableName::Associations;
}
