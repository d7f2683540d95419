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

mod api;
mod app;
mod batches;
mod fleet;
mod http;
mod limits;
mod link;
mod metrics;
mod page;
mod score;
pub mod settings;

pub use app::Gateway;
pub use batches::dead_letters::LETTERS_READ_MAX;
pub use fleet::management;
pub use http::{problem, server::Bound};
pub use settings::Settings;
