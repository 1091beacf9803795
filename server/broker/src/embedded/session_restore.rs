//! Putting back into a session what the file held.

use std::sync::Arc;

use super::flight::{InFlight, Stage};
use super::message::Message;
use super::session::{Queued, QueuedRecord, Session, charged_bytes};

impl Session {
    /// Puts back a message as the file held it.
    pub(crate) fn restore_message(&self, place: u64, octets: &[u8], flight: Option<u16>) -> bool {
        let Ok(record) = rmp_serde::from_slice::<QueuedRecord<Message>>(octets) else { return false };
        let charge = self.budget.queued.restore(charged_bytes(&record.message, &record.ids));
        let queued = Queued {
            message: Arc::new(record.message),
            qos: record.qos,
            retain: record.retain,
            subscription_ids: record.ids.into(),
            place,
            _charge: Arc::new(charge),
        };
        let mut state = self.state();
        state.next_place = state.next_place.max(place.saturating_add(1));
        match flight {
            Some(packet_id) => {
                state.in_flight.insert(packet_id, InFlight { place, stage: Stage::Sent(queued) });
            }
            None => {
                state.waiting_bytes = state.waiting_bytes.saturating_add(queued.message.bytes());
                state.waiting.push_back(queued);
            }
        }
        true
    }

    /// Puts back what the file knew of a message that only awaits its PUBCOMP.
    pub(crate) fn restore_released(&self, place: u64, packet_id: u16) {
        let mut state = self.state();
        state.next_place = state.next_place.max(place.saturating_add(1));
        state.in_flight.insert(packet_id, InFlight { place, stage: Stage::Released(None) });
    }

    pub(crate) fn restore_received(&self, packet_id: u16) {
        self.state().received.insert(packet_id);
    }
}
