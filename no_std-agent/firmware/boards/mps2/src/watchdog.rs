//! The board's watchdog: without food it raises an NMI after eight seconds, and after eight more it resets.
#![expect(unsafe_code, reason = "an exception handler")]

use cortex_m::peripheral::SCB;
use cortex_m_rt::exception;
use muster_firmware_boot::remember_watchdog;

use crate::map::{CLOCK_HZ, WATCHDOG};
use crate::registers::Registers;

/// Starts it.
pub(crate) fn start() {
    let registers = Registers::new(WATCHDOG);
    registers.write(LOCK, UNLOCKED);
    registers.write(LOAD, TICKS);
    registers.write(CONTROL, INTERRUPT | RESET);
}

/// Puts it off.
pub(crate) fn feed() {
    Registers::new(WATCHDOG).write(LOAD, TICKS);
}

#[exception]
unsafe fn NonMaskableInt() -> ! {
    remember_watchdog();
    SCB::sys_reset()
}

/// Eight seconds; a handshake with P-256 in software takes one or two on a slow part.
const TICKS: u32 = 8 * CLOCK_HZ;

// CMSDK APB watchdog.
const LOAD: usize = 0x00;
const CONTROL: usize = 0x08;
const LOCK: usize = 0xc00;
const UNLOCKED: u32 = 0x1acc_e551;
const INTERRUPT: u32 = 1;
const RESET: u32 = 1 << 1;
