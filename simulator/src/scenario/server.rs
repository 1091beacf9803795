//! The model of an EST server with its CA, and of an edge that knows what was revoked.
//!
//! It keeps to the contract of a real one: one-time tokens, the same answer for the same request, 503 with
//! Retry-After beyond its capacity. It also keeps book of what must never happen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use muster_proto::csr::CertificationRequest;
use muster_proto::x509::Certificate;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::crypto::{ModelKey, ModelVerifier, Point};
use super::file::Scenario;
use crate::chance::Chance;

/// The server.
pub(super) struct ModelServer {
    pub(super) root: Vec<u8>,
    pub(super) leaf: Vec<u8>,
    issuing: Vec<u8>,
    issuer: Issuer<'static, ModelKey>,
    pub(super) lifetime: Duration,
    capacity_per_s: u32,
    pub(super) away_until_ms: u64,
    second: u64,
    in_second: u32,
    /// Newest request of each device, and its answer.
    answered: HashMap<String, (Vec<u8>, Vec<u8>)>,
    revoked: HashSet<Vec<u8>>,
    suspended: HashSet<String>,
    serial: u64,
    drop_answers: f64,
    accept_revoked: bool,
    chance: Chance,
    pub(super) book: Book,
}

/// What the server saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub(super) issued: u64,
    pub(super) repeated: u64,
    pub(super) refused: BTreeMap<u16, u64>,
    pub(super) dropped: u64,
    pub(super) revoked_accepted: u64,
    pub(super) hostile_accepted: u64,
    /// Requests in the fullest second.
    pub(super) fullest_second: u32,
}

/// What becomes of a request.
pub(super) enum Answer {
    Bytes(Vec<u8>),
    /// The work was done, and nobody hears of it.
    Lost,
}

impl ModelServer {
    pub(super) fn new(scenario: &Scenario) -> anyhow::Result<Self> {
        let root_key = ModelKey::new(scenario.seed, u64::MAX);
        let root_params = authority("Model Root", BasicConstraints::Unconstrained)?;
        let root = root_params.self_signed(&root_key)?.der().to_vec();
        let root_issuer = Issuer::new(root_params, root_key);
        let issuing_key = ModelKey::new(scenario.seed, u64::MAX - 1);
        let issuing_params = authority(ISSUING_NAME, BasicConstraints::Constrained(0))?;
        let issuing = issuing_params.signed_by(&issuing_key, &root_issuer)?.der().to_vec();
        let server_key = ModelKey::new(scenario.seed, u64::MAX - 2);
        let mut server = named("est")?;
        server.subject_alt_names = vec![SanType::DnsName(SERVER_NAME.try_into()?)];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        set_validity(&mut server, START_S - 3600, START_S + AUTHORITY_LIFE_S)?;
        let leaf = server.signed_by(&server_key, &root_issuer)?.der().to_vec();
        Ok(Self {
            root,
            leaf,
            issuing,
            issuer: Issuer::new(issuing_params, issuing_key),
            lifetime: scenario.lifetime,
            capacity_per_s: scenario.capacity_per_s,
            away_until_ms: 0,
            second: 0,
            in_second: 0,
            answered: HashMap::new(),
            revoked: HashSet::new(),
            suspended: HashSet::new(),
            serial: 0,
            drop_answers: scenario.defect.drop_answers,
            accept_revoked: scenario.defect.accept_revoked,
            chance: Chance::new(scenario.seed, CHANCE_STREAM),
            book: Book::default(),
        })
    }

    pub(super) const fn is_up(&self, now_ms: u64) -> bool {
        now_ms >= self.away_until_ms
    }

    pub(super) fn revoke(&mut self, leaf: &[u8]) {
        self.revoked.insert(leaf.to_vec());
    }

    /// A suspended device gets nothing new.
    pub(super) fn suspend(&mut self, device: &str) {
        self.suspended.insert(device.to_owned());
    }

    /// Whether EST's TLS takes this certificate: a device whose time is over has to use its credential.
    pub(super) fn lets_renew(&self, leaf: &[u8], wall_s: u64) -> bool {
        let over = Certificate::parse(leaf).map_or(0, |leaf| leaf.validity.not_after.as_secs()) < wall_s;
        !over && !self.is_revoked(leaf)
    }

    pub(super) fn is_revoked(&self, leaf: &[u8]) -> bool {
        self.revoked.contains(leaf)
    }

    /// Whether the edge lets a holder of this certificate in.
    pub(super) fn lets_in(&mut self, leaf: &[u8], wall_s: u64) -> bool {
        let Ok(certificate) = Certificate::parse(leaf) else { return false };
        let Ok(issuing) = Certificate::parse(&self.issuing) else { return false };
        let valid = certificate.validity.not_before.as_secs() <= wall_s
            && wall_s <= certificate.validity.not_after.as_secs();
        let ours = certificate.issuer == issuing.subject
            && certificate.check_signature(&issuing.key, &ModelVerifier).is_ok();
        if self.is_revoked(leaf) {
            self.book.revoked_accepted += u64::from(self.accept_revoked);
            return self.accept_revoked && ours && valid;
        }
        ours && valid
    }

    /// Answers a whole request.
    pub(super) fn answer(&mut self, request: &[u8], client: Option<&[u8]>, now_ms: u64) -> Answer {
        let wall_s = START_S + now_ms / 1000;
        let second = now_ms / 1000;
        if second != self.second {
            (self.second, self.in_second) = (second, 0);
        }
        self.in_second += 1;
        self.book.fullest_second = self.book.fullest_second.max(self.in_second);
        let (status, fields, payload) = if self.in_second > self.capacity_per_s {
            (503, "Retry-After: 30\r\n".to_owned(), Vec::new())
        } else {
            self.respond(request, client, wall_s)
        };
        if status >= 400 {
            *self.book.refused.entry(status).or_default() += 1;
        }
        if self.drop_answers > 0.0 && self.chance.happens(self.drop_answers) {
            self.book.dropped += 1;
            return Answer::Lost;
        }
        Answer::Bytes(write(status, &fields, &payload, wall_s))
    }

    fn respond(&mut self, request: &[u8], client: Option<&[u8]>, wall_s: u64) -> (u16, String, Vec<u8>) {
        let pkcs7 = || "Content-Type: application/pkcs7-mime; smime-type=certs-only\r\n".to_owned();
        let refused = |status| (status, String::new(), Vec::new());
        let Some((head, body)) =
            std::str::from_utf8(request).ok().and_then(|text| text.split_once("\r\n\r\n"))
        else {
            return refused(400);
        };
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path.rsplit('/').next() {
            Some("cacerts") => (200, pkcs7(), certs_only(&[&self.issuing, &self.root])),
            Some("csrattrs") => (204, String::new(), Vec::new()),
            Some("simpleenroll") => {
                let Some(device) = basic_user(head) else {
                    return (401, "WWW-Authenticate: Basic realm=\"est\"\r\n".to_owned(), Vec::new());
                };
                self.enroll(&device, body, wall_s)
                    .map_or_else(refused, |leaf| (200, pkcs7(), certs_only(&[&leaf])))
            }
            Some("simplereenroll") => {
                let device = client.filter(|leaf| !self.is_revoked(leaf)).and_then(common_name);
                let Some(device) = device else { return refused(403) };
                self.enroll(&device, body, wall_s)
                    .map_or_else(refused, |leaf| (200, pkcs7(), certs_only(&[&leaf])))
            }
            _ => refused(404),
        }
    }

    fn enroll(&mut self, device: &str, body: &str, wall_s: u64) -> Result<Vec<u8>, u16> {
        if self.suspended.contains(device) {
            return Err(403);
        }
        let der = BASE64_STANDARD.decode(body.trim()).map_err(|_| 400_u16)?;
        let csr = CertificationRequest::parse(&der).map_err(|_| 400_u16)?;
        csr.check_signature(&ModelVerifier).map_err(|_| 400_u16)?;
        if let Some((earlier, answer)) = self.answered.get(device)
            && *earlier == der
        {
            self.book.repeated += 1;
            return Ok(answer.clone());
        }
        let leaf = self.issue(device, csr.key.bits, wall_s).map_err(|_| 500_u16)?;
        self.book.issued += 1;
        self.answered.insert(device.to_owned(), (der, leaf.clone()));
        Ok(leaf)
    }

    fn issue(&mut self, device: &str, point: &[u8], wall_s: u64) -> anyhow::Result<Vec<u8>> {
        self.serial += 1;
        let params = leaf(device, self.serial, wall_s, self.lifetime)?;
        Ok(params.signed_by(&Point(point), &self.issuer)?.der().to_vec())
    }
}

/// A leaf for a device by somebody who took the CA's name.
pub(super) fn foreign_leaf(key: &ModelKey, device: &str, wall_s: u64) -> anyhow::Result<Vec<u8>> {
    let issuer = Issuer::new(authority(ISSUING_NAME, BasicConstraints::Constrained(0))?, *key);
    Ok(leaf(device, 1, wall_s, Duration::from_secs(86_400))?.signed_by(key, &issuer)?.der().to_vec())
}

fn leaf(device: &str, serial: u64, wall_s: u64, lifetime: Duration) -> anyhow::Result<CertificateParams> {
    let mut params = named(device)?;
    params.serial_number =
        Some(SerialNumber::from_slice(&[&[0x40], serial.to_be_bytes().as_slice()].concat()));
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://model.test/device/{device}").try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, wall_s - 300, wall_s + lifetime.as_secs())?;
    Ok(params)
}

fn common_name(leaf: &[u8]) -> Option<String> {
    Some(Certificate::parse(leaf).ok()?.common_name()?.to_owned())
}

fn basic_user(head: &str) -> Option<String> {
    let field = head.lines().find_map(|line| line.strip_prefix("Authorization: Basic "))?;
    let pair = String::from_utf8(BASE64_STANDARD.decode(field.trim()).ok()?).ok()?;
    let (user, token) = pair.split_once(':')?;
    (token == token_of(user)).then(|| user.to_owned())
}

/// The model's tokens need no list.
pub(super) fn token_of(device: &str) -> String {
    format!("token-of-{device}")
}

fn write(status: u16, fields: &str, payload: &[u8], wall_s: u64) -> Vec<u8> {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(wall_s));
    if status == 204 {
        return format!("HTTP/1.1 204 No Content\r\nDate: {date}\r\n\r\n").into_bytes();
    }
    let body = BASE64_STANDARD.encode(payload);
    format!("HTTP/1.1 {status} X\r\nDate: {date}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn authority(name: &str, constraints: BasicConstraints) -> anyhow::Result<CertificateParams> {
    let mut params = named(name)?;
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, START_S - 86_400, START_S + AUTHORITY_LIFE_S)?;
    Ok(params)
}

fn named(name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, from_s: u64, to_s: u64) -> anyhow::Result<()> {
    params.not_before = OffsetDateTime::from_unix_timestamp(i64::try_from(from_s)?)?;
    params.not_after = OffsetDateTime::from_unix_timestamp(i64::try_from(to_s)?)?;
    Ok(())
}

/// A certs-only CMS message (RFC 7030 §4.1.3).
fn certs_only(certificates: &[&[u8]]) -> Vec<u8> {
    const SIGNED_DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
    const DATA: &[u8] = &[0x30, 11, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
    let inner = [&[0x02, 1, 1, 0x31, 0], DATA, &tlv(0xa0, &certificates.concat()), &[0x31, 0]].concat();
    tlv(0x30, &[SIGNED_DATA, &tlv(0xa0, &tlv(0x30, &inner))].concat())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|octet| *octet == 0).collect();
    let mut out = vec![tag];
    match significant.as_slice() {
        [] => out.push(0),
        [short @ 0..0x80] => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend(long);
        }
    }
    out.extend_from_slice(content);
    out
}

const ISSUING_NAME: &str = "Model Devices";
/// The server's name in the model.
pub(super) const SERVER_NAME: &str = "est.model.test";
/// Virtual time begins at 2026-10-01T00:00:00Z.
pub(super) const START_S: u64 = 1_790_812_800;
const AUTHORITY_LIFE_S: u64 = 20 * 366 * 86_400;
const CHANCE_STREAM: u64 = 3;
