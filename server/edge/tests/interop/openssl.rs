//! `openssl s_client`: names, resumption, renegotiation, early data, small records.

use muster_edge::Event;

use crate::Bench;
use crate::rig::{ACCOUNT, TestCa};

impl Bench {
    /// One request over `s_client`, until the server closes.
    fn s_client(&self, name: Option<&str>, args: &[&str]) -> (bool, String) {
        let address = self.rig.https.to_string();
        let mut all = vec!["s_client", "-connect", &address, "-CAfile", "ca.pem", "-ign_eof"];
        match name {
            Some(name) => all.extend(["-servername", name]),
            None => all.push("-noservername"),
        }
        all.extend(args);
        let host = name.unwrap_or("api.example.com");
        self.run("openssl", &all, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_known_name_there_is_no_certificate_to_see() {
    let bench = Bench::start().await;
    for name in [None, Some("unknown.example.com"), Some("xn--unknown-9za.example.com")] {
        let (_, text) = bench.s_client(name, &[]);
        assert!(text.contains("unrecognized name"), "{text}");
        assert!(text.contains("no peer certificate available"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_comes_in_with_either_version_its_hostname_speaks() {
    let bench = Bench::start().await;
    bench.pair("device", &bench.rig.ca.device("meter-1", 7));
    for (name, version, served) in [
        ("api.example.com", "-tls1_3", true),
        ("api.example.com", "-tls1_2", false),
        ("old.example.com", "-tls1_2", true),
        ("old.example.com", "-tls1_3", true),
        ("OLD.Example.COM", "-tls1_3", true),
    ] {
        let (_, text) = bench.s_client(Some(name), &[version, "-cert", "device.pem", "-key", "device.pem"]);
        assert_eq!(text.contains("HTTP/1.1 200 OK"), served, "{name} {version}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_alert() {
    let bench = Bench::start().await;
    bench.rig.tell(vec![Event::Revoked(bench.rig.ca.key(66))]);
    bench.pair("revoked", &bench.rig.ca.device("meter-1", 66));
    bench.pair("stranger", &TestCa::new(5, ACCOUNT, "devices").device("meter-1", 7));
    for (args, alert) in [
        (&[][..], "certificate required"),
        (&["-cert", "revoked.pem", "-key", "revoked.pem"], "certificate revoked"),
        (&["-cert", "stranger.pem", "-key", "stranger.pem"], "unknown ca"),
    ] {
        let (_, text) = bench.s_client(Some("api.example.com"), args);
        assert!(text.contains(&format!("alert {alert}")), "{text}");
    }
}

/// The key is longer than is worked with, so who signed it is not even asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_made_to_cost_time_is_refused_unlooked_at() {
    let bench = Bench::start().await;
    let (made, text) = bench.run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:4608",
            "-nodes",
            "-keyout",
            "long.key",
            "-out",
            "long.pem",
            "-subj",
            "/CN=meter-1",
            "-addext",
            "extendedKeyUsage=clientAuth",
        ],
        "",
    );
    assert!(made, "{text}");
    let (_, text) = bench.s_client(Some("api.example.com"), &["-cert", "long.pem", "-key", "long.key"]);
    assert!(text.contains("alert certificate unknown"), "{text}");
    bench.rig.refused(muster_policy::reason::Reason::ChainExcessive, 1).await;
}

/// No session id in TLS 1.2 and no ticket in 1.3: openssl, told to keep the session, has nothing to
/// keep, so there is nothing to take to another hostname or beyond a change of CAs.
#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_given_that_could_be_resumed() {
    let bench = Bench::start().await;
    bench.pair("device", &bench.rig.ca.device("meter-1", 7));
    let identity = ["-cert", "device.pem", "-key", "device.pem"];
    for (name, version) in
        [("old.example.com", "-tls1_2"), ("old.example.com", "-tls1_3"), ("api.example.com", "-tls1_3")]
    {
        let args = [&[version, "-sess_out", "session.pem"], &identity[..]].concat();
        let (_, text) = bench.s_client(Some(name), &args);
        assert!(text.contains("HTTP/1.1 200 OK") && text.contains("New, TLSv1."), "{text}");
        assert!(!text.contains("TLS session ticket:"), "{text}");
        assert!(!bench.folder.path().join("session.pem").exists(), "{name} {version}");
    }
    let other = TestCa::new(5, ACCOUNT, "other");
    bench.rig.tell(vec![Event::CaRemoved(bench.rig.ca.id), Event::Ca(other.entry())]);
    for version in ["-tls1_2", "-tls1_3"] {
        let (_, text) = bench.s_client(Some("old.example.com"), &[&[version], &identity[..]].concat());
        assert!(text.contains("alert unknown ca") && !text.contains("HTTP/1.1 200 OK"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renegotiation_is_refused() {
    let bench = Bench::start().await;
    bench.pair("device", &bench.rig.ca.device("meter-1", 7));
    let address = bench.rig.https.to_string();
    let (_, text) = bench.run(
        "openssl",
        &[
            "s_client",
            "-connect",
            &address,
            "-CAfile",
            "ca.pem",
            "-servername",
            "old.example.com",
            "-tls1_2",
            "-cert",
            "device.pem",
            "-key",
            "device.pem",
        ],
        "R\n",
    );
    assert!(text.contains("RENEGOTIATING"), "{text}");
    assert!(text.contains("no renegotiation"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn early_data_has_no_ticket_to_ride_on() {
    let bench = Bench::start().await;
    bench.pair("device", &bench.rig.ca.device("meter-1", 7));
    let args = ["-tls1_3", "-cert", "device.pem", "-key", "device.pem"];
    let (_, text) = bench.s_client(Some("api.example.com"), &args);
    assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    assert!(
        text.contains("Early data was not sent") && !text.contains("Post-Handshake New Session Ticket"),
        "{text}"
    );
}

/// RFC 6066 §4: a client with little memory gets records it has room for.
#[tokio::test(flavor = "multi_thread")]
async fn records_are_as_small_as_the_client_asks() {
    let bench = Bench::start().await;
    bench.pair("device", &bench.rig.ca.device("meter-1", 7));
    let longest = |args: &[&str]| {
        let identity = ["-cert", "device.pem", "-key", "device.pem", "-tls1_3", "-msg"];
        let (_, text) = bench.s_client(Some("api.example.com"), &[&identity[..], args].concat());
        assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
        received(&text).into_iter().max().expect("records came")
    };
    assert!(longest(&[]) > 700);
    // RFC 8446 §5.2: content type, tag and padding come on top.
    assert!(longest(&["-maxfraglen", "512"]) <= 512 + 17);
}

/// The lengths of the records that `-msg` shows as received.
fn received(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let headers =
        lines.windows(2).filter(|pair| pair[0].starts_with("<<<") && pair[0].contains("RecordHeader"));
    headers
        .filter_map(|pair| {
            let octets: Vec<_> = pair[1]
                .split_whitespace()
                .filter_map(|octet| usize::from_str_radix(octet, 16).ok())
                .collect();
            Some(octets.get(3)? << 8 | octets.get(4)?)
        })
        .collect()
}

/// ALPACA: a client of another protocol is told so before it says anything, and none of ours is spoken to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_protocol_gets_no_answer_in_ours() {
    let bench = Bench::start().await;
    bench.pair("device", &bench.rig.ca.device("meter-1", 7));
    let identity = ["-cert", "device.pem", "-key", "device.pem"];
    let (https, mqtt) = (bench.rig.https.to_string(), bench.rig.mqtt.to_string());
    for (address, name, offered, agreed) in [
        (&https, "api.example.com", "ftp", None),
        (&https, "api.example.com", "smtp,imap,pop3,acme-tls/1,h3,http/0.9", None),
        (&https, "api.example.com", "mqtt", None),
        (&https, "api.example.com", "ftp,http/1.1", Some("http/1.1")),
        (&https, "api.example.com", "ftp,http/1.0", Some("http/1.0")),
        (&https, "mqtt.example.com", "http/1.0", None),
        (&https, "mqtt.example.com", "mqtt", Some("mqtt")),
        (&https, "mqtt.example.com", "h2", None),
        (&mqtt, "mqtt.example.com", "mqtt", Some("mqtt")),
        (&mqtt, "mqtt.example.com", "http/1.1,h2", None),
    ] {
        let fixed =
            ["s_client", "-connect", address, "-CAfile", "ca.pem", "-servername", name, "-alpn", offered];
        let (_, text) = bench.run("openssl", &[&fixed[..], &identity].concat(), "");
        match agreed {
            Some(protocol) => {
                assert!(text.contains(&format!("ALPN protocol: {protocol}")), "{name} {offered}: {text}")
            }
            None => assert!(text.contains("alert no application protocol"), "{name} {offered}: {text}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_not_spoken_whatever_a_hostname_allows() {
    let bench = Bench::start().await;
    bench.pair("device", &bench.rig.ca.device("meter-1", 7));
    for version in ["-tls1", "-tls1_1"] {
        let args = [version, "-cipher", "ALL:@SECLEVEL=0", "-cert", "device.pem", "-key", "device.pem"];
        let (_, text) = bench.s_client(Some("old.example.com"), &args);
        assert!(text.contains(" alert ") && text.contains("no peer certificate available"), "{text}");
    }
}

/// Names as no well-behaved library sends them.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_none_leads_to_no_door() {
    let bench = Bench::start().await;
    bench.pair("device", &bench.rig.ca.device("meter-1", 7));
    let identity = ["-cert", "device.pem", "-key", "device.pem"];
    for name in [
        "127.0.0.1",
        "::1",
        "..",
        ".example.com",
        "api..example.com",
        "*.wild.example.com",
        "a.b.wild.example.com",
        "wild.example.com",
    ] {
        let (_, text) = bench.s_client(Some(name), &identity);
        assert!(text.contains("no peer certificate available"), "{name}: {text}");
        assert!(!text.contains("HTTP/1.1"), "{name}: {text}");
    }
}

/// Keys and signatures of every kind a device may have, and those that have been broken.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_forged_vouches_for_nobody() {
    let bench = Bench::start().await;
    let folder = bench.folder.path();
    let ca = &bench.rig.ca;
    std::fs::write(folder.join("issuer.key"), ca.issuer.key().serialize_pem()).expect("written");
    std::fs::write(folder.join("issuer.pem"), pem::encode(&pem::Pem::new("CERTIFICATE", ca.der.clone())))
        .expect("written");
    std::fs::write(folder.join("ext"), "extendedKeyUsage=clientAuth\n").expect("written");
    for (name, key, digest, is_good) in [
        ("p256", "EC -pkeyopt ec_paramgen_curve:P-256", "-sha256", true),
        ("p384", "EC -pkeyopt ec_paramgen_curve:P-384", "-sha384", true),
        ("ed25519", "ED25519", "-sha256", true),
        ("rsa2048", "RSA -pkeyopt rsa_keygen_bits:2048", "-sha256", true),
        ("rsa1024", "RSA -pkeyopt rsa_keygen_bits:1024", "-sha256", false),
        ("sha1", "EC -pkeyopt ec_paramgen_curve:P-256", "-sha1", false),
        ("secp256k1", "EC -pkeyopt ec_paramgen_curve:secp256k1", "-sha256", false),
    ] {
        let script = format!(
            "openssl genpkey -algorithm {key} -out {name}.key && \
             openssl req -new -key {name}.key -subj /CN=meter-1 -out {name}.csr && \
             openssl x509 -req -in {name}.csr -CA issuer.pem -CAkey issuer.key -days 3650 \
                 -set_serial 7 -extfile ext {digest} -out {name}.pem"
        );
        let (made, text) = bench.run("sh", &["-c", &script], "");
        assert!(made, "{text}");
        let (pem, key) = (format!("{name}.pem"), format!("{name}.key"));
        let args = ["-cert", &pem, "-key", &key, "-cipher", "ALL:@SECLEVEL=0"];
        let (_, text) = bench.s_client(Some("api.example.com"), &args);
        assert_eq!(text.contains("HTTP/1.1 200 OK"), is_good, "{name}: {text}");
    }
}
