//! The firmware on Arm's MPS2 boards (Cortex-M4: AN386, Cortex-M3: AN385, Cortex-M33: AN505) as QEMU emulates them.
//!
//! Network: LAN9118. Flash: a file of the host. Randomness and console: the host, by semihosting. Arguments, all
//! given with `-semihosting-config arg=`: `flash=FILE`; `die=N`, a power cut in the N-th write; `reset`, a factory
//! reset first; `meter`, each log line with instructions and stack; `panic`, a panic instead of a device.
#![no_std]
#![no_main]

mod board;
mod flash;
mod lan9118;
mod map;
mod network;
mod registers;
mod semihosting;
mod set_up;
mod stack;
mod time;
mod turn;
mod vectors;
mod watchdog;

use core::fmt::Write as _;

use cortex_m_rt::entry;
use muster_firmware_boot::{Failure, give_up};

#[entry]
fn main() -> ! {
    stack::paint();
    time::start();
    watchdog::start();
    let Some(mut peripherals) = cortex_m::Peripherals::take() else { semihosting::exit(FAILED) };
    turn::start(&mut peripherals.SYST);
    // What starting needs of the stack is given back before the device begins to work.
    match set_up::set_up() {
        Ok(life) => match life.run() {
            // A bug, and safe to restart from.
            Err(misuse) => give_up(format_args!("{misuse:?}")),
            Ok(never) => match never {},
        },
        Err(failure) => stop(failure),
    }
}

fn stop(failure: Failure) -> ! {
    if let Some(mut console) = semihosting::console() {
        // The exit code says that it failed as well.
        let _ = writeln!(console, "stopped: {failure}");
    }
    semihosting::exit(FAILED)
}

/// Exit code when the board does not work at all.
const FAILED: usize = 1;
