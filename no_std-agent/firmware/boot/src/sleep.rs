//! How a Cortex-M sleeps until an event: an interrupt, or somebody who wakes it.
#![expect(unsafe_code, reason = "a waker is a table of functions")]

use core::pin::pin;
use core::ptr;
use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use cortex_m::asm;
use muster_firmware::turns::Sleep;

/// Sleeps by WFE. An event that comes between a look and the sleep ends the sleep at once (ARMv7-M ARM, B1.5.18).
pub const WAIT_FOR_EVENT: Sleep = Sleep { sleep: asm::wfe, waker: &WAKER };

// SAFETY: the functions use no data, and may be called from anywhere.
static WAKER: Waker = unsafe { Waker::from_raw(RAW) };

const RAW: RawWaker = RawWaker::new(ptr::null(), &FUNCTIONS);

const FUNCTIONS: RawWakerVTable = RawWakerVTable::new(|_| RAW, |_| asm::sev(), |_| asm::sev(), |_| {});

/// Runs one future alone, for drivers that start by one.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(&WAKER);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        asm::wfe();
    }
}
