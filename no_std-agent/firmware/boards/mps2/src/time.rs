//! Time since boot for embassy-time, and how much of it the processor worked.
//!
//! The board's free-running counter has 32 bits and the processor's clock; each look at it adds what has passed. Under
//! QEMU with `-icount shift=0` an instruction takes one nanosecond, so some are one tick: the same run costs the same.

use core::cell::Cell;
use core::task::Waker;

use critical_section::Mutex;
use embassy_time_driver::Driver;

use crate::map::{CLOCK_HZ, FPGA_IO};
use crate::registers::Registers;

struct Counter {
    last: Mutex<Cell<u32>>,
    ticks: Mutex<Cell<u64>>,
    /// Ticks that do not count as work: waiting, and telling about it.
    idle: Mutex<Cell<u64>>,
}

impl Counter {
    fn ticks(&self) -> u64 {
        critical_section::with(|cs| {
            let now = Registers::new(FPGA_IO).read(COUNTER);
            let passed = now.wrapping_sub(self.last.borrow(cs).replace(now));
            let ticks = self.ticks.borrow(cs).get() + u64::from(passed);
            self.ticks.borrow(cs).set(ticks);
            ticks
        })
    }
}

impl Driver for Counter {
    fn now(&self) -> u64 {
        self.ticks() / (u64::from(CLOCK_HZ) / embassy_time_driver::TICK_HZ)
    }

    /// Nothing: all is looked at in each turn, which is each millisecond.
    fn schedule_wake(&self, _: u64, _: &Waker) {}
}

embassy_time_driver::time_driver_impl!(static COUNTER_DRIVER: Counter = Counter {
    last: Mutex::new(Cell::new(0)),
    ticks: Mutex::new(Cell::new(0)),
    idle: Mutex::new(Cell::new(0)),
});

/// Begins to count from zero.
pub(crate) fn start() {
    Registers::new(FPGA_IO).write(COUNTER, 0);
}

/// Does `work` without counting it as work.
pub(crate) fn uncounted<T>(work: impl FnOnce() -> T) -> T {
    let begin = COUNTER_DRIVER.ticks();
    let done = work();
    let passed = COUNTER_DRIVER.ticks() - begin;
    critical_section::with(|cs| {
        let idle = COUNTER_DRIVER.idle.borrow(cs);
        idle.set(idle.get() + passed);
    });
    done
}

/// Thousands of instructions since boot, without those of waiting. Exact only with `-icount shift=0`.
pub(crate) fn kilo_instructions() -> u64 {
    let ticks = COUNTER_DRIVER.ticks();
    let idle = critical_section::with(|cs| COUNTER_DRIVER.idle.borrow(cs).get());
    (ticks - idle) * (1_000_000 / (u64::from(CLOCK_HZ) / 1000)) / 1000
}

const COUNTER: usize = 0x18;
