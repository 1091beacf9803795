//! Where unpredictable bytes come from, and the generator that is seeded with them.
//!
//! A source may fail, and then there is no key and no connection: the generator below is only ever made from a
//! whole seed. Each key and each connection gets a seed of its own, so that nothing outlives the need for it.

use rand_core::{CryptoRng, Error, RngCore, impls};
use rfc6979::HmacDrbg;
use sha2::Sha256;
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

/// HMAC_DRBG with SHA-256 (SP 800-90A §10.1.2): signatures have it in the image already, for RFC 6979.
pub(crate) struct Generator(HmacDrbg<Sha256>);

/// A generator with a fresh seed.
// Apart: what seeding needs of the stack is given back.
#[inline(never)]
pub(crate) fn generator(entropy: &mut impl Entropy) -> Result<Generator, NoEntropy> {
    let mut seed = [0; SEED_BYTES];
    entropy.fill(&mut seed)?;
    let generator = HmacDrbg::new(&seed, &[], &[]);
    seed.zeroize();
    Ok(Generator(generator))
}

impl RngCore for Generator {
    fn next_u32(&mut self) -> u32 {
        impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Generator {}

/// Entropy for a strength of 256 bits, and half as much in place of a nonce (SP 800-90A §8.6.7).
const SEED_BYTES: usize = 48;
