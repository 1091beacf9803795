//! What is carried, as written in the agent's configuration and as checked.
//!
//! A listener is loopback unless `allow_remote` is set: whoever reaches it speaks as this device, without a
//! password. An upstream is always TLS. Both are checked here, once; behind this file they are types.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};

use super::upstream::Target;

/// Local connections of one listener, by default and at most: far more programs than one device runs.
const CONNECTIONS_DEFAULT: usize = 64;
/// The most that `max_connections` may say.
const CONNECTIONS_MAX: usize = 4096;
/// How often the status is published, by default.
const STATUS_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
/// The shortest status interval: a fleet's broker is no stopwatch.
const STATUS_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// The telemetry's topics, by default.
const TOPIC_PREFIX_DEFAULT: &str = "devices/{device}/";
/// Relays of one agent.
const RELAYS_MAX: usize = 32;

/// How a relay treats what it carries.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// HTTP/1.1 requests, each over the newest identity.
    Http,
    /// MQTT 3.1.1 and 5.0 sessions, which live through a renewal.
    Mqtt,
    /// Bytes.
    Tcp,
}

/// One `[[relay]]` as written.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RelayWritten {
    /// How to carry.
    pub mode: Mode,
    /// Where local programs connect; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// `mqtts://HOST[:8883]`, `https://HOST[:443]` or `tls://HOST:PORT`.
    pub upstream: String,
    /// The name in the handshake, when it is not the upstream's host.
    pub server_name: Option<String>,
    /// A PEM file with the CA certificates of the upstream, when they are not the account's.
    pub ca: Option<PathBuf>,
    /// The protocols offered in the handshake (ALPN).
    #[serde(default)]
    pub alpn: Vec<String>,
    /// Let other machines connect.
    #[serde(default)]
    pub allow_remote: bool,
    /// 1 to 4096.
    pub max_connections: Option<usize>,
}

/// The `[telemetry]` as written.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryWritten {
    /// `mqtts://HOST[:8883]`.
    pub broker: String,
    /// The name in the handshake, when it is not the broker's host.
    pub server_name: Option<String>,
    /// A PEM file with the CA certificates of the broker, when they are not the account's.
    pub ca: Option<PathBuf>,
    /// The protocols offered in the handshake (ALPN).
    #[serde(default)]
    pub alpn: Vec<String>,
    /// What topics begin with; `{device}` stands for the device id.
    pub prefix: Option<String>,
    /// Appended to the device id for the client id, when a local program uses the device id itself.
    #[serde(default)]
    pub client_suffix: String,
    /// Seconds between two status messages, at least 5.
    pub interval_s: Option<u64>,
    /// Take commands.
    #[serde(default)]
    pub commands: bool,
}

/// What is carried, checked.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub(super) relays: Vec<Relay>,
    pub(super) telemetry: Option<Telemetry>,
}

/// One relay, checked.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    pub(super) mode: Mode,
    pub(super) listen: SocketAddr,
    pub(super) target: Target,
    pub(super) max_connections: usize,
}

/// The telemetry, checked.
#[derive(Clone, Debug)]
pub(super) struct Telemetry {
    pub(super) target: Target,
    pub(super) prefix: String,
    pub(super) client_suffix: String,
    pub(super) interval: Duration,
    pub(super) commands: Commands,
}

/// Whether commands are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commands {
    /// No command topic is subscribed.
    Ignored,
    /// The command topic is subscribed.
    Taken,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// A listener that others could reach.
    #[error(
        "relay on {0}: this address can be reached from other machines, and whoever connects speaks as this \
         device without a password; listen on 127.0.0.1, or set allow_remote = true if a firewall guards it"
    )]
    Remote(SocketAddr),
    /// The upstream is not of the form that the mode wants.
    #[error("upstream {0:?}: expected {1}")]
    Upstream(String, &'static str),
    /// Not a DNS name or address.
    #[error("server name {0:?} is neither a DNS name nor an address")]
    ServerName(String),
    /// The CA file can't be used.
    #[error("CA file {}: {why}", file.display())]
    Ca {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A number out of its range.
    #[error("{0} must be {1}")]
    Range(&'static str, String),
    /// A topic prefix that is no topic.
    #[error("telemetry prefix {0:?}: no wildcard (+ #), no NUL, at most 200 bytes, and a / at its end")]
    Prefix(String),
}

impl Config {
    /// Check what is written; reads the CA files.
    ///
    /// # Errors
    /// The first fault, in words for the operator.
    pub fn check(relays: &[RelayWritten], telemetry: Option<&TelemetryWritten>) -> Result<Self, ConfigFault> {
        if relays.len() > RELAYS_MAX {
            return Err(ConfigFault::Range("the number of relays", format!("at most {RELAYS_MAX}")));
        }
        Ok(Self {
            relays: relays.iter().map(check_relay).collect::<Result<_, _>>()?,
            telemetry: telemetry.map(check_telemetry).transpose()?,
        })
    }
}

fn check_relay(written: &RelayWritten) -> Result<Relay, ConfigFault> {
    if !written.listen.ip().is_loopback() && !written.allow_remote {
        return Err(ConfigFault::Remote(written.listen));
    }
    let max_connections = written.max_connections.unwrap_or(CONNECTIONS_DEFAULT);
    if !(1..=CONNECTIONS_MAX).contains(&max_connections) {
        return Err(ConfigFault::Range("max_connections", format!("1 to {CONNECTIONS_MAX}")));
    }
    let place = Place {
        url: &written.upstream,
        server_name: written.server_name.as_deref(),
        ca: written.ca.as_ref(),
        alpn: &written.alpn,
    };
    let target = match written.mode {
        Mode::Http => {
            let mut target = place.target("https", Some(443), "https://HOST[:PORT]")?;
            if target.alpn.is_empty() {
                target.alpn.push(b"http/1.1".to_vec());
            }
            target
        }
        Mode::Mqtt => place.target("mqtts", Some(8883), "mqtts://HOST[:PORT]")?,
        Mode::Tcp => place.target("tls", None, "tls://HOST:PORT")?,
    };
    Ok(Relay { mode: written.mode, listen: written.listen, target, max_connections })
}

fn check_telemetry(written: &TelemetryWritten) -> Result<Telemetry, ConfigFault> {
    let place = Place {
        url: &written.broker,
        server_name: written.server_name.as_deref(),
        ca: written.ca.as_ref(),
        alpn: &written.alpn,
    };
    let prefix = written.prefix.as_deref().unwrap_or(TOPIC_PREFIX_DEFAULT);
    if prefix.len() > PREFIX_MAX_BYTES || !prefix.ends_with('/') || prefix.contains(['+', '#', '\0']) {
        return Err(ConfigFault::Prefix(prefix.to_owned()));
    }
    let interval = written.interval_s.map_or(STATUS_INTERVAL_DEFAULT, Duration::from_secs);
    if interval < STATUS_INTERVAL_MIN || interval > STATUS_INTERVAL_MAX {
        return Err(ConfigFault::Range("telemetry interval_s", "5 to 86400".to_owned()));
    }
    if written.client_suffix.len() > PREFIX_MAX_BYTES {
        return Err(ConfigFault::Range(
            "telemetry client_suffix",
            format!("at most {PREFIX_MAX_BYTES} bytes"),
        ));
    }
    Ok(Telemetry {
        target: place.target("mqtts", Some(8883), "mqtts://HOST[:PORT]")?,
        prefix: prefix.to_owned(),
        client_suffix: written.client_suffix.clone(),
        interval,
        commands: if written.commands { Commands::Taken } else { Commands::Ignored },
    })
}

struct Place<'a> {
    url: &'a str,
    server_name: Option<&'a str>,
    ca: Option<&'a PathBuf>,
    alpn: &'a [String],
}

impl Place<'_> {
    fn target(&self, scheme: &str, port: Option<u16>, expected: &'static str) -> Result<Target, ConfigFault> {
        let fault = || ConfigFault::Upstream(self.url.to_owned(), expected);
        let url: Uri = self.url.parse().map_err(|_| fault())?;
        let authority = url.authority().ok_or_else(fault)?;
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
        if url.scheme_str() != Some(scheme) || !is_bare || authority.as_str().contains('@') {
            return Err(fault());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().or(port).filter(|port| *port > 0).ok_or_else(fault)?;
        let name = self.server_name.unwrap_or(host).to_owned();
        let server_name = ServerName::try_from(name.clone()).map_err(|_| ConfigFault::ServerName(name))?;
        let alpn = self.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect::<Vec<_>>();
        if alpn.len() > ALPN_MAX || alpn.iter().any(|protocol| protocol.is_empty() || protocol.len() > 255) {
            return Err(ConfigFault::Range("alpn", format!("at most {ALPN_MAX} names of 1 to 255 bytes")));
        }
        let anchors = self.ca.map(read_anchors).transpose()?;
        Ok(Target { host: host.to_owned(), port, server_name, anchors, alpn })
    }
}

fn read_anchors(file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, ConfigFault> {
    let fault = |why: String| ConfigFault::Ca { file: file.clone(), why };
    let text = std::fs::read(file).map_err(|error| fault(error.to_string()))?;
    let blocks = pem::parse_many(&text).map_err(|error| fault(error.to_string()))?;
    let certificates: Vec<CertificateDer<'static>> = blocks
        .into_iter()
        .filter(|block| block.tag() == "CERTIFICATE")
        .map(|block| CertificateDer::from(block.into_contents()))
        .collect();
    if certificates.is_empty() {
        return Err(fault("holds no PEM certificate".to_owned()));
    }
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| fault(error.to_string()))?;
    }
    Ok(certificates)
}

/// Protocols in one handshake.
const ALPN_MAX: usize = 8;
/// Leaves room for the device id and a topic's last word within any broker's limit.
const PREFIX_MAX_BYTES: usize = 200;
/// A day: a status that is older says nothing.
const STATUS_INTERVAL_MAX: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        relay: Vec<RelayWritten>,
        telemetry: Option<TelemetryWritten>,
    }

    fn check(text: &str) -> Result<Config, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        Config::check(&file.relay, file.telemetry.as_ref()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_configuration_is_read() {
        let config = check(
            r#"
            [[relay]]
            mode = "mqtt"
            listen = "127.0.0.1:1883"
            upstream = "mqtts://broker.example.com"
            [[relay]]
            mode = "http"
            listen = "[::1]:8080"
            upstream = "https://[2001:db8::1]:9443/"
            server_name = "api.example.com"
            [[relay]]
            mode = "tcp"
            listen = "127.0.0.1:0"
            upstream = "tls://log.example.com:6514"
            max_connections = 3
            [telemetry]
            broker = "mqtts://broker.example.com:8884"
            commands = true
            "#,
        )
        .unwrap();
        let [mqtt, http, tcp] = &config.relays[..] else { panic!("three relays") };
        assert_eq!((mqtt.target.authority().as_str(), mqtt.max_connections), ("broker.example.com:8883", 64));
        assert_eq!(http.target.authority(), "[2001:db8::1]:9443");
        assert_eq!(http.target.server_name, ServerName::try_from("api.example.com").unwrap());
        assert_eq!(http.target.alpn, [b"http/1.1".to_vec()]);
        assert_eq!(tcp.max_connections, 3);
        assert_eq!(config.telemetry.unwrap().commands, Commands::Taken);
    }

    #[test]
    fn a_listener_that_others_reach_is_refused_with_the_reason() {
        let relay = "[[relay]]\nmode = \"tcp\"\nlisten = \"0.0.0.0:9\"\nupstream = \"tls://h:1\"\n";
        assert!(check(relay).unwrap_err().contains("speaks as this device without a password"));
        assert!(check(&format!("{relay}allow_remote = true\n")).is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let relay = |mode: &str, upstream: &str, more: &str| {
            format!(
                "[[relay]]\nmode = \"{mode}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\n{more}\n"
            )
        };
        for (text, word) in [
            (relay("mqtt", "mqtt://clear.example.com", ""), "expected mqtts://"),
            (relay("http", "http://clear.example.com", ""), "expected https://"),
            (relay("http", "https://h/path", ""), "expected https://"),
            (relay("http", "https://user@h", ""), "expected https://"),
            (relay("tcp", "tls://h", ""), "expected tls://HOST:PORT"),
            (relay("tcp", "tls://h:1", "max_connections = 0"), "1 to 4096"),
            (relay("tcp", "tls://h:1", "server_name = \"a b\""), "neither a DNS name"),
            (relay("tcp", "tls://h:1", "ca = \"/nonexistent\""), "CA file /nonexistent"),
            (relay("tcp", "tls://h:1", "colour = 1"), "unknown field"),
            ("[telemetry]\nbroker = \"mqtts://h\"\nprefix = \"a/#/\"\n".to_owned(), "no wildcard"),
            ("[telemetry]\nbroker = \"mqtts://h\"\ninterval_s = 1\n".to_owned(), "5 to 86400"),
        ] {
            let error = check(&text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
