//! The page from top to bottom: head, summary, data, sections, origin.

use super::{
    Page, coverage, effects,
    figures::{NONE, count, counted, percent_of, reason, significant},
    parts::{self, Figure, section, table},
    plot::Ink,
    quality, rivals, style, words,
};
use common::{model::TrainedOn, ride::Counts, text::excerpt};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Maximum number of datasets in the list.
const DATASETS_MAX: usize = 100;

impl Page<'_> {
    pub(super) fn markup(&self) -> Markup {
        let title = format!("Model {} {}", self.family(), excerpt(&self.model.model_id, 64));
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) }
                    style { (PreEscaped(style::sheet())) }
                }
                body {
                    a.skip href="#summary" { "To the summary" }
                    (self.head())
                    (contents())
                    main {
                        (self.summary())
                        (self.data())
                        (effects::rates(self))
                        (effects::odds(self))
                        (quality::quality(self))
                        (quality::decisions(self))
                        (quality::selection(self))
                        (rivals::weather(self))
                        (rivals::champion(self))
                        (rivals::breeds(self))
                        (rivals::in_service(self))
                        (self.origin())
                    }
                }
            }
        }
    }

    fn family(&self) -> String {
        excerpt(&self.model.model, 100)
    }

    fn head(&self) -> Markup {
        let (model, counts) = (self.model, &self.model.counts);
        let (metrics, _) = words::evaluation(model);
        let readout = |name: &str, value: String, more: String| {
            html! { div { dt { (name) } dd { strong { (value) } span { (more) } } } }
        };
        let area = metrics.roc_auc.map_or(NONE.to_owned(), |auc| significant(auc, 3));
        let (champion, when) = match self.verdict.map(|verdict| verdict.promoted) {
            Some(true) => ("yes", "when it was trained"),
            Some(false) => ("no", "when it was trained"),
            None => (NONE, "not judged"),
        };
        let whose = if model.test.is_some() { "held out" } else { "on the rides trained on" };
        let base = model
            .evidence
            .as_ref()
            .and_then(|evidence| evidence.held_out.as_ref())
            .map(|held_out| held_out.base_rate_log_loss);
        html! {
            header {
                p.kind { "Model report" }
                h1 { (self.family()) " " code { (excerpt(&model.model_id, 64)) } }
                p.about {
                    "How likely a ride is to end in a service request: a logistic regression on " (counted(counts.train, "ride"))
                    @if let Some(breed) = &model.breed { " of the breed " bdi { (excerpt(breed, 60)) } }
                    ", " (percent_of(counts.train_service, counts.train)) " of which did."
                }
                dl.readouts {
                    (readout("Rides", count(counts.train.saturating_add(counts.test)), format!("{} held out", count(counts.test))))
                    (readout("ROC AUC", area, format!("{whose}; 0.5 is guessing")))
                    (readout("Log-loss", significant(metrics.log_loss, 3), match base {
                        Some(base) => format!("{whose}; {} without features", significant(base, 3)),
                        None => format!("{whose}; less is better"),
                    }))
                    (readout("Champion", champion.to_owned(), when.to_owned()))
                }
            }
        }
    }

    fn summary(&self) -> Markup {
        let model = self.model;
        let findings = [
            words::signal(model),
            words::weather(model),
            words::ranking(model),
            words::calibration(model),
            words::decisions(model),
            words::verdict(self.verdict),
        ];
        let (caution, effects) = words::effects(model);
        html! {
            section id="summary" aria-labelledby="h-summary" {
                h2 id="h-summary" { "In plain words" }
                dl.findings { @for finding in &findings { (parts::finding(finding)) } }
                div.columns {
                    div {
                        h3 { "Effect of each feature, the others being equal" }
                        @if let Some(caution) = caution { p.caution { (caution) } }
                        @if effects.is_empty() { p.absent { "The model uses no feature." } }
                        ul.effects {
                            @for (effect, words) in &effects {
                                @let sure = matches!(effect, words::Effect::Clear) && caution.is_none();
                                li class=(if sure { "sure" } else { "unsure" }) { (upper(words)) "." }
                            }
                        }
                        p.note { "In brackets: 95 % intervals. Odds: rides with a request per ride without." }
                    }
                    div {
                        @if !model.warnings.is_empty() {
                            h3 { "Warnings" }
                            ul.warnings {
                                @for warning in &model.warnings {
                                    li {
                                        strong { (words::warning(warning.code)) }
                                        " " (upper(&excerpt(&warning.why, 400))) "."
                                    }
                                }
                            }
                        }
                        h3 { "Limits" }
                        ul { @for limit in words::limits(model) { li { (limit) } } }
                    }
                }
            }
        }
    }

    fn data(&self) -> Markup {
        let (data, counts) = (self.data, &self.model.counts);
        let rejected = total(&data.rejected_by_reason);
        let row = |name: &str, rides: u64, more: String| vec![name.to_owned(), count(rides), more];
        let mut rows = vec![
            row("Handed in", data.received, format!("in {}", batches(data.batches))),
            row("Rejected", rejected, by_reason(&data.rejected_by_reason)),
            row("In the datasets", data.accepted, String::new()),
            row("… without weather", total(&data.without_weather), by_reason(&data.without_weather)),
            row(
                "Trained on",
                counts.train,
                format!("{} ended in a service request", percent_of(counts.train_service, counts.train)),
            ),
            row(
                "Held out for testing",
                counts.test,
                format!("{} ended in a service request", percent_of(counts.test_service, counts.test)),
            ),
        ];
        let left = [
            ("Left out: no label", counts.unlabelled),
            ("Left out: no weather, though labelled", counts.without_weather),
            ("Left out: impossible value", counts.out_of_range),
            ("Left out: the same ride in another batch", counts.duplicates),
        ];
        rows.extend(
            left.into_iter().filter(|(_, rides)| *rides > 0).map(|(name, rides)| row(name, rides, String::new())),
        );
        let map = coverage::Map::of(&data.coverage);
        let without = map.as_ref().is_some_and(|map| map.rows.iter().any(|row| row.is_none));
        let numbers = map.as_ref().map(|map| {
            let head: Vec<&str> = ["Station", "all"].into_iter().chain(map.steps.iter().map(String::as_str)).collect();
            let row = |row: &coverage::MapRow| {
                [row.name.clone(), count(row.rides)]
                    .into_iter()
                    .chain(row.by_step.iter().map(|rides| count(*rides)))
                    .collect()
            };
            table("Rides by station and time", &head, map.rows.iter().map(row).collect::<Vec<Vec<String>>>())
        });
        let step = map.as_ref().map_or("month", |map| map.step());
        let figure = Figure {
            title: format!("Weather coverage by station and {step}"),
            legend: if without {
                &[(Ink::Accent, "rides with weather from the station"), (Ink::Bad, "rides without weather")]
            } else {
                &[(Ink::Accent, "rides with weather from the station")]
            },
            caption: html! { "The darker a field, the more rides; grey: none. At the right, the sum." },
            numbers,
        };
        let inside = html! {
            div.columns {
                div.wide { (table("How the rides were used", &["Rides", "how many", ""], rows)) }
                (figure.with(map.map(|map| map.plot()), "Stations and months are not recorded."))
            }
        };
        section("data", "Data", "The rides handed in, and how they were used.", inside)
    }

    fn origin(&self) -> Markup {
        let model = self.model;
        let datasets = model.datasets.iter().take(DATASETS_MAX);
        let batch = |set: &TrainedOn| match set.revision {
            Some(revision) => format!("{}, revision {revision}", excerpt(&set.batch_id, 200)),
            None => excerpt(&set.batch_id, 200),
        };
        let rows: Vec<Vec<String>> = datasets.map(|set| vec![batch(set), excerpt(&set.manifest_sha256, 200)]).collect();
        let more = model.datasets.len().saturating_sub(DATASETS_MAX);
        let settings = serde_json::to_string_pretty(&model.settings).unwrap_or_default();
        let inside = html! {
            h3 { "The formula" }
            p { "Features in the units of the dataset. The formula alone gives the probability of a new ride." }
            pre tabindex="0" role="region" aria-label="The formula" { (effects::formula(model)) }
            h3 { "Datasets" }
            @if rows.is_empty() {
                p.absent { "No dataset is recorded." }
            } @else {
                (table("Datasets", &["Batch", "SHA-256 of the manifest"], rows))
            }
            @if more > 0 { p.note { "And " (count(more as u64)) " more, in model.json." } }
            h3 { "Settings" }
            pre tabindex="0" role="region" aria-label="Settings" { (printable_lines(&settings)) }
            p.note {
                "Made by trainer " (excerpt(&model.trainer, 60)) ". Largest component of the gradient at the solution: "
                (significant(model.gradient_norm, 2))
                ". The same datasets and settings give the same model. Beside this page: model.json, metrics.json, \
                    and, if they exist, verdict.json and breeds.json."
            }
        };
        section("origin", "Origin", "Everything needed to train it again, or to use it without this software.", inside)
    }
}

/// Links to the sections.
fn contents() -> Markup {
    let sections = [
        ("summary", "Summary"),
        ("data", "Data"),
        ("rates", "Service rates"),
        ("odds", "Odds"),
        ("quality", "Quality"),
        ("decisions", "Decisions"),
        ("selection", "Selection"),
        ("weather", "Weather"),
        ("champion", "Champion"),
        ("breeds", "Breeds"),
        ("service", "In service"),
        ("origin", "Origin"),
    ];
    html! { nav aria-label="Contents" { ol { @for (id, name) in sections { li { a href={ "#" (id) } { (name) } } } } } }
}

/// Makes each line of an external text printable.
fn printable_lines(text: &str) -> String {
    text.lines().map(|line| excerpt(line, 400)).collect::<Vec<_>>().join("\n")
}

/// Capitalises the first letter.
pub(super) fn upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

fn batches(count_of: u64) -> String {
    if count_of == 1 { "1 batch".to_owned() } else { format!("{} batches", count(count_of)) }
}

fn total(counts: &Counts) -> u64 {
    counts.values().fold(0, |sum, rides| sum.saturating_add(*rides))
}

/// `invalid statustime 8, missing latitude 1`, the most frequent first.
fn by_reason(counts: &Counts) -> String {
    let mut largest_first: Vec<_> = counts.iter().collect();
    largest_first.sort_by_key(|(reason, rides)| (std::cmp::Reverse(**rides), reason.as_str()));
    let reasons: Vec<String> =
        largest_first.into_iter().map(|(code, rides)| format!("{} {}", reason(code), count(*rides))).collect();
    reasons.join(", ")
}
