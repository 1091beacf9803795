//! What a request is judged by after its certificate: the rules of its zone, then the Access application
//! of its hostname and path.
//!
//! Rules come first and in their order. Of applications the one with the nearest hostname and the
//! longest path decides, by the first of its policies that means the visitor; when none does, nobody
//! gets in. There is no identity provider here, so `allow` asks for no more than `non_identity` does.
//!
//! Where any of this goes by the path, one with dot segments is refused before: an origin that does not
//! read them as the gate does would serve another path than was judged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

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

/// Whether a path lies at or below another, in whole segments.
fn begins_with(path: &str, start: &str) -> bool {
    let start = start.trim_end_matches('/');
    path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Gives the path that an origin is likely to see: decoded once, without `.`, `..`, empty segments,
/// backslashes and parameters after `;`. Else `/public/../admin`, `/%61dmin` or, at servlets,
/// `/admin;x` and `/public/..;/admin` would pass for another place. A slash at the end stays.
pub fn normal_path(path: &str) -> String {
    let decoded = decoded(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut is_open = false;
    for name in names_of(&decoded) {
        is_open = matches!(name, "" | "." | "..");
        match name {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    // RFC 3986 §5.2.4 ends these with a slash too; a rule about what lies below a folder means it.
    let end = if is_open && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

/// Whether a path, decoded once, has a segment that origins may or may not take out (RFC 3986 §5.2.4).
fn has_dot_segment(path: &str) -> bool {
    names_of(&decoded(path)).any(|name| matches!(name, "." | ".."))
}

/// The segments of a decoded path, without parameters.
fn names_of(decoded: &str) -> impl Iterator<Item = &str> {
    decoded.split(['/', '\\']).map(|segment| segment.split(';').next().unwrap_or_default())
}

fn decoded(path: &str) -> String {
    let mut octets = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let value = digits
            .filter(|_| *first == b'%')
            .and_then(|digits| core::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        octets.push(value.unwrap_or(*first));
        rest = tail.get(if value.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    String::from_utf8_lossy(&octets).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::expression::Kind;
    use crate::identity::{AccountId, CaId, Fingerprint, Serial};
    use crate::time::UnixTime;

    const ZONE: ZoneId = ZoneId::from_bytes([1; 16]);

    fn holder(name: &str) -> Holder {
        Holder {
            account: AccountId::from_bytes([1; 16]),
            ca: CaId::from_bytes([3; 16]),
            anchor: CaId::from_bytes([3; 16]),
            serial: Serial::from_bytes(&[4]).expect("a serial"),
            fingerprint: Fingerprint::from_bytes([5; 32]),
            above: Vec::new(),
            device: name.parse().expect("an id"),
            groups: BTreeSet::new(),
            not_after: UnixTime::from_secs(100),
        }
    }

    fn app(host: &str, path: &str, policies: Vec<Policy>) -> App {
        App { host: host.parse().expect("a host"), path: path.to_owned(), policies }
    }

    fn policy(decision: Decision, include: &[Condition]) -> Policy {
        Policy { decision, visitors: Visitors { include: include.to_vec(), ..Visitors::default() } }
    }

    fn judge(gate: &Gate, path: &str, holder: Option<&Holder>) -> Result<Passed, Reason> {
        let source = "192.0.2.7".parse().expect("an address");
        let visit = Visit { zone: ZONE, host: "a.example.com", path, holder, source };
        let judgement = gate.judge(&visit, &|field| match field {
            Field::UriPath => Value::Text(path.to_owned().into()),
            other if other.kind() == Kind::Bool => Value::Bool(false),
            other if other.kind() == Kind::Ip => Value::Ip(source),
            _ => Value::Text("".into()),
        });
        judgement.passed()
    }

    #[test]
    fn the_longest_path_of_the_nearest_hostname_decides() {
        let gate = Gate::new(&GateWritten {
            apps: vec![
                app("*.example.com", "/", vec![policy(Decision::Deny, &[Condition::Everyone])]),
                app("a.example.com", "/", vec![policy(Decision::NonIdentity, &[Condition::Certificate])]),
                app(
                    "a.example.com",
                    "/admin",
                    vec![policy(Decision::Allow, &[Condition::CommonName("boss".to_owned())])],
                ),
                app("a.example.com", "/public/", vec![policy(Decision::Bypass, &[Condition::Everyone])]),
            ],
            ..GateWritten::default()
        });
        let (boss, other) = (holder("boss"), holder("other"));
        for (path, visitor, passes) in [
            ("/", None, false),
            ("/", Some(&other), true),
            ("/admin", Some(&other), false),
            ("/admin/x", Some(&boss), true),
            ("/administration", Some(&other), true),
            ("/public", None, true),
            ("/public/x", None, true),
            ("/public/../x", None, false),
            ("/public/%2e%2e/x", None, false),
            ("/public\\..\\x", None, false),
            ("//%61dmin/", Some(&other), false),
            ("/x/..%2fadmin", Some(&other), false),
            ("/admin;x=1", Some(&other), false),
            ("/public/..;/admin", Some(&other), false),
            ("/public/..%3bx/admin", Some(&other), false),
            ("/%", Some(&other), true),
        ] {
            assert_eq!(judge(&gate, path, visitor).is_ok(), passes, "{path} {visitor:?}");
        }
    }

    #[test]
    fn a_path_with_dot_segments_is_refused_where_paths_are_judged() {
        let bypass = || vec![policy(Decision::Bypass, &[Condition::Everyone])];
        let apps = |paths: &[(&str, &str)]| {
            let apps = paths.iter().map(|(host, path)| app(host, path, bypass())).collect();
            Gate::new(&GateWritten { apps, ..GateWritten::default() })
        };
        let ruled = |expression: &str, action| {
            let rules = vec![RuleWritten { expression: expression.to_owned(), action }];
            let zones = vec![ZoneRules { zone: ZONE, rules }];
            Gate::new(&GateWritten { zones, ..GateWritten::default() })
        };
        let strict = [
            apps(&[("a.example.com", "/"), ("*.example.com", "/public")]),
            ruled(r#"http.request.uri.path eq "/secret""#, Action::Block),
            ruled(r#"ssl and http.request.uri contains "secret""#, Action::Skip),
        ];
        let others = [
            Gate::default(),
            apps(&[("a.example.com", "/"), ("b.example.com", "/public")]),
            ruled(r#"http.request.uri.query eq "secret""#, Action::Block),
        ];
        let dotted = [
            "/x/../public",
            "/.",
            "/x/..",
            "/x/..%2Fpublic",
            "/x/%2e%2E/public",
            "/x/%2e/public",
            "\\..\\x",
            "/x/..%5cpublic",
            "/x/;/../public",
            "/x/..;y/public",
            "/x/..%3by/public",
        ];
        for path in dotted {
            for gate in &strict {
                assert_eq!(judge(gate, path, None), Err(Reason::RequestMalformed), "{path}");
            }
            assert!(others.iter().all(|gate| judge(gate, path, None).is_ok()), "{path}");
        }
        for path in ["/", "/.well-known", "/x..y", "/...", "/public/x.html", "/x;..", "/%252e%252e/x"] {
            assert!(strict.iter().chain(&others).all(|gate| judge(gate, path, None).is_ok()), "{path}");
        }
    }

    #[test]
    fn a_gate_that_is_shut_lets_nobody_in() {
        let gate = Gate::new(&GateWritten { is_shut: true, ..GateWritten::default() });
        assert_eq!(judge(&gate, "/", Some(&holder("boss"))), Err(Reason::AccessDenied));
    }

    #[test]
    fn who_no_policy_means_does_not_get_in() {
        let lone = |policies: Vec<Policy>| {
            let apps = vec![app("a.example.com", "/", policies)];
            Gate::new(&GateWritten { apps, ..GateWritten::default() })
        };
        let holder = holder("meter-1");
        assert_eq!(judge(&lone(Vec::new()), "/", Some(&holder)), Err(Reason::AccessDenied));
        let denied_first = lone(vec![
            policy(Decision::Deny, &[Condition::Everyone]),
            policy(Decision::NonIdentity, &[Condition::Certificate]),
        ]);
        assert!(judge(&denied_first, "/", Some(&holder)).is_ok(), "service policies come before others");
        let mut group = policy(
            Decision::Allow,
            &[Condition::Group(Box::new(Visitors {
                include: vec![Condition::Certificate],
                require: Vec::new(),
                exclude: vec![Condition::CommonName("meter-1".to_owned())],
            }))],
        );
        assert!(judge(&lone(vec![group.clone()]), "/", Some(&holder)).is_err());
        group.visitors.include.push(Condition::Ip("192.0.2.0/24".parse().expect("a network")));
        assert!(judge(&lone(vec![group.clone()]), "/", Some(&holder)).is_ok());
        group.visitors.require.push(Condition::Ip("198.51.100.0/24".parse().expect("a network")));
        assert!(judge(&lone(vec![group]), "/", Some(&holder)).is_err());
    }

    #[test]
    fn rules_hold_in_their_order_and_one_that_can_t_be_read_blocks() {
        let gate = |rules: &[(&str, Action)]| {
            let rules = rules
                .iter()
                .map(|(text, action)| RuleWritten { expression: (*text).to_owned(), action: *action });
            Gate::new(&GateWritten {
                zones: vec![ZoneRules { zone: ZONE, rules: rules.collect() }],
                ..GateWritten::default()
            })
        };
        let blocks = ("not cf.tls_client_auth.cert_verified", Action::Block);
        let logs = ("not ssl", Action::Log);
        assert_eq!(judge(&gate(&[blocks]), "/", None), Err(Reason::RuleBlocked));
        assert_eq!(judge(&gate(&[logs, logs]), "/", None), Ok(Passed { noted: 2 }));
        let skip = (r#"http.request.uri.path eq "/open""#, Action::Skip);
        assert!(judge(&gate(&[skip, blocks]), "/open", None).is_ok());
        assert!(judge(&gate(&[skip, blocks]), "/", None).is_err());
        assert_eq!(judge(&gate(&[("nonsense", Action::Block)]), "/", None), Err(Reason::RuleBlocked));
        assert!(judge(&gate(&[("nonsense", Action::Skip), blocks]), "/", None).is_err());
    }

    #[test]
    fn packets_are_judged_by_rules_only_where_rules_ask_for_them() {
        let gate = |rules: &[(&str, Action)]| {
            let rules = rules
                .iter()
                .map(|(text, action)| RuleWritten { expression: (*text).to_owned(), action: *action });
            Gate::new(&GateWritten {
                zones: vec![ZoneRules { zone: ZONE, rules: rules.collect() }],
                ..GateWritten::default()
            })
        };
        let judge = |gate: &Gate, topic: &'static str| {
            let judgement = gate.judge_packet(ZONE, &|field| match field {
                Field::MqttTopic => Value::Text(topic.into()),
                Field::MqttPacket => Value::Text("publish".into()),
                other if other.kind() == Kind::Bool => Value::Bool(false),
                other if other.kind() == Kind::Number => Value::Number(0),
                _ => Value::Text("".into()),
            });
            judgement.passed()
        };
        let (quiet, blocks) = (("not ssl", Action::Log), (r#"mqtt.topic eq "a""#, Action::Block));
        assert!(!gate(&[quiet]).asks_packets());
        assert_eq!(judge(&gate(&[quiet]), "a"), Ok(Passed { noted: 0 }));
        let both = gate(&[quiet, blocks]);
        assert!(both.asks_packets());
        assert_eq!(judge(&both, "a"), Err(Reason::RuleBlocked));
        assert_eq!(judge(&both, "b"), Ok(Passed { noted: 0 }), "noted with the connection");
        let noted = gate(&[(r#"mqtt.packet eq "publish""#, Action::Log), blocks]);
        assert_eq!(judge(&noted, "b"), Ok(Passed { noted: 1 }));
        assert_eq!(judge(&gate(&[(r#"mqtt.qos lt 1"#, Action::Skip), blocks]), "a"), Ok(Passed { noted: 0 }));
        let shut = Gate::new(&GateWritten { is_shut: true, ..GateWritten::default() });
        assert!(shut.asks_packets());
        assert_eq!(judge(&shut, "a"), Err(Reason::AccessDenied));
    }

    #[test]
    fn a_judgement_says_by_its_places_what_it_rests_on() {
        let rule = |text: &str, action| RuleWritten { expression: text.to_owned(), action };
        let rules = vec![
            rule("not ssl", Action::Log),
            rule(r#"http.request.uri.path eq "/x""#, Action::Block),
            rule(r#"http.request.uri.path eq "/y""#, Action::Skip),
        ];
        let gate = Gate::new(&GateWritten {
            apps: vec![
                app("b.example.com", "/", Vec::new()),
                app(
                    "a.example.com",
                    "/",
                    vec![
                        policy(Decision::Deny, &[Condition::CommonName("thief".to_owned())]),
                        policy(Decision::NonIdentity, &[Condition::CommonName("boss".to_owned())]),
                    ],
                ),
            ],
            zones: vec![ZoneRules { zone: ZONE, rules }],
            ..GateWritten::default()
        });
        let of = |path: &str, name: &str| {
            let (source, holder) = ("192.0.2.7".parse().expect("an address"), holder(name));
            let visit = Visit { zone: ZONE, host: "a.example.com", path, holder: Some(&holder), source };
            gate.judge(&visit, &|field| match field {
                Field::UriPath => Value::Text(path.to_owned().into()),
                other if other.kind() == Kind::Bool => Value::Bool(false),
                _ => Value::Text("".into()),
            })
        };
        let whole = |verdict, rule, app, policy| Judgement { verdict, rule, noted: vec![0], app, policy };
        let denied = Err(Reason::AccessDenied);
        assert_eq!(of("/x", "boss"), whole(Err(Reason::RuleBlocked), Some(1), None, None));
        assert_eq!(of("/y", "boss"), whole(Ok(()), Some(2), Some(1), Some(1)));
        assert_eq!(of("/", "thief"), whole(denied, None, Some(1), Some(0)));
        assert_eq!(of("/", "nobody"), whole(denied, None, Some(1), None));
    }
}
