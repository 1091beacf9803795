//! What a client asks for, packet by packet, and the answers.
//!
//! Answers that promise durability are held back until the disk has it, and those behind them too, so
//! that they keep the order of their packets (MQTT 5 §4.6).

use std::sync::Arc;

use tokio::time::Instant;

use super::connection::{Connection, Held, Over};
use super::message::Message;
use crate::gate;
use crate::store::Ticket;
use crate::stream::Stream;
use crate::wire::acks::{Ack, Disconnect, write_pingresp};
use crate::wire::publish::Publish;
use crate::wire::subscribe::{Subscribe, Unsubscribe, write_suback, write_unsuback};
use crate::wire::{Broken, Code, Packet, Qos, Version, kind};

impl<S: Stream> Connection<'_, S> {
    /// Handles a packet; what it is answered with goes out in order.
    pub(super) async fn handle(&mut self, packet: Packet) -> Result<(), Over> {
        match packet {
            Packet::Ack(ack) => return self.handle_ack(ack),
            Packet::Disconnect(disconnect) => return Err(self.handle_disconnect(disconnect)),
            Packet::Ping => {
                write_pingresp(self.packets.output());
                return Ok(());
            }
            Packet::Publish(publish) => self.handle_publish(publish).await?,
            Packet::Subscribe(subscribe) => self.handle_subscribe(subscribe)?,
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe)?,
        }
        // Of the others none can make the file much larger, and who only listens is heard whatever the disk does.
        self.brake = self.hub.store.congestion();
        Ok(())
    }

    fn handle_disconnect(&self, disconnect: Disconnect) -> Over {
        // MQTT 5 §3.14.2.2.2: a session that was to end can't be kept after all.
        if self.terms.expiry_s == 0 && disconnect.session_expiry_s.is_some_and(|seconds| seconds > 0) {
            return Over::Ours(Code::PROTOCOL_ERROR);
        }
        Over::Disconnected(disconnect)
    }

    fn handle_ack(&mut self, ack: Ack) -> Result<(), Over> {
        let session = &self.seat.session;
        let store = &self.hub.store;
        let (kind, code, ticket) = match ack.kind {
            kind::PUBACK => return session.acknowledge(ack.packet_id, store).map_err(Over::unanswered),
            kind::PUBREC => {
                let received = session.receive(ack.packet_id, ack.code, store);
                let (code, ticket) = received.map_err(Over::unanswered)?;
                if ack.code.is_failure() {
                    return Ok(());
                }
                (kind::PUBREL, code, ticket)
            }
            kind::PUBREL => {
                let (was_known, ticket) = session.end_receiving(ack.packet_id, store);
                // A PUBCOMP may have been lost with the connection before: that is no error (MQTT 5 §3.7.2.1).
                let is_fine = was_known || self.seat.session_present;
                (kind::PUBCOMP, if is_fine { Code::SUCCESS } else { Code::PACKET_ID_NOT_FOUND }, ticket)
            }
            _ => return session.conclude(ack.packet_id, store).map_err(Over::unanswered),
        };
        let answer = Ack { kind, packet_id: ack.packet_id, code };
        let version = self.terms.version;
        self.answer(ticket, false, |output| answer.write(output, version));
        Ok(())
    }

    async fn handle_publish(&mut self, mut publish: Publish) -> Result<(), Over> {
        self.resumes_at = self.gate.pace(Instant::now())?;
        let verdict = self.gate.check_publish(&mut publish)?;
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        self.check_receive_maximum(qos, packet_id)?;
        if let Err(code) = verdict {
            self.hub.metrics.publish_refused.up();
            if !gate::may_go_on(self.terms.version, code, &publish.topic) {
                return Err(Over::Ours(code));
            }
            self.acknowledge(qos, packet_id, code, None);
            return Ok(());
        }
        let session = Arc::clone(&self.seat.session);
        let turn = session.turn().await;
        if session.state().check_link(self.seat.link).is_err() {
            // Another connection came meanwhile, and sends the same or what is newer. This one ends next.
            return Ok(());
        }
        let is_new = qos != Qos::Two || session.begin_receiving(packet_id);
        self.check_repeats(packet_id, !is_new)?;
        if !is_new {
            let received = session.keep_received(packet_id, &self.hub.store);
            self.acknowledge(qos, packet_id, Code::SUCCESS, received);
            return Ok(());
        }
        self.hub.metrics.published.up();
        let message = Message::new(publish, &self.gate.author, self.hub.clock.now());
        let mut fan_out = self.hub.begin(&self.seat.space, message, Some(&session));
        let is_done = fan_out.advance(self.hub);
        let (hub, version) = (Arc::clone(self.hub), self.terms.version);
        let work = async move {
            let published = hub.finish(fan_out).await;
            let code = published.code(version, qos);
            let received = match qos {
                Qos::Two if code.is_failure() => session.end_receiving(packet_id, &hub.store).1,
                Qos::Two => session.keep_received(packet_id, &hub.store),
                Qos::Zero | Qos::One => None,
            };
            drop(turn);
            (code, published.ticket.max(received))
        };
        // One that has nothing to wait for is not worth a task.
        let done = if is_done { Some(work.await) } else { self.hub.see_through(work).await };
        let (code, ticket) = done.ok_or(Over::Ours(Code::UNSPECIFIED))?;
        self.acknowledge(qos, packet_id, code, ticket);
        Ok(())
    }

    /// A client sends a publication again when it has connected again (MQTT 5 §4.4). One that does so a second time
    /// on the same connection, acknowledgement or not, would do it for ever.
    fn check_repeats(&mut self, packet_id: u16, is_again: bool) -> Result<(), Broken> {
        if !is_again {
            self.repeated.take_if(|repeated| *repeated == packet_id);
            return Ok(());
        }
        if self.repeated.replace(packet_id) == Some(packet_id) {
            return Err(Broken::protocol("the same publication a third time"));
        }
        Ok(())
    }

    /// MQTT 5 §3.3.4; MQTT 3.1.1 has no such limit.
    fn check_receive_maximum(&self, qos: Qos, packet_id: u16) -> Result<(), Broken> {
        if qos == Qos::Zero || self.terms.version != Version::V5 {
            return Ok(());
        }
        let session = &self.seat.session;
        let open = session.receiving(packet_id).saturating_add(self.held_publications);
        if open >= usize::from(self.hub.settings.quotas.inflight) {
            return Err(Broken::new(Code::RECEIVE_MAXIMUM_EXCEEDED, "more than the receive maximum"));
        }
        Ok(())
    }

    fn acknowledge(&mut self, qos: Qos, packet_id: u16, code: Code, ticket: Option<Ticket>) {
        let kind = match qos {
            Qos::Zero => return,
            Qos::One => kind::PUBACK,
            Qos::Two => kind::PUBREC,
        };
        let version = self.terms.version;
        // A QoS 2 publication counts until its PUBREL, and not twice.
        self.answer(ticket, qos == Qos::One, |output| {
            Ack { kind, packet_id, code }.write(output, version);
        });
    }

    pub(super) fn handle_subscribe(&mut self, subscribe: Subscribe) -> Result<(), Over> {
        let (packet_id, subscription_id) = (subscribe.packet_id, subscribe.subscription_id);
        let checked = self.gate.check_subscribe(subscribe)?;
        let mut codes = Vec::with_capacity(checked.len());
        for wanted in checked {
            let added = wanted.and_then(|(filter, options)| {
                self.hub.subscribe(&self.seat, filter, options, subscription_id)
            });
            match added {
                Ok(replay) => {
                    codes.push(Code(replay.qos.bits()));
                    if replay.is_wanted() {
                        // It begins anew, and the same filter many times over is not many times the work. One that
                        // wants none leaves what is under way: nothing is lost by it (MQTT 5 §3.8.4).
                        self.replays.retain(|earlier| earlier.filter != replay.filter);
                        self.replays.push_back(replay);
                    }
                }
                Err(code) => {
                    self.hub.metrics.subscribe_refused.up();
                    codes.push(code);
                }
            }
        }
        let ticket = self.hub.keep_subscriptions(&self.seat);
        let version = self.terms.version;
        self.answer(ticket, false, |output| write_suback(output, version, packet_id, &codes));
        Ok(())
    }

    fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe) -> Result<(), Broken> {
        let checked = self.gate.check_unsubscribe(unsubscribe)?;
        let codes: Vec<_> = checked
            .into_iter()
            .map(|filter| match filter {
                Ok(filter) => {
                    // MQTT 5 §3.10.4: nothing more is added.
                    self.replays.retain(|replay| !replay.is_of(&filter));
                    self.hub.unsubscribe(&self.seat, &filter)
                }
                Err(code) => code,
            })
            .collect();
        let ticket = self.hub.keep_subscriptions(&self.seat);
        let (version, packet_id) = (self.terms.version, unsubscribe.packet_id);
        self.answer(ticket, false, |output| write_unsuback(output, version, packet_id, &codes));
        Ok(())
    }

    /// Writes an answer, now or when what it promises is on disk.
    pub(super) fn answer(
        &mut self,
        ticket: Option<Ticket>,
        is_publication: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let ticket = ticket.unwrap_or_default();
        if self.held.is_empty() && self.hub.store.is_durable(ticket) {
            write(self.packets.output());
            return;
        }
        let mut octets = Vec::new();
        write(&mut octets);
        self.held_publications = self.held_publications.saturating_add(usize::from(is_publication));
        self.held.push_back(Held { ticket, octets, is_publication });
    }
}
