//! What a run measured: the file that `--json` writes, `merge` joins and reports are made from.
//!
//! Latencies are whole HDR histograms (base64 of the V2 deflate form), in total and for each second, so results of
//! several workers or machines join without loss: percentiles of the sum, never averages of percentiles.
//! Reading a file checks its format number and its histograms.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as HdrReader, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::cost::Costs;
use crate::versus;

/// The fact that says how many sessions were resumed, in runs that tried.
pub(crate) const SESSIONS_RESUMED: &str = "sessions_resumed";
/// The form of the file.
const FORMAT: u32 = 2;
/// Three digits: a percentile is right to 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;
/// A day in microseconds; what takes longer counts as that.
const MAX_MICROS: u64 = 86_400_000_000;

/// What a run measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Results {
    pub(crate) format: u32,
    /// `fleet`, `edge` or `scenario`.
    pub(crate) command: String,
    /// The operator's name for the run.
    pub(crate) label: String,
    pub(crate) target: String,
    /// The series that `--slo` and the report look at when none is named.
    pub(crate) main_series: String,
    /// Milliseconds since 1970.
    pub(crate) started_at_ms: u64,
    pub(crate) took_s: f64,
    /// How many shards are in here.
    pub(crate) shards: u32,
    pub(crate) series: BTreeMap<String, Series>,
    /// By second after the start.
    pub(crate) intervals: BTreeMap<u64, Interval>,
    #[serde(default)]
    pub(crate) costs: Costs,
    /// Of a run that took turns with others: what each turn cost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) turns: Vec<Costs>,
    #[serde(default)]
    pub(crate) checks: Vec<Check>,
    /// Facts that are no latency, e.g. how many devices there are.
    #[serde(default)]
    pub(crate) facts: BTreeMap<String, f64>,
}

/// One kind of operation.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Series {
    /// For readers of the file; made from the histogram.
    #[serde(default, skip_deserializing)]
    pub(crate) summary: Option<Summary>,
    /// Failures by reason.
    #[serde(default)]
    pub(crate) errors: BTreeMap<String, u64>,
    /// Of what went well.
    pub(crate) hdr: Latency,
}

/// What happened in one second.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Interval {
    pub(crate) series: BTreeMap<String, Latency>,
    /// Failures by series and reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) errors: BTreeMap<String, BTreeMap<String, u64>>,
    /// Connections open at its end.
    #[serde(default)]
    pub(crate) open: u64,
    /// CPU of the server in this second, where `--pid` was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_ms: Option<f64>,
    /// What the scenario is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<String>,
}

/// Something that must hold.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) held: bool,
    pub(crate) detail: String,
}

/// A histogram in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

/// The usual numbers, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) failed: u64,
    pub(crate) rate_per_s: f64,
    pub(crate) mean_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

impl Results {
    /// Results of nothing yet.
    pub(crate) fn new(command: &str, label: &str, target: &str, main_series: &str) -> Self {
        Self {
            format: FORMAT,
            command: command.to_owned(),
            label: label.to_owned(),
            target: target.to_owned(),
            main_series: main_series.to_owned(),
            started_at_ms: 0,
            took_s: 0.0,
            shards: 1,
            series: BTreeMap::new(),
            intervals: BTreeMap::new(),
            costs: Costs::default(),
            turns: Vec::new(),
            checks: Vec::new(),
            facts: BTreeMap::new(),
        }
    }

    /// Reads a file of one run.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        match Self::read_all(path)?.as_mut_slice() {
            [one] => Ok(std::mem::replace(one, Self::new("", "", "", ""))),
            several => anyhow::bail!("{} holds {} runs, and this takes one", path.display(), several.len()),
        }
    }

    /// Reads a file of one run, or of several that took turns.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn read_all(path: &Path) -> anyhow::Result<Vec<Self>> {
        let no_results = || format!("{} holds no results", path.display());
        let text = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        let file: Value = serde_json::from_slice(&text).with_context(no_results)?;
        let format = file.get("format").and_then(Value::as_u64);
        anyhow::ensure!(
            format == Some(u64::from(FORMAT)),
            "{} has form {}, and this program reads {FORMAT}",
            path.display(),
            format.map_or_else(|| "none".to_owned(), |format| format.to_string())
        );
        let runs = match file.get("runs") {
            Some(runs) => Vec::<Self>::deserialize(runs),
            None => Self::deserialize(&file).map(|run| vec![run]),
        };
        runs.with_context(no_results)
    }

    /// Writes a file of several runs that took turns, with the comparison for its readers.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn write_all(runs: &[Self], path: &Path) -> anyhow::Result<()> {
        let summarised: Vec<Self> = runs.iter().map(Self::summarised).collect();
        let file = json!({ "format": FORMAT, "comparison": versus::rows(runs), "runs": summarised });
        let text = serde_json::to_vec_pretty(&file)?;
        std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.summarised())?;
        std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }

    /// Adds another shard's results. Nothing is lost: the sum is what one process would have measured.
    pub(crate) fn add(&mut self, other: Self) {
        let start = self.started_at_ms.min(other.started_at_ms);
        let shift = |at: u64| (at - start) / 1000;
        let (own, others) = (shift(self.started_at_ms), shift(other.started_at_ms));
        if own > 0 {
            self.intervals =
                std::mem::take(&mut self.intervals).into_iter().map(|(at, i)| (at + own, i)).collect();
        }
        let end = |at: u64, took: f64| at as f64 / 1e3 + took;
        let ends = end(self.started_at_ms, self.took_s).max(end(other.started_at_ms, other.took_s));
        self.started_at_ms = start;
        self.took_s = ends - start as f64 / 1e3;
        self.shards += other.shards;
        for (name, series) in other.series {
            self.series.entry(name).or_default().add(&series);
        }
        for (at, interval) in other.intervals {
            self.intervals.entry(at + others).or_default().add(interval);
        }
        self.costs.add(&other.costs);
        self.checks.extend(other.checks);
        for (name, value) in other.facts {
            *self.facts.entry(name).or_default() += value;
        }
    }

    /// Adds a later turn of the same run: its seconds come after those of the turns before.
    pub(crate) fn then(&mut self, turn: Self) {
        if self.turns.is_empty() {
            self.started_at_ms = turn.started_at_ms;
        }
        let after = self.intervals.keys().next_back().map_or(0, |last| last + 1);
        self.took_s += turn.took_s;
        for (name, series) in turn.series {
            self.series.entry(name).or_default().add(&series);
        }
        for (at, interval) in turn.intervals {
            self.intervals.entry(after + at).or_default().add(interval);
        }
        self.costs.then(&turn.costs);
        self.turns.push(turn.costs);
    }

    /// The usual numbers of a series.
    pub(crate) fn summary(&self, series: &str) -> Option<Summary> {
        self.series.get(series).map(|series| series.summarise(self.took_s))
    }

    fn summarised(&self) -> Self {
        let mut copy = self.clone();
        for series in copy.series.values_mut() {
            series.summary = Some(series.summarise(self.took_s));
        }
        copy
    }
}

impl Series {
    fn add(&mut self, other: &Self) {
        self.hdr.add(&other.hdr);
        for (reason, count) in &other.errors {
            *self.errors.entry(reason.clone()).or_default() += count;
        }
    }

    /// How many failed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn summarise(&self, took_s: f64) -> Summary {
        let count = self.hdr.count();
        Summary {
            count,
            failed: self.failed(),
            rate_per_s: if took_s > 0.0 { count as f64 / took_s } else { 0.0 },
            mean_ms: self.hdr.0.mean() / 1e3,
            p50_ms: self.hdr.percentile_ms(50.0),
            p90_ms: self.hdr.percentile_ms(90.0),
            p99_ms: self.hdr.percentile_ms(99.0),
            p999_ms: self.hdr.percentile_ms(99.9),
            max_ms: self.hdr.0.max() as f64 / 1e3,
        }
    }
}

impl Interval {
    pub(crate) fn add(&mut self, other: Self) {
        for (name, latency) in other.series {
            self.series.entry(name).or_default().add(&latency);
        }
        for (series, reasons) in other.errors {
            let own = self.errors.entry(series).or_default();
            for (reason, count) in reasons {
                *own.entry(reason).or_default() += count;
            }
        }
        self.open += other.open;
        if let Some(cpu) = other.server_cpu_ms {
            // Every shard that watches the server sees all of its work.
            self.server_cpu_ms = Some(self.server_cpu_ms.unwrap_or(0.0).max(cpu));
        }
        self.phase = self.phase.take().or(other.phase);
    }

    /// How many failed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().flat_map(BTreeMap::values).sum()
    }
}

impl Latency {
    /// Adds one.
    pub(crate) fn record(&mut self, took: std::time::Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // It grows as far as a value asks for, and no value is larger than memory.
        let recorded = self.0.record(micros.clamp(1, MAX_MICROS));
        debug_assert!(recorded.is_ok(), "a histogram that grows");
    }

    /// Adds all of another.
    pub(crate) fn add(&mut self, other: &Self) {
        // Equal bounds and digits, so nothing can fail to fit.
        let added = self.0.add(&other.0);
        debug_assert!(added.is_ok(), "histograms of one form");
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// A percentile in milliseconds; zero of nothing.
    pub(crate) fn percentile_ms(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1e3
    }

    /// The mean in milliseconds.
    pub(crate) fn mean_ms(&self) -> f64 {
        self.0.mean() / 1e3
    }

    /// The largest in milliseconds.
    pub(crate) fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }

    /// The histogram itself.
    pub(crate) const fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
        let histogram: Histogram<u64> =
            HdrReader::new().deserialize(&mut bytes.as_slice()).map_err(|error| error.to_string())?;
        if histogram.sigfig() != SIGNIFICANT_DIGITS || histogram.high() > MAX_MICROS {
            return Err(format!(
                "a histogram of another form: {} digits, up to {}",
                histogram.sigfig(),
                histogram.high()
            ));
        }
        let mut latency = Self::default();
        latency.add(&Self(histogram));
        Ok(latency)
    }
}

impl Default for Latency {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "constant bounds that the library takes")]
        let mut histogram = Histogram::new_with_max(2000, SIGNIFICANT_DIGITS).expect("sound bounds");
        // Grows with what is recorded: one per second and series stays small.
        histogram.auto(true);
        Self(histogram)
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&self.0, &mut bytes).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn results(started_at_ms: u64, micros: &[u64]) -> Results {
        let mut results = Results::new("edge", "", "t", "handshake");
        results.started_at_ms = started_at_ms;
        results.took_s = 10.0;
        for (number, micros) in micros.iter().enumerate() {
            let took = Duration::from_micros(*micros);
            results.series.entry("handshake".into()).or_default().hdr.record(took);
            let second = u64::try_from(number).expect("few") % 10;
            results
                .intervals
                .entry(second)
                .or_default()
                .series
                .entry("handshake".into())
                .or_default()
                .record(took);
        }
        results
    }

    proptest! {
        #[test]
        fn merging_shards_is_exact(
            first in proptest::collection::vec(1_u64..100_000_000, 0..300),
            second in proptest::collection::vec(1_u64..100_000_000, 0..300),
        ) {
            let mut merged = results(1000, &first);
            // Through the file's form, as shards on other machines come.
            let text = serde_json::to_string(&results(1000, &second)).expect("JSON");
            merged.add(serde_json::from_str(&text).expect("results"));
            let together = results(1000, &[first, second].concat());
            prop_assert_eq!(&merged.series["handshake"].hdr.0, &together.series["handshake"].hdr.0);
            prop_assert_eq!(merged.shards, 2);
        }
    }

    #[test]
    fn shards_that_started_at_other_times_keep_their_seconds() {
        let mut merged = results(5_000, &[100]);
        merged.add(results(2_000, &[200]));
        assert_eq!(merged.started_at_ms, 2_000);
        assert_eq!(merged.intervals.keys().copied().collect::<Vec<_>>(), [0, 3]);
        assert!((merged.took_s - 13.0).abs() < 1e-9);
    }

    #[test]
    fn turns_come_one_after_the_other_and_a_file_of_several_runs_is_read_again() {
        let mut run = results(0, &[]);
        (run.intervals, run.took_s) = (BTreeMap::new(), 0.0);
        for start in [7_000, 90_000] {
            run.then(results(start, &[100, 200]));
        }
        assert_eq!((run.started_at_ms, run.turns.len()), (7_000, 2));
        assert_eq!(run.intervals.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!((run.took_s - 20.0).abs() < 1e-9);
        let file = tempfile::NamedTempFile::new().expect("a file");
        Results::write_all(&[run.clone(), run.clone()], file.path()).expect("written");
        assert_eq!(Results::read_all(file.path()).expect("read").len(), 2);
        assert!(Results::read(file.path()).expect_err("two").to_string().contains("holds 2 runs"));
        run.write(file.path()).expect("written");
        assert_eq!(Results::read(file.path()).expect("read").series["handshake"].hdr.count(), 4);
        std::fs::write(file.path(), "{}").expect("written");
        assert!(Results::read(file.path()).expect_err("nothing").to_string().contains("form none"));
    }

    #[test]
    fn a_broken_histogram_is_refused() {
        for wrong in ["", "!!", "AAAA", "HISTFAAAAC"] {
            assert!(Latency::parse(wrong).is_err(), "{wrong}");
        }
    }
}
