//! Generates schemas from types: those of the rows marked `generated`. Compiled for tests only.

use super::{Described, Schema};
use crate::{
    delivery::dead_letter,
    document::{self, dataset::Claim},
    message,
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};
use std::{env, fs, path::Path};

/// Environment variable that makes the test rewrite the files.
const UPDATE: &str = "UPDATE_SCHEMAS";
/// Maximum length of a line that holds a whole object or array.
const LINE_MAX: usize = 120;
/// Members that a claim has as well, with the same meaning and form.
const OF_CLAIM: [&str; 4] = ["batch_id", "sha256", "rides_at", "map"];
/// Keywords that come first, in this order.
const FIRST: [&str; 9] =
    ["$schema", "$id", "title", "description", "type", "minimum", "required", "properties", "propertyNames"];

/// Returns the schema of a type as it stands in its file, and as it is generated.
pub(crate) fn generated<D: Described + JsonSchema>() -> (Schema, String) {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<D>().to_value();
    tidy(&mut schema);
    let (name, _) = D::SCHEMA.name.split_once('.').unwrap();
    let title = name.replace('-', " ");
    schema["title"] = json!(format!("{}{}", title[..1].to_uppercase(), &title[1..]));
    schema["$id"] = json!(format!("urn:wildrydes:{}", D::SCHEMA.name));
    let claim: Value = serde_json::from_str(Claim::SCHEMA.text).unwrap();
    let members = schema["properties"].as_object_mut().unwrap();
    for (member, described) in members {
        if OF_CLAIM.contains(&member.as_str()) {
            *described = claim["properties"][member].clone();
        } else if member == "schema" {
            *described = json!({ "description": "Name of this schema.", "const": D::SCHEMA.name });
        }
    }
    (D::SCHEMA, format!("{}\n", layout(&schema, 0, 0)))
}

/// Replaces Rust's number formats by bounds, and its documentation by text without links and line breaks. Null is no default
/// worth naming.
fn tidy(schema: &mut Value) {
    if let Some(description) = schema.get("description").and_then(Value::as_str) {
        let plain = description.replace('\n', " ").replace("[`", "`").replace("`]", "`").replace("Self::", "");
        schema["description"] = json!(plain);
    }
    if let Value::Object(members) = schema {
        match members.remove("format").as_ref().and_then(Value::as_str) {
            Some("uint64") => drop(members.insert("maximum".to_owned(), json!(u64::MAX))),
            Some("uint32") => drop(members.insert("maximum".to_owned(), json!(u32::MAX))),
            Some("double") | None => {}
            Some(other) => panic!("{other}: expected a format with known bounds"),
        }
        if members.get("default").is_some_and(Value::is_null) {
            members.remove("default");
        }
        members.values_mut().for_each(tidy);
    } else if let Value::Array(elements) = schema {
        elements.iter_mut().for_each(tidy);
    }
}

/// Returns JSON text with each object and array on one line if it fits there. `used` is the length of what stands before it on
/// its line, 0 for the root.
fn layout(value: &Value, indentation: usize, used: usize) -> String {
    let inner = " ".repeat(indentation + 2);
    let (open, close, items): (_, _, Vec<String>) = match value {
        Value::Object(members) => {
            let rank = |key: &str| FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len());
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by_key(|(key, _)| rank(key));
            let member = |(key, value): (&String, &Value)| {
                let key = json!(key).to_string();
                format!("{key}: {}", layout(value, indentation + 2, indentation + key.len() + 5))
            };
            ("{", "}", members.into_iter().map(member).collect())
        }
        Value::Array(elements) => {
            ("[", "]", elements.iter().map(|element| layout(element, indentation + 2, indentation + 3)).collect())
        }
        other => return other.to_string(),
    };
    let line = items.join(", ");
    let blank = if open == "{" && !items.is_empty() { " " } else { "" };
    if used > 0 && used + line.len() + 4 <= LINE_MAX && !line.contains('\n') {
        return format!("{open}{blank}{line}{blank}{close}");
    }
    let lines: Vec<String> = items.iter().map(|item| format!("{inner}{item}")).collect();
    format!("{open}\n{}\n{}{close}", lines.join(",\n"), " ".repeat(indentation))
}

#[test]
fn generated_schemas_are_those_of_their_types() {
    let all = [message::generated(), document::generated(), dead_letter::generated()].concat();
    // The order of members depends on the features of `serde_json` that other crates of the build enable.
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (schema, text) in all.into_iter().filter(|(schema, text)| value(schema.text) != value(text)) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../schemas/{}.json", schema.name));
        assert!(
            env::var_os(UPDATE).is_some(),
            "{} is not that of its type; {UPDATE}=1 rewrites it to:\n{text}",
            schema.name
        );
        fs::write(&file, text).unwrap();
    }
}
