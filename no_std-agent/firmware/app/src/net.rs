//! TCP and names over embassy-net, the same on every board whose driver it knows.
//!
//! One socket, whose buffers are lent: the device has one connection at a time. A name is looked up among those that
//! the factory gave first, then by DNS.

use core::net::{IpAddr, Ipv4Addr};

use embassy_net::dns::DnsQueryType;
use embassy_net::tcp::TcpSocket;
use embassy_net::{IpAddress, IpEndpoint, Stack, StaticConfigV4};
use embedded_io_async::{ErrorType, Read, Write};
use heapless::Vec;
use muster_nostd_agent::net::{Close, Net, Unreachable};
use muster_proto::x509::ServerName;

use crate::factory::{Addressing, MAX_HOSTS};

/// What lends a device its connections.
pub struct TcpNet<'m> {
    stack: Stack<'m>,
    hosts: Vec<(&'m str, Ipv4Addr), MAX_HOSTS>,
    receive: &'m mut [u8],
    send: &'m mut [u8],
}

impl<'m> TcpNet<'m> {
    /// A network with `hosts` known beforehand.
    pub const fn new(
        stack: Stack<'m>,
        hosts: Vec<(&'m str, Ipv4Addr), MAX_HOSTS>,
        receive: &'m mut [u8],
        send: &'m mut [u8],
    ) -> Self {
        Self { stack, hosts, receive, send }
    }

    async fn resolve(&self, server: ServerName<'_>) -> Option<IpAddress> {
        let name = match server {
            ServerName::Ip(IpAddr::V4(address)) => return Some(address.into()),
            // The stack is built without it.
            ServerName::Ip(IpAddr::V6(_)) => return None,
            ServerName::Dns(name) => name,
        };
        if let Some((_, address)) = self.hosts.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Some((*address).into());
        }
        let found = self.stack.dns_query(name, DnsQueryType::A).await.ok()?;
        found.first().copied()
    }
}

impl Net for TcpNet<'_> {
    type Connection<'n>
        = Tcp<'n>
    where
        Self: 'n;

    async fn connect<'n>(&'n mut self, server: ServerName<'_>, port: u16) -> Result<Tcp<'n>, Unreachable> {
        self.stack.wait_config_up().await;
        let address = self.resolve(server).await.ok_or(Unreachable)?;
        let mut socket = TcpSocket::new(self.stack, self.receive, self.send);
        socket.set_timeout(Some(SILENCE_TIMEOUT));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.connect(IpEndpoint::new(address, port)).await.map_err(|_| Unreachable)?;
        Ok(Tcp(socket))
    }
}

/// One connection. When it is dropped before it was closed, what is under way is lost.
pub struct Tcp<'n>(TcpSocket<'n>);

impl ErrorType for Tcp<'_> {
    type Error = embassy_net::tcp::Error;
}

impl Read for Tcp<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        self.0.read(buffer).await
    }
}

impl Write for Tcp<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.0.write(bytes).await
    }

    /// Hands over to the network; does not wait until the peer has it, which could be for ever.
    async fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl Close for Tcp<'_> {
    async fn close(&mut self) {
        self.0.close();
        // Until the peer has all of it, and the end.
        let _ = self.0.flush().await;
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
