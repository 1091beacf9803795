//! Delivery: from one publication to all sessions that subscribed, and retained messages to new ones.
//!
//! The index is locked only while subscribers are looked up. Sessions take messages without waiting,
//! and a large audience is served in slices, so that one publication keeps nobody else waiting, and that all
//! publications together are ahead of the file by its bound and no more than a slice of each thread's. What is
//! retained does not wait, for its order would be lost: that is a message more of each connection.
//!
//! A publication that has begun reaches all of its audience: what may wait is seen through, whatever becomes of the
//! connection that it came on, and the next publications of its session wait for their turn.

use std::sync::{Arc, PoisonError};

use super::hub::{Attached, Hub, Space};
use super::index::{Matches, Shared, Subscriber};
use super::message::Message;
use super::retained::{Kept, PAGE_MESSAGES, Page, PageSize};
use super::session::{Delivery, Pushed, Session, Surroundings};
use crate::config::Quotas;
use crate::store::Ticket;
use crate::topic::{Subscribed, TopicFilter};
use crate::wire::{Code, Qos, Version};

/// What became of a publication.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Published {
    pub(crate) was_matched: bool,
    /// A queue or the retained messages had no room.
    pub(crate) was_refused: bool,
    /// What must be durable before the publication is acknowledged.
    pub(crate) ticket: Option<Ticket>,
}

impl Published {
    /// What its sender is answered.
    pub(super) fn code(self, version: Version, qos: Qos) -> Code {
        match (version, self.was_refused, self.was_matched) {
            (Version::V5, true, _) => Code::QUOTA_EXCEEDED,
            // A PUBREC may say so too, but few brokers do, and some clients take it for a failure.
            (Version::V5, false, false) if qos == Qos::One => Code::NO_MATCHING_SUBSCRIBERS,
            _ => Code::SUCCESS,
        }
    }
}

/// Deliveries after which a publication lets other tasks run.
const DELIVERIES_AT_ONCE: usize = 512;
/// Octets of deliveries after which it does so, and waits for the disk if it must: each may be written.
const DELIVERED_BYTES_AT_ONCE: usize = 1024 * 1024;

/// A publication on its way to those who subscribed when it was made.
#[derive(Debug)]
pub(crate) struct FanOut {
    space: Arc<Space>,
    message: Arc<Message>,
    /// Subscriptions of one session stand together.
    own: Vec<Subscriber>,
    shared: Vec<Shared>,
    /// How many of each are served.
    own_served: usize,
    shared_served: usize,
    /// Whether a slice is done, or had to wait: subscriptions may have ended since, and a share have other members.
    is_late: bool,
    published: Published,
}

impl FanOut {
    /// Makes the deliveries of one slice, unless the disk must come after first. Returns whether all are made.
    pub(crate) fn advance(&mut self, hub: &Hub) -> bool {
        if hub.store.congestion().is_none() {
            let fitting = DELIVERED_BYTES_AT_ONCE.checked_div(self.message.bytes()).unwrap_or(usize::MAX);
            for _ in 0..fitting.clamp(1, DELIVERIES_AT_ONCE) {
                if self.is_done() {
                    break;
                }
                self.deliver_next(hub);
            }
        }
        self.is_late = true;
        self.is_done()
    }

    const fn is_done(&self) -> bool {
        self.own_served >= self.own.len() && self.shared_served >= self.shared.len()
    }

    fn deliver_next(&mut self, hub: &Hub) {
        let own = self.own.get(self.own_served..).unwrap_or_default();
        // Subscriptions of one session that overlap are one delivery (MQTT 5 §3.3.4).
        let overlapping = |one: &Subscriber, other: &Subscriber| Arc::ptr_eq(&one.session, &other.session);
        if let Some(subscribers @ [first, ..]) = own.chunk_by(overlapping).next() {
            if !self.is_late || first.session.is_subscribed(&self.message.topic) {
                hub.push(&self.message, subscribers, &mut self.published);
            }
            self.own_served = self.own_served.saturating_add(subscribers.len());
        } else if let Some(shared) = self.shared.get(self.shared_served) {
            let by_now = self.is_late.then(|| self.members(shared));
            let members = by_now.as_ref().unwrap_or(&shared.members);
            hub.push_to_one(&self.message, members, &mut self.published);
            self.shared_served = self.shared_served.saturating_add(1);
        }
    }

    /// Who is in a share by now.
    fn members(&self, shared: &Shared) -> Vec<Subscriber> {
        self.space.index.read().unwrap_or_else(PoisonError::into_inner).members(shared)
    }
}

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

    /// Whether it is of the subscription to this filter, and ends with it.
    pub(crate) fn is_of(&self, filter: &Subscribed) -> bool {
        filter.share.is_none() && self.filter.as_ref() == Some(&filter.filter)
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
    /// Retains a message if it says so, and looks up who is to have it. That waits for nothing: what is published
    /// later is later for all.
    pub(crate) fn begin(
        &self,
        space: &Arc<Space>,
        message: Message,
        origin: Option<&Arc<Session>>,
    ) -> FanOut {
        let message = Arc::new(message);
        let mut published = Published::default();
        if message.retain {
            self.retain(space, &message, &mut published);
        }
        let Matches { mut own, shared } = {
            let index = space.index.read().unwrap_or_else(PoisonError::into_inner);
            index.matches(&message.topic)
        };
        published.was_matched = !own.is_empty() || !shared.is_empty();
        if let Some(origin) = origin {
            let is_echo = |subscriber: &Subscriber| {
                subscriber.options.no_local && Arc::ptr_eq(&subscriber.session, origin)
            };
            own.retain(|subscriber| !is_echo(subscriber));
        }
        if own.len() > 1 {
            own.sort_by_key(|subscriber| subscriber.session.id);
        }
        let space = Arc::clone(space);
        FanOut { space, message, own, shared, own_served: 0, shared_served: 0, is_late: false, published }
    }

    /// Delivers it to the rest of them. Between slices it lets others run, and the disk come after.
    pub(crate) async fn finish(&self, mut fan_out: FanOut) -> Published {
        // It may have waited for a turn since it was begun.
        fan_out.is_late = true;
        while !fan_out.advance(self) {
            tokio::task::yield_now().await;
            self.store.room().await;
        }
        fan_out.published
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
            Kept::Full { had_one } => {
                self.metrics.retained_refused.up();
                published.was_refused = true;
                if had_one {
                    self.metrics.retained.down();
                    published.ticket = Some(self.store.remove_retained(account, &message.topic));
                }
                if let Some(device) = message.author.device()
                    && retained.is_told(device, self.clock.now())
                {
                    // MQTT 3.1.1 has no way to tell the device itself.
                    let topic = &*message.topic;
                    tracing::warn!(%device, topic, "a message is not retained: its device or all have too many");
                }
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

#[cfg(test)]
mod tests {
    use muster_policy::identity::AccountId;
    use muster_policy::time::UnixTime;

    use super::*;
    use crate::author::Author;
    use crate::clock::Clock;
    use crate::config::{BrokerConfig, OnCutSession, Settings};
    use crate::embedded::hub::{Arrival, Departure};
    use crate::embedded::session::SessionKey;
    use crate::gate::Owner;
    use crate::metrics::Metrics;
    use crate::rules::Rules;
    use crate::store::faulty::{Disk, Health};
    use crate::store::{PENDING_HIGH_BYTES, Store};
    use crate::wire::subscribe::Options;

    const READERS: usize = 100;
    const WRITERS: usize = 3;
    const PAYLOAD_BYTES: usize = 250_000;

    /// A session that subscribed and is away.
    async fn reader(hub: &Hub, number: usize) -> Arc<Session> {
        let arrival = Arrival {
            account: AccountId::from_bytes([1; 16]),
            key: SessionKey { owner: Owner::Anonymous, client_id: number.to_string().into() },
            starts_clean: true,
            expiry_s: 100,
            receive_maximum: 10,
            will: None,
            rules: Arc::new(Rules::default()),
        };
        let (attached, _) = hub.attach(&arrival).expect("room");
        let filter = Subscribed::parse("t").expect("a filter");
        hub.subscribe(&attached, filter, Options::from_octet(1).expect("QoS 1"), None).expect("room");
        let departure = Departure { fires_will: false, session: OnCutSession::Keep, expiry_s: None };
        hub.detach(&attached, departure).await;
        attached.session
    }

    fn message() -> Message {
        Message {
            topic: "t".into(),
            payload: vec![0; PAYLOAD_BYTES].into(),
            qos: Qos::One,
            retain: false,
            forward: Box::default(),
            expires_at: None,
            author: Author::Unknown,
        }
    }

    #[tokio::test]
    async fn no_publication_runs_ahead_of_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, metrics) = (folder.path().join("broker.redb"), Arc::new(Metrics::default()));
        let disk = Disk::default();
        let (store, _) = Store::open_with(disk.opener(&path), &metrics).expect("opens");
        let settings = Settings::check(&BrokerConfig::default()).expect("settings");
        let clock = Clock::new(UnixTime::from_secs(1_800_000_000));
        let hub = Arc::new(Hub::new(Arc::new(settings), clock, Arc::clone(&metrics), store));
        let mut readers = Vec::new();
        for number in 0..READERS {
            readers.push(reader(&hub, number).await);
        }
        disk.now(Health::Stalls);
        let space = hub.space(AccountId::from_bytes([1; 16]));
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (hub, space) = (Arc::clone(&hub), Arc::clone(&space));
                tokio::spawn(async move { hub.finish(hub.begin(&space, message(), None)).await })
            })
            .collect();
        // Until all of them wait for the disk, or are done.
        let (mut before, mut still) = (0, 0);
        while still < 20 {
            tokio::time::sleep(tokio::time::Duration::from_millis(10)).await;
            let pending = hub.store.pending_bytes();
            still = if pending == before { still + 1 } else { 0 };
            before = pending;
        }
        disk.now(Health::Works);
        assert!(before <= PENDING_HIGH_BYTES + DELIVERED_BYTES_AT_ONCE + PAYLOAD_BYTES, "{before}");
        for writer in writers {
            let published = writer.await.expect("no panic");
            hub.store.durable(published.ticket.expect("written")).await;
        }
        assert!(readers.iter().all(|session| session.waiting() == WRITERS), "all have all of them");
        hub.close().await;
    }
}
