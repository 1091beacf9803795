//! The tasks that follow the change log: one for each webhook, and one that starts and ends them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use muster_policy::identity::WebhookId;
use muster_store::Error as LedgerError;
use muster_store::act::{Delivered, NoteDelivery, Rejected};
use muster_store::record::{Change, DeadLetter, Webhook};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{BATCH_MAX, Letter};
use crate::Api;
use crate::error::ApiError;
use crate::outbound::Failed;

/// How far behind a receiver may be, in changes; beyond, it is told so and goes on with the newest.
const LAG_MAX: u64 = 100_000;
/// Changes that are none of a webhook's events before its place is stored anew.
const SILENT_STEP: u64 = 10_000;
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// How long a task waits when the ledger can't be used.
const LEDGER_PAUSE: Duration = Duration::from_secs(5);

/// Delivers events to all webhooks until `stop`.
pub async fn deliver_webhooks(api: Arc<Api>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let mut running: HashMap<WebhookId, CancellationToken> = HashMap::new();
    loop {
        let account = api.registrar().account();
        match api.read(move |reader| reader.webhooks(account)).await {
            Ok(webhooks) => {
                running.retain(|id, stop| {
                    let kept = webhooks.iter().any(|webhook| webhook.id == *id);
                    if !kept {
                        stop.cancel();
                    }
                    kept
                });
                for webhook in webhooks {
                    running.entry(webhook.id).or_insert_with(|| {
                        let stop = stop.child_token();
                        let follower = Follower { api: Arc::clone(&api), webhook, stop: stop.clone() };
                        tasks.spawn(follower.run());
                        stop
                    });
                }
            }
            Err(_) => pause(LEDGER_PAUSE, &stop).await,
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = api.webhooks().changed.notified() => {}
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// The changes of a dead letter, as a letter; none when they are gone.
pub(crate) async fn read_letter(
    api: &Api,
    webhook: &Webhook,
    letter: &DeadLetter,
) -> Result<Option<Letter>, ApiError> {
    let (since, last) = (letter.first.saturating_sub(1), letter.last);
    if last.saturating_sub(since) > LAG_MAX {
        return Ok(Some(Letter::lagged(webhook, letter.first, last)));
    }
    let step = usize::try_from(last.saturating_sub(since)).unwrap_or(usize::MAX);
    let changes = api.read(move |reader| reader.changes_since(since, step)).await?;
    let changes: Vec<Change> = changes.into_iter().filter(|change| change.number <= last).collect();
    Ok(Letter::of_changes(webhook, &changes))
}

struct Follower {
    api: Arc<Api>,
    webhook: Webhook,
    stop: CancellationToken,
}

/// A run of changes that is to be delivered.
struct Run {
    first: u64,
    last: u64,
    letter: Option<Letter>,
}

impl Follower {
    async fn run(self) {
        let mut changes = self.api.registrar().ledger().newest_change();
        let (account, id) = (self.webhook.account, self.webhook.id);
        let Some(mut at) = self.place(account, id).await else { return };
        let mut stored = at;
        while !self.stop.is_cancelled() {
            let newest = *changes.borrow_and_update();
            if newest == at {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
                continue;
            }
            let Some(run) = self.read(at, newest).await else { continue };
            let outcome = match &run.letter {
                None => None,
                Some(letter) => match self.deliver(&run, letter).await {
                    Some(outcome) => Some(outcome),
                    // Stopped in between: it is delivered again from its start.
                    None => return,
                },
            };
            at = run.last;
            if outcome.is_none() && at.saturating_sub(stored) < SILENT_STEP {
                continue;
            }
            if !self.note(at, outcome).await {
                return;
            }
            stored = at;
        }
    }

    /// Where it was; none when the webhook is gone.
    async fn place(&self, account: muster_policy::identity::AccountId, id: WebhookId) -> Option<u64> {
        loop {
            match self.api.read(move |reader| reader.webhook(account, id)).await {
                Ok(found) => return found.map(|(_, progress)| progress.change),
                Err(_) if self.stop.is_cancelled() => return None,
                Err(_) => pause(LEDGER_PAUSE, &self.stop).await,
            }
        }
    }

    /// The next changes; none when the ledger can't be read now.
    async fn read(&self, at: u64, newest: u64) -> Option<Run> {
        if at > newest || newest.saturating_sub(at) > LAG_MAX {
            // Far behind, or an older ledger was restored.
            let first = at.saturating_add(1).min(newest);
            return Some(Run {
                first,
                last: newest,
                letter: Some(Letter::lagged(&self.webhook, first, newest)),
            });
        }
        match self.api.read(move |reader| reader.changes_since(at, BATCH_MAX)).await {
            Ok(changes) => {
                let (first, last) = (changes.first()?.number, changes.last()?.number);
                Some(Run { first, last, letter: Letter::of_changes(&self.webhook, &changes) })
            }
            Err(_) => {
                pause(LEDGER_PAUSE, &self.stop).await;
                None
            }
        }
    }

    /// Tries until it is taken or given up; none when stopped.
    async fn deliver(&self, run: &Run, letter: &Letter) -> Option<Delivered> {
        let settings = &self.api.webhooks().settings;
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(settings.first_pause)
            .with_factor(4.0)
            .with_max_delay(PAUSE_MAX)
            .with_jitter()
            .with_max_times(usize::try_from(settings.attempts.saturating_sub(1)).unwrap_or(0))
            .build();
        let mut attempts = 0_u32;
        loop {
            let sent = tokio::select! {
                () = self.stop.cancelled() => return None,
                sent = self.api.webhooks().send(&self.webhook, letter, self.api.now()) => sent,
            };
            attempts = attempts.saturating_add(1);
            let failed: Failed = match sent {
                Ok(_) => return Some(Delivered::Taken),
                Err(failed) => failed,
            };
            let again = match failed {
                // What the operator denies stays so; it is seen the sooner.
                Failed::Denied(_) => None,
                _ => pauses.next(),
            };
            match again {
                Some(span) => pause(span, &self.stop).await,
                None => {
                    tracing::warn!(webhook = %self.webhook.id, %failed, "a delivery was given up");
                    return Some(Delivered::GivenUp(DeadLetter {
                        first: run.first,
                        last: run.last,
                        attempts,
                        why: failed.to_string(),
                        at: self.api.now(),
                    }));
                }
            }
        }
    }

    /// Stores the place; false when the webhook is gone, or it stopped.
    async fn note(&self, change: u64, outcome: Option<Delivered>) -> bool {
        loop {
            let (account, webhook, now) = (self.webhook.account, self.webhook.id, self.api.now());
            let note = NoteDelivery { account, webhook, change, outcome: outcome.clone(), now };
            match self.api.registrar().ledger().transact(note).await {
                Ok(()) => return true,
                Err(LedgerError::Refused(Rejected::WebhookUnknown)) => return false,
                Err(error) => tracing::warn!(%error, webhook = %self.webhook.id, "its place can't be stored"),
            }
            if self.stop.is_cancelled() {
                return false;
            }
            pause(LEDGER_PAUSE, &self.stop).await;
        }
    }
}

async fn pause(span: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(span) => {}
    }
}
