//! What a request is judged by after its certificate: the rules of its zone, then the Access application
//! of its hostname and path.
//!
//! Rules come first and in their order. Of applications the one with the nearest hostname and the
//! longest path decides, by the first of its policies that means the visitor; when none does, nobody
//! gets in. There is no identity provider here, so `allow` asks for no more than `non_identity` does.
//!
//! Where any of this goes by the path, one with dot segments is refused before: an origin that does not
//! read them as the gate does would serve another path than was judged.

mod path;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::path::normal_path;
use self::path::{begins_with, has_dot_segment};
use crate::access::Holder;
use crate::expression::{Expression, Field, Value};
use crate::host::HostPattern;
use crate::identity::ZoneId;
use crate::network::Network;
use crate::reason::Reason;

/// A gate as it is handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateWritten {
    /// The Access applications.
    pub apps: Vec<App>,
    /// The rules, zone by zone.
    pub zones: Vec<ZoneRules>,
    /// Whether nobody is let in, as what the gate would say is not known.
    #[serde(default)]
    pub is_shut: bool,
    /// The zones whose origins hear of certificates by no `cf-cert-*` headers.
    #[serde(default)]
    pub untold_zones: BTreeSet<ZoneId>,
}

/// An Access application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// The hostname.
    pub host: HostPattern,
    /// What the path begins with, in whole segments; `/` for all.
    pub path: String,
    /// Its policies, in their order.
    pub policies: Vec<Policy>,
}

/// A policy of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What becomes of the visitors it means.
    pub decision: Decision,
    /// Which visitors it means.
    pub visitors: Visitors,
}

/// What becomes of a visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The visitor gets in.
    Allow,
    /// The visitor gets in, before any other policy is looked at.
    Bypass,
    /// The visitor does not get in.
    Deny,
    /// The visitor gets in, before policies that allow or deny.
    NonIdentity,
}

impl Decision {
    /// Bypass and service policies are looked at before the others.
    const fn rank(self) -> u8 {
        match self {
            Self::Bypass | Self::NonIdentity => 0,
            Self::Allow | Self::Deny => 1,
        }
    }
}

/// Some visitors: one of `include`, all of `require`, none of `exclude`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visitors {
    /// One of these must hold.
    pub include: Vec<Condition>,
    /// All of these must hold.
    pub require: Vec<Condition>,
    /// None of these may hold.
    pub exclude: Vec<Condition>,
}

/// What can be said of a visitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// The visitor presents a certificate that the hostname accepts.
    Certificate,
    /// The visitor's certificate has exactly this common name.
    CommonName(String),
    /// Anybody.
    Everyone,
    /// The visitor belongs to a group.
    Group(Box<Visitors>),
    /// The visitor comes from this network.
    Ip(Network),
}

/// The rules of a zone, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRules {
    /// The zone.
    pub zone: ZoneId,
    /// The rules.
    pub rules: Vec<RuleWritten>,
}

/// A rule as it is handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleWritten {
    /// Which requests it means.
    pub expression: String,
    /// What becomes of them.
    pub action: Action,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The request is refused.
    Block,
    /// It is noted.
    Log,
    /// The rules after this one are left out.
    Skip,
}

/// Most rules of a zone.
pub const RULES_MAX: usize = 64;

/// A checked gate.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    is_shut: bool,
    apps: Vec<Guarded>,
    zones: BTreeMap<ZoneId, Rules>,
    untold_zones: BTreeSet<ZoneId>,
}

/// An application, its policies in the order in which they are looked at, each with its place as written.
#[derive(Clone, Debug)]
struct Guarded {
    host: HostPattern,
    path: String,
    policies: Vec<(usize, Policy)>,
}

impl Guarded {
    fn new(app: &App) -> Self {
        let mut policies: Vec<_> = app.policies.iter().cloned().enumerate().collect();
        policies.sort_by_key(|(_, policy)| policy.decision.rank());
        Self { host: app.host.clone(), path: app.path.clone(), policies }
    }
}

/// The rules of one zone, in their order.
#[derive(Clone, Debug)]
struct Rules {
    rules: Vec<Rule>,
    /// Whether one of them asks what each packet of MQTT has of its own.
    ask_packets: bool,
    /// Whether one of them asks for the path.
    ask_path: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    /// None for one that can't be read: it means every request if it blocks, and none otherwise.
    expression: Option<Expression>,
    action: Action,
    asks_packets: bool,
    asks_path: bool,
}

impl Rule {
    fn new(written: &RuleWritten) -> Self {
        let expression: Option<Expression> = written.expression.parse().ok();
        let asks = |is_one| expression.as_ref().is_some_and(|expression| expression.asks(is_one));
        let (asks_packets, asks_path) = (asks(Field::is_of_packet), asks(Field::is_of_path));
        Self { expression, action: written.action, asks_packets, asks_path }
    }

    fn means<'a>(&self, value_of: &dyn Fn(Field) -> Value<'a>) -> bool {
        let unread = self.action == Action::Block;
        self.expression.as_ref().map_or(unread, |expression| expression.matches(value_of))
    }
}

/// A request before the gate.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// The zone of the hostname's rule.
    pub zone: ZoneId,
    /// The hostname, in its normal form.
    pub host: &'a str,
    /// The path as it was sent; `/` of MQTT without a request.
    pub path: &'a str,
    /// Who shows a certificate that holds.
    pub holder: Option<&'a Holder>,
    /// Where the request comes from.
    pub source: IpAddr,
}

/// A request that passed, with what was noted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// How many rules noted it.
    pub noted: usize,
}

/// A judgement, with what it rests on. Places count from 0 in what was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the request passes, or why not.
    pub verdict: Result<(), Reason>,
    /// The rule of the zone that blocked it, or that left out the rules after it.
    pub rule: Option<usize>,
    /// The rules of the zone that noted it.
    pub noted: Vec<usize>,
    /// The application that it is for.
    pub app: Option<usize>,
    /// The policy of the application that meant the visitor.
    pub policy: Option<usize>,
}

impl Judgement {
    const fn new(verdict: Result<(), Reason>) -> Self {
        Self { verdict, rule: None, noted: Vec::new(), app: None, policy: None }
    }

    /// What is noted of a request that passed.
    ///
    /// # Errors
    /// The reason why it did not.
    pub fn passed(&self) -> Result<Passed, Reason> {
        self.verdict.map(|()| Passed { noted: self.noted.len() })
    }
}

impl Gate {
    /// Reads what was handed over.
    pub fn new(written: &GateWritten) -> Self {
        let zones = written.zones.iter().map(|zone| (zone.zone, Rules::new(zone)));
        Self {
            is_shut: written.is_shut,
            apps: written.apps.iter().map(Guarded::new).collect(),
            zones: zones.collect(),
            untold_zones: written.untold_zones.clone(),
        }
    }

    /// Whether origins of a zone hear of certificates by `cf-cert-*` headers.
    pub fn tells_certificates(&self, zone: ZoneId) -> bool {
        !self.untold_zones.contains(&zone)
    }

    /// Judges a request: [`Reason::RequestMalformed`], [`Reason::RuleBlocked`], [`Reason::AccessDenied`].
    pub fn judge<'a>(&self, visit: &Visit<'_>, value_of: &dyn Fn(Field) -> Value<'a>) -> Judgement {
        if self.is_shut {
            return Judgement::new(Err(Reason::AccessDenied));
        }
        let rules = self.zones.get(&visit.zone);
        let goes_by_path = rules.is_some_and(|rules| rules.ask_path) || self.has_path_of(visit.host);
        if goes_by_path && has_dot_segment(visit.path) {
            return Judgement::new(Err(Reason::RequestMalformed));
        }
        let by_rules = match rules {
            Some(rules) => rules.judge(value_of, |_| true),
            None => Judgement::new(Ok(())),
        };
        if by_rules.verdict.is_err() {
            return by_rules;
        }
        let Some((place, app)) = self.app(visit) else { return by_rules };
        let meant = app.policies.iter().find(|(_, policy)| policy.visitors.mean(visit));
        let lets_in = meant.is_some_and(|(_, policy)| policy.decision != Decision::Deny);
        Judgement {
            verdict: if lets_in { Ok(()) } else { Err(Reason::AccessDenied) },
            app: Some(place),
            policy: meant.map(|(place, _)| *place),
            ..by_rules
        }
    }

    /// Whether rules of any zone ask what each packet of MQTT has of its own. If not,
    /// [`Gate::judge_packet`] says what [`Gate::judge`] said of the connection.
    pub fn asks_packets(&self) -> bool {
        self.is_shut || self.zones.values().any(|rules| rules.ask_packets)
    }

    /// Judges a packet of an MQTT connection that was let in, by the rules of its zone:
    /// [`Reason::RuleBlocked`], and [`Reason::AccessDenied`] of a gate that is shut.
    ///
    /// Rules that ask nothing of packets are not noted again.
    pub fn judge_packet<'a>(&self, zone: ZoneId, value_of: &dyn Fn(Field) -> Value<'a>) -> Judgement {
        if self.is_shut {
            return Judgement::new(Err(Reason::AccessDenied));
        }
        match self.zones.get(&zone).filter(|rules| rules.ask_packets) {
            Some(rules) => rules.judge(value_of, |rule| rule.asks_packets),
            None => Judgement::new(Ok(())),
        }
    }

    /// Whether an application of a hostname stands at a part of its paths.
    fn has_path_of(&self, host: &str) -> bool {
        self.apps.iter().any(|app| app.path != "/" && names(&app.host, host))
    }

    /// The application of a request: the exact hostname before a wildcard, then the longest path.
    fn app(&self, visit: &Visit<'_>) -> Option<(usize, &Guarded)> {
        // Most accounts have none, and then no path has to be read.
        let of_host = self.apps.iter().enumerate().filter(|(_, app)| names(&app.host, visit.host));
        let mut of_host = of_host.peekable();
        of_host.peek()?;
        let path = normal_path(visit.path);
        of_host
            .filter(|(_, app)| begins_with(&path, &app.path))
            .max_by_key(|(_, app)| (!app.host.is_wildcard(), app.path.trim_end_matches('/').len()))
    }
}

impl Rules {
    fn new(written: &ZoneRules) -> Self {
        let rules: Vec<_> = written.rules.iter().map(Rule::new).collect();
        let ask_packets = rules.iter().any(|rule| rule.asks_packets);
        let ask_path = rules.iter().any(|rule| rule.asks_path);
        Self { rules, ask_packets, ask_path }
    }

    /// Rules that do not count are not noted.
    fn judge<'a>(&self, value_of: &dyn Fn(Field) -> Value<'a>, counts: fn(&Rule) -> bool) -> Judgement {
        let mut judgement = Judgement::new(Ok(()));
        for (place, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.means(value_of)) {
            match rule.action {
                Action::Block => judgement.verdict = Err(Reason::RuleBlocked),
                Action::Log => {
                    judgement.noted.extend(counts(rule).then_some(place));
                    continue;
                }
                Action::Skip => {}
            }
            judgement.rule = Some(place);
            break;
        }
        judgement
    }
}

impl Visitors {
    fn mean(&self, visit: &Visit<'_>) -> bool {
        self.include.iter().any(|condition| condition.holds(visit))
            && self.require.iter().all(|condition| condition.holds(visit))
            && !self.exclude.iter().any(|condition| condition.holds(visit))
    }
}

impl Condition {
    fn holds(&self, visit: &Visit<'_>) -> bool {
        match self {
            Self::Certificate => visit.holder.is_some(),
            Self::CommonName(name) => visit.holder.is_some_and(|holder| holder.device.as_str() == name),
            Self::Everyone => true,
            Self::Group(visitors) => visitors.mean(visit),
            Self::Ip(network) => network.contains(visit.source),
        }
    }
}

fn names(pattern: &HostPattern, host: &str) -> bool {
    let name = pattern.name().as_str();
    if !pattern.is_wildcard() {
        return name == host;
    }
    host.split_once('.').is_some_and(|(_, parent)| parent == name)
}
