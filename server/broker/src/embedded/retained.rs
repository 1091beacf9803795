//! Retained messages of an account, in the order of their topics.
//!
//! A subscription reads them in pages: it names the topic it last had, and gets the next few that
//! match. So one `#` over many retained messages takes neither a long lock nor a long queue.
//!
//! What a device retains is counted for it, so that one can't take the room of all others. What is there may always be
//! replaced by no more: quotas may have been larger once. And what is refused takes away what its topic had, which
//! nobody may take for the last word any more (as MQTT 3.1.1 §3.3.1.3 has it for a message that is not kept).

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use muster_policy::name::DeviceId;

use super::message::Message;
use crate::clock::Millis;
use crate::config::Quotas;
use crate::topic::TopicFilter;

/// The retained messages.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    messages: BTreeMap<Box<str>, Arc<Message>>,
    bytes: usize,
    /// What each device has of it; one that has nothing is not there.
    of_devices: HashMap<DeviceId, Usage>,
}

/// What a device has retained.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    messages: usize,
    bytes: usize,
    /// When the log last said that it has too many.
    told_at: Option<Millis>,
}

impl Usage {
    const fn with(self, bytes: usize) -> Self {
        Self { messages: self.messages.saturating_add(1), bytes: self.bytes.saturating_add(bytes), ..self }
    }

    const fn without(self, bytes: usize) -> Self {
        Self { messages: self.messages.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes), ..self }
    }
}

/// What became of a retained message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// There are too many, of its device or of all; `true` when its topic had one before, which is gone.
    Full { had_one: bool },
    /// It is there now; `true` when its topic had none before.
    Stored { is_new: bool },
}

/// How often the log says of a device that it has too many.
const TOLD_EVERY_S: u32 = 600;
/// How many messages are looked at for one page.
const PAGE_LOOKS: usize = 4096;
/// How many messages a page has at most.
pub(crate) const PAGE_MESSAGES: usize = 32;

/// How much a page may have. A message that is larger than all of it is a page of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageSize {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// The next retained messages of a subscription.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) messages: Vec<Arc<Message>>,
    /// The last topic looked at; nothing is left when absent.
    pub(crate) next: Option<Box<str>>,
}

impl Retained {
    /// Stores a message in place of that with its topic.
    pub(crate) fn put(&mut self, message: Arc<Message>, quotas: &Quotas) -> Kept {
        let before = self.messages.get(&message.topic);
        let is_new = before.is_none();
        let bytes_before = before.map_or(0, |old| old.bytes());
        let bytes = self.bytes.saturating_sub(bytes_before).saturating_add(message.bytes());
        if (is_new && self.messages.len() >= quotas.retained)
            || (bytes > quotas.retained_bytes && message.bytes() > bytes_before)
            || !self.has_room_of_its_own(&message, before, quotas)
        {
            return Kept::Full { had_one: self.remove(&message.topic) };
        }
        self.restore(message);
        Kept::Stored { is_new }
    }

    /// Takes up a message that was stored before, whatever the quotas are by now. One that is left out would stay in
    /// the file, where nothing that becomes of its topic reaches it, and come back with a larger quota.
    pub(crate) fn restore(&mut self, message: Arc<Message>) {
        self.remove(&message.topic);
        if let Some(device) = message.author.device() {
            let usage = self.of_devices.entry(device.clone()).or_default();
            *usage = usage.with(message.bytes());
        }
        self.bytes = self.bytes.saturating_add(message.bytes());
        self.messages.insert(message.topic.clone(), message);
    }

    /// Takes a topic's message away. Returns whether there was one.
    pub(crate) fn remove(&mut self, topic: &str) -> bool {
        let Some(removed) = self.messages.remove(topic) else { return false };
        self.bytes = self.bytes.saturating_sub(removed.bytes());
        if let Some(device) = removed.author.device()
            && let Some(usage) = self.of_devices.get_mut(device)
        {
            *usage = usage.without(removed.bytes());
            if usage.messages == 0 {
                self.of_devices.remove(device);
            }
        }
        true
    }

    /// Takes a topic's message away if it has expired: another may have come since it was seen to.
    pub(crate) fn remove_expired(&mut self, topic: &str, now: Millis) -> bool {
        self.messages.get(topic).is_some_and(|message| message.is_expired(now)) && self.remove(topic)
    }

    /// Takes a message away if it is the one that its topic has.
    pub(crate) fn remove_this(&mut self, message: &Arc<Message>) -> bool {
        let is_there = self.messages.get(&message.topic).is_some_and(|there| Arc::ptr_eq(there, message));
        is_there && self.remove(&message.topic)
    }

    /// The next messages after the topic, at most so many.
    pub(crate) fn next(&self, after: Option<&str>, most: usize) -> Vec<Arc<Message>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let following = self.messages.range::<str, _>((start, Bound::Unbounded));
        following.take(most).map(|(_, message)| Arc::clone(message)).collect()
    }

    /// The next messages that match, at most so many, after the given topic.
    pub(crate) fn page(
        &self,
        filter: &TopicFilter,
        after: Option<&str>,
        most: PageSize,
        now: Millis,
    ) -> Page {
        // `a/#` also matches `a`, which sorts before `a/`.
        let prefix = filter.literal_prefix();
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let start = match after {
            Some(topic) => Bound::Excluded(topic),
            None => Bound::Included(prefix),
        };
        let mut page = Page { messages: Vec::new(), next: None };
        let (mut bytes, mut seen) = (0_usize, after.map(Box::from));
        for (looks, (topic, message)) in self.messages.range::<str, _>((start, Bound::Unbounded)).enumerate()
        {
            if !topic.starts_with(prefix) {
                return Page { next: None, ..page };
            }
            if filter.matches(topic) && !message.is_expired(now) {
                bytes = bytes.saturating_add(message.bytes());
                if bytes > most.bytes && !page.messages.is_empty() {
                    page.next = seen;
                    return page;
                }
                page.messages.push(Arc::clone(message));
            }
            if page.messages.len() >= most.messages || looks >= PAGE_LOOKS {
                page.next = Some(topic.clone());
                return page;
            }
            seen = Some(topic.clone());
        }
        page
    }

    /// Whether the device that sent a message may have it among its own, in place of what its topic had before.
    fn has_room_of_its_own(&self, message: &Message, before: Option<&Arc<Message>>, quotas: &Quotas) -> bool {
        let Some(device) = message.author.device() else { return true };
        let usage = self.of_devices.get(device).copied().unwrap_or_default();
        let Quotas { retained_per_device: most, retained_bytes_per_device: most_bytes, .. } = *quotas;
        match before.filter(|before| before.author.device() == Some(device)) {
            Some(own) => {
                message.bytes() <= own.bytes()
                    || usage.without(own.bytes()).with(message.bytes()).bytes <= most_bytes
            }
            None => {
                let usage = usage.with(message.bytes());
                usage.messages <= most && usage.bytes <= most_bytes
            }
        }
    }

    /// Whether the log is to say that a device has too many: it does so now and then, while the device has any.
    pub(crate) fn is_told(&mut self, device: &DeviceId, now: Millis) -> bool {
        let Some(usage) = self.of_devices.get_mut(device) else { return false };
        let is_due = usage.told_at.is_none_or(|at| at.plus_seconds(TOLD_EVERY_S) <= now);
        if is_due {
            usage.told_at = Some(now);
        }
        is_due
    }

    /// Topics whose messages have expired.
    pub(crate) fn expired(&self, now: Millis) -> Vec<Box<str>> {
        let expired = self.messages.values().filter(|message| message.is_expired(now));
        expired.map(|message| message.topic.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use muster_policy::identity::{CaId, Fingerprint, Serial};
    use muster_policy::mqtt::Sender;

    use super::*;
    use crate::author::Author;
    use crate::wire::Qos;

    fn message(topic: &str, bytes: usize) -> Arc<Message> {
        by(Author::Unknown, topic, bytes)
    }

    fn by(author: Author, topic: &str, bytes: usize) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: vec![0; bytes].into(),
            qos: Qos::Zero,
            retain: true,
            forward: Box::default(),
            expires_at: None,
            author,
        })
    }

    fn all(retained: &Retained, filter: &str) -> Vec<String> {
        let filter = TopicFilter::parse(filter).expect("a filter");
        let (mut topics, mut after) = (Vec::new(), None);
        loop {
            let most = PageSize { messages: PAGE_MESSAGES, bytes: 100 };
            let page = retained.page(&filter, after.as_deref(), most, Millis::default());
            let bytes: usize = page.messages.iter().map(|message| message.bytes()).sum();
            assert!(bytes <= 100 || page.messages.len() == 1, "{bytes}");
            topics.extend(page.messages.iter().map(|message| message.topic.to_string()));
            match page.next {
                Some(topic) => after = Some(topic),
                None => return topics,
            }
        }
    }

    #[test]
    fn pages_hold_every_match_once() {
        let mut retained = Retained::default();
        for number in 0..200 {
            retained.put(message(&format!("a/{number}"), 1), &Quotas::default());
        }
        for other in ["a", "ab", "a0", "b", "$x"] {
            retained.put(message(other, 1), &Quotas::default());
        }
        assert_eq!(all(&retained, "a/#").len(), 201);
        assert_eq!(all(&retained, "a/+").len(), 200);
        assert_eq!(all(&retained, "#").len(), 204);
        assert_eq!(all(&retained, "a/7"), ["a/7"]);
        assert_eq!(all(&retained, "+"), ["a", "a0", "ab", "b"]);
        retained.put(message("b/large", 1000), &Quotas::default());
        retained.put(message("b/small", 1), &Quotas::default());
        assert_eq!(all(&retained, "b/#"), ["b", "b/large", "b/small"]);
    }

    #[test]
    fn only_what_has_expired_is_swept() {
        let mut retained = Retained::default();
        let expiring = Message { expires_at: Some(Millis::default()), ..message("a", 1).as_ref().clone() };
        retained.put(Arc::new(expiring), &Quotas::default());
        assert_eq!(retained.expired(Millis::default()), ["a".into()]);
        // Between the look and the removal another message takes its place.
        retained.put(message("a", 2), &Quotas::default());
        assert!(!retained.remove_expired("a", Millis::default()));
        assert_eq!(all(&retained, "a"), ["a"]);
    }

    #[test]
    fn number_and_octets_are_bounded() {
        let quotas = Quotas { retained: 2, retained_bytes: 100, ..Quotas::default() };
        let mut retained = Retained::default();
        assert_eq!(retained.put(message("a", 10), &quotas), Kept::Stored { is_new: true });
        assert_eq!(retained.put(message("b", 10), &quotas), Kept::Stored { is_new: true });
        assert_eq!(retained.put(message("c", 10), &quotas), Kept::Full { had_one: false });
        assert_eq!(retained.put(message("a", 80), &quotas), Kept::Stored { is_new: false });
        assert_eq!(retained.put(message("b", 80), &quotas), Kept::Full { had_one: true });
        assert_eq!(all(&retained, "#"), ["a"]);
        // Under quotas that are smaller by now, what is there is replaced by as much.
        let less = Quotas { retained: 1, retained_bytes: 50, ..quotas };
        assert_eq!(retained.put(message("a", 80), &less), Kept::Stored { is_new: false });
        assert!(retained.remove("a") && !retained.remove("a"));
        assert_eq!(retained.put(message("b", 80), &quotas), Kept::Stored { is_new: true });
    }

    #[test]
    fn a_device_that_has_too_many_is_told_of_now_and_then() {
        let device: DeviceId = "meter".parse().expect("an id");
        let sender = Sender {
            device: device.clone(),
            ca: CaId::from_bytes([1; 16]),
            serial: Serial::from_bytes(&[1]).expect("a serial"),
            fingerprint: Fingerprint::from_bytes([1; 32]),
            above: Vec::new(),
        };
        let author = Author::Holder(Box::new(sender));
        let mut retained = Retained::default();
        let now = Millis::default();
        assert!(!retained.is_told(&device, now), "it has none");
        retained.put(by(author.clone(), "a", 1), &Quotas::default());
        assert!(retained.is_told(&device, now) && !retained.is_told(&device, now));
        retained.put(by(author, "b", 1), &Quotas::default());
        assert!(!retained.is_told(&device, now.plus_seconds(TOLD_EVERY_S - 1)));
        assert!(retained.is_told(&device, now.plus_seconds(TOLD_EVERY_S)));
    }
}
