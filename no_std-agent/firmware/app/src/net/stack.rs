//! The TCP/IP stack of a board: smoltcp, with one TCP socket, one DNS query and DHCP.
//!
//! It goes on by [`Stack::poll`], once in each turn, which does a bounded amount of work: what arrives meanwhile waits in
//! the driver. Who uses a socket needs to tell nobody, because a turn follows before anyone waits.

use core::cell::{RefCell, RefMut};
use core::net::Ipv4Addr;
use core::task::{Context, Waker};

use embassy_net_driver::{Driver, HardwareAddress, LinkState};
use muster_nostd_agent::clock::Clock as _;
use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet, SocketStorage,
};
use smoltcp::socket::dns::{self, DnsQuery, GetQueryResultError};
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{DnsQueryType, EthernetAddress, IpAddress, IpCidr, Ipv4Cidr};

use super::phy::Adapter;
use crate::clock::{BoardClock, ticks};
use crate::factory::Addressing;

/// What a stack keeps its sockets in.
#[derive(Debug)]
pub struct Sockets<'s> {
    sockets: [SocketStorage<'s>; 3],
    queries: [Option<DnsQuery>; 1],
}

impl Default for Sockets<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl Sockets<'_> {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { sockets: [SocketStorage::EMPTY; 3], queries: [None] }
    }
}

/// The stack, shared between who polls it and who uses its socket.
pub struct Stack<'s>(RefCell<Inner<'s>>);

pub(super) struct Inner<'s> {
    interface: Interface,
    sockets: SocketSet<'s>,
    tcp: SocketHandle,
    dns: SocketHandle,
    /// None with a static address.
    dhcp: Option<SocketHandle>,
    is_link_up: bool,
    has_address: bool,
    next_port: u16,
}

impl<'s> Stack<'s> {
    /// A stack on the board's `driver`, which is lent to it again for each poll. `receive` and `send` are what arrived and
    /// was not read, and what was written and not acknowledged. `seed` is random.
    // Apart: what is made here is large, and goes from here straight to its place.
    #[inline(never)]
    pub fn new(
        driver: &mut impl Driver,
        addressing: Addressing,
        memory: &'s mut Sockets<'s>,
        receive: &'s mut [u8],
        send: &'s mut [u8],
        seed: u64,
    ) -> Self {
        let address = match driver.hardware_address() {
            HardwareAddress::Ethernet(address) => address,
            // No board here has another network; from this address nobody would be answered.
            _ => [0; 6],
        };
        let mut config = Config::new(EthernetAddress(address).into());
        config.random_seed = seed;
        let mut context = Context::from_waker(Waker::noop());
        let interface = Interface::new(config, &mut Adapter::new(driver, &mut context), now());

        let mut sockets = SocketSet::new(&mut memory.sockets[..]);
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(receive), tcp::SocketBuffer::new(send));
        socket.set_timeout(Some(SILENCE_TIMEOUT));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        let tcp = sockets.add(socket);
        let dns = sockets.add(dns::Socket::new(&[], &mut memory.queries[..]));
        let dhcp = (addressing == Addressing::Dhcp).then(|| sockets.add(dhcpv4::Socket::new()));
        let next_port =
            FIRST_PORT + u16::try_from(seed % u64::from(u16::MAX - FIRST_PORT)).unwrap_or_default();
        let (is_link_up, has_address) = (false, false);
        let mut inner = Inner { interface, sockets, tcp, dns, dhcp, is_link_up, has_address, next_port };
        if let Addressing::Static { address, prefix, gateway, dns } = addressing {
            inner.address(Ipv4Cidr::new(address, prefix), Some(gateway), &[dns.into()]);
        }
        Self(RefCell::new(inner))
    }

    /// Takes what arrived, sends what is to be sent, and sees to it that `context` is woken when there is more to do, or
    /// when a socket may have something new. The driver wakes it when something arrives.
    // Each part apart: one's memory is off the stack before the next one's is on it.
    #[inline(never)]
    pub fn poll(&self, driver: &mut impl Driver, context: &mut Context<'_>) {
        let mut inner = self.0.borrow_mut();
        let is_link_up = driver.link_state(context) == LinkState::Up;
        let mut is_news = inner.follow_link(is_link_up);
        is_news |= inner.arrive(driver, context);
        is_news |= inner.follow_lease();
        let depart = inner.depart(driver, context);
        if is_news || depart == Departure::Done {
            context.waker().wake_by_ref();
        } else if depart != Departure::Stuck {
            inner.wake_in_time(context);
        }
    }

    /// Whether it has an address.
    pub(super) fn has_address(&self) -> bool {
        self.0.borrow().has_address
    }

    pub(super) fn inner(&self) -> RefMut<'_, Inner<'s>> {
        self.0.borrow_mut()
    }
}

/// What came of trying to send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Departure {
    /// Something was sent.
    Done,
    /// There is nothing to send.
    Nothing,
    /// The driver has no room; it wakes who polls when it has.
    Stuck,
}

impl<'s> Inner<'s> {
    pub(super) fn tcp(&mut self) -> &mut tcp::Socket<'s> {
        self.sockets.get_mut(self.tcp)
    }

    /// Begins a connection, in place of the one before.
    pub(super) fn connect(&mut self, address: IpAddress, port: u16) -> Result<(), tcp::ConnectError> {
        let local = self.next_port;
        self.next_port = local.checked_add(1).unwrap_or(FIRST_PORT);
        let socket: &mut tcp::Socket<'s> = self.sockets.get_mut(self.tcp);
        socket.abort();
        socket.connect(self.interface.context(), (address, port), local)
    }

    /// Begins to ask for the address of `name`.
    pub(super) fn ask(&mut self, name: &str) -> Result<dns::QueryHandle, dns::StartQueryError> {
        let socket: &mut dns::Socket<'s> = self.sockets.get_mut(self.dns);
        socket.start_query(self.interface.context(), name, DnsQueryType::A)
    }

    /// The answer, if it is there; `Some(None)` if there is none and will be none. The query is over with it.
    pub(super) fn answer(&mut self, query: dns::QueryHandle) -> Option<Option<IpAddress>> {
        let socket: &mut dns::Socket<'s> = self.sockets.get_mut(self.dns);
        match socket.get_query_result(query) {
            Ok(addresses) => Some(addresses.first().copied()),
            Err(GetQueryResultError::Failed) => Some(None),
            Err(GetQueryResultError::Pending) => None,
        }
    }

    /// Asks no longer.
    pub(super) fn give_up(&mut self, query: dns::QueryHandle) {
        let socket: &mut dns::Socket<'s> = self.sockets.get_mut(self.dns);
        socket.cancel_query(query);
    }

    /// Takes what arrived; whether there was anything.
    #[inline(never)]
    fn arrive(&mut self, driver: &mut impl Driver, context: &mut Context<'_>) -> bool {
        let mut device = Adapter::new(driver, context);
        for taken in 0..FRAMES_PER_TURN {
            let result = self.interface.poll_ingress_single(now(), &mut device, &mut self.sockets);
            if result == PollIngressSingleResult::None {
                return taken > 0;
            }
        }
        true
    }

    #[inline(never)]
    fn depart(&mut self, driver: &mut impl Driver, context: &mut Context<'_>) -> Departure {
        let mut device = Adapter::new(driver, context);
        match self.interface.poll_egress(now(), &mut device, &mut self.sockets) {
            _ if device.is_full() => Departure::Stuck,
            PollResult::SocketStateChanged => Departure::Done,
            PollResult::None => Departure::Nothing,
        }
    }

    /// Whether the link changed.
    fn follow_link(&mut self, is_up: bool) -> bool {
        if core::mem::replace(&mut self.is_link_up, is_up) == is_up {
            return false;
        }
        if let Some(dhcp) = self.dhcp {
            // Another network, maybe.
            self.sockets.get_mut::<dhcpv4::Socket<'s>>(dhcp).reset();
            self.no_address();
        }
        true
    }

    /// Whether there is a new lease, or none any more.
    fn follow_lease(&mut self) -> bool {
        let Some(dhcp) = self.dhcp else { return false };
        match self.sockets.get_mut::<dhcpv4::Socket<'s>>(dhcp).poll() {
            None => return false,
            Some(dhcpv4::Event::Deconfigured) => self.no_address(),
            Some(dhcpv4::Event::Configured(lease)) => {
                let (address, router) = (lease.address, lease.router);
                let mut servers = [IpAddress::Ipv4(Ipv4Addr::UNSPECIFIED); NAME_SERVERS];
                let told = lease.dns_servers.iter().zip(&mut servers);
                let count = told.map(|(server, place)| *place = (*server).into()).count();
                self.address(address, router, servers.get(..count).unwrap_or_default());
            }
        }
        true
    }

    fn address(&mut self, address: Ipv4Cidr, gateway: Option<Ipv4Addr>, name_servers: &[IpAddress]) {
        self.no_address();
        // There is room for one of each.
        self.interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::Ipv4(address));
        });
        if let Some(gateway) = gateway {
            let _ = self.interface.routes_mut().add_default_ipv4_route(gateway);
        }
        let socket: &mut dns::Socket<'s> = self.sockets.get_mut(self.dns);
        socket.update_servers(name_servers);
        self.has_address = true;
    }

    fn no_address(&mut self) {
        self.interface.update_ip_addrs(heapless::Vec::clear);
        self.interface.routes_mut().remove_default_ipv4_route();
        self.has_address = false;
    }

    /// Has `context` woken when something is due.
    fn wake_in_time(&mut self, context: &Context<'_>) {
        let now = now();
        match self.interface.poll_at(now, &self.sockets) {
            None => {}
            Some(at) if at <= now => context.waker().wake_by_ref(),
            Some(at) => {
                let at = muster_proto::time::Instant::from_millis(
                    u64::try_from(at.total_millis()).unwrap_or_default(),
                );
                embassy_time_driver::schedule_wake(ticks(at), context.waker());
            }
        }
    }
}

fn now() -> Instant {
    Instant::from_millis(i64::try_from(BoardClock.now().as_millis()).unwrap_or(i64::MAX))
}

/// A flood does not hold up what else goes on.
pub(super) const FRAMES_PER_TURN: u8 = 8;
/// As many as a query falls back on.
const NAME_SERVERS: usize = smoltcp::config::DNS_MAX_SERVER_COUNT;
/// The first port for connections from here (RFC 6335 §6).
const FIRST_PORT: u16 = 49_152;
/// A peer that acknowledges nothing for so long is gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a silent connection is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
