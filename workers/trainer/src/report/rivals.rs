//! The model against a model without weather, the champion and breed models, and against delayed labels.

use super::{
    Page,
    charts::{self, Row},
    figures::{NONE, count, counted, decimals, interval, percent_of, setting, significant},
    parts::{Figure, section, table},
    plot::{Axis, Ink},
    quality, words,
};
use common::{
    document::{BreedSummary, Breeds, Comparison, Metric},
    features::FeatureSet,
    model::{Evidence, HeldOut, Interval, Quality},
    text::excerpt,
};
use maud::{Markup, html};

/// Maximum number of breeds in the table.
const BREEDS_MAX: usize = 50;
/// Maximum number of served versions on the page.
const VERSIONS_MAX: usize = 8;

fn row(label: &str, interval: Interval, ink: Ink) -> Row {
    Row { label: label.to_owned(), interval, ink }
}

/// Ink of a difference: accented if its interval excludes 0.
fn ink_of(interval: &Interval) -> Ink {
    if interval.lower > 0.0 || interval.upper < 0.0 { Ink::Accent } else { Ink::Faint }
}

/// Mileage alone against mileage and weather.
pub(super) fn weather(page: &Page<'_>) -> Markup {
    let title = "Mileage alone against mileage and weather";
    let evidence = page.model.evidence.as_ref();
    let tests = tests(evidence);
    let Some(held_out) = evidence.and_then(|evidence| evidence.held_out.as_ref()) else {
        let why = "There is no comparison on held-out rides: there are none, all are of one class, or this is a breed \
            model.";
        return section("weather", title, "", html! { p.absent { (why) } (tests) });
    };
    let rows = |of: fn(&Quality) -> Interval| quality_rows(held_out, page.model.settings.features, of);
    let (losses, areas) = (rows(|quality| quality.log_loss), rows(|quality| quality.roc_auc));
    let base = held_out.base_rate_log_loss;
    let of_base = row("no features", Interval { value: base, lower: base, upper: base }, Ink::Faint);
    let losses: Vec<Row> = std::iter::once(of_base).chain(losses).collect();
    let gains: Vec<Row> =
        [("over mileage", held_out.over_mileage.as_ref()), ("over none", Some(&held_out.over_base_rate))]
            .into_iter()
            .filter_map(|(label, gain)| Some(row(label, gain?.log_loss, ink_of(&gain?.log_loss))))
            .collect();
    let figure = |title: &str, words: &str| Figure::new(title, &[], words);
    let of_losses = charts::intervals(&losses, quality::axis_of("Log-loss on held-out rides", &losses), None);
    let of_areas = charts::intervals(&areas, quality::axis_of("ROC AUC on held-out rides", &areas), None);
    let of_gains = charts::intervals(&gains, charts::differences("Log-loss saved", &gains), Some(0.0));
    let saved = "Both models score the same rides: the difference can be significant although the intervals above \
        overlap. Right of the dashed line: better.";
    let inside = html! {
        (tests)
        div.columns {
            (figure("Log-loss", "Further left is better.").with(of_losses, ""))
            (figure("Area under the ROC curve", "Further right is better; 0.5 is guessing.").with(of_areas, ""))
            (figure("By how much the log-loss is smaller", saved).with(of_gains, ""))
        }
        (held_out_table(held_out, page.model.settings.features))
    };
    let lead = format!(
        "On {} that neither model has seen, with 95 % intervals from {} bootstrap resamples. Each model has a penalty \
         of its own.",
        counted(held_out.rides, "ride"),
        count(u64::from(held_out.bootstraps))
    );
    section("weather", title, &lead, inside)
}

/// The likelihood-ratio tests.
fn tests(evidence: Option<&Evidence>) -> Markup {
    let tests = [
        ("All features against none", evidence.and_then(|e| e.any.as_ref())),
        ("Weather beside mileage", evidence.and_then(|e| e.weather.as_ref())),
    ];
    let existing: Vec<_> = tests.into_iter().filter_map(|(name, test)| Some((name, test?))).collect();
    html! {
        @if existing.is_empty() { p.absent { "There is no likelihood-ratio test: it needs an unpenalised model, and, for \
            the weather, a model of both mileage and weather." } }
        ul { @for (name, test) in &existing { li { (name) " – " (words::test_in_figures(test)) "." } } }
    }
}

/// One interval of the model, and of the model of mileage alone if there is one.
fn quality_rows(held_out: &HeldOut, features: FeatureSet, of: fn(&Quality) -> Interval) -> Vec<Row> {
    let name = match features {
        FeatureSet::All => "mileage + weather",
        FeatureSet::Mileage => "mileage",
        FeatureSet::Weather => "weather",
    };
    let mileage = held_out.mileage.as_ref().map(|mileage| row("mileage", of(mileage), Ink::Other));
    mileage.into_iter().chain([row(name, of(&held_out.model), Ink::Accent)]).collect()
}

fn held_out_table(held_out: &HeldOut, features: FeatureSet) -> Markup {
    let base = significant(held_out.base_rate_log_loss, 4);
    let row = |name: &str, log_loss: &Interval, roc_auc: &Interval| {
        vec![name.to_owned(), interval(log_loss), interval(roc_auc)]
    };
    let mut rows = vec![vec!["No features".to_owned(), base, "0.5".to_owned()]];
    rows.extend(held_out.mileage.as_ref().map(|quality| row("Mileage alone", &quality.log_loss, &quality.roc_auc)));
    let model = if features == FeatureSet::All { "Mileage and weather" } else { "The model" };
    rows.push(row(model, &held_out.model.log_loss, &held_out.model.roc_auc));
    let over_mileage = held_out.over_mileage.as_ref();
    rows.extend(over_mileage.map(|gain| row("Better than mileage alone by", &gain.log_loss, &gain.roc_auc)));
    let gain = &held_out.over_base_rate;
    rows.push(row("Better than no features by", &gain.log_loss, &gain.roc_auc));
    table("Comparison on held-out rides", &["On held-out rides", "log-loss", "ROC AUC"], rows)
}

/// Champion against challenger.
pub(super) fn champion(page: &Page<'_>) -> Markup {
    let verdict = words::verdict(page.verdict);
    let comparison = page.verdict.and_then(|verdict| verdict.comparison.as_ref());
    let Some(comparison) = comparison else {
        let why = "There is no comparison with a champion on held-out rides.";
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
        vec![format!("Champion {}", excerpt(champion_id, 64)), significant(*champion, 5)],
        vec![format!("This model, {}", excerpt(&page.model.model_id, 64)), significant(*challenger, 5)],
        vec!["This model is better by".to_owned(), interval(gain)],
    ];
    let gains = [row("this model", *gain, ink_of(gain))];
    let axis = charts::differences(&format!("Gain in {}", metric.name()), &gains);
    let caption = "Right of the dashed line: better than the champion; left: worse; across it: no clear difference.";
    let figure = Figure::new("By how much it is better than the champion", &[], caption);
    let inside = html! {
        p { (verdict.question) " " strong { (verdict.short) } " " (verdict.long) }
        div.columns {
            (figure.with(charts::intervals(&gains, axis, Some(0.0)), ""))
            div { (table("Champion and challenger", &["", &format!("{} ({better})", metric.name())], rows)) }
        }
    };
    let lead = format!(
        "On the same {} that neither has seen, when this model was trained. The registry has later promotions and \
         roll-backs.",
        counted(*rides, "held-out ride")
    );
    section("champion", "Champion against challenger", &lead, inside)
}

/// The breed models.
pub(super) fn breeds(page: &Page<'_>) -> Markup {
    let title = "Breeds";
    let Some(breeds) = page.breeds else {
        let why = if page.model.breed.is_some() {
            "This is a breed model."
        } else {
            "No breed had enough rides for a breed model."
        };
        return section("breeds", title, "", html! { p.absent { (why) } });
    };
    let caption = "Cross-validated over the rides of all these breeds. At the far right, every breed has the global \
        model; at the far left, each breed has a model of its rides only.";
    let candidates = Figure::new("How strongly breed models are pooled", &[], caption);
    let mut by_rides: Vec<&BreedSummary> = breeds.breeds.iter().collect();
    by_rides.sort_by(|a, b| b.train.cmp(&a.train).then_with(|| a.breed.cmp(&b.breed)));
    let losses = |breed: &BreedSummary| {
        let (pooled, global) = (breed.log_loss, breed.global_log_loss);
        let in_words = |loss: Option<f64>| loss.map_or(NONE.to_owned(), |loss| significant(loss, 4));
        let gain = pooled.zip(global).map_or(NONE.to_owned(), |(pooled, global)| decimals(global - pooled, 5));
        [in_words(pooled), in_words(global), gain]
    };
    let rows: Vec<Vec<String>> = by_rides
        .iter()
        .take(BREEDS_MAX)
        .map(|breed| {
            let share = percent_of(breed.train_service, breed.train);
            [excerpt(&breed.breed, 40), count(breed.train), share, count(breed.test)]
                .into_iter()
                .chain(losses(breed))
                .collect()
        })
        .collect();
    let more = by_rides.len().saturating_sub(BREEDS_MAX);
    let head = ["Breed", "trained on", "with a request", "held out", "log-loss", "of the global model", "better by"];
    let inside = html! {
        (verdict(breeds))
        div.columns {
            (held_out(breeds))
            (candidates.with(
                charts::candidates(&breeds.candidates, breeds.pooling_strength, "Pooling strength"),
                "The pooling strength could not be cross-validated.",
            ))
        }
        @if rows.is_empty() { p.absent { "No breed is recorded." } } @else { (table("Breeds", &head, rows)) }
        @if more > 0 { p.note { "And " (count(more as u64)) " more, in breeds.json." } }
        p.note { "One breed alone has few held-out rides: a difference in its row is mostly chance." }
    };
    let lead = format!(
        "{} with a breed model, partially pooled with strength {}: its weights are shrunk towards the global model.",
        counted(breeds.breeds.len() as u64, "breed"),
        setting(breeds.pooling_strength)
    );
    section("breeds", title, &lead, inside)
}

/// Whether breed models help, in words.
fn verdict(breeds: &Breeds) -> Markup {
    let Some(held_out) = &breeds.held_out else {
        return html! { p.absent { "No ride of these breeds was held out: whether breed models help was not \
        tested." } };
    };
    let gain = &held_out.over_global;
    let words = match gain {
        gain if gain.lower > 0.0 => "Breed models help: on held-out rides they are better than the global model.",
        gain if gain.upper < 0.0 => "Breed models do harm: on held-out rides they are worse than the global model.",
        _ => {
            "There is no evidence that breed models help: on held-out rides they do not clearly differ from the global \
             model."
        }
    };
    html! { p { (words) " Log-loss smaller by " (interval(gain)) " on " (counted(held_out.rides, "ride")) "." } }
}

fn held_out(breeds: &Breeds) -> Markup {
    let caption = "Right of the dashed line: partial pooling is better than the global model, or than separate \
        models, each of the rides of one breed only.";
    let figure = Figure::new("Breed models against both extremes", &[], caption);
    let Some(held_out) = &breeds.held_out else {
        return figure.with(None, "No ride of these breeds was held out.");
    };
    let mut rows = vec![row("than global", held_out.over_global, ink_of(&held_out.over_global))];
    rows.extend(held_out.over_separate.map(|gain| row("than separate", gain, ink_of(&gain))));
    let log_losses = vec![
        vec!["Partially pooled models".to_owned(), significant(held_out.pooled, 5)],
        vec!["Global model".to_owned(), significant(held_out.global, 5)],
        vec![
            "Separate models".to_owned(),
            held_out.separate.map_or("cannot all be trained".to_owned(), |loss| significant(loss, 5)),
        ],
    ];
    let numbers = table("Log-loss on held-out rides", &["On held-out rides", "log-loss"], log_losses);
    let axis: Axis = charts::differences("Log-loss saved", &rows);
    Figure { numbers: Some(numbers), ..figure }.with(charts::intervals(&rows, axis, Some(0.0)), "")
}

/// Scores of served versions against delayed labels.
pub(super) fn in_service(page: &Page<'_>) -> Markup {
    let title = "In service";
    if page.delayed_labels.is_empty() {
        let why = "No delayed labels have arrived for rides that a model scored: the calibration in service is not \
            known.";
        return section("service", title, "", html! { p.absent { (why) } });
    }
    let versions = &page.delayed_labels[..page.delayed_labels.len().min(VERSIONS_MAX)];
    let names: Vec<String> = versions.iter().map(|labels| excerpt(&labels.model_id, 64)).collect();
    let head: Vec<&str> = std::iter::once("Measure").chain(names.iter().map(String::as_str)).collect();
    let rows = quality::MEASURES.map(|(name, value)| {
        let values = versions.iter().map(|labels| value(&labels.metrics));
        std::iter::once(name.to_owned()).chain(values).collect()
    });
    let inside = html! {
        div.columns {
            @for (labels, name) in versions.iter().zip(&names) {
                @let caption = html! { "On " (counted(labels.metrics.rides, "ride")) " whose labels arrived after they \
                    had been scored." };
                @let figure = Figure::new(&format!("Calibration in service, {name}"), &quality::CALIBRATION, caption);
                (figure.with(charts::calibration(&labels.metrics), "There are no delayed labels."))
            }
        }
        (table("Measures in service", &head, rows))
        @if page.delayed_labels.len() > VERSIONS_MAX { p.note { "And " (count((page.delayed_labels.len() - VERSIONS_MAX) as u64)) " versions more." } }
    };
    section("service", title, "Probabilities of served versions against delayed labels.", inside)
}
