//! The gateway before it listens, and the state that every request sees.

use crate::{
    fleet::{management::Management, observe::Observer},
    http::{
        auth::ApiKeys,
        connections::{Connections, HEAD_TIMEOUT},
        hosts::Hosts,
        pace::{UploadLimits, UploadSlots},
        problem::Problem,
    },
    limits::Limit,
    link::Link,
    metrics::Metrics,
    score::coalesce::{Coalescer, Limits},
    settings::Settings,
};
use records::{Store, batch_log::BatchLog};
use runtime::{
    Broker, Shutdown,
    config::{BrokerSettings, RunSettings, Settings as _},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

/// Maximum memory of all request bodies together, KiB; small bodies do not count.
const BODIES_KIB_MAX: usize = 256 << 10;
/// Maximum number of connections to `gateway.ops_bind`.
const OPS_CONNECTIONS_MAX: usize = 64;

/// A gateway that does not listen yet.
pub struct Gateway {
    pub(crate) settings: Settings,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) namespace: String,
    pub(crate) management: Option<Management>,
    pub(crate) store: Store,
}

impl Gateway {
    /// Creates a gateway to the fleet on this broker, with this store. It does not connect yet.
    ///
    /// # Errors
    /// Fails if a setting is invalid.
    pub fn new(settings: Settings, broker: Arc<dyn Broker>, store: Store) -> anyhow::Result<Self> {
        settings.check().map_err(|problem| anyhow::anyhow!("gateway.{problem}"))?;
        Ok(Self { settings, broker, namespace: String::new(), management: None, store })
    }

    /// Also reads RabbitMQ's management API, if the settings name one: AMQP offers neither rates nor messages in flight.
    ///
    /// # Errors
    /// Fails if a setting is invalid.
    pub fn watching(mut self, broker: &BrokerSettings) -> anyhow::Result<Self> {
        self.namespace.clone_from(&broker.namespace);
        if broker.management_url.is_some() {
            self.management = Some(Management::new(broker)?);
        }
        Ok(self)
    }

    /// Returns a gateway that serves probes and metrics where `run.health_bind` says so, unless `gateway.ops_bind` names another address.
    pub fn probed(mut self, run: &RunSettings) -> Self {
        if self.settings.ops_bind.is_none() && !run.health_bind.is_empty() {
            self.settings.ops_bind = Some(run.health_bind.clone());
        }
        self
    }
}

/// The state that every request sees.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) batch_log: BatchLog,
    pub(crate) link: Arc<Link>,
    pub(crate) coalescer: Coalescer,
    pub(crate) api_keys: Arc<ApiKeys>,
    pub(crate) hosts: Hosts,
    pub(crate) is_tls: bool,
    pub(crate) connections: Arc<Connections>,
    pub(crate) ops_connections: Arc<Connections>,
    /// The limit on open descriptors, if the system has one.
    pub(crate) descriptors: Option<u64>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) observer: Observer,
    pub(crate) uploads: Arc<UploadSlots>,
    /// One permit per request in progress.
    pub(crate) requests: Semaphore,
    /// One permit per KiB of a body in memory; small bodies take none.
    pub(crate) bodies: Semaphore,
    pub(crate) draining: Shutdown,
    /// Whether the store is proven: only then is anything written to it.
    is_proven: AtomicBool,
}

impl App {
    pub(crate) fn start(
        gateway: Gateway,
        address: SocketAddr,
        connections_max: usize,
        descriptors: Option<u64>,
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        let Gateway { settings, broker, namespace, management, store } = gateway;
        let metrics = Arc::new(Metrics::new());
        // Requests in progress still need the connection: it outlives the shutdown and ends with the process.
        let link = Arc::new(Link::start(broker, Shutdown::new()));
        let wait = Duration::from_micros(settings.coalesce_wait_us);
        let limits = Limits { rides_max: settings.coalesce_rides_max, wait };
        let coalescer = Coalescer::start(&link, &metrics, limits);
        let observer = Observer::start(&link, &metrics, store.clone(), settings.model.clone(), management, &namespace);
        let per_peer_max = settings.connections_per_peer_max;
        let ops_max = OPS_CONNECTIONS_MAX;
        let limits = UploadLimits {
            uploads_max: settings.uploads_max,
            rate_min: settings.upload_bytes_per_second_min,
            stall: Duration::from_millis(settings.stall_ms),
            time_max: Duration::from_millis(settings.upload_ms_max),
        };
        Arc::new(Self {
            hosts: Hosts::of(&settings, address),
            is_tls: settings.tls_cert_file.is_some(),
            connections: Connections::new(connections_max, per_peer_max, Limit::Connections, &metrics),
            ops_connections: Connections::new(ops_max, ops_max, Limit::OpsConnections, &metrics),
            descriptors,
            api_keys: ApiKeys::new(&settings, &metrics),
            uploads: UploadSlots::new(limits, &metrics),
            requests: Semaphore::new(settings.requests_max),
            bodies: Semaphore::new(BODIES_KIB_MAX),
            draining: shutdown.clone(),
            is_proven: AtomicBool::new(false),
            settings,
            batch_log: BatchLog::new(store.clone()),
            store,
            link,
            coalescer,
            metrics,
            observer,
        })
    }

    /// Records that the store is proven: from now on requests are answered.
    pub(crate) fn set_proven(&self) {
        self.is_proven.store(true, Relaxed);
    }

    /// Checks whether the process answers requests: not before its store is proven, nor once it shuts down.
    ///
    /// # Errors
    /// 503 with the reason why not.
    pub(crate) fn check_serving(&self) -> Result<(), Problem> {
        if self.draining.is_cancelled() {
            return Err(Problem::unavailable("shutting-down", "the gateway is shutting down"));
        }
        match self.is_proven.load(Relaxed) {
            true => Ok(()),
            false => {
                Err(Problem::unavailable("starting", "the gateway waits for proof of its object store; see its log"))
            }
        }
    }

    pub(crate) fn stall(&self) -> Duration {
        Duration::from_millis(self.settings.stall_ms)
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.write_timeout_ms)
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_millis(self.settings.deadline_ms)
    }

    /// Updates the metrics of limits and their use.
    pub(crate) fn show_limits(&self) {
        let (limits, settings) = (self.metrics.limits(), &self.settings);
        let count = |count: usize| count as f64;
        let of = self.connections.usage();
        limits.show(Limit::Connections, count(of.total_max), Some(count(of.open)));
        limits.show(Limit::ConnectionsPerPeer, count(of.per_peer_max), Some(count(of.open_of_a_peer)));
        limits.show(Limit::Head, HEAD_TIMEOUT.as_secs_f64(), Some(of.headless.as_secs_f64()));
        limits.show(Limit::Write, self.write_timeout().as_secs_f64(), Some(of.write.as_secs_f64()));
        if settings.ops_bind.is_some() {
            let of = self.ops_connections.usage();
            limits.show(Limit::OpsConnections, count(of.total_max), Some(count(of.open)));
        }
        if let Some(descriptors) = self.descriptors {
            let open = std::fs::read_dir("/proc/self/fd").ok().map(|open| count(open.count()));
            limits.show(Limit::Descriptors, descriptors as f64, open);
        }
        let requests = settings.requests_max.saturating_sub(self.requests.available_permits());
        limits.show(Limit::Requests, count(settings.requests_max), Some(count(requests)));
        limits.show(Limit::RequestsPerKey, count(settings.requests_per_key_max), Some(count(self.api_keys.at_once())));
        let bodies = BODIES_KIB_MAX.saturating_sub(self.bodies.available_permits());
        limits.show(Limit::Bodies, count(BODIES_KIB_MAX), Some(count(bodies)));
        let (of, upload_limits) = (self.uploads.usage(), self.uploads.limits());
        limits.show(Limit::Uploads, count(upload_limits.uploads_max), Some(count(of.uploads)));
        limits.show(Limit::UploadRate, upload_limits.rate_min as f64, of.bytes_per_second);
        limits.show(
            Limit::UploadTime,
            upload_limits.time_max.as_secs_f64(),
            of.longest.map(|longest| longest.as_secs_f64()),
        );
    }
}
