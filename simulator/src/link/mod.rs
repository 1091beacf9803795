//! A device's link: delay, jitter, loss and rate, from a seed, and itself without a clock.
//!
//! The transport is TCP, so what is lost is sent again after a time that doubles: loss costs time, not data. After
//! several losses in a row the connection is given up. Virtual time asks how long bytes take; on sockets [`Linked`]
//! makes a connection take as long.

mod fleet;
mod stream;

use std::time::Duration;

use crate::chance::Chance;

pub(crate) use self::fleet::{Link, Links};
pub(crate) use self::stream::Linked;

/// How good a link is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LinkQuality {
    /// One way.
    pub(crate) delay: Duration,
    /// Added at random, up to this.
    pub(crate) jitter: Duration,
    /// Share of segments that are lost and sent again.
    pub(crate) loss: f64,
    pub(crate) bytes_per_s: Option<u32>,
}

impl LinkQuality {
    /// Where a scenario says nothing of links.
    pub(crate) const USUAL: Self =
        Self { delay: Duration::from_millis(20), jitter: Duration::ZERO, loss: 0.0, bytes_per_s: None };

    /// How long the link is busy with these bytes.
    fn sending(&self, bytes: usize) -> Duration {
        let seconds = self.bytes_per_s.map(|rate| bytes as f64 / f64::from(rate));
        seconds.map(Duration::from_secs_f64).unwrap_or_default()
    }
}

/// When bytes sent now are there; `None` when the connection was given up.
pub(crate) fn transit(quality: &LinkQuality, bytes: usize, chance: &mut Chance) -> Option<Duration> {
    let mut time = quality.delay + quality.jitter.mul_f64(chance.unit()) + quality.sending(bytes);
    let segments = bytes.div_ceil(SEGMENT_BYTES).max(1);
    for _ in 0..segments {
        let mut again = (quality.delay * 4).max(RETRANSMIT_MIN);
        let mut losses = 0;
        while quality.loss > 0.0 && chance.happens(quality.loss) {
            losses += 1;
            if losses > LOSSES_MAX {
                return None;
            }
            time += again;
            again *= 2;
        }
    }
    Some(time)
}

/// A SYN, or its answer.
pub(crate) const SYN_BYTES: usize = 60;
/// The time until a system gives a connection up.
pub(crate) const BROKEN_AFTER: Duration = Duration::from_secs(30);
/// Payload of a TCP segment on Ethernet.
const SEGMENT_BYTES: usize = 1460;
/// RFC 6298 says a second; systems use this.
const RETRANSMIT_MIN: Duration = Duration::from_millis(200);
/// Then the system reports the connection as broken.
const LOSSES_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_rate_cost_time_and_the_seed_decides() {
        let whole = LinkQuality {
            delay: Duration::from_millis(50),
            jitter: Duration::ZERO,
            loss: 0.0,
            bytes_per_s: Some(1000),
        };
        let bad = LinkQuality { loss: 0.3, ..whole };
        assert_eq!(transit(&whole, 500, &mut Chance::new(1, 1)), Some(Duration::from_millis(550)));
        let sum =
            |seed| (0..200).filter_map(|_| transit(&bad, 3000, &mut Chance::new(seed, 1))).sum::<Duration>();
        assert_eq!(sum(4), sum(4));
        let mut chance = Chance::new(4, 2);
        let mean = (0..1000).filter_map(|_| transit(&bad, 3000, &mut chance)).sum::<Duration>() / 1000;
        assert!(mean > Duration::from_millis(3200), "{mean:?}");
    }
}
