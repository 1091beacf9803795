//! Accounts, their zones, and how much an account has.

use muster_policy::enrol::DeviceStatus;
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
    /// How its DNS is served; nothing here goes by it.
    #[serde(default)]
    pub kind: ZoneKind,
    /// While it is, the edge answers none of its hostnames.
    #[serde(default)]
    pub paused: bool,
    /// The names of its name servers, as its owner wants them told.
    #[serde(default)]
    pub vanity_name_servers: Vec<Hostname>,
    /// Whether origins are shown the zone's certificate, or the account's where the zone has none.
    #[serde(default)]
    pub shows_certificate: bool,
    /// When one of the fields above was last set.
    #[serde(default)]
    pub modified_at: Option<UnixTime>,
    /// How many client certificates made in it are stored; kept with every change.
    #[serde(default)]
    pub client_certificates: u64,
}

impl Zone {
    /// A zone of an account that begins now.
    pub const fn new(id: ZoneId, account: AccountId, name: Hostname, created_at: UnixTime) -> Self {
        Self {
            id,
            account,
            name,
            created_at,
            kind: ZoneKind::Full,
            paused: false,
            vanity_name_servers: Vec::new(),
            shows_certificate: false,
            modified_at: None,
            client_certificates: 0,
        }
    }
}

/// How a zone's DNS is served, in the words of the API we follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ZoneKind {
    /// Whole.
    #[default]
    Full,
    /// Inside only.
    Internal,
    /// By CNAMEs from elsewhere.
    Partial,
    /// As a copy.
    Secondary,
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

impl Counters {
    /// Devices, whatever their status.
    pub const fn devices(&self) -> u64 {
        self.devices_active.saturating_add(self.devices_retired).saturating_add(self.devices_suspended)
    }

    /// Devices of a status.
    pub const fn devices_of(&self, status: DeviceStatus) -> u64 {
        match status {
            DeviceStatus::Active => self.devices_active,
            DeviceStatus::Suspended => self.devices_suspended,
            DeviceStatus::Retired => self.devices_retired,
        }
    }
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
