//! What the edge is told of an account, whose files and clock the test turns.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use muster_edge::{Event, Update};
use muster_enroll::{Clock, Csr, Identified, KeySource, Order, Outcome, Registrar, decode_request};
use muster_policy::host::{DefaultCas, HostMode, HostPattern, HostRule, MinTls, Protocol, WhenStale};
use muster_policy::identity::{CaId, CertificateId, Fingerprint, Serial};
use muster_policy::revocation::RevocationReason;
use muster_store::act::{
    By, DeviceImport, EditZone, ImportDevices, OnExisting, ReinstateNamed, RevokeCertificate, RevokeNamed,
    SetDocument, SetHost,
};
use muster_store::record::{Actor, Document, DocumentKind, ForeignName, OriginTls};

use super::certificates::{Certificates, RETRY_AFTER};
use super::feed::Feed;
use crate::config::ConfigWritten;
use crate::datadir::DataDir;
use crate::init::{InitPlan, init};

const DAY: u64 = 86_400;
/// Lifetime of a leaf of the default profile.
const LIFETIME: u64 = 90 * DAY;

struct Rig {
    temp: tempfile::TempDir,
    registrar: Arc<Registrar>,
    certificates: Certificates,
    ahead: Arc<AtomicU64>,
}

impl Rig {
    async fn new() -> Self {
        let temp = tempfile::tempdir().expect("a folder");
        let dir = DataDir::new(temp.path().join("data"));
        let plan = InitPlan::new(dir.path().to_owned(), "acme", &["example.com"]).expect("a plan");
        init(plan, &Clock::system()).await.expect("an account");
        let ahead = Arc::new(AtomicU64::new(0));
        let turned = Arc::clone(&ahead);
        #[expect(clippy::disallowed_methods, reason = "the clock that is turned is the true one")]
        let clock =
            Clock::from_fn(move || SystemTime::now() + Duration::from_secs(turned.load(Ordering::Relaxed)));
        let config = ConfigWritten::default().check(dir.path()).expect("a configuration");
        let (registrar, _) = crate::open::account(&dir, &config, &clock).expect("opened");
        let certificates =
            Certificates::new(&dir, Arc::clone(registrar.authority()), clock).expect("a folder");
        Self { temp, registrar, certificates, ahead }
    }

    /// Sets the clock so far from the true time.
    fn turn_to(&self, seconds: u64) {
        self.ahead.store(seconds, Ordering::Relaxed);
    }

    /// With certificates of its own, as after a restart.
    fn feed(&self) -> Feed {
        let (authority, clock) = (self.registrar.authority(), self.registrar.clock());
        let dir = DataDir::new(self.temp.path().join("data"));
        let certificates = Certificates::new(&dir, Arc::clone(authority), clock.clone()).expect("a folder");
        Feed::new(&self.registrar, certificates)
    }

    fn host(&self) -> HostPattern {
        "api.example.com".parse().expect("a name")
    }

    fn path(&self, name: &str) -> PathBuf {
        DataDir::new(self.temp.path().join("data")).host_tls().join(name)
    }

    fn write(&self, name: &str, text: &[u8]) {
        std::fs::write(self.path(name), text).expect("written");
    }

    /// The pair that was made here, as files of an operator.
    fn put_files(&self) {
        let made = std::fs::read(self.path("api.example.com.pem")).expect("made");
        self.write("api.example.com.key", &made);
        self.write("api.example.com.crt", &made);
    }

    fn is_due(&self) -> bool {
        self.certificates.due() == [self.host()]
    }

    async fn pause(&self, paused: bool) {
        let registrar = &self.registrar;
        let (account, by) = (registrar.account(), By { actor: Actor::Local, at: registrar.clock().now() });
        let zones = registrar.ledger().reader().expect("open").zones(account).expect("read");
        let zone = zones.first().expect("one").id;
        let paused = Some(paused);
        let edit = EditZone {
            account,
            zone,
            paused,
            kind: None,
            shows_certificate: None,
            vanity_name_servers: None,
            by,
        };
        registrar.ledger().transact(edit).await.expect("edited");
    }

    async fn put_host(&self) {
        let registrar = &self.registrar;
        let (account, by) = (registrar.account(), By { actor: Actor::Local, at: registrar.clock().now() });
        let zones = registrar.ledger().reader().expect("open").zones(account).expect("read");
        let rule = HostRule {
            host: self.host(),
            account,
            zone: zones.first().expect("one").id,
            mode: HostMode::Require,
            protocols: [Protocol::Https].into(),
            cas: Default::default(),
            default_cas: DefaultCas::default(),
            min_tls: MinTls::Tls13,
            origins: Vec::new(),
            when_stale: WhenStale::Closed,
            forward_certificate: true,
            origin_timeout_s: 60,
        };
        let set = SetHost { rule, origin_tls: OriginTls::default(), instead_of: None, by };
        registrar.ledger().transact(set).await.expect("stored");
    }

    async fn put_app(&self, id: u8, text: &str) {
        let registrar = &self.registrar;
        let by = By { actor: Actor::Local, at: registrar.clock().now() };
        let document = Document {
            id: CaId::from_bytes([id; 16]),
            account: registrar.account(),
            zone: None,
            kind: DocumentKind::AccessApp,
            text: text.to_owned(),
            revision: 0,
            created_at: by.at,
            changed_at: by.at,
        };
        let set = SetDocument { document, instead_of: None, by };
        registrar.ledger().transact(set).await.expect("stored");
    }

    /// Issues a certificate and revokes it.
    async fn revoke_one(&self) {
        let registrar = &self.registrar;
        let csr_der = decode_request(include_bytes!("../cli/testdata/meter-1.csr.pem")).expect("a request");
        let order = Order {
            csr: Csr::parse(&csr_der).expect("a request"),
            csr_der,
            identified: Identified::operator("meter-1".parse().expect("an id"), Actor::Local),
            profile: registrar.profile(registrar.default_profile()).expect("read").expect("there"),
            key: KeySource::Device,
            source: None,
            client: None,
        };
        let Ok(Outcome::Issued(issued)) = registrar.issue(order).await else { panic!("not issued") };
        let certificate: CertificateId = issued.certificate.id;
        let by = By { actor: Actor::Local, at: registrar.clock().now() };
        let (account, reason) = (registrar.account(), RevocationReason::KeyCompromise);
        registrar
            .ledger()
            .transact(RevokeCertificate { account, certificate, reason, by })
            .await
            .expect("revoked");
    }
}

#[tokio::test]
async fn files_that_turn_bad_leave_the_certificate_before_and_are_read_once_per_change() {
    let rig = Rig::new().await;
    let made = rig.certificates.of(&rig.host()).expect("made");
    assert!(!rig.is_due());
    rig.write("api.example.com.key", b"no key yet");
    assert!(!rig.is_due(), "a key alone decides nothing");
    rig.write("api.example.com.crt", b"no certificate");
    for text in [&b"still none"[..], b"nor now"] {
        assert!(rig.is_due());
        assert_eq!(rig.certificates.of(&rig.host()), Some(made.clone()));
        assert!(!rig.is_due(), "nothing changed since");
        rig.write("api.example.com.crt", text);
    }
    rig.put_files();
    assert!(rig.is_due());
    assert_eq!(rig.certificates.of(&rig.host()), Some(made));
    assert!(!rig.is_due());
    std::fs::remove_file(rig.path("api.example.com.crt")).expect("removed");
    assert!(rig.is_due(), "the one made here is back");
}

#[tokio::test]
async fn a_hostname_that_never_had_a_certificate_is_looked_at_when_something_changes() {
    let rig = Rig::new().await;
    rig.write("api.example.com.crt", b"no certificate");
    assert_eq!(rig.certificates.of(&rig.host()), None);
    assert!(!rig.is_due());
    std::fs::remove_file(rig.path("api.example.com.crt")).expect("removed");
    assert!(rig.is_due());
    assert!(rig.certificates.of(&rig.host()).is_some());
}

#[tokio::test]
async fn a_services_ca_that_cant_make_one_is_asked_again_after_a_while() {
    let rig = Rig::new().await;
    // Nothing can be written where a folder is.
    std::fs::create_dir(rig.path("api.example.com.pem")).expect("made");
    assert_eq!(rig.certificates.of(&rig.host()), None);
    assert!(!rig.is_due());
    rig.turn_to(RETRY_AFTER.as_secs() + 1);
    assert!(rig.is_due());
    std::fs::remove_dir(rig.path("api.example.com.pem")).expect("removed");
    assert!(rig.certificates.of(&rig.host()).is_some());
    assert!(!rig.is_due());
}

#[tokio::test]
async fn origins_are_shown_the_last_good_certificate_until_its_files_are_gone() {
    let rig = Rig::new().await;
    rig.certificates.of(&rig.host()).expect("made");
    let made = std::fs::read(rig.path("api.example.com.pem")).expect("made");
    let [chain, key] = ["outbound.crt", "outbound.key"].map(|name| rig.path("..").join(name));
    assert_eq!(rig.certificates.outbound(), None);
    assert!(!rig.certificates.outbound_is_due());
    for file in [&chain, &key] {
        std::fs::write(file, &made).expect("written");
    }
    assert!(rig.certificates.outbound_is_due());
    let good = rig.certificates.outbound().expect("good");
    assert!(!rig.certificates.outbound_is_due());
    std::fs::write(&chain, b"no certificate").expect("written");
    assert!(rig.certificates.outbound_is_due());
    assert_eq!(rig.certificates.outbound(), Some(good));
    assert!(!rig.certificates.outbound_is_due(), "nothing changed since");
    std::fs::remove_file(&chain).expect("removed");
    assert!(rig.certificates.outbound_is_due());
    assert_eq!(rig.certificates.outbound(), None);
}

/// Taken away, it would be that of the wildcard of a zone around it.
#[tokio::test]
async fn a_hostname_of_a_paused_zone_is_there_without_a_certificate() {
    let rig = Rig::new().await;
    rig.put_host().await;
    let feed = rig.feed();
    let mut at = feed.snapshot().expect("read").change;
    for paused in [true, false] {
        rig.pause(paused).await;
        let snapshot = feed.snapshot().expect("read");
        let [host] = &snapshot.hosts[..] else { panic!("one hostname") };
        assert_eq!((&host.rule.host, host.certificate.is_none()), (&rig.host(), paused));
        let Ok(Update::Delta(delta)) = feed.since(at) else { panic!("a delta") };
        let [Event::Host(told)] = &delta.events[..] else { panic!("{:?}", delta.events) };
        assert_eq!(**told, *host);
        at = delta.change;
        assert!(feed.due_certificates(at).expect("read").is_none());
    }
}

#[tokio::test]
async fn a_document_that_cant_be_read_holds_nothing_else_up_and_opens_nothing() {
    let rig = Rig::new().await;
    let feed = rig.feed();
    let at = feed.snapshot().expect("read").change;
    rig.put_app(1, r#"{"domain":"api.example.com","type":"self_hosted"}"#).await;
    rig.put_app(2, r#"{"domain":"api.example.com/x","type":"self_hosted"}"#).await;
    let Ok(Update::Delta(delta)) = feed.since(at) else { panic!("a delta") };
    let [Event::Account(entry)] = &delta.events[..] else { panic!("told once: {:?}", delta.events) };
    let good = entry.gate.clone();
    assert_eq!((good.apps.len(), good.is_shut), (2, false));
    rig.put_app(3, "spoiled").await;
    rig.revoke_one().await;
    let Ok(Update::Delta(delta)) = feed.since(delta.change) else { panic!("a delta") };
    assert!(delta.events.iter().any(|event| matches!(event, Event::Revoked(_))), "{:?}", delta.events);
    let gates = delta.events.iter().filter_map(|event| match event {
        Event::Account(entry) => Some(&entry.gate),
        _ => None,
    });
    assert_eq!(gates.collect::<Vec<_>>(), [&good]);
    // One that starts now does not know the gate before.
    let snapshot = rig.feed().snapshot().expect("read");
    assert!(snapshot.accounts[0].gate.is_shut);
    assert_eq!(snapshot.revoked.len(), 1);
}

/// A snapshot of a large fleet takes the edge seconds, and whoever is revoked meanwhile is served as long.
#[tokio::test]
async fn an_import_is_told_by_the_devices_that_concern_an_edge() {
    let rig = Rig::new().await;
    let feed = rig.feed();
    let at = feed.snapshot().expect("read").change;
    let account = rig.registrar.account();
    let import = |id: &str, groups: &[&str]| DeviceImport {
        id: id.parse().expect("an id"),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        labels: BTreeMap::new(),
        manufacturer_serial: None,
        note: None,
    };
    let take = async |devices: Vec<DeviceImport>| {
        let by = By { actor: Actor::Local, at: rig.registrar.clock().now() };
        let import = ImportDevices { account, devices, on_existing: OnExisting::Refuse, by };
        rig.registrar.ledger().transact(import).await.expect("imported");
    };
    take(vec![import("plain", &[]), import("grouped", &["north"])]).await;
    let Ok(Update::Delta(delta)) = feed.since(at) else { panic!("a delta") };
    let [Event::Device(told)] = &delta.events[..] else { panic!("{:?}", delta.events) };
    assert_eq!(told.device.as_str(), "grouped");
    assert_eq!(feed.snapshot().expect("read").devices, core::slice::from_ref(told));

    // As many as are named at once, and then more than are told one by one.
    let part = |name: &str, of: usize| -> Vec<_> {
        (0..of).map(|number| import(&format!("{name}-{number}"), &["north"])).collect()
    };
    for name in 0..20 {
        take(part(&name.to_string(), 1_000)).await;
    }
    let Ok(Update::Delta(all)) = feed.since(delta.change) else { panic!("a delta") };
    assert_eq!(all.events.len(), 20_000);
    assert!(matches!(feed.since(at), Ok(Update::Snapshot(_))), "one more than that");
    take(part("many", 1_001)).await;
    assert!(matches!(feed.since(all.change), Ok(Update::Snapshot(_))), "too many to name");
}

#[tokio::test]
async fn what_is_revoked_by_name_is_told_at_once_and_in_snapshots() {
    let rig = Rig::new().await;
    let feed = rig.feed();
    let (registrar, mut at) = (&rig.registrar, feed.snapshot().expect("read").change);
    let ca = registrar.authority().trust().issuing.as_ref().expect("a CA").id;
    let (account, reason) = (registrar.account(), RevocationReason::Unspecified);
    let by = By { actor: Actor::Local, at: registrar.clock().now() };
    let serial = ForeignName::Serial(Serial::from_bytes(&[7]).expect("a serial"));
    let print = ForeignName::Fingerprint(Fingerprint::from_bytes([7; 32]));
    for name in [serial, print] {
        let revoke = RevokeNamed { account, ca, name, reason, by: by.clone() };
        registrar.ledger().transact(revoke).await.expect("revoked");
    }
    let mut told = || {
        let Ok(Update::Delta(delta)) = feed.since(at) else { panic!("a delta") };
        at = delta.change;
        delta.events
    };
    assert!(
        matches!(told()[..], [Event::Revoked(key), Event::PrintRevoked(print)] if key.ca == ca && print.ca == ca)
    );
    let snapshot = feed.snapshot().expect("read");
    assert_eq!((snapshot.revoked.len(), snapshot.elsewhere.prints.len()), (1, 1));
    for name in [serial, print] {
        registrar
            .ledger()
            .transact(ReinstateNamed { account, ca, name, by: by.clone() })
            .await
            .expect("good");
    }
    assert!(matches!(told()[..], [Event::Reactivated(_), Event::PrintReactivated(_)]));
    let snapshot = feed.snapshot().expect("read");
    assert_eq!((snapshot.revoked.len(), snapshot.elsewhere.prints.len()), (0, 0));
}

/// With a day for clocks that are behind.
#[tokio::test]
async fn an_edge_is_not_told_of_revoked_certificates_that_ended() {
    let rig = Rig::new().await;
    rig.revoke_one().await;
    let Rig { temp: _held, registrar, certificates, ahead } = rig;
    let feed = Feed::new(&registrar, certificates);
    let revoked = |seconds| {
        ahead.store(seconds, Ordering::Relaxed);
        feed.snapshot().expect("read").revoked.len()
    };
    let told = [0, LIFETIME - DAY, LIFETIME + DAY / 2, LIFETIME + 2 * DAY].map(revoked);
    assert_eq!(told, [1, 1, 1, 0]);
}
