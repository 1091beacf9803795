//! What strangers can do to the HTTP of a hostname: its clients, whatever they send, and its origins.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a step that fails is a failed test, in a helper as in the test itself"
)]

#[path = "../rig/mod.rs"]
mod rig;

mod bodies;
mod frames;
mod h2;
mod origins;
mod requests;
mod script;
