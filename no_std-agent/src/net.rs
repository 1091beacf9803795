//! TCP, as the board's network stack has it.

use core::future::Future;

use embedded_io_async::{Read, Write};
use muster_proto::x509::ServerName;

/// A network stack that can resolve names and open TCP connections. Dropping a connection closes it.
pub trait Net {
    /// An open connection.
    type Connection<'n>: Read + Write
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

/// There is no way to the server at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;
