//! The command line: exit code 0 when all went well, 1 when something was refused, failed or missed its goal, and 2
//! for wrong usage. An error is one line on standard error that says what, why, and what to do.

mod args;
mod demo;
mod edge;
mod fleet;
mod limits;
mod merge;
mod place;
mod scenario;
mod taking_turns;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use clap::error::ErrorKind;
use tokio_util::sync::CancellationToken;

use self::args::{Cli, Command, RunArgs};
use crate::results::{Check, Results, SESSIONS_RESUMED};
use crate::{report, span};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let _ = error.print();
            return ExitCode::from(if asked { 0 } else { EXIT_USAGE });
        }
    };
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILED),
        Err(error) => {
            eprintln!("muster-sim: {error:#}");
            ExitCode::from(if error.is::<Usage>() { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}

/// A command line that makes no sense as a whole; in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Refuses what makes no sense.
fn asked_rightly<S: Into<String>>(holds: bool, wrong: impl FnOnce() -> S) -> Result<(), Usage> {
    if holds { Ok(()) } else { Err(Usage(wrong().into())) }
}

/// `false` when all was done, and something did not hold.
fn run(cli: Cli) -> anyhow::Result<bool> {
    limits::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(stop_on_signal(stop.clone()));
        match cli.command {
            Command::Compare(args) => merge::compare(&args),
            Command::Demo(args) => demo::run(args, stop).await,
            Command::Edge(args) => edge::run(args, stop).await,
            Command::Fleet(args) => fleet::run(args, stop).await,
            Command::Merge(args) => merge::run(&args),
            Command::Scenario(args) => scenario::run(args, stop).await,
        }
    })
}

/// The first Ctrl-C or SIGTERM ends the run with its results; a second one ends the process.
async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    stop.cancel();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    std::process::exit(i32::from(EXIT_FAILED));
}

/// Writes what was asked for and says how it went; `false` when a goal was missed.
fn conclude(mut results: Results, args: &RunArgs) -> anyhow::Result<bool> {
    let output = &args.output;
    let checks: Vec<Check> = output.slos.iter().map(|slo| slo.check(&results)).collect();
    results.checks.extend(checks);
    write_reports(&results, output.json.as_deref(), None, args.hdr_log.as_deref())?;
    if let Some(path) = &output.report {
        write_page(&args.compare, std::slice::from_ref(&results), path)?;
    }
    if !output.quiet {
        print_summary(&results);
    }
    Ok(results.checks.iter().all(|check| check.held))
}

/// Writes the report of runs, after those of earlier ones.
fn write_page(earlier: &[PathBuf], runs: &[Results], path: &Path) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for file in earlier {
        all.extend(Results::read_all(file)?);
    }
    all.extend_from_slice(runs);
    std::fs::write(path, report::html(&all)).with_context(|| format!("can't write {}", path.display()))
}

fn write_reports(
    results: &Results,
    json: Option<&Path>,
    html: Option<&Path>,
    hdr_log: Option<&Path>,
) -> anyhow::Result<()> {
    if let Some(path) = json {
        results.write(path)?;
    }
    if let Some(path) = html {
        write_page(&[], std::slice::from_ref(results), path)?;
    }
    if let Some(path) = hdr_log {
        report::write_hdr_log(results, path)?;
    }
    Ok(())
}

/// Prints a part of the command's answer. A reader that went away, as `head` does, has what it wanted.
fn answer(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn print_summary(results: &Results) {
    let ms = |ms: f64| span::show(std::time::Duration::from_secs_f64(ms.max(0.0) / 1e3));
    answer(format_args!(
        "{:<12} {:>9} {:>7} {:>9} {:>10} {:>10} {:>10} {:>10}",
        "", "done", "failed", "per s", "p50", "p99", "p99.9", "max"
    ));
    for name in results.series.keys() {
        let Some(s) = results.summary(name) else { continue };
        answer(format_args!(
            "{name:<12} {:>9} {:>7} {:>9.1} {:>10} {:>10} {:>10} {:>10}",
            s.count,
            s.failed,
            s.rate_per_s,
            ms(s.p50_ms),
            ms(s.p99_ms),
            ms(s.p999_ms),
            ms(s.max_ms)
        ));
    }
    for (name, series) in &results.series {
        for (reason, count) in &series.errors {
            answer(format_args!("  {name}: {count} x {reason}"));
        }
    }
    if results.facts.get(SESSIONS_RESUMED) == Some(&0.0) {
        answer(format_args!(
            "the server resumed no session: all handshakes were full, and goals are about those"
        ));
    }
    for line in report::cost_lines(&results.costs) {
        answer(format_args!("{line}"));
    }
    for check in &results.checks {
        let held = if check.held { "held  " } else { "MISSED" };
        answer(format_args!("{held} {} ({})", check.name, check.detail));
    }
}

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
