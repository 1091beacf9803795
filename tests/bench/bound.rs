//! What the cryptography alone costs in this process, with the library the server uses.
//!
//! A full mTLS 1.3 handshake is the key agreement, the server's signature, the client's, and the issuing
//! CA's on the client certificate. A renewal verifies the request and signs the certificate.

use std::hint::black_box;

use anyhow::Context as _;
use aws_lc_rs::agreement::{EphemeralPrivateKey, PrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, ECDSA_P256_SHA256_ASN1, KeyPair as _};
use nix::time::{ClockId, clock_gettime};

use crate::fleet::signing_key;
use crate::median;

const BATCHES: usize = 9;
const PER_BATCH: u32 = 200;
/// About a TBSCertificate.
const MESSAGE: [u8; 400] = [7; 400];

/// Milliseconds of CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// Verify and sign.
    pub(crate) keep_alive: f64,
    /// The same after a full handshake.
    pub(crate) new_connection: f64,
    /// A full mTLS 1.3 handshake over X25519 with the issuing CA as anchor.
    pub(crate) handshake: f64,
}

/// Measures it.
pub(crate) fn measure() -> anyhow::Result<Bound> {
    let random = SystemRandom::new();
    let key = signing_key()?;
    let public =
        signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref().to_vec());
    let signed = key.sign(&random, &MESSAGE)?;
    let sign = per_operation(|| {
        black_box(key.sign(&random, &MESSAGE)?);
        Ok(())
    })?;
    let verify = per_operation(|| Ok(public.verify(&MESSAGE, signed.as_ref())?))?;
    let other = PrivateKey::generate(&X25519)?.compute_public_key()?;
    let peer = UnparsedPublicKey::new(&X25519, other.as_ref().to_vec());
    let agree = per_operation(|| {
        let own = EphemeralPrivateKey::generate(&X25519, &random)?;
        black_box(own.compute_public_key()?);
        agree_ephemeral(own, &peer, anyhow::Error::msg("no agreement"), |secret| {
            black_box(secret);
            Ok(())
        })
    })?;
    let keep_alive = verify + sign;
    let handshake = agree + sign + 2.0 * verify;
    Ok(Bound { keep_alive, new_connection: keep_alive + handshake, handshake })
}

fn per_operation(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut batches = Vec::new();
    for _ in 0..BATCHES {
        let before = cpu_ms()?;
        for _ in 0..PER_BATCH {
            work()?;
        }
        batches.push((cpu_ms()? - before) / f64::from(PER_BATCH));
    }
    Ok(median(batches))
}

fn cpu_ms() -> anyhow::Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("the CPU clock of a thread")?;
    Ok(std::time::Duration::from(time).as_secs_f64() * 1e3)
}
