//! The schema gate: which version a file has, and the steps that bring an older one up to date.
//!
//! The version is a number in `meta`. A file of a newer version is refused, an older one goes through
//! every step between, all in one transaction: after a crash it is the old file still. A new field
//! with a default is no new version; a table, an index or a key that changes its meaning is.

use std::path::Path;

use redb::{Database, WriteTransaction};

use crate::act::{devices, recount, requests};
use crate::ledger::{OpenError, broken};
use crate::mark;
use crate::tables::{META_SCHEMA, TableName, Tables};
use crate::transaction::Fault;

/// The schema version that this program writes.
///
/// 1: records and indexes. 2: counters per account. 3: hostnames. 4: associations, client certificates
/// of zones, uploaded leaves, documents. 5: requests with idempotency keys, webhooks. 6: marks of certificates,
/// devices that are not active. 7: what origins of hostnames are shown. 8: what is revoked of certificates
/// that were issued elsewhere. 9: requests that wait, by token.
pub const SCHEMA_VERSION: u32 = 9;

/// One step: it turns a file of version `from` into one of version `from + 1`.
#[derive(Clone, Copy)]
pub(crate) struct Migration {
    pub(crate) from: u32,
    pub(crate) apply: fn(&mut Tables<'_>) -> Result<(), Fault>,
}

/// All steps, oldest first.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { from: 1, apply: recount::recount },
    // The table of hostnames is made with all that are missing.
    Migration { from: 2, apply: |_| Ok(()) },
    Migration { from: 3, apply: |_| Ok(()) },
    Migration { from: 4, apply: |_| Ok(()) },
    Migration { from: 5, apply: index_lists },
    Migration { from: 6, apply: |_| Ok(()) },
    Migration { from: 7, apply: |_| Ok(()) },
    Migration { from: 8, apply: requests::build_by_token },
];

/// Makes what lists with a filter walk.
fn index_lists(tables: &mut Tables<'_>) -> Result<(), Fault> {
    mark::build(tables)?;
    devices::build_inactive(tables)
}

/// Why a file was not migrated.
#[derive(Debug)]
pub(crate) enum MigrationError {
    /// The store failed, or has no version.
    Fault(Fault),
    /// It is of a version after the last step.
    Newer(u32),
    /// It is of a version before the first step.
    TooOld(u32),
}

impl<E: Into<Fault>> From<E> for MigrationError {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

impl MigrationError {
    pub(crate) fn at(self, path: &Path) -> OpenError {
        match self {
            Self::Fault(fault) => broken(path, &fault),
            Self::Newer(found) => {
                OpenError::NewerSchema { path: path.to_owned(), found, known: SCHEMA_VERSION }
            }
            Self::TooOld(found) => OpenError::Broken {
                path: path.to_owned(),
                what: format!("its schema {found} is older than any this program can migrate"),
            },
        }
    }
}

/// Writes the version and all tables into an empty file.
pub(crate) fn initialise(database: &Database) -> Result<(), Fault> {
    let transaction = database.begin_write()?;
    make_tables(&transaction)?;
    let mut tables = Tables::new(&transaction);
    tables.put_meta(META_SCHEMA, &SCHEMA_VERSION)?;
    tables.finish()?;
    transaction.commit()?;
    Ok(())
}

/// Brings a file to the version after the last of `steps`.
pub(crate) fn migrate(database: &Database, steps: &[Migration]) -> Result<(), MigrationError> {
    let transaction = database.begin_write().map_err(Fault::from)?;
    let mut tables = Tables::new(&transaction);
    let found: u32 = tables.meta(META_SCHEMA)?.ok_or_else(no_version)?;
    let current = steps.last().map_or(found, |step| step.from.saturating_add(1));
    if found == current {
        drop(tables);
        transaction.abort().map_err(Fault::from)?;
        return Ok(());
    }
    if found > current {
        return Err(MigrationError::Newer(found));
    }
    make_tables_but(&transaction, TableName::Meta)?;
    let mut version = found;
    for step in steps.iter().skip_while(|step| step.from < found) {
        if step.from != version {
            return Err(MigrationError::TooOld(found));
        }
        (step.apply)(&mut tables)?;
        version = version.saturating_add(1);
    }
    tables.put_meta(META_SCHEMA, &version)?;
    tables.finish()?;
    transaction.commit().map_err(Fault::from)?;
    tracing::info!(from = found, to = version, "the ledger was migrated");
    Ok(())
}

fn no_version() -> Fault {
    Fault::Corrupt { table: TableName::Meta.as_str(), what: "there is no schema version".to_owned() }
}

fn make_tables(transaction: &WriteTransaction) -> Result<(), Fault> {
    for table in TableName::ALL {
        transaction.open_table(table.definition())?;
    }
    Ok(())
}

/// A table that is open already can't be opened once more.
fn make_tables_but(transaction: &WriteTransaction, open: TableName) -> Result<(), Fault> {
    for table in TableName::ALL.iter().filter(|table| **table != open) {
        transaction.open_table(table.definition())?;
    }
    Ok(())
}
