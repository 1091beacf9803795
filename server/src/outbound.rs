//! What the server gives for requests that it makes by itself: whom it trusts, and where it does not go.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use muster_admin::OutboundSettings;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::config::Config;

/// Reads the settings. `roots` are those of the machine.
///
/// # Errors
/// In words, when a file can't be read.
pub(crate) fn settings(config: &Config, mut roots: RootCertStore) -> anyhow::Result<OutboundSettings> {
    if let Some(path) = &config.webhooks_ca_file {
        add_roots(&mut roots, path).with_context(|| format!("webhooks.ca_file {}", path.display()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(OutboundSettings {
        tls: Arc::new(tls),
        loopback_http: config.webhooks_loopback_http,
        denied_networks: config.denied_networks.clone(),
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
