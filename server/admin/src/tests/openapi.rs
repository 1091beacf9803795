//! The description of the API: committed, served, and true of every route.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::Value;

use super::ROUTES;
use super::rig::Rig;
use crate::routes::described;

/// The committed document.
const GOLDEN: &str = include_str!("../../openapi.json");

fn document() -> String {
    let (_, document) = described();
    let mut text = serde_json::to_string_pretty(&document).expect("JSON");
    text.push('\n');
    text
}

#[test]
fn the_committed_document_is_what_the_code_says() {
    let made = document();
    if std::env::var_os("MUSTER_WRITE_GOLDEN").is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        std::fs::write(path, &made).expect("written");
        return;
    }
    assert!(
        made == GOLDEN,
        "server/admin/openapi.json is not what the code says; look at the difference after \
         `MUSTER_WRITE_GOLDEN=1 cargo test -p muster-admin --lib openapi`"
    );
}

#[tokio::test]
async fn the_document_is_served_without_a_token() {
    let rig = Rig::new().await;
    let (status, text) = rig.plain("/client/v4/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    let served: Value = serde_json::from_str(&text).expect("JSON");
    let golden: Value = serde_json::from_str(GOLDEN).expect("JSON");
    assert!(served == golden, "another document than the committed one");
    assert_eq!(served["openapi"], "3.1.0");
}

#[test]
fn every_route_that_tests_know_is_described_and_none_else() {
    let document: Value = serde_json::from_str(GOLDEN).expect("JSON");
    let paths = document["paths"].as_object().expect("an object");
    let shape = |path: &str| {
        let fixed = |part: &str| {
            !part.starts_with('{')
                && !["nobody", "none", "new", "1"].contains(&part)
                && !part.contains(".example.com")
        };
        let parts = path.split('/').map(|part| if fixed(part) { part.to_owned() } else { "{}".to_owned() });
        parts.collect::<Vec<_>>().join("/")
    };
    let described: BTreeSet<String> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let path = shape(path);
            methods
                .as_object()
                .expect("an object")
                .keys()
                .map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let own = "/accounts/{account}/muster";
    let known: BTreeSet<String> = ROUTES
        .iter()
        .map(|(method, path)| format!("{method} {}", shape(&path.replace("{own}", own))))
        .collect();
    let missing: Vec<&String> = known.difference(&described).collect();
    assert!(missing.is_empty(), "not described: {missing:?}");
    // Access is tried by some of its routes only; the stream of events has tests of its own.
    let tried = |route: &&String| !route.contains("/access/") && !route.ends_with("/events");
    let untried: Vec<&String> = described.difference(&known).filter(tried).collect();
    assert!(untried.is_empty(), "not in ROUTES: {untried:?}");
}
