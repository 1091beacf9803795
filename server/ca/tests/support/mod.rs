//! A CA and its device, made anew for each test.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::sync::Arc;

use muster_ca::authority::{AuthoritySettings, Purpose, ROOT_PATH_LENGTH, new_issuing, new_root};
use muster_ca::csr::Csr;
use muster_ca::file_key::{CaAlgorithm, FileKey};
use muster_ca::issuer::Issuer;
use muster_ca::leaf::Issued;
use muster_policy::enrol::{Caller, DeviceStatus, Grant, Setting, TokenTerms, enrol};
use muster_policy::identity::Serial;
use muster_policy::profile::ProfileWritten;
use muster_policy::time::UnixTime;
use rcgen::{CertificateParams, DnType, KeyPair};

pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_795_000_000);
const DAY_SECS: i64 = 86_400;

pub(crate) fn at(days: i64) -> UnixTime {
    UnixTime::from_secs(NOW.as_secs() + days * DAY_SECS)
}

pub(crate) fn serial(last: u8) -> Serial {
    let mut random = [0x11; 16];
    random[15] = last;
    Serial::new(NOW, random)
}

pub(crate) fn settings(title: &str, until_days: i64) -> AuthoritySettings {
    AuthoritySettings {
        title: title.parse().expect("a title"),
        organisation: None,
        not_before: at(-1),
        not_after: at(until_days),
    }
}

pub(crate) fn key(algorithm: CaAlgorithm) -> Arc<FileKey> {
    Arc::new(FileKey::generate(algorithm).expect("a key"))
}

pub(crate) struct House {
    pub(crate) root: Issuer,
    pub(crate) devices: Issuer,
    pub(crate) services: Issuer,
}

pub(crate) fn house(algorithm: CaAlgorithm) -> House {
    let root =
        new_root(&settings("root", 7300), ROOT_PATH_LENGTH, key(algorithm), serial(1)).expect("a root");
    let issuing = |title: &str, purpose, last| {
        new_issuing(&root, &settings(title, 1825), purpose, &[], key(algorithm), serial(last))
            .expect("an issuing CA")
    };
    let devices = issuing("devices", Purpose::Devices, 2);
    let services = issuing("services", Purpose::Services, 3);
    House { root, devices, services }
}

/// A request by a P-256 key for `name`, as rcgen writes it.
pub(crate) fn request(name: &str) -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().expect("a key");
    let der = request_with(&key, |params| params.distinguished_name.push(DnType::CommonName, name));
    (key, der)
}

pub(crate) fn request_with(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut params);
    params.serialize_request(key).expect("a request").der().to_vec()
}

pub(crate) fn grant(csr: &Csr, device: &str, issuer: &Issuer) -> Grant {
    let trust_domain = "example.test".parse().expect("valid");
    let profile = ProfileWritten { crl_url: Some(true), ..Default::default() };
    let profile = profile.check("default".parse().expect("valid")).expect("valid");
    let caller = Caller::Token { device: device.parse().expect("an id"), token: TokenTerms::default() };
    let setting = Setting {
        trust_domain: &trust_domain,
        device_status: DeviceStatus::Active,
        issuer_not_after: issuer.certificate().not_after(),
        now: NOW,
        spread: 0,
    };
    enrol(csr.wish(), &caller, &profile, setting).expect("granted")
}

pub(crate) fn issue(house: &House, device: &str) -> Issued {
    let (_, der) = request(device);
    let csr = Csr::parse(&der).expect("a request");
    let grant = grant(&csr, device, &house.devices);
    let url = Some("http://crl.example.test/crl/1.crl");
    let prepared = house.devices.prepare(&grant, csr.subject_key(), serial(9), url).expect("prepared");
    prepared.sign().expect("signed")
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(label, der))
}
