//! The HTML page of one or more runs. It needs nothing but itself: no script, no network, light and dark.

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{BarChart, Line, LineChart, Unit, latency, number};
use super::cost_lines;
use crate::results::{Interval, Results, Summary};
use crate::span;
use crate::versus::{self, Spread};

/// The page.
pub(crate) fn html(runs: &[Results]) -> String {
    let title = match runs {
        [one] => format!("muster-sim {}: {}", one.command, one.target),
        several => format!("muster-sim: {} runs", several.len()),
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                @if runs.len() > 1 {
                    (comparison(runs))
                }
                @for (number, run) in runs.iter().enumerate() {
                    (section(run, &name(run, number), runs.len() > 1))
                }
            }
        }
    }
    .into_string()
}

fn name(run: &Results, number: usize) -> String {
    if run.label.is_empty() { format!("run {}", number + 1) } else { run.label.clone() }
}

/// What differs between runs, first.
fn comparison(runs: &[Results]) -> Markup {
    let lines = runs
        .iter()
        .enumerate()
        .map(|(number, run)| percentile_line(run, &run.main_series, name(run, number)));
    let chart = percentiles("Latency by percentile, main series of each run", lines.flatten().collect());
    let cpu = |of: fn(&Results) -> Option<f64>| -> Vec<(String, f64, String)> {
        let named = runs.iter().enumerate();
        named.filter_map(|(n, run)| of(run).map(|ms| (name(run, n), ms, format!("{ms:.3} ms")))).collect()
    };
    let unit = runs.first().map_or("", |run| run.costs.unit.name());
    let mut server = cpu(|run| run.costs.server_ms());
    if !server.is_empty()
        && let Some(least) = runs.iter().find_map(least_ms)
    {
        server.push(("cryptography alone".to_owned(), least, format!("{least:.3} ms")));
    }
    html! {
        section {
            h2 { "Comparison" }
            div.wide { table {
                thead { tr { th { "run" } th { "series" } (summary_heads()) } }
                tbody {
                    @for (number, run) in runs.iter().enumerate() {
                        @if let Some(summary) = run.summary(&run.main_series) {
                            tr { td { (name(run, number)) } td { (run.main_series) } (summary_cells(&summary)) }
                        }
                    }
                }
            } }
            (turns(runs))
            (chart.draw())
            (BarChart { title: &format!("CPU of the server per {unit}"), bars: server }.draw())
            (BarChart { title: &format!("CPU of the client per {unit}"), bars: cpu(|run| run.costs.client_ms()) }.draw())
        }
    }
}

/// What targets that took turns cost, each held against the first.
fn turns(runs: &[Results]) -> Markup {
    let rows = versus::rows(runs);
    let (Some(first), Some(run)) = (rows.first(), runs.first()) else { return html! {} };
    let show =
        |figure: Option<Spread>, digits| figure.map_or_else(|| "not watched".to_owned(), |f| f.show(digits));
    html! {
        h3 { "CPU of the server per " (run.costs.unit.name()) }
        p.facts {
            "Median [least..most] of " (run.turns.len()) " rounds, in which the targets took turns. A ratio is taken inside a round."
        }
        div.wide { table {
            thead { tr { th { "target" } th { "ms" } th { "x its cryptography" } th { "x " (first.name) } } }
            tbody {
                @for row in &rows {
                    tr { td { (row.name) } td { (show(row.server_ms, 3)) } td { (show(row.bounds, 2)) } td { (show(row.ratio, 2)) } }
                }
            }
        } }
    }
}

fn section(run: &Results, name: &str, named: bool) -> Markup {
    let points = thin(&run.intervals);
    html! {
        section {
            @if named { h2 { (name) } }
            p.facts {
                (run.command) " at " code { (run.target) } ", " (span::show(Duration::from_secs_f64(run.took_s.max(0.0))))
                @if run.shards > 1 { ", " (run.shards) " shards" }
                @for (fact, value) in &run.facts { ", " (fact.replace('_', " ")) " " (number(*value)) }
            }
            (tiles(run))
            (checks(run))
            (table(run))
            (over_time(run, &points).draw())
            (rates(run, &points).draw())
            (percentiles("Latency by percentile", run.series.keys().filter_map(|series| {
                percentile_line(run, series, series.clone())
            }).collect()).draw())
            (errors(run).draw())
            (cpu(run))
            @let costs = cost_lines(&run.costs);
            @if !costs.is_empty() {
                pre { @for line in &costs { (line) "\n" } }
            }
        }
    }
}

fn tiles(run: &Results) -> Markup {
    let Some(summary) = run.summary(&run.main_series) else { return html! {} };
    html! {
        div.tiles {
            div { b { (number(summary.rate_per_s)) } span { (run.main_series) " per second" } }
            div { b { (latency(summary.p50_ms)) } span { "p50" } }
            div { b { (latency(summary.p99_ms)) } span { "p99" } }
            div { b { (latency(summary.p999_ms)) } span { "p99.9" } }
            div { b { (summary.failed) } span { "failed of " (summary.count + summary.failed) } }
            @if let Some(ms) = run.costs.server_ms() {
                div { b { (latency(ms)) } span { "server CPU per " (run.costs.unit.name()) } }
            }
        }
    }
}

fn checks(run: &Results) -> Markup {
    html! {
        @if !run.checks.is_empty() {
            ul.checks {
                @for check in &run.checks {
                    li.held[check.held].missed[!check.held] {
                        b { @if check.held { "✓ held" } @else { "✗ missed" } } " " code { (check.name) } " " (check.detail)
                    }
                }
            }
        }
    }
}

fn table(run: &Results) -> Markup {
    html! {
        div.wide { table {
            thead { tr { th { "series" } (summary_heads()) } }
            tbody {
                @for name in run.series.keys() {
                    @if let Some(summary) = run.summary(name) {
                        tr { td { (name) } (summary_cells(&summary)) }
                    }
                }
            }
        } }
    }
}

fn summary_heads() -> Markup {
    html! { th { "done" } th { "failed" } th { "per s" } th { "mean" } th { "p50" } th { "p90" } th { "p99" } th { "p99.9" } th { "max" } }
}

fn summary_cells(s: &Summary) -> Markup {
    html! {
        td { (s.count) } td { (s.failed) } td { (number(s.rate_per_s)) } td { (latency(s.mean_ms)) } td { (latency(s.p50_ms)) }
        td { (latency(s.p90_ms)) } td { (latency(s.p99_ms)) } td { (latency(s.p999_ms)) } td { (latency(s.max_ms)) }
    }
}

fn over_time<'t>(run: &Results, points: &[(f64, Interval)]) -> LineChart<'t> {
    let percentile = |name: &str, percentile: f64| Line {
        name: name.to_owned(),
        points: points
            .iter()
            .filter_map(|(at, interval)| {
                let latency = interval.series.get(&run.main_series)?;
                Some((*at, latency.percentile_ms(percentile)))
            })
            .collect(),
    };
    LineChart {
        title: "Latency over time",
        unit: Unit::Latency,
        x_ticks: time_ticks(points),
        lines: vec![percentile("p50", 50.0), percentile("p99", 99.0), percentile("p99.9", 99.9)],
        logarithmic: true,
    }
}

fn rates<'t>(run: &Results, points: &[(f64, Interval)]) -> LineChart<'t> {
    let width = points
        .windows(2)
        .filter_map(|pair| Some(pair.get(1)?.0 - pair.first()?.0))
        .fold(f64::INFINITY, f64::min);
    // The last one was cut off by the end of the run.
    let points = if points.len() > 2 { points.get(..points.len() - 1).unwrap_or(points) } else { points };
    let per_s = |count: u64| if width.is_finite() { count as f64 / width } else { count as f64 };
    let done = points.iter().map(|(at, interval)| {
        (*at, per_s(interval.series.get(&run.main_series).map_or(0, crate::results::Latency::count)))
    });
    let mut lines = vec![Line { name: run.main_series.clone(), points: done.collect() }];
    if points.iter().any(|(_, interval)| interval.failed() > 0) {
        let failed = points.iter().map(|(at, interval)| (*at, per_s(interval.failed())));
        lines.push(Line { name: "failed".to_owned(), points: failed.collect() });
    }
    LineChart {
        title: "Rate over time",
        unit: Unit::Rate,
        x_ticks: time_ticks(points),
        lines,
        logarithmic: false,
    }
}

fn percentiles(title: &str, lines: Vec<Line>) -> LineChart<'_> {
    let x_ticks =
        PERCENTILES.iter().map(|percentile| (nines(*percentile), format!("p{percentile}"))).collect();
    LineChart { title, unit: Unit::Latency, x_ticks, lines, logarithmic: true }
}

fn percentile_line(run: &Results, series: &str, name: String) -> Option<Line> {
    let latency = &run.series.get(series).filter(|series| series.hdr.count() > 0)?.hdr;
    // A percentile of fewer than a handful says nothing.
    let known =
        |percentile: &f64| (1.0 - percentile / 100.0) * latency.count() as f64 >= 1.0 || *percentile <= 50.0;
    let points =
        PERCENTILES.iter().copied().filter(known).map(|p| (nines(p), latency.percentile_ms(p))).collect();
    Some(Line { name, points })
}

/// Each further nine has the same width.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

fn errors<'t>(run: &Results) -> BarChart<'t> {
    let mut bars = Vec::new();
    for (name, series) in &run.series {
        for (reason, count) in &series.errors {
            bars.push((format!("{name}: {reason}"), *count as f64, count.to_string()));
        }
    }
    bars.sort_by(|a, b| b.1.total_cmp(&a.1));
    bars.truncate(BARS_MAX);
    BarChart { title: "Failures by reason", bars }
}

fn cpu(run: &Results) -> Markup {
    let costs = &run.costs;
    let named = [
        ("server", costs.server_ms()),
        ("client", costs.client_ms()),
        ("cryptography of the server alone", least_ms(run)),
        ("bare client", costs.bare.map(|bare| bare.bare_ms)),
    ];
    let bar = |(name, ms): (&str, Option<f64>)| ms.map(|ms| (name.to_owned(), ms, format!("{ms:.3} ms")));
    let title = format!("CPU per {}", costs.unit.name());
    BarChart { title: &title, bars: named.into_iter().filter_map(bar).collect() }.draw()
}

/// What an operation's cryptography takes the server.
fn least_ms(run: &Results) -> Option<f64> {
    let costs = &run.costs;
    costs
        .least_ms
        .filter(|least| costs.operations > 0 && *least > 0.0)
        .map(|least| least / costs.operations as f64)
}

/// The intervals as at most [`POINTS_MAX`], each the exact sum of its seconds.
fn thin(intervals: &BTreeMap<u64, Interval>) -> Vec<(f64, Interval)> {
    let first = intervals.keys().next().copied().unwrap_or(0);
    let seconds = intervals.keys().next_back().map_or(0, |last| last - first + 1);
    let width = seconds.div_ceil(POINTS_MAX).max(1);
    let mut sums: BTreeMap<u64, Interval> = BTreeMap::new();
    for (at, interval) in intervals {
        sums.entry((at - first) / width).or_default().add(interval.clone());
    }
    sums.into_iter().map(|(at, sum)| ((first + at * width) as f64, sum)).collect()
}

/// Round times, at most eight of them.
fn time_ticks(points: &[(f64, Interval)]) -> Vec<(f64, String)> {
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { return Vec::new() };
    let step = STEPS_S.into_iter().find(|step| (last - first) / step <= 7.0).unwrap_or((last - first) / 7.0);
    let text = |at: f64| match at {
        at if step < 60.0 => format!("{at:.0} s"),
        at if step < 3600.0 => format!("{:.0} min", at / 60.0),
        at if step < 86_400.0 => format!("{:.0} h", at / 3600.0),
        at => format!("{:.0} d", at / 86_400.0),
    };
    let count = ((last - first) / step.max(1.0)).floor() as u32;
    (0..=count).map(|n| first + f64::from(n) * step).map(|at| (at, text(at))).collect()
}

const PERCENTILES: [f64; 7] = [0.0, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99];
const POINTS_MAX: u64 = 300;
const BARS_MAX: usize = 20;
/// Steps of a time axis.
const STEPS_S: [f64; 22] = [
    1.0,
    2.0,
    5.0,
    10.0,
    15.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    900.0,
    1800.0,
    3600.0,
    7200.0,
    14_400.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    432_000.0,
    864_000.0,
    2_592_000.0,
];

const STYLE: &str = include_str!("page.css");
