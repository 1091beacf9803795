//! What the edge demands at the door of a hostname.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::identity::{AccountId, CaId, ZoneId};
use crate::name::{Hostname, NameError};

/// An exact hostname, or one wildcard label before a parent of at least two labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    wildcard: bool,
    name: Hostname,
}

impl HostPattern {
    /// The hostname itself, or the parent of the wildcard.
    pub const fn name(&self) -> &Hostname {
        &self.name
    }

    /// Whether every name it stands for lies in `zone`.
    pub fn is_within(&self, zone: &Hostname) -> bool {
        let (name, zone) = (self.name.as_str(), zone.as_str());
        name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
    }

    /// Whether one label stands before [`HostPattern::name`].
    pub const fn is_wildcard(&self) -> bool {
        self.wildcard
    }
}

impl From<Hostname> for HostPattern {
    fn from(name: Hostname) -> Self {
        Self { wildcard: false, name }
    }
}

impl core::str::FromStr for HostPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some(parent) = text.strip_prefix("*.") else {
            return Ok(Self { wildcard: false, name: text.parse()? });
        };
        let name: Hostname = parent.parse()?;
        if name.as_str().contains('.') {
            Ok(Self { wildcard: true, name })
        } else {
            Err(NameError("a wildcard stands before a domain of at least two labels"))
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

impl core::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.wildcard { write!(f, "*.{}", self.name) } else { write!(f, "{}", self.name) }
    }
}

/// Whether a client certificate is demanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HostMode {
    /// Without a good one nothing is served.
    #[default]
    Require,
    /// It is asked for; who shows none is anonymous, who shows a bad one is refused.
    Request,
    /// It is not asked for.
    Off,
}

/// What a hostname speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1 and h2 over TLS.
    Https,
    /// MQTT 3.1.1 and 5 over TLS and WebSocket.
    Mqtt,
}

/// The oldest TLS that a hostname speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum MinTls {
    /// TLS 1.2 and 1.3.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 alone.
    #[default]
    #[serde(rename = "1.3")]
    Tls13,
}

/// What a hostname does when the edge has heard nothing of revocations for longer than allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WhenStale {
    /// Nobody gets in who has to show a certificate.
    #[default]
    Closed,
    /// The last known state goes on.
    Open,
}

/// Whether a hostname accepts the account's devices CAs: those it names and those that come after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DefaultCas {
    /// Beside the named ones.
    Always,
    /// When it names none.
    #[default]
    IfNoneNamed,
    /// Not unless it names them; without any named, it accepts nobody.
    Never,
}

/// The rule of a hostname.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRule {
    /// Which names it answers.
    pub host: HostPattern,
    /// Its owner.
    pub account: AccountId,
    /// The zone it lies in.
    pub zone: ZoneId,
    /// Whether a client certificate is demanded.
    #[serde(default)]
    pub mode: HostMode,
    /// What it speaks.
    pub protocols: BTreeSet<Protocol>,
    /// The CAs whose certificates it accepts, see also `default_cas`.
    #[serde(default)]
    pub cas: BTreeSet<CaId>,
    /// Whether the account's devices CAs are accepted beside the named ones.
    #[serde(default)]
    pub default_cas: DefaultCas,
    /// The oldest TLS it speaks.
    #[serde(default)]
    pub min_tls: MinTls,
    /// Where its HTTPS requests go: `http://` or `https://` URLs without a path, taken in turn.
    #[serde(default)]
    pub origins: Vec<String>,
    /// What it does without fresh news of revocations.
    #[serde(default)]
    pub when_stale: WhenStale,
    /// Whether origins are sent the certificate in the `Cf-Client-Cert-*` headers too.
    #[serde(default = "HostRule::forwards")]
    pub forward_certificate: bool,
    /// How many seconds an origin may be silent, before its answer begins and within it; 0 is for as long as
    /// it likes.
    #[serde(default = "HostRule::waits")]
    pub origin_timeout_s: u32,
}

impl HostRule {
    /// The rule of a hostname that nobody set: HTTPS, and a certificate is demanded.
    pub fn new(host: HostPattern, account: AccountId, zone: ZoneId) -> Self {
        Self {
            host,
            account,
            zone,
            mode: HostMode::default(),
            protocols: BTreeSet::from([Protocol::Https]),
            cas: BTreeSet::new(),
            default_cas: DefaultCas::default(),
            min_tls: MinTls::default(),
            origins: Vec::new(),
            when_stale: WhenStale::default(),
            forward_certificate: Self::forwards(),
            origin_timeout_s: Self::waits(),
        }
    }

    /// Whether the account's devices CAs are accepted.
    pub fn accepts_default_cas(&self) -> bool {
        match self.default_cas {
            DefaultCas::Always => true,
            DefaultCas::IfNoneNamed => self.cas.is_empty(),
            DefaultCas::Never => false,
        }
    }

    const fn forwards() -> bool {
        true
    }

    /// As nginx has it.
    const fn waits() -> u32 {
        60
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lies_in_the_zone_it_ends_with_at_a_dot() {
        let zone: Hostname = "example.com".parse().expect("valid");
        for (host, within) in [
            ("example.com", true),
            ("a.example.com", true),
            ("*.example.com", true),
            ("*.a.example.com", true),
            ("badexample.com", false),
            ("example.com.evil.org", false),
            ("com", false),
        ] {
            let pattern: HostPattern = host.parse().expect("valid");
            assert_eq!(pattern.is_within(&zone), within, "{host}");
        }
    }

    #[test]
    fn a_wildcard_is_one_whole_label_before_a_domain() {
        let pattern: HostPattern = "*.Example.COM.".parse().expect("valid");
        assert_eq!(pattern.to_string(), "*.example.com");
        for wrong in ["*", "*.", "*.com", "a*.example.com", "*.*.example.com", "a.*.example.com", ""] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong:?}");
        }
    }
}
