//! The state of one client that outlives its connections (MQTT 5 §4.1), and the queue into it.
//!
//! Publishers push into a session and never wait for its client: what does not fit is dropped or
//! refused, and counted. The connection takes out of it what its window allows. One short lock per
//! session; nothing is awaited under it.
//!
//! Always: a message is either waiting, or in flight under a packet id, or gone; `place` orders both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};

use super::budget::{Budget, Charge, filter_bytes};
use super::delivery::offer;
use super::flight::{InFlight, Stage};
use super::message::{Message, Testament, qos};
use super::succession::Heir;
use super::timers::TimerKey;
use crate::clock::Millis;
use crate::config::{DeliveredQos, Quotas, WhenFull};
use crate::gate::Owner;
use crate::metrics::Metrics;
use crate::rules::Rules;
use crate::store::{Store, Ticket};
use crate::topic::{Subscribed, TopicName};
use crate::wire::subscribe::Options;
use crate::wire::{Code, Qos};

/// What a session is known by within an account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionKey {
    pub(crate) owner: Owner,
    pub(crate) client_id: Box<str>,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    /// What the file knows it by.
    pub(crate) id: u64,
    /// What it holds together with all sessions of its device.
    pub(super) budget: Budget,
    ended: AtomicBool,
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

/// What changes in a session.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The connection, if there is one.
    pub(crate) link: Option<Link>,
    /// The rules of the last connection; unknown after a restart until the client comes.
    pub(crate) rules: Option<Arc<Rules>>,
    /// How long it lives without a connection; zero for not at all.
    pub(crate) expiry_s: u32,
    pub(crate) expires: Option<TimerKey>,
    pub(crate) will_due: Option<TimerKey>,
    /// The will of the last connection while its delay runs.
    pub(crate) delayed_will: Option<Box<Testament>>,
    pub(crate) subscriptions: BTreeMap<Subscribed, Subscription>,
    pub(super) waiting: VecDeque<Queued>,
    pub(super) waiting_bytes: usize,
    pub(super) fleeting: VecDeque<Queued>,
    fleeting_bytes: usize,
    pub(super) in_flight: BTreeMap<u16, InFlight>,
    resend: VecDeque<u16>,
    pub(super) received: BTreeSet<u16>,
    pub(super) last_packet_id: u16,
    pub(super) next_place: u64,
    /// Who takes over what still comes, once the session is over.
    pub(super) heir: Option<Heir>,
    /// What goes out on a connection that was taken away, and which one.
    pub(super) last_words: Option<(u64, Vec<Outgoing>)>,
}

/// A subscription as the session holds it.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) options: Options,
    pub(crate) id: Option<u32>,
    pub(super) charge: Charge,
}

/// The connection of a session.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    /// Rings when there is something to send or to know.
    pub(crate) wake: Arc<Notify>,
    /// How many QoS 1 and 2 messages it is sent at once.
    pub(crate) window: u16,
    /// How many it would take (MQTT 5 §3.1.2.11.3).
    pub(crate) receive_maximum: u16,
    /// How many it has now.
    pub(crate) outstanding: u16,
    pub(crate) will: Option<Box<Testament>>,
    /// Why the connection must end.
    pub(crate) kicked: Option<Code>,
    /// Who waits until all that the client has sent is handled; dropped is answered.
    pub(crate) hearer: Option<oneshot::Sender<()>>,
}

/// A message for this session.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Box<[u32]>,
    pub(super) place: u64,
    /// Shared with its clones: all of them are one message.
    pub(super) _charge: Arc<Charge>,
}

impl Queued {
    fn record(&self) -> QueuedRecord<&Message> {
        QueuedRecord {
            message: self.message.as_ref(),
            qos: self.qos,
            retain: self.retain,
            ids: self.subscription_ids.to_vec(),
        }
    }
}

/// A message as the file holds it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct QueuedRecord<M> {
    pub(super) message: M,
    #[serde(with = "qos")]
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) ids: Vec<u32>,
}

/// What is to be sent to the client.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Publish { packet_id: u16, dup: bool, queued: Queued },
    Release { packet_id: u16, ticket: Option<Ticket> },
}

impl Outgoing {
    fn bytes(&self) -> usize {
        match self {
            Self::Publish { queued, .. } => queued.message.bytes(),
            Self::Release { .. } => 0,
        }
    }
}

/// A message before it has a place in a queue.
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    pub(crate) message: &'a Arc<Message>,
    /// The least of what the publisher and the subscription ask for.
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: &'a [u32],
}

/// What a message in a queue costs beside its octets.
const QUEUED_BYTES: usize = 128;

impl Delivery<'_> {
    /// What its device is charged for.
    fn bytes(&self) -> usize {
        charged_bytes(self.message, self.subscription_ids)
    }
}

/// What a device is charged for a message that waits for it.
pub(super) fn charged_bytes(message: &Message, subscription_ids: &[u32]) -> usize {
    let ids = size_of_val(subscription_ids);
    message.bytes().saturating_add(ids).saturating_add(QUEUED_BYTES)
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The session does not want it, or can't have it.
    Dropped,
    /// The queue is full and the publisher is to be told.
    Full,
    /// It waits. Without a connection it is promised when the ticket is durable.
    Queued(Option<Ticket>),
}

/// What a push needs beside the delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) store: &'a Store,
    pub(crate) metrics: &'a Metrics,
    pub(crate) quotas: &'a Quotas,
    pub(crate) delivered_qos: DeliveredQos,
}

impl Session {
    pub(crate) fn new(key: SessionKey, id: u64, budget: Budget) -> Self {
        Self { key, id, budget, ended: AtomicBool::new(false), turn: Arc::default(), state: Mutex::default() }
    }

    #[cfg(test)]
    pub(crate) fn for_test(id: u64) -> Self {
        let key = SessionKey { owner: Owner::Anonymous, client_id: "test".into() };
        Self::new(key, id, Budget::default())
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all that the client published before is delivered, and keeps the next from it while the turn
    /// lives (MQTT 5 §4.6). Turns come in the order in which they were asked for.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Whether it is over: nothing may be added to the index for it.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends it. Returns what must leave the index, and the will that was delayed.
    pub(crate) fn end(&self) -> (Vec<Subscribed>, Option<Box<Testament>>) {
        let mut state = self.state();
        self.ended.store(true, Ordering::Release);
        state.waiting.clear();
        state.clear_fleeting();
        state.in_flight.clear();
        let filters = core::mem::take(&mut state.subscriptions).into_keys().collect();
        (filters, state.delayed_will.take())
    }

    /// Adds a subscription, or changes the one of this filter. Returns whether it is a new one.
    ///
    /// # Errors
    /// The code for the SUBACK when the session or its device has too many, or the session is another's by now.
    pub(super) fn subscribe(
        &self,
        link: u64,
        filter: &Subscribed,
        options: Options,
        id: Option<u32>,
        quotas: &Quotas,
    ) -> Result<bool, Code> {
        let mut state = self.state();
        state.check_link(link)?;
        if let Some(subscription) = state.subscriptions.get_mut(filter) {
            subscription.options = options;
            subscription.id = id;
            return Ok(false);
        }
        if state.subscriptions.len() >= quotas.filters {
            return Err(Code::QUOTA_EXCEEDED);
        }
        let charge = self.budget.filters.charge(filter_bytes(filter), quotas.filter_bytes_per_device);
        let charge = charge.ok_or(Code::QUOTA_EXCEEDED)?;
        state.subscriptions.insert(filter.clone(), Subscription { options, id, charge });
        Ok(true)
    }

    /// Whether it still has a subscription of its own that matches: what was found before an UNSUBACK is not added
    /// after it (MQTT 5 §3.10.4). Of one that passes on what comes, the heir is asked.
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        let is_match = |filter: &Subscribed| filter.share.is_none() && filter.filter.matches(topic);
        let state = self.state();
        state.heir.is_some() || state.subscriptions.keys().any(is_match)
    }

    /// Whether it still has this subscription, or passes on what comes.
    pub(super) fn has(&self, filter: &Subscribed) -> bool {
        let state = self.state();
        state.heir.is_some() || state.subscriptions.contains_key(filter)
    }

    /// Adds a message. Never waits.
    pub(crate) fn push(&self, delivery: &Delivery<'_>, around: Surroundings<'_>) -> Pushed {
        let mut state = self.state();
        if let Some(Heir::Known(heirs)) = &state.heir {
            let heirs = heirs.matching(&delivery.message.topic);
            drop(state);
            return offer(delivery.message, &heirs, around);
        }
        let state = &mut *state;
        let may_receive = |rules: &Arc<Rules>| rules.may_receive(&delivery.message.topic);
        if self.is_ended() || !state.rules.as_ref().is_none_or(may_receive) {
            return Pushed::Dropped;
        }
        if delivery.qos == Qos::Zero {
            return state.push_fleeting(&self.budget, delivery, around);
        }
        let charge = match self.make_room(state, delivery, around) {
            Ok(charge) => charge,
            Err(pushed) => return pushed,
        };
        let queued = state.queue(delivery, charge);
        let mut ticket = None;
        if state.expiry_s > 0 && around.store.keeps() {
            let written = around.store.put_message(self.id, queued.place, &queued.record());
            ticket = state.link.is_none().then_some(written);
        }
        state.waiting_bytes = state.waiting_bytes.saturating_add(queued.message.bytes());
        state.waiting.push_back(queued);
        state.ring();
        Pushed::Queued(ticket)
    }

    /// Makes room for a message, at the cost of others where the settings say so.
    ///
    /// # Errors
    /// What becomes of the message when there is none.
    fn make_room(
        &self,
        state: &mut State,
        delivery: &Delivery<'_>,
        around: Surroundings<'_>,
    ) -> Result<Charge, Pushed> {
        let (quotas, bytes) = (around.quotas, delivery.message.bytes());
        loop {
            let charge = || self.budget.queued.charge(delivery.bytes(), quotas.queued_bytes_per_device);
            if !state.is_full(bytes, quotas)
                && let Some(charge) = charge()
            {
                return Ok(charge);
            }
            around.metrics.dropped_full.up();
            match (quotas.when_full, state.waiting.pop_front()) {
                (WhenFull::DropOldest, Some(oldest)) => {
                    state.waiting_bytes = state.waiting_bytes.saturating_sub(oldest.message.bytes());
                    self.forget(state, oldest.place, around.store);
                }
                (WhenFull::Refuse, Some(oldest)) => {
                    state.waiting.push_front(oldest);
                    return Err(Pushed::Full);
                }
                // What the device's other sessions hold is no concern of the publisher's.
                (WhenFull::DropOldest, None) if bytes <= quotas.queued_bytes => return Err(Pushed::Dropped),
                (_, None) => return Err(Pushed::Full),
            }
        }
    }

    /// Asks the connection, if there is one, to handle all that its client has sent. The answer is an error: the
    /// end of the question.
    pub(super) fn hear_out(&self) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state();
        let link = state.link.as_mut()?;
        let (hearer, heard) = oneshot::channel();
        link.hearer = Some(hearer);
        link.wake.notify_one();
        Some(heard)
    }

    /// Who asked this connection to be heard out.
    pub(super) fn hearer(&self, link: u64) -> Option<oneshot::Sender<()>> {
        self.state().link.as_mut().filter(|current| current.id == link)?.hearer.take()
    }

    /// Takes what may be sent now: the last words of a session that is over, or at most `count` messages, and none after `bytes` octets are reached.
    ///
    /// # Errors
    /// When the connection is no longer the session's: the code it ends with.
    pub(crate) fn take(
        &self,
        link: u64,
        (count, bytes): (usize, usize),
        now: Millis,
        around: Surroundings<'_>,
    ) -> Result<Vec<Outgoing>, Code> {
        let mut state = self.state();
        if let Some((_, words)) = state.last_words.take_if(|(id, _)| *id == link) {
            return Ok(words);
        }
        state.check_link(link)?;
        let (mut taken, mut taken_bytes) = (Vec::new(), 0_usize);
        while taken.len() < count
            && taken_bytes < bytes
            && let Some(next) = self.take_one(&mut state, now, around)
        {
            taken_bytes = taken_bytes.saturating_add(next.bytes());
            taken.push(next);
        }
        Ok(taken)
    }

    pub(super) fn take_one(
        &self,
        state: &mut State,
        now: Millis,
        around: Surroundings<'_>,
    ) -> Option<Outgoing> {
        let has_room = state.link.as_ref().is_some_and(|link| link.outstanding < link.window);
        while has_room && let Some(packet_id) = state.resend.pop_front() {
            let Some(flight) = state.in_flight.get(&packet_id) else { continue };
            let outgoing = match &flight.stage {
                Stage::Sent(queued) => Outgoing::Publish { packet_id, dup: true, queued: queued.clone() },
                Stage::Released(ticket) => Outgoing::Release { packet_id, ticket: *ticket },
            };
            state.occupy();
            return Some(outgoing);
        }
        loop {
            let waiting = state.waiting.front().filter(|_| has_room).map(|queued| queued.place);
            let fleeting = state.fleeting.front().map(|queued| queued.place);
            let is_fleeting = match (waiting, fleeting) {
                (None, None) => return None,
                (Some(waiting), Some(fleeting)) => fleeting < waiting,
                (waiting, _) => waiting.is_none(),
            };
            let queue = if is_fleeting { &mut state.fleeting } else { &mut state.waiting };
            let queued = queue.pop_front()?;
            if queue.is_empty() && queue.capacity() > KEEP_QUEUE {
                *queue = VecDeque::new();
            }
            let bytes = if is_fleeting { &mut state.fleeting_bytes } else { &mut state.waiting_bytes };
            *bytes = bytes.saturating_sub(queued.message.bytes());
            if queued.message.is_expired(now) {
                around.metrics.dropped_expired.up();
                self.forget(state, queued.place, around.store);
                if !is_fleeting {
                    state.pass_packet_id();
                }
                continue;
            }
            let packet_id = if is_fleeting { 0 } else { self.fly(state, &queued, around.store) };
            return Some(Outgoing::Publish { packet_id, dup: false, queued });
        }
    }

    /// How many messages wait.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.state();
        state.waiting.len().saturating_add(state.fleeting.len())
    }

    pub(super) fn forget(&self, state: &State, place: u64, store: &Store) {
        if state.expiry_s > 0 && store.keeps() {
            store.remove_message(self.id, place);
        }
    }
}

/// Queues with more room than this give it back when they are empty.
const KEEP_QUEUE: usize = 8;

impl State {
    /// Makes a connection this session's. What was in flight is to be sent again first.
    pub(crate) fn connect(&mut self, link: Link, rules: Arc<Rules>) -> Option<Link> {
        self.clear_fleeting();
        let mut order: Vec<_> = self.in_flight.iter().map(|(id, flight)| (flight.place, *id)).collect();
        order.sort_unstable();
        self.resend = order.into_iter().map(|(_, id)| id).collect();
        self.rules = Some(rules);
        self.link.replace(link)
    }

    /// The connection is over.
    pub(crate) fn disconnect(&mut self) -> Option<Link> {
        self.clear_fleeting();
        self.resend = VecDeque::new();
        self.link.take()
    }

    /// Drops a will whose delay still runs, for its client is back. [MQTT-3.1.2-8] counts a new connection of the client
    /// id, with a clean start or without; a will that the end of the session was to send is due already.
    pub(crate) fn forgive(&mut self, now: Millis) {
        let is_later = |timer: TimerKey| timer.0 > now;
        if self.will_due.is_some_and(is_later) && self.expires.is_some_and(is_later) {
            self.delayed_will = None;
        }
    }

    /// Whether this connection is the session's.
    pub(crate) fn check_link(&self, link: u64) -> Result<(), Code> {
        match &self.link {
            Some(Link { kicked: Some(code), id, .. }) if *id == link => Err(*code),
            Some(current) if current.id == link => Ok(()),
            _ => Err(Code::SESSION_TAKEN_OVER),
        }
    }

    fn push_fleeting(
        &mut self,
        budget: &Budget,
        delivery: &Delivery<'_>,
        around: Surroundings<'_>,
    ) -> Pushed {
        if self.link.is_none() && self.heir.is_none() {
            return Pushed::Dropped;
        }
        let quotas = around.quotas;
        let bytes = self.fleeting_bytes.saturating_add(delivery.message.bytes());
        let is_full = self.fleeting.len() >= quotas.queued_qos0 || bytes > quotas.queued_bytes;
        let charge = || budget.queued.charge(delivery.bytes(), quotas.queued_bytes_per_device);
        let Some(charge) = (!is_full).then(charge).flatten() else {
            around.metrics.dropped_qos0.up();
            return Pushed::Dropped;
        };
        self.fleeting_bytes = bytes;
        let queued = self.queue(delivery, charge);
        self.fleeting.push_back(queued);
        self.ring();
        Pushed::Queued(None)
    }

    pub(super) fn clear_fleeting(&mut self) {
        self.fleeting = VecDeque::new();
        self.fleeting_bytes = 0;
    }

    /// Drops what waits and may not be read under these rules. Returns the places of it.
    ///
    /// A session that was away kept its subscriptions, whatever its client lost meanwhile.
    pub(crate) fn narrow(&mut self, rules: &Rules) -> Vec<u64> {
        let mut lost = Vec::new();
        self.waiting.retain(|queued| {
            let stays = TopicName::parse(&queued.message.topic).is_ok_and(|topic| rules.may_read(topic));
            if !stays {
                lost.push(queued.place);
            }
            stays
        });
        self.waiting_bytes = self.waiting.iter().map(|queued| queued.message.bytes()).sum();
        lost
    }

    fn queue(&mut self, delivery: &Delivery<'_>, charge: Charge) -> Queued {
        let place = self.next_place;
        self.next_place = place.saturating_add(1);
        Queued {
            message: Arc::clone(delivery.message),
            qos: delivery.qos,
            retain: delivery.retain,
            subscription_ids: delivery.subscription_ids.into(),
            place,
            _charge: Arc::new(charge),
        }
    }

    fn is_full(&self, bytes: usize, quotas: &Quotas) -> bool {
        self.waiting.len() >= quotas.queued || self.waiting_bytes.saturating_add(bytes) > quotas.queued_bytes
    }

    pub(super) fn ring(&self) {
        if let Some(link) = &self.link {
            link.wake.notify_one();
        }
    }

    pub(super) fn occupy(&mut self) {
        if let Some(link) = &mut self.link {
            link.outstanding = link.outstanding.saturating_add(1);
        }
    }

    pub(super) fn vacate(&mut self) {
        if let Some(link) = &mut self.link {
            link.outstanding = link.outstanding.saturating_sub(1);
        }
    }
}
