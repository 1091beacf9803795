//! What the server gives for webhooks: the secret they are signed with, and whom receivers are vouched
//! for by.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use muster_admin::WebhookSettings;
use muster_ca::file_key::FileKeyError;
use muster_enroll::{Authority, AuthorityError};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::datadir::{DataDir, WEBHOOKS_KEY};
use crate::passphrase;

/// The pause after a delivery failed for the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Tries of a delivery: with pauses of 1 s, 4 s, and so on, the last one is some 23 minutes after the first.
const ATTEMPTS: u32 = 7;

/// Reads the settings; the secret is made when there is none yet. `roots` are those of the machine.
///
/// # Errors
/// In words, when a file can't be read or made.
pub(crate) fn settings(
    dir: &DataDir,
    authority: &Authority,
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
    let secret = authority.secret(WEBHOOKS_KEY).map_err(|error| unusable(&dir.webhooks_key(), error))?;
    Ok(WebhookSettings {
        secret: Zeroizing::new(secret.to_vec()),
        tls: Arc::new(tls),
        loopback_http: config.webhooks_loopback_http,
        first_pause: FIRST_PAUSE,
        attempts: ATTEMPTS,
    })
}

fn unusable(path: &Path, error: AuthorityError) -> anyhow::Error {
    let path = path.display();
    match error {
        AuthorityError::Key(FileKeyError::PassphraseNeeded) => anyhow::anyhow!(
            "{path} is encrypted; give ca.passphrase_file in muster.toml or {}",
            passphrase::VARIABLE
        ),
        AuthorityError::Key(FileKeyError::PassphraseWrong) => {
            anyhow::anyhow!("the passphrase does not open {path}; give the one that it was written with")
        }
        AuthorityError::Key(error @ FileKeyError::File { .. }) => error.into(),
        other => anyhow::anyhow!(
            "{path} is broken ({other}); restore it from a backup, or remove it and make all webhooks anew"
        ),
    }
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
