//! Where unpredictable bytes come from, and the generator that is seeded with them.
//!
//! A source may fail, and then there is no key and no connection: the generator below is only ever made from a
//! whole seed. Each key and each connection gets a seed of its own, so that nothing outlives the need for it.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use zeroize::Zeroize;

/// A source of unpredictable bytes: a hardware generator with its health test, or a secure element.
pub trait Entropy {
    /// Fills `bytes`, each with eight bits of entropy.
    ///
    /// # Errors
    /// [`NoEntropy`] when the source failed or its health test did. Nothing is generated then.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy>;
}

/// The source has no entropy to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

/// A generator with a fresh seed.
pub(crate) fn generator(entropy: &mut impl Entropy) -> Result<ChaCha20Rng, NoEntropy> {
    let mut seed = [0; 32];
    entropy.fill(&mut seed)?;
    let generator = ChaCha20Rng::from_seed(seed);
    seed.zeroize();
    Ok(generator)
}
