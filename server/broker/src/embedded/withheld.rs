//! Retained messages and wills whose senders have lost their right.

use std::sync::{Arc, PoisonError};

use super::hub::{Hub, Space};
use super::message::{Message, Testament};
use crate::author::{Author, Verdict};
use crate::config::{OnCutWill, RetainedOf};

/// How many messages are looked at before others run.
const LOOKS_AT_ONCE: usize = 512;

impl Hub {
    /// Whether a retained message may be given to a new subscription.
    pub(super) fn may_give(&self, space: &Space, message: &Message) -> bool {
        let may = self.judge(space, message) == Verdict::Given;
        if !may {
            self.metrics.retained_withheld.up();
        }
        may
    }

    /// Takes away what was sent with certificates that are revoked by now. The edge forgets them once they have
    /// ended; the messages must be gone by then.
    pub(super) async fn sweep_revoked(&self) {
        for space in self.spaces() {
            let mut after = None;
            loop {
                let messages = {
                    let retained = space.retained.read().unwrap_or_else(PoisonError::into_inner);
                    retained.next(after.as_deref(), LOOKS_AT_ONCE)
                };
                let Some(last) = messages.last() else { break };
                after = Some(last.topic.clone());
                for message in messages.iter().filter(|message| self.judge(&space, message) == Verdict::Void)
                {
                    self.void(&space, message);
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether a will may be published. Its client was let in with it, which may be a long time ago.
    pub(super) fn may_fire(&self, space: &Space, testament: &Testament) -> bool {
        let judge = || self.judge_author(space, &testament.author, &testament.will.topic);
        self.settings.on_cut.will == OnCutWill::Publish || judge() == Verdict::Given
    }

    fn judge(&self, space: &Space, message: &Message) -> Verdict {
        match self.settings.retained_of {
            RetainedOf::Anyone => Verdict::Given,
            RetainedOf::Permitted => self.judge_author(space, &message.author, &message.topic),
        }
    }

    fn judge_author(&self, space: &Space, author: &Author, topic: &str) -> Verdict {
        author.judge(topic, space.account, &self.settings, self.senders.get().map(AsRef::as_ref))
    }

    /// Takes a message away, unless another has its place by now.
    fn void(&self, space: &Space, message: &Arc<Message>) {
        let mut retained = space.retained.write().unwrap_or_else(PoisonError::into_inner);
        if retained.remove_this(message) {
            self.metrics.retained.down();
            self.store.remove_retained(space.account.as_bytes(), &message.topic);
            tracing::info!(topic = &*message.topic, "a retained message is gone: its certificate is revoked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use muster_policy::identity::{AccountId, CaId, Fingerprint, Serial};
    use muster_policy::mqtt::{Sender, Senders};
    use muster_policy::reason::Reason;
    use muster_policy::time::UnixTime;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{BrokerConfig, Settings};
    use crate::metrics::Metrics;
    use crate::store::Store;
    use crate::wire::Qos;

    /// Certificates with an odd serial are revoked, and all devices suspended.
    #[derive(Debug)]
    struct Odd;

    impl Senders for Odd {
        fn groups(&self, _: AccountId, sender: &Sender) -> Result<Arc<BTreeSet<String>>, Reason> {
            let is_odd = sender.serial.as_bytes().last().is_some_and(|octet| octet % 2 == 1);
            Err(if is_odd { Reason::CertificateRevoked } else { Reason::DeviceSuspended })
        }
    }

    fn of(number: usize) -> Message {
        let sender = Sender {
            device: format!("meter-{}", number / LOOKS_AT_ONCE).parse().expect("an id"),
            ca: CaId::from_bytes([1; 16]),
            serial: Serial::from_bytes(&u32::try_from(number + 1).expect("small").to_be_bytes())
                .expect("a serial"),
            fingerprint: Fingerprint::from_bytes([1; 32]),
            above: Vec::new(),
        };
        Message {
            topic: format!("a/{number}").into(),
            payload: Box::default(),
            qos: Qos::Zero,
            retain: true,
            forward: Box::default(),
            expires_at: None,
            author: Author::Holder(Box::new(sender)),
        }
    }

    #[tokio::test]
    async fn what_revoked_certificates_left_is_taken_away_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, metrics) = (folder.path().join("broker.redb"), Arc::new(Metrics::default()));
        let (store, _) = Store::open(&path, &metrics).expect("opens");
        let settings = Settings::check(&BrokerConfig::default()).expect("settings");
        let clock = Clock::new(UnixTime::from_secs(1_800_000_000));
        let hub = Arc::new(Hub::new(Arc::new(settings), clock, Arc::clone(&metrics), store));
        let space = hub.space(AccountId::from_bytes([1; 16]));
        let count = 3 * LOOKS_AT_ONCE;
        for number in 0..count {
            let mut message = of(number);
            message.payload = Box::new([1]);
            hub.finish(hub.begin(&space, message, None)).await;
        }
        hub.sweep_revoked().await;
        assert_eq!(metrics.retained.value(), u64::try_from(count).expect("small"), "nobody is known yet");
        hub.senders.set(Arc::new(Odd)).expect("the first");
        hub.sweep_revoked().await;
        assert_eq!(metrics.retained.value(), u64::try_from(count / 2).expect("small"));
        hub.close().await;
        drop(hub);
        let (_store, loaded) = Store::open(&path, &metrics).expect("opens again");
        assert_eq!(loaded.retained.len(), count / 2);
    }
}
