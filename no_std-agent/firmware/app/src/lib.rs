//! The device on a board: everything that is the same on all of them.
//!
//! A board package brings a network driver, a flash, randomness and a console, and hands them to [`device`], which
//! enrolls, keeps telemetry and commands going over MQTT and HTTPS, renews and recovers. What one device is told is
//! in its [`factory`] partition: there is one firmware for all of them. [`journal`] keeps the reasons of crashes.
//! No heap, and no executor: calls that wait let the rest of the board go on ([`turns`]).
#![no_std]

pub mod clock;
pub mod device;
pub mod factory;
pub mod https;
pub mod journal;
pub mod mqtt;
pub mod net;
pub mod partition;
mod pause;
pub mod platform;
pub mod report;
pub mod turns;
