//! One client's session as the relay remembers it: what must be said again on a new connection to the broker.
//!
//! Pure: packets in, decisions out; no socket, no clock. Always true: what is kept is bounded
//! ([`EXCHANGES_MAX`], [`KEPT_MAX_BYTES`], [`SUBSCRIPTIONS_MAX`]). Beyond a bound, and after an extended
//! authentication, traffic goes on but the session is [`Session::uncarriable`]: at the next swap the client is
//! asked to come again. MQTT 5.0 §4.3 and §4.4 (the same in 3.1.1) say what is sent again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;

use super::opening::{Opening, Welcome};
use super::packet::{Kind, Packet, PacketFault};
use super::subscriptions::Subscriptions;

/// Exchanges of QoS 1 and 2 in one direction: mosquitto's default is 20, the large clouds allow 100.
pub const EXCHANGES_MAX: usize = 256;

/// Bytes of unacknowledged messages of one client.
pub const KEPT_MAX_BYTES: usize = 1024 * 1024;

/// Topic filters of one client.
pub const SUBSCRIPTIONS_MAX: usize = 256;

/// Why a session can't move to a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Uncarriable {
    /// The client and the broker exchange AUTH packets, which can't be repeated.
    #[error("it authenticates beyond CONNECT")]
    Authentication,
    /// A QoS 2 exchange was under way, and the broker did not keep the session.
    #[error("a QoS 2 exchange was under way, and the broker did not keep the session")]
    ExactlyOnce,
    /// The broker answered the replayed CONNECT with this code.
    #[error("the broker refused it with code {0:#04x}")]
    Refused(u8),
    /// The broker refused a subscription that it had granted before.
    #[error("the broker refused a subscription that it had granted before")]
    Subscription,
    /// The client has more under way than is remembered.
    #[error("it has more under way than the relay remembers")]
    TooMuch,
}

/// Whether a packet is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Forward it.
    On,
    /// Forward it, and after it the session is over.
    Last,
    /// Keep it from the other side.
    Swallow,
}

/// The state of one client's session.
#[derive(Debug)]
pub struct Session {
    opening: Opening,
    is_welcome: bool,
    subscriptions: Subscriptions,
    /// SUBSCRIBE and UNSUBSCRIBE without an answer.
    asked: BTreeMap<u16, Packet>,
    /// Messages of the client without an end, oldest first by `order`.
    outgoing: BTreeMap<u16, Outgoing>,
    order: u64,
    kept_bytes: usize,
    /// Messages to the client without an end.
    incoming: BTreeMap<u16, Incoming>,
    /// Of those, the ones from an earlier connection: the broker sends them again, the client has them.
    seen: BTreeSet<u16>,
    /// Acknowledgements that belong to a session which the broker did not keep.
    stale: BTreeMap<u16, usize>,
    /// SUBSCRIBE packets of the relay itself, by identifier.
    own: BTreeSet<u16>,
    pings: usize,
    uncarriable: Option<Uncarriable>,
}

#[derive(Debug)]
enum Stage {
    /// PUBLISH was sent.
    Published(Packet),
    /// PUBREL was sent (QoS 2).
    Released(Packet),
    /// PUBREC came, PUBREL is the client's turn.
    Received,
}

#[derive(Debug)]
struct Outgoing {
    order: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incoming {
    /// QoS 1, the client's PUBACK is due.
    AtLeastOnce,
    /// QoS 2, the client's PUBREC is due.
    ExactlyOnce,
    /// QoS 2, the client sent PUBREC.
    Received,
}

impl Session {
    /// A session that a client opened.
    #[must_use]
    pub fn new(opening: Opening) -> Self {
        let uncarriable = opening.has_authentication().then_some(Uncarriable::Authentication);
        Self {
            opening,
            is_welcome: false,
            subscriptions: Subscriptions::new(),
            asked: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            order: 0,
            kept_bytes: 0,
            incoming: BTreeMap::new(),
            seen: BTreeSet::new(),
            stale: BTreeMap::new(),
            own: BTreeSet::new(),
            pings: 0,
            uncarriable,
        }
    }

    /// Note a packet of the client, before it is forwarded.
    ///
    /// # Errors
    /// A fault of the client.
    pub fn handle_client(&mut self, packet: &Packet) -> Result<Pass, PacketFault> {
        match packet.kind() {
            Kind::Publish => self.client_publishes(packet)?,
            Kind::Puback | Kind::Pubrec => return self.client_acknowledges(packet),
            Kind::Pubrel => {
                let id = packet.id()?;
                self.keep(id, Stage::Released(packet.clone()));
            }
            Kind::Pubcomp => {
                self.incoming.remove(&packet.id()?);
            }
            Kind::Subscribe | Kind::Unsubscribe => {
                self.asked.insert(packet.id()?, packet.clone());
                self.subscriptions.ask(packet, self.opening.version())?;
                self.kept_bytes = self.kept_bytes.saturating_add(packet.size());
                self.bound();
            }
            Kind::Pingreq => self.pings = self.pings.saturating_add(1).min(EXCHANGES_MAX),
            Kind::Disconnect => return Ok(Pass::Last),
            Kind::Auth => self.give_up(Uncarriable::Authentication),
            Kind::Connect | Kind::Connack | Kind::Suback | Kind::Unsuback | Kind::Pingresp => {
                return Err(PacketFault::Malformed);
            }
        }
        Ok(Pass::On)
    }

    /// Note a packet of the broker, before it is forwarded. Not for CONNACK.
    ///
    /// # Errors
    /// A fault of the broker.
    pub fn handle_upstream(&mut self, packet: &Packet) -> Result<Pass, PacketFault> {
        match packet.kind() {
            Kind::Publish => return self.upstream_publishes(packet),
            Kind::Puback | Kind::Pubcomp => self.forget(packet.id()?),
            Kind::Pubrec => self.received(packet)?,
            Kind::Pubrel => {
                self.incoming.insert(packet.id()?, Incoming::Received);
                self.bound();
            }
            Kind::Suback => {
                let id = packet.id()?;
                let granted = self.subscriptions.answer(id, packet, self.opening.version())?;
                if self.own.remove(&id) {
                    if !granted {
                        self.give_up(Uncarriable::Subscription);
                    }
                    return Ok(Pass::Swallow);
                }
                self.answered(id);
            }
            Kind::Unsuback => {
                let id = packet.id()?;
                self.subscriptions.unsubscribed(id);
                self.answered(id);
            }
            Kind::Pingresp => self.pings = self.pings.saturating_sub(1),
            Kind::Disconnect => return Ok(Pass::Last),
            Kind::Auth => self.give_up(Uncarriable::Authentication),
            Kind::Connect | Kind::Connack | Kind::Subscribe | Kind::Unsubscribe | Kind::Pingreq => {
                return Err(PacketFault::Malformed);
            }
        }
        Ok(Pass::On)
    }

    /// The broker took the client, the first time.
    pub fn welcomed(&mut self, welcome: &Welcome) {
        self.is_welcome = true;
        if let Some(client) = &welcome.assigned {
            self.opening.assign(client.clone());
        }
    }

    /// Write what takes the session to a new connection: CONNECT, and for a session that the broker won't
    /// have kept the subscriptions with it, so that nothing comes between.
    pub fn write_takeover(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(&self.opening.next_connect());
        if !self.opening.outlives_connection() {
            self.write_subscriptions(out);
        }
    }

    /// The broker took the session over: write what is to be said again.
    ///
    /// # Errors
    /// When the session can't be carried over after all.
    pub fn write_rest(&mut self, welcome: &Welcome, out: &mut BytesMut) -> Result<(), Uncarriable> {
        if welcome.code != 0 {
            return Err(Uncarriable::Refused(welcome.code));
        }
        if welcome.session_present {
            let unanswered = |(_, stage): &(&u16, &Incoming)| **stage != Incoming::Received;
            self.seen = self.incoming.iter().filter(unanswered).map(|(id, _)| *id).collect();
        } else {
            self.start_over(out)?;
        }
        let mut outgoing: Vec<&Outgoing> = self.outgoing.values().collect();
        outgoing.sort_by_key(|exchange| exchange.order);
        for exchange in outgoing {
            match &exchange.stage {
                Stage::Published(packet) => packet.write_again(out),
                Stage::Released(packet) => packet.write(out),
                Stage::Received => {}
            }
        }
        for packet in self.asked.values() {
            packet.write(out);
        }
        Ok(())
    }

    /// Answers to the client's pings that were lost with the old connection.
    pub fn write_lost_pings(&mut self, out: &mut BytesMut) {
        for _ in 0..std::mem::take(&mut self.pings) {
            out.extend_from_slice(PINGRESP);
        }
    }

    /// What the client opened.
    #[must_use]
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Why this session can't be carried over, if so.
    #[must_use]
    pub fn uncarriable(&self) -> Option<Uncarriable> {
        self.uncarriable
    }

    /// Whether the broker has answered the CONNECT.
    #[must_use]
    pub fn is_welcome(&self) -> bool {
        self.is_welcome
    }

    /// Whether no exchange is under way: the best moment for a swap.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.outgoing.is_empty() && self.asked.is_empty() && self.incoming.is_empty() && self.pings == 0
    }

    /// Whether a ping of the client has no answer yet.
    #[must_use]
    pub fn awaits_ping(&self) -> bool {
        self.pings > 0
    }

    /// Whether the relay's own SUBSCRIBE packets are all answered.
    #[must_use]
    pub fn is_resubscribed(&self) -> bool {
        self.own.is_empty()
    }

    /// Whether a packet of the client begins an exchange, and so waits while a swap is near.
    #[must_use]
    pub fn begins_exchange(packet: &Packet) -> bool {
        match packet.kind() {
            Kind::Publish => packet.qos() > 0,
            Kind::Subscribe | Kind::Unsubscribe | Kind::Pingreq => true,
            _ => false,
        }
    }

    fn client_publishes(&mut self, packet: &Packet) -> Result<(), PacketFault> {
        packet.check_publish(self.opening.version())?;
        if packet.qos() > 0 {
            self.keep(packet.id()?, Stage::Published(packet.clone()));
        }
        Ok(())
    }

    fn client_acknowledges(&mut self, packet: &Packet) -> Result<Pass, PacketFault> {
        let id = packet.id()?;
        if let Some(count) = self.stale.get_mut(&id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.stale.remove(&id);
            }
            return Ok(Pass::Swallow);
        }
        self.seen.remove(&id);
        // After PUBREC the exchange goes on until PUBCOMP, unless it said no (5.0 §4.3.3).
        if packet.kind() == Kind::Puback || is_refusal(packet) {
            self.incoming.remove(&id);
        } else if let Some(stage) = self.incoming.get_mut(&id) {
            *stage = Incoming::Received;
        }
        Ok(Pass::On)
    }

    fn upstream_publishes(&mut self, packet: &Packet) -> Result<Pass, PacketFault> {
        if packet.qos() == 0 {
            return Ok(Pass::On);
        }
        let id = packet.id()?;
        if self.seen.remove(&id) && packet.is_again() {
            return Ok(Pass::Swallow);
        }
        let stage = if packet.qos() == 1 { Incoming::AtLeastOnce } else { Incoming::ExactlyOnce };
        self.incoming.insert(id, stage);
        self.bound();
        Ok(Pass::On)
    }

    fn received(&mut self, packet: &Packet) -> Result<(), PacketFault> {
        let id = packet.id()?;
        if is_refusal(packet) {
            self.forget(id);
        } else if self.outgoing.contains_key(&id) {
            self.keep(id, Stage::Received);
        }
        Ok(())
    }

    /// The broker begins anew: what the old session held is void.
    fn start_over(&mut self, out: &mut BytesMut) -> Result<(), Uncarriable> {
        let exactly_once = self.incoming.values().any(|stage| *stage != Incoming::AtLeastOnce)
            || self.outgoing.values().any(|exchange| match &exchange.stage {
                Stage::Published(packet) => packet.qos() > 1,
                Stage::Released(_) | Stage::Received => true,
            });
        if exactly_once {
            return Err(Uncarriable::ExactlyOnce);
        }
        for id in std::mem::take(&mut self.incoming).into_keys() {
            let count = self.stale.entry(id).or_default();
            *count = count.saturating_add(1);
        }
        self.seen.clear();
        if self.opening.outlives_connection() {
            self.write_subscriptions(out);
        }
        Ok(())
    }

    fn write_subscriptions(&mut self, out: &mut BytesMut) {
        let (asked, outgoing) = (&self.asked, &self.outgoing);
        let mut free =
            (1..=u16::MAX).rev().filter(|id| !asked.contains_key(id) && !outgoing.contains_key(id));
        for group in self.subscriptions.groups() {
            let packet = free.next().and_then(|id| Some((id, group.subscribe(id, self.opening.version())?)));
            match packet {
                Some((id, bytes)) => {
                    self.own.insert(id);
                    out.extend_from_slice(&bytes);
                }
                None => self.uncarriable = Some(Uncarriable::TooMuch),
            }
        }
    }

    fn keep(&mut self, id: u16, stage: Stage) {
        let order = match self.outgoing.get(&id) {
            Some(exchange) => exchange.order,
            None => {
                self.order = self.order.saturating_add(1);
                self.order
            }
        };
        self.forget(id);
        self.kept_bytes = self.kept_bytes.saturating_add(stage.size());
        self.outgoing.insert(id, Outgoing { order, stage });
        self.bound();
    }

    fn forget(&mut self, id: u16) {
        if let Some(exchange) = self.outgoing.remove(&id) {
            self.kept_bytes = self.kept_bytes.saturating_sub(exchange.stage.size());
        }
    }

    fn answered(&mut self, id: u16) {
        if let Some(packet) = self.asked.remove(&id) {
            self.kept_bytes = self.kept_bytes.saturating_sub(packet.size());
        }
    }

    fn bound(&mut self) {
        let exchanges = self.outgoing.len().max(self.incoming.len()).max(self.asked.len());
        if exchanges > EXCHANGES_MAX
            || self.kept_bytes > KEPT_MAX_BYTES
            || self.subscriptions.len() > SUBSCRIPTIONS_MAX
        {
            self.give_up(Uncarriable::TooMuch);
        }
        if self.uncarriable.is_some() {
            self.outgoing.clear();
            self.incoming.clear();
            self.asked.clear();
            self.subscriptions.clear();
            self.kept_bytes = 0;
        }
    }

    fn give_up(&mut self, why: Uncarriable) {
        self.uncarriable.get_or_insert(why);
    }
}

impl Stage {
    fn size(&self) -> usize {
        match self {
            Self::Published(packet) | Self::Released(packet) => packet.size(),
            Self::Received => 0,
        }
    }
}

/// Whether a 5.0 acknowledgement carries a reason code of failure, 0x80 and above.
fn is_refusal(packet: &Packet) -> bool {
    packet.body().get(2).is_some_and(|code| *code >= 0x80)
}

/// The DISCONNECT by which the relay leaves the old connection: the session stays, the will is dropped
/// (3.1.1 §3.14; 5.0 §3.14.2.1: no reason code is a normal disconnection).
pub const LEAVE: &[u8] = &[0xe0, 0x00];

const PINGRESP: &[u8] = &[0xd0, 0x00];

#[cfg(test)]
mod tests;
