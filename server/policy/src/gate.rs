//! What a request is judged by after its certificate: the rules of its zone, then the Access application
//! of its hostname and path.
//!
//! Rules come first and in their order. Of applications the one with the nearest hostname and the
//! longest path decides, by the first of its policies that means the visitor; when none does, nobody
//! gets in. There is no identity provider here, so `allow` asks for no more than `non_identity` does.

use std::collections::BTreeMap;
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
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// He gets in.
    Allow,
    /// He gets in, before any other policy is looked at.
    Bypass,
    /// He does not.
    Deny,
    /// He gets in, before policies that allow or deny.
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
    /// He shows a certificate that the hostname accepts.
    Certificate,
    /// His certificate has exactly this common name.
    CommonName(String),
    /// Anybody.
    Everyone,
    /// He belongs to a group.
    Group(Box<Visitors>),
    /// He comes from there.
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
    apps: Vec<App>,
    zones: BTreeMap<ZoneId, Vec<Rule>>,
}

#[derive(Clone, Debug)]
struct Rule {
    /// None for one that can't be read: it means every request if it blocks, and none otherwise.
    expression: Option<Expression>,
    action: Action,
}

/// A request before the gate.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// The zone of the hostname's rule.
    pub zone: ZoneId,
    /// The hostname, in its normal form.
    pub host: &'a str,
    /// The path as it was sent.
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

impl Gate {
    /// Reads what was handed over.
    pub fn new(written: &GateWritten) -> Self {
        let rule =
            |rule: &RuleWritten| Rule { expression: rule.expression.parse().ok(), action: rule.action };
        let zones = written.zones.iter().map(|zone| (zone.zone, zone.rules.iter().map(rule).collect()));
        let mut apps = written.apps.clone();
        for app in &mut apps {
            app.policies.sort_by_key(|policy| policy.decision.rank());
        }
        Self { is_shut: written.is_shut, apps, zones: zones.collect() }
    }

    /// Judges a request.
    ///
    /// # Errors
    /// [`Reason::RuleBlocked`], [`Reason::AccessDenied`].
    pub fn judge<'a>(
        &self,
        visit: &Visit<'_>,
        value_of: &dyn Fn(Field) -> Value<'a>,
    ) -> Result<Passed, Reason> {
        if self.is_shut {
            return Err(Reason::AccessDenied);
        }
        let mut noted = 0_usize;
        for rule in self.zones.get(&visit.zone).into_iter().flatten() {
            let unread = rule.action == Action::Block;
            if !rule.expression.as_ref().map_or(unread, |expression| expression.matches(value_of)) {
                continue;
            }
            match rule.action {
                Action::Block => return Err(Reason::RuleBlocked),
                Action::Log => noted = noted.saturating_add(1),
                Action::Skip => break,
            }
        }
        match self.app(visit) {
            Some(app) if !app.lets_in(visit) => Err(Reason::AccessDenied),
            _ => Ok(Passed { noted }),
        }
    }

    /// The application of a request: the exact hostname before a wildcard, then the longest path.
    fn app(&self, visit: &Visit<'_>) -> Option<&App> {
        // Most accounts have none, and then no path has to be read.
        let of_host = self.apps.iter().filter(|app| names(&app.host, visit.host));
        let mut of_host = of_host.peekable();
        of_host.peek()?;
        let path = normal_path(visit.path);
        of_host
            .filter(|app| begins_with(&path, &app.path))
            .max_by_key(|app| (!app.host.is_wildcard(), app.path.trim_end_matches('/').len()))
    }
}

impl App {
    fn lets_in(&self, visit: &Visit<'_>) -> bool {
        let meant = self.policies.iter().find(|policy| policy.visitors.mean(visit));
        meant.is_some_and(|policy| policy.decision != Decision::Deny)
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
    for segment in decoded.split(['/', '\\']) {
        let name = segment.split(';').next().unwrap_or_default();
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
            serial: Serial::from_bytes(&[4]).expect("a serial"),
            fingerprint: Fingerprint::from_bytes([5; 32]),
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
        gate.judge(&visit, &|field| match field {
            Field::UriPath => Value::Text(path.to_owned().into()),
            other if other.kind() == Kind::Bool => Value::Bool(false),
            other if other.kind() == Kind::Ip => Value::Ip(source),
            _ => Value::Text("".into()),
        })
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
}
