//! Connections to origins that are made in time or not at all.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use tower::Service;

/// A connector with a bound on all that it does: the look-up of a name, TCP and TLS.
///
/// One that is out of time failed to connect, like one that was refused.
#[derive(Clone, Debug)]
pub(crate) struct Timed<C> {
    connector: C,
    most: Duration,
}

impl<C> Timed<C> {
    pub(crate) const fn new(connector: C, most: Duration) -> Self {
        Self { connector, most }
    }
}

type Failure = Box<dyn core::error::Error + Send + Sync>;

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri, Error = Failure, Future: Send + 'static>,
{
    type Response = C::Response;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.most, self.connector.call(uri));
        Box::pin(
            async move { connecting.await.unwrap_or_else(|_| Err(Error::from(ErrorKind::TimedOut).into())) },
        )
    }
}
