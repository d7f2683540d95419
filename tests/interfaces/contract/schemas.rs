//! Checks that schemas, examples and Rust types describe the same documents.

use super::{generate, models, project};
use async_compression::tokio::bufread::GzipDecoder;
use common::{
    dead_letter::{Letter, NoCopy, from_copy},
    document::{self, DocumentVisitor},
    message::{self, KINDS, Message, MessageVisitor, RideChunk, Undecodable},
    schema::{Described, Schema},
};
use jsonschema::Validator;
use proptest::{prelude::*, test_runner::TestRunner};
use regex::Regex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
};
use tokio::io::AsyncReadExt;

/// A schema and the Rust type of its documents.
struct Contract {
    name: &'static str,
    /// Decodes a document, encodes it and decodes it again. Returns the encoded document, or the path of the first error.
    read: fn(&[u8]) -> Result<Value, String>,
}

/// A document that must be refused: a good example of the same schema, changed by a JSON Patch (RFC 6902).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BadExample {
    name: String,
    /// Path of the error, as the types write it.
    path: String,
    refused_by: BTreeSet<RefusedBy>,
    /// The good example that the patch changes: `ok`, or one such as `ok-minimal`.
    #[serde(default = "BadExample::usual_base")]
    base: String,
    patch: json_patch::Patch,
}

/// Who refuses a bad example.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum RefusedBy {
    Schema,
    Types,
}

impl BadExample {
    fn usual_base() -> String {
        "ok".to_owned()
    }
}

impl Contract {
    fn new(schema: Schema, read: fn(&[u8]) -> Result<Value, String>) -> Self {
        Self { name: schema.name, read }
    }

    fn message<M: Message + Debug + PartialEq>() -> Self {
        Self::new(M::SCHEMA, |body| {
            round_trip(body, |body| match message::decode::<M>(body) {
                Ok(message) => Ok(message),
                Err(Undecodable::Malformed { violation, .. }) => Err(violation.path),
                Err(other) => panic!("{other}"),
            })
        })
    }

    fn document<D: Described + Serialize + DeserializeOwned + Debug + PartialEq>() -> Self {
        Self::new(D::SCHEMA, |body| {
            round_trip(body, |body| {
                let mut json = serde_json::Deserializer::from_slice(body);
                serde_path_to_error::deserialize::<_, D>(&mut json).map_err(|error| error.path().to_string())
            })
        })
    }

    fn schema(&self) -> Value {
        read_json(&format!("schemas/{}.json", self.name))
    }

    fn validator(&self) -> Validator {
        jsonschema::draft202012::new(&self.schema()).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The good examples in files: file name and content.
    fn frozen_examples(&self) -> Vec<(String, Value)> {
        let prefix = format!("{}.ok", self.name);
        let names = file_names(EXAMPLES).into_iter().filter(|name| name.starts_with(&prefix));
        names.map(|name| (name.clone(), read_json(&format!("{EXAMPLES}/{name}")))).collect()
    }

    /// The good examples in files and those in the schema itself: name and content.
    fn good_examples(&self) -> Vec<(String, Value)> {
        let own = self.schema()["examples"].as_array().cloned().unwrap_or_default();
        let own = own.into_iter().enumerate().map(|(index, example)| (format!("{}: {index}", self.name), example));
        self.frozen_examples().into_iter().chain(own).collect()
    }

    /// The bad examples, each with its document. Without a file there are none.
    fn bad_examples(&self) -> Vec<(BadExample, Value)> {
        if !project().join(format!("{EXAMPLES}/{}.bad.json", self.name)).exists() {
            return Vec::new();
        }
        let examples: Vec<BadExample> =
            serde_json::from_value(read_json(&format!("{EXAMPLES}/{}.bad.json", self.name)))
                .unwrap_or_else(|error| panic!("{}.bad.json: {error}", self.name));
        let with_document = |mut example: BadExample| {
            let mut document = read_json(&format!("{EXAMPLES}/{}.{}.json", self.name, example.base));
            example.name = format!("{}: {}", self.name, example.name);
            json_patch::patch(&mut document, &example.patch)
                .unwrap_or_else(|error| panic!("{}: {error}", example.name));
            (example, document)
        };
        examples.into_iter().map(with_document).collect()
    }
}

/// The folder of the examples.
const EXAMPLES: &str = "schemas/examples";
/// The file with the SHA-256 of every good example, as `sha256sum` writes it.
const CHECKSUMS: &str = "SHA256SUMS";

/// Copies of dead letters: the types are those of the message that a copy restores.
fn dead_letter() -> Contract {
    Contract::new(Letter::SCHEMA, |body| {
        let copy = serde_json::from_slice(body).expect("JSON");
        let path = |error: NoCopy| error.to_string().split(' ').next().unwrap_or_default().to_owned();
        from_copy(&copy).map(|_| copy).map_err(path)
    })
}

/// All contracts.
struct Contracts(Vec<Contract>);

impl MessageVisitor for Contracts {
    fn message<M: Message + Debug + PartialEq>(&mut self) {
        self.0.push(Contract::message::<M>());
    }
}

impl DocumentVisitor for Contracts {
    fn document<D: Described + Serialize + DeserializeOwned + Debug + PartialEq>(&mut self) {
        self.0.push(Contract::document::<D>());
    }
}

fn contracts() -> Vec<Contract> {
    let mut contracts = Contracts(vec![dead_letter()]);
    message::each(&mut contracts);
    document::each(&mut contracts);
    contracts.0
}

/// Generates any value of the type that a schema describes, as JSON; `None` if there is no generator.
fn values_of(schema: &str) -> Option<BoxedStrategy<Value>> {
    fn of<T: Serialize + Debug>(values: impl Strategy<Value = T> + 'static) -> Option<BoxedStrategy<Value>> {
        Some(values.prop_map(|value| serde_json::to_value(value).expect("contract types are JSON")).boxed())
    }
    match schema {
        "ride-batch.v1" => of(generate::ride_batch()),
        "ride-chunk.v1" => of(generate::ride_chunk()),
        "batch-split.v1" => of(generate::batch_split()),
        "enriched-chunk.v1" => of(generate::enriched_chunk()),
        "dataset-ready.v1" => of(generate::dataset_ready()),
        "model-promoted.v1" => of(generate::model_promoted()),
        "model-rejected.v1" => of(generate::model_rejected()),
        "worker-control.v1" => of(generate::worker_control()),
        "score-request.v1" => of(generate::score_request()),
        "score-response.v1" => of(generate::score_response()),
        "weather-request.v1" => of(generate::weather_request()),
        "weather-response.v1" => of(generate::weather_response()),
        "claim.v1" => of(generate::claim()),
        "dataset-manifest.v1" => of(generate::manifest()),
        "rejected-ride.v1" => of(generate::rejected_ride()),
        "dead-letter.v1" => of(generate::dead_letter()),
        "upload.v1" => of(generate::upload()),
        "idempotency.v1" => of(generate::idempotency_record()),
        "waiting.v1" => of(generate::waiting()),
        "weather-warnings.v1" => of(generate::weather_warnings()),
        "model.v1" => of(models::model()),
        "model-alias.v1" => of(models::alias()),
        "breeds.v1" => of(models::breeds()),
        "metrics.v1" => of(models::metrics_file()),
        "verdict.v1" => of(models::verdict()),
        "delayed-labels.v1" => of(models::delayed_labels()),
        "served.v1" => of(models::served()),
        _ => None,
    }
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

/// The paths of a schema's errors, as the types write them: `/rides/0/latitude` is `rides[0].latitude`, the root is `.`.
fn schema_errors(validator: &Validator, instance: &Value) -> Vec<String> {
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

/// A schema that a release has frozen also needs documents that it refuses.
#[test]
fn every_schema_belongs_to_a_type_and_has_examples() {
    let contracts = contracts();
    let known: BTreeSet<&str> = contracts.iter().map(|contract| contract.name).collect();
    let schemas = file_names("schemas");
    let schemas: BTreeSet<&str> = schemas.iter().filter_map(|name| name.strip_suffix(".json")).collect();
    assert_eq!(schemas, known);
    for contract in &contracts {
        assert!(!contract.good_examples().is_empty(), "{} has no good example", contract.name);
        let bad = contract.bad_examples();
        let names: BTreeSet<&str> = bad.iter().map(|(example, _)| example.name.as_str()).collect();
        assert_eq!(names.len(), bad.len(), "{}: two bad examples of one name", contract.name);
        let is_frozen = !contract.frozen_examples().is_empty();
        assert!(!is_frozen || !bad.is_empty(), "{} has no bad example", contract.name);
    }
    for example in file_names(EXAMPLES).iter().filter(|name| name.ends_with(".json")) {
        let belongs = |name: &&str| {
            let kind = example.strip_prefix(*name).and_then(|rest| rest.strip_suffix(".json"));
            kind.is_some_and(|kind| matches!(kind, ".ok" | ".bad") || kind.starts_with(".ok-"))
        };
        assert_eq!(known.iter().filter(|name| belongs(name)).count(), 1, "{example} belongs to no schema");
    }
}

#[test]
fn every_schema_is_valid_and_describes_every_field() {
    fn check_descriptions(at: &str, schema: &Value) {
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            assert!(property["description"].is_string(), "{at}.{name} has no description");
            check_descriptions(&format!("{at}.{name}"), property);
        }
        if let Some(items) = schema.get("items") {
            check_descriptions(&format!("{at}[]"), items);
        }
        for (name, definition) in schema.get("$defs").and_then(Value::as_object).into_iter().flatten() {
            check_descriptions(&format!("{at}#{name}"), definition);
        }
        assert!(schema.get("additionalProperties").is_none_or(Value::is_object), "{at}: readers ignore unknown fields");
    }
    for contract in contracts() {
        let schema = contract.schema();
        jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{}: {error}", contract.name));
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["$id"], format!("urn:wildrydes:{}", contract.name));
        assert!(schema["title"].is_string() && schema["description"].is_string(), "{}", contract.name);
        check_descriptions(contract.name, &schema);
    }
}

/// Score requests and responses repeat the definition of weather, so that each schema stands alone. Theirs may also be null.
#[test]
fn every_schema_defines_weather_alike() {
    let original = read_json("schemas/weather-response.v1.json")["$defs"].clone();
    for name in ["score-request.v1", "score-response.v1"] {
        let copy = read_json(&format!("schemas/{name}.json"))["$defs"].clone();
        assert_eq!(copy["weather_error"], original["error"], "{name}");
        let text = original["weather"]["properties"].to_string().replace("#/$defs/error", "#/$defs/weather_error");
        assert_eq!(copy["weather"]["properties"].to_string(), text, "{name}");
        for (nth, of_weather) in original["weather"]["oneOf"].as_array().expect("alternatives").iter().enumerate() {
            let mut of_copy = copy["weather"]["oneOf"][nth].clone();
            assert_eq!(
                of_copy.as_object_mut().and_then(|members| members.remove("type")),
                Some(json!("object")),
                "{name}"
            );
            assert_eq!(of_copy, *of_weather, "{name}");
        }
    }
}

#[test]
fn good_examples_are_valid_before_and_after_the_types_read_them() {
    for contract in contracts() {
        let validator = contract.validator();
        for (name, document) in contract.good_examples() {
            assert_eq!(schema_errors(&validator, &document), [""; 0], "{name} against its schema");
            let written = (contract.read)(&bytes(&document)).unwrap_or_else(|path| panic!("{name}: refused at {path}"));
            assert_eq!(schema_errors(&validator, &written), [""; 0], "{name}, written again");
        }
    }
}

/// Compatibility: the good examples are frozen. Each is a document as a released version wrote it, and every later version must
/// read it and lose nothing that it says. Do not edit or remove one. Add new examples beside them, with their checksums:
/// `cd schemas/examples && sha256sum *.ok*.json > SHA256SUMS`.
#[test]
fn documents_of_earlier_versions_are_unchanged_and_still_read() {
    let checksums = fs::read_to_string(project().join(EXAMPLES).join(CHECKSUMS)).expect("the checksums");
    let frozen: BTreeMap<&str, &str> = checksums
        .lines()
        .map(|line| line.split_once("  ").map(|(checksum, name)| (name, checksum)).expect("a checksum and a name"))
        .collect();
    let mut incomplete = Vec::new();
    for contract in contracts() {
        for (name, document) in contract.frozen_examples() {
            let bytes = fs::read(project().join(EXAMPLES).join(&name)).expect("an example");
            let checksum = frozen.get(name.as_str()).unwrap_or_else(|| panic!("{name} is missing in {CHECKSUMS}"));
            assert_eq!(hex::encode(Sha256::digest(&bytes)), **checksum, "{name} is frozen, but has changed");
            let read = (contract.read)(&bytes).unwrap_or_else(|path| panic!("{name}: refused at {path}"));
            incomplete.extend(lost(&document, &read).into_iter().map(|path| format!("{name}: {path}")));
        }
    }
    assert!(incomplete.is_empty(), "what the types no longer read: {incomplete:#?}");
    for name in frozen.keys() {
        assert!(project().join(EXAMPLES).join(name).is_file(), "{name} is frozen, but has been removed");
    }
}

/// The schema of a document by its path in the store, as a pattern.
const STORED: [(&str, &str); 15] = [
    ("^batches/[^/]+.json$", "claim.v1"),
    ("^uploads/[^/]+.json$", "upload.v1"),
    ("^idempotency/[^/]+.json$", "idempotency.v1"),
    ("^rejected/[^/]+.ndjson$", "rejected-ride.v1"),
    ("^dataset/[^/]+/manifest.json$", "dataset-manifest.v1"),
    ("^models/[^/]+/[^/]+/model.json$", "model.v1"),
    ("^models/[^/]+/[^/]+/metrics.json$", "metrics.v1"),
    ("^models/[^/]+/[^/]+/breeds.json$", "breeds.v1"),
    ("^models/[^/]+/[^/]+/verdict.json$", "verdict.v1"),
    ("^models/[^/]+/[^/]+/realised.json$", "delayed-labels.v1"),
    ("^models/[^/]+/(champion|challenger)(/[0-9]{10})?.json$", "model-alias.v1"),
    ("^served/.*.json$", "served.v1"),
    ("^control/[^/]+.json$", "worker-control.v1"),
    ("^control/waiting/[^/]+.json$", "waiting.v1"),
    ("^dead/[^/]+/[^/]+.json$", "dead-letter.v1"),
];

/// Compatibility: every JSON document of a store that an earlier version wrote has a schema, passes it, and is read completely.
#[tokio::test]
async fn a_store_of_an_earlier_version_passes_the_schemas_and_is_read() {
    let contracts = contracts();
    let store = fs::read(project().join("schemas/examples/stores/0.1.0.json.gz")).expect("the store");
    let mut text = String::new();
    GzipDecoder::new(store.as_slice()).read_to_string(&mut text).await.expect("gzip");
    let objects: BTreeMap<String, String> = serde_json::from_str(&text).expect("objects by path");
    let is_ours = |path: &str| path.contains("json") && !path.starts_with("raw/");
    let mut known = BTreeSet::new();
    for (path, content) in objects.iter().filter(|(path, _)| is_ours(path)) {
        let schema = STORED.iter().find(|(pattern, _)| Regex::new(pattern).expect("a pattern").is_match(path));
        let (_, name) = schema.unwrap_or_else(|| panic!("{path} has no schema"));
        let contract = contracts.iter().find(|contract| contract.name == *name).expect("a contract");
        let documents = if path.ends_with(".ndjson") { content.lines().collect() } else { vec![content.as_str()] };
        for document in documents {
            let value: Value = serde_json::from_str(document).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(schema_errors(&contract.validator(), &value), [""; 0], "{path}");
            let read = (contract.read)(document.as_bytes()).unwrap_or_else(|at| panic!("{path}: refused at {at}"));
            assert_eq!(lost(&value, &read), [""; 0], "{path}");
            known.insert(name);
        }
    }
    assert_eq!(known.len(), STORED.len() - 3, "the store has documents of these schemas: {known:?}");
}

/// The paths of members of `document` that `read` lacks or gives another value. Null and an absent member mean the same, and a
/// time may be written in another form.
fn lost(document: &Value, read: &Value) -> Vec<String> {
    match (document, read) {
        (Value::Object(members), Value::Object(others)) => {
            let of_member = |(key, value): (&String, &Value)| match others.get(key) {
                _ if value.is_null() || key == "statustime" && others.contains_key(key) => Vec::new(),
                None => vec![key.clone()],
                Some(other) => lost(value, other).into_iter().map(|path| format!("{key}.{path}")).collect(),
            };
            members.iter().flat_map(of_member).collect()
        }
        (Value::Array(elements), Value::Array(others)) if elements.len() == others.len() => {
            elements.iter().zip(others).flat_map(|(element, other)| lost(element, other)).collect()
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => Vec::new(),
        _ if document == read => Vec::new(),
        _ => vec![format!("{document} was read as {read}")],
    }
}

#[test]
fn bad_examples_are_refused_at_the_path_they_name() {
    for contract in contracts() {
        let validator = contract.validator();
        for (example, document) in contract.bad_examples() {
            let (name, path) = (&example.name, &example.path);
            let errors = schema_errors(&validator, &document);
            if example.refused_by.contains(&RefusedBy::Schema) {
                assert!(errors.contains(path), "{name}: the schema refuses it at {errors:?}");
            } else {
                assert_eq!(errors, [""; 0], "{name}: the schema refuses it as well");
            }
            let read = (contract.read)(&bytes(&document));
            if example.refused_by.contains(&RefusedBy::Types) {
                assert_eq!(read, Err(path.clone()), "{name}");
            } else {
                assert!(read.is_ok(), "{name}: {read:?}");
            }
            assert!(!example.refused_by.is_empty(), "{name} is accepted by both");
        }
    }
}

/// Every schema that a release has frozen has a generator of values.
#[test]
fn every_value_of_the_types_passes_its_schema() {
    for contract in contracts() {
        let Some(any) = values_of(contract.name) else {
            assert!(contract.frozen_examples().is_empty(), "{} has no generator of values", contract.name);
            continue;
        };
        let validator = contract.validator();
        let result = TestRunner::new(ProptestConfig::with_cases(64)).run(&any, |document| {
            prop_assert_eq!(schema_errors(&validator, &document), Vec::<String>::new());
            let written = (contract.read)(&bytes(&document)).map_err(TestCaseError::fail)?;
            prop_assert_eq!(written, document);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{}: {error}", contract.name));
    }
}

#[test]
fn schema_and_types_agree_on_every_change_to_a_good_example() {
    for contract in contracts() {
        let validator = contract.validator();
        let mut accepted = 0;
        let mut refused = 0;
        let examples = contract.good_examples();
        let all: Vec<Value> = examples.iter().map(|(_, example)| example.clone()).collect();
        for (name, example) in examples {
            for (change, document) in mutations(&example, &all) {
                let by_schema = validator.is_valid(&document);
                let by_types = (contract.read)(&bytes(&document));
                *(if by_types.is_ok() { &mut accepted } else { &mut refused }) += 1;
                if by_schema != by_types.is_ok() && !beyond_schema(contract.name, by_schema, &by_types) {
                    panic!("{name} with {change}: accepted by the schema: {by_schema}; by the types: {by_types:?}");
                }
            }
        }
        assert!(accepted > 0 && refused > 0, "{}: {accepted} accepted, {refused} refused", contract.name);
    }
}

/// Returns whether schema and types may disagree here. Only the types can compare fields with each other; only the schemas check
/// the form of strings in stored documents, which nobody but the fleet writes. The bad examples show both.
fn beyond_schema(name: &str, by_schema: bool, by_types: &Result<Value, String>) -> bool {
    match name {
        "batch-split.v1" => by_schema && by_types.as_ref().is_err_and(|path| path == "received" || path == "chunks"),
        "dead-letter.v1" if by_schema => by_types.as_ref().is_err_and(|path| path == "body"),
        _ if KINDS.iter().any(|kind| kind.to_string() == name) => false,
        _ => !by_schema && by_types.is_ok(),
    }
}

/// Every document that differs from `document` in one place: a member or element removed, a value replaced by one of each type,
/// an unknown member added, or a member added that one of its `siblings` has.
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
    let mut changes: Vec<(String, Value)> =
        others.iter().filter(|other| *other != document).map(|other| (format!("{other}"), other.clone())).collect();
    match document {
        Value::Object(members) => {
            let unknown = Map::from_iter([("unknown".to_owned(), json!(1))]);
            for (key, value) in siblings.iter().filter_map(Value::as_object).flatten().chain(&unknown) {
                if !members.contains_key(key) {
                    let mut more = members.clone();
                    more.insert(key.clone(), value.clone());
                    changes.push((format!("{key} added"), Value::Object(more)));
                }
            }
            for (key, value) in members {
                let without: Map<String, Value> =
                    members.iter().filter(|(other, _)| *other != key).map(|(k, v)| (k.clone(), v.clone())).collect();
                changes.push((format!("no {key}"), Value::Object(without)));
                for (change, value) in mutations(value, &[]) {
                    let mut changed = members.clone();
                    changed.insert(key.clone(), value);
                    changes.push((format!("{key}: {change}"), Value::Object(changed)));
                }
            }
        }
        Value::Array(elements) => {
            for index in 0..elements.len() {
                let mut without = elements.clone();
                without.remove(index);
                changes.push((format!("no [{index}]"), Value::Array(without)));
                for (change, value) in mutations(&elements[index], elements) {
                    let mut changed = elements.clone();
                    changed[index] = value;
                    changes.push((format!("[{index}]: {change}"), Value::Array(changed)));
                }
            }
        }
        _ => {}
    }
    changes
}

#[test]
fn the_described_ride_of_a_batch_accepts_what_a_chunk_accepts() {
    let mut schema = read_json("schemas/ride-batch.v1.json")["$defs"]["ride"].clone();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    for file in ["ride-chunk.v1.ok.json", "ride-chunk.v1.ok-minimal.json", "ride-batch.v1.ok.json"] {
        let ride = &read_json(&format!("schemas/examples/{file}"))["rides"][0];
        assert_eq!(schema_errors(&validator, ride), [""; 0], "{file}");
    }
    let mut refused = 0;
    for (example, document) in Contract::message::<RideChunk>().bad_examples() {
        // A publisher may number its rides, and may leave out their names.
        let laxer = ["rides[0].ride_id", "rides[0].name"].contains(&example.path.as_str());
        let by_schema = example.refused_by.contains(&RefusedBy::Schema);
        if by_schema && !laxer && example.path.starts_with("rides[") {
            let rides = document["rides"].as_array();
            assert!(rides.is_some_and(|rides| rides.iter().any(|ride| !validator.is_valid(ride))), "{}", example.name);
            refused += 1;
        }
    }
    assert!(refused > 10, "{refused} bad rides");
}
