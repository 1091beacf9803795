//! The counters per account, from the records themselves.

use std::collections::BTreeMap;

use muster_policy::identity::AccountId;

use crate::act::devices;
use crate::codec;
use crate::keys;
use crate::record::{Counters, Device};
use crate::tables::{Row, TableName, Tables};
use crate::transaction::Fault;

/// Rows read at a time.
const STEP: usize = 1_000;

/// Counts everything anew and replaces the counters.
pub(crate) fn recount(tables: &mut Tables<'_>) -> Result<(), Fault> {
    let mut recount = Recount::default();
    for table in Recount::TABLES {
        let mut from = Vec::new();
        loop {
            let rows = tables.rows(table, &from, None, STEP)?;
            for (key, value) in &rows {
                recount.feed(table, key, value)?;
            }
            let Some((last, _)): Option<Row> = rows.into_iter().next_back() else { break };
            from = last;
            from.push(0);
        }
    }
    for (account, counters) in recount.counters {
        tables.put(&keys::account(account), &counters)?;
    }
    Ok(())
}

/// Counts rows as they come by.
#[derive(Default)]
pub(crate) struct Recount {
    pub(crate) counters: BTreeMap<AccountId, Counters>,
}

impl Recount {
    /// The tables that are counted.
    pub(crate) const TABLES: [TableName; 5] = [
        TableName::Certificates,
        TableName::Devices,
        TableName::Revoked,
        TableName::Tokens,
        TableName::Waiting,
    ];

    /// Counts a row of one of the [`Recount::TABLES`]; their keys start with the account.
    pub(crate) fn feed(&mut self, table: TableName, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let Some(account) = key.first_chunk::<16>() else {
            return Err(Fault::Corrupt {
                table: table.as_str(),
                what: "a key is shorter than an account id".to_owned(),
            });
        };
        let counters = self.counters.entry(AccountId::from_bytes(*account)).or_default();
        let number = match table {
            TableName::Certificates => &mut counters.certificates,
            TableName::Revoked => &mut counters.certificates_revoked,
            TableName::Tokens => &mut counters.tokens,
            TableName::Waiting => &mut counters.waiting,
            TableName::Devices => devices::counter(counters, codec::decode::<Device>(table, value)?.status),
            _ => return Ok(()),
        };
        *number = number.saturating_add(1);
        Ok(())
    }
}
