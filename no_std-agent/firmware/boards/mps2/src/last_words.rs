//! Memory that a restart does not clear, for why the board restarted; and the panic that writes it.
#![expect(unsafe_code, reason = "static memory that outlives a restart, and exception handlers")]

use core::fmt::Write as _;
use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use cortex_m_rt::exception;
use muster_firmware::journal::{self, Crash, Cut, REMEMBERED_BYTES};

#[unsafe(link_section = ".uninit.last_words")]
static mut LAST_WORDS: [u8; REMEMBERED_BYTES] = [0; REMEMBERED_BYTES];

/// What the boot before left, if it ended in a panic.
pub(crate) fn recall() -> Option<Crash> {
    // SAFETY: there is one thread of execution, and no reference to it is ever made.
    let bytes = unsafe { (&raw const LAST_WORDS).read_volatile() };
    journal::recall(bytes)
}

/// Leaves it for the next boot.
pub(crate) fn remember(crash: &Crash) {
    let bytes = journal::remember(crash);
    // SAFETY: as above.
    unsafe {
        (&raw mut LAST_WORDS).write_volatile(bytes);
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut reason = Cut::default();
    // An error only means that it was cut.
    let _ = match info.location() {
        Some(place) => write!(reason, "{}:{} {}", file_name(place.file()), place.line(), info.message()),
        None => write!(reason, "{}", info.message()),
    };
    let long_ago = embassy_time::Instant::now().as_secs() > STABLE_S;
    let before = recall().filter(|_| !long_ago).map_or(0, |crash| crash.in_a_row);
    remember(&Crash::untold(before.saturating_add(1), reason.0));
    SCB::sys_reset()
}

/// The end of a long path says more than its beginning.
fn file_name(path: &str) -> &str {
    path.rsplit_once("/src/").map_or(path, |(_, name)| name)
}

/// A device that has worked for so long did not crash in a row.
const STABLE_S: u64 = 10 * 60;

#[exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    panic!("hard fault at {:#x}", frame.pc())
}

#[exception]
unsafe fn NonMaskableInt() -> ! {
    panic!("the watchdog was not fed")
}
