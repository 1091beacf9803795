//! PUBACK, PUBREC, PUBREL, PUBCOMP (MQTT 5 §3.4 to §3.7), DISCONNECT (§3.14) and PINGRESP.

use super::properties::{self, Value, id};
use super::read::Reader;
use super::{Broken, Code, Frame, Version, kind, write};

/// One of the four acknowledgements of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The packet type.
    pub(crate) kind: u8,
    pub(crate) packet_id: u16,
    pub(crate) code: Code,
}

const ACK_PROPERTIES: [u8; 2] = [id::REASON_STRING, id::USER_PROPERTY];
const DISCONNECT_PROPERTIES: [u8; 4] =
    [id::SESSION_EXPIRY, id::REASON_STRING, id::USER_PROPERTY, id::SERVER_REFERENCE];

impl Ack {
    pub(crate) fn parse(frame: &Frame, version: Version) -> Result<Self, Broken> {
        let mut reader = Reader::new(frame.body.clone());
        let packet_id = reader.packet_id()?;
        let mut ack = Self { kind: frame.kind(), packet_id, code: Code::SUCCESS };
        if version == Version::V5 && !reader.is_empty() {
            ack.code = Code(reader.u8()?);
            if !ack.has_known_code() {
                return Err(Broken::malformed("a reason code that this acknowledgement does not have"));
            }
            if !reader.is_empty() {
                properties::parse(&mut reader, &ACK_PROPERTIES, |_, _, _| Ok(()))?;
            }
        }
        reader.end()?;
        Ok(ack)
    }

    /// MQTT 5 §3.4.2.1 to §3.7.2.1.
    const fn has_known_code(&self) -> bool {
        match self.kind {
            kind::PUBACK | kind::PUBREC => {
                matches!(self.code.0, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            _ => matches!(self.code.0, 0 | 0x92),
        }
    }

    pub(crate) fn write(self, out: &mut Vec<u8>, version: Version) {
        let flags = if self.kind == kind::PUBREL { 2 } else { 0 };
        write::packet(out, (self.kind << 4) | flags, |body| {
            write::u16(body, self.packet_id);
            if version == Version::V5 && self.code != Code::SUCCESS {
                body.push(self.code.0);
            }
        });
    }
}

/// DISCONNECT from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disconnect {
    pub(crate) code: Code,
    pub(crate) session_expiry_s: Option<u32>,
}

impl Disconnect {
    pub(crate) fn parse(frame: &Frame, version: Version) -> Result<Self, Broken> {
        let mut reader = Reader::new(frame.body.clone());
        let mut disconnect = Self { code: Code::SUCCESS, session_expiry_s: None };
        if version == Version::V5 && !reader.is_empty() {
            disconnect.code = Code(reader.u8()?);
            if !disconnect.has_known_code() {
                return Err(Broken::malformed("a reason code that a client's DISCONNECT does not have"));
            }
            if !reader.is_empty() {
                properties::parse(&mut reader, &DISCONNECT_PROPERTIES, |property, value, _| {
                    match (property, value) {
                        (id::SESSION_EXPIRY, Value::Number(seconds)) => {
                            disconnect.session_expiry_s = Some(seconds);
                        }
                        (id::SERVER_REFERENCE, _) => {
                            return Err(Broken::protocol("a server reference from a client"));
                        }
                        _ => {}
                    }
                    Ok(())
                })?;
            }
        }
        reader.end()?;
        Ok(disconnect)
    }

    /// MQTT 5 §3.14.2.1, the codes that a client sends.
    const fn has_known_code(self) -> bool {
        matches!(self.code.0, 0 | 4 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
    }
}

/// Appends a DISCONNECT from the server; MQTT 3.1.1 has none.
///
/// The length of no properties is there, though it may be left out (§3.14.2.2.1): rumqttc does not read a
/// packet without it, and its users see a broken connection in place of the code.
pub(crate) fn write_disconnect(out: &mut Vec<u8>, version: Version, code: Code) {
    if version == Version::V5 {
        write::packet(out, kind::DISCONNECT << 4, |body| body.extend([code.0, 0]));
    }
}

/// Appends a PINGRESP.
pub(crate) fn write_pingresp(out: &mut Vec<u8>) {
    write::packet(out, kind::PINGRESP << 4, |_| {});
}
