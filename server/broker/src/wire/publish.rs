//! PUBLISH, MQTT 5 §3.3, and the part of a will that becomes one.

use bytes::Bytes;

use super::properties::{self, Value, id};
use super::read::Reader;
use super::{Broken, Code, Frame, Qos, Version, kind, write};
use crate::topic::TopicName;

/// A PUBLISH as it came: the topic may be empty when an alias stands for it.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    /// Zero with QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) alias: Option<u16>,
    pub(crate) expiry_s: Option<u32>,
    /// Properties that a server forwards unchanged (MQTT 5 §3.3.2.3), encoded.
    pub(crate) forward: Bytes,
    pub(crate) payload: Bytes,
}

/// Properties of a PUBLISH that a server passes on.
pub(crate) const FORWARDED: [u8; 5] =
    [id::PAYLOAD_FORMAT, id::CONTENT_TYPE, id::RESPONSE_TOPIC, id::CORRELATION_DATA, id::USER_PROPERTY];
const ALLOWED: [u8; 8] = [
    id::PAYLOAD_FORMAT,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
    id::MESSAGE_EXPIRY,
    id::TOPIC_ALIAS,
    id::SUBSCRIPTION_ID,
];

impl Publish {
    /// Parses a PUBLISH from a client.
    ///
    /// # Errors
    /// When it is malformed, or carries what only servers send.
    pub(crate) fn parse(frame: &Frame, version: Version) -> Result<Self, Broken> {
        Self::parse_from(frame, version, Sender::Client)
    }

    /// Parses a PUBLISH that another broker sends to a client.
    ///
    /// # Errors
    /// When it is malformed.
    pub(crate) fn parse_from_server(frame: &Frame, version: Version) -> Result<Self, Broken> {
        Self::parse_from(frame, version, Sender::Server)
    }

    fn parse_from(frame: &Frame, version: Version, sender: Sender) -> Result<Self, Broken> {
        let flags = frame.flags();
        let qos = Qos::from_bits((flags >> 1) & 3).ok_or(Broken::malformed("QoS 3"))?;
        let dup = flags & 8 != 0;
        if dup && qos == Qos::Zero {
            return Err(Broken::malformed("DUP with QoS 0"));
        }
        let mut reader = Reader::new(frame.body.clone());
        let topic = reader.text()?;
        let packet_id = if qos == Qos::Zero { 0 } else { reader.packet_id()? };
        let mut publish = Self {
            qos,
            retain: flags & 1 != 0,
            topic,
            packet_id,
            alias: None,
            expiry_s: None,
            forward: Bytes::new(),
            payload: Bytes::new(),
        };
        if version == Version::V5 {
            publish.parse_properties(&mut reader, sender)?;
        }
        publish.payload = reader.rest();
        if publish.topic.is_empty() && publish.alias.is_none() {
            let code = if version == Version::V5 { Code::PROTOCOL_ERROR } else { Code::TOPIC_NAME_INVALID };
            return Err(Broken::new(code, "a PUBLISH without a topic"));
        }
        Ok(publish)
    }

    fn parse_properties(&mut self, reader: &mut Reader, sender: Sender) -> Result<(), Broken> {
        let mut forward = Vec::new();
        properties::parse(reader, &ALLOWED, |property, value, raw| {
            if FORWARDED.contains(&property) {
                forward.extend_from_slice(raw);
            }
            match (property, value) {
                (id::MESSAGE_EXPIRY, Value::Number(seconds)) => self.expiry_s = Some(seconds),
                (id::TOPIC_ALIAS, Value::Number(alias)) => match u16::try_from(alias) {
                    Ok(alias) if alias > 0 => self.alias = Some(alias),
                    _ => return Err(Broken::new(Code::TOPIC_ALIAS_INVALID, "topic alias 0")),
                },
                (id::RESPONSE_TOPIC, Value::Text(topic)) => check_response_topic(&topic)?,
                (id::SUBSCRIPTION_ID, _) if sender == Sender::Client => {
                    return Err(Broken::protocol("a subscription identifier from a client"));
                }
                _ => {}
            }
            Ok(())
        })?;
        self.forward = forward.into();
        Ok(())
    }
}

/// A response topic is a topic name (MQTT 5 §3.1.3.2.6, §3.3.2.3.5).
///
/// # Errors
/// When it is not.
pub(crate) fn check_response_topic(topic: &str) -> Result<(), Broken> {
    match TopicName::parse(topic) {
        Ok(_) => Ok(()),
        Err(_) => Err(Broken::protocol("a response topic that is not a topic name")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}

/// A PUBLISH to a client.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) dup: bool,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Empty when the alias is known to the client.
    pub(crate) topic: &'a str,
    pub(crate) packet_id: u16,
    pub(crate) alias: Option<u16>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) subscription_ids: &'a [u32],
    pub(crate) forward: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl Outgoing<'_> {
    /// Most octets of the packet in version 5; 3.1.1 needs less.
    pub(crate) fn size_bound(&self) -> usize {
        let own = 2 + 2 + 4 + 3 + 5;
        let ids = self.subscription_ids.len().saturating_mul(5);
        write::packet_size(
            [own, ids, self.topic.len(), self.forward.len(), self.payload.len()]
                .iter()
                .fold(0, |sum: usize, part| sum.saturating_add(*part)),
        )
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, version: Version) {
        let first =
            (kind::PUBLISH << 4) | (u8::from(self.dup) << 3) | (self.qos.bits() << 1) | u8::from(self.retain);
        out.reserve(self.size_bound());
        write::packet(out, first, |body| {
            write::binary(body, self.topic.as_bytes());
            if self.qos > Qos::Zero {
                write::u16(body, self.packet_id);
            }
            if version == Version::V5 {
                self.write_properties(body);
            }
            body.extend_from_slice(self.payload);
        });
    }

    fn write_properties(&self, body: &mut Vec<u8>) {
        let mut properties = Vec::new();
        if let Some(seconds) = self.expiry_s {
            properties.push(id::MESSAGE_EXPIRY);
            write::u32(&mut properties, seconds);
        }
        if let Some(alias) = self.alias {
            properties.push(id::TOPIC_ALIAS);
            write::u16(&mut properties, alias);
        }
        for subscription in self.subscription_ids {
            properties.push(id::SUBSCRIPTION_ID);
            write::variable(&mut properties, *subscription);
        }
        let length = properties.len().saturating_add(self.forward.len());
        write::variable(body, u32::try_from(length).unwrap_or(u32::MAX));
        body.extend_from_slice(&properties);
        body.extend_from_slice(self.forward);
    }
}
