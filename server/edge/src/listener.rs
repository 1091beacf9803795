//! The accept loop, and what every connection passes before its first request.
//!
//! ```text
//! accept (never awaits a peer) -> rate and slot of the source -> place among the arriving -> slot of the connection
//!    -> ClientHello, timed -> the hostname's configuration -> slot of the handshake
//!    -> handshake, timed -> a place among the live ones -> HTTP or MQTT
//! ```
//! A peer that sends nothing, or only the beginning of a hello, holds no handshake slot, so silent
//! sockets can't keep an honest client out. Nor can handshakes that stall: see [`muster_arrival`]. When
//! slots of connections run out new ones are closed at once.
//! Running out of file descriptors is survived: the loop waits for some to come back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_arrival::accept::{EXHAUSTED_PAUSE, is_the_peers};
use muster_arrival::fair::{FairSlot, FairSlots};
use muster_arrival::handshakes::{Handshakes, Times, Unfinished};
use muster_arrival::hello::{Hello, HelloFault, read_hello};
use muster_policy::access::Holder;
use muster_policy::host::{HostMode, Protocol};
use muster_policy::name::Hostname;
use muster_policy::reason::Reason;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{unconstrained, yield_now};
use tokio::time::timeout;
use tokio_rustls::server::{StartHandshake, TlsStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handover::{Arrival, CUT_GRACE, Carrier, MqttHandover, MqttStream};
use crate::hosts::{Door, Doors};
use crate::http::proxy::Visit;
use crate::http::requests::Asked;
use crate::http::{self, Version};
use crate::live::{Guest, Live, Newcomer, Place};
use crate::metrics::{ConnectionRefusal, Metrics};
use crate::mqtt;
use crate::sources::{Claim, Sources};
use crate::state::State;
use crate::tls::alert::{self, HandshakeFault};
use crate::tls::config::{ALPN_H2, ALPN_MQTT, ListenerKind};
use crate::tls::verifier::{Examiner, Verified};

/// Bounds of the listeners.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// Connections open at once, over all listeners.
    pub connections: usize,
    /// Connections open at once from one address (IPv6: one /64).
    pub connections_per_source: usize,
    /// New connections per second from one address, in the long run.
    pub new_per_source_per_s: u32,
    /// New connections from one address at once.
    pub new_per_source_burst: u32,
    /// Handshakes in progress at once. One source has a quarter of them at most, and fewer when others come.
    pub handshakes: usize,
    /// How long a peer may take to send its ClientHello.
    pub hello_timeout: Duration,
    /// How long the parts of a handshake may take after the ClientHello.
    pub handshake_times: Times,
    /// How long a client may pause within the body of a request that an origin asks more of.
    pub body_pause: Duration,
    /// How long a peer may take nothing of what is sent to it, on Linux; elsewhere the system's own time
    /// holds. Not much less than devices sleep between two looks at their radio.
    pub write_timeout: Duration,
    /// How long open connections get to finish when the edge stops.
    pub drain_timeout: Duration,
}

impl Default for ListenerLimits {
    /// Room for a gateway with thousands of devices behind one address. One source can't use up more
    /// than about a quarter of a core by handshakes (4,000 a second fill one).
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_per_source: 8192,
            new_per_source_per_s: 1000,
            new_per_source_burst: 4000,
            handshakes: 1024,
            hello_timeout: Duration::from_secs(5),
            handshake_times: Times::default(),
            body_pause: Duration::from_secs(60),
            write_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Connections accepted before other tasks have their turn. The runtime's own measure is a sixteenth, and then the
/// loop has its next turn when every handshake in progress had one: under a flood too late for the system's queue,
/// and whom that has no room for tries again after seconds.
const ACCEPTED_AT_ONCE: u32 = 2048;
/// How long an HTTP client may be silent before the system asks, and how often until it is gone.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_PROBES: u32 = 4;
/// How long a refused peer is listened to, so that a reset does not overtake the alert.
const LINGER_TIMEOUT: Duration = Duration::from_millis(500);
/// What a refused peer may have sent meanwhile; a request or two.
const LINGER_BYTES: u64 = 64 * 1024;

/// What the connections of all listeners share.
pub(crate) struct Shared {
    pub(crate) state: Arc<State>,
    pub(crate) live: Arc<Live>,
    pub(crate) metrics: Arc<Metrics>,
    /// Stops every listener of the edge.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) handover: Arc<dyn MqttHandover>,
    pub(crate) examiner: Arc<Examiner>,
    pub(crate) limits: ListenerLimits,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) handshakes: Handshakes,
    /// From accept to the end of the handshake.
    pub(crate) arriving: Arc<FairSlots>,
    pub(crate) sources: Arc<Sources>,
}

/// A connection whose handshake is done. The stream is boxed: a future keeps what it is called with beside
/// what it makes of it, and an idle connection would hold three rooms of 1.2 KiB for one stream.
struct Arrived {
    stream: Box<TlsStream<TcpStream>>,
    name: Hostname,
    door: Arc<Door>,
    verified: Option<Arc<Verified>>,
    protocol: Protocol,
}

/// Accepts until stopped.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    socket: TcpListener,
    kind: ListenerKind,
    stop: CancellationToken,
) {
    if let Err(error) = set_options(&socket, kind, shared.limits.write_timeout) {
        tracing::warn!(%error, "a listener does not take its options");
    }
    let mut at_once = 0;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            () = shared.stop.cancelled() => break,
            accepted = unconstrained(socket.accept()) => accepted,
        };
        at_once += 1;
        if at_once == ACCEPTED_AT_ONCE {
            at_once = 0;
            yield_now().await;
        }
        match accepted {
            Ok((stream, peer)) => {
                if let Some((slots, arriving)) = shared.slots(peer) {
                    let task = Arc::clone(&shared).attend(stream, peer, kind, slots, arriving);
                    shared.tasks.spawn(task);
                }
            }
            Err(error) => survive(&error, &shared.metrics).await,
        }
    }
}

/// What a connection holds for as long as it is open, and what a WebSocket on it keeps after that.
pub(crate) type Slots = (Claim, OwnedSemaphorePermit);

impl Shared {
    fn slots(&self, peer: SocketAddr) -> Option<(Slots, FairSlot)> {
        let refuse = |reason| {
            self.metrics.connection_refused(reason);
            None
        };
        if !self.sources.may_come(peer.ip()) {
            return refuse(ConnectionRefusal::SourceRate);
        }
        let Some(claim) = self.sources.claim(peer.ip(), self.limits.connections_per_source) else {
            return refuse(ConnectionRefusal::SourceLimit);
        };
        let Ok(arriving) = self.arriving.slot_now(claim.source) else {
            return refuse(ConnectionRefusal::HandshakeLimit);
        };
        match Arc::clone(&self.connections).try_acquire_owned() {
            Ok(permit) => Some(((claim, permit), arriving)),
            Err(_) => refuse(ConnectionRefusal::ConnectionLimit),
        }
    }

    /// From the first octet to the end. The handshake is boxed, and gone when the waiting begins:
    /// an idle connection keeps no room for it.
    async fn attend(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        kind: ListenerKind,
        slots: Slots,
        mut arriving: FairSlot,
    ) {
        let arrived = tokio::select! {
            arrived = Box::pin(self.handshake(stream, peer, kind, &slots)) => arrived,
            () = arriving.taken() => self.give_up(ConnectionRefusal::HandshakeLimit),
        };
        drop(arriving);
        if let Some(arrived) = arrived {
            self.serve(arrived, peer, slots).await;
        }
    }

    async fn handshake(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        kind: ListenerKind,
        slots: &Slots,
    ) -> Option<Arrived> {
        let hello = match timeout(self.limits.hello_timeout, read_hello(&mut stream)).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(HelloFault::Malformed(alert))) => {
                self.metrics.connection_refused(ConnectionRefusal::HelloMalformed);
                return turn_away(stream, &alert).await;
            }
            Ok(Err(HelloFault::Gone | HelloFault::TooLarge)) => {
                return self.give_up(ConnectionRefusal::HelloMalformed);
            }
            Err(_) => return self.give_up(ConnectionRefusal::HelloTimeout),
        };
        let (door, config) = match self.configuration(&hello, kind) {
            Ok(found) => found,
            Err(reason) => {
                self.metrics.connection_refused(reason);
                return turn_away(stream, &alert::UNRECOGNIZED_NAME).await;
            }
        };
        let config = hello.suited(config);
        let begin = || StartHandshake::from_parts(hello.accepted, stream).into_stream(config).into_fallible();
        match self.handshakes.carry_out(slots.0.source, begin).await {
            Ok(Ok(stream)) => self.arrived(Box::new(stream), door, kind),
            Ok(Err((error, stream))) => {
                match alert::fault_of(&error) {
                    HandshakeFault::Refused(reason) => {
                        tracing::info!(%peer, host = %door.rule.host, %reason, "client certificate refused");
                        self.metrics.handshake_refused(reason);
                    }
                    HandshakeFault::Broken => {
                        tracing::debug!(%peer, host = %door.rule.host, %error, "handshake broken off");
                        self.metrics.connection_refused(ConnectionRefusal::HandshakeBroken);
                    }
                }
                linger(stream).await;
                None
            }
            Err(Unfinished::NoSlot) => self.give_up(ConnectionRefusal::HandshakeLimit),
            Err(Unfinished::TooSlow) => self.give_up(ConnectionRefusal::HandshakeTimeout),
        }
    }

    fn give_up<T>(&self, reason: ConnectionRefusal) -> Option<T> {
        self.metrics.connection_refused(reason);
        None
    }

    /// The door that the hello names, and its configuration. There is none for a name unknown or
    /// missing: a default one would let its rules be chosen by leaving the name out.
    fn configuration(
        &self,
        hello: &Hello,
        kind: ListenerKind,
    ) -> Result<(Arc<Door>, Arc<rustls::ServerConfig>), ConnectionRefusal> {
        let client_hello = hello.accepted.client_hello();
        let name = client_hello.server_name().ok_or(ConnectionRefusal::NameMissing)?;
        let doors = self.state.doors();
        let door = doors.resolve(name).ok_or(ConnectionRefusal::NameUnknown)?;
        let config = door.config(kind).ok_or(ConnectionRefusal::ProtocolNotOffered)?;
        Ok((Arc::clone(door), Arc::clone(config)))
    }

    fn arrived(
        &self,
        stream: Box<TlsStream<TcpStream>>,
        door: Arc<Door>,
        kind: ListenerKind,
    ) -> Option<Arrived> {
        let connection = stream.get_ref().1;
        // The door was found by it, so it is there and can be read.
        let name = connection.server_name().and_then(|name| name.parse().ok())?;
        let protocol = match (kind, connection.alpn_protocol()) {
            (ListenerKind::Mqtt, _) | (ListenerKind::Https, Some(ALPN_MQTT)) => Protocol::Mqtt,
            (ListenerKind::Https, _) => Protocol::Https,
        };
        let shown = connection.peer_certificates().and_then(<[_]>::split_first);
        let verified = match shown {
            Some((leaf, path)) if door.rule.mode != HostMode::Off => {
                // The verifier's own answer, remembered from a moment ago.
                match self.examiner.examine(&door.anchors, leaf, path, self.state.now()) {
                    Ok(verified) => Some(verified),
                    // Revoked, or at its end, since the verifier looked.
                    Err(reason) => {
                        self.metrics.handshake_refused(reason);
                        return None;
                    }
                }
            }
            _ => None,
        };
        self.metrics.handshake_done(protocol);
        Some(Arrived { stream, name, door, verified, protocol })
    }

    async fn serve(self: Arc<Self>, arrived: Arrived, peer: SocketAddr, slots: Slots) {
        let Arrived { stream, name, door, verified, protocol } = arrived;
        let holder = verified.as_ref().map(|verified| Arc::new(self.holder(verified, &door)));
        let (host, since) = (door.rule.host.clone(), self.state.now());
        let place = self.live.enter(Newcomer { name, host, protocol, holder, peer, since });
        drop(door);
        match protocol {
            Protocol::Https => {
                let is_h2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
                let version = if is_h2 { Version::Http2 } else { Version::Http1 };
                let visit = Visit::new(Arc::clone(&self), Arc::new(place), Arc::new(slots), verified, peer);
                // Boxed, as it is by far the largest: MQTT connections wait in the same task type.
                Box::pin(http::serve(stream, version, Arc::new(visit))).await;
            }
            Protocol::Mqtt => {
                leave_to_keep_alive(stream.get_ref().0);
                let asked = Arc::new(Asked::of_mqtt(&place.guest.name, peer.ip(), verified));
                self.hand_over(stream, place, peer, Carrier::Tls, asked).await;
                drop(slots);
            }
        }
    }

    /// The holder of a certificate, with the groups of its device.
    pub(crate) fn holder(&self, verified: &Verified, door: &Door) -> Holder {
        let mut holder = verified.holder(&door.anchors);
        let facts = self.state.standing().device(holder.account, &holder.device);
        holder.groups = (*facts.groups).clone();
        holder
    }

    /// Gives an MQTT stream to the broker, and watches over it until its end.
    pub(crate) async fn hand_over(
        self: &Arc<Self>,
        stream: MqttStream,
        place: Place,
        peer: SocketAddr,
        carrier: Carrier,
        asked: Arc<Asked>,
    ) {
        let guest = Arc::clone(&place.guest);
        let Some(door) = self.state.doors().resolve(guest.name.as_str()).cloned() else { return };
        let judge = mqtt::Visit::enter(Arc::clone(self), Arc::clone(&guest), asked);
        let arrival = Arrival {
            host: guest.host.clone(),
            account: door.rule.account,
            zone: door.rule.zone,
            holder: guest.holder.clone(),
            source: peer,
            carrier,
            cut: Arc::clone(&guest.cut),
            judge: Arc::new(judge),
        };
        // Asked after it was entered: a change from now on finds it among the live ones.
        let verdict = self.state.access(&door, guest.holder.as_deref(), Protocol::Mqtt).map(drop);
        let verdict = verdict.and_then(|()| self.review(&guest).map_or(Ok(()), Err));
        let work = match verdict {
            Ok(()) => self.handover.welcome(stream, arrival),
            Err(reason) => {
                self.metrics.refused(reason);
                guest.cut.give(reason);
                self.handover.refuse(stream, arrival, reason)
            }
        };
        drop(door);
        let overdue = async {
            tokio::select! {
                _ = guest.cut.wait() => {}
                () = self.stop.cancelled() => {
                    guest.cut.give(Reason::ServerStopping);
                }
            }
            tokio::time::sleep(CUT_GRACE).await;
        };
        tokio::select! {
            () = work => {}
            () = overdue => tracing::debug!(%peer, "an MQTT connection did not end in time"),
        }
        drop(place);
    }

    /// Orders the end of those who have lost their right; how many.
    pub(crate) fn cut_denied(&self, guests: &[Arc<Guest>]) -> usize {
        let is_lost = |guest: &&Arc<Guest>| self.review(guest).is_some_and(|reason| self.cut(guest, reason));
        guests.iter().filter(is_lost).count()
    }

    /// Orders the end of a connection; false when it was ordered before.
    pub(crate) fn cut(&self, guest: &Guest, reason: Reason) -> bool {
        let first = guest.cut.give(reason);
        if first {
            self.metrics.cut(reason);
        }
        first
    }

    /// Asks again for a live connection: the reason why it has lost its right, if it has.
    pub(crate) fn review(&self, guest: &Guest) -> Option<Reason> {
        let doors = self.state.doors();
        let Some(door) = doors.resolve(guest.name.as_str()) else { return Some(Reason::HostUnknown) };
        if door.rule.host != guest.host {
            return Some(Reason::HostMisdirected);
        }
        let holder = guest.holder.as_deref();
        if let Err(reason) = self.state.access(door, holder, guest.protocol) {
            return Some(reason);
        }
        // The broker's rules go by groups, and it has those of the day of the connection.
        let has_changed = |holder: &Holder| {
            *self.state.standing().device(holder.account, &holder.device).groups != holder.groups
        };
        let changed = guest.protocol == Protocol::Mqtt && holder.is_some_and(has_changed);
        if changed {
            return Some(Reason::GroupsChanged);
        }
        guest.requests.all().iter().find_map(|asked| self.judge_again(&doors, guest, asked).err())
    }

    /// Asks rules and Access again, by the door that the request's own hostname leads to now.
    fn judge_again(&self, doors: &Doors, guest: &Guest, asked: &Asked) -> Result<(), Reason> {
        let door = doors.resolve(&asked.host).filter(|door| door.rule.host == guest.host);
        let door = door.ok_or(Reason::HostMisdirected)?;
        let permit = self.state.access(door, guest.holder.as_deref(), guest.protocol)?;
        asked.judge(door, &permit).map(drop)
    }
}

/// Sets what the system does for each connection. Connections have what their listener has when they come, so it is
/// said once instead of six times for each.
///
/// It is the system that sees whether a peer still takes what it is sent, whatever is spoken: HTTP, MQTT
/// or a WebSocket's other protocol. Writes then fail, and with them the connection.
fn set_options(socket: &TcpListener, kind: ListenerKind, write_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(socket);
    // Answers are small writes; without this the last segment would wait for an ACK.
    socket.set_tcp_nodelay(true)?;
    // RFC 5482; for probes of a closed window too.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(write_timeout))?;
    match kind {
        ListenerKind::Https => ask_whether_there(&socket),
        ListenerKind::Mqtt => Ok(()),
    }
}

/// Has the system ask whether an HTTP client is there: one whose WebSocket is silent shows it by nothing
/// else.
fn ask_whether_there(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_IDLE / KEEPALIVE_PROBES)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

/// MQTT has its own keep alive, and devices that sleep for longer than HTTP clients are silent.
fn leave_to_keep_alive(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_keepalive(false) {
        tracing::debug!(%error, "a socket does not take its options");
    }
}

/// Sends an alert to a peer that is not let in.
async fn turn_away<T>(mut stream: TcpStream, alert: &[u8]) -> Option<T> {
    let sent = timeout(LINGER_TIMEOUT, stream.write_all(alert)).await;
    if matches!(sent, Ok(Ok(()))) {
        linger(stream).await;
    }
    None
}

/// Lets a peer read what it was told: closing with octets unread would reset the connection.
async fn linger(mut stream: TcpStream) {
    let drained = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER_TIMEOUT, drained).await;
}

/// Waits out what accept can fail with; a connection lost before accept needs no pause.
async fn survive(error: &io::Error, metrics: &Metrics) {
    if is_the_peers(error) {
        return;
    }
    metrics.connection_refused(ConnectionRefusal::AcceptFailed);
    tracing::warn!(%error, "can't accept connections; trying again");
    tokio::time::sleep(EXHAUSTED_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_has_the_options_of_its_listener() {
        for (kind, keepalive) in [(ListenerKind::Https, true), (ListenerKind::Mqtt, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            set_options(&listener, kind, Duration::from_secs(7)).expect("taken");
            let address = listener.local_addr().expect("an address");
            let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (stream, _) = accepted.expect("a connection");
            assert!(stream.nodelay().expect("an option"));
            let socket = SockRef::from(&stream);
            assert_eq!(socket.keepalive().expect("an option"), keepalive);
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(Duration::from_secs(7)));
            leave_to_keep_alive(&stream);
            assert!(!socket.keepalive().expect("an option"));
        }
    }
}
