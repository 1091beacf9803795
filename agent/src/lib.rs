//! The Linux device: enrolls, renews in time, and carries local programs' traffic under mutual TLS.
//!
//! `identity` is what the two halves share: the half that enrolls and renews publishes identities,
//! the half that carries traffic uses them and says how the peers took them.

pub mod carry;
pub mod identity;
pub mod install;
pub mod notify;
