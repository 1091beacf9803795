//! Properties of MQTT 5 §2.2.2: which there are, of what type, and which packets may have them.

use bytes::Bytes;

use super::Broken;
use super::read::Reader;

/// Property identifiers, MQTT 5 §2.2.2.2.
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 1;
    pub(crate) const MESSAGE_EXPIRY: u8 = 2;
    pub(crate) const CONTENT_TYPE: u8 = 3;
    pub(crate) const RESPONSE_TOPIC: u8 = 8;
    pub(crate) const CORRELATION_DATA: u8 = 9;
    pub(crate) const SUBSCRIPTION_ID: u8 = 11;
    pub(crate) const SESSION_EXPIRY: u8 = 17;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 18;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 19;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 21;
    pub(crate) const AUTHENTICATION_DATA: u8 = 22;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 23;
    pub(crate) const WILL_DELAY: u8 = 24;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 25;
    pub(crate) const RESPONSE_INFORMATION: u8 = 26;
    pub(crate) const SERVER_REFERENCE: u8 = 28;
    pub(crate) const REASON_STRING: u8 = 31;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 33;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub(crate) const TOPIC_ALIAS: u8 = 35;
    pub(crate) const MAXIMUM_QOS: u8 = 36;
    pub(crate) const RETAIN_AVAILABLE: u8 = 37;
    pub(crate) const USER_PROPERTY: u8 = 38;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 39;
    pub(crate) const WILDCARD_AVAILABLE: u8 = 40;
    pub(crate) const SUBSCRIPTION_ID_AVAILABLE: u8 = 41;
    pub(crate) const SHARED_AVAILABLE: u8 = 42;
}

/// The value of a property. Text is checked and then left where it is: in the raw octets.
#[derive(Debug)]
pub(crate) enum Value {
    Binary,
    Number(u32),
    Text(String),
}

/// Reads properties behind their length, and hands each to `visit` with its raw octets.
///
/// # Errors
/// When one is malformed, not among `allowed`, or there twice (user properties may be).
pub(crate) fn parse(
    reader: &mut Reader,
    allowed: &[u8],
    mut visit: impl FnMut(u8, Value, &[u8]) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let length = usize::try_from(reader.variable()?).unwrap_or(usize::MAX);
    let mut inside = Reader::new(reader.take(length)?);
    let mut seen = 0_u64;
    while !inside.is_empty() {
        let before: Bytes = inside.peek().clone();
        let property = inside.u8()?;
        if !allowed.contains(&property) {
            // MQTT 5 §2.2.2.2.
            return Err(Broken::malformed("a property that this packet does not have"));
        }
        let bit = 1_u64.checked_shl(u32::from(property)).unwrap_or_default();
        if seen & bit != 0 && property != id::USER_PROPERTY && property != id::SUBSCRIPTION_ID {
            return Err(Broken::protocol("a property twice"));
        }
        seen |= bit;
        let value = value(property, &mut inside)?;
        let used = before.len().saturating_sub(inside.peek().len());
        visit(property, value, before.get(..used).unwrap_or_default())?;
    }
    Ok(())
}

fn value(property: u8, reader: &mut Reader) -> Result<Value, Broken> {
    Ok(match property {
        // Goes on as it is (MQTT 5 §3.3.2.3.2), and the standard calls no value of it an error.
        id::PAYLOAD_FORMAT => Value::Number(u32::from(reader.u8()?)),
        id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_AVAILABLE
        | id::SUBSCRIPTION_ID_AVAILABLE
        | id::SHARED_AVAILABLE => match reader.u8()? {
            flag @ (0 | 1) => Value::Number(u32::from(flag)),
            _ => return Err(Broken::protocol("a flag that is neither 0 nor 1")),
        },
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            Value::Number(u32::from(reader.u16()?))
        }
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAXIMUM_PACKET_SIZE => {
            Value::Number(reader.u32()?)
        }
        id::SUBSCRIPTION_ID => Value::Number(reader.variable()?),
        id::CORRELATION_DATA | id::AUTHENTICATION_DATA => {
            reader.binary()?;
            Value::Binary
        }
        id::USER_PROPERTY => {
            reader.text()?;
            Value::Text(reader.text()?)
        }
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::ASSIGNED_CLIENT_ID
        | id::AUTHENTICATION_METHOD
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        | id::REASON_STRING => Value::Text(reader.text()?),
        _ => return Err(Broken::malformed("an unknown property")),
    })
}
