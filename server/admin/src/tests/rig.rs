//! An account with its CAs in a temporary folder, a clock turned by hand, and the router before it.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use futures_util::FutureExt as _;
use futures_util::future::ready;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use muster_enroll::{
    AdmissionLimits, Authority, CaAlgorithm, Clock, FoundingPlan, KeyFolder, Metrics, Registrar, Settings,
    hash_secret,
};
use muster_policy::expression::{Field, Kind, Value};
use muster_policy::gate::{self, Gate};
use muster_policy::identity::{
    AccountId, CaId, CertificateId, KeyFingerprint, RequestKey, Serial, TokenId, ZoneId,
};
use muster_policy::network::Network;
use muster_policy::profile::{Approval, ProfileWritten};
use muster_policy::reason::Reason;
use muster_policy::rehearsal::{Rehearsed, Wish};
use muster_policy::time::UnixTime;
use muster_store::act::{
    AddCa, AddZone, BeginIssue, By, CreateAccount, CreateToken, KeyState, RemoveDocument, SetDocument,
    SetProfile,
};
use muster_store::record::{Account, Document, DocumentKind, Token, Zone};
use muster_store::{Ledger, Options};
use prometheus_client::registry::Registry;
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::sync::watch;
use tower::ServiceExt as _;
use zeroize::Zeroizing;

use crate::{Api, Hooks, OutboundSettings, Rehearse, WebhookSettings, crl_router, router};

pub(super) const SECRET: &str = "msl_local";
pub(super) const BACKUP: &str = "all of it";
pub(super) const CSR: &str = include_str!("data/meter-1.csr.pem");
pub(super) const CSR_WITHOUT_NAME: &str = include_str!("data/nameless.csr.pem");
pub(super) const MAKER: &str = include_str!("data/maker-ca.pem");
/// A CA whose subject is markup.
pub(super) const HOSTILE: &str = include_str!("data/hostile-ca.pem");
/// A CA whose key is elsewhere, and its own lists: openssl made them.
pub(super) const ELSEWHERE: &str = include_str!("data/elsewhere/ca.pem");
/// Its first list, of nothing.
pub(super) const EMPTY_LIST: &str = include_str!("data/elsewhere/empty.pem");
/// Its second, of one certificate.
pub(super) const LIST: &str = include_str!("data/elsewhere/one.pem");
/// A network that no request goes to.
pub(super) const DENIED: &str = "169.254.0.0/16";
pub(super) const LEAF: &str = include_str!("data/leaf.pem");

/// When the tests begin: 2026-11-25.
const START: Duration = Duration::from_secs(1_795_600_000);

pub(super) struct Rig {
    pub(super) account: String,
    api: Arc<Api>,
    /// Made once: the description of the API, which is a part of it, takes long.
    router: Router,
    registrar: Arc<Registrar>,
    seconds: Arc<AtomicU64>,
    zones_changed: Arc<AtomicUsize>,
    temp: TempDir,
}

/// Objects of an account that is not the server's.
pub(super) struct Other {
    pub(super) account: AccountId,
    pub(super) zone: ZoneId,
    pub(super) ca: CaId,
    pub(super) token: TokenId,
}

/// An answer of the JSON API.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: http::HeaderMap,
    pub(super) body: Json,
}

impl Answer {
    pub(super) fn code(&self) -> u64 {
        self.body["errors"][0]["code"].as_u64().unwrap_or_default()
    }

    pub(super) fn message(&self) -> &str {
        self.body["errors"][0]["message"].as_str().unwrap_or_default()
    }

    /// Which part of the request its error is about.
    pub(super) fn pointer(&self) -> &str {
        self.body["errors"][0]["source"]["pointer"].as_str().unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> String {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::with_edges(None).await
    }

    /// With edges that go by this change.
    pub(super) async fn with_edges(edge_is_at: Option<watch::Receiver<u64>>) -> Self {
        let temp = tempfile::tempdir().expect("a folder");
        let seconds = Arc::new(AtomicU64::new(0));
        let ticks = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || {
            SystemTime::UNIX_EPOCH + START + Duration::from_secs(ticks.load(Ordering::Relaxed))
        });
        let ledger = Ledger::create(&temp.path().join("ledger"), Options::default()).expect("a ledger");
        let account = AccountId::from_bytes([1; 16]);
        let by = By::system(clock.now());
        add_account(&ledger, account, "acme", &by).await;
        std::fs::create_dir(temp.path().join("keys")).expect("a folder");
        let keys = KeyFolder::new(temp.path().join("keys"), None);
        let plan = FoundingPlan { algorithm: CaAlgorithm::EcdsaP256, permitted_dns: Vec::new() };
        Authority::found(&ledger, account, &keys, &clock, &plan, by).await.expect("CAs");
        let authority = Authority::open(ledger.clone(), account, keys, clock.clone(), None).expect("open");
        let mut registry = Registry::with_prefix("muster");
        let metrics = Arc::new(Metrics::new(&mut registry));
        let settings = Settings {
            account,
            default_profile: "default".parse().expect("a label"),
            first_window: Duration::from_secs(86_400),
            renewal_window: Duration::from_secs(3_600),
            approval_retry: Duration::from_secs(60),
            approvals_max: 10,
            admission: AdmissionLimits::default(),
        };
        let registrar = Arc::new(Registrar::new(ledger, Arc::new(authority), clock, metrics, settings));
        let zones_changed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&zones_changed);
        let hooks = Hooks {
            edge_is_at,
            edge_figures: None,
            edge_connections: Some(Arc::new(|filter| ready(super::connections::connected(&filter)).boxed())),
            close_connections: Some(Arc::new(|filter| {
                ready(super::connections::connected(&filter).total).boxed()
            })),
            outbound: outbound_settings(),
            webhooks: webhook_settings(),
            rehearse: Some(rehearse(Arc::clone(&registrar))),
            est_url: Some("https://est.example.com:8443".to_owned()),
            backup: Arc::new(|| ready(backup()).boxed()),
            zones_changed: Arc::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }),
        };
        let secret = Zeroizing::new(SECRET.to_owned());
        let api = Api::new(Arc::clone(&registrar), registry, secret, Duration::from_secs(86_400), hooks);
        let (account, api) = (account.to_string(), Arc::new(api));
        let router = router(Arc::clone(&api));
        Self { account, api, router, registrar, seconds, zones_changed, temp }
    }

    /// Turns the clock on.
    pub(super) fn advance(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(super) fn api(&self) -> Arc<Api> {
        Arc::clone(&self.api)
    }

    pub(super) fn ledger(&self) -> &Ledger {
        self.registrar.ledger()
    }

    pub(super) fn now(&self) -> UnixTime {
        self.registrar.clock().now()
    }

    /// Every octet of the ledger's file.
    pub(super) fn file(&self) -> Vec<u8> {
        std::fs::read(self.temp.path().join("ledger")).expect("the ledger")
    }

    /// How many keys are kept in files.
    pub(super) fn key_files(&self) -> usize {
        std::fs::read_dir(self.temp.path().join("keys")).expect("a folder").count()
    }

    pub(super) fn zones_changed(&self) -> usize {
        self.zones_changed.load(Ordering::Relaxed)
    }

    /// A path of Muster's own.
    pub(super) fn own(&self, path: &str) -> String {
        format!("/accounts/{}/muster{path}", self.account)
    }

    pub(super) fn router(&self) -> Router {
        self.router.clone()
    }

    pub(super) async fn raw(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        text: &str,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(format!("/client/v4{path}"));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::from(text.to_owned())).expect("a request");
        self.router().oneshot(request).await.expect("an answer")
    }

    pub(super) async fn send_as(&self, token: Option<&str>, method: &str, path: &str, text: &str) -> Answer {
        answer(self.raw(token, method, path, text).await).await
    }

    pub(super) async fn send(&self, method: &str, path: &str, text: &str) -> Answer {
        self.send_as(Some(SECRET), method, path, text).await
    }

    pub(super) async fn send_typed(&self, media_type: &str, method: &str, path: &str, text: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/client/v4{path}"))
            .header("authorization", format!("Bearer {SECRET}"))
            .header("content-type", media_type)
            .body(Body::from(text.to_owned()));
        answer(self.router().oneshot(request.expect("a request")).await.expect("an answer")).await
    }

    /// Takes a group away past the check for who uses it, as a race might.
    pub(super) async fn remove_group(&self, id: &str) {
        let (account, by) = (self.registrar.account(), By::system(self.registrar.clock().now()));
        let (kind, id) = (DocumentKind::AccessGroup, id.parse().expect("an id"));
        let remove = RemoveDocument { account, kind, id, instead_of: None, by };
        self.registrar.ledger().transact(remove).await.expect("it was there");
    }

    /// Stores a text that the API would not take.
    pub(super) async fn put_document(&self, kind: DocumentKind, id: u8, text: &str) {
        let by = By::system(self.registrar.clock().now());
        let document = Document {
            id: CaId::from_bytes([id; 16]),
            account: self.registrar.account(),
            zone: None,
            kind,
            text: text.to_owned(),
            revision: 0,
            created_at: by.at,
            changed_at: by.at,
        };
        let set = SetDocument { document, instead_of: None, by };
        self.registrar.ledger().transact(set).await.expect("stored");
    }

    /// What the edge would be told to judge requests by.
    pub(super) fn gate(&self) -> gate::GateWritten {
        let reader = self.registrar.ledger().reader().expect("open");
        crate::gate(&reader, self.registrar.account()).expect("reads")
    }

    pub(super) async fn send_with(
        &self,
        headers: &[(&str, &str)],
        method: &str,
        path: &str,
        text: &str,
    ) -> Answer {
        let bearer = format!("Bearer {SECRET}");
        let headers = [&[("authorization", bearer.as_str())], headers].concat();
        self.send_as_with(&headers, method, path, text).await
    }

    /// The headers say who the caller is.
    pub(super) async fn send_as_with(
        &self,
        headers: &[(&str, &str)],
        method: &str,
        path: &str,
        text: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/client/v4{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(text.to_owned())).expect("a request");
        answer(self.router().oneshot(request).await.expect("an answer")).await
    }

    /// The result of a GET that must succeed.
    pub(super) async fn get(&self, path: &str) -> Json {
        let answer = self.send("GET", &self.own(path), "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.message());
        answer.body["result"].clone()
    }

    /// The result of a POST that must succeed.
    pub(super) async fn post(&self, path: &str, body: Json) -> Json {
        let answer = self.send("POST", &self.own(path), &body.to_string()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path} {body}: {}", answer.message());
        answer.body["result"].clone()
    }

    pub(super) async fn edit(&self, device: &str, body: Json) -> Answer {
        self.send("PATCH", &self.own(&format!("/devices/{device}")), &body.to_string()).await
    }

    /// A public path, without a token.
    pub(super) async fn conditional(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router().oneshot(request.body(Body::empty()).expect("a request")).await.expect("an answer")
    }

    pub(super) async fn plain(&self, path: &str) -> (StatusCode, String) {
        let response = self.conditional(path, &[]).await;
        (response.status(), body(response).await)
    }

    /// What the public listener answers.
    pub(super) async fn public(&self, path: &str) -> StatusCode {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        crl_router(Arc::clone(&self.api)).oneshot(request).await.expect("an answer").status()
    }

    /// Puts a request of a device before the operator; returns its key.
    pub(super) async fn waiting_request(&self, device: &str) -> String {
        let ca = self.api.registrar().authority().trust().issuing.as_ref().expect("a CA").id;
        let key = RequestKey::from_bytes([7; 32]);
        let begin = BeginIssue {
            request: key,
            account: self.registrar.account(),
            certificate: CertificateId::new(1, [0; 10]),
            serial: Serial::from_bytes(&[1]).expect("a serial"),
            ca,
            device: device.parse().expect("an id"),
            profile: "default".parse().expect("a label"),
            key_fingerprint: KeyFingerprint::from_bytes([3; 32]),
            key: KeyState::Made,
            token: None,
            replaces: None,
            approval: Approval::Manual,
            waiting_max: 10,
            csr_der: pem::parse(CSR).expect("PEM").into_contents(),
            source: Some("192.0.2.1".to_owned()),
            repeat_for: Duration::from_secs(60),
            by: By::system(self.registrar.clock().now()),
        };
        self.registrar.ledger().transact(begin).await.expect("it waits");
        key.to_string()
    }

    /// An account beside the server's own, with one object of each kind.
    pub(super) async fn other_account(&self) -> Other {
        let ledger = self.registrar.ledger();
        let by = By::system(self.registrar.clock().now());
        let account = AccountId::from_bytes([2; 16]);
        add_account(ledger, account, "other", &by).await;
        let zone = ZoneId::from_bytes([9; 16]);
        let name = "other.example".parse().expect("a name");
        let added = Zone::new(zone, account, name, by.at);
        ledger.transact(AddZone { zone: added, by: by.clone() }).await.expect("a zone");
        let own = ledger.reader().and_then(|reader| reader.cas(self.registrar.account())).expect("CAs");
        let mut ca = own.first().expect("one").clone();
        ca.id = CaId::new(5, [5; 10]);
        ca.account = account;
        let ca_id = ca.id;
        ledger.transact(AddCa { ca, by: by.clone() }).await.expect("a CA");
        let id = TokenId::new(6, [6; 10]);
        let token = Token {
            id,
            account,
            hash: hash_secret("x"),
            device: None,
            key: None,
            profile: None,
            uses_allowed: 1,
            uses_taken: 0,
            waiting: 0,
            expires_at: by.at.plus(Duration::from_secs(60)),
            revoked_at: None,
            created_at: by.at,
            last_used_at: None,
        };
        ledger.transact(CreateToken { token, by }).await.expect("a token");
        Other { account, zone, ca: ca_id, token: id }
    }
}

fn backup() -> std::io::Result<std::fs::File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(BACKUP.as_bytes())?;
    std::io::Seek::rewind(&mut file)?;
    Ok(file)
}

fn outbound_settings() -> OutboundSettings {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let denied_networks = DENIED.parse::<Network>().into_iter().collect();
    OutboundSettings { tls: Arc::new(tls), loopback_http: true, denied_networks }
}

fn webhook_settings() -> WebhookSettings {
    WebhookSettings {
        secret: Zeroizing::new(vec![7; 32]),
        first_pause: Duration::from_millis(5),
        attempts: 3,
    }
}

/// An edge that knows rules and Access alone: whoever comes has no certificate.
fn rehearse(registrar: Arc<Registrar>) -> Rehearse {
    Arc::new(move |rehearsal| {
        let reader = registrar.ledger().reader().expect("open");
        let gate = Gate::new(&crate::gate(&reader, registrar.account()).expect("reads"));
        let zones = reader.zones(registrar.account()).expect("reads");
        let Some(zone) = zones.first() else { return Rehearsed::refused(Reason::HostUnknown, None) };
        let Wish::Https { target, .. } = &rehearsal.wish else {
            return Rehearsed::refused(Reason::ProtocolNotOffered, None);
        };
        let visit = gate::Visit {
            zone: zone.id,
            host: &rehearsal.host,
            path: target,
            holder: None,
            source: rehearsal.source,
        };
        let judgement = gate.judge(&visit, &|field| match field {
            Field::UriPath => Value::Text(target.clone().into()),
            other if other.kind() == Kind::Bool => Value::Bool(false),
            other if other.kind() == Kind::Number => Value::Number(0),
            other if other.kind() == Kind::Ip => Value::Ip(rehearsal.source),
            _ => Value::Text("".into()),
        });
        Rehearsed { verdict: judgement.verdict, device: None, judgement: Some(judgement) }
    })
}

async fn add_account(ledger: &Ledger, id: AccountId, name: &str, by: &By) {
    let account = Account {
        id,
        name: name.parse().expect("a title"),
        trust_domain: "acme.example".parse().expect("a trust domain"),
        created_at: by.at,
    };
    ledger.transact(CreateAccount { account, by: by.clone() }).await.expect("an account");
    let label = "default".parse().expect("a label");
    let profile = SetProfile { account: id, label, written: ProfileWritten::default(), by: by.clone() };
    ledger.transact(profile).await.expect("a profile");
}

async fn answer(response: Response<Body>) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    let text = body(response).await;
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {error}: {text}"));
    Answer { status, headers, body }
}

pub(super) async fn body(response: Response<Body>) -> String {
    let octets = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8_lossy(&octets).into_owned()
}
