//! From the edge to the broker: a stream that was let in becomes a connection of the broker.

use muster_broker::{Broker, Code, Cut, CutReason, Peer};
use muster_edge::{Arrival, MqttHandover, MqttStream, Work};
use muster_policy::reason::{Fault, Reason};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Hands streams to the broker.
pub(super) struct Gate {
    broker: Broker,
}

impl Gate {
    pub(super) const fn new(broker: Broker) -> Self {
        Self { broker }
    }
}

impl MqttHandover for Gate {
    fn welcome(&self, stream: MqttStream, arrival: Arrival) -> Work {
        let broker = self.broker.clone();
        let (cutter, cut) = Cut::new();
        let peer = Peer {
            account: arrival.account,
            holder: arrival.holder,
            host: arrival.host.name().clone(),
            source: arrival.source,
            cut,
            judge: arrival.judge,
        };
        let ordered = arrival.cut;
        Box::pin(async move {
            let serving = broker.serve(stream, peer);
            tokio::pin!(serving);
            tokio::select! {
                _ = &mut serving => return,
                reason = ordered.wait() => cutter.cut(cut_reason(reason)),
            }
            // The broker says goodbye; the edge closes the stream if that takes too long.
            serving.await;
        })
    }

    fn refuse(&self, stream: MqttStream, _: Arrival, reason: Reason) -> Work {
        let broker = self.broker.clone();
        let code = refusal_code(reason);
        Box::pin(async move {
            broker.refuse(stream, code).await;
        })
    }
}

/// Whether a client had better come again is in the code: a reason that passes by itself is not its fault.
const fn refusal_code(reason: Reason) -> Code {
    match reason.fault() {
        Fault::Unavailable => Code::SERVER_UNAVAILABLE,
        _ => Code::NOT_AUTHORIZED,
    }
}

const fn cut_reason(reason: Reason) -> CutReason {
    match reason {
        Reason::CertificateExpired => CutReason::CertificateEnded,
        _ => CutReason::Denied,
    }
}

/// Shows the broker's figures among the metrics.
pub(super) fn register(broker: &Broker, registry: &mut Registry) {
    registry.register_collector(Box::new(Figures(broker.clone())));
}

#[derive(Debug)]
struct Figures(Broker);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), core::fmt::Error> {
        let now = self.0.metrics();
        for (name, help, value) in [
            ("mqtt_connections", "MQTT connections that are served now", now.connections),
            ("mqtt_sessions", "MQTT sessions, connected or not", now.sessions),
            ("mqtt_subscriptions", "Subscriptions of all sessions", now.subscriptions),
            ("mqtt_retained", "Retained messages", now.retained),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, value) in [
            ("mqtt_published", "PUBLISH packets from clients", now.published),
            ("mqtt_publish_refused", "PUBLISH packets that the rules refused", now.publish_refused),
            ("mqtt_subscribe_refused", "Filters that the rules refused", now.subscribe_refused),
            ("mqtt_delivered", "PUBLISH packets to clients", now.delivered),
            ("mqtt_deliver_refused", "Messages that rules kept from clients", now.deliver_refused),
            ("mqtt_dropped_slow", "QoS 0 messages that a slow client did not get", now.dropped_qos0),
            ("mqtt_dropped_full", "Messages that found a queue full", now.dropped_full),
            ("mqtt_dropped_expired", "Messages that ended before they were taken", now.dropped_expired),
            ("mqtt_dropped_too_large", "Messages larger than their client takes", now.dropped_too_large),
            ("mqtt_retained_refused", "Retained messages beyond the most there may be", now.retained_refused),
            (
                "mqtt_retained_withheld",
                "Retained messages of senders without their right",
                now.retained_withheld,
            ),
            ("mqtt_taken_over", "Sessions taken over by a new connection", now.taken_over),
            ("mqtt_wills", "Wills that were published", now.wills),
            ("mqtt_store_commits", "Commits of the broker's file that reached the disk", now.store_commits),
            ("mqtt_store_failures", "Commits of the broker's file that failed", now.store_failures),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}
