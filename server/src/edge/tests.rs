//! What the edge is told of an account, whose files and clock the test turns.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use muster_enroll::{Clock, Csr, Identified, KeySource, Order, Outcome, Registrar, decode_request};
use muster_policy::host::HostPattern;
use muster_policy::identity::CertificateId;
use muster_store::act::{By, RevokeCertificate};
use muster_store::record::{Actor, RevocationReason};
use prometheus_client::registry::Registry;

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
        let registrar = crate::serve::open(&dir, &config, &clock, &mut Registry::default()).expect("opened");
        let certificates =
            Certificates::new(&dir, Arc::clone(registrar.authority()), clock).expect("a folder");
        Self { temp, registrar, certificates, ahead }
    }

    /// Sets the clock so far from the true time.
    fn turn_to(&self, seconds: u64) {
        self.ahead.store(seconds, Ordering::Relaxed);
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
