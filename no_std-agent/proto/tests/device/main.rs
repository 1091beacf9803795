//! The device core against a scripted EST server in virtual time: no socket, no sleep, no clock.
//!
//! `rig` joins one or many devices (`shell`) with one server (`server`) over a link that delays, cuts and loses;
//! what goes wrong is a list of `Op` values. `scenarios` are the known stories and the found ones, `random` makes up
//! more and prints the list that failed, `fleet` is two thousand devices at once. `chains`, `requests`
//! and `corpus` hold the codecs against openssl, x509-parser and stored inputs.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::std_instead_of_core,
    reason = "a host test: what is denied to the core, because a peer reaches it, is how a test fails here"
)]

mod authority;
mod chains;
mod corpus;
mod fleet;
mod random;
mod requests;
mod rig;
mod scenarios;
mod server;
mod shell;
