//! Messages under way between a session and its client, either way, until the last acknowledgement.
//!
//! MQTT 5 §4.3: what each acknowledgement may answer, and what becomes of the message.
//!
//! A packet id of quality 2 that one side has let go and the other still holds makes the next message with it a
//! duplicate, which is dropped. So what answers PUBLISH, PUBREC and PUBREL waits until the file says the same,
//! and one that comes again waits too: the answer that was lost may not have been on its way yet.

use super::session::{Queued, Session, State};
use crate::store::{Store, Ticket};
use crate::wire::{Broken, Code, Qos};

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) place: u64,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Sent; PUBACK or PUBREC is awaited.
    Sent(Queued),
    /// PUBREC came; PUBCOMP is awaited. The ticket is what must be durable before the PUBREL.
    Released(Option<Ticket>),
}

const STAGE_SENT: u8 = 0;
pub(super) const STAGE_RELEASED: u8 = 1;

impl Session {
    /// A message is done with: acknowledged, refused, or one that can't be sent at all.
    pub(crate) fn complete(&self, packet_id: u16, store: &Store) {
        let mut state = self.state();
        if let Some(flight) = state.in_flight.remove(&packet_id) {
            state.vacate();
            self.forget(&state, flight.place, store);
            if state.expiry_s > 0 && store.keeps() {
                store.remove_flight(self.id, flight.place);
            }
            state.ring();
        }
    }

    /// PUBACK came. An id that is not in flight is passed over: it may be of an earlier connection.
    ///
    /// # Errors
    /// When the message in flight is not one that PUBACK answers.
    pub(crate) fn acknowledge(&self, packet_id: u16, store: &Store) -> Result<(), Broken> {
        self.check_flight(packet_id, |stage| matches!(stage, Stage::Sent(queued) if queued.qos == Qos::One))?;
        self.complete(packet_id, store);
        Ok(())
    }

    /// PUBREC came. Returns the code for the PUBREL, and what must be durable before that.
    ///
    /// # Errors
    /// When the message in flight is not one that PUBREC answers.
    pub(crate) fn receive(
        &self,
        packet_id: u16,
        code: Code,
        store: &Store,
    ) -> Result<(Code, Option<Ticket>), Broken> {
        self.check_flight(
            packet_id,
            |stage| !matches!(stage, Stage::Sent(queued) if queued.qos == Qos::One),
        )?;
        if code.is_failure() {
            self.complete(packet_id, store);
            return Ok((code, None));
        }
        let mut state = self.state();
        let is_persistent = state.expiry_s > 0 && store.keeps();
        let Some(flight) = state.in_flight.get_mut(&packet_id) else {
            return Ok((Code::PACKET_ID_NOT_FOUND, None));
        };
        let ticket = is_persistent.then(|| {
            store.put_flight(self.id, flight.place, packet_id, STAGE_RELEASED);
            store.remove_message(self.id, flight.place)
        });
        flight.stage = Stage::Released(ticket);
        Ok((Code::SUCCESS, ticket))
    }

    /// PUBCOMP came.
    ///
    /// # Errors
    /// When the message in flight was not released.
    pub(crate) fn conclude(&self, packet_id: u16, store: &Store) -> Result<(), Broken> {
        self.check_flight(packet_id, |stage| matches!(stage, Stage::Released(_)))?;
        self.complete(packet_id, store);
        Ok(())
    }

    fn check_flight(&self, packet_id: u16, fits: impl FnOnce(&Stage) -> bool) -> Result<(), Broken> {
        match self.state().in_flight.get(&packet_id) {
            Some(flight) if !fits(&flight.stage) => {
                Err(Broken::protocol("an acknowledgement that its message does not have"))
            }
            _ => Ok(()),
        }
    }

    /// A QoS 2 publication came from the client. Returns whether it is a new one.
    pub(crate) fn begin_receiving(&self, packet_id: u16) -> bool {
        self.state().received.insert(packet_id)
    }

    /// All that a QoS 2 publication is for have it, or had it when it came before. Returns what must be durable before
    /// its PUBREC: in the file the packet id comes after the last delivery, or a publication that a crash breaks off
    /// would be taken for one that was made.
    pub(crate) fn keep_received(&self, packet_id: u16, store: &Store) -> Option<Ticket> {
        let state = self.state();
        // Its client may have let it go without a PUBREC.
        let is_kept = state.expiry_s > 0 && state.received.contains(&packet_id);
        is_kept.then(|| store.put_received(self.id, packet_id))
    }

    /// PUBREL came, or the publication was refused. Returns whether it was known, and what must be durable before
    /// the answer.
    pub(crate) fn end_receiving(&self, packet_id: u16, store: &Store) -> (bool, Option<Ticket>) {
        let mut state = self.state();
        let was_known = state.received.remove(&packet_id);
        (was_known, (state.expiry_s > 0).then(|| store.remove_received(self.id, packet_id)))
    }

    /// How many QoS 2 publications of the client are not released, but for this one.
    pub(crate) fn receiving(&self, packet_id: u16) -> usize {
        let state = self.state();
        state.received.len().saturating_sub(usize::from(state.received.contains(&packet_id)))
    }

    /// Gives a message a packet id that no other has.
    pub(super) fn fly(&self, state: &mut State, queued: &Queued, store: &Store) -> u16 {
        // The window is at most 65535 and was checked, so that an id is free.
        let packet_id = loop {
            state.pass_packet_id();
            if !state.in_flight.contains_key(&state.last_packet_id) {
                break state.last_packet_id;
            }
        };
        if state.expiry_s > 0 && store.keeps() {
            store.put_flight(self.id, queued.place, packet_id, STAGE_SENT);
        }
        let flight = InFlight { place: queued.place, stage: Stage::Sent(queued.clone()) };
        state.in_flight.insert(packet_id, flight);
        state.occupy();
        packet_id
    }
}

impl State {
    /// Goes on to the next packet id. A message that expired in the queue uses one up, so that the ids tell a client
    /// that there was something, and which of two messages came first.
    pub(super) fn pass_packet_id(&mut self) {
        self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
    }
}
