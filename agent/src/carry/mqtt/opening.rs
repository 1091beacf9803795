//! The opening of a session: the client's CONNECT, and the broker's CONNACK.
//!
//! 3.1.1 goes through byte for byte. In 5.0 two things are changed, so that the session survives the swap of
//! the connection under it: the session is asked to live on for [`CARRIED_FOR_S`] after a connection ends
//! (and ended when the client ends it), and topic aliases from the client are not offered, for they end with
//! a connection (MQTT 5.0 §3.3.2.3.4).

use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::{Properties, Property, SessionExpiryInterval, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, DisconnectReasonCode};

use super::packet::{Packet, PacketFault, Version};

/// How long a 5.0 session outlives its connection, in seconds: many times a swap, and short for a leftover
/// of an agent that died.
pub const CARRIED_FOR_S: u32 = 60;

/// What a client opened.
#[derive(Clone, Debug)]
pub struct Opening {
    version: Version,
    client: String,
    is_clean: bool,
    has_will: bool,
    /// 5.0: what the client asked for, in seconds.
    session_expiry_s: u32,
    /// 5.0: an authentication method is named, so the exchange can't be repeated by the relay.
    has_authentication: bool,
    connect: Connect,
}

#[derive(Clone, Debug)]
enum Connect {
    V311(Bytes),
    V5(Box<v5_0::Connect>),
}

/// What a broker said to a CONNECT.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// The broker kept the session (§3.2.2.1.1).
    pub session_present: bool,
    /// The reason code; 0 is success.
    pub code: u8,
    /// 5.0: the client id that the broker chose for an empty one.
    pub assigned: Option<String>,
    /// What the client is told.
    pub for_client: Bytes,
}

impl Opening {
    /// Read a client's first packet.
    ///
    /// # Errors
    /// A fault of the client.
    pub fn read(packet: &Packet) -> Result<Self, PacketFault> {
        match packet.parse(v5_0::Connect::parse) {
            Ok(connect) => Ok(Self::from_v5(connect)),
            Err(PacketFault::OtherVersion) => {
                let connect = packet.parse(v3_1_1::Connect::parse)?;
                let mut bytes = bytes::BytesMut::with_capacity(packet.size());
                packet.write(&mut bytes);
                Ok(Self {
                    version: Version::V311,
                    client: connect.client_id().to_owned(),
                    is_clean: connect.clean_session(),
                    has_will: connect.will_flag(),
                    session_expiry_s: 0,
                    has_authentication: false,
                    connect: Connect::V311(bytes.freeze()),
                })
            }
            Err(fault) => Err(fault),
        }
    }

    fn from_v5(connect: v5_0::Connect) -> Self {
        let expiry = connect.props().iter().find_map(|property| match property {
            Property::SessionExpiryInterval(expiry) => Some(expiry.val()),
            _ => None,
        });
        let authentication =
            connect.props().iter().any(|property| matches!(property, Property::AuthenticationMethod(_)));
        Self {
            version: Version::V5,
            client: connect.client_id().to_owned(),
            is_clean: connect.clean_start(),
            has_will: connect.will_flag(),
            session_expiry_s: expiry.unwrap_or(0),
            has_authentication: authentication,
            connect: Connect::V5(Box::new(connect)),
        }
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether authentication continues beyond CONNECT.
    #[must_use]
    pub fn has_authentication(&self) -> bool {
        self.has_authentication
    }

    /// The broker chose a client id: a replay must name it.
    pub fn assign(&mut self, client: String) {
        if self.client.is_empty() {
            self.client = client;
        }
    }

    /// Whether the session can live through a DISCONNECT at the broker.
    #[must_use]
    pub fn outlives_connection(&self) -> bool {
        match self.version {
            Version::V311 => !self.is_clean,
            Version::V5 => true,
        }
    }

    /// Whether a second connection makes the broker end the first: it knows the client by name (§3.1.4).
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.client.is_empty()
    }

    /// Whether a second connection would make the broker publish the will of the first (§3.1.2.5).
    #[must_use]
    pub fn would_fire_will(&self) -> bool {
        self.has_will && self.is_named()
    }

    /// The CONNECT for the broker, the first time.
    #[must_use]
    pub fn first_connect(&self) -> Bytes {
        self.connect_as(self.is_clean)
    }

    /// The CONNECT that takes the session over to a new connection.
    #[must_use]
    pub fn next_connect(&self) -> Bytes {
        self.connect_as(false)
    }

    /// The 5.0 DISCONNECT that ends the session as the client asked for in its CONNECT.
    ///
    /// `None` where the client's own way to leave does so already.
    #[must_use]
    pub fn last_disconnect(&self, will: Will) -> Option<Bytes> {
        if self.version != Version::V5 || self.session_expiry_s >= CARRIED_FOR_S {
            return None;
        }
        let expiry = SessionExpiryInterval::new(self.session_expiry_s).ok()?;
        let reason = match will {
            Will::Dropped => DisconnectReasonCode::NormalDisconnection,
            Will::Published => DisconnectReasonCode::DisconnectWithWillMessage,
        };
        let properties: Properties = vec![Property::SessionExpiryInterval(expiry)];
        let packet = v5_0::Disconnect::builder().reason_code(reason).props(properties).build().ok()?;
        Some(Bytes::from(packet.to_continuous_buffer()))
    }

    /// Read the broker's answer.
    ///
    /// # Errors
    /// A fault of the broker.
    pub fn welcome(&self, packet: &Packet) -> Result<Welcome, PacketFault> {
        match self.version {
            Version::V311 => {
                let connack = packet.parse(v3_1_1::Connack::parse)?;
                let mut bytes = bytes::BytesMut::new();
                packet.write(&mut bytes);
                Ok(Welcome {
                    session_present: connack.session_present(),
                    code: packet.body().get(1).copied().unwrap_or(u8::MAX),
                    assigned: None,
                    for_client: bytes.freeze(),
                })
            }
            Version::V5 => welcome_v5(packet, self.session_expiry_s),
        }
    }

    fn connect_as(&self, is_clean: bool) -> Bytes {
        match &self.connect {
            Connect::V311(bytes) => bytes.clone(),
            Connect::V5(connect) => self.connect_v5(connect, is_clean).unwrap_or_else(|| {
                // Rebuilding what was parsed can't fail; if it does, the client's own words are the best left.
                Bytes::from(connect.to_continuous_buffer())
            }),
        }
    }

    fn connect_v5(&self, connect: &v5_0::Connect, is_clean: bool) -> Option<Bytes> {
        let mut properties = connect.props().clone();
        properties.retain(|property| !matches!(property, Property::SessionExpiryInterval(_)));
        let expiry = SessionExpiryInterval::new(self.session_expiry_s.max(CARRIED_FOR_S)).ok()?;
        properties.push(Property::SessionExpiryInterval(expiry));
        let mut builder = v5_0::Connect::builder()
            .client_id(self.client.as_str())
            .ok()?
            .clean_start(is_clean)
            .keep_alive(connect.keep_alive())
            .props(properties);
        if let (Some(topic), Some(payload)) = (connect.will_topic(), connect.will_payload()) {
            builder = builder
                .will_message(topic, payload.to_vec(), connect.will_qos(), connect.will_retain())
                .ok()?
                .will_props(connect.will_props().clone());
        }
        if let Some(user) = connect.user_name() {
            builder = builder.user_name(user).ok()?;
        }
        if let Some(password) = connect.password() {
            builder = builder.password(password.to_vec()).ok()?;
        }
        builder.build().ok().map(|packet| Bytes::from(packet.to_continuous_buffer()))
    }
}

/// What becomes of the will when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Will {
    /// The client left in order.
    Dropped,
    /// The client was lost.
    Published,
}

/// The CONNACK that tells a client that the broker can't be reached now.
#[must_use]
pub fn unavailable(version: Version) -> Bytes {
    match version {
        // §3.2.2.3: return code 3, server unavailable.
        Version::V311 => Bytes::from_static(&[0x20, 0x02, 0x00, 0x03]),
        // §3.2.2.2: reason code 0x88, server unavailable; no properties.
        Version::V5 => Bytes::from_static(&[0x20, 0x03, 0x00, 0x88, 0x00]),
    }
}

/// The CONNACK for a client of another protocol version (3.1.1 §3.1.2.2: return code 1).
pub const OTHER_VERSION: &[u8] = &[0x20, 0x02, 0x00, 0x01];

/// The 5.0 DISCONNECT that asks a client to come again: 0x8B, server shutting down.
///
/// The length of no properties may be left out (§3.14.2.2.1), but rumqttc then does not read the packet.
pub const COME_AGAIN: &[u8] = &[0xe0, 0x02, 0x8b, 0x00];

fn welcome_v5(packet: &Packet, asked_s: u32) -> Result<Welcome, PacketFault> {
    let connack = packet.parse(v5_0::Connack::parse)?;
    let assigned = connack.props().iter().find_map(|property| match property {
        Property::AssignedClientIdentifier(id) => Some(id.val().to_owned()),
        _ => None,
    });
    let mut properties = connack.props().clone();
    // Without the maximum the client sends no alias (§3.2.2.3.8). The broker's expiry (§3.2.2.3.2) answers
    // the relay's wish where that was longer than the client's.
    properties.retain(|property| match property {
        Property::TopicAliasMaximum(_) => false,
        Property::SessionExpiryInterval(_) => asked_s >= CARRIED_FOR_S,
        _ => true,
    });
    let for_client = v5_0::Connack::builder()
        .session_present(connack.session_present())
        .reason_code(connack.reason_code())
        .props(properties)
        .build()
        .map_err(|_| PacketFault::Malformed)?;
    Ok(Welcome {
        session_present: connack.session_present(),
        code: if connack.reason_code() == ConnectReasonCode::Success {
            0
        } else {
            packet.body().get(1).copied().unwrap_or(u8::MAX)
        },
        assigned,
        for_client: Bytes::from(for_client.to_continuous_buffer()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::packet::PacketReader;
    use super::*;
    use bytes::BytesMut;

    fn packet(bytes: &[u8]) -> Packet {
        let mut reader = PacketReader::new();
        reader.buffer().extend_from_slice(bytes);
        reader.next_packet().unwrap().unwrap()
    }

    fn v5(clean: bool, properties: Properties) -> Opening {
        let connect = v5_0::Connect::builder()
            .client_id("c")
            .unwrap()
            .clean_start(clean)
            .keep_alive(9)
            .will_message("w", b"gone".to_vec(), mqtt_protocol_core::mqtt::packet::Qos::AtLeastOnce, true)
            .unwrap()
            .user_name("u")
            .unwrap()
            .password(b"p".to_vec())
            .unwrap()
            .props(properties)
            .build()
            .unwrap();
        Opening::read(&packet(&connect.to_continuous_buffer())).unwrap()
    }

    #[test]
    fn a_connect_of_3_1_1_goes_through_byte_for_byte() {
        let bytes = [0x10, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'c'];
        let opening = Opening::read(&packet(&bytes)).unwrap();
        assert_eq!(opening.version(), Version::V311);
        assert!(!opening.outlives_connection() && !opening.would_fire_will());
        assert_eq!(opening.first_connect().as_ref(), bytes);
        assert_eq!(opening.next_connect().as_ref(), bytes);
    }

    #[test]
    fn the_old_protocol_is_named_as_such() {
        let bytes = [0x10, 0x0f, 0, 4, b'M', b'Q', b'T', b'T', 3, 2, 0, 60, 0, 3, b'a', b'b', b'c'];
        assert_eq!(Opening::read(&packet(&bytes)).unwrap_err(), PacketFault::OtherVersion);
    }

    #[test]
    fn a_session_of_5_0_is_asked_to_outlive_its_connection_and_nothing_else_is_changed() {
        let opening = v5(true, vec![]);
        let first = v5_0::Connect::parse(packet(&opening.first_connect()).body()).unwrap().0;
        assert!(first.clean_start());
        assert_eq!(
            (first.keep_alive(), first.user_name(), first.password()),
            (9, Some("u"), Some(&b"p"[..]))
        );
        assert_eq!((first.will_topic(), first.will_payload()), (Some("w"), Some(&b"gone"[..])));
        assert!(first.will_retain());
        assert!(
            matches!(&first.props()[..], [Property::SessionExpiryInterval(e)] if e.val() == CARRIED_FOR_S)
        );
        let next = v5_0::Connect::parse(packet(&opening.next_connect()).body()).unwrap().0;
        assert!(!next.clean_start());
    }

    #[test]
    fn a_client_that_leaves_ends_the_session_when_it_asked_for_that() {
        let opening = v5(true, vec![]);
        let bytes = opening.last_disconnect(Will::Published).unwrap();
        let disconnect = v5_0::Disconnect::parse(packet(&bytes).body()).unwrap().0;
        assert_eq!(disconnect.reason_code(), Some(DisconnectReasonCode::DisconnectWithWillMessage));
        let long =
            v5(false, vec![Property::SessionExpiryInterval(SessionExpiryInterval::new(3600).unwrap())]);
        assert!(long.last_disconnect(Will::Dropped).is_none());
    }

    #[test]
    fn the_client_of_5_0_is_not_offered_topic_aliases() {
        use mqtt_protocol_core::mqtt::packet::TopicAliasMaximum;
        let connack = v5_0::Connack::builder()
            .session_present(false)
            .reason_code(ConnectReasonCode::Success)
            .props(vec![Property::TopicAliasMaximum(TopicAliasMaximum::new(10).unwrap())])
            .build()
            .unwrap();
        let welcome = v5(true, vec![]).welcome(&packet(&connack.to_continuous_buffer())).unwrap();
        assert_eq!(welcome.for_client.as_ref(), [0x20, 0x03, 0x00, 0x00, 0x00]);
        assert_eq!(welcome.code, 0);
    }

    #[test]
    fn what_the_relay_says_itself_can_be_parsed() {
        assert!(v3_1_1::Connack::parse(packet(&unavailable(Version::V311)).body()).is_ok());
        assert!(v5_0::Connack::parse(packet(&unavailable(Version::V5)).body()).is_ok());
        assert!(v3_1_1::Connack::parse(packet(OTHER_VERSION).body()).is_ok());
        assert!(v5_0::Disconnect::parse(packet(COME_AGAIN).body()).is_ok());
        let mut out = BytesMut::new();
        packet(COME_AGAIN).write(&mut out);
        assert_eq!(out.as_ref(), COME_AGAIN);
    }
}
