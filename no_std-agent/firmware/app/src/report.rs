//! The words on the device's own topics: the same as the agent's on Linux, so that one dashboard reads both.
//!
//! `status` and `certificate` tell; `command` asks and `response` answers. What a peer asks is read once, with a
//! bound, into [`Asked`]; anything else is answered in words.

use core::fmt::{self, Write};

use heapless::String;
use muster_proto::sha256;
use muster_proto::time::{CivilTime, UnixTime};
use muster_proto::x509::Certificate;

/// What a broker says in the device's place when it is lost.
pub const OFFLINE: &[u8] = br#"{"online":false}"#;
/// The largest command; a longer one is answered with a refusal.
pub const COMMAND_MAX_BYTES: usize = 256;
/// Longest of the texts here: `certificate` with a device id of 64 bytes.
pub const TEXT_MAX_BYTES: usize = 256;

/// What is said of one identity.
#[derive(Clone, Copy, Debug)]
pub struct Report<'r> {
    /// The device id, which needs no escaping in JSON.
    pub device: &'r str,
    /// How often it was renewed.
    pub generation: u32,
    /// SHA-256 of the leaf in DER.
    pub sha256: [u8; 32],
    /// The leaf's last second.
    pub not_after: UnixTime,
    /// Seconds since boot.
    pub uptime_s: u64,
}

impl<'r> Report<'r> {
    /// What is said of the identity with this leaf.
    #[must_use]
    pub fn new(device: &'r str, generation: u32, leaf: &[u8]) -> Self {
        let parsed = Certificate::parse(leaf);
        let not_after = parsed.map_or(UnixTime::from_secs(0), |leaf| leaf.validity.not_after);
        Self { device, generation, sha256: sha256(leaf), not_after, uptime_s: 0 }
    }

    /// The payload of `status`.
    ///
    /// # Errors
    /// When it is longer than [`TEXT_MAX_BYTES`], which it never is.
    pub fn status(&self) -> Result<String<TEXT_MAX_BYTES>, fmt::Error> {
        let mut text = String::new();
        let (not_after, version) = (Rfc3339(self.not_after), env!("CARGO_PKG_VERSION"));
        let (generation, uptime) = (self.generation, self.uptime_s);
        write!(
            text,
            r#"{{"online":true,"version":"{version}","not_after":"{not_after}","generation":{generation},"uptime_s":{uptime}}}"#
        )?;
        Ok(text)
    }

    /// The payload of `certificate`.
    ///
    /// # Errors
    /// As for [`status`](Self::status).
    pub fn certificate(&self) -> Result<String<TEXT_MAX_BYTES>, fmt::Error> {
        let mut text = String::new();
        let (device, generation, not_after) = (self.device, self.generation, Rfc3339(self.not_after));
        write!(
            text,
            r#"{{"device":"{device}","generation":{generation},"not_after":"{not_after}","sha256":""#
        )?;
        for byte in self.sha256 {
            write!(text, "{byte:02x}")?;
        }
        text.push_str("\"}").map_err(|_| fmt::Error)?;
        Ok(text)
    }
}

/// What a command asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Connect anew.
    Reconnect,
    /// Renew the certificate now.
    Renew,
    /// Publish the status now.
    Status,
}

impl Asked {
    /// Reads a command: a JSON object with the one member `command`, whose value is one of three words. Blanks are
    /// allowed where JSON allows them; escapes are not, because no command has a character that needs one.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        if payload.len() > COMMAND_MAX_BYTES {
            return None;
        }
        let [b'{', inner @ .., b'}'] = blanks(payload) else { return None };
        let [b':', value @ ..] = blanks(blanks(inner).strip_prefix(b"\"command\"")?) else { return None };
        let [b'"', word @ .., b'"'] = blanks(value) else { return None };
        [Self::Reconnect, Self::Renew, Self::Status].into_iter().find(|asked| asked.word().as_bytes() == word)
    }

    /// The word in a command.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reconnect => "reconnect",
            Self::Renew => "renew",
            Self::Status => "status",
        }
    }

    /// The payload of `response`.
    #[must_use]
    pub const fn answer(asked: Option<Self>) -> &'static [u8] {
        match asked {
            Some(Self::Reconnect) => br#"{"command":"reconnect","accepted":true,"words":"connecting anew"}"#,
            Some(Self::Renew) => br#"{"command":"renew","accepted":true,"words":"a renewal is asked for"}"#,
            Some(Self::Status) => br#"{"command":"status","accepted":true,"words":"published"}"#,
            None => {
                br#"{"accepted":false,"words":"expected {\"command\":\"renew\"|\"status\"|\"reconnect\"}"}"#
            }
        }
    }
}

/// Without the blanks of JSON (RFC 8259 §2) on both sides.
#[inline(never)]
fn blanks(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] | [rest @ .., b' ' | b'\t' | b'\n' | b'\r'] = text {
        text = rest;
    }
    text
}

/// A time as RFC 3339 writes it.
struct Rfc3339(UnixTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CivilTime { year, month, day, hour, minute, second } = self.0.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_commands_are_read_and_nothing_else() {
        assert_eq!(Asked::parse(br#"{"command":"renew"}"#), Some(Asked::Renew));
        assert_eq!(Asked::parse(b" { \"command\" : \"status\" }\n"), Some(Asked::Status));
        assert_eq!(Asked::parse(br#"{"command":"reconnect"}"#), Some(Asked::Reconnect));
        for payload in [
            &b""[..],
            b"renew",
            b"{}",
            br#"{"command":"rm -rf"}"#,
            br#"{"command":"renew","x":1}"#,
            br#"{"command":"renew"}}"#,
            br#"{"command":renew}"#,
            b"\xff",
        ] {
            assert_eq!(Asked::parse(payload), None, "{payload:?}");
        }
        let long = [b' '; COMMAND_MAX_BYTES];
        let mut long: heapless::Vec<u8, 512> = heapless::Vec::from_slice(&long).expect("fits");
        long.extend_from_slice(br#"{"command":"renew"}"#).expect("fits");
        assert_eq!(Asked::parse(&long), None);
    }

    #[test]
    fn times_are_written_as_people_and_programs_read_them() {
        let written = |secs| {
            let mut text = String::<32>::new();
            write!(text, "{}", Rfc3339(UnixTime::from_secs(secs))).expect("fits");
            text
        };
        assert_eq!(written(0), "1970-01-01T00:00:00Z");
        assert_eq!(written(951_825_600), "2000-02-29T12:00:00Z");
        assert_eq!(written(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(written(253_402_300_799), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn the_longest_report_fits() {
        let device = core::str::from_utf8(&[b'x'; 64]).expect("ASCII");
        let report = Report { uptime_s: u64::MAX, ..Report::new(device, u32::MAX, b"") };
        assert!(report.status().expect("fits").contains("\"online\":true"));
        assert!(report.certificate().expect("fits").ends_with("b855\"}"));
    }
}
