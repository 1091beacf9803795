//! Every figure of the process as JSON, summed up, for those who run no Prometheus.
//!
//! Read from the text that `/metrics` answers, so that both always say the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use muster_policy::time::UnixTime;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::request::Account;

#[derive(Serialize, ToSchema)]
pub(crate) struct SummaryView {
    at: UnixTime,
    /// Counters count from here.
    started_at: UnixTime,
    metrics: BTreeMap<String, MetricView>,
}

/// A metric under its name in OpenMetrics; of a histogram, how many values there were and their sum.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct MetricView {
    total: f64,
    /// One for each set of labels; empty for a metric without labels.
    by: Vec<SampleView>,
}

#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct SampleView {
    labels: BTreeMap<String, String>,
    value: f64,
}

/// `GET …/metrics/summary`
pub(crate) async fn summary(State(api): State<Arc<Api>>, _: Account) -> Outcome {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, api.registry()).map_err(ApiError::internal)?;
    Answer::one(&SummaryView { at: api.now(), started_at: api.started_at(), metrics: read(&text) })
}

/// Reads what our own encoder wrote; buckets of histograms are left out.
fn read(text: &str) -> BTreeMap<String, MetricView> {
    let mut metrics: BTreeMap<String, MetricView> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        if name.ends_with("_bucket") || !value.is_finite() {
            continue;
        }
        let metric = metrics.entry(name.to_owned()).or_default();
        metric.total += value;
        let labels = read_labels(labels.trim_end_matches('}'));
        if !labels.is_empty() {
            metric.by.push(SampleView { labels, value });
        }
    }
    metrics
}

/// Labels are words of closed sets, so none holds a quote or a comma.
fn read_labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_summed_and_kept_by_label() {
        let text = "# HELP a_total x\na_total{m=\"GET\",s=\"200\"} 2\na_total{m=\"PUT\",s=\"200\"} 1\nb 7\n\
                    h_bucket{le=\"+Inf\"} 4\nh_sum 1.5\nh_count 4\nc NaN\n# EOF\n";
        let metrics = read(text);
        let names: Vec<&str> = metrics.keys().map(String::as_str).collect();
        assert_eq!(names, ["a_total", "b", "h_count", "h_sum"]);
        assert!((metrics["a_total"].total - 3.0).abs() < f64::EPSILON);
        assert_eq!(metrics["a_total"].by[0].labels["m"], "GET");
        assert!(metrics["b"].by.is_empty());
    }
}
