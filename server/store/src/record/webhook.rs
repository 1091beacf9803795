//! Who is told of changes over HTTP, how far each has come, and what could not be delivered.
//!
//! The key that deliveries are signed with is no record: it is made of a secret in a file of its own.

use std::collections::BTreeSet;

use muster_policy::identity::{AccountId, WebhookId};
use muster_policy::name::Title;
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::tables::{Record, TableName};

/// A receiver of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its id; sorts by age.
    pub id: WebhookId,
    /// Its owner.
    pub account: AccountId,
    /// What people call it.
    pub name: Title,
    /// Where events are sent to.
    pub url: String,
    /// Which events are sent; empty for all.
    pub events: BTreeSet<String>,
    /// When it was made.
    pub created_at: UnixTime,
}

impl Record for Webhook {
    const TABLE: TableName = TableName::Webhooks;
}

/// How far a webhook has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookProgress {
    /// The last change that was delivered, given up, or is none of its events.
    pub change: u64,
    /// Deliveries that were taken.
    pub delivered: u64,
    /// Deliveries that were given up.
    pub given_up: u64,
    /// When the last delivery was taken.
    pub delivered_at: Option<UnixTime>,
}

impl Record for WebhookProgress {
    const TABLE: TableName = TableName::WebhookProgress;
}

/// A delivery that was given up. What it said is read from the change log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The first change of the delivery.
    pub first: u64,
    /// The last one; numbers the letter.
    pub last: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last try failed.
    pub why: String,
    /// When it was given up.
    pub at: UnixTime,
}

impl Record for DeadLetter {
    const TABLE: TableName = TableName::DeadLetters;
}
