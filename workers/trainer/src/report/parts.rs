//! What sections are put together of: figures with a caption and their numbers, tables, marks.

use super::{
    plot::{Ink, Plot},
    words::{Finding, Tone},
};
use maud::{Markup, html};

/// A picture with what belongs to it.
pub(super) struct Figure<'a> {
    /// Above it.
    pub(super) title: String,
    /// What the colours stand for.
    pub(super) legend: &'a [(Ink, &'a str)],
    /// What to see, or why there is nothing.
    pub(super) caption: Markup,
    /// Its numbers.
    pub(super) numbers: Option<Markup>,
}

impl Figure<'_> {
    /// With a picture, or a sentence in its place.
    pub(super) fn with(self, plot: Option<Plot>, absent: &str) -> Markup {
        let Self { title, legend, caption, numbers } = self;
        let Some(plot) = plot else {
            return html! { figure.none { h3 { (title) } p.absent { (absent) } } };
        };
        let axes = match (plot.x.name.as_str(), plot.y.name.as_str()) {
            ("", "") => String::new(),
            (x, "") => format!(" To the right: {x}."),
            ("", y) => format!(" Upwards: {y}."),
            (x, y) => format!(" To the right: {x}. Upwards: {y}."),
        };
        let label = format!("{title}.{axes}");
        html! {
            figure {
                h3 { (title) }
                @if !legend.is_empty() {
                    ul.legend { @for (ink, words) in legend { li class=(swatch(*ink)) { (words) } } }
                }
                (plot.svg(&label))
                figcaption { (caption) }
                @if let Some(numbers) = numbers { details { summary { "The numbers" } (numbers) } }
            }
        }
    }
}

fn swatch(ink: Ink) -> String {
    format!("key {}", ink.variable().trim_start_matches("--"))
}

/// A table that scrolls within itself where the screen is too narrow. The first cell of a row is its name.
pub(super) fn table(what: &str, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Markup {
    html! {
        div.scrolls tabindex="0" role="region" aria-label=(what) {
            table {
                thead { tr { @for name in head { th scope="col" { (name) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (at, cell) in row.iter().enumerate() {
                                @if at == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A section with its place in the list of contents.
pub(super) fn section(id: &str, title: &str, lead: &str, inside: Markup) -> Markup {
    html! {
        section id=(id) aria-labelledby={ "h-" (id) } {
            h2 id={ "h-" (id) } { (title) }
            @if !lead.is_empty() { p.lead { (lead) } }
            (inside)
        }
    }
}

/// A question with its answer.
pub(super) fn finding(finding: &Finding) -> Markup {
    let (class, sign) = match finding.tone {
        Tone::Good => ("good", "✓"),
        Tone::Weak => ("weak", "~"),
        Tone::Bad => ("bad", "✕"),
        Tone::Unknown => ("unknown", "?"),
    };
    html! {
        div class={ "finding " (class) } {
            dt { (finding.question) }
            dd { p { span.sign aria-hidden="true" { (sign) } strong { (finding.short) } } p { (finding.long) } }
        }
    }
}
