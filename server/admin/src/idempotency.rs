//! `Idempotency-Key` on POST: a repeat of the same request gets the answer of the first
//! (draft-ietf-httpapi-idempotency-key-header-07).
//!
//! Keys belong to the bearer token that sent them, and are remembered for a day in the ledger. Like every
//! change, a request under a key is carried through even when its client goes away ([`crate::carry`]): the
//! answer is what the client comes back for. Only answers of success are kept: whatever was refused or failed is
//! carried out anew. Answers may hold secrets that are shown once, so what is stored is sealed with a
//! key made of the bearer token, which the ledger does not hold.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::hmac;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use muster_enroll::hash_secret;
use muster_policy::identity::{RequestKey, SecretHash};
use muster_store::Error as LedgerError;
use muster_store::act::{BeginKeyed, EndKeyed, Keyed};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{ApiError, CODE_KEY_BEGUN, CODE_KEY_DIFFERS, CODE_KEY_IN_USE};
use crate::{Api, auth, request};

const POINTER: &str = "/Idempotency-Key";
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is that of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Longest key.
const KEY_MAX_BYTES: usize = 255;
/// Largest answer that is kept: that of an import of 10,000 devices is about half of it.
const ANSWER_MAX_BYTES: usize = 2 << 20;
/// Sets what is sealed here apart from anything else a token might seal.
const SEAL_LABEL: &[u8] = b"muster idempotency-key 1";

/// The keys whose requests are being carried out by this process.
#[derive(Default)]
pub(crate) struct UnderWay(Mutex<BTreeSet<(SecretHash, SecretHash)>>);

/// A key that is taken while its request is carried out.
struct Taken {
    api: Arc<Api>,
    of: (SecretHash, SecretHash),
}

impl Taken {
    fn take(api: &Arc<Api>, of: (SecretHash, SecretHash)) -> Result<Self, ApiError> {
        let is_free = api.keys_under_way().lock().insert(of);
        is_free.then(|| Self { api: Arc::clone(api), of }).ok_or_else(in_use)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.api.keys_under_way().lock().remove(&self.of);
    }
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<(SecretHash, SecretHash)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries a POST with a key out once.
pub(crate) async fn once(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if *request.method() != Method::POST || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    // The dashboard calls without a bearer token, and without a key.
    let Some(token) = auth::bearer(request.headers()) else { return next.run(request).await };
    let token = Zeroizing::new(token.to_owned());
    let answer = match Job::read(&api, &token, request).await {
        Ok(job) => job.carry_out(next).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// A request under a key.
struct Job {
    request: Request,
    hash: RequestKey,
    seal: Seal,
    taken: Taken,
}

impl Job {
    /// Reads the whole request; refuses when one of its key is under way.
    async fn read(api: &Arc<Api>, token: &str, request: Request) -> Result<Self, ApiError> {
        let key = key(&request)?;
        let (parts, body) = request.into_parts();
        let body = request::collect(body).await?;
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let hash = hash_request(parts.method.as_str(), target, &body);
        let taken = Taken::take(api, (hash_secret(token), hash_secret(&key)))?;
        let seal = Seal::new(token, &key, hash);
        Ok(Self { request: Request::from_parts(parts, Body::from(body)), hash, seal, taken })
    }

    /// Carries the request out, or repeats its answer.
    async fn carry_out(self, next: Next) -> Result<Response, ApiError> {
        let Self { request, hash, seal, taken } = self;
        let (ledger, (token, key)) = (taken.api.registrar().ledger(), taken.of);
        let begin = BeginKeyed { token, key, request: hash, now: taken.api.now() };
        match ledger.transact(begin).await.map_err(ledger_error)? {
            Keyed::New => {}
            Keyed::Answered(sealed) => return Ok(seal.open(sealed)?.into_response()),
            Keyed::Differs => return Err(differs()),
            Keyed::Begun => return Err(cut_off()),
        }
        let (response, answer) = kept(next.run(request).await).await?;
        let answer = answer.map(|answer| seal.close(&answer)).transpose()?;
        if let Err(error) = ledger.transact(EndKeyed { token, key, answer }).await {
            tracing::error!(%error, "the answer to a request with an Idempotency-Key can't be kept");
        }
        Ok(response)
    }
}

fn in_use() -> ApiError {
    let message = "a request with this Idempotency-Key is being carried out";
    ApiError { retry_after_s: Some(1), ..ApiError::conflict(message).coded(CODE_KEY_IN_USE).at(POINTER) }
}

fn differs() -> ApiError {
    let message = "this Idempotency-Key was used for another request; take a new one for each";
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, CODE_KEY_DIFFERS, message).at(POINTER)
}

fn cut_off() -> ApiError {
    let message = "a request with this Idempotency-Key was cut off before its answer was known; look whether \
                   it was carried out, and repeat it with a new key if not";
    ApiError::conflict(message).coded(CODE_KEY_BEGUN).at(POINTER)
}

/// The key of exactly one well-formed header: bare, or as the quoted string that the draft wants.
fn key(request: &Request) -> Result<String, ApiError> {
    let wrong = || {
        let message = format!("Idempotency-Key: one header of 1 to {KEY_MAX_BYTES} printable characters");
        ApiError::argument(POINTER, message)
    };
    let mut values = request.headers().get_all(KEY).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(wrong()) };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let printable = bare.bytes().all(|octet| octet.is_ascii_graphic());
    let sound = printable && (1..=KEY_MAX_BYTES).contains(&bare.len());
    if sound { Ok(bare.to_owned()) } else { Err(wrong()) }
}

/// What makes two requests the same: method, path with query, and the octets of the body.
pub(crate) fn hash_request(method: &str, target: &str, body: &[u8]) -> RequestKey {
    let mut context = digest::Context::new(&SHA256);
    for part in [method.as_bytes(), target.as_bytes(), body] {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    RequestKey::from_bytes(hash)
}

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    etag: Option<String>,
    /// None when it was too large.
    body: Option<String>,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let Some(body) = self.body else {
            let message =
                "the request of this Idempotency-Key was carried out; its answer was too large to keep";
            return ApiError::conflict(message).coded(CODE_KEY_BEGUN).at(POINTER).into_response();
        };
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let json = HeaderValue::from_static("application/json");
        let mut response = (status, [(CONTENT_TYPE, json)], body).into_response();
        let headers = response.headers_mut();
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        if let Some(etag) = self.etag.and_then(|etag| HeaderValue::from_str(&etag).ok()) {
            headers.insert(ETAG, etag);
        }
        response
    }
}

/// Reads what of an answer is kept; none for what is to be carried out anew.
async fn kept(response: Response) -> Result<(Response, Option<Answer>), ApiError> {
    if !response.status().is_success() {
        return Ok((response, None));
    }
    let (parts, body) = response.into_parts();
    // Answers to POST are whole JSON texts in memory.
    let octets = body.collect().await.map_err(ApiError::internal)?.to_bytes();
    let etag = parts.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
    let body = String::from_utf8(octets.to_vec()).ok().filter(|body| body.len() <= ANSWER_MAX_BYTES);
    let answer = Answer { status: parts.status.as_u16(), etag, body };
    Ok((Response::from_parts(parts, Body::from(octets)), Some(answer)))
}

/// Seals and opens the answer to one request.
struct Seal {
    key: Zeroizing<[u8; 32]>,
    request: RequestKey,
}

impl Seal {
    fn new(token: &str, key: &str, request: RequestKey) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes()));
        context.update(SEAL_LABEL);
        context.update(key.as_bytes());
        let mut octets = Zeroizing::new([0; 32]);
        octets.copy_from_slice(context.sign().as_ref());
        Self { key: octets, request }
    }

    fn aead(&self) -> Result<RandomizedNonceKey, ApiError> {
        RandomizedNonceKey::new(&AES_256_GCM, &*self.key).map_err(ApiError::internal)
    }

    fn close(&self, answer: &Answer) -> Result<Vec<u8>, ApiError> {
        let mut text = serde_json::to_vec(answer).map_err(ApiError::internal)?;
        let aad = Aad::from(self.request.as_bytes());
        let nonce = self
            .aead()?
            .seal_in_place_append_tag(aad, &mut text)
            .map_err(|_| ApiError::internal("sealing"))?;
        Ok([nonce.as_ref().as_slice(), &text].concat())
    }

    fn open(&self, mut sealed: Vec<u8>) -> Result<Answer, ApiError> {
        let broken = || ApiError::internal("a kept answer can't be opened");
        let (nonce, text) = sealed.split_at_mut_checked(NONCE_LEN).ok_or_else(broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let aad = Aad::from(self.request.as_bytes());
        let text = self.aead()?.open_in_place(nonce, aad, text).map_err(|_| broken())?;
        serde_json::from_slice(text).map_err(ApiError::internal)
    }
}

fn ledger_error(error: LedgerError<core::convert::Infallible>) -> ApiError {
    match error {
        LedgerError::Refused(never) => match never {},
        LedgerError::Internal => LedgerError::Internal.into(),
        LedgerError::Overloaded => LedgerError::Overloaded.into(),
        LedgerError::Unavailable(what) => LedgerError::Unavailable(what).into(),
    }
}
