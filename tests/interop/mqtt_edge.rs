//! Strangers' MQTT clients with device certificates at the door of a hostname, through the whole server:
//! mosquitto's in C, Paho in Python and mqtt.js in Node, over TLS and WebSockets, in 3.1.1 and 5.
//!
//! None of them knows the hostname's address: Paho and mqtt.js are told that every name is loopback,
//! mosquitto's ask a SOCKS proxy. So each sends the name that it should, and checks the server's.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use muster_tests::Server;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::python::python;
use crate::{run, shell};

const HOST: &str = "mqtt.example.test";

/// A server with a hostname for MQTT, and devices with their certificates in its scratch folder.
struct Door {
    server: Server,
}

impl Door {
    fn open() -> Self {
        let (server, stranger) = (Server::start(), Server::start());
        let own = bring_own_ca(&server);
        let host = ["host", "set", HOST, "--mode", "require", "--protocol", "mqtt"];
        server.muster(&[&host[..], &["--ca", "devices", "--ca", &own]].concat());
        std::fs::copy(server.ca_file(), server.scratch().join("ca.pem")).expect("copied");
        for device in ["meter-1", "revoked"] {
            enroll(&server, device);
        }
        server.muster(&["cert", "revoke", "--device", "revoked"]);
        enroll(&stranger, "meter-1");
        for file in ["meter-1.pem", "meter-1.key"] {
            let copy = server.scratch().join(format!("foreign-{file}"));
            std::fs::copy(stranger.scratch().join(file), copy).expect("copied");
        }
        Self { server }
    }

    fn urls(&self) -> [String; 2] {
        let (tls, web) = (self.server.mqtt_address().port(), self.server.https_address().port());
        [format!("mqtts://{HOST}:{tls}"), format!("wss://{HOST}:{web}/mqtt")]
    }
}

/// A certificate for a device, as `DEVICE.pem` and `DEVICE.key` in the server's scratch folder.
fn enroll(server: &Server, device: &str) {
    let est = format!("https://localhost:{}/.well-known/est", server.est_address().port());
    let (ca, token) = (server.ca_file(), server.token(device));
    let line = format!(
        "openssl ecparam -name prime256v1 -genkey -noout -out {device}.key
         openssl req -new -key {device}.key -subj /CN={device} -outform DER | base64 > {device}.csr
         curl -sS --fail-with-body --cacert {} -u {device}:{token} -H 'Content-Type: application/pkcs10' \
             --data-binary @{device}.csr {est}/simpleenroll | base64 -d | openssl pkcs7 -inform DER -print_certs > {device}.pem",
        ca.display()
    );
    shell(server, &line);
}

/// The id of a CA of the account's own, which issued a certificate that ended and one that did not to one device.
fn bring_own_ca(server: &Server) -> String {
    let write =
        |name: &str, text: String| std::fs::write(server.scratch().join(name), text).expect("written");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Own devices CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("own-ca.pem", params.self_signed(&key).expect("a CA").pem());
    let file = server.scratch().join("own-ca.pem").display().to_string();
    let imported = server.muster_json(&["ca", "import", &file]);
    let issuer = Issuer::new(params, key);
    for (name, last_year) in [("own", 2100), ("expired", 2025)] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "meter-1");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(2024, 1, 1);
        params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        write(&format!("{name}.pem"), params.signed_by(&key, &issuer).expect("a leaf").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
    imported["id"].as_str().expect("an id").to_owned()
}

/// What a client says, by certificate, client id and topic.
type Said<'a> = &'a dyn Fn(Option<&str>, &str, &str) -> String;

const TOPIC: &str = "devices/meter-1/state";

/// A device is served, and nobody who is not that device.
fn only_the_device_is_served(said: Said<'_>, what: &str) {
    for certificate in ["meter-1", "own"] {
        assert_eq!(said(Some(certificate), "meter-1", TOPIC), "done", "{what} {certificate}");
    }
    for certificate in [None, Some("expired"), Some("revoked"), Some("foreign-meter-1")] {
        let text = said(certificate, "meter-1", TOPIC);
        assert!(text.starts_with("refused"), "{what} {certificate:?}: {text}");
    }
    let text = said(Some("meter-1"), "meter-2", TOPIC).to_lowercase();
    assert!(text.starts_with("refused") && text.contains("identifier"), "{what}: {text}");
    let text = said(Some("meter-1"), "meter-1", "devices/meter-2/state");
    assert!(text.starts_with("refused: subscription and publication"), "{what}: {text}");
}

/// Runs a script over TLS and WebSockets in both versions.
fn in_every_way(interpreter: &[&str], script: &str) {
    let door = Door::open();
    for url in door.urls() {
        for version in ["4", "5"] {
            let said = |certificate: Option<&str>, id: &str, topic: &str| {
                let files = certificate.map(|name| [format!("{name}.pem"), format!("{name}.key")]);
                let mut args = interpreter[1..].to_vec();
                args.extend([script, &url, version, "ca.pem", id, topic]);
                args.extend(files.iter().flatten().map(String::as_str));
                run(&door.server, interpreter[0], &args).trim().to_owned()
            };
            only_the_device_is_served(&said, &format!("{url} {version}"));
        }
    }
}

#[test]
fn mqtt_js_is_served_with_a_device_certificate_and_not_without() {
    // Debian's modules, which a Node from elsewhere does not look for.
    let node = ["env", "NODE_PATH=/usr/share/nodejs", "node"];
    in_every_way(&node, concat!(env!("CARGO_MANIFEST_DIR"), "/interop/mqtt_edge.js"));
}

#[test]
fn paho_is_served_with_a_device_certificate_and_not_without() {
    in_every_way(&[&python()], concat!(env!("CARGO_MANIFEST_DIR"), "/interop/mqtt_edge.py"));
}

#[test]
fn mosquittos_clients_are_served_with_a_device_certificate_and_not_without() {
    let door = Door::open();
    let (port, proxy) = (door.server.mqtt_address().port(), proxy().port());
    for version in ["mqttv311", "mqttv5"] {
        let said = |certificate: Option<&str>, id: &str, topic: &str| {
            let files =
                certificate.map_or_else(String::new, |name| format!("--cert {name}.pem --key {name}.key"));
            let client = format!(
                "-V {version} --proxy socks5h://127.0.0.1:{proxy} -h {HOST} -p {port} --cafile ca.pem {files} -t {topic}"
            );
            // It tells of a refused subscription, and of a refused publication by its status in version 3.1.1.
            let line = format!(
                "mosquitto_sub {client} -i {id}/reader -q 2 -W 4 -C 3 -F '%p' > read.{version} 2>&1 & reader=$!
                 sleep 1
                 for quality in 0 1 2; do
                     mosquitto_pub {client} -i {id} -q $quality -m \"hello $quality\" >> wrote.{version} 2>&1 || echo failed >> wrote.{version}
                 done
                 wait $reader || true
                 sort read.{version}; cat wrote.{version}; rm -f wrote.{version}"
            );
            let text = shell(&door.server, &line);
            match text.as_str() {
                "hello 0\nhello 1\nhello 2\n" => "done".to_owned(),
                text if text.contains("hello") => format!("wrong: {text}"),
                text if text.contains("denied") => format!("refused: subscription and publication, {text}"),
                text => format!("refused: {text}"),
            }
        };
        only_the_device_is_served(&said, version);
    }
}

#[test]
fn mosquittos_clients_are_held_to_the_rules_of_the_zone() {
    let door = Door::open();
    let (port, proxy) = (door.server.mqtt_address().port(), proxy().port());
    let (_, token) = door.server.account_and_token();
    let zones = door.server.muster_json(&["zone", "list"]);
    let zone = zones[0]["id"].as_str().expect("an id");
    let entrypoint = format!(
        "{}/zones/{zone}/rulesets/phases/http_request_firewall_custom/entrypoint",
        door.server.api_url()
    );
    let set = |rules: &[&str]| {
        let rules: Vec<_> =
            rules.iter().map(|text| json!({ "expression": text, "action": "block" })).collect();
        std::fs::write(door.server.scratch().join("rules.json"), json!({ "rules": rules }).to_string())
            .expect("written");
        let line = format!(
            "curl -sS --fail-with-body -X PUT -H 'Authorization: Bearer {token}' --data @rules.json {entrypoint}"
        );
        shell(&door.server, &line);
    };
    let blocked = r#"mqtt.packet eq "connect" and mqtt.client_id matches "^meter-1/bl.cked$" and cf.tls_client_auth.cert_verified"#;
    let secret = r#"mqtt.topic eq "devices/meter-1/secret""#;
    set(&[blocked, secret]);
    for version in ["mqttv311", "mqttv5"] {
        let client = format!(
            "-V {version} --proxy socks5h://127.0.0.1:{proxy} -h {HOST} -p {port} --cafile ca.pem --cert meter-1.pem --key meter-1.key"
        );
        let text = shell(
            &door.server,
            &format!("mosquitto_pub {client} -i meter-1/blocked -t {TOPIC} -q 1 -m x 2>&1 || true"),
        );
        assert!(text.to_lowercase().contains("not authori"), "{version}: {text}");
        let text = shell(
            &door.server,
            &format!("mosquitto_sub {client} -i meter-1/r -t devices/meter-1/secret -W 5 2>&1 || true"),
        );
        assert!(text.contains("denied"), "{version}: {text}");
        // A filter that contains the topic leads around no rule, and the connection goes on.
        let line = format!(
            "mosquitto_sub {client} -i meter-1/r -t 'devices/meter-1/#' -q 1 -W 30 -C 1 -F '%t %p' > read 2>&1 & reader=$!
             for n in $(seq 40); do
                 mosquitto_pub {client} -i meter-1/w -t devices/meter-1/secret -q 1 -m no > /dev/null 2>&1 || true
                 mosquitto_pub {client} -i meter-1/w -t devices/meter-1/open -q 1 -m yes
                 kill -0 $reader 2> /dev/null || break
             done
             wait $reader; cat read"
        );
        assert_eq!(shell(&door.server, &line), "devices/meter-1/open yes\n", "{version}");
    }
    // A client that is connected when a rule comes is judged again, and refused when it tries anew.
    std::fs::write(door.server.scratch().join("live"), "").expect("written");
    let line = format!(
        "timeout 60 stdbuf -oL mosquitto_sub -V mqttv5 -d --proxy socks5h://127.0.0.1:{proxy} -h {HOST} -p {port} --cafile ca.pem \
             --cert meter-1.pem --key meter-1.key -i meter-1/live -t {TOPIC} >> live 2>&1 || true"
    );
    std::thread::scope(|scope| {
        let client = scope.spawn(|| shell(&door.server, &line));
        let said = || std::fs::read_to_string(door.server.scratch().join("live")).expect("said");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !said().contains("SUBACK") {
            assert!(Instant::now() < deadline, "not connected: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        set(&[r#"mqtt.client_id eq "meter-1/live""#]);
        client.join().expect("ended");
        // 0x98, administrative action.
        assert!(said().contains("DISCONNECT (152)"), "{}", said());
    });
    let line = line.replace(">> live", "");
    let text = shell(&door.server, &line);
    assert!(text.to_lowercase().contains("not authori"), "{text}");
}

/// A SOCKS proxy (RFC 1928) to which every name is loopback.
fn proxy() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a client");
            std::thread::spawn(move || carry(client));
        }
    });
    address
}

/// Connects one client to the port that it names, at loopback, and copies until either side ends.
fn carry(mut client: TcpStream) -> std::io::Result<()> {
    let mut greeting = [0; 2];
    client.read_exact(&mut greeting)?;
    client.read_exact(&mut vec![0; usize::from(greeting[1])])?;
    client.write_all(&[5, 0])?;
    // Version, CONNECT, reserved, a name, and its length.
    let mut head = [0; 5];
    client.read_exact(&mut head)?;
    assert_eq!(head[..4], [5, 1, 0, 3]);
    let mut name = vec![0; usize::from(head[4])];
    client.read_exact(&mut name)?;
    assert_eq!(name, HOST.as_bytes());
    let mut port = [0; 2];
    client.read_exact(&mut port)?;
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, u16::from_be_bytes(port)))?;
    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0])?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let there = std::thread::spawn(move || {
        let copied = std::io::copy(&mut from_client, &mut to_server);
        to_server.shutdown(std::net::Shutdown::Write).and(copied)
    });
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(std::net::Shutdown::Both)?;
    drop(there.join());
    Ok(())
}
