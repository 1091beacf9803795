//! Two identities in flash: one in use, one for its successor, on pages that they do not share.
//!
//! Each slot is a `sequential-storage` map of its own with one item. A write to one slot therefore never moves,
//! erases or repairs a page of the other: whatever a power cut leaves in the slot that is being written, the
//! identity in use is not touched. Within the slot the write is atomic: after a cut it holds the item from before
//! or the new one. There is no mark for "pending": of two whole identities the lower generation is in use until
//! the higher one was accepted, and then its slot is emptied (see `Enrollment::new`).
//! A slot that cannot be read is absent, not an error: the machine can make good for it, but not for a panic.

mod immediate;
mod item;

use core::ops::Range;

use embassy_futures::block_on;
use embedded_storage::nor_flash::NorFlash;
use muster_proto::enrollment::Slot;
use muster_proto::sha256;
use sequential_storage::Error;
use sequential_storage::cache::Cache;
use sequential_storage::map::{MapConfig, MapStorage};
use zeroize::Zeroize;

use self::immediate::Immediate;

pub use item::{BadItem, Item};

/// The identity store in one region of a flash.
pub struct IdentityStore<F> {
    flash: F,
    half_a: Range<u32>,
    half_b: Range<u32>,
}

impl<F: NorFlash> IdentityStore<F> {
    /// Divides `region` between the slots. `item_bytes` is the longest item that will be stored, see [`ITEM_BYTES`].
    ///
    /// # Errors
    /// [`BadRegion`] when the region does not lie on page boundaries, or has not enough pages that every item
    /// can be written at any time.
    pub fn new(flash: F, region: Range<u32>, item_bytes: usize) -> Result<Self, BadRegion> {
        let pages = pages_per_slot::<F>(item_bytes).ok_or(BadRegion::Pages)?;
        let page_bytes = u32::try_from(F::ERASE_SIZE).map_err(|_| BadRegion::Pages)?;
        let needed_bytes = page_bytes.checked_mul(2 * pages).ok_or(BadRegion::Pages)?;
        let bytes = region.end.checked_sub(region.start).ok_or(BadRegion::Alignment)?;
        if !region.start.is_multiple_of(page_bytes) || !bytes.is_multiple_of(page_bytes) {
            return Err(BadRegion::Alignment);
        }
        if bytes < needed_bytes {
            return Err(BadRegion::Size { needed_bytes });
        }
        let fits = usize::try_from(region.end).is_ok_and(|end| end <= flash.capacity());
        if !fits {
            return Err(BadRegion::OutsideFlash);
        }
        let half_bytes = bytes / page_bytes / 2 * page_bytes;
        let middle = region.start + half_bytes;
        Ok(Self { flash, half_a: region.start..middle, half_b: middle..middle + half_bytes })
    }

    /// What the slot holds: `None` when that is nothing, or nothing that can be read. Finishes what a power cut
    /// interrupted. The item's parts point into `scratch`, which must be as long as the longest item, and may hold
    /// a key: wipe it afterwards.
    ///
    /// # Errors
    /// [`StoreError`] when the flash fails or `scratch` is too short; damaged content is no error.
    pub fn load<'s>(
        &mut self,
        slot: Slot,
        scratch: &'s mut [u8],
    ) -> Result<Option<Item<'s>>, StoreError<F::Error>> {
        let found = match self.fetch(slot, scratch) {
            Ok(found) => found,
            Err(StoreError::Damaged | StoreError::TooLarge) => None,
            Err(error) => return Err(error),
        };
        // The key `()` takes no bytes, so the item begins where the buffer does.
        let bytes = found.and_then(|len| scratch.get(..len)).unwrap_or_default();
        let item = Item::parse(bytes).ok().filter(|item| item.slot() == slot);
        if let Some(Item::Emptied(_)) = item {
            self.wipe(slot).map_err(StoreError::Flash)?;
            return Ok(None);
        }
        Ok(item)
    }

    /// Puts an item into its slot in one atomic write, over what is there. Durable once this returned `Ok`.
    ///
    /// # Errors
    /// [`StoreError`]; the slot then holds what it held before or nothing, and the other slot is as it was.
    pub fn put(&mut self, item: &Item<'_>, scratch: &mut [u8]) -> Result<(), StoreError<F::Error>> {
        let mut done = Err(StoreError::Damaged);
        for _ in 0..MAX_WRITES {
            done = match self.put_once(item, scratch) {
                Ok(Written::Found) => Ok(()),
                Ok(Written::Lost) => continue,
                Err(error) => Err(error),
            };
            break;
        }
        // A software key has just been in it.
        scratch.zeroize();
        done
    }

    fn put_once(&mut self, item: &Item<'_>, scratch: &mut [u8]) -> Result<Written, StoreError<F::Error>> {
        let slot = item.slot();
        let len = item.write(scratch).map_err(|_| StoreError::TooLarge)?;
        let wanted = sha256(scratch.get(..len).unwrap_or_default());
        let mut written = self.store(slot, item, scratch);
        if matches!(written, Err(StoreError::Damaged)) {
            // Beyond repair, so there is nothing in it to lose, and otherwise it would stay so for ever.
            self.erase(self.half(slot)).map_err(StoreError::Flash)?;
            written = self.store(slot, item, scratch);
        }
        written?;
        let found = self.fetch(slot, scratch)?.and_then(|len| scratch.get(..len));
        let is_found = found.is_some_and(|bytes| sha256(bytes) == wanted);
        Ok(if is_found { Written::Found } else { Written::Lost })
    }

    /// How long the slot's item is, which then is at the beginning of `scratch`.
    // Apart, here and below: the frame of sequential-storage's future is off the stack before anything else happens.
    #[inline(never)]
    fn fetch(&mut self, slot: Slot, scratch: &mut [u8]) -> Result<Option<usize>, StoreError<F::Error>> {
        let found = block_on(self.map(slot)?.fetch_item::<&[u8]>(scratch, &()));
        found.map(|item| item.map(<[u8]>::len)).map_err(StoreError::from_map)
    }

    #[inline(never)]
    fn store(&mut self, slot: Slot, item: &Item<'_>, scratch: &mut [u8]) -> Result<(), StoreError<F::Error>> {
        block_on(self.map(slot)?.store_item(scratch, &(), item)).map_err(StoreError::from_map)
    }

    /// Empties a slot: after the first, atomic step there is no item in it, and then its pages are wiped, so that
    /// no copy of a software key remains. A cut in between is made good for by [`load`](Self::load).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn empty(&mut self, slot: Slot, scratch: &mut [u8]) -> Result<(), StoreError<F::Error>> {
        self.put(&Item::Emptied(slot), scratch)?;
        self.wipe(slot).map_err(StoreError::Flash)
    }

    /// Erases a slot whose newest item says that it is empty. The page with that item goes last: otherwise a cut
    /// would bring an older item back. It is closed first, since sequential-storage takes a page with neither of
    /// its marks for a blank one, and that is what a cut in the middle of an erase would leave of an open page.
    fn wipe(&mut self, slot: Slot) -> Result<(), F::Error> {
        let mut newest = None;
        for page in pages::<F>(self.half(slot)) {
            if self.is_marked(&page, Mark::Closed)? {
                self.erase(page)?;
            } else if newest.is_none() && self.is_marked(&page, Mark::Used)? {
                newest = Some(page);
            }
        }
        let Some(page) = newest else { return Ok(()) };
        let mark = Word([0; MAX_WORD_BYTES]);
        let mark = mark.0.get(..word_bytes::<F>()).unwrap_or_default();
        self.flash.write(page.end - word_bytes_u32::<F>(), mark)?;
        self.erase(page)
    }

    /// Whether the page's first or last word is programmed, which sequential-storage does when it begins to use
    /// the page, and when it goes on to the next.
    fn is_marked(&mut self, page: &Range<u32>, mark: Mark) -> Result<bool, F::Error> {
        let at = match mark {
            Mark::Used => page.start,
            Mark::Closed => page.end - word_bytes_u32::<F>(),
        };
        let mut word = Word([0xff; MAX_WORD_BYTES]);
        let word = word.0.get_mut(..word_bytes::<F>()).unwrap_or_default();
        self.flash.read(at, word)?;
        Ok(word.iter().any(|byte| *byte != 0xff))
    }

    fn erase(&mut self, range: Range<u32>) -> Result<(), F::Error> {
        self.flash.erase(range.start, range.end)
    }

    /// The slot's map. Without a cache, because a write to the flash that failed would leave it wrong.
    fn map(&mut self, slot: Slot) -> Result<Map<'_, F>, StoreError<F::Error>> {
        let half = self.half(slot);
        let config = MapConfig::try_new(half).map_err(|_| StoreError::Damaged)?;
        Ok(MapStorage::new(Immediate(&mut self.flash), config, Cache::new_uncached()))
    }

    fn half(&self, slot: Slot) -> Range<u32> {
        match slot {
            Slot::A => self.half_a.clone(),
            Slot::B => self.half_b.clone(),
        }
    }
}

type Map<'f, F> = MapStorage<
    (),
    Immediate<'f, F>,
    Cache<
        sequential_storage::cache::Uncached,
        sequential_storage::cache::Uncached,
        sequential_storage::cache::Uncached,
        (),
    >,
>;

/// Whether an item that was written can be read back.
///
/// sequential-storage 8.0.2 can lose one: after a cut inside an item's header the next item begins inside that
/// header too where words are short, and its first byte may complete the broken header to a sound one (one cut in
/// 256), whose length then leads past the new item. A further item comes to lie behind both.
enum Written {
    Found,
    Lost,
}

/// How often an item is written until it can be read back.
const MAX_WRITES: usize = 3;

/// Which mark of a page.
enum Mark {
    Closed,
    Used,
}

/// One word of the flash; drivers with DMA want it aligned.
#[repr(align(4))]
struct Word([u8; MAX_WORD_BYTES]);

/// The word size that sequential-storage works with.
fn word_bytes<F: NorFlash>() -> usize {
    F::WRITE_SIZE.max(F::READ_SIZE)
}

fn word_bytes_u32<F: NorFlash>() -> u32 {
    u32::try_from(word_bytes::<F>()).unwrap_or_default()
}

/// How many pages a slot needs, so that one item can always be written while the one before it is kept.
///
/// sequential-storage keeps one page free, into which it moves what lives on the page it erases next. If that
/// and the new item fit one page, two pages are enough, else three. `None`: an item does not fit a page.
fn pages_per_slot<F: NorFlash>(item_bytes: usize) -> Option<u32> {
    let word_bytes = word_bytes::<F>();
    if word_bytes == 0 || word_bytes > MAX_WORD_BYTES {
        return None;
    }
    let page_bytes = F::ERASE_SIZE.checked_sub(2 * word_bytes)?;
    let whole_bytes =
        item_bytes.next_multiple_of(word_bytes) + ITEM_HEADER_BYTES.next_multiple_of(word_bytes);
    match page_bytes / whole_bytes {
        0 => None,
        1 => Some(3),
        _ => Some(2),
    }
}

fn pages<F: NorFlash>(range: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let page_bytes = u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX);
    core::iter::successors(Some(range.start), move |start| start.checked_add(page_bytes))
        .take_while(move |start| *start < range.end)
        .map(move |start| start..start.saturating_add(page_bytes))
}

/// Suits a leaf and two intermediates as `Memory::CHAIN_BYTES` does, and a pinned CA certificate of 1 KiB.
pub const ITEM_BYTES: usize = 3264;

/// Largest word of a flash that sequential-storage supports (STM32H7: 32 bytes).
const MAX_WORD_BYTES: usize = 32;

/// In front of each item in sequential-storage 8: CRC, length, and the length's CRC.
const ITEM_HEADER_BYTES: usize = 8;

/// Why a region cannot hold the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRegion {
    /// It does not begin and end at page boundaries.
    Alignment,
    /// It reaches beyond the end of the flash.
    OutsideFlash,
    /// The flash's words are too large or its pages too small for an item.
    Pages,
    /// It is too small.
    Size {
        /// The least size, in bytes.
        needed_bytes: u32,
    },
}

/// Why an item is not stored or loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError<E> {
    /// The slot's pages are damaged and could not be repaired.
    Damaged,
    /// The flash failed.
    Flash(E),
    /// The scratch memory is shorter than this item, which needs so many bytes.
    ShortScratch(usize),
    /// The item does not fit the scratch memory or the pages.
    TooLarge,
}

impl<E> StoreError<E> {
    fn from_map(error: Error<E>) -> Self {
        match error {
            Error::Storage { value, .. } => Self::Flash(value),
            Error::BufferTooSmall(needed) => Self::ShortScratch(needed),
            Error::Corrupted { .. } | Error::LogicBug { .. } => Self::Damaged,
            _ => Self::TooLarge,
        }
    }
}
