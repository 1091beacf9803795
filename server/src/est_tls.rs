//! The TLS certificate of the EST listener: from files, or made by the services CA.
//!
//! The one made here is kept in the data directory and made anew when a third of its life is left,
//! when its names no longer fit (a zone was added), or when the services CA or its root was replaced. Files are
//! read again when they change. Either way the listener takes the new one without a restart; when
//! the new one is bad it keeps the old one and says so. That one from files ends is said in the log, as nobody here can
//! renew it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use muster_ca::certificate::LeafFacts;
use muster_enroll::{Authority, Clock, TlsSource, server_config};
use muster_policy::host::HostPattern;
use muster_policy::name::Hostname;
use muster_policy::time::UnixTime;
use rustls::sign::CertifiedKey;

use crate::datadir::DataDir;
use crate::server_tls::{Made, OwnEnd, Served, ServerTlsError, certified_key, chain_and_key};

/// Keeps the TLS certificate of the EST listener current.
pub struct EstTls {
    dir: DataDir,
    authority: Arc<Authority>,
    clock: Clock,
    files: Option<(PathBuf, PathBuf)>,
    names: Vec<Hostname>,
    source: TlsSource,
    loaded: Mutex<Loaded>,
}

/// What the listener uses now, and when that has to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Loaded {
    Files { changed_at: [Option<SystemTime>; 2], end: Option<OwnEnd> },
    Made { names: Vec<Hostname>, served: Served, above: Vec<Vec<u8>> },
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
        files: Option<(PathBuf, PathBuf)>,
        names: &[Hostname],
        zones: &[Hostname],
    ) -> Result<Self, ServerTlsError> {
        let names = names.to_vec();
        let (key, mut loaded) = match &files {
            Some((chain, key)) => load_files(chain, key)?,
            None => made(&dir, &authority, &clock, all_names(&names, zones))?,
        };
        loaded.tell_end(clock.now());
        let source = TlsSource::new(server_config(key).map_err(ServerTlsError::Tls)?);
        Ok(Self { dir, authority, clock, files, names, source, loaded: Mutex::new(loaded) })
    }

    /// What the listener takes its configuration from.
    pub const fn source(&self) -> &TlsSource {
        &self.source
    }

    /// Looks whether the certificate has to change, and changes it; tells when it ends.
    ///
    /// # Errors
    /// When the new one is bad; the old one stays in use.
    pub fn refresh(&self, zones: &[Hostname]) -> Result<(), ServerTlsError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = self.renew(&mut loaded, zones);
        loaded.tell_end(self.clock.now());
        renewed
    }

    fn renew(&self, loaded: &mut Loaded, zones: &[Hostname]) -> Result<(), ServerTlsError> {
        if self.is_current(loaded, zones) {
            return Ok(());
        }
        let (key, now_loaded) = match &self.files {
            Some((chain, key)) => load_files(chain, key)?,
            None => made(&self.dir, &self.authority, &self.clock, all_names(&self.names, zones))?,
        };
        self.source.replace(server_config(key).map_err(ServerTlsError::Tls)?);
        *loaded = now_loaded;
        tracing::info!("the EST listener uses a new TLS certificate");
        Ok(())
    }

    fn is_current(&self, loaded: &Loaded, zones: &[Hostname]) -> bool {
        match (loaded, &self.files) {
            (Loaded::Files { changed_at, .. }, Some((chain, key))) => *changed_at == changes(chain, key),
            (Loaded::Made { names, served, above }, None) => {
                *names == all_names(&self.names, zones)
                    && served.has(self.clock.now())
                    && self.authority.trust().above_servers() == *above
            }
            _ => false,
        }
    }
}

impl Loaded {
    fn tell_end(&mut self, now: UnixTime) {
        if let Self::Files { end: Some(end), .. } = self {
            end.tell(now, &"est.tls_certificate");
        }
    }
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

fn load_files(chain: &Path, key: &Path) -> Result<(Arc<CertifiedKey>, Loaded), ServerTlsError> {
    let changed_at = changes(chain, key);
    let (certificates, private_key) = chain_and_key(&read(chain)?, &read(key)?, chain)?;
    let end = certificates.first().and_then(|leaf| OwnEnd::of(leaf, None));
    Ok((certified_key(certificates, &private_key, chain)?, Loaded::Files { changed_at, end }))
}

/// When the certificate of some files ends.
///
/// # Errors
/// When the listener could not use them.
pub(crate) fn end_of_files((chain, key): &(PathBuf, PathBuf)) -> Result<UnixTime, ServerTlsError> {
    let (certified, _) = load_files(chain, key)?;
    let content = |what: String| ServerTlsError::Content { path: chain.display().to_string(), what };
    let facts = LeafFacts::parse(certified.end_entity_cert().map_err(ServerTlsError::Tls)?)
        .map_err(|error| content(error.to_string()))?;
    Ok(facts.not_after)
}

/// The certificate made here: the one of the data directory while it is good, else a new one.
fn made(
    dir: &DataDir,
    authority: &Authority,
    clock: &Clock,
    names: Vec<Hostname>,
) -> Result<(Arc<CertifiedKey>, Loaded), ServerTlsError> {
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let patterns: Vec<HostPattern> = names.iter().cloned().map(HostPattern::from).collect();
    let path = dir.est_tls();
    let made = Made::kept_or_new(&path, authority, clock, &patterns, &addresses)?;
    let loaded = Loaded::Made { names, served: made.served, above: made.above.clone() };
    Ok((made.certified(&path)?, loaded))
}

fn read(path: &Path) -> Result<Vec<u8>, ServerTlsError> {
    std::fs::read(path).map_err(|error| ServerTlsError::File { path: path.display().to_string(), error })
}
