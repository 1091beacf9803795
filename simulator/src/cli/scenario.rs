//! `muster-sim scenario`.

use anyhow::Context as _;

use super::args::ScenarioArgs;
use super::{print_summary, write_reports};
use crate::scenario::{self, ScenarioWritten};
use crate::view::View;

pub(super) fn run(args: &ScenarioArgs) -> anyhow::Result<bool> {
    let text =
        std::fs::read_to_string(&args.file).with_context(|| format!("can't read {}", args.file.display()))?;
    let checked = ScenarioWritten::parse(&text).and_then(ScenarioWritten::check);
    let mut scenario = checked.map_err(|error| anyhow::anyhow!("{}: {error}", args.file.display()))?;
    scenario.seed = args.seed.unwrap_or(scenario.seed);
    scenario.devices = args.devices.unwrap_or(scenario.devices);
    let goals: Vec<_> = scenario.slos.iter().chain(&args.slos).cloned().collect();
    let mut view = View::new(Some(scenario.span.as_secs()), args.quiet, args.json_lines.as_deref())?;
    let mut results = scenario::run(scenario, &mut view)?;
    view.end();
    let checks: Vec<_> = goals.iter().map(|goal| goal.check(&results)).collect();
    results.checks.extend(checks);
    write_reports(&results, args.json.as_deref(), args.report.as_deref(), None)?;
    if !args.quiet {
        print_summary(&results);
    }
    Ok(results.checks.iter().all(|check| check.held))
}
