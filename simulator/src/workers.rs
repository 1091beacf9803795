//! Several worker processes on one machine: each has its own limit on open files, and its own core.
//!
//! A worker is this program with the same command line and a shard number; it writes its results to a file and a JSON
//! line each second to its standard output. The parent adds the lines up for the view and the files to the results.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::results::Results;
use crate::tally::Glance;
use crate::view::View;

/// Runs this command line in `count` workers and joins their results.
///
/// # Errors
/// In words, when a worker can't be started or gives no results.
pub(crate) async fn run(
    count: u32,
    mut view: View,
    stop: CancellationToken,
) -> anyhow::Result<(Results, View)> {
    let folder = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let start_at = (clock::unix_now() + START_TIME).as_secs_f64();
    let (sender, mut glances) = mpsc::channel(count.max(1) as usize * 4);
    let mut workers = Vec::new();
    for shard in 0..count {
        let mut child = Command::new(&program)
            .args(worker_arguments(std::env::args_os().skip(1), shard, count, start_at, folder.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("can't start a worker")?;
        let lines = child.stdout.take().context("a worker's output")?;
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(lines).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(glance) = serde_json::from_str::<Line>(&line)
                    && sender.send((shard, glance)).await.is_err()
                {
                    return;
                }
            }
        });
        workers.push(child);
    }
    drop(sender);
    let mut latest: BTreeMap<u32, Line> = BTreeMap::new();
    let mut told = false;
    loop {
        tokio::select! {
            glance = glances.recv() => match glance {
                Some((shard, line)) => {
                    latest.insert(shard, line);
                    if shard == 0 {
                        view.show(&sum(&latest), false);
                    }
                }
                None => break,
            },
            () = stop.cancelled(), if !told => {
                told = true;
                workers.iter().for_each(terminate);
            }
        }
    }
    let mut joined: Option<Results> = None;
    for (shard, mut worker) in (0_u32..).zip(workers) {
        let status = worker.wait().await?;
        let file = results_file(folder.path(), shard);
        let results = Results::read(&file)
            .with_context(|| format!("worker {shard} ended with {status} and no results"))?;
        match &mut joined {
            Some(all) => all.add(results),
            None => joined = Some(results),
        }
    }
    Ok((joined.context("at least one worker")?, view))
}

/// What a worker's line says of it.
#[derive(Debug, Deserialize)]
struct Line {
    at_s: u64,
    phase: Option<String>,
    rate_per_s: u64,
    failed_per_s: u64,
    done: u64,
    failed: u64,
    open: u64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    errors: BTreeMap<String, u64>,
}

/// Sums of counts; of percentiles the worst worker's, since the exact ones need the histograms.
fn sum(latest: &BTreeMap<u32, Line>) -> Glance {
    let total = |of: fn(&Line) -> u64| latest.values().map(of).sum();
    let worst = |of: fn(&Line) -> f64| latest.values().map(of).fold(0.0, f64::max);
    let mut errors = BTreeMap::new();
    for (reason, count) in latest.values().flat_map(|line| &line.errors) {
        *errors.entry(reason.clone()).or_default() += count;
    }
    Glance {
        at_s: latest.values().map(|line| line.at_s).max().unwrap_or(0),
        phase: latest.values().find_map(|line| line.phase.clone()),
        rate_per_s: total(|line| line.rate_per_s),
        failed_per_s: total(|line| line.failed_per_s),
        done: total(|line| line.done),
        failed: total(|line| line.failed),
        open: total(|line| line.open),
        p50_ms: worst(|line| line.p50_ms),
        p99_ms: worst(|line| line.p99_ms),
        p999_ms: worst(|line| line.p999_ms),
        errors,
    }
}

/// The parent's arguments without those that are its own business, and with the shard's.
fn worker_arguments(
    own: impl Iterator<Item = OsString>,
    shard: u32,
    shards: u32,
    start_at: f64,
    folder: &Path,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let (mut skip_value, mut skip_values) = (false, false);
    for argument in own {
        let text = argument.to_string_lossy();
        skip_values &= !text.starts_with("--");
        if std::mem::take(&mut skip_value) || skip_values {
            continue;
        }
        let (name, has_value) = text.split_once('=').map_or((&*text, false), |(name, _)| (name, true));
        if PARENTS_OWN.contains(&name) {
            skip_value = !has_value;
            // The one option with several values.
            skip_values = name == "--compare";
        } else if !FLAGS_OF_PARENT.contains(&name) {
            arguments.push(argument);
        }
    }
    for (name, value) in [
        ("--shard", shard.to_string()),
        ("--shards", shards.to_string()),
        ("--start-at", start_at.to_string()),
        ("--json-lines", "-".to_owned()),
    ] {
        arguments.extend([name.into(), value.into()]);
    }
    arguments.extend(["--json".into(), results_file(folder, shard).into(), "--quiet".into()]);
    arguments
}

fn results_file(folder: &Path, shard: u32) -> std::path::PathBuf {
    folder.join(format!("{shard}.json"))
}

fn terminate(worker: &Child) {
    if let Some(id) = worker.id().and_then(|id| i32::try_from(id).ok()) {
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM);
    }
}

/// Options with a value that workers do not get from the parent.
const PARENTS_OWN: [&str; 11] = [
    "--workers",
    "--shard",
    "--shards",
    "--start-at",
    "--json",
    "--json-lines",
    "--report",
    "--hdr-log",
    "--slo",
    "--bare",
    "--compare",
];
const FLAGS_OF_PARENT: [&str; 2] = ["--quiet", "-q"];
/// For all workers to open the identities.
const START_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_gets_its_shard_and_not_the_parent_s_reports() {
        let own = ["edge", "--target", "t", "--workers=4", "--json", "all.json", "--slo", "p99<1s", "-q"];
        let arguments = worker_arguments(own.iter().map(OsString::from), 2, 4, 1.5, Path::new("/f"));
        let expected = [
            "edge",
            "--target",
            "t",
            "--shard",
            "2",
            "--shards",
            "4",
            "--start-at",
            "1.5",
            "--json-lines",
            "-",
            "--json",
            "/f/2.json",
            "--quiet",
        ];
        assert_eq!(arguments, expected.map(OsString::from));
    }
}
