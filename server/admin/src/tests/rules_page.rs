//! Rules of a zone on their page: none is lost to another, nor to a list that can't be read.

use http::StatusCode;
use muster_policy::identity::CaId;
use muster_store::act::{By, SetDocument};
use muster_store::record::{Document, DocumentKind};
use serde_json::json;

use super::browser::Browser;
use super::join_all;
use super::rig::Rig;

async fn with_zone() -> (Rig, String) {
    let rig = Rig::new().await;
    let zone = rig.send("POST", "/zones", "{\"name\":\"example.com\"}").await;
    let id = zone.body["result"]["id"].as_str().expect("an id").to_owned();
    (rig, id)
}

fn rule(description: usize) -> String {
    format!("expression=ssl&action=log&description=number-{description}")
}

#[tokio::test]
async fn rules_that_are_added_at_once_are_all_there() {
    let (rig, zone) = with_zone().await;
    let form = format!("/access/zones/{zone}/rules");
    let mut browsers = Vec::new();
    for _ in 0..4 {
        browsers.push(Browser::of(&rig, "admin").await.0);
    }
    let add = |(browser, number)| {
        let browser: &mut Browser = browser;
        let form = &form;
        async move { browser.post(form, &rule(number)).await.text }
    };
    for seen in join_all(browsers.iter_mut().zip(0..).map(add)).await {
        assert!(seen.contains("The rule is in force."), "{seen}");
    }
    let seen = browsers[0].get("/access").await.text;
    for number in 0..4 {
        assert!(seen.contains(&format!("<small>number-{number}</small>")), "{number}: {seen}");
    }
}

#[tokio::test]
async fn a_list_that_cant_be_read_is_shown_as_such_and_not_replaced() {
    let (rig, zone) = with_zone().await;
    let by = By::system(rig.now());
    let document = Document {
        id: CaId::from_bytes([7; 16]),
        account: rig.account.parse().expect("an id"),
        zone: Some(zone.parse().expect("an id")),
        kind: DocumentKind::Ruleset,
        text: "of a later version".to_owned(),
        revision: 0,
        created_at: by.at,
        changed_at: by.at,
    };
    let set = SetDocument { document, instead_of: None, by };
    let stored = rig.ledger().transact(set).await.expect("stored");
    let (mut browser, ..) = Browser::of(&rig, "admin").await;
    let seen = browser.post(&format!("/access/zones/{zone}/rules"), &rule(1)).await.text;
    assert!(seen.contains("flash failed") && seen.contains("an internal error"), "{seen}");
    assert!(!seen.contains("No rule judges"), "{seen}");
    let reader = rig.ledger().reader().expect("open");
    let held = reader.documents(stored.account, DocumentKind::Ruleset).expect("reads");
    assert_eq!(held, [stored]);
}

#[tokio::test]
async fn who_may_not_read_rules_is_told_so() {
    let (rig, _) = with_zone().await;
    let token = json!({ "name": "x", "permissions": ["access:read", "fleet:read", "zone:read"] });
    let (mut browser, ..) = Browser::with(&rig, token).await;
    let seen = browser.get("/access").await;
    assert_eq!(seen.status, StatusCode::OK, "{}", seen.text);
    assert!(seen.text.contains("lacks the permission"), "{}", seen.text);
}
