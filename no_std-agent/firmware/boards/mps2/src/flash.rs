//! A NOR flash in a file of the host, which survives the emulator. Its power can be made to fail.
//!
//! Words of 4 bytes, pages of 4 KiB, as most parts with built-in flash have. With `die=N` the N-th write or erasure
//! from the start is done by half, and then the emulator ends: a power cut in the middle of it.

use core::fmt;

use cortex_m_semihosting::nr;
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

use crate::semihosting::{self, File};

/// The flash.
pub(crate) struct FileFlash {
    file: File,
    bytes: usize,
    writes: u32,
    die_at_write: Option<u32>,
}

impl FileFlash {
    /// Opens it; the name must end with a zero byte.
    pub(crate) fn open(name: &[u8], die_at_write: Option<u32>) -> Option<Self> {
        let file = File::open(name, nr::open::RW_BINARY)?;
        let bytes = file.len();
        Some(Self { file, bytes, writes: 0, die_at_write })
    }

    /// Whether this step is the last one.
    fn is_last(&mut self) -> bool {
        self.writes += 1;
        self.die_at_write == Some(self.writes)
    }

    fn program(&self, offset: usize, bytes: &[u8]) -> Result<(), FlashFailed> {
        let mut at = offset;
        for piece in bytes.chunks(PIECE_BYTES) {
            let mut before = [0; PIECE_BYTES];
            let before = before.get_mut(..piece.len()).ok_or(FlashFailed)?;
            if !self.file.seek(at) || !self.file.read(before) {
                return Err(FlashFailed);
            }
            // Programming clears bits and sets none.
            before.iter_mut().zip(piece).for_each(|(place, byte)| *place &= byte);
            if !self.file.seek(at) || !self.file.write(before) {
                return Err(FlashFailed);
            }
            at += piece.len();
        }
        Ok(())
    }

    fn blank(&self, from: usize, to: usize) -> Result<(), FlashFailed> {
        if !self.file.seek(from) {
            return Err(FlashFailed);
        }
        let blank = [0xff; PIECE_BYTES];
        let pieces = (to - from) / PIECE_BYTES;
        if (0..pieces).all(|_| self.file.write(&blank)) { Ok(()) } else { Err(FlashFailed) }
    }
}

impl ErrorType for FileFlash {
    type Error = FlashFailed;
}

impl ReadNorFlash for FileFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashFailed> {
        let offset = usize::try_from(offset).map_err(|_| FlashFailed)?;
        if self.file.seek(offset) && self.file.read(bytes) { Ok(()) } else { Err(FlashFailed) }
    }

    fn capacity(&self) -> usize {
        self.bytes
    }
}

impl NorFlash for FileFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE_BYTES;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashFailed> {
        let from = usize::try_from(from).map_err(|_| FlashFailed)?;
        let to = usize::try_from(to).map_err(|_| FlashFailed)?;
        if from % PAGE_BYTES != 0 || to % PAGE_BYTES != 0 || to > self.bytes || from > to {
            return Err(FlashFailed);
        }
        for page in (from..to).step_by(PAGE_BYTES) {
            if self.is_last() {
                self.blank(page, page + PAGE_BYTES / 2)?;
                semihosting::exit(POWER_CUT);
            }
            self.blank(page, page + PAGE_BYTES)?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashFailed> {
        let offset = usize::try_from(offset).map_err(|_| FlashFailed)?;
        if !offset.is_multiple_of(4) || !bytes.len().is_multiple_of(4) || offset + bytes.len() > self.bytes {
            return Err(FlashFailed);
        }
        if self.is_last() {
            self.program(offset, bytes.get(..bytes.len() / 2).unwrap_or_default())?;
            semihosting::exit(POWER_CUT);
        }
        self.program(offset, bytes)
    }
}

/// The host's file is not what it must be.
#[derive(Debug)]
pub(crate) struct FlashFailed;

impl fmt::Display for FlashFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl NorFlashError for FlashFailed {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

/// The erase unit.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Bytes that go to the host at once.
const PIECE_BYTES: usize = 64;
/// The exit code after a power cut.
const POWER_CUT: usize = 75;
