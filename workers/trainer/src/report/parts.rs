//! Building blocks of sections: figures with caption and numbers, tables, findings.

use super::{
    plot::{Ink, Plot},
    words::{Finding, Tone},
};
use maud::{Markup, Render, html};

/// A chart with title, legend, caption and numbers.
pub(super) struct Figure<'a> {
    /// Text above the chart.
    pub(super) title: String,
    /// Meaning of each ink.
    pub(super) legend: &'a [(Ink, &'a str)],
    /// Text below the chart.
    pub(super) caption: Markup,
    /// The numbers as a table.
    pub(super) numbers: Option<Markup>,
}

impl<'a> Figure<'a> {
    /// A figure without a table of its numbers.
    pub(super) fn new(title: &str, legend: &'a [(Ink, &'a str)], caption: impl Render) -> Self {
        Self { title: title.to_owned(), legend, caption: caption.render(), numbers: None }
    }

    /// Renders the figure with the chart, or with a sentence if there is none.
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
    format!("key {}", ink.colour().variable.trim_start_matches("--"))
}

/// A table that scrolls if the screen is too narrow. The first cell of a row is its header.
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

/// A section; `id` is its anchor in the list of contents.
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
