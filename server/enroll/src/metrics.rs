//! Counters of the enrollment front, in the Prometheus data model.
//!
//! Labels are closed sets (operations, reasons, outcomes), so that no peer can grow the number of
//! time series.

use muster_policy::reason::Reason;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::front::Operation;

/// Why a connection never got to its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ConnectionRefusal {
    AcceptFailed,
    ConnectionLimit,
    HandshakeFailed,
    HandshakeLimit,
    HandshakeTimeout,
    HelloMalformed,
    Silent,
    SourceLimit,
}

impl EncodeLabelValue for ConnectionRefusal {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        // Snake case, as the codes of refusals.
        match self {
            Self::AcceptFailed => "accept_failed",
            Self::ConnectionLimit => "connection_limit",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeLimit => "handshake_limit",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HelloMalformed => "hello_malformed",
            Self::Silent => "silent",
            Self::SourceLimit => "source_limit",
        }
        .encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    reason: ConnectionRefusal,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: OperationLabel,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    operation: OperationLabel,
    reason: ReasonLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuedLabels {
    operation: OperationLabel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct OperationLabel(Operation);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ReasonLabel(Reason);

impl EncodeLabelValue for OperationLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_str().encode(encoder)
    }
}

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.code().encode(encoder)
    }
}

/// The counters of the enrollment front.
#[derive(Debug)]
pub struct Metrics {
    connections_open: Gauge,
    connections_refused: Family<ConnectionLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    issued: Family<IssuedLabels, Counter>,
    issue_seconds: Histogram,
}

/// A connection that is counted as open.
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Makes the counters and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        // 0.5 ms to 8 s: from a signature with a warm disk to a disk in trouble.
        let issue_seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 15));
        let metrics = Self {
            connections_open: Gauge::default(),
            connections_refused: Family::default(),
            requests: Family::default(),
            refusals: Family::default(),
            issued: Family::default(),
            issue_seconds,
        };
        registry.register(
            "est_connections_open",
            "TLS connections open on the EST listener",
            metrics.connections_open.clone(),
        );
        registry.register(
            "est_connections_refused",
            "Connections closed before their first request, by reason",
            metrics.connections_refused.clone(),
        );
        registry.register(
            "est_requests",
            "EST requests answered, by operation and status",
            metrics.requests.clone(),
        );
        registry.register(
            "est_refusals",
            "EST requests refused, by operation and reason",
            metrics.refusals.clone(),
        );
        registry.register(
            "est_certificates_issued",
            "Certificates issued, by operation",
            metrics.issued.clone(),
        );
        registry.register(
            "est_issue_seconds",
            "Time from a complete request to its durable answer",
            metrics.issue_seconds.clone(),
        );
        metrics
    }

    /// Counts a connection as open until what is returned is dropped.
    pub(crate) fn connection_opened(&self) -> OpenConnection {
        self.connections_open.inc();
        OpenConnection(self.connections_open.clone())
    }

    pub(crate) fn connection_refused(&self, reason: ConnectionRefusal) {
        self.connections_refused.get_or_create(&ConnectionLabels { reason }).inc();
    }

    pub(crate) fn answered(&self, operation: Operation, status: http::StatusCode) {
        let labels = RequestLabels { operation: OperationLabel(operation), status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn refused(&self, operation: Operation, reason: Reason) {
        let labels = RefusalLabels { operation: OperationLabel(operation), reason: ReasonLabel(reason) };
        self.refusals.get_or_create(&labels).inc();
    }

    pub(crate) fn issued(&self, operation: Operation, seconds: f64) {
        self.issued.get_or_create(&IssuedLabels { operation: OperationLabel(operation) }).inc();
        self.issue_seconds.observe(seconds);
    }
}
