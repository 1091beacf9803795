//! `muster-sim edge`: devices with certificates at the door of any mTLS HTTPS or MQTT endpoint.
//!
//! A TLS 1.3 client is done before the server has looked at its certificate, so a handshake counts only when the
//! first answer has come: a response, or a CONNACK. Identities come from a directory of `muster-sim fleet`.

mod baseline;
mod http;
mod mqtt;
mod run;
mod session;

pub(crate) use self::baseline::compare_to_bare;
pub(crate) use self::run::{EdgeRun, Mode, note_resumption};
pub(crate) use self::session::{Endpoint, Manner, Open, Protocol};

/// Full handshakes, from the time of arrival to the first answer.
pub(crate) const HANDSHAKE: &str = "handshake";
/// The same with a session that was resumed.
pub(crate) const RESUMED: &str = "resumed";
/// A request and its answer, or PINGREQ and PINGRESP, on an open connection.
pub(crate) const REQUEST: &str = "request";
/// PUBLISH until the same message comes back.
pub(crate) const ROUND_TRIP: &str = "round_trip";
/// Connections that ended while they were held.
pub(crate) const HELD: &str = "held";
