//! What the server gives for webhooks: the secret they are signed with, and whom receivers are vouched
//! for by.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use muster_admin::WebhookSettings;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::datadir::{DataDir, Readers, write_file};

/// Octets of the secret.
const SECRET_BYTES: usize = 32;
/// The pause after a delivery failed for the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Tries of a delivery: with pauses of 1 s, 4 s, and so on, the last one is some 23 minutes after the first.
const ATTEMPTS: u32 = 7;

/// Reads the settings; the secret is made when there is none yet.
///
/// The ledger must be open, so that no other process makes a secret at the same time. `roots` are those
/// of the machine.
///
/// # Errors
/// In words, when a file can't be read or made.
pub(crate) fn settings(
    dir: &DataDir,
    config: &Config,
    mut roots: RootCertStore,
) -> anyhow::Result<WebhookSettings> {
    if let Some(path) = &config.webhooks_ca_file {
        add_roots(&mut roots, path).with_context(|| format!("webhooks.ca_file {}", path.display()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(WebhookSettings {
        secret: secret(&dir.webhooks_key())?,
        tls: Arc::new(tls),
        loopback_http: config.webhooks_loopback_http,
        first_pause: FIRST_PAUSE,
        attempts: ATTEMPTS,
    })
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> anyhow::Result<()> {
    let mut added = 0_usize;
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
        added = added.saturating_add(1);
    }
    anyhow::ensure!(added > 0, "there is no certificate in it");
    Ok(())
}

fn secret(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(octets) if octets.len() == SECRET_BYTES => Ok(Zeroizing::new(octets)),
        Ok(_) => anyhow::bail!(
            "{} is broken; restore it from a backup, or remove it and make all webhooks anew",
            path.display()
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let octets: [u8; SECRET_BYTES] = muster_enroll::random().context("no random numbers")?;
            write_file(path, &octets, Readers::Owner)
                .with_context(|| format!("can't make {}", path.display()))?;
            Ok(Zeroizing::new(octets.to_vec()))
        }
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_made_once_and_a_broken_one_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("webhooks.key");
        let made = secret(&path).expect("made");
        assert_eq!(secret(&path).expect("read"), made);
        std::fs::write(&path, b"short").expect("writes");
        assert!(secret(&path).is_err());
    }
}
