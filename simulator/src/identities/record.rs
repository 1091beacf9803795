//! One record of a file of identities: length, CRC-32, then a payload of fixed fields and one DER at its end.
//!
//! All numbers are little-endian. A private key is kept as its 32-octet scalar: the public half is in the
//! certificate or request. The files are read from disks that anyone may have written to, so every field is
//! checked and nothing is allocated by a length that was not compared with what is there.

use crc::{CRC_32_ISO_HDLC, Crc};
use muster_proto::enrollment::{Slot, Window};
use muster_proto::time::UnixTime;

/// A record with its place in the order of writing.
#[derive(Clone, Debug)]
pub struct Framed {
    pub(crate) sequence: u64,
    pub(crate) payload: Payload,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Intermediates of one or more leaves that follow in the same file, DER one after the other.
    Chain(Vec<u8>),
    Pair(StoredPair),
    Request(StoredRequest),
    Retired {
        number: u32,
        slot: Slot,
    },
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredPair {
    pub(crate) number: u32,
    pub(crate) slot: Slot,
    pub(crate) generation: u32,
    pub(crate) window: Window,
    pub(crate) saved_at: UnixTime,
    pub(crate) scalar: [u8; 32],
    /// Which chain of the file.
    pub(crate) chain: u16,
    pub(crate) leaf: Vec<u8>,
}

/// A request with its key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredRequest {
    pub(crate) number: u32,
    pub(crate) slot: Slot,
    pub(crate) saved_at: UnixTime,
    pub(crate) scalar: [u8; 32],
    pub(crate) csr: Vec<u8>,
}

impl std::fmt::Debug for StoredPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredPair").field("number", &self.number).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StoredRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredRequest").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The checksum is not that of the payload.
    #[error("its checksum is wrong")]
    Checksum,
    /// A field is invalid.
    #[error("a field is invalid")]
    Field,
    /// It ends too early, or goes on too long.
    #[error("its length is wrong")]
    Length,
}

/// Reads one whole frame.
///
/// # Errors
/// [`BadRecord`].
pub fn read_frame(bytes: &[u8]) -> Result<Framed, BadRecord> {
    let length = payload_len(bytes)?;
    let (header, payload) = bytes.split_at_checked(FRAME_HEADER_BYTES).ok_or(BadRecord::Length)?;
    if payload.len() != length {
        return Err(BadRecord::Length);
    }
    let (_, sum) = header.split_at_checked(4).ok_or(BadRecord::Length)?;
    if CRC.checksum(payload).to_le_bytes() != sum {
        return Err(BadRecord::Checksum);
    }
    let mut fields = Fields(payload);
    let kind = fields.u8()?;
    let sequence = u64::from_le_bytes(fields.take()?);
    let payload = match kind {
        KIND_CHAIN => Payload::Chain(fields.rest()),
        KIND_PAIR => Payload::Pair(StoredPair {
            number: fields.number()?,
            slot: fields.slot()?,
            generation: u32::from_le_bytes(fields.take()?),
            window: fields.window()?,
            saved_at: fields.time()?,
            scalar: fields.take()?,
            chain: u16::from_le_bytes(fields.take()?),
            leaf: fields.some_rest()?,
        }),
        KIND_REQUEST => Payload::Request(StoredRequest {
            number: fields.number()?,
            slot: fields.slot()?,
            saved_at: fields.time()?,
            scalar: fields.take()?,
            csr: fields.some_rest()?,
        }),
        KIND_RETIRED => {
            let retired = Payload::Retired { number: fields.number()?, slot: fields.slot()? };
            if !fields.0.is_empty() {
                return Err(BadRecord::Length);
            }
            retired
        }
        _ => return Err(BadRecord::Field),
    };
    Ok(Framed { sequence, payload })
}

/// The length that a frame's header says its payload has.
pub(super) fn payload_len(bytes: &[u8]) -> Result<usize, BadRecord> {
    let length = Fields(bytes).take().map(u32::from_le_bytes)?;
    let length = usize::try_from(length).map_err(|_| BadRecord::Length)?;
    if length > MAX_PAYLOAD_BYTES {
        return Err(BadRecord::Length);
    }
    Ok(length)
}

/// Writes a frame.
///
/// # Errors
/// [`BadRecord::Length`] for what would not be read again.
pub(super) fn frame(payload: &Payload, sequence: u64) -> Result<Vec<u8>, BadRecord> {
    let mut out = vec![0; FRAME_HEADER_BYTES];
    let kind = match payload {
        Payload::Chain(_) => KIND_CHAIN,
        Payload::Pair(_) => KIND_PAIR,
        Payload::Request(_) => KIND_REQUEST,
        Payload::Retired { .. } => KIND_RETIRED,
    };
    out.push(kind);
    out.extend(sequence.to_le_bytes());
    match payload {
        Payload::Chain(chain) => out.extend(chain),
        Payload::Pair(pair) => {
            write_place(&mut out, pair.number, pair.slot);
            out.extend(pair.generation.to_le_bytes());
            for at in
                [pair.window.renew_at(), pair.window.urgent_at(), pair.window.expires_at(), pair.saved_at]
            {
                out.extend(at.as_secs().to_le_bytes());
            }
            out.extend(pair.scalar);
            out.extend(pair.chain.to_le_bytes());
            out.extend(&pair.leaf);
        }
        Payload::Request(request) => {
            write_place(&mut out, request.number, request.slot);
            out.extend(request.saved_at.as_secs().to_le_bytes());
            out.extend(request.scalar);
            out.extend(&request.csr);
        }
        Payload::Retired { number, slot } => write_place(&mut out, *number, *slot),
    }
    let (header, payload) = out.split_at_mut(FRAME_HEADER_BYTES);
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(BadRecord::Length);
    }
    let length = u32::try_from(payload.len()).map_err(|_| BadRecord::Length)?;
    let (length_field, sum_field) = header.split_at_mut(4);
    length_field.copy_from_slice(&length.to_le_bytes());
    sum_field.copy_from_slice(&CRC.checksum(payload).to_le_bytes());
    Ok(out)
}

fn write_place(out: &mut Vec<u8>, number: u32, slot: Slot) {
    out.extend(number.to_le_bytes());
    out.push(match slot {
        Slot::A => 0,
        Slot::B => 1,
    });
}

/// What is left to read.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadRecord> {
        let (field, rest) = self.0.split_first_chunk().ok_or(BadRecord::Length)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, BadRecord> {
        self.take().map(|[octet]| octet)
    }

    fn number(&mut self) -> Result<u32, BadRecord> {
        let number = u32::from_le_bytes(self.take()?);
        // The index is a table by number: a wild one must not make it huge.
        if number < MAX_DEVICES { Ok(number) } else { Err(BadRecord::Field) }
    }

    fn slot(&mut self) -> Result<Slot, BadRecord> {
        match self.u8()? {
            0 => Ok(Slot::A),
            1 => Ok(Slot::B),
            _ => Err(BadRecord::Field),
        }
    }

    fn time(&mut self) -> Result<UnixTime, BadRecord> {
        Ok(UnixTime::from_secs(u64::from_le_bytes(self.take()?)))
    }

    fn window(&mut self) -> Result<Window, BadRecord> {
        Window::new(self.time()?, self.time()?, self.time()?).ok_or(BadRecord::Field)
    }

    fn rest(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn some_rest(&self) -> Result<Vec<u8>, BadRecord> {
        if self.0.is_empty() { Err(BadRecord::Length) } else { Ok(self.rest()) }
    }
}

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Length and checksum.
pub(super) const FRAME_HEADER_BYTES: usize = 8;
/// Chains of RSA certificates fit many times.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 64 << 10;
/// Ten times the largest fleet that this is meant for.
pub(crate) const MAX_DEVICES: u32 = 10_000_000;
/// How a file begins.
pub(crate) const FILE_MAGIC: &[u8; 8] = b"MSIMIDS1";

const KIND_CHAIN: u8 = 3;
const KIND_PAIR: u8 = 2;
const KIND_REQUEST: u8 = 1;
const KIND_RETIRED: u8 = 4;
