//! Answers EST operations: route, admit, prove, read, issue, write.
//!
//! Who asks is settled before the body is parsed (RFC 7030 §3.2.3), and every refusal passes one
//! place, which counts it, logs it, audits it and writes it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method, Request};
use hyper::body::Incoming;
use muster_ca::csr::Csr;
use muster_policy::name::{DeviceId, Label};
use muster_policy::profile::{ChannelBinding, Profile};
use muster_policy::reason::{Fault, Reason, Refusal};
use muster_store::Reader;
use muster_store::record::Certificate;
use subtle::ConstantTimeEq;
use tracing::Instrument as _;

use super::answer::{self, Answer};
use super::connection::{Connection, read_body};
use super::credentials::Presented;
use super::path::{EstPath, Operation};
use super::tls::EXPORTER_BYTES;
use crate::admission::TooOften;
use crate::caller::{Proof, prove_first, prove_renewal};
use crate::encoding::{Lines, decode_request};

use crate::presentation::{Presentation, judge};
use crate::registrar::{KeySource, Order, Outcome, Registrar};
use crate::secret::random;

/// What clients that read only wrapped base64 call themselves.
const WRAPPING_AGENT: &str = "libest";
/// base64 of the exporter value.
const BINDING_TEXT_BYTES: usize = EXPORTER_BYTES.div_ceil(3) * 4;

/// The EST operations over one registrar.
pub(crate) struct EstService {
    pub(crate) registrar: Arc<Registrar>,
}

/// A refusal on its way out.
struct Refused {
    refusal: Refusal,
    retry_after: Option<Duration>,
    /// The device, where its identity was proven.
    device: Option<DeviceId>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, retry_after: None, device: None }
    }
}

impl From<TooOften> for Refused {
    fn from(too_often: TooOften) -> Self {
        Self { refusal: too_often.refusal, retry_after: Some(too_often.retry_after), device: None }
    }
}

impl From<muster_store::Fault> for Refused {
    fn from(fault: muster_store::Fault) -> Self {
        tracing::error!(%fault, "the ledger can't be read");
        Refusal::new(Reason::LedgerUnavailable, "/").into()
    }
}

impl EstService {
    /// Answers one request; never fails.
    pub(crate) async fn answer(&self, request: Request<Incoming>, connection: &Connection) -> Answer {
        let Some(path) = EstPath::parse(request.uri().path()) else { return answer::not_found() };
        let operation = path.operation;
        if !operation.allows(request.method()) {
            return answer::method_not_allowed(operation.allow());
        }
        let id = new_request_id();
        let takes_no_text = takes_no_text(request.headers());
        let span = tracing::info_span!("est", request = id, operation = operation.as_str());
        let answer = match self.operate(path, request, connection).instrument(span).await {
            Ok(answer) => answer,
            Err(refused) => {
                let answer = self.refuse(operation, &refused, connection.source, &id);
                let is_challenge = refused.refusal.reason == Reason::CredentialsMissing;
                if is_challenge && takes_no_text { answer::without_text(answer) } else { answer }
            }
        };
        self.registrar.metrics().answered(operation, answer.status());
        answer::with_request_id(answer, &id)
    }

    async fn operate(
        &self,
        path: EstPath,
        request: Request<Incoming>,
        connection: &Connection,
    ) -> Result<Answer, Refused> {
        self.registrar.admission().admit_source(connection.source)?;
        let reader = self.registrar.reader()?;
        let profile = self.profile(&reader, path.label.as_ref())?;
        let lines = lines_for(request.headers(), &profile);
        match path.operation {
            Operation::CaCerts => {
                let trust = self.registrar.authority().trust();
                Ok(bodiless(request.method(), answer::ca_certificates(&trust.ca_certificates, lines)))
            }
            Operation::CsrAttrs => {
                let profile = match &path.label {
                    Some(_) => profile,
                    None => self.shown_profile(&reader, connection)?.unwrap_or(profile),
                };
                let lines = lines_for(request.headers(), &profile);
                let der = muster_ca::csr_attributes::csr_attributes(&profile);
                Ok(bodiless(request.method(), answer::csr_attributes(der.as_deref(), lines)))
            }
            Operation::FullCmc => Err(Refusal::new(Reason::CmcUnsupported, "/").into()),
            Operation::SimpleEnroll | Operation::SimpleReenroll | Operation::ServerKeygen => {
                let proof = self.prove(&reader, path.operation, request.headers(), connection)?;
                let profile = match &path.label {
                    Some(_) => profile,
                    None => self.proven_profile(&reader, &proof)?.unwrap_or(profile),
                };
                if path.operation == Operation::ServerKeygen && !profile.server_keygen {
                    return Err(Refusal::new(Reason::ServerKeygenOff, "/").into());
                }
                let lines = lines_for(request.headers(), &profile);
                // The body may be long in coming, and a snapshot keeps old pages from being used again.
                drop(reader);
                self.enroll(path.operation, profile, lines, request, connection, proof).await
            }
        }
    }

    fn profile(&self, reader: &Reader, label: Option<&Label>) -> Result<Profile, Refused> {
        let label = label.unwrap_or_else(|| self.registrar.default_profile());
        let profile = self.registrar.profile_in(reader, label)?;
        profile.ok_or_else(|| Refusal::new(Reason::ProfileUnknown, "/path/label").with_detail(label).into())
    }

    fn proven_profile(&self, reader: &Reader, proof: &Proof) -> Result<Option<Profile>, Refused> {
        match proof {
            Proof::Holder(certificate) => self.own_profile(reader, certificate),
            Proof::Manufacturer { .. } | Proof::Token(_) => Ok(None),
        }
    }

    /// The profile by which the certificate of the connection renews. Clients make the request as csrattrs tells them,
    /// so what is told has to be what the request is judged by.
    fn shown_profile(&self, reader: &Reader, connection: &Connection) -> Result<Option<Profile>, Refused> {
        match self.judge(reader, connection)? {
            Presentation::Device(certificate) => self.own_profile(reader, &certificate),
            Presentation::Manufacturer { .. } | Presentation::Nothing | Presentation::Refused(_) => Ok(None),
        }
    }

    /// The profile that a certificate renews under where the path names none: its own, while that exists. What the
    /// default profile asks is asked of first enrollments, and must not end the renewals of a fleet.
    fn own_profile(&self, reader: &Reader, certificate: &Certificate) -> Result<Option<Profile>, Refused> {
        Ok(self.registrar.profile_in(reader, &certificate.profile)?)
    }

    fn judge(&self, reader: &Reader, connection: &Connection) -> Result<Presentation, Refused> {
        let trust = self.registrar.authority().trust();
        Ok(judge(&connection.tls, &connection.path, &trust, reader, self.registrar.now())?)
    }

    async fn enroll(
        &self,
        operation: Operation,
        profile: Profile,
        lines: Lines,
        request: Request<Incoming>,
        connection: &Connection,
        proof: Proof,
    ) -> Result<Answer, Refused> {
        let device = proof.device().cloned();
        self.enroll_proven(operation, profile, lines, request, connection, proof)
            .await
            .map_err(|refused| Refused { device, ..refused })
    }

    /// The rest of it, once it is known who asks.
    async fn enroll_proven(
        &self,
        operation: Operation,
        profile: Profile,
        lines: Lines,
        request: Request<Incoming>,
        connection: &Connection,
        proof: Proof,
    ) -> Result<Answer, Refused> {
        let started = Instant::now();
        self.registrar.admission().admit_proven(self.registrar.account(), proof.device())?;
        check_media_type(request.headers())?;
        let body = read_body(request).await?;
        let csr_der = decode_request(&body)?;
        let csr = Csr::parse(&csr_der)?;
        check_channel_binding(&csr, &profile, connection.tls.exporter.as_ref())?;
        let key = match operation {
            Operation::ServerKeygen if csr.asks_encrypted_key() => {
                return Err(Refusal::new(Reason::ServerKeygenEncryptionUnsupported, "/csr/attributes").into());
            }
            Operation::ServerKeygen => KeySource::Server,
            _ => KeySource::Device,
        };
        let identified = proof.identify(&csr, &profile, self.registrar.now())?;
        let order =
            Order { csr, csr_der, identified, profile, key, source: Some(connection.source), client: None };
        match self.registrar.issue(order).await? {
            Outcome::Issued(issued) => {
                self.registrar.metrics().issued(operation, started.elapsed().as_secs_f64());
                let certificate = &issued.certificate;
                tracing::info!(
                    device = %certificate.device, serial = %certificate.serial, profile = %certificate.profile,
                    not_after = %certificate.not_after, source = %connection.source, "issued"
                );
                let cms = muster_ca::bundle::certs_only(&[&issued.certificate.der]);
                let (renewal, dropped) = (issued.certificate.renewal, &issued.dropped);
                Ok(match &issued.private_key {
                    None => answer::certificate(&cms, lines, renewal, dropped),
                    Some(pkcs8) => answer::key_and_certificate(pkcs8, &cms, lines, renewal, dropped),
                })
            }
            Outcome::Waiting => Ok(answer::waiting(self.registrar.approval_retry())),
        }
    }

    /// Settles who asks; wrong credentials are counted against the address, right ones never are.
    fn prove(
        &self,
        reader: &Reader,
        operation: Operation,
        headers: &HeaderMap,
        connection: &Connection,
    ) -> Result<Proof, Refused> {
        let presentation = self.judge(reader, connection)?;
        let account = self.registrar.account();
        let proof = match operation {
            Operation::SimpleReenroll => prove_renewal(presentation),
            _ => prove_first(Presented::from_headers(headers), presentation, account, reader)?,
        };
        if let Err(refusal) = &proof
            && refusal.reason.fault() == Fault::Authentication
            && refusal.reason != Reason::CredentialsMissing
        {
            self.registrar.admission().admit_guess(connection.source)?;
        }
        Ok(proof?)
    }

    fn refuse(&self, operation: Operation, refused: &Refused, source: IpAddr, id: &str) -> Answer {
        let Refused { refusal, retry_after, device } = refused;
        let device = device.clone();
        self.registrar.metrics().refused(operation, refusal.reason);
        tracing::info!(
            request = id, operation = operation.as_str(), %source, reason = refusal.reason.code(),
            field = refusal.field, detail = refusal.detail.as_deref(), "refused"
        );
        self.registrar.note_refusal(refusal, device, source, id);
        answer::refusal(refusal, *retry_after)
    }
}

/// Names a request in answer, log and audit; random, so that it tells nothing of others.
fn new_request_id() -> String {
    random::<8>().unwrap_or_default().iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Whether the client does not get past a challenge that has a text, as Bouncy Castle's (1.72), which gives no name. Its
/// requests begin with a header that others send later.
fn takes_no_text(headers: &HeaderMap) -> bool {
    !headers.contains_key(USER_AGENT) && headers.keys().next() == Some(&CONNECTION)
}

/// RFC 9110 §9.3.2: a HEAD has the head of the GET; hyper drops the body by itself and keeps the length.
fn bodiless(method: &Method, answer: Answer) -> Answer {
    if *method == Method::HEAD {
        let length = hyper::body::Body::size_hint(answer.body()).exact().unwrap_or(0);
        let mut head = answer.map(|_| http_body_util::Full::new(Bytes::new()));
        head.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
        return head;
    }
    answer
}

fn lines_for(headers: &HeaderMap, profile: &Profile) -> Lines {
    let agent = headers.get(USER_AGENT).map(|value| value.as_bytes()).unwrap_or_default();
    if profile.wrap_base64 || agent.starts_with(WRAPPING_AGENT.as_bytes()) {
        Lines::Wrapped
    } else {
        Lines::One
    }
}

/// RFC 7030 §4.2.1: the type is compared without case and without parameters.
fn check_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let wrong = Refusal::new(Reason::MediaTypeWrong, "/content-type");
    let Some(value) = headers.get(CONTENT_TYPE) else { return Err(wrong.with_detail("none given")) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/pkcs10") { Ok(()) } else { Err(wrong.with_detail(text)) }
}

/// Holds the challengePassword against the tls-exporter value of this connection (RFC 7030 §3.5, RFC 9266).
fn check_channel_binding(
    csr: &Csr,
    profile: &Profile,
    exporter: Option<&[u8; EXPORTER_BYTES]>,
) -> Result<(), Refusal> {
    const FIELD: &str = "/csr/attributes/challengePassword";
    let challenge = match (profile.channel_binding, csr.challenge_password()) {
        (ChannelBinding::Off, _) | (ChannelBinding::Verify, None) => return Ok(()),
        (ChannelBinding::Required, None) => return Err(Refusal::new(Reason::ChannelBindingMissing, FIELD)),
        (ChannelBinding::Required | ChannelBinding::Verify, Some(challenge)) => challenge,
    };
    let exporter = exporter.ok_or_else(|| Refusal::new(Reason::ChannelBindingUnavailable, FIELD))?;
    let expected = crate::encoding::encode_answer(exporter, Lines::One);
    let expected = expected.get(..BINDING_TEXT_BYTES).unwrap_or(&expected);
    if challenge.as_bytes().ct_eq(expected.as_bytes()).into() {
        Ok(())
    } else {
        Err(Refusal::new(Reason::ChannelBindingMismatch, FIELD))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn media_type(value: &'static str) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
        check_media_type(&headers)
    }

    #[test]
    fn compares_media_types_without_case_and_parameters() {
        assert!(media_type("Application/PKCS10; charset=x").is_ok());
        for wrong in ["", "application/pkcs7-mime", "application/pkcs10x", "text/plain"] {
            assert!(media_type(wrong).is_err(), "{wrong}");
        }
        assert!(check_media_type(&HeaderMap::new()).is_err());
    }
}
