//! TCP, as the board's network stack has it.
//!
//! All of it is plain calls that wait, each until its [`Deadline`] at the longest. How a board lets its network go on
//! meanwhile is its own affair; if its stack is made of futures, this is where they end.

use core::cell::Cell;

use embedded_io::{Read, Write};
use muster_proto::time::Instant;
use muster_proto::x509::ServerName;

/// A network stack that can resolve names and open TCP connections. A connection that is dropped without
/// [`Close::close`] may be lost to the peer without a word.
pub trait Net {
    /// An open connection. A read or a write that would have to wait beyond the deadline that it was made with fails
    /// with `ErrorKind::TimedOut`; so does one that begins after it, even if there are bytes: a peer that never stops
    /// sending would otherwise never be left. Bytes that were not read are there for the next read.
    type Connection<'n>: Read + Write + Close
    where
        Self: 'n;

    /// Opens a connection, within the time until `deadline` as it is now.
    ///
    /// # Errors
    /// [`NotConnected`].
    fn connect<'n>(
        &'n mut self,
        server: ServerName<'_>,
        port: u16,
        deadline: &'n Deadline,
    ) -> Result<Self::Connection<'n>, NotConnected>;
}

/// A connection that can be ended in order.
pub trait Close {
    /// Says that nothing more will come, and waits until the peer knows or the deadline is there. What was sent before
    /// arrives too.
    fn close(&mut self);
}

/// How long a connection may wait, shared by those who know and the one who waits, below TLS.
#[derive(Debug)]
pub struct Deadline(Cell<Instant>);

impl Deadline {
    /// Nothing may wait yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Cell::new(Instant::from_millis(0)))
    }

    /// Waiting ends at `at`.
    pub fn set(&self, at: Instant) {
        self.0.set(at);
    }

    /// When waiting ends.
    #[must_use]
    pub fn get(&self) -> Instant {
        self.0.get()
    }
}

impl Default for Deadline {
    fn default() -> Self {
        Self::new()
    }
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotConnected {
    /// Nobody answered before the deadline.
    TimedOut,
    /// There is no way to the server at present: the name does not resolve, or the server does not want to.
    Unreachable,
}
