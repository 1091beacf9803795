//! The end of a turn: the processor sleeps, at most for a millisecond.
//!
//! Interrupts stay masked for good: a pending one still ends the sleep, and nothing else is asked of it. So there is
//! no second thread of execution on this board. The watchdog is fed at each turn: it bites when the next does not come.

use core::task::Waker;

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{SCB, SYST};
use muster_firmware::turns::Sleep;

use crate::map::CLOCK_HZ;
use crate::{time, watchdog};

/// Starts the timer that ends each sleep.
pub(crate) fn start(system_timer: &mut SYST) {
    cortex_m::interrupt::disable();
    system_timer.set_clock_source(SystClkSource::Core);
    system_timer.set_reload(TICKS_PER_TURN - 1);
    system_timer.clear_current();
    system_timer.enable_interrupt();
    system_timer.enable_counter();
}

/// Nobody is woken: everything is looked at in each turn.
pub(crate) const SLEEP: Sleep = Sleep { begin: || {}, sleep, waker: Waker::noop() };

fn sleep() {
    watchdog::feed();
    time::uncounted(|| {
        cortex_m::asm::wfi();
        SCB::clear_pendst();
    });
}

/// One millisecond.
const TICKS_PER_TURN: u32 = CLOCK_HZ / 1000;
