//! Enrollment tokens and admin tokens, kept as hashes.

use std::collections::BTreeSet;

use muster_policy::identity::{AccountId, KeyFingerprint, SecretHash, TokenId};
use muster_policy::name::{DeviceId, Label, Title};
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::record::Permission;
use crate::tables::{Record, TableName};

/// What lets a device enroll the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id; sorts by age.
    pub id: TokenId,
    /// Its owner.
    pub account: AccountId,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
    /// The device it is for; none makes it a claim token, for any device.
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// The only key it certifies.
    #[serde(default)]
    pub key: Option<KeyFingerprint>,
    /// The only profile it can be used with.
    #[serde(default)]
    pub profile: Option<Label>,
    /// How many certificates it is good for.
    pub uses_allowed: u32,
    /// Reserved and used uses; never above `uses_allowed`.
    pub uses_taken: u32,
    /// How many requests by it wait for a person; none of them has a use reserved.
    #[serde(default)]
    pub waiting: u32,
    /// When it ends.
    pub expires_at: UnixTime,
    /// Set once it is revoked.
    #[serde(default)]
    pub revoked_at: Option<UnixTime>,
    /// When it was made.
    pub created_at: UnixTime,
    /// When a use was last reserved.
    #[serde(default)]
    pub last_used_at: Option<UnixTime>,
}

/// What a token is worth at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    /// It can be used.
    Active,
    /// Past its end.
    Expired,
    /// Revoked.
    Revoked,
    /// No uses are left.
    Used,
}

impl Token {
    /// What it is worth at `now`.
    pub fn state(&self, now: UnixTime) -> TokenState {
        if self.revoked_at.is_some() {
            TokenState::Revoked
        } else if self.expires_at <= now {
            TokenState::Expired
        } else if self.uses_taken >= self.uses_allowed {
            TokenState::Used
        } else {
            TokenState::Active
        }
    }

    /// Why it can't be used at `now` by `device`; none when it can.
    pub fn refusal(&self, now: UnixTime, device: &DeviceId) -> Option<Reason> {
        if self.device.as_ref().is_some_and(|bound| bound != device) {
            return Some(Reason::CredentialsWrong);
        }
        match self.state(now) {
            TokenState::Active => None,
            TokenState::Expired => Some(Reason::TokenExpired),
            TokenState::Revoked => Some(Reason::TokenRevoked),
            TokenState::Used => Some(Reason::TokenUsed),
        }
    }
}

/// What an admin token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AdminRole {
    /// Everything.
    Admin,
    /// Reading only.
    Reader,
}

/// What lets a person or program use the admin API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminToken {
    /// Its id; sorts by age.
    pub id: TokenId,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
    /// What people call it.
    pub name: Title,
    /// What it may do.
    pub role: AdminRole,
    /// The only things it may do, within its role; none when the role alone decides.
    #[serde(default)]
    pub permissions: Option<BTreeSet<Permission>>,
    /// When it was made.
    pub created_at: UnixTime,
    /// When it ends, if ever.
    #[serde(default)]
    pub expires_at: Option<UnixTime>,
    /// Set once it is revoked.
    #[serde(default)]
    pub revoked_at: Option<UnixTime>,
}

impl AdminToken {
    /// Whether it can be used at `now`.
    pub fn is_good(&self, now: UnixTime) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

impl Record for Token {
    const TABLE: TableName = TableName::Tokens;
}

impl Record for AdminToken {
    const TABLE: TableName = TableName::AdminTokens;
}
