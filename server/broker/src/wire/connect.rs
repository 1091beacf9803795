//! CONNECT and CONNACK, MQTT 5 §3.1 and §3.2.

use bytes::Bytes;

use super::properties::{self, Value, id};
use super::publish::{FORWARDED, check_response_topic};
use super::read::Reader;
use super::{Broken, Code, Frame, Qos, Version, kind, write};
use crate::topic::TopicName;

/// CONNECT.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) will: Option<Will>,
    pub(crate) username: Option<String>,
    pub(crate) has_password: bool,
    /// Zero when absent; of version 3.1.1 always zero.
    pub(crate) session_expiry_s: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) wants_problem_information: bool,
    pub(crate) has_authentication_method: bool,
    /// User properties and the request for response information, encoded: an engine may want them.
    pub(crate) forward: Bytes,
}

/// The will of a CONNECT, its topic checked for form.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) delay_s: u32,
    pub(crate) expiry_s: Option<u32>,
    /// Properties that go on with the message, encoded.
    pub(crate) forward: Bytes,
}

const CONNECT_PROPERTIES: [u8; 9] = [
    id::SESSION_EXPIRY,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_PACKET_SIZE,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REQUEST_RESPONSE_INFORMATION,
    id::REQUEST_PROBLEM_INFORMATION,
    id::USER_PROPERTY,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
];
const WILL_PROPERTIES: [u8; 7] = [
    id::WILL_DELAY,
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
];
/// The longest remaining length (MQTT 5 §1.5.5): as a limit it is none.
pub(crate) const PACKET_BYTES_MAX: u32 = 268_435_455;
const FLAG_CLEAN_START: u8 = 0x02;
const FLAG_WILL: u8 = 0x04;
const FLAG_WILL_RETAIN: u8 = 0x20;
const FLAG_PASSWORD: u8 = 0x40;
const FLAG_USERNAME: u8 = 0x80;

/// A CONNECT that can't be served, and the version in which to say so, if there is one.
#[derive(Debug)]
pub(crate) struct Unconnectable {
    pub(crate) version: Option<Version>,
    pub(crate) broken: Broken,
}

impl Connect {
    /// Parses the first packet of a connection.
    ///
    /// # Errors
    /// When it is no CONNECT, of another version, or malformed.
    pub(crate) fn parse(frame: &Frame) -> Result<Self, Unconnectable> {
        let silent = |broken| Unconnectable { version: None, broken };
        if frame.first != kind::CONNECT << 4 {
            return Err(silent(Broken::protocol("the first packet is not a CONNECT")));
        }
        let mut reader = Reader::new(frame.body.clone());
        let name = reader.binary().map_err(silent)?;
        let level = reader.u8().map_err(silent)?;
        let version = match (name.as_ref(), level) {
            (b"MQIsdp", 3) => Version::V31,
            (b"MQTT", 4) => Version::V311,
            (b"MQTT", 5) => Version::V5,
            (b"MQTT" | b"MQIsdp", _) => {
                // MQTT 5 §3.1.2.2: the answer is in a version that the peer may understand.
                // A bridge of mosquitto first tries its level with the high bit set, and takes code 1 for a no.
                let version = if matches!(level, 6..=127) { Version::V5 } else { Version::V311 };
                let broken = Broken::new(Code::UNSUPPORTED_PROTOCOL_VERSION, "protocol level");
                return Err(Unconnectable { version: Some(version), broken });
            }
            _ => return Err(silent(Broken::new(Code::UNSUPPORTED_PROTOCOL_VERSION, "protocol name"))),
        };
        // MQTT 3.1.1 has no return code for a malformed CONNECT: it is closed (§3.1.4).
        let answer = (version == Version::V5).then_some(version);
        if frame.is_padded && version == Version::V5 {
            let broken = Broken::malformed("a remaining length longer than needed");
            return Err(Unconnectable { version: answer, broken });
        }
        Self::parse_body(&mut reader, version).map_err(|broken| Unconnectable { version: answer, broken })
    }

    fn parse_body(reader: &mut Reader, version: Version) -> Result<Self, Broken> {
        let flags = reader.u8()?;
        check_flags(flags, version)?;
        let mut connect = Self {
            version,
            client_id: String::new(),
            clean_start: flags & FLAG_CLEAN_START != 0,
            keep_alive_s: reader.u16()?,
            will: None,
            username: None,
            has_password: flags & FLAG_PASSWORD != 0,
            session_expiry_s: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: u32::MAX,
            topic_alias_maximum: 0,
            wants_problem_information: true,
            has_authentication_method: false,
            forward: Bytes::new(),
        };
        if version == Version::V5 {
            connect.parse_properties(reader)?;
        }
        connect.client_id = reader.text()?;
        if flags & FLAG_WILL != 0 {
            connect.will = Some(Will::parse(reader, version, flags)?);
        }
        if flags & FLAG_USERNAME != 0 {
            connect.username = Some(reader.text()?);
        }
        if connect.has_password {
            reader.binary()?;
        }
        reader.end()?;
        Ok(connect)
    }

    fn parse_properties(&mut self, reader: &mut Reader) -> Result<(), Broken> {
        let mut forward = Vec::new();
        let mut authentication_data = false;
        properties::parse(reader, &CONNECT_PROPERTIES, |property, value, raw| {
            match (property, value) {
                (id::SESSION_EXPIRY, Value::Number(seconds)) => self.session_expiry_s = seconds,
                (id::RECEIVE_MAXIMUM, Value::Number(number)) => {
                    self.receive_maximum = u16::try_from(number).unwrap_or(u16::MAX);
                    if number == 0 {
                        return Err(Broken::protocol("receive maximum 0"));
                    }
                }
                (id::MAXIMUM_PACKET_SIZE, Value::Number(0)) => {
                    return Err(Broken::protocol("maximum packet size 0"));
                }
                (id::MAXIMUM_PACKET_SIZE, Value::Number(octets)) => self.maximum_packet_size = octets,
                (id::TOPIC_ALIAS_MAXIMUM, Value::Number(number)) => {
                    self.topic_alias_maximum = u16::try_from(number).unwrap_or(u16::MAX);
                }
                (id::REQUEST_PROBLEM_INFORMATION, Value::Number(flag)) => {
                    self.wants_problem_information = flag == 1;
                }
                (id::AUTHENTICATION_METHOD, _) => self.has_authentication_method = true,
                (id::AUTHENTICATION_DATA, _) => authentication_data = true,
                (id::USER_PROPERTY | id::REQUEST_RESPONSE_INFORMATION, _) => forward.extend_from_slice(raw),
                _ => {}
            }
            Ok(())
        })?;
        if authentication_data && !self.has_authentication_method {
            return Err(Broken::protocol("authentication data without a method"));
        }
        self.forward = forward.into();
        Ok(())
    }

    /// Appends the packet as a client sends it, with another user name and password.
    pub(crate) fn write(&self, out: &mut Vec<u8>, username: Option<&str>, password: Option<&[u8]>) {
        write::packet(out, kind::CONNECT << 4, |body| {
            write::binary(body, b"MQTT");
            body.push(if self.version == Version::V5 { 5 } else { 4 });
            let will = self.will.as_ref().map_or(0, |will| {
                FLAG_WILL | (will.qos.bits() << 3) | if will.retain { FLAG_WILL_RETAIN } else { 0 }
            });
            body.push(
                will | if self.clean_start { FLAG_CLEAN_START } else { 0 }
                    | if username.is_some() { FLAG_USERNAME } else { 0 }
                    | if password.is_some() { FLAG_PASSWORD } else { 0 },
            );
            write::u16(body, self.keep_alive_s);
            if self.version == Version::V5 {
                write::properties(body, &self.properties());
            }
            write::binary(body, self.client_id.as_bytes());
            if let Some(will) = &self.will {
                will.write(body, self.version);
            }
            if let Some(username) = username {
                write::binary(body, username.as_bytes());
            }
            if let Some(password) = password {
                write::binary(body, password);
            }
        });
    }

    fn properties(&self) -> Vec<u8> {
        let mut properties = Vec::new();
        properties.push(id::SESSION_EXPIRY);
        write::u32(&mut properties, self.session_expiry_s);
        properties.push(id::RECEIVE_MAXIMUM);
        write::u16(&mut properties, self.receive_maximum);
        properties.push(id::MAXIMUM_PACKET_SIZE);
        write::u32(&mut properties, self.maximum_packet_size);
        properties.push(id::TOPIC_ALIAS_MAXIMUM);
        write::u16(&mut properties, self.topic_alias_maximum);
        properties.extend([id::REQUEST_PROBLEM_INFORMATION, u8::from(self.wants_problem_information)]);
        properties.extend_from_slice(&self.forward);
        properties
    }
}

/// MQTT 5 §3.1.2.3 to §3.1.2.9.
fn check_flags(flags: u8, version: Version) -> Result<(), Broken> {
    if flags & 1 != 0 {
        return Err(Broken::malformed("the reserved connect flag"));
    }
    let will_bits = flags & (FLAG_WILL_RETAIN | 0x18);
    if flags & FLAG_WILL == 0 && will_bits != 0 {
        return Err(Broken::malformed("will flags without a will"));
    }
    // MQTT 5 §3.1.2.9 allows a password alone; 3.1.1 §3.1.2.9 does not.
    if version != Version::V5 && flags & FLAG_USERNAME == 0 && flags & FLAG_PASSWORD != 0 {
        return Err(Broken::malformed("a password without a user name"));
    }
    Ok(())
}

impl Will {
    fn parse(reader: &mut Reader, version: Version, flags: u8) -> Result<Self, Broken> {
        let qos = Qos::from_bits((flags >> 3) & 3).ok_or(Broken::malformed("will QoS 3"))?;
        let mut will = Self {
            topic: String::new(),
            payload: Bytes::new(),
            qos,
            retain: flags & FLAG_WILL_RETAIN != 0,
            delay_s: 0,
            expiry_s: None,
            forward: Bytes::new(),
        };
        if version == Version::V5 {
            let mut forward = Vec::new();
            properties::parse(reader, &WILL_PROPERTIES, |property, value, raw| {
                if FORWARDED.contains(&property) {
                    forward.extend_from_slice(raw);
                }
                match (property, value) {
                    (id::WILL_DELAY, Value::Number(seconds)) => will.delay_s = seconds,
                    (id::MESSAGE_EXPIRY, Value::Number(seconds)) => will.expiry_s = Some(seconds),
                    (id::RESPONSE_TOPIC, Value::Text(topic)) => check_response_topic(&topic)?,
                    _ => {}
                }
                Ok(())
            })?;
            will.forward = forward.into();
        }
        will.topic = reader.text()?;
        will.payload = reader.binary()?;
        TopicName::parse(&will.topic).map_err(|error| error.broken(Code::TOPIC_NAME_INVALID))?;
        Ok(will)
    }

    fn write(&self, body: &mut Vec<u8>, version: Version) {
        if version == Version::V5 {
            let mut properties = vec![id::WILL_DELAY];
            write::u32(&mut properties, self.delay_s);
            if let Some(seconds) = self.expiry_s {
                properties.push(id::MESSAGE_EXPIRY);
                write::u32(&mut properties, seconds);
            }
            properties.extend_from_slice(&self.forward);
            write::properties(body, &properties);
        }
        write::binary(body, self.topic.as_bytes());
        write::binary(body, &self.payload);
    }
}

/// CONNACK with success: what the server grants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Granted {
    pub(crate) session_present: bool,
    /// When it is not what the client asked for.
    pub(crate) session_expiry_s: Option<u32>,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) assigned_client_id: Option<String>,
    pub(crate) server_keep_alive_s: Option<u16>,
    /// When it is not 2.
    pub(crate) max_qos: Option<u8>,
    pub(crate) has_no_retained: bool,
    pub(crate) has_no_shared: bool,
}

impl Granted {
    pub(crate) fn write(&self, out: &mut Vec<u8>, version: Version) {
        write::packet(out, kind::CONNACK << 4, |body| {
            body.extend([u8::from(self.session_present && version != Version::V31), 0]);
            if version == Version::V5 {
                write::properties(body, &self.properties());
            }
        });
    }

    /// In mosquitto's order: there are clients that were tried with no other.
    fn properties(&self) -> Vec<u8> {
        let mut properties = vec![id::TOPIC_ALIAS_MAXIMUM];
        write::u16(&mut properties, self.topic_alias_maximum);
        if let Some(client_id) = &self.assigned_client_id {
            properties.push(id::ASSIGNED_CLIENT_ID);
            write::binary(&mut properties, client_id.as_bytes());
        }
        if let Some(seconds) = self.session_expiry_s {
            properties.push(id::SESSION_EXPIRY);
            write::u32(&mut properties, seconds);
        }
        if let Some(seconds) = self.server_keep_alive_s {
            properties.push(id::SERVER_KEEP_ALIVE);
            write::u16(&mut properties, seconds);
        }
        if self.has_no_retained {
            properties.extend([id::RETAIN_AVAILABLE, 0]);
        }
        if self.maximum_packet_size < PACKET_BYTES_MAX {
            properties.push(id::MAXIMUM_PACKET_SIZE);
            write::u32(&mut properties, self.maximum_packet_size);
        }
        properties.push(id::RECEIVE_MAXIMUM);
        write::u16(&mut properties, self.receive_maximum);
        if self.has_no_shared {
            properties.extend([id::SHARED_AVAILABLE, 0]);
        }
        if let Some(qos) = self.max_qos {
            properties.extend([id::MAXIMUM_QOS, qos]);
        }
        properties
    }
}

/// Appends a CONNACK of refusal.
pub(crate) fn write_refused(out: &mut Vec<u8>, version: Version, code: Code) {
    write::packet(out, kind::CONNACK << 4, |body| match version {
        Version::V31 | Version::V311 => body.extend([0, code.as_connect_return_code()]),
        Version::V5 => body.extend([0, code.0, 0]),
    });
}
