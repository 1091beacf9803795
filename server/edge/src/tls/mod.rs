//! The TLS front: from a ClientHello to a connection whose peer is known.
//!
//! [`config`] makes the one immutable configuration of each hostname, [`verifier`] judges client certificates with the [`anchors`] of that hostname, and
//! [`alert`] is the map between reasons and alerts. Nothing here knows HTTP or MQTT.

pub(crate) mod alert;
pub(crate) mod anchors;
pub(crate) mod config;
pub(crate) mod issuers;
pub(crate) mod verifier;
