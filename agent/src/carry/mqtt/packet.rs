//! MQTT packets as the relay sees them: cut out of a byte stream, bounded, and looked into only as far as needed.
//!
//! A packet is forwarded as its own bytes. What is read of it: its kind, its packet identifier, and for
//! CONNECT, CONNACK, SUBSCRIBE, SUBACK and UNSUBSCRIBE their fields. MQTT 3.1.1 and 5.0; section numbers are
//! those of the OASIS standards. No field of a peer is believed before `mqtt-protocol-core` has parsed it.

use bytes::{Buf, BufMut, BytesMut};
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder, PacketData, RawPacket};
use mqtt_protocol_core::mqtt::packet::{VariableByteInteger, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;

/// The largest packet that is carried: twice what the large cloud brokers take (128 KiB).
pub const PACKET_MAX_BYTES: u32 = 256 * 1024;

/// The protocol version that a CONNECT names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0.
    V5,
}

/// The kind of a packet: the high nibble of its first byte (MQTT 5.0 §2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Client to server, once, first.
    Connect,
    /// The answer to CONNECT.
    Connack,
    /// A message, either way.
    Publish,
    /// The end of a QoS 1 exchange.
    Puback,
    /// The first answer in a QoS 2 exchange.
    Pubrec,
    /// The release in a QoS 2 exchange.
    Pubrel,
    /// The end of a QoS 2 exchange.
    Pubcomp,
    /// Client to server.
    Subscribe,
    /// The answer to SUBSCRIBE.
    Suback,
    /// Client to server.
    Unsubscribe,
    /// The answer to UNSUBSCRIBE.
    Unsuback,
    /// Client to server.
    Pingreq,
    /// The answer to PINGREQ.
    Pingresp,
    /// The orderly end; from the server in 5.0 only.
    Disconnect,
    /// An extended authentication exchange; 5.0 only.
    Auth,
}

/// What is wrong with a peer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketFault {
    /// Larger than [`PACKET_MAX_BYTES`].
    #[error("a packet larger than {PACKET_MAX_BYTES} bytes")]
    TooLarge,
    /// Not what the standard allows.
    #[error("a malformed packet")]
    Malformed,
    /// The protocol name or level is none of ours (MQTT 3.1 and older among them).
    #[error("a protocol version other than MQTT 3.1.1 and 5.0")]
    OtherVersion,
}

/// One whole packet.
#[derive(Clone, Debug)]
pub struct Packet {
    kind: Kind,
    raw: RawPacket,
}

/// Cuts packets out of a stream that arrives in pieces.
pub struct PacketReader {
    builder: PacketBuilder,
    /// Received, not yet cut. Bounded by its owner, who feeds only when [`Self::next_packet`] found none.
    unread: BytesMut,
}

impl PacketReader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self { builder: PacketBuilder::with_maximum_packet_size(PACKET_MAX_BYTES), unread: BytesMut::new() }
    }

    /// Where received bytes go.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.unread
    }

    /// The next whole packet, or `None` until more bytes are there.
    ///
    /// # Errors
    /// A fault of the peer; the stream can't be read on after it.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, PacketFault> {
        if self.unread.is_empty() {
            return Ok(None);
        }
        let mut cursor = Cursor::new(self.unread.as_ref());
        let outcome = self.builder.feed(&mut cursor);
        let consumed = usize::try_from(cursor.position()).unwrap_or(usize::MAX).min(self.unread.len());
        self.unread.advance(consumed);
        match outcome {
            PacketBuildResult::Complete(raw) => Packet::new(raw).map(Some),
            PacketBuildResult::Incomplete => Ok(None),
            PacketBuildResult::Error(MqttError::PacketTooLarge) => Err(PacketFault::TooLarge),
            PacketBuildResult::Error(_) => Err(PacketFault::Malformed),
        }
    }
}

impl Default for PacketReader {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for PacketReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketReader").field("unread_bytes", &self.unread.len()).finish_non_exhaustive()
    }
}

impl Packet {
    fn new(raw: RawPacket) -> Result<Self, PacketFault> {
        let kind = match raw.packet_type() {
            1 => Kind::Connect,
            2 => Kind::Connack,
            3 => Kind::Publish,
            4 => Kind::Puback,
            5 => Kind::Pubrec,
            6 => Kind::Pubrel,
            7 => Kind::Pubcomp,
            8 => Kind::Subscribe,
            9 => Kind::Suback,
            10 => Kind::Unsubscribe,
            11 => Kind::Unsuback,
            12 => Kind::Pingreq,
            13 => Kind::Pingresp,
            14 => Kind::Disconnect,
            15 => Kind::Auth,
            _ => return Err(PacketFault::Malformed),
        };
        Ok(Self { kind, raw })
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What follows the fixed header.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.raw.data_as_slice()
    }

    /// All bytes with the fixed header.
    #[must_use]
    pub fn size(&self) -> usize {
        // One byte of kind and flags, at most four of length.
        self.body().len().saturating_add(5)
    }

    /// Append the packet's bytes.
    pub fn write(&self, out: &mut BytesMut) {
        self.write_with_flags(self.raw.flags(), out);
    }

    /// Append a PUBLISH as one that is sent again (DUP, §3.3.1.1).
    pub fn write_again(&self, out: &mut BytesMut) {
        self.write_with_flags(self.raw.flags() | DUP, out);
    }

    /// The quality of service of a PUBLISH, 0 to 3 (3 is malformed).
    #[must_use]
    pub fn qos(&self) -> u8 {
        (self.raw.flags() & QOS) >> 1
    }

    /// Whether a PUBLISH is marked as sent again.
    #[must_use]
    pub fn is_again(&self) -> bool {
        self.raw.flags() & DUP != 0
    }

    /// The packet identifier, of the kinds that have one.
    ///
    /// # Errors
    /// [`PacketFault::Malformed`] when it should be there and isn't, or is 0 (§2.2.1).
    pub fn id(&self) -> Result<u16, PacketFault> {
        let mut body = self.body();
        if self.kind == Kind::Publish {
            let topic = usize::from(body.try_get_u16().map_err(|_| PacketFault::Malformed)?);
            body = body.get(topic..).ok_or(PacketFault::Malformed)?;
        }
        match body.try_get_u16() {
            Ok(0) | Err(_) => Err(PacketFault::Malformed),
            Ok(id) => Ok(id),
        }
    }

    /// Parse the whole body as one packet of `mqtt-protocol-core`.
    pub(crate) fn parse<T>(
        &self,
        parse: impl FnOnce(&[u8]) -> Result<(T, usize), MqttError>,
    ) -> Result<T, PacketFault> {
        self.raw.parse_exact(parse).map_err(|error| match error {
            MqttError::UnsupportedProtocolVersion => PacketFault::OtherVersion,
            _ => PacketFault::Malformed,
        })
    }

    /// Check that a PUBLISH holds together.
    ///
    /// # Errors
    /// [`PacketFault::Malformed`] when it does not.
    pub fn check_publish(&self, version: Version) -> Result<(), PacketFault> {
        let PacketData::Publish(data) = &self.raw.data else { return Err(PacketFault::Malformed) };
        let parsed = match version {
            Version::V311 => v3_1_1::Publish::parse(self.raw.flags(), data.clone()).map(drop),
            Version::V5 => v5_0::Publish::parse(self.raw.flags(), data.clone()).map(drop),
        };
        parsed.map_err(|_| PacketFault::Malformed)
    }

    fn write_with_flags(&self, flags: u8, out: &mut BytesMut) {
        out.put_u8((self.raw.packet_type() << 4) | flags);
        if let Some(length) = VariableByteInteger::from_u32(self.raw.remaining_length()) {
            out.put_slice(length.as_bytes());
        }
        out.put_slice(self.body());
    }
}

const DUP: u8 = 0b1000;
const QOS: u8 = 0b0110;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, PacketFault> {
        let mut reader = PacketReader::new();
        let mut packets = Vec::new();
        for piece in bytes.chunks(piece) {
            reader.buffer().extend_from_slice(piece);
            while let Some(packet) = reader.next_packet()? {
                let mut out = BytesMut::new();
                packet.write(&mut out);
                packets.push(out.to_vec());
            }
        }
        Ok(packets)
    }

    #[test]
    fn a_packet_leaves_as_it_came() {
        let publish = [0x32, 0x07, 0, 1, b't', 0, 9, b'h', b'i'];
        let ping = [0xc0, 0];
        let both = [&publish[..], &ping].concat();
        for piece in 1..both.len() {
            assert_eq!(read_all(&both, piece).unwrap(), [publish.to_vec(), ping.to_vec()]);
        }
    }

    #[test]
    fn the_identifier_and_quality_of_a_message_are_read() {
        let mut reader = PacketReader::new();
        reader.buffer().extend_from_slice(&[0x34, 0x07, 0, 1, b't', 0, 9, b'h', b'i']);
        let packet = reader.next_packet().unwrap().unwrap();
        assert_eq!(
            (packet.kind(), packet.qos(), packet.id(), packet.is_again()),
            (Kind::Publish, 2, Ok(9), false)
        );
        let mut again = BytesMut::new();
        packet.write_again(&mut again);
        assert_eq!(again.first(), Some(&0x3c));
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_before_it_is_buffered() {
        let declared = [0x30, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(read_all(&declared, 1).unwrap_err(), PacketFault::TooLarge);
    }

    #[test]
    fn a_length_of_five_bytes_and_the_reserved_kind_are_malformed() {
        assert_eq!(read_all(&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], 6).unwrap_err(), PacketFault::Malformed);
        assert_eq!(read_all(&[0x00, 0x00], 2).unwrap_err(), PacketFault::Malformed);
    }

    #[test]
    fn an_identifier_that_is_missing_or_zero_is_malformed() {
        for bytes in [&[0x40, 0x02, 0, 0][..], &[0x40, 0x01, 0], &[0x32, 0x03, 0, 9, b't']] {
            let mut reader = PacketReader::new();
            reader.buffer().extend_from_slice(bytes);
            assert_eq!(reader.next_packet().unwrap().unwrap().id(), Err(PacketFault::Malformed));
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1_usize..9) {
            prop_assert_eq!(read_all(&bytes, bytes.len().max(1)), read_all(&bytes, piece));
        }
    }
}
