//! The tables of the file, and the one way a transaction touches them.
//!
//! All tables map octets to octets; `keys` and `codec` give them meaning. [`Tables`] belongs to one
//! batch of the committer: it opens tables as they are needed, and keeps the numbers that every
//! transaction moves (audit head, newest change, counters) in memory until the batch is committed.

use std::collections::BTreeMap;

use muster_policy::identity::AccountId;
use muster_policy::time::UnixTime;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::audit::{self, AuditHead};
use crate::codec;
use crate::keys;
use crate::record::{AuditDraft, Change, ChangeKind, Counters};
use crate::transaction::Fault;

/// How a table is declared to redb.
pub(crate) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type OpenTable<'t> = Table<'t, &'static [u8], &'static [u8]>;
/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

// A table of alike names: variant, name in the file.
macro_rules! tables {
    ($($(#[$doc:meta])* $variant:ident, $name:literal;)*) => {
        /// The tables of the file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum TableName { $($(#[$doc])* $variant,)* }

        impl TableName {
            /// Every table there is.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];
            pub(crate) const COUNT: usize = Self::ALL.len();

            /// Its name in the file.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

tables! {
    /// account -> `Account`
    Accounts, "accounts";
    /// zone or account, ca or zeros -> `Association`
    Associations, "associations";
    /// secret hash -> admin token
    AdminTokenHashes, "admin-token-hashes";
    /// admin token -> `AdminToken`
    AdminTokens, "admin-tokens";
    /// number -> hash of the entry, JSON text
    Audit, "audit";
    /// ca -> `Ca`
    Cas, "cas";
    /// account, certificate -> `Mark`
    CertificateMarks, "certificate-marks";
    /// account, certificate -> `Certificate`
    Certificates, "certificates";
    /// number -> `Change`
    Changes, "changes";
    /// account -> `Counters`
    Counters, "counters";
    /// ca -> `CrlState`
    Crls, "crls";
    /// account, device, 0, certificate -> request
    DeviceCertificates, "device-certificates";
    /// account, device -> `Device`
    Devices, "devices";
    /// end, account, certificate -> nothing
    Expiry, "expiry";
    /// ca -> `ForeignCa`
    ForeignCas, "foreign-cas";
    /// ca -> `ForeignListDer`
    ForeignLists, "foreign-lists";
    /// ca, 0 and serial or 1 and fingerprint -> `ForeignRevoked`
    ForeignRevoked, "foreign-revoked";
    /// hostname or wildcard -> `Host`
    Hosts, "hosts";
    /// account, device that is not active -> octet of its status
    InactiveDevices, "inactive-devices";
    /// request -> `Intent`
    Intents, "intents";
    /// token, key -> `KeyedRequest`
    KeyedRequests, "keyed-requests";
    /// token, since, key -> nothing
    KeyedAges, "keyed-ages";
    /// token -> `KeyedUse`
    KeyedUses, "keyed-uses";
    /// account, manufacturer serial -> device id
    ManufacturerSerials, "manufacturer-serials";
    /// zone, hostname or wildcard -> `OriginPull`
    OriginPulls, "origin-pulls";
    /// account, leaf -> `OutboundLeaf`
    OutboundLeaves, "outbound-leaves";
    /// account, kind, id -> `Document`
    Documents, "documents";
    /// name -> whatever the name says
    Meta, "meta";
    /// account, label -> `ProfileWritten`
    Profiles, "profiles";
    /// time of the last state, request -> nothing
    RequestAges, "request-ages";
    /// request -> `Request`, while a person is concerned
    Requests, "requests";
    /// account, certificate -> `RevokedEntry`
    Revoked, "revoked";
    /// ca, serial -> account, certificate
    Serials, "serials";
    /// end, account, token -> nothing
    TokenExpiry, "token-expiry";
    /// secret hash -> account, token
    TokenHashes, "token-hashes";
    /// account, token, since, request -> nothing
    TokenWaiting, "token-waiting";
    /// account, token -> `Token`
    Tokens, "tokens";
    /// account, since, request -> nothing
    Waiting, "waiting";
    /// account, webhook -> `Webhook`
    Webhooks, "webhooks";
    /// account, webhook -> `WebhookProgress`
    WebhookProgress, "webhook-progress";
    /// account, webhook, last change -> `DeadLetter`
    DeadLetters, "dead-letters";
    /// zone, certificate -> `Mark`
    ZoneCertificates, "zone-certificates";
    /// hostname -> zone
    ZoneNames, "zone-names";
    /// zone -> `Zone`
    Zones, "zones";
}

impl TableName {
    pub(crate) const fn definition(self) -> Definition {
        TableDefinition::new(self.as_str())
    }

    /// Its place in declaration order, which is below `COUNT` by construction.
    #[expect(clippy::as_conversions, reason = "the discriminant of a fieldless enum")]
    pub(crate) const fn slot(self) -> usize {
        self as usize
    }
}

/// A record with a table of its own.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// Where it is kept.
    const TABLE: TableName;
}

/// The open tables of one batch.
pub struct Tables<'t> {
    transaction: &'t WriteTransaction,
    open: [Option<OpenTable<'t>>; TableName::COUNT],
    audit: Option<AuditHead>,
    newest_change: Option<u64>,
    counters: BTreeMap<AccountId, Counters>,
    /// Room for the bytes of a record, which redb copies into a page.
    encoded: Vec<u8>,
    job_wrote: bool,
    batch_wrote: bool,
    opened_intents: i64,
}

impl<'t> Tables<'t> {
    pub(crate) fn new(transaction: &'t WriteTransaction) -> Self {
        Self {
            transaction,
            open: [const { None }; TableName::COUNT],
            audit: None,
            newest_change: None,
            counters: BTreeMap::new(),
            encoded: Vec::new(),
            job_wrote: false,
            batch_wrote: false,
            opened_intents: 0,
        }
    }

    /// Marks the start of a transaction of the batch.
    pub(crate) const fn begin_job(&mut self) {
        self.job_wrote = false;
    }

    /// Whether the current transaction wrote anything.
    pub(crate) const fn job_wrote(&self) -> bool {
        self.job_wrote
    }

    /// Whether any transaction of the batch wrote anything.
    pub(crate) const fn batch_wrote(&self) -> bool {
        self.batch_wrote
    }

    /// How many more intents the batch stored than it took back.
    pub(crate) const fn opened_intents(&self) -> i64 {
        self.opened_intents
    }

    /// Notes that an intent was stored (1) or taken back (-1).
    pub(crate) const fn count_intent(&mut self, change: i64) {
        self.opened_intents = self.opened_intents.saturating_add(change);
    }

    /// Writes the numbers kept in memory; returns the newest change when there is one.
    pub(crate) fn finish(mut self) -> Result<Option<u64>, Fault> {
        for (account, counters) in core::mem::take(&mut self.counters) {
            self.put(&keys::account(account), &counters)?;
        }
        if let Some(head) = self.audit {
            self.put_meta(META_AUDIT_HEAD, &head)?;
        }
        if let Some(number) = self.newest_change {
            self.put_meta(META_NEWEST_CHANGE, &number)?;
        }
        Ok(self.newest_change)
    }

    pub(crate) fn put<R: Record>(&mut self, key: &[u8], record: &R) -> Result<(), Fault> {
        let mut bytes = core::mem::take(&mut self.encoded);
        bytes.clear();
        codec::encode_into(R::TABLE, record, &mut bytes)?;
        let stored = self.put_raw(R::TABLE, key, &bytes);
        self.encoded = bytes;
        stored
    }

    pub(crate) fn put_raw(&mut self, table: TableName, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.job_wrote = true;
        self.batch_wrote = true;
        self.table(table)?.insert(key, value)?;
        Ok(())
    }

    /// Removes a row; true when it was there.
    pub(crate) fn remove(&mut self, table: TableName, key: &[u8]) -> Result<bool, Fault> {
        self.job_wrote = true;
        self.batch_wrote = true;
        Ok(self.table(table)?.remove(key)?.is_some())
    }

    pub(crate) fn get<R: Record>(&mut self, key: &[u8]) -> Result<Option<R>, Fault> {
        self.get_part::<R, R>(key)
    }

    /// Some fields of a record, by their names.
    pub(crate) fn get_part<R: Record, P: DeserializeOwned>(
        &mut self,
        key: &[u8],
    ) -> Result<Option<P>, Fault> {
        match self.table(R::TABLE)?.get(key)? {
            Some(value) => codec::decode(R::TABLE, value.value()).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn get_raw(&mut self, table: TableName, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.table(table)?.get(key)?.map(|value| value.value().to_vec()))
    }

    pub(crate) fn contains(&mut self, table: TableName, key: &[u8]) -> Result<bool, Fault> {
        Ok(self.table(table)?.get(key)?.is_some())
    }

    /// The first `limit` rows with `from <= key < to`, or to the end of the table.
    pub(crate) fn rows(
        &mut self,
        table: TableName,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, Fault> {
        let table = self.table(table)?;
        let range = match to {
            Some(to) => table.range(from..to)?,
            None => table.range(from..)?,
        };
        let mut rows = Vec::new();
        for row in range.take(limit) {
            let (key, value) = row?;
            rows.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(rows)
    }

    /// The end of the key, after `prefix`, of the last row that has it and holds `value`; no more than
    /// `limit` rows are looked at, from the last one backwards.
    pub(crate) fn newest_with_value(
        &mut self,
        table: TableName,
        prefix: &[u8],
        value: &[u8],
        limit: usize,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let table = self.table(table)?;
        let range = match keys::after(prefix) {
            Some(end) => table.range(prefix..end.as_slice())?,
            None => table.range(prefix..)?,
        };
        for row in range.rev().take(limit) {
            let (key, held) = row?;
            if held.value() == value {
                return Ok(Some(key.value().get(prefix.len()..).unwrap_or_default().to_vec()));
            }
        }
        Ok(None)
    }

    pub(crate) fn meta<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Fault> {
        match self.table(TableName::Meta)?.get(name.as_bytes())? {
            Some(value) => codec::decode(TableName::Meta, value.value()).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn put_meta<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), Fault> {
        let bytes = codec::encode(TableName::Meta, value)?;
        self.put_raw(TableName::Meta, name.as_bytes(), &bytes)
    }

    /// An account's counters, read only.
    pub(crate) fn counters(&mut self, account: AccountId) -> Result<Counters, Fault> {
        match self.counters.get(&account) {
            Some(counters) => Ok(*counters),
            None => Ok(self.get(&keys::account(account))?.unwrap_or_default()),
        }
    }

    /// Moves an account's counters.
    pub(crate) fn count(
        &mut self,
        account: AccountId,
        change: impl FnOnce(&mut Counters),
    ) -> Result<(), Fault> {
        let mut counters = self.counters(account)?;
        change(&mut counters);
        self.counters.insert(account, counters);
        self.job_wrote = true;
        self.batch_wrote = true;
        Ok(())
    }

    /// The number of the newest change, this batch's among them; 0 when there is none yet.
    pub(crate) fn newest_change(&mut self) -> Result<u64, Fault> {
        match self.newest_change {
            Some(number) => Ok(number),
            None => Ok(self.meta(META_NEWEST_CHANGE)?.unwrap_or(0)),
        }
    }

    /// Appends to the change log.
    pub(crate) fn change(
        &mut self,
        at: UnixTime,
        account: Option<AccountId>,
        kind: ChangeKind,
    ) -> Result<(), Fault> {
        let number = self.newest_change()?.saturating_add(1);
        self.put(&keys::number(number), &Change { number, at, account, kind })?;
        self.newest_change = Some(number);
        Ok(())
    }

    /// Appends to the audit.
    pub(crate) fn audit(&mut self, draft: AuditDraft) -> Result<(), Fault> {
        let head = match self.audit {
            Some(head) => head,
            None => self.meta(META_AUDIT_HEAD)?.unwrap_or_default(),
        };
        let (head, value) = audit::link(&head, draft)?;
        self.put_raw(TableName::Audit, &keys::number(head.count), &value)?;
        self.audit = Some(head);
        Ok(())
    }

    fn table(&mut self, name: TableName) -> Result<&mut OpenTable<'t>, Fault> {
        let slot = self.open.get_mut(name.slot()).ok_or(Fault::NotOpen)?;
        match slot {
            Some(table) => Ok(table),
            None => Ok(slot.insert(self.transaction.open_table(name.definition())?)),
        }
    }
}

/// Meta: the schema version of the file.
pub(crate) const META_SCHEMA: &str = "schema";
/// Meta: the head of the audit chain.
pub(crate) const META_AUDIT_HEAD: &str = "audit-head";
/// Meta: the number of the newest change.
pub(crate) const META_NEWEST_CHANGE: &str = "newest-change";
/// Meta: how many refusals the audit took in the current hour.
pub(crate) const META_REFUSALS: &str = "refusals";
