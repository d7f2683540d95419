//! Checks what the object store holds, and the weather service.

use super::{
    broker::skew,
    findings::{Findings, Severity, several},
    store,
};
use crate::{
    ask::weather_in_words,
    job::warning_in_words,
    session::{Failed, Session},
};
use common::{
    dataset::{FIRST_REVISION, Manifest},
    document::WeatherWarnings,
    message::KINDS,
    model::Alias,
    schema::Described,
    topology::{dead_queue, queue},
    waiting::Waiting,
};
use gateway::management::http_date;
use records::{Store, control, layout};
use reqwest::StatusCode;
use runtime::{Broker, host};
use serde_json::Value;
use std::collections::BTreeMap;
use weather_fetcher::{
    Settings as WeatherSettings,
    live::provider::Provider,
    sources::{http::Head, location::Location},
};

/// Maximum number of dead letters per queue, and of documents per kind, whose versions are checked.
const SAMPLE_MAX: usize = 100;

/// Checks the store, and returns it if it can be opened. Fails if the configuration is invalid.
pub(super) async fn examine_store(session: &Session, findings: &mut Findings) -> Result<Option<Store>, Failed> {
    let opened = store::examine(session, findings).await?;
    if let Some(store) = &opened {
        paused(store, findings).await;
        waiting_workers(store, findings).await;
    } else {
        for check in ["paused workers", "waiting workers"] {
            findings.not_checked(check, "there is no store");
        }
    }
    Ok(opened)
}

async fn paused(store: &Store, findings: &mut Findings) {
    let mut complaints = Vec::new();
    for worker in queue::ALL {
        match control::read(store, worker).await {
            Ok(Some(control)) if control.paused => {
                let why = control.why.map(|why| format!(": {why}")).unwrap_or_default();
                complaints.push(format!("{worker} since {} by {}{why}", control.at, control.by));
            }
            Ok(_) => {}
            Err(error) => complaints.push(format!("{}: {error}", layout::control(worker))),
        }
    }
    findings.judge("paused workers", "none", complaints, Severity::Warning, "`wildrydes resume WORKER` ends a pause");
}

/// Checks what workers wait for, as recorded within the last minutes.
pub(super) async fn waiting_workers(store: &Store, findings: &mut Findings) {
    let mut complaints = Vec::new();
    for worker in queue::ALL {
        match control::wait(store, worker, host::now()).await {
            Ok(Some(Waiting { since, why, .. })) => complaints.push(format!("{worker} since {since}: {why}")),
            Ok(None) => {}
            Err(error) => complaints.push(format!("{}: {error}", layout::waiting(worker))),
        }
    }
    let remedy = "repair the cause: the messages are retried automatically";
    findings.judge("waiting workers", "none", complaints, Severity::Warning, remedy);
}

/// Checks for unknown versions of dead letters and stored documents. Does not read work queues: that would count as a
/// delivery.
pub(super) async fn versions(session: &Session, store: Option<&Store>, findings: &mut Findings) -> Result<(), Failed> {
    let check = "document versions";
    let mut unknown: BTreeMap<String, u64> = BTreeMap::new();
    let mut inspected = 0u64;
    let known: Vec<String> = KINDS.iter().map(ToString::to_string).collect();
    let browsing = async {
        let connection = session.broker()?.connect("wildrydes doctor").await?;
        for worker in queue::ALL {
            let mut browser = connection.browse(&dead_queue(worker)).await?;
            for _ in 0..SAMPLE_MAX {
                let Some(letter) = browser.next().await? else { break };
                inspected += 1;
                if let Some(kind) = letter.properties.kind.filter(|kind| !known.contains(kind)) {
                    *unknown.entry(format!("{kind} in {}", dead_queue(worker))).or_default() += 1;
                }
            }
            browser.close().await?;
        }
        connection.close().await;
        Ok::<(), Failed>(())
    };
    let browsed = browsing.await;
    if let Some(store) = store {
        type PathOf = fn(&str) -> String;
        let first_manifest = |batch_id: &str| layout::manifest(batch_id, FIRST_REVISION);
        let kinds = [
            (layout::DATASET, first_manifest as PathOf, Manifest::SCHEMA.name),
            (layout::MODELS, layout::champion, Alias::SCHEMA.name),
        ];
        for (prefix, path, schema) in kinds {
            let folders = records::store::folders(store, prefix).await.unwrap_or_default();
            for path in folders.iter().take(SAMPLE_MAX).map(|name| path(name)) {
                let document = match records::store::read_json::<Value>(store, &path).await {
                    Ok(None) => continue,
                    read => read.ok().flatten(),
                };
                let version = document.as_ref().and_then(|document| document["schema"].as_str()).unwrap_or("no schema");
                inspected += 1;
                if version != schema {
                    *unknown.entry(format!("{version} in {path}")).or_default() += 1;
                }
            }
        }
    }
    let complaints: Vec<String> = unknown.into_iter().map(|(what, times)| format!("{what} ({times})")).collect();
    match browsed {
        Err(Failed::Broken(error)) if complaints.is_empty() => {
            findings.not_checked(check, format!("{error:#}"));
        }
        _ => findings.judge(
            check,
            format!("all {inspected} dead letters and documents inspected have versions that this build knows"),
            complaints,
            Severity::Warning,
            "run workers of a version that knows them, then `wildrydes dead replay --reason unknown_version`",
        ),
    }
    Ok(())
}

pub(super) async fn weather(session: &Session, findings: &mut Findings) -> Result<(), Failed> {
    let settings = session.section::<WeatherSettings>()?;
    let places = settings.station_list_locations().map_err(|problem| Failed::Misused(problem.into()))?;
    let (mut failures, mut dates, mut found) = (Vec::new(), Vec::new(), None);
    for place in &places {
        match place {
            Location::File(path) if path.is_file() => found = Some(format!("{} exists", path.display())),
            Location::File(path) if path.is_dir() => {
                failures.push(format!("{} is a directory, not a file", path.display()))
            }
            Location::File(path) => failures.push(format!("no file {}", path.display())),
            // Like the weather-fetcher, this does not follow a redirect to another host.
            Location::Url(url) => match settings.http().map_err(Failed::Misused)?.head(url).await {
                Ok(Head { status, date, redirect }) => {
                    dates.push(date.as_deref().and_then(http_date));
                    // Some services are available but do not support HEAD.
                    if status.is_success() || status == StatusCode::METHOD_NOT_ALLOWED {
                        found = Some(format!("{url} answers"));
                    } else if let Some(why) = redirect {
                        failures.push(format!("{url} answers {status}: {why}"));
                    } else {
                        failures.push(format!("{url} answers {status}"));
                    }
                }
                Err(why) => failures.push(format!("{url}: {why}")),
            },
        }
        if found.is_some() {
            break;
        }
    }
    let is_available = found.is_some();
    match found {
        Some(found) => findings.ok("weather", found),
        None => findings.broken(
            "weather",
            several(&failures),
            "check that weather.source is right and that the service is reachable from here (proxy, firewall). Meanwhile messages \
             wait without spending attempts; if the service answers, but without weather, they become dead letters after \
             weather.unusable_patience_ms",
        ),
    }
    if is_available {
        sample(&settings, findings).await;
    } else {
        findings.not_checked("weather files", "there is no station list");
    }
    match dates.into_iter().flatten().next() {
        Some(date) => skew("weather clock", "the weather service", Some(date), findings),
        None => findings.not_checked("weather clock", "no answer with a date"),
    }
    forecasts(&settings, findings).await
}

/// Checks each forecast service that is configured.
async fn forecasts(settings: &WeatherSettings, findings: &mut Findings) -> Result<(), Failed> {
    for (provider, answer) in weather_fetcher::inspect_forecasts(settings).await.map_err(Failed::Misused)? {
        let check = match provider {
            Provider::Nws => "forecasts of nws",
            Provider::OpenMeteo => "forecasts of open-meteo",
            Provider::Climatology => continue,
        };
        match answer {
            Ok(weather) => findings.ok(check, format!("today in New York: {}", weather_in_words(&weather))),
            Err(why) => findings.warn(
                check,
                why,
                "check that the service is reachable from here (proxy, firewall, weather.contact), or leave it out of weather.live. \
                 Meanwhile lookups of today and the coming days use the next provider",
            ),
        }
    }
    Ok(())
}

/// Checks the station list and some station files, as the weather-fetcher reads them.
async fn sample(settings: &WeatherSettings, findings: &mut Findings) {
    /// Maximum number of station files of a folder to read.
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
                Severity::Warning,
                "only the observations that were left out are missing",
            );
        }
    }
}

/// Describes what was left out of a weather file.
fn complaint(WeatherWarnings { file, why, left_out, samples, .. }: &WeatherWarnings) -> String {
    let counts: Vec<String> = left_out.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let first = samples.first().map(|first| format!(" (first: {})", warning_in_words(first)));
    let parts = [why.clone(), (!counts.is_empty()).then(|| format!("{} left out", counts.join(", ")))];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{file}: {}{}", parts.join(": "), first.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::document::WeatherWarning;
    #[test]
    fn complaint_names_the_line_if_there_is_one() {
        for (line, column, why, text) in [
            (7, "DATE", None, "a.csv: x 2 left out (first: line 7, column DATE: y)"),
            (7, "", None, "a.csv: x 2 left out (first: line 7: y)"),
            (0, "TMIN", None, "a.csv: x 2 left out (first: TMIN: y)"),
            (0, "", Some("z"), "a.csv: z: x 2 left out (first: y)"),
        ] {
            let warnings = WeatherWarnings {
                schema: WeatherWarnings::SCHEMA.name.to_owned(),
                station: "USW00094728".to_owned(),
                file: "a.csv".to_owned(),
                why: why.map(str::to_owned),
                left_out: BTreeMap::from([("x".to_owned(), 2)]),
                samples: vec![WeatherWarning { line, column: column.to_owned(), why: "y".to_owned() }],
            };
            assert_eq!(complaint(&warnings), text);
            let missing = WeatherWarnings { left_out: BTreeMap::new(), samples: Vec::new(), ..warnings };
            assert_eq!(complaint(&missing), format!("a.csv: {}", why.unwrap_or_default()));
        }
    }
}
