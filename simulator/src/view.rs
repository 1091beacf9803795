//! What an operator sees while it runs: a live view on a terminal, plain lines elsewhere, JSON lines where asked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal as _, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::cost::Watched;
use crate::span;
use crate::tally::{Glance, Tally};

/// Shows a run.
pub(crate) struct View {
    bar: Option<ProgressBar>,
    plain: bool,
    lines: Option<Box<dyn Write + Send>>,
    total: Option<u64>,
}

impl View {
    /// A view of a run of `total` operations, if that is known.
    ///
    /// # Errors
    /// When the file for JSON lines can't be made.
    pub(crate) fn new(total: Option<u64>, quiet: bool, lines: Option<&Path>) -> anyhow::Result<Self> {
        let terminal = std::io::stderr().is_terminal();
        let bar = (!quiet && terminal).then(|| {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            let form = if total.is_some() {
                "[{elapsed_precise}] {bar:30} {pos}/{len} {eta}\n{msg}"
            } else {
                "[{elapsed_precise}] {pos}\n{msg}"
            };
            if let Ok(style) = ProgressStyle::with_template(form) {
                bar.set_style(style);
            }
            bar
        });
        let lines: Option<Box<dyn Write + Send>> = match lines {
            None => None,
            Some(path) if path == Path::new("-") => Some(Box::new(std::io::stdout())),
            Some(path) => {
                Some(Box::new(File::create(path).with_context(|| format!("can't write {}", path.display()))?))
            }
        };
        Ok(Self { bar, plain: !quiet && !terminal, lines, total })
    }

    /// Shows the tally each second until it is stopped; also takes note of the server's CPU.
    pub(crate) async fn follow(
        mut self,
        tally: &Tally,
        series: &'static str,
        watched: Option<Watched>,
        stop: CancellationToken,
    ) -> Self {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.tick().await;
        let mut cpu = watched.as_ref().and_then(Watched::cpu_ms);
        loop {
            let stopped = tokio::select! {
                _ = ticks.tick() => false,
                () = stop.cancelled() => true,
            };
            let now = watched.as_ref().and_then(Watched::cpu_ms);
            if let (Some(now), Some(before)) = (now, cpu) {
                tally.server_cpu(now - before);
            }
            cpu = now;
            self.show(&tally.glance(series), stopped);
            if stopped {
                return self;
            }
        }
    }

    /// Shows one glance.
    pub(crate) fn show(&mut self, glance: &Glance, last: bool) {
        let text = sentence(glance);
        if let Some(bar) = &self.bar {
            bar.set_position(glance.done);
            bar.set_message(text.clone());
        }
        if self.plain && (last || glance.at_s.is_multiple_of(PLAIN_EVERY_S)) {
            let of = self.total.map(|total| format!("/{total}")).unwrap_or_default();
            eprintln!("{:>5} s  {}{of}  {text}", glance.at_s, glance.done);
        }
        if let Some(lines) = &mut self.lines
            && let Ok(json) = serde_json::to_string(glance)
        {
            // Whoever read them may have gone; the run goes on.
            let _ = writeln!(lines, "{json}").and_then(|()| lines.flush());
        }
    }

    /// Takes the live view off the screen.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The glance in one line.
fn sentence(glance: &Glance) -> String {
    let phase = glance.phase.as_ref().map(|phase| format!("{phase}  ")).unwrap_or_default();
    let ms = |ms: f64| span::show(Duration::from_secs_f64(ms.max(0.0) / 1e3));
    format!(
        "{phase}{}/s  p50 {}  p99 {}  p99.9 {}  open {}{}",
        glance.rate_per_s,
        ms(glance.p50_ms),
        ms(glance.p99_ms),
        ms(glance.p999_ms),
        glance.open,
        errors(&glance.errors)
    )
}

fn errors(errors: &BTreeMap<String, u64>) -> String {
    if errors.is_empty() {
        return String::new();
    }
    let mut by_count: Vec<_> = errors.iter().collect();
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let shown: Vec<String> =
        by_count.iter().take(ERRORS_SHOWN).map(|(reason, count)| format!("{reason} {count}")).collect();
    format!("  errors: {}", shown.join(", "))
}

const PLAIN_EVERY_S: u64 = 5;
const ERRORS_SHOWN: usize = 4;
