//! The account CA, without clock, network or policy of its own.
//!
//! A request is read into a [`csr::Csr`]; a grant of policy becomes a [`leaf::Prepared`], linted
//! before anything is signed; that is moved into its signature once. CAs are made, imported and
//! rolled over here, and revocation lists and CMS bundles are built.
//!
//! * [`csr`], [`subject_key`], [`keygen`]: what devices send, and keys made for them.
//! * [`signer`], [`file_key`]: the seam of private keys, and keys in files.
//! * [`authority`], [`issuer`], [`byo`]: CAs made, at work, and brought along.
//! * [`leaf`], [`server_leaf`], [`lint`]: certificates, and the rules they must keep.
//! * [`crl`], [`bundle`], [`csr_attributes`], [`chain`]: what stands around certificates.
//!
//! Randomness and time are arguments, but for keys, whose randomness is the library's. May import
//! `muster-policy` only. `rcgen` builds from a grant; its CSR parser, which fills the struct that
//! becomes the certificate, is not used.

pub mod authority;
pub mod bundle;
pub mod byo;
pub mod certificate;
pub mod chain;
pub mod crl;
pub mod csr;
pub mod csr_attributes;
pub mod file_key;
pub mod issuer;
pub mod key_pair;
pub mod keygen;
pub mod leaf;
pub mod lint;
mod names;
pub mod server_leaf;
pub mod signature;
pub mod signer;
pub mod subject_key;
pub mod tbs;
mod tlv;

#[cfg(test)]
mod fixtures;
