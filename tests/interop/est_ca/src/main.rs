//! The EST server of the crate est-ca, with the TLS in front of it that its documentation asks for.
//!
//! `est-ca-server TRUST_FILE DEVICE SECRET`: listens on a free port of 127.0.0.1, writes the certificates
//! that a client has to trust (PEM) to TRUST_FILE, and prints the port. EST itself is est-ca's alone: it
//! reads the requests, checks the secret, signs, and writes the answers. Only the identity of a TLS client
//! certificate is handed to it from here, as a `Principal`, in the way it says.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use est_ca::auth::{AuthBackend, Principal};
use est_ca::ca::serial::InMemorySerialStore;
use est_ca::ca::{CertProfile, Issuer};
use est_ca::est::server::EstServer;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

/// The one device that may enroll.
struct Allowed {
    device: String,
    secret: String,
}

impl AuthBackend for Allowed {
    fn verify_bootstrap(&self, user: &str, pass: &str) -> Result<Principal, String> {
        if user == self.device && pass == self.secret {
            Ok(Principal::new(user))
        } else {
            Err("the secret is not the device's".to_owned())
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let [trust_file, device, secret] =
        <[String; 3]>::try_from(std::env::args().skip(1).collect::<Vec<_>>()).expect("three arguments");
    let profile = CertProfile { validity: Duration::from_secs(86_400), ..CertProfile::default() };
    let issuer = Issuer::generate_self_signed("est-ca.test", profile, Arc::new(InMemorySerialStore::new()))
        .expect("a CA");
    let issuer_der = issuer.ca_cert_der().to_vec();
    let (tls, tls_ca) = tls(&issuer_der);
    std::fs::write(&trust_file, [armoured(&tls_ca), armoured(&issuer_der)].concat()).expect("written");

    let router = EstServer::new(issuer, Arc::new(Allowed { device, secret })).router();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address").port());
    std::io::stdout().flush().expect("flushed");
    loop {
        let (socket, _) = listener.accept().await.expect("accepts");
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let router = match leaf.and_then(common_name) {
                Some(name) => router.layer(Extension(Principal::new(name))),
                None => router,
            };
            let _ = hyper::server::conn::Http::new().serve_connection(stream, router).await;
        });
    }
}

/// A server for `localhost` that asks for client certificates of the issuer, and the CA of its certificate.
fn tls(issuer: &[u8]) -> (ServerConfig, Vec<u8>) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "TLS CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = ca.self_signed(&ca_key).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&key, &ca, &ca_key).expect("a certificate");

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(issuer.to_vec())).expect("a root");
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .expect("a verifier");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a server");
    (config, ca.der().to_vec())
}

fn common_name(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

fn armoured(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
