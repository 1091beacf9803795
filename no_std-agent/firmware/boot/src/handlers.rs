//! What a panic and a fault do: leave their reason in memory, and restart. Neither touches the flash.
#![expect(unsafe_code, reason = "an exception handler")]

use core::fmt::Write as _;
use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use cortex_m_rt::exception;
use muster_firmware::journal::Cut;

use crate::last_words;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    let mut reason = Cut::default();
    // An error only means that it was cut.
    let _ = match info.location() {
        Some(place) => write!(reason, "{}:{} {}", file_name(place.file()), place.line(), info.message()),
        None => write!(reason, "{}", info.message()),
    };
    last_words::remember_another(reason.0);
    SCB::sys_reset()
}

/// The end of a long path says more than its beginning.
fn file_name(path: &str) -> &str {
    path.rsplit_once("/src/").map_or(path, |(_, name)| name)
}

#[exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    panic!("hard fault at {:#x}", frame.pc())
}
