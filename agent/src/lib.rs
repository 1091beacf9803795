//! The Linux device: enrolls, renews in time, and carries local programs' traffic under mutual TLS.
//!
//! `identity` is what the two halves share: the half that enrolls and renews publishes identities,
//! the half that carries traffic uses them and says how the peers took them. [`enroll`] is the first: the
//! shell of the device core (`muster-proto`), which decides everything, over [`store`], the two slots on
//! the disk. [`cli`] is the command line; [`run`] the service. The
//! other half is [`carry`]; [`install`] makes a service of it.
//!
//! What it may import says `tests/system/architecture.rs`.

pub mod carry;
pub mod cli;
pub mod clock;
pub mod config;
mod control;
pub mod enroll;
pub mod identity;
pub mod install;
mod log;
pub mod run;
pub mod settings;
pub mod span;
pub mod status;
pub mod store;
