//! The meaning of each setting: one table per section, in the order of its struct.

use weather_fetcher::stations::nearest::REACH_KM_MAX;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Key within the section.
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    /// Unit of a number or form of a text.
    pub(super) unit: &'static str,
    /// Its effect.
    pub(super) meaning: &'static str,
}

/// Type of a setting's values.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Flag,
    /// A whole number: least and largest value.
    Integer(u64, Option<u64>),
    /// 0, or a whole number from a least value on.
    ZeroOrIntegerFrom(u64),
    /// A number from a least value on.
    NumberFrom(f64),
    /// A number above a value, and at most another.
    NumberAbove(f64, Option<f64>),
    /// Numbers or tables.
    List,
    /// A number, or a text that names how it is chosen.
    NumberOrText,
}

impl Kind {
    /// Returns the name, as in JSON Schema.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Flag => "boolean",
            Self::Integer(..) | Self::ZeroOrIntegerFrom(_) => "integer",
            Self::NumberFrom(_) | Self::NumberAbove(..) => "number",
            Self::List => "array",
            Self::NumberOrText => "number or string",
        }
    }

    /// Returns the accepted values; `None` if they are not a range of numbers.
    pub(super) fn range(self) -> Option<String> {
        Some(match self {
            Self::Text | Self::Flag | Self::List | Self::NumberOrText => return None,
            Self::Integer(min, Some(max)) => format!("{min} to {max}"),
            Self::Integer(min, None) => format!("{min} or more"),
            Self::ZeroOrIntegerFrom(min) => format!("0, or {min} or more"),
            Self::NumberFrom(min) => format!("{min} or more"),
            Self::NumberAbove(above, Some(max)) => format!("above {above}, at most {max}"),
            Self::NumberAbove(above, None) => format!("above {above}"),
        })
    }
}

const fn entry(key: &'static str, kind: Kind, unit: &'static str, meaning: &'static str) -> Entry {
    Entry { key, kind, unit, meaning }
}

const fn text(key: &'static str, unit: &'static str, meaning: &'static str) -> Entry {
    entry(key, Kind::Text, unit, meaning)
}

const fn flag(key: &'static str, meaning: &'static str) -> Entry {
    entry(key, Kind::Flag, "true | false", meaning)
}

const fn number(key: &'static str, unit: &'static str, min: u64, max: u64, meaning: &'static str) -> Entry {
    entry(key, Kind::Integer(min, Some(max)), unit, meaning)
}

const fn at_least(key: &'static str, unit: &'static str, min: u64, meaning: &'static str) -> Entry {
    entry(key, Kind::Integer(min, None), unit, meaning)
}

const fn above_0(key: &'static str, unit: &'static str, max: Option<f64>, meaning: &'static str) -> Entry {
    entry(key, Kind::NumberAbove(0.0, max), unit, meaning)
}

pub(super) const BROKER: &[Entry] = &[
    text("url", "amqp://user@host:5672/vhost", "address of RabbitMQ; amqps:// for TLS, %2f for the vhost /"),
    text("password_file", "path", "file with the password of the user in url; read at every connect"),
    text(
        "ca_file",
        "path",
        "certificates (PEM) of the authorities trusted to sign the broker's certificate; default: the public ones",
    ),
    text("client_certificate_file", "path", "client certificate (PEM) with its chain, for a broker that requires one"),
    text("client_key_file", "path", "private key (PEM) of the client certificate"),
    text("declare", "auto | always | never", "whether to declare missing exchanges and queues; auto: if the user may"),
    text(
        "namespace",
        "text",
        "prefix of every exchange and queue, so that fleets can share a vhost; at most 64 of A-Z a-z 0-9 - _ .",
    ),
    number("connect_timeout_ms", "milliseconds", 100, 600_000, "deadline for connecting"),
    number(
        "confirm_timeout_ms",
        "milliseconds",
        100,
        3_600_000,
        "deadline for each answer of the broker, publisher confirms included; paused during an alarm",
    ),
    number(
        "give_up_after_ms",
        "milliseconds",
        0,
        86_400_000,
        "how long a process tries to reach a broker that is down before it ends",
    ),
    text(
        "management_url",
        "http://host:15672",
        "RabbitMQ's management API, for doctor and drain; default: on the broker's host",
    ),
];
pub(super) const STORE: &[Entry] = &[
    text("url", "path or file:///…", "the object store: a folder that all workers of a fleet share"),
    flag("fsync", "whether a write waits until it is on the disk: survives a power failure, but is slower"),
];
pub(super) const RUN: &[Entry] = &[
    number("concurrency", "messages", 1, 1_000, "messages handled at the same time; each worker has its own default"),
    number(
        "prefetch",
        "messages",
        1,
        10_000,
        "maximum number of messages held, at least concurrency; each worker has its own default",
    ),
    number(
        "drain_deadline_ms",
        "milliseconds",
        0,
        3_600_000,
        "maximum time for running handlers to finish after a shutdown signal",
    ),
    number(
        "handle_timeout_ms",
        "milliseconds",
        1_000,
        1_500_000,
        "maximum time of one handler; below RabbitMQ's consumer_timeout",
    ),
    number(
        "patience_ms",
        "milliseconds",
        0,
        3_600_000,
        "time without progress after which run and ingest report the cause",
    ),
];
pub(super) const LOG: &[Entry] = &[
    text("level", "as in RUST_LOG", "log level, as in info, debug or common=debug,info; RUST_LOG overrides it"),
    text("format", "auto | human | json", "format of log lines; auto: human on a terminal, else json"),
];
pub(super) const SPLITTER: &[Entry] = &[
    number("chunk_size", "rides", 1, 10_000, "rides per chunk; a batch keeps the size it was first split with"),
    at_least("decompressed_bytes_max", "bytes", 1, "maximum decompressed size of a batch"),
    number(
        "expansion_max",
        "times",
        1,
        1_000_000,
        "maximum ratio of decompressed to compressed size of a batch, from 16 MiB on",
    ),
    number("read_buffer_bytes", "bytes", 4_096, 8_388_608, "bytes read and parsed at a time"),
];
pub(super) const WEATHER: &[Entry] = &[
    text(
        "source",
        "path or URL",
        "a folder or bucket in NOAA's layout (csv/by_station/<ID>.csv), or the NCEI access service",
    ),
    text("stations", "path or URL", "ghcnd-stations.txt, plain or gzip; default: the one in the source"),
    above_0("max_station_km", "kilometres", Some(REACH_KM_MAX), "maximum distance between a ride and its station"),
    number(
        "requests_per_second",
        "requests",
        1,
        1_000,
        "maximum number of requests to the service per second; a folder has no limit",
    ),
    number("request_timeout_ms", "milliseconds", 1, 600_000, "maximum time without a byte from the service"),
    number(
        "settled_days",
        "days",
        0,
        u16::MAX as u64,
        "days after the end of a year from which on its weather is final and cached in the store",
    ),
    number(
        "unusable_patience_ms",
        "milliseconds",
        0,
        86_400_000,
        "how long a service may answer without weather (another document, an empty one, a redirect that is not followed, a refusal) before the message becomes a dead letter",
    ),
    text("contact", "URL or mail address", "contact for the operators of the service, sent with the User-Agent"),
];
pub(super) const MERGER: &[Entry] = &[
    at_least(
        "part_bytes_max",
        "bytes",
        1,
        "size of one dataset file; must be equal in all mergers of a fleet, since the dataset depends on it",
    ),
    number("read_ahead", "chunks", 1, 256, "staged chunks read ahead of the one being joined"),
    number("probes_max", "chunks", 1, 256, "staged chunks looked up at the same time"),
    at_least("upload_bytes", "bytes", 1, "size of one request of an upload; S3 requires 5 MiB or more"),
    at_least(
        "known_bytes_max",
        "bytes",
        0,
        "memory for the list of staged chunks; with less, the store is asked more often",
    ),
];
pub(super) const TRAINER: &[Entry] = &[
    text("features", "all | mileage | weather", "the features of a model"),
    entry(
        "alpha",
        Kind::List,
        "numbers, rising, 0 or more",
        "L2 penalty on standardised coefficients; of several, cross-validation selects one",
    ),
    number("folds", "folds", 2, 20, "number of folds of the cross-validation"),
    entry(
        "threshold",
        Kind::NumberOrText,
        "probability or criterion",
        "probability from which on service is predicted: a number, accuracy, f1, fbeta, precision_at_recall, recall_at_precision or cost",
    ),
    above_0("beta", "times", None, "for fbeta: weight of recall relative to precision"),
    above_0("recall_min", "share", Some(1.0), "for precision_at_recall: minimum recall"),
    above_0("precision_min", "share", Some(1.0), "for recall_at_precision: minimum precision"),
    above_0("cost_false_positive", "any one unit", None, "for cost: cost of a service prepared in vain"),
    above_0("cost_false_negative", "any one unit", None, "for cost: cost of a service that was not prepared"),
    at_least("rides_min", "rides", 10, "minimum number of labelled rides with weather to train on; at most rides_max"),
    at_least(
        "rides_max",
        "rides",
        10,
        "maximum number of labelled rides with weather to train on, at least rides_min; each takes up to 100 bytes of memory",
    ),
    entry(
        "breed_rides_min",
        Kind::ZeroOrIntegerFrom(10),
        "rides",
        "minimum number of rides to train a breed model on; 0: no breed models",
    ),
    text("promotion", "by_rule | always | by_hand", "which new models become champion"),
    text("promotion_metric", "log_loss | brier | roc_auc", "the metric that the rule compares"),
    entry(
        "promotion_margin",
        Kind::NumberFrom(0.0),
        "of the metric",
        "by how much a new model may be worse than the champion on the same held-out rides",
    ),
    at_least(
        "promotion_rides_min",
        "rides",
        0,
        "minimum number of held-out rides to compare models; with fewer, the champion stays",
    ),
    flag(
        "cache",
        "whether parsed datasets are cached, so that a training reads only new ones; does not change the models",
    ),
    number(
        "hold_ms_max",
        "milliseconds",
        100,
        1_140_000,
        "maximum time to hold a message; a longer training continues without it, and the message is delivered again",
    ),
];
pub(super) const SCORER: &[Entry] = &[
    text("model", "name", "model family whose champion is served"),
    number("rides_max", "rides", 1, 100_000, "maximum number of rides in one request"),
    number("breed_models_max", "models", 1, 1_000_000, "maximum number of breed models in memory"),
    number(
        "breed_wait_ms",
        "milliseconds",
        0,
        60_000,
        "how long a request waits for a breed model that is not in memory; then the global model scores",
    ),
    number(
        "follow_ms",
        "milliseconds",
        10,
        3_600_000,
        "time within which scorers follow a new champion without an event",
    ),
    flag("shadow", "whether a challenger scores in shadow: evaluated on live requests, never returned"),
    number(
        "served_write_ms",
        "milliseconds",
        0,
        3_600_000,
        "time between two writes of serving statistics; 0: none are kept or written",
    ),
    number(
        "scored_rides_max",
        "rides",
        0,
        10_000_000,
        "maximum number of rides per day whose id and probability are written, for delayed labels; 0: none",
    ),
];
