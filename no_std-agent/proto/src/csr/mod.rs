//! PKCS#10 certification requests for P-256 keys (RFC 2986): made in a lent buffer, and read back.
//!
//! Making one takes two steps, because the key is elsewhere: [`Draft::write`] lays out what is to be signed,
//! [`Draft::sign`] completes the request around the signature. [`CertificationRequest`] reads one strictly: a
//! device needs that for the request it stored before a power cut.

mod builder;
mod request;

pub use builder::{Attributes, Draft, P256Point, SignatureError, Subject};
pub use request::{CertificationRequest, CsrError, RequestedAttributes};
