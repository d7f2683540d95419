//! The model against others: without weather, the champion, one per breed; and against what came later.

use super::{
    Page,
    charts::{self, Row},
    figures::{NONE, count, counted, decimals, foreign, interval, percent_of, setting, significant},
    parts::{Figure, section, table},
    plot::{Axis, Ink},
    quality, words,
};
use crate::{
    breeds::{BreedSummary, Breeds},
    promote::{Comparison, Metric},
};
use common::{features::FeatureSet, model::Interval};
use maud::{Markup, html};

/// Breeds with a line of their own.
const BREEDS_MAX: usize = 50;
/// Versions in service that are shown.
const REALISED_MAX: usize = 8;

fn row(label: &str, interval: Interval, ink: Ink) -> Row {
    Row { label: label.to_owned(), interval, ink }
}

fn sure(interval: &Interval) -> Ink {
    if interval.lower > 0.0 || interval.upper < 0.0 { Ink::Accent } else { Ink::Faint }
}

/// Mileage alone against mileage and weather.
pub(super) fn weather(page: &Page<'_>) -> Markup {
    let model = page.model;
    let evidence = model.evidence.as_ref();
    let tests = [
        ("All features against none", evidence.and_then(|e| e.any.as_ref())),
        ("Weather beside mileage", evidence.and_then(|e| e.weather.as_ref())),
    ];
    let told: Vec<_> = tests.into_iter().filter_map(|(what, test)| Some((what, test?))).collect();
    let tests = html! {
        @if told.is_empty() { p.absent { "There is no likelihood-ratio test: it needs an unpenalised model, and a \
            model of both mileage and weather for the weather's." } }
        ul { @for (what, test) in &told { li { (what) " – " (words::test_in_figures(test)) "." } } }
    };
    let Some(held_out) = evidence.and_then(|evidence| evidence.held_out.as_ref()) else {
        let why = "Nothing was compared on held-out rides: there are none, all are of one class, or this is a model \
            of one breed.";
        return section(
            "weather",
            "Mileage alone against mileage and weather",
            "",
            html! { p.absent { (why) } (tests) },
        );
    };
    let name = match model.settings.features {
        FeatureSet::All => "mileage + weather",
        FeatureSet::Mileage => "mileage",
        FeatureSet::Weather => "weather",
    };
    let base = held_out.base_rate_log_loss;
    let of_base = Interval { value: base, lower: base, upper: base };
    let mut losses = vec![row("no features", of_base, Ink::Faint)];
    let mut areas = Vec::new();
    let mut gains = Vec::new();
    let mut rows = vec![vec!["No features".to_owned(), significant(base, 4), "0.5".to_owned()]];
    if let Some(mileage) = &held_out.mileage {
        losses.push(row("mileage", mileage.log_loss, Ink::Other));
        areas.push(row("mileage", mileage.roc_auc, Ink::Other));
        rows.push(vec!["Mileage alone".to_owned(), interval(&mileage.log_loss), interval(&mileage.roc_auc)]);
    }
    losses.push(row(name, held_out.model.log_loss, Ink::Accent));
    areas.push(row(name, held_out.model.roc_auc, Ink::Accent));
    let called = if model.settings.features == FeatureSet::All { "Mileage and weather" } else { "The model" };
    rows.push(vec![called.to_owned(), interval(&held_out.model.log_loss), interval(&held_out.model.roc_auc)]);
    let mut gained = |label: &str, words: &str, gain: &common::model::Gain| {
        gains.push(row(label, gain.log_loss, sure(&gain.log_loss)));
        rows.push(vec![words.to_owned(), interval(&gain.log_loss), interval(&gain.roc_auc)]);
    };
    if let Some(gain) = &held_out.over_mileage {
        gained("over mileage", "Better than mileage alone by", gain);
    }
    gained("over none", "Better than no features by", &held_out.over_base_rate);
    let figure = |title: &str, words: &str| Figure {
        title: title.to_owned(),
        legend: &[],
        caption: html! { (words) },
        numbers: None,
    };
    let of_losses = charts::intervals(&losses, quality::axis_of("Log-loss on held-out rides", &losses), None);
    let of_areas = charts::intervals(&areas, quality::axis_of("ROC AUC on held-out rides", &areas), None);
    let of_gains = charts::intervals(&gains, charts::differences("Log-loss saved", &gains), Some(0.0));
    let saved = "On the same rides, so that intervals of both may overlap and the difference be sure. Right of the \
        dashed line: better.";
    let inside = html! {
        (tests)
        div.columns {
            (figure("Log-loss", "Further left is better.").with(of_losses, ""))
            (figure("Area under the ROC curve", "Further right is better; 0.5 is guessing.").with(of_areas, ""))
            (figure("By how much the log-loss is smaller", saved).with(of_gains, ""))
        }
        (table("Comparison on held-out rides", &["On held-out rides", "log-loss", "ROC AUC"], rows))
    };
    let lead = format!(
        "On {} neither model has seen, with 95 % intervals from {} bootstrap resamples. Each model has a penalty of \
            its own.",
        counted(held_out.rides, "ride"),
        count(u64::from(held_out.bootstraps))
    );
    section("weather", "Mileage alone against mileage and weather", &lead, inside)
}

/// Champion against challenger.
pub(super) fn champion(page: &Page<'_>) -> Markup {
    let verdict = words::verdict(page.verdict);
    let comparison = page.verdict.and_then(|verdict| verdict.comparison.as_ref());
    let Some(comparison) = comparison else {
        let why = "It was not compared with a champion on held-out rides.";
        return section(
            "champion",
            "Champion against challenger",
            "",
            html! { p { (verdict.question) " " strong { (verdict.short) } " " (verdict.long) } p.absent { (why) } },
        );
    };
    let Comparison { champion_id, metric, rides, champion, challenger, gain } = comparison;
    let better = if *metric == Metric::RocAuc { "more is better" } else { "less is better" };
    let rows = vec![
        vec![format!("Champion {}", foreign(champion_id, 64)), significant(*champion, 5)],
        vec![format!("This model, {}", foreign(&page.model.model_id, 64)), significant(*challenger, 5)],
        vec!["This model is better by".to_owned(), interval(gain)],
    ];
    let gains = [row("this model", *gain, sure(gain))];
    let axis = charts::differences(&format!("Gain in {}", metric.name()), &gains);
    let figure = Figure {
        title: "By how much it is better than the champion".to_owned(),
        legend: &[],
        caption: html! { "Right of the dashed line: better than the champion; left: worse; across it: too close to \
        tell." },
        numbers: None,
    };
    let inside = html! {
        p { (verdict.question) " " strong { (verdict.short) } " " (verdict.long) }
        div.columns {
            (figure.with(charts::intervals(&gains, axis, Some(0.0)), ""))
            div { (table("Champion and challenger", &["", &format!("{} ({better})", metric.name())], rows)) }
        }
    };
    let lead = format!(
        "On the same {} neither has seen, when this model was trained. Later promotions and roll-backs are in the \
            registry.",
        counted(*rides, "held-out ride")
    );
    section("champion", "Champion against challenger", &lead, inside)
}

/// The models by breed.
pub(super) fn breeds(page: &Page<'_>) -> Markup {
    let title = "Breeds";
    let Some(breeds) = page.breeds else {
        let why = if page.model.breed.is_some() {
            "This is the model of one breed."
        } else {
            "No breed had enough rides for a model of its own."
        };
        return section("breeds", title, "", html! { p.absent { (why) } });
    };
    let candidates = Figure {
        title: "How strongly breeds are drawn to the model of all rides".to_owned(),
        legend: &[],
        caption: html! { "Cross-validated over the rides of all these breeds. Far right, every breed has the model \
        of all rides; far left, breeds know nothing of each other." },
        numbers: None,
    };
    let mut by_rides: Vec<&BreedSummary> = breeds.breeds.iter().collect();
    by_rides.sort_by(|a, b| b.train.cmp(&a.train).then_with(|| a.breed.cmp(&b.breed)));
    let losses = |breed: &BreedSummary| {
        let (own, all) = (breed.log_loss, breed.global_log_loss);
        let told = |loss: Option<f64>| loss.map_or(NONE.to_owned(), |loss| significant(loss, 4));
        let gain = own.zip(all).map_or(NONE.to_owned(), |(own, all)| decimals(all - own, 5));
        [told(own), told(all), gain]
    };
    let rows: Vec<Vec<String>> = by_rides
        .iter()
        .take(BREEDS_MAX)
        .map(|breed| {
            let share = percent_of(breed.train_service, breed.train);
            [foreign(&breed.breed, 40), count(breed.train), share, count(breed.test)]
                .into_iter()
                .chain(losses(breed))
                .collect()
        })
        .collect();
    let more = by_rides.len().saturating_sub(BREEDS_MAX);
    let head =
        ["Breed", "trained on", "with a request", "held out", "log-loss", "of the model of all rides", "better by"];
    let inside = html! {
        (verdict(breeds))
        div.columns {
            (held_out(breeds))
            (candidates.with(
                charts::candidates(&breeds.candidates, breeds.pull, "Pull to the model of all rides"),
                "The strength of the pull could not be cross-validated.",
            ))
        }
        @if rows.is_empty() { p.absent { "No breed is recorded." } } @else { (table("Breeds", &head, rows)) }
        @if more > 0 { p.note { "And " (count(more as u64)) " more, in breeds.json." } }
        p.note { "One breed alone has few held-out rides: a difference in its row is mostly chance." }
    };
    let lead = format!(
        "{} with a model of their own, drawn to the model of all rides with strength {}.",
        counted(breeds.breeds.len() as u64, "breed"),
        setting(breeds.pull)
    );
    section("breeds", title, &lead, inside)
}

/// Whether models by breed help, in words.
fn verdict(breeds: &Breeds) -> Markup {
    let Some(held_out) = &breeds.held_out else {
        return html! { p.absent { "No ride of these breeds was held out: whether models of their own help was not \
        tried." } };
    };
    let gain = &held_out.over_global;
    let words = match gain {
        gain if gain.lower > 0.0 => {
            "Models by breed help: on held-out rides they are better than the model of all rides."
        }
        gain if gain.upper < 0.0 => {
            "Models by breed do harm: on held-out rides they are worse than the model of all rides."
        }
        _ => {
            "There is no evidence that models by breed help: on held-out rides they cannot be told from the model of \
                all rides."
        }
    };
    html! { p { (words) " Log-loss smaller by " (interval(gain)) " on " (counted(held_out.rides, "ride")) "." } }
}

fn held_out(breeds: &Breeds) -> Markup {
    let figure = |numbers| Figure {
        title: "Models by breed against both extremes".to_owned(),
        legend: &[],
        caption: html! { "Right of the dashed line: partial pooling is better than one model for all, or than models \
        that know nothing of other breeds." },
        numbers,
    };
    let Some(held_out) = &breeds.held_out else {
        return figure(None).with(None, "No ride of these breeds was held out.");
    };
    let mut rows = vec![row("than one for all", held_out.over_global, sure(&held_out.over_global))];
    rows.extend(held_out.over_separate.map(|gain| row("than separate", gain, sure(&gain))));
    let told = vec![
        vec!["Drawn to the model of all rides".to_owned(), significant(held_out.pooled, 5)],
        vec!["One model for all".to_owned(), significant(held_out.global, 5)],
        vec![
            "Separate models".to_owned(),
            held_out.separate.map_or("cannot all be trained".to_owned(), |loss| significant(loss, 5)),
        ],
    ];
    let numbers = table("Log-loss on held-out rides", &["On held-out rides", "log-loss"], told);
    let axis: Axis = charts::differences("Log-loss saved", &rows);
    figure(Some(numbers)).with(charts::intervals(&rows, axis, Some(0.0)), "")
}

/// What became of rides that versions scored.
pub(super) fn in_service(page: &Page<'_>) -> Markup {
    let title = "In service";
    if page.realised.is_empty() {
        let why = "No ride that a model scored has come back with a label yet: how probabilities agree with what \
            happens in service is not known.";
        return section("service", title, "", html! { p.absent { (why) } });
    }
    let shown = &page.realised[..page.realised.len().min(REALISED_MAX)];
    let names: Vec<String> = shown.iter().map(|realised| foreign(&realised.model_id, 64)).collect();
    let head: Vec<&str> = std::iter::once("Measure").chain(names.iter().map(String::as_str)).collect();
    let columns: Vec<Vec<String>> = shown.iter().map(|realised| quality::measures(&realised.metrics)).collect();
    let rows = quality::MEASURES.iter().enumerate().map(|(at, name)| {
        std::iter::once((*name).to_owned())
            .chain(columns.iter().map(|column| column[at].clone()))
            .collect::<Vec<String>>()
    });
    let inside = html! {
        div.columns {
            @for (realised, name) in shown.iter().zip(&names) {
                (Figure {
                    title: format!("Calibration in service, {name}"),
                    legend: &[(Ink::Accent, "share observed, 95 % interval"), (Ink::Guide, "rides in the bin")],
                    caption: html! { "On " (counted(realised.metrics.rides, "ride")) " that came with a label after \
                        they had been scored." },
                    numbers: None,
                }.with(charts::calibration(&realised.metrics), "No ride has come back with a label."))
            }
        }
        (table("Measures in service", &head, rows.collect::<Vec<_>>()))
        @if page.realised.len() > REALISED_MAX { p.note { "And " (count((page.realised.len() - REALISED_MAX) as u64)) " versions more." } }
    };
    section("service", title, "What versions said of rides, against what became of them.", inside)
}
