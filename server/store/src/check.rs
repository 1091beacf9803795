//! The deep check of a file: before it is restored, and when something seems wrong.
//!
//! Every page's checksum, every record, every index in both directions, every counter, the numbers
//! of the change log and the chain of the audit. Both directions, because a missing index row hides
//! a record and a stray one names what is not there: a record is looked up in each of its indexes,
//! and then the lengths must agree.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use muster_policy::identity::{AccountId, CaId, SecretHash, ZoneId};
use muster_policy::profile::ProfileWritten;
use redb::{Database, ReadableDatabase, ReadableTableMetadata};
use serde::Serialize;

use crate::act::devices::inactive_octet;
use crate::act::keyed::size_of;
use crate::act::recount::Recount;
use crate::act::requests::by_token;
use crate::audit::{AuditBreak, AuditVerified};
use crate::codec;
use crate::keys;
use crate::ledger::{Ledger, OpenError, open_error};
use crate::mark::Mark;
use crate::migration::SCHEMA_VERSION;
use crate::reader::{Reader, Snapshot};
use crate::record::{
    Account, AdminToken, Association, Ca, Certificate, Change, Counters, CrlState, DeadLetter, Device,
    Document, ForeignCa, ForeignListDer, ForeignRevoked, Host, Intent, KeyedRequest, KeyedUse, OriginPull,
    OutboundLeaf, Request, RevokedEntry, Token, Webhook, WebhookProgress, Zone,
};
use crate::tables::{META_SCHEMA, Record, TableName};
use crate::transaction::Fault;

/// What a sound ledger holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its schema version. One of an older version is migrated when it is opened; until then only its
    /// pages and its audit are checked.
    pub schema: u32,
    /// Accounts.
    pub accounts: u64,
    /// Certificates.
    pub certificates: u64,
    /// Devices.
    pub devices: u64,
    /// Tokens.
    pub tokens: u64,
    /// Number of the newest change.
    pub newest_change: u64,
    /// The audit's length and head.
    pub audit: AuditVerified,
}

/// What is wrong with a ledger.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The audit was changed.
    #[error(transparent)]
    Audit(#[from] AuditBreak),
    /// A record can't be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Records and indexes contradict each other.
    #[error("table `{table}`: {what}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// What was found.
        what: &'static str,
    },
    /// The file can't be opened, or its pages are damaged.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<redb::StorageError> for CheckError {
    fn from(error: redb::StorageError) -> Self {
        Self::Fault(error.into())
    }
}

impl Ledger {
    /// Checks a ledger that no process has open. Reads the whole file; blocks the thread.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(path: &Path) -> Result<Checked, CheckError> {
        let broken = |what: String| OpenError::Broken { path: path.to_owned(), what };
        // Damaged pages may make redb panic; whatever it meets, the answer is "broken".
        let checked = catch_unwind(AssertUnwindSafe(|| {
            let database = Database::builder()
                .set_cache_size(CHECK_CACHE_BYTES)
                .set_check_integrity_on_open(true)
                .open(path)
                .map_err(|error| open_error(path, error))?;
            let transaction = database.begin_read().map_err(Fault::from)?;
            Reader::new(Arc::new(Snapshot::new(transaction))).check_at(path)
        }));
        checked.unwrap_or_else(|_| Err(broken("its pages make no sense".to_owned()).into()))
    }
}

impl Reader {
    /// Checks everything in this snapshot but the checksums of the pages.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<Checked, CheckError> {
        self.check_at(Path::new("in use"))
    }

    fn check_at(&self, path: &Path) -> Result<Checked, CheckError> {
        let schema: u32 = self.meta(META_SCHEMA)?.ok_or_else(|| OpenError::Broken {
            path: path.to_owned(),
            what: "it has no schema version".to_owned(),
        })?;
        if schema > SCHEMA_VERSION {
            let (found, known) = (schema, SCHEMA_VERSION);
            return Err(OpenError::NewerSchema { path: path.to_owned(), found, known }.into());
        }
        if schema == SCHEMA_VERSION {
            self.check_accounts()?;
            self.check_devices()?;
            self.check_tokens()?;
            self.check_certificates()?;
            self.check_foreign()?;
            self.check_requests()?;
            self.check_keyed()?;
            self.check_webhooks()?;
            self.check_changes()?;
            self.check_counters()?;
        }
        Ok(Checked {
            schema,
            accounts: self.length(TableName::Accounts)?,
            certificates: self.length(TableName::Certificates)?,
            devices: self.length(TableName::Devices)?,
            tokens: self.length(TableName::Tokens)?,
            newest_change: self.newest_change()?,
            audit: self.verify_audit()??,
        })
    }

    fn check_accounts(&self) -> Result<(), CheckError> {
        self.each(|key, account: &Account| {
            holds(TableName::Accounts, key == keys::account(account.id), KEY_DIFFERS)
        })?;
        self.each(|key, zone: &Zone| {
            holds(TableName::Zones, key == keys::zone(zone.id), KEY_DIFFERS)?;
            self.names(TableName::ZoneNames, &keys::zone_name(&zone.name), key)
        })?;
        self.same_length(TableName::Zones, TableName::ZoneNames)?;
        self.each(|key, ca: &Ca| {
            holds(TableName::Cas, key == keys::ca(ca.id), KEY_DIFFERS)?;
            holds(TableName::Cas, sha256(&ca.certificate_der) == *ca.fingerprint.as_bytes(), HASH_DIFFERS)
        })?;
        self.each(|key, host: &Host| {
            holds(TableName::Hosts, key == keys::host(&host.rule.host), KEY_DIFFERS)
        })?;
        let cas = self.table(TableName::Cas)?;
        self.each(|key, _: &CrlState| {
            holds(TableName::Crls, cas.get(key)?.is_some(), "a list belongs to no CA")
        })?;
        self.each(|_, _: &Association| Ok(()))?;
        self.each(|key, leaf: &OutboundLeaf| {
            let expected = keys::outbound_leaf(leaf.account, leaf.id);
            holds(TableName::OutboundLeaves, key == expected, KEY_DIFFERS)
        })?;
        let leaves = self.table(TableName::OutboundLeaves)?;
        let zones = self.table(TableName::Zones)?;
        self.each(|key, pull: &OriginPull| {
            let table = TableName::OriginPulls;
            holds(table, key == keys::origin_pull(pull.zone, &pull.host), KEY_DIFFERS)?;
            let zone = zones.get(pull.zone.as_bytes().as_slice())?;
            let zone: Option<Zone> =
                zone.map(|zone| codec::decode(TableName::Zones, zone.value())).transpose()?;
            let account = zone.map(|zone| zone.account);
            let leaf = account.map(|account| keys::outbound_leaf(account, pull.leaf));
            let is_there = leaf.map(|leaf| leaves.get(leaf.as_slice())).transpose()?.flatten().is_some();
            holds(table, is_there, "a hostname names a leaf that is not there")
        })?;
        self.each(|key, document: &Document| {
            let expected = keys::document(document.account, document.kind, document.id);
            holds(TableName::Documents, key == expected, KEY_DIFFERS)
        })?;
        self.each(|_, _: &ProfileWritten| Ok(()))
    }

    fn check_devices(&self) -> Result<(), CheckError> {
        let (mut serials, mut inactive) = (0_u64, 0_u64);
        self.each(|key, device: &Device| {
            let expected = keys::device(device.account, &device.id);
            holds(TableName::Devices, key == expected, KEY_DIFFERS)?;
            if let Some(octet) = inactive_octet(device.status) {
                inactive = inactive.saturating_add(1);
                self.names(TableName::InactiveDevices, key, &[octet])?;
            }
            let Some(serial) = &device.manufacturer_serial else { return Ok(()) };
            serials = serials.saturating_add(1);
            let index = keys::manufacturer_serial(device.account, serial);
            self.names(TableName::ManufacturerSerials, &index, device.id.as_str().as_bytes())
        })?;
        self.has_length(TableName::InactiveDevices, inactive)?;
        self.has_length(TableName::ManufacturerSerials, serials)
    }

    fn check_tokens(&self) -> Result<(), CheckError> {
        self.each(|key, token: &Token| {
            let Token { id, account, hash, expires_at, .. } = *token;
            holds(TableName::Tokens, key == keys::token(account, id), KEY_DIFFERS)?;
            let within = token.uses_taken <= token.uses_allowed;
            holds(TableName::Tokens, within, "more uses are taken than allowed")?;
            self.names(TableName::TokenHashes, &keys::secret(hash), key)?;
            self.names(TableName::TokenExpiry, &keys::token_expiry(expires_at, account, id), &[])
        })?;
        self.same_length(TableName::Tokens, TableName::TokenHashes)?;
        self.same_length(TableName::Tokens, TableName::TokenExpiry)?;
        self.each(|key, token: &AdminToken| {
            holds(TableName::AdminTokens, key == keys::admin_token(token.id), KEY_DIFFERS)?;
            self.names(TableName::AdminTokenHashes, &keys::secret(token.hash), key)
        })?;
        self.same_length(TableName::AdminTokens, TableName::AdminTokenHashes)
    }

    fn check_certificates(&self) -> Result<(), CheckError> {
        let mut revoked = 0_u64;
        let mut in_zones: BTreeMap<ZoneId, u64> = BTreeMap::new();
        let revoked_table = self.table(TableName::Revoked)?;
        let by_device_table = self.table(TableName::DeviceCertificates)?;
        self.each(|key, certificate: &Certificate| {
            let Certificate { id, account, ca, serial, device, not_after, .. } = certificate;
            let table = TableName::Certificates;
            holds(table, key == keys::certificate(*account, *id), KEY_DIFFERS)?;
            holds(table, sha256(&certificate.der) == *certificate.fingerprint.as_bytes(), HASH_DIFFERS)?;
            self.names(TableName::Serials, &keys::serial(*ca, *serial), key)?;
            let by_device = keys::device_certificate(*account, device, *id);
            let listed = by_device_table.get(by_device.as_slice())?;
            let listed = listed.is_some_and(|request| request.value().len() == REQUEST_KEY_BYTES);
            holds(TableName::DeviceCertificates, listed, "a record is not in the index as it is")?;
            self.names(TableName::Expiry, &keys::expiry(*not_after, *account, *id), &[])?;
            let mark = Mark::of(certificate).octets();
            self.names(TableName::CertificateMarks, key, &mark)?;
            if let Some(client) = &certificate.client {
                let by_zone = keys::zone_certificate(client.zone, *id);
                self.names(TableName::ZoneCertificates, &by_zone, &mark)?;
                let number = in_zones.entry(client.zone).or_default();
                *number = number.saturating_add(1);
            }
            let Some(revocation) = certificate.revoked else { return Ok(()) };
            revoked = revoked.saturating_add(1);
            let entry = revoked_table.get(key)?;
            let entry: Option<RevokedEntry> =
                entry.map(|entry| codec::decode(TableName::Revoked, entry.value())).transpose()?;
            let agrees = entry.is_some_and(|entry| {
                entry.revocation == revocation && entry.fingerprint == certificate.fingerprint
            });
            holds(TableName::Revoked, agrees, "a revoked certificate is not listed as it is")
        })?;
        for index in [
            TableName::CertificateMarks,
            TableName::Serials,
            TableName::DeviceCertificates,
            TableName::Expiry,
        ] {
            self.same_length(TableName::Certificates, index)?;
        }
        self.has_length(TableName::ZoneCertificates, in_zones.values().sum())?;
        self.each(|_, zone: &Zone| {
            let counted = in_zones.get(&zone.id).copied().unwrap_or_default();
            holds(
                TableName::Zones,
                zone.client_certificates == counted,
                "the numbers differ from the records",
            )
        })?;
        self.has_length(TableName::Revoked, revoked)
    }

    fn check_foreign(&self) -> Result<(), CheckError> {
        let mut counted: BTreeMap<CaId, (u64, u64)> = BTreeMap::new();
        self.each(|key, entry: &ForeignRevoked| {
            holds(TableName::ForeignRevoked, key == keys::foreign(entry.ca, entry.name), KEY_DIFFERS)?;
            let (revoked, by_operator) = counted.entry(entry.ca).or_default();
            *revoked = revoked.saturating_add(1);
            *by_operator = by_operator.saturating_add(u64::from(entry.by_operator.is_some()));
            Ok(())
        })?;
        let cas = self.table(TableName::Cas)?;
        let lists = self.table(TableName::ForeignLists)?;
        let mut with_list = 0_u64;
        self.each(|key, state: &ForeignCa| {
            let table = TableName::ForeignCas;
            holds(table, cas.get(key)?.is_some(), "it belongs to no CA")?;
            let id = key.try_into().map_err(|_| inconsistent(table, KEY_DIFFERS))?;
            let of_ca = counted.remove(&CaId::from_bytes(id)).unwrap_or_default();
            holds(table, of_ca == (state.revoked, state.by_operator), "the numbers differ from the records")?;
            let Some(list) = &state.list else { return Ok(()) };
            with_list = with_list.saturating_add(1);
            let stored = lists.get(key)?;
            let stored: Option<ForeignListDer> =
                stored.map(|der| codec::decode(TableName::ForeignLists, der.value())).transpose()?;
            let agrees = stored.is_some_and(|der| sha256(&der.0) == *list.fingerprint.as_bytes());
            holds(TableName::ForeignLists, agrees, "a list is not that of its fingerprint")
        })?;
        holds(TableName::ForeignRevoked, counted.is_empty(), "an entry belongs to no CA")?;
        self.has_length(TableName::ForeignLists, with_list)
    }

    fn check_requests(&self) -> Result<(), CheckError> {
        let (mut waiting, mut of_tokens, mut other) = (0_u64, 0_u64, 0_u64);
        for row in self.table(TableName::Requests)?.range::<&[u8]>(..)? {
            let (key, value) = row?;
            let request: Request = codec::decode(TableName::Requests, value.value())?;
            let key = keys::request_of(key.value()).ok_or(inconsistent(TableName::Requests, KEY_DIFFERS))?;
            if let Request::Waiting(request) = &request {
                waiting = waiting.saturating_add(1);
                holds(TableName::Requests, request.key == key, KEY_DIFFERS)?;
                let index = keys::waiting(request.account, request.since, key);
                self.names(TableName::Waiting, &index, &[])?;
                if let Some(index) = by_token(request) {
                    of_tokens = of_tokens.saturating_add(1);
                    self.names(TableName::TokenWaiting, &index, &[])?;
                }
            } else {
                other = other.saturating_add(1);
                self.names(TableName::RequestAges, &keys::request_age(request.at(), key), &[])?;
            }
        }
        self.has_length(TableName::Waiting, waiting)?;
        self.has_length(TableName::TokenWaiting, of_tokens)?;
        self.has_length(TableName::RequestAges, other)?;
        self.each(|key, intent: &Intent| {
            holds(TableName::Intents, key == keys::request(intent.request), KEY_DIFFERS)
        })
    }

    fn check_keyed(&self) -> Result<(), CheckError> {
        let mut used: BTreeMap<SecretHash, KeyedUse> = BTreeMap::new();
        self.each(|key, keyed: &KeyedRequest| {
            holds(TableName::KeyedRequests, key == keys::keyed(keyed.token, keyed.key), KEY_DIFFERS)?;
            let of_token = used.entry(keyed.token).or_default();
            of_token.count = of_token.count.saturating_add(1);
            of_token.bytes = of_token.bytes.saturating_add(size_of(keyed));
            self.names(TableName::KeyedAges, &keys::keyed_age(keyed.token, keyed.at, keyed.key), &[])
        })?;
        self.same_length(TableName::KeyedRequests, TableName::KeyedAges)?;
        self.each(|key, stored: &KeyedUse| {
            let token = key.try_into().map_err(|_| inconsistent(TableName::KeyedUses, KEY_DIFFERS))?;
            let counted = used.get(&SecretHash::from_bytes(token)).copied().unwrap_or_default();
            holds(TableName::KeyedUses, counted == *stored, "the numbers differ from the records")
        })?;
        self.has_length(TableName::KeyedUses, u64::try_from(used.len()).unwrap_or(u64::MAX))
    }

    fn check_webhooks(&self) -> Result<(), CheckError> {
        self.each(|key, webhook: &Webhook| {
            holds(TableName::Webhooks, key == keys::webhook(webhook.account, webhook.id), KEY_DIFFERS)
        })?;
        let webhooks = self.table(TableName::Webhooks)?;
        let owned = "it belongs to no webhook";
        self.each(|key, _: &WebhookProgress| {
            holds(TableName::WebhookProgress, webhooks.get(key)?.is_some(), owned)
        })?;
        self.same_length(TableName::Webhooks, TableName::WebhookProgress)?;
        self.each(|key, letter: &DeadLetter| {
            let webhook = key.strip_suffix(&keys::number(letter.last));
            let webhook = webhook.ok_or(inconsistent(TableName::DeadLetters, KEY_DIFFERS))?;
            holds(TableName::DeadLetters, webhooks.get(webhook)?.is_some(), owned)
        })
    }

    fn check_changes(&self) -> Result<(), CheckError> {
        let mut expected = 0_u64;
        self.each(|key, change: &Change| {
            expected = expected.saturating_add(1);
            let agrees = key == keys::number(expected) && change.number == expected;
            holds(TableName::Changes, agrees, "a number is missing")
        })?;
        holds(TableName::Changes, self.newest_change()? == expected, "the newest changes are missing")
    }

    fn check_counters(&self) -> Result<(), CheckError> {
        let mut recount = Recount::default();
        for table in Recount::TABLES {
            for row in self.table(table)?.range::<&[u8]>(..)? {
                let (key, value) = row?;
                recount.feed(table, key.value(), value.value())?;
            }
        }
        let mut stored = BTreeMap::new();
        self.each(|key, counters: &Counters| {
            let account = key.try_into().map_err(|_| inconsistent(TableName::Counters, KEY_DIFFERS))?;
            stored.insert(AccountId::from_bytes(account), *counters);
            Ok(())
        })?;
        // An account that never had anything has no counters, or zeros.
        stored.retain(|_, counters| *counters != Counters::default());
        holds(TableName::Counters, stored == recount.counters, "the numbers differ from the records")
    }

    /// Reads every record of a table.
    fn each<R: Record>(
        &self,
        mut check: impl FnMut(&[u8], &R) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        for row in self.table(R::TABLE)?.range::<&[u8]>(..)? {
            let (key, value) = row?;
            check(key.value(), &codec::decode(R::TABLE, value.value())?)?;
        }
        Ok(())
    }

    /// An index row must be there and hold `value`.
    fn names(&self, index: TableName, key: &[u8], value: &[u8]) -> Result<(), CheckError> {
        let found = self.table(index)?.get(key)?;
        let agrees = found.is_some_and(|found| found.value() == value);
        holds(index, agrees, "a record is not in the index as it is")
    }

    fn same_length(&self, records: TableName, index: TableName) -> Result<(), CheckError> {
        self.has_length(index, self.length(records)?)
    }

    fn has_length(&self, index: TableName, expected: u64) -> Result<(), CheckError> {
        holds(index, self.length(index)? == expected, "the index names what is not there")
    }

    fn length(&self, table: TableName) -> Result<u64, CheckError> {
        Ok(self.table(table)?.len()?)
    }
}

fn holds(table: TableName, holds: bool, what: &'static str) -> Result<(), CheckError> {
    if holds { Ok(()) } else { Err(inconsistent(table, what)) }
}

const fn inconsistent(table: TableName, what: &'static str) -> CheckError {
    CheckError::Inconsistent { table: table.as_str(), what }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

/// Cache of a check, which looks up every index row of every record.
const CHECK_CACHE_BYTES: usize = 256 << 20;
/// Octets of a request's key.
const REQUEST_KEY_BYTES: usize = 32;
const KEY_DIFFERS: &str = "a key is not that of its record";
const HASH_DIFFERS: &str = "a certificate is not that of its fingerprint";
