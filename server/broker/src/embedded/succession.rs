//! From a session that a clean start ends to the one that takes its place.
//!
//! A client that moves to another connection sends CONNECT and its subscriptions in one go. Between the
//! two the old session would be over and the new one not subscribed yet, and what is published then
//! would reach neither. So the old session stays in the index until the packets that came with CONNECT
//! are handled, keeps what comes, and passes on what both subscribed to. Nobody can tell this from
//! subscriptions made at the CONNECT, for none of those packets waited for its answer. What was queued
//! before is not passed on (MQTT 5 §3.1.2.4): it goes out on the old connection, as its last words.

use std::sync::{Arc, PoisonError};

use super::delivery::offer;
use super::hub::{Attached, Hub};
use super::index::Subscriber;
use super::session::{Link, Queued, Session, Subscription, Surroundings};
use crate::clock::Millis;
use crate::topic::Subscribed;

/// Who takes what still comes to a session that is over.
#[derive(Debug)]
pub(crate) enum Heir {
    /// A connection that has not said yet what it subscribes to; messages are kept for it.
    Awaited,
    /// The next session of the same client.
    Known(Heirs),
}

/// The subscriptions that both sessions have, as the next one had them when it came.
#[derive(Debug)]
pub(crate) struct Heirs(Vec<(Subscribed, Subscriber)>);

impl Heirs {
    /// The subscriptions of the next session that a message is for, and that it still has.
    pub(super) fn matching(&self, topic: &str) -> Vec<Subscriber> {
        let is_match = |(filter, subscriber): &&(Subscribed, Subscriber)| {
            filter.filter.matches(topic) && subscriber.session.has(filter)
        };
        self.0.iter().filter(is_match).map(|(_, subscriber)| subscriber.clone()).collect()
    }
}

impl Session {
    /// Takes the connection away from a session that a clean start ends. Returns it, if there was one.
    ///
    /// What waits and the client may be sent goes out on that connection still.
    pub(super) fn give_way(&self, now: Millis, around: Surroundings<'_>) -> Option<Link> {
        let mut state = self.state();
        // Nothing of it is to be written any more.
        state.expiry_s = 0;
        if let Some(link) = &mut state.link {
            link.window = link.receive_maximum;
        }
        let mut last_words = Vec::new();
        while let Some(outgoing) = self.take_one(&mut state, now, around) {
            last_words.push(outgoing);
        }
        let link = state.disconnect()?;
        state.last_words = (!last_words.is_empty()).then_some((link.id, last_words));
        state.waiting.clear();
        state.waiting_bytes = 0;
        // The next session is to have the same, and this one is still there meanwhile.
        state.subscriptions.values_mut().for_each(|subscription| subscription.charge.give_back());
        if !state.subscriptions.is_empty() {
            state.heir = Some(Heir::Awaited);
        }
        Some(link)
    }

    /// Whether a connection may yet take over what comes.
    pub(super) fn awaits_heir(&self) -> bool {
        matches!(self.state().heir, Some(Heir::Awaited))
    }

    /// Passes on what came since the connection was taken away, in order, and then what comes from now on.
    fn pass_on(&self, next: &Arc<Self>, around: Surroundings<'_>) {
        let theirs: Vec<_> = next.subscribers();
        // Held to the end: a publication may have found this session in the index before, and be pushed
        // just now. It waits here, and follows what was kept. Locks are taken from older sessions to newer.
        let mut state = self.state();
        let shared = theirs.into_iter().filter(|(filter, _)| state.subscriptions.contains_key(filter));
        let heirs = Heirs(shared.collect());
        let mut kept: Vec<Queued> = state.waiting.drain(..).collect();
        kept.extend(state.fleeting.drain(..));
        kept.sort_by_key(|queued| queued.place);
        for queued in kept {
            offer(&queued.message, &heirs.matching(&queued.message.topic), around);
        }
        state.heir = Some(Heir::Known(heirs));
    }

    /// Its subscriptions as the index has them.
    pub(super) fn subscribers(self: &Arc<Self>) -> Vec<(Subscribed, Subscriber)> {
        let state = self.state();
        let subscriber = |(filter, subscription): (&Subscribed, &Subscription)| {
            let session = Arc::clone(self);
            let (options, subscription_id) = (subscription.options, subscription.id);
            (filter.clone(), Subscriber { session, options, subscription_id })
        };
        state.subscriptions.iter().map(subscriber).collect()
    }
}

impl Hub {
    /// Ends the session before this one. Its messages are this one's from here on.
    pub(super) fn succeed(&self, attached: &mut Attached) {
        let Some(before) = attached.predecessor.take() else { return };
        let session = &attached.session;
        // Nothing newer comes between what was kept and what follows while the index is held.
        let mut index = attached.space.index.write().unwrap_or_else(PoisonError::into_inner);
        for (filter, subscriber) in session.subscribers() {
            index.insert(&filter, subscriber);
        }
        before.pass_on(session, self.surroundings());
        let (filters, _) = before.end();
        for filter in &filters {
            index.remove(filter, &before);
            self.metrics.subscriptions.down();
        }
        drop(index);
        self.metrics.sessions.down();
    }
}
