//! The firmware in the emulator against the real server: from an image of the factory to mutual TLS, and through
//! renewal, revocation, recovery, power cuts and crashes.
//!
//! `tests/check.sh firmware` builds the images and names them by environment. Each boot is a process of the
//! emulator with 64 KiB of memory and 512 KiB of flash for the image; what survives it is in a file.

// The scripted TLS server of the shell's own tests, and the CAs and keys of the device core's.
#[expect(dead_code, reason = "the device core's tests use the rest")]
#[path = "../../no_std-agent/proto/tests/device/authority.rs"]
mod authority;
#[expect(dead_code, reason = "the shell's tests use the rest")]
#[path = "../../no_std-agent/tests/shell/scripted.rs"]
mod scripted;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use muster_tests::board::{Board, firmware};
use muster_tests::request::request;
use muster_tests::{Est, Identity, Server};
use rcgen::BasicConstraints;

use self::authority::{Authority, START, TestKey, at, ca_params, device_params, server_params};
use self::scripted::{Message, Script, Step, honest};

const HOST: &str = "door.example.test";

/// Every device has its own topics, and operators those of all.
const RULES: &str = r#"
[[broker.rules]]
publish = ["devices/%i/#"]
subscribe = ["devices/%i/#"]

[[broker.rules]]
groups = ["operators"]
publish = ["devices/#"]
subscribe = ["devices/#"]
"#;

/// An origin that takes every request.
fn origin() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in socket.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while stream.read(&mut request).is_ok_and(|read| read > 0) {
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// An account with one door for HTTPS and MQTT, and an operator.
fn account() -> Server {
    let server = Server::with_config(RULES);
    let to = format!("http://{}", origin());
    server.muster(&["host", "set", HOST, "--protocol", "https", "--protocol", "mqtt", "--origin", &to]);
    let devices = server.scratch().join("operators.csv");
    std::fs::write(&devices, "id,groups\noperator,operators\n").expect("written");
    server.muster(&["device", "import", &devices.display().to_string()]);
    server
}

/// A new token and the addresses of everything, onto the board's flash.
fn provision(board: &Board, server: &Server, more: &[&str]) {
    let mqtt = format!("mqtts://{HOST}:{}", server.mqtt_address().port());
    let https = format!("https://{HOST}:{}/hello", server.https_address().port());
    let host = format!("{HOST}=10.0.2.2");
    let options = ["--mqtt", &mqtt, "--https", &https, "--host", &host];
    board.provision(server, server.est_address(), &[&options[..], more].concat());
}

/// Somebody who sends commands and reads the answers, in MQTT 3.1.1 byte by byte.
struct Operator(rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>);

impl Operator {
    fn connect(server: &Server) -> Self {
        let (key, der) = request("operator");
        let leaf = server.est().enroll("operator", &server.token("operator"), &der).certificate();
        let door = Est::new(server.mqtt_address(), &server.ca_file()).named(HOST);
        let mut stream = door.with(Identity { chain: vec![leaf], key }).connect().expect("a door");
        stream.write_all(b"\x10\x14\x00\x04MQTT\x04\x02\x00\x3c\x00\x08operator").expect("sent");
        stream.write_all(b"\x82\x0e\x00\x01\x00\x09devices/#\x01").expect("sent");
        Self(stream)
    }

    fn command(&mut self, device: &str, command: &str) {
        let topic = format!("devices/{device}/command");
        let payload = format!(r#"{{"command":"{command}"}}"#);
        let length = u8::try_from(2 + topic.len() + payload.len()).expect("short");
        let topic_length = u8::try_from(topic.len()).expect("short");
        let packet = [&[0x30, length, 0, topic_length][..], topic.as_bytes(), payload.as_bytes()].concat();
        self.0.write_all(&packet).expect("sent");
    }

    /// Reads until this text was heard, and returns all that was heard.
    fn hear(&mut self, text: &str) -> String {
        let timeout = Some(Duration::from_secs(20));
        self.0.sock.set_read_timeout(timeout).expect("set");
        let (mut heard, mut piece) = (Vec::new(), [0; 1024]);
        while !String::from_utf8_lossy(&heard).contains(text) {
            match self.0.read(&mut piece) {
                Ok(read) if read > 0 => heard.extend_from_slice(&piece[..read]),
                other => panic!("no `{text}` ({other:?}) in {}", String::from_utf8_lossy(&heard)),
            }
        }
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// The whole life of a device.
fn lives(machine: &'static str) {
    let server = account();
    let mut operator = Operator::connect(&server);
    let board = Board::new(machine, "pump-1");
    provision(&board, &server, &[]);
    let blank = [0xff; 4096];
    assert_ne!(std::fs::read(board.flash()).expect("there")[4096..8192], blank, "a token");

    let begin = Instant::now();
    let mut boot = board.boot(&[]);
    boot.wait_for("device pump-1, token there");
    boot.wait_for("est: Adopted(A)");
    boot.wait_for("the token is erased");
    boot.wait_for("https: answered with 200 and 200");
    boot.wait_for("mqtt: connected");
    let took = begin.elapsed();
    println!("{machine}: from power to telemetry in {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    operator.hear(r#"{"online":true,"version":"#);
    operator.command("pump-1", "status");
    boot.wait_for("mqtt: command status");
    operator.hear(r#"{"command":"status","accepted":true"#);
    drop(boot);
    assert_eq!(std::fs::read(board.flash()).expect("there")[4096..8192], blank, "no token is left");
    operator.hear(r#"{"online":false}"#);

    let mut boot = board.boot(&[]);
    boot.wait_for("token none");
    boot.wait_for("mqtt: connected");
    assert!(!boot.log().contains("key: making"), "the identity was stored:\n{}", boot.log());
    // It has subscribed to commands before it says so.
    operator.hear(r#"{"online":true,"version":"#);
    // What it renews to, and the servers' certificates from now on, are below a root that it was not told of.
    server.muster(&["ca", "create"]);
    operator.command("pump-1", "renew");
    boot.wait_for("key: made");
    boot.wait_for("est: Adopted(B)");
    boot.wait_for("mqtt: connected");
    let heard = operator.hear(r#"{"online":true,"version":"#);
    assert!(!heard.contains(r#"{"online":false}"#), "its sessions ended in order: {heard}");

    server.muster(&["cert", "revoke", "--device", "pump-1"]);
    boot.wait_for("mqtt: sent away with 0x98");
    boot.wait_for("https: refused");
    boot.wait_for("the identity in slot B is refused");
    drop(boot);

    provision(&board, &server, &[]);
    let mut boot = board.boot(&[]);
    boot.wait_for("token there");
    boot.wait_for("trying the token");
    boot.wait_for("est: Adopted");
    boot.wait_for("mqtt: connected");
}

#[test]
fn a_cortex_m4_enrolls_serves_renews_is_revoked_and_recovers() {
    lives("mps2-an386");
}

#[test]
fn a_cortex_m3_enrolls_serves_renews_is_revoked_and_recovers() {
    lives("mps2-an385");
}

#[test]
fn a_cortex_m33_enrolls_serves_renews_is_revoked_and_recovers() {
    lives("mps2-an505");
}

#[test]
fn a_certificate_of_minutes_is_renewed_in_time() {
    let server = account();
    let brief = ["lifetime_s=120", "renew_from_percent=5", "renew_jitter_percent=1"];
    server.muster(&[&["profile", "set", "brief"][..], &brief].concat());
    let board = Board::new("mps2-an386", "pump-2");
    provision(&board, &server, &["--profile", "brief"]);
    let mut boot = board.boot(&[]);
    boot.wait_for("est: Adopted(A)");
    boot.wait_for("mqtt: connected");
    boot.wait_for("est: Adopted(B)");
    boot.wait_for("mqtt: connected");
    boot.wait_for("est: Adopted(A)");
}

#[test]
fn a_static_address_serves_as_well_as_dhcp() {
    let server = account();
    let board = Board::new("mps2-an386", "pump-3");
    let address = ["--address", "10.0.2.77/24", "--gateway", "10.0.2.2", "--dns", "10.0.2.3"];
    provision(&board, &server, &address);
    board.boot(&[]).wait_for("mqtt: connected");
}

#[test]
fn a_power_cut_at_any_write_of_the_first_enrollment_costs_neither_identity_nor_token() {
    let server = account();
    let certificates = |device: &str| {
        let found = server.muster_json(&["cert", "list", "--device", device]);
        found.as_array().expect("a list").len()
    };

    let cuts = in_lanes(|cut| {
        let device = format!("pump-{cut}");
        let board = Board::new("mps2-an386", &device);
        provision(&board, &server, &[]);
        let passed = board.boot(&[&format!("die={cut}")]).reaches("mqtt: connected");
        board.boot(&[]).wait_for("mqtt: connected");
        assert_eq!(certificates(&device), 1, "cut at write {cut}: one token, one certificate");
        passed
    });
    println!("first enrollment: a cut at each of {cuts} writes");
    assert!(cuts > 5, "{cuts}");
}

#[test]
fn a_power_cut_at_any_write_of_a_renewal_costs_no_identity() {
    let server = account();
    // Renews at each boot, or some seconds after it.
    let eager = ["lifetime_s=600", "renew_from_percent=1", "renew_jitter_percent=1"];
    server.muster(&[&["profile", "set", "eager"][..], &eager].concat());
    let boards: [Board; LANES] = core::array::from_fn(|lane| {
        let board = Board::new("mps2-an386", &format!("pump-r{lane}"));
        provision(&board, &server, &["--profile", "eager"]);
        board.boot(&[]).wait_for("the token is erased");
        board
    });
    let cuts = in_lanes(|cut| {
        let board = &boards[(cut - 1) % LANES];
        let mut boot = board.boot(&[&format!("die={cut}")]);
        let passed = boot.reaches("est: Adopted") && boot.reaches("mqtt: connected");
        drop(boot);
        let mut boot = board.boot(&[]);
        // Without a token, so with an identity that was kept.
        boot.wait_for("token none");
        boot.wait_for("mqtt: connected");
        passed
    });
    println!("renewal: a cut at each of {cuts} writes");
    assert!(cuts > 5, "{cuts}");
}

/// Boards wait for most of a boot.
const LANES: usize = 2;

/// Calls it with 1, 2, 3 and so on until it says that no cut came any more, in lanes of every second number each.
/// How often a cut came.
fn in_lanes(cut_at: impl Fn(usize) -> bool + Sync) -> usize {
    let cut_at = &cut_at;
    std::thread::scope(|scope| {
        let lanes: [_; LANES] = core::array::from_fn(|lane| {
            scope.spawn(move || (lane + 1..).step_by(LANES).take_while(|cut| !cut_at(*cut)).count())
        });
        lanes.map(|lane| lane.join().expect("a lane")).iter().sum()
    })
}

#[test]
fn a_panic_is_written_down_and_each_next_boot_waits_longer() {
    panics("mps2-an386");
}

/// What survives a restart is in other memory there, and the fault is that of TrustZone's secure side.
#[test]
fn a_panic_of_a_cortex_m33_is_written_down_too() {
    panics("mps2-an505");
}

fn panics(machine: &'static str) {
    let server = account();
    let board = Board::new(machine, "pump-p");
    provision(&board, &server, &[]);
    let mut boot = board.boot(&["panic"]);
    boot.wait_for("boot: crash 1 in a row, waiting 2 s");
    let told = boot.wait_for("boot: last crash: ");
    boot.wait_for("boot: crash 2 in a row, waiting 4 s");
    boot.wait_for("boot: crash 3 in a row, waiting 8 s");
    drop(boot);
    let place = place_of_panic(&board, &told);
    assert!(place.contains("set_up.rs"), "{told}: {place}");
    let mut boot = board.boot(&[]);
    assert_eq!(place_of_panic(&board, &boot.wait_for("boot: last crash: ")), place);
    boot.wait_for("mqtt: connected");
}

/// The functions and lines of a crash. Where panics are traps the journal has addresses of the image, else words.
fn place_of_panic(board: &Board, line: &str) -> String {
    let Some((_, addresses)) = line.split_once("fault at ") else {
        assert!(line.contains("asked to panic"), "{line}");
        return line.rsplit_once("last crash: ").expect("a reason").1.to_owned();
    };
    let (address, _) = addresses.split_once(", from ").expect("two addresses");
    let found = Command::new("arm-none-eabi-addr2line")
        .args(["-i", "-f", "-C", "-e"])
        .arg(board.firmware())
        .arg(address)
        .output()
        .expect("binutils are there");
    String::from_utf8(found.stdout).expect("text")
}

#[test]
fn a_factory_reset_leaves_no_identity() {
    let server = account();
    let board = Board::new("mps2-an386", "pump-f");
    provision(&board, &server, &[]);
    board.boot(&[]).wait_for("the token is erased");
    let mut boot = board.boot(&["reset"]);
    boot.wait_for("the identities are erased");
    boot.wait_for("NoCredential");
    drop(boot);
    provision(&board, &server, &[]);
    board.boot(&[]).wait_for("mqtt: connected");
}

#[test]
fn a_dead_service_holds_up_nothing_and_a_refused_token_is_sent_once() {
    let server = account();
    let board = Board::new("mps2-an386", "pump-d");
    // Nobody listens there any more.
    let dead =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let mqtt = format!("mqtts://{HOST}:{}", server.mqtt_address().port());
    let https = format!("https://{HOST}:{dead}/hello");
    let host = format!("{HOST}=10.0.2.2");
    let provision = || {
        let options = ["--mqtt", &mqtt, "--https", &https, "--host", &host];
        board.provision(&server, server.est_address(), &options);
    };
    provision();
    let mut boot = board.boot(&[]);
    boot.wait_for("https: unanswered");
    boot.wait_for("mqtt: connected");
    drop(boot);

    provision();
    for token in server.muster_json(&["token", "list"]).as_array().expect("a list") {
        server.muster(&["token", "revoke", token["id"].as_str().expect("an id")]);
    }
    server.muster(&["cert", "revoke", "--device", "pump-d"]);
    let mut boot = board.boot(&[]);
    boot.wait_for("trying the token");
    boot.wait_for("est: Failed(Status(401)");
    boot.wait_for("the token is refused");
    boot.wait_for("is refused");
    assert_eq!(boot.log().matches("trying the token").count(), 1, "{}", boot.log());
}

/// A server that answers every connection with these bytes, again and again, until the device has enough.
fn answering(bytes: &'static [u8]) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in socket.incoming().map_while(Result::ok) {
            std::thread::spawn(move || while stream.write_all(bytes).is_ok() {});
        }
    });
    address
}

/// The device meets `est` under this name, says what it makes of it, and enrolls at the true server afterwards.
fn survives(server: &Server, device: &str, est: SocketAddr, options: &[&str], says: &str) {
    let board = Board::new("mps2-an386", device);
    board.provision(server, est, options);
    let mut boot = board.boot(&[]);
    boot.wait_for(says);
    assert!(!boot.log().contains("est: Issued"), "{}", boot.log());
    drop(boot);
    provision(&board, server, &[]);
    board.boot(&[]).wait_for("mqtt: connected");
}

#[test]
fn hostile_servers_are_refused_and_the_device_enrolls_afterwards() {
    let server = account();
    let empty_records = answering(&[0x17, 3, 3, 0, 0]);
    survives(&server, "pump-e", empty_records, &[], "est: Failed(Link(Reset)");
    let huge_record = answering(&[0x16, 3, 3, 0xff, 0xff, 2, 0, 0, 0]);
    survives(&server, "pump-h", huge_record, &[], "est: Failed(Link(Reset)");
    let other = Server::start();
    survives(&server, "pump-o", other.est_address(), &[], "est: Failed(Link(ServerUntrusted)");
    let port = server.est_address().port();
    let misnamed = format!("https://other.example.test:{port}");
    let options = ["--est", &misnamed, "--host", "other.example.test=10.0.2.2"];
    survives(&server, "pump-n", server.est_address(), &options, "est: Failed(Link(ServerUntrusted)");
}

/// A server that follows a script within TLS meets the device once. The device trusts its root.
fn meets(server: &Server, board: &Board, root: &str, flight: Vec<Step>, says: &str) {
    let (est, _) = scripted::serve(Script { flight, after: Vec::new() });
    board.provision(server, est, &["--ca", root]);
    let mut boot = board.boot(&[]);
    boot.wait_for(says);
    assert!(!boot.log().contains("key: making"), "nothing was done for it:\n{}", boot.log());
}

#[test]
fn servers_that_break_tls_from_within_are_refused_and_silence_is_survived() {
    let server = account();
    // This one takes a minute to be given up; the others are met meanwhile.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let waiting = Board::new("mps2-an385", "pump-m");
    waiting.provision(&server, mute.local_addr().expect("an address"), &[]);
    let mut silent = waiting.boot(&[]);

    let root = Authority::root("root", 1);
    let services = root.issue_authority(ca_params("services", BasicConstraints::Constrained(0)), 2);
    let file = server.scratch().join("hostile-root.pem");
    std::fs::write(&file, pem::encode(&pem::Pem::new("CERTIFICATE", root.der.clone()))).expect("written");
    let file = file.display().to_string();
    let board = Board::new("mps2-an386", "pump-b");
    let refused = "est: Failed(Link(ServerUntrusted)";
    let key = TestKey::from_seed(3);
    let chain = vec![services.issue(&server_params("localhost"), &key), services.der.clone()];

    let mut unproven = honest(&chain, &key);
    unproven.retain(|message| !matches!(message, Message::CertificateVerify(_)));
    meets(&server, &board, &file, vec![Step::Flight(unproven)], refused);

    let device = services.issue_authority(device_params("dev-9", 9, START, START + 400 * 86_400), 20);
    let forged = device.issue(&server_params("localhost"), &key);
    let forged = vec![forged, device.der, services.der.clone()];
    meets(&server, &board, &file, vec![Step::Flight(honest(&forged, &key))], refused);

    let mut ended = server_params("localhost");
    // Before this firmware was made: no clock is needed to know that it is over.
    ended.not_after = at(START + 86_400);
    let ended = vec![services.issue(&ended, &key), services.der.clone()];
    // Of the device's clock or the server's, one is wrong: the device says so.
    let untimely = "est: Failed(Link(ServerUntimely)";
    meets(&server, &board, &file, vec![Step::Flight(honest(&ended, &key))], untimely);

    let split = vec![Step::Split(honest(&chain, &key), 512)];
    meets(&server, &board, &file, split, "est: Failed(Link(Reset)");

    silent.wait_for("est: Failed(Timeout");
    drop(silent);
    for board in [board, waiting] {
        provision(&board, &server, &[]);
        board.boot(&[]).wait_for("mqtt: connected");
    }
}

#[test]
fn a_server_that_only_ever_says_later_holds_nothing_up() {
    let server = account();
    server.muster(&["profile", "set", "checked", "approval=manual"]);
    let undecided = ["--profile", "checked"];
    survives(&server, "pump-l", server.est_address(), &undecided, "est: Postponed");
}

/// Programs that stand in for what flashes a board: they write down each call, and fail if they are told to.
struct Tools(tempfile::TempDir);

impl Tools {
    fn new(names: &[&str], exit: u8) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            let path = folder.path().join(name);
            let script =
                format!("#!/bin/sh\nprintf '%s\\n' \"{name} $*\" >> \"${{0%/*}}/calls\"\nexit {exit}\n");
            std::fs::write(&path, script).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
        }
        Self(folder)
    }

    /// Runs `muster` with nothing but these on the path.
    fn muster(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(muster_tests::server::program())
            .args(arguments)
            .env("PATH", self.0.path())
            .output()
            .expect("muster runs");
        let text = |octets: Vec<u8>| String::from_utf8(octets).expect("text");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

#[test]
fn real_boards_are_flashed_by_their_tools_with_images_that_fit() {
    let server = Server::start();
    let both = ["picotool", "probe-rs"];
    for (board, tool, chip, at) in [
        ("nrf52840-dk", None, "nRF52840_xxAA", "0xf8000"),
        ("w5500-evb-pico2", Some("probe-rs"), "RP235x", "0x101f8000"),
        ("w5500-evb-pico2", None, "", "0x101f8000"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("devices.csv");
        std::fs::write(&list, "id\npump-1\n").expect("written");
        let (list, images) = (list.display().to_string(), folder.path().display().to_string());
        let est = "https://est.example.com:8443";
        server.muster(&["factory", "--devices", &list, "--board", board, "--out", &images, "--est", est]);
        let elf = firmware(board).display().to_string();
        let flash =
            ["flash", "--board", board, "--device", "pump-1", "--images", &images, "--firmware", &elf];
        let flash = [&flash[..], &tool.map_or(vec![], |tool| vec!["--tool", tool])].concat();
        let image = format!("{images}/pump-1.bin");
        let expected = if chip.is_empty() {
            vec![
                format!("picotool load -v {image} -t bin -o {at}"),
                format!("picotool load -v -x {elf} -t elf"),
            ]
        } else {
            vec![
                format!(
                    "probe-rs download --chip {chip} --verify --binary-format bin --base-address {at} {image}"
                ),
                format!("probe-rs download --chip {chip} --verify {elf}"),
                format!("probe-rs reset --chip {chip}"),
            ]
        };

        let tools = Tools::new(&both, 0);
        tools.muster(&flash).expect("flashed");
        assert_eq!(tools.calls(), expected);
        let tools = Tools::new(&[], 0);
        let shown = tools.muster(&[&flash[..], &["--dry-run"]].concat()).expect("no tool is needed");
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
        let missing = tools.muster(&flash).expect_err("not there");
        assert!(missing.contains("is not installed; ") && missing.lines().count() == 1, "{missing}");
        let tools = Tools::new(&both, 3);
        let failed = tools.muster(&flash).expect_err("it fails");
        assert!(failed.contains("failed: exit status: 3; "), "{failed}");
        assert_eq!(tools.calls(), expected[..1], "and the firmware is not written");
        let tools = Tools::new(&both, 0);
        let chosen = [&flash[..], &["--no-boot", "--probe", "E66"]].concat();
        tools.muster(&chosen).expect("flashed");
        let selector = if chip.is_empty() { "--ser E66" } else { "--probe E66" };
        let calls = tools.calls();
        assert_eq!(calls.len(), 2, "{calls:?}");
        assert!(calls.iter().all(|call| call.contains(selector) && !call.contains(" -x ")), "{calls:?}");
    }
}

#[test]
fn firmware_of_another_board_is_not_written() {
    let server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("devices.csv");
    std::fs::write(&list, "id\npump-1\n").expect("written");
    let (list, images) = (list.display().to_string(), folder.path().display().to_string());
    let est = "https://est.example.com:8443";
    server.muster(&["factory", "--devices", &list, "--board", "nrf52840-dk", "--out", &images, "--est", est]);
    let tools = Tools::new(&["picotool", "probe-rs"], 0);
    for (board, other) in [("nrf52840-dk", "w5500-evb-pico2"), ("w5500-evb-pico2", "nrf52840-dk")] {
        let elf = firmware(other).display().to_string();
        let flash =
            ["flash", "--board", board, "--device", "pump-1", "--images", &images, "--firmware", &elf];
        let refused = tools.muster(&flash).expect_err("of another board");
        assert!(refused.contains("is not firmware for this board: it has "), "{refused}");
    }
    assert_eq!(tools.calls(), [""; 0]);
}
