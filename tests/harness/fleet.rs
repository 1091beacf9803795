//! A small fleet for the agent's carrying half: a CA, device identities of any generation, and servers that
//! demand client certificates.
//!
//! [`Origin`] is an HTTPS server that says who asked; [`Broker`] accepts TLS and hands the streams to the
//! test. Both refuse the generations that [`Guard`] is told to refuse, by the alert that fits.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use muster_agent::identity::{Held, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A CA that signs devices and servers.
pub struct Fleet {
    root: CertifiedIssuer<'static, KeyPair>,
}

/// Which generations are refused.
#[derive(Clone, Debug)]
pub struct Guard(Arc<Mutex<BTreeSet<u32>>>);

/// A server address with TLS that demands a certificate of the fleet.
pub struct Broker {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whom it refuses.
    pub guard: Guard,
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

/// An HTTPS server: `GET /who` names the generation of the certificate, `POST` echoes.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whom it refuses.
    pub guard: Guard,
    /// What was asked: path and generation.
    pub asked: Arc<Mutex<Vec<(String, u32)>>>,
}

impl Fleet {
    /// A new CA.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "fleet root");
        let key = KeyPair::generate().expect("a key");
        Self { root: CertifiedIssuer::self_signed(params, key).expect("a root") }
    }

    /// The root in PEM.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// The root in DER.
    pub fn root(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// An identity of `meter-1` that is valid for this long.
    #[expect(clippy::disallowed_methods, reason = "the agent under test compares with the wall clock")]
    pub fn identity(&self, generation: u32, valid_for: Duration) -> Arc<Identity> {
        let (chain, key) = self.leaf(generation, ExtendedKeyUsagePurpose::ClientAuth);
        Arc::new(Identity {
            generation,
            device: "meter-1".to_owned(),
            chain,
            key,
            not_after: SystemTime::now() + valid_for,
            anchors: vec![self.root()],
        })
    }

    /// Only this identity, in use.
    pub fn using(&self, generation: u32) -> Held {
        Held { in_use: Some(self.identity(generation, HOUR)), candidate: None }
    }

    /// Certificate and key of a leaf in PEM, for programs that read files.
    pub fn leaf_pem(&self, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf_params(0, usage).signed_by(&key, &self.root).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// A TLS configuration that demands a certificate of this fleet.
    pub fn server_config(&self, guard: &Guard) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let usual = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .expect("a verifier");
        let (chain, key) = self.leaf(0, ExtendedKeyUsagePurpose::ServerAuth);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(Arc::new(Guarded { usual, guard: guard.clone() }))
            .with_single_cert(chain, key)
            .expect("a certificate");
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// A broker address.
    pub async fn broker(&self) -> Broker {
        let guard = Guard::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Broker {
            address: listener.local_addr().expect("bound"),
            acceptor: TlsAcceptor::from(self.server_config(&guard)),
            guard,
            listener,
        }
    }

    /// A running origin.
    pub async fn origin(&self) -> Origin {
        let broker = self.broker().await;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let origin =
            Origin { address: broker.address, guard: broker.guard.clone(), asked: Arc::clone(&asked) };
        tokio::spawn(serve(broker, asked));
        origin
    }

    fn leaf(
        &self,
        generation: u32,
        usage: ExtendedKeyUsagePurpose,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf_params(generation, usage).signed_by(&key, &self.root).expect("signed");
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}

impl Broker {
    /// The next client that came through the handshake, and its generation.
    pub async fn accept(&self) -> (TlsStream<TcpStream>, u32) {
        loop {
            let (socket, _) = self.listener.accept().await.expect("a connection");
            if let Ok(stream) = self.acceptor.accept(socket).await {
                let generation = generation_of(&stream);
                return (stream, generation);
            }
        }
    }
}

impl Guard {
    /// Refuse this generation from now on.
    pub fn refuse(&self, generation: u32) {
        self.0.lock().expect("no panic").insert(generation);
    }

    /// Take this generation again.
    pub fn take(&self, generation: u32) {
        self.0.lock().expect("no panic").remove(&generation);
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(BTreeSet::new())))
    }
}

fn leaf_params(generation: u32, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, "meter-1");
    params.distinguished_name.push(DnType::OrganizationalUnitName, generation.to_string());
    params.extended_key_usages = vec![usage];
    params
}

fn generation_of(stream: &TlsStream<TcpStream>) -> u32 {
    let chain = stream.get_ref().1.peer_certificates().expect("a client certificate");
    generation_in(&chain[0]).expect("a generation")
}

fn generation_in(leaf: &CertificateDer<'_>) -> Option<u32> {
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let unit = leaf.subject().iter_organizational_unit().next()?;
    unit.as_str().ok()?.parse().ok()
}

async fn serve(broker: Broker, asked: Arc<Mutex<Vec<(String, u32)>>>) {
    let broker = Arc::new(broker);
    loop {
        let (socket, _) = broker.listener.accept().await.expect("a connection");
        let (acceptor, asked) = (broker.acceptor.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let generation = generation_of(&stream);
            let service = service_fn(|request: Request<Incoming>| {
                asked.lock().expect("no panic").push((request.uri().path().to_owned(), generation));
                answer(request, generation)
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn answer(
    mut request: Request<Incoming>,
    generation: u32,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let upgraded = upgrade.await.expect("an upgrade");
            let (mut reading, mut writing) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut reading, &mut writing).await;
        });
        let response =
            Response::builder().status(101).header("upgrade", "echo").header("connection", "upgrade");
        return Ok(response.body(Full::default()).expect("a response"));
    }
    let host =
        request.headers().get("host").map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let body = request.into_body().collect().await?.to_bytes();
    let body = if body.is_empty() { Bytes::from(format!("generation {generation}\n")) } else { body };
    let response = Response::builder().header("x-host", host.unwrap_or_default());
    Ok(response.body(Full::from(body)).expect("a response"))
}

/// The usual verifier, and the guard.
#[derive(Debug)]
struct Guarded {
    usual: Arc<dyn ClientCertVerifier>,
    guard: Guard,
}

impl ClientCertVerifier for Guarded {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.usual.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let refused = self.guard.0.lock().expect("no panic");
        if generation_in(leaf).is_some_and(|generation| refused.contains(&generation)) {
            return Err(rustls::Error::InvalidCertificate(CertificateError::Revoked));
        }
        self.usual.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Longer than any test.
const HOUR: Duration = Duration::from_secs(3600);
