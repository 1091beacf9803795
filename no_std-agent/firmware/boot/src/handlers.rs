//! What a panic and a fault do: leave their reason in memory, and restart. Neither touches the flash.
//!
//! Where panics are built as a trap (see `build.sh`) there is no panic but a fault, and its reason are two addresses of
//! the image: where it happened, and where that was called from. `addr2line` has their lines.
#![expect(unsafe_code, reason = "an exception handler")]

use core::panic::PanicInfo;

use cortex_m_rt::exception;

use crate::last_words;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    let message = info.message();
    match info.location() {
        Some(place) => {
            last_words::give_up(format_args!("{}:{} {message}", file_name(place.file()), place.line()))
        }
        None => last_words::give_up(message),
    }
}

/// The end of a long path says more than its beginning.
fn file_name(path: &str) -> &str {
    path.rsplit_once("/src/").map_or(path, |(_, name)| name)
}

#[exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    last_words::give_up(format_args!("fault at {:#x}, from {:#x}", frame.pc(), frame.lr()))
}
