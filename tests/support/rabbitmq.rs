//! RabbitMQ for the tests, found in this order:
//!
//! 1. `WILDRYDES_TEST_AMQP_URL`, a running broker;
//! 2. Docker, through testcontainers: the image in `WILDRYDES_RABBITMQ_IMAGE`, else a current official one;
//! 3. a `rabbitmq-server` on the PATH, started on free ports in a temporary folder.
//!
//! Never a silent skip: without any of them every test that needs one fails and says how to get one. One broker serves the
//! whole test process; each test has its own namespace. What was started is removed when the process ends, in any way: a
//! watcher process holds the other end of a pipe.

use crate::wait::{self, SOON};
use anyhow::{Context, anyhow, bail};
use runtime::{
    AmqpBroker,
    config::{AmqpUrl, BrokerSettings},
};
use std::{
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use testcontainers::{
    GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor},
    runners::SyncRunner,
};

/// The default images.
const OFFICIAL_IMAGE: &str = "rabbitmq:4.2-management";
const OFFICIAL_OLDEST_IMAGE: &str = "rabbitmq:3.10-management";

/// The image of a current broker: `WILDRYDES_RABBITMQ_IMAGE`, else an official one.
pub fn image() -> String {
    std::env::var("WILDRYDES_RABBITMQ_IMAGE").unwrap_or_else(|_| OFFICIAL_IMAGE.to_owned())
}

/// The image of the oldest supported broker: `WILDRYDES_RABBITMQ_OLDEST_IMAGE`, else an official one.
pub fn oldest_image() -> String {
    std::env::var("WILDRYDES_RABBITMQ_OLDEST_IMAGE").unwrap_or_else(|_| OFFICIAL_OLDEST_IMAGE.to_owned())
}

/// A running broker.
#[derive(Debug)]
pub struct RabbitMq {
    /// `amqp://…`
    pub url: String,
    /// How it was found, for messages.
    pub origin: String,
    /// `http://…` of its management API, if it answers.
    pub management: Option<String>,
    /// `http://…` of its metrics for Prometheus, if it serves them.
    pub metrics: Option<String>,
    /// Keeps the watcher waiting; closed at the latest by the end of this process.
    _watcher: Option<ChildStdin>,
}

/// The broker of this test process, started at the first call.
///
/// # Panics
/// When there is none to be had, saying how to get one.
pub fn rabbitmq() -> &'static RabbitMq {
    static BROKER: OnceLock<Result<RabbitMq, String>> = OnceLock::new();
    let broker = BROKER.get_or_init(|| {
        // testcontainers' blocking runner has its own runtime, which must not start inside a test's runtime.
        let start = std::thread::spawn(|| find().map_err(|error| format!("{error:#}")));
        let broker = start.join().unwrap_or_else(|_| Err("starting the broker panicked".to_owned()));
        if let Ok(broker) = &broker {
            crate::print_uncaptured(format_args!("RabbitMQ for the tests: {}", broker.origin));
        }
        broker
    });
    match broker {
        Ok(broker) => broker,
        Err(why) => panic!("{why}"),
    }
}

/// Settings of a fleet with a new namespace on the broker.
pub fn settings() -> BrokerSettings {
    settings_at(&rabbitmq().url)
}

/// Settings of a fleet with a new namespace on the broker at that address.
pub fn settings_at(url: &str) -> BrokerSettings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    BrokerSettings {
        url: AmqpUrl::new(url),
        namespace: format!("test-{}-{}.", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)),
        give_up_after_ms: 60_000,
        ..BrokerSettings::default()
    }
}

/// A broker handle with a new namespace.
pub fn broker() -> AmqpBroker {
    AmqpBroker::new(settings())
}

fn find() -> anyhow::Result<RabbitMq> {
    if let Some(url) = std::env::var("WILDRYDES_TEST_AMQP_URL").ok().filter(|url| !url.is_empty()) {
        let origin = "WILDRYDES_TEST_AMQP_URL".to_owned();
        return Ok(RabbitMq { url, origin, management: None, metrics: None, _watcher: None });
    }
    let mut tried = Vec::new();
    if succeeds("docker", &["info"]) {
        match from_docker() {
            Ok(broker) => return Ok(broker),
            Err(error) => tried.push(format!("Docker is here, but: {error:#}")),
        }
    } else {
        tried.push("Docker: no engine answers `docker info`".to_owned());
    }
    // Debian's own binary first: the one on the PATH is a wrapper that changes the user, who may not read our folder.
    let server = ["/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server", "/usr/sbin/rabbitmq-server"];
    match server.into_iter().find(|path| on_path(path)) {
        Some(server) => match from_server(server) {
            Ok(broker) => return Ok(broker),
            Err(error) => tried.push(format!("{server} is here, but: {error:#}")),
        },
        None => tried.push("rabbitmq-server: not on the PATH".to_owned()),
    }
    bail!(
        "these tests need a RabbitMQ (3.10 or later) and found none.\n  {}\nGive them one: start Docker; or install \
         rabbitmq-server (`apt-get install rabbitmq-server`); or set WILDRYDES_TEST_AMQP_URL=amqp://user:password@host:5672/%2f. \
         `tests/run` does the first that works.",
        tried.join("\n  ")
    )
}

fn from_docker() -> anyhow::Result<RabbitMq> {
    let image = image();
    let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
    let container = GenericImage::new(name, tag)
        .with_exposed_port(5672.tcp())
        .with_exposed_port(15672.tcp())
        .with_exposed_port(15692.tcp())
        .with_wait_for(WaitFor::message_on_stdout("Server startup complete"))
        .with_startup_timeout(Duration::from_secs(120))
        .start()
        .with_context(|| format!("starting {image}"))?;
    let port = container.get_host_port_ipv4(5672)?;
    let management = container.get_host_port_ipv4(15672)?;
    let metrics = container.get_host_port_ipv4(15692)?;
    let id = container.id().to_owned();
    // The watcher removes it: a static is never dropped.
    std::mem::forget(container);
    let watcher = watch(&format!("docker rm -f -v {id}"))?;
    Ok(RabbitMq {
        url: format!("amqp://guest:guest@127.0.0.1:{port}/%2f"),
        origin: format!("container {image}"),
        management: management_api(management),
        metrics: metrics_at(metrics),
        _watcher: Some(watcher),
    })
}

fn from_server(server: &str) -> anyhow::Result<RabbitMq> {
    let folder = tempfile::Builder::new().prefix("wildrydes-rabbitmq-").tempdir()?.keep();
    let [port, management, metrics, distribution_port, epmd_port] = free_ports()?;
    let config = folder.join("rabbitmq.conf");
    std::fs::write(
        &config,
        format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users.guest = true\nlog.console = true\n\
             management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
             prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {metrics}\n"
        ),
    )?;
    std::fs::write(folder.join("enabled_plugins"), "[rabbitmq_management,rabbitmq_prometheus].\n")?;
    std::fs::write(folder.join("advanced.config"), "[].\n")?;
    let mut child = Command::new(server)
        .env("RABBITMQ_NODENAME", format!("wildrydes-{port}@localhost"))
        .env("RABBITMQ_DIST_PORT", distribution_port.to_string())
        // A separate name server (epmd), also on loopback: an existing one may be older, and this one can be ended.
        .env("ERL_EPMD_PORT", epmd_port.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_CONFIG_FILE", &config)
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", folder.join("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
        .env("RABBITMQ_LOG_BASE", folder.join("log"))
        .env("RABBITMQ_PID_FILE", folder.join("pid"))
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("HOME", &folder)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(folder.join("stdout"))?)
        .stderr(std::fs::File::create(folder.join("stderr"))?)
        .spawn()
        .with_context(|| format!("starting {server}"))?;
    let pid = child.id();
    // The server is a shell around the virtual machine, which leads its own process group: both are killed. The name server
    // runs on until it is stopped, and stops only once no node is registered.
    let watcher = watch(&format!(
        "pkill -TERM -P {pid}; kill {pid}; sleep 2; pkill -KILL -P {pid}; kill -9 {pid}; \
         epmd=$(command -v epmd || ls /usr/lib*/erlang/erts-*/bin/epmd | head -n 1); \
         for try in 1 2 3 4 5; do sleep 1; \"$epmd\" -port {epmd_port} -kill && break; done; rm -rf '{}'",
        folder.display()
    ))?;
    await_startup(&mut child, &folder)?;
    Ok(RabbitMq {
        url: format!("amqp://guest:guest@127.0.0.1:{port}/%2f"),
        origin: format!("{server} in {}", folder.display()),
        management: management_api(management),
        metrics: metrics_at(metrics),
        _watcher: Some(watcher),
    })
}

fn await_startup(child: &mut Child, folder: &Path) -> anyhow::Result<()> {
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let started = wait::within_blocking(SOON, "the server's start", || {
        let printed = text("stdout");
        let is_up = printed.contains("completed with") || printed.contains("Server startup complete");
        match child.try_wait() {
            _ if is_up => Some(Ok(())),
            Ok(None) => None,
            ended => Some(Err(format!("the server ended: {ended:?}"))),
        }
    });
    started.flatten().map_err(|why| anyhow!("{why}\n{}\n{}", text("stdout"), text("stderr")))
}

/// Runs `cleanup` in a shell as soon as the handle is dropped or this process ends, in any way.
pub(crate) fn watch(cleanup: &str) -> anyhow::Result<ChildStdin> {
    let mut child = Command::new("sh")
        // A session of its own: Ctrl-C for the tests must not end the watcher first.
        .args(["-c", &format!("trap '' INT TERM HUP; read -r _; {{ {cleanup}; }} >/dev/null 2>&1")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    child.stdin.take().context("the watcher has no standard input")
}

/// Free ports. They differ, because all are held until the last is known.
pub(crate) fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let listeners = (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let ports =
        listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<std::io::Result<Vec<_>>>()?;
    ports.try_into().map_err(|_| anyhow::anyhow!("as many ports as listeners"))
}

/// The management API behind a port, if it answers: a container's port accepts connections even with nothing behind it.
fn management_api(port: u16) -> Option<String> {
    let api = format!("http://guest:guest@127.0.0.1:{port}");
    answers(&format!("{api}/api/overview")).then_some(api)
}

/// The metrics behind a port, if they are served.
fn metrics_at(port: u16) -> Option<String> {
    let url = format!("http://127.0.0.1:{port}");
    answers(&format!("{url}/metrics")).then_some(url)
}

fn answers(url: &str) -> bool {
    succeeds("curl", &["--silent", "--fail", "--max-time", "10", "--retry", "3", "--retry-all-errors", url])
}

pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn on_path(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}
