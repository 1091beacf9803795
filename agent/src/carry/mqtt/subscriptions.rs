//! The topic filters that a client holds at the broker, as far as the broker granted them.
//!
//! A SUBSCRIBE counts when its SUBACK came, filter by filter. A filter that is subscribed again replaces
//! the earlier one (MQTT 5.0 §3.8.4).

use std::collections::BTreeMap;

use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::{
    Property, RetainHandling, SubEntry, SubOpts, SubscriptionIdentifier, v3_1_1, v5_0,
};

use super::packet::{Kind, Packet, PacketFault, Version};

/// Filters with their options.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    granted: BTreeMap<String, Granted>,
    /// Asked for, by packet identifier.
    pending: BTreeMap<u16, Pending>,
}

#[derive(Clone, Debug)]
struct Granted {
    options: SubOpts,
    /// 5.0: the subscription identifier, which the broker adds to messages.
    number: Option<u32>,
}

#[derive(Debug)]
enum Pending {
    Subscribe(Vec<(String, Granted)>),
    Unsubscribe(Vec<String>),
}

/// Filters that one SUBSCRIBE can name: those with the same subscription identifier.
pub(super) struct Group {
    number: Option<u32>,
    entries: Vec<SubEntry>,
}

impl Subscriptions {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Note a SUBSCRIBE or UNSUBSCRIBE of the client.
    pub(super) fn ask(&mut self, packet: &Packet, version: Version) -> Result<(), PacketFault> {
        let pending = match (packet.kind(), version) {
            (Kind::Subscribe, Version::V311) => {
                let parsed = packet.parse(v3_1_1::Subscribe::parse)?;
                Pending::Subscribe(entries(parsed.entries(), None))
            }
            (Kind::Subscribe, Version::V5) => {
                let parsed = packet.parse(v5_0::Subscribe::parse)?;
                let number = parsed.props().iter().find_map(|property| match property {
                    Property::SubscriptionIdentifier(number) => Some(number.val()),
                    _ => None,
                });
                Pending::Subscribe(entries(parsed.entries(), number))
            }
            (_, Version::V311) => {
                let parsed = packet.parse(v3_1_1::Unsubscribe::parse)?;
                Pending::Unsubscribe(
                    parsed.entries().iter().map(|filter| filter.as_str().to_owned()).collect(),
                )
            }
            (_, Version::V5) => {
                let parsed = packet.parse(v5_0::Unsubscribe::parse)?;
                Pending::Unsubscribe(
                    parsed.entries().iter().map(|filter| filter.as_str().to_owned()).collect(),
                )
            }
        };
        self.pending.insert(packet.id()?, pending);
        Ok(())
    }

    /// Note a SUBACK; whether it grants everything that was asked for.
    pub(super) fn answer(&mut self, id: u16, packet: &Packet, version: Version) -> Result<bool, PacketFault> {
        let granted: Vec<bool> = match version {
            Version::V311 => {
                let parsed = packet.parse(v3_1_1::Suback::parse)?;
                parsed.return_codes().iter().map(|code| code.is_success()).collect()
            }
            Version::V5 => {
                let parsed = packet.parse(v5_0::Suback::parse)?;
                parsed.reason_codes().iter().map(|code| code.is_success()).collect()
            }
        };
        if let Some(Pending::Subscribe(asked)) = self.pending.remove(&id) {
            for ((filter, wanted), granted) in asked.into_iter().zip(&granted) {
                if *granted {
                    self.granted.insert(filter, wanted);
                }
            }
        }
        Ok(granted.iter().all(|granted| *granted))
    }

    /// Note an UNSUBACK.
    pub(super) fn unsubscribed(&mut self, id: u16) {
        if let Some(Pending::Unsubscribe(filters)) = self.pending.remove(&id) {
            for filter in filters {
                self.granted.remove(&filter);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.granted.clear();
        self.pending.clear();
    }

    /// Filters granted or asked for.
    pub(super) fn len(&self) -> usize {
        let pending = self.pending.values().map(|pending| match pending {
            Pending::Subscribe(filters) => filters.len(),
            Pending::Unsubscribe(filters) => filters.len(),
        });
        pending.fold(self.granted.len(), usize::saturating_add)
    }

    /// What is granted, as it is subscribed again.
    pub(super) fn groups(&self) -> Vec<Group> {
        let mut groups: BTreeMap<Option<u32>, Vec<SubEntry>> = BTreeMap::new();
        for (filter, granted) in &self.granted {
            // The client has the retained messages already (5.0 §3.8.3.1); 3.1.1 can't say so.
            let options = granted.options.set_rh(RetainHandling::DoNotSendRetained);
            if let Ok(entry) = SubEntry::new(filter.as_str(), options) {
                groups.entry(granted.number).or_default().push(entry);
            }
        }
        groups.into_iter().map(|(number, entries)| Group { number, entries }).collect()
    }
}

impl Group {
    /// The SUBSCRIBE packet; `None` when it can't be built.
    pub(super) fn subscribe(&self, id: u16, version: Version) -> Option<Bytes> {
        let bytes = match version {
            Version::V311 => {
                let entries = self.entries.iter().filter_map(|entry| {
                    SubEntry::new(entry.topic_filter(), SubOpts::new().set_qos(entry.sub_opts().qos())).ok()
                });
                let packet = v3_1_1::Subscribe::builder().packet_id(id).entries(entries.collect::<Vec<_>>());
                packet.build().ok()?.to_continuous_buffer()
            }
            Version::V5 => {
                let mut packet = v5_0::Subscribe::builder().packet_id(id).entries(self.entries.clone());
                if let Some(number) = self.number {
                    let number = SubscriptionIdentifier::new(number).ok()?;
                    packet = packet.props(vec![Property::SubscriptionIdentifier(number)]);
                }
                packet.build().ok()?.to_continuous_buffer()
            }
        };
        Some(Bytes::from(bytes))
    }
}

fn entries(entries: &[SubEntry], number: Option<u32>) -> Vec<(String, Granted)> {
    let one =
        |entry: &SubEntry| (entry.topic_filter().to_owned(), Granted { options: *entry.sub_opts(), number });
    entries.iter().map(one).collect()
}
