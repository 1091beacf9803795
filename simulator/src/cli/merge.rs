//! `muster-sim merge`: joins the results of shards, or compares runs.

use anyhow::Context as _;

use super::args::MergeArgs;
use super::{write_page, write_reports};
use crate::results::Results;

pub(super) fn run(args: &MergeArgs) -> anyhow::Result<bool> {
    let mut joined: Option<Results> = None;
    for file in &args.files {
        let results = Results::read(file)?;
        match &mut joined {
            Some(all) => {
                anyhow::ensure!(
                    all.command == results.command && all.target == results.target,
                    "{} is a run of another kind or target; to set runs side by side use `muster-sim compare`",
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
    super::print_summary(&results);
    Ok(results.checks.iter().all(|check| check.held))
}

/// Several runs side by side.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(super) fn compare(args: &super::args::CompareArgs) -> anyhow::Result<bool> {
    if let Some(path) = &args.report {
        write_page(&args.files, &[], path)?;
    }
    for file in &args.files {
        for run in Results::read_all(file)? {
            println!("{} {}", file.display(), run.label);
            super::print_summary(&run);
        }
    }
    Ok(true)
}
