//! An edge on loopback with CAs made for it, an origin that echoes, and clients to knock with.
//!
//! Ports are 0, the clock stands still until a test turns it, and waiting is for events.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a step that fails is a failed test, in a helper as in the test itself"
)]
#![allow(dead_code, reason = "each test file uses another part of the rig")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use muster_edge::{
    AccountEntry, Arrival, CaEntry, CertificateKey, Clock, Counters, Delta, DeviceEntry, Edge, EdgeConfig,
    Event, HostEntry, ListenerKind, MqttHandover, MqttStream, OriginTls, SecretKey, Snapshot, TlsIdentity,
    Update, Work,
};
use muster_policy::enrol::DeviceStatus;
use muster_policy::host::{DefaultCas, HostMode, HostRule, MinTls, Protocol, WhenStale};
use muster_policy::identity::{AccountId, CaId, Serial, ZoneId};
use muster_policy::mqtt;
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use prometheus_client::registry::Registry;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use serde_bytes::ByteBuf;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

pub(crate) const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
pub(crate) const OTHER_ACCOUNT: AccountId = AccountId::from_bytes([2; 16]);
pub(crate) const NOW: i64 = 1_800_000_000;
const YEAR: i64 = 31_536_000;
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(60);

/// A CA that issues what a test asks for.
pub(crate) struct TestCa {
    pub(crate) id: CaId,
    pub(crate) account: AccountId,
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Vec<u8>,
}

/// A certificate with its key, and what goes with it.
pub(crate) struct Pair {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Vec<u8>,
}

impl Clone for Pair {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone() }
    }
}

pub(crate) fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).expect("a time")
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = at(NOW - YEAR);
    params.not_after = at(NOW + YEAR);
    params
}

/// Good by the clock of strangers too, who look at the machine's.
fn long_lived(mut params: CertificateParams) -> CertificateParams {
    params.not_before = at(1_000_000_000);
    params.not_after = at(4_000_000_000);
    params
}

impl TestCa {
    pub(crate) fn new(id: u8, account: AccountId, name: &str) -> Self {
        Self::with(id, account, ca_params(name))
    }

    pub(crate) fn with(id: u8, account: AccountId, params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let der = params.self_signed(&key).expect("a certificate").der().to_vec();
        Self { id: CaId::from_bytes([id; 16]), account, issuer: Issuer::new(params, key), der }
    }

    pub(crate) fn entry(&self) -> CaEntry {
        CaEntry {
            id: self.id,
            account: self.account,
            certificates: vec![ByteBuf::from(self.der.clone())],
            is_default: true,
            vouches: true,
        }
    }

    /// An issuing CA below this one; a chain of its leaves holds it.
    pub(crate) fn below(&self, name: &str) -> (Self, CertificateDer<'static>) {
        let (params, key) = (ca_params(name), KeyPair::generate().expect("a key"));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let der = certificate.der().clone();
        let below =
            Self { id: self.id, account: self.account, issuer: Issuer::new(params, key), der: der.to_vec() };
        (below, der)
    }

    /// Whoever these parameters make, able to sign whether it may or not.
    pub(crate) fn issue(
        &self,
        mut params: CertificateParams,
        is_ca: IsCa,
    ) -> (Self, CertificateDer<'static>) {
        params.is_ca = is_ca;
        let key = KeyPair::generate().expect("a key");
        let der = params.signed_by(&key, &self.issuer).expect("a certificate").der().clone();
        let issued =
            Self { id: self.id, account: self.account, issuer: Issuer::new(params, key), der: der.to_vec() };
        (issued, der)
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { chain: vec![certificate.der().clone()], key: key.serialize_der() }
    }

    pub(crate) fn device(&self, name: &str, serial: u8) -> Pair {
        self.sign(&device_params(name, serial))
    }

    pub(crate) fn key(&self, serial: u8) -> CertificateKey {
        CertificateKey { ca: self.id, serial: Serial::from_bytes(&[serial]).expect("a serial") }
    }
}

/// What a device's certificate looks like.
pub(crate) fn device_params(name: &str, serial: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names =
        vec![SanType::URI(format!("spiffe://fleet.example/device/{name}").try_into().expect("ASCII"))];
    params.serial_number = Some(SerialNumber::from(vec![serial]));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = at(NOW - 3600);
    params.not_after = at(NOW + 3600);
    params
}

/// What an origin saw of a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn reason(&self) -> &str {
        self.headers.get("muster-reason").and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The value of a header that the echoing origin received; all of them, joined.
    pub(crate) fn seen(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.body.lines().filter_map(|line| line.strip_prefix(&format!("{name}: "))).collect();
        (!values.is_empty()).then(|| values.join("|"))
    }
}

/// An edge, what it was told, and what is behind it.
pub(crate) struct Rig {
    pub(crate) edge: Edge,
    pub(crate) https: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    pub(crate) origin: SocketAddr,
    pub(crate) ca: TestCa,
    pub(crate) server_ca: TestCa,
    pub(crate) snapshot: Snapshot,
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) registry: Registry,
    stop: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Rig {
    /// `api.example.com` demands certificates of the account's CA, `open.example.com` asks for them,
    /// `off.example.com` does not, `*.wild.example.com` demands, `mqtt.example.com` speaks MQTT.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}, |_| {}).await
    }

    pub(crate) async fn with(
        change: impl FnOnce(&mut Snapshot),
        configure: impl FnOnce(&mut EdgeConfig),
    ) -> Self {
        let ca = TestCa::new(1, ACCOUNT, "devices");
        let server_ca = TestCa::with(9, ACCOUNT, long_lived(ca_params("services")));
        let origin = origin().await;
        let mut snapshot = Snapshot {
            change: 1,
            made_at: UnixTime::from_secs(NOW),
            accounts: [ACCOUNT, OTHER_ACCOUNT].map(account).to_vec(),
            cas: vec![ca.entry()],
            hosts: Vec::new(),
            revoked: Vec::new(),
            devices: Vec::new(),
            elsewhere: Default::default(),
        };
        for (name, mode, protocol) in [
            ("api.example.com", HostMode::Require, Protocol::Https),
            ("open.example.com", HostMode::Request, Protocol::Https),
            ("off.example.com", HostMode::Off, Protocol::Https),
            ("*.wild.example.com", HostMode::Require, Protocol::Https),
            ("mqtt.example.com", HostMode::Require, Protocol::Mqtt),
        ] {
            snapshot.hosts.push(host(&server_ca, name, mode, protocol, origin));
        }
        change(&mut snapshot);
        let clock = Arc::new(AtomicI64::new(NOW));
        let turned = Arc::clone(&clock);
        let mut config = EdgeConfig {
            clock: Clock::from_fn(move || UnixTime::from_secs(turned.load(Ordering::Relaxed))),
            ..EdgeConfig::default()
        };
        // A handshake takes as long as the machine's other work has it: tests of these times set their own.
        config.limits.hello_timeout = HANDSHAKE_PATIENCE;
        config.limits.handshake_times.handshake = HANDSHAKE_PATIENCE;
        config.limits.handshake_times.crowded = HANDSHAKE_PATIENCE;
        configure(&mut config);
        let mut registry = Registry::default();
        let edge = Edge::start(config, Arc::new(EchoBroker), &mut registry).expect("an edge");
        edge.apply(Update::Snapshot(Box::new(snapshot.clone()))).expect("a good snapshot");
        let stop = CancellationToken::new();
        let [https, mqtt] = [ListenerKind::Https, ListenerKind::Mqtt].map(|kind| {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            socket.set_nonblocking(true).expect("non-blocking");
            let address = socket.local_addr().expect("an address");
            let socket = TcpListener::from_std(socket).expect("a listener");
            let (edge, stop) = (edge.clone(), stop.clone());
            tokio::spawn(async move { edge.serve(socket, kind, stop).await });
            address
        });
        Self { edge, https, mqtt, origin, ca, server_ca, snapshot, clock, registry, stop }
    }

    /// Applies events as the next change; how many connections were cut.
    pub(crate) fn tell(&self, events: Vec<Event>) -> usize {
        let from = self.edge.change();
        let made_at = UnixTime::from_secs(self.clock.load(Ordering::Relaxed));
        let delta = Delta { from, change: from + 1, made_at, events };
        let applied = self.edge.apply(Update::Delta(delta)).expect("the next delta");
        assert_eq!(applied.faults, []);
        applied.cut
    }

    pub(crate) fn suspend(&self, device: &str) -> usize {
        self.tell(vec![Event::Device(DeviceEntry {
            account: ACCOUNT,
            device: device.parse().expect("an id"),
            status: DeviceStatus::Suspended,
            groups: Default::default(),
        })])
    }

    /// A client configuration that trusts the edge and shows this certificate.
    pub(crate) fn client(&self, pair: Option<&Pair>, alpn: &[&[u8]]) -> ClientConfig {
        self.client_of(rustls::crypto::aws_lc_rs::default_provider(), pair, alpn)
    }

    /// The same with algorithms of its own.
    pub(crate) fn client_of(
        &self,
        provider: CryptoProvider,
        pair: Option<&Pair>,
        alpn: &[&[u8]],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.server_ca.der.clone())).expect("a CA");
        let now = Arc::clone(&self.clock);
        let clock = Clock::from_fn(move || UnixTime::from_secs(now.load(Ordering::Relaxed)));
        let builder = ClientConfig::builder_with_details(Arc::new(provider), Arc::new(clock))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match pair {
            Some(pair) => {
                // Not `with_client_auth_cert`, which looks at the certificate: some are made to be refused.
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.key.clone()));
                let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("a key");
                let certified = CertifiedKey::new(pair.chain.clone(), key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|id| id.to_vec()).collect();
        config
    }

    pub(crate) async fn tls(
        &self,
        address: SocketAddr,
        name: &str,
        config: ClientConfig,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        let name = name.to_owned().try_into().expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// One request over h1 on a connection of its own.
    pub(crate) async fn get(&self, name: &str, pair: Option<&Pair>) -> Result<Answer, String> {
        let mut h1 = self.h1(name, pair).await?;
        h1.get(name, &[]).await
    }

    pub(crate) async fn h1(&self, name: &str, pair: Option<&Pair>) -> Result<H1, String> {
        let config = self.client(pair, &[b"http/1.1"]);
        let stream = self.tls(self.https, name, config).await.map_err(|error| error.to_string())?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let ended = tokio::spawn(async move { connection.with_upgrades().await });
        Ok(H1 { sender, ended })
    }

    pub(crate) async fn h2(&self, name: &str, pair: Option<&Pair>) -> Result<H2, String> {
        let config = self.client(pair, &[b"h2"]);
        let stream = self.tls(self.https, name, config).await.map_err(|error| error.to_string())?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
        let ended = tokio::spawn(connection);
        Ok(H2 { sender, ended })
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("encoded");
        text
    }

    /// Waits until so many handshakes and requests were refused for a reason: the peer hears first.
    pub(crate) async fn refused(&self, reason: Reason, count: u64) {
        self.until(|counters| counters.refused_by_reason.contains(&(reason, count))).await;
    }

    /// Waits until the counters say so.
    pub(crate) async fn until(&self, so: impl Fn(&Counters) -> bool) {
        let wait = async {
            while !so(&self.edge.counters()) {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(waited.is_ok(), "{:?}", self.edge.counters());
    }
}

pub(crate) struct H1 {
    pub(crate) sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    pub(crate) ended: tokio::task::JoinHandle<Result<(), hyper::Error>>,
}

impl H1 {
    pub(crate) async fn get(&mut self, host: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
        let mut request = Request::get("/echo").header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).expect("a request");
        answer(self.sender.send_request(request).await).await
    }
}

pub(crate) struct H2 {
    pub(crate) sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    pub(crate) ended: tokio::task::JoinHandle<Result<(), hyper::Error>>,
}

impl H2 {
    pub(crate) async fn get(&mut self, authority: &str) -> Result<Answer, String> {
        let request =
            Request::get(format!("https://{authority}/echo")).body(Full::default()).expect("a request");
        answer(self.sender.send_request(request).await).await
    }
}

async fn answer(response: Result<Response<Incoming>, hyper::Error>) -> Result<Answer, String> {
    let (parts, body) = response.map_err(|error| chain(&error))?.into_parts();
    let body = body.collect().await.map_err(|error| chain(&error))?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// An error with its causes, where the TLS alert stands.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

pub(crate) fn account(id: AccountId) -> AccountEntry {
    AccountEntry {
        id,
        trust_domain: "fleet.example".parse().expect("a trust domain"),
        outbound: None,
        gate: Default::default(),
    }
}

pub(crate) fn host(
    server_ca: &TestCa,
    name: &str,
    mode: HostMode,
    protocol: Protocol,
    origin: SocketAddr,
) -> HostEntry {
    let params = CertificateParams::new([name.to_owned()]).expect("a name");
    let pair = server_ca.sign(&long_lived(params));
    HostEntry {
        rule: HostRule {
            host: name.parse().expect("a pattern"),
            account: ACCOUNT,
            zone: ZoneId::from_bytes([3; 16]),
            mode,
            protocols: [protocol].into(),
            cas: Default::default(),
            default_cas: DefaultCas::default(),
            min_tls: MinTls::Tls13,
            origins: vec![format!("http://{origin}")],
            when_stale: WhenStale::Closed,
            forward_certificate: true,
            origin_timeout_s: 60,
        },
        certificate: Some(identity(&pair)),
        origin_tls: OriginTls::default(),
    }
}

pub(crate) fn identity(pair: &Pair) -> TlsIdentity {
    TlsIdentity {
        chain: pair.chain.iter().map(|der| ByteBuf::from(der.to_vec())).collect(),
        key: SecretKey::new(pair.key.clone()),
    }
}

/// An origin that answers with the head it received, and echoes upgraded streams.
pub(crate) async fn origin() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), hyper::service::service_fn(echo))
                    .with_upgrades(),
            );
        }
    });
    address
}

/// An origin whose answer never ends.
pub(crate) async fn endless() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                // An answer before the request would be none.
                while stream.read_u8().await? != b'\n' {}
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
                loop {
                    stream.write_all(&[b'x'; 16 * 1024]).await?;
                }
                #[expect(unreachable_code, reason = "it says what the errors above are")]
                Ok::<_, std::io::Error>(())
            });
        }
    });
    address
}

async fn echo(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        return Ok(response.body(Full::default()).expect("a response"));
    }
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    let body = request.into_body().collect().await;
    if let Ok(body) = body {
        let trailers: BTreeMap<_, _> = body
            .trailers()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.to_string(), format!("{value:?}")))
            .collect();
        text.push_str(&format!("body-trailers: {trailers:?}\n"));
        text.push_str(&format!("body-bytes: {}\n", body.to_bytes().len()));
    }
    Ok(Response::new(Full::new(Bytes::from(text))))
}

/// A broker that says who came, then echoes; told to end it says why. Of a line `connect ID` or
/// `publish TOPIC` it says what the edge's judge thinks of it.
struct EchoBroker;

fn judged(arrival: &Arrival, octets: &[u8]) -> Option<String> {
    let (kind, name) = std::str::from_utf8(octets).ok()?.trim_end().split_once(' ')?;
    let connect = mqtt::Connect {
        client_id: name.into(),
        username: "".into(),
        version: mqtt::Version::V5,
        will: Some(mqtt::Will { topic: "state".into(), qos: 1, retain: true }),
    };
    let verdict = match kind {
        "connect" => arrival.judge.judge(&mqtt::Asked::Connect(&connect)),
        "publish" => {
            let message = mqtt::Message { topic: name, qos: 1, retain: false };
            arrival.judge.judge(&mqtt::Asked::Publish(message))
        }
        _ => return None,
    };
    Some(verdict.map_or_else(|reason| format!("{reason}\n"), |()| "passed\n".to_owned()))
}

impl MqttHandover for EchoBroker {
    fn welcome(&self, mut stream: MqttStream, arrival: Arrival) -> Work {
        Box::pin(async move {
            let device = arrival.holder.as_ref().map_or("nobody", |holder| holder.device.as_str());
            let _ = stream.write_all(format!("welcome {device} {:?}\n", arrival.carrier).as_bytes()).await;
            let _ = stream.flush().await;
            let mut octets = [0; 256];
            loop {
                tokio::select! {
                    read = stream.read(&mut octets) => match read {
                        Ok(count) if count > 0 => {
                            let answer = judged(&arrival, &octets[..count]);
                            let answer = answer.as_ref().map_or(&octets[..count], |answer| answer.as_bytes());
                            let _ = stream.write_all(answer).await;
                            let _ = stream.flush().await;
                        }
                        _ => return,
                    },
                    reason = arrival.cut.wait() => {
                        let _ = stream.write_all(format!("cut {reason}\n").as_bytes()).await;
                        let _ = stream.shutdown().await;
                        return;
                    }
                }
            }
        })
    }

    fn refuse(&self, mut stream: MqttStream, _: Arrival, reason: Reason) -> Work {
        Box::pin(async move {
            let _ = stream.write_all(format!("refused {reason}\n").as_bytes()).await;
            let _ = stream.shutdown().await;
        })
    }
}

/// One line of a stream.
pub(crate) async fn line(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    while let Ok(octet) = stream.read_u8().await {
        if octet == b'\n' {
            break;
        }
        text.push(char::from(octet));
    }
    text
}
