//! The way out: the HTTP client for what this server asks of others by itself, for webhooks and CRLs.
//!
//! No connection is made to a network that the operator denies (see [`muster_departure`]). Redirects are not
//! followed, and no proxy is asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use muster_departure::{Departure, denied_in, literal};
use muster_policy::network::{Denied, DeniedNetworks, reached};

use crate::error::ApiError;

/// Longest address.
const URL_MAX_BYTES: usize = 2_048;
/// Idle connections kept to each receiver, and for how long.
const IDLE_MAX: usize = 2;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the server around it says of requests that it makes by itself.
#[derive(Clone)]
pub struct OutboundSettings {
    /// Whom `https://` servers must be vouched for by.
    pub tls: Arc<rustls::ClientConfig>,
    /// Whether `http://` is allowed to addresses of the loopback.
    pub loopback_http: bool,
    /// Where no connection is made to.
    pub denied_networks: DeniedNetworks,
}

/// The client.
pub(crate) struct Outbound {
    client: Client<HttpsConnector<Departure>, Full<Bytes>>,
    loopback_http: bool,
    denied: DeniedNetworks,
}

impl Outbound {
    pub(crate) fn new(settings: &OutboundSettings) -> Self {
        let denied = settings.denied_networks.clone();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(rustls::ClientConfig::clone(&settings.tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(Departure::new(denied.clone()));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Self { client, loopback_http: settings.loopback_http, denied }
    }

    /// Sends a request and reads its answer, which is of a status of 2xx.
    ///
    /// # Errors
    /// Why there is no such answer.
    pub(crate) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        bounds: Bounds,
    ) -> Result<Taken, Failed> {
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| {
                tracing::debug!(%error, "a request of this server's own had no answer");
                denied_in(&error).map_or(Failed::Unreachable, Failed::Denied)
            })?;
            let status = response.status();
            // What else a no says counts for nothing, and may never end.
            if !status.is_success() {
                return Err(Failed::Answered(status));
            }
            let body = Limited::new(response.into_body(), bounds.octets).collect().await;
            Ok(Taken { status, body: body.ok().map(Collected::to_bytes) })
        };
        tokio::time::timeout(bounds.time, exchange).await.unwrap_or(Err(Failed::TimedOut(bounds.time)))
    }

    /// Checks where requests shall go. What a name leads to is judged when it is connected to.
    ///
    /// # Errors
    /// What is wrong with it, at `/url`.
    pub(crate) fn check_url(&self, text: &str, plain: PlainHttp) -> Result<(), ApiError> {
        let wrong = |message: &str| Err(ApiError::argument("/url", format!("url: {message}")));
        if text.len() > URL_MAX_BYTES || text.contains('#') {
            return wrong("at most 2048 characters, without a fragment");
        }
        let Ok(uri) = text.parse::<Uri>() else {
            return wrong("an absolute URL such as https://example.com/x");
        };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return wrong("an absolute URL such as https://example.com/x");
        };
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return wrong("a host without user and password");
        }
        if let Some(Err(denied)) = literal(&uri).map(|address| self.denied.check(address)) {
            return wrong(&denied.to_string());
        }
        match (scheme, is_loopback(&uri)) {
            ("https", _) => Ok(()),
            ("http", false) if plain == PlainHttp::Anywhere => Ok(()),
            ("http", _) if !self.loopback_http => {
                wrong("https; http to a loopback address needs webhooks.loopback_http in muster.toml")
            }
            ("http", true) => Ok(()),
            _ if plain == PlainHttp::Anywhere => wrong("https or http"),
            _ => wrong("https, or http to a loopback address"),
        }
    }
}

/// Where `http://` may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlainHttp {
    /// To any host: what comes from there is signed.
    Anywhere,
    /// To the loopback only.
    Loopback,
}

/// What an exchange may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// From the look-up of the name to the end of the answer.
    pub(crate) time: Duration,
    /// What is read of the answer.
    pub(crate) octets: usize,
}

/// An answer that says yes.
#[derive(Debug)]
pub(crate) struct Taken {
    /// 2xx.
    pub(crate) status: StatusCode,
    /// None when it is more than was to be read, or broke off.
    pub(crate) body: Option<Bytes>,
}

/// Why an exchange failed, in words for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failed {
    /// Another status than 2xx.
    #[error("the address answered {}{}", .0.as_u16(), redirected(*.0))]
    Answered(StatusCode),
    /// The operator denies the network.
    #[error(transparent)]
    Denied(Denied),
    /// No whole answer came in time.
    #[error("no answer came within {} seconds", .0.as_secs())]
    TimedOut(Duration),
    /// Nobody is there, or somebody else than should be.
    #[error("the address can't be reached, or its certificate is not good")]
    Unreachable,
}

const fn redirected(status: StatusCode) -> &'static str {
    if matches!(status.as_u16(), 300..=399) { "; redirects are not followed" } else { "" }
}

fn is_loopback(uri: &Uri) -> bool {
    uri.host() == Some("localhost") || literal(uri).is_some_and(|address| reached(address).is_loopback())
}

#[cfg(test)]
mod tests {
    use muster_policy::network::Network;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const BOUNDS: Bounds = Bounds { time: Duration::from_secs(10), octets: 1 };

    fn denied(networks: &[&str]) -> DeniedNetworks {
        networks.iter().map(|text| text.parse::<Network>().expect("a network")).collect()
    }

    fn outbound(denied: DeniedNetworks) -> Outbound {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let tls = Arc::new(tls);
        Outbound::new(&OutboundSettings { tls, loopback_http: false, denied_networks: denied })
    }

    #[test]
    fn a_loopback_address_is_one_in_every_form() {
        let outbound = outbound(denied(&[]));
        for url in ["http://127.0.0.1/", "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/", "http://[::]/"] {
            let refused = outbound.check_url(url, PlainHttp::Anywhere).expect_err(url);
            assert!(refused.message.contains("webhooks.loopback_http"), "{url}: {}", refused.message);
        }
    }

    #[tokio::test]
    async fn no_connection_is_made_to_a_denied_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let request = |host: &str| {
            Request::get(format!("http://{host}:{port}/")).body(Full::default()).expect("a request")
        };
        let free = outbound(denied(&["169.254.0.0/16"]));
        tokio::select! {
            sent = free.exchange(request("localhost"), BOUNDS) => panic!("nobody answers: {sent:?}"),
            came = listener.accept() => drop(came.expect("a connection")),
        }
        let outbound = outbound(denied(&["127.0.0.0/8", "::1"]));
        // What the system's resolver makes an address of is a name here.
        for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"] {
            let sent = outbound.exchange(request(host), BOUNDS).await;
            assert!(matches!(sent, Err(Failed::Denied(_))), "{host}: {sent:?}");
        }
        let came = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(came.is_err(), "somebody came");
    }

    /// What comes of an exchange with a server that says this and then nothing more, without hanging up.
    async fn answered(said: &'static str) -> Result<Taken, Failed> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let serving = async {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            assert_ne!(socket.read(&mut [0; 4_096]).await.expect("a request"), 0);
            socket.write_all(said.as_bytes()).await.expect("said");
            core::future::pending::<()>().await;
        };
        let request = Request::get(url).body(Full::default()).expect("a request");
        let outbound = outbound(denied(&[]));
        let bounds = Bounds { time: Duration::from_secs(2), octets: 4 };
        tokio::select! {
            came = outbound.exchange(request, bounds) => came,
            () = serving => unreachable!("it serves for ever"),
        }
    }

    #[tokio::test]
    async fn an_answer_is_bounded_in_time_and_size() {
        let taken = answered("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody").await.expect("taken");
        assert_eq!((taken.status, taken.body.as_deref()), (StatusCode::OK, Some(&b"body"[..])));
        let longer =
            answered("HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nbodyx").await.expect("taken");
        assert_eq!((longer.status, longer.body), (StatusCode::ACCEPTED, None));
        let (silent, half, no) = tokio::join!(
            answered(""),
            answered("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo"),
            answered("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\n"),
        );
        for late in [silent, half] {
            assert!(matches!(late, Err(Failed::TimedOut(_))), "{late:?}");
        }
        assert!(matches!(no, Err(Failed::Answered(StatusCode::SERVICE_UNAVAILABLE))), "{no:?}");
    }
}
