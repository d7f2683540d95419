//! Strategies that generate any message of each kind, and any stored document.

use common::{
    dataset::{Claim, DatasetFile, Manifest},
    dead_letter::{Letter, whole},
    document::{IdempotencyRecord, RejectedRide, Upload, WeatherWarning, WeatherWarnings},
    envelope::{Header, Properties},
    features::{FEATURE_COUNT, FEATURES},
    message::{
        Assumed, BatchContent, BatchSplit, Climatology, Contribution, DatasetReady, EnrichedChunk, EnrichedRide,
        Fallback, Forecast, ModelPromoted, ModelRejected, PlaceWeather, PrecipitationUnit, ProbabilityInterval,
        Refresh, RideBatch, RideChunk, Score, ScoreError, ScoreErrorCode, ScoreOutcome, ScoreRequest, ScoreResponse,
        ScoreRide, ScoredBy, TemperatureUnit, Units, WeatherError, WeatherErrorCode, WeatherPlace, WeatherRequest,
        WeatherResponse, WorkerControl,
    },
    reading::{Mapping, NUMERIC_FIELDS, Reading, RidesAt},
    ride::{Counts, DISTANCE_MAX, Label, Observation, POINTS_MAX, Ride, StatusTime, Weather, WeatherMissing},
    schema::Described,
    topology::queue,
    waiting::Waiting,
};
use jiff::Timestamp;
use proptest::{collection::vec, option, prelude::*};
use records::datasets::column_names;
use serde_json::{Value, json};
use std::num::NonZeroU32;

pub fn text() -> impl Strategy<Value = String> {
    ".{0,30}"
}

pub fn batch_id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_-]{1,64}"
}

/// A plain path below a prefix of the object store.
fn below(prefix: &'static str) -> impl Strategy<Value = String> {
    r"(/[^/.\\%\x00-\x1f\x7f][^/\\%\x00-\x1f\x7f]{0,10}){1,3}".prop_map(move |rest| format!("{prefix}{rest}"))
}

pub fn sha256() -> impl Strategy<Value = String> {
    "[0-9a-f]{64}"
}

pub fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>().prop_filter("JSON has no NaN and no infinity", |x| x.is_finite()), Just(f64::MAX)]
}

fn not_negative() -> impl Strategy<Value = f64> {
    number().prop_map(f64::abs)
}

fn points() -> impl Strategy<Value = f64> {
    prop_oneof![-POINTS_MAX..=POINTS_MAX, Just(0.0), Just(POINTS_MAX)]
}

pub fn counts() -> impl Strategy<Value = Counts> {
    proptest::collection::btree_map("[a-z_]{1,20}", any::<u64>(), 0..4)
}

fn statustime() -> impl Strategy<Value = StatusTime> {
    (0u32..=9999, 1u32..=12, 1u32..=28, 0u32..24, 0u32..60, 0u32..60, 0u32..1000).prop_map(
        |(year, month, day, hour, minute, second, milli)| {
            let text = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{milli:03}");
            text.parse().expect("a time")
        },
    )
}

prop_compose! {
    fn ride()(
        ride_id in text(), name in text(), breed in option::of(text()), statustime in statustime(),
        latitude in -90.0..=90.0, longitude in -180.0..=180.0, distance in 0.0..=DISTANCE_MAX, healthpoints in points(),
        magicpoints in points(), label in option::of(any::<bool>()),
    ) -> Ride {
        Ride {
            ride_id: ride_id.into(), name: name.into(), breed: breed.map(Into::into), statustime, latitude, longitude,
            distance, healthpoints, magicpoints, fieldservice: label.map(Label),
        }
    }
}

fn observation() -> impl Strategy<Value = Observation> {
    ("[A-Z0-9]{11}", not_negative(), any::<i32>(), any::<i32>(), any::<i32>()).prop_map(
        |(groundstation, station_km, tmin, tmax, prcp)| Observation {
            groundstation: groundstation.into(),
            station_km,
            tmin,
            tmax,
            prcp,
        },
    )
}

fn forecast() -> impl Strategy<Value = Forecast> {
    (text(), text(), not_negative(), statustime(), any::<(i32, i32, i32)>()).prop_map(
        |(source, cell, cell_km, issued, (tmin, tmax, prcp))| Forecast {
            source: source.into(),
            cell: cell.into(),
            cell_km,
            issued,
            tmin,
            tmax,
            prcp,
        },
    )
}

fn climatology() -> impl Strategy<Value = Climatology> {
    (observation(), any::<u16>()).prop_map(|(Observation { groundstation, station_km, tmin, tmax, prcp }, years)| {
        Climatology { groundstation, station_km, years, tmin, tmax, prcp }
    })
}

fn weather() -> impl Strategy<Value = Weather> {
    prop_oneof![
        observation().prop_map(Weather::Observed),
        Just(Weather::Missing(WeatherMissing::NoStationInReach)),
        Just(Weather::Missing(WeatherMissing::NoObservationOnDate)),
        Just(Weather::Missing(WeatherMissing::NotYetPublished)),
    ]
}

pub fn ride_batch() -> impl Strategy<Value = RideBatch> {
    let raw_ride = prop_oneof![
        Just(Value::Null),
        text().prop_map(Value::from),
        ride().prop_map(|ride| serde_json::to_value(ride).expect("a ride is JSON")),
        text().prop_map(|name| json!({ "Name": name, "latitude": "north" })),
    ];
    let content = prop_oneof![
        vec(raw_ride, 0..4).prop_map(|rides| BatchContent::Inline { rides }),
        ("raw(/[A-Za-z0-9_-][A-Za-z0-9._ -]{0,20}){1,3}", sha256())
            .prop_map(|(object, sha256)| BatchContent::Reference { object, sha256 }),
    ];
    (option::of(batch_id()), option::of(text()), reading(), refresh(), content).prop_map(
        |(batch_id, source, reading, refresh, content)| {
            let (rides_at, refresh) = match content {
                BatchContent::Inline { .. } => (None, None),
                BatchContent::Reference { .. } => (reading.rides_at, refresh),
            };
            RideBatch { batch_id, source, reading: Reading { rides_at, ..reading }, refresh, content }
        },
    )
}

fn reading() -> impl Strategy<Value = Reading> {
    let member = "[A-Za-z_][A-Za-z0-9_ -]{0,10}";
    let rides_at = (vec(member, 1..3), vec(member, 0..3)).prop_map(|(array, within)| RidesAt { array, within });
    let sources = proptest::collection::vec(
        ("[A-Za-z][A-Za-z0-9_]{0,5}([.][A-Za-z0-9_]{1,3}){0,2}[.]?", option::of(1u32..1_000_000)),
        0..4,
    );
    (option::of(rides_at), sources).prop_map(|(rides_at, sources)| {
        let mut map = Mapping::default();
        for (field, (key, thousandths)) in NUMERIC_FIELDS.iter().zip(sources) {
            let factor = thousandths.map_or(String::new(), |number| format!("*{}", f64::from(number) / 1000.0));
            map.add(&format!("{field}={key}{factor}")).expect("a mapping");
        }
        Reading { rides_at, map }
    })
}

/// The id of the splitting that a message comes from, the digest of the bytes its rides were read from, and the attempt to join
/// the batch again.
fn provenance() -> impl Strategy<Value = (Option<String>, Option<String>, Option<Refresh>)> {
    (option::of(batch_id()), option::of("[0-9a-f]{32}"), refresh())
}

fn refresh() -> impl Strategy<Value = Option<Refresh>> {
    let asked_at = (0..4_000_000_000i64, 0..1_000i32)
        .prop_map(|(second, millis)| Timestamp::new(second, millis * 1_000_000).expect("a time"));
    option::of((number_from_1(), asked_at).prop_map(|(attempt, asked_at)| Refresh { attempt, asked_at }))
}

fn number_from_1() -> impl Strategy<Value = NonZeroU32> {
    (1..=u32::MAX).prop_map(|number| NonZeroU32::new(number).expect("not 0"))
}

/// The number of a revision; absent for the first one.
pub fn revision() -> impl Strategy<Value = Option<NonZeroU32>> {
    option::of(number_from_1())
}

pub fn ride_chunk() -> impl Strategy<Value = RideChunk> {
    (batch_id(), any::<u32>(), provenance(), vec(ride(), 0..4)).prop_map(
        |(batch_id, chunk, (split_id, digest, refresh), rides)| RideChunk {
            batch_id,
            chunk,
            split_id,
            digest,
            refresh,
            rides,
        },
    )
}

pub fn batch_split() -> impl Strategy<Value = BatchSplit> {
    (batch_id(), sha256(), provenance(), any::<u32>(), any::<u64>(), any::<u64>(), counts()).prop_map(
        |(batch_id, sha256, (split_id, digest, refresh), chunks, received, other, rejected_by_reason)| {
            let accepted = received.min(other);
            let rejected = received - accepted;
            let chunks = u64::from(chunks).clamp(accepted.min(1), accepted) as u32;
            BatchSplit {
                batch_id,
                sha256,
                split_id,
                digest,
                refresh,
                chunks,
                received,
                accepted,
                rejected,
                rejected_by_reason,
            }
        },
    )
}

pub fn enriched_chunk() -> impl Strategy<Value = EnrichedChunk> {
    let rides = vec((ride(), weather()).prop_map(|(ride, weather)| EnrichedRide { ride, weather }), 0..4);
    (batch_id(), any::<u32>(), provenance(), rides).prop_map(|(batch_id, chunk, (split_id, digest, refresh), rides)| {
        EnrichedChunk { batch_id, chunk, split_id, digest, refresh, rides }
    })
}

pub fn dataset_ready() -> impl Strategy<Value = DatasetReady> {
    (batch_id(), below("dataset"), sha256(), any::<u64>(), revision()).prop_map(
        |(batch_id, manifest, manifest_sha256, rides, revision)| DatasetReady {
            batch_id,
            manifest,
            manifest_sha256,
            rides,
            revision,
        },
    )
}

pub fn model_promoted() -> impl Strategy<Value = ModelPromoted> {
    let names = (text(), text(), below("models"), option::of(text()), option::of(text()));
    names.prop_map(|(model, model_id, object, previous_model_id, why)| ModelPromoted {
        model,
        model_id,
        object,
        previous_model_id,
        why,
    })
}

pub fn model_rejected() -> impl Strategy<Value = ModelRejected> {
    let names = (text(), text(), text(), text(), option::of(below("models")));
    names.prop_map(|(model, model_id, reason, why, object)| ModelRejected { model, model_id, reason, why, object })
}

pub fn worker_control() -> impl Strategy<Value = WorkerControl> {
    (text(), any::<bool>(), text(), text(), option::of(text()))
        .prop_map(|(worker, paused, by, at, why)| WorkerControl { worker, paused, by, at, why })
}

pub fn score_request() -> impl Strategy<Value = ScoreRequest> {
    let temperature = prop_oneof![
        Just(TemperatureUnit::CelsiusTenths),
        Just(TemperatureUnit::Celsius),
        Just(TemperatureUnit::Fahrenheit),
    ];
    let precipitation = prop_oneof![
        Just(PrecipitationUnit::MillimetreTenths),
        Just(PrecipitationUnit::Millimetre),
        Just(PrecipitationUnit::Inch),
    ];
    let features = vec(option::of(number()), FEATURE_COUNT);
    let degrees = || option::of(number().prop_map(Value::from));
    let time = prop_oneof![statustime().prop_map(|time| json!(time)), any::<i64>().prop_map(Value::from)];
    let place = (degrees(), degrees(), option::of(time));
    let weather = option::of(place_weather().prop_map(Box::new));
    let ride = (option::of(text()), option::of(text()), option::of(number()), features, place, weather);
    let ride = ride.prop_map(|(ride_id, breed, tavg, values, (latitude, longitude, statustime), weather)| {
        let mut ride =
            ScoreRide { ride_id, breed, tavg, latitude, longitude, statustime, weather, ..ScoreRide::default() };
        for (feature, value) in FEATURES.iter().zip(values) {
            (feature.set)(&mut ride, value);
        }
        ride
    });
    (text(), temperature, precipitation, any::<[bool; 2]>(), vec(ride, 1..4)).prop_map(
        |(request_id, temperature, precipitation, [explain, impute], rides)| ScoreRequest {
            request_id,
            units: Units { temperature, precipitation },
            explain,
            impute,
            rides,
        },
    )
}

fn score_error() -> impl Strategy<Value = ScoreError> {
    let code = prop_oneof![
        Just(ScoreErrorCode::NoModel),
        Just(ScoreErrorCode::MalformedRequest),
        Just(ScoreErrorCode::UnknownVersion),
        Just(ScoreErrorCode::MissingFeature),
        Just(ScoreErrorCode::ImpossibleFeature),
        Just(ScoreErrorCode::DeadlineExceeded),
        Just(ScoreErrorCode::Internal),
    ];
    (code, text(), option::of(text())).prop_map(|(code, message, field)| ScoreError { code, message, field })
}

pub fn score_response() -> impl Strategy<Value = ScoreResponse> {
    let contribution =
        (text(), number(), number(), any::<bool>()).prop_map(|(feature, value, log_odds, outside_training)| {
            Contribution { feature, value, log_odds, outside_training }
        });
    let by = (text(), text(), 0.0..=1.0, option::of(number())).prop_map(
        |(model, model_id, threshold, baseline_log_odds)| ScoredBy { model, model_id, threshold, baseline_log_odds },
    );
    let fallback = prop_oneof![Just(Fallback::NoBreedModel), Just(Fallback::Loading), Just(Fallback::Unavailable)];
    let assumed = (text(), number()).prop_map(|(feature, value)| Assumed { feature, value });
    let interval = (0.0..=1.0, 0.0..=1.0).prop_map(|(low, high)| ProbabilityInterval { low, high });
    let imputed =
        (vec(assumed, 0..3), option::of(interval), vec(text(), 0..2), option::of(place_weather().prop_map(Box::new)));
    let scored = (0.0..=1.0, any::<bool>(), vec(contribution, 0..3), option::of(by), option::of(fallback), imputed);
    let outcome = prop_oneof![
        scored.prop_map(|(probability, service, explanation, by, fallback, imputed)| {
            let (assumed, interval, warnings, weather) = imputed;
            ScoreOutcome::Scored {
                probability,
                service,
                explanation,
                by,
                fallback,
                assumed,
                interval,
                warnings,
                weather,
            }
        }),
        score_error().prop_map(|error| ScoreOutcome::Failed { error }),
    ];
    let score = (option::of(text()), outcome).prop_map(|(ride_id, outcome)| Score { ride_id, outcome });
    let scored = (text(), text(), text(), 0.0..=1.0, option::of(number()), vec(score, 1..4)).prop_map(
        |(request_id, model, model_id, threshold, baseline_log_odds, scores)| ScoreResponse {
            request_id,
            model: Some(model),
            model_id: Some(model_id),
            threshold: Some(threshold),
            baseline_log_odds,
            scores,
            error: None,
        },
    );
    prop_oneof![
        scored,
        (text(), score_error()).prop_map(|(request_id, error)| ScoreResponse::failed(request_id, error))
    ]
}

pub fn weather_request() -> impl Strategy<Value = WeatherRequest> {
    let place = (-90.0..=90.0, -180.0..=180.0, statustime())
        .prop_map(|(latitude, longitude, statustime)| WeatherPlace { latitude, longitude, statustime });
    (text(), vec(place, 1..4), any::<bool>()).prop_map(|(request_id, places, observed_only)| WeatherRequest {
        request_id,
        places,
        observed_only,
    })
}

fn weather_error() -> impl Strategy<Value = WeatherError> {
    let code = prop_oneof![
        Just(WeatherErrorCode::NoStationInReach),
        Just(WeatherErrorCode::NoObservationOnDate),
        Just(WeatherErrorCode::MalformedRequest),
        Just(WeatherErrorCode::UnknownVersion),
        Just(WeatherErrorCode::Unavailable),
        Just(WeatherErrorCode::DeadlineExceeded),
        Just(WeatherErrorCode::Internal),
    ];
    (code, text(), option::of(text())).prop_map(|(code, message, field)| WeatherError { code, message, field })
}

fn place_weather() -> impl Strategy<Value = PlaceWeather> {
    prop_oneof![
        observation().prop_map(PlaceWeather::Observed),
        forecast().prop_map(PlaceWeather::Forecast),
        climatology().prop_map(PlaceWeather::Climatology),
        weather_error().prop_map(|error| PlaceWeather::Failed { error }),
    ]
}

pub fn weather_response() -> impl Strategy<Value = WeatherResponse> {
    prop_oneof![
        (text(), vec(place_weather(), 1..4)).prop_map(|(request_id, weather)| WeatherResponse {
            request_id,
            weather,
            error: None
        }),
        (text(), weather_error()).prop_map(|(request_id, error)| WeatherResponse::failed(request_id, error)),
    ]
}

pub fn claim() -> impl Strategy<Value = Claim> {
    let object = "raw(/[A-Za-z0-9_-][A-Za-z0-9._ -]{0,20}){1,3}";
    let kept = (option::of(object), option::of(any::<u64>()));
    (batch_id(), sha256(), any::<u32>(), option::of(text()), kept, reading()).prop_map(
        |(batch_id, sha256, chunk_size, source, (object, listed), reading)| Claim {
            batch_id,
            sha256,
            chunk_size,
            source,
            object,
            listed,
            reading,
        },
    )
}

/// Copies of messages in dead-letter queues.
pub fn dead_letter() -> impl Strategy<Value = Value> {
    let headers = proptest::collection::btree_map("[a-z-]{1,9}", text().prop_map(Header::Text), 0..3);
    let names = (option::of(text()), option::of(text()), headers);
    let body = prop_oneof![vec(any::<u8>(), 0..9), Just(br#"{"batch_id":"b","chunk":1}"#.to_vec())];
    let queue = proptest::sample::select(queue::ALL.to_vec());
    (queue, names, option::of(any::<u64>()), any::<bool>(), body).prop_map(
        |(queue, (kind, message_id, headers), timestamp, persistent, body)| {
            let properties = Properties { kind, message_id, timestamp, persistent, headers, ..Properties::default() };
            whole(&Letter::read(queue, "", &properties, &body), &properties, &body)
        },
    )
}

pub fn rejected_ride() -> impl Strategy<Value = RejectedRide<'static, Value>> {
    let ride =
        prop_oneof![text().prop_map(Value::from), text().prop_map(|name| json!({ "Name": name, "latitude": 91 }))];
    (any::<u64>(), option::of(text()), text(), ride).prop_map(|(index, field, reason, ride)| RejectedRide {
        index,
        field: field.map(Into::into),
        reason: reason.into(),
        ride,
    })
}

pub fn upload() -> impl Strategy<Value = Upload> {
    let of_bytes = (sha256(), any::<u64>(), option::of(text()), text(), reading());
    (batch_id(), of_bytes, text(), any::<bool>(), option::of(any::<u64>())).prop_map(
        |(batch_id, (sha256, bytes, source, object, reading), submitted_at, confirmed, listed)| Upload {
            batch_id,
            sha256,
            bytes,
            source,
            object,
            submitted_at,
            confirmed,
            listed,
            reading,
        },
    )
}

pub fn idempotency_record() -> impl Strategy<Value = IdempotencyRecord> {
    (batch_id(), sha256(), reading()).prop_map(|(batch_id, sha256, reading)| IdempotencyRecord {
        batch_id,
        sha256,
        reading,
    })
}

pub fn waiting() -> impl Strategy<Value = Waiting> {
    (text(), text(), option::of(batch_id()), text(), text(), any::<u32>(), option::of(any::<u32>())).prop_map(
        |(worker, why, batch_id, since, at, outages, attempt)| Waiting {
            schema: Waiting::SCHEMA.name.to_owned(),
            worker,
            why,
            batch_id,
            since,
            at,
            outages,
            attempt,
        },
    )
}

pub fn weather_warnings() -> impl Strategy<Value = WeatherWarnings> {
    let sample = (any::<u64>(), text(), text()).prop_map(|(line, column, why)| WeatherWarning { line, column, why });
    ("[A-Z0-9]{11}", text(), option::of(text()), counts(), vec(sample, 0..3)).prop_map(
        |(station, file, why, left_out, samples)| WeatherWarnings {
            schema: WeatherWarnings::SCHEMA.name.to_owned(),
            station,
            file,
            why,
            left_out,
            samples,
        },
    )
}

pub fn manifest() -> impl Strategy<Value = Manifest> {
    let file = (text(), any::<u64>(), any::<u64>(), sha256()).prop_map(|(path, bytes, rows, sha256)| DatasetFile {
        path,
        bytes,
        rows,
        sha256,
    });
    let totals = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let ids = (batch_id(), revision(), sha256());
    (ids, totals, counts(), counts(), counts(), vec(file, 0..3)).prop_map(
        |((batch_id, revision, sha256), totals, rejected_by_reason, without_weather, stations, files)| {
            let (received, accepted, rejected, labelled, trainable) = totals;
            Manifest {
                schema: Manifest::SCHEMA.name.to_owned(),
                batch_id,
                revision,
                sha256,
                columns: column_names().map(str::to_owned).to_vec(),
                received,
                accepted,
                rejected,
                rejected_by_reason,
                without_weather,
                labelled,
                trainable,
                stations,
                files,
            }
        },
    )
}
