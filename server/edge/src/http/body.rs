//! The bodies that pass through, frame by frame.
//!
//! A request's body is watched on its way: a client that stops sending is given up, and trailers
//! that would pass for our own headers are taken out (RFC 9110 §6.5.1). Nothing is collected.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use muster_policy::reason::Reason;
use tokio::time::{Instant, Sleep};

use super::headers;
use super::offers::{Offer, Piece};
use super::requests::UnderWay;
use crate::metrics::Metrics;

/// The body of an answer: streamed from an origin, or a page of our own.
pub(crate) type ResponseBody = UnsyncBoxBody<Piece, BodyError>;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the peer broke off")]
    Broken(#[from] hyper::Error),
    #[error("the client paused for too long")]
    Paused,
    #[error("the origin was silent for too long")]
    OriginSilent,
}

/// The body of an origin's answer on its way to a client.
pub(crate) struct AnswerBody {
    body: Incoming,
    offer: Offer,
    /// Judged again by every change, until the answer is over.
    under_way: UnderWay,
    patience: Patience,
    metrics: Arc<Metrics>,
}

impl AnswerBody {
    /// `silence_max` is how long the origin may pause in it.
    pub(crate) fn new(
        body: Incoming,
        offer: Offer,
        under_way: UnderWay,
        silence_max: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { body, offer, under_way, patience: Patience::new(silence_max), metrics }
    }

    /// Nothing came of the origin. The answer has begun, so all that is left to do is to break it off.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        ready!(self.patience.poll_end(cx));
        tracing::warn!(host = &*self.under_way.asked.host, "an origin was silent within its answer");
        self.metrics.refused(Reason::OriginTimeout);
        Poll::Ready(BodyError::OriginSilent)
    }
}

impl Body for AnswerBody {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return self.poll_silence(cx).map(|silent| Some(Err(silent)));
        };
        self.patience.stop();
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|octets| self.offer.piece(octets)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request on its way to an origin.
pub(crate) struct RequestBody(Option<Watched>);

struct Watched {
    body: Incoming,
    progress: Progress,
    patience: Patience,
}

/// How much longer one side may pause. Only what is asked for and does not come counts: while an origin takes
/// nothing, nobody waits for the client, and the other way round.
struct Patience {
    most: Duration,
    /// Made with the first pause, so that short bodies need no timer.
    timer: Option<Pin<Box<Sleep>>>,
    is_running: bool,
}

impl Patience {
    const fn new(most: Duration) -> Self {
        Self { most, timer: None, is_running: false }
    }

    /// Nothing came; ready when that has been so for too long.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let most = self.most;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(most)));
        if !self.is_running {
            self.is_running = true;
            timer.as_mut().reset(Instant::now() + most);
        }
        timer.as_mut().poll(cx)
    }

    /// Something came.
    const fn stop(&mut self) {
        self.is_running = false;
    }
}

impl RequestBody {
    /// `pause_max` is how long the client may pause in it.
    pub(crate) fn new(body: Incoming, progress: Progress, pause_max: Duration) -> Self {
        if body.is_end_stream() {
            progress.done();
            Self::empty()
        } else {
            Self(Some(Watched { body, progress, patience: Patience::new(pause_max) }))
        }
    }

    pub(crate) const fn empty() -> Self {
        Self(None)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(watched) => watched.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|watched| watched.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |watched| watched.body.size_hint())
    }
}

/// How far a request has gone out, as seen from outside its body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

/// No body has so many frames.
const DONE: u64 = u64::MAX;
/// The client did not go on with it.
const PAUSED: u64 = u64::MAX - 1;
/// The client broke it off, or its framing.
const BROKEN: u64 = u64::MAX - 2;

impl Progress {
    /// How many frames the origin has taken; none when it has the whole request.
    pub(crate) fn frames(&self) -> Option<u64> {
        let frames = self.0.load(Ordering::Relaxed);
        (frames < BROKEN).then_some(frames)
    }

    /// What the client did, if the request ends with it: no origin is to blame then.
    pub(crate) fn fault_of_client(&self) -> Option<Reason> {
        match self.0.load(Ordering::Relaxed) {
            PAUSED => Some(Reason::BodyTimeout),
            BROKEN => Some(Reason::RequestMalformed),
            _ => None,
        }
    }

    fn moved(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn done(&self) {
        self.0.store(DONE, Ordering::Relaxed);
    }

    fn paused(&self) {
        self.0.store(PAUSED, Ordering::Relaxed);
    }

    fn broken(&self) {
        self.0.store(BROKEN, Ordering::Relaxed);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.progress.fault_of_client().is_none() {
            self.progress.done();
        }
    }
}

impl Watched {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.patience.poll_end(cx));
            self.progress.paused();
            return Poll::Ready(Some(Err(BodyError::Paused)));
        };
        self.patience.stop();
        if matches!(frame, Some(Err(_))) {
            self.progress.broken();
        } else if frame.is_none() || self.body.is_end_stream() {
            self.progress.done();
        } else {
            self.progress.moved();
        }
        let frame = frame.map(|frame| {
            frame.map_err(BodyError::from).map(|frame| match frame.into_trailers() {
                Ok(mut trailers) => {
                    headers::strip(&mut trailers);
                    Frame::trailers(trailers)
                }
                Err(frame) => frame,
            })
        });
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use core::error::Error as _;
    use core::future::poll_fn;

    use hyper_util::rt::TokioIo;

    use super::*;

    const PAUSE_MAX: Duration = Duration::from_secs(60);

    /// Logs print an origin's failure with all its causes.
    #[tokio::test]
    async fn a_broken_body_leaves_its_cause_to_its_source() {
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        let builder = hyper::client::conn::http1::Builder::new();
        let (mut sender, connection) = builder.handshake(TokioIo::new(server)).await.expect("no io yet");
        let request = http::Request::new(RequestBody::empty());
        let (_, answer) = tokio::join!(connection, sender.send_request(request));
        let broken = BodyError::from(answer.expect_err("the other side is gone"));
        let source = broken.source().expect("a source").to_string();
        assert!(!broken.to_string().contains(&source), "{broken}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_given_up_for_its_own_pause_and_not_for_that_of_the_origin() {
        let mut patience = Patience::new(PAUSE_MAX);
        let asked =
            async |patience: &mut Patience| poll_fn(|cx| Poll::Ready(patience.poll_end(cx).is_ready())).await;
        assert!(!asked(&mut patience).await);
        tokio::time::advance(PAUSE_MAX / 2).await;
        assert!(!asked(&mut patience).await);
        patience.stop();
        // The origin takes nothing for longer than a client may pause, and then asks for more.
        tokio::time::advance(PAUSE_MAX * 2).await;
        assert!(!asked(&mut patience).await, "nobody waited for the client until now");
        tokio::time::advance(PAUSE_MAX / 2).await;
        assert!(!asked(&mut patience).await);
        tokio::time::advance(PAUSE_MAX).await;
        assert!(asked(&mut patience).await);
    }
}
