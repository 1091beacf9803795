//! Reading the basic values of MQTT 5 §1.5 from a body whose octets are all there.

use bytes::{Buf, Bytes};

use super::Broken;

/// Reads values one after the other.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(crate) const fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Broken> {
        self.bytes.try_get_u8().map_err(|_| SHORT)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Broken> {
        self.bytes.try_get_u16().map_err(|_| SHORT)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Broken> {
        self.bytes.try_get_u32().map_err(|_| SHORT)
    }

    /// A packet id: never zero (MQTT 5 §2.2.1).
    pub(crate) fn packet_id(&mut self) -> Result<u16, Broken> {
        match self.u16()? {
            0 => Err(Broken::protocol("packet id 0")),
            id => Ok(id),
        }
    }

    /// A packet id of SUBSCRIBE or UNSUBSCRIBE. One that is zero makes the packet malformed, in mosquitto's words
    /// too; the standard names no code.
    pub(crate) fn request_id(&mut self) -> Result<u16, Broken> {
        self.packet_id().map_err(|broken| Broken::malformed(broken.what))
    }

    /// A variable byte integer (MQTT 5 §1.5.5): at most four octets, and no more than needed.
    pub(crate) fn variable(&mut self) -> Result<u32, Broken> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let octet = self.u8()?;
            value |= u32::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                if octet == 0 && shift > 0 {
                    return Err(Broken::malformed("a variable byte integer longer than needed"));
                }
                return Ok(value);
            }
        }
        Err(Broken::malformed("a variable byte integer of more than four octets"))
    }

    /// That many octets.
    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, Broken> {
        if length > self.bytes.len() {
            return Err(SHORT);
        }
        Ok(self.bytes.split_to(length))
    }

    pub(crate) fn binary(&mut self) -> Result<Bytes, Broken> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }

    /// A string: UTF-8 without NUL (MQTT 5 §1.5.4).
    pub(crate) fn text(&mut self) -> Result<String, Broken> {
        let octets = self.binary()?;
        let text = core::str::from_utf8(&octets).map_err(|_| Broken::malformed("a string is not UTF-8"))?;
        if text.contains('\0') {
            return Err(Broken::malformed("a string with NUL"));
        }
        Ok(text.to_owned())
    }

    /// All octets that are left, which stay.
    pub(crate) const fn peek(&self) -> &Bytes {
        &self.bytes
    }

    /// All octets that are left.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.bytes.split_off(0)
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Result<(), Broken> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Broken::malformed("octets after the packet's end")) }
    }
}

const SHORT: Broken = Broken::malformed("a packet shorter than its fields");
