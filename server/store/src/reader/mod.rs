//! Reading: a snapshot of the ledger that never changes and never waits for a writer.
//!
//! `point` reads one record by a key or an index, `list` holds the paged lists, `page` their engine,
//! `log` the change log and the audit, `lapsing` the devices about to be lost. Nothing here scans a table
//! that grows with the fleet, but for filtered lists, which stop after a stated number of rows and hand
//! out a cursor to go on, and `lapsing`, which stops there too.

mod lapsing;
mod list;
mod log;
pub(crate) mod page;
mod point;

use std::sync::{Arc, OnceLock};

use redb::{ReadOnlyTable, ReadTransaction};

use crate::codec;
use crate::tables::{Record, TableName};
use crate::transaction::Fault;

pub use lapsing::{Lapsing, LapsingDevice};
pub use list::{CertificateFilter, DeviceFilter, TokenFilter};
pub use log::AuditFilter;
pub use page::{Cursor, CursorError, PER_PAGE_MAX, Page, Paging, SCAN_MAX, Total};

/// A table of a snapshot.
pub(crate) type SnapshotTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// What one redb transaction sees, and the tables that were looked into.
pub(crate) struct Snapshot {
    transaction: ReadTransaction,
    tables: [OnceLock<SnapshotTable>; TableName::COUNT],
}

impl Snapshot {
    pub(crate) const fn new(transaction: ReadTransaction) -> Self {
        Self { transaction, tables: [const { OnceLock::new() }; TableName::COUNT] }
    }

    fn open(&self, table: TableName) -> Result<SnapshotTable, Fault> {
        Ok(self.transaction.open_table(table.definition())?)
    }

    fn table(&self, table: TableName) -> Result<&SnapshotTable, Fault> {
        let slot = self.tables.get(table.slot()).ok_or(Fault::NotOpen)?;
        match slot.get() {
            Some(open) => Ok(open),
            None => {
                let open = self.open(table)?;
                Ok(slot.get_or_init(|| open))
            }
        }
    }
}

/// A snapshot of everything at one moment.
pub struct Reader {
    snapshot: Arc<Snapshot>,
}

impl Reader {
    pub(crate) const fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot }
    }

    pub(crate) fn table(&self, table: TableName) -> Result<SnapshotTable, Fault> {
        self.snapshot.open(table)
    }

    fn get<R: Record>(&self, key: &[u8]) -> Result<Option<R>, Fault> {
        match self.snapshot.table(R::TABLE)?.get(key)? {
            Some(value) => codec::decode(R::TABLE, value.value()).map(Some),
            None => Ok(None),
        }
    }

    fn get_raw(&self, table: TableName, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.snapshot.table(table)?.get(key)?.map(|value| value.value().to_vec()))
    }

    /// Every record of a table that is small by nature, in the order of its keys.
    fn all<R: Record>(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, R)>, Fault> {
        let mut records = Vec::new();
        for row in page::range(&self.table(R::TABLE)?, prefix)? {
            let (key, value) = row?;
            records.push((key.value().to_vec(), codec::decode(R::TABLE, value.value())?));
        }
        Ok(records)
    }
}

impl core::fmt::Debug for Reader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}
