//! Measures scores per second of `/v1/score` through the gateway, beside a bare RPC echo over the same broker.
//!
//! Broker, scorer, gateway and this load generator run on one machine, each in its own process. The generator keeps one
//! connection for each concurrent request, and reads and checks every answer.

use anyhow::{Context, ensure};
use clap::Parser;
use futures::{StreamExt, future::try_join_all};
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions},
    types::FieldTable,
};
use pipeline_tests::{
    containers::Container,
    processes::{succeed, wildrydes, worker},
    wait,
};
use runtime::config::{AmqpUrl, BrokerSettings};
use serde_json::json;
use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

/// Bytes of an echoed message.
const ECHO_BYTES: usize = 200;
const RIDE: &str = r#"{"distance":30,"healthpoints":330,"magicpoints":300,"tmin":97,"tmax":176,"prcp":48}"#;

/// Measures requests per second, p50 and p99 of POST /v1/score on RabbitMQ, next to a bare RPC echo over the same broker.
#[derive(Parser)]
struct Arguments {
    /// A RabbitMQ to use, with its own virtual host [default: a container]
    #[arg(long)]
    broker: Option<String>,
    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Numbers of concurrent requests
    #[arg(long, value_delimiter = ',', default_value = "1,32,256")]
    concurrency: Vec<usize>,
    /// Runs of each measurement; the medians are printed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Request each feature's contribution, which is the default, or not
    #[arg(long)]
    plain: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The result of one measurement.
#[derive(Clone)]
struct Measured {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

/// A process that is killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (_container, url) = Container::unless(arguments.broker.as_deref())?;
    let folder = tempfile::tempdir()?;
    let store = model(folder.path())?;
    let address = free_port()?;
    let configure = |command: &mut std::process::Command| {
        command.env("WILDRYDES__BROKER__URL", &url).env("WILDRYDES__STORE__URL", &store);
        command.env("WILDRYDES__LOG__LEVEL", "warn").stdout(Stdio::null()).stderr(Stdio::inherit());
    };
    let mut scorer = worker("scorer");
    configure(&mut scorer);
    let _scorer = Running(scorer.spawn()?);
    let mut gateway = worker("gateway");
    configure(&mut gateway);
    gateway.env("WILDRYDES__GATEWAY__AUTH", "off").env("WILDRYDES__GATEWAY__BIND", address.to_string());
    let _gateway = Running(gateway.spawn()?);
    ready(address).await;

    let query = if arguments.plain { "?explain=false" } else { "" };
    let request = format!(
        "POST /v1/score{query} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{RIDE}",
        RIDE.len()
    );
    let expected = expected(address, &request).await?;
    let echo = Echo::start(&url).await?;
    let mut text = Vec::new();
    if !arguments.json {
        println!("{:<12}{:>13}{:>14}{:>12}{:>12}", "", "concurrency", "requests/s", "p50 ms", "p99 ms");
    }
    let time = Duration::from_secs(arguments.seconds);
    for &concurrency in &arguments.concurrency {
        // Interleaved, so that other load on the machine affects both.
        let (mut echoes, mut scores) = (Vec::new(), Vec::new());
        for _ in 0..arguments.runs {
            echoes.push(echo.measure(concurrency, time).await?);
            scores.push(over_http(address, request.as_bytes(), &expected, concurrency, time).await?);
        }
        for (what, measured) in [("RPC echo", median(echoes)), ("/v1/score", median(scores))] {
            let Measured { per_second, p50, p99 } = measured;
            let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
            if !arguments.json {
                println!("{what:<12}{concurrency:>13}{per_second:>14.0}{:>12.2}{:>12.2}", ms(p50), ms(p99));
            }
            text.push(json!({ "what": what, "concurrency": concurrency, "per_second": per_second, "p50_ms": ms(p50), "p99_ms": ms(p99) }));
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&text)?);
    }
    Ok(())
}

/// Makes a store with a model.
fn model(folder: &Path) -> anyhow::Result<String> {
    succeed(wildrydes().args(["demo", "--rides", "5000", "--json", "--dir"]).arg(folder));
    Ok(folder.join("store-5000-seed-42").display().to_string())
}

fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn ready(address: SocketAddr) {
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\n\r\n");
    wait::until("the gateway", async || {
        let (status, _) = Http::new(TcpStream::connect(address).await?).ask(request.as_bytes()).await?;
        ensure!(status == 200, "/readyz answers {status}");
        Ok(())
    })
    .await;
}

async fn expected(address: SocketAddr, request: &str) -> anyhow::Result<Vec<u8>> {
    let (status, body) = Http::new(TcpStream::connect(address).await?).ask(request.as_bytes()).await?;
    ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&body));
    Ok(body)
}

/// A connection that sends one request after the other, with just enough HTTP/1.1 for answers with a length.
struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).ok();
        Self { stream, buffer: Vec::with_capacity(4096) }
    }

    async fn ask(&mut self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (head, length) = loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the gateway closed the connection");
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffer[..end])?.to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).context("a length")?;
                break (end + 4, length.trim().parse::<usize>()?);
            }
        };
        while self.buffer.len() < head + length {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the gateway closed the connection");
        }
        let status = std::str::from_utf8(&self.buffer[9..12])?.parse()?;
        Ok((status, self.buffer[head..].to_vec()))
    }
}

async fn over_http(
    address: SocketAddr,
    request: &[u8],
    expected: &[u8],
    concurrency: usize,
    time: Duration,
) -> anyhow::Result<Measured> {
    let until = Instant::now() + time;
    let one = || async {
        let mut http = Http::new(TcpStream::connect(address).await?);
        let mut took = Vec::new();
        while Instant::now() < until {
            let asked = Instant::now();
            let (status, body) = http.ask(request).await?;
            took.push(asked.elapsed());
            ensure!(status == 200 && body == expected, "{status}: {}", String::from_utf8_lossy(&body));
        }
        anyhow::Ok(took)
    };
    let took = try_join_all((0..concurrency).map(|_| one())).await?;
    Ok(judged(took, time))
}

fn judged(took: Vec<Vec<Duration>>, time: Duration) -> Measured {
    let mut all: Vec<Duration> = took.into_iter().flatten().collect();
    all.sort_unstable();
    let at = |share: f64| all.get((all.len() as f64 * share) as usize).copied().unwrap_or_default();
    Measured { per_second: all.len() as f64 / time.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

fn median(mut runs: Vec<Measured>) -> Measured {
    runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    runs[runs.len() / 2].clone()
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>>;

/// A server that returns each message, and its client: transient messages, no confirms, no acknowledgements.
struct Echo {
    _server: Connection,
    _client: Connection,
    channel: lapin::Channel,
    queue: String,
    replies: String,
    waiting: Waiting,
}

impl Echo {
    async fn start(url: &str) -> anyhow::Result<Self> {
        let settings = BrokerSettings { url: AmqpUrl::new(url), ..BrokerSettings::default() };
        let url = settings.url.reveal();
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let server = Connection::connect(url, ConnectionProperties::default()).await?;
        let serving = server.create_channel().await?;
        let queue = serving.queue_declare("".into(), exclusive, FieldTable::default()).await?.name().to_string();
        let mut asked = serving.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default()).await?;
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = asked.next().await {
                let properties = &delivery.properties;
                let (Some(to), Some(id)) = (properties.reply_to(), properties.correlation_id()) else { continue };
                let answer = BasicProperties::default().with_correlation_id(id.clone());
                let _ = serving
                    .basic_publish("".into(), to.clone(), BasicPublishOptions::default(), &delivery.data, answer)
                    .await;
            }
        });
        let client = Connection::connect(url, ConnectionProperties::default()).await?;
        // Only the connection that declares the queue may read it, so the server declares it, and the client uses its name.
        let channel = client.create_channel().await?;
        let replies = channel.queue_declare("".into(), exclusive, FieldTable::default()).await?.name().to_string();
        let mut answers =
            channel.basic_consume(replies.as_str().into(), "".into(), options, FieldTable::default()).await?;
        let waiting = Waiting::default();
        let who_waits = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = answers.next().await {
                let id = delivery.properties.correlation_id().as_ref().and_then(|id| id.as_str().parse().ok());
                let asked = id.and_then(|id: u64| who_waits.lock().ok()?.remove(&id));
                if let Some(answered) = asked {
                    let _ = answered.send(());
                }
            }
        });
        Ok(Self { _server: server, _client: client, channel, queue, replies, waiting })
    }

    async fn measure(&self, concurrency: usize, time: Duration) -> anyhow::Result<Measured> {
        let until = Instant::now() + time;
        let body = vec![b'x'; ECHO_BYTES];
        let next = std::sync::atomic::AtomicU64::new(0);
        let one = || async {
            let mut took = Vec::new();
            while Instant::now() < until {
                let id = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let (answered, answer) = oneshot::channel();
                self.waiting.lock().ok().context("a lock")?.insert(id, answered);
                let properties = BasicProperties::default()
                    .with_correlation_id(id.to_string().into())
                    .with_reply_to(self.replies.as_str().into());
                let asked = Instant::now();
                let queue = self.queue.as_str().into();
                self.channel.basic_publish("".into(), queue, BasicPublishOptions::default(), &body, properties).await?;
                tokio::time::timeout(Duration::from_secs(10), answer).await.context("no echo within 10 s")??;
                took.push(asked.elapsed());
            }
            anyhow::Ok(took)
        };
        let took = try_join_all((0..concurrency).map(|_| one())).await?;
        Ok(judged(took, time))
    }
}
