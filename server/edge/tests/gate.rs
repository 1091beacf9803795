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
use rig::{ACCOUNT, H1, Rig, account};

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
        (Some(&other), "/x/../admin", 403),
        (Some(&boss), "/admin", 200),
        (None, "/admin", 403),
    ] {
        let mut connection = rig.h1(HOST, pair).await.expect("connected");
        assert_eq!(status(&mut connection, path).await, expected, "{path}");
    }
    rig.refused(Reason::AccessDenied, 5).await;
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
        (Some(&pair), "/x/../admin", 403),
        (Some(&pair), "//admin", 403),
        (Some(&pair), "/admin;x", 403),
    ] {
        let mut connection = rig.h1(HOST, pair).await.expect("connected");
        assert_eq!(status(&mut connection, path).await, expected, "{path}");
    }
    rig.refused(Reason::RuleBlocked, 6).await;
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
