//! Forgetting what nobody needs any more, in bounded steps. The audit is never shortened.

use core::convert::Infallible;
use core::time::Duration;

use muster_policy::identity::SecretHash;
use muster_policy::time::UnixTime;

use crate::act::issue::{INTENT_STALE_AFTER, count_in_zone, release};
use crate::act::keyed::forget_ended;
use crate::act::{By, audit, requests};
use crate::codec;
use crate::keys;
use crate::mark;
use crate::record::{Action, Certificate, Intent, Request, Subjects, Token};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// How long things are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Certificates after their end. Revoked ones leave the lists then.
    pub certificates: Duration,
    /// Denied requests, and approved ones whose device never came back.
    pub requests: Duration,
    /// Tokens after their end, used or not.
    pub tokens: Duration,
    /// Requests that wait for a person; then the device's next poll starts anew.
    pub waiting: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            certificates: DAY.saturating_mul(90),
            requests: DAY.saturating_mul(14),
            tokens: DAY.saturating_mul(30),
            waiting: DAY.saturating_mul(14),
        }
    }
}

/// Removes at most `step` old records of each kind; repeat while [`Tidied::more`].
#[derive(Clone, Copy, Debug)]
pub struct Tidy {
    /// Now.
    pub now: UnixTime,
    /// How long things are kept.
    pub keep: Retention,
    /// Most records of each kind; it bounds how long others wait. 200 takes some milliseconds.
    pub step: usize,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Certificates long expired.
    pub certificates: u64,
    /// Requests long decided, or left waiting.
    pub requests: u64,
    /// Tokens long ended.
    pub tokens: u64,
    /// Intents whose caller is gone.
    pub intents: u64,
    /// Whether a limit was reached, so that there may be more.
    pub more: bool,
}

impl Transaction for Tidy {
    const NAME: &'static str = "tidy";
    type Output = Tidied;
    type Refused = Infallible;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Tidied, Failed<Infallible>> {
        let mut tidied = Tidied::default();
        self.certificates(tables, &mut tidied)?;
        self.requests(tables, &mut tidied)?;
        self.waiting(tables, &mut tidied)?;
        self.tokens(tables, &mut tidied)?;
        self.intents(tables, &mut tidied)?;
        self.keyed(tables, &mut tidied)?;
        let Tidied { certificates, requests, tokens, intents, .. } = tidied;
        if [certificates, requests, tokens, intents].iter().any(|number| *number > 0) {
            let details = format!(
                "certificates {certificates}, requests {requests}, tokens {tokens}, intents {intents}"
            );
            audit(tables, &By::system(self.now), Action::Tidied, Subjects::default(), Some(details))?;
        }
        Ok(tidied)
    }
}

impl Tidy {
    fn certificates(&self, tables: &mut Tables<'_>, tidied: &mut Tidied) -> Result<(), Fault> {
        for key in self.older(tables, TableName::Expiry, self.keep.certificates, tidied)? {
            tables.remove(TableName::Expiry, &key)?;
            let Some(certificate) = key.get(TIME_BYTES..) else { continue };
            let Some(stored) = tables.get::<Certificate>(certificate)? else { continue };
            let Certificate { id, account, ca, serial, device, .. } = &stored;
            tables.remove(TableName::Certificates, certificate)?;
            tables.remove(TableName::Serials, &keys::serial(*ca, *serial))?;
            let by_device = keys::device_certificate(*account, device, *id);
            tables.remove(TableName::DeviceCertificates, &by_device)?;
            mark::remove(tables, &stored)?;
            if let Some(client) = &stored.client {
                count_in_zone(tables, client.zone, |number| number.saturating_sub(1))?;
            }
            if stored.revoked.is_some() {
                tables.remove(TableName::Revoked, certificate)?;
            }
            tables.count(*account, |counters| {
                counters.certificates = counters.certificates.saturating_sub(1);
                if stored.revoked.is_some() {
                    counters.certificates_revoked = counters.certificates_revoked.saturating_sub(1);
                }
            })?;
            tidied.certificates = tidied.certificates.saturating_add(1);
        }
        Ok(())
    }

    fn requests(&self, tables: &mut Tables<'_>, tidied: &mut Tidied) -> Result<(), Fault> {
        for key in self.older(tables, TableName::RequestAges, self.keep.requests, tidied)? {
            forget_request(tables, &key, tidied)?;
        }
        Ok(())
    }

    fn waiting(&self, tables: &mut Tables<'_>, tidied: &mut Tidied) -> Result<(), Fault> {
        let end = keys::time(self.now.minus(self.keep.waiting));
        for (account, _) in tables.rows(TableName::Accounts, &[], None, usize::MAX)? {
            let end = keys::join(&[&account, &end]);
            let rows = tables.rows(TableName::Waiting, &account, Some(&end), self.step)?;
            tidied.more |= rows.len() >= self.step;
            for (key, _) in rows {
                forget_request(tables, &key, tidied)?;
            }
        }
        Ok(())
    }

    fn tokens(&self, tables: &mut Tables<'_>, tidied: &mut Tidied) -> Result<(), Fault> {
        for key in self.older(tables, TableName::TokenExpiry, self.keep.tokens, tidied)? {
            tables.remove(TableName::TokenExpiry, &key)?;
            let Some(token) = key.get(TIME_BYTES..) else { continue };
            let Some(stored) = tables.get::<Token>(token)? else { continue };
            tables.remove(TableName::Tokens, token)?;
            tables.remove(TableName::TokenHashes, &keys::secret(stored.hash))?;
            tables.count(stored.account, |counters| counters.tokens = counters.tokens.saturating_sub(1))?;
            tidied.tokens = tidied.tokens.saturating_add(1);
        }
        Ok(())
    }

    /// There are few intents: one for each request being signed now.
    fn intents(&self, tables: &mut Tables<'_>, tidied: &mut Tidied) -> Result<(), Fault> {
        for (_, value) in tables.rows(TableName::Intents, &[], None, self.step)? {
            let intent: Intent = codec::decode(TableName::Intents, &value)?;
            if intent.at.plus(INTENT_STALE_AFTER) < self.now {
                release(tables, &By::system(self.now), &intent, Action::IssueInterrupted, None)?;
                tidied.intents = tidied.intents.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Idempotency keys; tokens that have any are few.
    fn keyed(&self, tables: &mut Tables<'_>, tidied: &mut Tidied) -> Result<(), Fault> {
        for (token, _) in tables.rows(TableName::KeyedUses, &[], None, self.step)? {
            let Ok(token) = token.as_slice().try_into() else { continue };
            let forgotten = forget_ended(tables, SecretHash::from_bytes(token), self.now, self.step)?;
            tidied.more |= forgotten >= self.step;
        }
        Ok(())
    }

    /// The first keys of an index by time that lie longer than `keep` in the past.
    fn older(
        &self,
        tables: &mut Tables<'_>,
        index: TableName,
        keep: Duration,
        tidied: &mut Tidied,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let end = keys::time(self.now.minus(keep));
        let rows = tables.rows(index, &[], Some(&end), self.step)?;
        tidied.more |= rows.len() >= self.step;
        Ok(rows.into_iter().map(|(key, _)| key).collect())
    }
}

/// Forgets the request that an index names.
fn forget_request(tables: &mut Tables<'_>, index: &[u8], tidied: &mut Tidied) -> Result<(), Fault> {
    let Some(key) = keys::request_of(index) else { return Ok(()) };
    let Some(request) = tables.get::<Request>(&keys::request(key))? else { return Ok(()) };
    requests::remove(tables, key, &request)?;
    tidied.requests = tidied.requests.saturating_add(1);
    Ok(())
}

/// Octets of the time that leads a key.
const TIME_BYTES: usize = 8;
