//! Prometheus for tests: its checker `promtool`, and a server that scrapes a fleet on this machine as `deploy/prometheus` says.
//!
//! The server reads the files of `deploy/prometheus` with these substitutions, so that a test takes seconds:
//!
//! * scrapes and rules: every 5 s and every second instead of every 15 s; each `for`: 1 s;
//! * targets: `dns_sd_configs` become a file that lists this fleet's processes, each with the name that DNS would give;
//!   `rabbitmq:15692` becomes the port of the tests' broker, and the pattern of queues begins with the fleet's namespace.
//!
//! Expressions, ranges, labels and annotations stay as they are.

use crate::{
    gateway::Api,
    print_uncaptured,
    processes::Fleet,
    rabbitmq::{free_ports, rabbitmq, succeeds},
    wait,
};
use common::topology::process;
use reqwest::{Method, Url};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// Environment of a fleet whose processes serve metrics on free ports.
pub const SCRAPED: [(&str, &str); 2] =
    [("WILDRYDES__RUN__HEALTH_BIND", "127.0.0.1:0"), ("WILDRYDES__GATEWAY__OPS_BIND", "127.0.0.1:0")];

/// Folder of the deployment's files.
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Returns whether `prometheus` and `promtool` are on the PATH, and prints a line if not.
pub fn is_installed() -> bool {
    let is_there = ["prometheus", "promtool"].iter().all(|program| succeeds(program, &["--version"]));
    if !is_there {
        print_uncaptured("not run: needs prometheus and promtool on the PATH (Debian's package prometheus)");
    }
    is_there
}

/// Returns the URL of the broker's metrics, or prints a line if the broker serves none.
pub fn broker_metrics() -> Option<&'static str> {
    let broker = rabbitmq();
    if broker.metrics.is_none() {
        print_uncaptured(format_args!("not run: {} serves no metrics (plugin rabbitmq_prometheus)", broker.origin));
    }
    broker.metrics.as_deref()
}

/// Reads a YAML file as JSON, which is YAML as well.
///
/// # Panics
/// When it is not YAML.
pub fn read_yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents = Yaml::load_from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    as_json(&documents[0])
}

fn as_json(yaml: &Yaml<'_>) -> Value {
    if let Some(mapping) = yaml.as_mapping() {
        let entry =
            |(key, value): (&Yaml<'_>, &Yaml<'_>)| (key.as_str().expect("keys are texts").to_owned(), as_json(value));
        return Value::Object(mapping.iter().map(entry).collect::<Map<_, _>>());
    }
    if let Some(items) = yaml.as_sequence() {
        return items.iter().map(as_json).collect();
    }
    let number = yaml.as_integer().map(Value::from).or_else(|| yaml.as_floating_point().map(Value::from));
    let scalar = yaml.as_str().map(Value::from).or(number).or_else(|| yaml.as_bool().map(Value::from));
    scalar.unwrap_or_default()
}

/// Launches processes of a fleet that was started with [`SCRAPED`]. Returns the address of each one's metrics.
pub fn launch(fleet: &mut Fleet, processes: &[&str]) -> BTreeMap<String, String> {
    let addresses = |fleet: &Fleet| -> Vec<String> {
        let mut lines = fleet.logs();
        lines.retain(|line| line["message"] == "serving health and metrics");
        let address = |line: Value| Some(line["url"].as_str()?.strip_prefix("http://")?.to_owned());
        lines.into_iter().filter_map(address).collect()
    };
    let mut launched = BTreeMap::new();
    for process in processes {
        let before = addresses(fleet);
        fleet.launch(process, 0);
        let address = fleet.wait_for(&format!("the address of the metrics of {process}"), |_| {
            addresses(fleet).into_iter().find(|address| !before.contains(address))
        });
        launched.insert((*process).to_owned(), address);
    }
    launched
}

/// A running server, killed on drop.
#[derive(Debug)]
pub struct Prometheus {
    api: Api,
    child: Child,
    folder: TempDir,
}

impl Prometheus {
    /// Starts a server that scrapes these processes, by address, and the queues of `fleet`. Returns once it is ready.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(fleet: &Fleet, addresses: &BTreeMap<String, String>, broker: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let namespace = &fleet.broker.namespace;
        let config = scraping(read_yaml(&deploy().join("prometheus/prometheus.yml")), broker, namespace);
        fs::write(folder.path().join("prometheus.yml"), config.to_string()).expect("the configuration");
        fs::create_dir(folder.path().join("rules")).expect("the folder of rules");
        for name in ["recording.yml", "alerts.yml"] {
            let rules = impatient(read_yaml(&deploy().join("prometheus/rules").join(name)));
            fs::write(folder.path().join("rules").join(name), rules.to_string()).expect("the rules");
        }
        write_targets(folder.path(), addresses);
        let [port] = free_ports().expect("a free port");
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--web.external-url=http://127.0.0.1:{port}"))
            .arg(format!("--web.user-assets={}", deploy().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        let server = Self { api: Api::at(&format!("http://127.0.0.1:{port}")), child, folder };
        let is_ready = async || {
            let answer = server.api.client.get(format!("{}/-/ready", server.api.url)).send().await;
            answer.and_then(reqwest::Response::error_for_status).map_err(|error| format!("{error}\n{}", server.log()))
        };
        wait::until("Prometheus", is_ready).await;
        server
    }

    /// Scrapes these processes from now on. A process without an address is one that DNS does not know.
    pub fn scrape(&self, addresses: &BTreeMap<String, String>) {
        write_targets(self.folder.path(), addresses);
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Fetches a path of the server. Returns the text of a successful answer.
    ///
    /// # Errors
    /// Status and text of another answer.
    pub async fn get(&self, url: &str) -> Result<String, String> {
        let url = if url.starts_with("http") { url.to_owned() } else { format!("{}{url}", self.api.url) };
        let answer = self.api.send(self.api.client.request(Method::GET, url)).await;
        answer.with_status(200).map(|answer| answer.text())
    }

    /// Calls the API. Returns its `data`.
    async fn call(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let mut url: Url = format!("{}/api/v1/{path}", self.api.url).parse().expect("a URL");
        url.query_pairs_mut().extend_pairs(parameters);
        let text = self.get(url.as_str()).await?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        Ok(answer["data"].take())
    }

    /// Evaluates an expression now. Returns its series, each with `metric` (the labels) and `value` (a time and a text).
    ///
    /// # Errors
    /// When the expression is not valid, or its evaluation fails.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let data = self.call("query", &[("query", expression)]).await?;
        match &data["result"] {
            Value::Array(series) if data["resultType"] == "vector" => Ok(series.clone()),
            _ => Err(format!("no vector: {data}")),
        }
    }

    /// Returns whether an expression has a series whose value is a number.
    ///
    /// # Errors
    /// When the expression is not valid, or its evaluation fails.
    pub async fn has_value(&self, expression: &str) -> Result<bool, String> {
        let series = self.query(expression).await?;
        Ok(series.iter().any(|series| series["value"][1].as_str().is_some_and(|value| value != "NaN")))
    }

    /// The alerts that fire, each with `labels` and `annotations`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn firing(&self) -> Result<Vec<Value>, String> {
        let data = self.call("alerts", &[]).await?;
        let mut alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        alerts.retain(|alert| alert["state"] == "firing");
        Ok(alerts)
    }

    /// The rules whose last evaluation failed, or that were not evaluated yet, each with its error.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn unhealthy_rules(&self) -> Result<Vec<String>, String> {
        let data = self.call("rules", &[]).await?;
        let rules =
            data["groups"].as_array().into_iter().flatten().filter_map(|group| group["rules"].as_array()).flatten();
        let unhealthy = rules.filter(|rule| rule["health"] != "ok");
        Ok(unhealthy.map(|rule| format!("{}: {} {}", rule["name"], rule["health"], rule["lastError"])).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// File of the processes to scrape, watched by the server.
const TARGETS: &str = "targets.json";

/// Replaces the file of targets at once, so that the server reads it whole.
fn write_targets(folder: &Path, addresses: &BTreeMap<String, String>) {
    let target =
        |(name, address): (&String, &String)| json!({"targets": [address], "labels": {"__meta_dns_name": name}});
    let targets: Value = addresses.iter().map(target).collect();
    fs::write(folder.join("new.json"), targets.to_string()).expect("the targets");
    fs::rename(folder.join("new.json"), folder.join(TARGETS)).expect("the targets");
}

/// Substitutes targets and intervals.
fn scraping(mut config: Value, broker: &str, namespace: &str) -> Value {
    config["global"] = json!({"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "1s"});
    let broker = broker.trim_start_matches("http://");
    for job in config["scrape_configs"].as_array_mut().expect("jobs") {
        if let Some(names) = job.get("dns_sd_configs").map(|found| found[0]["names"].clone()) {
            assert_eq!(names, json!(process::ALL.map(|process| process.name)), "the processes of a fleet");
            job["file_sd_configs"] = json!([{"files": [TARGETS], "refresh_interval": "1s"}]);
            job.as_object_mut().expect("a job").remove("dns_sd_configs");
        } else if job["static_configs"][0]["targets"][0] == "rabbitmq:15692" {
            job["static_configs"] = json!([{"targets": [broker]}]);
        } else {
            job["static_configs"] = json!([]);
        }
        for rule in job.get_mut("metric_relabel_configs").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(names) = rule["regex"].as_str().filter(|pattern| pattern.starts_with("(splitter|")) {
                rule["regex"] = format!("{}{names}", regex::escape(namespace)).into();
            }
        }
    }
    config
}

/// Substitutes the time for which a condition must hold before its alert fires.
fn impatient(mut rules: Value) -> Value {
    for group in rules["groups"].as_array_mut().expect("groups") {
        for rule in group["rules"].as_array_mut().expect("rules") {
            if rule.get("for").is_some() {
                rule["for"] = "1s".into();
            }
        }
    }
    rules
}
