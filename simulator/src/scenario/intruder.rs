//! A hostile minority on sockets: the tricks of the model, against a real server.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::hostile::Kind;
use super::live::{Shared, identity};
use crate::chance::Chance;
use crate::edge::Protocol;
use crate::reason::Reason;

/// One of them, until the run ends.
pub(super) async fn live(shared: Arc<Shared>, nth: u32, kind: Kind) {
    let mut chance = Chance::new(shared.scenario.seed, INTRUDER_STREAMS + u64::from(nth));
    let every = shared.scaled(TRY_EVERY).max(TRY_EVERY_MIN);
    while shared.goes_on_after(every.mul_f64(2.0 * chance.unit())).await {
        let victim = shared.live.enroller.directory.device(nth % shared.scenario.devices.max(1));
        let outcome = match kind {
            Kind::ForeignCertificate => foreign(&shared, nth, &victim).await,
            Kind::HalfOpen => half_open(&shared, nth).await,
            Kind::MalformedCsr => malformed(&shared, nth, &victim).await,
            Kind::WrongId => wrong_id(&shared, nth, &victim).await,
        };
        match outcome {
            Ok(()) => {
                shared.hostile_accepted.fetch_add(1, Ordering::Relaxed);
            }
            Err(reason) => shared.tally.count_error("hostile", format!("{kind:?} {}", reason.label())),
        }
    }
}

/// A certificate with a device's name by a CA of one's own.
async fn foreign(shared: &Shared, nth: u32, victim: &str) -> Result<(), Reason> {
    let Some(edge) = &shared.live.edge else { return Err(Reason::Local) };
    let identity = forged(victim).map_err(|_| Reason::Local)?;
    let wire = edge.wire(nth, victim.to_owned(), Some(Arc::new(identity)), None);
    Box::pin(edge.open(wire)).await.map(drop)
}

fn forged(device: &str) -> anyhow::Result<CertifiedKey> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(authority, KeyPair::generate()?);
    let mut leaf = CertificateParams::new(Vec::new())?;
    leaf.distinguished_name.push(DnType::CommonName, device);
    let key = KeyPair::generate()?;
    let der = leaf.signed_by(&key, &issuer)?.der().clone();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private)?;
    Ok(CertifiedKey::new(vec![der], signing))
}

/// Holds a connection and says nothing.
async fn half_open(shared: &Shared, nth: u32) -> Result<(), Reason> {
    let mut stream = shared.live.enroller.door.tcp(nth).await.map_err(|error| Reason::of_io(&error))?;
    let mut octet = [0; 1];
    match tokio::time::timeout(HOLD_FOR, stream.read(&mut octet)).await {
        Ok(Err(error)) => Err(Reason::of_io(&error)),
        Ok(Ok(_)) => Err(Reason::Closed),
        // Nobody was harmed; the server may hold it as long as it has room.
        Err(_) => Err(Reason::TimedOut),
    }
}

/// Has a good token, and sends what is no request.
async fn malformed(shared: &Shared, nth: u32, victim: &str) -> Result<(), Reason> {
    let token = shared.live.tokens.of(victim).await.ok().flatten().ok_or(Reason::Local)?;
    post(shared, nth, victim, &token, b"no request at all").await
}

/// Comes to an MQTT edge with its own certificate and another's client id; where there is none, asks for a
/// certificate in another's name with a token that it made up. Both are sound but for whose they are.
async fn wrong_id(shared: &Shared, nth: u32, victim: &str) -> Result<(), Reason> {
    let Some(edge) = shared.live.edge.as_ref().filter(|edge| edge.protocol == Protocol::Mqtt) else {
        let der = request(victim).map_err(|_| Reason::Local)?;
        return post(shared, nth, victim, "guess", &der).await;
    };
    let own = (nth + 1) % shared.scenario.devices.max(1);
    let (device, identity) = identity(&shared.live.enroller, own).ok_or(Reason::Local)?;
    if device == victim {
        return Err(Reason::Local);
    }
    let wire = edge.wire(nth, victim.to_owned(), Some(identity), None);
    Box::pin(edge.open(wire)).await.map(drop)
}

fn request(device: &str) -> anyhow::Result<Vec<u8>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, device);
    Ok(params.serialize_request(&KeyPair::generate()?)?.der().to_vec())
}

/// Asks for a certificate; `Ok` when there was one.
async fn post(shared: &Shared, nth: u32, device: &str, token: &str, der: &[u8]) -> Result<(), Reason> {
    let enroller = &shared.live.enroller;
    let body = BASE64_STANDARD.encode(der);
    let basic = BASE64_STANDARD.encode(format!("{device}:{token}"));
    let request = format!(
        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {basic}\r\n\
         Content-Type: application/pkcs10\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        enroller.host,
        body.len()
    );
    let mut stream = Box::pin(enroller.door.connect(nth, enroller.tls.present(None, None))).await?;
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut head = vec![0; STATUS_BYTES];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head)
    };
    let head = exchange.await.map_err(|error| Reason::of_io(&error))?;
    let status = std::str::from_utf8(&head).ok().and_then(|head| head.split(' ').nth(1)?.parse::<u16>().ok());
    match status {
        Some(200) => Ok(()),
        Some(status) => Err(Reason::Status(status)),
        None => Err(Reason::BadAnswer),
    }
}

const TRY_EVERY: Duration = Duration::from_secs(3600);
const TRY_EVERY_MIN: Duration = Duration::from_millis(500);
const HOLD_FOR: Duration = Duration::from_secs(5);
/// `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;
const INTRUDER_STREAMS: u64 = 1 << 40;
