//! Accounts, their zones, and how much an account has.

use muster_policy::identity::{AccountId, ZoneId};
use muster_policy::name::{Hostname, Title, TrustDomain};
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::tables::{Record, TableName};

/// The owner of zones, CAs and devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// What people call it.
    pub name: Title,
    /// The trust domain of its devices' SPIFFE ids.
    pub trust_domain: TrustDomain,
    /// When it was made.
    pub created_at: UnixTime,
}

/// A DNS domain of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its id.
    pub id: ZoneId,
    /// Its owner.
    pub account: AccountId,
    /// The domain; in one zone only, whatever the account, because SNI knows no accounts.
    pub name: Hostname,
    /// When it was added.
    pub created_at: UnixTime,
}

/// How many of each an account has; kept with every change, so that totals need no scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Stored certificates, whatever their status.
    pub certificates: u64,
    /// Stored certificates that are revoked.
    pub certificates_revoked: u64,
    /// Active devices.
    pub devices_active: u64,
    /// Retired devices.
    pub devices_retired: u64,
    /// Suspended devices.
    pub devices_suspended: u64,
    /// Stored tokens, whatever their state.
    pub tokens: u64,
    /// Requests that wait for a person.
    pub waiting: u64,
}

impl Record for Account {
    const TABLE: TableName = TableName::Accounts;
}

impl Record for Zone {
    const TABLE: TableName = TableName::Zones;
}

impl Record for Counters {
    const TABLE: TableName = TableName::Counters;
}
