//! Device keys: P-256, made ahead of their use, 97 octets in memory until they sign.

use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use muster_proto::csr::P256Point;
use muster_proto::x509::Certificate;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Mutex, mpsc};

use crate::identities::StoredPair;

/// A key.
#[derive(Clone)]
pub(crate) struct DeviceKey {
    scalar: [u8; 32],
    point: P256Point,
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceKey").field("point", &self.point).finish_non_exhaustive()
    }
}

impl DeviceKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(crate) fn make() -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let scalar: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes()?;
        let point = P256Point::new(pair.public_key().as_ref()).context("an uncompressed point")?;
        Ok(Self { scalar: scalar.as_ref().try_into()?, point })
    }

    /// The key of a certificate or request, whose public half is there.
    pub(crate) fn of(scalar: [u8; 32], public: &[u8]) -> Option<Self> {
        Some(Self { scalar, point: P256Point::new(public)? })
    }

    /// The private half.
    pub(crate) const fn scalar(&self) -> &[u8; 32] {
        &self.scalar
    }

    /// The public half.
    pub(crate) const fn point(&self) -> P256Point {
        self.point
    }

    /// ECDSA over SHA-256, DER; `None` if the halves do not belong together.
    pub(crate) fn sign_message(&self, message: &[u8]) -> Option<Vec<u8>> {
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &self.scalar,
            self.point.as_bytes(),
        );
        let signature = pair.ok()?.sign(&SystemRandom::new(), message).ok()?;
        Some(signature.as_ref().to_vec())
    }
}

/// A TLS identity from what the directory holds.
///
/// # Errors
/// When the leaf is no certificate with a P-256 key.
pub(crate) fn certified(pair: &StoredPair, intermediates: &[u8]) -> anyhow::Result<Arc<CertifiedKey>> {
    let leaf = Certificate::parse(&pair.leaf)
        .map_err(|error| anyhow::anyhow!("a stored leaf is damaged: {error:?}"))?;
    let key = DeviceKey::of(pair.scalar, leaf.key.bits).context("a stored leaf has no P-256 key")?;
    let mut chain = vec![CertificateDer::from(pair.leaf.clone())];
    chain.extend(
        muster_proto::x509::Bundle::new(intermediates).iter().map(|der| CertificateDer::from(der.to_vec())),
    );
    Ok(Arc::new(CertifiedKey::new(chain, Arc::new(key))))
}

impl SigningKey for DeviceKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for DeviceKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.sign_message(message).ok_or_else(|| rustls::Error::General("the key does not sign".to_owned()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// Keys that were made ahead, so that making them is in no device's latency.
#[derive(Debug)]
pub(crate) struct KeyPool(Mutex<mpsc::Receiver<DeviceKey>>);

impl KeyPool {
    /// Makes keys on a thread of its own: `wanted` in all, at most [`AHEAD`] at a time, and waits for the first
    /// of them.
    pub(crate) async fn start(wanted: usize) -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut ready = Some(ready);
            for number in 1..=wanted {
                let Ok(key) = DeviceKey::make() else { return };
                if sender.blocking_send(key).is_err() {
                    return;
                }
                if number == wanted.min(AHEAD)
                    && let Some(ready) = ready.take()
                {
                    let _ = ready.send(());
                }
            }
        });
        let _ = is_ready.await;
        Self(Mutex::new(receiver))
    }

    /// A key that nobody had before.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(crate) async fn take(&self) -> anyhow::Result<DeviceKey> {
        let ready = self.0.lock().await.recv().await;
        ready.map_or_else(DeviceKey::make, Ok)
    }
}

/// About a megabyte of keys: some seconds of the fastest enrollment.
const AHEAD: usize = 8192;

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_key_of_two_halves_signs_as_the_whole_did() {
        let made = DeviceKey::make().expect("random numbers");
        let again = DeviceKey::of(*made.scalar(), made.point().as_bytes()).expect("a point");
        let signature = again.sign_message(b"message").expect("signs");
        let point = made.point();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point.as_bytes());
        assert!(public.verify(b"message", &signature).is_ok());
    }

    #[tokio::test]
    async fn the_pool_gives_as_many_as_are_wanted_and_more() {
        let pool = KeyPool::start(3).await;
        for _ in 0..5 {
            pool.take().await.expect("a key");
        }
    }
}
