//! Hostnames and what the edge demands at their doors.

use muster_policy::host::HostRule;
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::tables::{Record, TableName};

/// A hostname of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its rule.
    pub rule: HostRule,
    /// When it was first set.
    pub created_at: UnixTime,
    /// When it was last changed.
    pub changed_at: UnixTime,
}

impl Record for Host {
    const TABLE: TableName = TableName::Hosts;
}
