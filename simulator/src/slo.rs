//! Goals for a run: `p99<50ms`, `enroll.p99.9<=2s`, `errors<0.1%`, `rate>500`, `server_bounds<2.5`.
//!
//! A goal that can't be evaluated (no such series, nothing measured) is missed, never passed.

use std::cmp::Ordering;
use std::str::FromStr;

use crate::results::{Check, Results};
use crate::span;

/// One goal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slo {
    text: String,
    series: Option<String>,
    metric: Metric,
    comparison: Comparison,
    /// In the unit of the metric: ms, a share, a number.
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    /// Failures in number.
    Errors,
    /// Failures as a share of all.
    ErrorShare,
    Max,
    Mean,
    Percentile(f64),
    Rate,
    Count,
    Cost(Cost),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cost {
    /// CPU of the client per verification, in ms.
    Client,
    /// To a bare client.
    ClientRatio,
    /// KiB per idle connection.
    IdleKib,
    /// CPU of the server per verification, in ms.
    Server,
    /// The same in crypto bounds.
    ServerBounds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at =
            text.find(['<', '>']).ok_or_else(|| format!("`{text}`: write e.g. p99<50ms or errors<0.1%"))?;
        let (name, rest) = text.split_at(at);
        let (comparison, value) = match rest.as_bytes() {
            [b'<', b'=', ..] => (Comparison::LessOrEqual, rest.get(2..)),
            [b'<', ..] => (Comparison::Less, rest.get(1..)),
            [_, b'=', ..] => (Comparison::MoreOrEqual, rest.get(2..)),
            _ => (Comparison::More, rest.get(1..)),
        };
        let value = value.unwrap_or_default().trim();
        let (series, name) = split_series(name.trim());
        let metric = metric(name, value)?;
        let bound =
            bound(metric, value).ok_or_else(|| format!("`{text}`: `{value}` is no value for {name}"))?;
        Ok(Self { text: text.to_owned(), series, metric, comparison, bound })
    }
}

/// `enroll.p99.9` is the metric p99.9 of the series enroll.
fn split_series(name: &str) -> (Option<String>, &str) {
    match name.split_once('.') {
        Some((series, metric)) if !series.is_empty() && !is_percentile(series) => {
            (Some(series.to_owned()), metric)
        }
        _ => (None, name),
    }
}

fn is_percentile(name: &str) -> bool {
    name.strip_prefix('p')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn metric(name: &str, value: &str) -> Result<Metric, String> {
    Ok(match name {
        "errors" if value.ends_with('%') => Metric::ErrorShare,
        "errors" => Metric::Errors,
        "max" => Metric::Max,
        "mean" => Metric::Mean,
        "rate" => Metric::Rate,
        "count" => Metric::Count,
        "client_cpu" => Metric::Cost(Cost::Client),
        "client_ratio" => Metric::Cost(Cost::ClientRatio),
        "idle_kib" => Metric::Cost(Cost::IdleKib),
        "server_cpu" => Metric::Cost(Cost::Server),
        "server_bounds" => Metric::Cost(Cost::ServerBounds),
        _ => {
            let percentile = name.strip_prefix('p').and_then(|number| number.parse::<f64>().ok());
            match percentile.filter(|percentile| (0.0..=100.0).contains(percentile)) {
                Some(percentile) => Metric::Percentile(percentile),
                None => return Err(format!("`{name}` is not measured; known: {KNOWN}")),
            }
        }
    })
}

fn bound(metric: Metric, value: &str) -> Option<f64> {
    let millis = || {
        // A bare number would be seconds elsewhere and milliseconds in people's heads.
        let has_unit = value.ends_with(|c: char| c.is_ascii_alphabetic());
        has_unit.then(|| span::parse(value).ok()).flatten().map(|span| span.as_secs_f64() * 1e3)
    };
    match metric {
        Metric::Max | Metric::Mean | Metric::Percentile(_) => millis(),
        Metric::Cost(Cost::Client | Cost::Server) => millis(),
        Metric::ErrorShare => {
            value.strip_suffix('%')?.trim().parse().ok().map(|percent: f64| percent / 100.0)
        }
        Metric::Rate => value.strip_suffix("/s").unwrap_or(value).trim().parse().ok(),
        Metric::Errors | Metric::Count | Metric::Cost(_) => value.parse().ok(),
    }
    .filter(|bound: &f64| bound.is_finite())
}

impl Slo {
    /// Holds the goal against a run.
    pub(crate) fn check(&self, results: &Results) -> Check {
        let found = self.measure(results);
        let held = found.is_some_and(|found| self.comparison.holds(found, self.bound));
        let detail = match found {
            None => "not measured in this run".to_owned(),
            Some(found) => self.show(found),
        };
        Check { name: self.text.clone(), held, detail }
    }

    fn measure(&self, results: &Results) -> Option<f64> {
        let costs = &results.costs;
        let series = results.series.get(self.series.as_ref().unwrap_or(&results.main_series));
        let measured = series.filter(|series| series.hdr.count() > 0);
        let tried = |series: &crate::results::Series| series.hdr.count() + series.failed();
        match self.metric {
            Metric::Errors => series.map(|series| series.failed() as f64),
            Metric::ErrorShare => {
                series.filter(|s| tried(s) > 0).map(|series| series.failed() as f64 / tried(series) as f64)
            }
            Metric::Max => measured.map(|series| series.hdr.max_ms()),
            Metric::Mean => measured.map(|series| series.hdr.mean_ms()),
            Metric::Percentile(percentile) => measured.map(|series| series.hdr.percentile_ms(percentile)),
            Metric::Rate => {
                series.filter(|_| results.took_s > 0.0).map(|s| s.hdr.count() as f64 / results.took_s)
            }
            Metric::Count => series.map(|series| series.hdr.count() as f64),
            Metric::Cost(Cost::Client) => costs.client_ms(),
            Metric::Cost(Cost::ClientRatio) => costs.client_ratio(),
            Metric::Cost(Cost::IdleKib) => costs.idle_kib(),
            Metric::Cost(Cost::Server) => costs.server_ms(),
            Metric::Cost(Cost::ServerBounds) => costs.server_bounds(),
        }
    }

    fn show(&self, found: f64) -> String {
        match self.metric {
            Metric::Max
            | Metric::Mean
            | Metric::Percentile(_)
            | Metric::Cost(Cost::Client | Cost::Server) => {
                match found {
                    // Of what takes longer nobody counts milliseconds.
                    1e4.. => span::show(std::time::Duration::from_secs_f64(found / 1e3)),
                    _ => format!("{found:.3} ms"),
                }
            }
            Metric::ErrorShare => format!("{:.3} %", found * 100.0),
            Metric::Errors | Metric::Count => format!("{found:.0}"),
            Metric::Rate | Metric::Cost(_) => format!("{found:.2}"),
        }
    }
}

impl Comparison {
    fn holds(self, found: f64, bound: f64) -> bool {
        let Some(order) = found.partial_cmp(&bound) else { return false };
        match self {
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::More => order == Ordering::Greater,
            Self::MoreOrEqual => order != Ordering::Less,
        }
    }
}

const KNOWN: &str =
    "p50 p99 p99.9 ... mean max errors rate count client_cpu client_ratio server_cpu server_bounds idle_kib";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn results() -> Results {
        let mut results = Results::new("edge", "", "t", "handshake");
        results.took_s = 10.0;
        let series = results.series.entry("handshake".into()).or_default();
        for millis in 1..=1000 {
            series.hdr.record(Duration::from_millis(millis));
        }
        series.errors.insert("reset".into(), 10);
        results
    }

    fn held(text: &str) -> bool {
        text.parse::<Slo>().expect("a goal").check(&results()).held
    }

    #[test]
    fn goals_are_held_against_what_was_measured() {
        for good in [
            "p99<1s",
            "p99 <= 991ms",
            "handshake.p99.9<1.1s",
            "p50>499ms",
            "errors<=10",
            "errors<1%",
            "rate>=100/s",
            "rate<101",
            "max<1.1s",
            "count>=1000",
            "mean<501ms",
        ] {
            assert!(held(good), "{good}");
        }
        for missed in ["p99<900ms", "errors<10", "errors<0.5%", "rate>101", "handshake.max<1s"] {
            assert!(!held(missed), "{missed}");
        }
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        for unknown in ["enroll.p99<1s", "server_cpu<1ms", "idle_kib<16", "client_ratio<=1.3"] {
            assert!(!held(unknown), "{unknown}");
        }
    }

    #[test]
    fn goals_without_sense_are_refused() {
        for wrong in [
            "",
            "p99",
            "p99<",
            "p99<50",
            "p101<1s",
            "latency<1s",
            "errors<x%",
            "rate>fast",
            "p99=5ms",
            "<5ms",
        ] {
            assert!(wrong.parse::<Slo>().is_err(), "{wrong}");
        }
    }
}
