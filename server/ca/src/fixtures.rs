//! What the tests of this crate share: a small account CA, made once, and a device's request.

use std::sync::{Arc, LazyLock};

use core::time::Duration;

use muster_policy::enrol::{Caller, DeviceStatus, Grant, Setting, Wish, enrol};
use muster_policy::identity::Serial;
use muster_policy::key::{KeyKind, WishedKey};
use muster_policy::profile::{Profile, ProfileWritten};
use muster_policy::time::UnixTime;

use crate::authority::{AuthoritySettings, Purpose, ROOT_PATH_LENGTH, new_issuing, new_root};
use crate::csr::Csr;
use crate::file_key::{CaAlgorithm, FileKey};
use crate::issuer::Issuer;
use crate::keygen::GeneratedKey;

/// 2027-01-15T08:00:00Z.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

static ROOT: LazyLock<Issuer> = LazyLock::new(|| root("Root", CaAlgorithm::EcdsaP256));
static DEVICES: LazyLock<Issuer> = LazyLock::new(|| issuing(&ROOT, Purpose::Devices));

pub(crate) fn serial(number: u64) -> Serial {
    let mut octets = [0; Serial::RANDOM_BYTES];
    octets[8..].copy_from_slice(&number.to_be_bytes());
    Serial::new(NOW, octets)
}

pub(crate) fn settings(title: &str, years: u32) -> AuthoritySettings {
    AuthoritySettings {
        title: title.parse().expect("a title"),
        organisation: Some("Example".parse().expect("a title")),
        not_before: NOW.minus(Duration::from_secs(3600)),
        not_after: NOW.plus(YEAR * years),
    }
}

pub(crate) fn key(algorithm: CaAlgorithm) -> Arc<FileKey> {
    Arc::new(FileKey::generate(algorithm).expect("a key"))
}

pub(crate) fn root(title: &str, algorithm: CaAlgorithm) -> Issuer {
    new_root(&settings(title, 20), ROOT_PATH_LENGTH, key(algorithm), serial(1)).expect("a root")
}

pub(crate) fn issuing(root: &Issuer, purpose: Purpose) -> Issuer {
    let key = key(CaAlgorithm::EcdsaP256);
    new_issuing(root, &settings("Issuing", 5), purpose, &[], key, serial(2)).expect("an issuing CA")
}

pub(crate) fn account_root() -> &'static Issuer {
    &ROOT
}

pub(crate) fn devices() -> &'static Issuer {
    &DEVICES
}

pub(crate) fn device_key() -> GeneratedKey {
    GeneratedKey::generate(&WishedKey::Curve(KeyKind::EcdsaP256)).expect("a key")
}

/// A request by rcgen: another encoder than the reader under test.
pub(crate) fn csr_der(name: &str) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().expect("a key");
    params.serialize_request(&key).expect("a request").der().to_vec()
}

pub(crate) fn csr() -> Csr {
    Csr::parse(&csr_der("meter-1")).expect("a good request")
}

pub(crate) fn profile(written: &ProfileWritten) -> Profile {
    written.check("default".parse().expect("a label")).expect("a valid profile")
}

pub(crate) fn grant(wish: &Wish, written: &ProfileWritten) -> Grant {
    let setting = Setting {
        trust_domain: &"example.com".parse().expect("a trust domain"),
        device_status: DeviceStatus::Active,
        issuer_not_after: devices().certificate().not_after(),
        now: NOW,
        spread: 7,
    };
    let caller = Caller::Operator { device: "meter-1".parse().expect("a device") };
    enrol(wish, &caller, &profile(written), setting).expect("is granted")
}
