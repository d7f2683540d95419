//! `model list` and `show`.

use super::{
    cautions::cautions,
    versions::{Aliases, check_family, resolve},
};
use crate::{
    arguments::Family,
    output::{legible, print_json, wrapped},
    session::{Failed, Session},
};
use common::document::Verdict;
use common::model::{Alias, AliasName, Coefficient, Evidence, Interval, Metrics};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::HumanCount;
use records::{Store, layout, registry, store};
use serde_json::json;
use trainer::report::odds::factor;

/// Number of columns that texts are wrapped to.
const WIDTH: usize = 96;

/// One version in the list.
#[derive(serde::Serialize)]
struct Line {
    model_id: String,
    #[serde(rename = "name")]
    alias: &'static str,
    rides: u64,
    batches: usize,
    alpha: f64,
    test: Option<Test>,
    verdict: Option<String>,
}

#[derive(serde::Serialize)]
struct Test {
    rides: u64,
    log_loss: f64,
    roc_auc: Option<f64>,
}

/// `list`
pub(super) async fn list(session: &Session, family: &Family, breeds: bool) -> Result<(), Failed> {
    let store = session.existing_store()?;
    let family = family.model.as_str();
    check_family(family)?;
    let aliases = Aliases::of(&store, family).await?;
    let versions = registry::versions(&store, family).await?;
    let reading = stream::iter(versions).map(|model_id| line(&store, family, &aliases, model_id));
    let mut lines: Vec<Line> =
        reading.buffered(registry::AT_ONCE).try_filter_map(async |line| Ok(line)).try_collect().await?;
    lines.sort_by(|a, b| {
        (b.alias == "champion", b.rides, &b.model_id).cmp(&(a.alias == "champion", a.rides, &a.model_id))
    });
    let mut breed_families = registry::families(&store).await?;
    breed_families.retain(|name| layout::of_breed(name).is_some_and(|(global, _)| global == family));
    let champions = match breeds {
        true => {
            let reading = stream::iter(breed_families.clone()).map(|breed| {
                let store = &store;
                async move { registry::current_alias(store, &breed, AliasName::Champion).await }
            });
            reading.buffered(registry::AT_ONCE).try_filter_map(async |alias| Ok(alias)).try_collect().await?
        }
        false => Vec::<Alias>::new(),
    };
    if session.shared.json {
        let Aliases { champion, challenger } = &aliases;
        let document = json!({
            "model": family, "champion": champion, "challenger": challenger, "versions": lines,
            "breeds": breed_families.len(), "champions_of_breeds": champions,
        });
        return print_json(&document);
    }
    if lines.is_empty() {
        println!(
            "{family} has no version: a trainer trains one on the datasets, or `wildrydes model retrain` does it here"
        );
        return Ok(());
    }
    println!("{:<18}{:<14}{:>12}{:>9}{:>10}{:>10}  became", family, "", "rides", "batches", "log-loss", "ROC AUC");
    for Line { model_id, alias, rides, batches, test, verdict, .. } in &lines {
        let loss = test.as_ref().map_or("–".to_owned(), |test| format!("{:.5}", test.log_loss));
        let auc = test.as_ref().and_then(|test| test.roc_auc).map_or("–".to_owned(), |auc| format!("{auc:.4}"));
        let verdict = verdict.as_deref().unwrap_or("–");
        println!(
            "{model_id:<18}{alias:<14}{:>12}{batches:>9}{loss:>10}{auc:>10}  {verdict}",
            HumanCount(*rides).to_string()
        );
    }
    if let Some(champion) = &aliases.champion {
        println!("\nchampion since {} by {}", champion.at, legible(&champion.by, false));
        print!("{}", paragraph(&champion.why, "  "));
    }
    if !breed_families.is_empty() && !breeds {
        println!("\n{} breeds have breed models (--breeds lists them)", breed_families.len());
    }
    for champion in &champions {
        println!("{:<52}{:<18}since {}", champion.model, champion.model_id, champion.at);
    }
    Ok(())
}

async fn line(store: &Store, family: &str, aliases: &Aliases, model_id: String) -> Result<Option<Line>, Failed> {
    let Ok((_, model)) = registry::version(store, family, &model_id).await? else { return Ok(None) };
    let verdict = registry::read::<Verdict>(store, family, &model_id).await?;
    let test = |metrics: &Metrics| Test { rides: metrics.rides, log_loss: metrics.log_loss, roc_auc: metrics.roc_auc };
    Ok(Some(Line {
        alias: aliases.name_of(&model_id),
        rides: model.counts.train + model.counts.test,
        batches: model.datasets.len(),
        alpha: model.alpha,
        test: model.test.as_ref().map(test),
        verdict: verdict.map(|verdict| verdict.reason),
        model_id,
    }))
}

/// `show`
pub(super) async fn show(session: &Session, name: &str, family: &Family) -> Result<(), Failed> {
    let store = session.existing_store()?;
    let (version, model) = resolve(&store, family, name).await?;
    if session.shared.json {
        return print_json(&model);
    }
    let aliases = Aliases::of(&store, &model.model).await?;
    let verdict = registry::read::<Verdict>(&store, &model.model, &model.model_id).await?;
    println!("{} {}  {}", model.model, model.model_id, aliases.name_of(&model.model_id));
    println!("  artefact sha256 {}", version.sha256);
    for (name, alias) in [("champion", &aliases.champion), ("challenger", &aliases.challenger)] {
        if let Some(alias) = alias.as_ref().filter(|alias| alias.named(&model.model_id)) {
            let past = alias.history.iter().map(|past| (&past.model_id, &past.by, &past.at, &past.why));
            let present = (&alias.model_id, &alias.by, &alias.at, &alias.why);
            for (_, by, at, why) in past.chain([present]).filter(|(id, ..)| **id == model.model_id) {
                println!("  {name} since {at} by {}", legible(by, false));
                print!("{}", paragraph(why, "    "));
            }
        }
    }
    if let Some(verdict) = verdict.filter(|verdict| !verdict.promoted) {
        println!("  not promoted after training ({})", verdict.reason);
        print!("{}", paragraph(&verdict.why, "    "));
    }
    let counts = &model.counts;
    println!(
        "\ntrained on {} rides ({:.1} % with service) of {} batches, tested on {}; penalty {}, threshold {:.4}",
        HumanCount(counts.train),
        100.0 * counts.train_service as f64 / counts.train.max(1) as f64,
        model.datasets.len(),
        HumanCount(counts.test),
        model.alpha,
        model.threshold,
    );
    coefficients(&model.coefficients);
    if let Some(metrics) = &model.test {
        quality("\nheld-out rides", metrics);
    }
    quality(if model.test.is_some() { "training rides" } else { "\ntraining rides" }, &model.train);
    if let Some(evidence) = &model.evidence {
        print_evidence(evidence);
    }
    for why in cautions(&model) {
        print!("{}", paragraph(&format!("caution: {why}"), "  "));
    }
    let report = layout::report(&model.model, &model.model_id);
    if store::exists(&store, &report).await? {
        println!("\nreport: {}/{report}", session.store_location()?);
    }
    Ok(())
}

fn coefficients(coefficients: &[Coefficient]) {
    println!("\n{:<14}{:>13}{:>12}{:>9}{:>10}   odds × (95 %) per step", "", "per unit", "std. error", "z", "p");
    for Coefficient { feature, per_unit, inference, .. } in coefficients {
        match inference {
            None => println!("{feature:<14}{per_unit:>+13.6}{:>12}{:>9}{:>10}", "–", "–", "–"),
            Some(i) => {
                let Interval { value, lower, upper } = i.odds_ratio;
                println!(
                    "{feature:<14}{per_unit:>+13.6}{:>12.6}{:>9.2}{:>10}   {} ({} to {}) per {}",
                    i.standard_error,
                    i.z,
                    p(i.p_value),
                    factor(value),
                    factor(lower),
                    factor(upper),
                    i.step_name
                );
            }
        }
    }
}

fn p(value: f64) -> String {
    if value < 0.0001 { "<0.0001".to_owned() } else { format!("{value:.4}") }
}

fn quality(of: &str, metrics: &Metrics) {
    let share = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.4}"));
    let Metrics { log_loss, brier, accuracy, roc_auc, average_precision, f1, calibration_error, .. } = *metrics;
    let [roc_auc, precision, f1, calibration] = [roc_auc, average_precision, f1, calibration_error].map(share);
    println!(
        "{of}: log-loss {log_loss:.5}, Brier {brier:.5}, ROC AUC {roc_auc}, average precision {precision}, \
         accuracy {accuracy:.4}, F1 {f1}, calibration error {calibration}"
    );
}

fn print_evidence(evidence: &Evidence) {
    println!();
    for (what, test) in [("all features against none", &evidence.any), ("weather beside mileage", &evidence.weather)] {
        if let Some(test) = test {
            let (statistic, freedom) = (test.statistic, test.degrees_of_freedom);
            println!("likelihood ratio, {what}: {statistic:.2} on {freedom} degrees of freedom, p {}", p(test.p_value));
        }
    }
    let Some(held_out) = &evidence.held_out else { return };
    let gains = [
        ("predicting the base rate", Some(&held_out.over_base_rate)),
        ("mileage alone", held_out.over_mileage.as_ref()),
    ];
    for (what, gain) in gains.into_iter().filter_map(|(what, gain)| Some((what, gain?))) {
        let Interval { value, lower, upper } = gain.log_loss;
        println!("held out, better than {what}: log-loss by {value:.5} ({lower:.5} to {upper:.5})");
    }
}

/// Wraps a text, each line after `indent`, and makes it safe for a terminal.
fn paragraph(text: &str, indent: &str) -> String {
    wrapped(&legible(text, false), WIDTH - indent.len()).iter().map(|line| format!("{indent}{line}\n")).collect()
}
