//! Every input of the fuzz corpora of the server's parts, on each plain `cargo test`.
//!
//! Nothing may panic, and what is named `good-*` must be read. A find of a fuzzer goes into its
//! corpus, so it is tested here from then on.

use std::collections::BTreeMap;
use std::path::Path;

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use muster::config::ConfigWritten;
use muster_agent::carry::mqtt::opening::Opening;
use muster_agent::carry::mqtt::packet::{PacketFault, PacketReader};
use muster_agent::carry::mqtt::session::Session;
use muster_ca::certificate::{CaCertificate, LeafFacts};
use muster_ca::chain::{ClientChain, TrustAnchors, verify_client_chain};
use muster_ca::csr::Csr;
use muster_enroll::{Presented, decode_request};
use muster_nostd_agent::store::Item;
use muster_policy::expression::{Expression, ExpressionError, Field, Kind, Value};
use muster_policy::fragment::FragmentLimit;
use muster_policy::profile::ProfileWritten;
use muster_policy::time::UnixTime;
use muster_simulator::identities::read_frame;
use muster_simulator::scenario::ScenarioWritten;

const ANCHOR: &[u8] = include_bytes!("../fuzz/anchor.der");
/// The CA that made the lists.
const CRL_CA: &[u8] = include_bytes!("../fuzz/crl_ca.der");
/// Where its complete list is, as the lists that name a distribution point may say.
const CRL_POINT: &str = "http://crl.example.test/ca.crl";

/// Inside the validity of the corpus' certificates, so that a test run in any year finds the same.
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// The inputs of one target, by name.
fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files
        .map(|file| {
            let file = file.expect("a file of the corpus");
            let name = file.file_name().into_string().expect("a name in ASCII");
            (name, std::fs::read(file.path()).expect("readable"))
        })
        .collect()
}

/// Runs a parser over a corpus. `good-*` must be read, and each corpus must hold both kinds.
fn read_all<E: std::fmt::Debug>(target: &str, read: impl Fn(&str, &[u8]) -> Result<(), E>) {
    let (mut good, mut refused) = (0, 0);
    for (name, input) in corpus(target) {
        let outcome = read(&name, &input);
        if name.starts_with("good-") {
            outcome.unwrap_or_else(|error| panic!("{target}/{name}: {error:?}"));
            good += 1;
        } else {
            assert!(outcome.is_err() || name.starts_with("find-"), "{target}/{name} was read");
            refused += 1;
        }
    }
    assert!(good > 0 && refused > 0, "{target}: {good} good, {refused} refused");
}

fn text(input: &[u8]) -> &str {
    std::str::from_utf8(input).unwrap_or_default()
}

#[test]
fn sessions_of_local_mqtt_clients_are_read_or_refused() {
    read_all("agent_mqtt_relay", |_, input| {
        let mut reader = PacketReader::new();
        reader.buffer().extend_from_slice(input);
        let connect = reader.next_packet()?.ok_or(PacketFault::Malformed)?;
        let mut session = Session::new(Opening::read(&connect)?);
        while let Some(packet) = reader.next_packet()? {
            session.handle_client(&packet)?;
        }
        Ok::<(), PacketFault>(())
    });
}

#[test]
fn backups_are_unpacked_or_refused_and_nothing_lies_outside() {
    read_all("backup", |name, input| {
        let around = tempfile::tempdir().expect("a folder");
        let target = around.path().join("target");
        std::fs::create_dir(&target).expect("made");
        muster::backup::lay_out(&target).expect("made");
        let outcome = muster::backup::unpack(input, &target);
        assert_eq!(std::fs::read_dir(around.path()).expect("there").count(), 1, "{name}");
        for member in ["keys", "hosts", "tls"].map(|folder| target.join(folder)) {
            for file in std::fs::read_dir(member).expect("there") {
                assert!(file.expect("an entry").file_type().expect("known").is_file(), "{name}");
            }
        }
        outcome
    });
}

#[test]
fn hellos_have_a_limit_of_their_records_or_none() {
    read_all("hello", |_, input| FragmentLimit::of_hello(input).map(drop).ok_or("none"));
}

#[test]
fn rules_are_read_and_answer_or_are_refused_at_a_place() {
    read_all("expression", |name, input| {
        let (rule, said) = text(input).split_once('\n').unwrap_or_else(|| (text(input), ""));
        let value = |field: Field| match field.kind() {
            Kind::Bool => Value::Bool(said.is_empty()),
            Kind::Ip => Value::Ip([192, 0, 2, 7].into()),
            Kind::Number => Value::Number(7),
            Kind::Text => Value::Text(said.into()),
        };
        let read = rule.parse::<Expression>();
        let place = |error: &ExpressionError| assert!(error.position <= rule.len(), "{name}: {error}");
        read.inspect_err(place).map(|expression| {
            let _: bool = expression.matches(&value);
        })
    });
}

#[test]
fn requests_are_read_or_refused() {
    read_all("csr", |_, input| Csr::parse(input).map(drop));
}

#[test]
fn bodies_are_read_or_refused() {
    read_all("est_body", |_, input| decode_request(input).and_then(|der| Csr::parse(&der)).map(drop));
}

#[test]
fn leaves_are_read_or_refused_and_judged_as_their_names_say() {
    read_all("leaf", |name, input| {
        let expected = match name {
            name if name.starts_with("good-client") => "trusted",
            "good-unfit_server" => "unfit",
            "good-expired" => "expired",
            _ => "untrusted",
        };
        let anchors = TrustAnchors::new([ANCHOR]).expect("a certificate");
        let verdict = match verify_client_chain(&input.into(), &[], &anchors, NOW) {
            ClientChain::Trusted { .. } => "trusted",
            ClientChain::Expired { .. } => "expired",
            ClientChain::NotForClientAuth => "unfit",
            ClientChain::NotYetValid | ClientChain::Untrusted => "untrusted",
        };
        assert_eq!(verdict, expected, "{name}");
        LeafFacts::parse(input).map(drop)
    });
}

#[test]
fn client_certificates_name_a_device_or_are_refused() {
    let domain = "fleet.example".parse().expect("a trust domain");
    read_all("edge_identity", |_, input| muster_edge::read_leaf(input, &domain).map(drop));
}

#[test]
fn bundles_are_imported_or_refused() {
    read_all("byo", |_, input| muster_ca::byo::import(text(input), None, NOW).map(drop));
}

#[test]
fn lists_of_other_cas_are_taken_or_refused() {
    // They were made by Python's cryptography, and are good for a month.
    let now = UnixTime::from_secs(1_795_600_000);
    let ca = CaCertificate::parse(CRL_CA).expect("a CA");
    read_all("foreign_crl", |_, input| {
        muster_ca::foreign_crl::read(input, &ca, Some(CRL_POINT), now).map(drop)
    });
}

#[test]
fn configurations_are_checked_or_refused() {
    read_all("config", |_, input| {
        ConfigWritten::parse(text(input)).and_then(|written| written.check(Path::new("/data"))).map(drop)
    });
}

#[test]
fn profiles_are_checked_or_refused() {
    read_all("profile", |_, input| {
        let written: ProfileWritten = serde_json::from_slice(input).map_err(|error| error.to_string())?;
        let label = "corpus".parse().expect("a label");
        written.check(label).map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn items_of_the_identity_store_are_read_and_written_again_or_refused() {
    read_all("nostd_item", |name, input| {
        let item = Item::parse(input)?;
        let mut again = vec![0; input.len()];
        item.write(&mut again)?;
        assert_eq!(again, input, "{name}");
        Ok::<(), muster_nostd_agent::store::BadItem>(())
    });
}

#[test]
fn connections_of_mqtt_clients_are_read_or_refused() {
    // A good one is read to its end; one whose CONNECT is broken is refused.
    read_all("broker_packets", |_, input| muster_broker::read_packets(input).map(drop).ok_or("refused"));
}

#[test]
fn authorization_headers_are_read_or_unreadable() {
    read_all("authorization", |_, input| {
        let mut headers = HeaderMap::new();
        for line in input.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()) {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(line).expect("a header value"));
        }
        match Presented::from_headers(&headers) {
            Presented::Unreadable => Err("unreadable"),
            Presented::Basic { .. } | Presented::Bearer { .. } | Presented::Nothing => Ok(()),
        }
    });
}

#[test]
fn scenarios_are_checked_or_refused() {
    read_all("scenario", |_, input| {
        ScenarioWritten::parse(text(input)).and_then(ScenarioWritten::check).map(drop)
    });
}

#[test]
fn records_of_simulated_identities_are_read_or_refused() {
    read_all("sim_identity", |_, input| read_frame(input).map(drop));
}
