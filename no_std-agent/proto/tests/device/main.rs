//! The device core against a scripted EST server in virtual time: no socket, no sleep, no clock.
//!
//! `rig` joins one or many devices (`shell`) with one server (`server`) over a link that delays, cuts and loses;
//! what goes wrong is a list of `Op` values. `scenarios` are the known stories, `random` makes up more and prints
//! the list that failed, `reproductions` keeps those, `fleet` is two thousand devices at once. `chains`, `requests`
//! and `corpus` hold the codecs against openssl, x509-parser and stored inputs.

mod authority;
mod chains;
mod corpus;
mod fleet;
mod hostile;
mod random;
mod reproductions;
mod requests;
mod rig;
mod scenarios;
mod server;
mod shell;
