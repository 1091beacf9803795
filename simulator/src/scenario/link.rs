//! A device's link in virtual time: delay, jitter, loss and rate, from a seed, and itself without a clock.
//!
//! The transport is TCP, so what is lost is sent again after a time that doubles: loss costs time, not data. After
//! several losses in a row the connection is given up.

use std::time::Duration;

use super::file::LinkQuality;
use crate::chance::Chance;

/// When bytes sent now are there; `None` when the connection was given up.
pub(super) fn transit(quality: &LinkQuality, bytes: usize, chance: &mut Chance) -> Option<Duration> {
    let mut time = quality.delay + quality.jitter.mul_f64(chance.unit());
    if let Some(rate) = quality.bytes_per_s {
        time += Duration::from_secs_f64(bytes as f64 / f64::from(rate));
    }
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
