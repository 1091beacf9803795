//! HTTP/1.1 on one finished TLS connection.
//!
//! hyper reads and writes; this file sets the bounds: head size and time, body size and time, the
//! life of a connection, and the graceful end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use muster_arrival::linger::{Lingering, Sending};
use muster_arrival::turn::answering;
use muster_policy::reason::{Reason, Refusal};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::service::EstService;
use super::spelling::Spelling;
use super::tls::TlsPeer;
use crate::presentation::PathCache;

/// 16 KiB of DER in base64 with line breaks and PEM armour; more is no request of a device.
pub(crate) const BODY_MAX_BYTES: usize = 32 * 1024;
/// Heads of real clients stay below 1 KiB.
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Headers of real clients stay below a dozen.
const HEADERS_MAX: usize = 64;
/// How long a head may take, the idle time of a kept-alive connection included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a body may take once its head is read.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection ends after this even if it is busy, so that no peer lives on old TLS settings.
const CONNECTION_MAX_LIFE: Duration = Duration::from_secs(3600);

/// What is known of the peer of a connection.
pub(crate) struct Connection {
    pub(crate) source: IpAddr,
    pub(crate) tls: TlsPeer,
    pub(crate) path: PathCache,
}

/// Serves requests until either side ends the connection.
pub(crate) async fn serve<S>(
    stream: S,
    connection: Connection,
    service: Arc<EstService>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(connection);
    let sending = Sending::default();
    let stream = Lingering::new(stream, sending.clone());
    let handler = service_fn(move |request: Request<Incoming>| {
        sending.set(!request.body().is_end_stream());
        let (service, connection) = (Arc::clone(&service), Arc::clone(&connection));
        async move { Ok::<_, core::convert::Infallible>(answering(service.answer(request, &connection)).await) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .title_case_headers(true)
        .writev(false)
        .serve_connection(TokioIo::new(Spelling::new(stream)), handler);
    tokio::pin!(http);
    let ended = tokio::select! {
        ended = &mut http => Some(ended),
        () = stop.cancelled() => None,
        () = tokio::time::sleep(CONNECTION_MAX_LIFE) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Reads a whole body within its bounds.
pub(crate) async fn read_body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(Reason::BodyTooLarge, "/body");
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if declared.and_then(|text| text.parse::<u64>().ok()).is_some_and(|bytes| bytes > BODY_MAX_BYTES as u64) {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), BODY_MAX_BYTES);
    match tokio::time::timeout(BODY_TIMEOUT, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::new(Reason::BodyMalformed, "/body").with_detail("the body ended early")),
        Err(_) => Err(Refusal::new(Reason::BodyTimeout, "/body")),
    }
}
