//! The broker's settings, as written (`BrokerConfig`) and as checked (`Settings`).
//!
//! Every field has a safe default: a device owns `devices/ID/#` and reads `fleet/#`, nobody without a
//! certificate gets in, and every quota has a number.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use crate::topic::{TopicError, TopicFilter};
use crate::upstream::Target;
use crate::wire::Qos;
use crate::wire::connect::PACKET_BYTES_MAX;

/// Settings that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A pattern of a rule is not a topic filter.
    #[error("the rule {pattern:?} is not a topic filter: {error}")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// What is wrong with it.
        error: TopicError,
    },
    /// A number is outside its range.
    #[error("{0}")]
    Range(&'static str),
    /// The engine `upstream` needs a place to connect to.
    #[error("the engine `upstream` needs [broker.upstream] with exactly one of `tcp` and `unix`")]
    UpstreamMissing,
    /// This build has no such engine.
    #[error("this build has no engine `rumqttd`: build it with `--features rumqttd`")]
    EngineMissing,
}

/// The broker's settings as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "snake_case")]
pub struct BrokerConfig {
    /// What carries the messages.
    pub engine: EngineKind,
    /// Topic rules; the defaults when empty. A client has the rules of all its groups together.
    pub rules: Vec<RuleConfig>,
    /// What a client without a certificate may do; nothing, and it is refused, when absent.
    pub anonymous: Option<AnonymousConfig>,
    /// What a user name in CONNECT must be.
    pub username: UsernameRule,
    /// What becomes of an empty client id.
    pub empty_client_id: EmptyClientId,
    /// Whose retained messages new subscriptions get.
    pub retained_of: RetainedOf,
    /// The quality of service that a message reaches a subscriber with.
    pub delivered_qos: DeliveredQos,
    /// What happens to a client whose connection the edge cuts.
    pub on_cut: CutConfig,
    /// Bounds on what one client and all clients may use.
    pub quotas: Quotas,
    /// Where the engine `upstream` connects to.
    pub upstream: Option<UpstreamConfig>,
    /// The file of retained messages and persistent sessions; without one they end with the process.
    pub file: Option<PathBuf>,
}

impl BrokerConfig {
    /// Whether a broker of this build can start with these settings; its file is not looked at.
    ///
    /// # Errors
    /// The first that can't be used, as [`Broker::start`](crate::Broker::start) would say.
    pub fn check(&self) -> Result<(), ConfigError> {
        Settings::check(self)?;
        match self.engine {
            EngineKind::Embedded => Ok(()),
            EngineKind::Upstream => {
                Target::of(self.upstream.as_ref().ok_or(ConfigError::UpstreamMissing)?).map(drop)
            }
            EngineKind::Rumqttd if cfg!(feature = "rumqttd") => Ok(()),
            EngineKind::Rumqttd => Err(ConfigError::EngineMissing),
        }
    }
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Our own engine in this process.
    #[default]
    Embedded,
    /// Another broker over TCP or a unix socket.
    Upstream,
    /// rumqttd's router in this process; only in builds with the feature `rumqttd`.
    Rumqttd,
}

/// One topic rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// Who has it: holders in one of these groups, or everyone with a certificate when empty.
    pub groups: BTreeSet<String>,
    /// What may be published; `%i` is the device id.
    pub publish: Vec<String>,
    /// What may be subscribed to; a shared subscription is its inner filter.
    pub subscribe: Vec<String>,
    /// Exceptions: neither published, nor subscribed to, nor delivered through a wider subscription.
    pub deny: Vec<String>,
    /// Which client ids may be used.
    pub client_id: ClientIdRule,
}

/// Which client ids a holder may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientIdRule {
    /// The device id, or what starts with it and a slash.
    #[default]
    Bound,
    /// Any.
    Any,
}

/// What clients without a certificate may do, on hosts that let them in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnonymousConfig {
    /// What may be published.
    pub publish: Vec<String>,
    /// What may be subscribed to.
    pub subscribe: Vec<String>,
    /// Exceptions from both.
    pub deny: Vec<String>,
}

/// What a user name in CONNECT must be. It never says who the client is: the certificate does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsernameRule {
    /// Whatever it is, it means nothing.
    #[default]
    Ignore,
    /// If there is one, it must be the device id.
    Device,
}

/// What becomes of an empty client id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmptyClientId {
    /// The client is given one, and told so where its version can (MQTT 5 §3.1.3.1).
    #[default]
    Assign,
    /// The client is refused: code 2 in version 3, 0x85 in version 5. Then each client says which session is its own.
    Refuse,
}

/// Whose retained messages new subscriptions get. They outlive the connection of who sent them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetainedOf {
    /// Anyone's, whatever has become of them.
    Anyone,
    /// Theirs who may publish to the topic still, by the rules and groups of today: the message of a device that is
    /// suspended or retired, or whose CA is accepted no more, is withheld for as long. One that was sent with a
    /// certificate that is revoked is withheld at once, and gone within a minute: a revocation is for good.
    #[default]
    Permitted,
}

/// The quality of service that a message reaches a subscriber with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveredQos {
    /// The lesser of that of the message and that of the subscription, as the standard has it (MQTT 5 §3.8.4).
    #[default]
    Lesser,
    /// That of the subscription, also where the message has less. So what was sent with QoS 0 waits for a session
    /// that is away, and is delivered until it is acknowledged.
    Subscribed,
}

impl DeliveredQos {
    /// Of a message with this quality for a subscription with that one.
    pub(crate) fn of(self, message: Qos, subscription: Qos) -> Qos {
        match self {
            Self::Lesser => message.min(subscription),
            Self::Subscribed => subscription,
        }
    }
}

/// What happens when the edge cuts a connection, by revocation for instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CutConfig {
    /// The will of the client.
    pub will: OnCutWill,
    /// Its session.
    pub session: OnCutSession,
}

/// What happens to the will of a client that is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCutWill {
    /// It is dropped: a revoked device says nothing more. So is one that waits for its time when the device is
    /// revoked, suspended or retired, or may not publish to its topic any more.
    #[default]
    Drop,
    /// It is published.
    Publish,
}

/// What happens to the session of a client that is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCutSession {
    /// It stays for its time: a suspended device may come back.
    #[default]
    Keep,
    /// It ends at once.
    Drop,
}

/// Bounds on what clients may use. What version 5 has a property for is announced in CONNACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Largest packet taken from a client, 256 KiB as in most hosted brokers. A CONNECT has that at most in any case.
    pub packet_bytes: u32,
    /// Largest payload of a message; zero for whatever a packet holds. One that is larger is dropped, and the client
    /// told so where its version can: 0x95. A will that is larger is refused with its CONNECT.
    pub payload_bytes: u32,
    /// Highest QoS of a publication, 0 to 2. A subscription may ask for more, and gets this.
    pub max_qos: u8,
    /// How long a client has from its connection to a whole CONNECT.
    pub connect_timeout_s: u16,
    /// Subscriptions of one session.
    pub filters: usize,
    /// Octets of the filters of all sessions of one device, twice, with 512 for each level.
    pub filter_bytes_per_device: usize,
    /// QoS 1 and 2 publications of one client that wait for their end, in either direction.
    pub inflight: u16,
    /// QoS 1 and 2 messages that wait in one session.
    pub queued: usize,
    /// Octets of messages that wait in one session, QoS 0 counted apart.
    pub queued_bytes: usize,
    /// Octets of messages that wait in all sessions of one device or are under way to them, of any QoS, with 128 for
    /// each. One that finds no room takes that of older ones in its session, or goes itself; see `when_full`.
    pub queued_bytes_per_device: usize,
    /// QoS 0 messages that wait for one connected client; beyond it, and beyond `queued_bytes` of them, they are
    /// dropped.
    pub queued_qos0: usize,
    /// What happens to QoS 1 and 2 messages beyond `queued`.
    pub when_full: WhenFull,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Sessions of one device, under as many client ids.
    pub sessions_per_device: usize,
    /// Retained messages. With zero there are none: clients are told so, and one that sends one goes. A start with
    /// less keeps what was stored before; with zero, without giving it out.
    pub retained: usize,
    /// Octets of topics and payloads of retained messages.
    pub retained_bytes: usize,
    /// Retained messages that one device sent.
    pub retained_per_device: usize,
    /// Octets of topics and payloads of retained messages that one device sent.
    pub retained_bytes_per_device: usize,
    /// Longest life of a session without a connection.
    pub session_expiry_s: u32,
    /// Longest keep alive; zero for any, none at all among them.
    pub keep_alive_s: u16,
    /// Publications of one client in a second, on average; zero for any number.
    pub publish_rate_per_s: u32,
    /// Publications of one client at once above the average.
    pub publish_burst: u32,
    /// What happens above the rate.
    pub when_too_fast: WhenTooFast,
    /// Topic aliases in either direction.
    pub topic_aliases: u16,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            packet_bytes: 256 * 1024,
            payload_bytes: 0,
            max_qos: 2,
            connect_timeout_s: 10,
            filters: 1000,
            filter_bytes_per_device: 16 * 1024 * 1024,
            inflight: 32,
            queued: 1000,
            queued_bytes: 4 * 1024 * 1024,
            queued_bytes_per_device: 64 * 1024 * 1024,
            queued_qos0: 200,
            when_full: WhenFull::DropOldest,
            sessions: 1_000_000,
            sessions_per_device: 1000,
            retained: 100_000,
            retained_bytes: 256 * 1024 * 1024,
            retained_per_device: 1000,
            retained_bytes_per_device: 4 * 1024 * 1024,
            session_expiry_s: 7 * 24 * 60 * 60,
            keep_alive_s: 0,
            publish_rate_per_s: 0,
            publish_burst: 100,
            when_too_fast: WhenTooFast::Slow,
            topic_aliases: 10,
        }
    }
}

/// What happens to a QoS 1 or 2 message for a session whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The oldest message of the queue goes.
    #[default]
    DropOldest,
    /// The publisher is told: reason code 0x97.
    Refuse,
}

/// What happens to a client that publishes too fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenTooFast {
    /// It is read no faster than it may write.
    #[default]
    Slow,
    /// It is disconnected: reason code 0x96.
    Disconnect,
}

/// Where the engine `upstream` connects to, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamConfig {
    /// `HOST:PORT` of the other broker.
    pub tcp: Option<String>,
    /// Path of its unix socket.
    pub unix: Option<PathBuf>,
    /// The password beside the user name, which is the device id.
    pub password: Option<String>,
    /// Whether a PROXY v2 header comes first, with the client's address and certificate name.
    pub proxy_protocol: bool,
}

/// Settings that were checked.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) rules: Vec<CheckedRule>,
    pub(crate) anonymous: Option<CheckedRule>,
    pub(crate) username: UsernameRule,
    pub(crate) empty_client_id: EmptyClientId,
    pub(crate) retained_of: RetainedOf,
    pub(crate) delivered_qos: DeliveredQos,
    pub(crate) on_cut: CutConfig,
    pub(crate) quotas: Quotas,
}

/// A rule whose patterns were checked; those with `%i` are still text.
#[derive(Debug, Default)]
pub(crate) struct CheckedRule {
    pub(crate) groups: BTreeSet<String>,
    pub(crate) publish: Vec<String>,
    pub(crate) subscribe: Vec<String>,
    pub(crate) deny: Vec<String>,
    pub(crate) client_id: ClientIdRule,
}

/// A CONNECT with a short client id, as the least that mosquitto can be set to.
const PACKET_BYTES_MIN: u32 = 20;

/// What stands for the device id in a pattern.
pub(crate) const DEVICE_PLACE: &str = "%i";

impl Settings {
    pub(crate) fn check(config: &BrokerConfig) -> Result<Self, ConfigError> {
        let quotas = config.quotas;
        if quotas.packet_bytes < PACKET_BYTES_MIN || quotas.packet_bytes > PACKET_BYTES_MAX {
            return Err(ConfigError::Range("quotas.packet_bytes is 20 to 268435455 (MQTT 5 §1.5.5)"));
        }
        if quotas.max_qos > 2 {
            return Err(ConfigError::Range("quotas.max_qos is 0, 1 or 2"));
        }
        if quotas.inflight == 0 || quotas.connect_timeout_s == 0 || quotas.sessions_per_device == 0 {
            return Err(ConfigError::Range(
                "quotas.inflight, quotas.connect_timeout_s and quotas.sessions_per_device are at least 1",
            ));
        }
        if [
            quotas.filter_bytes_per_device,
            quotas.queued_bytes_per_device,
            quotas.retained_per_device,
            quotas.retained_bytes_per_device,
        ]
        .contains(&0)
        {
            return Err(ConfigError::Range(
                "quotas.filter_bytes_per_device, quotas.queued_bytes_per_device, quotas.retained_per_device and \
                 quotas.retained_bytes_per_device are at least 1",
            ));
        }
        let rules = if config.rules.is_empty() { vec![default_rule()] } else { config.rules.clone() };
        let rules = rules.into_iter().map(CheckedRule::check).collect::<Result<_, _>>()?;
        let anonymous = config.anonymous.clone().map(|rule| {
            CheckedRule::check(RuleConfig {
                publish: rule.publish,
                subscribe: rule.subscribe,
                deny: rule.deny,
                client_id: ClientIdRule::Any,
                groups: BTreeSet::new(),
            })
        });
        Ok(Self {
            rules,
            anonymous: anonymous.transpose()?,
            username: config.username,
            empty_client_id: config.empty_client_id,
            retained_of: config.retained_of,
            delivered_qos: config.delivered_qos,
            on_cut: config.on_cut,
            quotas,
        })
    }
}

impl Settings {
    /// Everyone may do everything: for the probe, which looks at packets and not at rules.
    pub(crate) fn open() -> Self {
        let all = || vec!["#".to_owned()];
        let open = CheckedRule {
            publish: all(),
            subscribe: all(),
            client_id: ClientIdRule::Any,
            ..CheckedRule::default()
        };
        Self {
            rules: Vec::new(),
            anonymous: Some(open),
            username: UsernameRule::Ignore,
            empty_client_id: EmptyClientId::Assign,
            retained_of: RetainedOf::Anyone,
            delivered_qos: DeliveredQos::Lesser,
            on_cut: CutConfig::default(),
            quotas: Quotas::default(),
        }
    }
}

fn default_rule() -> RuleConfig {
    RuleConfig {
        publish: vec!["devices/%i/#".to_owned()],
        subscribe: vec!["devices/%i/#".to_owned(), "fleet/#".to_owned()],
        ..RuleConfig::default()
    }
}

impl CheckedRule {
    fn check(rule: RuleConfig) -> Result<Self, ConfigError> {
        for pattern in rule.publish.iter().chain(&rule.subscribe).chain(&rule.deny) {
            TopicFilter::parse(&pattern.replace(DEVICE_PLACE, "x"))
                .map_err(|error| ConfigError::Pattern { pattern: pattern.clone(), error })?;
        }
        Ok(Self {
            groups: rule.groups,
            publish: rule.publish,
            subscribe: rule.subscribe,
            deny: rule.deny,
            client_id: rule.client_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_and_patterns_that_are_no_filters_are_refused() {
        assert!(toml::from_str::<BrokerConfig>("enigne = 'embedded'").is_err());
        assert!(toml::from_str::<BrokerConfig>("[quotas]\nfilter = 3").is_err());
        let config: BrokerConfig = toml::from_str("[[rules]]\npublish = ['a/#/b']").expect("reads");
        assert!(matches!(Settings::check(&config), Err(ConfigError::Pattern { .. })));
        let config: BrokerConfig = toml::from_str("[[rules]]\npublish = ['x%i/+']").expect("reads");
        assert!(Settings::check(&config).is_ok());
    }

    #[test]
    fn quotas_have_a_range() {
        for (quota, is_good) in [
            ("packet_bytes = 19", false),
            ("packet_bytes = 20", true),
            ("max_qos = 0", true),
            ("max_qos = 3", false),
            ("packet_bytes = 268435455", true),
            ("packet_bytes = 268435456", false),
            ("inflight = 0", false),
            ("inflight = 1", true),
            ("connect_timeout_s = 0", false),
            ("sessions_per_device = 0", false),
            ("filter_bytes_per_device = 0", false),
            ("queued_bytes_per_device = 0", false),
            ("retained_per_device = 0", false),
            ("retained_bytes_per_device = 0", false),
            ("retained = 0", true),
            ("topic_aliases = 0", true),
        ] {
            let config: BrokerConfig = toml::from_str(&format!("[quotas]\n{quota}")).expect("reads");
            assert_eq!(Settings::check(&config).is_ok(), is_good, "{quota}");
        }
    }
}
