//! Pages that follow what happens: what their streams tell, to whom, how many, and until when.

use http_body_util::BodyExt as _;
use serde_json::json;

use super::browser::Browser;
use super::events::Stream;
use super::rig::Rig;

const ASKS: &[(&str, &str)] = &[("accept", "text/event-stream")];

async fn follow(browser: &Browser, path: &str) -> Stream {
    Stream::of(browser.open("GET", path, ASKS, "").await)
}

/// The next event's name and content.
async fn told(stream: &mut Stream) -> (String, String) {
    let block = stream.next().await.expect("an event");
    let lines = |name: &str| {
        let of = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        of.collect::<Vec<_>>().join("\n")
    };
    (lines("event"), lines("data"))
}

/// Waits for a part that says something.
async fn told_of(stream: &mut Stream, part: &str, text: &str) {
    loop {
        let (name, content) = told(stream).await;
        if name == part && content.contains(text) {
            return;
        }
    }
}

#[tokio::test]
async fn the_overview_tells_what_happens_and_a_device_of_itself() {
    let rig = Rig::new().await;
    let (browser, ..) = Browser::of(&rig, "reader").await;
    let mut overview = follow(&browser, "/live").await;
    assert_eq!(told(&mut overview).await.0, "figures");
    assert_eq!(told(&mut overview).await.0, "events");
    rig.post("/devices/import", json!([{ "id": "meter-7" }])).await;
    told_of(&mut overview, "figures", "<b>1</b><span>Active devices").await;
    let mut device = follow(&browser, "/devices/meter-7/live").await;
    told_of(&mut device, "state", "active").await;
    told_of(&mut device, "timeline", "<table>").await;
    rig.edit("meter-7", json!({ "status": "suspended" })).await;
    told_of(&mut device, "state", "suspended").await;
    told_of(&mut overview, "figures", "<b>1</b><span>Suspended").await;
}

#[tokio::test]
async fn what_people_and_devices_write_is_only_text_in_a_stream() {
    let rig = Rig::new().await;
    let hostile = "<script>alert(1)</script>\r\n\nevent: over\ndata: <img src=x onerror=alert(1)>";
    rig.post("/devices/import", json!([{ "id": "meter-7" }])).await;
    let edit =
        json!({ "note": hostile.replace(['\r', '\n'], " "), "labels": { "x": "<img src=x>" }, "groups": [] });
    let edited = rig.edit("meter-7", edit).await;
    assert_eq!(edited.status, http::StatusCode::OK, "{}", edited.message());
    let (browser, ..) = Browser::of(&rig, "reader").await;
    let mut device = follow(&browser, "/devices/meter-7/live").await;
    let (name, content) = told(&mut device).await;
    assert_eq!(name, "state");
    assert!(content.contains("&lt;script&gt;") && content.contains("&lt;img"), "{content}");
    assert!(!content.contains("<script") && !content.contains("<img"), "{content}");
    // Whatever line ends a part holds, it stays one event.
    let event = axum::response::sse::Event::default().event("state").data(hostile);
    let event = futures_util::stream::iter([Ok::<_, core::convert::Infallible>(event)]);
    let answer = axum::response::IntoResponse::into_response(axum::response::sse::Sse::new(event));
    let text = answer.into_body().collect().await.expect("text").to_bytes();
    let text = String::from_utf8(text.to_vec()).expect("text").replace('\r', "\n");
    assert_eq!(text.lines().filter(|line| line.starts_with("event:")).count(), 1, "{text}");
}

#[tokio::test]
async fn a_stream_ends_with_its_session_and_is_no_use_of_it() {
    let rig = Rig::new().await;
    let (mut browser, _, id) = Browser::of(&rig, "admin").await;
    let mut left = follow(&browser, "/live").await;
    let cookie = browser.cookie.clone();
    browser.post("/logout", "").await;
    told_of(&mut left, "over", "").await;
    assert_eq!(left.next().await, None);
    browser.cookie = cookie;
    let mut late = follow(&browser, "/live").await;
    assert_eq!(told(&mut late).await.0, "over");
    assert_eq!(late.next().await, None);

    let (browser, _, other) = Browser::of(&rig, "admin").await;
    let mut revoked = follow(&browser, "/live").await;
    for token in [id, other] {
        rig.send("DELETE", &rig.own(&format!("/admin_tokens/{token}")), "").await;
    }
    told_of(&mut revoked, "over", "").await;

    let (browser, ..) = Browser::of(&rig, "admin").await;
    let mut idle = follow(&browser, "/live").await;
    rig.advance(20 * 60);
    follow(&browser, "/live").await;
    browser.open("GET", "/", &[("muster-live", "poll")], "").await;
    rig.advance(15 * 60);
    told_of(&mut idle, "over", "").await;
}

#[tokio::test]
async fn a_session_has_so_many_streams_and_places_are_given_back() {
    let rig = Rig::new().await;
    let (browser, ..) = Browser::of(&rig, "reader").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = follow(&browser, "/live").await;
        assert_eq!(told(&mut stream).await.0, "figures");
        open.push(stream);
    }
    let mut more = follow(&browser, "/live").await;
    assert_eq!(told(&mut more).await.0, "busy");
    assert_eq!(more.next().await, None);
    let (other, ..) = Browser::of(&rig, "reader").await;
    assert_eq!(told(&mut follow(&other, "/live").await).await.0, "figures");
    open.pop();
    assert_eq!(told(&mut follow(&browser, "/live").await).await.0, "figures");
}

#[tokio::test]
async fn nobody_follows_what_is_not_there_and_streams_end_with_the_server() {
    let rig = Rig::new().await;
    let (browser, ..) = Browser::of(&rig, "reader").await;
    let missing = browser.open("GET", "/devices/nobody/live", ASKS, "").await;
    assert_eq!(missing.status(), http::StatusCode::NOT_FOUND);
    let nobody = Browser::new(&rig);
    assert_eq!(told(&mut follow(&nobody, "/live").await).await.0, "over");
    let mut stream = follow(&browser, "/live").await;
    rig.api().stop();
    while stream.next().await.is_some() {}
}
