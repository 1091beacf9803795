//! The `http` relay: HTTP/1.1 requests of local programs, sent on over mutual TLS.
//!
//! Bodies stream both ways and are never held. Each identity has its own pool of connections: after a swap new
//! requests use the new one, while exchanges under way end on the old. Hop-by-hop fields stay behind (RFC 9110
//! §7.6.1), Host names the upstream (§7.2), and a switch of protocols is tunnelled (§7.8). A Host that is
//! neither local nor the upstream is refused: a web page must not reach the fleet through a name that it
//! resolved to this machine.

use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, EXPECT, HOST, HeaderName, RETRY_AFTER, TE, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::dialer::Dialer;
use super::relay::Relay;
use super::upstream::{DialFault, refusal};
use super::{clock, tcp};
use crate::identity::Identity;

/// Time for a request's head, and between two requests on one connection before it is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time from a request's head to the answer's head; uploads count, so it is long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// How long an upstream connection waits for the next request: less than servers commonly wait (60 s and up),
/// so that they seldom close it under a request.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Upstream connections that wait.
const POOL_IDLE_MAX: usize = 16;
/// Head and read buffer of one local connection.
const BUFFER_MAX_BYTES: usize = 64 * 1024;

/// The answer to one connection too many.
pub(super) const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\n\
    Content-Length: 57\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
    muster-agent: too many local connections are open; retry\n";

type Body = Either<Incoming, Full<Bytes>>;
type Pool = Client<Dialer, Incoming>;

/// The pool of the newest identity.
#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<Option<(Arc<Identity>, Pool)>>);

impl Pools {
    /// The pool that presents `identity`. An older one ends with the last exchange that uses it.
    fn of(&self, relay: &Relay, identity: &Arc<Identity>) -> Pool {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, pool)) = newest.as_ref()
            && Arc::ptr_eq(known, identity)
        {
            return pool.clone();
        }
        let pool = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            .build(Dialer::new(Arc::clone(&relay.upstream), Arc::clone(identity)));
        if newest.replace((Arc::clone(identity), pool.clone())).is_some() {
            relay.health.remade();
        }
        pool
    }
}

pub(super) async fn serve(relay: Arc<Relay>, socket: TcpStream) {
    let tunnels = TaskTracker::new();
    let service = service_fn(|request| {
        let (relay, tunnels) = (Arc::clone(&relay), tunnels.clone());
        async move { Ok::<_, Infallible>(answer(&relay, request, &tunnels).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_MAX_BYTES)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    // What the local program did wrong on its connection is between it and hyper.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = relay.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(tcp::DRAIN_TIMEOUT, connection).await;
        }
    }
    tunnels.close();
    tunnels.wait().await;
}

async fn answer(relay: &Arc<Relay>, mut request: Request<Incoming>, tunnels: &TaskTracker) -> Response<Body> {
    if let Some(response) = refuse_request(relay, &request) {
        return response;
    }
    let Some(identity) = relay.identity() else {
        relay.health.turned_away("the device has no certificate yet, or it has ended");
        return say(StatusCode::SERVICE_UNAVAILABLE, "this device has no certificate yet, or it has ended");
    };
    let local = take_upgrade(&mut request);
    if readdress(relay, &mut request, local.as_ref()).is_none() {
        return say(StatusCode::BAD_REQUEST, "the request target can't be sent on");
    }
    let pool = relay.pools.of(relay, &identity);
    let outcome = tokio::time::timeout(ANSWER_TIMEOUT, pool.request(request)).await;
    match outcome {
        Err(_) => failed(relay, StatusCode::GATEWAY_TIMEOUT, "the upstream did not answer in time"),
        Ok(Err(error)) => refuse(relay, &error),
        Ok(Ok(response)) => {
            relay.health.succeeded();
            pass_on(relay, response, local, tunnels, identity)
        }
    }
}

/// The answer to what this relay does not send on.
fn refuse_request(relay: &Relay, request: &Request<Incoming>) -> Option<Response<Body>> {
    if request.method() == Method::CONNECT {
        return Some(say(StatusCode::METHOD_NOT_ALLOWED, "this is no forward proxy: CONNECT is not taken"));
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(|host| !is_ours(host, &relay.upstream.target().host)).then(|| {
        say(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host field names another host; use localhost, an address, or the upstream's name",
        )
    })
}

fn is_ours(host: &str, upstream: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case(upstream)
        || name.parse::<IpAddr>().is_ok()
}

/// The local end of a switch of protocols, if the request asks for one.
fn take_upgrade(request: &mut Request<Incoming>) -> Option<(OnUpgrade, HeaderValue)> {
    let wanted = request.headers().get(UPGRADE)?.clone();
    Some((hyper::upgrade::on(request), wanted))
}

/// Address a request to the upstream; `None` when its target can't be sent on.
fn readdress(
    relay: &Relay,
    request: &mut Request<Incoming>,
    upgrade: Option<&(OnUpgrade, HeaderValue)>,
) -> Option<()> {
    let target = relay.upstream.target();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri =
        Uri::builder().scheme("https").authority(target.authority()).path_and_query(path).build().ok()?;
    let host = HeaderValue::from_str(&host_field(relay)).ok()?;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    strip_hop_by_hop(headers);
    // hyper has answered the expectation itself.
    headers.remove(EXPECT);
    headers.insert(HOST, host);
    if let Some((_, protocol)) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    Some(())
}

/// The name that the upstream answers to, with the port when it is not the default.
fn host_field(relay: &Relay) -> String {
    let target = relay.upstream.target();
    let name = target.server_name.to_str();
    let name = if name.contains(':') { format!("[{name}]") } else { name.into_owned() };
    if target.port == HTTPS_PORT { name } else { format!("{name}:{}", target.port) }
}

fn pass_on(
    relay: &Arc<Relay>,
    mut response: Response<Incoming>,
    local: Option<(OnUpgrade, HeaderValue)>,
    tunnels: &TaskTracker,
    identity: Arc<Identity>,
) -> Response<Body> {
    let switched = response.headers().get(UPGRADE).cloned();
    strip_hop_by_hop(response.headers_mut());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some((local, _)), Some(protocol)) = (local, switched) else {
            return failed(relay, StatusCode::BAD_GATEWAY, "the upstream switched protocols unasked");
        };
        let upstream = hyper::upgrade::on(&mut response);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, protocol);
        tunnels.spawn(tunnel(Arc::clone(relay), local, upstream, identity));
    }
    response.map(Either::Left)
}

/// Bytes both ways, like the `tcp` relay, until one side ends, the certificate does, or the agent stops.
async fn tunnel(relay: Arc<Relay>, local: OnUpgrade, upstream: OnUpgrade, identity: Arc<Identity>) {
    let (local, upstream) = match tokio::try_join!(local, upstream) {
        Ok(ends) => ends,
        Err(error) => return relay.health.failed(&format!("a switch of protocols failed: {error}")),
    };
    let (mut local, mut upstream) = (TokioIo::new(local), TokioIo::new(upstream));
    let size = tcp::BUFFER_BYTES;
    tokio::select! {
        // A tunnel that breaks is seen by both ends.
        _ = tokio::io::copy_bidirectional_with_sizes(&mut local, &mut upstream, size, size) => {}
        () = tokio::time::sleep(clock::left_until(identity.not_after)) => {}
        () = relay.shutdown.cancelled() => {}
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let trailers = headers.get(TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// An answer for an exchange that failed upstream.
fn refuse(relay: &Relay, error: &hyper_util::client::legacy::Error) -> Response<Body> {
    let mut source: Option<&(dyn Error + 'static)> = error.source();
    let mut deepest = error.to_string();
    while let Some(cause) = source {
        if let Some(fault) = cause.downcast_ref::<DialFault>() {
            return refuse_dial(relay, fault);
        }
        if let Some(why) = cause.downcast_ref::<std::io::Error>().and_then(refusal) {
            return failed(relay, StatusCode::BAD_GATEWAY, &why);
        }
        deepest = cause.to_string();
        source = cause.source();
    }
    failed(relay, StatusCode::BAD_GATEWAY, &format!("the exchange with the upstream broke: {deepest}"))
}

fn refuse_dial(relay: &Relay, fault: &DialFault) -> Response<Body> {
    let words = format!("upstream {}: {fault}", relay.upstream.target().authority());
    match fault {
        DialFault::Paused(left) => {
            let mut response = say(StatusCode::SERVICE_UNAVAILABLE, &words);
            let seconds = HeaderValue::from(left.as_secs().saturating_add(1));
            response.headers_mut().insert(RETRY_AFTER, seconds);
            response
        }
        DialFault::TimedOut => failed(relay, StatusCode::GATEWAY_TIMEOUT, &words),
        _ => failed(relay, StatusCode::BAD_GATEWAY, &words),
    }
}

fn failed(relay: &Relay, status: StatusCode, words: &str) -> Response<Body> {
    relay.health.failed(words);
    say(status, words)
}

fn say(status: StatusCode, words: &str) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(format!("muster-agent: {words}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

const HTTPS_PORT: u16 = 443;

/// RFC 9110 §7.6.1, and the older names that some programs still send.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_fields_and_those_named_by_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Own"),
            ("x-own", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "te"]);
    }

    #[test]
    fn a_name_that_points_here_from_elsewhere_is_not_ours() {
        for host in ["localhost:8080", "127.0.0.1:1", "[::1]:8080", "10.0.0.1", "API.example.com"] {
            assert!(is_ours(host, "api.example.com"), "{host}");
        }
        for host in ["evil.example.net:8080", "localhost.evil.example", "", "a b"] {
            assert!(!is_ours(host, "api.example.com"), "{host}");
        }
    }

    #[test]
    fn the_answer_to_one_too_many_has_the_length_it_says() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{} {head}", body.len());
    }
}
