//! A proxy between clients and the broker that disturbs connections as networks do: drops them, resets them, silences them
//! without closing, slows them down. With several brokers it alternates between those that answer.

use runtime::config::{AmqpUrl, BrokerSettings};
use std::{io, net::Ipv4Addr, pin::pin, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

/// Length of the protocol header that an AMQP client sends first, bytes.
const HEADER_BYTES: usize = 8;
/// Maximum time for one of several brokers to answer that header before the next is tried.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Maximum size of a read, bytes, and maximum number of reads in flight in one direction.
const READ_BYTES: usize = 16 * 1024;
const READS_MAX: usize = 1_024;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From client to broker.
    Up,
    /// From broker to client.
    Down,
}

/// How the proxy ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum End {
    /// With FIN, like a process that ends.
    #[default]
    Closed,
    /// With RST, like a firewall that has forgotten the connection.
    Reset,
}

/// The state that all connections read. A connection compares the counters with their values at its start.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    ends: u64,
    end: End,
    silent_up: u64,
    silent_down: u64,
    refuses: bool,
    delay: Duration,
    bytes_per_second: Option<u32>,
}

impl Weather {
    fn silences(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Up => self.silent_up,
            Direction::Down => self.silent_down,
        }
    }
}

/// Counts of the proxy.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Connections that it has forwarded.
    carried: u64,
    /// Connections that it has refused.
    refused: u64,
}

/// Forwards a loopback port to the broker's port until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    weather: watch::Sender<Weather>,
    counts: watch::Sender<Counts>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to the broker of the settings, and settings that lead through it.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn to(settings: &BrokerSettings) -> io::Result<(Self, BrokerSettings)> {
        Self::among(std::slice::from_ref(settings)).await
    }

    /// A proxy to the nodes of a cluster in turn, and settings that lead through it.
    ///
    /// # Errors
    /// When there is no free port.
    ///
    /// # Panics
    /// When there are no nodes.
    pub async fn among(nodes: &[BrokerSettings]) -> io::Result<(Self, BrokerSettings)> {
        let settings = nodes.first().expect("at least one node");
        let targets = nodes.iter().map(|node| Address::of(&node.url).target).collect();
        let Address { scheme, user, vhost, .. } = Address::of(&settings.url);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (weather, counts) = (watch::Sender::new(Weather::default()), watch::Sender::new(Counts::default()));
        let accepting = tokio::spawn(accept(listener, targets, weather.clone(), counts.clone()));
        let url = AmqpUrl::new(format!("{scheme}://{user}@127.0.0.1:{port}/{vhost}"));
        Ok((Self { weather, counts, accepting }, BrokerSettings { url, ..settings.clone() }))
    }

    /// Closes every connection.
    pub fn cut(&self) {
        self.end(End::Closed);
    }

    /// Resets every connection (RST).
    pub fn reset(&self) {
        self.end(End::Reset);
    }

    fn end(&self, end: End) {
        self.weather.send_modify(|weather| {
            weather.end = end;
            weather.ends += 1;
        });
    }

    /// Silences all current connections in this direction, closing included; new connections work.
    pub fn silence(&self, direction: Direction) {
        self.weather.send_modify(|weather| match direction {
            Direction::Up => weather.silent_up += 1,
            Direction::Down => weather.silent_down += 1,
        });
    }

    /// Delays every byte by this time, each way, from now on.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Limits each connection to this rate, each way, from now on.
    pub fn limit(&self, bytes_per_second: Option<u32>) {
        self.weather.send_modify(|weather| weather.bytes_per_second = bytes_per_second);
    }

    /// Refuses new connections from now on, or accepts them again. Current connections stay.
    pub fn refuse(&self, refuses: bool) {
        self.weather.send_modify(|weather| weather.refuses = refuses);
    }

    /// Number of connections forwarded so far.
    pub fn carried(&self) -> u64 {
        self.counts.borrow().carried
    }

    /// Waits until that many connections were refused.
    pub async fn refused(&self, count: u64) {
        let mut counts = self.counts.subscribe();
        let _ = counts.wait_for(|counts| counts.refused >= count).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// The parts of a broker's URL.
struct Address {
    scheme: String,
    user: String,
    target: String,
    vhost: String,
}

impl Address {
    fn of(url: &AmqpUrl) -> Self {
        let (scheme, rest) = url.reveal().split_once("://").expect("a URL has a scheme");
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, "%2f"));
        let (user, address) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let target = if address.contains(':') { address.to_owned() } else { format!("{address}:5672") };
        Self { scheme: scheme.to_owned(), user: user.to_owned(), target, vhost: vhost.to_owned() }
    }
}

async fn accept(
    listener: TcpListener,
    targets: Vec<String>,
    weather: watch::Sender<Weather>,
    counts: watch::Sender<Counts>,
) {
    for turn in 0.. {
        let Ok((near, _)) = listener.accept().await else { return };
        if weather.borrow().refuses {
            counts.send_modify(|counts| counts.refused += 1);
            continue;
        }
        counts.send_modify(|counts| counts.carried += 1);
        let first = turn % targets.len();
        let in_turn = targets[first..].iter().chain(&targets[..first]).cloned().collect();
        tokio::spawn(carry(near, in_turn, weather.subscribe()));
    }
}

async fn carry(mut near: TcpStream, targets: Vec<String>, weather: watch::Receiver<Weather>) {
    let begun = *weather.borrow();
    let mut ending = weather.clone();
    let ended = async {
        // Dropping the proxy ends the connection as well.
        ending.wait_for(|now| now.ends != begun.ends).await.map_or(End::Closed, |now| now.end)
    };
    let mut ended = pin!(ended);
    let far = tokio::select! {
        _ = &mut ended => return,
        far = reach(&mut near, &targets) => far,
    };
    let Ok(mut far) = far else { return };
    let end = {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let up = pump(Direction::Up, near_read, far_write, begun, weather.clone());
        let down = pump(Direction::Down, far_read, near_write, begun, weather);
        tokio::select! {
            end = ended => end,
            _ = async { tokio::join!(up, down) } => End::Closed,
        }
    };
    if end == End::Reset {
        // Closing with unsent data discarded sends RST.
        let _ = near.set_zero_linger();
        let _ = far.set_zero_linger();
    }
}

/// Connects to the first node that answers; a single node is not probed.
async fn reach(near: &mut TcpStream, targets: &[String]) -> io::Result<TcpStream> {
    if let [only] = targets {
        return TcpStream::connect(only).await;
    }
    let mut header = [0; HEADER_BYTES];
    near.read_exact(&mut header).await?;
    for target in targets {
        let answering = async {
            let mut far = TcpStream::connect(target).await?;
            far.write_all(&header).await?;
            match far.peek(&mut [0]).await? {
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => Ok(far),
            }
        };
        if let Ok(Ok(far)) = tokio::time::timeout(ANSWER_MAX, answering).await {
            return Ok(far);
        }
    }
    Err(io::Error::from(io::ErrorKind::NotConnected))
}

/// Forwards one direction until its source ends; a silenced direction forwards nothing and never ends.
async fn pump(
    direction: Direction,
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    begun: Weather,
    weather: watch::Receiver<Weather>,
) {
    let reads_weather = weather.clone();
    let (underway, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(READS_MAX);
    let read = async move {
        loop {
            let mut bytes = vec![0; READ_BYTES];
            let length = from.read(&mut bytes).await.unwrap_or(0);
            bytes.truncate(length);
            let due = Instant::now() + reads_weather.borrow().delay;
            if length == 0 || underway.send((due, bytes)).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, bytes)) = arriving.recv().await {
            // The delay that the proxy adds.
            tokio::time::sleep_until(due).await;
            let limit = weather.borrow().bytes_per_second;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
            if let Some(limit) = limit {
                // The rate that the proxy allows.
                tokio::time::sleep(Duration::from_secs_f64(bytes.len() as f64 / f64::from(limit))).await;
            }
        }
        let _ = to.shutdown().await;
    };
    let mut silent = weather.clone();
    let silenced = async {
        let _ = silent.wait_for(|now| now.silences(direction) != begun.silences(direction)).await;
    };
    tokio::select! {
        biased;
        () = silenced => std::future::pending().await,
        _ = async { tokio::join!(read, write) } => {}
    }
}
