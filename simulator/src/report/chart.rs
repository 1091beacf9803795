//! Charts as inline SVG: lines by plotters, with axes, a grid and a legend, and bars by the page's own style.
//!
//! What plotters draws has the colours of the light page as attributes; the page's style knows them by those and has
//! others for dark. So it has fonts and their sizes. Text is never in a series' colour.

use std::ops::Range;

use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, DefaultFormatting, KeyPointHint, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

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

type Drawn<'s, T> = Result<T, DrawingAreaErrorKind<<SVGBackend<'s> as DrawingBackend>::ErrorType>>;

impl LineChart<'_> {
    /// The chart; nothing where there is nothing to draw.
    pub(super) fn draw(&self) -> Markup {
        if self.lines.iter().all(|line| line.points.is_empty()) {
            return html! {};
        }
        let mut svg = String::new();
        let drawn = self.draw_into(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area());
        // In a page it needs none, and no address in it is looked up.
        let svg = svg.replacen(NAMESPACE, "", 1);
        html! {
            figure {
                figcaption { (self.title) span.unit { (self.unit.caption()) } }
                (legend(&self.lines))
                @match drawn {
                    Ok(()) => div.chart role="img" aria-label=(self.title) { (PreEscaped(svg)) },
                    Err(error) => p { "It can't be drawn: " (error) },
                }
            }
        }
    }

    fn draw_into<'s>(&self, area: &DrawingArea<SVGBackend<'s>, Shift>) -> Drawn<'s, ()> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = bounds(points().map(|(x, _)| *x).chain(self.x_ticks.iter().map(|(x, _)| *x)));
        let x = x.start..x.end.max(x.start + f64::EPSILON);
        let y = bounds(points().map(|(_, y)| *y).filter(|y| *y > 0.0));
        if self.logarithmic && y.end > y.start * 4.0 {
            let powers = 10_f64.powf(y.start.log10().floor())..10_f64.powf(y.end.log10().ceil());
            return self.draw_over(area, x, powers.start, powers.log_scale());
        }
        // Where all is zero there is an axis, too.
        let top = if y.end > 0.0 { y.end * HEADROOM } else { 1.0 };
        self.draw_over(area, x, 0.0, 0.0..top)
    }

    fn draw_over<'s, Y>(
        &self,
        area: &DrawingArea<SVGBackend<'s>, Shift>,
        x: Range<f64>,
        lowest: f64,
        y: Y,
    ) -> Drawn<'s, ()>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let x = Ticked { axis: x.into(), at: self.x_ticks.iter().map(|(x, _)| *x).collect() };
        let mut chart = ChartBuilder::on(area)
            .margin(MARGIN)
            .margin_right(RIGHT)
            .x_label_area_size(BELOW)
            .y_label_area_size(BESIDE)
            .build_cartesian_2d(x, y)?;
        let tick = |at: &f64| self.x_ticks.iter().find(|(x, _)| x == at).map_or("", |(_, text)| text);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS.stroke_width(2))
            .set_tick_mark_size(LabelAreaPosition::Bottom, BELOW_TICK)
            .label_style(("sans-serif", TEXT_SIZE))
            .x_label_formatter(&|x| tick(x).to_owned())
            .y_labels(Y_LABELS)
            .y_label_formatter(&|y| self.unit.show(*y))
            .draw()?;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let points = line.points.iter().map(|(x, y)| (*x, y.max(lowest)));
            chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(4)))?;
            if line.points.len() <= MARKS_MAX {
                chart.draw_series(points.map(|point| Circle::new(point, 6, colour.filled())))?;
            }
        }
        area.present()
    }
}

/// An axis with ticks where they are wanted.
struct Ticked {
    axis: RangedCoordf64,
    at: Vec<f64>,
}

impl Ranged for Ticked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.axis.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.at.clone()
    }

    fn range(&self) -> Range<f64> {
        self.axis.range()
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
                    span { i class=(format!("key s{}", index % COLOURS.len())) {} (line.name) }
                }
            }
        }
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> Range<f64> {
    let outer = f64::INFINITY..f64::NEG_INFINITY;
    values.fold(outer, |range, value| range.start.min(value)..range.end.max(value))
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

/// Two pixels for each of the page's, since plotters knows only whole ones.
const SIZE: (u32, u32) = (1640, 520);
const NAMESPACE: &str = " xmlns=\"http://www.w3.org/2000/svg\"";
const MARGIN: u32 = 16;
/// Half of the last text below.
const RIGHT: u32 = 56;
const BELOW: u32 = 56;
/// So that the first text below the axis is clear of the lowest one beside it.
const BELOW_TICK: i32 = 14;
const BESIDE: u32 = 112;
const TEXT_SIZE: u32 = 24;
const Y_LABELS: usize = 6;
/// Above the highest point.
const HEADROOM: f64 = 1.08;
/// As the style of the light page has them, and in its order.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x2a, 0x78, 0xd6),
    RGBColor(0xeb, 0x68, 0x34),
    RGBColor(0x1b, 0xaf, 0x7a),
    RGBColor(0x4a, 0x3a, 0xa7),
    RGBColor(0xe3, 0x49, 0x48),
    RGBColor(0x89, 0x87, 0x81),
];
const GRID: RGBColor = RGBColor(0xe1, 0xe0, 0xd9);
const AXIS: RGBColor = RGBColor(0xc3, 0xc2, 0xb7);
/// More would be a smear.
const MARKS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, logarithmic: bool) -> String {
        let lines = vec![Line { name: "line".to_owned(), points }];
        let x_ticks = vec![(0.0, "noon".to_owned()), (9.0, "nine".to_owned())];
        LineChart { title: "T", unit: Unit::Latency, x_ticks, lines, logarithmic }.draw().into_string()
    }

    #[test]
    fn a_chart_has_its_ticks_and_is_drawn_for_any_points() {
        let page = chart(vec![(0.0, 0.4), (3.0, 0.0), (9.0, 87.0)], true);
        for text in ["noon", "nine", "1 ms", "10 ms", "100 ms", "aria-label=\"T\""] {
            assert!(page.contains(text), "{text}: {page}");
        }
        for points in
            [vec![(0.0, 0.0)], vec![(4.0, 7.0)], vec![(0.0, 0.0), (9.0, 0.0)], vec![(1.0, 1e9), (2.0, 1e-9)]]
        {
            for logarithmic in [false, true] {
                let page = chart(points.clone(), logarithmic);
                assert!(
                    page.contains("<svg") && !page.contains("NaN") && !page.contains("http"),
                    "{points:?}: {page}"
                );
            }
        }
        assert_eq!(chart(Vec::new(), true), "");
    }

    #[test]
    fn the_style_knows_every_colour_that_is_drawn() {
        let style = include_str!("page.css");
        for RGBColor(red, green, blue) in COLOURS.into_iter().chain([GRID, AXIS]) {
            let colour = format!("#{red:02X}{green:02X}{blue:02X}");
            assert!(style.contains(&format!("[stroke=\"{colour}\"]")), "{colour}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
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
