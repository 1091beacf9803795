//! Who stands between the gate and the router for one client: all of MQTT that the router gets wrong is done here.
//!
//! Quality 1 in both directions, wills, keep alive, identifiers and options of subscriptions. Not offered, and told so
//! in CONNACK: quality 2, shared subscriptions, sessions that outlive the connection.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use muster_policy::identity::AccountId;
use rumqttd::local::LinkRx;
use rumqttd::protocol::{
    self, Packet as Told, PublishProperties, QoS, RetainForwardRule, SubscribeProperties,
};
use rumqttd::{Forward, Notification};
use tokio::io::DuplexStream;
use tokio::time::{Duration, Instant};

use super::envelope::Envelope;
use super::places::Place;
use super::routers::{Link, Named, Routers};
use crate::config::Quotas;
use crate::engine::Client;
use crate::stream::{Event, OUTPUT_HIGH_BYTES, Packets, Reading, StreamError};
use crate::topic::Subscribed;
use crate::wire::acks::{Ack, write_disconnect, write_pingresp};
use crate::wire::connect::{Connect, Granted, Will};
use crate::wire::publish::{Outgoing, Publish};
use crate::wire::subscribe::{Options, RetainHandling, Subscribe, Unsubscribe, write_suback, write_unsuback};
use crate::wire::{Broken, Code, Packet, Qos, Version, kind};

/// One client's attendant.
#[derive(Debug)]
pub(super) struct Attendant {
    packets: Packets<DuplexStream>,
    link: Link,
    place: Place,
    routers: Arc<Routers>,
    version: Version,
    /// What keeps the topics of accounts apart in the router; it begins with a letter or a digit, for the router dies of
    /// topics that begin with a character of more than one octet.
    prefix: String,
    /// The place of a subscription and one is its identifier in the router.
    subscriptions: Vec<Option<Subscription>>,
    filters_max: usize,
    /// Packet ids of quality 1 messages that the client has not acknowledged.
    in_flight: BTreeSet<u16>,
    last_id: u16,
    in_flight_max: usize,
    packet_max: usize,
    will: Option<Will>,
    heard_at: Instant,
    silence: Option<Duration>,
}

#[derive(Debug)]
struct Subscription {
    asked: Subscribed,
    options: Options,
    id: Option<u32>,
}

/// Why it is over.
enum Over {
    /// The client is gone, or the gate has ended it.
    Gone,
    /// The client left with this code.
    Left(Code),
    /// We end it.
    Ours(Code),
}

impl From<Broken> for Over {
    fn from(broken: Broken) -> Self {
        Self::Ours(broken.code)
    }
}

impl From<StreamError> for Over {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Broken(broken) => broken.into(),
            StreamError::Io(_) => Self::Gone,
        }
    }
}

impl Attendant {
    pub(super) fn new<S>(
        client: &Client<S>,
        mut packets: Packets<DuplexStream>,
        link: Link,
        place: Place,
        routers: &Arc<Routers>,
        quotas: &Quotas,
    ) -> Self {
        let connect = &client.connect;
        let keep_alive_s = keep_alive(connect, quotas);
        connack(packets.output(), connect, keep_alive_s, quotas);
        let silence = Duration::from_millis(u64::from(keep_alive_s).saturating_mul(1500));
        Self {
            packets,
            link,
            place,
            routers: Arc::clone(routers),
            version: connect.version,
            prefix: prefix(&client.account),
            subscriptions: Vec::new(),
            filters_max: quotas.filters,
            in_flight: BTreeSet::new(),
            last_id: 0,
            in_flight_max: connect.receive_maximum.min(quotas.inflight).into(),
            packet_max: usize::try_from(connect.maximum_packet_size).unwrap_or(usize::MAX),
            will: connect.will.clone(),
            heard_at: Instant::now(),
            silence: (keep_alive_s > 0).then_some(silence),
        }
    }

    pub(super) async fn run(mut self) {
        let over = loop {
            if let Err(over) = self.step().await {
                break over;
            }
        };
        let (will, goodbye) = match over {
            Over::Gone => (self.will.take(), None),
            Over::Left(code) => (self.will.take().filter(|_| code != Code::SUCCESS), None),
            Over::Ours(code) => (self.will.take(), Some(code)),
        };
        if let Some(will) = will {
            // A router that is dead carries no will.
            let _ = self.publish_will(will).await;
        }
        let Self { mut packets, link, version, .. } = self;
        link.leave().await;
        if let Some(code) = goodbye {
            write_disconnect(packets.output(), version, code);
        }
        packets.finish().await;
    }

    async fn step(&mut self) -> Result<(), Over> {
        let has_room =
            self.in_flight.len() < self.in_flight_max && self.packets.waiting_bytes() < OUTPUT_HIGH_BYTES;
        let silent_at = self.silence.map(|silence| self.heard_at + silence);
        tokio::select! {
            biased;
            Ok(()) = &mut self.place.replaced => Err(Over::Ours(Code::SESSION_TAKEN_OVER)),
            event = self.packets.event(Reading::Wanted) => match event? {
                Event::Frame(frame) => {
                    self.heard_at = Instant::now();
                    self.handle(Packet::parse(&frame, self.version)?).await
                }
                Event::Drained => Ok(()),
                Event::Closed => Err(Over::Gone),
            },
            told = next(&mut self.link.rx), if has_room => self.deliver(told.map_err(Over::Ours)?),
            () = sleep_until(silent_at) => Err(Over::Ours(Code::KEEP_ALIVE_TIMEOUT)),
        }
    }

    async fn handle(&mut self, packet: Packet) -> Result<(), Over> {
        match packet {
            Packet::Publish(publish) => self.publish(publish).await,
            Packet::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe).await,
            Packet::Ack(ack) => {
                // The others belong to quality 2.
                if ack.kind == kind::PUBACK {
                    self.in_flight.remove(&ack.packet_id);
                }
                Ok(())
            }
            Packet::Ping => {
                write_pingresp(self.packets.output());
                Ok(())
            }
            Packet::Disconnect(disconnect) => Err(Over::Left(disconnect.code)),
        }
    }

    async fn publish(&mut self, publish: Publish) -> Result<(), Over> {
        if publish.alias.is_some() {
            return Err(Over::Ours(Code::TOPIC_ALIAS_INVALID));
        }
        if publish.qos == Qos::Two {
            return Err(Over::Ours(Code::QOS_NOT_SUPPORTED));
        }
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        let envelope = Envelope {
            qos,
            retain: publish.retain,
            publisher: self.place.number,
            forward: publish.forward,
            payload: publish.payload,
        };
        let code = match self.pass_on(&publish.topic, publish.expiry_s, &envelope).await {
            Ok(()) => Code::SUCCESS,
            Err(Code::QUOTA_EXCEEDED) if self.version == Version::V5 => Code::QUOTA_EXCEEDED,
            Err(code) => return Err(Over::Ours(code)),
        };
        if qos == Qos::One {
            Ack { kind: kind::PUBACK, packet_id, code }.write(self.packets.output(), self.version);
        }
        Ok(())
    }

    async fn publish_will(&mut self, will: Will) -> Result<(), Code> {
        let Will { topic, payload, qos, retain, expiry_s, forward, .. } = will;
        let publisher = self.place.number;
        self.pass_on(&topic, expiry_s, &Envelope { qos, retain, publisher, forward, payload }).await
    }

    /// Hands a message to the router.
    async fn pass_on(&mut self, topic: &str, expiry_s: Option<u32>, envelope: &Envelope) -> Result<(), Code> {
        let topic = format!("{}{topic}", self.prefix);
        self.routers.admit(&self.link, &self.place.whose, Named::Topic, &topic)?;
        let topic = Bytes::from(topic);
        let clears = envelope.retain && envelope.payload.is_empty();
        let message = protocol::Publish::new(topic.clone(), envelope.seal(), envelope.retain && !clears);
        let properties = expiry_s.map(|seconds| PublishProperties {
            message_expiry_interval: Some(seconds),
            ..PublishProperties::default()
        });
        self.link.send(Told::Publish(message, properties)).await?;
        if clears {
            let nothing = protocol::Publish::new(topic, Bytes::new(), true);
            self.link.send(Told::Publish(nothing, None)).await?;
        }
        Ok(())
    }

    async fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), Over> {
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        for (filter, options) in subscribe.filters {
            let asked =
                Subscribed::parse(&filter).map_err(|error| error.broken(Code::TOPIC_FILTER_INVALID))?;
            let granted = options.qos.min(Qos::One);
            let subscription = Subscription { asked, options, id: subscribe.subscription_id };
            codes.push(match self.add(&filter, subscription).await {
                Ok(()) => Code(granted.bits()),
                Err(Code::SERVER_BUSY) => return Err(Over::Ours(Code::SERVER_BUSY)),
                Err(code) => code,
            });
        }
        write_suback(self.packets.output(), self.version, subscribe.packet_id, &codes);
        Ok(())
    }

    async fn add(&mut self, filter: &str, subscription: Subscription) -> Result<(), Code> {
        if subscription.asked.share.is_some() {
            return Err(Code::SHARED_NOT_SUPPORTED);
        }
        let path = format!("{}{filter}", self.prefix);
        self.routers.admit(&self.link, &self.place.whose, Named::Filter, &path)?;
        let known = self.place_of(&subscription.asked);
        if known.is_some() && subscription.options.retain_handling == RetainHandling::Always {
            // The router sends what is retained for a new subscription only.
            self.link.send(unsubscribe(path.clone())).await?;
        }
        let sends_anew = known.is_none() || subscription.options.retain_handling == RetainHandling::Always;
        let free = || self.subscriptions.iter().position(Option::is_none);
        let place = match known.or_else(free) {
            Some(place) => place,
            None if self.subscriptions.len() >= self.filters_max => return Err(Code::QUOTA_EXCEEDED),
            None => {
                self.subscriptions.push(None);
                self.subscriptions.len().saturating_sub(1)
            }
        };
        if let Some(slot) = self.subscriptions.get_mut(place) {
            *slot = Some(subscription);
        }
        if sends_anew {
            self.link.send(subscribe(path, place.saturating_add(1))).await?;
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, unsubscribed: Unsubscribe) -> Result<(), Over> {
        let mut codes = Vec::with_capacity(unsubscribed.filters.len());
        for filter in unsubscribed.filters {
            let asked =
                Subscribed::parse(&filter).map_err(|error| error.broken(Code::TOPIC_FILTER_INVALID))?;
            let place = self.place_of(&asked).and_then(|place| self.subscriptions.get_mut(place));
            codes.push(match place.and_then(Option::take) {
                Some(_) => {
                    let path = format!("{}{filter}", self.prefix);
                    self.link.send(unsubscribe(path)).await.map_err(Over::Ours)?;
                    Code::SUCCESS
                }
                None => Code::NO_SUBSCRIPTION_EXISTED,
            });
        }
        write_unsuback(self.packets.output(), self.version, unsubscribed.packet_id, &codes);
        Ok(())
    }

    fn place_of(&self, asked: &Subscribed) -> Option<usize> {
        let is_it = |subscription: &Option<Subscription>| {
            subscription.as_ref().is_some_and(|subscription| subscription.asked == *asked)
        };
        self.subscriptions.iter().position(is_it)
    }

    fn deliver(&mut self, told: Option<Notification>) -> Result<(), Over> {
        match told {
            Some(Notification::Forward(forward)) => {
                self.send(forward);
                Ok(())
            }
            Some(Notification::Disconnect(..)) => Err(Over::Ours(Code::SERVER_BUSY)),
            // Answers, which were given here.
            _ => Ok(()),
        }
    }

    /// Sends the client a message, if it is for it.
    fn send(&mut self, forward: Forward) -> Option<()> {
        let Forward { publish, properties, .. } = forward;
        let free_id = self.next_id();
        let properties = properties?;
        let place = properties.subscription_identifiers.last()?.checked_sub(1)?;
        let subscription = self.subscriptions.get(place)?.as_ref()?;
        let options = subscription.options;
        let envelope = Envelope::open(publish.payload)?;
        let topic = core::str::from_utf8(&publish.topic).ok()?.strip_prefix(&self.prefix)?;
        // What was on its way for the subscription that had the place before is not for this one.
        let is_own = options.no_local && envelope.publisher == self.place.number;
        let is_unwanted = publish.retain && options.retain_handling == RetainHandling::Never;
        if is_own || is_unwanted || !subscription.asked.filter.matches(topic) {
            return None;
        }
        let qos = envelope.qos.min(options.qos).min(Qos::One);
        let packet_id = if qos == Qos::One { free_id } else { 0 };
        let outgoing = Outgoing {
            dup: false,
            qos,
            retain: publish.retain || (options.retain_as_published && envelope.retain),
            topic,
            packet_id,
            alias: None,
            expiry_s: properties.message_expiry_interval,
            subscription_ids: subscription.id.as_slice(),
            forward: &envelope.forward,
            payload: &envelope.payload,
        };
        if outgoing.size_bound() > self.packet_max {
            return None;
        }
        outgoing.write(self.packets.output(), self.version);
        if qos == Qos::One {
            self.last_id = packet_id;
            self.in_flight.insert(packet_id);
        }
        Some(())
    }

    /// A packet id that is not in flight; there is one, for fewer are in flight than there are.
    fn next_id(&self) -> u16 {
        let mut id = self.last_id;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains(&id) {
                return id;
            }
        }
    }
}

/// The next notification. Cancel-safe: nothing is awaited once one was taken.
async fn next(rx: &mut LinkRx) -> Result<Option<Notification>, Code> {
    let told = rx.next().await.map_err(|_| Code::SERVER_BUSY)?;
    if matches!(told, Some(Notification::Unschedule)) {
        // It waits until all of what it gave was taken.
        rx.ready().map_err(|_| Code::SERVER_BUSY)?;
    }
    Ok(told)
}

fn subscribe(path: String, id: usize) -> Told {
    let filter = protocol::Filter {
        path,
        qos: QoS::AtMostOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::OnEverySubscribe,
    };
    let properties = SubscribeProperties { id: Some(id), user_properties: Vec::new() };
    Told::Subscribe(protocol::Subscribe { pkid: 1, filters: vec![filter] }, Some(properties))
}

fn unsubscribe(path: String) -> Told {
    Told::Unsubscribe(protocol::Unsubscribe { pkid: 1, filters: vec![path] }, None)
}

fn prefix(account: &AccountId) -> String {
    format!("{account}/")
}

/// The keep alive in force: MQTT 5 lets the server say less (§3.2.2.3.14).
fn keep_alive(connect: &Connect, quotas: &Quotas) -> u16 {
    let (most, asked) = (quotas.keep_alive_s, connect.keep_alive_s);
    let is_too_long = most > 0 && (asked == 0 || asked > most);
    if is_too_long && connect.version == Version::V5 { most } else { asked }
}

/// CONNACK, with what is not offered. The gate adds its own bounds.
fn connack(out: &mut Vec<u8>, connect: &Connect, keep_alive_s: u16, quotas: &Quotas) {
    let granted = Granted {
        session_expiry_s: (connect.session_expiry_s > 0).then_some(0),
        receive_maximum: quotas.inflight,
        maximum_packet_size: quotas.packet_bytes,
        server_keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
        max_qos: Some(quotas.max_qos.min(1)),
        has_no_retained: quotas.retained == 0,
        has_no_shared: true,
        ..Granted::default()
    };
    granted.write(out, connect.version);
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => core::future::pending().await,
    }
}
