//! `muster-sim demo`: the whole story on one machine, each chapter with what must hold.

mod story;
mod world;

use std::time::{Duration, Instant};

use crate::results::{Check, Results};

pub(crate) use self::story::tell;
pub(crate) use self::world::World;

/// The story as it went: one line for each chapter.
pub(crate) struct Told {
    pub(crate) results: Results,
    pub(crate) lines: Vec<Line>,
}

/// A chapter.
pub(crate) struct Line {
    pub(crate) what: &'static str,
    pub(crate) outcome: String,
    pub(crate) took: Duration,
    pub(crate) held: bool,
}

impl Told {
    fn new(devices: u32) -> Self {
        let mut results = Results::new("demo", "demo", "one machine", crate::fleet::ENROLL);
        results.facts.insert("devices".into(), f64::from(devices));
        Self { results, lines: Vec::new() }
    }

    /// Takes in what a chapter measured. The first one says when the story began.
    fn add(&mut self, measured: Results) {
        if self.results.started_at_ms == 0 {
            self.results.started_at_ms = measured.started_at_ms;
        }
        self.results.add(measured);
        // They are chapters one after the other, not shards side by side.
        self.results.shards = 1;
    }

    /// Notes how a chapter went, and says it at once.
    #[expect(clippy::print_stdout, reason = "this is the command's answer")]
    fn note(&mut self, what: &'static str, began: Instant, held: bool, outcome: String) {
        let took = began.elapsed();
        println!(
            "{}  {what:<44} {outcome:<44} {:>8.2} s",
            if held { "ok    " } else { "FAILED" },
            took.as_secs_f64()
        );
        self.results.checks.push(Check { name: what.to_owned(), held, detail: outcome.clone() });
        self.lines.push(Line { what, outcome, took, held });
    }
}
