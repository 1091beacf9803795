//! `muster-sim demo`: the whole story on one machine, with no set-up.
//!
//! A server of the account, with edge and broker, runs in this process on free ports under a folder that is gone
//! afterwards; a second account is there to be refused. The story is a list of steps; each does something and says
//! whether what must hold held.

mod stage;
mod steps;

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use self::stage::Stage;
use self::steps::STEPS;
use crate::report;
use crate::results::{Check, Results};
use crate::span;

/// Tells the story; `false` when something did not hold.
///
/// # Errors
/// When the stage can't be set, or the report not be written.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(
    devices: u32,
    report: &Path,
    exit: bool,
    stop: CancellationToken,
) -> anyhow::Result<bool> {
    let mut stage = Stage::set(devices, stop.child_token()).await?;
    println!("{}", stage.describe());
    let mut checks = Vec::new();
    for step in STEPS {
        if stop.is_cancelled() {
            break;
        }
        let began = Instant::now();
        let done = Box::pin((step.act)(&mut stage)).await;
        let (held, detail) = match done {
            Ok(detail) => (true, detail),
            Err(error) => (false, format!("{error:#}")),
        };
        println!(
            "{} {:<46} {detail} ({})",
            if held { "ok    " } else { "FAILED" },
            step.name,
            span::show(began.elapsed())
        );
        checks.push(Check { name: step.name.to_owned(), held, detail });
    }
    let held = checks.len() == STEPS.len() && checks.iter().all(|check| check.held);
    write(&stage.runs, checks, report)?;
    println!("report: {}", report.display());
    if !exit && !stop.is_cancelled() {
        println!("The server stays up until Ctrl-C.");
        stop.cancelled().await;
    }
    stage.strike().await;
    Ok(held)
}

fn write(runs: &[Results], checks: Vec<Check>, path: &Path) -> anyhow::Result<()> {
    let mut runs = runs.to_vec();
    for run in &mut runs {
        // Server and devices share one process here, so its CPU belongs to neither.
        run.costs = crate::cost::Costs::default();
    }
    if let Some(first) = runs.first_mut() {
        first.checks = checks;
    }
    std::fs::write(path, report::html(&runs)).with_context(|| format!("can't write {}", path.display()))
}
