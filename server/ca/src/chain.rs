//! Whether a presented client certificate leads to a trust anchor (RFC 5280 §6, RFC 7030 §3.3.2).
//!
//! Path building and all checks are rustls-webpki's, with its budget of work. An anchor's own
//! validity is not looked at (RFC 5280 §6.1.1 d); our leaves never outlive their issuer. A
//! certificate that is merely expired is told apart, but only when its chain held at its end: a
//! forged one can't ask for the grace of an expired one.

use core::time::Duration;

use muster_policy::time::UnixTime;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::{EndEntityCert, Error, KeyUsage};

use crate::certificate::{CERTIFICATE_MAX_BYTES, CertificateError, LeafFacts};

/// Most certificates that a client may send beside its own; real chains have at most three.
pub const INTERMEDIATES_MAX: usize = 8;

/// The CAs whose certificates may authenticate.
#[derive(Clone, Debug)]
pub struct TrustAnchors(Vec<TrustAnchor<'static>>);

impl TrustAnchors {
    /// Takes DER certificates, of roots or of issuing CAs, as anchors; the order is kept.
    ///
    /// # Errors
    /// When one of them is no certificate.
    pub fn new<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, CertificateError> {
        certificates
            .into_iter()
            .map(|der| {
                webpki::anchor_from_trusted_cert(&CertificateDer::from(der))
                    .map(|anchor| anchor.to_owned())
                    .map_err(|error| CertificateError::Malformed(error.to_string()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// What came of checking a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientChain {
    /// It is expired, and was trusted when it ended.
    Expired {
        /// Its end.
        not_after: UnixTime,
        /// The place of the anchor it led to.
        anchor: usize,
    },
    /// It is not meant for client authentication (extKeyUsage).
    NotForClientAuth,
    /// Its validity has not begun; whether it would be trusted then is not checked.
    NotYetValid,
    /// It is trusted.
    Trusted {
        /// The place of the anchor it leads to.
        anchor: usize,
    },
    /// It leads to no anchor, or can't be read, or another certificate of its chain is at fault.
    Untrusted,
}

/// Checks a client's certificate and the chain it came with.
pub fn verify_client_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    now: UnixTime,
) -> ClientChain {
    let is_oversized = |der: &CertificateDer<'_>| der.len() > CERTIFICATE_MAX_BYTES;
    if intermediates.len() > INTERMEDIATES_MAX || is_oversized(leaf) || intermediates.iter().any(is_oversized)
    {
        return ClientChain::Untrusted;
    }
    match build_path(leaf, intermediates, anchors, now) {
        Ok(anchor) => ClientChain::Trusted { anchor },
        Err(Error::RequiredEkuNotFoundContext(_)) => ClientChain::NotForClientAuth,
        Err(Error::CertExpired { .. } | Error::CertNotValidYet { .. }) => {
            outside_validity(leaf, intermediates, anchors, now)
        }
        Err(_) => ClientChain::Untrusted,
    }
}

/// Some certificate of the chain is outside its validity: ours to tell apart is the leaf only.
fn outside_validity(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    now: UnixTime,
) -> ClientChain {
    let Ok(facts) = LeafFacts::parse(leaf) else { return ClientChain::Untrusted };
    if now < facts.not_before {
        return ClientChain::NotYetValid;
    }
    if now <= facts.not_after {
        return ClientChain::Untrusted;
    }
    match build_path(leaf, intermediates, anchors, facts.not_after) {
        Ok(anchor) => ClientChain::Expired { not_after: facts.not_after, anchor },
        Err(Error::RequiredEkuNotFoundContext(_)) => ClientChain::NotForClientAuth,
        Err(_) => ClientChain::Untrusted,
    }
}

/// The place of the anchor that the path ends at.
fn build_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    at: UnixTime,
) -> Result<usize, Error> {
    let at = Duration::from_secs(u64::try_from(at.as_secs()).unwrap_or(0));
    let leaf = EndEntityCert::try_from(leaf)?;
    let path = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors.0,
        intermediates,
        rustls_pki_types::UnixTime::since_unix_epoch(at),
        KeyUsage::client_auth(),
        None,
        None,
    )?;
    // The path borrows the anchor from the list, so it is found by its address.
    anchors.0.iter().position(|anchor| core::ptr::eq(anchor, path.anchor())).ok_or(Error::UnknownIssuer)
}

#[cfg(test)]
mod tests;
