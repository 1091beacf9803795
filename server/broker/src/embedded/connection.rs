//! One client's connection to the embedded engine.
//!
//! One loop: fill the output from the session, then wait for whichever comes first: the edge's cut, a
//! packet, a message, the disk, or a deadline. Packets are handled as they come (`requests`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::delivery::Replay;
use super::hub::{Arrival, Departure, Hub};
use super::message::Testament;
use super::seat::Seat;
use super::session::{Outgoing, Queued, SessionKey};
use super::terms::Terms;
use crate::config::{OnCutSession, OnCutWill};
use crate::cut::{Cut, CutReason};
use crate::engine::Client;
use crate::gate::Gate;
use crate::serve::Ended;
use crate::store::Ticket;
use crate::stream::{Event, OUTPUT_HIGH_BYTES, Packets, Reading, Stream, StreamError};
use crate::wire::acks::{Ack, Disconnect, write_disconnect};
use crate::wire::connect::write_refused;
use crate::wire::publish;
use crate::wire::{Broken, Code, Packet, kind};

/// Messages taken out of the session at one go.
const TAKE_AT_ONCE: usize = 16;
/// Pages of retained messages that are looked through at one go.
const PAGES_AT_ONCE: usize = 4;
/// How long a client that takes a session over with a clean start has to send what it does not wait to send: the
/// time from one TLS record to the next, and a delay that nobody minds.
const PIPELINE_WAIT: Duration = Duration::from_millis(100);
/// How long a client has to read what waited for it on a connection that it took over itself: it is busy with the
/// other one, and may be on a slow link. The edge ends it sooner when it is cut.
const TAKEN_OVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How many SUBSCRIBE packets may come with CONNECT.
const PIPELINED_MAX: usize = 64;

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
        receive_maximum: connect.receive_maximum,
        will: connect.will.map(|will| Box::new(Testament { will, author: gate.author.clone() })),
        rules: Arc::clone(&gate.rules),
    };
    hub.hear_out(&arrival).await;
    let (attached, leavings) = match hub.attach(&arrival) {
        Ok(attached) => attached,
        Err(code) => {
            write_refused(packets.output(), version, code);
            packets.finish().await;
            return Err(Ended::Refused(code));
        }
    };
    let seat = Seat::new(hub, attached);
    if !leavings.are_nothing() {
        let (hub_of_work, space) = (Arc::clone(hub), Arc::clone(&seat.space));
        hub.see_through(async move { hub_of_work.clear(&space, leavings).await }).await;
    }
    if seat.has_predecessor() {
        // Whatever comes before the CONNACK is sent did not wait for it.
        packets.ahead(PIPELINE_WAIT).await;
    }
    granted.session_present = seat.session_present;
    granted.write(packets.output(), version);
    // MQTT 5 §3.1.2.11.4: a client that takes not even its CONNACK is not told anything.
    let is_tiny = packets.output().len() > terms.max_packet_bytes;
    let mut connection = Connection {
        hub,
        seat,
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
        hearer: None,
        repeated: None,
    };
    if is_tiny {
        return Err(connection.end(Over::Stalled).await);
    }
    match connection.take_over().await {
        Ok(()) => Ok((connection, cut)),
        Err(over) => Err(connection.end(over).await),
    }
}

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Over {
    Closed,
    Cut(CutReason),
    Disconnected(Disconnect),
    /// We end it, with this code.
    Ours(Code),
    Stalled,
    /// We end it without a word, for the reason in this code.
    Unanswered(Code),
}

impl Over {
    /// The client answers what was not asked, or begins anew: it is in another state than it should be, and what it
    /// would make of a DISCONNECT is unknown (MQTT 5 §3.1.0 and §4.13.1 demand the close alone).
    pub(super) fn unanswered(broken: Broken) -> Self {
        tracing::debug!(%broken, "a client is in another state than it should be");
        Self::Unanswered(broken.code)
    }
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
pub(super) struct Held {
    pub(super) ticket: Ticket,
    pub(super) octets: Vec<u8>,
    pub(super) is_publication: bool,
}

pub(super) struct Connection<'a, S> {
    pub(super) hub: &'a Arc<Hub>,
    pub(super) seat: Seat<'a>,
    pub(super) packets: Packets<S>,
    pub(super) gate: Gate,
    pub(super) terms: Terms,
    pub(super) held: VecDeque<Held>,
    pub(super) held_publications: usize,
    pub(super) replays: VecDeque<Replay>,
    /// Topics that the client knows by an alias.
    aliases: HashMap<Box<str>, u16>,
    heard_at: Instant,
    /// When a client that was too fast is read again.
    pub(super) resumes_at: Option<Instant>,
    /// What the disk must have done before the client is read, or retained messages are fetched for it, again.
    pub(super) brake: Option<Ticket>,
    /// Who waits until what the client has sent is handled.
    hearer: Option<oneshot::Sender<()>>,
    /// The last QoS 2 publication that came again on this connection.
    pub(super) repeated: Option<u16>,
}

impl<S: Stream> Connection<'_, S> {
    /// Takes the subscriptions that came with CONNECT, and only then ends the session before this one.
    async fn take_over(&mut self) -> Result<(), Over> {
        if !self.seat.has_predecessor() {
            return Ok(());
        }
        for _ in 0..PIPELINED_MAX {
            let is_next = self.packets.ahead(Duration::ZERO).await == Some((kind::SUBSCRIBE << 4) | 2);
            if !is_next {
                break;
            }
            let Some(frame) = self.packets.next_frame()? else { break };
            let Packet::Subscribe(subscribe) = Packet::parse(&frame, self.terms.version)? else { break };
            self.handle_subscribe(subscribe)?;
        }
        self.seat.succeed();
        Ok(())
    }

    async fn run(&mut self, cut: &mut Cut) -> Over {
        loop {
            let has_more = match self.fill() {
                Ok(has_more) => has_more,
                Err(code) => return Over::Ours(code),
            };
            let reading = self.reading();
            let deadline = self.deadline();
            let ticket = self.held.front().map(|held| held.ticket).into_iter().chain(self.brake).min();
            let event = tokio::select! {
                biased;
                reason = cut.wait() => return Over::Cut(reason),
                event = self.packets.event(reading) => event,
                // Nothing more is there.
                () = core::future::ready(()), if self.hearer.is_some() => {
                    self.hearer = None;
                    continue;
                }
                () = self.seat.wake.notified() => {
                    self.hearer = self.seat.session.hearer(self.seat.link);
                    continue;
                }
                () = self.hub.store.durable(ticket.unwrap_or_default()), if ticket.is_some() => {
                    self.release();
                    continue;
                }
                () = tokio::task::yield_now(), if has_more => continue,
                () = sleep_until(deadline) => {
                    match self.overdue() {
                        Some(over) => return over,
                        None => continue,
                    }
                }
            };
            let handled = match event {
                Ok(Event::Frame(frame)) => {
                    let frame = frame.unmarked(self.terms.version);
                    let handled = match Packet::parse(&frame, self.terms.version) {
                        // Rarely awaits for long, and is large: not part of what an idle connection holds.
                        Ok(packet) => Box::pin(self.handle(packet)).await,
                        Err(broken) if frame.kind() == kind::CONNECT => Err(Over::unanswered(broken)),
                        Err(broken) => Err(broken.into()),
                    };
                    // Where that waited for the disk, the client was not read.
                    self.heard_at = Instant::now();
                    handled
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
            Over::Unanswered(code) => Ended::Ours(code),
        };
        self.seat.leave(departure).await;
        self.hearer = None;
        if let Some(code) = goodbye {
            write_disconnect(self.packets.output(), self.terms.version, code);
        }
        match ended {
            Ended::Closed | Ended::Stalled => {}
            Ended::Ours(Code::SESSION_TAKEN_OVER) => self.packets.finish_within(TAKEN_OVER_TIMEOUT).await,
            _ => self.packets.finish().await,
        }
        ended
    }

    fn reading(&self) -> Reading {
        let is_full = self.waits_for_the_disk() || self.resumes_at.is_some();
        if is_full { Reading::Paused } else { Reading::Wanted }
    }

    /// Whether the client is not read, as the disk must come after first.
    fn waits_for_the_disk(&self) -> bool {
        self.brake.is_some() || self.held.len() > usize::from(self.hub.settings.quotas.inflight)
    }

    fn deadline(&self) -> Option<Instant> {
        [self.silent_at(), self.packets.stalled_at(), self.resumes_at].into_iter().flatten().min()
    }

    /// When the client has been silent for too long. One that is not read for the disk is not silent.
    fn silent_at(&self) -> Option<Instant> {
        if self.waits_for_the_disk() {
            return None;
        }
        self.terms.silence.map(|silence| self.heard_at.max(self.packets.heard_at()) + silence)
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
        let is_silent = self.silent_at().is_some_and(|at| at <= now);
        is_silent.then_some(Over::Ours(Code::KEEP_ALIVE_TIMEOUT))
    }

    /// Moves messages from the session to the output, as far as it has room. Returns whether others should run
    /// before it goes on.
    fn fill(&mut self) -> Result<bool, Code> {
        let hub = Arc::clone(self.hub);
        let mut pages = 0;
        loop {
            let room = OUTPUT_HIGH_BYTES.saturating_sub(self.packets.waiting_bytes());
            let (session, link) = (&self.seat.session, self.seat.link);
            // Asked even without room: the session may be another connection's by now.
            let taken = session.take(link, (TAKE_AT_ONCE, room), hub.clock.now(), hub.surroundings())?;
            if taken.is_empty() {
                if room == 0 || !self.fetch_retained() {
                    return Ok(false);
                }
                pages += 1;
                if pages == PAGES_AT_ONCE {
                    return Ok(true);
                }
            }
            for outgoing in taken {
                self.send(outgoing);
            }
        }
    }

    /// Fetches more retained messages. Returns whether some may now be in the queue.
    fn fetch_retained(&mut self) -> bool {
        if self.replays.is_empty() || self.seat.session.waiting() > 0 {
            return false;
        }
        // What is fetched is written, if the session stays.
        self.brake = self.brake.or_else(|| self.hub.store.congestion());
        if self.brake.is_some() {
            return false;
        }
        if let Some(replay) = self.replays.front_mut()
            && !self.hub.replay(&self.seat, replay)
        {
            self.replays.pop_front();
        }
        true
    }

    fn send(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Release { packet_id, ticket } => {
                let release = Ack { kind: kind::PUBREL, packet_id, code: Code::SUCCESS };
                let version = self.terms.version;
                self.answer(ticket, false, |output| release.write(output, version));
            }
            Outgoing::Publish { packet_id, dup, queued } => {
                let metrics = &self.hub.metrics;
                let counter = if !self.gate.may_deliver(&queued.message.topic, queued.qos, queued.retain) {
                    &metrics.deliver_refused
                } else if self.send_message(packet_id, dup, &queued) {
                    return metrics.delivered.up();
                } else {
                    &metrics.dropped_too_large
                };
                counter.up();
                if packet_id > 0 {
                    // MQTT 5 §3.1.2.11.4: as if it had been sent and acknowledged.
                    self.seat.session.complete(packet_id, &self.hub.store);
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

    /// Writes the answers whose promises are kept.
    fn release(&mut self) {
        if self.waits_for_the_disk() {
            // It was not read for a while, so that its silence is ours.
            self.heard_at = Instant::now();
        }
        self.brake.take_if(|ticket| self.hub.store.is_durable(*ticket));
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
