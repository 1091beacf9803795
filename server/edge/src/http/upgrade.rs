//! WebSockets: the one upgrade that passes (RFC 6455).
//!
//! Any other `Upgrade` is removed with the other words about one connection; h2c would open a way
//! around every check (RFC 9113 §3.1). After the origin has agreed, bytes flow both ways until one
//! side ends or the connection loses its right. With the subprotocol `mqtt`, on a hostname that
//! speaks it, the edge answers itself and hands the stream to the broker.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use muster_policy::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::proxy::Visit;
use super::requests::Asked;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// How long a side may go on after the other has ended. Both ends of a WebSocket close within moments of each
/// other (RFC 6455 §7.1.1); the slots are held until then.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(30);

/// A client's wish for a WebSocket.
pub(crate) struct Upgrade(OnUpgrade);

impl Upgrade {
    /// Takes the wish out of a request, if it has one.
    ///
    /// # Errors
    /// [`Reason::RequestMalformed`] for a wish with a body: what comes after the head is then unclear.
    pub(crate) fn of(request: &mut Request<Incoming>) -> Result<Option<Self>, Reason> {
        use http_body::Body as _;
        if !is_wish(request) {
            return Ok(None);
        }
        if !request.body().is_end_stream() {
            return Err(Reason::RequestMalformed);
        }
        Ok(Some(Self(hyper::upgrade::on(request))))
    }

    /// Repeats the wish to the origin.
    pub(crate) fn ask(&self, request: &mut HeaderMap) {
        confirm(request);
    }
}

/// A WebSocket that the origin agreed to.
pub(crate) struct Accepted(());

impl Accepted {
    /// Tells the client so.
    pub(crate) fn confirm(&self, response: &mut HeaderMap) {
        confirm(response);
    }
}

fn confirm(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, UPGRADE);
    headers.insert(header::UPGRADE, WEBSOCKET);
}

/// RFC 6455 §4.1: what a WebSocket's first request looks like.
fn is_wish<B>(request: &Request<B>) -> bool {
    let names = |name, wanted: &str| {
        let values = request.headers().get_all(name).into_iter();
        values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && names(header::CONNECTION, "upgrade")
        && request
            .headers()
            .get(header::UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Whether a request wishes for MQTT in a WebSocket (MQTT 5 §6).
pub(crate) fn is_mqtt<B>(request: &Request<B>) -> bool {
    let protocols = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    is_wish(request)
        && protocols
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim() == "mqtt")
}

/// Joins both sides when the origin has agreed.
///
/// # Errors
/// [`Reason::OriginFailed`] when the origin changes protocols unasked.
pub(crate) fn accept(
    response: &mut Response<Incoming>,
    wish: Option<Upgrade>,
    visit: &Visit,
    asked: &Arc<Asked>,
) -> Result<Option<Accepted>, Reason> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(None);
    }
    let Some(Upgrade(client)) = wish else { return Err(Reason::OriginFailed) };
    let origin = hyper::upgrade::on(response);
    // The tunnel outlives the HTTP connection, so it keeps its slots and its place among the live ones.
    let (place, slots, stop) =
        (Arc::clone(&visit.place), Arc::clone(&visit.slots), visit.shared.stop.clone());
    let under_way = place.guest.requests.enter(Arc::clone(asked));
    visit.shared.tasks.spawn(async move {
        let tunnel = async {
            if let (Ok(client), Ok(origin)) = tokio::join!(client, origin) {
                join(TokioIo::new(client), TokioIo::new(origin)).await;
            }
        };
        tokio::select! {
            () = tunnel => {}
            _ = place.guest.cut.wait() => {}
            () = stop.cancelled() => {}
        }
        drop((under_way, slots));
    });
    Ok(Some(Accepted(())))
}

/// Carries octets both ways until both sides have ended, one is broken, or the second takes too long to follow
/// the first.
async fn join<A, B>(client: A, origin: B)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (client_reads, client_writes) = tokio::io::split(client);
    let (origin_reads, origin_writes) = tokio::io::split(origin);
    let (mut up, mut down) =
        (pin!(carry(client_reads, origin_writes)), pin!(carry(origin_reads, client_writes)));
    // Which of the two is broken, and how, nobody is told.
    let _ = tokio::select! {
        ended = up.as_mut() => match ended {
            Ok(()) => timeout(HALF_CLOSED_TIMEOUT, down).await,
            Err(_) => return,
        },
        ended = down.as_mut() => match ended {
            Ok(()) => timeout(HALF_CLOSED_TIMEOUT, up).await,
            Err(_) => return,
        },
    };
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_side_that_does_not_follow_the_other_to_its_end_is_not_waited_for_long() {
        for client_ends in [true, false] {
            let ((mut client, edge), (edge_too, mut origin)) = (duplex(64), duplex(64));
            let joined = tokio::spawn(join(edge, edge_too));
            let (first, second) =
                if client_ends { (&mut client, &mut origin) } else { (&mut origin, &mut client) };
            first.write_all(b"last").await.expect("written");
            first.shutdown().await.expect("ended");
            let mut text = String::new();
            second.read_to_string(&mut text).await.expect("all of it, and the end");
            assert_eq!(text, "last");
            second.write_all(b"more").await.expect("half of it is open");
            let mut more = [0; 4];
            first.read_exact(&mut more).await.expect("read");
            let begun = Instant::now();
            joined.await.expect("no panic");
            assert!(begun.elapsed() <= HALF_CLOSED_TIMEOUT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_breaks_ends_the_other() {
        let ((client, edge), (edge_too, mut origin)) = (duplex(64), duplex(64));
        let joined = tokio::spawn(join(edge, edge_too));
        drop(client);
        // Nobody is there to take it.
        origin.write_all(b"x").await.expect("written");
        let begun = Instant::now();
        joined.await.expect("no panic");
        assert!(begun.elapsed() < HALF_CLOSED_TIMEOUT);
    }

    fn request(upgrade: &str, connection: &str, protocol: &str) -> Request<()> {
        Request::get("/")
            .header(header::UPGRADE, upgrade)
            .header(header::CONNECTION, connection)
            .header(header::SEC_WEBSOCKET_PROTOCOL, protocol)
            .body(())
            .expect("a request")
    }

    #[test]
    fn only_websockets_are_wishes() {
        assert!(is_wish(&request("WebSocket", "keep-alive, Upgrade", "")));
        for (upgrade, connection) in
            [("h2c", "upgrade"), ("websocket", "close"), ("websocket, h2c", "upgrade")]
        {
            assert!(!is_wish(&request(upgrade, connection, "")), "{upgrade}");
        }
        let mut posted = request("websocket", "upgrade", "");
        *posted.method_mut() = Method::POST;
        assert!(!is_wish(&posted));
    }

    #[test]
    fn mqtt_is_a_subprotocol_by_its_exact_name() {
        assert!(is_mqtt(&request("websocket", "upgrade", "chat, mqtt")));
        assert!(!is_mqtt(&request("websocket", "upgrade", "mqttv3.1")));
        assert!(!is_mqtt(&request("h2c", "upgrade", "mqtt")));
    }
}
