//! The shell where no server is needed: a device that holds a certificate, on a disk and before a clock of the test.

use std::path::Path;

use muster_proto::enrollment::Pace;
use muster_proto::x509::Moment;
use rcgen::{CertificateParams, DnType, KeyPair};
use zeroize::Zeroizing;

use super::*;
use crate::identity;
use crate::settings::{ServerUrl, TrustRoots};
use crate::store::{Content, KeptPair, Key};

/// Settings and a store with a certificate that is not due for a long time.
fn held(dir: &Path) -> (Settings, Arc<Store>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "meter-1");
    let leaf = params.self_signed(&key).expect("a certificate").der().clone();
    let at = UnixTime::from_secs(4_000_000_000);
    let pair = KeptPair {
        generation: 0,
        chain: leaf.to_vec(),
        anchor: Vec::new(),
        window: Window::new(at, at, at).expect("in order"),
        saved_at: UnixTime::default(),
    };
    let key = Key::new(Zeroizing::new(key.serialize_der()));
    let store = Store::open(dir).expect("opens");
    store.put(Slot::A, &Content { key, record: Some(Kept::Pair(pair)) }).expect("put");
    let settings = Settings {
        server: ServerUrl::parse("https://localhost:1", None).expect("a URL"),
        device: "meter-1".to_owned(),
        dir: dir.to_owned(),
        trust: TrustRoots::Certificates(vec![leaf]),
        credential: None,
        pace: Pace { spread: Duration::ZERO, ..Pace::default() },
    };
    (settings, Arc::new(store))
}

#[tokio::test]
async fn what_could_not_be_shown_is_shown_once_the_disk_takes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (settings, store) = held(folder.path());
    let in_the_way = folder.path().join("identities");
    std::fs::write(&in_the_way, "").expect("written");
    let mut ground = Ground::new(&settings);
    let (publisher, _) = identity::channel();
    let mut device = Device::start(&mut ground, store, Clock::start(), publisher).expect("starts");
    while !matches!(device.next().await, News::Trouble(_)) {}
    tokio::time::pause();
    // The service has other things to do meanwhile, and asks anew each time.
    let mut troubles = 0;
    for second in 0..400 {
        if second == 200 {
            std::fs::remove_file(&in_the_way).expect("removed");
        }
        let news = tokio::time::timeout(Duration::from_secs(1), device.next()).await;
        troubles += usize::from(matches!(news, Ok(News::Trouble(_))));
    }
    assert!(folder.path().join("current/cert.pem").exists());
    assert_eq!(troubles, 0, "it was told once");
    assert!(!device.is_unshown);
    device.finish().await;
}

#[tokio::test]
async fn the_system_s_time_counts_again_when_the_server_knows_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let (settings, store) = held(folder.path());
    let mut ground = Ground::new(&settings);
    let (publisher, _) = identity::channel();
    let mut device = Device::start(&mut ground, store, Clock::start(), publisher).expect("starts");
    device.renew_now();
    device.drain();
    device.ended(Ending::ServerUntimely, "expired".to_owned());
    assert!(matches!(device.machine.moment(), Moment::NotBefore(_)), "it is in doubt");
    device.tell(Event::Failed(Failure::Clock, device.clock.now()));
    assert!(matches!(device.machine.moment(), Moment::Known(_)));
    device.finish().await;
}
