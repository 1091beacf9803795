//! Secrets that people and devices carry, and the digests kept in their place.

use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_policy::identity::SecretHash;
use muster_policy::reason::{Reason, Refusal};
use zeroize::Zeroizing;

/// 256 random bits: guessing is hopeless, so the stored hash needs no salt and no slow function.
const SECRET_BYTES: usize = 32;

/// A new secret: the prefix, which tells people and scanners what it is, and 43 random characters.
///
/// # Errors
/// When the system gives no random numbers.
pub fn new_secret(prefix: &str) -> Result<Zeroizing<String>, NoRandom> {
    let octets = Zeroizing::new(random::<SECRET_BYTES>().ok_or(NoRandom)?);
    Ok(Zeroizing::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(*octets))))
}

/// The system gives no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoRandom;

/// SHA-256 of a secret, under which it is stored.
pub fn hash_secret(secret: &str) -> SecretHash {
    SecretHash::from_bytes(sha256(secret.as_bytes()))
}

/// Fresh random octets; none when the system has none.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut octets = [0; N];
    aws_lc_rs::rand::fill(&mut octets).ok()?;
    Some(octets)
}

/// The same for the pipeline, where it is a reason to refuse.
pub(crate) fn random_or_refuse<const N: usize>() -> Result<[u8; N], Refusal> {
    random().ok_or(Refusal::new(Reason::CaUnavailable, "/ca"))
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// A writer that keeps the SHA-256 of what is written to it.
pub struct Sha256Writer(Context);

impl Default for Sha256Writer {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Sha256Writer {
    /// The digest so far, in lower-case hex.
    pub fn finish_hex(self) -> String {
        self.0.finish().as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

impl Write for Sha256Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_say_what_they_are() {
        let (first, second) = (new_secret("mst_").expect("random"), new_secret("mst_").expect("random"));
        assert_ne!(*first, *second);
        assert!(first.starts_with("mst_") && first.len() == 47);
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        let mut hash = Sha256Writer::default();
        hash.write_all(b"abc").expect("memory");
        // FIPS 180-4 example.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.finish_hex(), expected);
        assert_eq!(hash_secret("abc").to_string(), expected);
    }
}
