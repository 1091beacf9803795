//! Webhooks: made, removed, and what became of their deliveries.
//!
//! Deliveries leave no change, else each would be an event that has to be delivered.

use muster_policy::identity::{AccountId, WebhookId};
use muster_policy::time::UnixTime;

use crate::act::{By, Rejected, audit};
use crate::keys;
use crate::record::{Action, ChangeKind, DeadLetter, Subjects, Webhook, WebhookProgress};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// Most webhooks of an account.
pub const WEBHOOKS_MAX: usize = 32;
/// Most dead letters of a webhook; beyond, the oldest are dropped.
pub const DEAD_LETTERS_MAX: usize = 1_000;

/// Makes a webhook; it is told of what happens from now on.
#[derive(Clone, Debug)]
pub struct AddWebhook {
    /// The webhook.
    pub webhook: Webhook,
    /// Who makes it.
    pub by: By,
}

impl Transaction for AddWebhook {
    const NAME: &'static str = "add_webhook";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let Webhook { id, account, .. } = self.webhook;
        let prefix = keys::account(account);
        let end = keys::after(&prefix);
        let stored = tables.rows(TableName::Webhooks, &prefix, end.as_deref(), WEBHOOKS_MAX)?;
        if stored.len() >= WEBHOOKS_MAX {
            return Err(Failed::Refused(Rejected::TooMany { max: WEBHOOKS_MAX }));
        }
        let key = keys::webhook(account, id);
        tables.put(&key, &self.webhook)?;
        log(tables, &self.by, Action::WebhookAdded, account, id)?;
        let newest: u64 = tables.newest_change()?;
        tables.put(&key, &WebhookProgress { change: newest, ..WebhookProgress::default() })?;
        Ok(())
    }
}

/// Removes a webhook with its dead letters.
#[derive(Clone, Debug)]
pub struct RemoveWebhook {
    /// The owner.
    pub account: AccountId,
    /// The webhook.
    pub webhook: WebhookId,
    /// Who removes it.
    pub by: By,
}

impl Transaction for RemoveWebhook {
    const NAME: &'static str = "remove_webhook";
    type Output = Webhook;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Webhook, Failed<Rejected>> {
        let key = keys::webhook(self.account, self.webhook);
        let Some(webhook) = tables.get::<Webhook>(&key)? else {
            return Err(Failed::Refused(Rejected::WebhookUnknown));
        };
        tables.remove(TableName::Webhooks, &key)?;
        tables.remove(TableName::WebhookProgress, &key)?;
        for (letter, _) in
            tables.rows(TableName::DeadLetters, &key, keys::after(&key).as_deref(), usize::MAX)?
        {
            tables.remove(TableName::DeadLetters, &letter)?;
        }
        log(tables, &self.by, Action::WebhookRemoved, self.account, self.webhook)?;
        Ok(webhook)
    }
}

/// Notes how far a webhook has come.
#[derive(Clone, Debug)]
pub struct NoteDelivery {
    /// The owner.
    pub account: AccountId,
    /// The webhook.
    pub webhook: WebhookId,
    /// The last change that is dealt with.
    pub change: u64,
    /// What became of the delivery that led there; none when there was nothing to deliver.
    pub outcome: Option<Delivered>,
    /// Now.
    pub now: UnixTime,
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It was given up.
    GivenUp(DeadLetter),
    /// It was taken.
    Taken,
}

impl Transaction for NoteDelivery {
    const NAME: &'static str = "note_delivery";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let key = keys::webhook(self.account, self.webhook);
        let Some(mut progress) = tables.get::<WebhookProgress>(&key)? else {
            return Err(Failed::Refused(Rejected::WebhookUnknown));
        };
        progress.change = self.change;
        match &self.outcome {
            None => {}
            Some(Delivered::Taken) => {
                progress.delivered = progress.delivered.saturating_add(1);
                progress.delivered_at = Some(self.now);
            }
            Some(Delivered::GivenUp(letter)) => {
                progress.given_up = progress.given_up.saturating_add(1);
                tables.put(&keys::dead_letter(self.account, self.webhook, letter.last), letter)?;
                let kept = tables.rows(
                    TableName::DeadLetters,
                    &key,
                    keys::after(&key).as_deref(),
                    DEAD_LETTERS_MAX.saturating_add(1),
                )?;
                if let (true, Some((oldest, _))) = (kept.len() > DEAD_LETTERS_MAX, kept.first()) {
                    tables.remove(TableName::DeadLetters, oldest)?;
                }
            }
        }
        tables.put(&key, &progress)?;
        Ok(())
    }
}

/// Removes a dead letter: it was delivered after all, or nobody wants it.
#[derive(Clone, Debug)]
pub struct RemoveDeadLetter {
    /// The owner.
    pub account: AccountId,
    /// The webhook.
    pub webhook: WebhookId,
    /// The letter's last change.
    pub letter: u64,
    /// Who removes it.
    pub by: By,
}

impl Transaction for RemoveDeadLetter {
    const NAME: &'static str = "remove_dead_letter";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let key = keys::dead_letter(self.account, self.webhook, self.letter);
        if tables.get::<DeadLetter>(&key)?.is_none() {
            return Err(Failed::Refused(Rejected::DeadLetterUnknown));
        }
        tables.remove(TableName::DeadLetters, &key)?;
        let subjects = Subjects { account: Some(self.account), ..Subjects::default() };
        let details = Some(format!("{} {}", self.webhook, self.letter));
        audit(tables, &self.by, Action::DeadLetterRemoved, subjects, details)?;
        Ok(())
    }
}

fn log(
    tables: &mut Tables<'_>,
    by: &By,
    action: Action,
    account: AccountId,
    webhook: WebhookId,
) -> Result<(), Fault> {
    tables.change(by.at, Some(account), ChangeKind::WebhookSet(webhook))?;
    let subjects = Subjects { account: Some(account), ..Subjects::default() };
    audit(tables, by, action, subjects, Some(webhook.to_string()))
}
