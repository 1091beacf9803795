//! What becomes of an order whose client hangs up.

use core::future::Future as _;
use core::pin::pin;
use core::task::{Context, Waker};
use std::time::SystemTime;

use muster_ca::file_key::CaAlgorithm;
use muster_policy::profile::ProfileWritten;
use muster_store::Options;
use muster_store::act::{CreateAccount, SetProfile};
use muster_store::record::{Account, Actor};
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use super::*;
use crate::authority::{FoundingPlan, KeyFolder};

const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
/// When the tests begin: 2026-11-25.
const START: Duration = Duration::from_secs(1_795_600_000);
/// By openssl: P-256, of the device `meter-1`.
const CSR: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIHMMHQCAQAwEjEQMA4GA1UEAwwHbWV0ZXItMTBZMBMGByqGSM49AgEGCCqGSM49
AwEHA0IABF2TrKsWsN3tkT12PZmPFiX4ThCY/gOGe/EIR8GmlmCQsVNEDpaHnD4t
N212rhl/FknzweRrDNyWZ1n1KJcRKnmgADAKBggqhkjOPQQDAgNIADBFAiB6cLWW
nFJiJCvuCov5tcoqUTawPP3S+hiY7KLqxlTDIgIhAPBggFaU1unfPdlMoFDWk1t+
7XtYV23R1MJABMummkj/
-----END CERTIFICATE REQUEST-----
";

/// A registrar of a new account in a temporary folder.
async fn registrar() -> (Arc<Registrar>, TempDir) {
    let temp = tempfile::tempdir().expect("a folder");
    let clock = Clock::from_fn(|| SystemTime::UNIX_EPOCH + START);
    let ledger = Ledger::create(&temp.path().join("ledger"), Options::default()).expect("a ledger");
    let by = By::system(clock.now());
    let account = Account {
        id: ACCOUNT,
        name: "acme".parse().expect("a title"),
        trust_domain: "acme.example".parse().expect("a trust domain"),
        created_at: by.at,
    };
    ledger.transact(CreateAccount { account, by: by.clone() }).await.expect("an account");
    let written = ProfileWritten::default();
    let set = SetProfile { account: ACCOUNT, label: default_label(), written, by: by.clone() };
    ledger.transact(set).await.expect("a profile");
    std::fs::create_dir(temp.path().join("keys")).expect("a folder");
    let keys = KeyFolder::new(temp.path().join("keys"), None);
    let plan = FoundingPlan { algorithm: CaAlgorithm::EcdsaP256, permitted_dns: Vec::new() };
    Authority::found(&ledger, ACCOUNT, &keys, &clock, &plan, by).await.expect("CAs");
    let authority = Authority::open(ledger.clone(), ACCOUNT, keys, clock.clone(), None).expect("open");
    let settings = Settings {
        account: ACCOUNT,
        default_profile: default_label(),
        first_window: Duration::from_secs(86_400),
        renewal_window: Duration::from_secs(3_600),
        approval_retry: Duration::from_secs(60),
        approvals_max: 10,
        admission: AdmissionLimits::default(),
    };
    let metrics = Arc::new(Metrics::new(&mut Registry::default()));
    let registrar = Registrar::new(ledger, Arc::new(authority), clock, metrics, settings);
    (Arc::new(registrar), temp)
}

fn default_label() -> Label {
    "default".parse().expect("a label")
}

/// An order of `meter-1` whose key is to be made here.
fn order(registrar: &Registrar) -> Order {
    let csr_der = pem::parse(CSR).expect("PEM").into_contents();
    Order {
        csr: Csr::parse(&csr_der).expect("a request"),
        csr_der,
        identified: Identified::operator("meter-1".parse().expect("an id"), Actor::Local),
        profile: registrar.profile(&default_label()).expect("reads").expect("a profile"),
        key: KeySource::Server,
        source: None,
        client: None,
    }
}

fn issued(registrar: &Registrar) -> u64 {
    registrar.reader().expect("open").counters(ACCOUNT).expect("reads").certificates
}

#[tokio::test]
async fn who_hangs_up_ends_no_turn_to_make_a_key() {
    let (registrar, _temp) = registrar().await;
    let turns = || registrar.keygen.available_permits();
    {
        let mut asked = pin!(registrar.issue(order(&registrar)));
        while turns() == KEYGEN_SLOTS {
            assert!(asked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(turns(), KEYGEN_SLOTS - 1, "its key is still to be made");
    registrar.drain().await;
    assert_eq!((turns(), issued(&registrar)), (KEYGEN_SLOTS, 1), "what began has ended");
}

#[tokio::test]
async fn who_hangs_up_in_the_line_leaves_it() {
    let (registrar, _temp) = registrar().await;
    let turn = Arc::clone(&registrar.keygen).acquire_owned().await.expect("a turn");
    let asked = registrar.issue(order(&registrar));
    assert!(tokio::time::timeout(Duration::from_millis(100), asked).await.is_err(), "it waits");
    drop(turn);
    registrar.drain().await;
    assert_eq!((registrar.keygen.available_permits(), issued(&registrar)), (KEYGEN_SLOTS, 0));
}
