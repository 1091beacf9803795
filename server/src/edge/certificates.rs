//! The server certificate of each hostname: made by the services CA, or taken from files. And the client
//! certificate that origins are shown.
//!
//! `DIR/tls/hosts/NAME.pem` holds what is made here. An operator's own certificate is put beside it as
//! `NAME.crt` and `NAME.key`, and goes before; of a wildcard, `NAME` begins with `_.` instead of `*.`.
//! What origins are shown is `DIR/tls/outbound.crt` and `outbound.key`, or what was uploaded for their
//! hostname or zone, always an operator's: by a CA of ours a device could pose as the edge.
//! Files are read again when they change. While they can't be used, the certificate before stays. That a hostname's own
//! one ends is said in the log.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_edge::{SecretKey, TlsIdentity};
use muster_enroll::{Authority, Clock};
use muster_policy::host::HostPattern;
use muster_policy::identity::CaId;
use muster_policy::time::UnixTime;
use muster_store::record::OutboundLeaf;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_bytes::ByteBuf;

use crate::datadir::DataDir;
use crate::server_tls::{Made, OwnEnd, Served, ServerTlsError, certified_key, chain_and_key};

/// How long the services CA is left alone after it could not make one: its disk may be full.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Looks after the certificates of all hostnames.
pub(super) struct Certificates {
    folder: PathBuf,
    outbound_files: [PathBuf; 2],
    authority: Arc<Authority>,
    clock: Clock,
    used: Mutex<HashMap<HostPattern, Used>>,
    outbound: Mutex<Outbound>,
    /// Held while one is made: all that are made of one folder share it.
    making: Arc<Mutex<()>>,
    /// Uploaded leaves that origins are shown; opening an encrypted key takes long on purpose.
    leaves: Mutex<HashMap<CaId, TlsIdentity>>,
}

/// What origins were last shown, and the files that it was looked for in.
#[derive(Default)]
struct Outbound {
    identity: Option<TlsIdentity>,
    stamps: [Option<Stamp>; 2],
}

/// What a hostname was last given.
struct Used {
    /// The last one that was good; none when there was none.
    identity: Option<TlsIdentity>,
    due: Due,
    /// Of one from files.
    end: Option<OwnEnd>,
}

/// When a hostname has to be looked at again, whether what was found there was good or not.
enum Due {
    /// When its files are no longer these.
    Changed([Option<Stamp>; 2]),
    /// Outside of its time, when something else is above it, or when there are files.
    Outside { served: Served, above: Vec<Vec<u8>> },
}

/// What tells a file from the one that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    /// Of content or rights, in seconds and nanoseconds.
    changed_at: (i64, i64),
}

impl Certificates {
    /// Makes the folder.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn new(dir: &DataDir, authority: Arc<Authority>, clock: Clock) -> std::io::Result<Self> {
        let folder = dir.host_tls();
        // A directory made by an older version has no such folder.
        std::fs::create_dir_all(&folder)?;
        let outbound_files = dir.outbound_tls();
        let (used, outbound, making) = (Mutex::default(), Mutex::default(), Arc::default());
        Ok(Self {
            folder,
            outbound_files,
            authority,
            clock,
            used,
            outbound,
            making,
            leaves: Mutex::default(),
        })
    }

    /// The same folder for another edge, that was given nothing yet.
    pub(super) fn another(&self) -> Self {
        Self {
            folder: self.folder.clone(),
            outbound_files: self.outbound_files.clone(),
            authority: Arc::clone(&self.authority),
            clock: self.clock.clone(),
            used: Mutex::default(),
            outbound: Mutex::default(),
            making: Arc::clone(&self.making),
            leaves: Mutex::default(),
        }
    }

    /// The certificate of a hostname as it should be now, or the one before while that can't be had.
    ///
    /// None when there never was one. What is wrong is in the log.
    pub(super) fn of(&self, host: &HostPattern) -> Option<TlsIdentity> {
        let (due, found) = self.find(host);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, end_before) = used.remove(host).map_or((None, None), |used| (used.identity, used.end));
        let mut end = match (&due, &found) {
            (Due::Changed(_), Ok(own)) => own.chain.first().and_then(|leaf| OwnEnd::of(leaf, end_before)),
            (Due::Changed(_), Err(_)) => end_before,
            (Due::Outside { .. }, _) => None,
        };
        tell_end(&mut end, host, self.clock.now());
        let identity = found
            .inspect_err(|error| {
                let served = if before.is_some() { "with the one before" } else { "not at all" };
                tracing::error!(%host, %error, served, "a hostname's server certificate can't be used");
            })
            .ok()
            .or(before);
        used.insert(host.clone(), Used { identity: identity.clone(), due, end });
        identity
    }

    fn find(&self, host: &HostPattern) -> (Due, Result<TlsIdentity, ServerTlsError>) {
        let [chain, key] = self.files(host);
        if chain.exists() {
            // Before they are read: what is written meanwhile is another change.
            let due = Due::Changed(stamps(&chain, &key));
            return (due, of_files(&chain, &key));
        }
        let path = self.folder.join(format!("{}.pem", file_stem(host)));
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        match Made::kept_or_new(&path, &self.authority, &self.clock, std::slice::from_ref(host), &[]) {
            Ok(made) => {
                let found = identity(&made.chain, &made.key, &path);
                (Due::Outside { served: made.served, above: made.above }, found)
            }
            Err(error) => {
                let above = self.authority.trust().above_servers();
                let now = self.clock.now();
                let served = Served::nothing_until(now, now.plus(RETRY_AFTER));
                (Due::Outside { served, above }, Err(error))
            }
        }
    }

    /// What origins are shown now, or the one before while its files can't be used. None without files.
    pub(super) fn outbound(&self) -> Option<TlsIdentity> {
        let [chain, key] = &self.outbound_files;
        let mut outbound = self.outbound.lock().unwrap_or_else(PoisonError::into_inner);
        outbound.stamps = stamps(chain, key);
        match outbound.stamps {
            [None, _] => outbound.identity = None,
            [Some(_), _] => match of_files(chain, key) {
                Ok(identity) => outbound.identity = Some(identity),
                Err(error) => tracing::error!(%error, "the certificate for origins can't be used"),
            },
        }
        outbound.identity.clone()
    }

    /// Whether what origins are shown has to be looked at again.
    pub(super) fn outbound_is_due(&self) -> bool {
        let [chain, key] = &self.outbound_files;
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner).stamps != stamps(chain, key)
    }

    /// An uploaded leaf with its key. While they can't be read it is an empty one, which the edge shows nobody:
    /// no other may stand in for it.
    pub(super) fn of_leaf(&self, leaf: &OutboundLeaf) -> TlsIdentity {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = leaves.get(&leaf.id) {
            return known.clone();
        }
        match self.read_leaf(leaf) {
            Ok(identity) => leaves.entry(leaf.id).or_insert(identity).clone(),
            Err(error) => {
                tracing::error!(leaf = %leaf.id, error, "an uploaded certificate for origins can't be used");
                TlsIdentity { chain: Vec::new(), key: SecretKey::new(Vec::new()) }
            }
        }
    }

    fn read_leaf(&self, leaf: &OutboundLeaf) -> Result<TlsIdentity, String> {
        let file = leaf.key_file.as_deref().ok_or("it was uploaded without its key")?;
        let key = self.authority.outbound_key(file).map_err(|error| error.to_string())?;
        let chain = CertificateDer::pem_slice_iter(leaf.pem.as_bytes())
            .map(|der| der.map(|der| ByteBuf::from(der.as_ref())))
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        Ok(TlsIdentity { chain, key: SecretKey::new(key.to_vec()) })
    }

    /// Forgets a leaf that was removed.
    pub(super) fn forget_leaf(&self, leaf: CaId) {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner).remove(&leaf);
    }

    /// Forgets a hostname that is not served any more.
    pub(super) fn forget(&self, host: &HostPattern) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }

    /// The hostnames whose certificate has to change. Of the others it is told when they end.
    pub(super) fn due(&self) -> Vec<HostPattern> {
        let above = self.authority.trust().above_servers();
        let now = self.clock.now();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.iter_mut().for_each(|(host, used)| tell_end(&mut used.end, host, now));
        let is_due = |host: &HostPattern, used: &Used| {
            let [chain, key] = self.files(host);
            match &used.due {
                Due::Changed(before) => *before != stamps(&chain, &key),
                Due::Outside { served, above: by } => !served.has(now) || *by != above || chain.exists(),
            }
        };
        used.iter().filter(|(host, used)| is_due(host, used)).map(|(host, _)| host.clone()).collect()
    }

    fn files(&self, host: &HostPattern) -> [PathBuf; 2] {
        let stem = file_stem(host);
        [self.folder.join(format!("{stem}.crt")), self.folder.join(format!("{stem}.key"))]
    }
}

fn tell_end(end: &mut Option<OwnEnd>, host: &HostPattern, now: UnixTime) {
    end.as_mut().and_then(|end| end.tell(now, host));
}

fn file_stem(host: &HostPattern) -> String {
    host.to_string().replacen('*', "_", 1)
}

fn identity(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    path: &Path,
) -> Result<TlsIdentity, ServerTlsError> {
    let PrivateKeyDer::Pkcs8(key) = key else {
        let what = "the key must be PKCS#8 (`openssl pkcs8 -topk8 -nocrypt`)".to_owned();
        return Err(ServerTlsError::Content { path: path.display().to_string(), what });
    };
    Ok(TlsIdentity {
        chain: chain.iter().map(|der| ByteBuf::from(der.as_ref())).collect(),
        key: SecretKey::new(key.secret_pkcs8_der().to_vec()),
    })
}

fn of_files(chain: &Path, key: &Path) -> Result<TlsIdentity, ServerTlsError> {
    let (certificates, private_key) = chain_and_key(&read(chain)?, &read(key)?, chain)?;
    certified_key(certificates.clone(), &private_key, chain)?;
    identity(&certificates, &private_key, key)
}

fn stamps(chain: &Path, key: &Path) -> [Option<Stamp>; 2] {
    [chain, key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        let changed_at = (metadata.ctime(), metadata.ctime_nsec());
        Some(Stamp { inode: metadata.ino(), bytes: metadata.len(), changed_at })
    })
}

fn read(path: &Path) -> Result<Vec<u8>, ServerTlsError> {
    std::fs::read(path).map_err(|error| ServerTlsError::File { path: path.display().to_string(), error })
}
