//! Keeps the agent from storming an upstream that is away, and a fleet from arriving at it together.
//!
//! After a failed dial the upstream is left alone for a time that doubles with each failure, with jitter; who
//! asks meanwhile is told so at once. A connection that breaks opens a short, random pause too: when a broker
//! restarts, all agents see that in the same moment.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// The first pause after a failed dial; jitter adds up to as much again.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause before jitter.
pub(in crate::carry) const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest pause after a live connection broke.
const BROKEN_PAUSE_MAX: Duration = Duration::from_secs(3);

/// Whether an upstream may be dialled now.
#[derive(Debug)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug)]
struct State {
    pauses: ExponentialBackoff,
    paused_until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { pauses: pauses(), paused_until: None }))
    }

    /// `Err` tells how long the upstream is still left alone.
    pub(super) fn permit(&self) -> Result<(), Duration> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.paused_until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => Err(left),
            _ => Ok(()),
        }
    }

    /// A dial failed. Of many that fail together, one counts.
    pub(super) fn failed(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.paused_until.is_none_or(|until| until <= now) {
            let pause = state.pauses.next().unwrap_or(PAUSE_MAX);
            state.paused_until = now.checked_add(pause);
        }
    }

    /// A dial succeeded.
    pub(super) fn succeeded(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { pauses: pauses(), paused_until: None };
    }
}

/// A random part of [`BROKEN_PAUSE_MAX`].
pub(super) fn broken_pause() -> Duration {
    BROKEN_PAUSE_MAX.mul_f32(fastrand::f32())
}

/// Growing pauses without an end, for retries of one task.
pub(in crate::carry) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_the_ceiling_and_end_with_a_success() {
        let breaker = Breaker::new();
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            assert!(breaker.permit().is_ok());
            breaker.failed();
            breaker.failed();
            let left = breaker.permit().unwrap_err();
            longest = longest.max(left);
            tokio::time::advance(left).await;
        }
        assert!(longest >= PAUSE_MAX && longest <= PAUSE_MAX * 2, "{longest:?}");
        breaker.failed();
        breaker.succeeded();
        assert!(breaker.permit().is_ok());
        breaker.failed();
        assert!(breaker.permit().unwrap_err() <= PAUSE_MIN * 2);
    }

    #[test]
    fn agents_do_not_pause_alike() {
        let some: Vec<Duration> = (0..20).map(|_| broken_pause()).collect();
        assert!(some.iter().all(|pause| *pause <= BROKEN_PAUSE_MAX));
        assert!(some.iter().any(|pause| Some(pause) != some.first()));
    }
}
