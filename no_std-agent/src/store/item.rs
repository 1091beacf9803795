//! What one slot of the flash holds, as one item that is written whole or not at all.
//!
//! ```text
//! format 1 | kind | slot | reference: length, bytes | point 65 | record of the kind | CRC-32 of all before
//! kind 0: emptied (nothing but the CRC follows the slot)     kind 2: saved_at 8, request: length 2, bytes
//! kind 1: a key and nothing else                             kind 3: saved_at 8, generation 4, renew_at 8,
//!                                  urgent_at 8, expires_at 8, chain: length 2, bytes, anchor: length 2, bytes
//! ```
//! Integers are little-endian. `expires_at` is the leaf's notAfter, and the issuer is in the chain. An item of
//! another format, for another slot or with another checksum is no item: the decoder never panics and never
//! takes a part. sequential-storage has a checksum of its own; this one also covers a decoder that meets data
//! of other firmware.

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};
use muster_proto::csr::P256Point;
use muster_proto::enrollment::{Pair, Record, Slot, StoredRequest, Window};
use muster_proto::time::UnixTime;
use muster_proto::x509::Bundle;
use sequential_storage::map::{SerializationError, Value};

use crate::key::{KeyReference, SlotKey};

/// What a slot holds.
#[derive(Clone, Debug)]
pub enum Item<'i> {
    /// Nothing: it was emptied, and what was there is to be wiped.
    Emptied(Slot),
    /// A key, and what it was used for so far.
    Key {
        /// Whose key.
        slot: Slot,
        /// The key.
        key: SlotKey,
        /// The request or the identity that belongs to the key; `None` right after the key was made.
        record: Option<Record<'i>>,
    },
}

impl<'i> Item<'i> {
    /// Writes the item to the start of `buffer` and says how long it is.
    ///
    /// # Errors
    /// [`BadItem`] when `buffer` is too short, or a part is longer than its length field can say.
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, BadItem> {
        let mut writer = ItemWriter { buffer, len: 0 };
        writer.bytes(&[FORMAT])?;
        match self {
            Self::Emptied(slot) => writer.bytes(&[EMPTIED, slot_number(*slot)])?,
            Self::Key { slot, key, record } => {
                writer.bytes(&[kind(record.as_ref()), slot_number(*slot)])?;
                let reference = key.reference.as_bytes();
                writer.bytes(&[u8::try_from(reference.len()).map_err(|_| BadItem)?])?;
                writer.bytes(reference)?;
                writer.bytes(key.point.as_bytes())?;
                match record {
                    None => {}
                    Some(Record::Request(request)) => writer.request(request)?,
                    Some(Record::Pair(pair)) => writer.pair(pair)?,
                }
            }
        }
        let body = writer.buffer.get(..writer.len).ok_or(BadItem)?;
        writer.bytes(&CHECKSUM.checksum(body).to_le_bytes())?;
        Ok(writer.len)
    }

    /// Reads exactly one item.
    ///
    /// # Errors
    /// [`BadItem`] for anything that [`write`](Self::write) does not write.
    pub fn parse(bytes: &'i [u8]) -> Result<Self, BadItem> {
        let (body, checksum) = bytes.split_last_chunk().ok_or(BadItem)?;
        if CHECKSUM.checksum(body).to_le_bytes() != *checksum {
            return Err(BadItem);
        }
        let mut reader = ItemReader(body);
        let [FORMAT, kind, slot] = reader.array()? else { return Err(BadItem) };
        let slot = match slot {
            0 => Slot::A,
            1 => Slot::B,
            _ => return Err(BadItem),
        };
        let item = if kind == EMPTIED { Self::Emptied(slot) } else { reader.key(slot, kind)? };
        if reader.0.is_empty() { Ok(item) } else { Err(BadItem) }
    }

    /// Where it belongs.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        match self {
            Self::Emptied(slot) | Self::Key { slot, .. } => *slot,
        }
    }
}

impl<'i> Value<'i> for Item<'i> {
    fn serialize_into(&self, buffer: &mut [u8]) -> Result<usize, SerializationError> {
        self.write(buffer).map_err(|_| SerializationError::BufferTooSmall)
    }

    fn deserialize_from(buffer: &'i [u8]) -> Result<(Self, usize), SerializationError> {
        let item = Self::parse(buffer).map_err(|_| SerializationError::InvalidFormat)?;
        Ok((item, buffer.len()))
    }
}

/// Bytes that are no item, or no room for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadItem;

struct ItemWriter<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl ItemWriter<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), BadItem> {
        let end = self.len.checked_add(bytes.len()).ok_or(BadItem)?;
        self.buffer.get_mut(self.len..end).ok_or(BadItem)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    fn long(&mut self, bytes: &[u8]) -> Result<(), BadItem> {
        self.bytes(&u16::try_from(bytes.len()).map_err(|_| BadItem)?.to_le_bytes())?;
        self.bytes(bytes)
    }

    fn time(&mut self, time: UnixTime) -> Result<(), BadItem> {
        self.bytes(&time.as_secs().to_le_bytes())
    }

    fn request(&mut self, request: &StoredRequest<'_>) -> Result<(), BadItem> {
        self.time(request.saved_at)?;
        self.long(request.csr)
    }

    fn pair(&mut self, pair: &Pair<'_>) -> Result<(), BadItem> {
        self.time(pair.saved_at)?;
        self.bytes(&pair.generation.to_le_bytes())?;
        self.time(pair.window.renew_at())?;
        self.time(pair.window.urgent_at())?;
        self.time(pair.window.expires_at())?;
        self.long(pair.chain.as_bytes())?;
        self.long(pair.anchor)
    }
}

struct ItemReader<'i>(&'i [u8]);

impl<'i> ItemReader<'i> {
    fn bytes(&mut self, len: usize) -> Result<&'i [u8], BadItem> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(BadItem)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], BadItem> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(BadItem)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn long(&mut self) -> Result<&'i [u8], BadItem> {
        let len = u16::from_le_bytes(self.array()?);
        self.bytes(len.into())
    }

    fn time(&mut self) -> Result<UnixTime, BadItem> {
        Ok(UnixTime::from_secs(u64::from_le_bytes(self.array()?)))
    }

    fn key(&mut self, slot: Slot, kind: u8) -> Result<Item<'i>, BadItem> {
        let [len] = self.array()?;
        let reference = KeyReference::new(self.bytes(len.into())?).ok_or(BadItem)?;
        let point = P256Point::new(&self.array::<65>()?).ok_or(BadItem)?;
        let record = match kind {
            KEY => None,
            REQUEST => Some(Record::Request(self.request(slot)?)),
            PAIR => Some(Record::Pair(self.pair(slot)?)),
            _ => return Err(BadItem),
        };
        Ok(Item::Key { slot, key: SlotKey { reference, point }, record })
    }

    fn request(&mut self, slot: Slot) -> Result<StoredRequest<'i>, BadItem> {
        let saved_at = self.time()?;
        Ok(StoredRequest { slot, csr: self.long()?, saved_at })
    }

    fn pair(&mut self, slot: Slot) -> Result<Pair<'i>, BadItem> {
        let saved_at = self.time()?;
        let generation = u32::from_le_bytes(self.array()?);
        let window = Window::new(self.time()?, self.time()?, self.time()?).ok_or(BadItem)?;
        let chain = Bundle::new(self.long()?);
        Ok(Pair { slot, generation, chain, anchor: self.long()?, window, saved_at })
    }
}

const fn kind(record: Option<&Record<'_>>) -> u8 {
    match record {
        None => KEY,
        Some(Record::Request(_)) => REQUEST,
        Some(Record::Pair(_)) => PAIR,
    }
}

const fn slot_number(slot: Slot) -> u8 {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

const FORMAT: u8 = 1;
const EMPTIED: u8 = 0;
const KEY: u8 = 1;
const REQUEST: u8 = 2;
const PAIR: u8 = 3;

/// The usual CRC-32, without its table: 1 KiB less flash, and an item is checked a few times a month.
const CHECKSUM: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);
