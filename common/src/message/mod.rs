//! Every message of the fleet: one type, one file, one JSON Schema (`schemas/<name>.v<N>.json`).
//!
//! A message is JSON. The AMQP property `type` carries its [`Kind`], `name.vN`. A reader ignores unknown fields and
//! dead-letters an unknown major version with the reason. A released schema may only gain optional fields; any other
//! change is a new major version beside the old one.

mod batch_split;
mod check;
mod dataset_ready;
mod decode;
mod enriched_chunk;
mod kind;
mod model_promoted;
mod model_rejected;
mod object;
mod ride_batch;
mod ride_chunk;
mod score_request;
mod score_response;
mod violation;
mod weather_request;
mod weather_response;
mod worker_control;

pub use batch_split::{BatchSplit, SplitDigest, new_split_id};
pub use check::{check_batch_id, check_below, check_object, check_sha256};
pub use dataset_ready::DatasetReady;
pub use decode::{Input, Message, Undecodable, decode, recognise};
pub use enriched_chunk::{EnrichedChunk, EnrichedRide};
pub use kind::Kind;
pub use model_promoted::ModelPromoted;
pub use model_rejected::ModelRejected;
pub use ride_batch::{BatchContent, RideBatch};
pub use ride_chunk::RideChunk;
pub use score_request::{PrecipitationUnit, SCORE_RIDES_MAX, ScoreRequest, ScoreRide, TemperatureUnit, Units};
pub use score_response::{
    Contribution, Fallback, Score, ScoreError, ScoreErrorCode, ScoreOutcome, ScoreResponse, ScoredBy,
};
pub use violation::Violation;
pub use weather_request::{WEATHER_PLACES_MAX, WeatherPlace, WeatherRequest};
pub use weather_response::{PlaceWeather, WeatherError, WeatherErrorCode, WeatherResponse};
pub use worker_control::WorkerControl;

/// All message kinds, in the order of the flow.
pub const KINDS: [Kind; 12] = [
    RideBatch::KIND,
    RideChunk::KIND,
    BatchSplit::KIND,
    EnrichedChunk::KIND,
    DatasetReady::KIND,
    ModelPromoted::KIND,
    ModelRejected::KIND,
    WorkerControl::KIND,
    ScoreRequest::KIND,
    ScoreResponse::KIND,
    WeatherRequest::KIND,
    WeatherResponse::KIND,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_kinds_that_a_worker_answers() {
        let requests: Vec<Kind> = KINDS.into_iter().filter(|kind| kind.is_request()).collect();
        assert_eq!(requests, [ScoreRequest::KIND, WeatherRequest::KIND]);
    }
}
