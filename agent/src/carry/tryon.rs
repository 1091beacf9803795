//! Trying a candidate identity on: which peer is asked, and what counts as an answer.
//!
//! With telemetry configured its broker is asked (see `telemetry`). Else the first `http` upstream gets
//! `HEAD /`, and any answer accepts, but: 495 and 496 (the codes by which nginx says that the certificate is
//! bad or missing), and 401 or 403 when the identity in use does not get the same. Else the first upstream is
//! given the handshake and [`ALERT_TIMEOUT`] for an alert, since in TLS 1.3 the client's handshake is over
//! before the server has judged. With no upstream at all there is nobody to refuse. A network failure is no
//! verdict: it is tried again, with growing pauses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::breaker::{PAUSE_MAX, pauses};
use super::config::Mode;
use super::upstream::{DialFault, Upstream, refusal};
use crate::identity::{Held, Identities, Identity, Verdict};

/// How long an upstream has to send an alert after the handshake.
const ALERT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an upstream has to answer `HEAD /`.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);

/// What a peer's behaviour says of an identity.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It was taken.
    Accepted,
    /// It was refused, in these words.
    Refused(String),
    /// Nobody judged it.
    Unknown(String),
}

/// Judge every candidate until shutdown.
pub(super) async fn run(
    upstreams: Vec<(Mode, Arc<Upstream>)>,
    mut identities: Identities,
    shutdown: CancellationToken,
) {
    let mut judged: Option<Arc<Identity>> = None;
    loop {
        let held = identities.held();
        let is_fresh =
            |candidate: &Arc<Identity>| judged.as_ref().is_none_or(|judged| !judged.is_same(candidate));
        let candidate = held.candidate.clone().filter(is_fresh);
        let judging = async {
            match &candidate {
                Some(candidate) => judge(&upstreams, &held, candidate).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            fit = Box::pin(judging) => if let Some(candidate) = candidate {
                judged = Some(Arc::clone(&candidate));
                identities.judge(verdict(candidate, fit)).await;
            },
            is_there = identities.changed() => if !is_there { return },
            () = shutdown.cancelled() => return,
        }
    }
}

fn verdict(identity: Arc<Identity>, fit: Result<(), String>) -> Verdict {
    match fit {
        Ok(()) => Verdict::Accepted { identity },
        Err(why) => Verdict::Refused { identity, why },
    }
}

/// Ask until somebody judges.
async fn judge(
    upstreams: &[(Mode, Arc<Upstream>)],
    held: &Held,
    candidate: &Arc<Identity>,
) -> Result<(), String> {
    let first_http = upstreams.iter().find(|(mode, _)| *mode == Mode::Http);
    let Some((mode, upstream)) = first_http.or_else(|| upstreams.first()) else { return Ok(()) };
    let mut pauses = pauses();
    loop {
        let fit = match mode {
            Mode::Http => ask_http(upstream, held.in_use.as_ref(), candidate).await,
            Mode::Mqtt | Mode::Tcp => await_alert(upstream, candidate).await,
        };
        match fit {
            Fit::Accepted => return Ok(()),
            Fit::Refused(why) => return Err(why),
            Fit::Unknown(why) => tracing::warn!(why, "the new certificate could not be tried yet"),
        }
        tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
    }
}

async fn ask_http(upstream: &Upstream, in_use: Option<&Arc<Identity>>, candidate: &Arc<Identity>) -> Fit {
    match head(upstream, candidate).await {
        Ok(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => {
            let Some(in_use) = in_use else { return Fit::Accepted };
            match head(upstream, in_use).await {
                Ok(same) if same == status => Fit::Accepted,
                Ok(other) => {
                    Fit::Refused(format!("HEAD / is answered {status}, the one in use gets {other}"))
                }
                Err(fit) => fit_of_used(fit),
            }
        }
        Ok(status) if matches!(status.as_u16(), 495 | 496) => {
            Fit::Refused(format!("HEAD / is answered {status}: the certificate is bad or missing"))
        }
        Ok(_) => Fit::Accepted,
        // A server that closes in anger may cut its own alert off: ask again without sending anything.
        Err(Fit::Unknown(_)) => match await_alert(upstream, candidate).await {
            refused @ Fit::Refused(_) => refused,
            Fit::Accepted => Fit::Unknown("HEAD / was not answered".to_owned()),
            unknown @ Fit::Unknown(_) => unknown,
        },
        Err(fit) => fit,
    }
}

/// What a failure with the identity in use says of the candidate: nothing.
fn fit_of_used(fit: Fit) -> Fit {
    match fit {
        Fit::Refused(why) | Fit::Unknown(why) => Fit::Unknown(format!("the one in use: {why}")),
        Fit::Accepted => Fit::Accepted,
    }
}

async fn head(upstream: &Upstream, identity: &Arc<Identity>) -> Result<StatusCode, Fit> {
    let stream = upstream.dial(identity).await.map_err(|fault| fit_of_dial(&fault))?;
    let asking = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unknown(&error))?;
        let request = Request::builder()
            .method(Method::HEAD)
            .uri("/")
            .header(header::HOST, upstream.target().authority())
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| unknown(&error))?;
        let answer = sender.send_request(request);
        tokio::pin!(connection, answer);
        let answered = tokio::select! {
            answered = &mut answer => answered,
            ended = &mut connection => {
                ended.map_err(|error| fit_of_hyper(&error))?;
                answer.await
            }
        };
        answered.map(|answer| answer.status()).map_err(|error| fit_of_hyper(&error))
    };
    let outcome = tokio::time::timeout(HEAD_TIMEOUT, asking).await;
    outcome.unwrap_or_else(|_| Err(Fit::Unknown("HEAD / was not answered in time".to_owned())))
}

/// The handshake, and then silence for [`ALERT_TIMEOUT`] or the peer's first word: taken.
pub(super) async fn await_alert(upstream: &Upstream, identity: &Arc<Identity>) -> Fit {
    let mut stream = match upstream.dial(identity).await {
        Ok(stream) => stream,
        Err(fault) => return fit_of_dial(&fault),
    };
    let mut byte = [0];
    match tokio::time::timeout(ALERT_TIMEOUT, stream.read(&mut byte)).await {
        Err(_) | Ok(Ok(1..)) => Fit::Accepted,
        Ok(Ok(0)) => Fit::Unknown("the peer closed the connection after the handshake".to_owned()),
        Ok(Err(error)) => match refusal(&error) {
            Some(why) => Fit::Refused(why),
            None => Fit::Unknown(error.to_string()),
        },
    }
}

/// What a failed dial says of the identity.
pub(super) fn fit_of_dial(fault: &DialFault) -> Fit {
    match fault {
        DialFault::Refused(why) => Fit::Refused(why.clone()),
        DialFault::Identity(error) => Fit::Refused(format!("it can't be used for TLS: {error}")),
        DialFault::Paused(_) | DialFault::Tls(_) | DialFault::TimedOut | DialFault::Unreachable(_) => {
            Fit::Unknown(fault.to_string())
        }
    }
}

fn fit_of_hyper(error: &hyper::Error) -> Fit {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(why) = cause.downcast_ref::<std::io::Error>().and_then(refusal) {
            return Fit::Refused(why);
        }
        source = cause.source();
    }
    unknown(error)
}

fn unknown(error: &dyn std::error::Error) -> Fit {
    Fit::Unknown(error.to_string())
}
