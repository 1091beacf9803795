//! The TLS configuration of a hostname: made once per rule, CA set and certificate, never changed.
//!
//! No session is ever resumed: no store, no tickets, no early data. rustls does not ask for the
//! client certificate again on resumption, so a revoked device could go on for as long as its ticket
//! lasts, and configurations that share a store would let a client of one CA set into another's.

use std::sync::Arc;

use muster_policy::host::{HostMode, HostRule, MinTls, Protocol};
use rustls::compress::CompressionCache;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, version};

use super::anchors::AnchorSet;
use super::verifier::{Demand, DoorVerifier, Examiner};
use crate::clock::Clock;
use crate::snapshot::TlsIdentity;

/// RFC 7301 §6 and RFC 9113 §3.2.
pub(crate) const ALPN_H2: &[u8] = b"h2";
/// RFC 7301 §6.
pub(crate) const ALPN_HTTP_1_1: &[u8] = b"http/1.1";
/// RFC 7301 §6.
pub(crate) const ALPN_HTTP_1_0: &[u8] = b"http/1.0";
/// The registered id of MQTT (IANA, TLS ALPN protocol ids).
pub(crate) const ALPN_MQTT: &[u8] = b"mqtt";

/// That of all listeners with X25519 first: the hybrid with ML-KEM costs a tenth more, and is there for who insists.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = muster_arrival::crypto::provider();
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::X25519MLKEM768];
    Arc::new(provider)
}

/// Which listener a connection came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// HTTPS, and MQTT for clients that say so by ALPN.
    Https,
    /// MQTT alone.
    Mqtt,
}

/// What all configurations are made with.
pub(crate) struct ConfigMaker {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) examiner: Arc<Examiner>,
    pub(crate) clock: Clock,
}

impl ConfigMaker {
    /// Loads a certificate with its key.
    ///
    /// # Errors
    /// What is wrong, in words for an operator.
    pub(crate) fn certified_key(&self, identity: &TlsIdentity) -> Result<CertifiedKey, String> {
        let chain: Vec<_> =
            identity.chain.iter().map(|der| CertificateDer::from(der.as_slice()).into_owned()).collect();
        // Borrowed, so that no copy of the key is left behind.
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.as_bytes()));
        let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| error.to_string())?;
        let certified_key = CertifiedKey::new(chain, key);
        certified_key.keys_match().map_err(|error| error.to_string())?;
        Ok(certified_key)
    }

    /// The configuration of a hostname on a listener; `None` when it speaks nothing there.
    ///
    /// # Errors
    /// What is wrong, in words for an operator.
    pub(crate) fn config(
        &self,
        rule: &HostRule,
        kind: ListenerKind,
        anchors: &Arc<AnchorSet>,
        certified_key: &Arc<CertifiedKey>,
    ) -> Result<Option<Arc<ServerConfig>>, String> {
        let alpn = protocols(rule, kind);
        if alpn.is_empty() {
            return Ok(None);
        }
        let versions: &[_] = match rule.min_tls {
            MinTls::Tls12 => &[&version::TLS13, &version::TLS12],
            MinTls::Tls13 => &[&version::TLS13],
        };
        let builder =
            ServerConfig::builder_with_details(Arc::clone(&self.provider), Arc::new(self.clock.clone()))
                .with_protocol_versions(versions)
                .map_err(|error| error.to_string())?;
        let verifier = |demand| {
            Arc::new(DoorVerifier {
                demand,
                anchors: Arc::clone(anchors),
                examiner: Arc::clone(&self.examiner),
            })
        };
        let builder = match rule.mode {
            HostMode::Require => builder.with_client_cert_verifier(verifier(Demand::Required)),
            HostMode::Request => builder.with_client_cert_verifier(verifier(Demand::Optional)),
            HostMode::Off => builder.with_no_client_auth(),
        };
        let resolver = SingleCertAndKey::from(Arc::clone(certified_key));
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.ignore_client_order = true;
        config.cert_compression_cache = Arc::new(CompressionCache::Disabled);
        config.alpn_protocols = alpn.iter().map(|id| id.to_vec()).collect();
        Ok(Some(Arc::new(config)))
    }
}

/// What is offered by ALPN, the preferred first. A client that offers something else gets an alert.
fn protocols(rule: &HostRule, kind: ListenerKind) -> Vec<&'static [u8]> {
    let speaks = |protocol| rule.protocols.contains(&protocol);
    match (kind, speaks(Protocol::Https), speaks(Protocol::Mqtt)) {
        (ListenerKind::Https, true, true) => vec![ALPN_H2, ALPN_HTTP_1_1, ALPN_HTTP_1_0, ALPN_MQTT],
        (ListenerKind::Https, true, false) => vec![ALPN_H2, ALPN_HTTP_1_1, ALPN_HTTP_1_0],
        // HTTP/1.1 for WebSockets that carry MQTT.
        (ListenerKind::Https, false, true) => vec![ALPN_MQTT, ALPN_HTTP_1_1],
        (ListenerKind::Mqtt, _, true) => vec![ALPN_MQTT],
        (ListenerKind::Https, false, false) | (ListenerKind::Mqtt, _, false) => Vec::new(),
    }
}
