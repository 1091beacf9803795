//! The engine `upstream` before strangers' brokers: mosquitto and nats-server, with mosquitto's clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muster_broker::{BrokerConfig, EngineKind, UpstreamConfig};
use muster_tests::MqttBroker;

use super::command;

/// A stranger's broker; it is killed with its value.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

fn start(program: &str, args: &[&str], is_up: impl Fn() -> bool) -> Stranger {
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    let stranger = Stranger(command.spawn().unwrap_or_else(|error| panic!("{program} is needed: {error}")));
    let began = Instant::now();
    while !is_up() {
        assert!(began.elapsed() < Duration::from_secs(20), "{program} does not come up");
        std::thread::sleep(Duration::from_millis(50));
    }
    stranger
}

fn is_listening(port: u16) -> impl Fn() -> bool {
    move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn before(upstream: UpstreamConfig) -> MqttBroker {
    MqttBroker::start(BrokerConfig {
        engine: EngineKind::Upstream,
        upstream: Some(upstream),
        ..BrokerConfig::default()
    })
}

fn tcp(port: u16) -> UpstreamConfig {
    UpstreamConfig { tcp: Some(format!("127.0.0.1:{port}")), ..UpstreamConfig::default() }
}

/// A device publishes to itself; another device's topics are out of its reach.
fn meter_is_served(broker: &MqttBroker, versions: &[&str], qualities: &[u8]) {
    let port = broker.listen(Some("meter")).port();
    for version in versions {
        for quality in qualities {
            let line = format!(
                "mosquitto_sub -V {version} -p {port} -i meter/watch -q {quality} -t 'devices/meter/#' -t '#' \
                     -W 15 -C 1 2>/dev/null &
                 sleep 1
                 mosquitto_pub -V {version} -p {port} -q {quality} -i meter -t devices/meter/state -m good
                 wait $!"
            );
            assert_eq!(command("bash", &["-ec", &line]), "good\n", "{version} {quality}");
        }
    }
    let refused =
        format!("mosquitto_pub -V {} -p {port} -q 1 -i meter -t devices/other/x -m bad || true", versions[0]);
    command("bash", &["-ec", &refused]);
    assert_eq!(broker.metrics().publish_refused, 1);
}

#[test]
fn mosquitto_serves_devices_behind_the_gate_by_tcp_and_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let (port, socket) = (free_port(), folder.path().join("mqtt.sock"));
    let config = folder.path().join("mosquitto.conf");
    // Started by root it would become another user, who may not write here.
    let text = format!(
        "user root\nallow_anonymous true\nlistener {port} 127.0.0.1\nlistener 0 {}\n",
        socket.display()
    );
    std::fs::write(&config, text).expect("written");
    let config = config.display().to_string();
    let _mosquitto = start("/usr/sbin/mosquitto", &["-c", &config], is_listening(port));
    meter_is_served(&before(tcp(port)), &["mqttv5", "mqttv311"], &[0, 1, 2]);
    let unix = UpstreamConfig { unix: Some(socket), ..UpstreamConfig::default() };
    meter_is_served(&before(unix), &["mqttv5"], &[1]);
}

#[test]
fn nats_serves_devices_of_version_3_behind_the_gate() {
    let folder = tempfile::tempdir().expect("a folder");
    let (port, client_port) = (free_port(), free_port());
    let config = folder.path().join("nats.conf");
    let text = format!(
        "server_name: one\nlisten: 127.0.0.1:{client_port}\njetstream {{ store_dir: \"{}\" }}\n\
         mqtt {{ listen: 127.0.0.1:{port} }}\n",
        folder.path().join("store").display()
    );
    std::fs::write(&config, text).expect("written");
    let program =
        if Path::new("/usr/sbin/nats-server").exists() { "/usr/sbin/nats-server" } else { "nats-server" };
    let config = config.display().to_string();
    let _nats = start(program, &["-c", &config], is_listening(port));
    meter_is_served(&before(tcp(port)), &["mqttv311"], &[0, 1]);
}

#[test]
fn the_other_broker_is_told_who_the_client_is() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let upstream = UpstreamConfig { proxy_protocol: true, password: Some("shared".to_owned()), ..tcp(port) };
    let broker = before(upstream);
    let mut device = TcpStream::connect(broker.listen(Some("meter"))).expect("connects");
    device.write_all(b"\x10\x11\0\x04MQTT\x05\x02\0\0\0\0\x04me2r").expect("written");
    let mut answer = [0; 5];
    device.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, [0x20, 3, 0, 0x85, 0], "another's client id never gets through");
    let mut device = TcpStream::connect(broker.listen(Some("meter"))).expect("connects");
    let source = device.local_addr().expect("an address");
    device.write_all(b"\x10\x12\0\x04MQTT\x05\x02\0\0\0\0\x05meter").expect("written");
    let (stream, _) = listener.accept().expect("accepted");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let mut reader = BufReader::new(stream);
    let first = reader.fill_buf().expect("octets").to_vec();
    let header = ppp::v2::Header::try_from(first.as_slice()).expect("a PROXY header");
    let SocketAddr::V4(source) = source else { panic!("loopback is IPv4") };
    let ppp::v2::Addresses::IPv4(addresses) = header.addresses else { panic!("{header:?}") };
    assert_eq!((addresses.source_address, addresses.source_port), (*source.ip(), source.port()));
    let parts: Vec<_> = header.tlvs().map(|part| part.expect("sound")).collect();
    assert_eq!(parts[0].value.as_ref(), b"mqtt.example.com");
    assert!(parts[1].value.ends_with(b"\x22\0\x05meter") && parts[1].value.starts_with(&[7, 0, 0, 0, 0]));
    let connect = &first[header.len()..];
    assert!(connect.ends_with(b"\0\x05meter\0\x05meter\0\x06shared"), "{connect:02x?}");
}

#[test]
fn a_broker_that_is_away_is_said_to_be_so() {
    let broker = before(tcp(free_port()));
    let port = broker.listen(Some("meter")).port();
    let line = format!("mosquitto_pub -V mqttv5 -p {port} -i meter -t devices/meter/x -m x 2>&1 || true");
    let text = command("bash", &["-ec", &line]);
    assert!(text.contains("Server unavailable"), "{text}");
}
