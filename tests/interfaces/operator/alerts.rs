//! The alerts of `deploy/prometheus`: promtool checks them and makes each fire, and six of them fire against a running fleet.

use super::publish;
use common::{
    message::{BatchContent, RideBatch},
    reading::Reading,
    topology::process::{self, MERGER, SCORER, TRAINER},
};
use pipeline_tests::{
    processes::{Fleet, Input, succeed},
    prometheus::{self, Prometheus, SCRAPED, broker_metrics, deploy, is_installed, read_yaml},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

/// The files below `deploy/prometheus/<folder>`.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(deploy().join("prometheus").join(folder)).expect("the folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// Every alert by its name.
pub(super) fn alerts() -> BTreeMap<String, Value> {
    let mut alerts = BTreeMap::new();
    for file in files("rules") {
        let rules = read_yaml(&file);
        let groups = rules["groups"].as_array().expect("groups");
        for rule in groups.iter().filter_map(|group| group["rules"].as_array()).flatten() {
            if let Some(name) = rule["alert"].as_str() {
                let before = alerts.insert(name.to_owned(), rule.clone());
                assert!(before.is_none(), "two alerts have the name {name}");
            }
        }
    }
    assert!(alerts.len() > 20, "{} alerts", alerts.len());
    alerts
}

/// The headings of `deploy/README.md` below `### Alerts`, each with its text.
fn runbooks() -> BTreeMap<String, String> {
    let readme = fs::read_to_string(deploy().join("README.md")).expect("the README");
    let (_, rest) = readme.split_once("\n### Alerts\n").expect("a section of alerts");
    let section = rest.split("\n## ").next().expect("its text");
    let runbooks = section.split("\n#### ").skip(1).filter_map(|runbook| runbook.split_once('\n'));
    runbooks.map(|(heading, text)| (heading.to_owned(), text.to_owned())).collect()
}

/// Runs promtool, which must succeed.
fn promtool(arguments: &[&str], files: &[PathBuf]) {
    succeed(Command::new("promtool").args(arguments).args(files));
}

/// The configuration, its rules and their tests pass promtool.
#[test]
fn promtool_accepts_the_configuration_and_the_rules_and_passes_their_tests() {
    if !is_installed() {
        return;
    }
    promtool(&["check", "config"], &[deploy().join("prometheus/prometheus.yml")]);
    promtool(&["check", "rules"], &files("rules"));
    promtool(&["test", "rules"], &files("tests"));
}

/// Each alert has a test of promtool in which it fires, and one in which it does not yet.
#[test]
fn every_alert_fires_in_a_test_of_promtool_and_not_before_its_time() {
    let (mut fires, mut waits) = (BTreeSet::new(), BTreeSet::new());
    for file in files("tests") {
        let tests = read_yaml(&file);
        let cases = tests["tests"].as_array().expect("tests");
        for case in cases.iter().filter_map(|test| test["alert_rule_test"].as_array()).flatten() {
            let name = case["alertname"].as_str().expect("a name").to_owned();
            let expected = case["exp_alerts"].as_array().expect("a list");
            if expected.is_empty() {
                waits.insert(name)
            } else {
                fires.insert(name)
            };
        }
    }
    let names: BTreeSet<String> = alerts().into_keys().collect();
    assert_eq!(fires, names, "alerts that fire in a test");
    assert_eq!(waits, names, "alerts that do not fire before their time in a test");
}

/// Each alert has a severity, texts and a link to its heading in `deploy/README.md`, where every heading belongs to an alert.
#[test]
fn every_alert_links_to_its_runbook() {
    let (alerts, runbooks) = (alerts(), runbooks());
    for (name, alert) in &alerts {
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: severity {severity:?}");
        assert!(alert["for"].is_string(), "{name} fires at the first bad sample");
        for text in ["summary", "description"] {
            assert!(alert["annotations"][text].as_str().is_some_and(|text| text.len() > 10), "{name}: {text}");
        }
        let anchor = name.to_lowercase();
        assert_eq!(
            alert["annotations"]["runbook_url"],
            format!("{{{{ $externalURL }}}}/user/README.md#{anchor}"),
            "{name}"
        );
        let runbook = runbooks.get(name).unwrap_or_else(|| panic!("{name} has no heading"));
        for part in ["**Meaning.** ", "**Look at.** ", "**Do.** "] {
            assert!(runbook.contains(part), "{name}: the runbook has no part {part:?}");
        }
    }
    assert_eq!(runbooks.into_keys().collect::<Vec<_>>(), alerts.into_keys().collect::<Vec<_>>());
}

/// Alerts that depend on what the test does alone, and not on the speed of this machine.
const WATCHED: [&str; 6] =
    ["DeadLetters", "QueueOld", "QueueWithoutConsumer", "WorkerDown", "WorkerMissing", "WorkerPaused"];

/// The names of the watched alerts that fire, each with its process or worker.
async fn firing(server: &Prometheus) -> Result<BTreeSet<String>, String> {
    let alerts = server.firing().await?;
    let watched = alerts.iter().map(|alert| &alert["labels"]).filter_map(|labels| {
        let name = labels["alertname"].as_str().filter(|name| WATCHED.contains(name))?;
        let whose = labels["process"].as_str().or(labels["worker"].as_str())?;
        Some(format!("{name} {whose}"))
    });
    Ok(watched.collect())
}

/// Waits until exactly these of the watched alerts fire.
async fn until_firing(fleet: &Fleet, server: &Prometheus, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
    let all_fire = async || {
        let firing = firing(server).await?;
        if firing == expected { Ok(()) } else { Err(format!("{firing:?}")) }
    };
    fleet.until(&format!("the alerts {expected:?}"), all_fire).await;
}

/// Against a running fleet: nothing fires at first; a killed worker, one that is missing although messages wait for it, a dead
/// letter and a paused worker raise their alerts, whose links lead to the runbooks; after the repair nothing fires.
#[tokio::test]
async fn alerts_fire_while_workers_are_dead_or_paused_and_messages_wait_or_are_given_up() {
    let Some(broker) = is_installed().then(broker_metrics).flatten() else { return };
    let input = Input::of(2_500);
    let settings: Vec<_> = SCRAPED.into_iter().chain(pipeline_tests::gateway::OPEN).collect();
    let mut fleet = Fleet::start_some(&[], 1, &input.weather, &settings);
    let mut addresses = prometheus::launch(&mut fleet, &process::ALL.map(|process| process.name));
    let server = Prometheus::start(&fleet, &addresses, broker).await;
    let everything =
        "count(process:wildrydes_up:sum == 1) == 6 and count(worker:wildrydes_queue_consumers:max == 1) == 6";
    fleet.until("Prometheus to see the fleet", async || server.has_value(everything).await).await;
    until_firing(&fleet, &server, &[]).await;

    succeed(fleet.wildrydes().args(["pause", SCORER.name]));
    fleet.kill(TRAINER.name, 0);
    fleet.kill(MERGER.name, 0);
    succeed(fleet.wildrydes().args(["ingest", "--detach"]).arg(&input.rides));
    let content = BatchContent::Reference { object: "raw/missing.json".to_owned(), sha256: "0".repeat(64) };
    publish(&fleet, &RideBatch { batch_id: None, source: None, reading: Reading::default(), refresh: None, content })
        .await;
    until_firing(
        &fleet,
        &server,
        &[
            "DeadLetters splitter",
            "QueueOld merger",
            "QueueWithoutConsumer merger",
            "WorkerDown merger",
            "WorkerDown trainer",
            "WorkerMissing merger",
            "WorkerMissing trainer",
            "WorkerPaused scorer",
        ],
    )
    .await;
    let runbooks = runbooks();
    for alert in server.firing().await.expect("the alerts") {
        let url = alert["annotations"]["runbook_url"].as_str().expect("a link");
        let name = alert["labels"]["alertname"].as_str().expect("a name");
        let page = server.get(url).await.unwrap_or_else(|failure| panic!("{url}: {failure}"));
        assert!(page.contains(&runbooks[name]), "{url} has no runbook of {name}");
    }

    succeed(fleet.wildrydes().args(["dead", "drop", "--all", "--yes"]));
    succeed(fleet.wildrydes().args(["resume", SCORER.name]));
    addresses.extend(prometheus::launch(&mut fleet, &[MERGER.name, TRAINER.name]));
    server.scrape(&addresses);
    fleet.champion();
    until_firing(&fleet, &server, &[]).await;
    fleet.finish().await;
}
