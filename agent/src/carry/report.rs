//! The words of the device's own topics, as JSON: pure, no socket.
//!
//! `status` and `certificate` tell; `command` asks and `response` answers. What a peer asks is parsed once,
//! with a bound, into [`Asked`]; anything else is answered in words.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::identity::Identity;

/// The largest command; a longer one is answered with a refusal.
const COMMAND_MAX_BYTES: usize = 1024;

/// What a broker says in the device's place when it is lost.
pub(super) const OFFLINE: &str = r#"{"online":false}"#;

/// The topics and words of one identity.
#[derive(Debug)]
pub(super) struct Report {
    prefix: String,
    device: String,
    generation: u32,
    not_after: String,
    fingerprint: String,
    started: Instant,
}

/// What a command asks.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Asked {
    /// Connect anew.
    Reconnect,
    /// Renew the certificate now.
    Renew,
    /// Publish the status now.
    Status,
}

/// The answer to a command.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// What was understood; absent when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<Asked>,
    pub(super) accepted: bool,
    pub(super) words: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandWritten {
    command: Asked,
}

#[derive(Serialize)]
struct Status<'a> {
    online: bool,
    version: &'a str,
    not_after: &'a str,
    generation: u32,
    uptime_s: u64,
}

#[derive(Serialize)]
struct Certificate<'a> {
    device: &'a str,
    generation: u32,
    not_after: &'a str,
    sha256: &'a str,
}

impl Report {
    pub(super) fn new(prefix: &str, identity: &Identity, started: Instant) -> Self {
        Self {
            prefix: prefix.replace("{device}", &identity.device),
            device: identity.device.clone(),
            generation: identity.generation,
            not_after: written(identity.not_after),
            fingerprint: identity.chain.first().map(fingerprint).unwrap_or_default(),
            started,
        }
    }

    /// The topic with this last word.
    pub(super) fn topic(&self, word: &str) -> String {
        format!("{}{word}", self.prefix)
    }

    /// The payload of `status`.
    pub(super) fn status(&self) -> String {
        json(&Status {
            online: true,
            version: env!("CARGO_PKG_VERSION"),
            not_after: &self.not_after,
            generation: self.generation,
            uptime_s: self.started.elapsed().as_secs(),
        })
    }

    /// The payload of `certificate`.
    pub(super) fn certificate(&self) -> String {
        json(&Certificate {
            device: &self.device,
            generation: self.generation,
            not_after: &self.not_after,
            sha256: &self.fingerprint,
        })
    }
}

impl Asked {
    /// Read a command.
    ///
    /// # Errors
    /// What is wrong with it, in words for whoever sent it; nothing of the payload is repeated.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, String> {
        if payload.len() > COMMAND_MAX_BYTES {
            return Err(format!("a command has at most {COMMAND_MAX_BYTES} bytes"));
        }
        serde_json::from_slice::<CommandWritten>(payload).map(|written| written.command).map_err(|error| {
            format!(
                "expected {{\"command\":\"renew\"|\"status\"|\"reconnect\"}}; fault at line {} column {}",
                error.line(),
                error.column()
            )
        })
    }
}

impl Answer {
    pub(super) fn json(&self) -> String {
        json(self)
    }
}

fn json(value: &impl Serialize) -> String {
    // Strings and numbers only: this can't fail.
    serde_json::to_string(value).unwrap_or_default()
}

fn written(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(Sha256::digest(certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_commands_are_read_and_nothing_else() {
        assert_eq!(Asked::parse(br#"{"command":"renew"}"#), Ok(Asked::Renew));
        assert_eq!(Asked::parse(br#"{"command":"status"}"#), Ok(Asked::Status));
        assert_eq!(Asked::parse(br#"{"command":"reconnect"}"#), Ok(Asked::Reconnect));
        for payload in [&b""[..], b"renew", br#"{"command":"rm -rf"}"#, br#"{"command":"renew","x":1}"#] {
            let words = Asked::parse(payload).unwrap_err();
            assert!(words.contains("expected") && !words.contains("rm -rf"), "{words}");
        }
        assert!(Asked::parse(&[b' '; COMMAND_MAX_BYTES + 1]).unwrap_err().contains("at most"));
    }

    #[test]
    fn an_answer_says_what_it_understood() {
        let answer = Answer { command: Some(Asked::Renew), accepted: true, words: "soon".to_owned() };
        assert_eq!(answer.json(), r#"{"command":"renew","accepted":true,"words":"soon"}"#);
        let answer = Answer { command: None, accepted: false, words: "what?".to_owned() };
        assert_eq!(answer.json(), r#"{"accepted":false,"words":"what?"}"#);
    }
}
