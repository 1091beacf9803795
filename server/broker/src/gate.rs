//! The gate: every packet of a client passes it before an engine sees it.
//!
//! * CONNECT: the client id is bound to the certificate, the user name checked, the will held
//!   against the rules.
//! * PUBLISH: aliases are resolved first, then the name is checked and held against the rules.
//! * SUBSCRIBE and UNSUBSCRIBE: each filter is checked and must lie within the rules.
//!
//! What these let pass is put before the edge's judge: rules of the zone and Access. So is each message that is
//! to reach the client, for such a rule may name a topic that a filter only contains.
//!
//! The answers of version 3.1.1, which has few codes, are made from the same reasons by the writers.

use std::sync::Arc;

use muster_policy::access::Holder;
use muster_policy::mqtt::{self, Asked, Judge};
use tokio::time::{Duration, Instant};

use crate::author::Author;
use crate::config::{ClientIdRule, EmptyClientId, Quotas, Settings, UsernameRule, WhenTooFast};
use crate::rules::{Reading, Rules};
use crate::topic::{SHARE_PREFIX, Subscribed, TopicError, TopicName};
use crate::wire::connect::Connect;
use crate::wire::publish::Publish;
use crate::wire::subscribe::{Options, Subscribe, Unsubscribe};
use crate::wire::{Broken, Code, Qos, Version};

/// Who has a session: sessions of two owners never meet, even with the same client id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) enum Owner {
    /// Someone without a certificate.
    Anonymous,
    /// The holder of a certificate for this device.
    Device(Box<str>),
}

/// The gate of one connection after its CONNECT was let in.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) rules: Arc<Rules>,
    /// Who sends what it lets pass.
    pub(crate) author: Author,
    judge: Arc<dyn Judge>,
    aliases: Aliases,
    limits: Limits,
    rate: Rate,
}

/// What the gate lets pass, or the code of its refusal; the connection goes on.
pub(crate) type Verdict<T> = Result<T, Code>;

/// A CONNECT that was let in.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) owner: Owner,
    pub(crate) gate: Gate,
    /// The client id was empty and is now ours.
    pub(crate) is_assigned: bool,
}

/// Holds a CONNECT against the holder's certificate and rules, and puts it before the judge.
///
/// `assigned` makes the last part of a client id for a client that sent none.
///
/// # Errors
/// The code of the refusal.
pub(crate) fn admit(
    connect: &mut Connect,
    holder: Option<&Holder>,
    settings: &Settings,
    judge: Arc<dyn Judge>,
    assigned: impl FnOnce() -> String,
) -> Result<Admission, Code> {
    if connect.has_authentication_method {
        return Err(Code::BAD_AUTHENTICATION_METHOD);
    }
    let (owner, rules) = match holder {
        Some(holder) => {
            let device = holder.device.as_str();
            (Owner::Device(device.into()), Rules::of_device(settings, &holder.groups, device))
        }
        None if settings.anonymous.is_none() => return Err(Code::NOT_AUTHORIZED),
        None => (Owner::Anonymous, Rules::of_anonymous(settings)),
    };
    let rules = rules.map_err(|_| Code::NOT_AUTHORIZED)?;
    check_username(connect, holder, settings.username)?;
    let is_assigned = connect.client_id.is_empty();
    if is_assigned && settings.empty_client_id == EmptyClientId::Refuse {
        return Err(Code::CLIENT_ID_NOT_VALID);
    }
    bind_client_id(connect, &owner, rules.client_id, assigned)?;
    let limits = Limits::of(&settings.quotas);
    if let Some(will) = &connect.will {
        limits.check(will.qos, will.retain).map_err(|broken| broken.code)?;
        limits.check_payload(&will.payload)?;
        let topic = TopicName::parse(&will.topic).map_err(|_| Code::TOPIC_NAME_INVALID)?;
        if !rules.may_publish(topic) {
            return Err(Code::NOT_AUTHORIZED);
        }
    }
    judge.judge(&Asked::Connect(&as_judged(connect))).map_err(|_| Code::NOT_AUTHORIZED)?;
    let gate = Gate {
        rules: Arc::new(rules),
        author: holder.map_or(Author::Anonymous, |holder| Author::Holder(Box::new(holder.into()))),
        judge,
        aliases: Aliases::new(settings.quotas.topic_aliases),
        limits,
        rate: Rate::new(&settings.quotas),
    };
    Ok(Admission { owner, gate, is_assigned })
}

/// What the judge sees of a CONNECT.
fn as_judged(connect: &Connect) -> mqtt::Connect {
    let will = connect.will.as_ref().map(|will| mqtt::Will {
        topic: will.topic.as_str().into(),
        qos: will.qos.bits(),
        retain: will.retain,
    });
    mqtt::Connect {
        client_id: connect.client_id.as_str().into(),
        username: connect.username.as_deref().unwrap_or_default().into(),
        version: match connect.version {
            Version::V31 | Version::V311 => mqtt::Version::V311,
            Version::V5 => mqtt::Version::V5,
        },
        will,
    }
}

fn check_username(connect: &Connect, holder: Option<&Holder>, rule: UsernameRule) -> Result<(), Code> {
    match (rule, &connect.username, holder) {
        (UsernameRule::Device, Some(name), Some(holder)) if name != holder.device.as_str() => {
            Err(Code::BAD_USERNAME_OR_PASSWORD)
        }
        _ => Ok(()),
    }
}

fn bind_client_id(
    connect: &mut Connect,
    owner: &Owner,
    rule: ClientIdRule,
    assigned: impl FnOnce() -> String,
) -> Result<(), Code> {
    if connect.client_id.is_empty() {
        // MQTT 3.1.1 §3.1.3.1: an empty id can't have a session that stays, for it can't be told. 3.1 has no empty id.
        let may_be_empty = match connect.version {
            Version::V31 => false,
            Version::V311 => connect.clean_start,
            Version::V5 => true,
        };
        if !may_be_empty {
            return Err(Code::CLIENT_ID_NOT_VALID);
        }
        connect.client_id = match owner {
            Owner::Device(device) if rule == ClientIdRule::Bound => format!("{device}/{}", assigned()),
            Owner::Anonymous | Owner::Device(_) => assigned(),
        };
        return Ok(());
    }
    if connect.client_id.chars().any(char::is_control) {
        return Err(Code::CLIENT_ID_NOT_VALID);
    }
    let bound = match owner {
        Owner::Anonymous => true,
        Owner::Device(device) => connect
            .client_id
            .strip_prefix(device.as_ref())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    };
    if bound || rule == ClientIdRule::Any { Ok(()) } else { Err(Code::CLIENT_ID_NOT_VALID) }
}

/// Whether a client may go on after its publication was refused.
///
/// MQTT 3.1.1 has no code for it: the publication is acknowledged and dropped, or the connection ends (§3.3.5). It
/// ends, so that nobody takes the message for delivered. Topics with `$` are the server's own (§4.7.2): other
/// brokers take and drop what clients send there, and so do we. So is a payload above a limit that was set for it.
pub(crate) fn may_go_on(version: Version, code: Code, topic: &str) -> bool {
    version == Version::V5 || code == Code::PACKET_TOO_LARGE || topic.starts_with('$')
}

impl Gate {
    /// Resolves the alias, and says whether the topic may be published to.
    ///
    /// # Errors
    /// When the alias or the name is not valid, or the message needs what there is not, which ends the connection.
    pub(crate) fn check_publish(&mut self, publish: &mut Publish) -> Result<Verdict<()>, Broken> {
        if let Some(alias) = publish.alias {
            self.aliases.resolve(alias, &mut publish.topic)?;
        }
        self.limits.check(publish.qos, publish.retain)?;
        let topic = match TopicName::parse(&publish.topic) {
            Ok(topic) => topic,
            // A share is nobody's to publish to.
            Err(TopicError::Refused(_)) => return Ok(Err(Code::NOT_AUTHORIZED)),
            Err(TopicError::Malformed(what)) => return Err(Broken::protocol(what)),
        };
        if let Err(code) = self.limits.check_payload(&publish.payload) {
            return Ok(Err(code));
        }
        if !self.rules.may_publish(topic) {
            return Ok(Err(Code::NOT_AUTHORIZED));
        }
        let (qos, retain) = (publish.qos.bits(), publish.retain);
        Ok(self.judged(&Asked::Publish(mqtt::Message { topic: topic.as_str(), qos, retain })))
    }

    /// Whether a message may reach the client now.
    pub(crate) fn may_deliver(&self, topic: &str, qos: Qos, retain: bool) -> bool {
        self.judged(&Asked::Deliver(mqtt::Message { topic, qos: qos.bits(), retain })).is_ok()
    }

    fn judged(&self, asked: &Asked<'_>) -> Verdict<()> {
        self.judge.judge(asked).map_err(|_| Code::NOT_AUTHORIZED)
    }

    /// Checks each filter of a SUBSCRIBE.
    ///
    /// # Errors
    /// When a filter is malformed, or a shared subscription asks for no local (MQTT 5 §3.8.3.1), which ends
    /// the connection.
    pub(crate) fn check_subscribe(
        &self,
        subscribe: Subscribe,
    ) -> Result<Vec<Verdict<(Subscribed, Options)>>, Broken> {
        subscribe
            .filters
            .into_iter()
            .map(|(filter, options)| {
                let is_shared = filter.starts_with(SHARE_PREFIX);
                let checked = self.check_filter(&filter)?;
                if options.no_local && is_shared {
                    return Err(Broken::protocol("no local on a shared subscription"));
                }
                Ok(checked.and_then(|filter| {
                    let options = Options { qos: options.qos.min(self.limits.max_qos), ..options };
                    let asked = filter.filter.as_str();
                    self.judged(&Asked::Subscribe { filter: asked, qos: options.qos.bits() })?;
                    Ok((filter, options))
                }))
            })
            .collect()
    }

    /// Checks each filter of an UNSUBSCRIBE.
    ///
    /// # Errors
    /// When a filter is malformed, which ends the connection.
    pub(crate) fn check_unsubscribe(
        &self,
        unsubscribe: &Unsubscribe,
    ) -> Result<Vec<Verdict<Subscribed>>, Broken> {
        unsubscribe.filters.iter().map(|filter| self.check_filter(filter)).collect()
    }

    /// How long the client must wait after a publication.
    ///
    /// # Errors
    /// When it is too fast and must go.
    pub(crate) fn pace(&mut self, now: Instant) -> Result<Option<Instant>, Broken> {
        self.rate.take(now)
    }

    /// A malformed filter breaks the protocol, and has no code of its own in a SUBACK: 0x8f is for one that is well
    /// formed and not accepted (MQTT 5 §3.9.3, §4.13.1; 3.1.1 §4.8).
    fn check_filter(&self, filter: &str) -> Result<Verdict<Subscribed>, Broken> {
        let filter = Subscribed::parse(filter).map_err(|error| error.broken(Code::TOPIC_FILTER_INVALID))?;
        Ok(match self.rules.judge_filter(&filter.filter) {
            Reading::Allowed => Ok(filter),
            Reading::Beyond => Err(Code::NOT_AUTHORIZED),
            Reading::Excepted => Err(Code::UNSPECIFIED),
        })
    }
}

/// What a message may be at most, whoever sends it.
#[derive(Clone, Copy, Debug)]
struct Limits {
    max_qos: Qos,
    has_retained: bool,
    /// Zero for any.
    payload_bytes: u32,
}

impl Limits {
    fn of(quotas: &Quotas) -> Self {
        Self {
            max_qos: Qos::from_bits(quotas.max_qos).unwrap_or(Qos::Two),
            has_retained: quotas.retained > 0,
            payload_bytes: quotas.payload_bytes,
        }
    }

    /// MQTT 5 §3.2.2.3.4 and §3.2.2.3.5: clients are told in CONNACK.
    fn check(self, qos: Qos, retain: bool) -> Result<(), Broken> {
        if qos > self.max_qos {
            return Err(Broken::new(Code::QOS_NOT_SUPPORTED, "a QoS above the highest"));
        }
        if retain && !self.has_retained {
            return Err(Broken::new(Code::RETAIN_NOT_SUPPORTED, "a retained message where there are none"));
        }
        Ok(())
    }

    fn check_payload(self, payload: &[u8]) -> Verdict<()> {
        let most = usize::try_from(self.payload_bytes).unwrap_or(usize::MAX);
        if most > 0 && payload.len() > most { Err(Code::PACKET_TOO_LARGE) } else { Ok(()) }
    }
}

/// Topics that a peer gave an alias, MQTT 5 §3.3.2.3.4.
#[derive(Debug)]
pub(crate) struct Aliases {
    topics: Vec<Option<Box<str>>>,
    max: u16,
}

impl Aliases {
    pub(crate) const fn new(max: u16) -> Self {
        Self { topics: Vec::new(), max }
    }

    /// Puts the alias's topic in the place of an empty one, or notes a topic that is there.
    pub(crate) fn resolve(&mut self, alias: u16, topic: &mut String) -> Result<(), Broken> {
        if alias > self.max {
            return Err(Broken::new(Code::TOPIC_ALIAS_INVALID, "a topic alias above the maximum"));
        }
        let place = usize::from(alias);
        if topic.is_empty() {
            let known = self.topics.get(place).and_then(Option::as_ref);
            *topic = known.ok_or(Broken::protocol("an unknown topic alias"))?.to_string();
            return Ok(());
        }
        if self.topics.len() <= place {
            self.topics.resize(place.saturating_add(1), None);
        }
        if let Some(noted) = self.topics.get_mut(place) {
            *noted = Some(topic.as_str().into());
        }
        Ok(())
    }
}

/// A bucket of publications that fills with time.
#[derive(Debug)]
struct Rate {
    per_s: u32,
    /// The time at which the bucket would be full: one publication moves it by one interval.
    full_at: Option<Instant>,
    burst: Duration,
    when_too_fast: WhenTooFast,
}

impl Rate {
    fn new(quotas: &Quotas) -> Self {
        let interval = Duration::from_secs(1).checked_div(quotas.publish_rate_per_s).unwrap_or_default();
        Self {
            per_s: quotas.publish_rate_per_s,
            full_at: None,
            burst: interval.saturating_mul(quotas.publish_burst),
            when_too_fast: quotas.when_too_fast,
        }
    }

    fn take(&mut self, now: Instant) -> Result<Option<Instant>, Broken> {
        let Some(interval) = Duration::from_secs(1).checked_div(self.per_s) else { return Ok(None) };
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + interval;
        self.full_at = Some(full_at);
        if full_at <= now + self.burst + interval {
            return Ok(None);
        }
        match self.when_too_fast {
            WhenTooFast::Slow => Ok(Some(full_at - self.burst - interval)),
            WhenTooFast::Disconnect => {
                Err(Broken::new(Code::MESSAGE_RATE_TOO_HIGH, "more publications than allowed"))
            }
        }
    }
}
