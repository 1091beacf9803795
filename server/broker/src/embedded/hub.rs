//! What the clients of the embedded engine share.
//!
//! Locks, in the order in which they may be held together: the sessions of a space, or its index, then
//! one session's state; two of those where one passes on to the next, the older first. The retained
//! messages are locked alone. A publication holds the index only while it looks for subscribers, not
//! while it delivers to them, and gives way to other tasks between slices of a large audience. It has the turn of
//! its session from its begin to its end, and waits meanwhile for nothing but the disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use muster_policy::identity::AccountId;
use muster_policy::mqtt::Senders;
use tokio::sync::Notify;
use tokio::time::Duration;
use tokio_util::task::TaskTracker;

use super::budget::Budget;
use super::delivery::Replay;
use super::index::{Index, Subscriber};
use super::message::{Message, Testament};
use super::restore::SessionRecord;
use super::retained::Retained;
use super::session::{Link, Session, SessionKey, Surroundings};
use super::timers::{Due, Event, Timers};
use crate::clock::{Clock, Millis};
use crate::config::{OnCutSession, Quotas, Settings};
use crate::gate::Owner;
use crate::metrics::Metrics;
use crate::rules::Rules;
use crate::store::{Store, Ticket};
use crate::topic::Subscribed;
use crate::wire::Code;
use crate::wire::subscribe::{Options, RetainHandling};

/// How long a client that comes back waits for its earlier connection to be read: long enough for a task that is
/// next in the queue of a busy machine.
const HEAR_OUT_WAIT: Duration = Duration::from_millis(100);

/// All that the embedded engine knows.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store: Store,
    /// Who knows what has become of the senders of retained messages and wills, once they are known.
    pub(crate) senders: OnceLock<Arc<dyn Senders>>,
    pub(super) timers: Timers,
    spaces: RwLock<HashMap<AccountId, Arc<Space>>>,
    links: AtomicU64,
    /// Set before the sessions are looked through, so that none slips in behind.
    is_draining: AtomicBool,
    /// What is done even if its connection is gone: publications that wait, wills, and what the file must know of
    /// sessions.
    pub(super) leaving: TaskTracker,
    /// The next id of a session in the file.
    pub(super) ids: AtomicU64,
}

/// The topics and sessions of one account: nothing crosses to another.
#[derive(Debug)]
pub(crate) struct Space {
    pub(super) account: AccountId,
    pub(super) index: RwLock<Index>,
    pub(super) retained: RwLock<Retained>,
    /// In order, so that those of one owner stand together.
    pub(super) sessions: Mutex<BTreeMap<SessionKey, Arc<Session>>>,
}

/// A client that wants a session.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) account: AccountId,
    pub(crate) key: SessionKey,
    pub(crate) starts_clean: bool,
    pub(crate) expiry_s: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) will: Option<Box<Testament>>,
    pub(crate) rules: Arc<Rules>,
}

/// A client in its session.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) space: Arc<Space>,
    pub(crate) session: Arc<Session>,
    pub(crate) link: u64,
    pub(crate) wake: Arc<Notify>,
    pub(crate) session_present: bool,
    /// The session before this one, as long as it may have something to pass on.
    pub(super) predecessor: Option<Arc<Session>>,
}

/// The session that a client came into.
struct Entered {
    session: Arc<Session>,
    session_present: bool,
    predecessor: Option<Arc<Session>>,
}

/// How a connection leaves its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) fires_will: bool,
    pub(crate) session: OnCutSession,
    /// What a DISCONNECT changed the expiry to.
    pub(crate) expiry_s: Option<u32>,
}

impl Hub {
    pub(crate) fn new(settings: Arc<Settings>, clock: Clock, metrics: Arc<Metrics>, store: Store) -> Self {
        Self {
            settings,
            clock,
            metrics,
            store,
            senders: OnceLock::new(),
            timers: Timers::default(),
            spaces: RwLock::default(),
            links: AtomicU64::new(1),
            is_draining: AtomicBool::new(false),
            leaving: TaskTracker::new(),
            ids: AtomicU64::new(1),
        }
    }

    /// The space of an account, made when it is first seen.
    pub(super) fn space(&self, account: AccountId) -> Arc<Space> {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = spaces.get(&account) {
            return Arc::clone(space);
        }
        drop(spaces);
        let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(spaces.entry(account).or_insert_with(|| Arc::new(Space::new(account))))
    }

    pub(super) fn spaces(&self) -> Vec<Arc<Space>> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Has an earlier connection of a client handle what came on it before, for a moment at most.
    ///
    /// A client that says goodbye and comes back at once is not one that takes its session over: its DISCONNECT
    /// drops the will and may end the session, though this connection's task was the first to run.
    pub(super) async fn hear_out(&self, arrival: &Arrival) {
        let session = self.space(arrival.account).sessions().get(&arrival.key).cloned();
        if let Some(heard) = session.and_then(|session| session.hear_out()) {
            // Of the three ends, answered, gone and too late, none changes what follows.
            let _ = tokio::time::timeout(HEAR_OUT_WAIT, heard).await;
        }
    }

    /// Gives a client its session, and takes it from an earlier connection of the same client. What is left to
    /// do is for [`Hub::clear`].
    ///
    /// # Errors
    /// When there are too many sessions, or the broker is stopping.
    pub(super) fn attach(&self, arrival: &Arrival) -> Result<(Attached, Leavings), Code> {
        let space = self.space(arrival.account);
        let link_id = self.links.fetch_add(1, Ordering::Relaxed);
        let wake = Arc::new(Notify::new());
        let link = Link {
            id: link_id,
            wake: Arc::clone(&wake),
            window: arrival.receive_maximum.min(self.settings.quotas.inflight),
            receive_maximum: arrival.receive_maximum,
            outstanding: 0,
            will: arrival.will.clone(),
            kicked: None,
            hearer: None,
        };
        let mut leavings = Leavings::default();
        let Entered { session, session_present, predecessor } =
            self.enter(&space, arrival, link, &mut leavings)?;
        Ok((Attached { space, session, link: link_id, wake, session_present, predecessor }, leavings))
    }

    fn enter(
        &self,
        space: &Arc<Space>,
        arrival: &Arrival,
        link: Link,
        leavings: &mut Leavings,
    ) -> Result<Entered, Code> {
        let mut sessions = space.sessions();
        if self.is_draining.load(Ordering::Acquire) {
            return Err(Code::SERVER_UNAVAILABLE);
        }
        let found = sessions.get(&arrival.key).cloned();
        let budget = budget_of(&sessions, &arrival.key.owner);
        let now = self.clock.now();
        let mut predecessor = None;
        if let Some(session) = found {
            // One that ends with its connection ends now (MQTT 5 §3.1.4, 3.1.1 §3.1.2.4).
            let is_over = {
                let state = session.state();
                state.expiry_s == 0 || state.expires.is_some_and(|timer| timer.0 <= now)
            };
            if !arrival.starts_clean && !is_over {
                self.resume(&session, arrival, link, leavings);
                self.record(space, &session);
                return Ok(Entered { session, session_present: true, predecessor });
            }
            sessions.remove(&arrival.key);
            session.state().forgive(now);
            self.retire(&session, leavings);
            if session.awaits_heir() {
                predecessor = Some(session);
            } else {
                self.bury(&session, leavings);
            }
        } else if !self.has_room(&sessions, &arrival.key.owner) {
            return Err(Code::QUOTA_EXCEEDED);
        }
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Session::new(arrival.key.clone(), id, budget));
        {
            let mut state = session.state();
            state.expiry_s = arrival.expiry_s;
            state.connect(link, Arc::clone(&arrival.rules));
        }
        self.record(space, &session);
        sessions.insert(arrival.key.clone(), Arc::clone(&session));
        self.metrics.sessions.up();
        Ok(Entered { session, session_present: false, predecessor })
    }

    /// Whether an owner may have one more session. One device with many client ids leaves room for others.
    fn has_room(&self, sessions: &BTreeMap<SessionKey, Arc<Session>>, owner: &Owner) -> bool {
        let Quotas { sessions: most, sessions_per_device: most_of_one, .. } = self.settings.quotas;
        if self.metrics.sessions.value() >= u64::try_from(most).unwrap_or(u64::MAX) {
            return false;
        }
        if *owner == Owner::Anonymous {
            return true;
        }
        sessions_of(sessions, owner).take(most_of_one).count() < most_of_one
    }

    fn resume(&self, session: &Arc<Session>, arrival: &Arrival, link: Link, leavings: &mut Leavings) {
        let mut state = session.state();
        self.timers.cancel(state.expires.take());
        self.timers.cancel(state.will_due.take());
        // MQTT 5 §3.1.3.2.2: who comes back within the delay has no will sent.
        state.delayed_will = None;
        for place in state.narrow(&arrival.rules) {
            session.forget(&state, place, &self.store);
        }
        let before = state.connect(link, Arc::clone(&arrival.rules));
        if let Some(before) = before {
            self.metrics.taken_over.up();
            before.wake.notify_one();
            let will = before.will.filter(|left| left.will.delay_s == 0);
            leavings.wills.extend(will.map(|will| (Arc::clone(session), *will)));
        }
        // The rules may be narrower than those of the last connection.
        let lost: Vec<_> = state
            .subscriptions
            .keys()
            .filter(|filter| !arrival.rules.may_subscribe(&filter.filter))
            .cloned()
            .collect();
        for filter in &lost {
            state.subscriptions.remove(filter);
            self.metrics.subscriptions.down();
        }
        let before_s = core::mem::replace(&mut state.expiry_s, arrival.expiry_s);
        drop(state);
        if before_s > 0 && arrival.expiry_s == 0 {
            self.store.remove_session(session.id);
        }
        leavings.filters.push((Arc::clone(session), lost));
    }

    /// Ends a session that left the table.
    fn end(&self, session: &Arc<Session>, leavings: &mut Leavings) {
        self.retire(session, leavings);
        self.bury(session, leavings);
    }

    /// Takes timers, file and connection away from a session that left the table.
    fn retire(&self, session: &Arc<Session>, leavings: &mut Leavings) {
        {
            let mut state = session.state();
            self.timers.cancel(state.expires.take());
            self.timers.cancel(state.will_due.take());
            if state.expiry_s > 0 {
                self.store.remove_session(session.id);
            }
        }
        if let Some(link) = session.give_way(self.clock.now(), self.surroundings()) {
            self.metrics.taken_over.up();
            link.wake.notify_one();
            leavings.wills.extend(link.will.map(|will| (Arc::clone(session), *will)));
        }
    }

    /// Empties a session that was retired.
    fn bury(&self, session: &Arc<Session>, leavings: &mut Leavings) {
        let (filters, delayed) = session.end();
        leavings.wills.extend(delayed.map(|will| (Arc::clone(session), *will)));
        self.metrics.sessions.down();
        for _ in &filters {
            self.metrics.subscriptions.down();
        }
        leavings.filters.push((Arc::clone(session), filters));
    }

    /// Does what could not be done under the locks.
    pub(super) async fn clear(&self, space: &Arc<Space>, leavings: Leavings) {
        for (session, filters) in leavings.filters {
            if !filters.is_empty() {
                let mut index = space.index.write().unwrap_or_else(PoisonError::into_inner);
                for filter in &filters {
                    index.remove(filter, &session);
                }
            }
        }
        for (session, will) in leavings.wills {
            self.fire(space, &session, will).await;
        }
    }

    async fn fire(&self, space: &Arc<Space>, session: &Session, will: Testament) {
        if !self.may_fire(space, &will) {
            tracing::info!(
                topic = &*will.will.topic,
                "a will is dropped: its sender may not publish there any more"
            );
            return;
        }
        self.metrics.wills.up();
        let fan_out = self.begin(space, Message::of_will(will, self.clock.now()), None);
        // Behind what the client published before.
        let _turn = session.turn().await;
        self.finish(fan_out).await;
    }

    /// A connection is over. Does nothing when the session has another one by now.
    pub(crate) async fn detach(&self, attached: &Attached, departure: Departure) {
        let Attached { space, session, link, .. } = attached;
        let mut leavings = Leavings::default();
        {
            let mut sessions = space.sessions();
            let mut state = session.state();
            if session.is_ended() || state.link.as_ref().is_none_or(|current| current.id != *link) {
                return;
            }
            // A DISCONNECT may make the expiry of a session that the file has zero.
            let is_in_the_file = state.expiry_s > 0;
            if let Some(seconds) = departure.expiry_s {
                state.expiry_s = seconds;
            }
            let will = state.disconnect().and_then(|link| link.will).filter(|_| departure.fires_will);
            if state.expiry_s == 0 || departure.session == OnCutSession::Drop {
                leavings.wills.extend(will.map(|will| (Arc::clone(session), *will)));
                if is_in_the_file {
                    self.store.remove_session(session.id);
                }
                drop(state);
                sessions.remove(&session.key);
                self.end(session, &mut leavings);
            } else {
                let ends_at = self.clock.now().plus_seconds(state.expiry_s);
                state.expires = Some(self.timers.add(ends_at, due(space, session, Event::SessionEnds)));
                if let Some(will) = will {
                    if will.will.delay_s == 0 {
                        leavings.wills.push((Arc::clone(session), *will));
                    } else {
                        let fires_at = self.clock.now().plus_seconds(will.will.delay_s);
                        state.delayed_will = Some(will);
                        state.will_due =
                            Some(self.timers.add(fires_at, due(space, session, Event::WillFires)));
                    }
                }
                drop(state);
                self.record(space, session);
            }
        }
        self.clear(space, leavings).await;
    }

    /// Writes what the file must know of a persistent session.
    fn record(&self, space: &Space, session: &Session) -> Option<Ticket> {
        if !self.store.keeps() {
            return None;
        }
        let state = session.state();
        (state.expiry_s > 0).then(|| {
            let record = SessionRecord::of(space.account, &session.key, &state);
            self.store.put_session(session.id, &record)
        })
    }

    /// Adds a subscription.
    ///
    /// # Errors
    /// The code for the SUBACK when the session or its device has too many, or the session is another's by now.
    pub(crate) fn subscribe(
        &self,
        attached: &Attached,
        filter: Subscribed,
        options: Options,
        id: Option<u32>,
    ) -> Result<Replay, Code> {
        let quotas = &self.settings.quotas;
        let is_new = attached.session.subscribe(attached.link, &filter, options, id, quotas)?;
        if is_new {
            self.metrics.subscriptions.up();
        }
        let session = Arc::clone(&attached.session);
        let mut index = attached.space.index.write().unwrap_or_else(PoisonError::into_inner);
        // Before the session ends that came before, `succeed` puts all of them there at once. And a takeover by a
        // client with narrower rules may have taken this one away again, and cleared the index of it.
        if attached.predecessor.is_none() && session.state().subscriptions.contains_key(&filter) {
            index.insert(&filter, Subscriber { session, options, subscription_id: id });
        }
        drop(index);
        let wants_retained = match options.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => is_new,
            RetainHandling::Never => false,
        };
        // Clients were told that there are none; the file may have some from before.
        let has_retained = quotas.retained > 0;
        // MQTT 5 §4.8.2: a shared subscription gets no retained messages.
        let filter = (wants_retained && has_retained && filter.share.is_none()).then_some(filter.filter);
        Ok(Replay { filter, qos: options.qos, id, after: None })
    }

    /// Takes a subscription away.
    pub(crate) fn unsubscribe(&self, attached: &Attached, filter: &Subscribed) -> Code {
        let removed = {
            let mut state = attached.session.state();
            if let Err(code) = state.check_link(attached.link) {
                return code;
            }
            state.subscriptions.remove(filter)
        };
        if removed.is_none() {
            return Code::NO_SUBSCRIPTION_EXISTED;
        }
        self.metrics.subscriptions.down();
        let mut index = attached.space.index.write().unwrap_or_else(PoisonError::into_inner);
        index.remove(filter, &attached.session);
        Code::SUCCESS
    }

    /// Writes the subscriptions of a persistent session; its SUBACK waits for the ticket.
    pub(crate) fn keep_subscriptions(&self, attached: &Attached) -> Option<Ticket> {
        self.record(&attached.space, &attached.session)
    }

    pub(crate) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            store: &self.store,
            metrics: &self.metrics,
            quotas: &self.settings.quotas,
            delivered_qos: self.settings.delivered_qos,
        }
    }

    /// Ends what is due. Returns when to come again.
    pub(super) async fn handle_due(&self) -> Option<Millis> {
        let now = self.clock.now();
        while let Some(Due { space, session, event }) = self.timers.take(now) {
            let mut leavings = Leavings::default();
            match event {
                Event::WillFires => {
                    let mut state = session.state();
                    if state.will_due.is_some_and(|timer| timer.0 <= now) {
                        state.will_due = None;
                        let will = state.delayed_will.take();
                        leavings.wills.extend(will.map(|will| (Arc::clone(&session), *will)));
                    }
                }
                Event::SessionEnds => {
                    let mut sessions = space.sessions();
                    let is_over = session.state().expires.is_some_and(|timer| timer.0 <= now);
                    if is_over && !session.is_ended() {
                        sessions.remove(&session.key);
                        self.end(&session, &mut leavings);
                    }
                }
            }
            self.clear(&space, leavings).await;
        }
        self.timers.next_at()
    }

    /// Takes expired retained messages away.
    pub(super) fn sweep_retained(&self) {
        let now = self.clock.now();
        for space in self.spaces() {
            let expired = space.retained.read().unwrap_or_else(PoisonError::into_inner).expired(now);
            let mut retained = space.retained.write().unwrap_or_else(PoisonError::into_inner);
            for topic in expired {
                if retained.remove_expired(&topic, now) {
                    self.metrics.retained.down();
                    self.store.remove_retained(space.account.as_bytes(), &topic);
                }
            }
        }
    }

    /// Tells all connections to end.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        for space in self.spaces() {
            let sessions: Vec<_> = space.sessions().values().cloned().collect();
            for session in sessions {
                if let Some(link) = &mut session.state().link {
                    link.kicked = Some(Code::SERVER_SHUTTING_DOWN);
                    link.wake.notify_one();
                }
            }
        }
    }
}

/// What is left to do once the locks are free.
#[derive(Debug, Default)]
pub(super) struct Leavings {
    filters: Vec<(Arc<Session>, Vec<Subscribed>)>,
    /// With the session that each was left in.
    wills: Vec<(Arc<Session>, Testament)>,
}

impl Leavings {
    /// Whether there is nothing to do.
    pub(super) fn are_nothing(&self) -> bool {
        self.wills.is_empty() && self.filters.iter().all(|(_, filters)| filters.is_empty())
    }
}

fn due(space: &Arc<Space>, session: &Arc<Session>, event: Event) -> Due {
    Due { space: Arc::clone(space), session: Arc::clone(session), event }
}

fn sessions_of<'a>(
    sessions: &'a BTreeMap<SessionKey, Arc<Session>>,
    owner: &'a Owner,
) -> impl Iterator<Item = &'a Arc<Session>> {
    let first = SessionKey { owner: owner.clone(), client_id: Box::default() };
    sessions.range(first..).take_while(|(key, _)| key.owner == *owner).map(|(_, session)| session)
}

/// What the sessions of an owner hold together; those without a certificate hold it each for itself.
pub(super) fn budget_of(sessions: &BTreeMap<SessionKey, Arc<Session>>, owner: &Owner) -> Budget {
    let of_device = || sessions_of(sessions, owner).next();
    let known = if *owner == Owner::Anonymous { None } else { of_device() };
    known.map_or_else(Budget::default, |session| session.budget.clone())
}

impl Space {
    fn new(account: AccountId) -> Self {
        Self { account, index: RwLock::default(), retained: RwLock::default(), sessions: Mutex::default() }
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, BTreeMap<SessionKey, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
