//! What the boots before had to say when they died, in two pages of flash.
//!
//! Fixed records with a check value, one behind the other; a full page is followed by the other one, which is erased
//! first, so the newest record is never on the page that is erased. A record is written for the 1st, 2nd, 4th, 8th
//! ... crash in a row only: a server that crashes a device again and again must not wear out its flash.
//! While it goes on crashing, each boot waits twice as long as the one before ([`back_off`]).

use core::fmt::{self, Write};
use core::time::Duration;

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};
use embedded_storage::nor_flash::NorFlash;
use heapless::String;

/// One crash, and how many there were in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Counts up with each record.
    sequence: u32,
    /// How many there were in a row, with this one.
    pub in_a_row: u16,
    /// Why: the panic's place and words, as far as they fit.
    pub reason: Reason,
}

/// A panic's place and words.
pub type Reason = String<REASON_BYTES>;

/// Reads the newest record.
///
/// # Errors
/// The flash's.
pub fn newest<F: NorFlash>(flash: &mut F) -> Result<Option<Crash>, F::Error> {
    Ok(scan(flash)?.newest)
}

/// Adds a record, if this many in a row are worth one.
///
/// # Errors
/// The flash's. After a cut the record is there or not; the ones before stay.
pub fn record<F: NorFlash>(flash: &mut F, in_a_row: u16, reason: &str) -> Result<(), F::Error> {
    if !in_a_row.is_power_of_two() {
        return Ok(());
    }
    let Scan { newest, free_at, stale_page } = scan(flash)?;
    if let Some(page) = stale_page {
        let page_bytes = page_bytes::<F>();
        flash.erase(page * page_bytes, (page + 1) * page_bytes)?;
    }
    let crash = Crash {
        sequence: newest.map_or(1, |crash| crash.sequence.wrapping_add(1)),
        in_a_row,
        reason: cut(reason),
    };
    flash.write(free_at, &crash.bytes().0)
}

/// A crash as it is kept in memory that a restart does not clear, until the next boot can write it to flash: a
/// panic handler must not touch a flash driver that it may have interrupted.
#[must_use]
pub fn remember(crash: &Crash) -> [u8; REMEMBERED_BYTES] {
    crash.bytes().0
}

/// Reads such memory. `None` after a cold start, when it holds anything.
#[must_use]
pub fn recall(memory: [u8; REMEMBERED_BYTES]) -> Option<Crash> {
    Record(memory).parse()
}

impl Crash {
    /// A crash that was not written to flash yet.
    #[must_use]
    pub const fn untold(in_a_row: u16, reason: Reason) -> Self {
        Self { sequence: UNTOLD, in_a_row, reason }
    }

    /// The same, once it was.
    #[must_use]
    pub fn told(self) -> Self {
        Self { sequence: TOLD, ..self }
    }

    /// Whether it is still to be written.
    #[must_use]
    pub const fn is_untold(&self) -> bool {
        self.sequence == UNTOLD
    }
}

/// How long to wait before doing anything, after so many crashes in a row.
#[must_use]
pub fn back_off(in_a_row: u16) -> Duration {
    if in_a_row == 0 {
        return Duration::ZERO;
    }
    let doubled = 1_u32.checked_shl(u32::from(in_a_row)).unwrap_or(u32::MAX);
    Duration::from_secs(doubled.into()).min(LONGEST_BACK_OFF)
}

/// What a panic handler keeps, cut to what fits.
#[must_use]
pub fn cut(text: &str) -> Reason {
    let mut reason = Cut::default();
    // An error only means that it was cut.
    let _ = reason.write_str(text);
    reason.0
}

/// A text of which the end may be missing: what a panic is written into.
#[derive(Debug, Default)]
pub struct Cut(pub Reason);

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.floor_char_boundary(REASON_BYTES - self.0.len());
        let (kept, lost) = text.split_at_checked(end).unwrap_or_default();
        self.0.push_str(kept).map_err(|_| fmt::Error)?;
        if lost.is_empty() { Ok(()) } else { Err(fmt::Error) }
    }
}

struct Scan {
    newest: Option<Crash>,
    free_at: u32,
    /// Must be erased before `free_at` is written.
    stale_page: Option<u32>,
}

fn scan<F: NorFlash>(flash: &mut F) -> Result<Scan, F::Error> {
    let page_bytes = page_bytes::<F>();
    let mut newest: Option<(Crash, u32)> = None;
    let mut at = 0;
    while at + RECORD_BYTES <= PAGES * page_bytes {
        let mut record = Record([0; RECORD_LEN]);
        flash.read(at, &mut record.0)?;
        if let Some(crash) = record.parse()
            && newest.as_ref().is_none_or(|(known, _)| known.sequence < crash.sequence)
        {
            newest = Some((crash, at));
        }
        at += RECORD_BYTES;
    }
    let newest_page = newest.as_ref().map_or(0, |(_, at)| at / page_bytes);
    let mut free_at = newest.as_ref().map_or(0, |(_, at)| at + RECORD_BYTES);
    // A place that a power cut spoiled is passed over.
    while free_at + RECORD_BYTES <= (newest_page + 1) * page_bytes {
        let mut record = Record([0; RECORD_LEN]);
        flash.read(free_at, &mut record.0)?;
        if record.0.iter().all(|byte| *byte == 0xff) {
            return Ok(Scan { newest: newest.map(|(crash, _)| crash), free_at, stale_page: None });
        }
        free_at += RECORD_BYTES;
    }
    let other = (newest_page + 1) % PAGES;
    let newest = newest.map(|(crash, _)| crash);
    Ok(Scan { newest, free_at: other * page_bytes, stale_page: Some(other) })
}

/// One record as it lies in flash; drivers with DMA want it aligned.
#[repr(align(4))]
struct Record([u8; RECORD_LEN]);

impl Record {
    // Once in the image, for flash and memory.
    #[inline(never)]
    fn parse(&self) -> Option<Crash> {
        let (&crc, rest) = self.0.split_first_chunk::<4>()?;
        if CRC.checksum(rest) != u32::from_le_bytes(crc) {
            return None;
        }
        let (&sequence, rest) = rest.split_first_chunk::<4>()?;
        let (&[low, high, len], rest) = rest.split_first_chunk::<3>()?;
        let text = core::str::from_utf8(rest.get(..usize::from(len))?).ok()?;
        Some(Crash {
            sequence: u32::from_le_bytes(sequence),
            in_a_row: u16::from_le_bytes([low, high]),
            reason: cut(text),
        })
    }
}

impl Crash {
    #[inline(never)]
    fn bytes(&self) -> Record {
        let mut record = Record([0; RECORD_LEN]);
        let [_, _, _, _, s0, s1, s2, s3, low, high, len, text @ ..] = &mut record.0;
        [*s0, *s1, *s2, *s3] = self.sequence.to_le_bytes();
        [*low, *high] = self.in_a_row.to_le_bytes();
        *len = u8::try_from(self.reason.len()).unwrap_or(0);
        if let Some(place) = text.get_mut(..self.reason.len()) {
            place.copy_from_slice(self.reason.as_bytes());
        }
        let [c0, c1, c2, c3, rest @ ..] = &mut record.0;
        [*c0, *c1, *c2, *c3] = CRC.checksum(rest).to_le_bytes();
        record
    }
}

fn page_bytes<F: NorFlash>() -> u32 {
    u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX)
}

/// In memory there is no sequence; its place says whether the record is in flash already.
const TOLD: u32 = 0;
const UNTOLD: u32 = 1;
/// The size of [`remember`]'s memory.
pub const REMEMBERED_BYTES: usize = RECORD_LEN;
/// Two pages: one is erased while the other has the newest record.
pub const PAGES: u32 = 2;
/// Longest reason that is kept.
pub const REASON_BYTES: usize = 116;
/// Check value, sequence, count, length and text: a multiple of every flash word up to 128 bytes.
const RECORD_LEN: usize = 128;
const RECORD_BYTES: u32 = 128;
/// A device that crashes at once is of use to nobody, and four tries an hour are enough to see that it is over.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(15 * 60);

/// Bit by bit: a table of 1 KiB would be read a few times in a boot.
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

#[cfg(test)]
mod tests {
    use embedded_storage::nor_flash::{ErrorType, NorFlashError, NorFlashErrorKind, ReadNorFlash};

    use super::*;

    /// Two pages in memory whose power fails after so many bytes.
    struct Flash {
        bytes: [u8; 8192],
        bytes_left: usize,
        erased: u32,
    }

    #[derive(Debug)]
    struct PowerCut;

    impl NorFlashError for PowerCut {
        fn kind(&self) -> NorFlashErrorKind {
            NorFlashErrorKind::Other
        }
    }

    impl ErrorType for Flash {
        type Error = PowerCut;
    }

    impl ReadNorFlash for Flash {
        const READ_SIZE: usize = 1;

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerCut> {
            let offset = usize::try_from(offset).expect("small");
            bytes.copy_from_slice(&self.bytes[offset..offset + bytes.len()]);
            Ok(())
        }

        fn capacity(&self) -> usize {
            self.bytes.len()
        }
    }

    impl NorFlash for Flash {
        const WRITE_SIZE: usize = 4;
        const ERASE_SIZE: usize = 4096;

        fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerCut> {
            let range = usize::try_from(from).expect("small")..usize::try_from(to).expect("small");
            self.bytes[range].fill(0xff);
            self.erased += 1;
            Ok(())
        }

        fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerCut> {
            let offset = usize::try_from(offset).expect("small");
            for (place, byte) in self.bytes[offset..].iter_mut().zip(bytes) {
                self.bytes_left = self.bytes_left.checked_sub(1).ok_or(PowerCut)?;
                assert_eq!(*place, 0xff, "written twice");
                *place = *byte;
            }
            Ok(())
        }
    }

    fn flash() -> Flash {
        Flash { bytes: [0xff; 8192], bytes_left: usize::MAX, erased: 0 }
    }

    fn last(flash: &mut Flash) -> Option<(u16, Reason)> {
        newest(flash).expect("no cut").map(|crash| (crash.in_a_row, crash.reason))
    }

    #[test]
    fn the_newest_is_found_through_many_pages() {
        let mut flash = flash();
        assert_eq!(last(&mut flash), None);
        for n in 0..200 {
            let mut reason = Reason::new();
            write!(reason, "panic {n}").expect("fits");
            record(&mut flash, 1, &reason).expect("no cut");
            assert_eq!(last(&mut flash), Some((1, reason)));
        }
        assert_eq!(flash.erased, 6);
    }

    #[test]
    fn a_row_of_crashes_is_written_ever_more_seldom() {
        let mut flash = flash();
        for in_a_row in 1..=1000 {
            record(&mut flash, in_a_row, "again").expect("no cut");
        }
        let written = usize::MAX - flash.bytes_left;
        assert_eq!(written, 10 * RECORD_LEN);
        assert_eq!(last(&mut flash).map(|(in_a_row, _)| in_a_row), Some(512));
    }

    #[test]
    fn a_cut_in_a_record_leaves_the_one_before_and_room_for_the_next() {
        for cut_at in 0..RECORD_LEN {
            let mut flash = flash();
            record(&mut flash, 1, "first").expect("no cut");
            flash.bytes_left = cut_at;
            record(&mut flash, 2, "second").expect_err("cut");
            flash.bytes_left = usize::MAX;
            assert_eq!(last(&mut flash), Some((1, cut("first"))), "{cut_at}");
            record(&mut flash, 2, "third").expect("no cut");
            assert_eq!(last(&mut flash), Some((2, cut("third"))), "{cut_at}");
        }
    }

    #[test]
    fn waits_grow_to_a_quarter_of_an_hour() {
        let waits: [u64; 5] = [0, 1, 2, 9, u16::MAX].map(|count| back_off(count).as_secs());
        assert_eq!(waits, [0, 2, 4, 512, 900]);
    }

    #[test]
    fn a_long_panic_is_cut() {
        let mut text = Cut::default();
        let long = [b'x'; 500];
        write!(text, "{}", core::str::from_utf8(&long).expect("ASCII")).expect_err("it is too long");
        assert_eq!(text.0.len(), REASON_BYTES);
    }
}
