//! Memory that a restart does not clear, for why the board restarted.
#![expect(unsafe_code, reason = "static memory that outlives a restart")]

use core::fmt::{self, Write as _};

use cortex_m::peripheral::SCB;
use muster_firmware::journal::{self, Crash, Cut, REMEMBERED_BYTES, Reason};

#[unsafe(link_section = ".uninit.last_words")]
static mut LAST_WORDS: [u32; WORDS] = [0; WORDS];

/// Word by word, in a loop: whole arrays are unrolled to a kilobyte of code.
fn words() -> impl Iterator<Item = *mut u32> {
    let first = (&raw mut LAST_WORDS).cast::<u32>();
    (0..WORDS).map(move |at| first.wrapping_add(at))
}

/// What the boot before left, if it ended badly.
// Once in the image, and so is `remember`.
#[inline(never)]
pub(crate) fn recall() -> Option<Crash> {
    let mut bytes = [0; REMEMBERED_BYTES];
    for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words()) {
        // SAFETY: used by the one thread of execution, and by handlers that never return to it; no reference is made.
        *place = unsafe { word.read_volatile() }.to_ne_bytes();
    }
    journal::recall(bytes)
}

/// Leaves it for the next boot.
#[inline(never)]
pub(crate) fn remember(crash: &Crash) {
    for (part, word) in journal::remember(crash).as_chunks().0.iter().zip(words()) {
        // SAFETY: as above.
        unsafe {
            word.write_volatile(u32::from_ne_bytes(*part));
        }
    }
}

/// Leaves one more in the row for the next boot.
pub(crate) fn remember_another(reason: Reason) {
    let before = recall().map_or(0, |crash| crash.in_a_row);
    remember(&Crash::untold(before.saturating_add(1), reason));
}

/// Leaves a reason for the next boot and restarts: for what is no bug and still the end, like hardware that fails.
pub fn give_up(reason: impl fmt::Display) -> ! {
    let mut words = Cut::default();
    // An error only means that it was cut.
    let _ = write!(words, "{reason}");
    remember_another(words.0);
    SCB::sys_reset()
}

/// The device has worked for a while: the next crash is the first of a new row.
// Apart: its frame is not below everything else in each turn.
#[inline(never)]
pub(crate) fn end_row() {
    if let Some(crash) = recall() {
        remember(&Crash::untold(0, crash.reason).told());
    }
}

/// To be called first of all after a reset by a watchdog: it bites without a word of its own. A reason that nobody was
/// told yet is newer than the bite, of which some parts keep the trace through the restarts after it.
pub fn remember_watchdog() {
    if recall().is_none_or(|crash| !crash.is_untold()) {
        remember_another(journal::cut("the watchdog was not fed"));
    }
}

const WORDS: usize = REMEMBERED_BYTES / 4;
const _: () = assert!(REMEMBERED_BYTES.is_multiple_of(4), "all of it in whole words");
