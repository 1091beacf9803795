//! The MQTT broker of the edge.
//!
//! The edge ends TLS, verifies the client certificate and hands over a byte stream with its holder.
//! This crate speaks MQTT 3.1, 3.1.1 and 5 on it: [`Broker::serve`] runs one connection. A *gate* stands
//! first: it binds the client id to the certificate and holds every topic against the rules of the
//! holder. Behind it an *engine* carries the messages.
//!
//! What a reader can rely on:
//! * A packet reaches an engine only through the gate, with aliases resolved and names checked.
//! * No buffer grows by a length that a peer announced, and each queue has a bound and a policy.
//! * A slow subscriber costs a publisher nothing: queues drop or refuse, and count it.
//! * Topics and sessions of two accounts never meet; a session is taken over by its own owner only.
//! * What is acknowledged with QoS 1 or 2 and is retained, or queued for a session without a
//!   connection, is on disk first, when there is a file.
//!
//! What it may import says `tests/system/architecture.rs`.
//!
//! MQTT in WebSockets is the edge's: it answers the upgrade and hands over the octets inside the messages.
//!
#![doc = include_str!("../DECISIONS.md")]

mod author;
mod clock;
mod config;
mod cut;
mod embedded;
mod engine;
mod gate;
mod metrics;
mod probe;
mod rules;
#[cfg(feature = "rumqttd")]
mod rumqttd;
mod serve;
mod store;
mod stream;
mod topic;
mod upstream;
mod wire;

pub use crate::config::{
    AnonymousConfig, BrokerConfig, ClientIdRule, ConfigError, CutConfig, DeliveredQos, EmptyClientId,
    EngineKind, OnCutSession, OnCutWill, Quotas, RetainedOf, RuleConfig, UpstreamConfig, UsernameRule,
    WhenFull, WhenTooFast,
};
pub use crate::cut::{Cut, CutReason, Cutter};
pub use crate::metrics::Snapshot;
pub use crate::probe::read_packets;
pub use crate::serve::{Broker, Ended, Peer, StartError};
pub use crate::store::StoreError;
pub use crate::stream::Stream;
pub use crate::topic::TopicError;
pub use crate::wire::Code;

// The rig of the tests outside drives a broker on a faulty disk too, which is seen from inside only.
#[cfg(test)]
extern crate self as muster_broker;
#[cfg(test)]
#[path = "../tests/rig/mod.rs"]
mod rig;
