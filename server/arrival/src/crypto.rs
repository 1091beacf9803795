//! The cryptography of the listeners.

use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// aws-lc-rs with AES-128 first, for configurations that go by their own order: SHA-384 comes with AES-256, few
/// processors have instructions for it, and it is a twentieth of a handshake. Clients that do not offer AES-128 get
/// what they offer.
pub fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}
