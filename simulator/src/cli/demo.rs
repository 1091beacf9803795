//! `muster-sim demo`.

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::answer;
use super::args::DemoArgs;
use crate::demo::{World, tell};
use crate::report;

pub(super) async fn run(args: DemoArgs, stop: CancellationToken) -> anyhow::Result<bool> {
    answer(format_args!(
        "Muster issues every device of a fleet a certificate, and checks it at the door of each hostname.\n"
    ));
    let world = World::start("demo", &["demo.test", "other.test"]).await?;
    let told = tokio::select! {
        told = tell(&world, args.devices) => told?,
        () = stop.cancelled() => anyhow::bail!("stopped before the story was over"),
    };
    let page = report::html(std::slice::from_ref(&told.results));
    std::fs::write(&args.report, page).with_context(|| format!("can't write {}", args.report.display()))?;
    if let Some(path) = &args.json {
        told.results.write(path)?;
    }
    let held = told.lines.iter().all(|line| line.held);
    let total: f64 = told.lines.iter().map(|line| line.took.as_secs_f64()).sum();
    answer(format_args!(
        "\n{} of {} held, in {total:.1} s",
        told.lines.iter().filter(|line| line.held).count(),
        told.lines.len()
    ));
    for line in told.lines.iter().filter(|line| !line.held) {
        answer(format_args!("  did not hold: {} ({})", line.what, line.outcome));
    }
    answer(format_args!("report      {}", args.report.display()));
    if !args.exit {
        answer(format_args!("dashboard   {}/   token {}", world.admin_url, world.admin_token));
        answer(format_args!(
            "edge        https {}   mqtt {}   trust {}",
            world.https,
            world.mqtt,
            world.ca_file().display()
        ));
        answer(format_args!("Ctrl-C ends it."));
        stop.cancelled().await;
    }
    world.end().await?;
    Ok(held)
}
