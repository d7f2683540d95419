//! Measures how long `/healthz` and an ordinary upload take beside silent connections and slow uploads. The gateway and
//! all workers run in one process, the crowd in this one, on the same machine.

use clap::Parser;
use pipeline_tests::{
    gateway::{Api, Serving},
    processes::Input,
    wait,
};
use reqwest::Method;
use std::{
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// Local addresses that the crowd connects from: the gateway limits the connections of each peer.
const PEERS: usize = 8;
/// Time between two bytes of a slow upload.
const TRICKLE: Duration = Duration::from_millis(500);

/// Measures how long a gateway takes to answer while a crowd of clients wastes its connections.
#[derive(Parser)]
struct Arguments {
    /// Connections that send nothing; each reconnects when it is closed
    #[arg(long, default_value_t = 10_000)]
    silent: usize,
    /// Slow uploads, which send a byte every 0.5 s; each starts again when it is cut off
    #[arg(long, default_value_t = 64)]
    uploads: usize,
    /// Bytes that each slow upload sends at once, before it slows down
    #[arg(long, default_value_t = 0)]
    first_bytes: usize,
    /// Duration of the measurement, in seconds
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Maximum time of each answer, in milliseconds; exits with 1 if one takes longer
    #[arg(long, default_value_t = 100.0)]
    max_ms: f64,
}

/// State that the clients of the crowd share.
#[derive(Default)]
struct Crowd {
    ended: AtomicBool,
    /// Open connections.
    open: AtomicU64,
    /// Slow uploads started so far.
    uploads: AtomicU64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(measure(&arguments)) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Returns whether every request was served in time while nearly all of the crowd was connected.
async fn measure(arguments: &Arguments) -> bool {
    let input = Input::of(100);
    let serving = Serving::without_rides(&input, &["--set", "gateway.ops_bind=127.0.0.1:0"]).await;
    let (ops, crowd) = (serving.ops(), Arc::<Crowd>::default());
    let address: SocketAddr =
        serving.api.url.strip_prefix("http://").and_then(|at| at.parse().ok()).expect("an address");
    for number in 0..arguments.silent {
        tokio::spawn(silent(address, number, Arc::clone(&crowd)));
    }
    for number in 0..arguments.uploads {
        tokio::spawn(trickle(address, number, arguments.first_bytes, Arc::clone(&crowd)));
    }
    let enough = (arguments.silent + arguments.uploads) as u64 * 95 / 100;
    let open = wait::until(format!("{enough} open connections"), async || {
        let open = crowd.open.load(SeqCst);
        (open >= enough, open)
    });
    println!("{} connections are open", open.await);
    let (mut health, mut probes, mut uploads) = (Vec::new(), Vec::new(), Vec::new());
    let mut rides = std::fs::read(&input.rides).expect("rides");
    let end = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut fewest = u64::MAX;
    while Instant::now() < end {
        health.push(timed(&serving.api, Method::GET, "/healthz", None).await);
        probes.push(timed(&ops, Method::GET, "/healthz", None).await);
        // Different bytes make a new batch.
        rides.push(b'\n');
        uploads.push(timed(&serving.api, Method::POST, "/v1/batches", Some(rides.clone())).await);
        fewest = fewest.min(crowd.open.load(SeqCst));
        // The interval of the probes.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    crowd.ended.store(true, SeqCst);
    println!("at least {fewest} of them all the time; {} trickling uploads were begun", crowd.uploads.load(SeqCst));
    println!(
        "{:<34}{:>8}{:>9}{:>10}{:>10}{:>10}",
        "each on a new connection", "times", "refused", "p50 ms", "p99 ms", "max ms"
    );
    let mut is_good = fewest >= (arguments.silent + arguments.uploads) as u64 * 9 / 10;
    for (what, mut took) in [
        ("GET /healthz", health),
        ("GET /healthz on gateway.ops_bind", probes),
        ("POST /v1/batches, 100 rides", uploads),
    ] {
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].0.as_secs_f64() * 1_000.0;
        let refused = took.iter().filter(|(_, is_served)| !is_served).count();
        println!("{what:<34}{:>8}{refused:>9}{:>10.1}{:>10.1}{:>10.1}", took.len(), at(0.5), at(0.99), at(1.0));
        is_good &= at(1.0) <= arguments.max_ms && refused == 0;
    }
    serving.finish().await;
    is_good
}

/// Returns the duration of a request on a new connection, and whether it was served. Panics without an answer.
async fn timed(api: &Api, method: Method, path: &str, body: Option<Vec<u8>>) -> (Duration, bool) {
    let api = Api::at(&api.url);
    let request = api.request(method, path).header("content-type", "application/json");
    let request = body.into_iter().fold(request, |request, body| request.body(body));
    let started = Instant::now();
    let is_served = api.send(request).await.status.is_success();
    (started.elapsed(), is_served)
}

async fn connect(address: SocketAddr, number: usize) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let peer = u8::try_from(2 + number % PEERS).unwrap_or(2);
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, peer), 0)))?;
    socket.connect(address).await
}

/// Connects, sends nothing until the gateway closes the connection, and connects again.
async fn silent(address: SocketAddr, number: usize, crowd: Arc<Crowd>) {
    while !crowd.ended.load(SeqCst) {
        let Ok(mut socket) = connect(address, number).await else {
            // The gateway or the kernel refused the connection; the loop ends with the measurement.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        crowd.open.fetch_add(1, SeqCst);
        let _ = socket.read(&mut [0; 64]).await;
        crowd.open.fetch_sub(1, SeqCst);
    }
}

/// Starts an upload, sends `first` bytes at once and then a byte every [`TRICKLE`] until the gateway cuts it off, and starts again.
async fn trickle(address: SocketAddr, number: usize, first: usize, crowd: Arc<Crowd>) {
    let head = format!(
        "POST /v1/batches HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
    );
    while !crowd.ended.load(SeqCst) {
        let Ok(mut socket) = connect(address, number).await else {
            // The gateway or the kernel refused the connection; the loop ends with the measurement.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        crowd.open.fetch_add(1, SeqCst);
        crowd.uploads.fetch_add(1, SeqCst);
        let mut sent = socket.write_all(&[head.as_bytes(), &vec![b' '; first]].concat()).await;
        let mut answer = [0; 64];
        while sent.is_ok() && tokio::time::timeout(TRICKLE, socket.read(&mut answer)).await.is_err() {
            sent = socket.write_all(b"[").await;
        }
        crowd.open.fetch_sub(1, SeqCst);
    }
}
