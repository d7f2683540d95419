//! HTTP in front of the fleet's queues, and the page that shows the fleet. The gateway computes nothing: scores come from the
//! scorers, weather from the weather-fetchers, datasets and models from the object store.
//!
//! ```text
//!                ┌ score, workshop, inference ─▶ score/coalesce ─▶ score-request ─▶ [rpc] ─▶ scorer
//!                │ score by place and time ────▶ score/scoring ─▶ weather-request ─▶ [rpc] ─▶ weather-fetcher
//!  http/ ─▶ api/ │ batches ────────────────────▶ batches/ ─▶ object store, ride-batch ─▶ [ingest] ─▶ splitter
//!                │ models ─────────────────────▶ object store
//!                └ fleet ──────────────────────▶ fleet/observe ─▶ queue lengths, events, dead letters
//! ```
//!
//! | room | content |
//! |---|---|
//! | `app` | the state that every request sees |
//! | [`settings`], [`process`] | the section `[gateway]`; the process |
//! | `link` | the one connection to the broker; it reconnects |
//! | `limits`, `metrics` | limits with their current use; all metrics |
//! | `http` | sockets, connections, API keys, host names, headers, bodies, problems (RFC 9457) |
//! | `score` | from a ride as clients write it to features, and back to an answer |
//! | `batches` | uploads, the state of batches, dead letters |
//! | `fleet` | the state of the fleet, one query a second for all clients |
//! | `api` | every path, one file per subject; generates the OpenAPI document |
//! | `page` | the page's files |

mod api;
mod app;
mod batches;
mod fleet;
mod http;
mod limits;
mod link;
mod metrics;
mod page;
pub mod process;
mod score;
pub mod settings;

pub use app::Gateway;
pub use batches::dead_letters::LETTERS_READ_MAX;
pub use fleet::management;
pub use http::{problem, server::Bound};
pub use settings::Settings;
