//! `describe`: summary statistics of the joined dataset.

mod summary;

use self::summary::{ColumnSummary, Counter, Group, NUMBERS, QUANTILES, RATES, Summary, numbers};
use crate::{
    arguments::Describe,
    notebook::dataset::{Datasets, LeftOut, Revisions, moment_of},
    output::{legible, print_json},
    session::{Failed, Session},
};
use common::{dataset::FIRST_REVISION, text::truncate};
use indicatif::HumanCount;
use records::datasets::Column;
use serde_json::{Value, json};
use std::fmt::{self, Write};

/// Maximum number of breeds, stations and batches in a table.
const TABLE_ROWS_MAX: usize = 8;
/// Maximum number of breeds and stations in JSON.
const JSON_VALUES_MAX: usize = 100;

/// `describe`
pub(crate) async fn describe(session: &Session, options: &Describe) -> Result<(), Failed> {
    let datasets = Datasets::select(session, &options.selection).await?;
    let mut summary = Summary::default();
    let left_out = datasets
        .read("describing", session.shared.json, |batch_id, rows, kept| {
            summary.add(batch_id, rows, kept);
            Ok(())
        })
        .await?;
    match session.shared.json {
        true => print_json(&as_json(&summary, left_out, &datasets.revisions()))?,
        false => print!("{}", as_text(&summary, left_out, &datasets.revisions())?),
    }
    Ok(())
}

fn as_json(summary: &Summary, left_out: LeftOut, revisions: &Revisions<'_>) -> Value {
    let moment = |millis: i64| moment_of(millis).map(|moment| moment.to_string());
    let batch = |(batch_id, rides): &(String, u64)| {
        let revision = revisions.get(batch_id.as_str()).copied().unwrap_or(FIRST_REVISION);
        json!({ "batch_id": batch_id, "rides": rides, "revision": revision })
    };
    let batches: Vec<_> = summary.batches.iter().map(batch).collect();
    let columns: Vec<_> = numbers()
        .zip(summary.columns())
        .map(|(Column { name, unit, .. }, of)| {
            let ColumnSummary { count, missing, mean, sd, min, quantiles, max } = of;
            let quantiles: serde_json::Map<String, Value> =
                QUANTILES.iter().map(f64::to_string).zip(quantiles.map(Value::from)).collect();
            json!({
                "name": name, "unit": unit, "count": count, "missing": missing, "mean": mean, "sd": sd,
                "min": min, "quantiles": quantiles, "max": max,
            })
        })
        .collect();
    let matrix: Vec<Vec<_>> = (0..NUMBERS).map(|x| (0..NUMBERS).map(|y| summary.correlation(x, y)).collect()).collect();
    let rates: Vec<_> = RATES
        .iter()
        .zip(&summary.rates)
        .map(|(rate, groups)| {
            let column = numbers().nth(rate.column).map(|column| (column.name, column.unit)).unwrap_or_default();
            let bins: Vec<_> = groups
                .iter()
                .enumerate()
                .map(|(bin, group)| {
                    let from = bin.checked_sub(1).map(|before| rate.edges[before]);
                    let mut document = group_json(group);
                    document["bin"] = rate.bins[bin].into();
                    document["from"] = from.into();
                    document["below"] = rate.edges.get(bin).copied().into();
                    document
                })
                .collect();
            json!({ "column": column.0, "unit": column.1, "bins": bins })
        })
        .collect();
    json!({
        "batches": batches,
        "rides": summary.rides.rides, "labelled": summary.rides.labelled, "service": summary.rides.service,
        "with_weather": summary.with_weather, "trainable": summary.trainable, "without_name": summary.without_name,
        "left_out": { "unlabelled": left_out.unlabelled, "duplicates": left_out.duplicates },
        "first": summary.times.and_then(|(first, _)| moment(first)),
        "last": summary.times.and_then(|(_, last)| moment(last)),
        "quantiles_of_rides": summary.sampled(),
        "columns": columns,
        "correlations": { "columns": numbers().map(|column| column.name).collect::<Vec<_>>(), "matrix": matrix },
        "breeds": counter_json(&summary.breeds), "stations": counter_json(&summary.stations),
        "service_rates": rates,
    })
}

fn group_json(group: &Group) -> Value {
    let interval = group.interval().map(|(low, high)| [low, high]);
    json!({
        "rides": group.rides, "labelled": group.labelled, "service": group.service, "rate": group.rate(),
        "interval_95": interval,
    })
}

fn counter_json(counter: &Counter) -> Value {
    let largest: Vec<_> = counter
        .largest(JSON_VALUES_MAX)
        .into_iter()
        .map(|(value, group)| {
            let mut document = group_json(&group);
            document["value"] = value.into();
            document
        })
        .collect();
    json!({
        "distinct": counter.distinct(), "missing": counter.missing.rides, "uncounted": counter.uncounted.rides,
        "largest": largest,
    })
}

fn as_text(summary: &Summary, left_out: LeftOut, revisions: &Revisions<'_>) -> Result<String, fmt::Error> {
    let mut text = String::new();
    counts(&mut text, summary, left_out, revisions)?;
    if summary.rides.rides == 0 {
        return Ok(text);
    }
    columns(&mut text, summary)?;
    correlations(&mut text, summary)?;
    if summary.rides.labelled > 0 {
        for (title, (rate, groups)) in
            ["the day's highest temperature", "the day's rain"].iter().zip(RATES.iter().zip(&summary.rates))
        {
            let labels = rate.bins.iter().map(|bin| (*bin).to_owned());
            groups_by(&mut text, &format!("Service rate by {title}"), labels.zip(groups.iter().copied()).collect())?;
        }
    }
    texts(&mut text, "Breeds", &summary.breeds)?;
    texts(&mut text, "Weather stations", &summary.stations).map(|()| text)
}

fn share(part: u64, of: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / of.max(1) as f64)
}

fn counts(text: &mut String, summary: &Summary, left_out: LeftOut, revisions: &Revisions<'_>) -> fmt::Result {
    let Summary { rides: Group { rides, labelled, service }, with_weather, trainable, .. } = summary;
    let mut line = |name: &str, count: u64, more: String| {
        let line = format!("  {name:<18}{:>13}   {more}", HumanCount(count).to_string());
        writeln!(text, "{}", line.trim_end())
    };
    let span = summary.times.map(|(first, last)| [first, last].map(|at| moment_of(at).map(|at| at.to_string())));
    let span = match span {
        Some([Some(first), Some(last)]) => format!("{} to {}", &first[..16], &last[..16]),
        _ => String::new(),
    };
    line("rides", *rides, span)?;
    line("labelled", *labelled, share(*labelled, *rides))?;
    line("… service", *service, format!("{} of the labelled rides", share(*service, *labelled)))?;
    line("with weather", *with_weather, share(*with_weather, *rides))?;
    line("trainable", *trainable, format!("{}: with label and weather", share(*trainable, *rides)))?;
    if left_out.unlabelled > 0 {
        line("left out", left_out.unlabelled, "without a label".to_owned())?;
    }
    if left_out.duplicates > 0 {
        line("left out", left_out.duplicates, "ride ids of another batch".to_owned())?;
    }
    line("batches", summary.batches.len() as u64, String::new())?;
    for (batch_id, rides) in summary.batches.iter().take(TABLE_ROWS_MAX) {
        let later = revisions.get(batch_id.as_str());
        let later = later.map_or_else(String::new, |revision| format!("   revision {revision}"));
        writeln!(text, "    {:<44}{:>13}{later}", cut(batch_id, 43), HumanCount(*rides).to_string())?;
    }
    others(text, "    ", summary.batches.iter().skip(TABLE_ROWS_MAX).map(|(_, rides)| *rides))?;
    text.insert_str(0, "\nRides\n");
    Ok(())
}

fn others(text: &mut String, indent: &str, rides: impl Iterator<Item = u64>) -> fmt::Result {
    let (count, rides) = rides.fold((0, 0), |(count, sum), rides| (count + 1, sum + rides));
    if count > 0 {
        let name = format!("{} others", HumanCount(count));
        writeln!(text, "{indent}{name:<44}{:>13}", HumanCount(rides).to_string())?;
    }
    Ok(())
}

fn columns(text: &mut String, summary: &Summary) -> fmt::Result {
    let all = summary.columns();
    let count = |count| HumanCount(count).to_string();
    writeln!(text, "\n{:<16}{:<14}{:>15}{:>15}{:>13}{:>13}", "Columns", "unit", "count", "missing", "mean", "sd")?;
    for (Column { name, unit, .. }, of) in numbers().zip(&all) {
        let (mean, sd) = (short(of.mean), short(of.sd));
        let [present, missing] = [of.count, of.missing].map(count);
        writeln!(text, "  {name:<14}{:<14}{present:>15}{missing:>15}{mean:>13}{sd:>13}", unit.unwrap_or("0 or 1"))?;
    }
    let basis = match summary.sampled() {
        all if all == summary.rides.rides => String::new(),
        sampled => format!(", 5 to 95 % of {} evenly spread rides", HumanCount(sampled)),
    };
    writeln!(text, "\nQuantiles{basis}")?;
    write!(text, "  {:<14}{:>12}", "", "min")?;
    for quantile in QUANTILES {
        write!(text, "{:>12}", format!("{} %", (100.0 * quantile).round()))?;
    }
    writeln!(text, "{:>12}", "max")?;
    for (column, of) in numbers().zip(&all) {
        write!(text, "  {:<14}", column.name)?;
        for value in [of.min].into_iter().chain(of.quantiles).chain([of.max]) {
            write!(text, "{:>12}", short(value))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn correlations(text: &mut String, summary: &Summary) -> fmt::Result {
    write!(text, "\n{:<16}", "Correlations")?;
    for column in numbers() {
        write!(text, "{:>8}", column.short)?;
    }
    writeln!(text)?;
    for (x, column) in numbers().enumerate() {
        write!(text, "  {:<14}", column.name)?;
        for y in 0..=x {
            match summary.correlation(x, y) {
                Some(r) if r.abs() < 0.005 => write!(text, "{:>8}", "0.00")?,
                Some(r) => write!(text, "{:>8}", format!("{r:+.2}"))?,
                None => write!(text, "{:>8}", "–")?,
            }
        }
        writeln!(text)?;
    }
    Ok(())
}

fn groups_by(text: &mut String, title: &str, groups: Vec<(String, Group)>) -> fmt::Result {
    writeln!(text, "\n{title:<40}{:>13}{:>13}{:>9}    95 % interval", "rides", "labelled", "service")?;
    for (name, group) in groups {
        let [rides, labelled] = [group.rides, group.labelled].map(|count| HumanCount(count).to_string());
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let rate = group.rate().map_or("–".to_owned(), percent);
        let interval = group.interval().map(|(low, high)| format!("{} to {}", percent(low), percent(high)));
        let line = format!("  {name:<38}{rides:>13}{labelled:>13}{rate:>9}    {}", interval.unwrap_or_default());
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

fn texts(text: &mut String, title: &str, counter: &Counter) -> fmt::Result {
    let mut groups: Vec<_> =
        counter.largest(TABLE_ROWS_MAX).into_iter().map(|(value, group)| (cut(value, 37), group)).collect();
    if groups.is_empty() {
        return Ok(());
    }
    if counter.missing.rides > 0 {
        groups.push(("none".to_owned(), counter.missing));
    }
    let title = match (counter.distinct(), counter.uncounted.rides) {
        (distinct, 0) if distinct <= TABLE_ROWS_MAX => title.to_owned(),
        (distinct, 0) => format!("{title}: {TABLE_ROWS_MAX} of {}", HumanCount(distinct as u64)),
        (distinct, _) => format!("{title}: {TABLE_ROWS_MAX} of more than {}", HumanCount(distinct as u64)),
    };
    groups_by(text, &title, groups)
}

/// Makes an untrusted text safe for a terminal and cuts it to `length` characters.
fn cut(text: &str, length: usize) -> String {
    truncate(&legible(text, false), length).into_owned()
}

/// Formats a number in at most eleven characters.
fn short(number: Option<f64>) -> String {
    let Some(number) = number else { return "–".to_owned() };
    let size = number.abs();
    if number.fract() == 0.0 && size < 1e9 {
        return format!("{number:.0}");
    }
    match size {
        _ if !(1e-3..1e7).contains(&size) => format!("{number:.3e}"),
        _ if size >= 1e4 => format!("{number:.1}"),
        _ if size >= 100.0 => format!("{number:.2}"),
        _ if size >= 10.0 => format!("{number:.3}"),
        _ => format!("{number:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notebook::dataset::rows_of;

    fn summary(records: &[String]) -> Summary {
        let rows = rows_of(&records.concat());
        let mut summary = Summary::default();
        summary.add(&"b".repeat(200), &rows, &(0..rows.len()).collect::<Vec<_>>());
        summary
    }

    #[test]
    fn tables_fit_a_terminal_for_extreme_numbers_and_texts() {
        let record = |i: usize| {
            let (breed, station) = (format!("{}{i}", "Qilin\u{1b}[2J".repeat(20)), format!("{}{i}", "S".repeat(300)));
            let points = if i.is_multiple_of(2) { "-999999999.123456" } else { "1000000000" };
            let label = i % 2;
            format!(
                "r-{i},,{breed},2018-04-25 17:03:05.722,-89.99999999,179.123456789,999999.999,{points},0.000000123,\
                 {label},{station},12345.678901,-2147483648,2147483647,{i}\n"
            )
        };
        let text =
            as_text(&summary(&(0..30).map(record).collect::<Vec<_>>()), LeftOut::default(), &Revisions::new()).unwrap();
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}\n{text}");
            assert!(!line.contains('\u{1b}'), "{line}");
        }
        for part in ["Breeds: 8 of 30", "Weather stations: 8 of 30", "Correlations", "Quantiles\n", "from 30 °C"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn empty_selection_and_ride_without_optional_fields_are_described() {
        let none = as_text(&summary(&[]), LeftOut { unlabelled: 3, duplicates: 0 }, &Revisions::new()).unwrap();
        assert!(none.contains("left out") && !none.contains("Columns"), "{none}");
        let bare = ["a,,,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292,,,,,,\n".to_owned()];
        let one = as_text(&summary(&bare), LeftOut::default(), &Revisions::new()).unwrap();
        assert!(one.contains("–") && !one.contains("NaN") && !one.contains("Service rate"), "{one}");
        let json = as_json(&summary(&bare), LeftOut::default(), &Revisions::new());
        assert_eq!((&json["columns"][5]["count"], &json["columns"][5]["mean"]), (&json!(0), &Value::Null));
        assert_eq!(json["first"], "2018-04-25 17:03:05.722");
    }

    #[test]
    fn numbers_are_short_and_keep_significant_digits() {
        for (number, text) in [
            (0.0, "0"),
            (-74.0, "-74"),
            (40.71234, "40.712"),
            (-0.000_012_3, "-1.230e-5"),
            (123_456.78, "123456.8"),
            (-999_999_999.123, "-1.000e9"),
            (291.256, "291.26"),
        ] {
            assert_eq!(short(Some(number)), text);
        }
        assert_eq!(short(None), "–");
    }
}
