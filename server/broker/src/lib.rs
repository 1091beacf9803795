//! The MQTT broker of the edge.
//!
//! The edge ends TLS, verifies the client certificate and hands over a byte stream with its holder.
//! This crate speaks MQTT 3.1.1 and 5 on it: [`Broker::serve`] runs one connection. A *gate* stands
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
//! The crate may import `muster-policy` and no other package of the workspace.
//!
//! MQTT in WebSockets is the edge's: it answers the upgrade and hands over the octets inside the messages.
//!
//! # Decisions
//!
//! * 24 Nov 2026: the default engine is our own. The table has the scenarios of the Eclipse Paho
//!   interoperability tests (10 of 3.1.1, 27 of 5) that each broker passed, and the eleven inputs of
//!   `tests/kills.rs` that hurt it. Ours was run with `quotas.keep_alive_s = 60` and a `deny` rule, as
//!   the tests expect; the one it fails wants SUBACK 0x80 where MQTT 5 has 0x87, not authorized.
//!
//!   | engine | 3.1.1 | 5 | kills | what decided |
//!   |---|---|---|---|---|
//!   | rumqttd 0.20 in process | 6 | 11 | 4 to 8, 11 | one router thread that a panic ends, no session expiry, nothing kept, memory never freed |
//!   | rmqtt 0.24 in process | 10 | 21 | none | 322 packages, unbounded mailboxes, acknowledges before it stores, takes no stream of ours |
//!   | mosquitto 2.0.11 upstream | 8 | 21 | none | another process; the engine `upstream` serves it |
//!   | ours | 10 | 26 | none | |
//!
//!   Behind the gate rumqttd would still need `$share`, wills, expiry, quality and file from us: no
//!   engine of that kind is built.
//! * 24 Nov 2026: the codec is ours too (`wire`). mqtt-protocol-core 0.7.9 takes NUL in strings, the
//!   reserved connect flag, will QoS 3 (as 0) and octets after the end, refuses a password without a
//!   user name in version 5, and allocates per property; rmqtt-codec 0.3 reserves memory by the
//!   announced length. mqtt-protocol-core is the foreign codec that ours is tested against.
//! * 24 Nov 2026: PUBACK, PUBREC and SUBACK wait for the disk where they promise it. One thread
//!   commits groups; a message for a connected client is written, but not waited for.
//! * 24 Nov 2026: a session belongs to (account, owner, client id). The owner is the device of the
//!   certificate, so that an anonymous client or another device can't even name it.
//! * 24 Nov 2026: retained messages of a new subscription are read in pages as the client takes them.

mod clock;
mod config;
mod cut;
mod embedded;
mod engine;
mod gate;
mod metrics;
mod probe;
mod rules;
mod serve;
mod store;
mod stream;
mod topic;
mod upstream;
mod wire;

pub use crate::config::{
    AnonymousConfig, BrokerConfig, ClientIdRule, ConfigError, CutConfig, EngineKind, OnCutSession, OnCutWill,
    Quotas, RuleConfig, UpstreamConfig, UsernameRule, WhenFull, WhenTooFast,
};
pub use crate::cut::{Cut, CutReason, Cutter};
pub use crate::metrics::Snapshot;
pub use crate::probe::read_packets;
pub use crate::serve::{Broker, Ended, Peer, StartError};
pub use crate::store::StoreError;
pub use crate::stream::Stream;
pub use crate::topic::TopicError;
pub use crate::wire::Code;
