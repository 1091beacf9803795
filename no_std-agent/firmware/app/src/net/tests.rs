//! The stack on a wire of memory, against a peer that is DHCP server, name server and service: smoltcp once more, with
//! messages of DHCP and DNS made here.

extern crate std;

use core::cell::{Cell, RefCell};
use core::pin::pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::VecDeque;
use std::vec::Vec as List;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState};
use embedded_io::{ErrorKind, Read as _, Write as _};
use muster_nostd_agent::clock::Clock as _;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant as NetInstant;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, IpCidr, Ipv4Cidr};

use super::*;
use crate::clock::BoardClock;
use crate::factory::Addressing;
use crate::turns::Sleep;

const DEVICE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// An address of the network at which nobody is.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 77);
const MTU: usize = 1514;

type Bytes = List<u8>;

/// Frames on their way, and what the peer does.
#[derive(Default)]
struct Wire {
    to_device: RefCell<VecDeque<Bytes>>,
    to_peer: RefCell<VecDeque<Bytes>>,
    is_cut: Cell<bool>,
    leases: Cell<u8>,
    /// The name server says nothing.
    is_mute: Cell<bool>,
    /// The most frames that the device took at once.
    most_taken: Cell<usize>,
    echoed: RefCell<Bytes>,
    is_reset: Cell<bool>,
}

struct DeviceEnd<'w>(&'w Wire);

struct Frame(Bytes);

impl embassy_net_driver::RxToken for Frame {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, read: F) -> R {
        read(&mut self.0)
    }
}

struct Room<'w>(&'w RefCell<VecDeque<Bytes>>);

impl embassy_net_driver::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = std::vec![0; len];
        let result = write(&mut frame);
        self.0.borrow_mut().push_back(frame);
        result
    }
}

impl Driver for DeviceEnd<'_> {
    type RxToken<'a>
        = Frame
    where
        Self: 'a;
    type TxToken<'a>
        = Room<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: &mut Context<'_>) -> Option<(Frame, Room<'_>)> {
        let frame = self.0.to_device.borrow_mut().pop_front()?;
        Some((Frame(frame), Room(&self.0.to_peer)))
    }

    fn transmit(&mut self, _: &mut Context<'_>) -> Option<Room<'_>> {
        Some(Room(&self.0.to_peer))
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        if self.0.is_cut.get() { LinkState::Down } else { LinkState::Up }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = MTU;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet([2, 0, 0, 0, 0, 2])
    }
}

struct PeerEnd<'w>(&'w Wire);

impl phy::RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        embassy_net_driver::TxToken::consume(self, len, write)
    }
}

impl phy::Device for PeerEnd<'_> {
    type RxToken<'a>
        = Frame
    where
        Self: 'a;
    type TxToken<'a>
        = Room<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: NetInstant) -> Option<(Frame, Room<'_>)> {
        let frame = self.0.to_peer.borrow_mut().pop_front()?;
        Some((Frame(frame), Room(&self.0.to_device)))
    }

    fn transmit(&mut self, _: NetInstant) -> Option<Room<'_>> {
        Some(Room(&self.0.to_device))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

struct Peer<'w, 's> {
    wire: &'w Wire,
    interface: Interface,
    sockets: SocketSet<'s>,
    dhcp: SocketHandle,
    dns: SocketHandle,
    tcp: SocketHandle,
    last_state: State,
}

impl<'w, 's> Peer<'w, 's> {
    fn new(wire: &'w Wire, storage: &'s mut [SocketStorage<'s>; 3]) -> Self {
        let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, 1]).into());
        let mut interface = Interface::new(config, &mut PeerEnd(wire), NetInstant::from_millis(0));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(PEER, 24))).expect("room");
        });
        let leak = |bytes: usize| std::vec![0_u8; bytes].leak();
        let packets = || {
            let metadata = std::vec![udp::PacketMetadata::EMPTY; 4].leak();
            udp::PacketBuffer::new(&mut metadata[..], leak(4096))
        };
        let mut sockets = SocketSet::new(&mut storage[..]);
        let mut udp_at = |port| {
            let mut socket = udp::Socket::new(packets(), packets());
            socket.bind(port).expect("free");
            sockets.add(socket)
        };
        let (dhcp, dns) = (udp_at(67), udp_at(53));
        let mut service =
            tcp::Socket::new(tcp::SocketBuffer::new(leak(4096)), tcp::SocketBuffer::new(leak(4096)));
        service.listen(443).expect("a port");
        let tcp = sockets.add(service);
        Self { wire, interface, sockets, dhcp, dns, tcp, last_state: State::Listen }
    }

    fn poll(&mut self) {
        let now = NetInstant::from_millis(i64::try_from(BoardClock.now().as_millis()).expect("small"));
        self.interface.poll(now, &mut PeerEnd(self.wire), &mut self.sockets);
        let socket: &mut udp::Socket<'_> = self.sockets.get_mut(self.dhcp);
        if let Ok((asked, _)) = socket.recv() {
            let answer = lease(asked);
            self.wire.leases.set(self.wire.leases.get() + 1);
            socket.send_slice(&answer, (Ipv4Addr::BROADCAST, 68)).expect("room");
        }
        let socket: &mut udp::Socket<'_> = self.sockets.get_mut(self.dns);
        if let Ok((asked, from)) = socket.recv()
            && !self.wire.is_mute.get()
        {
            let answer = address(asked);
            socket.send_slice(&answer, from.endpoint).expect("room");
        }
        let socket: &mut tcp::Socket<'_> = self.sockets.get_mut(self.tcp);
        if socket.can_recv() {
            let received = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).expect("open");
            socket.send_slice(&received).expect("open");
            self.wire.echoed.borrow_mut().extend(received);
        } else if socket.state() == State::CloseWait {
            socket.close();
        } else if socket.state() == State::Closed {
            self.wire.is_reset.set(self.last_state == State::Established);
            socket.listen(443).expect("a port");
        }
        self.last_state = socket.state();
    }
}

/// The DHCP server's answer.
fn lease(asked: &[u8]) -> Bytes {
    let packet = DhcpPacket::new_checked(asked).expect("whole");
    let asked = DhcpRepr::parse(&packet).expect("DHCP");
    let message_type = match asked.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        _ => DhcpMessageType::Ack,
    };
    let answer = DhcpRepr {
        message_type,
        your_ip: DEVICE,
        client_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: PEER,
        router: Some(PEER),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(PEER),
        parameter_request_list: None,
        dns_servers: Some([PEER].into_iter().collect()),
        max_size: None,
        lease_duration: Some(3600),
        ..asked
    };
    let mut bytes = std::vec![0; answer.buffer_len()];
    answer.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).expect("fits");
    bytes
}

/// The name server's answer (RFC 1035 §4.1): the peer for `service.test`, no such name for others.
fn address(asked: &[u8]) -> Bytes {
    let is_known = asked[12..].starts_with(b"\x07service\x04test\0");
    let mut answer = asked.to_vec();
    answer[2..4].copy_from_slice(if is_known { &[0x81, 0x80] } else { &[0x81, 0x83] });
    if is_known {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(PEER.octets());
    }
    answer
}

/// A deadline that comes only if something is wrong.
const LONG: Duration = Duration::from_secs(60);

fn with_net(addressing: Addressing, wire: &Wire, run: impl FnOnce(&mut TcpNet<'_>, &Deadline)) {
    let (mut receive, mut send) = ([0; 1024], [0; 768]);
    let (mut sockets, mut storage) = (Sockets::new(), [SocketStorage::EMPTY; 3]);
    let mut driver = DeviceEnd(wire);
    let stack = Stack::new(&mut driver, addressing, &mut sockets, &mut receive, &mut send, 5);
    let mut peer = Peer::new(wire, &mut storage);
    let background = pin!(core::future::poll_fn(|context| {
        let before = wire.to_device.borrow().len();
        stack.poll(&mut driver, context);
        let taken = before - wire.to_device.borrow().len();
        wire.most_taken.set(wire.most_taken.get().max(taken));
        if wire.is_cut.get() {
            wire.to_peer.borrow_mut().clear();
        }
        peer.poll();
        Poll::Pending
    }));
    let turns = Turns::new(background, Sleep::short());
    let hosts = Vec::from_array([("Known.test", PEER), ("nobody.test", NOBODY)]);
    run(&mut TcpNet::new(&stack, &turns, &hosts), &within(LONG));
}

fn within(time: Duration) -> Deadline {
    let deadline = Deadline::new();
    deadline.set(BoardClock.now().plus(time));
    deadline
}

fn failure(net: &mut TcpNet<'_>, name: &str, port: u16, time: Duration) -> Option<NotConnected> {
    net.connect(ServerName::Dns(name), port, &within(time)).err()
}

#[test]
fn a_lease_a_name_and_a_connection_in_both_directions() {
    let wire = Wire::default();
    with_net(Addressing::Dhcp, &wire, |net, deadline| {
        for round in 1..=2_usize {
            let mut connection = net.connect(ServerName::Dns("service.test"), 443, deadline).expect("there");
            let sent: Bytes = (0..=250).cycle().take(5000).collect();
            let (mut received, mut written) = (Bytes::new(), 0);
            while received.len() < sent.len() {
                if let Some(rest) = sent.get(written..).filter(|rest| !rest.is_empty()) {
                    written += connection.write(&rest[..rest.len().min(700)]).expect("open");
                }
                let mut piece = [0; 300];
                let read = connection.read(&mut piece).expect("open");
                received.extend(&piece[..read]);
            }
            assert_eq!(received, sent);
            connection.close();
            assert_eq!(wire.echoed.borrow().len(), round * sent.len());
            assert_eq!(connection.read(&mut [0; 8]), Ok(0), "the end of the peer too");
        }
        assert!(!wire.is_reset.get());
        assert_eq!(wire.leases.get(), 2, "an offer and a lease");
    });
}

#[test]
fn a_cable_that_was_cut_costs_the_lease_and_another_one_is_asked_for() {
    let wire = Wire::default();
    with_net(Addressing::Dhcp, &wire, |net, deadline| {
        assert!(net.connect(ServerName::Dns("known.test"), 443, deadline).is_ok());
        net.turns().wait(deadline.get(), || wire.is_reset.get().then_some(())).expect("told");
        wire.is_cut.set(true);
        net.turns().wait(deadline.get(), || (!net.stack.has_address()).then_some(())).expect("noticed");
        let timed_out = Some(NotConnected::TimedOut);
        assert_eq!(failure(net, "known.test", 443, Duration::from_millis(50)), timed_out);
        wire.is_cut.set(false);
        assert!(net.connect(ServerName::Dns("known.test"), 443, deadline).is_ok());
        assert_eq!(wire.leases.get(), 4);
    });
}

#[test]
fn what_has_no_address_or_no_service_is_unreachable_and_silence_ends_at_the_deadline() {
    let wire = Wire::default();
    let [device, gateway, dns] = [DEVICE, PEER, PEER];
    let told = Addressing::Static { address: device, prefix: 24, gateway, dns };
    with_net(told, &wire, |net, deadline| {
        let unreachable = Some(NotConnected::Unreachable);
        assert_eq!(failure(net, "other.test", 443, LONG), unreachable, "no such name");
        assert_eq!(failure(net, "service.test", 444, LONG), unreachable, "no such service");
        let six = ServerName::Ip(IpAddr::V6(core::net::Ipv6Addr::LOCALHOST));
        assert_eq!(net.connect(six, 443, deadline).err(), unreachable);
        // More often than there are queries: each is given up.
        wire.is_mute.set(true);
        for _ in 0..3 {
            let silent = failure(net, "service.test", 443, Duration::from_millis(30));
            assert_eq!(silent, Some(NotConnected::TimedOut), "a mute name server");
        }
        wire.is_mute.set(false);
        let silent = failure(net, "nobody.test", 443, Duration::from_millis(30));
        assert_eq!(silent, Some(NotConnected::TimedOut), "nobody at the address");
        assert!(net.connect(ServerName::Dns("service.test"), 443, deadline).is_ok());
        assert_eq!(wire.leases.get(), 0);
    });
}

#[test]
fn a_read_ends_at_its_deadline_and_a_dropped_connection_is_reset() {
    let wire = Wire::default();
    with_net(Addressing::Dhcp, &wire, |net, deadline| {
        let mut connection = net.connect(ServerName::Dns("known.test"), 443, deadline).expect("there");
        deadline.set(BoardClock.now().plus(Duration::from_millis(30)));
        assert_eq!(connection.read(&mut [0; 8]), Err(ErrorKind::TimedOut));
        drop(connection);
        deadline.set(BoardClock.now().plus(LONG));
        net.turns().wait(deadline.get(), || wire.is_reset.get().then_some(())).expect("told");
        assert!(net.connect(ServerName::Dns("known.test"), 443, deadline).is_ok(), "the next one works");
    });
}

#[test]
fn a_flood_is_taken_a_few_frames_at_a_time() {
    let wire = Wire::default();
    wire.to_device.borrow_mut().extend((0..1000).map(|_| std::vec![0xff; 200]));
    with_net(Addressing::Dhcp, &wire, |net, deadline| {
        assert!(net.connect(ServerName::Dns("known.test"), 443, deadline).is_ok());
        assert_eq!(wire.most_taken.get(), usize::from(stack::FRAMES_PER_TURN));
    });
}
