//! Brokers of a single test, in containers, for tests that harm their broker: one alone, or a cluster of three. They keep host
//! name, port and data when they are killed and restarted.

use crate::{
    rabbitmq::{free_ports, image, settings_at, succeeds, watch},
    wait::{self, SOON},
};
use anyhow::Context;
use runtime::config::BrokerSettings;
use serde_json::Value;
use std::{
    fmt::Debug,
    io::{Read, Write},
    net::TcpStream,
    process::{ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Runs docker. Returns its output.
fn docker(arguments: &[&str]) -> String {
    try_docker(arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs docker. Returns its output, or its standard error if it fails.
fn try_docker(arguments: &[&str]) -> Result<String, String> {
    let ended = Command::new("docker").args(arguments).stdin(Stdio::null()).output().expect("docker runs");
    if ended.status.success() {
        return Ok(String::from_utf8(ended.stdout).expect("UTF-8").trim().to_owned());
    }
    Err(format!("docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&ended.stderr)))
}

/// Returns whether containers of that image can be started, and prints a line if not.
pub fn to_be_had(image: &str) -> bool {
    let why = if std::env::var("WILDRYDES_TEST_AMQP_URL").is_ok_and(|url| !url.is_empty()) {
        "WILDRYDES_TEST_AMQP_URL is set"
    } else if !succeeds("docker", &["info"]) {
        "no Docker engine answers"
    } else if !succeeds("docker", &["image", "inspect", image]) && !succeeds("docker", &["pull", image]) {
        "the image cannot be fetched"
    } else {
        return true;
    };
    crate::print_uncaptured(format_args!(
        "not run: a broker of its own from {image} needs Docker and the image, and {why}"
    ));
    false
}

/// A broker in its own container, removed on drop, or when this process ends.
#[derive(Debug)]
pub struct Container {
    id: String,
    /// Name of its node without `rabbit@`.
    pub host: String,
    port: u16,
    _watcher: ChildStdin,
}

impl Container {
    /// Starts a current broker. Prints a line and returns `None` without Docker.
    pub fn start() -> Option<Self> {
        Self::from_image(&image())
    }

    /// The URL of a broker for a program: the given one, else that of a new container, which lives as long as the returned
    /// guard.
    ///
    /// # Errors
    /// When none was given and there is no container to be had.
    pub fn unless(given: Option<&str>) -> anyhow::Result<(Option<Self>, String)> {
        if let Some(url) = given {
            return Ok((None, url.to_owned()));
        }
        let container = Self::start().context("needs Docker, or --broker")?;
        let url = container.url();
        Ok((Some(container), url))
    }

    /// Starts a broker from that image. Prints a line and returns `None` without Docker.
    ///
    /// # Panics
    /// When it does not start.
    pub fn from_image(image: &str) -> Option<Self> {
        if !to_be_had(image) {
            return None;
        }
        let container = Self::create(image, "broker", &[]);
        container.start_again();
        Some(container)
    }

    fn create(image: &str, host: &str, more: &[&str]) -> Self {
        let [port] = free_ports().expect("a free port");
        // A port that Docker chooses would change at a restart.
        let publish = format!("127.0.0.1:{port}:5672");
        let id = docker(&[&["create", "--hostname", host, "--publish", &publish], more, &[image]].concat());
        let watcher = watch(&format!("docker rm -f -v {id}")).expect("a shell");
        Self { id, host: host.to_owned(), port, _watcher: watcher }
    }

    /// `amqp://…`
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Settings of a fleet with a new namespace on this broker.
    pub fn settings(&self) -> BrokerSettings {
        settings_at(&self.url())
    }

    /// Runs `rabbitmqctl` in the container. Returns its output.
    ///
    /// # Panics
    /// When the command fails.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        docker(&[&["exec", &self.id, "rabbitmqctl"], arguments].concat())
    }

    /// Runs a listing `rabbitmqctl` command in the container. Returns its rows.
    ///
    /// # Panics
    /// When the command fails.
    pub fn list(&self, arguments: &[&str]) -> Vec<Value> {
        self.try_list(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Like [`Self::list`], but returns failures: a node that is restarting may not answer.
    fn try_list(&self, arguments: &[&str]) -> Result<Vec<Value>, String> {
        let command = ["exec", &self.id, "rabbitmqctl", "--quiet", "--formatter", "json"];
        let printed = try_docker(&[&command, arguments].concat())?;
        serde_json::from_str(&printed).map_err(|error| format!("{arguments:?}: {error}: {printed}"))
    }

    /// Version of the broker.
    pub fn version(&self) -> String {
        self.ctl(&["version"])
    }

    /// Kills every process in the container (SIGKILL).
    pub fn kill(&self) {
        docker(&["kill", &self.id]);
    }

    /// Starts the container, for the first time or again. Returns once the broker answers.
    pub fn start_again(&self) {
        docker(&["start", &self.id]);
        self.await_answer();
    }

    /// Stops the broker in order and starts it again. Returns once it answers.
    pub fn restart(&self) {
        docker(&["restart", "--time", "60", &self.id]);
        self.await_answer();
    }

    /// Suspends every process in the container, like SIGSTOP.
    pub fn pause(&self) {
        docker(&["pause", &self.id]);
    }

    /// Resumes the container's processes.
    pub fn go_on(&self) {
        docker(&["unpause", &self.id]);
    }

    /// Waits until the broker begins the AMQP handshake.
    fn await_answer(&self) {
        let answers = || -> std::io::Result<()> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"AMQP\0\0\x09\x01")?;
            stream.read_exact(&mut [0])
        };
        wait::within_blocking(SOON, format!("the broker {}", self.host), answers).unwrap_or_else(|failure| {
            let logs = Command::new("docker").args(["logs", "--tail", "40", &self.id]).output();
            panic!("{failure}\n{logs:?}")
        });
    }
}

/// A cluster of three brokers, which works with any two of them. Clients reach the brokers over another network than the
/// brokers each other.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Container>,
    network: String,
    _watcher: ChildStdin,
}

impl Cluster {
    /// Starts a current cluster. Prints a line and returns `None` without Docker.
    ///
    /// # Panics
    /// When it does not start.
    pub fn from_image(image: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !to_be_had(image) {
            return None;
        }
        let network = format!("wildrydes-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        docker(&["network", "create", &network]);
        let environment = [
            "--env=RABBITMQ_ERLANG_COOKIE=wildrydes",
            // Seconds after which a silent node counts as down; the default is 60.
            "--env=RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel net_ticktime 5",
        ];
        let nodes = ["one", "two", "three"].map(|host| Container::create(image, host, &environment));
        let ids: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
        let network_gone = format!(
            "docker rm -f -v {}; for try in 1 2 3 4 5; do docker network rm {network} && break; sleep 1; done",
            ids.join(" ")
        );
        let watcher = watch(&network_gone).expect("a shell");
        let cluster = Self { nodes: nodes.into(), network, _watcher: watcher };
        for node in &cluster.nodes {
            // A partitioned node stops serving until it has rejoined the others, as recommended for three nodes.
            copy_in(node, "/etc/rabbitmq/conf.d/90-cluster.conf", "cluster_partition_handling = pause_minority\n");
            cluster.connect(node);
            docker(&["start", &node.id]);
        }
        let [first, others @ ..] = &cluster.nodes[..] else { unreachable!("three nodes") };
        first.await_answer();
        for node in others {
            node.await_answer();
            node.ctl(&["stop_app"]);
            node.ctl(&["join_cluster", &format!("rabbit@{}", first.host)]);
            node.ctl(&["start_app"]);
            node.await_answer();
        }
        Some(cluster)
    }

    /// Connects a node to the network of the others: the end of its partition.
    pub fn connect(&self, node: &Container) {
        docker(&["network", "connect", "--alias", &node.host, &self.network, &node.id]);
    }

    /// Disconnects a node from the network of the others; its clients still reach it.
    pub fn disconnect(&self, node: &Container) {
        docker(&["network", "disconnect", &self.network, &node.id]);
    }

    /// Waits for the node that leads a quorum queue: there is none during an election.
    ///
    /// # Panics
    /// When there is none for too long.
    pub fn leader_of(&self, queue: &str) -> &Container {
        wait::until_blocking(format!("a leader of {queue}"), || {
            let listed = self.nodes[0].try_list(&["list_queues", "name", "leader"]);
            let row = listed.iter().flatten().find(|row| row["name"] == queue);
            let leads = |node: &&Container| row.is_some_and(|row| row["leader"] == format!("rabbit@{}", node.host));
            self.nodes.iter().find(leads).ok_or(format!("{listed:?}"))
        })
    }

    /// Waits until all nodes see each other.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn await_whole(&self) {
        for node in &self.nodes {
            node.await_answer();
        }
        wait::until_blocking("the cluster to be whole again", || {
            let mut rows = self.nodes[0].try_list(&["list_queues", "name", "type", "members", "online"])?;
            let is_whole = |row: &Value| row["online"].as_array().is_some_and(|nodes| nodes.len() == self.nodes.len());
            rows.retain(|row| row["type"] == "quorum" && !is_whole(row));
            if rows.is_empty() { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    }
}

/// Writes a file into a container, which need not run.
fn copy_in(node: &Container, path: &str, text: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, text).expect("it can be written");
    docker(&["cp", file.to_str().expect("UTF-8"), &format!("{}:{path}", node.id)]);
}
