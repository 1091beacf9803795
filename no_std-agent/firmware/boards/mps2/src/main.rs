//! The firmware on Arm's MPS2 boards (Cortex-M4: AN386, Cortex-M3: AN385) as QEMU emulates them.
//!
//! Network: LAN9118. Flash: a file of the host. Randomness and console: the host, by semihosting. Arguments, all
//! given with `-semihosting-config arg=`: `flash=FILE`; `die=N`, a power cut in the N-th write; `reset`, a factory
//! reset first; `meter`, each log line with instructions and stack; `panic`, a panic instead of a device.
#![no_std]
#![no_main]

mod board;
mod executor;
mod flash;
mod lan9118;
mod last_words;
mod registers;
mod semihosting;
mod set_up;
mod stack;
mod time;
mod watchdog;

use core::fmt::Write as _;
use core::pin::pin;

use cortex_m_rt::entry;
use embassy_futures::select::{Either, select};
use embassy_net::Runner;

use self::lan9118::Lan9118;
use self::set_up::{BoardLife, Failure};

#[entry]
fn main() -> ! {
    stack::paint();
    time::start();
    watchdog::start();
    let Some(mut peripherals) = cortex_m::Peripherals::take() else { semihosting::exit(FAILED) };
    executor::start(&mut peripherals.SYST);
    // What starting needs of the stack is given back before the device begins to work: hence two futures.
    match set_up::set_up() {
        Ok((life, runner)) => live(life, runner),
        Err(failure) => stop(&failure),
    }
}

/// Runs until the power is cut.
fn live(life: &'static mut BoardLife, runner: &'static mut Runner<'static, Lan9118>) -> ! {
    match executor::block_on(pin!(select(life.run(), runner.run()))) {
        // A bug, and safe to restart from.
        Either::First(Err(misuse)) => panic!("{misuse:?}"),
        Either::First(Ok(never)) => match never {},
    }
}

fn stop(failure: &Failure) -> ! {
    if let Some(mut console) = semihosting::console() {
        // The exit code says that it failed as well.
        let _ = match failure {
            Failure::Entropy => writeln!(console, "stopped: no randomness"),
            Failure::Flash => writeln!(console, "stopped: the flash failed"),
            Failure::Settings(bad) => {
                writeln!(console, "stopped: the factory partition is not sound: {bad:?}")
            }
            Failure::Store => writeln!(console, "stopped: the identities cannot be read"),
        };
    }
    semihosting::exit(FAILED)
}

/// Exit code when the board does not work at all.
const FAILED: usize = 1;
