//! The door of every hostname: TLS that demands client certificates, and what is behind it.
//!
//! One front per listener, one immutable TLS configuration per hostname, chosen by SNI and by nothing
//! else. A client's certificate is judged against the CAs of that hostname alone; who it speaks for
//! is settled once per connection, and whether it may is asked of `muster-policy` on every request
//! and by every change. HTTP goes to origins, MQTT to whoever implements [`MqttHandover`].
//!
//! It never reads the ledger: what it knows comes as a [`Snapshot`] and [`Delta`]s from whoever keeps it. What it may
//! import says `tests/system/architecture.rs`.
//!
//! ```text
//! let edge = Edge::start(config, broker, &mut registry)?;
//! edge.apply(Update::Snapshot(snapshot))?;              // then deltas, and heartbeats between them
//! tasks.spawn(edge.clone().serve(https, ListenerKind::Https, stop.clone()));
//! tasks.spawn(edge.clone().serve(mqtt, ListenerKind::Mqtt, stop.clone()));
//! edge.drain().await;
//! ```
//!
//! Promises: no peer can hold up another, whatever it sends or keeps back; nothing is served without
//! a permit; when [`Edge::apply`] returns the news of a revocation, its connections were told to end.
//! What it is told is written to a last known good state afterwards, which nothing waits for.

mod clock;
mod edge;
mod errors;
mod handover;
mod hosts;
mod http;
mod identity;
mod keeper;
mod listener;
mod live;
mod lkg;
mod metrics;
mod mqtt;
mod rehearsal;
mod senders;
mod snapshot;
mod sources;
mod standing;
mod state;
mod tls;

pub use clock::Clock;
pub use edge::{Edge, EdgeConfig, StartError};
pub use handover::{Arrival, CUT_GRACE, Carrier, Duplex, MqttHandover, MqttStream, NoBroker, Work};
pub use identity::{Leaf, read_leaf};
pub use listener::ListenerLimits;
pub use live::{Connection, Connections, Cut, Sought};
pub use lkg::LastKnownGoodError;
pub use metrics::Counters;
pub use snapshot::{
    AccountEntry, Applied, CaEntry, CertificateKey, Delta, DeviceEntry, Elsewhere, Event, Fault, Gap,
    HostEntry, ListEntry, NoUpdate, OriginTls, PrintKey, SecretKey, Snapshot, TlsIdentity, Update,
};
pub use tls::config::ListenerKind;
