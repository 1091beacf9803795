//! Identities of a fleet in a directory: compact, appended to, and usable again after any interruption.
//!
//! `fleet.json` names the fleet; each shard of a run appends to a file of its own (`shard-NNNN.ids`), so shards never
//! wait for each other, and every reader takes all files. In memory an identity is two file positions; key and
//! certificate are read when they are needed. A record that was being written when the power went is cut off
//! at the next opening; a record damaged in any other way is an error, since its device would silently be gone.

mod record;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, Read, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use muster_proto::enrollment::Slot;
use serde::{Deserialize, Serialize};

pub use self::record::{BadRecord, Framed, read_frame};
pub(crate) use self::record::{FILE_MAGIC, Payload, StoredPair, StoredRequest};

use self::record::{FRAME_HEADER_BYTES, frame};

/// Who the devices of a directory are.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FleetName {
    /// Form of the directory.
    format: u32,
    /// Device ids are this and a number.
    pub(crate) prefix: String,
}

/// The identities of a fleet.
#[derive(Debug)]
pub(crate) struct Directory {
    name: FleetName,
    files: Vec<IdentityFile>,
    index: Mutex<Vec<Entry>>,
    /// The file that this shard appends to.
    own: Option<Mutex<Appender>>,
}

#[derive(Debug)]
struct IdentityFile {
    file: File,
    /// Intermediates of the chains that leaves in this file refer to.
    chains: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug)]
struct Appender {
    file_number: u16,
    file: File,
    end: u64,
    sequence: u64,
}

/// Where the newest record of each slot is.
#[derive(Clone, Copy, Debug, Default)]
struct Entry([Option<Place>; 2]);

#[derive(Clone, Copy, Debug)]
struct Place {
    file: u16,
    kind: Kind,
    offset: u64,
    sequence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pair,
    Request,
    Retired,
}

/// What a slot holds.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Pair { pair: StoredPair, intermediates: Vec<u8> },
    Request(StoredRequest),
}

impl Directory {
    /// Opens a directory to read it.
    ///
    /// # Errors
    /// In words: none there, of another form, damaged.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path.join(NAME_FILE)).with_context(|| {
            format!("{} holds no identities; make some with `muster-sim fleet`", path.display())
        })?;
        let name: FleetName =
            serde_json::from_slice(&text).with_context(|| format!("{NAME_FILE} is damaged"))?;
        anyhow::ensure!(
            name.format == FORMAT,
            "{} is of form {}; this program reads {FORMAT}",
            path.display(),
            name.format
        );
        let mut directory = Self { name, files: Vec::new(), index: Mutex::default(), own: None };
        for file in shard_files(path)? {
            directory.load(&file, None)?;
        }
        Ok(directory)
    }

    /// Opens a directory for one shard of a run to append to; makes it if it is not there.
    ///
    /// # Errors
    /// In words: another fleet's, in use by another process, damaged.
    pub(crate) fn open_to_write(path: &Path, prefix: &str, shard: u32) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("can't create {}", path.display()))?;
        write_name(path, prefix)?;
        let own = path.join(format!("shard-{shard:04}.ids"));
        let mut options = OpenOptions::new();
        // Keys are in it.
        let file = options.create(true).append(true).read(true).mode(0o600).open(&own);
        let file = file.with_context(|| format!("can't open {}", own.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!(
                    "{} is in use by another process; wait for it, or give this one another --shard",
                    own.display()
                )
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if file.metadata()?.len() < FILE_MAGIC.len() as u64 {
            file.set_len(0)?;
            (&file).write_all(FILE_MAGIC)?;
        }
        let mut directory = Self::open(path)?;
        anyhow::ensure!(
            directory.name.prefix == prefix,
            "{} holds devices `{}...`, not `{prefix}...`; give another directory or prefix",
            path.display(),
            directory.name.prefix
        );
        directory.adopt_own(&own, file)?;
        Ok(directory)
    }

    /// The id of a device.
    pub(crate) fn device(&self, number: u32) -> String {
        format!("{}{number:07}", self.name.prefix)
    }

    /// Numbers of all devices that hold a certificate.
    pub(crate) fn enrolled(&self) -> Vec<u32> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |entry: &Entry| entry.0.iter().flatten().any(|place| place.kind == Kind::Pair);
        (0_u32..).zip(index.iter()).filter(|(_, entry)| holds(entry)).map(|(number, _)| number).collect()
    }

    /// Whether a device holds a certificate.
    pub(crate) fn is_enrolled(&self, number: u32) -> bool {
        self.entry(number).0.iter().flatten().any(|place| place.kind == Kind::Pair)
    }

    /// What a slot of a device holds.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn content(&self, number: u32, slot: Slot) -> anyhow::Result<Option<Content>> {
        let entry = self.entry(number);
        let [a, b] = entry.0;
        let Some(place) = (match slot {
            Slot::A => a,
            Slot::B => b,
        }) else {
            return Ok(None);
        };
        if place.kind == Kind::Retired {
            return Ok(None);
        }
        let file = self.files.get(usize::from(place.file)).context("the index names files that are open")?;
        Ok(match read_at(&file.file, place.offset)? {
            Payload::Pair(pair) => {
                let chains = file.chains.lock().unwrap_or_else(PoisonError::into_inner);
                let intermediates =
                    chains.get(usize::from(pair.chain)).cloned().context("a leaf without its chain")?;
                Some(Content::Pair { pair, intermediates })
            }
            Payload::Request(request) => Some(Content::Request(request)),
            Payload::Chain(_) | Payload::Retired { .. } => None,
        })
    }

    /// The identity of a device in use: of two pairs the one with the lower generation is (the other is unproven).
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn pair(&self, number: u32) -> anyhow::Result<Option<(StoredPair, Vec<u8>)>> {
        let mut found: Option<(StoredPair, Vec<u8>)> = None;
        for slot in [Slot::A, Slot::B] {
            if let Some(Content::Pair { pair, intermediates }) = self.content(number, slot)?
                && found.as_ref().is_none_or(|(older, _)| pair.generation < older.generation)
            {
                found = Some((pair, intermediates));
            }
        }
        Ok(found)
    }

    /// Appends a device's request.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn put_request(&self, request: StoredRequest) -> anyhow::Result<()> {
        let (number, slot) = (request.number, request.slot);
        let place = self.append(&Payload::Request(request), Kind::Request)?;
        self.point(number, slot, place);
        Ok(())
    }

    /// Appends a device's certificate with its key.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn put_pair(&self, mut pair: StoredPair, intermediates: &[u8]) -> anyhow::Result<()> {
        pair.chain = self.chain_number(intermediates)?;
        let (number, slot) = (pair.number, pair.slot);
        let place = self.append(&Payload::Pair(pair), Kind::Pair)?;
        self.point(number, slot, place);
        Ok(())
    }

    /// Forgets what a slot of a device holds.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn retire(&self, number: u32, slot: Slot) -> anyhow::Result<()> {
        let place = self.append(&Payload::Retired { number, slot }, Kind::Retired)?;
        self.point(number, slot, place);
        Ok(())
    }

    /// Bytes on disk that this shard wrote.
    pub(crate) fn own_bytes(&self) -> u64 {
        let own = |own: &Mutex<Appender>| own.lock().unwrap_or_else(PoisonError::into_inner).end;
        self.own.as_ref().map_or(0, own)
    }

    fn entry(&self, number: u32) -> Entry {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.get(number as usize).copied().unwrap_or_default()
    }

    fn point(&self, number: u32, slot: Slot, place: Place) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        point_to(&mut index, number, slot, place);
    }

    /// The number of a chain in the own file; a new one is written first.
    fn chain_number(&self, intermediates: &[u8]) -> anyhow::Result<u16> {
        let own = self.own.as_ref().context("opened to read only")?;
        let file_number = own.lock().unwrap_or_else(PoisonError::into_inner).file_number;
        let file = self.files.get(usize::from(file_number)).context("the own file is open")?;
        let mut chains = file.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = chains.iter().position(|chain| chain == intermediates) {
            return Ok(u16::try_from(known)?);
        }
        let number = u16::try_from(chains.len()).context("too many different chains in one file")?;
        self.append(&Payload::Chain(intermediates.to_vec()), Kind::Retired)?;
        chains.push(intermediates.to_vec());
        Ok(number)
    }

    fn append(&self, payload: &Payload, kind: Kind) -> anyhow::Result<Place> {
        let own = self.own.as_ref().context("opened to read only")?;
        let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
        own.sequence = own.sequence.saturating_add(1).max(now_micros());
        let bytes = frame(payload, own.sequence)?;
        // One write, so that a killed process leaves whole records or one cut one at the end.
        own.file.write_all(&bytes).context("can't write identities; is the disk full?")?;
        let place = Place { file: own.file_number, kind, offset: own.end, sequence: own.sequence };
        own.end += bytes.len() as u64;
        Ok(place)
    }

    fn adopt_own(&mut self, path: &Path, file: File) -> anyhow::Result<()> {
        // What was read before the lock may have grown since; with the lock it can't any more.
        let position = shard_files(path.parent().unwrap_or_else(|| Path::new(".")))?
            .iter()
            .position(|other| other == path);
        let file_number = u16::try_from(position.context("the own file is in its directory")?)?;
        let end = self.load(path, Some(file_number))?;
        if end < file.metadata()?.len() {
            file.set_len(end)?;
        }
        self.own = Some(Mutex::new(Appender { file_number, file, end, sequence: 0 }));
        Ok(())
    }

    /// Reads a file into the index, as a new one or over what was read of it before; the end of its last whole record.
    fn load(&mut self, path: &Path, again: Option<u16>) -> anyhow::Result<u64> {
        let number = match again {
            Some(number) => number,
            None => u16::try_from(self.files.len()).context("too many files of identities")?,
        };
        let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
        let mut chains = Vec::new();
        let index = self.index.get_mut().unwrap_or_else(PoisonError::into_inner);
        let end = scan(&file, number, index, &mut chains).with_context(|| path.display().to_string())?;
        let read = IdentityFile { file, chains: Mutex::new(chains) };
        match self.files.get_mut(usize::from(number)) {
            Some(place) => *place = read,
            None => self.files.push(read),
        }
        Ok(end)
    }
}

fn point_to(index: &mut Vec<Entry>, number: u32, slot: Slot, place: Place) {
    let number = number as usize;
    if index.len() <= number {
        index.resize(number + 1, Entry::default());
    }
    let Some(Entry([a, b])) = index.get_mut(number) else { return };
    let held = match slot {
        Slot::A => a,
        Slot::B => b,
    };
    // Of records in different files the one written last holds.
    if held.is_none_or(|held| held.sequence <= place.sequence) {
        *held = Some(place);
    }
}

/// Reads all records of a file; the end of the last whole one.
fn scan(file: &File, number: u16, index: &mut Vec<Entry>, chains: &mut Vec<Vec<u8>>) -> anyhow::Result<u64> {
    let length = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(SCAN_BYTES, file);
    let mut magic = [0; FILE_MAGIC.len()];
    if length < magic.len() as u64 {
        return Ok(0);
    }
    reader.read_exact(&mut magic)?;
    anyhow::ensure!(&magic == FILE_MAGIC, "is no file of identities");
    let mut offset = magic.len() as u64;
    let mut bytes = Vec::new();
    while offset < length {
        let left = length - offset;
        let Some(size) = next_frame(&mut reader, left, &mut bytes)? else { break };
        let framed = match read_frame(&bytes) {
            Ok(framed) => framed,
            // The last one may be half written although its length is right: file systems may do so.
            Err(BadRecord::Checksum) if size == left => break,
            Err(error) => {
                anyhow::bail!("is damaged at byte {offset}: {error}; move it away to go on without it")
            }
        };
        let sequence = framed.sequence;
        let mut point = |device, slot, kind| {
            point_to(index, device, slot, Place { file: number, kind, offset, sequence });
        };
        match framed.payload {
            Payload::Chain(chain) => chains.push(chain),
            Payload::Pair(pair) => point(pair.number, pair.slot, Kind::Pair),
            Payload::Request(request) => point(request.number, request.slot, Kind::Request),
            Payload::Retired { number, slot } => point(number, slot, Kind::Retired),
        }
        offset += size;
    }
    Ok(offset)
}

/// Reads the next frame's bytes; `None` when less than one is left.
fn next_frame(reader: &mut impl Read, left: u64, bytes: &mut Vec<u8>) -> anyhow::Result<Option<u64>> {
    if left < FRAME_HEADER_BYTES as u64 {
        return Ok(None);
    }
    bytes.clear();
    bytes.resize(FRAME_HEADER_BYTES, 0);
    reader.read_exact(bytes)?;
    let length = record::payload_len(bytes)?;
    let size = (FRAME_HEADER_BYTES + length) as u64;
    if size > left {
        return Ok(None);
    }
    bytes.resize(FRAME_HEADER_BYTES + length, 0);
    let (_, payload) = bytes.split_at_mut(FRAME_HEADER_BYTES);
    reader.read_exact(payload)?;
    Ok(Some(size))
}

fn read_at(file: &File, offset: u64) -> anyhow::Result<Payload> {
    let mut bytes = vec![0; USUAL_RECORD_BYTES];
    let mut filled = 0;
    loop {
        let room = bytes.get_mut(filled..).unwrap_or_default();
        let read = file.read_at(room, offset + filled as u64)?;
        filled += read;
        if filled >= FRAME_HEADER_BYTES {
            let whole = FRAME_HEADER_BYTES + record::payload_len(&bytes)?;
            if filled >= whole {
                bytes.truncate(whole);
                return Ok(read_frame(&bytes)?.payload);
            }
            bytes.resize(whole, 0);
        }
        anyhow::ensure!(read > 0, "a record that was there is gone");
    }
}

fn write_name(path: &Path, prefix: &str) -> anyhow::Result<()> {
    let name = FleetName { format: FORMAT, prefix: prefix.to_owned() };
    let file = OpenOptions::new().write(true).create_new(true).open(path.join(NAME_FILE));
    match file {
        Ok(mut file) => Ok(file.write_all(&serde_json::to_vec_pretty(&name)?)?),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("can't write to {}", path.display())),
    }
}

fn shard_files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "ids") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn now_micros() -> u64 {
    u64::try_from(crate::clock::unix_now().as_micros()).unwrap_or(u64::MAX)
}

const NAME_FILE: &str = "fleet.json";
const FORMAT: u32 = 1;
/// A P-256 certificate of ours with its key takes 700 to 800.
const USUAL_RECORD_BYTES: usize = 1024;
/// Reads of a scan.
const SCAN_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests;
