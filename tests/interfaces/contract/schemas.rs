//! Schemas, examples and Rust types say the same.

use super::{generate, models, project};
use common::{
    dataset::{Claim, Manifest},
    message::{
        self, BatchSplit, DatasetReady, EnrichedChunk, KINDS, Message, ModelPromoted, ModelRejected, RideBatch,
        RideChunk, ScoreRequest, ScoreResponse, Undecodable, WeatherRequest, WeatherResponse, WorkerControl,
    },
    model::{ALIAS_SCHEMA, Alias, MODEL_SCHEMA, Model},
    served::{SERVED_SCHEMA, Served},
    waiting::{WAITING_SCHEMA, Waiting},
    weather::{WARNINGS_SCHEMA, WeatherWarnings},
};
use jsonschema::Validator;
use proptest::{prelude::*, test_runner::TestRunner};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, fmt::Debug, fs};

/// One schema and the type that stands for it.
struct Contract {
    name: String,
    /// Decodes, encodes and decodes again; gives what was written, or the path of the first offence.
    read: fn(&[u8]) -> Result<Value, String>,
    /// Anything the type can say, as JSON.
    any: BoxedStrategy<Value>,
}

impl Contract {
    fn message<M: Message + Debug + PartialEq>(any: impl Strategy<Value = M> + 'static) -> Self {
        fn read<M: Message + Debug + PartialEq>(body: &[u8]) -> Result<Value, String> {
            round_trip(body, |body| match message::decode::<M>(body) {
                Ok(message) => Ok(message),
                Err(Undecodable::Malformed { violation, .. }) => Err(violation.path),
                Err(other) => panic!("{other}"),
            })
        }
        Self { name: M::KIND.to_string(), read: read::<M>, any: any.prop_map(|message| json(&message)).boxed() }
    }

    fn document<D: Serialize + DeserializeOwned + Debug + PartialEq>(
        name: &str,
        any: impl Strategy<Value = D> + 'static,
    ) -> Self {
        fn read<D: Serialize + DeserializeOwned + Debug + PartialEq>(body: &[u8]) -> Result<Value, String> {
            round_trip(body, |body| {
                let mut json = serde_json::Deserializer::from_slice(body);
                serde_path_to_error::deserialize::<_, D>(&mut json).map_err(|error| error.path().to_string())
            })
        }
        Self { name: name.to_owned(), read: read::<D>, any: any.prop_map(|document| json(&document)).boxed() }
    }

    fn schema(&self) -> Value {
        read_json(&format!("schemas/{}.json", self.name))
    }

    fn validator(&self) -> Validator {
        jsonschema::draft202012::new(&self.schema()).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Its examples: file name and content, those that start with `ok` or with `bad-`.
    fn examples(&self, verdict: &str) -> Vec<(String, Value)> {
        let prefix = format!("{}.{verdict}", self.name);
        let names = file_names("schemas/examples").into_iter().filter(|name| name.starts_with(&prefix));
        names.map(|name| (name.clone(), read_json(&format!("schemas/examples/{name}")))).collect()
    }
}

fn contracts() -> Vec<Contract> {
    vec![
        Contract::message::<RideBatch>(generate::ride_batch()),
        Contract::message::<RideChunk>(generate::ride_chunk()),
        Contract::message::<BatchSplit>(generate::batch_split()),
        Contract::message::<EnrichedChunk>(generate::enriched_chunk()),
        Contract::message::<DatasetReady>(generate::dataset_ready()),
        Contract::message::<ModelPromoted>(generate::model_promoted()),
        Contract::message::<ModelRejected>(generate::model_rejected()),
        Contract::message::<WorkerControl>(generate::worker_control()),
        Contract::message::<ScoreRequest>(generate::score_request()),
        Contract::message::<ScoreResponse>(generate::score_response()),
        Contract::message::<WeatherRequest>(generate::weather_request()),
        Contract::message::<WeatherResponse>(generate::weather_response()),
        Contract::document::<Claim>("claim.v1", generate::claim()),
        Contract::document::<Manifest>("dataset-manifest.v1", generate::manifest()),
        Contract::document::<Model>(MODEL_SCHEMA, models::model()),
        Contract::document::<Alias>(ALIAS_SCHEMA, models::alias()),
        Contract::document::<Served>(SERVED_SCHEMA, models::served()),
        Contract::document::<Waiting>(WAITING_SCHEMA, generate::waiting()),
        Contract::document::<WeatherWarnings>(WARNINGS_SCHEMA, generate::weather_warnings()),
    ]
}

fn round_trip<T: Serialize + Debug + PartialEq>(
    body: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, String>,
) -> Result<Value, String> {
    let first = decode(body)?;
    let written = serde_json::to_vec(&first).expect("what was read can be written");
    assert_eq!(decode(&written).as_ref(), Ok(&first), "what was written reads back as itself");
    Ok(serde_json::from_slice(&written).expect("JSON"))
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("contract types are JSON")
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

fn read_json(path: &str) -> Value {
    let text = fs::read(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn file_names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(project().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// Where a schema objects, written as the types write it: `/rides/0/latitude` is `rides[0].latitude`, the root `.`.
fn objections(validator: &Validator, instance: &Value) -> Vec<String> {
    let path = |pointer: &str| {
        let mut path = String::new();
        for part in pointer.split('/').skip(1) {
            if part.bytes().all(|byte| byte.is_ascii_digit()) {
                path += &format!("[{part}]");
            } else if path.is_empty() {
                path += part;
            } else {
                path += &format!(".{part}");
            }
        }
        if path.is_empty() { ".".to_owned() } else { path }
    };
    validator.iter_errors(instance).map(|error| path(error.instance_path().as_str())).collect()
}

#[test]
fn every_kind_has_a_schema_with_examples_and_nothing_else_has() {
    let contracts = contracts();
    let known: BTreeSet<&str> = contracts.iter().map(|contract| contract.name.as_str()).collect();
    for kind in KINDS {
        assert!(known.contains(kind.to_string().as_str()), "{kind} is in none of these tests");
    }
    let schemas = file_names("schemas");
    let schemas: BTreeSet<&str> = schemas.iter().filter_map(|name| name.strip_suffix(".json")).collect();
    assert_eq!(schemas, known);
    for contract in &contracts {
        assert!(!contract.examples("ok").is_empty(), "{} has no good example", contract.name);
        assert!(!contract.examples("bad-").is_empty(), "{} has no bad example", contract.name);
    }
    for example in file_names("schemas/examples") {
        let belongs = |name: &&str| {
            let verdict = example.strip_prefix(*name).and_then(|rest| rest.strip_suffix(".json"));
            verdict.is_some_and(|v| v == ".ok" || v.starts_with(".ok-") || v.starts_with(".bad-"))
        };
        assert_eq!(known.iter().filter(|name| belongs(name)).count(), 1, "{example} belongs to no schema");
    }
}

#[test]
fn every_schema_is_one_and_describes_every_field() {
    fn described(at: &str, schema: &Value) {
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            assert!(property["description"].is_string(), "{at}.{name} has no description");
            described(&format!("{at}.{name}"), property);
        }
        if let Some(items) = schema.get("items") {
            described(&format!("{at}[]"), items);
        }
        for (name, definition) in schema.get("$defs").and_then(Value::as_object).into_iter().flatten() {
            described(&format!("{at}#{name}"), definition);
        }
        assert!(schema.get("additionalProperties").is_none_or(Value::is_object), "{at}: readers ignore unknown fields");
    }
    for contract in contracts() {
        let schema = contract.schema();
        jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{}: {error}", contract.name));
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["$id"], format!("urn:wildrydes:{}", contract.name));
        assert!(schema["title"].is_string() && schema["description"].is_string(), "{}", contract.name);
        described(&contract.name, &schema);
    }
}

#[test]
fn good_examples_pass_schema_and_types_and_come_back_the_same() {
    for contract in contracts() {
        let validator = contract.validator();
        for (name, document) in contract.examples("ok") {
            assert_eq!(objections(&validator, &document), [""; 0], "{name} against its schema");
            let written = (contract.read)(&bytes(&document)).unwrap_or_else(|path| panic!("{name}: refused at {path}"));
            assert_eq!(objections(&validator, &written), [""; 0], "{name}, written again");
        }
    }
}

#[test]
fn bad_examples_are_refused_at_the_path_they_name() {
    for contract in contracts() {
        let validator = contract.validator();
        for (name, example) in contract.examples("bad-") {
            let path = example["path"].as_str().unwrap_or_else(|| panic!("{name} names no path"));
            let refused_by = |who: &str| {
                let named = example["refused_by"].as_array().unwrap_or_else(|| panic!("{name}: refused by whom?"));
                named.iter().any(|entry| entry == who)
            };
            let document = &example["document"];
            let objections = objections(&validator, document);
            if refused_by("schema") {
                assert!(objections.iter().any(|at| at == path), "{name}: the schema objects at {objections:?}");
            } else {
                assert_eq!(objections, [""; 0], "{name} is no longer beyond its schema");
            }
            let read = (contract.read)(&bytes(document));
            if refused_by("types") {
                assert_eq!(read, Err(path.to_owned()), "{name}");
            } else {
                assert!(read.is_ok(), "{name}: {read:?}");
            }
            assert!(refused_by("schema") || refused_by("types"), "{name} is refused by nobody");
        }
    }
}

#[test]
fn whatever_the_fleet_writes_passes_its_schema() {
    for contract in contracts() {
        let validator = contract.validator();
        let result = TestRunner::new(ProptestConfig::with_cases(64)).run(&contract.any, |document| {
            prop_assert_eq!(objections(&validator, &document), Vec::<String>::new());
            let written = (contract.read)(&bytes(&document)).map_err(TestCaseError::fail)?;
            prop_assert_eq!(written, document);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{}: {error}", contract.name));
    }
}

#[test]
fn every_change_to_a_good_example_finds_schema_and_types_of_one_mind() {
    for contract in contracts() {
        let validator = contract.validator();
        let mut accepted = 0;
        let mut refused = 0;
        let examples = contract.examples("ok");
        let all: Vec<Value> = examples.iter().map(|(_, example)| example.clone()).collect();
        for (name, example) in examples {
            for (change, document) in mutations(&example, &all) {
                let by_schema = validator.is_valid(&document);
                let by_types = (contract.read)(&bytes(&document));
                *(if by_types.is_ok() { &mut accepted } else { &mut refused }) += 1;
                if by_schema != by_types.is_ok() && !beyond_schema(&contract.name, by_schema, &by_types) {
                    panic!("{name} with {change}: the schema takes it: {by_schema}, the types say {by_types:?}");
                }
            }
        }
        assert!(accepted > 0 && refused > 0, "{}: {accepted} accepted, {refused} refused", contract.name);
    }
}

/// The differences that JSON Schema cannot avoid, and that the bad examples show: what fields must be to each
/// other, which only the types check, and the strings of stored documents, whose form only the schemas check (their one writer is the fleet).
fn beyond_schema(name: &str, by_schema: bool, by_types: &Result<Value, String>) -> bool {
    match name {
        "batch-split.v1" => by_schema && by_types.as_ref().is_err_and(|path| path == "received" || path == "chunks"),
        "claim.v1"
        | "dataset-manifest.v1"
        | "model.v1"
        | "model-alias.v1"
        | "served.v1"
        | "waiting.v1"
        | "weather-warnings.v1" => !by_schema && by_types.is_ok(),
        _ => false,
    }
}

/// Every document that differs from `document` in one place: a member or element gone, a value replaced by one of each
/// type, an unknown member more, or a member more that one of its `siblings` has.
fn mutations(document: &Value, siblings: &[Value]) -> Vec<(String, Value)> {
    let others = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(0.5),
        json!(-90.5),
        json!(181),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("text"),
        json!("2018-04-25T17:03:05Z"),
        json!([]),
        json!([null]),
        json!(["text", 1]),
        json!({}),
        json!({ "unknown": 1 }),
    ];
    let mut found: Vec<(String, Value)> =
        others.iter().filter(|other| *other != document).map(|other| (format!("{other}"), other.clone())).collect();
    match document {
        Value::Object(members) => {
            let unknown = Map::from_iter([("unknown".to_owned(), json!(1))]);
            for (key, value) in siblings.iter().filter_map(Value::as_object).flatten().chain(&unknown) {
                if !members.contains_key(key) {
                    let mut more = members.clone();
                    more.insert(key.clone(), value.clone());
                    found.push((format!("{key} more"), Value::Object(more)));
                }
            }
            for (key, value) in members {
                let without: Map<String, Value> =
                    members.iter().filter(|(other, _)| *other != key).map(|(k, v)| (k.clone(), v.clone())).collect();
                found.push((format!("no {key}"), Value::Object(without)));
                for (change, value) in mutations(value, &[]) {
                    let mut changed = members.clone();
                    changed.insert(key.clone(), value);
                    found.push((format!("{key}: {change}"), Value::Object(changed)));
                }
            }
        }
        Value::Array(elements) => {
            for index in 0..elements.len() {
                let mut without = elements.clone();
                without.remove(index);
                found.push((format!("no [{index}]"), Value::Array(without)));
                for (change, value) in mutations(&elements[index], elements) {
                    let mut changed = elements.clone();
                    changed[index] = value;
                    found.push((format!("[{index}]: {change}"), Value::Array(changed)));
                }
            }
        }
        _ => {}
    }
    found
}

#[test]
fn the_ride_a_publisher_is_asked_for_is_a_ride_the_fleet_writes() {
    let mut schema = read_json("schemas/ride-batch.v1.json")["$defs"]["ride"].clone();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    for file in ["ride-chunk.v1.ok.json", "ride-chunk.v1.ok-minimal.json", "ride-batch.v1.ok.json"] {
        let ride = &read_json(&format!("schemas/examples/{file}"))["rides"][0];
        assert_eq!(objections(&validator, ride), [""; 0], "{file}");
    }
    let mut refused = 0;
    for (name, example) in Contract::message::<RideChunk>(generate::ride_chunk()).examples("bad-") {
        // A publisher may number its rides, and need not name them.
        let laxer = ["rides[0].ride_id", "rides[0].name"].iter().any(|path| example["path"] == *path);
        let by_schema = example["refused_by"].as_array().is_some_and(|who| who.contains(&json!("schema")));
        let rides = example["document"]["rides"].as_array();
        if by_schema && !laxer && example["path"].as_str().is_some_and(|path| path.starts_with("rides[")) {
            assert!(rides.is_some_and(|rides| rides.iter().any(|ride| !validator.is_valid(ride))), "{name}");
            refused += 1;
        }
    }
    assert!(refused > 10, "{refused} bad rides");
}
