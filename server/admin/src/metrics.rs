//! Figures of the API and of the ledger, in the Prometheus data model.
//!
//! Labels are closed sets: methods, status codes, states. No client can grow the number of series.

use std::fmt;
use std::sync::Arc;

use http::{Method, StatusCode};
use muster_enroll::Registrar;
use muster_policy::identity::CaId;
use muster_policy::time::UnixTime;
use muster_store::Fault;
use muster_store::record::ForeignList;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    status: u16,
}

/// Requests of the API, counted.
pub(crate) struct Requests(Family<RequestLabels, Counter>);

impl Requests {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let requests = Family::default();
        registry.register(
            "admin_requests",
            "Requests answered by the admin listener, by method and status",
            requests.clone(),
        );
        Self(requests)
    }

    pub(crate) fn answered(&self, method: &Method, status: StatusCode) {
        let method = match *method {
            Method::DELETE => "DELETE",
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::PATCH => "PATCH",
            Method::POST => "POST",
            Method::PUT => "PUT",
            _ => "other",
        };
        self.0.get_or_create(&RequestLabels { method, status: status.as_u16() }).inc();
    }
}

/// Reads the ledger's figures when somebody looks.
pub(crate) struct LedgerFigures(Arc<Registrar>);

impl LedgerFigures {
    pub(crate) const fn new(registrar: Arc<Registrar>) -> Self {
        Self(registrar)
    }
}

impl LedgerFigures {
    /// How old the own lists of CAs are; an account has some dozens of CAs at most.
    fn encode_lists(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = self.0.clock().now();
        let Ok(lists) = self.lists() else { return Ok(()) };
        let since = |at: UnixTime| now.as_secs().saturating_sub(at.as_secs());
        let [mut ages, mut lefts] = [Vec::new(), Vec::new()];
        for (ca, list) in &lists {
            ages.push((ca, since(list.this_update)));
            lefts.push((ca, since(list.next_update).saturating_neg()));
        }
        for (name, help, values) in [
            ("foreign_crl_age_seconds", "Since thisUpdate of a CA's own CRL", ages),
            ("foreign_crl_left_seconds", "Until nextUpdate of a CA's own CRL; negative past it", lefts),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (ca, seconds) in values {
                ConstGauge::new(seconds).encode(family.encode_family(&[("ca", ca.to_string())])?)?;
            }
        }
        Ok(())
    }

    fn lists(&self) -> Result<Vec<(CaId, ForeignList)>, Fault> {
        let reader = self.0.ledger().reader()?;
        let mut lists = Vec::new();
        for ca in reader.cas(self.0.account())? {
            lists.extend(reader.foreign_ca(ca.id)?.list.map(|list| (ca.id, list)));
        }
        Ok(lists)
    }
}

impl fmt::Debug for LedgerFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LedgerFigures")
    }
}

impl Collector for LedgerFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let ledger = self.0.ledger();
        let stats = ledger.stats();
        for (name, help, value) in [
            ("ledger_commits", "Commits that reached the disk", stats.commits),
            ("ledger_transactions", "Transactions answered", stats.jobs),
            ("ledger_failures", "Batches that could not be written", stats.failures),
            ("ledger_faults", "Transactions undone because they broke a rule of the code", stats.faults),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let mut gauges = vec![
            ("ledger_largest_batch", "Most transactions in one commit", stats.largest_batch),
            (
                "ledger_queue",
                "Transactions that wait",
                u64::try_from(ledger.queue_length()).unwrap_or(u64::MAX),
            ),
        ];
        if let Ok(counters) = ledger.reader().and_then(|reader| reader.counters(self.0.account())) {
            gauges.extend([
                ("certificates", "Stored certificates", counters.certificates),
                (
                    "certificates_revoked",
                    "Stored certificates that are revoked",
                    counters.certificates_revoked,
                ),
                ("devices_active", "Active devices", counters.devices_active),
                ("devices_suspended", "Suspended devices", counters.devices_suspended),
                ("devices_retired", "Retired devices", counters.devices_retired),
                ("tokens", "Stored enrollment tokens", counters.tokens),
                ("approvals_waiting", "Requests that wait for a person", counters.waiting),
            ]);
        }
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        self.encode_lists(&mut encoder)
    }
}
