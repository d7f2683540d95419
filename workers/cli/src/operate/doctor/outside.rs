//! The object store, what is kept in it for operators, and the weather service.

use super::{
    broker::skew,
    findings::{Findings, Verdict, several},
};
use crate::session::{Failed, Session};
use anyhow::{Context, ensure};
use common::{
    dataset::MANIFEST_SCHEMA,
    message::KINDS,
    model::ALIAS_SCHEMA,
    topology::{dead_queue, queue},
    waiting::Waiting,
    weather::{WeatherWarning, WeatherWarnings},
};
use futures::TryStreamExt;
use gateway::management::http_date;
use object_store::{ObjectStoreExt, path::Path};
use records::{Store, control, layout, store};
use reqwest::StatusCode;
use runtime::{Broker, host};
use serde_json::Value;
use std::collections::BTreeMap;
use weather_fetcher::{Settings as WeatherSettings, http::Head, source::Place};

/// Below this name doctor writes, and removes it again.
const SCRATCH: &str = "scratch";
/// Dead letters and stored documents whose versions are looked at.
const SAMPLE_MAX: usize = 100;

/// Looks at everything that is not the broker; the error is a configuration that cannot be used.
pub(super) async fn examine(session: &Session, findings: &mut Findings) -> Result<(), Failed> {
    let place = session.store_location()?;
    let opened = match session.store() {
        Ok(store) => Some(store),
        Err(Failed::Misused(error)) => {
            findings.broken("store", format!("{error:#}"), "set store.url to a folder that all workers see");
            None
        }
        Err(other) => return Err(other),
    };
    if let Some(store) = &opened {
        match try_out(store).await {
            Ok(()) => findings.ok("store", format!("{place}: written, read, created once and not twice, removed")),
            Err(error) => findings.broken(
                "store",
                format!("{place}: {error:#}"),
                "is there room, is it mounted, may this user write there? A folder on a network file system must know hard links",
            ),
        }
        paused(store, findings).await;
        waiting_workers(store, findings).await;
    } else {
        for check in ["paused workers", "waiting workers"] {
            findings.not_checked(check, "there is no store to read them from");
        }
    }
    versions(session, opened.as_ref(), findings).await?;
    weather(session, findings).await
}

/// Writes, reads, creates twice and removes.
async fn try_out(store: &Store) -> anyhow::Result<()> {
    let path = format!("{SCRATCH}/doctor-{:016x}", host::random_range(0..=u64::MAX));
    let tried = async {
        ensure!(store::create(store, &path, "1").await.context("writing")?, "{path} was there before it was made");
        let again = store::create(store, &path, "2").await.context("writing conditionally")?;
        ensure!(!again, "conditional writes do not hold: the same object was created twice");
        let read = store::read(store, &path).await.context("reading")?;
        ensure!(read.as_deref() == Some(b"1"), "what was read is not what was written");
        Ok(())
    };
    let tried = tried.await;
    let removed = store.delete(&Path::from(path.as_str())).await.context("removing");
    tried.and(removed)
}

async fn paused(store: &Store, findings: &mut Findings) {
    let mut complaints = Vec::new();
    for worker in queue::ALL {
        match control::read(store, worker).await {
            Ok(Some(word)) if word.paused => {
                let why = word.why.map(|why| format!(": {why}")).unwrap_or_default();
                complaints.push(format!("{worker} since {} by {}{why}", word.at, word.by));
            }
            Ok(_) => {}
            Err(error) => complaints.push(format!("{}: {error}", layout::control(worker))),
        }
    }
    findings.judge("paused workers", "none", complaints, Verdict::Warning, "`wildrydes resume WORKER` when it is time");
}

/// What workers wait for, as they recorded it within the last minutes.
pub(super) async fn waiting_workers(store: &Store, findings: &mut Findings) {
    let mut complaints = Vec::new();
    for worker in queue::ALL {
        match control::wait(store, worker, host::now()).await {
            Ok(Some(Waiting { since, why, .. })) => complaints.push(format!("{worker} since {since}: {why}")),
            Ok(None) => {}
            Err(error) => complaints.push(format!("{}: {error}", layout::waiting(worker))),
        }
    }
    let remedy = "repair the cause: the messages are tried again automatically";
    findings.judge("waiting workers", "none", complaints, Verdict::Warning, remedy);
}

/// Versions that this build does not know, among dead letters and stored documents. Work queues are not looked into: each
/// look would count as a delivery.
async fn versions(session: &Session, store: Option<&Store>, findings: &mut Findings) -> Result<(), Failed> {
    let check = "document versions";
    let mut unknown: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen = 0u64;
    let known: Vec<String> = KINDS.iter().map(ToString::to_string).collect();
    let looked = async {
        let connection = session.broker()?.connect("wildrydes doctor").await?;
        for worker in queue::ALL {
            let mut browser = connection.browse(&dead_queue(worker)).await?;
            for _ in 0..SAMPLE_MAX {
                let Some(letter) = browser.next().await? else { break };
                seen += 1;
                if let Some(kind) = letter.properties.kind.filter(|kind| !known.contains(kind)) {
                    *unknown.entry(format!("{kind} in {}", dead_queue(worker))).or_default() += 1;
                }
            }
            browser.close().await?;
        }
        connection.close().await;
        Ok::<(), Failed>(())
    };
    let looked = looked.await;
    if let Some(store) = store {
        for (prefix, ending, schema) in
            [(layout::DATASET, "/manifest.json", MANIFEST_SCHEMA), (layout::MODELS, "/champion.json", ALIAS_SCHEMA)]
        {
            let prefix = Path::from(prefix);
            let listed = store.list(Some(&prefix)).try_filter(|found| {
                let wanted = found.location.as_ref().ends_with(ending);
                async move { wanted }
            });
            let mut listed = std::pin::pin!(listed);
            let mut read = 0;
            while let Ok(Some(found)) = listed.try_next().await
                && read < SAMPLE_MAX
            {
                read += 1;
                let told = store::read_json::<Value>(store, found.location.as_ref()).await.ok().flatten();
                let told =
                    told.as_ref().and_then(|document| document["schema"].as_str()).unwrap_or("no schema").to_owned();
                seen += 1;
                if told != schema {
                    *unknown.entry(format!("{told} in {}", found.location)).or_default() += 1;
                }
            }
        }
    }
    let complaints: Vec<String> = unknown.into_iter().map(|(what, times)| format!("{what} ({times})")).collect();
    match looked {
        Err(Failed::Broken(error)) if complaints.is_empty() => {
            findings.not_checked(check, format!("{error:#}"));
        }
        _ => findings.judge(
            check,
            format!("all {seen} dead letters and documents looked at are of versions this build knows"),
            complaints,
            Verdict::Warning,
            "run workers that know them, then `wildrydes dead replay --reason unknown_version`",
        ),
    }
    Ok(())
}

async fn weather(session: &Session, findings: &mut Findings) -> Result<(), Failed> {
    let settings = session.section::<WeatherSettings>()?;
    let places = settings.stations_places().map_err(|problem| Failed::Misused(problem.into()))?;
    let (mut tried, mut dates, mut found) = (Vec::new(), Vec::new(), None);
    for place in &places {
        match place {
            Place::File(path) if path.is_file() => found = Some(format!("{} is there", path.display())),
            Place::File(path) if path.is_dir() => tried.push(format!("{} is a directory, not a file", path.display())),
            Place::File(path) => tried.push(format!("no file {}", path.display())),
            // As the weather-fetcher asks: a redirect elsewhere is not followed here either.
            Place::Url(url) => match settings.http().map_err(Failed::Misused)?.head(url).await {
                Ok(Head { status, date, redirect }) => {
                    dates.push(date.as_deref().and_then(http_date));
                    // Some services answer no HEAD, and they are there.
                    if status.is_success() || status == StatusCode::METHOD_NOT_ALLOWED {
                        found = Some(format!("{url} answers"));
                    } else if let Some(why) = redirect {
                        tried.push(format!("{url} answers {status}: {why}"));
                    } else {
                        tried.push(format!("{url} answers {status}"));
                    }
                }
                Err(why) => tried.push(format!("{url}: {why}")),
            },
        }
        if found.is_some() {
            break;
        }
    }
    let there = found.is_some();
    match found {
        Some(found) => findings.ok("weather", found),
        None => findings.broken(
            "weather",
            several(&tried),
            "is weather.source right, is the service reachable from here (a proxy, a firewall)? Meanwhile messages wait and spend no \
             attempt; if the service answers, but never with weather, they are dead letters after weather.unusable_patience_ms",
        ),
    }
    if there {
        sample(&settings, findings).await;
    } else {
        findings.not_checked("weather files", "there is no station list to start from");
    }
    match dates.into_iter().flatten().next() {
        Some(date) => skew("weather clock", "the weather service", Some(date), findings),
        None => findings.not_checked("weather clock", "no answer with a date"),
    }
    Ok(())
}

/// Reads the station list and some station files, as the weather-fetcher does.
async fn sample(settings: &WeatherSettings, findings: &mut Findings) {
    /// Station files of a folder that are read.
    const FILES_MAX: usize = 5;
    let check = "weather files";
    let remedy =
        "repair or remove the named files, or copy them again from NOAA; then `wildrydes dead replay` what failed";
    match weather_fetcher::inspect(settings, FILES_MAX).await {
        Err(error) => findings.broken(check, format!("{error:#}"), remedy),
        Ok(found) if !found.problems.is_empty() => findings.broken(check, several(&found.problems), remedy),
        Ok(found) => {
            let complaints = found.warnings.iter().map(complaint);
            let fine = format!("{} stations listed, {} files read", found.stations_listed, found.files_read.len());
            findings.judge(
                check,
                fine,
                complaints.collect(),
                Verdict::Warning,
                "only the days that were left out are lost",
            );
        }
    }
}

/// What was left out of a weather file, in words.
fn complaint(WeatherWarnings { file, why, left_out, samples, .. }: &WeatherWarnings) -> String {
    let counts: Vec<String> = left_out.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let first = samples.first().map(|WeatherWarning { line, column, why }| {
        let place = match (*line, column.is_empty()) {
            // About a day, which the words name.
            (0, true) => String::new(),
            (0, false) => format!("{column}: "),
            (line, true) => format!("line {line}: "),
            (line, false) => format!("line {line}, column {column}: "),
        };
        format!(" (first: {place}{why})")
    });
    let parts = [why.clone(), (!counts.is_empty()).then(|| format!("{} left out", counts.join(", ")))];
    let words: Vec<String> = parts.into_iter().flatten().collect();
    format!("{file}: {}{}", words.join(": "), first.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::weather::WARNINGS_SCHEMA;

    #[test]
    fn a_complaint_names_the_line_only_where_there_is_one() {
        for (line, column, why, words) in [
            (7, "DATE", None, "a.csv: x 2 left out (first: line 7, column DATE: y)"),
            (7, "", None, "a.csv: x 2 left out (first: line 7: y)"),
            (0, "TMIN", None, "a.csv: x 2 left out (first: TMIN: y)"),
            (0, "", Some("z"), "a.csv: z: x 2 left out (first: y)"),
        ] {
            let warnings = WeatherWarnings {
                schema: WARNINGS_SCHEMA.to_owned(),
                station: "USW00094728".to_owned(),
                file: "a.csv".to_owned(),
                why: why.map(str::to_owned),
                left_out: BTreeMap::from([("x".to_owned(), 2)]),
                samples: vec![WeatherWarning { line, column: column.to_owned(), why: "y".to_owned() }],
            };
            assert_eq!(complaint(&warnings), words);
            let missing = WeatherWarnings { left_out: BTreeMap::new(), samples: Vec::new(), ..warnings };
            assert_eq!(complaint(&missing), format!("a.csv: {}", why.unwrap_or_default()));
        }
    }
}
