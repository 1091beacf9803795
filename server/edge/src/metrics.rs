//! Counters of the edge, in the Prometheus data model, and the summary for a dashboard.
//!
//! Labels are closed sets (protocols, reasons, the three digits of a status), so that no peer can grow
//! the number of time series without end.

use std::time::Duration;

use muster_policy::host::Protocol;
use muster_policy::reason::Reason;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a connection never got to its first request, the client's certificate aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ConnectionRefusal {
    AcceptFailed,
    ConnectionLimit,
    HandshakeBroken,
    HandshakeLimit,
    HandshakeTimeout,
    HelloMalformed,
    HelloTimeout,
    NameMissing,
    NameUnknown,
    ProtocolNotOffered,
    SourceLimit,
    SourceRate,
}

impl EncodeLabelValue for ConnectionRefusal {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::AcceptFailed => "accept_failed",
            Self::ConnectionLimit => "connection_limit",
            Self::HandshakeBroken => "handshake_broken",
            Self::HandshakeLimit => "handshake_limit",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HelloMalformed => "hello_malformed",
            Self::HelloTimeout => "hello_timeout",
            Self::NameMissing => "name_missing",
            Self::NameUnknown => "name_unknown",
            Self::ProtocolNotOffered => "protocol_not_offered",
            Self::SourceLimit => "source_limit",
            Self::SourceRate => "source_rate",
        }
        .encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    reason: ConnectionRefusal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ReasonLabel(Reason);

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.code().encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: ReasonLabel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ProtocolLabel(Protocol);

impl EncodeLabelValue for ProtocolLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.0 {
            Protocol::Https => "https",
            Protocol::Mqtt => "mqtt",
        }
        .encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolLabels {
    protocol: ProtocolLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: u16,
}

/// The counters of the edge.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    connections_refused: Family<ConnectionLabels, Counter>,
    handshakes: Family<ProtocolLabels, Counter>,
    handshakes_refused: Family<ReasonLabels, Counter>,
    requests: Family<StatusLabels, Counter>,
    refusals: Family<ReasonLabels, Counter>,
    cut: Family<ReasonLabels, Counter>,
    change: Gauge,
    /// The sums of the families above, for the summary.
    sums: Sums,
}

#[derive(Debug, Default)]
struct Sums {
    connections_refused: Counter,
    handshakes: Counter,
    handshakes_refused: Counter,
    requests: Counter,
    requests_refused: Counter,
    cut: Counter,
}

impl Metrics {
    /// Makes the counters and registers them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "edge_connections_refused",
            "Connections closed before a client certificate was looked at, by reason",
            metrics.connections_refused.clone(),
        );
        registry.register(
            "edge_handshakes",
            "TLS handshakes completed, by protocol",
            metrics.handshakes.clone(),
        );
        registry.register(
            "edge_handshakes_refused",
            "TLS handshakes refused for the client's certificate, by reason",
            metrics.handshakes_refused.clone(),
        );
        registry.register("edge_requests", "HTTP requests answered, by status", metrics.requests.clone());
        registry.register(
            "edge_refusals",
            "Requests and MQTT connections refused by the edge, by reason",
            metrics.refusals.clone(),
        );
        registry.register(
            "edge_connections_cut",
            "Connections ended by the edge, by reason",
            metrics.cut.clone(),
        );
        registry.register(
            "edge_change",
            "The last change of the control plane that is in force",
            metrics.change.clone(),
        );
        metrics
    }

    pub(crate) fn connection_refused(&self, reason: ConnectionRefusal) {
        self.connections_refused.get_or_create(&ConnectionLabels { reason }).inc();
        self.sums.connections_refused.inc();
    }

    pub(crate) fn handshake_done(&self, protocol: Protocol) {
        self.handshakes.get_or_create(&ProtocolLabels { protocol: ProtocolLabel(protocol) }).inc();
        self.sums.handshakes.inc();
    }

    pub(crate) fn handshake_refused(&self, reason: Reason) {
        self.handshakes_refused.get_or_create(&labels(reason)).inc();
        self.sums.handshakes_refused.inc();
    }

    pub(crate) fn answered(&self, status: http::StatusCode) {
        self.requests.get_or_create(&StatusLabels { status: status.as_u16() }).inc();
        self.sums.requests.inc();
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.refusals.get_or_create(&labels(reason)).inc();
        self.sums.requests_refused.inc();
    }

    pub(crate) fn cut(&self, reason: Reason) {
        self.cut.get_or_create(&labels(reason)).inc();
        self.sums.cut.inc();
    }

    pub(crate) fn stands_at(&self, change: u64) {
        self.change.set(i64::try_from(change).unwrap_or(i64::MAX));
    }

    /// The sums, without what only the index of live connections knows.
    pub(crate) fn summary(&self) -> Counters {
        let refused = |reason: &Reason| {
            let of = |family: &Family<ReasonLabels, Counter>| {
                family.get(&labels(*reason)).map_or(0, |counter| counter.get())
            };
            let count = of(&self.handshakes_refused) + of(&self.refusals);
            (count > 0).then_some((*reason, count))
        };
        Counters {
            connections_refused: self.sums.connections_refused.get(),
            handshakes: self.sums.handshakes.get(),
            handshakes_refused: self.sums.handshakes_refused.get(),
            requests: self.sums.requests.get(),
            requests_refused: self.sums.requests_refused.get(),
            cut: self.sums.cut.get(),
            refused_by_reason: Reason::ALL.iter().filter_map(refused).collect(),
            ..Counters::default()
        }
    }
}

const fn labels(reason: Reason) -> ReasonLabels {
    ReasonLabels { reason: ReasonLabel(reason) }
}

/// What a dashboard shows of an edge; totals count from its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The last change in force.
    pub change: u64,
    /// How many hostname rules are served.
    pub hosts: usize,
    /// How many certificates are known to be revoked.
    pub revoked: usize,
    /// How long ago the control plane last vouched for what is in force; none before it did.
    pub news_age: Option<Duration>,
    /// HTTPS connections open.
    pub connections_https: usize,
    /// MQTT connections open.
    pub connections_mqtt: usize,
    /// Distinct client certificates with an open connection.
    pub certificates_connected: usize,
    /// Connections refused before a client certificate was looked at.
    pub connections_refused: u64,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Handshakes refused for the client's certificate.
    pub handshakes_refused: u64,
    /// HTTP requests answered, refusals among them.
    pub requests: u64,
    /// Requests and MQTT connections refused after the handshake.
    pub requests_refused: u64,
    /// Connections ended because of a change, or the end of a certificate.
    pub cut: u64,
    /// Refusals in handshakes and after, by reason.
    pub refused_by_reason: Vec<(Reason, u64)>,
}
