//! Whether a client certificate chains to a CA that may vouch for it (RFC 5280 §6).
//!
//! Path building is rustls-webpki's, with its own budget of work. The anchor may be a root or an
//! issuing CA, so a device that sends only its leaf passes.

use core::time::Duration;

use muster_policy::time::UnixTime;
use rustls_pki_types::CertificateDer;
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

pub use crate::certificate::LeafFacts;

/// What a chain is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainVerdict {
    /// Some certificate of the path has ended.
    Expired,
    /// It leads to an anchor, and the leaf is for client authentication.
    Good,
    /// Some certificate of the path has not begun.
    NotYetValid,
    /// The leaf is not for client authentication.
    Unfit,
    /// It leads nowhere.
    Untrusted,
}

/// Judges a leaf with the intermediates that came with it, at a moment.
///
/// More than four intermediates are not looked at; the caller bounds what a peer can send.
pub fn verify_client_chain(
    leaf: &[u8],
    intermediates: &[&[u8]],
    anchors: &[&[u8]],
    at: UnixTime,
) -> ChainVerdict {
    let leaf = CertificateDer::from(leaf);
    let Ok(end_entity) = EndEntityCert::try_from(&leaf) else { return ChainVerdict::Untrusted };
    let anchors: Vec<CertificateDer<'_>> = anchors.iter().map(|der| CertificateDer::from(*der)).collect();
    let anchors: Vec<_> = anchors.iter().filter_map(|der| anchor_from_trusted_cert(der).ok()).collect();
    let intermediates: Vec<CertificateDer<'_>> =
        intermediates.iter().take(INTERMEDIATES_MAX).map(|der| CertificateDer::from(*der)).collect();
    let seconds = u64::try_from(at.as_secs()).unwrap_or(0);
    let verified = end_entity.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &intermediates,
        rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        KeyUsage::client_auth(),
        None,
        None,
    );
    match verified {
        Ok(_) => ChainVerdict::Good,
        Err(Error::CertExpired { .. }) => ChainVerdict::Expired,
        Err(Error::CertNotValidYet { .. }) => ChainVerdict::NotYetValid,
        Err(Error::RequiredEkuNotFoundContext(_)) => ChainVerdict::Unfit,
        Err(_) => ChainVerdict::Untrusted,
    }
}

/// Deeper device PKIs are not known.
const INTERMEDIATES_MAX: usize = 4;
