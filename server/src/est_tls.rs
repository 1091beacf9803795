//! The TLS certificate of the EST listener: from files, or made by the services CA.
//!
//! The one made here is kept in the data directory and made anew when a third of its life is left,
//! when its names no longer fit (a zone was added), or when the services CA was replaced. Files are
//! read again when they change. Either way the listener takes the new one without a restart; when
//! the new one is bad it keeps the old one and says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use muster_enroll::{Authority, Clock, TlsSource, server_config};
use muster_policy::enrol::San;
use muster_policy::name::Hostname;
use muster_policy::time::UnixTime;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::datadir::{DataDir, Readers, write_file};

/// Why there is no usable TLS certificate.
#[derive(Debug, thiserror::Error)]
pub enum EstTlsError {
    /// A name is no DNS name.
    #[error("est.names: `{0}` is not a DNS name")]
    Name(String),
    /// The services CA can't make one.
    #[error("the services CA can't make the EST certificate: {0}")]
    Authority(#[from] muster_enroll::AuthorityError),
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no certificate chain and key that fit.
    #[error("{path} is no certificate chain and key in PEM: {what}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// rustls refuses.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Keeps the TLS certificate of the EST listener current.
pub struct EstTls {
    dir: DataDir,
    authority: Arc<Authority>,
    clock: Clock,
    files: Option<(std::path::PathBuf, std::path::PathBuf)>,
    names: Vec<Hostname>,
    provider: Arc<CryptoProvider>,
    source: TlsSource,
    loaded: Mutex<Loaded>,
}

/// What the listener uses now, and when that has to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Loaded {
    Files { changed_at: [Option<SystemTime>; 2] },
    Made { names: Vec<Hostname>, renew_at: UnixTime, issuer: Vec<u8> },
}

impl EstTls {
    /// Loads or makes the certificate.
    ///
    /// `names` are those of the configuration; `zones` add `est.ZONE` each.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn start(
        dir: DataDir,
        authority: Arc<Authority>,
        clock: Clock,
        files: Option<(std::path::PathBuf, std::path::PathBuf)>,
        names: &[String],
        zones: &[Hostname],
    ) -> Result<Self, EstTlsError> {
        let names: Result<Vec<Hostname>, EstTlsError> =
            names.iter().map(|name| name.parse().map_err(|_| EstTlsError::Name(name.clone()))).collect();
        let names = names?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (key, loaded) = match &files {
            Some((chain, key)) => load_files(chain, key)?,
            None => made(&dir, &authority, &clock, all_names(&names, zones))?,
        };
        let source = TlsSource::new(server_config(Arc::clone(&provider), Arc::new(key))?);
        Ok(Self { dir, authority, clock, files, names, provider, source, loaded: Mutex::new(loaded) })
    }

    /// What the listener takes its configuration from.
    pub const fn source(&self) -> &TlsSource {
        &self.source
    }

    /// Looks whether the certificate has to change, and changes it.
    ///
    /// # Errors
    /// When the new one is bad; the old one stays in use.
    pub fn refresh(&self, zones: &[Hostname]) -> Result<(), EstTlsError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_current(&loaded, zones) {
            return Ok(());
        }
        let (key, now_loaded) = match &self.files {
            Some((chain, key)) => load_files(chain, key)?,
            None => made(&self.dir, &self.authority, &self.clock, all_names(&self.names, zones))?,
        };
        self.source.replace(server_config(Arc::clone(&self.provider), Arc::new(key))?);
        *loaded = now_loaded;
        tracing::info!("the EST listener uses a new TLS certificate");
        Ok(())
    }

    fn is_current(&self, loaded: &Loaded, zones: &[Hostname]) -> bool {
        match (loaded, &self.files) {
            (Loaded::Files { changed_at }, Some((chain, key))) => *changed_at == changes(chain, key),
            (Loaded::Made { names, renew_at, issuer }, None) => {
                *names == all_names(&self.names, zones)
                    && self.clock.now() < *renew_at
                    && services_certificate(&self.authority).is_some_and(|current| current == *issuer)
            }
            _ => false,
        }
    }
}

fn services_certificate(authority: &Authority) -> Option<Vec<u8>> {
    authority.trust().services.as_ref().map(|ca| ca.issuer.certificate().der().to_vec())
}

/// localhost, this host's name, `est.ZONE` of each zone, and what the configuration adds.
fn all_names(names: &[Hostname], zones: &[Hostname]) -> Vec<Hostname> {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_str().ok().and_then(|name| name.parse::<Hostname>().ok());
    let fixed = "localhost".parse::<Hostname>().ok();
    let est = zones.iter().filter_map(|zone| format!("est.{zone}").parse().ok());
    let mut all: Vec<Hostname> = Vec::new();
    for name in fixed.into_iter().chain(host).chain(est).chain(names.iter().cloned()) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

fn changes(chain: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [chain, key].map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}

fn load_files(chain: &Path, key: &Path) -> Result<(CertifiedKey, Loaded), EstTlsError> {
    let changed_at = changes(chain, key);
    let key = certified_key(&read(chain)?, &read(key)?, chain)?;
    Ok((key, Loaded::Files { changed_at }))
}

/// The certificate made here: the one of the data directory while it is good, else a new one.
fn made(
    dir: &DataDir,
    authority: &Authority,
    clock: &Clock,
    names: Vec<Hostname>,
) -> Result<(CertifiedKey, Loaded), EstTlsError> {
    let issuer = services_certificate(authority).unwrap_or_default();
    if let Some((key, renew_at)) = kept(dir, clock, &names, &issuer) {
        return Ok((key, Loaded::Made { names, renew_at, issuer }));
    }
    let addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let made = authority.server_certificate(names.clone(), addresses)?;
    let mut text = String::new();
    for der in &made.chain {
        text.push_str(&pem::encode(&pem::Pem::new("CERTIFICATE", der.as_slice())));
    }
    text.push_str(&pem::encode(&pem::Pem::new("PRIVATE KEY", made.key.as_slice())));
    let path = dir.est_tls();
    write_file(&path, text.as_bytes(), Readers::Owner)
        .map_err(|source| EstTlsError::File { path: path.display().to_string(), source })?;
    let renew_at = made.renew_at;
    let key = certified_key(text.as_bytes(), text.as_bytes(), &path)?;
    Ok((key, Loaded::Made { names, renew_at, issuer }))
}

/// The kept certificate, if it still fits.
fn kept(dir: &DataDir, clock: &Clock, names: &[Hostname], issuer: &[u8]) -> Option<(CertifiedKey, UnixTime)> {
    let path = dir.est_tls();
    let text = std::fs::read(&path).ok()?;
    let key = certified_key(&text, &text, &path).ok()?;
    let [leaf, signed_by, ..] = key.cert.as_slice() else { return None };
    let facts = muster_ca::certificate::LeafFacts::parse(leaf).ok()?;
    let dns = |san: &San| if let San::Dns(name) = san { Some(name.clone()) } else { None };
    let mut found: Vec<String> = facts.sans.iter().filter_map(dns).collect();
    let mut wanted: Vec<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    let renew_at = renew_at(facts.not_before, facts.not_after);
    (found == wanted && signed_by.as_ref() == issuer && clock.now() < renew_at).then_some((key, renew_at))
}

/// When two thirds of the life are over.
fn renew_at(not_before: UnixTime, not_after: UnixTime) -> UnixTime {
    not_before.plus(not_after.since(not_before) / 3 * 2)
}

fn read(path: &Path) -> Result<Vec<u8>, EstTlsError> {
    std::fs::read(path).map_err(|source| EstTlsError::File { path: path.display().to_string(), source })
}

fn certified_key(chain: &[u8], key: &[u8], path: &Path) -> Result<CertifiedKey, EstTlsError> {
    let content = |what: String| EstTlsError::Content { path: path.display().to_string(), what };
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| content(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| content(error.to_string()))?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|error| content(error.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|error| content(error.to_string()))?;
    Ok(certified)
}
