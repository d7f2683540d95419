//! The dashboards of `deploy/grafana`: each panel is described and its queries have an answer in Prometheus while a fleet runs.
//!
//! Grafana itself is not needed: a test replaces its variables in the queries and sends them to Prometheus.

use super::alerts::alerts;
use common::topology::process;
use pipeline_tests::{
    gateway::{self, Api, ride},
    noaa::{Data, Fault, Noaa},
    processes::{Fleet, Input, succeed},
    prometheus::{self, Prometheus, SCRAPED, broker_metrics, deploy, is_installed, read_yaml},
};
use regex::Regex;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs};

/// Every dashboard by the name of its file.
fn dashboards() -> Vec<(String, Value)> {
    let entries = fs::read_dir(deploy().join("grafana/dashboards")).expect("the folder");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let read = |path: std::path::PathBuf| {
        let text = fs::read_to_string(&path).expect("text");
        let dashboard = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned(), dashboard)
    };
    paths.into_iter().map(read).collect()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("no list {name} in {value}"))
}

/// Where a panel lies: columns and rows.
fn area(panel: &Value) -> (std::ops::Range<u64>, std::ops::Range<u64>) {
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
    (x..x + w, y..y + h)
}

/// Dashboards have distinct names, choose their source by a variable, and are those that the provisioning loads.
#[test]
fn dashboards_are_named_after_their_files_and_choose_their_source() {
    let dashboards = dashboards();
    let names: Vec<&str> = dashboards.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["fleet", "model", "scores", "workers"]);
    for (name, dashboard) in &dashboards {
        assert_eq!(dashboard["uid"], format!("wildrydes-{name}"));
        assert_eq!(dashboard["title"], format!("Wild Rydes: {name}"));
        assert_eq!(dashboard["tags"], json!(["wildrydes"]));
        let variables = list(&dashboard["templating"], "list");
        assert_eq!((&variables[0]["name"], &variables[0]["type"]), (&json!("datasource"), &json!("datasource")));
        let kinds: Vec<_> = list(dashboard, "links").iter().map(|link| link["type"].as_str()).collect();
        assert_eq!(kinds, [Some("dashboards"), Some("link")], "{name}: the other dashboards and the runbooks");
    }
    let source = read_yaml(&deploy().join("grafana/provisioning/datasources/prometheus.yml"));
    assert_eq!(source["datasources"][0]["type"], "prometheus");
    let folder = read_yaml(&deploy().join("grafana/provisioning/dashboards/wildrydes.yml"));
    let compose = fs::read_to_string(deploy().join("compose.yaml")).expect("the compose file");
    let path = folder["providers"][0]["options"]["path"].as_str().expect("a path");
    assert!(compose.contains(&format!("./grafana/dashboards:{path}:ro")), "{path}");
}

/// Each panel says what it shows, in which unit and which runbooks belong to it; panels do not overlap.
#[test]
fn every_panel_has_a_description_a_unit_and_runbooks_that_exist() {
    let alerts = alerts();
    let runbooks = Regex::new(r"Runbooks?: ([A-Za-z, ]+)\.").expect("a pattern");
    let mut linked = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        let panels = list(&dashboard, "panels");
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: ids of panels");
        for (index, panel) in panels.iter().enumerate() {
            let title = panel["title"].as_str().expect("a title");
            let (columns, rows) = area(panel);
            assert!(columns.end <= 24 && !rows.is_empty(), "{name}, {title}");
            for other in &panels[..index] {
                let (other_columns, other_rows) = area(other);
                let beside = columns.end <= other_columns.start || other_columns.end <= columns.start;
                assert!(
                    beside || rows.end <= other_rows.start || other_rows.end <= rows.start,
                    "{name}: {title} covers {other}"
                );
            }
            if panel["type"] == "row" {
                continue;
            }
            let description = panel["description"].as_str().unwrap_or_default();
            assert!(description.len() > 15 && description.ends_with('.'), "{name}, {title}: {description:?}");
            if let Some(names) = runbooks.captures(description) {
                linked.extend(names[1].split(", ").map(str::to_owned));
            }
            if panel["type"] == "alertlist" {
                continue;
            }
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{name}, {title}: no unit");
            assert!(
                panel["fieldConfig"]["defaults"]["thresholds"]["steps"].is_array(),
                "{name}, {title}: no thresholds"
            );
            for target in list(panel, "targets") {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{name}, {title}");
                let is_named = target["legendFormat"].as_str().is_some_and(|legend| !legend.is_empty());
                assert!(is_named || panel["type"] == "table", "{name}, {title}: no legend");
            }
        }
    }
    for alert in &linked {
        assert!(alerts.contains_key(alert), "no alert {alert}");
    }
    let unseen: Vec<_> = alerts.keys().filter(|alert| !linked.contains(*alert)).collect();
    assert_eq!(unseen, ["QueueMetricsMissing"], "alerts without a panel that shows their cause");
}

/// Every query with the place where it stands. Variables stand for all processes, and rates reach over the whole test.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (name, dashboard) in dashboards() {
        for panel in list(&dashboard, "panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let mut expression = target["expr"].as_str().expect("a query").to_owned();
                for (variable, value) in [("$__rate_interval", "10m"), ("$process", ".+"), ("$instance", ".+")] {
                    expression = expression.replace(variable, value);
                }
                assert!(!expression.contains('$'), "{name}: unknown variable in {expression}");
                queries.push((format!("{name}, {}", panel["title"]), expression));
            }
        }
    }
    assert!(queries.len() > 50, "{} queries", queries.len());
    queries
}

/// A query per variable that asks Prometheus: its values.
fn variables() -> Vec<(String, String)> {
    let pattern = Regex::new(r"^label_values\((.+), (\w+)\)$").expect("a pattern");
    let mut found = Vec::new();
    for (name, dashboard) in dashboards() {
        for variable in list(&dashboard["templating"], "list").iter().skip(1) {
            let query = variable["query"]["query"].as_str().expect("a query");
            let parts = pattern.captures(query).unwrap_or_else(|| panic!("{name}: {query}"));
            let values = format!("count by ({}) ({})", &parts[2], parts[1].replace("$process", ".+"));
            found.push((format!("{name}, variable {}", variable["name"]), values));
        }
    }
    found
}

/// Scores rides, so that every rate about scores has something to count.
async fn score(api: &Api) -> Result<(), String> {
    let rides: Vec<Value> = (0..50).map(|_| ride()).collect();
    api.post("/v1/score", &json!({ "rides": rides })).await.with_status(200)?;
    Ok(())
}

/// Ingests two batches into a fleet whose weather service fails at first, so that there are a champion, a challenger in shadow,
/// retries and an outage.
async fn work(fleet: &Fleet, input: &Input, server: &Prometheus, api: &Api) {
    let everything = "count(process:wildrydes_up:sum == 1) == 6";
    fleet.until("Prometheus to see the fleet", async || server.has_value(everything).await).await;
    succeed(fleet.wildrydes().args(["ingest", "--until", "dataset"]).arg(&input.rides));
    fleet.wait_for("the first model", |store| store.join("models/service-request/challenger.json").is_file());
    fleet
        .until("Prometheus to see the training", async || server.has_value("wildrydes_verdicts_total > 0").await)
        .await;
    succeed(fleet.wildrydes().args(["model", "promote", "challenger", "--why", "a test"]));
    fleet.until("a score", async || score(api).await).await;
    let more = input.folder().join("more.json");
    succeed(
        pipeline_tests::processes::wildrydes().args(["generate", "rides", "--rides", "3000", "--seed", "7"]).arg(&more),
    );
    succeed(fleet.wildrydes().args(["ingest", "--until", "dataset"]).arg(&more));
}

/// While a fleet works on RabbitMQ and Prometheus scrapes it, no query of a panel and no variable is empty, and no rule fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_shows_a_running_fleet() {
    let Some(broker) = is_installed().then(broker_metrics).flatten() else { return };
    let input = Input::of(4_000);
    let noaa = Noaa::start(Data::Folder(input.weather.clone())).await.expect("a port");
    noaa.fail_next("ghcnd-stations.txt", 8, Fault::Status(503, None));
    let more = [
        ("WILDRYDES__WEATHER__REQUESTS_PER_SECOND", "1000"),
        ("WILDRYDES__TRAINER__PROMOTION", "by_hand"),
        ("WILDRYDES__SCORER__SERVED_WRITE_MS", "200"),
    ];
    let settings: Vec<_> = SCRAPED.into_iter().chain(gateway::OPEN).chain(more).collect();
    let mut fleet = Fleet::start_some(&[], 1, noaa.url(), &settings);
    let addresses = prometheus::launch(&mut fleet, &process::ALL.map(|process| process.name));
    let api = Api::at(&fleet.wait_for("the gateway's address", |_| {
        let listening = fleet.logs().into_iter().find(|line| line["message"] == "listening")?;
        listening["url"].as_str().map(str::to_owned)
    }));
    let server = Prometheus::start(&fleet, &addresses, broker).await;
    work(&fleet, &input, &server, &api).await;

    // On a loaded machine a scrape fails now and then, and its series end for a moment: each query counts once it had a value.
    let mut empty = [queries(), variables()].concat();
    let none_is_empty = async || {
        score(&api).await?;
        let mut left = Vec::new();
        for (place, query) in &empty {
            if !server.has_value(query).await? {
                left.push((place.clone(), query.clone()));
            }
        }
        empty = left;
        if empty.is_empty() { Ok(()) } else { Err(format!("empty: {empty:#?}")) }
    };
    fleet.until("every panel to show something", none_is_empty).await;
    let no_rule_fails = async || {
        let failed = server.unhealthy_rules().await?;
        if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
    };
    fleet.until("every rule to be evaluated", no_rule_fails).await;
    fleet.finish().await;
}
