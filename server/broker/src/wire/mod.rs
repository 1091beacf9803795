//! The bytes of MQTT 3.1, 3.1.1 and 5, server side: parsing and writing, no state and no IO.
//!
//! A [`Frame`] is one whole packet, cut by its fixed header. Parsing takes frames to checked packets
//! or to [`Broken`], which carries the reason code of the answer. Nothing here allocates by a length
//! that the peer announced: every length is first compared with the octets that are there.
//! Unlike most codecs this one is strict: NUL in strings, reserved flags, duplicate properties and
//! properties of other packets are errors (MQTT 5 §1.5.4, §2.1.3, §2.2.2.2).

pub(crate) mod acks;
pub(crate) mod code;
pub(crate) mod connect;
pub(crate) mod properties;
pub(crate) mod publish;
pub(crate) mod read;
pub(crate) mod subscribe;
pub(crate) mod write;

use bytes::Bytes;

pub(crate) use self::code::Broken;
pub use self::code::Code;

/// Which MQTT a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1, protocol level 3: as 3.1.1, but for an empty client id, which it has not, the session-present flag,
    /// which it does not know, and a mark on requests that are sent again.
    V31,
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5, protocol level 5.
    V5,
}

/// Quality of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Qos {
    /// At most once.
    #[default]
    Zero,
    /// At least once.
    One,
    /// Exactly once.
    Two,
}

impl Qos {
    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Zero),
            1 => Some(Self::One),
            2 => Some(Self::Two),
            _ => None,
        }
    }

    pub(crate) const fn bits(self) -> u8 {
        match self {
            Self::Zero => 0,
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// The flag of a packet that is sent again.
const DUP: u8 = 8;

/// Packet types, MQTT 5 §2.1.2.
pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const CONNACK: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const PUBREC: u8 = 5;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const PUBCOMP: u8 = 7;
    pub(crate) const SUBSCRIBE: u8 = 8;
    pub(crate) const SUBACK: u8 = 9;
    pub(crate) const UNSUBSCRIBE: u8 = 10;
    pub(crate) const UNSUBACK: u8 = 11;
    pub(crate) const PINGREQ: u8 = 12;
    pub(crate) const PINGRESP: u8 = 13;
    pub(crate) const DISCONNECT: u8 = 14;
    pub(crate) const AUTH: u8 = 15;
}

/// One whole packet as it came.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Type and flags.
    pub(crate) first: u8,
    /// All after the fixed header.
    pub(crate) body: Bytes,
    /// Whether its length has more octets than needed, which version 5 forbids (§1.5.5).
    pub(crate) is_padded: bool,
}

impl Frame {
    pub(crate) const fn kind(&self) -> u8 {
        self.first >> 4
    }

    pub(crate) const fn flags(&self) -> u8 {
        self.first & 0x0f
    }

    /// Without the mark that 3.1 has on a request that is sent again. It changes nothing for a server.
    pub(crate) fn unmarked(mut self, version: Version) -> Self {
        if version == Version::V31
            && matches!(self.kind(), kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE)
        {
            self.first &= !DUP;
        }
        self
    }
}

/// A packet from a client after its CONNECT.
#[derive(Debug)]
pub(crate) enum Packet {
    Ack(acks::Ack),
    Disconnect(acks::Disconnect),
    Ping,
    Publish(publish::Publish),
    Subscribe(subscribe::Subscribe),
    Unsubscribe(subscribe::Unsubscribe),
}

impl Packet {
    /// Parses what a client may send once it is connected.
    ///
    /// # Errors
    /// When the packet is malformed, or not one that a client sends now.
    pub(crate) fn parse(frame: &Frame, version: Version) -> Result<Self, Broken> {
        let expected_flags = match frame.kind() {
            kind::PUBLISH => frame.flags(),
            kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 2,
            _ => 0,
        };
        if frame.flags() != expected_flags {
            return Err(Broken::malformed("reserved flags of the fixed header"));
        }
        if frame.is_padded && version == Version::V5 {
            return Err(Broken::malformed("a remaining length longer than needed"));
        }
        match frame.kind() {
            kind::PUBLISH => publish::Publish::parse(frame, version).map(Self::Publish),
            kind::PUBACK | kind::PUBREC | kind::PUBREL | kind::PUBCOMP => {
                acks::Ack::parse(frame, version).map(Self::Ack)
            }
            kind::SUBSCRIBE => subscribe::Subscribe::parse(frame, version).map(Self::Subscribe),
            kind::UNSUBSCRIBE => subscribe::Unsubscribe::parse(frame, version).map(Self::Unsubscribe),
            kind::PINGREQ if frame.body.is_empty() => Ok(Self::Ping),
            kind::PINGREQ => Err(Broken::malformed("a PINGREQ with a body")),
            kind::DISCONNECT => acks::Disconnect::parse(frame, version).map(Self::Disconnect),
            kind::AUTH => Err(Broken::protocol("AUTH without an authentication method")),
            kind::CONNECT => Err(Broken::protocol("a second CONNECT")),
            0 => Err(Broken::malformed("packet type 0")),
            _ => Err(Broken::protocol("a packet that only servers send")),
        }
    }
}

#[cfg(test)]
mod tests;
