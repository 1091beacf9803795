//! The account CA: CSR parsing, certificates built from a grant and linted before signing, CRLs, CMS bundles, key files.
//!
//! What it may import says `tests/system/architecture.rs`. No clock and no async: time and serials are arguments. Keys come from aws-lc-rs's own generator; files are touched in [`file_key`] only.
//!
//! * [`csr`], [`subject_key`], [`certificate`]: bytes of strangers become checked types here.
//! * [`signer`], [`file_key`], [`keygen`]: private keys.
//! * [`authority`], [`byo`], [`issuer`]: CAs, made here or brought along.
//! * [`leaf`], [`server_leaf`], [`lint`]: grant -> prepared (linted) -> issued, signed once.
//! * [`crl`], [`bundle`], [`csr_attributes`]: what is published.
//! * [`chain`]: whether a presented client certificate leads to a trust anchor.
//! * [`foreign_crl`]: revocation lists of CAs whose key is elsewhere, read and checked.
//!
//! Promises: no panic on any bytes, no signature over what was not linted, names and keys of
//! others kept byte for byte, secrets wiped and never shown.

pub mod authority;
pub mod bundle;
pub mod byo;
pub mod certificate;
pub mod chain;
pub mod crl;
pub mod csr;
pub mod csr_attributes;
pub mod file_key;
pub mod foreign_crl;
pub mod issuer;
pub mod keygen;
pub mod leaf;
pub mod lint;
pub mod server_leaf;
pub mod signature;
pub mod signer;
pub mod subject_key;
pub mod tbs;

mod key_pair;
mod names;
mod pem_text;
mod tlv;

#[cfg(test)]
mod fixtures;

pub use key_pair::CryptoFailure;
