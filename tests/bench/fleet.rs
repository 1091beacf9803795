//! An account with devices that hold certificates, made in process before the server runs.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use muster::config::ConfigWritten;
use muster::datadir::DataDir;
use muster::init::{InitPlan, Initialised, init};
use muster_enroll::{CaAlgorithm, Clock, Csr, Identified, KeySource, Order, Outcome, Registrar};
use muster_policy::name::DeviceId;
use muster_store::record::{Actor, Certificate};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::task::JoinSet;

/// Issued at once; enough to fill commits.
const AT_ONCE: usize = 256;

/// A device with a P-256 key and its first certificate.
pub(crate) struct Device {
    /// Its name.
    pub(crate) name: String,
    /// Its key.
    pub(crate) key: KeyPair,
    /// Leaf and issuing CA, DER.
    pub(crate) chain: Vec<Vec<u8>>,
    /// The leaf as stored.
    pub(crate) certificate: Certificate,
}

impl Device {
    /// A fresh request for its own key; its signature, so its bytes, differ each time.
    pub(crate) fn request(&self) -> anyhow::Result<Vec<u8>> {
        request(&self.name, &self.key)
    }
}

fn request(name: &str, key: &KeyPair) -> anyhow::Result<Vec<u8>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Makes an account in `dir`.
pub(crate) async fn found(dir: &Path) -> anyhow::Result<Initialised> {
    let plan = InitPlan {
        dir: dir.to_owned(),
        account: "bench".parse()?,
        zones: vec!["example.com".parse()?],
        trust_domain: None,
        algorithm: CaAlgorithm::EcdsaP256,
        permitted_dns: Vec::new(),
        passphrase: None,
        config: ConfigWritten::default(),
    };
    init(plan, &Clock::system()).await
}

/// Opens the account of `dir`; no server may run.
pub(crate) fn open(dir: &Path) -> anyhow::Result<Arc<Registrar>> {
    let dir = DataDir::new(dir);
    let config = ConfigWritten::read(&dir.config())?.check(dir.path())?;
    muster::open::account(&dir, &config, &Clock::system()).map(|(registrar, _)| registrar)
}

/// Issues a certificate to each of `count` devices, as an operator would.
pub(crate) async fn devices(registrar: &Arc<Registrar>, count: usize) -> anyhow::Result<Vec<Device>> {
    let mut devices = Vec::with_capacity(count);
    let mut working = JoinSet::new();
    for number in 0..count {
        if working.len() == AT_ONCE {
            devices.push(working.join_next().await.context("work")???);
        }
        working.spawn(first_certificate(Arc::clone(registrar), format!("bench-{number:06}")));
    }
    while let Some(device) = working.join_next().await {
        devices.push(device??);
    }
    Ok(devices)
}

async fn first_certificate(registrar: Arc<Registrar>, name: String) -> anyhow::Result<Device> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let csr_der = request(&name, &key)?;
    let label = registrar.default_profile().clone();
    let profile = registrar.profile(&label).map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let id: DeviceId = name.parse()?;
    let order = Order {
        csr: Csr::parse(&csr_der).map_err(|refusal| anyhow::anyhow!("{refusal}"))?,
        csr_der,
        identified: Identified::operator(id, Actor::Local),
        profile: profile.context("no default profile")?,
        key: KeySource::Device,
        source: None,
        client: None,
    };
    let Ok(Outcome::Issued(issued)) = registrar.issue(order).await else {
        anyhow::bail!("{name} got no certificate");
    };
    let trust = registrar.authority().trust();
    let issuing = trust.issuing.as_ref().context("no issuing CA")?;
    let chain = vec![issued.certificate.der.to_vec(), issuing.issuer.certificate().der().to_vec()];
    Ok(Device { name, key, chain, certificate: issued.certificate })
}
