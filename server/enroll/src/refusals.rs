//! Refusals on their way to the audit.
//!
//! An attacker can cause refusals at will, so they must never hold up an answer, fill the memory or
//! fill the disk: they are gathered in a bounded buffer, written in batches by one task, and counted
//! where there are too many. The ledger bounds how many of them the audit takes in an hour.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_policy::identity::AccountId;
use muster_policy::name::DeviceId;
use muster_policy::reason::Refusal;
use muster_policy::time::UnixTime;
use muster_store::Ledger;
use muster_store::act::{NoteRefusals, RefusalNote};
use muster_store::record::{Actor, Subjects};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// Refusals kept until the next batch; the rest is counted.
const KEPT_MAX: usize = 1_000;
/// How long a refusal may wait before it is written.
const WRITE_INTERVAL: Duration = Duration::from_millis(500);

/// Refusals that are not written yet.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Gathered>);

#[derive(Default)]
struct Gathered {
    notes: Vec<RefusalNote>,
    omitted: u64,
}

impl Refusals {
    /// Takes one down; never waits.
    pub(crate) fn note(
        &self,
        account: AccountId,
        refusal: &Refusal,
        device: Option<DeviceId>,
        source: IpAddr,
        request: &str,
        at: UnixTime,
    ) {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gathered.notes.len() >= KEPT_MAX {
            gathered.omitted = gathered.omitted.saturating_add(1);
            return;
        }
        let detail = refusal.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
        gathered.notes.push(RefusalNote {
            at,
            actor: Actor::Anonymous,
            subjects: Subjects { account: Some(account), device, ..Subjects::default() },
            reason: refusal.reason,
            details: Some(format!("request {request} from {source} at {}{detail}", refusal.field)),
        });
    }

    /// Writes what was gathered, until stopped, and once more then.
    pub(crate) async fn write_until(&self, stop: &CancellationToken, ledger: &Ledger, clock: &Clock) {
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(WRITE_INTERVAL) => false,
            };
            self.write(ledger, clock).await;
            if stopped {
                return;
            }
        }
    }

    async fn write(&self, ledger: &Ledger, clock: &Clock) {
        let gathered = core::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if gathered.notes.is_empty() && gathered.omitted == 0 {
            return;
        }
        let count = gathered.notes.len();
        let note = NoteRefusals { refusals: gathered.notes, omitted: gathered.omitted, now: clock.now() };
        if let Err(error) = ledger.offer(note).await {
            tracing::warn!(%error, count, "refusals are missing from the audit");
            let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            gathered.omitted = gathered.omitted.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }
}
