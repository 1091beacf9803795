//! How a Cortex-M of one core sleeps until something happens.
//!
//! By WFE, which an interrupt ends, or has ended beforehand if it comes between a look and the sleep (ARMv7-M ARM,
//! B1.5.18). So only who is woken by the program itself must be remembered.
#![expect(unsafe_code, reason = "a waker is a table of functions")]

use core::pin::pin;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use muster_firmware::turns::Sleep;

/// Sleeps by WFE.
pub const WAIT_FOR_EVENT: Sleep = Sleep { begin, sleep, waker: &WAKER };

static IS_WOKEN: AtomicBool = AtomicBool::new(false);

// SAFETY: the functions use no data, and may be called from anywhere.
static WAKER: Waker = unsafe { Waker::from_raw(RAW) };

const RAW: RawWaker = RawWaker::new(ptr::null(), &FUNCTIONS);

// At one address, by which a queue of timers knows the waker.
static FUNCTIONS: RawWakerVTable = RawWakerVTable::new(|_| RAW, |_| wake(), |_| wake(), |_| {});

fn wake() {
    IS_WOKEN.store(true, Ordering::SeqCst);
}

fn begin() {
    IS_WOKEN.store(false, Ordering::SeqCst);
}

fn sleep() {
    if !IS_WOKEN.swap(false, Ordering::SeqCst) {
        cortex_m::asm::wfe();
    }
}

/// Runs one future alone, for drivers that start by one.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(&WAKER);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        sleep();
    }
}
