//! Commands from their arguments to what they print, on an account made for the test.
//!
//! Without a server the client opens the ledger and calls the router in process; over HTTP only the
//! transport differs, which one test covers.

mod reaching;

use std::path::Path;

use clap::Parser as _;
use muster_ca::file_key::FileKey;
use muster_enroll::{CaCertificate, Clock, Passphrase};
use muster_policy::identity::CaId;
use muster_store::act::{AddCa, By};
use muster_store::record::{Ca, CaKind, CaRole};
use muster_store::{Ledger, Options};
use serde_json::Value;
use tempfile::TempDir;

use super::args::{Cli, Command};
use super::client::Client;
use super::print::Printer;
use super::{act, doctor, firmware, run, server};
use crate::backup;
use crate::config::ConfigWritten;
use crate::datadir::{DataDir, Readers, write_file};
use crate::init::{InitPlan, Initialised, init};
use crate::serve::{Roles, Server};

const CSR: &str = include_str!("testdata/meter-1.csr.pem");
const MAKER: &str = include_str!("testdata/maker-ca.pem");
/// A CA whose keyUsage has no cRLSign, and its key.
const NO_LISTS: &str = include_str!("testdata/no-lists-ca.pem");

/// An account, and a client of it.
struct Rig {
    temp: TempDir,
    client: Client,
    /// None where the test made it otherwise.
    made: Option<Initialised>,
}

impl Rig {
    async fn new() -> Self {
        Self::protected(None).await
    }

    /// With CA keys that this encrypts; it is in a file that the configuration names.
    async fn protected(passphrase: Option<&str>) -> Self {
        let temp = tempfile::tempdir().expect("a folder");
        let mut config = ConfigWritten::default();
        if let Some(text) = passphrase {
            let file = temp.path().join("passphrase");
            std::fs::write(&file, text).expect("written");
            config.ca.passphrase_file = Some(file);
        }
        let plan = InitPlan {
            dir: temp.path().join("data"),
            account: "acme".parse().expect("a title"),
            zones: vec!["example.com".parse().expect("a name")],
            trust_domain: None,
            algorithm: muster_ca::file_key::CaAlgorithm::EcdsaP256,
            permitted_dns: Vec::new(),
            passphrase: passphrase.map(|text| Passphrase::new(text.to_owned())),
            config,
        };
        let made = init(plan, &Clock::system()).await.expect("an account");
        let client = Client::connect(&DataDir::new(temp.path().join("data"))).await.expect("a client");
        Self { temp, client, made: Some(made) }
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.temp.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.to_str().expect("a plain path").to_owned()
    }

    async fn run(&self, line: &[&str]) -> Result<String, String> {
        let cli = Cli::try_parse_from(core::iter::once(&"muster").chain(line)).expect("a command line");
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, cli.json);
        let done = match cli.command {
            Command::Factory(args) => {
                let dir = DataDir::new(self.temp.path().join("data"));
                firmware::factory(&self.client, &dir, *args, &mut printer).await
            }
            Command::Flash(args) => firmware::flash(&args, &mut printer),
            command => act(&self.client, command, &mut printer).await,
        };
        let text = String::from_utf8(out).expect("text");
        done.map(|()| text).map_err(|error| format!("{error:#}"))
    }

    async fn ok(&self, line: &[&str]) -> String {
        self.run(line).await.unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    async fn json(&self, line: &[&str]) -> Value {
        let line: Vec<&str> = line.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.ok(&line).await).expect("JSON")
    }

    async fn refused(&self, line: &[&str]) -> String {
        self.run(line).await.expect_err("refused")
    }
}

#[tokio::test]
async fn a_hostname_is_set_changed_listed_and_removed() {
    let rig = Rig::new().await;
    let refused = rig.refused(&["host", "set", "mqtt.example.org"]).await;
    assert!(refused.contains("lies in no zone"), "{refused}");
    let set = rig.json(&["host", "set", "MQTT.example.com.", "--protocol", "mqtt"]).await;
    assert_eq!((&set["host"], &set["mode"]), (&"mqtt.example.com".into(), &"require".into()));
    // What is not given stays.
    let set = rig.json(&["host", "set", "mqtt.example.com", "--mode", "request", "--min-tls", "1.2"]).await;
    assert_eq!((&set["mode"], &set["min_tls"]), (&"request".into(), &"1.2".into()));
    assert_eq!(set["protocols"], serde_json::json!(["mqtt"]));
    for origin in ["ftp://a", "http://a/path", "http://u:p@a", "a", "http://"] {
        let refused = rig.refused(&["host", "set", "www.example.com", "--origin", origin]).await;
        assert!(refused.contains("origins:"), "{refused}");
    }
    let patience = ["host", "set", "www.example.com", "--origin-timeout"];
    assert_eq!(rig.json(&[&patience[..], &["0"]].concat()).await["origin_timeout_s"], 0);
    assert_eq!(rig.json(&["host", "set", "www.example.com"]).await["origin_timeout_s"], 0);
    let refused = rig.refused(&[&patience[..], &["86401"]].concat()).await;
    assert!(refused.contains("origin_timeout_s: 0 to 86400"), "{refused}");
    let ca = std::fs::read_to_string(&rig.made.as_ref().expect("made").ca_file).expect("a CA");
    let ca = ca.replace("\r\n", "\n");
    let [good, key, none, leaf] = [
        ("good.pem", ca.as_str()),
        ("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        ("none.pem", "nothing"),
        ("leaf.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ]
    .map(|(name, text)| rig.file(name, text));
    let set = ["host", "set", "www.example.com", "--origin", "https://127.0.0.1:3443"];
    for file in [&key, &none, &leaf] {
        let refused = rig.refused(&[&set[..], &["--origin-ca", file]].concat()).await;
        assert!(refused.contains("origin_ca:"), "{refused}");
    }
    let refused = rig.refused(&[&set[..], &["--origin-name", "a b"]].concat()).await;
    assert!(refused.contains("origin_name:"), "{refused}");
    let more = ["--origin-ca", &good, "--origin-name", "origin.internal", "--origin-client-cert", "yes"];
    rig.ok(&[&set[..], &more].concat()).await;
    let kept = rig.json(&["host", "set", "www.example.com", "--mode", "off"]).await;
    assert_eq!(kept["origin_ca"], ca.as_str(), "{kept}");
    assert_eq!(
        (&kept["origin_name"], &kept["origin_client_cert"]),
        (&"origin.internal".into(), &true.into())
    );
    let none = ["host", "set", "www.example.com", "--origin-ca", "machine", "--origin-name", ""];
    let none = rig.json(&none).await;
    assert_eq!((&none["origin_ca"], &none["origin_name"]), (&"".into(), &Value::Null));
    rig.ok(&["host", "set", "*.example.com", "--origin", "http://127.0.0.1:3000", "--mode", "off"]).await;
    let listed = rig.ok(&["host", "list"]).await;
    assert!(listed.contains("*.example.com") && listed.contains("http://127.0.0.1:3000"), "{listed}");
    rig.ok(&["host", "rm", "*.example.com"]).await;
    let refused = rig.refused(&["host", "rm", "*.example.com"]).await;
    assert!(refused.contains("no such hostname"), "{refused}");
}

#[tokio::test]
async fn the_factory_mints_nothing_before_every_device_was_checked() {
    let rig = Rig::new().await;
    let out = rig.temp.path().join("images").to_str().expect("a plain path").to_owned();
    let list = rig.file("devices.csv", "id\npump-1\npump-2\n");
    let [leaf, key, none] = [
        ("leaf.pem", include_str!("testdata/leaf.pem")),
        ("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        ("none.pem", "nothing"),
    ]
    .map(|(name, text)| rig.file(name, text));
    let phrase = rig.file("phrase", "short");
    let usual = ["factory", "--devices", &list, "--board", "mps2-an386", "--out", &out];
    let est = ["--est", "https://est.example.com:8443"];
    fn line<'a>(usual: &[&'a str], est: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
        [usual, if more.contains(&"--est") { &[] } else { est }, more].concat()
    }
    for (more, why) in [
        (&["--ca", &leaf][..], "not a CA"),
        (&["--ca", &key], "PRIVATE KEY is not a certificate"),
        (&["--ca", &none], "holds no CA certificate"),
        (&["--est", "http://est.example.com"], "not an https:// URL"),
        (&["--est", "https://est_1.example.com"], "labels of a-z"),
        (&["--est", "https://[::1]:8443"], "IPv4 only"),
        (&["--https", "https://api.example.com/x?y=1"], "no query"),
        (&["--mqtt", "mqtts://user@mqtt.example.com"], "no user name"),
        (&["--mqtt", "mqtts://mqtt.example.com", "--prefix", "devices"], "must end with a slash"),
        (&["--mqtt", "mqtts://mqtt.example.com", "--prefix", "devices/#/"], "no beginning of a topic"),
        (&["--host", "a_b=10.0.0.1"], "labels of a-z"),
        (&["--profile", "cacerts"], "EST operation"),
        (&["--wifi-ssid", "plant", "--wifi-passphrase-file", &phrase], "8 to 63"),
        (&["--apn", "a b"], "--apn"),
    ] {
        let refused = rig.refused(&line(&usual, &est, more)).await;
        assert!(refused.contains(why), "{more:?}: {refused}");
    }
    let long = format!("{}{{device}}/", "x".repeat(94));
    let ids = rig.file("long.csv", "id\np\na-device-with-a-longer-name\n");
    let mqtt = ["--mqtt", "mqtts://mqtt.example.com", "--prefix", &long];
    let long = ["factory", "--devices", &ids, "--board", "mps2-an386", "--out", &out];
    let refused = rig.refused(&line(&long, &est, &mqtt)).await;
    assert!(refused.contains("line 3") && refused.contains("longer than 100"), "{refused}");
    let csv = rig.file("known.csv", "id\npump-2\n");
    rig.ok(&["device", "import", &csv]).await;
    rig.ok(&["device", "retire", "pump-2"]).await;
    let refused = rig.refused(&line(&usual, &est, &[])).await;
    assert!(refused.contains("line 3") && refused.contains("retired"), "{refused}");
    assert_eq!(rig.json(&["token", "list"]).await, serde_json::json!([]), "nothing was minted");
    assert!(!Path::new(&out).exists(), "and no image was written");
}

#[tokio::test]
async fn factory_and_flash_overwrite_nothing_that_they_can_t_read() {
    let rig = Rig::new().await;
    let out = rig.temp.path().join("images");
    let folder = out.to_str().expect("a plain path").to_owned();
    let list = rig.file("devices.csv", "id\npump-1\n");
    let est = "https://est.example.com:8443";
    let factory = ["factory", "--devices", &list, "--board", "mps2-an386", "--out", &folder, "--est", est];
    rig.ok(&factory).await;
    rig.ok(&factory).await;
    let firmware = rig.file("firmware", "ELF");
    let flash = ["flash", "--board", "mps2-an386", "--device", "pump-1", "--images", &folder];
    let flash = [&flash[..], &["--firmware", &firmware, "--no-boot"]].concat();
    rig.ok(&flash).await;
    rig.ok(&flash).await;
    let tokens = rig.json(&["token", "list"]).await;
    let newer = |name: &str| {
        let mut octets = std::fs::read(out.join(name)).expect("there");
        octets[4] = 9;
        octets
    };
    for (name, content) in [
        ("pump-1.bin", newer("pump-1.bin")),
        ("pump-1.hex", b"notes".to_vec()),
        ("pump-1.uf2", b"notes".to_vec()),
    ] {
        let path = out.join(name);
        let before = std::fs::read(&path).expect("there");
        std::fs::write(&path, &content).expect("written");
        let refused = rig.refused(&factory).await;
        assert!(refused.contains("already exists; move it away first"), "{refused}");
        assert_eq!(std::fs::read(&path).expect("there"), content);
        std::fs::write(&path, before).expect("written");
    }
    assert_eq!(rig.json(&["token", "list"]).await, tokens, "nothing was minted");
    let path = out.join("pump-1.flash");
    for (content, why) in [
        (newer("pump-1.flash"), "version 9"),
        (vec![0; 32768], "no factory data"),
        (b"short".to_vec(), "not as long"),
    ] {
        std::fs::write(&path, &content).expect("written");
        let refused = rig.refused(&flash).await;
        assert!(refused.contains("already exists; move it away first") && refused.contains(why), "{refused}");
        assert_eq!(std::fs::read(&path).expect("there"), content);
    }
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("made");
    assert!(rig.refused(&flash).await.contains("can't read"));
    std::fs::write(out.join("pump-1.bin"), newer("pump-1.bin")).expect("written");
    assert!(rig.refused(&flash).await.contains("is not an image of this version"));
}

#[tokio::test]
async fn the_factory_knows_where_est_is_if_there_is_one_answer() {
    let rig = Rig::new().await;
    let out = rig.temp.path().join("images");
    let folder = out.to_str().expect("a plain path").to_owned();
    let list = rig.file("devices.csv", "id\npump-1\n");
    let factory = ["factory", "--devices", &list, "--board", "mps2-an386", "--out", &folder];
    let configure =
        |text: &str| std::fs::write(rig.temp.path().join("data/muster.toml"), text).expect("written");
    let holds = |name: &[u8]| {
        let image = std::fs::read(out.join("pump-1.bin")).expect("there");
        image.windows(name.len()).any(|part| part == name)
    };
    assert_eq!(rig.json(&factory).await["est"], "https://est.example.com:8443");
    assert!(holds(b"est.example.com"));
    rig.ok(&["zone", "add", "example.org"]).await;
    let tokens = rig.json(&["token", "list"]).await;
    let refused = rig.refused(&factory).await;
    assert!(refused.contains("--est URL"), "{refused}");
    assert_eq!(rig.json(&["token", "list"]).await, tokens, "nothing was minted");
    configure("[listen]\nest = \"0.0.0.0:9443\"\n[est]\nnames = [\"enroll.example.net\"]\n");
    assert_eq!(rig.json(&factory).await["est"], "https://enroll.example.net:9443");
    assert!(holds(b"enroll.example.net"));
    // The firmware has a place beside the images.
    let flash = ["flash", "--board", "mps2-an386", "--device", "pump-1", "--images", &folder, "--dry-run"];
    let refused = rig.refused(&flash).await;
    assert!(refused.contains("mps2-an386.elf") && refused.contains("--firmware"), "{refused}");
    std::fs::write(out.join("mps2-an386.elf"), "ELF").expect("written");
    assert!(rig.ok(&flash).await.contains("/images/mps2-an386.elf"));
}

#[test]
fn what_is_made_is_where_the_command_line_says() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, with_option) in [("a", true), ("b", false)] {
        let path = folder.path().join(name).to_str().expect("a plain path").to_owned();
        let place: &[&str] = if with_option { &["-C", &path] } else { &[&path] };
        let cli =
            Cli::try_parse_from([&["muster", "init", "--json"][..], place].concat()).expect("a command line");
        run(cli).expect("made");
        assert!(Path::new(&path).join("muster.toml").is_file(), "{name}");
    }
}

#[test]
fn what_can_not_be_a_name_or_a_field_is_an_error_of_usage() {
    for (wrong, named) in [
        (&["init", "--zone", "Bad zone"][..], "--zone"),
        (&["init", "--trust-domain", "a b"], "--trust-domain"),
        (&["init", "--permit-dns", "-"], "--permit-dns"),
        (&["init", "--account", ""], "--account"),
        (&["profile", "set", "meters", "lifetime_s"], "FIELD=VALUE"),
    ] {
        let error = Cli::try_parse_from([&["muster"], wrong].concat()).expect_err("wrong");
        assert_eq!(error.exit_code(), 2, "{wrong:?}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn flashing_is_shown_before_it_is_done() {
    let rig = Rig::new().await;
    let out = rig.temp.path().join("two images");
    let folder = out.to_str().expect("a plain path").to_owned();
    let list = rig.file("devices.csv", "id\npump-1\n");
    let est = "https://est.example.com:8443";
    rig.ok(&["factory", "--devices", &list, "--board", "nrf52840-dk", "--out", &folder, "--est", est]).await;
    let hex = std::fs::read_to_string(out.join("pump-1.hex")).expect("there");
    assert!(hex.starts_with(":02000004000FEB\r\n:10800000"), "at 0x000f8000: {}", &hex[..40]);
    let elf = rig.file("firmware.elf", "no ELF");
    let line = ["flash", "--board", "nrf52840-dk", "--device", "pump-1", "--images", &folder];
    let line = [&line[..], &["--firmware", &elf, "--dry-run"]].concat();
    assert!(rig.refused(&line).await.contains("not an ELF file for Arm"));
    std::fs::write(&elf, firmware::elf_file(&[(0, 1000)])).expect("written");
    let shown = rig.ok(&line).await;
    let image = format!(
        "probe-rs download --chip nRF52840_xxAA --verify --binary-format bin --base-address 0xf8000 '{folder}/pump-1.bin'"
    );
    assert!(shown.starts_with(&image) && shown.lines().count() == 3, "{shown}");
    assert_eq!(rig.json(&line).await["commands"][0], image.as_str());
    let refused = rig.refused(&[&line[..], &["--tool", "picotool"]].concat()).await;
    assert!(refused.contains("use probe-rs"), "{refused}");

    let line =
        ["flash", "--board", "mps2-an386", "--device", "pump-1", "--images", &folder, "--firmware", &elf];
    let refused = rig.refused(&[&line[..], &["--tool", "probe-rs"]].concat()).await;
    assert!(refused.contains("neither --tool nor --probe"), "{refused}");
    let refused = rig.refused(&[&line[..], &["--dry-run"]].concat()).await;
    assert!(refused.contains("spaces or commas"), "{refused}");
    assert!(!out.join("pump-1.flash").exists(), "nothing was written");
}

#[tokio::test]
async fn a_new_token_is_printed_alone_and_listed_without_its_secret() {
    let rig = Rig::new().await;
    let token = rig.ok(&["token", "new", "--device", "meter-1"]).await;
    assert!(token.starts_with("mst_") && token.trim_end().len() == 47 && token.ends_with('\n'), "{token}");
    let list = rig.ok(&["token", "list"]).await;
    assert!(list.contains("meter-1") && !list.contains(token.trim_end()));
    let id = rig.json(&["token", "list"]).await[0]["id"].as_str().expect("an id").to_owned();
    rig.ok(&["token", "revoke", &id]).await;
    assert_eq!(rig.json(&["token", "list"]).await[0]["status"], "revoked");
    assert!(rig.refused(&["token", "revoke", "../x"]).await.contains("1404"));
}

#[tokio::test]
async fn zones_are_added_once() {
    let rig = Rig::new().await;
    assert!(rig.ok(&["zone", "add", "Factory.Example"]).await.contains("factory.example"));
    assert!(rig.refused(&["zone", "add", "factory.example"]).await.contains("exists already"));
    assert_eq!(rig.json(&["zone", "list"]).await.as_array().expect("a list").len(), 2);
    let second = rig.json(&["zone", "list", "--page", "2", "--per-page", "1"]).await;
    assert_eq!(second.as_array().expect("a list").len(), 1);
}

#[tokio::test]
async fn devices_come_from_csv_and_change_status() {
    let rig = Rig::new().await;
    let file = rig.file("fleet.csv", "id,labels,groups\nmeter-1,site=north,a;b\nmeter-2,,\n");
    let done = rig.json(&["device", "import", &file]).await;
    assert_eq!((&done["created"], &done["updated"]), (&Value::from(2), &Value::from(0)));
    rig.ok(&["device", "suspend", "meter-1"]).await;
    let listed = rig.ok(&["device", "list", "--status", "suspended"]).await;
    assert!(listed.contains("meter-1") && listed.contains("site=north") && !listed.contains("meter-2"));
    rig.ok(&["device", "resume", "meter-1"]).await;
    rig.ok(&["device", "retire", "meter-1"]).await;
    assert!(rig.refused(&["device", "resume", "meter-1"]).await.contains("retired for good"));
    assert!(rig.refused(&["device", "show", "meter-9"]).await.contains("no such device"));
}

#[tokio::test]
async fn an_import_names_the_line_of_the_file() {
    let rig = Rig::new().await;
    let file = rig.file("fleet.csv", "id,manufacturer_serial\nmeter-1,\nmeter-2,S1\n");
    let error = rig.refused(&["device", "import", &file]).await;
    assert!(error.starts_with("line 3, device meter-2:") && error.contains("ca import"), "{error}");
    assert_eq!(rig.json(&["device", "list"]).await, serde_json::json!([]));
    let bundle = rig.file("maker.pem", MAKER);
    rig.ok(&["ca", "import", &bundle, "--use", "manufacturer"]).await;
    rig.ok(&["device", "import", &file]).await;
    assert_eq!(rig.json(&["device", "show", "meter-2"]).await["manufacturer_serial"], "S1");
    let twice = rig.file("twice.csv", "id,manufacturer_serial\nmeter-3,S1\n");
    let error = rig.refused(&["device", "import", &twice]).await;
    assert!(error.starts_with("line 2, device meter-3:") && error.contains("meter-2"), "{error}");
}

#[tokio::test]
async fn a_certificate_is_explained_signed_revoked_and_reactivated() {
    let rig = Rig::new().await;
    let csr = rig.file("csr.pem", CSR);
    let explained = rig.json(&["cert", "sign", "--dry-run", &csr]).await;
    assert_eq!(
        (&explained["would_issue"], &explained["device"]),
        (&Value::from(true), &Value::from("meter-1"))
    );
    let refusal = rig.refused(&["cert", "sign", "--dry-run", &csr, "--profile", "none"]).await;
    assert!(refusal.contains("profile_unknown"), "{refusal}");
    assert_eq!(rig.json(&["cert", "list"]).await, serde_json::json!([]));

    let pem = rig.ok(&["cert", "sign", &csr]).await;
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n") && pem.ends_with("-----END CERTIFICATE-----\n"));
    let listed = rig.json(&["cert", "list", "--device", "meter-1"]).await;
    let serial = listed[0]["serial_number"].as_str().expect("a serial").to_owned();
    let before = rig.ok(&["ca", "crl"]).await;
    rig.ok(&["cert", "revoke", "--serial", &serial, "--reason", "certificateHold"]).await;
    assert_ne!(before, rig.ok(&["ca", "crl"]).await);
    let shown = rig.json(&["cert", "show", "--serial", &serial]).await;
    assert_eq!(
        (&shown["status"], &shown["revocation_reason"]),
        (&"revoked".into(), &"certificateHold".into())
    );
    assert!(rig.refused(&["cert", "show", "--device", "meter-1"]).await.contains("no certificate matches"));
    rig.ok(&["cert", "reactivate", "--device", "meter-1"]).await;
    assert!(rig.ok(&["cert", "show", "--device", "meter-1"]).await.contains("BEGIN CERTIFICATE"));
}

#[tokio::test]
async fn what_a_ca_issued_elsewhere_is_revoked_by_name_and_listed() {
    let rig = Rig::new().await;
    let maker = rig.file("maker.pem", MAKER);
    let ca = rig.json(&["ca", "import", &maker, "--use", "manufacturer"]).await["id"].clone();
    let ca = ca.as_str().expect("an id");
    let shown = rig.json(&["ca", "crl-source", ca]).await;
    assert_eq!((&shown["list"], &shown["when_stale"]), (&Value::Null, &"closed".into()));
    let set = rig.json(&["ca", "crl-source", ca, "--every", "2h", "--when-stale", "open"]).await;
    assert_eq!((&set["every_s"], &set["when_stale"]), (&7_200.into(), &"open".into()));
    let said = rig.ok(&["ca", "crl-source", ca, "--upload"]).await;
    assert_eq!(said, "The CRL of the CA is uploaded; without a fresh one the CA is open\n");
    let print = "AB:".repeat(31) + "AB";
    rig.ok(&["cert", "revoke", "--ca", ca, "--serial", "0A", "--reason", "superseded"]).await;
    rig.ok(&["cert", "revoke", "--ca", ca, "--sha256", &print]).await;
    let listed = rig.ok(&["ca", "revoked", ca]).await;
    assert!(listed.contains("superseded") && listed.contains(&"ab".repeat(32)), "{listed}");
    let back = rig.ok(&["cert", "reactivate", "--ca", ca, "--serial", "0a"]).await;
    assert_eq!(back, format!("Reinstated 0a of the CA {ca}\n"));
    let unknown = rig.refused(&["cert", "reactivate", "--ca", ca, "--serial", "0a"]).await;
    assert!(unknown.contains("no such certificate"), "{unknown}");
    let foreign = rig.file("leaf.pem", include_str!("testdata/leaf.pem"));
    let refused = rig.refused(&["cert", "revoke", "--ca", ca, "--file", &foreign]).await;
    assert!(refused.contains("not by this CA"), "{refused}");
    let refused = rig.refused(&["ca", "take-crl", ca, &foreign]).await;
    assert!(refused.contains("no `X509 CRL`"), "{refused}");
    let refused = rig.refused(&["ca", "fetch-crl", ca]).await;
    assert!(refused.contains("set the URL"), "{refused}");
    for wrong in
        [&["--sha256", "ab"][..], &["--id", "x", "--ca", ca], &["--ca", ca], &["--device", "d", "--ca", ca]]
    {
        let line = [&["muster", "cert", "revoke"][..], wrong].concat();
        assert!(Cli::try_parse_from(line).is_err(), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_request_may_be_der() {
    let rig = Rig::new().await;
    let path = rig.temp.path().join("csr.der");
    std::fs::write(&path, pem::parse(CSR).expect("PEM").contents()).expect("written");
    rig.ok(&["cert", "sign", path.to_str().expect("plain")]).await;
}

#[tokio::test]
async fn profiles_are_changed_field_by_field() {
    let rig = Rig::new().await;
    rig.ok(&["profile", "set", "meters", "lifetime_s=86400", "approval=manual"]).await;
    let text = rig.ok(&["profile", "set", "meters", "approval="]).await;
    assert!(text.contains("lifetime_s            86400   (set)"), "{text}");
    assert!(text.contains("approval              automatic\n"), "{text}");
    assert!(rig.refused(&["profile", "set", "meters", "lifetime_s=1"]).await.contains("lifetime_s"));
    assert!(rig.refused(&["profile", "set", "meters", "colour=red"]).await.contains("colour"));
    assert!(rig.ok(&["profile", "list"]).await.contains("default   (of paths without a label)"));
}

#[tokio::test]
async fn cas_are_listed_rotated_and_exported() {
    let rig = Rig::new().await;
    let root = rig.ok(&["ca", "export"]).await;
    assert_eq!(
        root.trim_end(),
        std::fs::read_to_string(&rig.made.as_ref().expect("made").ca_file)
            .expect("there")
            .replace("\r\n", "\n")
            .trim_end()
    );
    rig.ok(&["ca", "rotate", "--role", "devices"]).await;
    assert_eq!(rig.json(&["ca", "list"]).await.as_array().expect("a list").len(), 4);
    rig.ok(&["ca", "create"]).await;
    assert_eq!(rig.ok(&["ca", "export"]).await.matches("BEGIN").count(), 2);
    assert!(rig.refused(&["ca", "export", "nonsense"]).await.contains("1404"));
}

#[tokio::test]
async fn the_audit_tells_of_it_all_and_is_whole() {
    let rig = Rig::new().await;
    rig.ok(&["admin-token", "new", "--name", "ci", "--read-only", "--ttl", "1d"]).await;
    assert!(rig.ok(&["admin-token", "list"]).await.contains("reader"));
    assert!(rig.ok(&["audit", "list"]).await.contains("admin-token-created"));
    assert!(rig.ok(&["audit", "verify"]).await.starts_with("The audit is intact"));
    assert_eq!(rig.json(&["audit", "verify"]).await["sound"], true);
    assert_eq!(rig.json(&["approval", "list"]).await, serde_json::json!([]));
}

#[tokio::test]
async fn a_backup_is_a_new_file_of_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::new().await;
    let path = rig.temp.path().join("copy");
    let name = path.to_str().expect("plain");
    rig.ok(&["backup", name]).await;
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(rig.refused(&["backup", name]).await.contains("can't create"));
    assert!(backup::check(std::fs::File::open(&path).expect("there")).is_ok(), "it stays as it is");
}

#[tokio::test]
async fn backups_made_at_once_are_all_whole() {
    let rig = Rig::new().await;
    let paths = ["a", "b", "c"].map(|name| rig.temp.path().join(name));
    let [a, b, c] = paths.each_ref().map(|path| ["backup", path.to_str().expect("plain")]);
    tokio::join!(rig.ok(&a), rig.ok(&b), rig.ok(&c));
    for path in paths {
        let file = std::fs::File::open(&path).expect("there");
        backup::check(file).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
    }
    assert!(!rig.temp.path().join("data/.backup").exists());
}

#[tokio::test]
async fn a_list_longer_than_a_page_is_printed_whole() {
    let rig = Rig::new().await;
    let lines: String = (0..2_345).map(|number| format!("d{number}\n")).collect();
    let file = rig.file("fleet.csv", &format!("id\n{lines}"));
    rig.ok(&["device", "import", &file]).await;
    assert_eq!(rig.json(&["device", "list"]).await.as_array().expect("a list").len(), 2_345);
    let some = rig.json(&["device", "list", "--prefix", "d23"]).await;
    assert_eq!(some.as_array().expect("a list").len(), 56);
    assert_eq!(rig.json(&["device", "list", "--page", "2"]).await.as_array().expect("a list").len(), 20);
}

#[tokio::test]
async fn webhooks_are_made_listed_shown_and_removed_and_nothing_is_sent_without_a_server() {
    let rig = Rig::new().await;
    let unknown = rig.refused(&["webhook", "add", "https://hooks.example/x", "--event", "tea-time"]).await;
    assert!(unknown.contains("tea-time"), "{unknown}");
    let add = ["webhook", "add", "https://hooks.example/x", "--event", "device-set", "--event", "ca-added"];
    let secret = rig.ok(&add).await;
    assert_eq!(secret.lines().count(), 1, "alone: {secret}");
    let listed = rig.json(&["webhook", "list"]).await;
    let webhook = &listed[0];
    assert_eq!((&webhook["name"], &webhook["secret"]), (&"hooks.example".into(), &Value::Null));
    assert_eq!(webhook["events"], serde_json::json!(["ca-added", "device-set"]));
    let id = webhook["id"].as_str().expect("an id");
    assert!(!rig.ok(&["webhook", "show", id]).await.contains(secret.trim()));
    assert_eq!(rig.json(&["webhook", "show", id]).await["progress"]["delivered"], 0);
    assert_eq!(rig.json(&["webhook", "dead-letters", id]).await, serde_json::json!([]));
    assert!(rig.refused(&["webhook", "drop", id, "7"]).await.contains("dead letter"));
    for live in [
        &["webhook", "test", id][..],
        &["webhook", "redeliver", id],
        &["event", "follow"],
        &["connection", "list"],
        &["connection", "close", "--device", "x"],
    ] {
        let refused = rig.refused(live).await;
        assert!(refused.contains("start it with `muster serve`"), "{live:?}: {refused}");
    }
    rig.ok(&["webhook", "rm", id]).await;
    assert!(rig.refused(&["webhook", "show", id]).await.contains("no such webhook"));
}

#[tokio::test]
async fn doctor_finds_that_the_key_of_webhooks_was_lost() {
    let Rig { temp, client, .. } = Rig::new().await;
    let hook = serde_json::json!({ "name": "ops", "url": "https://hooks.example.com/muster" });
    client.call(http::Method::POST, &client.own("/webhooks"), Some(&hook)).await.expect("made");
    drop(client);
    let dir = DataDir::new(temp.path().join("data"));
    let run = async || {
        let mut out = Vec::new();
        let healthy = doctor::doctor(&dir, &mut Printer::new(&mut out, false)).await.is_ok();
        (healthy, String::from_utf8(out).expect("text"))
    };
    let (healthy, text) = run().await;
    assert!(healthy, "{text}");
    std::fs::remove_file(dir.webhooks_key()).expect("removed");
    let (healthy, text) = run().await;
    assert!(
        !healthy && text.contains("fail  webhooks: ") && text.contains("webhooks.key was missing"),
        "{text}"
    );
}

#[tokio::test]
async fn the_key_of_webhooks_is_encrypted_as_the_ca_keys_are_and_a_plain_one_becomes_so() {
    const BARE: [u8; 32] = [42; 32];
    let Rig { temp, client, .. } = Rig::protected(Some("correct horse")).await;
    drop(client);
    let dir = DataDir::new(temp.path().join("data"));
    let text = || std::fs::read_to_string(dir.webhooks_key()).expect("text");
    let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
    assert!(text().starts_with(sealed), "made so");
    // As older versions left it.
    write_file(&dir.webhooks_key(), &BARE, Readers::Owner).expect("written");
    let hook = serde_json::json!({ "name": "ops", "url": "https://hooks.example.com/muster" });
    let made = async || {
        let client = Client::connect(&dir).await.expect("a client");
        client.call(http::Method::POST, &client.own("/webhooks"), Some(&hook)).await.expect("made")
    };
    let mut out = Vec::new();
    doctor::doctor(&dir, &mut Printer::new(&mut out, false)).await.expect("a warning fails nothing");
    let told = String::from_utf8(out).expect("text");
    assert!(told.contains("warn  key file: ") && told.contains("webhooks.key is not encrypted"), "{told}");
    made().await;
    let once = text();
    assert!(once.starts_with(sealed));
    made().await;
    assert_eq!(text(), once, "written once");
    let opened = muster_ca::file_key::secret::open(
        &dir.webhooks_key(),
        Some(&Passphrase::new("correct horse".to_owned())),
    );
    assert_eq!(*opened.expect("opens"), BARE, "it signs what it signed");
    std::fs::write(dir.webhooks_key(), b"short").expect("written");
    let broken = format!("{:#}", Client::connect(&dir).await.map(drop).expect_err("broken"));
    assert!(
        broken.contains("webhooks.key is broken") && broken.contains("restore it from a backup"),
        "{broken}"
    );
    assert_eq!(std::fs::read(dir.webhooks_key()).expect("read"), b"short", "not replaced");
}

#[tokio::test]
async fn doctor_finds_a_readable_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let Rig { temp, client, .. } = Rig::new().await;
    drop(client);
    let dir = DataDir::new(temp.path().join("data"));
    let mut out = Vec::new();
    let healthy = doctor::doctor(&dir, &mut Printer::new(&mut out, false)).await;
    let text = String::from_utf8(out).expect("text");
    assert!(healthy.is_ok() && text.contains("ok    ledger: opens; no server runs"), "{text}");
    let key = std::fs::read_dir(dir.keys()).expect("keys").next().expect("one").expect("read").path();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("set");
    let mut out = Vec::new();
    let error = doctor::doctor(&dir, &mut Printer::new(&mut out, false)).await.expect_err("a finding");
    assert!(error.to_string().starts_with("1 checks failed"));
    assert!(String::from_utf8(out).expect("text").contains("has mode 644"));
}

/// As one was taken when nobody looked at that.
#[tokio::test]
async fn a_ca_that_may_sign_no_lists_keeps_none_and_nothing_fails_by_that() {
    let Rig { temp, client, .. } = Rig::new().await;
    drop(client);
    let dir = DataDir::new(temp.path().join("data"));
    let key = FileKey::read_pem(NO_LISTS, None).expect("a key");
    key.write_file(&dir.keys().join("old.key"), None).expect("written");
    let certificate = pem::parse(NO_LISTS).expect("PEM");
    let certificate = CaCertificate::parse(certificate.contents()).expect("a CA");
    let now = Clock::system().now();
    let ledger = Ledger::open(&dir.ledger(), Options::default(), now).expect("a ledger");
    let account = ledger.reader().expect("open").accounts().expect("reads").remove(0).id;
    let model = ledger.reader().expect("open").cas(account).expect("reads").remove(0);
    let id = CaId::new(u64::MAX >> 16, [0; 10]);
    let ca = Ca {
        id,
        title: "Old".parse().expect("a title"),
        kind: CaKind::Byo,
        role: CaRole::Devices,
        certificate_der: certificate.der().to_vec().into(),
        chain: Vec::new(),
        key_file: Some("old.key".to_owned()),
        issuer: None,
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        serial: certificate.serial(),
        fingerprint: certificate.fingerprint(),
        subject: certificate.subject().to_owned(),
        ..model
    };
    ledger.transact(AddCa { ca, by: By::system(now) }).await.expect("added");
    drop(ledger);

    let client = Client::connect(&dir).await.expect("a client");
    let rig = Rig { temp, client, made: None };
    let csr = rig.file("csr.pem", CSR);
    rig.ok(&["cert", "sign", &csr]).await;
    let listed = rig.json(&["cert", "list"]).await;
    assert_eq!(listed[0]["ca"], id.to_string());
    let serial = listed[0]["serial_number"].as_str().expect("text").to_owned();
    rig.ok(&["cert", "revoke", "--serial", &serial]).await;
    rig.ok(&["cert", "reactivate", "--serial", &serial]).await;
    rig.ok(&["cert", "revoke", "--device", "meter-1"]).await;
    let Rig { temp: _temp, client, .. } = rig;
    drop(client);
    let mut out = Vec::new();
    let healthy = doctor::doctor(&dir, &mut Printer::new(&mut out, false)).await;
    let text = String::from_utf8(out).expect("text");
    assert!(healthy.is_ok() && text.contains("Old (active) has no cRLSign: it keeps no CRL"), "{text}");
}

#[tokio::test]
async fn doctor_reads_the_operator_s_own_certificate_of_the_est_server() {
    let Rig { temp, client, .. } = Rig::new().await;
    drop(client);
    let dir = DataDir::new(temp.path().join("data"));
    let told = async |certificate: &str| {
        let config = format!("[est]\ntls_certificate = \"{certificate}\"\ntls_key = \"tls/est.pem\"\n");
        std::fs::write(dir.config(), config).expect("written");
        let mut out = Vec::new();
        let healthy = doctor::doctor(&dir, &mut Printer::new(&mut out, false)).await.is_ok();
        (healthy, String::from_utf8(out).expect("text"))
    };
    let (healthy, text) = told("tls/est.pem").await;
    assert!(healthy && text.contains("EST certificate: ends 20"), "{text}");
    let (healthy, text) = told("missing.pem").await;
    assert!(
        !healthy && text.contains("fail  EST certificate: ") && text.contains("missing.pem: No such file")
    );
    let (healthy, text) = told("ca.pem").await;
    assert!(!healthy && text.contains("fail  EST certificate: "), "a key of another: {text}");
}

#[test]
fn a_fault_of_the_configuration_is_told_once() {
    let temp = tempfile::tempdir().expect("a folder");
    let dir = DataDir::new(temp.path());
    std::fs::write(dir.config(), "[est]\nunheard_of = 1\n").expect("written");
    let error = format!("{:#}", server::configuration(&dir).map(drop).expect_err("refused"));
    assert_eq!(error.matches("unheard_of = 1").count(), 1, "{error}");
}

#[tokio::test]
async fn a_server_that_can_t_start_names_the_setting_and_the_file() {
    let Rig { temp, client, .. } = Rig::new().await;
    drop(client);
    let dir = DataDir::new(temp.path().join("data"));
    let refused = async |settings: &str| {
        let written = ConfigWritten::parse(&format!("{settings}[listen]\nadmin = \"127.0.0.1:0\"\n"));
        let config = written.expect("TOML").check(dir.path()).expect("a configuration");
        let roles = Roles { admin: true, edge: true, enroll: false };
        let started = Server::start(dir.clone(), config, roles, Clock::system()).await;
        format!("{:#}", started.err().expect("refused"))
    };
    let error = refused("[est]\ntls_certificate = \"gone.pem\"\ntls_key = \"gone.key\"\n").await;
    assert!(error.contains("est.tls_certificate") && error.contains("gone.pem: No such file"), "{error}");
    std::fs::create_dir(dir.broker()).expect("made");
    let error = refused("").await;
    assert!(error.contains("broker.redb: the broker's file: "), "{error}");
}
