//! What happens to messages: quality of service, retention, sharing, flow, sizes and expiry.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod rig;

use rig::{
    OPEN, PING, PUBACK, PUBCOMP, PUBREC, PUBREL, ack, broker, connect, connected, packet, publish,
    subscribe_with, text, unsubscribe,
};
use tokio::time::Duration;

/// The body of a PUBLISH of version 5 without properties.
fn body5(topic: &str, id: Option<u16>, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let id = id.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default();
    [text(topic), id, rig::counted(properties), payload.to_vec()].concat()
}

#[tokio::test]
async fn a_message_has_the_lesser_of_both_qualities() {
    let broker = broker(OPEN);
    for (sent, subscribed, expected) in
        [(0, 2, 0), (1, 2, 1), (2, 2, 2), (2, 1, 1), (2, 0, 0), (1, 1, 1), (0, 1, 0)]
    {
        let mut reader = connected(&broker, connect(4, "reader")).await;
        assert_eq!(reader.subscribe(4, "a", subscribed).await, subscribed);
        let mut writer = connected(&broker, connect(5, "writer")).await;
        writer.send(&publish(5, sent << 1, "a", 7, &[], b"x")).await;
        let (first, body) = reader.receive().await;
        assert_eq!(first, 0x30 | (expected << 1), "{sent} {subscribed}");
        assert!(body.ends_with(b"x"));
        let answer =
            [None, Some((PUBACK, vec![0, 7])), Some((PUBREC, vec![0, 7]))][usize::from(sent)].clone();
        if let Some(answer) = answer {
            assert_eq!(writer.receive().await, answer);
        }
    }
}

#[tokio::test]
async fn quality_two_delivers_once_however_often_it_is_sent() {
    let broker = broker(OPEN);
    let mut reader = connected(&broker, connect(5, "reader")).await;
    reader.subscribe(5, "a", 2).await;
    let mut writer = connected(&broker, connect(5, "writer")).await;
    for flags in [4, 0x0c] {
        writer.send(&publish(5, flags, "a", 7, &[], b"x")).await;
        assert_eq!(writer.receive().await, (PUBREC, vec![0, 7]));
    }
    writer.send(&ack(PUBREL, 7)).await;
    assert_eq!(writer.receive().await, (PUBCOMP, vec![0, 7]));
    writer.send(&ack(PUBREL, 7)).await;
    assert_eq!(writer.receive().await, (PUBCOMP, vec![0, 7, 0x92]));
    let (first, body) = reader.receive().await;
    assert_eq!((first, body), (0x34, body5("a", Some(1), &[], b"x")));
    reader.send(&ack(PUBREC, 1)).await;
    assert_eq!(reader.receive().await, (PUBREL, vec![0, 1]));
    reader.send(&ack(PUBCOMP, 1)).await;
    reader.receive_nothing().await;
    // An unknown id is answered, so that the client can forget it.
    reader.send(&ack(PUBREC, 99)).await;
    assert_eq!(reader.receive().await, (PUBREL, vec![0, 99, 0x92]));
}

#[tokio::test]
async fn retained_messages_come_to_new_subscriptions_as_they_ask() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(5, "writer")).await;
    let properties = [&[0x26][..], &text("k"), &text("v")].concat();
    client.send(&publish(5, 3, "a/b", 1, &properties, b"kept")).await;
    assert_eq!(client.receive().await.0, PUBACK);
    for (options, expected) in [(0x01, true), (0x01, true), (0x21, false)] {
        client.subscribe(5, "a/+", options).await;
        if expected {
            let (first, body) = client.receive().await;
            assert_eq!(first, 0x33, "{options:02x}");
            assert!(body.ends_with(&[&rig::counted(&properties)[..], b"kept"].concat()));
            let id = u16::from_be_bytes([body[5], body[6]]);
            client.send(&ack(PUBACK, id)).await;
        }
        client.receive_nothing().await;
    }
    // A live message keeps its retain flag only for those who asked (§3.3.1.3).
    for (options, first) in [(0x20, 0x30), (0x28, 0x31)] {
        client.subscribe(5, "a/+", options).await;
        client.send(&publish(5, 1, "a/b", 0, &[], b"new")).await;
        assert_eq!(client.receive().await.0, first);
    }
    client.send(&publish(5, 1, "a/b", 0, &[], b"")).await;
    client.receive().await;
    client.subscribe(5, "a/#", 0).await;
    client.receive_nothing().await;
    assert_eq!(broker.metrics().retained, 0);
}

#[tokio::test]
async fn a_client_hears_its_own_voice_unless_it_asks_not_to() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(5, "one")).await;
    client.subscribe(5, "a", 0x04).await;
    client.send(&publish(5, 2, "a", 1, &[], b"x")).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 1]));
    let mut other = connected(&broker, connect(5, "two")).await;
    other.send(&publish(5, 0, "a", 0, &[], b"x")).await;
    assert_eq!(client.receive().await.0, 0x30);
}

#[tokio::test]
async fn overlapping_subscriptions_are_one_delivery_with_all_their_identifiers() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(5, "one")).await;
    client.send(&subscribe_with(5, 1, &[0x0b, 2], &[("a/b", 0)])).await;
    client.receive().await;
    client.send(&subscribe_with(5, 2, &[0x0b, 0x80, 0x01], &[("a/#", 2)])).await;
    client.receive().await;
    client.send(&publish(5, 2, "a/b", 9, &[], b"x")).await;
    let mut packets = [client.receive().await, client.receive().await];
    packets.sort();
    let (first, body) = &packets[0];
    assert_eq!(*first, 0x32);
    let ids = [&[0x0b, 2, 0x0b, 0x80, 0x01][..], &[0x0b, 0x80, 0x01, 0x0b, 2]];
    assert!(ids.iter().any(|ids| *body == body5("a/b", Some(1), ids, b"x")), "{body:02x?}");
    client.receive_nothing().await;
}

#[tokio::test]
async fn a_shared_subscription_gives_each_message_to_one_member() {
    let broker = broker(OPEN);
    let mut members = Vec::new();
    for id in ["one", "two", "three"] {
        let mut member = connected(&broker, connect(4, id)).await;
        assert_eq!(member.subscribe(4, "$share/g/a/+", 1).await, 1);
        members.push(member);
    }
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for number in 0..6_u8 {
        writer.send(&publish(4, 0, "a/b", 0, &[], &[number])).await;
    }
    for member in &mut members {
        member.receive().await;
        member.receive().await;
        member.receive_nothing().await;
    }
    // Retained messages are not for shares (§4.8.2).
    writer.send(&publish(4, 1, "a/b", 0, &[], b"kept")).await;
    writer.send(&PING).await;
    writer.receive().await;
    let mut late = connected(&broker, connect(4, "late")).await;
    late.subscribe(4, "$share/h/a/+", 1).await;
    late.receive_nothing().await;
}

#[tokio::test]
async fn a_shared_message_goes_to_a_member_that_has_room() {
    let broker = broker(&format!("{OPEN}[quotas]\ninflight = 1\nqueued = 1\nwhen_full = 'refuse'"));
    let mut quick = connected(&broker, connect(4, "quick")).await;
    let mut stuck = connected(&broker, connect(4, "stuck")).await;
    for member in [&mut quick, &mut stuck] {
        assert_eq!(member.subscribe(4, "$share/g/a", 1).await, 1);
    }
    let mut writer = connected(&broker, connect(5, "writer")).await;
    let mut came = 0;
    for _ in 0..10 {
        writer.send(&publish(5, 2, "a", 1, &[], b"x")).await;
        assert_eq!(writer.receive().await, (PUBACK, vec![0, 1]));
        while let Ok((_, body)) = tokio::time::timeout(Duration::from_millis(20), quick.receive()).await {
            quick.send(&ack(PUBACK, u16::from_be_bytes([body[3], body[4]]))).await;
            came += 1;
        }
    }
    // The other has one under way and one that waits.
    assert_eq!(came, 8);
}

#[tokio::test]
async fn no_more_is_in_flight_than_the_client_takes() {
    let broker = broker(OPEN);
    // Receive maximum 2.
    let mut reader = connected(&broker, connect(5, "reader").property(&[0x21, 0, 2])).await;
    reader.subscribe(5, "a", 1).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for number in 0..4_u8 {
        writer.send(&publish(4, 2, "a", 1, &[], &[number])).await;
        writer.receive().await;
    }
    let first = reader.receive().await;
    reader.receive().await;
    reader.receive_nothing().await;
    // QoS 0 is not held back by it.
    writer.send(&publish(4, 0, "a", 0, &[], b"now")).await;
    assert_eq!(reader.receive().await.0, 0x30);
    reader.send(&ack(PUBACK, u16::from_be_bytes([first.1[3], first.1[4]]))).await;
    assert!(reader.receive().await.1.ends_with(&[2]));
    reader.receive_nothing().await;
}

#[tokio::test]
async fn more_than_our_receive_maximum_ends_a_version_5_client() {
    let broker = broker(&format!("{OPEN}[quotas]\ninflight = 2"));
    let mut client = connected(&broker, connect(5, "one")).await;
    for id in 1..=2 {
        client.send(&publish(5, 4, "a", id, &[], b"")).await;
        assert_eq!(client.receive().await.0, PUBREC);
    }
    client.send(&publish(5, 4, "a", 3, &[], b"")).await;
    client.is_disconnected(0x93).await;
    // Sending one again, or another after a release, is not more.
    let mut client = connected(&broker, connect(5, "one")).await;
    for (id, release) in [(1, false), (2, false), (2, true), (3, true), (4, false)] {
        client.send(&publish(5, 4, "a", id, &[], b"")).await;
        assert_eq!(client.receive().await.0, PUBREC);
        if release {
            client.send(&ack(PUBREL, id)).await;
            assert_eq!(client.receive().await.0, PUBCOMP);
        }
    }
}

#[tokio::test]
async fn topics_are_shortened_to_aliases_as_the_client_allows() {
    let broker = broker(OPEN);
    let mut reader = connected(&broker, connect(5, "reader").property(&[0x22, 0, 1])).await;
    reader.subscribe(5, "#", 0).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for topic in ["a", "a", "b", "b"] {
        writer.send(&publish(4, 0, topic, 0, &[], b"x")).await;
    }
    assert_eq!(reader.receive().await.1, body5("a", None, &[0x23, 0, 1], b"x"));
    assert_eq!(reader.receive().await.1, body5("", None, &[0x23, 0, 1], b"x"));
    assert_eq!(reader.receive().await.1, body5("b", None, &[], b"x"));
    assert_eq!(reader.receive().await.1, body5("b", None, &[], b"x"));
}

#[tokio::test]
async fn a_packet_larger_than_the_client_takes_is_as_if_it_had_come() {
    let broker = broker(OPEN);
    let small = connect(5, "reader").property(&[0x27, 0, 0, 0, 30]).property(&[0x21, 0, 1]);
    let mut reader = connected(&broker, small).await;
    reader.subscribe(5, "a", 1).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for payload in [&[b'x'; 40][..], b"fits"] {
        writer.send(&publish(4, 2, "a", 1, &[], payload)).await;
        writer.receive().await;
    }
    assert!(reader.receive().await.1.ends_with(b"fits"));
    assert_eq!(broker.metrics().dropped_too_large, 1);
    let mut tiny = rig::dial(&broker, None);
    tiny.send(&connect(5, "tiny").property(&[0x27, 0, 0, 0, 9]).octets()).await;
    tiny.is_closed().await;
}

#[tokio::test(start_paused = true)]
async fn messages_expire_and_say_how_long_they_last() {
    let broker = broker(OPEN);
    let mut reader = connected(&broker, connect(5, "reader").expiry(1000)).await;
    reader.subscribe(5, "a", 1).await;
    reader.send(&rig::GOODBYE).await;
    reader.ended().await;
    let mut writer = connected(&broker, connect(5, "writer")).await;
    for (seconds, flags) in [(2, 2), (9, 2), (9, 3)] {
        writer.send(&publish(5, flags, "a", 1, &[2, 0, 0, 0, seconds], b"x")).await;
        assert_eq!(writer.receive().await.0, PUBACK);
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut reader = connected(&broker, connect(5, "reader").unclean()).await;
    // What expired has used an id up.
    for id in [2, 3] {
        let (_, body) = reader.receive().await;
        assert_eq!(body[3..5], [0, id]);
        assert_eq!(body[5..], [&[5, 2, 0, 0, 0, 5][..], b"x"].concat());
    }
    reader.receive_nothing().await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let mut late = connected(&broker, connect(5, "late")).await;
    late.subscribe(5, "a", 1).await;
    late.receive_nothing().await;
    assert_eq!((broker.metrics().dropped_expired, broker.metrics().retained), (1, 0));
}

#[tokio::test]
async fn properties_of_a_message_go_on_unchanged_and_in_order() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(5, "one")).await;
    client.subscribe(5, "a", 0).await;
    let properties = [
        &[1, 1][..],
        &[3],
        &text("text/plain"),
        &[8],
        &text("answers/here"),
        &[9, 0, 2, 0xff, 0],
        &[0x26],
        &text("b"),
        &text("2"),
        &[0x26],
        &text("a"),
        &text("1"),
        &[0x26],
        &text("b"),
        &text("3"),
    ]
    .concat();
    client.send(&publish(5, 0, "a", 0, &properties, b"x")).await;
    assert_eq!(client.receive().await.1, body5("a", None, &properties, b"x"));
    // Version 3.1.1 gets the payload alone.
    let mut old = connected(&broker, connect(4, "two")).await;
    old.subscribe(4, "a", 0).await;
    client.send(&publish(5, 0, "a", 0, &properties, b"x")).await;
    assert_eq!(old.receive().await.1, [text("a"), b"x".to_vec()].concat());
}

#[tokio::test]
async fn quotas_have_their_codes() {
    let broker = broker(&format!(
        "{OPEN}[quotas]\nfilters = 2\nretained = 1\nsessions = 3\nqueued = 2\nwhen_full = 'refuse'"
    ));
    let mut client = connected(&broker, connect(5, "one")).await;
    for (filter, code) in [("a", 0), ("b", 0), ("c", 0x97), ("a", 0)] {
        assert_eq!(client.subscribe(5, filter, 0).await, code);
    }
    client.send(&unsubscribe(5, 3, &["b"])).await;
    client.receive().await;
    assert_eq!(client.subscribe(5, "c", 0).await, 0);
    client.send(&publish(5, 3, "r1", 1, &[], b"x")).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 1, 0x10]));
    client.send(&publish(5, 3, "r2", 2, &[], b"x")).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 2, 0x97]));
    client.send(&publish(5, 5, "r2", 3, &[], b"x")).await;
    assert_eq!(client.receive().await, (PUBREC, vec![0, 3, 0x97]));
    let mut away = connected(&broker, connect(5, "away").expiry(100)).await;
    away.subscribe(5, "q", 1).await;
    away.send(&rig::GOODBYE).await;
    away.ended().await;
    for code in [vec![0, 4], vec![0, 4], vec![0, 4, 0x97]] {
        client.send(&publish(5, 2, "q", 4, &[], b"x")).await;
        assert_eq!(client.receive().await, (PUBACK, code));
    }
    let _third = connected(&broker, connect(5, "three")).await;
    for (version, code) in [(5, vec![0, 0x97, 0]), (4, vec![0, 3])] {
        let mut fourth = rig::dial(&broker, None);
        fourth.send(&connect(version, "four").octets()).await;
        assert_eq!(fourth.receive().await, (0x20, code));
        fourth.is_closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_publishes_too_fast_is_slowed_or_ended() {
    let quotas = "[quotas]\npublish_rate_per_s = 10\npublish_burst = 5\nwhen_too_fast = ";
    let slow = broker(&format!("{OPEN}{quotas}'slow'"));
    let mut client = connected(&slow, connect(5, "one")).await;
    let began = tokio::time::Instant::now();
    for _ in 0..26 {
        client.send(&publish(5, 0, "a", 0, &[], b"x")).await;
    }
    client.send(&PING).await;
    client.receive().await;
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1900) && took < Duration::from_millis(2200), "{took:?}");
    let strict = broker(&format!("{OPEN}{quotas}'disconnect'"));
    let mut client = connected(&strict, connect(5, "one")).await;
    for _ in 0..7 {
        client.send(&publish(5, 0, "a", 0, &[], b"x")).await;
    }
    client.is_disconnected(0x96).await;
}

#[tokio::test]
async fn a_slow_reader_costs_the_writer_nothing() {
    let broker = broker(&format!("{OPEN}[quotas]\nqueued_qos0 = 10\nqueued = 10"));
    let mut slow = connected(&broker, connect(4, "slow")).await;
    slow.subscribe(4, "#", 1).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for _ in 0..400 {
        writer.send(&publish(4, 0, "a", 0, &[], &[b'x'; 1000])).await;
        writer.send(&publish(4, 2, "a", 1, &[], &[b'x'; 1000])).await;
        assert_eq!(writer.receive().await.0, PUBACK);
    }
    let metrics = broker.metrics();
    assert!(metrics.dropped_qos0 > 100 && metrics.dropped_full > 100, "{metrics:?}");
    // It still gets what there was room for.
    slow.receive().await;
}

#[tokio::test]
async fn what_waits_for_a_slow_client_is_bounded_in_octets_in_every_quality() {
    let broker = broker(&format!("{OPEN}[quotas]\nqueued_bytes = 50000"));
    let mut slow = connected(&broker, connect(4, "slow")).await;
    slow.subscribe(4, "a", 1).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for _ in 0..20 {
        for flags in [0, 2] {
            writer.send(&publish(4, flags, "a", 1, &[], &[b'x'; 10_000])).await;
        }
        assert_eq!(writer.receive().await.0, PUBACK);
    }
    let metrics = broker.metrics();
    assert!(metrics.dropped_qos0 >= 8 && metrics.dropped_full >= 8, "{metrics:?}");
    // What is written for it at one go is bounded too: with 16 KiB in the pipe, it has 32 KiB and a packet.
    assert!(metrics.delivered <= 6, "{metrics:?}");
}

#[tokio::test]
async fn large_retained_messages_come_whole_through_a_queue_of_few_octets() {
    let broker = broker(&format!("{OPEN}[quotas]\nqueued_bytes = 50000"));
    let mut client = connected(&broker, connect(4, "one")).await;
    for number in 10..40 {
        client.send(&publish(4, 3, &format!("r/{number}"), 1, &[], &[b'x'; 20_000])).await;
        client.receive().await;
    }
    for qos in [0, 1] {
        client.send(&packet(0x82, &[&[0, 5][..], &text("r/#"), &[qos]].concat())).await;
        assert_eq!(client.receive().await.0, 0x90);
        for number in 10..40_u16 {
            let (first, body) = client.receive().await;
            assert!(body.starts_with(&text(&format!("r/{number}"))), "{number} {:02x?}", &body[..8]);
            if first & 2 != 0 {
                client.send(&ack(PUBACK, u16::from_be_bytes([body[6], body[7]]))).await;
            }
        }
        client.receive_nothing().await;
    }
}

#[tokio::test]
async fn a_filter_many_times_in_one_packet_is_read_once() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(5, "one")).await;
    for topic in ["r/1", "r/2", "s"] {
        client.send(&publish(5, 3, topic, 1, &[], b"x")).await;
        client.receive().await;
    }
    let filters: Vec<_> = (0..1000).map(|number| if number == 500 { ("s", 0) } else { ("r/+", 0) }).collect();
    client.send(&subscribe_with(5, 1, &[], &filters)).await;
    assert_eq!(client.receive().await.1.len(), 2 + 1 + 1000);
    let mut topics = Vec::new();
    for _ in 0..3 {
        topics.push(client.receive().await.1[1..].to_vec());
    }
    topics.sort();
    assert!(topics[0].starts_with(b"\x01s") && topics[1].starts_with(b"\x03r/1"), "{topics:02x?}");
    client.receive_nothing().await;
    // Another packet reads it again (§3.8.4).
    client.subscribe(5, "r/+", 0).await;
    client.receive().await;
    client.receive().await;
    client.receive_nothing().await;
}

#[tokio::test]
async fn who_unsubscribes_or_subscribes_anew_gets_no_more_of_the_subscription_before() {
    let broker = broker(&format!("{OPEN}[quotas]\nfilters = 1"));
    let mut client = connected(&broker, connect(4, "one")).await;
    for number in 0..200 {
        client.send(&publish(4, 3, &format!("r/{number}"), 1, &[], b"x")).await;
        client.receive().await;
    }
    // More than one time, while the first is under way and its window is full: the client is read all the same.
    for _ in 0..3 {
        client.send(&packet(0x82, &[&[0, 5][..], &text("r/#"), &[1]].concat())).await;
    }
    client.send(&unsubscribe(4, 6, &["r/#"])).await;
    let mut came = 0;
    loop {
        let (first, body) = client.receive().await;
        match first {
            0x90 => {}
            0xb0 => break,
            _ => {
                let length = usize::from(body[1]) + 2;
                client.send(&ack(PUBACK, u16::from_be_bytes([body[length], body[length + 1]]))).await;
                came += 1;
            }
        }
    }
    // What was in the queue may come.
    while let Ok((_, body)) = tokio::time::timeout(Duration::from_millis(300), client.receive()).await {
        let length = usize::from(body[1]) + 2;
        client.send(&ack(PUBACK, u16::from_be_bytes([body[length], body[length + 1]]))).await;
        came += 1;
    }
    assert!(came < 200, "{came} of 200");
}

#[tokio::test]
async fn who_subscribes_anew_and_wants_nothing_again_loses_nothing() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(5, "one")).await;
    for number in 0..200 {
        client.send(&publish(5, 3, &format!("r/{number}"), 1, &[], b"x")).await;
        client.receive().await;
    }
    // Retained messages if the subscription is new, which the second is not.
    for _ in 0..2 {
        client.send(&subscribe_with(5, 1, &[], &[("r/#", 0x11)])).await;
    }
    let (mut answers, mut came, mut unanswered) = (0, 0, Vec::new());
    while answers < 2 || came < 200 {
        let (first, body) = client.receive().await;
        if first == 0x90 {
            answers += 1;
        } else {
            came += 1;
            let length = usize::from(body[1]) + 2;
            unanswered.push(u16::from_be_bytes([body[length], body[length + 1]]));
        }
        // The second comes while the first has filled the window.
        for id in unanswered.drain(..if answers == 2 { unanswered.len() } else { 0 }) {
            client.send(&ack(PUBACK, id)).await;
        }
    }
    client.receive_nothing().await;
}

#[tokio::test]
async fn many_retained_messages_come_whole_through_a_short_queue() {
    let broker = broker(&format!("{OPEN}[quotas]\nqueued = 40\nqueued_qos0 = 40"));
    let mut client = connected(&broker, connect(4, "one")).await;
    for number in 0..500 {
        client.send(&publish(4, 3, &format!("r/{number}"), 1, &[], b"x")).await;
        client.receive().await;
    }
    for qos in [0, 1] {
        client.send(&packet(0x82, &[&[0, 5][..], &text("r/#"), &[qos]].concat())).await;
        assert_eq!(client.receive().await.0, 0x90);
        for _ in 0..500 {
            let (first, body) = client.receive().await;
            let length = usize::from(body[1]) + 2;
            if first & 2 != 0 {
                client.send(&ack(PUBACK, u16::from_be_bytes([body[length], body[length + 1]]))).await;
            }
        }
        client.receive_nothing().await;
    }
}

#[tokio::test]
async fn a_message_that_its_reader_refuses_makes_room_and_one_under_way_outlives_its_subscription() {
    let broker = broker(OPEN);
    let mut reader = connected(&broker, connect(5, "reader").property(&[0x21, 0, 1])).await;
    reader.subscribe(5, "a", 2).await;
    let mut writer = connected(&broker, connect(5, "writer")).await;
    for number in 1..=2_u8 {
        let id = u16::from(number);
        writer.send(&publish(5, 4, "a", id, &[], &[number])).await;
        assert_eq!(writer.receive().await, (PUBREC, vec![0, number]));
        writer.send(&ack(PUBREL, id)).await;
        assert_eq!(writer.receive().await.0, PUBCOMP);
    }
    assert_eq!(reader.receive().await, (0x34, body5("a", Some(1), &[], &[1])));
    // Refused (§4.3.3): nothing more of it comes, and the next takes its place.
    reader.send(&packet(PUBREC, &[0, 1, 0x83])).await;
    assert_eq!(reader.receive().await, (0x34, body5("a", Some(2), &[], &[2])));
    reader.send(&unsubscribe(5, 4, &["a"])).await;
    assert_eq!(reader.receive().await, (0xb0, vec![0, 4, 0, 0]));
    // It was begun, and is completed (§3.10.4).
    reader.send(&ack(PUBREC, 2)).await;
    assert_eq!(reader.receive().await, (PUBREL, vec![0, 2]));
    reader.send(&ack(PUBCOMP, 2)).await;
    reader.receive_nothing().await;
}
