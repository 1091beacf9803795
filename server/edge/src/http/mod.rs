//! HTTP/1.1 and h2 on one finished TLS connection.
//!
//! hyper reads and writes; this file sets the bounds and ends connections. [`proxy`] answers one
//! request, [`headers`] says what passes, [`origin`] speaks to the servers behind, by [`connector`],
//! [`body`] is what streams through, [`offers`] what of it clients have not taken, [`requests`] what is
//! under way, [`upgrade`] carries WebSockets to origins and [`websocket`] those of the broker.

pub(crate) mod body;
mod connector;
mod facts;
pub(crate) mod headers;
mod names;
pub(crate) mod offers;
pub(crate) mod origin;
pub(crate) mod proxy;
pub(crate) mod requests;
pub(crate) mod upgrade;
mod websocket;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use muster_arrival::linger::{Lingering, Sending};
use muster_arrival::turn::answering;
use tokio::io::{AsyncRead, AsyncWrite};

use self::proxy::Visit;

/// nginx reads four heads of 8 KiB; cookies and tokens fit.
const HEAD_MAX_BYTES: usize = 32 * 1024;
/// The same for h2, counted as RFC 9113 §6.5.2 says.
const HEADER_LIST_MAX_BYTES: u32 = 32 * 1024;
/// hyper's own default for h1.
const HEADERS_MAX: usize = 100;
/// How long a head may take, the idle time of a kept-alive connection included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// RFC 9113 §6.5.2 recommends no less than 100.
const STREAMS_MAX: u32 = 100;
/// Streams that a client opened and reset before they were looked at (rapid reset, CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 20;
/// Streams that had to be reset for the client's own faults (MadeYouReset, CVE-2025-8671).
const LOCAL_RESET_STREAMS_MAX: usize = 128;
/// What may be on its way to us in one stream, and in all of a connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// What may wait for a client that does not read.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// An h2 client that is silent for this long is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for a GOAWAY to leave when a connection has lost its right; answers under way are cut off.
const CUT_GRACE: Duration = Duration::from_millis(200);

/// The version that ALPN settled on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// Serves requests until either side ends the connection.
pub(crate) async fn serve<S>(stream: S, version: Version, visit: Arc<Visit>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sending = Sending::default();
    let handler = service_fn({
        let (visit, sending) = (Arc::clone(&visit), sending.clone());
        move |request: Request<Incoming>| {
            sending.set(!request.body().is_end_stream());
            let visit = Arc::clone(&visit);
            async move { Ok::<_, core::convert::Infallible>(answering(visit.answer(request)).await) }
        }
    });
    match version {
        Version::Http1 => {
            let io = TokioIo::new(Lingering::new(stream, sending));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_MAX_BYTES)
                .max_headers(HEADERS_MAX)
                .serve_connection(io, handler)
                .with_upgrades();
            drive(connection, |connection| connection.graceful_shutdown(), &visit).await;
        }
        Version::Http2 => {
            let io = TokioIo::new(stream);
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
                .max_local_error_reset_streams(LOCAL_RESET_STREAMS_MAX)
                .max_header_list_size(HEADER_LIST_MAX_BYTES)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_send_buf_size(SEND_BUFFER_BYTES)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .serve_connection(io, handler);
            drive(connection, |connection| connection.graceful_shutdown(), &visit).await;
        }
    }
}

/// Runs a connection to its end, or to the end of its right to be.
///
/// `finish` tells it to take no new requests.
async fn drive<C>(connection: C, finish: impl Fn(Pin<&mut C>), visit: &Visit)
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut connection = pin!(connection);
    let cut = visit.cut();
    tokio::select! {
        ended = connection.as_mut() => return log(ended),
        _ = cut.wait() => {}
        () = visit.stalled() => return tracing::debug!(peer = %visit.source, "a client stopped reading"),
        () = visit.stopping() => {
            // What is under way may finish; the listener's drain time bounds it.
            finish(connection.as_mut());
            tokio::select! {
                ended = connection.as_mut() => return log(ended),
                _ = cut.wait() => {}
            }
        }
    }
    finish(connection.as_mut());
    if let Ok(ended) = tokio::time::timeout(CUT_GRACE, connection).await {
        log(ended);
    }
}

fn log(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}
