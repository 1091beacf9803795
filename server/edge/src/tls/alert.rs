//! From reasons to TLS alerts, and back from a failed handshake to its reason.
//!
//! rustls turns its error into the alert; the reason travels inside the error, so that metric and
//! log say what the alert can only hint at.

use std::sync::Arc;

use muster_policy::reason::Reason;
use rustls::{CertificateError, Error, OtherError};

/// RFC 8446 §6: a fatal alert `unrecognized_name` (112) in a record of its own, for before there is
/// a configuration that could send one.
pub(crate) const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Why a handshake came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeFault {
    /// The client's certificate was refused.
    Refused(Reason),
    /// The peer went away or broke TLS.
    Broken,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Inside(Reason);

/// The error that makes rustls send the fitting alert.
pub(crate) fn error_of(reason: Reason) -> Error {
    let error = match reason {
        Reason::CertificateExpired => CertificateError::Expired,
        Reason::CertificateNotYetValid => CertificateError::NotValidYet,
        Reason::CertificateRevoked => CertificateError::Revoked,
        Reason::CertificateUntrusted => CertificateError::UnknownIssuer,
        Reason::CertificateUnfit => CertificateError::InvalidPurpose,
        Reason::IdentityMalformed => CertificateError::BadEncoding,
        // certificate_unknown: "some other (unspecified) issue" (RFC 8446 §6.2).
        other => CertificateError::Other(OtherError(Arc::new(Inside(other)))),
    };
    Error::InvalidCertificate(error)
}

/// The reason inside what a handshake failed with.
pub(crate) fn fault_of(error: &std::io::Error) -> HandshakeFault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let reason = match inner {
        Some(Error::NoCertificatesPresented) => Reason::ClientCertificateRequired,
        Some(Error::InvalidCertificate(error)) => match error {
            CertificateError::Expired => Reason::CertificateExpired,
            CertificateError::NotValidYet => Reason::CertificateNotYetValid,
            CertificateError::Revoked => Reason::CertificateRevoked,
            CertificateError::InvalidPurpose => Reason::CertificateUnfit,
            CertificateError::BadEncoding => Reason::IdentityMalformed,
            CertificateError::Other(OtherError(inside)) => {
                inside.downcast_ref::<Inside>().map_or(Reason::CertificateUntrusted, |inside| inside.0)
            }
            _ => Reason::CertificateUntrusted,
        },
        _ => return HandshakeFault::Broken,
    };
    HandshakeFault::Refused(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_the_way_through_rustls() {
        for reason in [
            Reason::CertificateExpired,
            Reason::CertificateNotYetValid,
            Reason::CertificateRevoked,
            Reason::CertificateUntrusted,
            Reason::CertificateUnfit,
            Reason::IdentityMalformed,
            Reason::IdentityAmbiguous,
            Reason::ChainExcessive,
            Reason::CrlStale,
        ] {
            let error = std::io::Error::other(error_of(reason));
            assert_eq!(fault_of(&error), HandshakeFault::Refused(reason));
        }
        let broken = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        assert_eq!(fault_of(&broken), HandshakeFault::Broken);
    }
}
