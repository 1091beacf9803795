//! The Linux agent against a real server: every way to enroll, every refusal in words, renewal unattended.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use muster_agent::clock::Clock;
use muster_agent::config::Config;
use muster_agent::enroll::{Device, Ground, News};
use muster_agent::identity::{self, Identity, Verdict};
use muster_agent::settings::TrustRoots;
use muster_agent::store::{Kept, Store};
use muster_proto::enrollment::{Slot, Window};
use muster_proto::time::UnixTime;
use muster_tests::agent::url;
use muster_tests::systemd::Systemd;
use muster_tests::{Agent, Maker, Server};
use serde_json::Value;

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn done(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", errors(output));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// It must fail with exit code 1, and say this in its last line.
fn refused(output: &Output, words: &str) {
    let errors = errors(output);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let last = errors.lines().last().unwrap_or_default();
    assert!(last.starts_with("muster-agent: ") && last.contains(words), "{errors}");
    assert!(output.stdout.is_empty(), "nothing is printed but results");
}

/// The files for other programs are a certificate and its own key.
fn shown(agent: &Agent) -> Identity {
    let current = agent.dir().join("current");
    let (certificate, key) = (current.join("cert.pem"), current.join("key.pem"));
    muster_agent::settings::identity_from_files(&certificate, &key).expect("an identity")
}

#[test]
fn a_token_enrolls_a_device_and_status_tells_about_it() {
    let server = Server::start();
    let agent = Agent::new();
    assert_eq!(agent.status()["state"], "not enrolled");
    let token = server.token("meter-1");
    let told = done(&agent.enroll(&server, "meter-1", &["--token", &token, "--json"]));
    assert_eq!(told["device"], "meter-1");
    assert_eq!(told["config"], text(&agent.config()));
    let status = agent.status();
    assert_eq!((&status["running"], &status["state"]), (&Value::from(false), &Value::from("holding")));
    assert_eq!(status["identity"]["fingerprint"], told["fingerprint"]);
    let listed = server.muster_json(&["cert", "list"]);
    assert_eq!(listed[0]["serial_number"], status["identity"]["serial"]);
    assert_eq!(shown(&agent).device, "meter-1");
    // The certificate works: it renews, without a token and without a running agent.
    done(&agent.command(&["renew", "--json"]));
    assert_eq!(agent.status()["generation"], 1);
    assert_eq!(agent.slots().len(), 1, "the old key is gone");
    assert_eq!(shown(&agent).chain, agent.identities(&server)[0].chain);
    refused(
        &agent.enroll(&server, "meter-1", &["--token", &token]),
        "holds a certificate for `meter-1` until",
    );
    refused(&agent.enroll(&server, "meter-2", &["--token", &token]), "is for meter-1");
}

#[test]
fn a_token_can_come_from_a_file_or_from_the_environment() {
    let server = Server::start();
    let file = server.scratch().join("token");
    std::fs::write(&file, format!("{}\n", server.token("meter-1"))).expect("written");
    done(&Agent::new().enroll(&server, "meter-1", &["--token-file", &text(&file)]));
    let agent = Agent::new();
    let mut command = Command::new(muster_tests::agent::program());
    command.args(["enroll", "--server", &url(&server), "--ca", &text(&server.ca_file())]);
    command.args(["--device", "meter-2", "--dir", &text(&agent.dir())]);
    done(&command.env("MUSTER_TOKEN", server.token("meter-2")).output().expect("runs"));
}

#[test]
fn a_pinned_fingerprint_is_enough_to_trust_and_a_wrong_one_is_not() {
    let server = Server::start();
    let roots = muster_agent::settings::certificates(&server.ca_file()).expect("a CA");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &roots[0]);
    let pin: String = digest.as_ref().iter().map(|octet| format!("{octet:02X}")).collect();
    let wrong = format!("{}00", &pin[..62]);
    let token = server.token("meter-1");
    let url = url(&server);
    let enroll = |agent: &Agent, pin: &str| {
        let arguments = ["enroll", "--server", &url, "--ca-sha256", pin, "--device", "meter-1", "--token"];
        agent.command(&[arguments.as_slice(), &[&token]].concat())
    };
    let agent = Agent::new();
    refused(&enroll(&agent, &wrong), "no CA certificate with the pinned SHA-256");
    assert!(agent.slots().is_empty(), "no key was made for a stranger");
    done(&enroll(&agent, &pin));
    // The pin is all that it has to renew by, too.
    done(&agent.command(&["renew", "--json"]));
    assert_eq!(shown(&agent).device, "meter-1");
}

#[test]
fn a_server_of_another_ca_gets_nothing_from_the_device() {
    let server = Server::start();
    let stranger = Server::start();
    let token = server.token("meter-1");
    let url = url(&server);
    let agent = Agent::new();
    let enroll = |url: &str, ca: &Path| {
        let ca = text(ca);
        agent.command(&["enroll", "--server", url, "--ca", &ca, "--device", "meter-1", "--token", &token])
    };
    refused(&enroll(&url, &stranger.ca_file()), "is not the server that was asked for");
    assert!(agent.slots().is_empty() && !agent.config().exists());
    assert!(!agent.dir().join("trust.pem").exists(), "nothing of it is trusted later");
    // The token was shown to nobody else, and is still good.
    done(&enroll(&url, &server.ca_file()));
}

#[test]
fn what_run_trusts_is_what_the_device_was_enrolled_by() {
    let (server, stranger) = (Server::start(), Server::start());
    let agent = Agent::enrolled(&server, "meter-1", &[]);
    let (url, token) = (url(&server), server.token("meter-1"));
    let replace = |trust: &[&str]| {
        let fixed = ["enroll", "--server", &url, "--device", "meter-1", "--token", &token, "--replace"];
        agent.command(&[fixed.as_slice(), trust].concat())
    };
    // Nothing was proven to lead to this one, and the certificate that is held is renewed by the other.
    refused(&replace(&["--ca", &text(&stranger.ca_file())]), "is not the server that was asked for");
    done(&agent.command(&["renew", "--json"]));
    // Once it is proven, it counts: here a file with one CA more.
    let pem = |server: &Server| std::fs::read_to_string(server.ca_file()).expect("a CA file");
    let both = server.scratch().join("both.pem");
    std::fs::write(&both, format!("{}{}", pem(&stranger), pem(&server))).expect("written");
    done(&replace(&["--ca", &text(&both)]));
    let trusted = || TrustRoots::from_file(&agent.dir().join("trust.pem")).expect("CA certificates");
    assert_eq!(trusted(), TrustRoots::from_file(&both).expect("CA certificates"));
    // A person's own choice in the file is not changed, and not contradicted.
    refused(&replace(&["--ca-sha256", &"00".repeat(32)]), "names a different CA to trust");
    let written = std::fs::read_to_string(agent.config()).expect("a configuration");
    std::fs::write(agent.config(), written.replace("trust.pem", &text(&both))).expect("written");
    refused(&replace(&["--ca", &text(&server.ca_file())]), "names a different CA to trust");
    done(&agent.command(&["renew", "--json"]));
}

#[test]
fn a_refusal_is_told_in_the_server_s_words() {
    let server = Server::start();
    let agent = Agent::new();
    let enroll = |arguments: &[&str]| agent.enroll(&server, "meter-1", arguments);
    refused(&enroll(&["--token", "wrong"]), "[credentials_wrong at /authorization]");
    let token = server.token("meter-1");
    refused(&enroll(&["--token", &token, "--label", "nowhere"]), "check the URL and the label");
    let devices = server.scratch().join("devices.csv");
    std::fs::write(&devices, "id\nmeter-1\n").expect("written");
    server.muster(&["device", "import", &text(&devices)]);
    server.muster(&["device", "suspend", "meter-1"]);
    refused(&enroll(&["--token", &token]), "device_suspended");
    server.muster(&["device", "resume", "meter-1"]);
    done(&enroll(&["--token", &token]));
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    let output = agent.command(&["renew"]);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(errors(&output).contains("certificate_revoked"), "{}", errors(&output));
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let agent = Agent::new();
    let usage = |arguments: &[&str], words: &str| {
        let output = agent.command(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", errors(&output));
        assert!(errors(&output).contains(words), "{}", errors(&output));
    };
    let pin = "00".repeat(32);
    let start = ["enroll", "--server", "https://localhost:1", "--ca-sha256", &pin];
    usage(&[start.as_slice(), &["--device", "meter 1", "--token", "t"]].concat(), "meter 1");
    usage(&[start.as_slice(), &["--device", "meter-1"]].concat(), "a credential is missing");
    usage(
        &["enroll", "--server", "http://x", "--ca-sha256", &pin, "--device", "m", "--token", "t"],
        "not https",
    );
    usage(
        &["enroll", "--server", "https://x", "--ca", "/nowhere", "--device", "m", "--token", "t"],
        "does not exist",
    );
    let output =
        agent.command(&[start.as_slice(), &["--device", "m", "--token", "t", "--timeout", "1s"]].concat());
    refused(&output, "can't be reached");
}

/// Writes certificate and key as the agent reads them.
fn written(identity: &muster_tests::Identity, certificate: &Path, key: &Path) {
    let pem = pem::encode(&pem::Pem::new("CERTIFICATE", identity.chain[0].clone()));
    std::fs::write(certificate, pem).expect("written");
    std::fs::write(key, identity.key.serialize_pem()).expect("written");
}

#[test]
fn a_manufacturer_s_certificate_enrolls_a_device() {
    let server = Server::start();
    let maker = Maker::known_to(&server, &[("meter-9", "SN-9")]);
    let path = |name: &str| server.scratch().join(name);
    let make = |serial: &str| written(&maker.idevid(serial), &path("idevid.pem"), &path("idevid.key"));
    let (certificate, key) = (text(&path("idevid.pem")), text(&path("idevid.key")));
    let arguments = ["--idevid-cert", &certificate, "--idevid-key", &key];
    let agent = Agent::new();
    make("SN-8");
    refused(&agent.enroll(&server, "meter-9", &arguments), "manufacturer_serial_unlisted");
    make("SN-9");
    done(&agent.enroll(&server, "meter-9", &arguments));
    let written = std::fs::read_to_string(agent.config()).expect("written");
    assert!(written.contains("idevid_cert"), "a lapsed device can come back by itself: {written}");
}

#[test]
fn a_profile_that_wants_certificate_and_token_gets_both_in_one_request() {
    let server = Server::start();
    let maker = Maker::known_to(&server, &[("meter-9", "SN-9")]);
    server.muster(&["profile", "set", "both", "credentials=certificate-and-token"]);
    let path = |name: &str| server.scratch().join(name);
    let (certificate, key) = (path("idevid.pem"), path("idevid.key"));
    written(&maker.idevid("SN-9"), &certificate, &key);
    let certificate = ["--label", "both", "--idevid-cert", &text(&certificate), "--idevid-key", &text(&key)];
    let token = server.token("meter-9");
    refused(&Agent::new().enroll(&server, "meter-9", &certificate), "credentials_missing");
    let alone = ["--label", "both", "--token", &token];
    refused(&Agent::new().enroll(&server, "meter-9", &alone), "credentials_missing");
    let agent = Agent::new();
    done(&agent.enroll(&server, "meter-9", &[certificate.as_slice(), &["--token", &token]].concat()));
    done(&agent.command(&["renew", "--json"]));
    assert_eq!(agent.status()["generation"], 1);
}

#[test]
fn a_revoked_device_says_what_is_wrong_and_comes_back_by_a_new_token() {
    let server = Server::start();
    let mut agent = Agent::enrolled(&server, "meter-1", &[]);
    agent.run();
    agent.wait_for("a running agent", |status| status["running"] == true);
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    refused(&agent.command(&["renew"]), "certificate_revoked");
    let status = agent.wait_for("the reason", |status| status["stuck"].is_object());
    let what = status["stuck"]["what"].as_str().expect("words");
    assert!(what.contains("certificate_revoked"), "{status}");
    assert_eq!(status["stuck"]["tries"], 1);
    let told = String::from_utf8(agent.command(&["status"]).stdout).expect("text");
    assert!(told.contains("stuck        since") && told.contains("next try     "), "{told}");
    agent.signal("TERM");
    assert_eq!(agent.wait(), Some(0));

    let token = server.token("meter-1");
    refused(&agent.enroll(&server, "meter-1", &["--token", &token]), "--replace");
    refused(&agent.enroll(&server, "meter-1", &["--token", "wrong", "--replace"]), "credentials_wrong");
    assert_eq!(agent.status()["generation"], 0, "a failure takes nothing away");
    done(&agent.enroll(&server, "meter-1", &["--token", &token, "--replace", "--json"]));
    let status = agent.status();
    assert_eq!((&status["generation"], &status["stuck"]), (&Value::from(1), &Value::Null));
    assert_eq!(agent.slots().len(), 1, "the revoked one's key is gone");
    done(&agent.command(&["renew", "--json"]));
}

#[test]
fn a_local_address_that_is_taken_keeps_no_certificate_from_being_renewed() {
    let server = Server::start();
    let mut agent = Agent::enrolled(&server, "meter-1", &[]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    agent.configure(&format!(
        "[[relay]]\nmode = \"http\"\nlisten = \"{address}\"\nupstream = \"https://127.0.0.1:1\""
    ));
    agent.run();
    let status = agent.wait_for("the reason", |status| status["failures"][0].is_object());
    let noted = status["failures"][0]["what"].as_str().unwrap_or_default();
    assert!(noted.contains("not carried") && noted.contains(&address.to_string()), "{status}");
    done(&agent.command(&["renew", "--json"]));
    drop(taken);
    agent.wait_for("traffic that is carried", |status| status["carry"].is_object());
    assert!(TcpStream::connect(address).is_ok());
    agent.signal("TERM");
    assert_eq!(agent.wait(), Some(0));
}

#[test]
fn the_configuration_goes_where_it_is_asked_to_and_names_the_folder() {
    let server = Server::start();
    let agent = Agent::new();
    let config = server.scratch().join("etc/agent/agent.toml");
    let token = server.token("meter-1");
    let arguments = ["--token", &token, "--json", "--config", &text(&config)];
    assert_eq!(done(&agent.enroll(&server, "meter-1", &arguments))["config"], text(&config));
    assert!(!agent.config().exists());
    let mode = std::fs::metadata(&config).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "the service's user reads it");
    let renewed = Command::new(muster_tests::agent::program())
        .args(["renew", "--json", "--config", &text(&config)])
        .output()
        .expect("runs");
    done(&renewed);
    assert_eq!(agent.status()["generation"], 1);
    // Another folder would leave `run` without the keys.
    let elsewhere = Agent::new();
    let output = elsewhere.enroll(&server, "meter-1", &["--token", "t", "--config", &text(&config)]);
    refused(&output, "keeps its keys in");
}

#[test]
fn a_certificate_from_elsewhere_is_taken_over_with_a_new_key() {
    let server = Server::start();
    let (key, der) = muster_tests::request::request("meter-1");
    let certificate = server.est().enroll("meter-1", &server.token("meter-1"), &der).certificate();
    let path = |name: &str| server.scratch().join(name);
    std::fs::write(path("old.pem"), pem::encode(&pem::Pem::new("CERTIFICATE", certificate)))
        .expect("written");
    std::fs::write(path("old.key"), key.serialize_pem()).expect("written");
    let arguments = ["--existing-cert", &text(&path("old.pem")), "--existing-key", &text(&path("old.key"))];
    let agent = Agent::new();
    let output = agent.enroll(&server, "meter-2", &arguments);
    assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
    done(&agent.enroll(&server, "meter-1", &arguments));
    let slots = agent.slots();
    assert_eq!(slots.len(), 1);
    assert_ne!(slots[0].key.as_pkcs8(), key.serialize_der(), "the key was made on the device");
    done(&agent.command(&["renew", "--json"]));
    // A certificate that is refused is not kept.
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    let agent = Agent::new();
    refused(&agent.enroll(&server, "meter-1", &arguments), "certificate_revoked");
    assert!(agent.identities(&server).is_empty());
}

#[test]
fn an_enrolment_that_waits_for_a_person_goes_on_where_it_was() {
    let server = Server::start();
    server.muster(&["profile", "set", "checked", "approval=manual"]);
    let token = server.token("meter-1");
    let agent = Agent::new();
    let enroll =
        || agent.enroll(&server, "meter-1", &["--label", "checked", "--token", &token, "--timeout", "2s"]);
    let waiting = enroll();
    refused(&waiting, "waiting for approval");
    assert!(errors(&waiting).contains("asking again in"), "{}", errors(&waiting));
    let key = agent.slots()[0].key.clone();
    let pending = server.muster_json(&["approval", "list"]);
    assert_eq!(pending.as_array().map(Vec::len), Some(1));
    server.muster(&["approval", "approve", pending[0]["id"].as_str().expect("an id")]);
    done(&enroll());
    assert_eq!(agent.slots()[0].key, key, "the request that was approved");
    assert_eq!(server.muster_json(&["cert", "list"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn enroll_waits_for_approval_as_long_as_the_server_says() {
    let server = Server::with_config("[est]\napproval_retry_s = 1\n");
    server.muster(&["profile", "set", "checked", "approval=manual"]);
    let token = server.token("meter-1");
    let agent = Agent::new();
    let arguments = ["--label", "checked", "--token", &token, "--json"];
    std::thread::scope(|scope| {
        let enrolling = scope.spawn(|| done(&agent.enroll(&server, "meter-1", &arguments)));
        let id = loop {
            let pending = server.muster_json(&["approval", "list"]);
            if let Some(id) = pending[0]["id"].as_str() {
                break id.to_owned();
            }
            assert!(!enrolling.is_finished(), "it waits");
        };
        server.muster(&["approval", "approve", &id]);
        assert_eq!(enrolling.join().expect("enrolled")["device"], "meter-1");
    });
}

#[test]
fn renewals_happen_unattended_generation_after_generation() {
    let server = Server::start();
    server.muster(&[
        "profile",
        "set",
        "brief",
        "lifetime_s=60",
        "renew_from_percent=1",
        "renew_jitter_percent=1",
    ]);
    let mut agent = Agent::enrolled(&server, "meter-1", &["--label", "brief"]);
    agent.configure("[pace]\nfloor = \"1s\"\nceiling = \"2s\"\nurgent_ceiling = \"2s\"\nspread = \"1s\"");
    agent.run();
    let status = agent.wait_for("three renewals", |status| status["generation"].as_u64() >= Some(3));
    assert_eq!(
        (&status["running"], &status["failures"]),
        (&Value::from(true), &Value::from(Vec::<u8>::new()))
    );
    assert!(agent.slots().len() <= 2);
    agent.signal("TERM");
    assert_eq!(agent.wait(), Some(0));
    let held = agent.identities(&server);
    assert_eq!(shown(&agent).chain, held[0].chain);
    let issued = server.muster_json(&["cert", "list"]).as_array().map_or(0, Vec::len);
    let newest = held.last().expect("an identity").generation;
    assert_eq!(issued, usize::try_from(newest).expect("few") + 1, "one certificate for each generation");
}

#[test]
fn an_agent_that_trusts_the_old_root_alone_renews_through_a_change_of_root() {
    let server = Server::start();
    let mut agent = Agent::enrolled(&server, "meter-1", &[]);
    agent.run();
    agent.wait_for("a running agent", |status| status["running"] == true);
    for change in [&["rotate"][..], &["create"], &["rotate"], &["create", "--cut-off"]] {
        server.muster(&[&["ca"], change].concat());
        done(&agent.command(&["renew", "--json"]));
    }
    assert_eq!(agent.status()["generation"], 4);
    agent.signal("TERM");
    assert_eq!(agent.wait(), Some(0));
}

#[test]
fn a_running_agent_renews_when_asked_reads_its_configuration_again_and_stops() {
    let server = Server::start();
    let mut agent = Agent::enrolled(&server, "meter-1", &[]);
    agent.run();
    agent.wait_for("a running agent", |status| status["running"] == true);
    let renewed = done(&agent.command(&["renew", "--json"]));
    assert!(renewed["expires_at"].is_string());
    assert_eq!(agent.status()["generation"], 1);
    refused(&agent.enroll(&server, "meter-1", &["--token", "x"]), "another muster-agent uses");
    let written = std::fs::read_to_string(agent.config()).expect("a configuration");
    std::fs::write(agent.config(), "nonsense").expect("written");
    agent.signal("HUP");
    done(&agent.command(&["renew", "--json"]));
    assert!(agent.log().contains("all goes on as before"), "{}", agent.log());
    std::fs::write(agent.config(), format!("{written}[log]\nformat = \"json\"\n")).expect("written");
    agent.signal("HUP");
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !agent.log().contains("was read again") {
        assert!(std::time::Instant::now() < deadline, "{}", agent.log());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    done(&agent.command(&["renew", "--json"]));
    assert_eq!(agent.status()["generation"], 3);
    agent.signal("TERM");
    assert_eq!(agent.wait(), Some(0));
    assert_eq!(agent.status()["running"], false);
}

/// The next connection, in time.
fn accepted(listener: &TcpListener, what: &str) -> TcpStream {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok((stream, _)) = listener.accept() {
            return stream;
        }
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_renewal_that_somebody_waits_for_goes_on_after_a_reload() {
    let mut server = Server::start();
    let mut agent = Agent::enrolled(&server, "meter-1", &[]);
    let address = server.est_address();
    server.kill();
    // It takes connections, and says nothing.
    let mute = TcpListener::bind(address).expect("the server's port");
    mute.set_nonblocking(true).expect("set");
    agent.run();
    agent.wait_for("a running agent", |status| status["running"] == true);
    std::thread::scope(|scope| {
        let renewing = scope.spawn(|| agent.command(&["renew", "--timeout", "50s"]));
        let before = accepted(&mute, "a renewal");
        agent.signal("HUP");
        let after = accepted(&mute, "a renewal after the reload");
        drop((before, after));
        refused(&renewing.join().expect("no panic"), "the running agent keeps trying");
    });
}

/// Takes the agent's own device until it has this news.
async fn until(device: &mut Device<'_>, what: &str, is_it: impl Fn(&News) -> bool) {
    let waiting = async { while !is_it(&device.next().await) {} };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("no {what}"));
}

/// Renews, and stops before anyone has tried the new certificate.
async fn renew_untried(agent: &Agent) {
    let config = Config::read(&agent.config()).expect("a configuration");
    let settings = config.checked(&agent.config()).expect("right");
    let store = Arc::new(Store::open(&agent.dir()).expect("opens"));
    let mut ground = Ground::new(&settings);
    let (publisher, _identities) = identity::channel();
    let mut device = Device::start(&mut ground, store, Clock::start(), publisher).expect("starts");
    device.renew_now();
    until(&mut device, "certificate", |news| matches!(news, News::Issued(_))).await;
    device.finish().await;
    assert_eq!(agent.slots().len(), 2, "both are stored");
}

#[tokio::test]
async fn a_certificate_that_waits_to_be_tried_is_no_outcome_of_a_command() {
    let server = Server::start();
    let agent = Agent::enrolled(&server, "meter-1", &[]);
    let held = shown(&agent).chain;
    renew_untried(&agent).await;
    refused(&agent.enroll(&server, "meter-1", &["--token", "wrong", "--replace"]), "credentials_wrong");
    assert_eq!(shown(&agent).chain, held, "a failure takes nothing away");
    renew_untried(&agent).await;
    server.muster(&["cert", "revoke", "--device", "meter-1"]);
    refused(&agent.command(&["renew"]), "certificate_revoked");

    let agent = Agent::enrolled(&server, "meter-2", &[]);
    renew_untried(&agent).await;
    server.muster(&["cert", "revoke", "--device", "meter-2"]);
    let token = server.token("meter-2");
    done(&agent.enroll(&server, "meter-2", &["--token", &token, "--replace", "--json"]));
    done(&agent.command(&["renew", "--json"]));
}

#[test]
fn a_certificate_is_taken_over_in_a_folder_with_one_that_has_ended() {
    let server = Server::start();
    let other = Agent::enrolled(&server, "meter-1", &[]);
    let file = |name: &str| text(&other.dir().join("current").join(name));
    let arguments = ["--existing-cert", &file("cert.pem"), "--existing-key", &file("key.pem")];
    let agent = Agent::enrolled(&server, "meter-1", &[]);
    let mut ended = agent.slots().remove(0);
    let Some(Kept::Pair(pair)) = &mut ended.record else { panic!("an identity") };
    let at = UnixTime::from_secs(1_700_000_000);
    pair.window = Window::new(at, at, at).expect("in order");
    pair.generation = 3;
    let end = || {
        let store = Store::open(&agent.dir()).expect("opens");
        store.clear(Slot::A).expect("cleared");
        store.put(Slot::B, &ended).expect("put");
    };
    end();
    server.muster(&["device", "suspend", "meter-1"]);
    refused(&agent.enroll(&server, "meter-1", &arguments), "device_suspended");
    assert_eq!(agent.slots(), [ended.clone()], "a failure takes nothing away");
    server.muster(&["device", "resume", "meter-1"]);
    end();
    done(&agent.enroll(&server, "meter-1", &arguments));
    let slots = agent.slots();
    let Some(Kept::Pair(pair)) = &slots[0].record else { panic!("an identity") };
    assert_eq!((slots.len(), pair.generation), (1, 1), "the successor of the one that was taken over");
    done(&agent.command(&["renew", "--json"]));
}

#[tokio::test]
async fn a_candidate_is_used_only_once_a_peer_took_it() {
    let server = Server::start();
    let agent = Agent::enrolled(&server, "meter-1", &[]);
    let config = Config::read(&agent.config()).expect("a configuration");
    let mut settings = config.checked(&agent.config()).expect("right");
    settings.pace.spread = Duration::ZERO;
    let store = Arc::new(Store::open(&agent.dir()).expect("opens"));
    let mut ground = Ground::new(&settings);
    let (publisher, identities) = identity::channel();
    let mut device = Device::start(&mut ground, store, Clock::start(), publisher).expect("starts");
    let generations = || {
        let held = identities.held();
        let generation = |identity: Option<Arc<Identity>>| identity.map(|identity| identity.generation);
        (generation(held.in_use), generation(held.candidate))
    };
    device.renew_now();
    until(&mut device, "certificate", |news| matches!(news, News::Issued(_))).await;
    assert_eq!(generations(), (Some(0), Some(1)));
    assert_eq!(agent.slots().len(), 2, "both are stored");
    let candidate = || identities.held().candidate.expect("a candidate");
    let first = candidate();
    // A refused one goes, and the old one stays.
    identities.judge(Verdict::Refused { identity: first.clone(), why: "unknown issuer".to_owned() }).await;
    until(&mut device, "failure", |news| matches!(news, News::Failed { .. })).await;
    assert_eq!(generations(), (Some(0), None));
    device.renew_now();
    until(&mut device, "certificate", |news| matches!(news, News::Issued(_))).await;
    assert_eq!(generations(), (Some(0), Some(1)));
    // What is said late of the refused one is not said of its successor, though both have the same number.
    identities.judge(Verdict::Refused { identity: first, why: "unknown issuer".to_owned() }).await;
    let second = candidate();
    identities.judge(Verdict::Accepted { identity: second.clone() }).await;
    until(&mut device, "change", |news| matches!(news, News::Adopted(_))).await;
    assert_eq!(generations(), (Some(1), None));
    assert!(identities.held().in_use.is_some_and(|identity| identity.is_same(&second)));
    device.finish().await;
    assert_eq!(agent.slots().len(), 1, "the old key is gone");
    assert_eq!(shown(&agent).chain, agent.identities(&server)[0].chain);
}

#[test]
fn systemd_is_told_about_readiness_reload_and_stop() {
    let server = Server::start();
    let agent = Agent::enrolled(&server, "meter-1", &[]);
    let systemd = Systemd::listen(server.scratch());
    let mut command = Command::new(muster_tests::agent::program());
    command.args(["run", "--config", &text(&agent.config())]).stderr(Stdio::null());
    systemd.hears_a_life(systemd.start(&mut command));
}

#[test]
fn a_server_that_is_away_is_waited_for_and_named_in_the_status() {
    let mut server = Server::start();
    let mut agent = Agent::enrolled(&server, "meter-1", &[]);
    server.kill();
    agent.run();
    agent.wait_for("a running agent", |status| status["running"] == true);
    refused(&agent.command(&["renew"]), "the running agent keeps trying");
    let status = agent.status();
    assert!(
        status["failures"][0]["what"].as_str().is_some_and(|what| what.contains("can't be reached")),
        "{status}"
    );
    assert_eq!(status["identity"]["device"], "meter-1", "the certificate is still there");
    assert!(
        status["next_try_at"].as_str() < status["renew_at"].as_str(),
        "it tries on before the time: {status}"
    );
}
