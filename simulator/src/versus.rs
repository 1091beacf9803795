//! Targets beside each other: what a verification costs each server, and how often the first one's that is.
//!
//! The targets take turns, and a ratio is taken inside a round, so that what the machine's neighbours do falls on all
//! of them. The first target is what the others are held against.

use serde::Serialize;

use crate::cost::Costs;
use crate::results::Results;

/// What is known of one target.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// CPU of the server per operation.
    pub(crate) server_ms: Option<Spread>,
    /// The same in bounds of its cryptography.
    pub(crate) bounds: Option<Spread>,
    /// The same in those of the first target.
    pub(crate) ratio: Option<Spread>,
}

/// A figure of several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// A row for each run; none when they did not take turns with each other.
pub(crate) fn rows(runs: &[Results]) -> Vec<Row> {
    let Some((first, _)) = runs.split_first() else { return Vec::new() };
    let rounds = first.turns.len();
    if rounds == 0 || runs.iter().any(|run| run.turns.len() != rounds) {
        return Vec::new();
    }
    runs.iter().map(|run| row(run, &first.turns)).collect()
}

fn row(run: &Results, first: &[Costs]) -> Row {
    let summary = run.summary(&run.main_series).unwrap_or_default();
    let each = |of: fn(&Costs) -> Option<f64>| Spread::of(run.turns.iter().map(of));
    let ratios = run.turns.iter().zip(first).map(|(own, first)| Some(own.server_ms()? / first.server_ms()?));
    Row {
        name: run.label.clone(),
        target: run.target.clone(),
        done: summary.count,
        failed: run.series.values().map(crate::results::Series::failed).sum(),
        p50_ms: summary.p50_ms,
        p99_ms: summary.p99_ms,
        server_ms: each(Costs::server_ms),
        bounds: each(Costs::server_bounds),
        ratio: Spread::of(ratios),
    }
}

impl Spread {
    /// Of figures that are there in every round.
    fn of(figures: impl Iterator<Item = Option<f64>>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.collect::<Option<_>>()?;
        figures.sort_by(f64::total_cmp);
        let median = *figures.get(figures.len() / 2)?;
        Some(Self { median, least: *figures.first()?, most: *figures.last()? })
    }

    /// For people.
    pub(crate) fn show(&self, digits: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.digits$} [{least:.digits$}..{most:.digits$}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, server_ms: &[f64]) -> Results {
        let mut run = Results::new("edge", name, "t", "handshake");
        let costs = |ms: &f64| Costs {
            server_cpu_ms: [("7".to_owned(), ms * 10.0)].into(),
            operations: 10,
            least_ms: Some(1.0),
            ..Costs::default()
        };
        run.turns = server_ms.iter().map(costs).collect();
        run
    }

    #[test]
    fn ratios_are_taken_inside_a_round() {
        // The second round was twice as dear for both.
        let rows = rows(&[run("ours", &[1.0, 2.0, 1.0]), run("other", &[3.0, 6.0, 4.0])]);
        let [ours, other] = rows.as_slice() else { panic!("two rows") };
        assert_eq!(ours.ratio, Some(Spread { median: 1.0, least: 1.0, most: 1.0 }));
        assert_eq!(other.ratio, Some(Spread { median: 3.0, least: 3.0, most: 4.0 }));
        assert_eq!(other.bounds.map(|bounds| bounds.most), Some(60.0));
        assert_eq!(other.server_ms.map(|ms| ms.show(1)).as_deref(), Some("4.0 [3.0..6.0]"));
    }

    #[test]
    fn runs_that_took_no_turns_and_figures_that_are_missing_have_no_ratio() {
        assert!(rows(&[run("a", &[]), run("b", &[])]).is_empty());
        assert!(rows(&[run("a", &[1.0]), run("b", &[1.0, 1.0])]).is_empty());
        let mut unwatched = run("b", &[1.0]);
        unwatched.turns[0].server_cpu_ms.clear();
        assert_eq!(rows(&[run("a", &[1.0]), unwatched])[1].ratio, None);
    }
}
