//! What a slot holds, and how it is written: key and record in one item, under one SHA-256.
//!
//! ```text
//! "MUSTER-SLOT-1\n"   SHA-256 of the rest   MessagePack of key, and certificate or request
//! ```
//! A key without a record is one that was made and not yet used. Nothing here trusts the disk: what does
//! not have the form and the digest is damaged, and says so.

use aws_lc_rs::digest::{SHA256, digest};
use muster_proto::enrollment::{Pair, Record, Slot, StoredRequest, Window};
use muster_proto::time::UnixTime;
use muster_proto::x509::Bundle;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// One slot's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The private key, PKCS#8.
    pub key: Key,
    /// What belongs to the key.
    pub record: Option<Kept>,
}

/// A private key in PKCS#8; wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Zeroizing<Vec<u8>>);

/// A record of the device core, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// An identity.
    Pair(KeptPair),
    /// A request that was or will be sent.
    Request {
        /// PKCS#10.
        csr: Vec<u8>,
        /// The newest proven time when it was stored.
        saved_at: UnixTime,
    },
}

/// An identity without its key; the fields of [`Pair`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPair {
    /// Counts up with each enrollment.
    pub generation: u32,
    /// Leaf and intermediates, one after the other.
    pub chain: Vec<u8>,
    /// The CA certificate that a pinned fingerprint stands for; else empty.
    pub anchor: Vec<u8>,
    /// When to renew it.
    pub window: Window,
    /// The newest proven time when it was stored.
    pub saved_at: UnixTime,
}

impl Key {
    /// Takes over the bytes of a PKCS#8 key.
    #[must_use]
    pub fn new(pkcs8: Zeroizing<Vec<u8>>) -> Self {
        Self(pkcs8)
    }

    /// The PKCS#8 bytes.
    #[must_use]
    pub fn as_pkcs8(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Kept {
    /// The same, out of the core's memory.
    #[must_use]
    pub fn from_record(record: &Record<'_>) -> Self {
        match record {
            Record::Pair(pair) => Self::Pair(KeptPair {
                generation: pair.generation,
                chain: pair.chain.as_bytes().to_vec(),
                anchor: pair.anchor.to_vec(),
                window: pair.window,
                saved_at: pair.saved_at,
            }),
            Record::Request(request) => {
                Self::Request { csr: request.csr.to_vec(), saved_at: request.saved_at }
            }
        }
    }

    /// The same, for the core.
    #[must_use]
    pub fn as_record(&self, slot: Slot) -> Record<'_> {
        match self {
            Self::Pair(pair) => Record::Pair(Pair {
                slot,
                generation: pair.generation,
                chain: Bundle::new(&pair.chain),
                anchor: &pair.anchor,
                window: pair.window,
                saved_at: pair.saved_at,
            }),
            Self::Request { csr, saved_at } => {
                Record::Request(StoredRequest { slot, csr, saved_at: *saved_at })
            }
        }
    }
}

/// Why a slot's file is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is cut off, or was changed.
    #[error("its digest is wrong")]
    Digest,
    /// Its digest is right and its content is not; another version wrote it.
    #[error("its content is not understood")]
    Form,
    /// It does not begin as a slot of this version does.
    #[error("it is no slot file of this version")]
    Magic,
    /// It is longer than any slot.
    #[error("it is too long")]
    Size,
}

/// The bytes of a slot's file.
///
/// # Errors
/// When it can't be written down; half a slot with a right digest would be a lost key.
pub(super) fn encode(content: &Content) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let body = rmp_serde::to_vec(&Written::from(content)).map_err(std::io::Error::other)?;
    let body = Zeroizing::new(body);
    let mut file = Zeroizing::new(Vec::with_capacity(MAGIC.len() + DIGEST_BYTES + body.len()));
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(digest(&SHA256, &body).as_ref());
    file.extend_from_slice(&body);
    Ok(file)
}

/// Reads the bytes of a slot's file.
///
/// # Errors
/// [`Damage`].
pub(super) fn decode(file: &[u8]) -> Result<Content, Damage> {
    let rest = file.strip_prefix(MAGIC).ok_or(Damage::Magic)?;
    let (stated, body) = rest.split_at_checked(DIGEST_BYTES).ok_or(Damage::Digest)?;
    if digest(&SHA256, body).as_ref() != stated {
        return Err(Damage::Digest);
    }
    let written: Written = rmp_serde::from_slice(body).map_err(|_| Damage::Form)?;
    Content::try_from(written)
}

/// As it is on the disk.
#[derive(Deserialize, Serialize)]
struct Written {
    #[serde(with = "serde_bytes")]
    key: Vec<u8>,
    pair: Option<WrittenPair>,
    request: Option<WrittenRequest>,
}

#[derive(Deserialize, Serialize)]
struct WrittenPair {
    generation: u32,
    #[serde(with = "serde_bytes")]
    chain: Vec<u8>,
    #[serde(with = "serde_bytes")]
    anchor: Vec<u8>,
    renew_at: u64,
    urgent_at: u64,
    expires_at: u64,
    saved_at: u64,
}

#[derive(Deserialize, Serialize)]
struct WrittenRequest {
    #[serde(with = "serde_bytes")]
    csr: Vec<u8>,
    saved_at: u64,
}

impl From<&Content> for Written {
    fn from(content: &Content) -> Self {
        let mut written = Self { key: content.key.as_pkcs8().to_vec(), pair: None, request: None };
        match &content.record {
            None => {}
            Some(Kept::Pair(pair)) => {
                written.pair = Some(WrittenPair {
                    generation: pair.generation,
                    chain: pair.chain.clone(),
                    anchor: pair.anchor.clone(),
                    renew_at: pair.window.renew_at().as_secs(),
                    urgent_at: pair.window.urgent_at().as_secs(),
                    expires_at: pair.window.expires_at().as_secs(),
                    saved_at: pair.saved_at.as_secs(),
                });
            }
            Some(Kept::Request { csr, saved_at }) => {
                written.request = Some(WrittenRequest { csr: csr.clone(), saved_at: saved_at.as_secs() });
            }
        }
        written
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

impl TryFrom<Written> for Content {
    type Error = Damage;

    fn try_from(mut written: Written) -> Result<Self, Damage> {
        let record = match (written.pair.take(), written.request.take()) {
            (None, None) => None,
            (Some(pair), None) => Some(Kept::Pair(pair.checked()?)),
            (None, Some(request)) => {
                Some(Kept::Request { csr: request.csr, saved_at: UnixTime::from_secs(request.saved_at) })
            }
            (Some(_), Some(_)) => return Err(Damage::Form),
        };
        Ok(Self { key: Key::new(Zeroizing::new(std::mem::take(&mut written.key))), record })
    }
}

impl WrittenPair {
    fn checked(self) -> Result<KeptPair, Damage> {
        let window = Window::new(
            UnixTime::from_secs(self.renew_at),
            UnixTime::from_secs(self.urgent_at),
            UnixTime::from_secs(self.expires_at),
        );
        Ok(KeptPair {
            generation: self.generation,
            chain: self.chain,
            anchor: self.anchor,
            window: window.ok_or(Damage::Form)?,
            saved_at: UnixTime::from_secs(self.saved_at),
        })
    }
}

/// Names the form; another form gets another name.
const MAGIC: &[u8] = b"MUSTER-SLOT-1\n";
const DIGEST_BYTES: usize = 32;
