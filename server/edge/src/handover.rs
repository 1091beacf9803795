//! Where MQTT leaves the edge: the trait that a broker's gate implements.
//!
//! The edge has checked TLS, certificate and rule by then, and goes on watching: it orders the end
//! of a connection whose right is gone through [`Cut`], and closes the stream itself when the other
//! side has not ended within [`CUT_GRACE`].

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use muster_policy::access::Holder;
use muster_policy::host::HostPattern;
use muster_policy::identity::{AccountId, ZoneId};
use muster_policy::mqtt::Judge;
use muster_policy::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::live::Cut;

/// How long a connection may take to end after it was ordered to. Enough for one DISCONNECT.
pub const CUT_GRACE: Duration = Duration::from_secs(1);

/// A stream of MQTT packets, decrypted.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A stream that was handed over.
pub type MqttStream = Box<dyn Duplex>;

/// The work on a stream, until it ends.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What MQTT packets are carried in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// TLS, on the MQTT port or by ALPN `mqtt`.
    Tls,
    /// Binary WebSocket messages with the subprotocol `mqtt` (MQTT 5 §6).
    WebSocket,
}

/// Who comes, by which hostname.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The rule that let it in.
    pub host: HostPattern,
    /// The owner of the hostname.
    pub account: AccountId,
    /// The zone of the hostname.
    pub zone: ZoneId,
    /// The holder of the client certificate; `None` where the rule lets anonymous clients in.
    pub holder: Option<Arc<Holder>>,
    /// The peer's address.
    pub source: SocketAddr,
    /// What carries the packets.
    pub carrier: Carrier,
    /// The order to end. To be heard until the work is done.
    pub cut: Arc<Cut>,
    /// Judges what the client asks, CONNECT first. To be asked until the work is done.
    pub judge: Arc<dyn Judge>,
}

/// Takes MQTT streams over.
pub trait MqttHandover: Send + Sync + 'static {
    /// Serves a client that was let in, until it leaves or is cut.
    fn welcome(&self, stream: MqttStream, arrival: Arrival) -> Work;

    /// Tells a client why it is not let in. Closing without a word is the default.
    fn refuse(&self, stream: MqttStream, arrival: Arrival, reason: Reason) -> Work {
        let _ = (arrival, reason);
        Box::pin(async move { drop(stream) })
    }
}

/// An edge without a broker: MQTT clients find a closed door.
#[derive(Clone, Copy, Debug)]
pub struct NoBroker;

impl MqttHandover for NoBroker {
    fn welcome(&self, stream: MqttStream, arrival: Arrival) -> Work {
        self.refuse(stream, arrival, Reason::ProtocolNotOffered)
    }
}
