//! From a reset to a device that runs, the same on all boards.
//!
//! A board package starts its clocks, watchdog, flash, randomness and network, and hands them to [`run`], which does
//! the rest and ends only if the board does not work at all. [`noise`] tests a hardware generator without tests of its
//! own, [`layout`] says where things lie in each board's flash, and the panic handler of all boards is here.
#![no_std]

#[path = "../../boards/layout.rs"]
pub mod layout;

pub mod console;
#[cfg(target_os = "none")]
mod handlers;
mod last_words;
mod memory;
pub mod noise;
mod run;
#[cfg(target_os = "none")]
mod sleep;

pub use self::last_words::{give_up, remember_watchdog};
pub use self::memory::{Lent, Pool, TCP_WINDOW_BYTES};
pub use self::run::{Button, FactoryPages, Failure, Hardware, IDENTITY_PAGES, Row, run, tell_and_wait};
#[cfg(target_os = "none")]
pub use self::sleep::{WAIT_FOR_EVENT, block_on};
