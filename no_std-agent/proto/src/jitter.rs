//! Spread in time, from a seed that the shell hands in.
//!
//! This is SplitMix64: a few instructions, good enough to keep devices from arriving together, and the same
//! seed gives the same run. It must never make a key, a nonce or anything else that has to be secret.

use crate::time::Millis;

/// A seeded sequence of spans.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A span from zero up to and including `most`.
    pub(crate) fn up_to(&mut self, most: Millis) -> Millis {
        Millis::from_millis(match most.as_millis().checked_add(1) {
            Some(bound) => self.next() % bound,
            None => self.next(),
        })
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_published_sequence() {
        // First outputs of SplitMix64 for seed 1234567 in its authors' reference code.
        let mut jitter = Jitter::new(1_234_567);
        assert_eq!(jitter.next(), 6_457_827_717_110_365_317);
        assert_eq!(jitter.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn stays_within_its_bound_and_reaches_both_ends() {
        let mut jitter = Jitter::new(7);
        let three = Millis::from_millis(3);
        let spans: [Millis; 200] = core::array::from_fn(|_| jitter.up_to(three));
        assert!(spans.iter().all(|span| *span <= three));
        assert!(spans.contains(&Millis::ZERO) && spans.contains(&three));
        assert_eq!(jitter.up_to(Millis::ZERO), Millis::ZERO);
    }
}
