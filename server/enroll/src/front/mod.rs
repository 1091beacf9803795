//! EST over HTTPS (RFC 7030, RFC 8951).
//!
//! From the outside in: [`listener`] accepts, [`tls`] establishes who holds which key,
//! [`connection`] speaks HTTP, [`service`] answers operations, [`answer`] writes outcomes.

pub(crate) mod answer;
pub(crate) mod connection;
mod credentials;
mod listener;
mod path;
mod service;
mod spelling;
mod tls;

pub use credentials::Presented;
pub use listener::ListenerLimits;
pub(crate) use path::Operation;
pub(crate) use tls::TlsPeer;
pub use tls::{TlsSource, server_config};

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
use self::listener::Listener;
use self::service::EstService;
use crate::presentation::PathCache;
use crate::registrar::Registrar;

/// Serves EST on a socket until stopped, then drains.
pub async fn serve(
    socket: TcpListener,
    registrar: Arc<Registrar>,
    tls: TlsSource,
    limits: ListenerLimits,
    stop: CancellationToken,
) {
    let metrics = Arc::clone(registrar.metrics());
    let service = Arc::new(EstService { registrar });
    let listener = Listener { limits, tls, metrics, stop: stop.clone() };
    listener
        .run(socket, move |stream, peer| {
            let (service, stop) = (Arc::clone(&service), stop.clone());
            let tls = TlsPeer::of(stream.get_ref().1);
            connection::serve(
                stream,
                Connection { source: peer.ip(), tls, path: PathCache::default() },
                service,
                stop,
            )
        })
        .await;
}
