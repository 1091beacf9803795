//! The servers behind a hostname, and the connections to them.
//!
//! Each hostname has a pool of its own: connections that carry its or its account's certificate,
//! or were checked against one hostname's pins, serve nobody else. Origins are taken in turn; one
//! that could not be reached is left alone for a while.
//!
//! Origins are spoken to in HTTP/1.1 alone, by choice. A connection carries one request at a time, so a
//! large answer to one device holds up no other's, and an origin that breaks off breaks one request;
//! WebSockets go the same way; and `Host` can stay what the client asked for while the connection goes to
//! the origin's own name, which RFC 9113 §8.3.1 makes one in h2. What it costs is gRPC, which is h2 only.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use muster_departure::Departure;
use muster_policy::name::Hostname;
use muster_policy::network::DeniedNetworks;
use muster_policy::reason::Reason;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

use super::body::{BodyError, RequestBody};
use super::connector::Timed;
use crate::hosts::Account;
use crate::snapshot::OriginTls;

/// How long connecting to an origin may take, the look-up of its name and its TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an origin that could not be reached is left alone, while there are others.
const AVOIDED_FOR: Duration = Duration::from_secs(5);
/// Below the idle time of common servers (nginx: 75 s, Apache: 5 s is met by a retry).
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections kept per origin.
const POOL_MAX_IDLE: usize = 64;
/// How long an origin may be silent before the system asks whether it is there, and how often until it is gone:
/// an answer or a WebSocket may be silent for hours, and so is a machine that lost its power.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_PROBES: u32 = 4;
/// How long an origin may take nothing of what is sent to it (RFC 5482), as clients may.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// As much of a head as is read from clients.
const HEAD_MAX_BYTES: usize = 64 * 1024;

/// What pools are made with.
pub(crate) struct OriginMaker {
    pub(crate) provider: Arc<CryptoProvider>,
    /// The CAs that the machine trusts.
    pub(crate) machine_roots: Arc<RootCertStore>,
    /// Where no connection is made to.
    pub(crate) denied: DeniedNetworks,
}

impl OriginMaker {
    /// The origins of a hostname, which are shown `own` before the certificate of the account.
    ///
    /// # Errors
    /// What is wrong with the URLs or pins, in words for an operator.
    pub(crate) fn origins(
        &self,
        urls: &[String],
        tls: &OriginTls,
        own: Option<Arc<CertifiedKey>>,
        account: &Arc<Account>,
    ) -> Result<Origins, String> {
        let endpoints = urls.iter().map(|url| Endpoint::parse(url)).collect::<Result<Vec<_>, _>>()?;
        let roots = if tls.anchors.is_empty() {
            Arc::clone(&self.machine_roots)
        } else {
            let mut roots = RootCertStore::empty();
            for anchor in &tls.anchors {
                let added = roots.add(CertificateDer::from(anchor.as_slice()));
                added.map_err(|error| format!("an origin CA can't be used: {error}"))?;
            }
            Arc::new(roots)
        };
        Ok(Origins {
            endpoints: endpoints.into(),
            roots,
            own,
            server_name: tls.server_name.clone(),
            // What can't be used of its own is not made up for by another's.
            identify: tls.identify && tls.identity.is_none(),
            account: Arc::clone(account),
            provider: Arc::clone(&self.provider),
            denied: self.denied.clone(),
            client: OnceLock::new(),
            turn: AtomicUsize::new(0),
        })
    }
}

/// The origins of one hostname.
pub(crate) struct Origins {
    endpoints: Arc<[Endpoint]>,
    roots: Arc<RootCertStore>,
    own: Option<Arc<CertifiedKey>>,
    server_name: Option<Hostname>,
    identify: bool,
    account: Arc<Account>,
    provider: Arc<CryptoProvider>,
    denied: DeniedNetworks,
    /// Made by the first request: most hostnames of a large edge are asleep.
    client: OnceLock<OriginClient>,
    turn: AtomicUsize,
}

type OriginClient = Client<Timed<HttpsConnector<Departure>>, RequestBody>;

/// Where an origin is.
struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    avoided_until: Mutex<Option<Instant>>,
}

impl Endpoint {
    fn parse(url: &str) -> Result<Self, String> {
        let wrong = || format!("an origin is http://HOST[:PORT] or https://HOST[:PORT], not {url:?}");
        let parts = url.parse::<Uri>().map_err(|_| wrong())?.into_parts();
        let path = parts.path_and_query.as_ref().map_or("/", |path| path.as_str());
        let (Some(scheme), Some(authority), "/" | "") = (parts.scheme, parts.authority, path) else {
            return Err(wrong());
        };
        if ![Scheme::HTTP, Scheme::HTTPS].contains(&scheme) || authority.as_str().contains('@') {
            return Err(wrong());
        }
        Ok(Self { scheme, authority, avoided_until: Mutex::new(None) })
    }

    fn is_avoided(&self, now: Instant) -> bool {
        self.avoided_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }

    fn avoid(&self, until: Option<Instant>) {
        *self.avoided_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Origins {
    /// The same origins for an account that may have other settings; the pool stays where they are equal.
    pub(crate) fn of(self: &Arc<Self>, account: &Arc<Account>) -> Arc<Self> {
        if Arc::ptr_eq(account, &self.account) || account.entry.outbound == self.account.entry.outbound {
            return Arc::clone(self);
        }
        Arc::new(Self {
            endpoints: Arc::clone(&self.endpoints),
            roots: Arc::clone(&self.roots),
            own: self.own.clone(),
            server_name: self.server_name.clone(),
            identify: self.identify,
            account: Arc::clone(account),
            provider: Arc::clone(&self.provider),
            denied: self.denied.clone(),
            client: OnceLock::new(),
            turn: AtomicUsize::new(0),
        })
    }

    /// Sends a request to the next origin. A request without a body tries the others as well when
    /// the first can't be reached, and once more if it may be repeated and an origin went away unanswering:
    /// a kept connection can end at any time.
    ///
    /// # Errors
    /// A reason of the kind [`muster_policy::reason::Fault::Origin`].
    pub(crate) async fn send(&self, mut request: Request<RequestBody>) -> Result<Response<Incoming>, Reason> {
        let mut order = self.order(Instant::now()).into_iter();
        let mut endpoint = order.next().ok_or(Reason::OriginMissing)?;
        let mut may_repeat = request.method().is_idempotent() && request.body().is_empty();
        loop {
            let has_more = !order.as_slice().is_empty();
            let again = ((has_more || may_repeat) && request.body().is_empty()).then(|| copy(&request));
            *request.uri_mut() = at(endpoint, request.uri());
            let connection = capture_connection(&mut request);
            let error = match self.client()?.request(request).await {
                Ok(response) => {
                    endpoint.avoid(None);
                    if response.version() == Version::HTTP_10
                        && let Some(connection) = connection.connection_metadata().as_ref()
                    {
                        // hyper speaks 1.0 on it from here on, and drops bodies whose length is not known.
                        connection.poison();
                    }
                    return Ok(response);
                }
                Err(error) => error,
            };
            let reason = reason_of(&error);
            if is_of_client(&error) {
                tracing::debug!(origin = %endpoint.authority, error = %Chain(&error), "a client broke off");
            } else {
                tracing::warn!(origin = %endpoint.authority, error = %Chain(&error), %reason, "origin failed");
            }
            if error.is_connect() {
                endpoint.avoid(Some(Instant::now() + AVOIDED_FOR));
                if let (Some(copy), Some(next)) = (again, order.next()) {
                    (request, endpoint) = (copy, next);
                    continue;
                }
            } else if let Some(copy) = again.filter(|_| may_repeat && went_away(&error)) {
                may_repeat = false;
                (request, endpoint) = (copy, order.next().unwrap_or(endpoint));
                continue;
            }
            return Err(reason);
        }
    }

    /// Whether there is anybody to send a request to.
    pub(crate) fn are_missing(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// All origins, beginning with the one whose turn it is; the avoided ones last.
    fn order(&self, now: Instant) -> Vec<&Endpoint> {
        let count = self.endpoints.len().max(1);
        let (after, before) = self.endpoints.split_at(self.turn.fetch_add(1, Ordering::Relaxed) % count);
        let (avoided, mut order): (Vec<_>, Vec<_>) =
            before.iter().chain(after).partition(|endpoint| endpoint.is_avoided(now));
        order.extend(avoided);
        order
    }

    fn client(&self) -> Result<&OriginClient, Reason> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = self.make_client().map_err(|error| {
            tracing::error!(%error, "no client can be made for the origins");
            Reason::OriginUntrusted
        })?;
        Ok(self.client.get_or_init(|| client))
    }

    fn make_client(&self) -> Result<OriginClient, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&self.roots));
        let of_account = self.account.outbound.as_ref().filter(|_| self.identify);
        let config = match self.own.as_ref().or(of_account) {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key)))),
            None => builder.with_no_client_auth(),
        };
        let mut departure = Departure::new(self.denied.clone());
        let connector = departure.tcp();
        connector.set_nodelay(true);
        // Shared out among the addresses of a name.
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_keepalive(Some(KEEPALIVE_IDLE));
        connector.set_keepalive_interval(Some(KEEPALIVE_IDLE / KEEPALIVE_PROBES));
        connector.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        #[cfg(target_os = "linux")]
        connector.set_tcp_user_timeout(Some(WRITE_TIMEOUT));
        let https = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        let https = match &self.server_name {
            Some(name) => {
                let name = ServerName::try_from(name.as_str().to_owned())
                    .map_err(|_| rustls::Error::UnsupportedNameType)?;
                https.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => https,
        };
        Ok(Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(POOL_MAX_IDLE)
            .http1_max_buf_size(HEAD_MAX_BYTES)
            .build(Timed::new(https.enable_http1().wrap_connector(departure), CONNECT_TIMEOUT)))
    }
}

/// The same path at an origin.
fn at(endpoint: &Endpoint, uri: &Uri) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(endpoint.scheme.clone());
    parts.authority = Some(endpoint.authority.clone());
    parts.path_and_query =
        uri.path_and_query().cloned().or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
    // With scheme, authority and path there is nothing that could be missing.
    Uri::from_parts(parts).unwrap_or_default()
}

fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn reason_of(error: &Error) -> Reason {
    if !error.is_connect() {
        return Reason::OriginFailed;
    }
    let mut source = core::error::Error::source(error);
    while let Some(inner) = source {
        if inner.is::<rustls::Error>() {
            return Reason::OriginUntrusted;
        }
        // An io::Error hides the error it was made of from `source`.
        let hidden = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        source = match hidden {
            Some(hidden) => Some(hidden),
            None => inner.source(),
        };
    }
    Reason::OriginUnreachable
}

/// Whether the client broke off its body, or did not go on with it.
fn is_of_client(error: &Error) -> bool {
    core::iter::successors(core::error::Error::source(error), |inner| inner.source())
        .any(|inner| inner.is::<BodyError>())
}

/// Whether the connection ended before there was an answer. What could not be read as one does not count.
fn went_away(error: &Error) -> bool {
    let mut source = core::error::Error::source(error);
    while let Some(inner) = source {
        let broken = inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let is_broken = matches!(
            broken,
            // The last: TLS without its own end.
            Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof)
        );
        let is_ended = |error: &hyper::Error| error.is_incomplete_message() || error.is_closed();
        if is_broken || inner.downcast_ref().is_some_and(is_ended) {
            return true;
        }
        source = inner.source();
    }
    false
}

/// An error with all its causes in one line.
struct Chain<'a>(&'a dyn core::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_an_authority() {
        for good in ["http://127.0.0.1:8080", "https://origin.example", "http://[::1]:80/"] {
            assert!(Endpoint::parse(good).is_ok(), "{good}");
        }
        for wrong in ["origin.example", "ftp://a.example", "http://a.example/path", "http://u@a.example", ""]
        {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong}");
        }
    }
}
