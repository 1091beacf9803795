//! What system tests, interop tests and benches share: a server in a folder of its own, and devices.
//!
//! [`Server`] is the real `muster` binary on free ports, [`Agent`] the real `muster-agent`; [`Est`] is a
//! client that sends the bytes it is told to; [`Turned`] is a server whose clock a test turns; [`request`]
//! makes PKCS#10 requests of any content. [`fleet`] and [`carrying`] are for what the agent
//! carries; [`local`] has programs that know nothing of the agent; [`MqttBroker`] is a broker alone, without
//! its edge. [`board`] is a device with the firmware, in an emulator.
//! Nothing sleeps for a fixed time to let something happen: waits are on lines and answers, and every wait
//! has an end.

pub mod agent;
pub mod board;
pub mod carrying;
pub mod est;
pub mod fleet;
pub mod local;
pub mod maker;
pub mod mqtt;
pub mod program;
pub mod request;
pub mod server;
pub mod systemd;
pub mod turned;

pub use agent::Agent;
pub use est::{Est, Identity, Reply};
pub use maker::Maker;
pub use mqtt::MqttBroker;
pub use server::Server;
pub use turned::Turned;
