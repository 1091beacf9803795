//! The run's running count: what tasks tell, and what the view and the results are made of.
//!
//! One lock, held for the time of a few additions. Seconds that are over are kept as whole histograms.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock;
use crate::reason::Reason;
use crate::results::{Interval, Latency, Results, Series};

/// Counts one run.
#[derive(Debug)]
pub(crate) struct Tally {
    inner: Mutex<Inner>,
    started: Instant,
    started_at_ms: u64,
    open: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    series: BTreeMap<&'static str, Series>,
    second: u64,
    current: Interval,
    done: BTreeMap<u64, Interval>,
    phase: Option<String>,
}

/// What the last second looked like; one JSON line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Glance {
    /// Seconds since the start.
    pub(crate) at_s: u64,
    pub(crate) phase: Option<String>,
    /// Of the series that is looked at, in this second.
    pub(crate) rate_per_s: u64,
    pub(crate) failed_per_s: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) open: u64,
    /// Since the start.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Starts to count.
    pub(crate) fn new() -> Self {
        Self::of_phase(None)
    }

    /// Starts to count a part of a run.
    pub(crate) fn of_phase(phase: Option<String>) -> Self {
        let started_at_ms = u64::try_from(clock::unix_now().as_millis()).unwrap_or(u64::MAX);
        let inner = Mutex::new(Inner { phase, ..Inner::default() });
        Self { inner, started: Instant::now(), started_at_ms, open: AtomicU64::new(0) }
    }

    /// Another part of the run begins.
    pub(crate) fn enter(&self, phase: String) {
        let mut inner = self.at_present();
        inner.current.phase = Some(phase.clone());
        inner.phase = Some(phase);
    }

    /// Something went well, and took this long.
    pub(crate) fn done(&self, series: &'static str, took: Duration) {
        let mut inner = self.at_present();
        inner.series.entry(series).or_default().hdr.record(took);
        inner.current.series.entry(series.to_owned()).or_default().record(took);
    }

    /// Something failed.
    pub(crate) fn failed(&self, series: &'static str, reason: Reason) {
        self.count_error(series, reason.label());
    }

    /// Something failed, in a word of the caller's.
    pub(crate) fn count_error(&self, series: &'static str, label: String) {
        let mut inner = self.at_present();
        let current = inner.current.errors.entry(series.to_owned()).or_default();
        *current.entry(label.clone()).or_default() += 1;
        *inner.series.entry(series).or_default().errors.entry(label).or_default() += 1;
    }

    /// A connection opened.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection closed.
    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are open.
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Notes the server's CPU of the last second.
    pub(crate) fn server_cpu(&self, ms: f64) {
        let mut inner = self.at_present();
        *inner.current.server_cpu_ms.get_or_insert(0.0) += ms;
    }

    /// Since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// How many of a series went well.
    pub(crate) fn count(&self, series: &str) -> u64 {
        self.lock().series.get(series).map_or(0, |series| series.hdr.count())
    }

    /// The last whole second, and all so far.
    pub(crate) fn glance(&self, series: &str) -> Glance {
        let open = self.open();
        let inner = self.at_present();
        let last = inner.done.last_key_value();
        let empty = Interval::default();
        let interval = last.map_or(&empty, |(_, interval)| interval);
        let all = inner.series.get(series).cloned().unwrap_or_default();
        Glance {
            at_s: inner.second,
            phase: inner.phase.clone(),
            rate_per_s: interval.series.get(series).map_or(0, Latency::count),
            failed_per_s: interval.failed(),
            done: all.hdr.count(),
            failed: inner.series.values().map(Series::failed).sum(),
            open,
            p50_ms: all.hdr.percentile_ms(50.0),
            p99_ms: all.hdr.percentile_ms(99.0),
            p999_ms: all.hdr.percentile_ms(99.9),
            errors: sum_errors(inner.series.values()),
        }
    }

    /// Ends it: what was counted goes into the results.
    pub(crate) fn finish(&self, results: &mut Results) {
        let took = self.elapsed();
        let mut inner = self.at_present();
        let second = inner.second;
        let mut last = std::mem::take(&mut inner.current);
        last.open = self.open();
        inner.done.insert(second, last);
        results.started_at_ms = self.started_at_ms;
        results.took_s = took.as_secs_f64();
        results.series =
            std::mem::take(&mut inner.series).into_iter().map(|(name, s)| (name.to_owned(), s)).collect();
        results.intervals = std::mem::take(&mut inner.done);
    }

    /// The lock, with the seconds that are over put away.
    fn at_present(&self) -> MutexGuard<'_, Inner> {
        let second = self.started.elapsed().as_secs();
        let mut inner = self.lock();
        if second != inner.second {
            let mut over = std::mem::take(&mut inner.current);
            over.open = self.open();
            let number = inner.second;
            inner.done.insert(number, over);
            inner.second = second;
        }
        inner
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Additions leave nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sum_errors<'s>(series: impl Iterator<Item = &'s Series>) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (reason, count) in series.flat_map(|series| &series.errors) {
        *sum.entry(reason.clone()).or_default() += count;
    }
    sum
}
