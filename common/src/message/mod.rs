//! Every message of the fleet: one type, one file, one JSON Schema (`schemas/<name>.v<N>.json`).
//!
//! A message is JSON. The AMQP property `type` carries its [`Kind`], `name.vN`. A reader ignores unknown fields and
//! dead-letters an unknown major version with the reason. A released schema may only gain optional fields; any other
//! change is a new major version beside the old one.
//!
//! The table `messages!` names the sender, the exchange and the readers of each message. The [topology](crate::topology) is
//! derived from it.

use crate::{
    fleet::{
        exchange,
        process::{CLIENT, OPERATOR, PUBLISHER, queue},
    },
    schema::described,
};
use std::fmt::Debug;

mod batch_split;
mod check;
mod dataset_ready;
mod decode;
mod enriched_chunk;
mod kind;
mod model_promoted;
mod model_rejected;
mod object;
mod refresh;
mod ride_batch;
mod ride_chunk;
mod route;
mod score_request;
mod score_response;
mod violation;
mod weather_request;
mod weather_response;
mod worker_control;

pub use batch_split::{BatchSplit, SplitDigest, attempt_of_split, new_split_id};
pub use check::{check_batch_id, check_below, check_object, check_sha256};
pub use dataset_ready::DatasetReady;
pub use decode::{Input, Message, Undecodable, decode, recognise};
pub use enriched_chunk::{EnrichedChunk, EnrichedRide};
pub use kind::Kind;
pub use model_promoted::ModelPromoted;
pub use model_rejected::ModelRejected;
pub use refresh::Refresh;
pub use ride_batch::{BatchContent, RideBatch};
pub use ride_chunk::RideChunk;
pub use route::{Route, Routed};
pub use score_request::{PrecipitationUnit, SCORE_RIDES_MAX, ScoreRequest, ScoreRide, TemperatureUnit, Units};
pub use score_response::{
    Assumed, Contribution, Fallback, ProbabilityInterval, Score, ScoreError, ScoreErrorCode, ScoreOutcome,
    ScoreResponse, ScoredBy,
};
pub use violation::Violation;
pub use weather_request::{WEATHER_PLACES_MAX, WeatherPlace, WeatherRequest};
pub use weather_response::{
    Climatology, Forecast, GHCN_DAILY, PlaceWeather, WeatherError, WeatherErrorCode, WeatherKind, WeatherResponse,
};
pub use worker_control::WorkerControl;

/// Declares each message in one row: its type, its schema, the queue or role that sends it, the exchange, the queues that read it.
macro_rules! messages {
    ($($message:ident = $origin:ident $name:literal v $major:literal, $sender:expr => $exchange:expr => [$($reader:expr),*];)*) => {
        described! { $($message = $origin $name ".v" $major,)* }

        $(impl Routed for $message {
            const ROUTE: Route = Route {
                kind: Kind { name: $name, major: $major },
                sender: $sender,
                exchange: $exchange,
                readers: &[$($reader),*],
            };
        })*

        /// The routes of all messages, in the order of the flow, and the way of a score request through a weather-fetcher.
        pub const ROUTES: &[Route] = &[$($message::ROUTE,)* FOR_WEATHER, WITH_WEATHER];

        /// All message kinds, in the order of the flow.
        pub const KINDS: &[Kind] = &[$($message::KIND),*];

        /// Visits every message type, in the order of the flow.
        pub fn each(visitor: &mut impl MessageVisitor) {
            $(visitor.message::<$message>();)*
        }
    };
}

messages! {
    RideBatch = written "ride-batch" v 1, PUBLISHER => exchange::INGEST => [queue::SPLITTER];
    RideChunk = written "ride-chunk" v 1, queue::SPLITTER => exchange::WORK => [queue::WEATHER_FETCHER];
    BatchSplit = written "batch-split" v 1, queue::SPLITTER => exchange::WORK => [queue::MERGER];
    EnrichedChunk = written "enriched-chunk" v 1, queue::WEATHER_FETCHER => exchange::WORK => [queue::MERGER];
    DatasetReady = written "dataset-ready" v 1, queue::MERGER => exchange::EVENTS => [queue::TRAINER];
    ModelPromoted = written "model-promoted" v 1, queue::TRAINER => exchange::EVENTS => [];
    ModelRejected = written "model-rejected" v 1, queue::TRAINER => exchange::EVENTS => [];
    WorkerControl = written "worker-control" v 1, OPERATOR => exchange::EVENTS => [];
    ScoreRequest = written "score-request" v 1, CLIENT => exchange::RPC => [queue::SCORER];
    ScoreResponse = written "score-response" v 1, queue::SCORER => exchange::DEFAULT => [];
    WeatherRequest = written "weather-request" v 1, CLIENT => exchange::RPC => [queue::WEATHER_LOOKUP];
    WeatherResponse = written "weather-response" v 1, queue::WEATHER_LOOKUP => exchange::DEFAULT => [];
}

/// A score request with places goes from the scorer to a weather-fetcher.
pub const FOR_WEATHER: Route =
    Route { sender: queue::SCORER, exchange: exchange::WORK, readers: &[queue::WEATHER_LOOKUP], ..ScoreRequest::ROUTE };

/// With the weather it returns to a scorer, which answers it.
pub const WITH_WEATHER: Route = Route { sender: queue::WEATHER_LOOKUP, ..ScoreRequest::ROUTE };

/// A visitor of every message type.
pub trait MessageVisitor {
    /// Called once for each type.
    fn message<M: Message + Debug + PartialEq>(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_kinds_that_a_worker_answers() {
        let requests: Vec<Kind> = KINDS.iter().copied().filter(|kind| kind.is_request()).collect();
        assert_eq!(requests, [ScoreRequest::KIND, WeatherRequest::KIND]);
    }
}
