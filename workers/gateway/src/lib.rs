//! HTTP in front of the fleet's queues, and the page that shows the fleet. It computes nothing: scores come from the
//! scorers, weather from the weather-fetchers, datasets and models from the object store.
//!
//! ```text
//!                 ┌ api/score, workshop, inference ─▶ coalesce ─▶ score-request ─▶ [rpc] ─▶ scorer
//!  HTTP ─▶ server │ api/score (by place and time) ──▶ weather-request ─▶ [rpc] ─▶ weather-fetcher
//!          auth   │ api/batches ───────────────────▶ object store, ride-batch ─▶ [ingest] ─▶ splitter
//!          limits │ api/models, batches ───────────▶ object store
//!                 └ api/fleet ─────────────────────▶ observe: depths, events, dead letters
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`settings`] | the section `[gateway]` |
//! | `link` | the one connection to the broker, made anew when lost |
//! | `scoring` | rides as clients write them, to features and back |
//! | `coalesce` | requests that arrive together travel together |
//! | `observe` | what the page shows: one look a second for all who watch |
//! | `uploads` | a batch from a request's body to the splitter's queue |
//! | `api` | every path, one file a subject; the OpenAPI document comes out of it |
//! | [`problem`] | errors, RFC 9457 |
//! | `encoding`, `members` | how bodies are compressed; members of JSON objects in any spelling |
//! | `auth`, `hosts`, `headers`, `extract` | keys; host names that are answered; headers of every answer; bodies |
//! | `server`, `listener`, `connections`, `held` | sockets, and which connections may stay |
//! | `pace`, `limits`, `metrics` | how fast uploads must be; limits and counters |
//! | `ops` | health and counters on a listener of their own |

pub mod problem;
pub mod settings;

mod api;
mod auth;
mod batches;
mod coalesce;
mod connections;
mod encoding;
mod extract;
mod headers;
mod held;
mod hosts;
mod letters;
mod limits;
mod link;
mod listener;
pub mod management;
mod members;
mod metrics;
mod observe;
mod ops;
mod pace;
mod page;
mod scoring;
mod server;
mod uploads;

pub use letters::LETTERS_READ_MAX;
pub use server::Bound;
pub use settings::Settings;

use auth::Doorkeeper;
use coalesce::{Coalescer, Limits};
use connections::Connections;
use hosts::Hosts;
use limits::Limit;
use link::Link;
use management::Management;
use metrics::Metrics;
use observe::Observer;
use pace::{Demands, Places};
use records::{Store, batch_log::BatchLog};
use runtime::{
    Broker, Shutdown,
    config::{BrokerSettings, Settings as _},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// KiB of all bodies in memory at the same time, those that are small left aside.
const BODIES_KIB_MAX: usize = 256 << 10;

/// The gateway, not yet listening.
pub struct Gateway {
    settings: Settings,
    broker: Arc<dyn Broker>,
    namespace: String,
    management: Option<Management>,
    store: Store,
}

impl Gateway {
    /// A gateway to the fleet on this broker, with this store. Nothing is connected yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(settings: Settings, broker: Arc<dyn Broker>, store: Store) -> anyhow::Result<Self> {
        settings.check().map_err(|problem| anyhow::anyhow!("gateway.{problem}"))?;
        Ok(Self { settings, broker, namespace: String::new(), management: None, store })
    }

    /// Asks RabbitMQ's management API, where these settings name one, for what AMQP does not tell.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn watching(mut self, broker: &BrokerSettings) -> anyhow::Result<Self> {
        self.namespace.clone_from(&broker.namespace);
        if broker.management_url.is_some() {
            self.management = Some(Management::new(broker)?);
        }
        Ok(self)
    }

    /// Takes the port.
    ///
    /// # Errors
    /// When it is taken, or the certificate cannot be used.
    pub async fn bind(self) -> anyhow::Result<Bound> {
        Bound::new(self).await
    }

    /// Takes the port and serves until `shutdown`.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub async fn serve(self, shutdown: Shutdown) -> anyhow::Result<()> {
        self.bind().await?.serve(shutdown).await
    }
}

/// What every request sees.
pub(crate) struct App {
    settings: Settings,
    store: Store,
    batch_log: BatchLog,
    link: Arc<Link>,
    coalescer: Coalescer,
    doorkeeper: Doorkeeper,
    hosts: Hosts,
    is_tls: bool,
    connections: Arc<Connections>,
    ops_connections: Arc<Connections>,
    /// The limit on open descriptors, where the system has one.
    descriptors: Option<u64>,
    metrics: Arc<Metrics>,
    observer: Observer,
    uploads: Arc<Places>,
    /// One permit each request under way.
    requests: Semaphore,
    /// One permit each KiB of a body in memory, small ones left aside.
    bodies: Semaphore,
    draining: Shutdown,
}

impl App {
    fn start(
        gateway: Gateway,
        address: SocketAddr,
        connections_max: usize,
        descriptors: Option<u64>,
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        let Gateway { settings, broker, namespace, management, store } = gateway;
        let metrics = Arc::new(Metrics::new());
        // Those who are being answered still need the connection: it outlives the shutdown, and ends with the process.
        let link = Arc::new(Link::start(broker, Shutdown::new()));
        let wait = Duration::from_micros(settings.coalesce_wait_us);
        let limits = Limits { rides_max: settings.coalesce_rides_max, wait };
        let coalescer = Coalescer::start(&link, &metrics, limits);
        let observer = Observer::start(&link, &metrics, store.clone(), settings.model.clone(), management, &namespace);
        let per_peer_max = settings.connections_per_peer_max;
        let ops_max = ops::CONNECTIONS_MAX;
        let demands = Demands {
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
            doorkeeper: Doorkeeper::new(&settings),
            uploads: Places::new(demands, &metrics),
            requests: Semaphore::new(settings.requests_max),
            bodies: Semaphore::new(BODIES_KIB_MAX),
            draining: shutdown.clone(),
            settings,
            batch_log: BatchLog::new(store.clone()),
            store,
            link,
            coalescer,
            metrics,
            observer,
        })
    }

    fn stall(&self) -> Duration {
        Duration::from_millis(self.settings.stall_ms)
    }

    fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.write_timeout_ms)
    }

    fn deadline(&self) -> Duration {
        Duration::from_millis(self.settings.deadline_ms)
    }
}
