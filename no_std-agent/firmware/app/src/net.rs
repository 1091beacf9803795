//! TCP and names, the same on every board, over embassy-net's drivers.
//!
//! One socket: the device has one connection at a time. A name is looked up among those that the factory gave first,
//! then by DNS.

mod phy;
mod stack;
#[cfg(test)]
mod tests;

use core::net::{IpAddr, Ipv4Addr};

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use heapless::Vec;
use muster_nostd_agent::net::{Close, Deadline, Net, NotConnected};
use muster_proto::time::Instant;
use muster_proto::x509::ServerName;
use smoltcp::socket::tcp::{RecvError, State};
use smoltcp::wire::IpAddress;

pub use self::stack::{Sockets, Stack};
use crate::factory::MAX_HOSTS;
use crate::turns::Turns;

/// What lends a device its connections.
pub struct TcpNet<'m> {
    stack: &'m Stack<'m>,
    turns: &'m Turns<'m>,
    hosts: &'m Vec<(&'m str, Ipv4Addr), MAX_HOSTS>,
}

impl<'m> TcpNet<'m> {
    /// A network with `hosts` known beforehand, which is polled in the background of `turns`.
    pub const fn new(
        stack: &'m Stack<'m>,
        turns: &'m Turns<'m>,
        hosts: &'m Vec<(&'m str, Ipv4Addr), MAX_HOSTS>,
    ) -> Self {
        Self { stack, turns, hosts }
    }

    /// How time passes while the network goes on.
    pub(crate) const fn turns(&self) -> &'m Turns<'m> {
        self.turns
    }

    fn resolve(&self, server: ServerName<'_>, until: Instant) -> Result<IpAddress, NotConnected> {
        let name = match server {
            ServerName::Ip(IpAddr::V4(address)) => return Ok(address.into()),
            // The stack is built without it.
            ServerName::Ip(IpAddr::V6(_)) => return Err(NotConnected::Unreachable),
            ServerName::Dns(name) => name,
        };
        if let Some((_, address)) = self.hosts.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Ok((*address).into());
        }
        let query = self.stack.inner().ask(name).map_err(|_| NotConnected::Unreachable)?;
        match self.turns.wait(until, || self.stack.inner().answer(query)) {
            Some(answer) => answer.ok_or(NotConnected::Unreachable),
            None => {
                self.stack.inner().give_up(query);
                Err(NotConnected::TimedOut)
            }
        }
    }
}

impl<'m> Net for TcpNet<'m> {
    type Connection<'n>
        = Tcp<'n, 'm>
    where
        Self: 'n;

    // Apart: off the stack during the handshake that follows.
    #[inline(never)]
    fn connect<'n>(
        &'n mut self,
        server: ServerName<'_>,
        port: u16,
        deadline: &'n Deadline,
    ) -> Result<Tcp<'n, 'm>, NotConnected> {
        let until = deadline.get();
        let has_address = self.turns.wait(until, || self.stack.has_address().then_some(()));
        has_address.ok_or(NotConnected::TimedOut)?;
        let address = self.resolve(server, until)?;
        self.stack.inner().connect(address, port).map_err(|_| NotConnected::Unreachable)?;
        // From here on given up when dropped.
        let connection = Tcp { stack: self.stack, turns: self.turns, deadline };
        let connected = self.turns.wait(until, || match self.stack.inner().tcp().state() {
            State::SynSent | State::SynReceived => None,
            State::Closed | State::TimeWait => Some(Err(NotConnected::Unreachable)),
            _ => Some(Ok(())),
        });
        connected.ok_or(NotConnected::TimedOut)?.map(|()| connection)
    }
}

/// One connection. When it is dropped before it was closed, what is under way is lost.
pub struct Tcp<'n, 'm> {
    stack: &'n Stack<'m>,
    turns: &'n Turns<'m>,
    deadline: &'n Deadline,
}

impl Tcp<'_, '_> {
    fn wait<T>(&self, ready: impl FnMut() -> Option<Result<T, ErrorKind>>) -> Result<T, ErrorKind> {
        self.turns.wait(self.deadline.get(), ready).unwrap_or(Err(ErrorKind::TimedOut))
    }
}

impl ErrorType for Tcp<'_, '_> {
    type Error = ErrorKind;
}

impl Read for Tcp<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.wait(|| match self.stack.inner().tcp().recv_slice(buffer) {
            Ok(0) if !buffer.is_empty() => None,
            Ok(read) => Some(Ok(read)),
            Err(RecvError::Finished) => Some(Ok(0)),
            Err(RecvError::InvalidState) => Some(Err(ErrorKind::ConnectionReset)),
        })
    }
}

impl Write for Tcp<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.wait(|| match self.stack.inner().tcp().send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => None,
            Ok(written) => Some(Ok(written)),
            Err(_) => Some(Err(ErrorKind::ConnectionReset)),
        })
    }

    /// Hands over to the network; does not wait until the peer has it, which could be for ever.
    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Close for Tcp<'_, '_> {
    fn close(&mut self) {
        self.stack.inner().tcp().close();
        // Until the peer has all of it, and the end; or will have nothing any more.
        let _ = self.wait(|| {
            let mut inner = self.stack.inner();
            let socket = inner.tcp();
            let is_under_way = match socket.state() {
                State::Closed => false,
                State::FinWait1 | State::Closing | State::LastAck => true,
                _ => socket.send_queue() > 0,
            };
            (!is_under_way).then_some(Ok(()))
        });
    }
}

impl Drop for Tcp<'_, '_> {
    fn drop(&mut self) {
        let mut inner = self.stack.inner();
        let socket = inner.tcp();
        // One that was closed has its end: a reset would come behind it.
        if !matches!(socket.state(), State::FinWait2 | State::TimeWait | State::Closed) {
            socket.abort();
        }
    }
}
