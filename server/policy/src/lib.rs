//! Who is it, may it.
//!
//! The words every part of the server shares, as checked types, and the decisions made with them.
//! Pure by rule: no IO, no async, no clock, no randomness. `now` is an argument, and the same
//! arguments give the same answer, so that an answer can be explained and tested.
//!
//! * [`name`]: device ids, hostnames, labels, trust domains: bytes become a type once, here.
//! * [`identity`]: serials, fingerprints and the ids of stored objects.
//! * [`time`]: a point in time in whole seconds.
//! * [`key`]: the kinds of key that can be certified, and their floors.
//! * [`profile`]: what may be issued, as written and as checked.
//! * [`enrol`]: wish + caller + profile + now -> grant or refusal.
//! * [`fragment`]: how large the records may be that a client takes.
//! * [`host`]: what the edge demands at the door of a hostname.
//! * [`access`]: who a client certificate speaks for at the edge, and whether it may come in.
//! * [`expression`]: what requests are meant by a rule.
//! * [`gate`]: rules and Access applications that requests are judged by after the certificate.
//! * [`mqtt`]: what MQTT clients ask, as rules see it.
//! * [`network`]: addresses that begin alike, and those that nothing is sent to.
//! * [`rehearsal`]: what would become of a visit, asked ahead.
//! * [`revocation`]: why a certificate is revoked.
//! * [`reason`]: the one enum of refusal reasons that feeds answer, log, metric and audit.

pub mod access;
pub mod enrol;
pub mod expression;
pub mod fragment;
pub mod gate;
pub mod host;
pub mod identity;
pub mod key;
pub mod mqtt;
pub mod name;
pub mod network;
pub mod profile;
pub mod reason;
pub mod rehearsal;
pub mod revocation;
#[cfg(feature = "schema")]
mod schema;
pub mod time;
