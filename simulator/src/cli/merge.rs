//! `muster-sim merge`: joins the results of shards, or compares runs.

use anyhow::Context as _;

use super::args::MergeArgs;
use super::{answer, print_summary, write_page, write_reports};
use crate::results::Results;

pub(super) fn run(args: &MergeArgs) -> anyhow::Result<bool> {
    let mut joined: Option<Results> = None;
    for file in &args.files {
        let results = Results::read(file)?;
        match &mut joined {
            Some(all) => {
                anyhow::ensure!(
                    (&all.command, &all.target, &all.main_series)
                        == (&results.command, &results.target, &results.main_series),
                    "{} is a run of another kind, mode or target; to set runs side by side use `muster-sim compare`",
                    file.display()
                );
                all.add(results);
            }
            None => joined = Some(results),
        }
    }
    let mut results = joined.context("no files")?;
    results.checks.extend(args.slos.iter().map(|slo| slo.check(&results)).collect::<Vec<_>>());
    write_reports(&results, args.json.as_deref(), args.report.as_deref(), args.hdr_log.as_deref())?;
    print_summary(&results);
    Ok(results.checks.iter().all(|check| check.held))
}

/// Several runs side by side.
pub(super) fn compare(args: &super::args::CompareArgs) -> anyhow::Result<bool> {
    if let Some(path) = &args.report {
        write_page(&args.files, &[], path)?;
    }
    for file in &args.files {
        for run in Results::read_all(file)? {
            answer(format_args!("{} {}", file.display(), run.label));
            print_summary(&run);
        }
    }
    Ok(true)
}
