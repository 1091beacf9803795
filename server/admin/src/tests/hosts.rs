//! Hostnames: what is set of them stays until somebody changes it, at the API and on their page.

use http::StatusCode;
use serde_json::{Value, json};

use super::browser::Browser;
use super::join_all;
use super::rig::{Answer, MAKER, Rig};

const HOST: &str = "/hosts/api.example.com";

async fn rig() -> Rig {
    let rig = Rig::new().await;
    let zone = json!({ "name": "example.com", "account": { "id": rig.account } });
    let zone = rig.send("POST", "/zones", &zone.to_string()).await;
    assert_eq!(zone.status, StatusCode::OK, "{}", zone.message());
    rig
}

async fn set(rig: &Rig, wish: Value) -> Answer {
    let answer = rig.send("PUT", &rig.own(HOST), &wish.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{wish}: {}", answer.message());
    answer
}

/// A form as a browser sends it when nobody touched a field.
fn untouched(page: &str) -> String {
    let (_, form) = page.split_once("class=\"card\"").expect("the form");
    let (form, _) = form.split_once("</form>").expect("its end");
    let value = |tag: &str| Some(tag.split_once("value=\"")?.1.split('"').next()?.replace("&quot;", "\""));
    let name = |tag: &str| Some(tag.split_once("name=\"")?.1.split('"').next()?.to_owned());
    let (mut fields, mut select) = (Vec::new(), None);
    for tag in form.split('<') {
        let is_on = tag.contains(" checked") || tag.contains(" selected");
        match tag.split(' ').next() {
            Some("select") => select = name(tag),
            Some("option") if is_on => fields.push((select.clone(), value(tag))),
            Some("input") if is_on || !tag.contains("checkbox") => fields.push((name(tag), value(tag))),
            Some("textarea") => {
                let text = tag.split_once('>').map(|(_, text)| text.to_owned());
                fields.push((name(tag), text));
            }
            _ => {}
        }
    }
    let pairs = fields.into_iter().filter_map(|(name, value)| Some((name?, value?)));
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[tokio::test]
async fn what_is_saved_untouched_on_its_page_stays_as_it_is() {
    let rig = rig().await;
    let maker = rig.post("/cas/import", json!({ "pem": MAKER })).await["id"].clone();
    let (mut browser, ..) = Browser::of(&rig, "admin").await;
    for default_cas in ["always", "if-none-named", "never"] {
        for cas in [json!([]), json!([maker])] {
            set(&rig, json!({ "cas": cas, "default_cas": default_cas, "origins": ["http://127.0.0.1:1"] }))
                .await;
            let before = rig.get(HOST).await;
            let fields = untouched(&browser.get(HOST).await.text);
            let seen = browser.post(HOST, &fields).await.text;
            assert!(seen.contains("Saved; the change"), "{seen}");
            assert_eq!(rig.get(HOST).await, before, "{fields}");
        }
    }
}

#[tokio::test]
async fn the_page_says_whose_certificates_are_accepted() {
    let rig = rig().await;
    let maker = rig.post("/cas/import", json!({ "pem": MAKER })).await["id"].clone();
    let maker = maker.as_str().expect("an id");
    let (mut admin, ..) = Browser::of(&rig, "admin").await;
    let (mut reader, ..) = Browser::of(&rig, "reader").await;
    let own = "the account's own";
    let both = format!("{own}, {maker}");
    for (default_cas, is_named, told) in [
        ("always", false, own),
        ("always", true, &both),
        ("if-none-named", false, own),
        ("if-none-named", true, maker),
        ("never", false, "none"),
        ("never", true, maker),
    ] {
        let cas = if is_named { json!([maker]) } else { json!([]) };
        set(&rig, json!({ "cas": cas, "default_cas": default_cas })).await;
        let facts = reader.get(HOST).await.text;
        assert!(facts.contains(&format!("<dt>CAs</dt><dd>{told}</dd>")), "{default_cas} {cas}: {facts}");
        let form = admin.get(HOST).await.text;
        assert!(form.contains(&format!("<option value=\"{default_cas}\" selected>")), "{form}");
        let is_shut = form.contains("This hostname admits nobody");
        assert_eq!(is_shut, told == "none", "{default_cas} {cas}: {form}");
    }
}

#[tokio::test]
async fn changes_at_once_all_hold() {
    let rig = rig().await;
    set(&rig, json!({})).await;
    let wishes = [
        json!({ "mode": "request" }),
        json!({ "min_tls": "1.2" }),
        json!({ "origins": ["http://127.0.0.1:1"] }),
        json!({ "origin_timeout_s": 7 }),
        json!({ "when_stale": "open" }),
    ];
    join_all(wishes.iter().map(|wish| set(&rig, wish.clone()))).await;
    let host = rig.get(HOST).await;
    for wish in wishes {
        for (field, value) in wish.as_object().expect("an object") {
            assert_eq!(host[field], *value, "{field}");
        }
    }
    // None of many is refused: each stores another value than all before it.
    join_all((1..=40).map(|seconds| set(&rig, json!({ "origin_timeout_s": seconds })))).await;
    assert_eq!(rig.get(HOST).await["min_tls"], "1.2");
}

#[tokio::test]
async fn a_hostname_that_was_changed_meanwhile_is_neither_overwritten_nor_removed() {
    let rig = rig().await;
    let path = rig.own(HOST);
    let is_late = |answer: Answer| (answer.status, answer.code()) == (StatusCode::PRECONDITION_FAILED, 1_412);
    for tag in ["\"other\"", "\"\"", "*", ""] {
        let never = rig.send_with(&[("if-match", tag)], "PUT", &path, "{}").await;
        assert!(is_late(never), "there is nothing yet: {tag}");
    }
    let tag = set(&rig, json!({})).await.header("etag");
    assert_eq!(rig.send("GET", &path, "").await.header("etag"), tag);
    let wish = json!({ "min_tls": "1.2" }).to_string();
    let changed = rig.send_with(&[("if-match", &tag)], "PUT", &path, &wish).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.message());
    assert_ne!(changed.header("etag"), tag);
    for (method, body) in [("PUT", "{\"min_tls\":\"1.3\"}"), ("DELETE", "")] {
        assert!(is_late(rig.send_with(&[("if-match", &tag)], method, &path, body).await), "{method}");
    }
    assert_eq!(rig.get(HOST).await["min_tls"], "1.2");
    let any = rig.send_with(&[("if-match", "*")], "PUT", &path, "{}").await;
    assert_eq!(any.status, StatusCode::OK, "{}", any.message());
    let tag = changed.header("etag");
    let removed = rig.send_with(&[("if-match", &tag)], "DELETE", &path, "").await;
    assert_eq!(removed.status, StatusCode::OK, "{}", removed.message());
}

#[tokio::test]
async fn a_reader_asks_who_would_get_in() {
    let rig = rig().await;
    set(&rig, json!({})).await;
    let (mut reader, ..) = Browser::of(&rig, "reader").await;
    let seen = reader.get(&format!("{HOST}/test?q=nobody")).await.text;
    assert!(seen.contains("there is no such certificate"), "{seen}");
}
