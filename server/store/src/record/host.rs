//! Hostnames and what the edge demands at their doors.

use muster_policy::host::HostRule;
use muster_policy::name::Hostname;
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::tables::{Record, TableName};

/// A hostname of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its rule.
    pub rule: HostRule,
    /// How its `https://` origins are spoken to.
    #[serde(default)]
    pub origin_tls: OriginTls,
    /// When it was first set.
    pub created_at: UnixTime,
    /// When it was last changed.
    pub changed_at: UnixTime,
}

/// How the `https://` origins of a hostname are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OriginTls {
    /// The only CAs that may vouch for them, DER; empty for those that the machine trusts.
    pub cas: Vec<ByteBuf>,
    /// The name that their certificates must have; the host of the URL when not given.
    pub name: Option<Hostname>,
    /// Whether they are shown the account's outbound certificate.
    pub identify: bool,
}

impl Record for Host {
    const TABLE: TableName = TableName::Hosts;
}
