//! Connections to where people told the server to go: receivers of webhooks, places of CRLs, origins of hostnames.
//!
//! The addresses come from administrators of an account, who need not be let into every network that the machine is
//! in, least of all to what tells a machine in a cloud its credentials. So no connection is made to a network that the
//! operator denies. Judged is each address that is about to be connected to, after the look-up of its name: a name that
//! leads elsewhere the next time is judged the next time.
//!
//! Nor does a name that nobody answers for hold up anything but what goes there; and if it was answered for within
//! the day, not even that.
//!
//! A package of its own, because the edge and the admin API have no arrow to each other and both go out.

mod lookup;

use core::error::Error;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::net::{IpAddr, SocketAddr};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use muster_policy::network::{Denied, DeniedNetworks};
use tokio::net::TcpStream;
use tower::{Service, ServiceExt as _};

use self::lookup::LOOK_UPS;

/// Why there is no connection; [`denied_in`] says whether the operator denies it.
pub type Failure = Box<dyn Error + Send + Sync>;
type Going<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// Makes TCP connections, but none to an address that is denied. What goes over them is the caller's.
#[derive(Clone, Debug)]
pub struct Departure {
    http: HttpConnector<Judged>,
    denied: DeniedNetworks,
}

impl Departure {
    /// To everywhere but these networks; any scheme is taken.
    pub fn new(denied: DeniedNetworks) -> Self {
        let mut http = HttpConnector::new_with_resolver(Judged(denied.clone()));
        // TLS is above it.
        http.enforce_http(false);
        Self { http, denied }
    }

    /// The connector below, for its timeouts and options.
    pub const fn tcp(&mut self) -> &mut HttpConnector<Judged> {
        &mut self.http
    }
}

impl Service<Uri> for Departure {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Going<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // No resolver is asked of an address that is written out.
        let judged = literal(&uri).map_or(Ok(()), |address| self.denied.check(address));
        let http = self.http.clone();
        Box::pin(async move {
            judged?;
            http.oneshot(uri).await.map_err(Failure::from)
        })
    }
}

/// The system's resolver, without the addresses that are denied.
#[derive(Clone, Debug)]
pub struct Judged(DeniedNetworks);

impl Service<Name> for Judged {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Failure;
    type Future = Going<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(resolve(name, self.0.clone()))
    }
}

/// The addresses of a name that may be connected to.
async fn resolve(name: Name, denied: DeniedNetworks) -> Result<std::vec::IntoIter<SocketAddr>, Failure> {
    let mut refused = None;
    let mut allowed = Vec::new();
    for address in LOOK_UPS.addresses_of(name.as_str()).await? {
        match denied.check(address.ip()) {
            Ok(()) => allowed.push(address),
            Err(denied) => refused = Some(denied),
        }
    }
    match refused {
        Some(denied) if allowed.is_empty() => Err(denied.into()),
        _ => Ok(allowed.into_iter()),
    }
}

/// The address that a URL has in place of a name; as the connector reads it.
pub fn literal(uri: &Uri) -> Option<IpAddr> {
    uri.host()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// What the operator denies, if that is why an error came.
pub fn denied_in(error: &(dyn Error + 'static)) -> Option<Denied> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(denied) = error.downcast_ref() {
            return Some(*denied);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn departure(denied: &[&str]) -> Departure {
        Departure::new(denied.iter().map(|network| network.parse().expect("a network")).collect())
    }

    /// Whether anybody is connected to at `host`, where a listener is, and what is denied if not.
    async fn reached(departure: &Departure, host: &str) -> Result<(), Option<Denied>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("an address").port();
        let uri: Uri = format!("https://{host}:{port}/").parse().expect("a URL");
        match departure.clone().oneshot(uri).await {
            Ok(_) => {
                listener.accept().await.expect("somebody came");
                Ok(())
            }
            Err(error) => Err(denied_in(error.as_ref())),
        }
    }

    #[tokio::test]
    async fn a_denied_address_is_not_connected_to_however_it_is_written() {
        let departure = departure(&["127.0.0.0/8", "::1/128"]);
        // The last three are names to this code and addresses to the system's resolver.
        let written = ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "127.1", "2130706433", "0x7f000001"];
        for host in written {
            let refused = reached(&departure, host).await.expect_err(host);
            assert!(refused.is_some(), "{host}: refused for another reason");
        }
    }

    #[tokio::test]
    async fn what_is_not_denied_is_connected_to() {
        let departure = departure(&["10.0.0.0/8", "::/0"]);
        for host in ["127.0.0.1", "localhost"] {
            reached(&departure, host).await.expect(host);
        }
    }

    #[tokio::test]
    async fn a_failure_of_the_network_is_no_denial() {
        let departure = departure(&["10.0.0.0/8"]);
        let refused = reached(&departure, "no-such-host.invalid").await.expect_err("no such host");
        assert_eq!(refused, None);
    }
}
