//! The issue pipeline, and the EST front before it.
//!
//! Bytes become a [`Csr`], policy grants or refuses, the ledger stores the
//! intent, the CA signs, the ledger stores the certificate, and only then is it answered. Each step
//! takes what only the one before can make, so none can be skipped. This crate is the only caller of
//! a signer.
//!
//! Divergences from the RFCs are listed in `DIVERGENCES.md`. What it may import says `tests/system/architecture.rs`.
//!
//! Decisions:
//! * 2026-11-24: a first enrollment is named by credential, profile, device and key, not by the
//!   bytes of its CSR. ECDSA signatures and channel bindings differ at each attempt, so a device
//!   whose answer was lost would find its one-time token used up. A renewal is named by its bytes.
//! * 2026-11-24: the TLS handshake checks only that the peer holds the key of the certificate it
//!   shows; path, dates and revocation are judged per request, so that each refusal has its reason.
//! * 2026-11-24: wrong credentials are limited per source, right ones never by the wrong ones before
//!   them: tokens have 256 random bits, so the limit protects the log and not the secret.

mod admission;
mod authority;
mod caller;
mod clock;
mod encoding;
mod front;
mod metrics;
mod presentation;
mod refusals;
mod registrar;
mod secret;

pub use admission::{AdmissionLimits, Rate};
pub use authority::{
    Authority, AuthorityError, FoundingPlan, ImportPlan, IssuingCa, KeyFolder, ListOrigin, ListTrial,
    RevocationError, ServerCertificate, Trust, TrustedCa,
};
// Words of the CA that callers of the registrar need; admin has no arrow to the CA itself.
pub use muster_ca::authority::Purpose;
pub use muster_ca::certificate::CaCertificate;
pub use muster_ca::csr::Csr;
pub use muster_ca::file_key::{CaAlgorithm, Passphrase};
pub use muster_ca::foreign_crl::CRL_MAX_BYTES;

pub use caller::Identified;
pub use clock::Clock;
pub use encoding::{decode_request, fingerprint};
pub use front::{ListenerLimits, Presented, TlsSource, serve, server_config};
pub use metrics::Metrics;
pub use presentation::manufacturer_serial;
pub use registrar::{Issued, KeySource, Order, Outcome, Registrar, Settings};
pub use secret::{NoRandom, Sha256Writer, hash_secret, new_secret, random};
