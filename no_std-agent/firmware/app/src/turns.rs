//! Waiting, which is where the network goes on: the one place of the firmware with futures.
//!
//! All else is plain calls. One that has to wait gives the board a turn after another, each a poll of what goes on in
//! the [`Background`] and then a [`Sleep`], until what it waits for is there or its time is over.

use core::cell::RefCell;
use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context, Waker};

use muster_nostd_agent::clock::Clock;
use muster_proto::time::Instant;

use crate::clock::{BoardClock, ticks};

/// What goes on while the device waits, and never ends: the network stack, its driver, and what else a board has.
pub type Background<'b> = Pin<&'b mut dyn Future<Output = Infallible>>;

/// How a processor sleeps between two turns.
#[derive(Clone, Copy, Debug)]
pub struct Sleep {
    /// Forgets who was woken so far: all of it is about to be looked at.
    pub begin: fn(),
    /// Comes back when something may have happened, at once if somebody was woken since `begin`.
    pub sleep: fn(),
    /// Ends the sleep.
    pub waker: &'static Waker,
}

/// How the board lets time pass.
pub struct Turns<'b> {
    background: RefCell<Background<'b>>,
    sleep: Sleep,
}

impl<'b> Turns<'b> {
    /// A board with this going on in it.
    pub const fn new(background: Background<'b>, sleep: Sleep) -> Self {
        Self { background: RefCell::new(background), sleep }
    }

    /// Waits until `ready` has something, or until `deadline`, of which `None` tells. After the deadline `ready` is not asked any
    /// more: a peer that always has something to say could hold the device for ever.
    pub fn wait<T>(&self, deadline: Instant, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        while BoardClock.now() < deadline {
            if let Some(done) = ready() {
                return Some(done);
            }
            self.turn(deadline);
        }
        None
    }

    /// Waits until then.
    pub fn wait_until(&self, at: Instant) {
        while BoardClock.now() < at {
            self.turn(at);
        }
    }

    /// Lets everything else go on once, and sleeps until something happens, at the latest at `until`.
    // Once in the image, and apart: what the network needs of the stack is given back.
    #[inline(never)]
    fn turn(&self, until: Instant) {
        let mut context = Context::from_waker(self.sleep.waker);
        (self.sleep.begin)();
        if let Ok(mut background) = self.background.try_borrow_mut() {
            // It never ends.
            let _ = background.as_mut().poll(&mut context);
        }
        embassy_time_driver::schedule_wake(ticks(until), self.sleep.waker);
        (self.sleep.sleep)();
    }
}

#[cfg(test)]
impl Sleep {
    /// Of a test: a millisecond.
    pub(crate) fn short() -> Self {
        extern crate std;
        // The queue of timers knows a waker by its table, and of a clone's clone alone is that sure to be the same: with any
        // other it gets full, and then wakes somebody.
        let waker = std::boxed::Box::leak(std::boxed::Box::new(Waker::noop().clone()));
        Self { begin: || {}, sleep: || std::thread::sleep(core::time::Duration::from_millis(1)), waker }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::cell::Cell;
    use core::pin::pin;
    use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use core::task::Poll;
    use core::time::Duration;
    use std::boxed::Box;
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    fn soon() -> Instant {
        BoardClock.now().plus(Duration::from_millis(30))
    }

    #[test]
    fn what_goes_on_in_the_background_ends_a_wait() {
        let arrived = Cell::new(0);
        let background = pin!(core::future::poll_fn(|_| {
            arrived.set(arrived.get() + 1);
            Poll::Pending
        }));
        let turns = Turns::new(background, Sleep::short());
        let ready = || (arrived.get() >= 5).then(|| arrived.get());
        assert_eq!(turns.wait(Instant::NEVER, ready), Some(5));
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_never_before() {
        let turns_of_the_rest = Cell::new(0);
        let background = pin!(core::future::poll_fn(|_| {
            turns_of_the_rest.set(turns_of_the_rest.get() + 1);
            Poll::Pending
        }));
        let turns = Turns::new(background, Sleep::short());
        let deadline = soon();
        assert_eq!(turns.wait(deadline, || None::<()>), None);
        assert!(BoardClock.now() >= deadline);
        assert!(turns_of_the_rest.get() > 0);
        let at = soon();
        turns.wait_until(at);
        assert!(BoardClock.now() >= at);
    }

    static IS_WOKEN: AtomicBool = AtomicBool::new(false);
    static SLEEPS: AtomicUsize = AtomicUsize::new(0);

    struct Flag;

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            IS_WOKEN.store(true, SeqCst);
        }
    }

    fn sleep_unless_woken() {
        if !IS_WOKEN.swap(false, SeqCst) {
            SLEEPS.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_board_sleeps_in_each_turn_in_which_nobody_woke_it() {
        let waker = Box::leak(Box::new(Waker::from(Arc::new(Flag)).clone()));
        let sleep = Sleep { begin: || IS_WOKEN.store(false, SeqCst), sleep: sleep_unless_woken, waker };
        let (turns_so_far, woken_in) = (Cell::new(0), 3);
        let background = pin!(core::future::poll_fn(|context| {
            turns_so_far.set(turns_so_far.get() + 1);
            if turns_so_far.get() == woken_in {
                context.waker().wake_by_ref();
            }
            Poll::Pending
        }));
        let turns = Turns::new(background, sleep);
        let asking = || (turns_so_far.get() >= 8).then_some(());
        assert_eq!(turns.wait(Instant::NEVER, asking), Some(()));
        assert_eq!(SLEEPS.load(SeqCst), 7, "in each turn but the one in which the network woke it");
    }

    #[test]
    fn a_flood_does_not_outlast_the_deadline() {
        let background = pin!(core::future::pending());
        let turns = Turns::new(background, Sleep::short());
        let deadline = soon();
        let mut served = 0_u32;
        while turns.wait(deadline, || Some(())).is_some() {
            served += 1;
        }
        assert!(served > 0 && BoardClock.now() >= deadline);
    }
}
