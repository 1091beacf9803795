//! Idempotency keys: a repeat of a request gets the answer of the first.
//!
//! Bookkeeping of the API, not of the account: it leaves no change and no entry of the audit. What is
//! kept is bounded for each token; beyond, the oldest are forgotten first.

use core::convert::Infallible;
use core::time::Duration;

use muster_policy::identity::{RequestKey, SecretHash};
use muster_policy::time::UnixTime;
use serde_bytes::ByteBuf;

use crate::keys;
use crate::record::{KeyedRequest, KeyedUse};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// How long a key is remembered.
pub const KEY_KEPT_FOR: Duration = Duration::from_secs(86_400);
/// Most keys remembered for a token.
pub const KEYS_PER_TOKEN_MAX: u64 = 10_000;
/// Most octets of answers remembered for a token.
pub const ANSWERS_PER_TOKEN_MAX_BYTES: u64 = 16 << 20;
/// Old keys of the token forgotten with each new one, so that they never pile up.
const FORGOTTEN_AT_ONCE: usize = 4;

/// What is known of a request that came with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyed {
    /// It was answered so.
    Answered(Vec<u8>),
    /// It began before, and no answer is known.
    Begun,
    /// The key was used for another request.
    Differs,
    /// The key is new; the request is noted as begun.
    New,
}

/// Notes that a request begins.
#[derive(Clone, Debug)]
pub struct BeginKeyed {
    /// Hash of the token.
    pub token: SecretHash,
    /// Hash of the key.
    pub key: SecretHash,
    /// Hash of the request.
    pub request: RequestKey,
    /// Now.
    pub now: UnixTime,
}

impl Transaction for BeginKeyed {
    const NAME: &'static str = "begin_keyed";
    type Output = Keyed;
    type Refused = Infallible;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Keyed, Failed<Infallible>> {
        let stored: Option<KeyedRequest> = tables.get(&keys::keyed(self.token, self.key))?;
        if let Some(stored) = stored {
            if stored.at.plus(KEY_KEPT_FOR) > self.now {
                return Ok(match stored.answer {
                    _ if stored.request != self.request => Keyed::Differs,
                    Some(answer) => Keyed::Answered(answer.into_vec()),
                    None => Keyed::Begun,
                });
            }
            forget(tables, &stored)?;
        }
        forget_ended(tables, self.token, self.now, FORGOTTEN_AT_ONCE)?;
        put(
            tables,
            &KeyedRequest {
                token: self.token,
                key: self.key,
                request: self.request,
                at: self.now,
                answer: None,
            },
        )?;
        Ok(Keyed::New)
    }
}

/// Keeps the answer of a request that began, or forgets that it did.
#[derive(Clone, Debug)]
pub struct EndKeyed {
    /// Hash of the token.
    pub token: SecretHash,
    /// Hash of the key.
    pub key: SecretHash,
    /// The sealed answer; none forgets the key, so that a repeat is carried out anew.
    pub answer: Option<Vec<u8>>,
}

impl Transaction for EndKeyed {
    const NAME: &'static str = "end_keyed";
    type Output = ();
    type Refused = Infallible;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Infallible>> {
        let stored: Option<KeyedRequest> = tables.get(&keys::keyed(self.token, self.key))?;
        // Forgotten meanwhile, for newer ones.
        let Some(stored) = stored else { return Ok(()) };
        forget(tables, &stored)?;
        if let Some(answer) = &self.answer {
            put(tables, &KeyedRequest { answer: Some(ByteBuf::from(answer.clone())), ..stored })?;
        }
        Ok(())
    }
}

/// Forgets the ended keys of one token, at most `step`; returns how many.
pub(super) fn forget_ended(
    tables: &mut Tables<'_>,
    token: SecretHash,
    now: UnixTime,
    step: usize,
) -> Result<usize, Fault> {
    let end = keys::keyed_until(token, now.minus(KEY_KEPT_FOR));
    let rows = tables.rows(TableName::KeyedAges, &keys::secret(token), Some(&end), step)?;
    for (age, _) in &rows {
        forget_aged(tables, token, age)?;
    }
    Ok(rows.len())
}

/// Stores a request; makes room for it first.
fn put(tables: &mut Tables<'_>, keyed: &KeyedRequest) -> Result<(), Fault> {
    let size = size_of(keyed);
    loop {
        let used: KeyedUse = tables.get(&keys::secret(keyed.token))?.unwrap_or_default();
        let fits =
            used.count < KEYS_PER_TOKEN_MAX && used.bytes.saturating_add(size) <= ANSWERS_PER_TOKEN_MAX_BYTES;
        if fits || used.count == 0 {
            let used =
                KeyedUse { count: used.count.saturating_add(1), bytes: used.bytes.saturating_add(size) };
            tables.put(&keys::secret(keyed.token), &used)?;
            break;
        }
        let prefix = keys::secret(keyed.token);
        let oldest = tables.rows(TableName::KeyedAges, &prefix, keys::after(&prefix).as_deref(), 1)?;
        let Some((age, _)) = oldest.first() else { break };
        forget_aged(tables, keyed.token, age)?;
    }
    tables.put(&keys::keyed(keyed.token, keyed.key), keyed)?;
    tables.put_raw(TableName::KeyedAges, &keys::keyed_age(keyed.token, keyed.at, keyed.key), &[])
}

/// Forgets the request that a row of the ages names.
fn forget_aged(tables: &mut Tables<'_>, token: SecretHash, age: &[u8]) -> Result<(), Fault> {
    let key = keys::keyed_of_age(age).map(|key| keys::keyed(token, key));
    let stored: Option<KeyedRequest> = match key {
        Some(key) => tables.get(&key)?,
        None => None,
    };
    match stored {
        Some(stored) => forget(tables, &stored),
        None => tables.remove(TableName::KeyedAges, age).map(|_| ()),
    }
}

fn forget(tables: &mut Tables<'_>, keyed: &KeyedRequest) -> Result<(), Fault> {
    tables.remove(TableName::KeyedRequests, &keys::keyed(keyed.token, keyed.key))?;
    tables.remove(TableName::KeyedAges, &keys::keyed_age(keyed.token, keyed.at, keyed.key))?;
    let used: KeyedUse = tables.get(&keys::secret(keyed.token))?.unwrap_or_default();
    let left =
        KeyedUse { count: used.count.saturating_sub(1), bytes: used.bytes.saturating_sub(size_of(keyed)) };
    if left.count == 0 {
        tables.remove(TableName::KeyedUses, &keys::secret(keyed.token)).map(|_| ())
    } else {
        tables.put(&keys::secret(keyed.token), &left)
    }
}

/// Octets that count against the bound.
pub(crate) fn size_of(keyed: &KeyedRequest) -> u64 {
    keyed.answer.as_ref().map_or(0, |answer| u64::try_from(answer.len()).unwrap_or(u64::MAX))
}
