//! The console of a real board: lines with the seconds since the start.

use core::cell::RefCell;
use core::fmt::{self, Write};

use cortex_m::peripheral::SCB;
use embassy_time::Instant;
use muster_firmware::platform::Platform;

/// Writes lines to a serial port.
#[derive(Debug)]
pub struct Console<W>(RefCell<W>);

impl<W: Write> Console<W> {
    /// A console on `port`, whose writes block.
    pub const fn new(port: W) -> Self {
        Self(RefCell::new(port))
    }
}

impl<W: Write> Platform for Console<W> {
    fn log(&self, line: fmt::Arguments<'_>) {
        // Nobody is there to be told that the console failed.
        let _ = write!(self.0.borrow_mut(), "[{} s] {line}\r\n", Instant::now().as_secs());
    }

    fn restart(&self) -> ! {
        SCB::sys_reset()
    }
}
