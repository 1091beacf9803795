//! Answering a request while its body is read.
//!
//! hyper reads the body of a request and polls what answers it in one task, the reading first, and reads for as
//! long as there is something to read. A peer can see to it that there always is: the size of a chunk may begin
//! with zeros without end (RFC 9112 §7.1). The runtime stops such a task when it has used up its turn (tokio,
//! `task::coop`), and then the timers and sockets of whoever answers say that they are not ready, this turn and
//! all that follow. No bound in time would hold.

use tokio::task::coop::{Unconstrained, unconstrained};

/// Whoever answers a request, with timers and sockets that work however much of the turn reading took.
///
/// Nothing else of it is bounded by the turn any more: it has to wait for something now and then, as for the next
/// piece of a body.
pub fn answering<F: Future>(answer: F) -> Unconstrained<F> {
    unconstrained(answer)
}

#[cfg(test)]
mod tests {
    use core::convert::{Infallible, identity};
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, join, repeat, sink};
    use tokio::time::timeout;

    use super::*;

    type Answer = Result<Response<String>, Infallible>;

    /// A server that gives up a body after a tenth of a second, and a client that sends zeros where the size of a
    /// chunk should be, faster than they are read. Whether it is given up.
    async fn gives_up<F: Future<Output = Answer>>(through: fn(Answering) -> F) -> bool {
        let service = service_fn(move |request| through(answer(request)));
        let head = &b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
        let flood = TokioIo::new(join(head.chain(repeat(b'0')), sink()));
        let served = http1::Builder::new().max_buf_size(8 * 1024).serve_connection(flood, service);
        timeout(Duration::from_secs(2), served).await.is_ok()
    }

    type Answering = core::pin::Pin<Box<dyn Future<Output = Answer>>>;

    fn answer(request: Request<Incoming>) -> Answering {
        Box::pin(async {
            let body = timeout(Duration::from_millis(100), request.into_body().collect()).await;
            Ok(Response::new(if body.is_err() { "given up" } else { "read" }.to_owned()))
        })
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up_in_time() {
        assert!(gives_up(answering).await);
        assert!(!gives_up(identity).await, "it is this that helps");
    }
}
