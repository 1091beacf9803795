//! What outlives a connection: sessions, their takeover and end, wills, keep alive, shutdown.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod rig;

use muster_broker::{Code, CutReason, Ended};
use rig::{
    Client, Connect, GOODBYE, OPEN, PING, PUBACK, PUBCOMP, PUBREC, PUBREL, ack, broker, connect, connected,
    dial, holder, packet, publish,
};
use tokio::io::AsyncReadExt;
use tokio::time::Duration;

/// Connects and says whether a session was there.
async fn session_present(broker: &muster_broker::Broker, connect: Connect) -> (Client, bool) {
    let mut client = dial(broker, None);
    client.send(&connect.octets()).await;
    let (first, body) = client.receive().await;
    assert_eq!((first, body[1]), (0x20, 0));
    (client, body[0] == 1)
}

async fn leave(mut client: Client) {
    client.send(&GOODBYE).await;
    assert_eq!(client.ended().await, Ended::Disconnected);
}

#[tokio::test(start_paused = true)]
async fn a_session_lives_as_long_as_it_was_granted() {
    let broker = broker(OPEN);
    for (first, pause, expected) in [
        (connect(4, "one"), 1, false),
        (connect(4, "one").unclean(), 1000, true),
        (connect(5, "one"), 1, false),
        (connect(5, "one").expiry(5), 3, true),
        (connect(5, "one").expiry(5), 7, false),
        (connect(5, "one").expiry(u32::MAX), 6 * 24 * 3600, true),
        (connect(5, "one").expiry(u32::MAX), 8 * 24 * 3600, false),
    ] {
        let (fresh, _) = session_present(&broker, connect(4, "one")).await;
        leave(fresh).await;
        let (client, was_there) = session_present(&broker, first.clone()).await;
        assert!(!was_there);
        leave(client).await;
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let (client, was_there) = session_present(&broker, connect(5, "one").unclean()).await;
        assert_eq!(was_there, expected, "{:02x?} {pause}", first.octets());
        leave(client).await;
    }
    assert_eq!(broker.metrics().sessions, 0);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_may_change_the_expiry_but_not_from_zero() {
    let broker = broker(OPEN);
    let (mut client, _) = session_present(&broker, connect(5, "one").expiry(1)).await;
    client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 50]).await;
    client.ended().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (mut client, was_there) = session_present(&broker, connect(5, "one").unclean().expiry(9)).await;
    assert!(was_there);
    client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    client.ended().await;
    let (_, was_there) = session_present(&broker, connect(5, "one").unclean()).await;
    assert!(!was_there);
}

#[tokio::test]
async fn what_came_while_away_waits_in_order_and_quality_zero_does_not() {
    let broker = broker(OPEN);
    for version in [4, 5] {
        let id = format!("reader{version}");
        let (mut reader, _) = session_present(&broker, connect(version, &id).unclean().expiry(100)).await;
        reader.subscribe(version, "a/#", 2).await;
        leave(reader).await;
        let mut writer = connected(&broker, connect(4, "writer")).await;
        for (flags, payload) in [(0, b"0"), (2, b"1"), (4, b"2")] {
            writer.send(&publish(4, flags, "a/b", 1, &[], payload)).await;
        }
        writer.receive().await;
        writer.receive().await;
        let (mut reader, was_there) = session_present(&broker, connect(version, &id).unclean()).await;
        assert!(was_there);
        let first = reader.receive().await;
        assert!(first.0 == 0x32 && first.1.ends_with(b"1"));
        let second = reader.receive().await;
        assert!(second.0 == 0x34 && second.1.ends_with(b"2"));
        reader.receive_nothing().await;
        leave(reader).await;
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_with_its_id_and_first() {
    let broker = broker(OPEN);
    let (mut reader, _) = session_present(&broker, connect(4, "reader").unclean()).await;
    reader.subscribe(4, "a", 2).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for (flags, id) in [(2, 1), (4, 2), (4, 3)] {
        writer.send(&publish(4, flags, "a", id, &[], &[b'0' + u8::try_from(id).expect("small")])).await;
        writer.receive().await;
    }
    for _ in 0..3 {
        reader.receive().await;
    }
    reader.send(&ack(PUBREC, 3)).await;
    assert_eq!(reader.receive().await, (PUBREL, vec![0, 3]));
    assert_eq!(reader.ended().await, Ended::Closed);
    writer.send(&publish(4, 2, "a", 4, &[], b"4")).await;
    writer.receive().await;
    let (mut reader, _) = session_present(&broker, connect(4, "reader").unclean()).await;
    let (first, body) = reader.receive().await;
    assert_eq!((first, &body[3..]), (0x3a, &[0, 1, b'1'][..]));
    let (first, body) = reader.receive().await;
    assert_eq!((first, &body[3..]), (0x3c, &[0, 2, b'2'][..]));
    assert_eq!(reader.receive().await, (PUBREL, vec![0, 3]));
    let (first, body) = reader.receive().await;
    assert_eq!((first, &body[3..]), (0x32, &[0, 4, b'4'][..]));
    for octets in [ack(PUBACK, 1), ack(PUBREC, 2), ack(PUBCOMP, 3), ack(PUBACK, 4)] {
        reader.send(&octets).await;
    }
    assert_eq!(reader.receive().await, (PUBREL, vec![0, 2]));
    reader.send(&ack(PUBCOMP, 2)).await;
    leave(reader).await;
    let (mut reader, _) = session_present(&broker, connect(4, "reader").unclean()).await;
    reader.receive_nothing().await;
}

#[tokio::test]
async fn a_publication_that_was_received_is_not_published_again_after_a_reconnect() {
    let broker = broker(OPEN);
    let mut reader = connected(&broker, connect(4, "reader")).await;
    reader.subscribe(4, "a", 0).await;
    let (mut writer, _) = session_present(&broker, connect(4, "writer").unclean()).await;
    writer.send(&publish(4, 4, "a", 7, &[], b"x")).await;
    writer.receive().await;
    writer.ended().await;
    let (mut writer, _) = session_present(&broker, connect(4, "writer").unclean()).await;
    writer.send(&publish(4, 0x0c, "a", 7, &[], b"x")).await;
    assert_eq!(writer.receive().await, (PUBREC, vec![0, 7]));
    writer.send(&ack(PUBREL, 7)).await;
    assert_eq!(writer.receive().await, (PUBCOMP, vec![0, 7]));
    reader.receive().await;
    reader.receive_nothing().await;
}

#[tokio::test]
async fn the_same_client_takes_its_session_over_and_the_old_connection_hears_why() {
    let broker = broker(OPEN);
    for version in [4, 5] {
        let (mut old, _) = session_present(&broker, connect(version, "one").unclean().expiry(10)).await;
        old.subscribe(version, "a", 1).await;
        let (mut new, was_there) = session_present(&broker, connect(version, "one").unclean()).await;
        assert!(was_there);
        match version {
            5 => old.is_disconnected(0x8e).await,
            _ => old.is_closed().await,
        }
        assert_eq!(old.ended().await, Ended::Ours(Code::SESSION_TAKEN_OVER));
        new.send(&publish(version, 0, "a", 0, &[], b"x")).await;
        assert_eq!(new.receive().await.0, 0x30);
        let (last, was_there) = session_present(&broker, connect(version, "one")).await;
        assert!(!was_there);
        leave(last).await;
    }
}

#[tokio::test]
async fn a_device_has_so_many_sessions_and_leaves_room_for_others() {
    let quotas = "[quotas]\nsessions = 10\nsessions_per_device = 2";
    let broker = broker(&format!("{OPEN}[[rules]]\nclient_id = 'any'\n{quotas}"));
    for (device, id, code) in [
        ("mine", "mine/1", 0),
        ("mine", "mine/2", 0),
        ("mine", "mine/3", 0x97),
        ("mine", "mine/2", 0),
        ("other", "other", 0),
        ("a", "a", 0),
    ] {
        let mut client = dial(&broker, Some(holder(device, &[])));
        client.send(&connect(5, id).expiry(100).octets()).await;
        assert_eq!(client.receive().await.1[1], code, "{id}");
        client.ended().await;
    }
    // It makes room itself.
    let mut client = dial(&broker, Some(holder("mine", &[])));
    client.send(&connect(5, "mine/1").octets()).await;
    assert_eq!(client.receive().await.1[1], 0);
    leave(client).await;
    let mut client = dial(&broker, Some(holder("mine", &[])));
    client.send(&connect(5, "mine/3").octets()).await;
    assert_eq!(client.receive().await.1[1], 0);
    // Whoever has no certificate shares the rest.
    for number in 0..4 {
        session_present(&broker, connect(5, &format!("any{number}"))).await;
    }
}

#[tokio::test]
async fn a_connection_whose_task_is_dropped_leaves_its_session() {
    for (setting, fires) in [("drop", false), ("publish", true)] {
        let broker = broker(&format!("on_cut = {{ will = '{setting}' }}\n{OPEN}"));
        let mut watcher = connected(&broker, connect(4, "watcher")).await;
        watcher.subscribe(4, "gone", 0).await;
        let client = connected(&broker, connect(5, "one").will("gone", b"x", 0, &[])).await;
        client.served.abort();
        assert!(client.served.await.expect_err("aborted").is_cancelled());
        if fires {
            assert!(watcher.receive().await.1.ends_with(b"x"));
        } else {
            watcher.receive_nothing().await;
        }
        let metrics = broker.metrics();
        assert_eq!((metrics.sessions, metrics.connections), (1, 1));
    }
}

#[tokio::test]
async fn a_session_is_its_owners_only() {
    let rules = "[[rules]]\nclient_id = 'any'\npublish = ['#']\nsubscribe = ['#']\n";
    let broker = broker(&format!("{OPEN}{rules}"));
    let mut mine = dial(&broker, Some(holder("mine", &[])));
    mine.send(&connect(5, "same").expiry(100).octets()).await;
    mine.receive().await;
    mine.subscribe(5, "a", 1).await;
    for other in [None, Some(holder("other", &[]))] {
        let mut thief = dial(&broker, other);
        thief.send(&connect(5, "same").unclean().octets()).await;
        // A session of its own, and nobody was disturbed.
        assert_eq!(thief.receive().await.1[..2], [0, 0]);
        mine.send(&PING).await;
        assert_eq!(mine.receive().await.0, 0xd0);
    }
}

#[tokio::test]
async fn what_was_sent_after_a_group_was_lost_is_not_delivered() {
    let broker = broker(&format!(
        "{OPEN}[[rules]]\nsubscribe = ['fleet/#']\n[[rules]]\ngroups = ['night']\nsubscribe = ['night/#']"
    ));
    let persistent = connect(4, "meter").unclean();
    let mut meter = dial(&broker, Some(holder("meter", &["night"])));
    meter.send(&persistent.octets()).await;
    assert_eq!(meter.receive().await, (0x20, vec![0, 0]));
    for filter in ["fleet/#", "night/#"] {
        assert_eq!(meter.subscribe(4, filter, 1).await, 1);
    }
    leave(meter).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for topic in ["night/order", "fleet/order"] {
        writer.send(&publish(4, 2, topic, 1, &[], b"x")).await;
        assert_eq!(writer.receive().await.0, PUBACK);
    }
    let mut meter = dial(&broker, Some(holder("meter", &[])));
    meter.send(&persistent.octets()).await;
    assert_eq!(meter.receive().await, (0x20, vec![1, 0]));
    assert!(meter.receive().await.1.starts_with(b"\0\x0bfleet/order"));
    meter.receive_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn silence_beyond_one_and_a_half_keep_alives_ends_a_client_and_zero_never_does() {
    let broker = broker(OPEN);
    for version in [4, 5] {
        let mut quiet = connect(version, "quiet").will("gone", b"x", 0, &[]);
        quiet.keep_alive = 10;
        let mut quiet = connected(&broker, quiet).await;
        let mut watcher = connected(&broker, connect(4, "watcher")).await;
        watcher.subscribe(4, "gone", 0).await;
        tokio::time::sleep(Duration::from_secs(14)).await;
        quiet.send(&PING).await;
        assert_eq!(quiet.receive().await.0, 0xd0);
        let began = tokio::time::Instant::now();
        match version {
            5 => quiet.is_disconnected(0x8d).await,
            _ => quiet.is_closed().await,
        }
        assert_eq!(began.elapsed().as_secs(), 15);
        assert!(watcher.receive().await.1.ends_with(b"gonex"));
        // The watcher has keep alive 0.
        tokio::time::sleep(Duration::from_secs(100_000)).await;
        watcher.send(&PING).await;
        assert_eq!(watcher.receive().await.0, 0xd0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_packet_that_takes_longer_than_the_keep_alive_is_no_silence_unless_it_stops() {
    let broker = broker(OPEN);
    for (octets, is_served) in [(2000_usize, true), (1, false)] {
        let mut client = connected(&broker, Connect { keep_alive: 10, ..connect(4, "slow") }).await;
        let upload = publish(4, 2, "t", 1, &[], &[b'x'; 20_000]);
        let (parts, rest) = upload.split_at(10 * octets);
        for part in parts.chunks(octets) {
            client.try_send(part).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        client.try_send(rest).await;
        let answer = client.receive_or_end().await;
        assert_eq!(answer, is_served.then(|| (PUBACK, vec![0, 1])), "{octets}");
    }
}

/// While much waits for it a client is not read, so that its pings are not either.
#[tokio::test(start_paused = true)]
async fn who_takes_longer_than_the_keep_alive_for_a_message_is_not_silent_unless_it_stops() {
    let broker = broker(OPEN);
    let mut slow = connected(&broker, Connect { keep_alive: 10, ..connect(4, "slow") }).await;
    slow.subscribe(4, "t", 0).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    writer.send(&publish(4, 2, "t", 1, &[], &[b'x'; 200_000])).await;
    assert_eq!(writer.receive().await.0, PUBACK);
    let mut octets = [0; 8192];
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        slow.send(&PING).await;
        slow.stream.read_exact(&mut octets).await.expect("more of the message");
    }
    let began = tokio::time::Instant::now();
    assert_eq!(slow.served.await.expect("no panic"), Ended::Ours(Code::KEEP_ALIVE_TIMEOUT));
    assert_eq!(began.elapsed().as_secs(), 15);
}

#[tokio::test]
async fn a_longest_keep_alive_is_announced() {
    let broker = broker(&format!("{OPEN}[quotas]\nkeep_alive_s = 60"));
    for (asked, expected) in [(120, true), (0, true), (30, false)] {
        let mut connect = connect(5, "one");
        connect.keep_alive = asked;
        let mut client = dial(&broker, None);
        client.send(&connect.octets()).await;
        let (_, body) = client.receive().await;
        let is_told = body.windows(3).any(|window| window == [0x13, 0, 60]);
        assert_eq!(is_told, expected, "{body:02x?}");
    }
}

#[tokio::test(start_paused = true)]
async fn wills_fire_when_they_should() {
    let broker = broker(OPEN);
    let mut watcher = connected(&broker, connect(5, "watcher")).await;
    watcher.subscribe(5, "gone", 1).await;
    let willing = |expiry| connect(5, "one").expiry(expiry).will("gone", b"x", 0x08, &[0x18, 0, 0, 0, 5]);
    let mut number = 0;
    for (expiry, seconds) in [(100, 5), (2, 2), (0, 0)] {
        let client = connected(&broker, willing(expiry)).await;
        drop(client.stream);
        let began = tokio::time::Instant::now();
        let (first, body) = watcher.receive().await;
        assert_eq!((first, began.elapsed().as_secs()), (0x32, seconds));
        number += 1;
        assert!(body.ends_with(&[0, 0, number, 0, b'x'][1..]));
        watcher.send(&ack(PUBACK, number.into())).await;
    }
    // Back within the delay: no will, whether the session goes on or begins anew.
    for again in [connect(5, "one").unclean().expiry(100), connect(5, "one").expiry(100)] {
        let client = connected(&broker, willing(100)).await;
        client.ended().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (client, was_there) = session_present(&broker, again.clone()).await;
        assert_eq!(was_there, !again.clean);
        tokio::time::sleep(Duration::from_secs(10)).await;
        watcher.receive_nothing().await;
        leave(client).await;
    }
    // A clean start that takes a connection over ends its session before the delay runs.
    let _old = connected(&broker, willing(100)).await;
    leave(connected(&broker, connect(5, "one")).await).await;
    let (first, body) = watcher.receive().await;
    assert_eq!((first, &body[6..]), (0x32, &[0, 4, 0, b'x'][..]));
    watcher.send(&ack(PUBACK, 4)).await;
    // A goodbye drops it, "disconnect with will" does not.
    let client = connected(&broker, connect(5, "one").will("gone", b"x", 0, &[])).await;
    leave(client).await;
    watcher.receive_nothing().await;
    let mut client = connected(&broker, connect(5, "one").will("gone", b"x", 0, &[])).await;
    client.send(&[0xe0, 1, 4]).await;
    assert!(watcher.receive().await.1.ends_with(b"gone\0x"));
    client.ended().await;
    // A takeover fires it too, when it has no delay (§3.1.2.5).
    let _old = connected(&broker, connect(5, "one").will("gone", b"x", 0, &[])).await;
    let _new = connected(&broker, connect(5, "one")).await;
    assert!(watcher.receive().await.1.ends_with(b"gone\0x"));
    assert_eq!(broker.metrics().wills, 6);
}

#[tokio::test]
async fn a_goodbye_counts_though_the_client_is_back_before_it_is_read() {
    for version in [4, 5] {
        let broker = broker(OPEN);
        let mut watcher = connected(&broker, connect(4, "watcher")).await;
        watcher.subscribe(4, "gone", 0).await;
        let willing = || {
            let connect = connect(version, "one").will("gone", b"x", 0, &[]).unclean();
            if version == 5 { connect.expiry(100) } else { connect }
        };
        let mut old = connected(&broker, willing()).await;
        // Its task is the first to run: nothing is awaited between here and its CONNECT.
        let mut new = dial(&broker, None);
        let goodbye: &[u8] = if version == 5 { &[0, 5, 0x11, 0, 0, 0, 0] } else { &[] };
        old.send(&packet(0xe0, goodbye)).await;
        new.send(&willing().octets()).await;
        let (first, body) = new.receive().await;
        // Version 5 ended the session with its goodbye.
        assert_eq!((first, body[0]), (0x20, u8::from(version == 4)), "{version}");
        assert_eq!(old.ended().await, Ended::Disconnected, "{version}");
        watcher.receive_nothing().await;
        assert_eq!((broker.metrics().wills, broker.metrics().taken_over), (0, 0), "{version}");
    }
}

#[tokio::test]
async fn a_retained_will_is_retained() {
    let broker = broker(OPEN);
    let client = connected(&broker, connect(4, "one").will("gone", b"x", 0x20, &[])).await;
    client.ended().await;
    let mut late = connected(&broker, connect(4, "late")).await;
    late.subscribe(4, "gone", 0).await;
    assert_eq!(late.receive().await.0, 0x31);
}

#[tokio::test]
async fn a_cut_may_take_the_session_along() {
    for (setting, expected) in [("keep", true), ("drop", false)] {
        let broker = broker(&format!("{OPEN}[on_cut]\nsession = '{setting}'"));
        let (mut client, _) = session_present(&broker, connect(5, "one").expiry(100)).await;
        client.cutter.take().expect("there").cut(CutReason::Denied);
        client.is_disconnected(0x98).await;
        let (_, was_there) = session_present(&broker, connect(5, "one").unclean()).await;
        assert_eq!(was_there, expected);
    }
}

#[tokio::test]
async fn a_broker_that_stops_says_so_and_fires_no_wills() {
    let broker = broker(OPEN);
    let mut five = connected(&broker, connect(5, "five").will("gone", b"x", 0x20, &[])).await;
    let mut three = connected(&broker, connect(4, "three")).await;
    broker.drain();
    five.is_disconnected(0x8b).await;
    three.is_closed().await;
    assert_eq!(five.ended().await, Ended::Ours(Code::SERVER_SHUTTING_DOWN));
    three.ended().await;
    let metrics = broker.metrics();
    assert_eq!((metrics.wills, metrics.ended.get("server_shutting_down")), (0, Some(&2)));
    let mut late = dial(&broker, None);
    late.send(&connect(5, "late").octets()).await;
    assert_eq!(late.receive().await, (0x20, vec![0, 0x88, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up() {
    let broker = broker(OPEN);
    let mut deaf = connected(&broker, connect(4, "deaf")).await;
    deaf.subscribe(4, "#", 0).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for _ in 0..100 {
        writer.send(&publish(4, 0, "a", 0, &[], &[b'x'; 1000])).await;
    }
    writer.send(&PING).await;
    writer.receive().await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(deaf.served.await.expect("no panic"), Ended::Stalled);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_an_octet_now_and_then_is_given_up_and_a_slow_one_is_not() {
    for (octets, is_served) in [(1_usize, false), (2000, true)] {
        let broker = broker(OPEN);
        let mut slow = connected(&broker, connect(4, "slow")).await;
        slow.subscribe(4, "#", 0).await;
        let mut writer = connected(&broker, connect(4, "writer")).await;
        for _ in 0..100 {
            writer.send(&publish(4, 0, "a", 0, &[], &[b'x'; 1000])).await;
        }
        writer.send(&PING).await;
        writer.receive().await;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            // What was written before the end may still be there.
            let _ = slow.stream.read_exact(&mut vec![0; octets]).await;
        }
        assert_eq!(slow.served.is_finished(), !is_served, "{octets}");
        if !is_served {
            assert_eq!(slow.served.await.expect("no panic"), Ended::Stalled);
        }
    }
}

/// The edge drops a connection that does not end in time, at whatever point it is.
#[tokio::test]
async fn a_will_reaches_all_even_if_the_connection_is_dropped_while_it_goes_out() {
    let broker = broker(OPEN);
    let mut readers = Vec::new();
    // More than one publication serves in one go.
    for number in 0..600 {
        let mut reader = connected(&broker, connect(4, &format!("reader-{number}"))).await;
        reader.subscribe(4, "gone", 0).await;
        readers.push(reader);
    }
    for steps in 0..8 {
        let Client { stream, served, .. } =
            connected(&broker, connect(4, "one").will("gone", b"x", 0, &[])).await;
        drop(stream);
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        served.abort();
        let was_dropped = served.await.is_err();
        if steps == 0 {
            assert!(was_dropped, "it had no time to end");
            // As one that was cut: it says nothing more.
            continue;
        }
        for reader in &mut readers {
            assert_eq!(reader.receive().await.0, 0x30, "after {steps} steps");
        }
    }
}
