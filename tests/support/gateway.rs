//! The HTTP API for tests: `wildrydes run --serve` as a process, or the gateway of a fleet on RabbitMQ, and a client.

use crate::{
    print_uncaptured,
    processes::{Fleet, Input, wildrydes},
    wait::{self, SOON},
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};
use tempfile::TempDir;

/// The whole fleet in one process, with its HTTP API.
#[derive(Debug)]
pub struct Serving {
    /// Client of the API.
    pub api: Api,
    child: Child,
    folder: TempDir,
}

impl Serving {
    /// Starts `wildrydes run <rides> --serve`, with more arguments. Returns once a model answers.
    pub async fn start(input: &Input, more: &[&str]) -> Self {
        let mut arguments = vec!["run", input.rides.to_str().expect("UTF-8")];
        arguments.extend(more);
        let serving = Self::of(input, &arguments).await;
        serving.api.until_a_model_answers().await;
        serving
    }

    /// Starts `wildrydes run --serve` without rides, with more arguments.
    pub async fn without_rides(input: &Input, more: &[&str]) -> Self {
        Self::of(input, &[&["run"], more].concat()).await
    }

    /// The same on another address, started by a shell with this soft limit on open files.
    pub async fn on(address: &str, files_max: u32, input: &Input, more: &[&str]) -> Self {
        let inner = wildrydes();
        let mut command = Command::new("sh");
        // Variables that `wildrydes()` removes stay removed.
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.arg("-c").arg(format!("ulimit -Sn {files_max}; exec \"$0\" \"$@\"")).arg(inner.get_program());
        Self::launched(command, address, input, &[&["run"], more].concat()).await
    }

    /// Starts `command`, which ends with `wildrydes` and its arguments.
    async fn of(input: &Input, arguments: &[&str]) -> Self {
        Self::launched(wildrydes(), "127.0.0.1:0", input, arguments).await
    }

    async fn launched(mut command: Command, address: &str, input: &Input, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        command.args(arguments).arg(format!("--serve={address}")).arg("--weather").arg(&input.weather);
        command.arg("--store").arg(folder.path().join("store")).arg("-v");
        let log = File::create(folder.path().join("log")).expect("a log");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        let mut serving = Self { api: Api::at(""), child, folder };
        let url = wait::until("the address of the API", async || {
            let log = serving.log();
            // The line may be written only in part.
            let line = log.split("page and API: ").nth(1).and_then(|rest| rest.split_once(char::is_whitespace));
            let url = line.map(|(url, _)| url.to_owned());
            let runs = serving.child.try_wait().is_ok_and(|ended| ended.is_none());
            assert!(url.is_some() || runs, "the gateway ended\n{log}");
            url.ok_or(log)
        });
        serving.api = Api::at(&url.await);
        serving
    }

    /// Client of the listener for probes and Prometheus, `gateway.ops_bind`.
    pub fn ops(&self) -> Api {
        let line = wait::until_blocking("the address of the listener", || {
            let log = self.log();
            let mut whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let line = whole.find(|line| line.contains("serving health and metrics")).map(str::to_owned);
            line.ok_or(log)
        });
        let (_, url) = line.split_once("http://").expect("a URL");
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | ':');
        Api::at(&format!("http://{}", &url[..url.find(|c| !is_part(c)).unwrap_or(url.len())]))
    }

    /// The log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log")).expect("a log")).into_owned()
    }

    /// Folder of the store.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Peak resident memory, bytes; 0 if the system does not report it.
    pub fn peak_memory(&self) -> u64 {
        peak_memory(self.child.id())
    }

    /// Sends SIGTERM.
    pub fn ask_to_end(&self) {
        terminate(self.child.id());
    }

    /// Waits for the end of the process.
    pub async fn wait_for_end(&mut self) -> ExitStatus {
        let ended = wait::within(SOON, "the end of the process", async || self.child.try_wait().expect("its status"));
        ended.await.unwrap_or_else(|failure| panic!("{failure}\n{}", self.log()))
    }

    /// Ends the process, which must succeed.
    pub async fn finish(mut self) {
        self.ask_to_end();
        let status = self.wait_for_end().await;
        let log = self.log();
        assert!(status.success() && !log.contains("panicked"), "ended with {status}\n{log}");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // After a failed test: no process may stay behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends SIGTERM to a process.
pub fn terminate(id: u32) {
    let asked = Command::new("kill").args(["-TERM", &id.to_string()]).status().expect("kill runs");
    assert!(asked.success(), "it had ended by itself");
}

/// Peak resident memory of a process, bytes (proc(5): VmHWM); 0 if there is no /proc.
pub fn peak_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// Settings of a gateway of a fleet: a free port, and no keys.
pub const OPEN: [(&str, &str); 2] = [("WILDRYDES__GATEWAY__BIND", "127.0.0.1:0"), ("WILDRYDES__GATEWAY__AUTH", "off")];

/// Launches the gateway of a fleet that was started with [`OPEN`] or similar settings.
pub fn launch(fleet: &mut Fleet, copy: usize) -> Api {
    let before = urls(fleet).len();
    fleet.launch("gateway", copy);
    Api::at(&fleet.wait_for("the gateway's address", |_| urls(fleet).into_iter().nth(before)))
}

fn urls(fleet: &Fleet) -> Vec<String> {
    let listening = fleet.logs().into_iter().filter(|line| line["message"] == "listening");
    listening.filter_map(|line| line["url"].as_str().map(str::to_owned)).collect()
}

/// A client of a gateway.
#[derive(Debug, Clone)]
pub struct Api {
    /// `http://127.0.0.1:…`
    pub url: String,
    /// HTTP client without a timeout.
    pub client: Client,
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: header::HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The whole answer.
    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.expect("the answer comes whole").to_vec();
        Self { status, headers, body }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The answer if it has this status.
    ///
    /// # Errors
    /// Otherwise: its status and text.
    pub fn with_status(self, status: u16) -> Result<Self, String> {
        if self.status == status { Ok(self) } else { Err(format!("{} {}", self.status, self.text())) }
    }

    /// The JSON of an answer that must be a success.
    #[track_caller]
    pub fn good(self) -> Value {
        assert!(self.status.is_success(), "{self:?}\n{}", self.text());
        self.json()
    }

    /// Checks that an answer has problem details of this status and type. Returns them.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let answer = self.json();
        let words = format!("{} {}", self.status, self.text());
        assert_eq!(self.status, status, "{words}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{words}");
        assert_eq!(answer["type"], format!("urn:wildrydes:problem:{code}"), "{words}");
        assert_eq!(answer["status"], status, "{words}");
        for member in ["title", "detail"] {
            assert!(answer[member].as_str().is_some_and(|text| text.len() > 5), "{member}: {words}");
        }
        let waits = matches!(status, 429 | 503);
        assert_eq!(self.header("retry-after").parse::<u64>().is_ok_and(|wait| wait > 0), waits, "{words}");
        answer
    }
}

impl Api {
    /// A client of the gateway at that address.
    pub fn at(url: &str) -> Self {
        records::tls::install_cryptography();
        let client = Client::builder().no_proxy().build().expect("a client");
        Self { url: url.to_owned(), client }
    }

    /// A request to a path.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Sends a request. Returns the complete answer.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        Answer::of(request.send().await.unwrap_or_else(|error| panic!("{}: {error:?}", self.url))).await
    }

    /// Sends a GET request.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Sends JSON in a POST request.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Sends bytes of that media type in a POST request.
    pub async fn post_bytes(&self, path: &str, media_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(self.request(Method::POST, path).header(header::CONTENT_TYPE, media_type).body(body)).await
    }

    /// The score of one ride.
    pub async fn score(&self, ride: &Value) -> Value {
        self.post("/v1/score", ride).await.good()
    }

    /// Waits until a ride is scored.
    pub async fn until_a_model_answers(&self) {
        wait::until("a score", async || self.post("/v1/score", &ride()).await.with_status(200)).await;
    }

    /// Waits until `/readyz` answers with this status.
    pub async fn until_ready_is(&self, status: u16) {
        wait::until(format!("/readyz to answer {status}"), async || self.get("/readyz").await.with_status(status))
            .await;
    }

    /// Waits until a batch is in this state, and returns it. Panics if the batch is in another final state.
    pub async fn until_batch_is(&self, id: &str, state: &str) -> Value {
        wait::until(format!("batch {id} to be {state}"), async || {
            let batch = self.get(&format!("/v1/batches/{id}")).await.good();
            let is_there = batch["state"] == state;
            assert!(is_there || batch["state"] != "ready", "{id} should be {state}: {batch}");
            if is_there { Ok(batch) } else { Err(batch) }
        })
        .await
    }

    /// The sum of the lines of a counter or gauge in `/metrics` that contain `part`.
    pub async fn metric(&self, name: &str, part: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        let mine = text.lines().filter(|line| line.starts_with(&format!("wildrydes_gateway_{name}")));
        mine.filter(|line| line.contains(part)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// A ride to score, in NOAA's units.
pub fn ride() -> Value {
    json!({ "distance": 30.5, "healthpoints": 330, "magicpoints": 300, "tmin": 97, "tmax": 176, "prcp": 48 })
}

/// Prints the memory that something needed, and checks it against a bound, if the system reports it.
#[track_caller]
pub fn within_memory(what: &str, bytes: u64, megabytes_max: u64) {
    print_uncaptured(format_args!("{what}: {} MB resident at most", bytes / 1_000_000));
    assert!(bytes < megabytes_max * 1_000_000, "{what}: {bytes} bytes");
}
