//! One client's connection to the embedded engine.
//!
//! One loop: fill the output from the session, then wait for whichever comes first: the edge's cut, a
//! packet, a message, the disk, or a deadline. What arrives is handled at once; only answers that
//! promise durability are held back, and those behind them with them, so that answers keep the order
//! of their packets (MQTT 5 §4.6).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::delivery::{Published, Replay};
use super::hub::{Arrival, Attached, Departure, Hub};
use super::message::Message;
use super::session::{Outgoing, Queued, SessionKey};
use super::terms::Terms;
use crate::config::{OnCutSession, OnCutWill};
use crate::cut::{Cut, CutReason};
use crate::engine::Client;
use crate::serve::Ended;
use crate::store::Ticket;
use crate::stream::{Event, OUTPUT_HIGH_BYTES, Packets, Reading, Stream, StreamError};
use crate::wire::acks::{Ack, Disconnect, write_disconnect, write_pingresp};
use crate::wire::connect::write_refused;
use crate::wire::publish::{self, Publish};
use crate::wire::subscribe::{Subscribe, Unsubscribe, write_suback, write_unsuback};
use crate::wire::{Broken, Code, Packet, Qos, Version, kind};

/// Messages taken out of the session at one go.
const TAKE_AT_ONCE: usize = 16;

/// Serves a client.
pub(super) async fn serve<S: Stream>(hub: &Arc<Hub>, client: Client<S>) -> Ended {
    // Boxed, so that what it takes to begin is not held while the connection is idle.
    match Box::pin(begin(hub, client)).await {
        Ok((mut connection, mut cut)) => {
            let over = connection.run(&mut cut).await;
            Box::pin(connection.end(over)).await
        }
        Err(ended) => ended,
    }
}

/// Gives a client its session and its CONNACK.
async fn begin<S: Stream>(hub: &Arc<Hub>, client: Client<S>) -> Result<(Connection<'_, S>, Cut), Ended> {
    let quotas = &hub.settings.quotas;
    let terms = Terms::of(&client.connect, quotas);
    let Client { mut packets, gate, connect, is_assigned, owner, account, cut, .. } = client;
    let version = connect.version;
    let mut granted = terms.granted(&connect, quotas);
    granted.assigned_client_id = is_assigned.then(|| connect.client_id.clone());
    let arrival = Arrival {
        account,
        key: SessionKey { owner, client_id: connect.client_id.into() },
        starts_clean: connect.clean_start,
        expiry_s: terms.expiry_s,
        window: connect.receive_maximum.min(quotas.inflight),
        will: connect.will.map(Box::new),
        rules: Arc::clone(&gate.rules),
    };
    let attached = match hub.attach(arrival).await {
        Ok(attached) => attached,
        Err(code) => {
            write_refused(packets.output(), version, code);
            packets.finish().await;
            return Err(Ended::Refused(code));
        }
    };
    granted.session_present = attached.session_present;
    granted.write(packets.output(), version);
    // MQTT 5 §3.1.2.11.4: a client that takes not even its CONNACK is not told anything.
    let is_tiny = packets.output().len() > terms.max_packet_bytes;
    let connection = Connection {
        hub,
        attached,
        packets,
        gate,
        terms,
        held: VecDeque::new(),
        held_publications: 0,
        replays: VecDeque::new(),
        aliases: HashMap::new(),
        heard_at: Instant::now(),
        resumes_at: None,
        brake: None,
    };
    if is_tiny {
        return Err(connection.end(Over::Stalled).await);
    }
    Ok((connection, cut))
}

/// Why a connection is over.
#[derive(Debug)]
enum Over {
    Closed,
    Cut(CutReason),
    Disconnected(Disconnect),
    /// We end it, with this code.
    Ours(Code),
    Stalled,
}

impl From<Broken> for Over {
    fn from(broken: Broken) -> Self {
        tracing::debug!(%broken, "a client broke the protocol");
        Self::Ours(broken.code)
    }
}

impl From<StreamError> for Over {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Broken(broken) => broken.into(),
            StreamError::Io(_) => Self::Closed,
        }
    }
}

/// An answer that waits for the disk.
#[derive(Debug)]
struct Held {
    ticket: Ticket,
    octets: Vec<u8>,
    is_publication: bool,
}

struct Connection<'a, S> {
    hub: &'a Arc<Hub>,
    attached: Attached,
    packets: Packets<S>,
    gate: crate::gate::Gate,
    terms: Terms,
    held: VecDeque<Held>,
    held_publications: usize,
    replays: VecDeque<Replay>,
    /// Topics that the client knows by an alias.
    aliases: HashMap<Box<str>, u16>,
    heard_at: Instant,
    /// When a client that was too fast is read again.
    resumes_at: Option<Instant>,
    /// What the disk must have done before the client is read again.
    brake: Option<Ticket>,
}

impl<S: Stream> Connection<'_, S> {
    async fn run(&mut self, cut: &mut Cut) -> Over {
        loop {
            if let Err(code) = self.fill() {
                return Over::Ours(code);
            }
            let reading = self.reading();
            let deadline = self.deadline();
            let ticket = self.held.front().map(|held| held.ticket).into_iter().chain(self.brake).min();
            let event = tokio::select! {
                biased;
                reason = cut.wait() => return Over::Cut(reason),
                event = self.packets.event(reading) => event,
                () = self.attached.wake.notified() => continue,
                () = self.hub.store.durable(ticket.unwrap_or_default()), if ticket.is_some() => {
                    self.release();
                    continue;
                }
                () = sleep_until(deadline) => {
                    match self.overdue() {
                        Some(over) => return over,
                        None => continue,
                    }
                }
            };
            let handled = match event {
                Ok(Event::Frame(frame)) => {
                    self.heard_at = Instant::now();
                    match Packet::parse(&frame, self.terms.version) {
                        // Rarely awaits for long, and is large: not part of what an idle connection holds.
                        Ok(packet) => Box::pin(self.handle(packet)).await,
                        Err(broken) => Err(broken.into()),
                    }
                }
                Ok(Event::Drained) => Ok(()),
                Ok(Event::Closed) => Err(Over::Closed),
                Err(error) => Err(error.into()),
            };
            if let Err(over) = handled {
                return over;
            }
        }
    }

    /// Leaves the session and says goodbye.
    async fn end(mut self, over: Over) -> Ended {
        let on_cut = self.hub.settings.on_cut;
        let mut departure = Departure { fires_will: true, session: OnCutSession::Keep, expiry_s: None };
        let mut goodbye = None;
        let ended = match over {
            Over::Closed => Ended::Closed,
            Over::Stalled => Ended::Stalled,
            Over::Cut(reason) => {
                departure.fires_will = on_cut.will == OnCutWill::Publish;
                departure.session = on_cut.session;
                goodbye = Some(Code::ADMINISTRATIVE_ACTION);
                Ended::Cut(reason)
            }
            Over::Disconnected(disconnect) => {
                departure.fires_will = disconnect.code != Code::SUCCESS;
                departure.expiry_s =
                    disconnect.session_expiry_s.map(|seconds| seconds.min(self.terms.max_expiry_s));
                Ended::Disconnected
            }
            Over::Ours(code) => {
                // The clients of a server that stops are not gone; their wills would say they are.
                departure.fires_will = code != Code::SERVER_SHUTTING_DOWN;
                goodbye = Some(code);
                Ended::Ours(code)
            }
        };
        self.hub.detach(&self.attached, departure).await;
        if let Some(code) = goodbye {
            write_disconnect(self.packets.output(), self.terms.version, code);
        }
        if ended != Ended::Closed && ended != Ended::Stalled {
            self.packets.finish().await;
        }
        ended
    }

    fn reading(&self) -> Reading {
        let quotas = &self.hub.settings.quotas;
        let is_full = self.held.len() > usize::from(quotas.inflight)
            || self.replays.len() > quotas.filters
            || self.resumes_at.is_some()
            || self.brake.is_some();
        if is_full { Reading::Paused } else { Reading::Wanted }
    }

    fn deadline(&self) -> Option<Instant> {
        let silent_at = self.terms.silence.map(|silence| self.heard_at + silence);
        [silent_at, self.packets.stalled_at(), self.resumes_at].into_iter().flatten().min()
    }

    /// A deadline passed: which, and is it the end?
    fn overdue(&mut self) -> Option<Over> {
        let now = Instant::now();
        if self.resumes_at.is_some_and(|at| at <= now) {
            self.resumes_at = None;
            // It was not read for a while, so that its silence is ours.
            self.heard_at = now;
        }
        if self.packets.stalled_at().is_some_and(|at| at <= now) {
            return Some(Over::Stalled);
        }
        let is_silent = self.terms.silence.is_some_and(|silence| self.heard_at + silence <= now);
        is_silent.then_some(Over::Ours(Code::KEEP_ALIVE_TIMEOUT))
    }

    /// Moves messages from the session to the output, as far as it has room.
    fn fill(&mut self) -> Result<(), Code> {
        let hub = Arc::clone(self.hub);
        while self.packets.waiting_bytes() < OUTPUT_HIGH_BYTES {
            let (session, link) = (&self.attached.session, self.attached.link);
            let taken = session.take(link, TAKE_AT_ONCE, hub.clock.now(), hub.surroundings())?;
            if taken.is_empty() && !self.fetch_retained() {
                break;
            }
            for outgoing in taken {
                self.send(outgoing);
            }
        }
        Ok(())
    }

    /// Fetches more retained messages. Returns whether some may now be in the queue.
    fn fetch_retained(&mut self) -> bool {
        if self.replays.is_empty() || self.attached.session.waiting() > 0 {
            return false;
        }
        if let Some(replay) = self.replays.front_mut()
            && !self.hub.replay(&self.attached, replay)
        {
            self.replays.pop_front();
        }
        true
    }

    fn send(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Release { packet_id } => {
                let release = Ack { kind: kind::PUBREL, packet_id, code: Code::SUCCESS };
                release.write(self.packets.output(), self.terms.version);
            }
            Outgoing::Publish { packet_id, dup, queued } => {
                if self.send_message(packet_id, dup, &queued) {
                    self.hub.metrics.delivered.up();
                } else {
                    self.hub.metrics.dropped_too_large.up();
                    if packet_id > 0 {
                        // MQTT 5 §3.1.2.11.4: as if it had been sent and acknowledged.
                        self.attached.session.complete(packet_id, &self.hub.store);
                    }
                }
            }
        }
    }

    /// Writes a PUBLISH, unless the client takes none so large.
    fn send_message(&mut self, packet_id: u16, dup: bool, queued: &Queued) -> bool {
        let message = &queued.message;
        let known = self.aliases.get(&message.topic).copied();
        let next = u16::try_from(self.aliases.len().saturating_add(1)).unwrap_or(u16::MAX);
        let alias = known.or_else(|| (next <= self.terms.max_aliases).then_some(next));
        let now = self.hub.clock.now();
        let outgoing = publish::Outgoing {
            dup,
            qos: queued.qos,
            retain: queued.retain,
            topic: if known.is_some() { "" } else { &message.topic },
            packet_id,
            alias,
            expiry_s: message.expires_at.map(|at| now.seconds_until(at)),
            subscription_ids: &queued.subscription_ids,
            forward: &message.forward,
            payload: &message.payload,
        };
        let output = self.packets.output();
        let start = output.len();
        outgoing.write(output, self.terms.version);
        if output.len().saturating_sub(start) > self.terms.max_packet_bytes {
            output.truncate(start);
            return false;
        }
        if let (None, Some(alias)) = (known, alias) {
            self.aliases.insert(message.topic.clone(), alias);
        }
        true
    }

    async fn handle(&mut self, packet: Packet) -> Result<(), Over> {
        match packet {
            Packet::Ack(ack) => self.handle_ack(ack)?,
            Packet::Disconnect(disconnect) => return Err(self.handle_disconnect(disconnect)),
            Packet::Ping => write_pingresp(self.packets.output()),
            Packet::Publish(publish) => self.handle_publish(publish).await?,
            Packet::Subscribe(subscribe) => self.handle_subscribe(subscribe)?,
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe),
        }
        Ok(())
    }

    fn handle_disconnect(&self, disconnect: Disconnect) -> Over {
        // MQTT 5 §3.14.2.2.2: a session that was to end can't be kept after all.
        if self.terms.expiry_s == 0 && disconnect.session_expiry_s.is_some_and(|seconds| seconds > 0) {
            return Over::Ours(Code::PROTOCOL_ERROR);
        }
        Over::Disconnected(disconnect)
    }

    fn handle_ack(&mut self, ack: Ack) -> Result<(), Broken> {
        let session = &self.attached.session;
        let store = &self.hub.store;
        let (kind, code) = match ack.kind {
            kind::PUBACK => return session.acknowledge(ack.packet_id, store),
            kind::PUBREC => {
                let code = session.receive(ack.packet_id, ack.code, store)?;
                if ack.code.is_failure() {
                    return Ok(());
                }
                (kind::PUBREL, code)
            }
            kind::PUBREL => {
                let was_known = session.end_receiving(ack.packet_id, store);
                (kind::PUBCOMP, if was_known { Code::SUCCESS } else { Code::PACKET_ID_NOT_FOUND })
            }
            _ => return session.conclude(ack.packet_id, store),
        };
        let answer = Ack { kind, packet_id: ack.packet_id, code };
        let version = self.terms.version;
        self.answer(None, false, |output| answer.write(output, version));
        Ok(())
    }

    async fn handle_publish(&mut self, mut publish: Publish) -> Result<(), Over> {
        self.resumes_at = self.gate.pace(Instant::now())?;
        let verdict = self.gate.check_publish(&mut publish)?;
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        self.check_receive_maximum(qos, packet_id)?;
        if let Err(code) = verdict {
            self.hub.metrics.publish_refused.up();
            if self.terms.version == Version::V311 {
                return Err(Over::Ours(code));
            }
            self.acknowledge(qos, packet_id, code, None);
            return Ok(());
        }
        let session = Arc::clone(&self.attached.session);
        let is_again = qos == Qos::Two && !session.begin_receiving(packet_id, &self.hub.store);
        if is_again {
            self.acknowledge(qos, packet_id, Code::SUCCESS, None);
            return Ok(());
        }
        self.hub.metrics.published.up();
        let message = Message::new(publish, self.hub.clock.now());
        let published = self.hub.publish(&self.attached.space, message, Some(&session)).await;
        let Published { was_matched, was_refused, ticket } = published;
        let code = match (self.terms.version, was_refused, was_matched) {
            (Version::V5, true, _) => Code::QUOTA_EXCEEDED,
            // A PUBREC may say so too, but few brokers do, and some clients take it for a failure.
            (Version::V5, false, false) if qos == Qos::One => Code::NO_MATCHING_SUBSCRIBERS,
            _ => Code::SUCCESS,
        };
        if qos == Qos::Two && code.is_failure() {
            session.end_receiving(packet_id, &self.hub.store);
        }
        self.acknowledge(qos, packet_id, code, ticket);
        self.brake = self.hub.store.congestion();
        Ok(())
    }

    /// MQTT 5 §3.3.4; MQTT 3.1.1 has no such limit.
    fn check_receive_maximum(&self, qos: Qos, packet_id: u16) -> Result<(), Broken> {
        if qos == Qos::Zero || self.terms.version == Version::V311 {
            return Ok(());
        }
        let session = &self.attached.session;
        let open = session.receiving(packet_id).saturating_add(self.held_publications);
        if open >= usize::from(self.hub.settings.quotas.inflight) {
            return Err(Broken::new(Code::RECEIVE_MAXIMUM_EXCEEDED, "more than the receive maximum"));
        }
        Ok(())
    }

    fn acknowledge(&mut self, qos: Qos, packet_id: u16, code: Code, ticket: Option<Ticket>) {
        let kind = match qos {
            Qos::Zero => return,
            Qos::One => kind::PUBACK,
            Qos::Two => kind::PUBREC,
        };
        let version = self.terms.version;
        // A QoS 2 publication counts until its PUBREL, and not twice.
        self.answer(ticket, qos == Qos::One, |output| {
            Ack { kind, packet_id, code }.write(output, version);
        });
    }

    fn handle_subscribe(&mut self, subscribe: Subscribe) -> Result<(), Over> {
        let (packet_id, subscription_id) = (subscribe.packet_id, subscribe.subscription_id);
        let checked = self.gate.check_subscribe(subscribe)?;
        let mut codes = Vec::with_capacity(checked.len());
        for wanted in checked {
            let added = wanted.and_then(|(filter, options)| {
                self.hub.subscribe(&self.attached, filter, options, subscription_id)
            });
            match added {
                Ok(replay) => {
                    codes.push(Code(replay.qos.bits()));
                    if replay.is_wanted() {
                        self.replays.push_back(replay);
                    }
                }
                Err(code) => {
                    self.hub.metrics.subscribe_refused.up();
                    codes.push(code);
                }
            }
        }
        let ticket = self.hub.keep_subscriptions(&self.attached);
        let version = self.terms.version;
        self.answer(ticket, false, |output| write_suback(output, version, packet_id, &codes));
        Ok(())
    }

    fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let checked = self.gate.check_unsubscribe(unsubscribe);
        let codes: Vec<_> = checked
            .into_iter()
            .map(|filter| match filter {
                Ok(filter) => self.hub.unsubscribe(&self.attached, &filter),
                Err(code) => code,
            })
            .collect();
        let ticket = self.hub.keep_subscriptions(&self.attached);
        let (version, packet_id) = (self.terms.version, unsubscribe.packet_id);
        self.answer(ticket, false, |output| write_unsuback(output, version, packet_id, &codes));
    }

    /// Writes an answer, now or when what it promises is on disk.
    fn answer(&mut self, ticket: Option<Ticket>, is_publication: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let ticket = ticket.unwrap_or_default();
        if self.held.is_empty() && self.hub.store.is_durable(ticket) {
            write(self.packets.output());
            return;
        }
        let mut octets = Vec::new();
        write(&mut octets);
        self.held_publications = self.held_publications.saturating_add(usize::from(is_publication));
        self.held.push_back(Held { ticket, octets, is_publication });
    }

    /// Writes the answers whose promises are kept.
    fn release(&mut self) {
        if self.brake.is_some_and(|ticket| self.hub.store.is_durable(ticket)) {
            self.brake = None;
            // It was not read for a while, so that its silence is ours.
            self.heard_at = Instant::now();
        }
        while let Some(held) = self.held.front()
            && self.hub.store.is_durable(held.ticket)
        {
            self.packets.output().extend_from_slice(&held.octets);
            let publications = usize::from(held.is_publication);
            self.held_publications = self.held_publications.saturating_sub(publications);
            self.held.pop_front();
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => core::future::pending().await,
    }
}
