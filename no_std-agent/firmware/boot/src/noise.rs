//! A hardware generator, tested as it is used (NIST SP 800-90B, section 4.4), and conditioned with SHA-256.
//!
//! Each sample of 8 bits is taken to have at least 4 bits of entropy, which is far below what the makers claim. A test
//! fails by chance once in 2^30 samples or windows; after that there is no randomness until the next start, and so
//! neither a key nor a connection.

use muster_nostd_agent::entropy::{Entropy, NoEntropy};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

/// What makes noise.
pub trait Noise {
    /// Fills `samples` with what the hardware gives; does not come back if that is dead, so that the watchdog bites.
    fn sample(&mut self, samples: &mut [u8]);
}

/// Noise that is looked at before it is used.
#[derive(Debug)]
pub struct Tested<N> {
    noise: N,
    health: Health,
}

impl<N: Noise> Tested<N> {
    /// Runs the start-up test: 1024 samples that are used for nothing else.
    ///
    /// # Errors
    /// [`NoEntropy`] if the noise is not fit for use.
    pub fn start(mut noise: N) -> Result<Self, NoEntropy> {
        let mut health = Health::default();
        let mut samples = [0; BLOCK_SAMPLES];
        for _ in 0..START_SAMPLES / BLOCK_SAMPLES {
            noise.sample(&mut samples);
            health.look_at(&samples)?;
        }
        samples.zeroize();
        Ok(Self { noise, health })
    }
}

impl<N: Noise> Entropy for Tested<N> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        for piece in bytes.chunks_mut(DIGEST_BYTES) {
            let mut samples = [0; BLOCK_SAMPLES];
            self.noise.sample(&mut samples);
            let looked_at = self.health.look_at(&samples);
            let mut digest: [u8; DIGEST_BYTES] = Sha256::digest(samples).into();
            samples.zeroize();
            looked_at?;
            piece.iter_mut().zip(digest).for_each(|(place, byte)| *place = byte);
            digest.zeroize();
        }
        Ok(())
    }
}

/// Both tests of section 4.4, on all samples in their order.
#[derive(Debug, Default)]
struct Health {
    last: u8,
    /// How often `last` came in a row.
    repetitions: u32,
    /// What is counted in the window.
    counted: u8,
    count: u32,
    /// How much of the window has passed.
    passed: u32,
    has_failed: bool,
}

impl Health {
    fn look_at(&mut self, samples: &[u8]) -> Result<(), NoEntropy> {
        for sample in samples {
            self.repetition(*sample);
            self.proportion(*sample);
        }
        if self.has_failed { Err(NoEntropy) } else { Ok(()) }
    }

    /// Section 4.4.1.
    fn repetition(&mut self, sample: u8) {
        self.repetitions = if sample == self.last { self.repetitions.saturating_add(1) } else { 1 };
        self.last = sample;
        self.has_failed |= self.repetitions >= REPETITION_CUTOFF;
    }

    /// Section 4.4.2.
    fn proportion(&mut self, sample: u8) {
        if self.passed == 0 {
            (self.counted, self.count) = (sample, 0);
        }
        self.count += u32::from(sample == self.counted);
        self.passed = (self.passed + 1) % WINDOW_SAMPLES;
        self.has_failed |= self.count >= PROPORTION_CUTOFF;
    }
}

const DIGEST_BYTES: usize = 32;
/// 320 bits of entropy at least: 64 more than come out (SP 800-90C, section 3.1).
const BLOCK_SAMPLES: usize = 80;
/// At least 1024 (section 4.3), in whole blocks.
const START_SAMPLES: usize = 13 * BLOCK_SAMPLES;
/// 1 + 30 / 4, rounded up.
const REPETITION_CUTOFF: u32 = 9;
const WINDOW_SAMPLES: u32 = 512;
/// 1 + CRITBINOM(512, 2^-4, 1 - 2^-30).
const PROPORTION_CUTOFF: u32 = 71;

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator that is good enough to stand in for noise, and how it breaks.
    #[derive(Debug)]
    struct Source {
        state: u64,
        given: usize,
        broken: fn(usize, u8) -> u8,
    }

    impl Noise for Source {
        fn sample(&mut self, samples: &mut [u8]) {
            for sample in samples {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                *sample = (self.broken)(self.given, self.state.to_le_bytes()[3]);
                self.given += 1;
            }
        }
    }

    fn source(broken: fn(usize, u8) -> u8) -> Source {
        Source { state: 0x9e37_79b9_7f4a_7c15, given: 0, broken }
    }

    #[test]
    fn good_noise_passes_for_long_and_never_repeats() {
        let mut tested = Tested::start(source(|_, sample| sample)).expect("fit");
        let mut before = [0; 32];
        for _ in 0..10_000 {
            let mut bytes = [0; 32];
            tested.fill(&mut bytes).expect("fit");
            assert_ne!(bytes, before);
            before = bytes;
        }
    }

    #[test]
    fn every_place_is_filled_whatever_the_length() {
        let mut tested = Tested::start(source(|_, sample| sample)).expect("fit");
        for length in [1, 31, 32, 33, 100] {
            let mut seen = [0; 100];
            for _ in 0..64 {
                let mut bytes = [0; 100];
                tested.fill(&mut bytes[..length]).expect("fit");
                seen.iter_mut().zip(bytes).for_each(|(place, byte)| *place |= byte);
            }
            assert!(
                seen[..length].iter().all(|byte| *byte != 0) && seen[length..].iter().all(|byte| *byte == 0)
            );
        }
    }

    #[test]
    fn a_source_that_is_stuck_or_biased_does_not_start() {
        Tested::start(source(|_, _| 0)).expect_err("stuck at zero");
        Tested::start(source(|_, _| 0xff)).expect_err("stuck at one");
        Tested::start(source(|at, sample| if at.is_multiple_of(3) { 7 } else { sample }))
            .expect_err("biased");
        Tested::start(source(|_, sample| sample & 1)).expect_err("one bit");
    }

    #[test]
    fn a_source_that_breaks_later_gives_nothing_more_even_if_it_recovers() {
        let broken =
            |at, sample| if (START_SAMPLES + 100..START_SAMPLES + 109).contains(&at) { 3 } else { sample };
        let mut tested = Tested::start(source(broken)).expect("fit");
        let mut bytes = [0; 32];
        tested.fill(&mut bytes).expect("fit");
        for _ in 0..20 {
            let mut bytes = [0; 32];
            tested.fill(&mut bytes).expect_err("broken");
            assert_eq!(bytes, [0; 32]);
        }
    }

    #[test]
    fn eight_in_a_row_are_chance() {
        let broken = |at, sample| if (START_SAMPLES..START_SAMPLES + 8).contains(&at) { 3 } else { sample };
        let mut tested = Tested::start(source(broken)).expect("fit");
        tested.fill(&mut [0; 32]).expect("fit");
    }
}
