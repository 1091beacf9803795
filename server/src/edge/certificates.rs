//! The server certificate of each hostname: made by the services CA, or taken from files.
//!
//! `DIR/tls/hosts/NAME.pem` holds what is made here. An operator's own certificate is put beside it as
//! `NAME.crt` and `NAME.key`, and goes before; of a wildcard, `NAME` begins with `_.` instead of `*.`.
//! Files are read again when they change.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use muster_edge::{SecretKey, TlsIdentity};
use muster_enroll::{Authority, Clock};
use muster_policy::host::HostPattern;
use muster_policy::time::UnixTime;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_bytes::ByteBuf;

use crate::datadir::DataDir;
use crate::server_tls::{Made, ServerTlsError, certified_key, chain_and_key, services_certificate};

/// Looks after the certificates of all hostnames.
pub(super) struct Certificates {
    folder: PathBuf,
    authority: Arc<Authority>,
    clock: Clock,
    used: Mutex<HashMap<HostPattern, Used>>,
}

/// What a hostname was last given, and when that has to be looked at again.
enum Used {
    Files { changed_at: [Option<SystemTime>; 2] },
    Made { renew_at: UnixTime, issuer: Vec<u8> },
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
        Ok(Self { folder, authority, clock, used: Mutex::default() })
    }

    /// The certificate of a hostname as it should be now.
    ///
    /// # Errors
    /// When files are bad, or the services CA can't make one.
    pub(super) fn of(&self, host: &HostPattern) -> Result<TlsIdentity, ServerTlsError> {
        let [chain, key] = self.files(host);
        let (identity, used) = if chain.exists() || key.exists() {
            let changed_at = changes(&chain, &key);
            let (certificates, private_key) = chain_and_key(&read(&chain)?, &read(&key)?, &chain)?;
            certified_key(certificates.clone(), &private_key, &chain)?;
            (identity(&certificates, &private_key, &key)?, Used::Files { changed_at })
        } else {
            let path = self.folder.join(format!("{}.pem", file_stem(host)));
            let names = std::slice::from_ref(host);
            let made = Made::kept_or_new(&path, &self.authority, &self.clock, names, &[])?;
            let used = Used::Made { renew_at: made.renew_at, issuer: made.issuer };
            (identity(&made.chain, &made.key, &path)?, used)
        };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone(), used);
        Ok(identity)
    }

    /// Forgets a hostname that is not served any more.
    pub(super) fn forget(&self, host: &HostPattern) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }

    /// The hostnames whose certificate has to change.
    pub(super) fn due(&self) -> Vec<HostPattern> {
        let issuer = services_certificate(&self.authority).unwrap_or_default();
        let now = self.clock.now();
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |host: &HostPattern, used: &Used| {
            let [chain, key] = self.files(host);
            match used {
                Used::Files { changed_at } => *changed_at != changes(&chain, &key),
                Used::Made { renew_at, issuer: by } => now >= *renew_at || *by != issuer || chain.exists(),
            }
        };
        used.iter().filter(|(host, used)| is_due(host, used)).map(|(host, _)| host.clone()).collect()
    }

    fn files(&self, host: &HostPattern) -> [PathBuf; 2] {
        let stem = file_stem(host);
        [self.folder.join(format!("{stem}.crt")), self.folder.join(format!("{stem}.key"))]
    }
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

fn changes(chain: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [chain, key].map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}

fn read(path: &Path) -> Result<Vec<u8>, ServerTlsError> {
    std::fs::read(path).map_err(|source| ServerTlsError::File { path: path.display().to_string(), source })
}
