//! Charts as inline SVG: lines and bars, with axes, a grid, a legend, and a title on each mark for the pointer.
//!
//! Colours are classes, so the page's style decides them for light and dark. Text is never in a series' colour.

use maud::{Markup, PreEscaped, html};

/// A line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// In order of x.
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over one pair of axes.
#[derive(Clone, Debug)]
pub(super) struct LineChart<'t> {
    pub(super) title: &'t str,
    pub(super) unit: Unit,
    /// Places and texts of the x axis.
    pub(super) x_ticks: Vec<(f64, String)>,
    pub(super) lines: Vec<Line>,
    /// A logarithmic y axis: for latencies, which differ by orders.
    pub(super) logarithmic: bool,
}

/// What the y axis measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Milliseconds, shown with the unit that fits.
    Latency,
    /// Per second.
    Rate,
}

/// Bars, from the left.
#[derive(Clone, Debug)]
pub(super) struct BarChart<'t> {
    pub(super) title: &'t str,
    pub(super) bars: Vec<(String, f64, String)>,
}

impl LineChart<'_> {
    /// The chart; nothing where there is nothing to draw.
    pub(super) fn draw(&self) -> Markup {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        if points().count() == 0 {
            return html! {};
        }
        let (x_low, x_high) = bounds(points().map(|(x, _)| *x).chain(self.x_ticks.iter().map(|(x, _)| *x)));
        let axis = Axis::new(points().map(|(_, y)| *y), self.logarithmic);
        let x_at = |x: f64| LEFT + (x - x_low) / (x_high - x_low).max(f64::EPSILON) * (WIDTH - LEFT - RIGHT);
        let y_at = |y: f64| TOP + (1.0 - axis.share(y)) * (HEIGHT - TOP - BOTTOM);
        html! {
            figure {
                figcaption { (self.title) span.unit { (self.unit.caption()) } }
                (legend(&self.lines))
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.title) {
                    @for tick in axis.ticks() {
                        line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(round(y_at(tick))) y2=(round(y_at(tick))) {}
                        text.tick x=(LEFT - 8.0) y=(round(y_at(tick) + 4.0)) text-anchor="end" { (self.unit.show(tick)) }
                    }
                    @for (x, text) in &self.x_ticks {
                        text.tick x=(round(x_at(*x))) y=(HEIGHT - BOTTOM + 20.0) text-anchor="middle" { (text) }
                    }
                    line.axis x1=(LEFT) x2=(WIDTH - RIGHT) y1=(HEIGHT - BOTTOM) y2=(HEIGHT - BOTTOM) {}
                    @for (index, line) in self.lines.iter().enumerate() {
                        polyline class=(format!("line s{}", index % COLOURS))
                            points=(path(&line.points, x_at, y_at)) {}
                        @if line.points.len() <= MARKS_MAX {
                            @for (x, y) in &line.points {
                                circle class=(format!("mark s{}", index % COLOURS)) r="3"
                                    cx=(round(x_at(*x))) cy=(round(y_at(*y))) {
                                    title { (line.name) ": " (self.unit.show(*y)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Unit {
    const fn caption(self) -> &'static str {
        match self {
            Self::Latency => "",
            Self::Rate => " per second",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Latency => latency(value),
            Self::Rate => number(value),
        }
    }
}

impl BarChart<'_> {
    /// The chart; nothing where there is nothing to draw.
    pub(super) fn draw(&self) -> Markup {
        let most = self.bars.iter().map(|(_, value, _)| *value).fold(0.0, f64::max);
        if most <= 0.0 {
            return html! {};
        }
        html! {
            figure {
                figcaption { (self.title) }
                div.bars {
                    @for (name, value, text) in &self.bars {
                        span.name { (name) }
                        span.track { span.bar style=(format!("width:{:.2}%", value / most * 100.0)) {} }
                        span.value { (text) }
                    }
                }
            }
        }
    }
}

fn legend(lines: &[Line]) -> Markup {
    html! {
        @if lines.len() > 1 {
            p.legend {
                @for (index, line) in lines.iter().enumerate() {
                    span { i class=(format!("key s{}", index % COLOURS)) {} (line.name) }
                }
            }
        }
    }
}

fn path(points: &[(f64, f64)], x_at: impl Fn(f64) -> f64, y_at: impl Fn(f64) -> f64) -> PreEscaped<String> {
    let pairs: Vec<String> =
        points.iter().map(|(x, y)| format!("{},{}", round(x_at(*x)), round(y_at(*y)))).collect();
    PreEscaped(pairs.join(" "))
}

/// The y axis.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64> + Clone, logarithmic: bool) -> Self {
        let highest = values.clone().fold(0.0, f64::max);
        let lowest = values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        if logarithmic && lowest.is_finite() && highest > lowest * 4.0 {
            return Self {
                low: 10_f64.powf(lowest.log10().floor()),
                high: 10_f64.powf(highest.log10().ceil()),
                logarithmic,
            };
        }
        let step = step(highest.max(f64::MIN_POSITIVE));
        Self { low: 0.0, high: (highest / step).ceil().max(1.0) * step, logarithmic: false }
    }

    fn share(&self, value: f64) -> f64 {
        if self.logarithmic {
            let value = value.max(self.low);
            return (value.log10() - self.low.log10())
                / (self.high.log10() - self.low.log10()).max(f64::EPSILON);
        }
        (value - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let (first, last) = (self.low.log10().round() as i32, self.high.log10().round() as i32);
            return (first..=last).map(|power| 10_f64.powi(power)).collect();
        }
        let step = step(self.high);
        (0..=(self.high / step).round() as u32).map(|count| f64::from(count) * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten: four to eight of it make the whole.
fn step(high: f64) -> f64 {
    let rough = high / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let digit = rough / power;
    power
        * if digit <= 1.0 {
            1.0
        } else if digit <= 2.0 {
            2.0
        } else if digit <= 5.0 {
            5.0
        } else {
            10.0
        }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Milliseconds for people: in the unit that fits, with three digits that count.
pub(super) fn latency(ms: f64) -> String {
    match ms.abs() {
        0.0 => "0".to_owned(),
        v if v < 1.0 => format!("{} µs", number(ms * 1e3)),
        v if v < 1e3 => format!("{} ms", number(ms)),
        v if v < 1e6 => format!("{} s", number(ms / 1e3)),
        v if v < 3.6e7 => format!("{} min", number(ms / 6e4)),
        _ => format!("{} h", number(ms / 3.6e6)),
    }
}

/// A number for people: three digits that count.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 1e7 => format!("{:.0} M", value / 1e6),
        v if v >= 10_000.0 => format!("{:.0} k", value / 1000.0),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => trimmed(format!("{value:.1}")),
        v if v >= 1.0 => trimmed(format!("{value:.2}")),
        _ => trimmed(format!("{value:.3}")),
    }
}

fn trimmed(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 32.0;
/// As many as the style has.
const COLOURS: usize = 6;
/// More would be a smear.
const MARKS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ticks() {
        assert_eq!(Axis::new([3.0, 87.0].into_iter(), false).ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(Axis::new([0.4, 87.0].into_iter(), true).ticks(), [0.1, 1.0, 10.0, 100.0]);
        assert_eq!(number(0.1570), "0.157");
        assert_eq!(number(12_345.0), "12 k");
    }

    #[test]
    fn latencies_have_the_unit_that_fits() {
        for (ms, text) in [
            (0.0, "0"),
            (0.25, "250 µs"),
            (1.0, "1 ms"),
            (999.4, "999 ms"),
            (1171.0, "1.17 s"),
            (100_000.0, "100 s"),
            (13_489_000.0, "225 min"),
            (1e8, "27.8 h"),
        ] {
            assert_eq!(latency(ms), text);
        }
    }
}
