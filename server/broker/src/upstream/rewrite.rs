//! What is changed in a CONNACK of the other broker before the client sees it.

use bytes::Bytes;

use crate::wire::properties::{self, Value, id};
use crate::wire::read::Reader;
use crate::wire::{Broken, Frame, Version, kind, write};

/// Bounds of the gate that the client must keep whatever the broker grants.
#[derive(Debug)]
pub(super) struct Bounds<'a> {
    pub(super) packet_bytes: u32,
    pub(super) topic_aliases: u16,
    pub(super) max_qos: u8,
    pub(super) has_no_retained: bool,
    /// The client id that stands for an empty one.
    pub(super) assigned_client_id: Option<&'a str>,
}

const CONNACK_PROPERTIES: [u8; 17] = [
    id::SESSION_EXPIRY,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_QOS,
    id::RETAIN_AVAILABLE,
    id::MAXIMUM_PACKET_SIZE,
    id::ASSIGNED_CLIENT_ID,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REASON_STRING,
    id::USER_PROPERTY,
    id::WILDCARD_AVAILABLE,
    id::SUBSCRIPTION_ID_AVAILABLE,
    id::SHARED_AVAILABLE,
    id::SERVER_KEEP_ALIVE,
    id::RESPONSE_INFORMATION,
    id::SERVER_REFERENCE,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
];

/// Appends the CONNACK with the gate's bounds. Returns whether the client was let in.
pub(super) fn connack(
    frame: &Frame,
    version: Version,
    bounds: &Bounds<'_>,
    out: &mut Vec<u8>,
) -> Result<bool, Broken> {
    if frame.first != kind::CONNACK << 4 {
        return Err(Broken::protocol("the broker's first packet is not a CONNACK"));
    }
    let mut reader = Reader::new(frame.body.clone());
    let flags = reader.u8()?;
    let code = reader.u8()?;
    if version != Version::V5 || code != 0 || reader.is_empty() {
        let rest = frame.body.get(1..).unwrap_or_default();
        write::packet(out, frame.first, |body| {
            body.push(if version == Version::V31 { 0 } else { flags });
            body.extend_from_slice(rest);
        });
        return Ok(code == 0);
    }
    let mut kept = Vec::new();
    let (mut packet_bytes, mut aliases) = (bounds.packet_bytes, 0);
    let (mut max_qos, mut has_no_retained) = (bounds.max_qos, bounds.has_no_retained);
    properties::parse(&mut reader, &CONNACK_PROPERTIES, |property, value, raw| {
        match (property, value) {
            (id::MAXIMUM_PACKET_SIZE, Value::Number(octets)) => packet_bytes = packet_bytes.min(octets),
            (id::TOPIC_ALIAS_MAXIMUM, Value::Number(number)) => {
                aliases = u16::try_from(number).unwrap_or(u16::MAX).min(bounds.topic_aliases);
            }
            (id::MAXIMUM_QOS, Value::Number(qos)) => max_qos = max_qos.min(u8::from(qos != 0)),
            (id::RETAIN_AVAILABLE, Value::Number(flag)) => has_no_retained |= flag == 0,
            (id::ASSIGNED_CLIENT_ID, _) => {}
            _ => kept.extend_from_slice(raw),
        }
        Ok(())
    })?;
    reader.end()?;
    kept.push(id::MAXIMUM_PACKET_SIZE);
    write::u32(&mut kept, packet_bytes);
    kept.push(id::TOPIC_ALIAS_MAXIMUM);
    write::u16(&mut kept, aliases);
    if max_qos < 2 {
        kept.extend([id::MAXIMUM_QOS, max_qos]);
    }
    if has_no_retained {
        kept.extend([id::RETAIN_AVAILABLE, 0]);
    }
    if let Some(client_id) = bounds.assigned_client_id {
        kept.push(id::ASSIGNED_CLIENT_ID);
        write::binary(&mut kept, client_id.as_bytes());
    }
    write::packet(out, frame.first, |body| {
        body.extend([flags, code]);
        write::properties(body, &kept);
    });
    Ok(true)
}

/// The codes of a SUBACK or UNSUBACK of version 5, or of a SUBACK of 3.1.1.
pub(super) fn ack_codes(frame: &Frame, version: Version) -> Result<(u16, Bytes), Broken> {
    let mut reader = Reader::new(frame.body.clone());
    let packet_id = reader.packet_id()?;
    if version == Version::V5 {
        properties::parse(&mut reader, &[id::REASON_STRING, id::USER_PROPERTY], |_, _, _| Ok(()))?;
    }
    Ok((packet_id, reader.rest()))
}
