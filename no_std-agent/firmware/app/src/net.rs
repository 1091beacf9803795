//! TCP and names over embassy-net, the same on every board whose driver it knows.
//!
//! One socket, whose buffers are lent: the device has one connection at a time. A name is looked up among those that
//! the factory gave first, then by DNS.

use core::net::{IpAddr, Ipv4Addr};
use core::pin::pin;
use core::task::Poll;

use embassy_net::dns::DnsQueryType;
use embassy_net::tcp::{ConnectError, TcpSocket};
use embassy_net::{IpAddress, IpEndpoint, Stack, StaticConfigV4};
use embedded_io::{ErrorKind, ErrorType, Read, Write};
use heapless::Vec;
use muster_nostd_agent::net::{Close, Deadline, Net, NotConnected};
use muster_proto::time::Instant;
use muster_proto::x509::ServerName;

use crate::factory::{Addressing, MAX_HOSTS};
use crate::turns::Turns;

/// What lends a device its connections.
pub struct TcpNet<'m> {
    stack: Stack<'m>,
    turns: &'m Turns<'m>,
    hosts: &'m Vec<(&'m str, Ipv4Addr), MAX_HOSTS>,
    receive: &'m mut [u8],
    send: &'m mut [u8],
}

impl<'m> TcpNet<'m> {
    /// A network with `hosts` known beforehand, which goes on in the background of `turns`.
    pub const fn new(
        stack: Stack<'m>,
        turns: &'m Turns<'m>,
        hosts: &'m Vec<(&'m str, Ipv4Addr), MAX_HOSTS>,
        receive: &'m mut [u8],
        send: &'m mut [u8],
    ) -> Self {
        Self { stack, turns, hosts, receive, send }
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
        let mut asking = pin!(self.stack.dns_query(name, DnsQueryType::A));
        let found = self.turns.wait(until, |context| asking.as_mut().poll(context));
        let found = found.ok_or(NotConnected::TimedOut)?.map_err(|_| NotConnected::Unreachable)?;
        found.first().copied().ok_or(NotConnected::Unreachable)
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
        let (turns, until) = (self.turns, deadline.get());
        let is_up =
            turns.wait(until, |_| if self.stack.is_config_up() { Poll::Ready(()) } else { Poll::Pending });
        is_up.ok_or(NotConnected::TimedOut)?;
        let address = self.resolve(server, until)?;
        let mut socket = TcpSocket::new(self.stack, self.receive, self.send);
        socket.set_timeout(Some(SILENCE_TIMEOUT));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        let connected = {
            let mut connecting = pin!(socket.connect(IpEndpoint::new(address, port)));
            turns.wait(until, |context| connecting.as_mut().poll(context))
        };
        let connected: Result<(), ConnectError> = connected.ok_or(NotConnected::TimedOut)?;
        connected.map_err(|_| NotConnected::Unreachable)?;
        Ok(Tcp { socket, turns, deadline })
    }
}

/// One connection. When it is dropped before it was closed, what is under way is lost.
pub struct Tcp<'n, 'm> {
    socket: TcpSocket<'n>,
    turns: &'n Turns<'m>,
    deadline: &'n Deadline,
}

impl Tcp<'_, '_> {
    /// What came of waiting.
    fn done<T>(waited: Option<Result<T, embassy_net::tcp::Error>>) -> Result<T, ErrorKind> {
        waited.ok_or(ErrorKind::TimedOut)?.map_err(|_| ErrorKind::ConnectionReset)
    }
}

impl ErrorType for Tcp<'_, '_> {
    type Error = ErrorKind;
}

impl Read for Tcp<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let mut reading = pin!(self.socket.read(buffer));
        Self::done(self.turns.wait(self.deadline.get(), |context| reading.as_mut().poll(context)))
    }
}

impl Write for Tcp<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let mut writing = pin!(self.socket.write(bytes));
        Self::done(self.turns.wait(self.deadline.get(), |context| writing.as_mut().poll(context)))
    }

    /// Hands over to the network; does not wait until the peer has it, which could be for ever.
    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Close for Tcp<'_, '_> {
    fn close(&mut self) {
        self.socket.close();
        let mut flushing = pin!(self.socket.flush());
        // Until the peer has all of it, and the end.
        let _ = self.turns.wait(self.deadline.get(), |context| flushing.as_mut().poll(context));
    }
}

/// How the stack gets its address.
#[must_use]
pub fn config(addressing: Addressing) -> embassy_net::Config {
    match addressing {
        Addressing::Dhcp => embassy_net::Config::dhcpv4(embassy_net::DhcpConfig::default()),
        Addressing::Static { address, prefix, gateway, dns } => {
            embassy_net::Config::ipv4_static(StaticConfigV4 {
                address: embassy_net::Ipv4Cidr::new(address, prefix),
                gateway: Some(gateway),
                dns_servers: core::iter::once(dns).collect(),
            })
        }
    }
}

/// A peer that acknowledges nothing for so long is gone.
const SILENCE_TIMEOUT: embassy_time::Duration = embassy_time::Duration::from_secs(60);
/// How often a silent connection is probed.
const KEEP_ALIVE: embassy_time::Duration = embassy_time::Duration::from_secs(25);
