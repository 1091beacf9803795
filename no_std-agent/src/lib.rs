//! The shell of the device core on a microcontroller: no heap, no operating system.
//!
//! `muster-proto` decides what to do; this crate does it. It asks the board for a few things by trait: TCP
//! ([`net`]), a NOR flash (`embedded_storage_async`), randomness ([`entropy`]), time ([`clock`]) and private keys
//! ([`key`], in software: [`software`]). [`store`] keeps two identities through power cuts.
#![no_std]
#![forbid(unsafe_code)]

pub mod clock;
pub mod entropy;
pub mod key;
pub mod net;
pub mod software;
pub mod store;
