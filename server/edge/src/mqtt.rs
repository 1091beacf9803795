//! Rules and Access, of an MQTT connection.
//!
//! The broker reads the packets and asks here. CONNECT is judged as a request is, and again when rules change;
//! a packet after it by the rules that hold when it comes, if any of them asks for packets.

use std::fmt;
use std::sync::Arc;

use muster_policy::gate::Passed;
use muster_policy::host::Protocol;
use muster_policy::mqtt::{Asked, Judge};
use muster_policy::reason::Reason;

use crate::http::requests::{self, UnderWay};
use crate::listener::Shared;
use crate::live::Guest;

/// An MQTT connection before the rules.
pub(crate) struct Visit {
    shared: Arc<Shared>,
    guest: Arc<Guest>,
    /// Under way for as long as the broker may ask.
    under_way: UnderWay,
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Visit({})", self.guest.name)
    }
}

impl Visit {
    /// Enters what was asked among what is under way.
    pub(crate) fn enter(shared: Arc<Shared>, guest: Arc<Guest>, asked: Arc<requests::Asked>) -> Self {
        let under_way = guest.requests.enter(asked);
        Self { shared, guest, under_way }
    }

    fn verdict(&self, packet: &Asked<'_>) -> Result<Passed, Reason> {
        let asked = &self.under_way.asked;
        let doors = self.shared.state.doors();
        if let Asked::Connect(connect) = packet {
            // Kept before it is judged: a change from now on judges it again. A second one ends the connection
            // at the broker.
            let _ = asked.connect.set(Box::new((*connect).clone()));
        } else if !doors.ask_packets() {
            return Ok(Passed { noted: 0 });
        }
        let door = doors.resolve(&asked.host).filter(|door| door.rule.host == self.guest.host);
        let door = door.ok_or(Reason::HostMisdirected)?;
        let permit = self.shared.state.access(door, self.guest.holder.as_deref(), Protocol::Mqtt)?;
        match packet {
            Asked::Connect(_) => asked.judge(door, &permit),
            packet => asked.judge_packet(door, &permit, packet).passed(),
        }
    }
}

impl Judge for Visit {
    fn judge(&self, packet: &Asked<'_>) -> Result<(), Reason> {
        let verdict = self.verdict(packet);
        let device = self.guest.holder.as_ref().map(|holder| holder.device.as_str());
        let (host, kind) = (&*self.under_way.asked.host, packet.packet());
        match verdict {
            Ok(Passed { noted: 0 }) => Ok(()),
            Ok(Passed { noted }) => {
                let topic = packet.message().topic;
                tracing::info!(host, device, packet = kind, topic, rules = noted, "MQTT that rules note");
                Ok(())
            }
            Err(reason) => {
                self.shared.metrics.refused(reason);
                tracing::debug!(host, device, packet = kind, %reason, "MQTT refused");
                Err(reason)
            }
        }
    }
}
