//! Delivery: from one publication to all sessions that subscribed, and retained messages to new ones.
//!
//! The index is locked only while subscribers are looked up. Sessions take messages without waiting,
//! and a large audience is served in slices, so that one publication keeps nobody else waiting.

use std::sync::{Arc, PoisonError};

use super::hub::{Attached, Hub, Space};
use super::index::{Matches, Subscriber};
use super::message::Message;
use super::retained::{Kept, PAGE_MESSAGES, Page, PageSize};
use super::session::{Delivery, Pushed, Session, Surroundings};
use crate::config::Quotas;
use crate::store::Ticket;
use crate::topic::TopicFilter;
use crate::wire::Qos;

/// What became of a publication.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Published {
    pub(crate) was_matched: bool,
    /// A queue or the retained messages had no room.
    pub(crate) was_refused: bool,
    /// What must be durable before the publication is acknowledged.
    pub(crate) ticket: Option<Ticket>,
}

/// Deliveries after which a publication lets other tasks run.
const DELIVERIES_AT_ONCE: usize = 512;

/// Retained messages that a new subscription is still to get.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(super) filter: Option<TopicFilter>,
    pub(crate) qos: Qos,
    pub(super) id: Option<u32>,
    pub(super) after: Option<Box<str>>,
}

impl Replay {
    /// Whether there is anything to send at all.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.filter.is_some()
    }

    /// Whether it is for the same filter and has not begun, so that another takes its place.
    pub(crate) fn is_superseded_by(&self, other: &Self) -> bool {
        self.after.is_none() && self.filter == other.filter
    }
}

/// Pushes a message into the session of these subscriptions, which are all its own.
pub(super) fn offer(message: &Arc<Message>, subscribers: &[Subscriber], around: Surroundings<'_>) -> Pushed {
    let Some(first) = subscribers.first() else { return Pushed::Dropped };
    let most = subscribers.iter().map(|subscriber| subscriber.options.qos).max().unwrap_or_default();
    let ids: Vec<u32> = subscribers.iter().filter_map(|subscriber| subscriber.subscription_id).collect();
    let delivery = Delivery {
        message,
        qos: around.delivered_qos.of(message.qos, most),
        retain: message.retain && subscribers.iter().any(|other| other.options.retain_as_published),
        subscription_ids: &ids,
    };
    first.session.push(&delivery, around)
}

impl Hub {
    /// Delivers a message to all who subscribed to it, and retains it if it says so.
    pub(crate) async fn publish(
        &self,
        space: &Arc<Space>,
        message: Message,
        origin: Option<&Arc<Session>>,
    ) -> Published {
        let message = Arc::new(message);
        let mut published = Published::default();
        if message.retain {
            self.retain(space, &message, &mut published);
        }
        let matches = {
            let index = space.index.read().unwrap_or_else(PoisonError::into_inner);
            index.matches(&message.topic)
        };
        self.deliver(&message, matches, origin, &mut published).await;
        published
    }

    fn retain(&self, space: &Space, message: &Arc<Message>, published: &mut Published) {
        let mut retained = space.retained.write().unwrap_or_else(PoisonError::into_inner);
        let account = space.account.as_bytes();
        // Only a message that is to be retained can take one away (MQTT 5 §3.3.1.3).
        if message.payload.is_empty() {
            if retained.remove(&message.topic) {
                self.metrics.retained.down();
                published.ticket = Some(self.store.remove_retained(account, &message.topic));
            }
            return;
        }
        match retained.put(Arc::clone(message), &self.settings.quotas) {
            Kept::Full => {
                self.metrics.retained_refused.up();
                published.was_refused = true;
            }
            Kept::Stored { is_new } => {
                if is_new {
                    self.metrics.retained.up();
                }
                let written = self.store.put_retained(account, &message.topic, message.as_ref());
                published.ticket = Some(written);
            }
        }
    }

    async fn deliver(
        &self,
        message: &Arc<Message>,
        mut matches: Matches,
        origin: Option<&Arc<Session>>,
        published: &mut Published,
    ) {
        published.was_matched = !matches.own.is_empty() || !matches.shared.is_empty();
        if let Some(origin) = origin {
            let is_echo = |subscriber: &Subscriber| {
                subscriber.options.no_local && Arc::ptr_eq(&subscriber.session, origin)
            };
            matches.own.retain(|subscriber| !is_echo(subscriber));
        }
        // Subscriptions of one session that overlap are one delivery (MQTT 5 §3.3.4).
        if matches.own.len() > 1 {
            matches.own.sort_by_key(|subscriber| subscriber.session.id);
        }
        let overlapping = |one: &Subscriber, other: &Subscriber| Arc::ptr_eq(&one.session, &other.session);
        for (count, subscribers) in matches.own.chunk_by(overlapping).enumerate() {
            self.push(message, subscribers, published);
            if (count + 1) % DELIVERIES_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        for shared in &matches.shared {
            self.push_to_one(message, &shared.members, published);
        }
    }

    /// Pushes into the first of these sessions that takes it: those with a connection come before others.
    fn push_to_one(&self, message: &Arc<Message>, members: &[Subscriber], published: &mut Published) {
        let has_link = |member: &&Subscriber| member.session.state().link.is_some();
        let (linked, away): (Vec<_>, Vec<_>) = members.iter().partition(has_link);
        let mut was_full = false;
        for member in linked.into_iter().chain(away) {
            match offer(message, core::slice::from_ref(member), self.surroundings()) {
                Pushed::Queued(ticket) => {
                    published.ticket = published.ticket.max(ticket);
                    return;
                }
                Pushed::Full => was_full = true,
                Pushed::Dropped => {}
            }
        }
        published.was_refused |= was_full;
    }

    fn push(&self, message: &Arc<Message>, subscribers: &[Subscriber], published: &mut Published) {
        match offer(message, subscribers, self.surroundings()) {
            Pushed::Queued(Some(ticket)) => published.ticket = published.ticket.max(Some(ticket)),
            Pushed::Full => published.was_refused = true,
            Pushed::Queued(None) | Pushed::Dropped => {}
        }
    }

    /// Pushes the next retained messages of a subscription. Returns whether there may be more.
    pub(crate) fn replay(&self, attached: &Attached, replay: &mut Replay) -> bool {
        let Some(filter) = &replay.filter else { return false };
        // No more than fits: a page that pushed itself out of the queue would never be seen.
        let Quotas { queued, queued_qos0, queued_bytes, .. } = self.settings.quotas;
        let most = PageSize {
            messages: PAGE_MESSAGES.min(queued.min(queued_qos0) / 2).max(1),
            bytes: queued_bytes / 2,
        };
        let page: Page = {
            let retained = attached.space.retained.read().unwrap_or_else(PoisonError::into_inner);
            retained.page(filter, replay.after.as_deref(), most, self.clock.now())
        };
        let ids: Vec<u32> = replay.id.into_iter().collect();
        for message in page.messages.iter().filter(|message| self.may_give(&attached.space, message)) {
            let qos = self.settings.delivered_qos.of(message.qos, replay.qos);
            let delivery = Delivery { message, qos, retain: true, subscription_ids: &ids };
            attached.session.push(&delivery, self.surroundings());
        }
        replay.after = page.next;
        replay.after.is_some()
    }
}
