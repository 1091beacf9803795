//! Bringing back what the file holds, and the task that looks after time.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use muster_policy::identity::AccountId;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};
use tracing::warn;

use super::budget::filter_bytes;
use super::flight::STAGE_RELEASED;
use super::hub::{Hub, budget_of};
use super::message::Message;
use super::session::{Session, SessionKey, State, Subscription};
use super::timers::{Due, Event};
use crate::clock::Millis;
use crate::gate::Owner;
use crate::store::Loaded;
use crate::topic::Subscribed;
use crate::wire::subscribe::Options;

/// A session as the file holds it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SessionRecord {
    account: [u8; 16],
    owner: Owner,
    client_id: Box<str>,
    expiry_s: u32,
    /// None while it is connected.
    expires_at: Option<Millis>,
    /// Filter, options and identifier.
    subscriptions: Vec<(String, u8, Option<u32>)>,
    /// Packet ids go on from here. Files of before it was kept have none.
    #[serde(default)]
    last_packet_id: u16,
}

impl SessionRecord {
    pub(super) fn of(account: AccountId, key: &SessionKey, state: &State) -> Self {
        Self {
            account: *account.as_bytes(),
            owner: key.owner.clone(),
            client_id: key.client_id.clone(),
            expiry_s: state.expiry_s,
            expires_at: state.expires.map(|timer| timer.0),
            subscriptions: state
                .subscriptions
                .iter()
                .map(|(filter, subscription)| {
                    (filter.to_string(), subscription.options.octet(), subscription.id)
                })
                .collect(),
            last_packet_id: state.last_packet_id,
        }
    }
}

impl Hub {
    /// Brings back what the file holds. What can't be read is left out and logged.
    pub(crate) fn restore(&self, loaded: Loaded) {
        let now = self.clock.now();
        let mut sessions = HashMap::new();
        for (id, octets) in loaded.sessions {
            self.ids.fetch_max(id.saturating_add(1), Ordering::Relaxed);
            match rmp_serde::from_slice::<SessionRecord>(&octets) {
                Ok(record) if record.expires_at.is_none_or(|at| at > now) => {
                    sessions.insert(id, self.restore_session(id, record));
                }
                Ok(_) => drop(self.store.remove_session(id)),
                Err(error) => warn!(%error, id, "a session in the broker's file can't be read"),
            }
        }
        let mut flights: HashMap<_, _> = loaded.flights.into_iter().collect();
        for ((id, place), octets) in loaded.messages {
            let flight = flights.remove(&(id, place));
            if let Some(session) = sessions.get(&id)
                && !session.restore_message(place, &octets, flight.map(|(packet_id, _)| packet_id))
            {
                warn!(id, place, "a message in the broker's file can't be read");
            }
        }
        for ((id, place), (packet_id, stage)) in flights {
            if let Some(session) = sessions.get(&id)
                && stage == STAGE_RELEASED
            {
                session.restore_released(place, packet_id);
            }
        }
        for (id, packet_id) in loaded.received {
            if let Some(session) = sessions.get(&id) {
                session.restore_received(packet_id);
            }
        }
        for (account, octets) in loaded.retained {
            self.restore_retained(AccountId::from_bytes(account), &octets, now);
        }
    }

    fn restore_session(&self, id: u64, record: SessionRecord) -> Arc<Session> {
        let space = self.space(AccountId::from_bytes(record.account));
        let key = SessionKey { owner: record.owner, client_id: record.client_id };
        let budget = budget_of(&space.sessions(), &key.owner);
        let session = Arc::new(Session::new(key.clone(), id, budget));
        // A session that was connected when the process ended lost its connection now.
        let ends_at = record.expires_at.unwrap_or_else(|| self.clock.now().plus_seconds(record.expiry_s));
        {
            let mut state = session.state();
            state.expiry_s = record.expiry_s;
            state.last_packet_id = record.last_packet_id;
            let due =
                Due { space: Arc::clone(&space), session: Arc::clone(&session), event: Event::SessionEnds };
            state.expires = Some(self.timers.add(ends_at, due));
            for (filter, octet, subscription_id) in record.subscriptions {
                let (Ok(filter), Ok(options)) = (Subscribed::parse(&filter), Options::from_octet(octet))
                else {
                    warn!(id, filter, "a subscription in the broker's file can't be read");
                    continue;
                };
                let charge = session.budget.filters.restore(filter_bytes(&filter));
                state.subscriptions.insert(filter, Subscription { options, id: subscription_id, charge });
                self.metrics.subscriptions.up();
            }
        }
        {
            let mut index = space.index.write().unwrap_or_else(PoisonError::into_inner);
            for (filter, subscriber) in session.subscribers() {
                index.insert(&filter, subscriber);
            }
        }
        if let Some(earlier) = space.sessions().insert(key, Arc::clone(&session)) {
            // Only a crash between the end of one session and the begin of the next leaves two.
            warn!(id = earlier.id, "a session in the broker's file is there twice");
            self.store.remove_session(earlier.id);
            let mut index = space.index.write().unwrap_or_else(PoisonError::into_inner);
            for filter in earlier.end().0 {
                index.remove(&filter, &earlier);
                self.metrics.subscriptions.down();
            }
        } else {
            self.metrics.sessions.up();
        }
        session
    }

    fn restore_retained(&self, account: AccountId, octets: &[u8], now: Millis) {
        let Ok(message) = rmp_serde::from_slice::<Message>(octets) else {
            warn!("a retained message in the broker's file can't be read");
            return;
        };
        if message.is_expired(now) {
            self.store.remove_retained(account.as_bytes(), &message.topic);
            return;
        }
        let space = self.space(account);
        let mut retained = space.retained.write().unwrap_or_else(PoisonError::into_inner);
        retained.restore(Arc::new(message));
        self.metrics.retained.up();
    }
}

/// How often expired retained messages are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Ends what is due, until the hub is gone.
pub(crate) async fn keep_time(hub: Weak<Hub>) {
    let mut swept_at = Instant::now();
    loop {
        let Some(hub) = hub.upgrade() else { return };
        let next = hub.handle_due().await;
        if swept_at.elapsed() >= SWEEP_EVERY {
            hub.sweep_retained();
            hub.sweep_revoked().await;
            swept_at = Instant::now();
        }
        let sweep_at = swept_at + SWEEP_EVERY;
        let wake_at = next.map_or(sweep_at, |at| hub.clock.instant(at).min(sweep_at));
        tokio::select! {
            () = tokio::time::sleep_until(wake_at) => {}
            () = hub.timers.changed.notified() => {}
        }
    }
}
