//! What a request meets after its certificate: rules of the zone, Access applications, headers withheld.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a step that fails is a failed test, in a helper as in the test itself"
)]

mod rig;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use muster_edge::{AccountEntry, Event};
use muster_policy::gate::{
    Action, App, Condition, Decision, GateWritten, Policy, RuleWritten, Visitors, ZoneRules,
};
use muster_policy::reason::Reason;
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa};
use rig::{ACCOUNT, H1, Rig, account, device_params, line};
use tokio::io::AsyncWriteExt as _;

const HOST: &str = "open.example.com";

fn gated(gate: GateWritten) -> Vec<Event> {
    vec![Event::Account(AccountEntry { gate, ..account(ACCOUNT) })]
}

async fn status(connection: &mut H1, path: &str) -> u16 {
    let request = Request::get(path).header("host", HOST).header("cf-cert-verified", "true");
    let request = request.body(Full::<Bytes>::default()).expect("a request");
    let response = connection.sender.send_request(request).await.expect("an answer");
    let status = response.status().as_u16();
    response.into_body().collect().await.expect("a body");
    status
}

#[tokio::test]
async fn an_access_application_is_enforced_at_its_path() {
    let rig = Rig::start().await;
    let (boss, other) = (rig.ca.device("boss", 7), rig.ca.device("other", 8));
    let policy = |decision, include: Condition| Policy {
        decision,
        visitors: Visitors { include: vec![include], ..Visitors::default() },
    };
    let app = |path: &str, policy: Policy| App {
        host: HOST.parse().expect("a host"),
        path: path.to_owned(),
        policies: vec![policy],
    };
    let mut before = rig.h1(HOST, None).await.expect("connected");
    assert_eq!(status(&mut before, "/echo").await, 200);
    rig.tell(gated(GateWritten {
        apps: vec![
            app("/", policy(Decision::NonIdentity, Condition::Certificate)),
            app("/admin", policy(Decision::NonIdentity, Condition::CommonName("boss".to_owned()))),
        ],
        ..GateWritten::default()
    }));
    assert_eq!(status(&mut before, "/echo").await, 403, "on a connection from before too");
    for (pair, path, expected) in [
        (Some(&other), "/echo", 200),
        (Some(&other), "/admin", 403),
        (Some(&other), "/%61dmin/x", 403),
        (Some(&other), "/x/../admin", 400),
        (Some(&boss), "/admin", 200),
        (None, "/admin", 403),
    ] {
        let mut connection = rig.h1(HOST, pair).await.expect("connected");
        assert_eq!(status(&mut connection, path).await, expected, "{path}");
    }
    rig.refused(Reason::AccessDenied, 4).await;
}

#[tokio::test]
async fn a_rule_blocks_who_it_means() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    let rule = |expression: &str, action| RuleWritten { expression: expression.to_owned(), action };
    let zone = rig.snapshot.hosts[0].rule.zone;
    rig.tell(gated(GateWritten {
        zones: vec![ZoneRules {
            zone,
            rules: vec![
                rule(r#"http.request.uri.path eq "/open""#, Action::Skip),
                rule(
                    r#"http.host eq "open.example.com" and not cf.tls_client_auth.cert_verified"#,
                    Action::Block,
                ),
                rule(r#"cf.tls_client_auth.cert_subject_dn contains "CN=nobody""#, Action::Block),
                rule(r#"http.request.uri.path eq "/admin""#, Action::Block),
            ],
        }],
        ..GateWritten::default()
    }));
    for (pair, path, expected) in [
        (None, "/echo", 403),
        (None, "/open", 200),
        (Some(&pair), "/echo", 200),
        (Some(&pair), "/admin", 403),
        (Some(&pair), "/%61dmin", 403),
        (Some(&pair), "/x/../admin", 400),
        (Some(&pair), "//admin", 403),
        (Some(&pair), "/admin;x", 403),
    ] {
        let mut connection = rig.h1(HOST, pair).await.expect("connected");
        assert_eq!(status(&mut connection, path).await, expected, "{path}");
    }
    rig.refused(Reason::RuleBlocked, 5).await;
}

/// Origins get paths as they were sent, and some read the dots and others do not: what is judged would be
/// another path than what is served.
#[tokio::test]
async fn where_a_path_is_judged_none_leads_back() {
    let rig = Rig::start().await;
    let zone = rig.snapshot.hosts[0].rule.zone;
    let app = |path: &str, decision, include: Condition| App {
        host: HOST.parse().expect("a host"),
        path: path.to_owned(),
        policies: vec![Policy {
            decision,
            visitors: Visitors { include: vec![include], ..Visitors::default() },
        }],
    };
    let by_access = GateWritten {
        apps: vec![
            app("/", Decision::NonIdentity, Condition::Certificate),
            app("/public", Decision::Bypass, Condition::Everyone),
        ],
        ..GateWritten::default()
    };
    let ruled = |expression: &str| {
        let rules = vec![RuleWritten { expression: expression.to_owned(), action: Action::Block }];
        GateWritten { zones: vec![ZoneRules { zone, rules }], ..GateWritten::default() }
    };
    let by_path = ruled(r#"starts_with(http.request.uri.path, "/secret")"#);
    let by_uri = ruled(r#"starts_with(http.request.uri, "/secret")"#);
    let by_neither = ruled(r#"http.request.method eq "PUT""#);
    for (gate, expected) in [(by_access, 400), (by_path, 400), (by_uri, 400), (by_neither, 200)] {
        rig.tell(gated(gate));
        let mut connection = rig.h1(HOST, None).await.expect("connected");
        assert_eq!(status(&mut connection, "/public/x..y/.z").await, 200, "these are names");
        for path in [
            "/secret/../public",
            "/secret/..%2Fpublic",
            "/secret/%2e%2E/public",
            "/secret/x/..%5c..%5Cpublic",
            "/secret/;/../../public",
            "/secret/..;x/public",
            "/public/.",
        ] {
            assert_eq!(status(&mut connection, path).await, expected, "{path}");
        }
    }
    rig.refused(Reason::RequestMalformed, 21).await;
}

/// What is too large for a header is told by a field of its own, and the header stays away.
#[tokio::test]
async fn rules_hear_which_certificate_is_too_large_for_its_header() {
    let large = |params: &mut CertificateParams, bytes: usize| {
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![4; bytes])];
    };
    let rig = Rig::start().await;
    let mut leaf = device_params("meter-1", 7);
    large(&mut leaf, 8 * 1024);
    let of_leaf = rig.ca.sign(&leaf);
    let mut below = device_params("below", 6);
    large(&mut below, 13 * 1024);
    let (below, below_der) = rig.ca.issue(below, IsCa::Ca(BasicConstraints::Unconstrained));
    let mut of_path = below.device("meter-2", 8);
    of_path.chain.push(below_der);
    let small = rig.ca.device("meter-3", 9);
    let zone = rig.snapshot.hosts[0].rule.zone;
    for (field, header, blocked) in [
        ("cert_rfc9440_too_large", "client-cert", &of_leaf),
        ("cert_chain_rfc9440_too_large", "client-cert-chain", &of_path),
    ] {
        let sent = rig.get(HOST, Some(blocked)).await.expect("served");
        assert_eq!((sent.status.as_u16(), sent.seen(header)), (200, None), "{field}");
        let expression = format!("cf.tls_client_auth.{field}");
        let rules = vec![RuleWritten { expression, action: Action::Block }];
        rig.tell(gated(GateWritten { zones: vec![ZoneRules { zone, rules }], ..GateWritten::default() }));
        for pair in [&of_leaf, &of_path, &small] {
            let expected = if core::ptr::eq(pair, blocked) { 403 } else { 200 };
            assert_eq!(rig.get(HOST, Some(pair)).await.expect("answered").status, expected, "{field}");
        }
        rig.tell(gated(GateWritten::default()));
    }
}

#[tokio::test]
async fn a_hostname_can_withhold_the_certificate_from_its_origin() {
    let rig = Rig::with(|snapshot| snapshot.hosts[1].rule.forward_certificate = false, |_| {}).await;
    let pair = rig.ca.device("meter-1", 7);
    let withheld = rig.get(HOST, Some(&pair)).await.expect("served");
    assert_eq!(withheld.seen("cf-client-cert-sha256"), None);
    assert_eq!(withheld.seen("cf-client-cert-der-base64"), None);
    assert!(withheld.seen("client-cert").is_some());
    let sent = rig.get("api.example.com", Some(&pair)).await.expect("served");
    assert!(sent.seen("cf-client-cert-sha256").is_some());
}

#[tokio::test]
async fn a_zone_can_have_its_origins_told_of_certificates_by_client_cert_alone() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    let told = rig.get(HOST, Some(&pair)).await.expect("served");
    assert!(told.seen("cf-cert-verified").is_some() && told.seen("cf-cert-subject-dn").is_some());
    let untold_zones = [rig.snapshot.hosts[0].rule.zone].into();
    rig.tell(gated(GateWritten { untold_zones, ..GateWritten::default() }));
    for pair in [None, Some(&pair)] {
        let untold = rig.get(HOST, pair).await.expect("served");
        assert_eq!((untold.seen("cf-cert-verified"), untold.seen("cf-cert-subject-dn")), (None, None));
        assert_eq!(untold.seen("client-cert").is_some(), pair.is_some());
    }
}

#[tokio::test]
async fn mqtt_is_judged_at_connect_packet_by_packet_and_again_when_rules_change() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    let zone = rig.snapshot.hosts[0].rule.zone;
    let rules = |rules: &[(&str, Action)]| {
        let rules = rules
            .iter()
            .map(|(text, action)| RuleWritten { expression: (*text).to_owned(), action: *action });
        vec![ZoneRules { zone, rules: rules.collect() }]
    };
    let client = async || {
        let config = rig.client(Some(&pair), &[]);
        let mut stream = rig.tls(rig.mqtt, "mqtt.example.com", config).await.expect("connected");
        assert!(line(&mut stream).await.starts_with("welcome meter-1"));
        stream
    };
    macro_rules! says {
        ($stream:expr, $what:literal, $expected:literal) => {
            $stream.write_all($what).await.expect("sent");
            assert_eq!(line(&mut $stream).await, $expected, "{}", String::from_utf8_lossy($what));
        };
    }
    let mut before = client().await;
    says!(before, b"connect meter-1/a\n", "passed");
    says!(before, b"publish secret/x\n", "passed");
    let guarded = [
        (
            r#"http.host eq "mqtt.example.com" and mqtt.packet eq "connect" and mqtt.client_id contains "bad""#,
            Action::Block,
        ),
        (
            r#"mqtt.packet eq "publish" and mqtt.topic eq "state" and mqtt.client_id eq "meter-1/w""#,
            Action::Block,
        ),
        (
            r#"starts_with(mqtt.topic, "secret/") and cf.tls_client_auth.cert_subject_dn eq "CN=meter-1""#,
            Action::Block,
        ),
        (r#"http.request.uri.path eq "/" or mqtt.version eq "3.1.1""#, Action::Block),
    ];
    assert_eq!(rig.tell(gated(GateWritten { zones: rules(&guarded), ..GateWritten::default() })), 0);
    says!(before, b"publish secret/x\n", "rule_blocked");
    says!(before, b"publish open/x\n", "passed");
    let (mut refused, mut of_will, mut good) = (client().await, client().await, client().await);
    says!(refused, b"connect meter-1/bad\n", "rule_blocked");
    says!(of_will, b"connect meter-1/w\n", "rule_blocked");
    says!(good, b"connect meter-1/b\n", "passed");
    rig.refused(Reason::RuleBlocked, 3).await;

    // Who has not said yet who it is, is judged when it does.
    let mut silent = client().await;
    let more = [(r#"mqtt.client_id ~ "^meter-1/[ab]$""#, Action::Block)];
    let cut = rig.tell(gated(GateWritten { zones: rules(&more), ..GateWritten::default() }));
    assert_eq!(cut, 2);
    assert_eq!(line(&mut before).await, "cut rule_blocked");
    assert_eq!(line(&mut good).await, "cut rule_blocked");
    says!(silent, b"connect meter-1/c\n", "passed");

    let nobody = Visitors { include: vec![Condition::CommonName("boss".to_owned())], ..Visitors::default() };
    let app = App {
        host: "mqtt.example.com".parse().expect("a host"),
        path: "/".to_owned(),
        policies: vec![Policy { decision: Decision::NonIdentity, visitors: nobody }],
    };
    let cut = rig.tell(gated(GateWritten { apps: vec![app], ..GateWritten::default() }));
    // Those that were refused are here still: what ends them is the broker.
    assert!(cut >= 1, "{cut}");
    assert_eq!(line(&mut silent).await, "cut access_denied");
    let mut late = client().await;
    says!(late, b"connect meter-1/d\n", "access_denied");
    rig.tell(gated(GateWritten { is_shut: true, ..GateWritten::default() }));
    let mut shut = client().await;
    says!(shut, b"connect meter-1/e\n", "access_denied");
}
