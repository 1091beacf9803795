//! TCP, as the board's network stack has it.

use core::future::Future;

use embedded_io_async::{Read, Write};
use muster_proto::x509::ServerName;

/// A network stack that can resolve names and open TCP connections. A connection that is dropped without
/// [`Close::close`] may be lost to the peer without a word.
pub trait Net {
    /// An open connection.
    type Connection<'n>: Read + Write + Close
    where
        Self: 'n;

    /// Opens a connection. Needs no time limit of its own: the caller drops the future when its time is over.
    ///
    /// # Errors
    /// [`Unreachable`] when the name does not resolve or nobody answers.
    fn connect<'n>(
        &'n mut self,
        server: ServerName<'_>,
        port: u16,
    ) -> impl Future<Output = Result<Self::Connection<'n>, Unreachable>>;
}

/// A connection that can be ended in order.
pub trait Close {
    /// Says that nothing more will come, and waits until the peer knows. What was sent before arrives too. Needs no
    /// time limit of its own, as above.
    fn close(&mut self) -> impl Future<Output = ()>;
}

/// There is no way to the server at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;
