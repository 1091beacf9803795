//! The interval log of the HdrHistogram tools: one line for each second and series.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::results::Results;

/// Writes the log; values are in microseconds, and the column of maxima in milliseconds.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn write_hdr_log(results: &Results, path: &Path) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("can't write {}", path.display()))?;
    let mut file = BufWriter::new(file);
    let mut serializer = V2DeflateSerializer::new();
    let start = UNIX_EPOCH + Duration::from_millis(results.started_at_ms);
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("muster-sim")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(1000.0);
    let mut log = builder.begin_log_with(&mut file, &mut serializer)?;
    for (second, interval) in &results.intervals {
        for (name, latency) in &interval.series {
            let histogram = latency.histogram();
            log.write_histogram(
                histogram,
                Duration::from_secs(*second),
                Duration::from_secs(1),
                Tag::new(name),
            )
            .map_err(|error| anyhow::anyhow!("can't write {}: {error:?}", path.display()))?;
        }
    }
    Ok(())
}
