//! The configuration: `DIR/muster.toml` as written, and as checked.
//!
//! Every field is optional and every default is safe, so an empty file is a working configuration.
//! [`ConfigWritten`] is what people write; [`Config`] is what the server runs on, and only
//! [`ConfigWritten::check`] makes one. Paths are taken relative to the data directory.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_broker::BrokerConfig;
use muster_edge::ListenerLimits as EdgeLimits;
use muster_enroll::{AdmissionLimits, ListenerLimits, Rate};
use muster_policy::name::{EdgeName, Hostname, Label};
use muster_policy::network::{DeniedNetworks, Network};
use serde::{Deserialize, Serialize};

use crate::telemetry;

/// The configuration file as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigWritten {
    /// Where the server listens.
    pub listen: ListenWritten,
    /// The EST front.
    pub est: EstWritten,
    /// The edge.
    pub edge: EdgeWritten,
    /// The MQTT broker behind the edge.
    #[serde(skip_serializing)]
    pub broker: BrokerConfig,
    /// The account's CAs.
    pub ca: CaWritten,
    /// The ledger.
    pub ledger: LedgerWritten,
    /// The log.
    pub log: LogWritten,
    /// Requests that the server makes by itself.
    pub outbound: OutboundWritten,
    /// Webhooks.
    pub webhooks: WebhooksWritten,
}

/// Addresses, as `IP:PORT`; port 0 takes any free one.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenWritten {
    /// Admin API, health and metrics; loopback only. Default 127.0.0.1:8080.
    pub admin: Option<SocketAddr>,
    /// EST over HTTPS. Default 0.0.0.0:8443.
    pub est: Option<SocketAddr>,
    /// The edge for HTTPS. Default 0.0.0.0:9443.
    pub https: Option<SocketAddr>,
    /// The edge for MQTT. Default 0.0.0.0:8883.
    pub mqtt: Option<SocketAddr>,
    /// CRLs over plain HTTP for the world; off by default (they are also served with the admin API).
    pub crl: Option<SocketAddr>,
    /// A Unix socket, for this user alone, at which edges in other processes hear of changes; off by default.
    pub edges: Option<PathBuf>,
}

/// The EST front.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EstWritten {
    /// PEM chain of the server certificate; default: one made by the services CA.
    pub tls_certificate: Option<PathBuf>,
    /// PEM key of the server certificate.
    pub tls_key: Option<PathBuf>,
    /// More names for the certificate made by the services CA.
    pub names: Vec<String>,
    /// The profile of paths without a label. Default `default`.
    pub default_profile: Option<String>,
    /// How long the same first enrollment gets the same certificate again, in seconds. Default one day.
    pub first_window_s: Option<u64>,
    /// How long the same renewal gets the same certificate again, in seconds. Default one hour.
    pub renewal_window_s: Option<u64>,
    /// Retry-After of requests that wait for approval, in seconds. Default 60.
    pub approval_retry_s: Option<u32>,
    /// Requests that may wait for approval at once. Default 10,000.
    pub approvals_max: Option<u32>,
    /// Connections open at once. Default 8192, and never more than the system's files allow.
    pub connections: Option<usize>,
    /// Connections open at once from one address. Default 4096.
    pub connections_per_source: Option<usize>,
    /// TLS handshakes in progress at once; one address has a quarter of them. Default 512.
    pub handshakes: Option<usize>,
    /// Requests from one address. Default burst 20,000, then 1,000 a second.
    pub source_rate: Option<RateWritten>,
    /// Wrong credentials from one address before they get 429. Default burst 600, then 5 a second.
    pub guess_rate: Option<RateWritten>,
    /// Certificates and polls of one device. Default burst 1,000, then one each 10 seconds.
    pub device_rate: Option<RateWritten>,
    /// Certificates and polls of the account. Default burst 100,000, then 10,000 a second.
    pub account_rate: Option<RateWritten>,
}

/// The edge.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeWritten {
    /// Connections open at once. Default 16,384, and never more than the system's files allow.
    pub connections: Option<usize>,
    /// Connections open at once from one address. Default 8192.
    pub connections_per_source: Option<usize>,
    /// TLS handshakes in progress at once; one address has a quarter of them. Default 1024.
    pub handshakes: Option<usize>,
    /// New connections a second from one address, in the long run. Default 1000.
    pub new_per_source_per_s: Option<u32>,
    /// New connections from one address at once. Default 4000.
    pub new_per_source_burst: Option<u32>,
    /// How old the news of revocations may be, in seconds, before hostnames that say so let nobody in.
    /// Default one hour.
    pub stale_after_s: Option<u64>,
    /// The Unix socket of a server that this edge follows, in a process of its own; it has no ledger then.
    pub follow: Option<PathBuf>,
    /// What it is called where people see who is connected. Default `server`; of an edge that follows, the name of its
    /// folder if it can be one, else `edge`.
    pub name: Option<String>,
}

/// One rate limit.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateWritten {
    /// How many may come at once; at least 1.
    pub burst: NonZeroU32,
    /// How many seconds until one more may come.
    pub refill_s: f64,
}

/// The account's CAs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaWritten {
    /// File with the passphrase of the key files; else MUSTER_CA_PASSPHRASE, else a prompt.
    pub passphrase_file: Option<PathBuf>,
    /// What goes before `/crl/CA_ID.crl` in certificates of profiles with `crl_url`.
    pub crl_url_base: Option<String>,
    /// How long a CRL is valid, in seconds; a new one is made after half of it. Default 7 days.
    pub crl_lifetime_s: Option<u64>,
}

/// The ledger.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerWritten {
    /// Memory for cached pages, in MiB. Default 64.
    pub cache_mib: Option<usize>,
    /// How long ended certificates are kept, in days. Default 400.
    pub keep_ended_days: Option<u32>,
}

/// Requests that go out: to webhooks, for CRLs, and from an edge to origins.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboundWritten {
    /// Networks, `ADDRESS/BITS` or one address, that no such request is sent to, whatever name led there. A list
    /// takes the place of the default: 169.254.0.0/16 and fe80::/10 (link-local, where machines in a cloud are told
    /// their credentials) and fd00:ec2::254/128. The loopback and private networks may be denied too.
    pub denied_networks: Option<Vec<Network>>,
}

/// Webhooks.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksWritten {
    /// PEM of more CAs that may vouch for receivers, beside those the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// Whether receivers at a loopback address may be plain `http://`. Default no.
    pub loopback_http: bool,
}

/// The log.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogWritten {
    /// `json` (default) or `text`, on standard error.
    pub format: Option<LogFormat>,
    /// A filter such as `info` or `muster_enroll=debug,info`. Default `info`.
    pub level: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Lines for people.
    Text,
}

/// The configuration as checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Admin API; a loopback address.
    pub listen_admin: SocketAddr,
    /// EST over HTTPS.
    pub listen_est: SocketAddr,
    /// The edge for HTTPS.
    pub listen_https: SocketAddr,
    /// The edge for MQTT.
    pub listen_mqtt: SocketAddr,
    /// Bounds of the edge's listeners.
    pub edge: EdgeLimits,
    /// How old the news of revocations may be at the edge.
    pub stale_after: Duration,
    /// The socket of the server that this edge follows.
    pub edge_follows: Option<PathBuf>,
    /// What the edge is called among those of its server.
    pub edge_name: EdgeName,
    /// Where edges in other processes hear of changes.
    pub listen_edges: Option<PathBuf>,
    /// The MQTT broker.
    pub broker: BrokerConfig,
    /// CRLs over plain HTTP.
    pub listen_crl: Option<SocketAddr>,
    /// Chain and key of the EST server certificate, if not made here.
    pub est_tls_files: Option<(PathBuf, PathBuf)>,
    /// More names for the EST server certificate made here.
    pub est_names: Vec<Hostname>,
    /// Profile of paths without a label.
    pub default_profile: Label,
    /// How long the same first enrollment gets the same certificate again.
    pub first_window: Duration,
    /// How long the same renewal gets the same certificate again.
    pub renewal_window: Duration,
    /// Retry-After of requests that wait.
    pub approval_retry: Duration,
    /// Requests that may wait at once.
    pub approvals_max: u32,
    /// Bounds of the EST listener.
    pub listener: ListenerLimits,
    /// Rate limits of the EST front.
    pub admission: AdmissionLimits,
    /// Where no request that the server makes by itself is sent.
    pub denied_networks: DeniedNetworks,
    /// More CAs that may vouch for receivers of webhooks.
    pub webhooks_ca_file: Option<PathBuf>,
    /// Whether receivers of webhooks at a loopback address may be plain `http://`.
    pub webhooks_loopback_http: bool,
    /// File with the passphrase of the key files.
    pub passphrase_file: Option<PathBuf>,
    /// What goes before `/crl/CA_ID.crl`.
    pub crl_url_base: Option<String>,
    /// How long a CRL is valid.
    pub crl_lifetime: Duration,
    /// Memory for the ledger's cached pages.
    pub ledger_cache_bytes: usize,
    /// How long ended certificates are kept.
    pub keep_ended: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_level: String,
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML of the right shape.
    #[error(transparent)]
    Malformed(#[from] toml::de::Error),
    /// The broker can't start with its settings.
    #[error("[broker]")]
    Broker(#[from] muster_broker::ConfigError),
    /// A name of the EST server is none.
    #[error("est.names: `{0}` is not a DNS name")]
    NoName(String),
    /// The log's filter is none.
    #[error("log.level")]
    LogLevel(#[from] telemetry::NoFilter),
    /// A value is out of its range or contradicts another.
    #[error("{field} must be {must}")]
    Wrong {
        /// The field, as `table.name`.
        field: &'static str,
        /// What it must be.
        must: &'static str,
    },
}

const fn wrong(field: &'static str, must: &'static str) -> ConfigError {
    ConfigError::Wrong { field, must }
}

impl ConfigWritten {
    /// Reads TOML text.
    ///
    /// # Errors
    /// Names line and column of what is not understood; unknown fields are errors.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Ok(toml::from_str(text)?)
    }

    /// Reads the file; a missing one is an empty one.
    ///
    /// # Errors
    /// When the file is there and can't be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// Checks every value and fills in the defaults; relative paths start at `base`.
    ///
    /// # Errors
    /// Names the first field that can't be used.
    pub fn check(&self, base: &Path) -> Result<Config, ConfigError> {
        let est = &self.est;
        let est_tls_files = match (&est.tls_certificate, &est.tls_key) {
            (Some(certificate), Some(key)) => Some((base.join(certificate), base.join(key))),
            (None, None) => None,
            _ => return Err(wrong("est.tls_certificate", "given together with est.tls_key, or not at all")),
        };
        let default_profile = est.default_profile.as_deref().unwrap_or("default");
        self.broker.check()?;
        Ok(Config {
            listen_admin: self.check_admin()?,
            listen_est: self.listen.est.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 8443))),
            listen_https: self.listen.https.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 9443))),
            listen_mqtt: self.listen.mqtt.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 8883))),
            edge: self.check_edge()?,
            stale_after: self.check_staleness()?,
            edge_follows: self.edge.follow.as_ref().map(|path| base.join(path)),
            edge_name: self.check_edge_name(base)?,
            listen_edges: self.listen.edges.as_ref().map(|path| base.join(path)),
            broker: self.broker.clone(),
            listen_crl: self.listen.crl,
            est_tls_files,
            est_names: self.check_est_names()?,
            default_profile: default_profile
                .parse()
                .map_err(|_| wrong("est.default_profile", "1 to 32 characters out of a-z 0-9 - _"))?,
            first_window: Duration::from_secs(est.first_window_s.unwrap_or(86_400)),
            renewal_window: Duration::from_secs(est.renewal_window_s.unwrap_or(3_600)),
            approval_retry: Duration::from_secs(u64::from(est.approval_retry_s.unwrap_or(60)).max(1)),
            approvals_max: est.approvals_max.unwrap_or(10_000),
            listener: self.check_listener()?,
            admission: self.check_admission()?,
            denied_networks: self.check_denied()?,
            webhooks_ca_file: self.webhooks.ca_file.as_ref().map(|path| base.join(path)),
            webhooks_loopback_http: self.webhooks.loopback_http,
            passphrase_file: self.ca.passphrase_file.as_ref().map(|path| base.join(path)),
            crl_url_base: self.check_crl_url()?,
            crl_lifetime: self.check_crl_lifetime()?,
            ledger_cache_bytes: self.check_cache()?,
            keep_ended: Duration::from_secs(86_400 * u64::from(self.ledger.keep_ended_days.unwrap_or(400))),
            log_format: self.log.format.unwrap_or_default(),
            log_level: self.check_log_level()?,
        })
    }

    fn check_est_names(&self) -> Result<Vec<Hostname>, ConfigError> {
        let name = |name: &String| name.parse().map_err(|_| ConfigError::NoName(name.clone()));
        self.est.names.iter().map(name).collect()
    }

    fn check_log_level(&self) -> Result<String, ConfigError> {
        let level = self.log.level.as_deref().unwrap_or("info");
        telemetry::filter(level)?;
        Ok(level.to_owned())
    }

    fn check_admin(&self) -> Result<SocketAddr, ConfigError> {
        let admin = self.listen.admin.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
        // Admin tokens would cross the network in the clear.
        if admin.ip().is_loopback() { Ok(admin) } else { Err(wrong("listen.admin", "a loopback address")) }
    }

    fn check_edge(&self) -> Result<EdgeLimits, ConfigError> {
        let (edge, default) = (&self.edge, EdgeLimits::default());
        let limits = EdgeLimits {
            connections: edge.connections.unwrap_or(default.connections),
            connections_per_source: edge.connections_per_source.unwrap_or(default.connections_per_source),
            handshakes: edge.handshakes.unwrap_or(default.handshakes),
            new_per_source_per_s: edge.new_per_source_per_s.unwrap_or(default.new_per_source_per_s),
            new_per_source_burst: edge.new_per_source_burst.unwrap_or(default.new_per_source_burst),
            ..default
        };
        for (count, field) in [
            (limits.connections, "edge.connections"),
            (limits.connections_per_source, "edge.connections_per_source"),
            (limits.handshakes, "edge.handshakes"),
        ] {
            if !(1..=1_000_000).contains(&count) {
                return Err(wrong(field, "1 to 1,000,000"));
            }
        }
        if limits.new_per_source_per_s == 0 || limits.new_per_source_burst == 0 {
            return Err(wrong("edge.new_per_source_per_s and edge.new_per_source_burst", "1 or more"));
        }
        Ok(limits)
    }

    fn check_edge_name(&self, base: &Path) -> Result<EdgeName, ConfigError> {
        let folder = base.file_name().and_then(|name| name.to_str());
        let follows = self.edge.follow.is_some();
        let default = if follows { "edge" } else { "server" };
        let of_folder = folder.filter(|name| follows && name.parse::<EdgeName>().is_ok());
        let name = self.edge.name.as_deref().or(of_folder).unwrap_or(default);
        name.parse().map_err(|_| wrong("edge.name", "1 to 32 characters out of a-z 0-9 - _"))
    }

    fn check_staleness(&self) -> Result<Duration, ConfigError> {
        let seconds = self.edge.stale_after_s.unwrap_or(3_600);
        if (5..=30 * 86_400).contains(&seconds) {
            Ok(Duration::from_secs(seconds))
        } else {
            Err(wrong("edge.stale_after_s", "5 seconds to 30 days"))
        }
    }

    fn check_listener(&self) -> Result<ListenerLimits, ConfigError> {
        let default = ListenerLimits::default();
        let limits = ListenerLimits {
            connections: self.est.connections.unwrap_or(default.connections),
            connections_per_source: self.est.connections_per_source.unwrap_or(default.connections_per_source),
            handshakes: self.est.handshakes.unwrap_or(default.handshakes),
            ..default
        };
        for (count, field) in [
            (limits.connections, "est.connections"),
            (limits.connections_per_source, "est.connections_per_source"),
            (limits.handshakes, "est.handshakes"),
        ] {
            if !(1..=1_000_000).contains(&count) {
                return Err(wrong(field, "1 to 1,000,000"));
            }
        }
        Ok(limits)
    }

    fn check_admission(&self) -> Result<AdmissionLimits, ConfigError> {
        let default = AdmissionLimits::default();
        let est = &self.est;
        Ok(AdmissionLimits {
            source: check_rate(est.source_rate, default.source, "est.source_rate")?,
            guesses: check_rate(est.guess_rate, default.guesses, "est.guess_rate")?,
            device: check_rate(est.device_rate, default.device, "est.device_rate")?,
            account: check_rate(est.account_rate, default.account, "est.account_rate")?,
        })
    }

    fn check_crl_url(&self) -> Result<Option<String>, ConfigError> {
        let Some(base) = &self.ca.crl_url_base else { return Ok(None) };
        // RFC 5280 §4.2.1.13: an http URI; https would need a certificate to check a certificate.
        let printable = base.bytes().all(|octet| octet.is_ascii_graphic());
        if base.starts_with("http://") && printable && base.len() <= 200 {
            Ok(Some(base.trim_end_matches('/').to_owned()))
        } else {
            Err(wrong("ca.crl_url_base", "an http:// URL of at most 200 characters"))
        }
    }

    fn check_crl_lifetime(&self) -> Result<Duration, ConfigError> {
        let seconds = self.ca.crl_lifetime_s.unwrap_or(7 * 86_400);
        if (60..=366 * 86_400).contains(&seconds) {
            Ok(Duration::from_secs(seconds))
        } else {
            Err(wrong("ca.crl_lifetime_s", "one minute to one year"))
        }
    }

    fn check_denied(&self) -> Result<DeniedNetworks, ConfigError> {
        if let Some(networks) = &self.outbound.denied_networks {
            return Ok(networks.iter().copied().collect());
        }
        let default = DENIED_NETWORKS.iter().map(|text| text.parse::<Network>());
        default.collect::<Result<_, _>>().map_err(|_| wrong("outbound.denied_networks", "a list of networks"))
    }

    fn check_cache(&self) -> Result<usize, ConfigError> {
        let mib = self.ledger.cache_mib.unwrap_or(64);
        if (8..=1 << 20).contains(&mib) { Ok(mib << 20) } else { Err(wrong("ledger.cache_mib", "8 or more")) }
    }
}

/// Link-local addresses (RFC 3927, RFC 4291 §2.5.6), and the one that a machine at Amazon asks over IPv6.
const DENIED_NETWORKS: [&str; 3] = ["169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128"];

fn check_rate(written: Option<RateWritten>, default: Rate, field: &'static str) -> Result<Rate, ConfigError> {
    let Some(RateWritten { burst, refill_s }) = written else { return Ok(default) };
    match Duration::try_from_secs_f64(refill_s) {
        Ok(refill) if !refill.is_zero() && refill <= Duration::from_secs(86_400) => {
            Ok(Rate { burst, refill })
        }
        _ => Err(wrong(field, "a table whose refill_s is above 0 and at most 86400")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, String> {
        ConfigWritten::parse(text)
            .and_then(|written| written.check(Path::new("/data")))
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    #[test]
    fn an_empty_file_is_a_working_configuration() {
        let config = check("").expect("defaults");
        assert_eq!(config.listen_admin.to_string(), "127.0.0.1:8080");
        assert_eq!(config.listen_est.port(), 8443);
    }

    #[test]
    fn an_edge_that_follows_is_called_as_its_folder_unless_it_has_a_name() {
        let called = |text: &str, base: &str| {
            let written = ConfigWritten::parse(text).expect("TOML");
            written.check(Path::new(base)).expect("in range").edge_name.to_string()
        };
        assert_eq!(called("", "/srv/north"), "server");
        let follows = "[edge]\nfollow = \"s\"\n";
        for (base, name) in [("/srv/north", "north"), ("/srv/.North", "edge"), (".", "edge")] {
            assert_eq!(called(follows, base), name, "{base}");
        }
        assert_eq!(called(&format!("{follows}name = \"west\""), "/srv/north"), "west");
    }

    #[test]
    fn names_what_is_wrong() {
        for (text, word) in [
            ("[listen]\nadmin = \"0.0.0.0:8080\"", "listen.admin"),
            ("[est]\ntls_key = \"k\"", "est.tls_certificate"),
            ("[est]\nnames = [\"a b\"]", "`a b`"),
            ("[log]\nlevel = \"==\"", "log.level"),
            ("[log]\nlevel = \"a[b{c=d}]=info\"", "log.level"),
            ("[log]\nlevel = \"loud=x\"", "log.level"),
            ("[est]\nhandshakes = 0", "est.handshakes"),
            ("[est]\ndevice_rate = { burst = 0, refill_s = 1.0 }", "burst"),
            ("[est]\ndevice_rate = { burst = 1, refill_s = -1.0 }", "est.device_rate"),
            ("[est]\ndefault_profile = \"A\"", "est.default_profile"),
            ("[edge]\nhandshakes = 0", "edge.handshakes"),
            ("[edge]\nstale_after_s = 1", "edge.stale_after_s"),
            ("[edge]\nname = \"A\"", "edge.name"),
            ("[broker]\nengine = \"x\"", "engine"),
            ("[broker]\nengine = \"upstream\"", "broker.upstream"),
            ("[broker.quotas]\nmax_qos = 3", "max_qos"),
            ("[[broker.rules]]\npublish = [\"a/#/b\"]", "a/#/b"),
            ("[ca]\ncrl_url_base = \"https://x\"", "ca.crl_url_base"),
            ("[ca]\ncrl_lifetime_s = 1", "ca.crl_lifetime_s"),
            ("[ledger]\ncache_mib = 1", "ledger.cache_mib"),
            ("[outbound]\ndenied_networks = [\"10.0.0.0/33\"]", "ADDRESS/BITS"),
            ("[estt]", "estt"),
            ("[est", "line 1"),
        ] {
            let error = check(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn link_local_networks_are_denied_unless_another_list_is_given() {
        let allows = |text: &str, address: &str| {
            let denied = check(text).expect("valid").denied_networks;
            denied.check(address.parse().expect("an address")).is_ok()
        };
        for denied in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254"] {
            assert!(!allows("", denied), "{denied}");
            assert!(allows("[outbound]\ndenied_networks = []", denied), "{denied}");
        }
        for address in ["127.0.0.1", "10.0.0.1", "fd00::1"] {
            assert!(allows("", address), "{address}");
        }
        assert!(!allows("[outbound]\ndenied_networks = [\"10.0.0.0/8\", \"::1\"]", "10.0.0.1"));
    }

    #[test]
    fn paths_start_at_the_data_directory() {
        let config = check("[est]\ntls_certificate = \"a.pem\"\ntls_key = \"/b.pem\"").expect("valid");
        assert_eq!(config.est_tls_files, Some(("/data/a.pem".into(), "/b.pem".into())));
    }
}
