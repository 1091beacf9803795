//! The shell on the host: its store under power cuts, its TLS against hostile and honest servers, its loop.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::std_instead_of_core,
    clippy::alloc_instead_of_core,
    clippy::unwrap_used,
    reason = "test code: a panic is a failed test, and it runs on the host"
)]

// The CAs and keys of proto's own tests.
#[expect(dead_code, reason = "the device core's tests use the rest")]
#[path = "../../proto/tests/device/authority.rs"]
mod authority;
mod board;
mod device;
mod ec;
mod element;
mod flash;
mod honest;
mod hostile;
mod power_cut;
mod scripted;
mod unguarded;
