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
mod registers;
mod semihosting;
mod set_up;
mod stack;
mod time;
mod vectors;
mod watchdog;

use core::fmt::Write as _;
use core::pin::pin;

use cortex_m_rt::entry;
use embassy_futures::select::{Either3, select3};
use embassy_net::Runner;
use muster_firmware::apart::Apart;
use muster_firmware_boot::{Failure, end_row_later, give_up};

use self::lan9118::Lan9118;
use self::set_up::BoardLife;

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
        Err(failure) => stop(failure),
    }
}

/// Runs until the power is cut.
fn live(life: &'static mut BoardLife, runner: &'static mut Runner<'static, Lan9118>) -> ! {
    let (living, networking) = (pin!(life.run()), pin!(runner.run()));
    match executor::block_on(pin!(select3(living, Apart(networking), end_row_later()))) {
        // A bug, and safe to restart from.
        Either3::First(Err(misuse)) => give_up(format_args!("{misuse:?}")),
        Either3::First(Ok(never)) | Either3::Third(never) => match never {},
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
