//! This client's CPU against that of a bare tokio-rustls client, one after the other in the same run.
//!
//! The bare client has one ready configuration with webpki's own verifier and does the same exchange; each handshake
//! of either is full and answered. CPU is that of the whole process, so nothing else may run at that time.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::TlsConnector;

use super::session::{Endpoint, Protocol};
use super::{http, mqtt};
use crate::cost::{Bare, own_cpu_ms};
use crate::reason::Reason;

/// Makes `rounds` handshakes with each client in turns, and compares.
pub(crate) async fn compare_to_bare(
    endpoint: &Endpoint,
    roots: &RootCertStore,
    device: &str,
    identity: &Arc<CertifiedKey>,
    rounds: u64,
) -> anyhow::Result<Bare> {
    let provider = Arc::new(endpoint.tls.provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.clone())
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity))));
    config.resumption = Resumption::disabled();
    config.alpn_protocols = endpoint.tls.alpn();
    let bare = TlsConnector::from(Arc::new(config));
    let (mut bare_ms, mut own_ms) = (0.0, 0.0);
    // In batches that alternate: what the machine's neighbours do falls on both.
    let batches = rounds.div_ceil(BATCH);
    for _ in 0..batches {
        let before = own_cpu_ms();
        for _ in 0..BATCH {
            bare_once(endpoint, &bare, device).await.map_err(refused)?;
        }
        let between = own_cpu_ms();
        for _ in 0..BATCH {
            let wire = endpoint.wire(0, device.to_owned(), Some(Arc::clone(identity)), None);
            endpoint.open(wire).await.map_err(refused)?.close().await;
        }
        bare_ms += between - before;
        own_ms += own_cpu_ms() - between;
    }
    let handshakes = batches * BATCH;
    Ok(Bare { handshakes, bare_ms: bare_ms / handshakes as f64, own_ms: own_ms / handshakes as f64 })
}

async fn bare_once(endpoint: &Endpoint, connector: &TlsConnector, device: &str) -> Result<(), Reason> {
    let connecting = async {
        let socket = endpoint.door.tcp(0).await?;
        connector.connect(endpoint.door.name.clone(), socket).await
    };
    let mut stream = Box::pin(connecting).await.map_err(|error| Reason::of_io(&error))?;
    match &endpoint.protocol {
        Protocol::Https { path } => http::get(&mut stream, &endpoint.host, path).await.map(drop)?,
        Protocol::Mqtt => mqtt::connect(&mut stream, device).await?,
    }
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
    Ok(())
}

fn refused(reason: Reason) -> anyhow::Error {
    anyhow::anyhow!("the comparison with a bare client failed: {}", reason.label())
}

const BATCH: u64 = 20;
