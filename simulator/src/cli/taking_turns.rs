//! `muster-sim edge` with several targets: rounds in which each has its turn, and the table of what they cost.

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::args::EdgeArgs;
use super::edge::{Comers, Party, edge_run};
use super::{answer, asked_rightly, print_summary, write_page};
use crate::edge::{EdgeRun, Mode, note_resumption};
use crate::results::{Check, Results};
use crate::versus::{self, Spread};
use crate::view::View;

/// Runs all targets in turns and sets them side by side.
pub(super) async fn run(
    args: &EdgeArgs,
    parties: Vec<Party>,
    mut comers: Comers,
    stop: CancellationToken,
) -> anyhow::Result<bool> {
    let (run, output) = (&args.run, &args.run.output);
    asked_rightly(
        args.workers == 1 && run.shards == 1 && run.start_at.is_none() && run.hdr_log.is_none(),
        || "several targets are for one process: without --workers, --shards, --start-at and --hdr-log",
    )?;
    let series = args.mode.series();
    let begun = |party: &Party| Results::new("edge", &party.name, &party.target.to_string(), series);
    let mut runs: Vec<Results> = parties.iter().map(begun).collect();
    let mut view = View::new(None, output.quiet, output.json_lines.as_deref())?;
    for round in 1..=args.rounds {
        let mut came = 0;
        for (party, whole) in parties.iter().zip(&mut runs) {
            let phase = Some(format!("round {round} of {}: {}", args.rounds, party.name));
            let devices = comers.devices.clone();
            let span = args.span / args.rounds;
            let edge = EdgeRun { phase, ..edge_run(args, party, &comers, devices, span) };
            let (turn, shown) = edge.run(begun(party), view, stop.clone()).await?;
            view = shown;
            came = came.max(turn.costs.operations);
            whole.then(turn);
        }
        // A server may remember who came; the next round is others', as far as there are any.
        let others = usize::try_from(came)? % comers.devices.len().max(1);
        comers.devices.rotate_left(others);
        if stop.is_cancelled() {
            break;
        }
    }
    view.end();
    for (party, whole) in parties.iter().zip(&mut runs) {
        whole.costs.bare = party.bare;
    }
    finish(args, runs)
}

fn finish(args: &EdgeArgs, mut runs: Vec<Results>) -> anyhow::Result<bool> {
    let output = &args.run.output;
    if args.mode == Mode::Resume {
        runs.iter_mut().for_each(note_resumption);
    }
    let first = runs.first_mut().context("a target")?;
    first.checks = output.slos.iter().map(|slo| slo.check(first)).collect::<Vec<Check>>();
    let held = first.checks.iter().all(|check| check.held);
    if let Some(path) = &output.json {
        Results::write_all(&runs, path)?;
    }
    if let Some(path) = &output.report {
        write_page(&args.run.compare, &runs, path)?;
    }
    if !output.quiet {
        print_table(&runs);
    }
    let shut_out = runs.iter().find(|run| run.costs.operations == 0);
    if let Some(run) = shut_out {
        anyhow::bail!("{} let no device in", run.label);
    }
    Ok(held)
}

fn print_table(runs: &[Results]) {
    for run in runs {
        answer(format_args!("{}  {}", run.label, run.target));
        print_summary(run);
        answer(format_args!(""));
    }
    let Some(first) = runs.first() else { return };
    let (rounds, unit) = (first.turns.len(), first.costs.unit.name());
    answer(format_args!(
        "{rounds} rounds in turns; server CPU per {unit}, median [least..most] of the rounds"
    ));
    answer(format_args!(
        "{:<12} {:>8} {:>7} {:>9} {:>9}  {:<24} {:<20} x {}",
        "",
        format!("{unit}s"),
        "failed",
        "p50 ms",
        "p99 ms",
        "CPU ms",
        "x crypto bound",
        first.label
    ));
    let show = |figure: Option<Spread>, digits| {
        figure.map_or_else(|| "not watched".to_owned(), |figure| figure.show(digits))
    };
    for row in versus::rows(runs) {
        answer(format_args!(
            "{:<12} {:>8} {:>7} {:>9.2} {:>9.2}  {:<24} {:<20} {}",
            row.name,
            row.done,
            row.failed,
            row.p50_ms,
            row.p99_ms,
            show(row.server_ms, 3),
            show(row.bounds, 2),
            show(row.ratio, 2)
        ));
    }
}
