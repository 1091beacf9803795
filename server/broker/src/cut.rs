//! The signal by which the edge ends a connection whose certificate no longer counts.

use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Poll, ready};

use tokio::sync::oneshot;

/// Why the edge ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CutReason {
    /// The certificate came to its end.
    CertificateEnded,
    /// The certificate, its device or its CA was revoked, suspended or taken away from the host.
    Denied,
}

impl CutReason {
    /// The reason in snake case, as it stands in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::CertificateEnded => "certificate_ended",
            Self::Denied => "denied",
        }
    }
}

/// The edge's end of the signal. Dropping it does nothing.
#[derive(Debug)]
pub struct Cutter(oneshot::Sender<CutReason>);

impl Cutter {
    /// Ends the connection: DISCONNECT 0x98 in version 5, then a close.
    pub fn cut(self, reason: CutReason) {
        // The connection may have ended by itself.
        let _ = self.0.send(reason);
    }
}

/// The broker's end of the signal.
#[derive(Debug)]
pub struct Cut(Option<oneshot::Receiver<CutReason>>);

impl Cut {
    /// A signal and its end for the edge.
    pub fn new() -> (Cutter, Self) {
        let (sender, receiver) = oneshot::channel();
        (Cutter(sender), Self(Some(receiver)))
    }

    /// A signal that never comes.
    pub const fn never() -> Self {
        Self(None)
    }

    /// Waits for the signal; for ever when the edge dropped its end. Cancel-safe.
    pub(crate) async fn wait(&mut self) -> CutReason {
        poll_fn(|cx| {
            let Some(receiver) = &mut self.0 else { return Poll::Pending };
            let reason = ready!(Pin::new(receiver).poll(cx));
            self.0 = None;
            reason.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
