//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK, MQTT 5 §3.8 to §3.11.

use super::properties::{self, Value, id};
use super::read::Reader;
use super::{Broken, Code, Frame, Qos, Version, kind, write};

/// When retained messages are sent, MQTT 5 §3.8.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RetainHandling {
    /// On every SUBSCRIBE.
    #[default]
    Always,
    /// When the subscription is new.
    IfNew,
    /// Never.
    Never,
}

/// The options of a subscription, MQTT 5 §3.8.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: RetainHandling,
}

impl Options {
    /// Reads the octet as it is in a SUBSCRIBE of version 5.
    pub(crate) fn from_octet(octet: u8) -> Result<Self, Broken> {
        let retain_handling = match (octet >> 4) & 3 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => return Err(Broken::malformed("retain handling 3")),
        };
        if octet & 0xc0 != 0 {
            return Err(Broken::malformed("reserved bits of subscription options"));
        }
        Ok(Self {
            qos: Qos::from_bits(octet & 3).ok_or(Broken::malformed("QoS 3"))?,
            no_local: octet & 4 != 0,
            retain_as_published: octet & 8 != 0,
            retain_handling,
        })
    }

    /// The octet as it is in a SUBSCRIBE of version 5.
    pub(crate) fn octet(self) -> u8 {
        let handling = match self.retain_handling {
            RetainHandling::Always => 0,
            RetainHandling::IfNew => 0x10,
            RetainHandling::Never => 0x20,
        };
        self.qos.bits()
            | (u8::from(self.no_local) << 2)
            | (u8::from(self.retain_as_published) << 3)
            | handling
    }
}

/// SUBSCRIBE; filters are not checked yet. The gate does that: one that is malformed ends the
/// connection, one that is not accepted or not allowed spoils its own reason code only.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) packet_id: u16,
    pub(crate) subscription_id: Option<u32>,
    pub(crate) filters: Vec<(String, Options)>,
}

impl Subscribe {
    pub(crate) fn parse(frame: &Frame, version: Version) -> Result<Self, Broken> {
        let mut reader = Reader::new(frame.body.clone());
        let packet_id = reader.request_id()?;
        let mut subscription_id = None;
        if version == Version::V5 {
            let allowed = [id::SUBSCRIPTION_ID, id::USER_PROPERTY];
            properties::parse(&mut reader, &allowed, |property, value, _| {
                if let (id::SUBSCRIPTION_ID, Value::Number(number)) = (property, value)
                    && (number == 0 || subscription_id.replace(number).is_some())
                {
                    return Err(Broken::malformed("a subscription identifier that is zero or there twice"));
                }
                Ok(())
            })?;
        }
        let mut filters = Vec::new();
        while !reader.is_empty() {
            let filter = reader.text()?;
            let octet = reader.u8()?;
            if version != Version::V5 && octet & 0xfc != 0 {
                return Err(Broken::malformed("reserved bits of a requested QoS"));
            }
            filters.push((filter, Options::from_octet(octet)?));
        }
        if filters.is_empty() {
            return Err(Broken::malformed("a SUBSCRIBE without a filter"));
        }
        Ok(Self { packet_id, subscription_id, filters })
    }

    /// Appends the packet as a client sends it.
    pub(crate) fn write(&self, out: &mut Vec<u8>, version: Version) {
        write::packet(out, (kind::SUBSCRIBE << 4) | 2, |body| {
            write::u16(body, self.packet_id);
            if version == Version::V5 {
                let mut properties = Vec::new();
                if let Some(number) = self.subscription_id {
                    properties.push(id::SUBSCRIPTION_ID);
                    write::variable(&mut properties, number);
                }
                write::properties(body, &properties);
            }
            for (filter, options) in &self.filters {
                write::binary(body, filter.as_bytes());
                body.push(options.octet());
            }
        });
    }
}

/// UNSUBSCRIBE.
#[derive(Debug)]
pub(crate) struct Unsubscribe {
    pub(crate) packet_id: u16,
    pub(crate) filters: Vec<String>,
}

impl Unsubscribe {
    pub(crate) fn parse(frame: &Frame, version: Version) -> Result<Self, Broken> {
        let mut reader = Reader::new(frame.body.clone());
        let packet_id = reader.request_id()?;
        if version == Version::V5 {
            properties::parse(&mut reader, &[id::USER_PROPERTY], |_, _, _| Ok(()))?;
        }
        let mut filters = Vec::new();
        while !reader.is_empty() {
            filters.push(reader.text()?);
        }
        if filters.is_empty() {
            return Err(Broken::malformed("an UNSUBSCRIBE without a filter"));
        }
        Ok(Self { packet_id, filters })
    }

    /// Appends the packet as a client sends it.
    pub(crate) fn write(&self, out: &mut Vec<u8>, version: Version) {
        write::packet(out, (kind::UNSUBSCRIBE << 4) | 2, |body| {
            write::u16(body, self.packet_id);
            if version == Version::V5 {
                write::properties(body, &[]);
            }
            for filter in &self.filters {
                write::binary(body, filter.as_bytes());
            }
        });
    }
}

/// Appends a SUBACK; in 3.1.1 every failure is 0x80 (MQTT 3.1.1 §3.9.3).
pub(crate) fn write_suback(out: &mut Vec<u8>, version: Version, packet_id: u16, codes: &[Code]) {
    write::packet(out, kind::SUBACK << 4, |body| {
        write::u16(body, packet_id);
        if version == Version::V5 {
            write::properties(body, &[]);
        }
        body.extend(codes.iter().map(|code| match version {
            Version::V31 | Version::V311 if code.is_failure() => Code::UNSPECIFIED.0,
            _ => code.0,
        }));
    });
}

/// Appends an UNSUBACK; in 3.1.1 it has no codes (MQTT 3.1.1 §3.11.3).
pub(crate) fn write_unsuback(out: &mut Vec<u8>, version: Version, packet_id: u16, codes: &[Code]) {
    write::packet(out, kind::UNSUBACK << 4, |body| {
        write::u16(body, packet_id);
        if version == Version::V5 {
            write::properties(body, &[]);
            body.extend(codes.iter().map(|code| code.0));
        }
    });
}
