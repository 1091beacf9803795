//! Webhooks: others are told of changes by POST, signed as Standard Webhooks 1.0 says.
//!
//! A delivery is a run of changes of the change log, so nothing is queued: each webhook has a place in
//! the log, kept in the ledger, and goes on from there after a restart. It is delivered in order and at
//! least once; what can't be delivered is tried again with growing pauses, then given up as a dead
//! letter that can be delivered later. What the operator denies is given up at once. `send` is the HTTP,
//! `follow` the tasks.

mod follow;
mod send;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_policy::identity::WebhookId;
use muster_policy::time::UnixTime;
use muster_store::record::{Change, Webhook};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use zeroize::Zeroizing;

pub use self::follow::deliver_webhooks;
pub(crate) use self::follow::read_letter;
use self::send::Sender;
use crate::error::ApiError;
use crate::events::{self, EventView};
use crate::outbound::{Failed, Outbound, PlainHttp};

/// Most changes of one delivery.
pub(crate) const BATCH_MAX: usize = 100;

/// What the server around it gives for webhooks.
#[derive(Clone)]
pub struct WebhookSettings {
    /// The keys that deliveries are signed with are made of it; whoever has it can sign as this server.
    pub secret: Zeroizing<Vec<u8>>,
    /// The pause after the first failure; each next one is four times as long, up to an hour.
    pub first_pause: Duration,
    /// How often a delivery is tried in all.
    pub attempts: u32,
}

/// What webhooks work with.
pub(crate) struct Webhooks {
    settings: WebhookSettings,
    sender: Sender,
    /// Told when a webhook was made or removed.
    changed: Notify,
}

impl Webhooks {
    pub(crate) fn new(settings: WebhookSettings, outbound: Arc<Outbound>) -> Self {
        Self { settings, sender: Sender(outbound), changed: Notify::new() }
    }

    /// Starts the deliveries to a new one, or ends those to one that is gone.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// The key of a webhook as its receiver is given it.
    pub(crate) fn shown_secret(&self, id: WebhookId) -> String {
        format!("whsec_{}", STANDARD.encode(self.key(id).as_slice()))
    }

    fn key(&self, id: WebhookId) -> Zeroizing<Vec<u8>> {
        let master = hmac::Key::new(hmac::HMAC_SHA256, &self.settings.secret);
        Zeroizing::new(hmac::sign(&master, id.as_bytes()).as_ref().to_vec())
    }

    /// Checks where events shall be sent to.
    pub(crate) fn check_url(&self, text: &str) -> Result<(), ApiError> {
        self.sender.0.check_url(text, PlainHttp::Loopback)
    }

    /// Sends a text once, signed.
    pub(crate) async fn send(&self, webhook: &Webhook, letter: &Letter, at: UnixTime) -> Result<u16, Failed> {
        let stamp = at.as_secs().to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key(webhook.id));
        let mut context = hmac::Context::with_key(&key);
        for part in [&letter.id, ".", &stamp, ".", &letter.body] {
            context.update(part.as_bytes());
        }
        let signature = format!("v1,{}", STANDARD.encode(context.sign()));
        self.sender.post(&webhook.url, &letter.id, &stamp, &signature, letter.body.clone()).await
    }
}

/// One delivery: its id is the same at each try, so that a receiver can tell a repeat.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    id: String,
    body: String,
}

#[derive(Serialize)]
struct Body<'a> {
    webhook: WebhookId,
    /// Changes that were passed over because the receiver was too far behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    lagged: Option<Value>,
    events: &'a [EventView],
}

impl Letter {
    /// Of a run of changes; none when no event of the webhook is among them.
    pub(crate) fn of_changes(webhook: &Webhook, changes: &[Change]) -> Option<Self> {
        let wanted = |change: &&Change| {
            change.account.is_none_or(|account| account == webhook.account)
                && (webhook.events.is_empty() || webhook.events.contains(&events::name(&change.kind)))
        };
        let views: Vec<EventView> = changes.iter().filter(wanted).map(EventView::new).collect();
        let (first, last) = (views.first()?.number, views.last()?.number);
        Some(Self::new(webhook, &format!("{first}-{last}"), None, &views))
    }

    /// Says that changes were passed over.
    pub(crate) fn lagged(webhook: &Webhook, from: u64, to: u64) -> Self {
        let lagged = Some(json!({ "from": from, "to": to }));
        Self::new(webhook, &format!("{from}-{to}"), lagged, &[])
    }

    /// Without events, to see whether it arrives.
    pub(crate) fn test(webhook: &Webhook, request_id: &str) -> Self {
        Self::new(webhook, &format!("test-{request_id}"), None, &[])
    }

    fn new(webhook: &Webhook, name: &str, lagged: Option<Value>, events: &[EventView]) -> Self {
        let body = Body { webhook: webhook.id, lagged, events };
        // Text and numbers in a tree: serialising it can't fail.
        let body = serde_json::to_string(&body).unwrap_or_default();
        Self { id: format!("{}-{name}", webhook.id), body }
    }
}
