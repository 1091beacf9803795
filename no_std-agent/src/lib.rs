//! The shell of the device core on a microcontroller: no heap, no operating system.
//!
//! `muster-proto` decides what to do; this crate does it. [`device`] is the loop that an application drives, and
//! where to begin reading. It asks the board for a few things by trait: TCP ([`net`]), a NOR flash
//! (`embedded_storage`), randomness ([`entropy`]), time ([`clock`]), private keys ([`key`], in software:
//! [`software`]) and arithmetic ([`ec`]). [`store`] keeps two identities through power cuts, and [`tls`] is embedded-tls
//! behind a strict verifier. All memory is lent by the caller, and each call returns when its work is done or its time
//! is over: nothing here is a future.
//! What a board needs, how to port to one, and what was decided: see the crate's README.
#![no_std]
#![forbid(unsafe_code)]

pub mod clock;
pub mod device;
pub mod ec;
pub mod entropy;
pub mod key;
pub mod net;
pub mod software;
pub mod store;
pub mod tls;
