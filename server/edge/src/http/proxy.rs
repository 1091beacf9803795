//! One request: from its authority to a permit, and from there to an origin.
//!
//! ```text
//! request -> Authority -> the door it leads to, which must be this connection's (else 421)
//!    -> Permit -> headers stripped, ours added -> origin, timed -> answer
//! ```
//! Every request of every stream passes all of it: what held at the handshake may hold no more.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use muster_policy::access::Permit;
use muster_policy::host::{HostRule, Protocol};
use muster_policy::reason::Reason;

use super::body::{AnswerBody, Progress, RequestBody, ResponseBody};
use super::offers::Offers;
use super::requests::{Asked, UnderWay};
use super::upgrade::{self, Upgrade};
use super::{headers, websocket};
use crate::errors;
use crate::hosts::Door;
use crate::listener::{Shared, Slots};
use crate::live::{Cut, Place};
use crate::tls::verifier::Verified;

/// How often within the time of a write a connection is looked at.
const STALL_LOOKS: u32 = 4;

/// As good as without end for a wait.
const FOR_EVER_S: u32 = u32::MAX;

/// A connection that speaks HTTP, with who is on it.
pub(crate) struct Visit {
    pub(crate) shared: Arc<Shared>,
    pub(crate) place: Arc<Place>,
    /// A WebSocket outlives the HTTP connection, and keeps these.
    pub(crate) slots: Arc<Slots>,
    pub(crate) verified: Option<Arc<Verified>>,
    pub(crate) source: SocketAddr,
    /// The headers that speak of the holder; made by the first request.
    identity: Arc<OnceLock<HeaderMap>>,
    offers: Arc<Offers>,
}

impl Visit {
    pub(crate) fn new(
        shared: Arc<Shared>,
        place: Arc<Place>,
        slots: Arc<Slots>,
        verified: Option<Arc<Verified>>,
        source: SocketAddr,
    ) -> Self {
        Self { shared, place, slots, verified, source, identity: Arc::default(), offers: Arc::default() }
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        // A refusal needs the client's Accept, and the request is gone by then.
        let mut accepts = HeaderMap::new();
        accepts.extend(request.headers().get(header::ACCEPT).map(|value| (header::ACCEPT, value.clone())));
        let response = match self.serve(request).await {
            Ok(response) => response,
            Err(reason) => {
                self.shared.metrics.refused(reason);
                errors::refusal(reason, &accepts)
            }
        };
        self.shared.metrics.answered(response.status());
        response
    }

    /// The order to end the connection.
    pub(crate) fn cut(&self) -> &Cut {
        &self.place.guest.cut
    }

    /// Waits until the client has taken nothing of an answer for too long.
    pub(crate) async fn stalled(&self) {
        let most = self.shared.limits.write_timeout;
        loop {
            tokio::time::sleep(most / STALL_LOOKS).await;
            if self.offers.oldest().is_some_and(|since| since.elapsed() > most) {
                return;
            }
        }
    }

    /// Waits until the listener stops.
    pub(crate) async fn stopping(&self) {
        self.shared.stop.cancelled().await;
    }

    async fn serve(&self, mut request: Request<Incoming>) -> Result<Response<ResponseBody>, Reason> {
        let authority = authority(&request)?;
        framing(&request)?;
        // Entered before it is judged: a change from now on judges it again.
        let under_way = self.enter(&request, &authority);
        let door = self.door(&authority)?;
        let to_broker = door.rule.protocols.contains(&Protocol::Mqtt) && upgrade::is_mqtt(&request);
        let protocol = if to_broker { Protocol::Mqtt } else { Protocol::Https };
        // Held until the request is on its way: nothing is forwarded without it.
        let permit = self.shared.state.access(&door, self.place.guest.holder.as_deref(), protocol)?;
        self.judge(&door, &under_way.asked, &permit)?;
        if to_broker {
            return websocket::welcome(self, request, &under_way.asked);
        }
        if door.origins.are_missing() {
            return Err(Reason::OriginMissing);
        }
        let upgrade = Upgrade::of(&mut request)?;
        let host = HeaderValue::try_from(authority.as_str()).map_err(|_| Reason::RequestMalformed)?;
        let spoken = request.version();
        self.rewrite(request.headers_mut(), spoken, host, under_way.asked.identity(&permit));
        if !door.rule.forward_certificate {
            headers::withhold_certificate(request.headers_mut());
        }
        if !door.gate.tells_certificates(door.rule.zone) {
            headers::withhold_fields(request.headers_mut());
        }
        self.forward(&door, request, upgrade, under_way).await
    }

    fn enter(&self, request: &Request<Incoming>, authority: &Authority) -> UnderWay {
        let (verified, identity) = (self.verified.clone(), Arc::clone(&self.identity));
        let asked = Asked::of(request, authority, self.source.ip(), verified, identity);
        self.place.guest.requests.enter(Arc::new(asked))
    }

    /// Rules and Access, after the certificate.
    fn judge(&self, door: &Door, asked: &Asked, permit: &Permit<'_>) -> Result<(), Reason> {
        let passed = asked.judge(door, permit)?;
        if passed.noted > 0 {
            let device = permit.holder().map(|holder| holder.device.as_str());
            tracing::info!(host = &*asked.host, device, rules = passed.noted, "a request that rules note");
        }
        Ok(())
    }

    /// The door of the request, as it is now.
    fn door(&self, authority: &Authority) -> Result<Arc<Door>, Reason> {
        let doors = self.shared.state.doors();
        match doors.resolve(authority.host()) {
            Some(door) if door.rule.host == self.place.guest.host => Ok(Arc::clone(door)),
            _ => Err(Reason::HostMisdirected),
        }
    }

    fn rewrite(
        &self,
        request: &mut HeaderMap,
        spoken: Version,
        host: HeaderValue,
        identity: Option<&HeaderMap>,
    ) {
        headers::strip_hop_by_hop(request);
        headers::strip(request);
        headers::join_cookies(request);
        headers::add_via(request, spoken);
        // A map is copied for much less than its fields are entered one by one. The client has none of ours left.
        let ours = identity.map_or_else(headers::anonymous, HeaderMap::clone);
        let theirs = std::mem::replace(request, ours);
        request.extend(theirs);
        headers::add_forwarded(request, self.source.ip(), &host);
        request.insert(header::HOST, host);
    }

    async fn forward(
        &self,
        door: &Door,
        request: Request<Incoming>,
        upgrade: Option<Upgrade>,
        under_way: UnderWay,
    ) -> Result<Response<ResponseBody>, Reason> {
        let progress = Progress::default();
        let pause_max = self.shared.limits.body_pause;
        let mut request = request.map(|body| RequestBody::new(body, progress.clone(), pause_max));
        *request.version_mut() = Version::HTTP_11;
        request.extensions_mut().clear();
        mark_length(&mut request);
        if let Some(upgrade) = &upgrade {
            upgrade.ask(request.headers_mut());
        }
        let answer = door.origins.send(request);
        tokio::pin!(answer);
        let silence_max = silence_max(&door.rule);
        let mut frames_before = None;
        let mut response = loop {
            tokio::select! {
                answer = answer.as_mut() => match answer {
                    Ok(answer) => break answer,
                    Err(reason) => return Err(progress.fault_of_client().unwrap_or(reason)),
                },
                () = tokio::time::sleep(silence_max) => {
                    // A long upload is no slow origin, as long as the origin takes something of it.
                    let frames = progress.frames();
                    if frames.is_none() || frames == frames_before {
                        tracing::warn!(host = &*under_way.asked.host, "an origin did not answer in time");
                        return Err(Reason::OriginTimeout);
                    }
                    frames_before = frames;
                }
            }
        };
        let accepted = upgrade::accept(&mut response, upgrade, self, &under_way.asked)?;
        // An old origin speaks of its own connection only.
        *response.version_mut() = Version::HTTP_11;
        headers::strip_hop_by_hop(response.headers_mut());
        if let Some(accepted) = accepted {
            accepted.confirm(response.headers_mut());
        }
        let metrics = Arc::clone(&self.shared.metrics);
        let answer = |body| AnswerBody::new(body, self.offers.answer(), under_way, silence_max, metrics);
        Ok(response.map(|body| answer(body).boxed_unsync()))
    }
}

/// How long an origin of this hostname may be silent.
fn silence_max(rule: &HostRule) -> Duration {
    let seconds = if rule.origin_timeout_s == 0 { FOR_EVER_S } else { rule.origin_timeout_s };
    Duration::from_secs(seconds.into())
}

/// Says of a body whose length is not known that there is one: of methods that seldom have any, hyper sends none
/// that the head does not speak of.
fn mark_length(request: &mut Request<RequestBody>) {
    if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
    }
}

/// The one host that a request is for.
fn authority<B>(request: &Request<B>) -> Result<Authority, Reason> {
    match *request.method() {
        Method::CONNECT => return Err(Reason::RequestMalformed),
        // RFC 9110 §9.3.8: what answers it sends back all it was sent, and with it what only origins are told.
        Method::TRACE => return Err(Reason::MethodRefused),
        _ => {}
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(|host| Authority::try_from(host.as_bytes()));
    let host = host.transpose().map_err(|_| Reason::RequestMalformed)?;
    // RFC 9112 §3.2: more than one is refused. In absolute form, and in h2, the target decides
    // (§3.2.2, RFC 9113 §8.3.1); one that says otherwise than Host could be read two ways.
    let target = request.uri().authority();
    let same = |a: &Authority, b: &Authority| {
        a.host().eq_ignore_ascii_case(b.host()) && a.port_u16() == b.port_u16()
    };
    let authority = match (hosts.next(), host, target) {
        (None, Some(host), Some(target)) if same(&host, target) => host,
        (None, Some(host), None) => host,
        (None, None, Some(target)) if request.version() == Version::HTTP_2 => target.clone(),
        _ => return Err(Reason::RequestMalformed),
    };
    if authority.as_str().contains('@') { Err(Reason::RequestMalformed) } else { Ok(authority) }
}

/// hyper lets `Transfer-Encoding` win over `Content-Length` and writes each request anew, so the two
/// never reach an origin together; other codings than `chunked` alone would be passed on unnamed.
fn framing<B>(request: &Request<B>) -> Result<(), Reason> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, None) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Reason::RequestMalformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn a_request_is_for_one_host_or_for_none() {
        let of = |version, uri, hosts: &[&str]| {
            authority(&request(version, uri, hosts)).map(|authority| authority.host().to_owned())
        };
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        assert_eq!(of(one, "/", &["a.example:8443"]).as_deref(), Ok("a.example"));
        assert_eq!(of(one, "http://a.example/", &["A.example"]).as_deref(), Ok("A.example"));
        assert_eq!(of(two, "https://a.example/", &[]).as_deref(), Ok("a.example"));
        assert_eq!(of(two, "https://a.example/", &["a.example"]).as_deref(), Ok("a.example"));
        for (version, uri, hosts) in [
            (one, "/", &[][..]),
            (one, "/", &["a.example", "a.example"]),
            (one, "/", &["a.example", "b.example"]),
            (one, "/", &["a.example, b.example"]),
            (one, "/", &["u@a.example"]),
            (one, "http://b.example/", &["a.example"]),
            (one, "http://a.example/", &[]),
            (two, "https://a.example/", &["b.example"]),
            (two, "https://u@a.example/", &[]),
            (two, "/", &[]),
        ] {
            assert_eq!(of(version, uri, hosts), Err(Reason::RequestMalformed), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn only_one_plain_chunked_coding_passes() {
        let with = |codings: &[&str]| {
            let mut request = request(Version::HTTP_11, "/", &["a.example"]);
            for coding in codings {
                let coding = HeaderValue::from_str(coding).expect("a value");
                request.headers_mut().append(header::TRANSFER_ENCODING, coding);
            }
            framing(&request)
        };
        assert!(with(&[]).is_ok() && with(&["Chunked"]).is_ok());
        for wrong in [&["gzip, chunked"][..], &["chunked", "chunked"], &["chunked, chunked"], &["identity"]] {
            assert_eq!(with(wrong), Err(Reason::RequestMalformed), "{wrong:?}");
        }
    }
}
