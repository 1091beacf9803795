//! The GET of one list: no redirects, bounded in time and size.

use core::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use muster_enroll::CRL_MAX_BYTES;

/// From the name's look-up to the end of the list.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A list in PEM is a third larger than in DER, and has line ends.
const ANSWER_MAX_BYTES: usize = CRL_MAX_BYTES / 2 * 3;

/// Why there is no list, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// Another status than 200.
    Answered(StatusCode),
    /// More than a list can be, or the answer broke off.
    Body,
    /// No answer came in time.
    TimedOut,
    /// There is no way there.
    Unreachable,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) if status.is_redirection() => {
                write!(f, "the CRL's address answered {}; redirects are not followed", status.as_u16())
            }
            Self::Answered(status) => write!(f, "the CRL's address answered {}", status.as_u16()),
            Self::Body => write!(f, "what is at the CRL's address is larger than 4 MiB, or broke off"),
            Self::TimedOut => write!(f, "no CRL came within {} seconds", TIMEOUT.as_secs()),
            Self::Unreachable => {
                f.write_str("the CRL's address can't be reached, or its certificate is not good")
            }
        }
    }
}

/// The HTTP client.
pub(super) struct Fetcher(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl Fetcher {
    pub(super) fn new(tls: &rustls::ClientConfig) -> Self {
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1().build();
        // Fetches are hours apart.
        Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
    }

    /// Reads what is at an address.
    pub(super) async fn get(&self, url: &str) -> Result<Vec<u8>, Failed> {
        let request = Request::get(url)
            .header(ACCEPT, "application/pkix-crl, */*;q=0.5")
            .header(USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|_| Failed::Unreachable)?;
        let exchange = async {
            let response = self.0.request(request).await.map_err(|error| {
                tracing::debug!(%error, "a CRL's address can't be reached");
                Failed::Unreachable
            })?;
            if response.status() != StatusCode::OK {
                return Err(Failed::Answered(response.status()));
            }
            let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
            Ok(body.map_err(|_| Failed::Body)?.to_bytes().to_vec())
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err(Failed::TimedOut))
    }
}
