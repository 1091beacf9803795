//! What one issuance costs this crate: reading a request, preparing and signing a certificate; and
//! what a CRL of a million entries costs. Prints microseconds; `cargo run --release --example cost`.
#![expect(clippy::print_stdout, reason = "an example that prints")]

use core::time::Duration;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use muster_ca::authority::{AuthoritySettings, Purpose, ROOT_PATH_LENGTH, new_issuing, new_root};
use muster_ca::crl::{CrlSettings, Revoked};
use muster_ca::csr::Csr;
use muster_ca::file_key::{CaAlgorithm, FileKey};
use muster_ca::signer::Signer;
use muster_policy::enrol::{Caller, DeviceStatus, Setting, enrol};
use muster_policy::identity::Serial;
use muster_policy::profile::ProfileWritten;
use muster_policy::revocation::RevocationReason;
use muster_policy::time::UnixTime;

const ROUNDS: u32 = 5_000;
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

fn main() -> Result<(), Box<dyn Error>> {
    let settings = AuthoritySettings {
        title: "Example".parse()?,
        organisation: None,
        not_before: NOW,
        not_after: NOW.plus(Duration::from_secs(1_000_000_000)),
    };
    let key = || FileKey::generate(CaAlgorithm::EcdsaP256).map(Arc::new);
    let serial = Serial::new(UnixTime::EPOCH, [7; Serial::RANDOM_BYTES]);
    let root = new_root(&settings, ROOT_PATH_LENGTH, key()?, serial)?;
    let signer = key()?;
    let devices = new_issuing(&root, &settings, Purpose::Devices, &[], Arc::clone(&signer) as _, serial)?;

    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "meter-1");
    let der = params.serialize_request(&rcgen::KeyPair::generate()?)?.der().to_vec();
    let csr = Csr::parse(&der)?;
    let profile = ProfileWritten::default().check("default".parse()?)?;
    let setting = Setting {
        trust_domain: &"example.com".parse()?,
        device_status: DeviceStatus::Active,
        issuer_not_after: settings.not_after,
        now: NOW,
        spread: 0,
    };
    let grant = enrol(csr.wish(), &Caller::Operator { device: "meter-1".parse()? }, &profile, setting)?;

    report("one P-256 signature", || Ok(signer.sign(&der)?.len()))?;
    report("parse and verify a request", || Ok(Csr::parse(&der)?.wish().sans.len()))?;
    report("prepare and lint", || {
        Ok(devices.prepare(&grant, csr.subject_key(), serial, None)?.tbs_der().len())
    })?;
    report("prepare, lint and sign", || {
        Ok(devices.prepare(&grant, csr.subject_key(), serial, None)?.sign()?.der.len())
    })?;

    let start = Instant::now();
    let crl = CrlSettings { number: 1, this_update: NOW, next_update: settings.not_after };
    let revoked = Revoked { serial, revoked_at: NOW, reason: RevocationReason::KeyCompromise };
    let der = devices.sign_crl(&crl, core::iter::repeat_n(revoked, 1_000_000))?;
    println!("CRL of 1,000,000: {:?}, {} octets", start.elapsed(), der.len());
    Ok(())
}

fn report(what: &str, mut work: impl FnMut() -> Result<usize, Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(work()?);
    }
    println!("{what}: {:.1} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
    Ok(())
}
