//! Refusals in the audit, bounded: a flood of wrong requests must not fill the disk.

use core::convert::Infallible;
use core::time::Duration;

use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::act::{By, audit};
use crate::record::{Action, Actor, AuditDraft, Subjects};
use crate::tables::{META_REFUSALS, Tables};
use crate::transaction::{Failed, Transaction};

/// Most refusals the audit takes in an hour, of all accounts; at some 300 bytes each 72 MB a day.
pub const REFUSALS_PER_HOUR_MAX: u64 = 10_000;
const WINDOW: Duration = Duration::from_secs(3_600);

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalNote {
    /// When.
    pub at: UnixTime,
    /// Who was refused, as far as it was proven.
    pub actor: Actor,
    /// What it was about.
    pub subjects: Subjects,
    /// Why.
    pub reason: Reason,
    /// Bounded text for people; never a secret.
    pub details: Option<String>,
}

/// Writes refusals to the audit; best offered in batches with [`Ledger::offer`](crate::Ledger::offer).
///
/// Beyond [`REFUSALS_PER_HOUR_MAX`] they are only counted, and one entry tells how many.
#[derive(Clone, Debug)]
pub struct NoteRefusals {
    /// The refusals.
    pub refusals: Vec<RefusalNote>,
    /// How many more the caller had to leave out.
    pub omitted: u64,
    /// Now.
    pub now: UnixTime,
}

/// How far the current hour's budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Window {
    started_at: i64,
    written: u64,
    omitted: u64,
}

impl Transaction for NoteRefusals {
    const NAME: &'static str = "note_refusals";
    type Output = ();
    type Refused = Infallible;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Infallible>> {
        let mut window: Window = tables.meta(META_REFUSALS)?.unwrap_or_default();
        let end = UnixTime::from_secs(window.started_at).plus(WINDOW);
        // A clock set back starts a new window too; else refusals would go missing until it is back.
        if self.now >= end || self.now.as_secs() < window.started_at {
            if window.omitted > 0 {
                let details = Some(format!("omitted {}", window.omitted));
                let by = By::system(self.now);
                audit(tables, &by, Action::RefusalsOmitted, Subjects::default(), details)?;
            }
            window = Window { started_at: self.now.as_secs(), written: 0, omitted: 0 };
        }
        window.omitted = window.omitted.saturating_add(self.omitted);
        for note in &self.refusals {
            if window.written >= REFUSALS_PER_HOUR_MAX {
                window.omitted = window.omitted.saturating_add(1);
                continue;
            }
            window.written = window.written.saturating_add(1);
            tables.audit(AuditDraft {
                at: note.at,
                actor: note.actor.clone(),
                action: Action::Refused,
                subjects: note.subjects.clone(),
                reason: Some(note.reason),
                details: note.details.clone(),
            })?;
        }
        Ok(tables.put_meta(META_REFUSALS, &window)?)
    }
}
