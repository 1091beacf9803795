//! Start-up: intents that a crash left behind are released.
//!
//! Their certificates were never answered. The serial may have been signed, so it goes to the audit.

use muster_policy::time::UnixTime;
use redb::Database;

use crate::act::By;
use crate::act::issue::release;
use crate::codec;
use crate::record::{Action, Intent};
use crate::tables::{TableName, Tables};
use crate::transaction::Fault;

/// Intents released in one transaction.
const STEP: usize = 1_000;

/// Releases every intent; nothing can be in progress while a ledger is being opened.
pub(crate) fn release_interrupted(database: &Database, now: UnixTime) -> Result<(), Fault> {
    loop {
        let transaction = database.begin_write()?;
        let mut tables = Tables::new(&transaction);
        let rows = tables.rows(TableName::Intents, &[], None, STEP)?;
        if rows.is_empty() {
            drop(tables);
            transaction.abort()?;
            return Ok(());
        }
        for (_, value) in &rows {
            let intent: Intent = codec::decode(TableName::Intents, value)?;
            release(&mut tables, &By::system(now), &intent, Action::IssueInterrupted, None)?;
        }
        tables.finish()?;
        transaction.commit()?;
        tracing::warn!(count = rows.len(), "issuances cut off by a crash were released");
    }
}
