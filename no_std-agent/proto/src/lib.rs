//! The device core of Muster: enrollment and renewal as a machine that owns no socket, clock, key or heap.
//!
//! One input, then drain: after each [`Enrollment::handle`] or [`Enrollment::receive`] call [`Enrollment::poll`] until it answers
//! [`Output::WaitUntil`]. The same inputs and the same seed give the same outputs, so every run can be replayed.
//! A panic is a bug here; whatever a peer sends becomes a value that says what was wrong with it.
//!
//! The shell brings what differs between devices: TCP and TLS, key and signature ([`Output::MakeKey`],
//! [`Output::Sign`]), an atomic store, the two clocks, a seed, and signature verification ([`x509::Verify`]).
//! All memory is lent by the caller. The codecs are modules of their own and can be used without the machine:
//! [`der`], [`base64`], [`csr`], [`cms`], [`csrattrs`], [`x509`] and [`http`].
//! SHA-256 (of pinned CA certificates) comes from the `sha2` crate, which needs no heap either.
#![no_std]
#![forbid(unsafe_code)]

mod ascii;
pub mod base64;
mod clock;
pub mod cms;
pub mod csr;
pub mod csrattrs;
pub mod der;
pub mod enrollment;
pub mod est;
pub mod http;
mod jitter;
pub mod time;
pub mod x509;

pub use enrollment::{Enrollment, Input, Output};

use sha2::{Digest, Sha256};

/// SHA-256 of some bytes (FIPS 180-4).
// Once in an image, with all that the padding takes; the shells use it too.
#[inline(never)]
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A lent buffer is too small for what has to be written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortBuffer;
