//! What strangers say of what this crate writes, and what it says of what they write: openssl and
//! Python `cryptography`.
//!
//! Run only when named (`--test interop`), as they need both tools; a missing tool is a failure, not a skip.

#[cfg(test)]
mod account;
#[cfg(test)]
mod crls;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod leaves;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod tools;
