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
