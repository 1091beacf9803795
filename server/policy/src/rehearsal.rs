//! What would become of a request or of an MQTT client, asked ahead: question and answer.
//!
//! The edge answers, by the same steps as a visit takes.

use std::net::IpAddr;

use crate::gate::Judgement;
use crate::mqtt;
use crate::name::DeviceId;
use crate::reason::Reason;

/// Who would come, and for what.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The hostname, as a client would name it.
    pub host: String,
    /// The certificates that the client would show, in DER, its own first; none without one.
    pub chain: Vec<Vec<u8>>,
    /// Where it would come from.
    pub source: IpAddr,
    /// What it would ask for.
    pub wish: Wish,
}

/// What would be asked for.
#[derive(Clone, Debug)]
pub enum Wish {
    /// An HTTP request.
    Https {
        /// Its method.
        method: String,
        /// Its path, with a query if it has one.
        target: String,
        /// Its `User-Agent`; empty without.
        user_agent: String,
    },
    /// An MQTT connection, and a packet on it.
    Mqtt {
        /// Its CONNECT.
        connect: mqtt::Connect,
        /// What follows; none for the connection alone.
        packet: Option<Packet>,
    },
}

/// A packet after CONNECT.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Which.
    pub kind: PacketKind,
    /// The topic or filter.
    pub topic: String,
    /// 0 to 2.
    pub qos: u8,
    /// Whether the message is to be kept.
    pub retain: bool,
}

/// A kind of packet that rules judge after CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PacketKind {
    /// A message on its way to the client.
    Deliver,
    /// A message of the client.
    Publish,
    /// A filter.
    Subscribe,
}

impl Packet {
    /// The packet as it is judged.
    pub fn asked(&self) -> mqtt::Asked<'_> {
        let message = mqtt::Message { topic: &self.topic, qos: self.qos, retain: self.retain };
        match self.kind {
            PacketKind::Deliver => mqtt::Asked::Deliver(message),
            PacketKind::Publish => mqtt::Asked::Publish(message),
            PacketKind::Subscribe => mqtt::Asked::Subscribe { filter: &self.topic, qos: self.qos },
        }
    }
}

/// What would become of it.
#[derive(Clone, Debug)]
pub struct Rehearsed {
    /// Whether it would be served, or why not.
    pub verdict: Result<(), Reason>,
    /// Who would be known to come.
    pub device: Option<DeviceId>,
    /// What rules and Access say; none when it does not come so far. Of MQTT the first that says no: of the
    /// connection, else of the packet.
    pub judgement: Option<Judgement>,
}

impl Rehearsed {
    /// One that ends before rules and Access.
    pub const fn refused(reason: Reason, device: Option<DeviceId>) -> Self {
        Self { verdict: Err(reason), device, judgement: None }
    }
}
