//! Tests of inputs as people have them. Each run ends, accounts for every ride, and names the cause of each rejection and
//! refusal.
//!
//! `own` cases of each kind · `own_files` of how files come · `own_models` of summaries · `own_weather` of weather,
//! `own_refreshes` of weather published later
//! · `cases` those beside the project · `served` those of HTTP and AMQP
//! · `mutations` hundreds of seeded mutations of small valid inputs.

mod cases;
mod mutations;
mod own;
mod own_files;
mod own_models;
mod own_refreshes;
mod own_weather;
mod served;

use async_compression::{
    Level,
    tokio::bufread::{GzipEncoder, ZstdEncoder},
    zstd::CParameter,
};
use futures::FutureExt;
use pipeline_tests::{processes::wildrydes, wait};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

/// A job that takes longer counts as hanging. A job on a dozen rides takes less than a tenth of a second on an idle machine,
/// and longer beside other tests.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// The outcome of one input.
#[derive(Debug)]
struct Outcome {
    /// `wildrydes`' exit code.
    code: i32,
    /// Its JSON document on standard output.
    json: Value,
    /// Lines of `rejected/<batch_id>.ndjson`.
    rejects: Vec<Value>,
    /// Rows of the dataset, each by its columns.
    dataset: Vec<BTreeMap<String, String>>,
    /// Time until the command ended.
    took: Duration,
}

impl Outcome {
    fn manifest(&self) -> &Value {
        &self.json["batches"][0]["manifest"]
    }

    fn batch_id(&self) -> &str {
        self.json["batches"][0]["batch_id"].as_str().unwrap_or_default()
    }

    /// The row of the ride at that position of the document; `None` if the ride was rejected, or has an id of its own.
    fn row(&self, index: usize) -> Option<&BTreeMap<String, String>> {
        let ride_id = format!("{}-{index}", self.batch_id());
        self.dataset.iter().find(|row| row["ride_id"] == ride_id)
    }

    /// The reject of the element at that position of the document.
    fn reject(&self, index: usize) -> Option<&Value> {
        self.rejects.iter().find(|reject| reject["index"].as_u64() == Some(index as u64))
    }

    /// Code and text of the refusal of the only document; both are empty if it was accepted.
    fn refusal_of_document(&self) -> (&str, &str) {
        let text = |name: &str| self.json["refusals"][0][name].as_str().unwrap_or_default();
        (text("reason"), text("why"))
    }

    fn count(&self, name: &str) -> u64 {
        self.manifest()[name].as_u64().unwrap_or_else(|| panic!("no count {name}: {self:?}"))
    }

    /// Received, accepted and rejected rides.
    fn rides(&self) -> (u64, u64, u64) {
        (self.count("received"), self.count("accepted"), self.count("rejected"))
    }

    fn is_refused(&self) -> bool {
        self.json["refused"].as_array().is_some_and(|refused| !refused.is_empty()) && self.manifest().is_null()
    }

    /// Why the batch was refused, or the command failed, as a person reads it.
    fn refusal(&self) -> String {
        let refused = self.json["refused"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let error = self.json["error"].as_str();
        refused.chain(error).collect::<Vec<_>>().join("\n")
    }

    fn rejected_by(&self, reason: &str) -> u64 {
        self.manifest()["rejected_by_reason"][reason].as_u64().unwrap_or_default()
    }

    /// Rides with weather.
    fn with_weather(&self) -> u64 {
        let stations = self.manifest()["stations"].as_object();
        stations.into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
    }

    /// Every ride is in exactly one place: the dataset or the rejects.
    fn check_account(&self, about: &str) {
        let (received, accepted, rejected) = self.rides();
        assert_eq!(received, accepted + rejected, "{about}: {self:?}");
        assert_eq!(self.rejects.len() as u64, rejected, "{about}: {self:?}");
        assert_eq!(self.dataset.len() as u64, accepted, "{about}: {self:?}");
        let files = self.manifest()["files"].as_array().expect("files").iter();
        assert_eq!(files.filter_map(|file| file["rows"].as_u64()).sum::<u64>(), accepted, "{about}: {self:?}");
        let by_reason = self.manifest()["rejected_by_reason"].as_object().expect("reasons").values();
        assert_eq!(by_reason.filter_map(Value::as_u64).sum::<u64>(), rejected, "{about}: {self:?}");
    }
}

/// A ride file with its weather, and the command that runs the whole job on it.
struct Job {
    folder: TempDir,
    weather: PathBuf,
    options: Vec<String>,
    /// Whether later runs use the store of earlier ones.
    keeps_store: bool,
}

impl Job {
    /// A job with the weather of Central Park in April and May 2018.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let weather = folder.path().join("weather");
        let job = Self { folder, weather, options: Vec::new(), keeps_store: false };
        write(&job.weather.join("ghcnd-stations.txt"), STATION_LIST);
        write(&job.station_file(), station_file());
        job
    }

    /// A job with this folder of weather.
    fn with_weather(weather: &Path) -> Self {
        Self { weather: weather.to_owned(), ..Self::new() }
    }

    fn option(mut self, option: &str) -> Self {
        self.options.extend(option.split(' ').map(str::to_owned));
        self
    }

    /// The weather file of its station.
    fn station_file(&self) -> PathBuf {
        self.weather.join("csv/by_station").join(format!("{STATION}.csv"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the job on these bytes under this name.
    fn run(&self, name: &str, bytes: impl AsRef<[u8]>) -> Outcome {
        let file = self.path(name);
        fs::write(&file, bytes).expect("written");
        self.run_file(&file)
    }

    fn run_file(&self, file: &Path) -> Outcome {
        let mut command = wildrydes();
        command.arg("run").arg(file).args(&self.options);
        self.finish(&mut command)
    }

    /// Runs the job with its file from a pipe: in the script, `$FILE` is the file, `$PROGRAM` the command `wildrydes`,
    /// and the arguments are those of `run`.
    fn run_by(&self, script: &str, file: &Path) -> Outcome {
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).arg("bash").env("FILE", file).env("PROGRAM", wildrydes().get_program());
        self.finish(&mut command)
    }

    /// Runs a command that ends with the arguments of `run`.
    fn finish(&self, command: &mut Command) -> Outcome {
        let store = self.path("store");
        if !self.keeps_store {
            // Fails before the first run if the folder does not exist.
            let _ = fs::remove_dir_all(&store);
        }
        command.arg("--json").arg("--weather").arg(&self.weather).arg("--store").arg(&store);
        let started = Instant::now();
        let (code, out, words) = output_of(command, &self.path("out"), &self.path("err"));
        let took = started.elapsed();
        let json: Value =
            serde_json::from_str(&out).unwrap_or_else(|error| panic!("{command:?}: {error}: {out}\n{words}"));
        let rejects = fs::read_dir(store.join("rejected")).into_iter().flatten().flatten();
        let rejects = rejects.flat_map(|file| {
            let text = fs::read_to_string(file.path()).expect("text");
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>()
        });
        assert!(matches!(code, 0 | 3 | 4), "{command:?} failed with {code}: {out}\n{words}");
        let rejects = rejects.collect();
        let mut outcome = Outcome { code, json, rejects, dataset: Vec::new(), took };
        for file in outcome.manifest()["files"].as_array().cloned().unwrap_or_default() {
            let path = store.join(file["path"].as_str().expect("a path"));
            let rows = csv::Reader::from_path(path).expect("a dataset").into_deserialize();
            outcome.dataset.extend(rows.map(|row| row.expect("a row")));
        }
        outcome
    }
}

/// Waits for a command within the limit. Returns its exit code and its output.
fn output_of(command: &mut Command, out: &Path, err: &Path) -> (i32, String, String) {
    let file = |path: &Path| fs::File::create(path).expect("created");
    let mut child = command.stdin(Stdio::null()).stdout(file(out)).stderr(file(err)).spawn().expect("it starts");
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("read")).into_owned();
    let ended = wait::within_blocking(ENDS_WITHIN, "its end", || child.try_wait().expect("its status"));
    let status = ended.unwrap_or_else(|failure| {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{command:?}: {failure}\n{}\n{}", read(out), read(err))
    });
    (status.code().unwrap_or(-1), read(out), read(err))
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    fs::write(path, bytes).expect("written");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    all_of(GzipEncoder::new(bytes))
}

/// Compressed with a checksum, as by the command `zstd`.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let with_checksum = [CParameter::checksum_flag(true)];
    all_of(ZstdEncoder::with_quality_and_params(bytes, Level::Default, &with_checksum))
}

/// Reads all bytes of a reader that never waits.
fn all_of(reader: impl tokio::io::AsyncRead) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = std::pin::pin!(reader);
    reader.read_to_end(&mut bytes).now_or_never().expect("it never waits").expect("compressed");
    bytes
}

const STATION: &str = "USW00094728";
const STATION_LIST: &str = "USW00094728  40.7789  -73.9692   42.7 NY NEW YORK CNTRL PK TWR          HCN 72506    \n";
const STATION_HEADING: &str = "ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME\n";

/// Every day of April and May 2018, three elements each.
fn station_file() -> String {
    let mut text = STATION_HEADING.to_owned();
    for (month, days) in [(4, 30), (5, 31)] {
        for day in 1..=days {
            for (element, value) in [("TMIN", 50 + day), ("TMAX", 150 + day), ("PRCP", 3 * (day % 4))] {
                writeln!(text, "{STATION},2018{month:02}{day:02},{element},{value},,,W,").expect("a text");
            }
        }
    }
    text
}

/// The n-th ride: a JSON object on one line, with weather.
fn ride(n: usize) -> String {
    let (day, hour) = (1 + n % 28, n % 24);
    let (distance, magicpoints, service) = (29.0 + n as f64 / 8.0, 290 + n, n % 2);
    format!(
        r#"{{"name":"Unicorn {n}","statustime":"2018-04-{day:02} {hour:02}:03:05","latitude":40.7{n:02},"longitude":-73.9{n:02},"distance":{distance},"healthpoints":{},"magicpoints":{magicpoints},"fieldservice":{service}}}"#,
        290 + n
    )
}

fn rides(count: usize) -> Vec<String> {
    (0..count).map(ride).collect()
}
