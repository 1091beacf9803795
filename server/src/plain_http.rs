//! The listeners without TLS: of the admin API, of CRLs, of figures.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use hyper::body::Body as _;
use muster_arrival::linger::{Lingering, Sending};
use muster_arrival::turn::answering;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Serves until stopped, then lets what is under way finish.
pub(crate) async fn serve(socket: TcpListener, router: Router, stop: CancellationToken) {
    let router = router.layer(from_fn(note_body)).into_make_service_with_connect_info::<Connection>();
    let served = axum::serve(Door(socket), router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "an HTTP listener ended");
    }
}

/// A socket whose connections don't end with a reset.
struct Door(TcpListener);

impl Listener for Door {
    type Io = Lingering<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        (Lingering::new(stream, Sending::default()), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The connection that a request came by.
#[derive(Clone)]
struct Connection(Sending);

impl Connected<IncomingStream<'_, Door>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(stream.io().sending().clone())
    }
}

async fn note_body(connection: ConnectInfo<Connection>, request: Request, next: Next) -> Response {
    let ConnectInfo(Connection(sending)) = connection;
    sending.set(!request.body().is_end_stream());
    answering(next.run(request)).await
}
