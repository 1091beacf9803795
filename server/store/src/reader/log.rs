//! The change log and the audit.

use muster_policy::identity::AccountId;
use muster_policy::name::DeviceId;

use crate::audit::{self, AuditBreak, AuditHead, AuditVerified};
use crate::codec;
use crate::keys;
use crate::reader::page::{List, Order, Reach, between};
use crate::reader::{Page, Paging, Reader};
use crate::record::{Action, AuditEntry, Change};
use crate::tables::{META_AUDIT_HEAD, META_NEWEST_CHANGE, TableName};
use crate::transaction::Fault;

/// Which entries of the audit are wanted; none means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only those of this account.
    pub account: Option<AccountId>,
    /// Only those of this action.
    pub action: Option<Action>,
    /// Only those about this device.
    pub device: Option<DeviceId>,
}

impl Reader {
    /// The number of the newest change; 0 when there is none yet.
    ///
    /// # Errors
    /// When the file can't be read, or a record is broken.
    pub fn newest_change(&self) -> Result<u64, Fault> {
        Ok(self.meta(META_NEWEST_CHANGE)?.unwrap_or(0))
    }

    /// The changes after number `since`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// See [`Reader::newest_change`].
    pub fn changes_since(&self, since: u64, limit: usize) -> Result<Vec<Change>, Fault> {
        let table = self.table(TableName::Changes)?;
        let mut changes = Vec::new();
        for row in between(&table, &keys::number(since.saturating_add(1)), None)?.take(limit) {
            let (_, value) = row?;
            changes.push(codec::decode(TableName::Changes, value.value())?);
        }
        Ok(changes)
    }

    /// The audit, newest first.
    ///
    /// # Errors
    /// See [`Reader::newest_change`].
    pub fn audit(&self, filter: &AuditFilter, paging: &Paging) -> Result<Page<AuditEntry>, Fault> {
        let wanted = |_: &[u8], value: &[u8]| {
            let entry = audit::entry(value)?;
            Ok(filter.account.is_none_or(|account| entry.subjects.account == Some(account))
                && filter.action.is_none_or(|action| entry.action == action)
                && (filter.device.is_none() || entry.subjects.device == filter.device))
        };
        let unfiltered = *filter == AuditFilter::default();
        List {
            table: self.table(TableName::Audit)?,
            prefix: Vec::new(),
            order: Order::Descending,
            length: unfiltered.then_some(self.audit_head()?.count),
            filter: (!unfiltered).then_some((&wanted, Reach::RECORDS)),
            load: &|_, value| audit::entry(value).map(Some),
        }
        .page(paging)
    }

    /// Verifies the whole chain of the audit, entry by entry.
    ///
    /// # Errors
    /// When the file can't be read. A broken chain is the inner error.
    pub fn verify_audit(&self) -> Result<Result<AuditVerified, AuditBreak>, Fault> {
        let mut verifier = audit::Verifier::default();
        for row in between(&self.table(TableName::Audit)?, &[], None)? {
            let (key, value) = row?;
            let number = keys::number_of(key.value()).unwrap_or(0);
            if let Err(broken) = verifier.feed(number, value.value()) {
                return Ok(Err(broken));
            }
        }
        Ok(verifier.finish(&self.audit_head()?))
    }

    pub(crate) fn audit_head(&self) -> Result<AuditHead, Fault> {
        Ok(self.meta(META_AUDIT_HEAD)?.unwrap_or_default())
    }

    pub(crate) fn meta<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Fault> {
        match self.table(TableName::Meta)?.get(name.as_bytes())? {
            Some(value) => codec::decode(TableName::Meta, value.value()).map(Some),
            None => Ok(None),
        }
    }
}
