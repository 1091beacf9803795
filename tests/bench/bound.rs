//! What the cryptography alone costs in this process, with the library the server uses; the simulator measures it.
//!
//! A full mTLS 1.3 handshake is the key agreement, the server's signature, the client's, and the issuing
//! CA's on the client certificate. A renewal verifies the request and signs the certificate.

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
    let bound = muster_simulator::bound()?;
    let (keep_alive, handshake) = (bound.issue_ms, bound.handshake_ms);
    Ok(Bound { keep_alive, new_connection: keep_alive + handshake, handshake })
}
