//! The POST of one delivery: no redirects, bounded in time, and of the answer only the status counts.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// From the name's look-up to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// What of an answer is read, so that its connection can be used again.
const ANSWER_MAX_BYTES: usize = 64 << 10;
/// Idle connections kept to each receiver.
const IDLE_MAX: usize = 2;

/// Why a delivery was not taken, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The receiver answered with another status than 2xx.
    Answered(StatusCode),
    /// No answer came in time.
    TimedOut,
    /// There is no way to the receiver.
    Unreachable,
}

impl core::fmt::Display for Failed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Answered(status) if status.is_redirection() => {
                write!(f, "the receiver answered {}; redirects are not followed", status.as_u16())
            }
            Self::Answered(status) => write!(f, "the receiver answered {}", status.as_u16()),
            Self::TimedOut => write!(f, "no answer came within {} seconds", TIMEOUT.as_secs()),
            Self::Unreachable => f.write_str("the receiver can't be reached, or its certificate is not good"),
        }
    }
}

/// The HTTP client.
pub(crate) struct Sender(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Sender {
    pub(crate) fn new(tls: &rustls::ClientConfig) -> Self {
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1().build();
        Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IDLE_MAX).build(connector))
    }

    /// Sends a body; returns the status, which is 2xx.
    pub(crate) async fn post(
        &self,
        url: &str,
        id: &str,
        stamp: &str,
        signature: &str,
        body: String,
    ) -> Result<u16, Failed> {
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", stamp)
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| Failed::Unreachable)?;
        let exchange = async {
            let response = self.0.request(request).await.map_err(|error| {
                tracing::debug!(%error, "a webhook can't be reached");
                Failed::Unreachable
            })?;
            let status = response.status();
            // A longer answer costs the connection, nothing else.
            let _ = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
            if status.is_success() { Ok(status.as_u16()) } else { Err(Failed::Answered(status)) }
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err(Failed::TimedOut))
    }
}
