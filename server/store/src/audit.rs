//! The audit chain: every entry's hash covers its own text and the hash before it.
//!
//! `hash(n) = SHA-256(hash(n-1) || text(n))`, with 32 zero octets before the first. A row holds the
//! hash and then the exact JSON text that was hashed. The head (count and last hash) is kept in
//! `meta`, so that cutting entries off the end shows too. Who can write the whole file can forge a
//! whole chain: to guard against that, note the head somewhere else (`muster audit verify` prints it).

use aws_lc_rs::digest::{Context, SHA256};
use muster_policy::identity::SecretHash;
use serde::{Deserialize, Serialize};

use crate::record::{AuditDraft, AuditEntry};
use crate::tables::TableName;
use crate::transaction::Fault;

/// Count and last hash of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditHead {
    /// Number of the newest entry; entries are numbered from 1.
    pub(crate) count: u64,
    /// Its hash.
    pub(crate) hash: Hash,
}

/// SHA-256 of a link of the chain.
pub(crate) type Hash = SecretHash;

impl Default for AuditHead {
    fn default() -> Self {
        Self { count: 0, hash: Hash::from_bytes([0; HASH_BYTES]) }
    }
}

/// What a verified audit ends with; worth noting outside the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditVerified {
    /// How many entries there are.
    pub count: u64,
    /// The last entry's hash, in hex.
    pub head: String,
}

/// Where the audit is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("audit entry {number}: {what}")]
pub struct AuditBreak {
    /// The first number that is wrong.
    pub number: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Makes the next row of the chain, and the head after it.
pub(crate) fn link(head: &AuditHead, draft: AuditDraft) -> Result<(AuditHead, Vec<u8>), Fault> {
    let AuditDraft { at, actor, action, subjects, reason, details } = draft;
    let number = head.count.saturating_add(1);
    let entry = AuditEntry { number, at, actor, action, subjects, reason, details };
    let mut row = Vec::with_capacity(ROW_BYTES);
    row.extend_from_slice(&[0; HASH_BYTES]);
    serde_json::to_writer(&mut row, &entry)
        .map_err(|error| Fault::Corrupt { table: TableName::Audit.as_str(), what: error.to_string() })?;
    let (place, text) = row.split_at_mut(HASH_BYTES);
    let hash = chain(&head.hash, text);
    place.copy_from_slice(hash.as_bytes());
    Ok((AuditHead { count: number, hash }, row))
}

/// The hash of the entry `text` after an entry with hash `previous`.
pub(crate) fn chain(previous: &Hash, text: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(previous.as_bytes());
    context.update(text);
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(context.finish().as_ref());
    Hash::from_bytes(hash)
}

/// Splits a row into hash and text.
pub(crate) fn split(row: &[u8]) -> Option<(Hash, &[u8])> {
    let (hash, text) = row.split_first_chunk::<HASH_BYTES>()?;
    Some((Hash::from_bytes(*hash), text))
}

/// Reads the entry of a row.
pub(crate) fn entry(row: &[u8]) -> Result<AuditEntry, Fault> {
    let corrupt = |what: String| Fault::Corrupt { table: TableName::Audit.as_str(), what };
    let (_, text) = split(row).ok_or_else(|| corrupt("a row is shorter than a hash".to_owned()))?;
    serde_json::from_slice(text).map_err(|error| corrupt(error.to_string()))
}

/// Walks the chain; feed it every row in order, then the head.
#[derive(Default)]
pub(crate) struct Verifier {
    head: AuditHead,
}

impl Verifier {
    pub(crate) fn feed(&mut self, number: u64, row: &[u8]) -> Result<(), AuditBreak> {
        let expected = self.head.count.saturating_add(1);
        let broken = |what| AuditBreak { number: expected, what };
        if number != expected {
            return Err(broken("the entry is missing"));
        }
        let (hash, text) = split(row).ok_or_else(|| broken("the row is cut short"))?;
        if chain(&self.head.hash, text) != hash {
            return Err(broken("the text or an earlier hash was changed"));
        }
        match serde_json::from_slice::<AuditEntry>(text) {
            Ok(entry) if entry.number == number => {}
            _ => return Err(broken("the text is not an entry of this number")),
        }
        self.head = AuditHead { count: number, hash };
        Ok(())
    }

    pub(crate) fn finish(self, head: &AuditHead) -> Result<AuditVerified, AuditBreak> {
        if self.head.count < head.count {
            let number = self.head.count.saturating_add(1);
            return Err(AuditBreak { number, what: "the entry and all after it are missing" });
        }
        if self.head != *head {
            return Err(AuditBreak { number: self.head.count, what: "the head of the chain differs" });
        }
        Ok(AuditVerified { count: head.count, head: head.hash.to_string() })
    }
}

/// Octets of most rows.
const ROW_BYTES: usize = 768;
/// Octets of a SHA-256.
const HASH_BYTES: usize = 32;
