//! Where bodies end, and whose fault it is when they don't.

use std::time::Duration;

use muster_edge::Event;
use muster_policy::host::{HostMode, Protocol};
use muster_policy::reason::Reason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::{Rig, host};
use crate::script::{Script, Then};

const NAME: &str = "bodies.example.com";

async fn before(origin: &Script) -> Rig {
    let rig = Rig::start().await;
    let entry = host(&rig.server_ca, NAME, HostMode::Off, Protocol::Https, origin.address);
    rig.tell(vec![Event::Host(Box::new(entry))]);
    rig
}

/// RFC 9112 §6.3: the length does not count beside chunks, and is not passed on.
#[tokio::test]
async fn an_answer_in_chunks_that_names_a_length_too_is_passed_on_whole() {
    for length in [3, 10] {
        let says = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        let origin = Script::start(says, Then::Close).await;
        let rig = before(&origin).await;
        let h1 = rig.get(NAME, None).await.expect("served");
        assert_eq!((h1.body.as_str(), h1.headers.get("content-length")), ("hello", None), "{length}");
        let h2 = rig.h2(NAME, None).await.expect("connected").get(NAME).await.expect("served");
        assert_eq!((h2.body.as_str(), h2.headers.get("content-length")), ("hello", None), "{length}");
    }
}

#[tokio::test]
async fn a_client_that_breaks_its_upload_is_told_so_and_no_origin_is_blamed() {
    let origin = Script::by(|_, _| (Vec::new(), Then::Stay)).await;
    let rig = before(&origin).await;
    let opened = async || {
        let config = rig.client(None, &[b"http/1.1"]);
        rig.tls(rig.https, NAME, config).await.expect("connected")
    };
    let head = format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    let mut stream = opened().await;
    stream.write_all(format!("{head}no size\r\n").as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer));
    let _ = read.await.expect("it ends");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("request_malformed"), "{text}");
    rig.refused(Reason::RequestMalformed, 1).await;

    let mut gone = opened().await;
    gone.write_all(head.as_bytes()).await.expect("written");
    origin.until(|heard| heard.iter().filter(|text| text.contains("half")).count() == 2).await;
    drop(gone);
    rig.refused(Reason::RequestMalformed, 2).await;
    let counters = rig.edge.counters();
    assert!(
        !counters.refused_by_reason.iter().any(|(reason, _)| *reason == Reason::OriginFailed),
        "{counters:?}"
    );
}
