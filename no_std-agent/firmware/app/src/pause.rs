//! How long to wait before trying a server again: longer each time, and not when all other devices do.

use core::time::Duration;

use muster_proto::time::Instant;

/// The pauses between tries that fail, of one server.
#[derive(Debug)]
pub(crate) struct Pauses {
    failures: u32,
    seed: u64,
}

impl Pauses {
    /// `seed` is different for each device.
    pub(crate) const fn new(seed: u64) -> Self {
        Self { failures: 0, seed }
    }

    /// When to try again after one more failure.
    pub(crate) fn next(&mut self, now: Instant) -> Instant {
        let doubled = FLOOR.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let longest = doubled.min(CEILING);
        // Fractional parts of multiples of the golden ratio are spread evenly; the seed sets where they begin.
        let step = self.seed.wrapping_add(u64::from(self.failures)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let part = u32::try_from(step >> 54).unwrap_or_default();
        now.plus(longest / 2 + longest / 2 * part / 1024)
    }

    /// The server does what it should.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The first pause, at most.
const FLOOR: Duration = Duration::from_secs(2);
/// The longest pause.
const CEILING: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_ceiling_come_apart_and_begin_anew_after_a_success() {
        let now = Instant::from_millis(7);
        for seed in 0..100 {
            let mut pauses = Pauses::new(seed);
            for longest in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
                let pause = pauses.next(now).since(now);
                let longest = Duration::from_secs(longest);
                assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
            }
            pauses.reset();
            assert!(pauses.next(now).since(now) <= FLOOR);
        }
        let first = |seed| Pauses::new(seed).next(now);
        assert!((1..100).any(|seed| first(seed) != first(0)));
        let mut long = Pauses { failures: u32::MAX, seed: 1 };
        assert!(long.next(now).since(now) <= CEILING);
    }
}
