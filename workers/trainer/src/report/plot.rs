//! One chart: two axes and marks between them, drawn as SVG.
//!
//! The plotting library only gets positions as shares of an axis, from 0 to 1 whatever the values: it never gets a number that it cannot
//! draw.

use super::figures::{decimals, significant, ten_to};
use maud::{Markup, PreEscaped, html};
use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
    element::{Circle, EmptyElement, PathElement, Rectangle, Text},
    prelude::{Cartesian2d, DrawingAreaErrorKind, IntoDrawingArea, IntoFont, SVGBackend},
    style::{
        Color, RGBColor, ShapeStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};
use std::ops::Range;

/// Units of a chart per pixel; the library draws in whole units.
const FINE: i32 = 10;
/// Size of letters in pixels.
const LETTERS: f64 = 12.5;
/// Factor by which the library divides a font size when it writes it.
const LIBRARY_FONT_SCALE: f64 = 1.24;
/// Larger values are drawn at this one.
const VALUE_MAX: f64 = 1e150;

/// Role of a line or area. The style sheet gives each role one colour for light and one for dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    /// Text.
    Text,
    /// Text at axes.
    Faint,
    /// Grid lines.
    Grid,
    /// The model, or the most important mark.
    Accent,
    /// The object of a comparison.
    Other,
    /// Missing or wrong.
    Bad,
    /// Reference without effect, or perfect; dashed.
    Guide,
    /// The chosen value.
    Mark,
}

impl Ink {
    /// Every ink.
    pub(super) const ALL: [Self; 8] =
        [Self::Text, Self::Faint, Self::Grid, Self::Accent, Self::Other, Self::Bad, Self::Guide, Self::Mark];

    /// Returns the colour of the ink.
    pub(super) fn colour(self) -> Colour {
        let (rgb, variable) = match self {
            Self::Text => ([0x16, 0x20, 0x1f], "--ink"),
            Self::Faint => ([0x4f, 0x5c, 0x5b], "--ink-2"),
            Self::Grid => ([0xd8, 0xdf, 0xde], "--line"),
            Self::Accent => ([0x0b, 0x65, 0x5f], "--accent"),
            Self::Other => ([0xb4, 0x53, 0x09], "--other"),
            Self::Bad => ([0xa8, 0x23, 0x1c], "--bad"),
            Self::Guide => ([0x7d, 0x89, 0x88], "--edge"),
            Self::Mark => ([0x46, 0x53, 0x52], "--mark"),
        };
        Colour { rgb, variable }
    }

    fn color(self) -> RGBColor {
        let [red, green, blue] = self.colour().rgb;
        RGBColor(red, green, blue)
    }
}

/// The colour of an ink.
#[derive(Debug, Clone, Copy)]
pub(super) struct Colour {
    /// Red, green and blue in the SVG, used without a style sheet.
    pub(super) rgb: [u8; 3],
    /// Variable of the colour in the style sheet.
    pub(super) variable: &'static str,
}

/// An axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    /// Quantity and unit.
    pub(super) name: String,
    from: f64,
    to: f64,
    is_log: bool,
    ticks: Vec<(f64, String)>,
    has_grid: bool,
}

/// Returns the smallest and the largest finite value, limited to [`VALUE_MAX`].
fn range_of(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.into_iter().filter(|value| value.is_finite());
    finite.map(|value| value.clamp(-VALUE_MAX, VALUE_MAX)).fold(None, |range: Option<(f64, f64)>, value| {
        let (from, to) = range.unwrap_or((value, value));
        Some((from.min(value), to.max(value)))
    })
}

impl Axis {
    /// A linear axis with a margin around the values and about `ticks_max` ticks; 0 to 1 without a value.
    pub(super) fn linear(name: impl Into<String>, values: impl IntoIterator<Item = f64>, ticks_max: usize) -> Self {
        let (from, to) = range_of(values).unwrap_or((0.0, 1.0));
        let margin = ((to - from) * 0.05).max(from.abs().max(to.abs()) * 1e-6);
        let (from, to) = if margin > 0.0 { (from - margin, to + margin) } else { (from - 0.5, to + 0.5) };
        let ticks = round_ticks(from, to, ticks_max);
        Self { name: name.into(), from, to, is_log: false, ticks, has_grid: true }
    }

    /// A linear axis from 0 to the largest of the values and `at_least`.
    pub(super) fn from_zero(name: impl Into<String>, values: impl IntoIterator<Item = f64>, at_least: f64) -> Self {
        let largest = range_of(values).map_or(at_least, |(_, to)| to.max(at_least));
        let to = if largest > 0.0 { largest * 1.04 } else { 1.0 };
        Self { name: name.into(), from: 0.0, to, is_log: false, ticks: round_ticks(0.0, to, 6), has_grid: true }
    }

    /// An axis of shares from 0 to 100 %.
    pub(super) fn shares(name: impl Into<String>) -> Self {
        Self::shares_to(name, 1.0)
    }

    /// An axis of shares from 0 to slightly more than `largest`, in percent.
    pub(super) fn shares_to(name: impl Into<String>, largest: f64) -> Self {
        let largest = if largest.is_finite() { largest.clamp(0.0, 1.0) } else { 1.0 };
        let steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25];
        let step = steps.into_iter().find(|step| largest / step <= 5.0).unwrap_or(0.25);
        let count = ((largest / step - 1e-9).ceil() as usize).clamp(1, 5);
        let tick = |at: usize| (at as f64 * step, format!("{} %", decimals(at as f64 * step * 100.0, 0)));
        let to = (count as f64 * step).min(1.0);
        Self { name: name.into(), from: 0.0, to, is_log: false, ticks: (0..=count).map(tick).collect(), has_grid: true }
    }

    /// A logarithmic axis with a margin around the values above 0; 0.1 to 10 without one.
    pub(super) fn log(name: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        let logs = values.into_iter().filter(|value| *value > 0.0).map(f64::log10);
        let (from, to) = range_of(logs).unwrap_or((-1.0, 1.0));
        let margin = ((to - from) * 0.05).max(0.02);
        let (from, to) = (from - margin, to + margin);
        Self { name: name.into(), from, to, is_log: true, ticks: log_ticks(from, to), has_grid: true }
    }

    /// An axis of rows, from top to bottom.
    pub(super) fn rows(labels: impl IntoIterator<Item = String>) -> Self {
        let labels: Vec<String> = labels.into_iter().collect();
        let rows = labels.len().max(1) as f64;
        let ticks = labels.into_iter().enumerate().map(|(row, label)| (row as f64 + 0.5, label)).collect();
        Self { name: String::new(), from: rows, to: 0.0, is_log: false, ticks, has_grid: false }
    }

    /// An axis of equal steps, some of which have a tick.
    pub(super) fn steps(name: impl Into<String>, steps: usize, ticks: Vec<(f64, String)>) -> Self {
        Self { name: name.into(), from: 0.0, to: steps.max(1) as f64, is_log: false, ticks, has_grid: false }
    }

    /// Extends the axis beyond its end.
    pub(super) fn widened(mut self, by: f64) -> Self {
        self.to += by;
        self
    }

    /// Replaces the ticks.
    pub(super) fn with_ticks(mut self, ticks: Vec<(f64, String)>) -> Self {
        self.ticks = ticks;
        self
    }

    fn share_of(&self, place: f64) -> f64 {
        let share = (place - self.from) / (self.to - self.from);
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Position of a value from 0 to 1; a value beyond an end is at that end.
    fn at(&self, value: f64) -> f64 {
        let value = if value.is_nan() { 0.0 } else { value.clamp(-VALUE_MAX, VALUE_MAX) };
        self.share_of(match self.is_log {
            true if value > 0.0 => value.log10(),
            true => f64::MIN,
            false => value,
        })
    }

    /// Position and label of each tick.
    fn positioned_ticks(&self) -> Vec<(f64, &str)> {
        self.ticks.iter().map(|(value, label)| (self.at(*value), label.as_str())).collect()
    }
}

/// Round values between `from` and `to`.
fn round_ticks(from: f64, to: f64, ticks_max: usize) -> Vec<(f64, String)> {
    let rough = (to - from) / ticks_max.max(2) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough * 0.999);
    let Some(step) = step.filter(|step| step.is_normal()) else { return Vec::new() };
    let first = (from / step).ceil();
    let digits = (0..8).find(|digits| {
        let shifted = step * 10f64.powi(*digits);
        (shifted - shifted.round()).abs() < 1e-6 * shifted
    });
    let ticks = (0..=ticks_max + 1).map(|at| (first + at as f64) * step);
    let label = |value: f64| match digits {
        Some(digits) if value.abs() < 1e6 => decimals(value, digits.unsigned_abs() as usize),
        _ => significant(value, 3),
    };
    ticks.filter(|tick| tick.is_finite() && *tick <= to + step * 1e-6).map(|tick| (tick, label(tick))).collect()
}

/// Round values on a logarithmic axis between these powers of ten.
fn log_ticks(from: f64, to: f64) -> Vec<(f64, String)> {
    let label = |value: f64, power: i32| match value {
        value if (1e-4..1e5).contains(&value) => {
            decimals(value, usize::try_from(-power).unwrap_or(0)).trim_end_matches(".0").to_owned()
        }
        _ => ten_to(power),
    };
    let powers = (from.floor() as i32)..=(to.ceil() as i32);
    let within = |value: f64| (from..=to).contains(&value.log10());
    if to - from > 2.4 {
        let every = (((to - from) / 6.0).ceil() as i32).max(1);
        let ticks =
            powers.filter(|power| power % every == 0).map(|power| (10f64.powi(power), label(10f64.powi(power), power)));
        return ticks.filter(|(value, _)| value.is_normal() && within(*value)).collect();
    }
    let factors: &[f64] = if to - from > 1.3 { &[1.0, 3.0] } else { &[1.0, 2.0, 5.0] };
    let ticks: Vec<(f64, String)> = powers
        .flat_map(|power| factors.iter().map(move |factor| (factor * 10f64.powi(power), power)))
        .filter(|(value, _)| within(*value))
        .map(|(value, power)| (value, label(value, power)))
        .collect();
    if ticks.len() >= 3 { ticks } else { round_ticks(10f64.powf(from), 10f64.powf(to), 4) }
}

/// A mark between the axes; coordinates are values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mark {
    /// A line through points; width in tenths of a pixel.
    Line(Vec<(f64, f64)>, Ink, u32),
    /// A rectangle between two corners, with its opacity from 0 to 1.
    Bar((f64, f64), (f64, f64), Ink, f64),
    /// A point; radius in tenths of a pixel.
    Dot((f64, f64), Ink, i32),
    /// A text beside a point.
    Text((f64, f64), String, Ink, Side),
}

/// Side of its point on which a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The text ends at the point.
    Left,
    /// The text is centred above the point.
    Above,
}

/// An axis for the library: positions from 0 to 1, with those of its ticks.
struct Shares(Vec<f64>);

impl Ranged for Shares {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, share: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.0.clone() }
    }

    fn range(&self) -> Range<f64> {
        0.0..1.0
    }
}

/// A chart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plot {
    /// Width and height in pixels; the page scales the chart.
    pub(super) size: (u32, u32),
    /// Horizontal axis.
    pub(super) x: Axis,
    /// Vertical axis.
    pub(super) y: Axis,
    /// Drawn in this order.
    pub(super) marks: Vec<Mark>,
}

type Context<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Shares, Shares>>;
type DrawResult = Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl Plot {
    /// Renders the chart as SVG for a page; `label` is its text for screen readers.
    pub(super) fn svg(&self, label: &str) -> Markup {
        let (width, height) = (self.size.0 * FINE as u32, self.size.1 * FINE as u32);
        let mut svg = String::new();
        if self.draw(&mut svg, (width, height)).is_err() {
            return html! { p.absent { "This chart cannot be drawn." } };
        }
        // Drops the size that the library writes: the page determines it.
        let inner = svg.split_once('>').and_then(|(_, rest)| rest.rsplit_once("</svg>")).map_or("", |(inner, _)| inner);
        let view = format!("0 0 {width} {height}");
        html! { svg.plot viewBox=(view) role="img" aria-label=(label) xmlns="http://www.w3.org/2000/svg" { (PreEscaped(inner)) } }
    }

    fn draw(&self, to: &mut String, size: (u32, u32)) -> DrawResult {
        let root = SVGBackend::with_string(to, size).into_drawing_area();
        let (x_ticks, y_ticks) = (self.x.positioned_ticks(), self.y.positioned_ticks());
        let longest = y_ticks.iter().map(|(_, label)| width_of(label)).fold(0.0, f64::max);
        let left = ((longest + 12.0) as i32 * FINE).min(size.0 as i32 / 2);
        let bottom = if self.x.name.is_empty() { 22 } else { 40 } * FINE;
        let top = if self.y.name.is_empty() { 8 } else { 26 } * FINE;
        let shares = |ticks: &[(f64, &str)]| Shares(ticks.iter().map(|(at, _)| *at).collect());
        let mut chart = ChartBuilder::on(&root)
            .margin_top(top)
            .margin_right(18 * FINE)
            .x_label_area_size(bottom)
            .y_label_area_size(left)
            .build_cartesian_2d(shares(&x_ticks), shares(&y_ticks))?;
        let word = |ticks: &[(f64, &str)], at: f64| {
            ticks.iter().find(|(place, _)| *place == at).map_or(String::new(), |(_, label)| (*label).to_owned())
        };
        let (x_word, y_word) = (|at: &f64| word(&x_ticks, *at), |at: &f64| word(&y_ticks, *at));
        let line =
            |ink: Ink, width: u32| ShapeStyle { color: ink.color().to_rgba(), filled: false, stroke_width: width };
        let mut mesh = chart.configure_mesh();
        mesh.x_label_formatter(&x_word)
            .y_label_formatter(&y_word)
            .label_style(letters(Ink::Faint))
            .axis_style(line(Ink::Guide, 0))
            .bold_line_style(line(Ink::Grid, 10))
            .light_line_style(Ink::Grid.color().mix(0.0))
            .set_all_tick_mark_size(4 * FINE);
        if !self.x.has_grid {
            mesh.disable_x_mesh();
        }
        if !self.y.has_grid {
            mesh.disable_y_mesh();
        }
        mesh.draw()?;
        for mark in &self.marks {
            self.mark(&mut chart, mark)?;
        }
        drop(chart);
        let name = |text: &str, at: (i32, i32), h: HPos, v: VPos| {
            let style = letters(Ink::Text).pos(Pos::new(h, v));
            root.draw(&Text::new(text.to_owned(), at, style))
        };
        let (width, height) = (size.0 as i32, size.1 as i32);
        if !self.y.name.is_empty() {
            name(&self.y.name, (0, FINE), HPos::Left, VPos::Top)?;
        }
        if !self.x.name.is_empty() {
            name(&self.x.name, (width - 18 * FINE, height - 2 * FINE), HPos::Right, VPos::Bottom)?;
        }
        root.present()
    }

    fn mark(&self, chart: &mut Context<'_>, mark: &Mark) -> DrawResult {
        let place = |(x, y): (f64, f64)| (self.x.at(x), self.y.at(y));
        let area = chart.plotting_area();
        match mark {
            Mark::Line(points, ink, width) => {
                let points: Vec<(f64, f64)> = points.iter().map(|point| place(*point)).collect();
                if points.len() < 2 {
                    return Ok(());
                }
                let style = ShapeStyle { color: ink.color().to_rgba(), filled: false, stroke_width: *width };
                area.draw(&PathElement::new(points, style))
            }
            Mark::Bar(from, to, ink, opaque) => {
                let opaque = if opaque.is_finite() { opaque.clamp(0.0, 1.0) } else { 1.0 };
                // Three digits are enough for the eye.
                let opaque = (opaque * 1000.0).round() / 1000.0;
                let style = ShapeStyle { color: ink.color().mix(opaque), filled: true, stroke_width: 0 };
                let ((x0, y0), (x1, y1)) = (place(*from), place(*to));
                area.draw(&Rectangle::new([(x0.min(x1), y0.max(y1)), (x0.max(x1), y0.min(y1))], style))
            }
            Mark::Dot(at, ink, radius) => area.draw(&Circle::new(place(*at), *radius, ink.color().filled())),
            Mark::Text(at, text, ink, side) => {
                let (anchor, away) = match side {
                    Side::Left => (Pos::new(HPos::Right, VPos::Center), (0, 0)),
                    Side::Above => (Pos::new(HPos::Center, VPos::Bottom), (0, -8 * FINE)),
                };
                area.draw(&(EmptyElement::at(place(*at)) + Text::new(text.clone(), away, letters(*ink).pos(anchor))))
            }
        }
    }
}

/// Approximate width of a text in pixels; the reader's browser chooses the font.
fn width_of(word: &str) -> f64 {
    let width = |c: char| match c {
        'A'..='Z' => 8.4,
        '0'..='9' => 7.3,
        ' ' | '.' | ',' | 'i' | 'l' | 'j' | 't' | 'f' | 'r' | '-' => 5.0,
        c if c.is_ascii() => 7.2,
        _ => 9.0,
    };
    word.chars().map(width).sum()
}

fn letters(ink: Ink) -> TextStyle<'static> {
    let size = LETTERS * f64::from(FINE) * LIBRARY_FONT_SCALE;
    TextStyle { color: ink.color().to_backend_color(), ..TextStyle::from(("sans-serif", size).into_font()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks are round, within the axis, and few, whatever the values.
    #[test]
    fn ticks_are_round_and_few() {
        let labels = |axis: &Axis| axis.ticks.iter().map(|(_, label)| label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&Axis::linear("", [24.0, 36.0], 5)), ["25", "30", "35"]);
        assert_eq!(labels(&Axis::shares_to("", 0.71)), ["0 %", "20 %", "40 %", "60 %", "80 %"]);
        assert_eq!(labels(&Axis::log("", [0.1, 1000.0])), ["0.1", "1", "10", "100", "1000"]);
        assert_eq!(labels(&Axis::log("", [0.6, 2.3])), ["1.0", "1.5", "2.0"]);
        let values = [0.0, -0.0, 1.0, 1e-300, f64::MIN_POSITIVE, f64::MAX, f64::MIN, f64::NAN, f64::INFINITY, -5e-324];
        for a in values {
            for b in values {
                for axis in [Axis::linear("", [a, b], 5), Axis::log("", [a, b]), Axis::from_zero("", [a, b], 0.0)] {
                    assert!(axis.from.is_finite() && axis.to.is_finite() && axis.ticks.len() < 14, "{a} {b} {axis:?}");
                    for value in values {
                        assert!((0.0..=1.0).contains(&axis.at(value)), "{a} {b} {value}");
                    }
                }
            }
        }
    }
}
