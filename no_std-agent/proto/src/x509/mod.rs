//! X.509 certificates as a device needs them: RFC 5280, read strictly, without copies.
//!
//! [`Certificate`] is a checked view; [`Bundle`] is certificates one after another, as CMS and TLS carry them;
//! [`check_path`] walks from a leaf to a trusted [`Anchors`] member; [`ServerName`] is compared with a leaf's names.
//! A certificate that does not parse is never half-used. Signatures are checked by the caller's [`Verify`].

mod bundle;
mod certificate;
mod extensions;
mod names;
mod path;
mod verify;

pub use bundle::Bundle;
pub use certificate::{Certificate, CertificateError, MAX_CERTIFICATE_BYTES};
pub(crate) use certificate::{common_name, read_name};
pub use extensions::{BasicConstraints, Extension, Extensions, KeyUsage};
pub use names::{GeneralName, ServerName, SubjectAltNames};
pub use path::{
    Anchors, MAX_INTERMEDIATES, Moment, Path, PathError, Purpose, ServerRefused, check_path, check_server,
};
pub use verify::{PublicKey, SignatureAlgorithm, Verify, VerifyError};
