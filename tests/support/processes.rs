//! The fleet as processes, one for each worker, and the `wildrydes` command.

use crate::{
    rabbitmq,
    wait::{self, Look, SOON},
};
use common::topology::{self, queue};
use futures::TryStreamExt;
use records::{Store, StoreSettings, layout, store};
use runtime::{
    AmqpBroker, Broker,
    broker::{Connection, Depth},
    config::BrokerSettings,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{LazyLock, OnceLock},
    time::Duration,
};
use tempfile::TempDir;

/// The folder of this build's binaries. Builds all of them first.
fn binaries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // <target>/<profile>/deps/pipeline-… or <target>/<profile>/chaos
        let this = std::env::current_exe().expect("this program has a path");
        let folder = this.parent().expect("it lies in a folder");
        let folder = if folder.ends_with("deps") { folder.parent().expect("the profile's") } else { folder }.to_owned();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(root).args(["build", "--quiet", "--workspace", "--bins"]);
        build.arg("--target-dir").arg(folder.parent().expect("the profile's folder is below the target's"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        // Some build scripts take cargo's variables for a change, and half of the workspace would be built again.
        for (name, _) in
            std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            build.env_remove(name);
        }
        assert!(build.status().expect("cargo runs").success(), "the workers should build");
        folder
    })
}

/// A command for a worker of this build, without configuration from the environment.
pub fn worker(name: &str) -> Command {
    command(name)
}

/// A `wildrydes` command without configuration from the environment.
pub fn wildrydes() -> Command {
    command("wildrydes")
}

fn command(binary: &str) -> Command {
    let mut command = Command::new(binaries().join(binary));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WILDRYDES_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end. Returns its output.
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the command starts")
}

/// Runs a command that must succeed. Returns its standard output.
pub fn succeed(command: &mut Command) -> String {
    let ended = output(command);
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{command:?} ended with {}\n{out}\n{err}", ended.status);
    out.into_owned()
}

/// Runs a command that must succeed with `--json`. Returns the JSON that it prints.
pub fn json_output(command: &mut Command) -> Value {
    serde_json::from_str(&succeed(command.arg("--json"))).expect("--json prints JSON")
}

/// Generated rides and weather in a folder.
pub struct Input {
    folder: TempDir,
    /// File of the rides.
    pub rides: PathBuf,
    /// A folder in the layout of NOAA's bucket.
    pub weather: PathBuf,
}

impl Input {
    /// Generates that many rides.
    pub fn of(rides: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, weather) = (folder.path().join("rides.json"), folder.path().join("weather"));
        succeed(wildrydes().args(["generate", "rides", "--rides", &rides.to_string()]).arg(&file));
        succeed(wildrydes().args(["generate", "weather"]).arg(&weather));
        Self { folder, rides: file, weather }
    }

    /// The folder, for more files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the whole job in one process, on its own store. Returns the report.
    pub fn run(&self, more: &[&str]) -> Value {
        let store = tempfile::tempdir().expect("a temporary folder");
        let mut run = wildrydes();
        run.arg("run").arg(&self.rides).arg("--weather").arg(&self.weather).arg("--store").arg(store.path());
        json_output(run.args(more))
    }
}

/// The SHA-256 of the manifest of the only batch in a report.
pub fn dataset_sha256(report: &Value) -> String {
    let batches = report["batches"].as_array().expect("batches");
    assert_eq!(batches.len(), 1, "{report}");
    batches[0]["manifest_sha256"].as_str().expect("a digest").to_owned()
}

/// Worker processes with their own namespace on RabbitMQ, and their store.
pub struct Fleet {
    /// Settings of the broker.
    pub broker: BrokerSettings,
    folder: TempDir,
    weather: OsString,
    environment: Vec<(String, String)>,
    running: BTreeMap<(String, usize), Child>,
    started: usize,
    opened: OnceLock<Store>,
    /// Timeout of every wait.
    pub patience: Duration,
}

impl Fleet {
    /// Starts `copies` processes of each worker. `weather` is a folder or a URL.
    pub fn start(copies: usize, weather: impl AsRef<OsStr>) -> Self {
        Self::start_with(copies, weather, &[])
    }

    /// The same, with more environment variables.
    pub fn start_with(copies: usize, weather: impl AsRef<OsStr>, environment: &[(&str, &str)]) -> Self {
        Self::start_some(&topology::PROCESSES, copies, weather, environment)
    }

    /// The same for these workers only; others can be launched later.
    pub fn start_some(
        workers: &[&str],
        copies: usize,
        weather: impl AsRef<OsStr>,
        environment: &[(&str, &str)],
    ) -> Self {
        Self::start_on(rabbitmq::settings(), workers, copies, weather, environment)
    }

    /// The same on the given broker. The store is a folder, unless the environment has another `WILDRYDES__STORE__URL`.
    pub fn start_on(
        broker: BrokerSettings,
        workers: &[&str],
        copies: usize,
        weather: impl AsRef<OsStr>,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut fleet = Self {
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            broker,
            folder: tempfile::tempdir().expect("a temporary folder"),
            weather: weather.as_ref().to_owned(),
            running: BTreeMap::new(),
            started: 0,
            opened: OnceLock::new(),
            patience: SOON,
        };
        for name in workers {
            for copy in 0..copies {
                fleet.launch(name, copy);
            }
        }
        fleet
    }

    /// Folder of the store.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Opens the store, of either kind; `None` if it is a folder that does not exist yet.
    fn opened(&self) -> Option<&Store> {
        let given = self.environment.iter().rfind(|(name, _)| name == "WILDRYDES__STORE__URL");
        let url = given.map_or_else(|| self.store().display().to_string(), |(_, url)| url.clone());
        let settings = StoreSettings { url, ..StoreSettings::default() };
        if self.opened.get().is_none() {
            let opened = match settings.is_remote() {
                true => Some(store::open_with(&settings, &self.environment).expect("a store opens without a request")),
                false => store::open_existing(&settings).expect("the folder can be used"),
            };
            let _ = self.opened.set(opened?);
        }
        self.opened.get()
    }

    /// Reads an object of the store.
    pub fn object(&self, path: &str) -> Option<Vec<u8>> {
        let read = blocking(store::read(self.opened()?, path));
        read.unwrap_or_else(|failure| self.fail(&format!("{path}: {failure}"))).map(Vec::from)
    }

    /// Paths of the objects below a prefix.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        let Some(store) = self.opened() else { return Vec::new() };
        let listed = blocking(store::list(store, prefix).map_ok(|object| object.path).try_collect());
        // A folder may vanish while it is listed.
        listed.unwrap_or_default()
    }

    /// Starts or restarts one copy of a worker.
    pub fn launch(&mut self, name: &str, copy: usize) {
        self.started += 1;
        let log =
            File::create(self.folder.path().join(format!("{:03}-{name}-{copy}.log", self.started))).expect("a log");
        let child = self.configured(command(name)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let before = self.running.insert((name.to_owned(), copy), child.expect("the worker starts"));
        assert!(before.is_none(), "{name} {copy} runs already");
    }

    /// Kills a process (SIGKILL).
    pub fn kill(&mut self, name: &str, copy: usize) {
        let mut child = self.running.remove(&(name.to_owned(), copy)).expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Suspends a process (SIGSTOP).
    pub fn pause(&self, name: &str, copy: usize) {
        self.signal("-STOP", name, copy);
    }

    /// Resumes a process (SIGCONT).
    pub fn go_on(&self, name: &str, copy: usize) {
        self.signal("-CONT", name, copy);
    }

    /// Asks a process to end (SIGTERM).
    pub fn ask_to_end(&self, name: &str, copy: usize) {
        self.signal("-TERM", name, copy);
    }

    /// Waits for the end of a process, which must succeed.
    pub async fn wait_for_end(&mut self, name: &str, copy: usize) {
        let mut child = self.running.remove(&(name.to_owned(), copy)).expect("it runs");
        let status = end_of(name, copy, &mut child).await;
        assert!(status.success(), "{name} {copy} ended with {status}\n{}", self.tail());
    }

    /// The process id.
    pub fn id(&self, name: &str, copy: usize) -> u32 {
        self.running[&(name.to_owned(), copy)].id()
    }

    fn signal(&self, signal: &str, name: &str, copy: usize) {
        let id = self.running[&(name.to_owned(), copy)].id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().expect("kill runs");
        assert!(sent.success(), "{name} {copy} had ended by itself\n{}", self.tail());
    }

    /// Resident memory of a process, bytes (proc(5): VmRSS); 0 if there is no /proc.
    pub fn resident(&self, name: &str, copy: usize) -> u64 {
        let id = self.running[&(name.to_owned(), copy)].id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
    }

    /// A `wildrydes` command on this fleet.
    pub fn wildrydes(&self) -> Command {
        self.configured(wildrydes())
    }

    fn configured(&self, mut command: Command) -> Command {
        command
            .env("WILDRYDES__BROKER__URL", self.broker.url.reveal())
            .env("WILDRYDES__BROKER__NAMESPACE", &self.broker.namespace)
            .env("WILDRYDES__STORE__URL", self.store())
            .env("WILDRYDES__WEATHER__SOURCE", &self.weather)
            .env("WILDRYDES__LOG__LEVEL", "debug")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The logs of all workers, one JSON object per line.
    pub fn logs(&self) -> Vec<Value> {
        let mut files: Vec<_> =
            std::fs::read_dir(self.folder.path()).expect("the folder").flatten().map(|f| f.path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        files.sort();
        let mut lines = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a log");
            // The last line of a killed process may be truncated.
            lines.extend(text.lines().filter_map(|line| serde_json::from_str(line).ok()));
        }
        lines
    }

    /// Peak resident memory of each running worker, bytes; `None` if the system does not report it.
    pub fn peak_memory(&self) -> Option<BTreeMap<String, u64>> {
        let peak = |child: &Child| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
        };
        self.running.iter().map(|((name, copy), child)| Some((format!("{name} {copy}"), peak(child)?))).collect()
    }

    /// Everything that the workers wrote, also lines that are not log events.
    pub fn log_text(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).expect("the folder").flatten().map(|file| file.path());
        let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| String::from_utf8_lossy(&std::fs::read(path).expect("a log")).into_owned()).collect()
    }

    /// Waits until a look at the store, which may block, finds something.
    pub fn wait_for<L: Look>(&self, what: &str, look: impl Fn(&Path) -> L) -> L::Value {
        wait::within_blocking(self.patience, what, || look(&self.store())).unwrap_or_else(|failure| self.fail(&failure))
    }

    /// Waits until a look finds something.
    pub async fn until<L: Look>(&self, what: &str, look: impl AsyncFnMut() -> L) -> L::Value {
        wait::within(self.patience, what, look).await.unwrap_or_else(|failure| self.fail(&failure))
    }

    fn fail(&self, failure: &str) -> ! {
        panic!("{failure}\n{}", self.tail())
    }

    /// Waits until a worker has logged a line that contains `part`.
    pub fn wait_for_line(&self, worker: &str, part: &str) {
        let says = |line: &Value| {
            let mine = line["worker"] == worker || line["span"]["worker"] == worker;
            mine && line.to_string().contains(part)
        };
        self.wait_for(&format!("{part:?} in the log of {worker}"), |_| self.logs().iter().any(says));
    }

    /// Waits until each of these workers has connected and started to consume that many times.
    pub fn wait_for_sessions(&self, workers: &[&str], count: usize) {
        self.wait_for(&format!("{count} sessions of each worker"), |_| {
            let logs = self.logs();
            let begun = |worker: &str| {
                logs.iter().filter(|line| line["worker"] == worker && line["message"] == "consuming").count()
            };
            let missing: Vec<_> = workers.iter().filter(|worker| begun(worker) < count).collect();
            (missing.is_empty(), missing)
        });
    }

    /// Number of redeliveries.
    pub fn redelivered(&self) -> usize {
        let again = |line: &&Value| line["span"]["redelivered"] == true && line["message"] == "handling";
        self.logs().iter().filter(again).count()
    }

    /// Complete chunks of a batch in the staging area.
    pub fn staged_chunks(&self, batch_id: &str) -> usize {
        staged(self.objects(&layout::staging(batch_id))).remove(batch_id).unwrap_or(0)
    }

    /// Complete chunks in the staging area, by batch.
    pub fn all_staged_chunks(&self) -> BTreeMap<String, usize> {
        staged(self.objects(layout::STAGING))
    }

    /// The batches whose dataset is complete.
    pub fn ready_batches(&self) -> BTreeSet<String> {
        let manifests = self.objects(layout::DATASET).into_iter();
        let batch = |path: String| Some(path.strip_suffix("/manifest.json")?.rsplit_once('/')?.1.to_owned());
        manifests.filter_map(batch).collect()
    }

    /// Returns whether a batch's dataset is complete.
    pub fn is_ready(&self, batch_id: &str) -> bool {
        self.object(&format!("dataset/{batch_id}/manifest.json")).is_some()
    }

    /// Number of messages ready in a queue, and of its consumers.
    pub async fn depth(&self, name: &str) -> Depth {
        let connection = AmqpBroker::new(self.broker.clone()).connect("test").await.expect("the broker answers");
        let depth = connection.depth(name).await.expect("the queue is there");
        connection.close().await;
        depth
    }

    /// Waits until `enough` accepts the number of messages ready in a queue.
    pub async fn until_depth(&self, name: &str, enough: impl Fn(u64) -> bool) {
        self.until(&format!("the depth of {name}"), async || {
            let Depth { messages, .. } = self.depth(name).await;
            (enough(messages), messages)
        })
        .await;
    }

    /// Waits for the champion's alias.
    pub fn champion(&self) -> Value {
        let champion = self.wait_for("the champion", |_| self.object("models/service-request/champion.json"));
        serde_json::from_slice(&champion).expect("it is JSON")
    }

    /// Waits for the manifest of a batch's dataset.
    pub fn manifest(&self, batch_id: &str) -> Value {
        let path = format!("dataset/{batch_id}/manifest.json");
        let manifest = self.wait_for("the dataset", |_| self.object(&path));
        serde_json::from_slice(&manifest).expect("it is JSON")
    }

    /// Number of deliveries that a worker has handled, acknowledged or about to be.
    pub fn done(&self, worker: &str) -> usize {
        let done = |line: &&Value| line["span"]["worker"] == worker && line["message"] == "done";
        self.logs().iter().filter(done).count()
    }

    /// The last 30 log lines of level warning or higher, newest first, for a failure's message.
    pub fn tail(&self) -> String {
        let lines = self.logs();
        let notable = lines.iter().filter(|line| line["level"] != "DEBUG" && line["level"] != "INFO");
        notable.rev().take(30).map(|line| format!("{line}\n")).collect()
    }

    /// Ends every worker (SIGTERM), checks for success, and checks that every queue, retry queue and dead-letter queue is
    /// empty; then removes them. A new process first handles work that a worker had not started at its shutdown.
    pub async fn finish(mut self) {
        self.end().await;
        let broker = AmqpBroker::new(self.broker.clone());
        let mut connection = self.connected().await;
        loop {
            let mut left = Vec::new();
            for name in queue::ALL {
                if self.messages(&mut connection, name).await > 0 {
                    left.push(name);
                }
            }
            if left.is_empty() {
                break;
            }
            for name in left {
                self.launch(topology::process_of(name), 0);
                let is_empty = async || self.messages(&mut connection, name).await == 0;
                self.until(&format!("{name} to be empty"), is_empty).await;
                self.end().await;
            }
        }
        for name in queue::ALL {
            let retry_queues =
                (0..topology::retry_delays_of(name).len()).map(|retry| topology::retry_queue(name, retry));
            for name in retry_queues.chain([topology::dead_queue(name)]) {
                let messages = self.messages(&mut connection, &name).await;
                assert_eq!(messages, 0, "{name} should be empty\n{}", self.tail());
            }
        }
        connection.close().await;
        broker.remove_topology().await.expect("the queues can be removed");
    }

    /// Connects, waiting for a broker that is restarting.
    async fn connected(&self) -> Box<dyn Connection> {
        let broker = AmqpBroker::new(self.broker.clone());
        self.until("the broker", async || broker.connect("test").await).await
    }

    /// Number of messages in a queue; after a restart, waits until its node has loaded it.
    async fn messages(&self, connection: &mut Box<dyn Connection>, name: &str) -> u64 {
        self.until(name, async || {
            let depth = connection.depth(name).await;
            if depth.is_err() {
                *connection = self.connected().await;
            }
            depth.map(|depth| depth.messages)
        })
        .await
    }

    async fn end(&mut self) {
        for ((name, copy), child) in &mut self.running {
            let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
            assert!(asked.success(), "{name} {copy} had ended by itself");
        }
        for ((name, copy), child) in &mut self.running {
            let status = end_of(name, *copy, child).await;
            assert!(status.success(), "{name} {copy} ended with {status}");
        }
        self.running.clear();
    }
}

/// Counts the chunks among objects of the staging area, by batch.
fn staged(paths: Vec<String>) -> BTreeMap<String, usize> {
    let mut by_splitting = BTreeMap::<String, usize>::new();
    for path in paths {
        let (splitting, name) = path.rsplit_once('/').expect("a chunk is in the folder of its splitting");
        if name.starts_with("chunk-") {
            *by_splitting.entry(splitting.to_owned()).or_default() += 1;
        }
    }
    let mut by_batch = BTreeMap::new();
    for (splitting, chunks) in by_splitting {
        let batch = splitting.split('/').nth(1).expect("a splitting is of a batch").to_owned();
        // Counts the splitting with the most chunks: an abandoned one stays as it is until the dataset is complete.
        let most: &mut usize = by_batch.entry(batch).or_default();
        *most = chunks.max(*most);
    }
    by_batch
}

/// Waits for a future, also on a thread of a runtime.
fn blocking<T: Send>(work: impl Future<Output = T> + Send) -> T {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
    });
    std::thread::scope(|scope| scope.spawn(|| RUNTIME.block_on(work)).join().expect("it does not panic"))
}

async fn end_of(name: &str, copy: usize, child: &mut Child) -> ExitStatus {
    wait::until(format!("the end of {name} {copy}"), async || child.try_wait().expect("its status")).await
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // After a failed test: no process may stay behind.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
