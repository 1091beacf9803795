//! An account with its CAs, as `init` would make it, and one device.

use core::time::Duration;
use std::sync::Arc;

use muster_ca::authority::{AuthoritySettings, Purpose, ROOT_PATH_LENGTH, new_issuing, new_root};
use muster_ca::file_key::{CaAlgorithm, FileKey};
use muster_ca::issuer::Issuer;
use muster_ca::keygen::GeneratedKey;
use muster_ca::leaf::Issued;
use muster_policy::enrol::{Caller, DeviceStatus, Grant, Setting, Wish, enrol};
use muster_policy::identity::Serial;
use muster_policy::key::{KeyKind, WishedKey};
use muster_policy::profile::ProfileWritten;
use muster_policy::time::UnixTime;

/// 2027-01-15T08:00:00Z: the moment that everything is made at and checked at.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
pub(crate) const CRL_URL: &str = "http://crl.example.com/devices.crl";

pub(crate) struct Account {
    pub(crate) root: Issuer,
    pub(crate) devices: Issuer,
    pub(crate) services: Issuer,
}

pub(crate) fn serial(number: u8) -> Serial {
    Serial::new(UnixTime::EPOCH, [number; Serial::RANDOM_BYTES])
}

pub(crate) fn settings(title: &str, years: u32) -> AuthoritySettings {
    AuthoritySettings {
        title: title.parse().expect("a title"),
        organisation: Some("Example".parse().expect("a title")),
        not_before: NOW.minus(Duration::from_secs(3600)),
        not_after: NOW.plus(YEAR * years),
    }
}

pub(crate) fn root(title: &str, algorithm: CaAlgorithm) -> Issuer {
    let key = Arc::new(FileKey::generate(algorithm).expect("a key"));
    new_root(&settings(title, 20), ROOT_PATH_LENGTH, key, serial(1)).expect("a root")
}

pub(crate) fn issuing(root: &Issuer, purpose: Purpose, algorithm: CaAlgorithm) -> Issuer {
    let key = Arc::new(FileKey::generate(algorithm).expect("a key"));
    let domains = ["example.com".parse().expect("a name")];
    let title = format!("{purpose:?}");
    new_issuing(root, &settings(&title, 5), purpose, &domains, key, serial(2)).expect("an issuing CA")
}

impl Account {
    pub(crate) fn new(algorithm: CaAlgorithm) -> Self {
        let root = root("Account root", algorithm);
        let devices = issuing(&root, Purpose::Devices, algorithm);
        let services = issuing(&root, Purpose::Services, algorithm);
        Self { root, devices, services }
    }
}

pub(crate) fn grant(key: &GeneratedKey) -> Grant {
    let written = ProfileWritten {
        crl_url: Some(true),
        dns_suffix: Some("dev.example.com".into()),
        ..Default::default()
    };
    let profile = written.check("default".parse().expect("a label")).expect("a profile");
    let setting = Setting {
        trust_domain: &"example.com".parse().expect("a trust domain"),
        device_status: DeviceStatus::Active,
        issuer_not_after: UnixTime::MAX,
        now: NOW,
        spread: 0,
    };
    let device: muster_policy::name::DeviceId = "meter-1".parse().expect("a device");
    let wish = Wish {
        key: key.wished_key(),
        key_fingerprint: key.subject_key().fingerprint(),
        subject: vec![muster_policy::enrol::SubjectAttribute {
            oid: muster_policy::enrol::OID_COMMON_NAME.into(),
            text: device.as_str().into(),
        }],
        sans: Vec::new(),
        changes_subject: false,
    };
    enrol(&wish, &Caller::Operator { device }, &profile, setting).expect("is granted")
}

pub(crate) fn device_key() -> GeneratedKey {
    GeneratedKey::generate(&WishedKey::Curve(KeyKind::EcdsaP256)).expect("a key")
}

/// A device's certificate with the given serial.
pub(crate) fn leaf(devices: &Issuer, number: u8) -> Issued {
    let key = device_key();
    let prepared =
        devices.prepare(&grant(&key), key.subject_key(), serial(number), Some(CRL_URL)).expect("is good");
    prepared.sign().expect("signs")
}
