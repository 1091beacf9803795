//! The connector that hyper's client pool calls: a dial of the upstream with one identity.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::upstream::{DialFault, Upstream};
use crate::identity::Identity;

/// Dials one upstream with one identity, whatever the address says.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    upstream: Arc<Upstream>,
    identity: Arc<Identity>,
}

/// A connection in the form that hyper's client takes.
pub(super) struct Dialled(TokioIo<TlsStream<TcpStream>>);

impl Dialer {
    pub(super) fn new(upstream: Arc<Upstream>, identity: Arc<Identity>) -> Self {
        Self { upstream, identity }
    }
}

impl Service<Uri> for Dialer {
    type Response = Dialled;
    type Error = DialFault;
    type Future = Pin<Box<dyn Future<Output = Result<Dialled, DialFault>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialFault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let stream = dialer.upstream.dial(&dialer.identity).await?;
            Ok(Dialled(TokioIo::new(stream)))
        })
    }
}

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
