//! Every rendered resource is valid: those of Kubernetes against its schemas from 1.28 on, custom resources against their
//! definitions, both without unknown fields; rules against promtool.

use super::{is_kind, items, project, rendered, resources, text, tools};
use pipeline_tests::processes::{succeed, wildrydes};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Command, Stdio},
};

/// Oldest and newest Kubernetes that the chart supports.
const VERSIONS: std::ops::RangeInclusive<u32> = 28..=37;
/// Groups of resources that are not Kubernetes' own, with the tool that defines them.
const CUSTOM: [&str; 5] =
    ["keda.sh", "monitoring.coreos.com", "rabbitmq.com", "external-secrets.io", "gateway.networking.k8s.io"];

fn group(resource: &Value) -> &str {
    text(&resource["apiVersion"]).split_once('/').map_or("", |(group, _)| group)
}

#[test]
fn resources_are_valid_from_kubernetes_1_28_to_1_37() {
    let python = tools().join("python/bin/python3");
    if !python.exists() {
        pipeline_tests::print_uncaptured("not run: no kubernetes-validate; tests/charts prepare installs it");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut files = Vec::new();
    for variant in rendered() {
        let own: Vec<&Value> = variant.resources.iter().filter(|of| !CUSTOM.contains(&group(of))).collect();
        assert!(own.len() > 10, "{}: {}", variant.name, own.len());
        let file = folder.path().join(format!("{}.yaml", variant.name));
        // The text itself: the validator reads it as Kubernetes does, with on, off, yes and no.
        fs::write(&file, &variant.text).expect("a file");
        files.push(file);
    }
    for minor in VERSIONS {
        let mut validate = Command::new(&python);
        validate.args(["-m", "kubernetes_validate", "--strict", "--quiet", "--no-warn", "-k", &format!("1.{minor}.0")]);
        let ended = validate.args(&files).stdin(Stdio::null()).output().expect("it starts");
        let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "1.{minor}: {said}");
    }
}

/// The schemas of custom resources by API version and kind, with unknown fields refused; `None`, with a line, without them.
fn definitions() -> Option<BTreeMap<(String, String), Value>> {
    let folder = project().join("../shared/kubernetes/crds");
    let Ok(files) = fs::read_dir(&folder) else {
        pipeline_tests::print_uncaptured("not run: no definitions of custom resources beside the project");
        return None;
    };
    let mut found = BTreeMap::new();
    for file in files {
        let definition = fs::read_to_string(file.expect("an entry").path()).expect("text");
        let spec = &resources(&definition)[0]["spec"];
        for version in items(&spec["versions"]) {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            strict(&mut schema);
            let standard = json!({ "apiVersion": {}, "kind": {}, "metadata": { "type": "object" } });
            for (key, value) in standard.as_object().expect("an object") {
                schema["properties"][key] = value.clone();
            }
            let version = format!("{}/{}", text(&spec["group"]), text(&version["name"]));
            found.insert((version, text(&spec["names"]["kind"]).to_owned()), schema);
        }
    }
    Some(found)
}

/// Refuses unknown fields in every object of a schema.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let keeps =
                map.contains_key("additionalProperties") || map.contains_key("x-kubernetes-preserve-unknown-fields");
            if map.contains_key("properties") && !keeps {
                map.insert("additionalProperties".to_owned(), false.into());
            }
            // Kubernetes knows formats, such as int32, that JSON Schema does not.
            map.remove("format");
            // Patterns are Go's; JSON Schema's have no flags.
            if map.get("pattern").and_then(Value::as_str).is_some_and(|pattern| pattern.contains("(?")) {
                map.remove("pattern");
            }
            map.values_mut().for_each(strict);
        }
        Value::Array(all) => all.iter_mut().for_each(strict),
        _ => {}
    }
}

/// Validates resources of these groups. Returns how many of each kind there were.
fn validate(definitions: &BTreeMap<(String, String), Value>, resources: &[Value], owner: &str) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for resource in
        resources.iter().filter(|of| ["keda.sh", "monitoring.coreos.com", "rabbitmq.com"].contains(&group(of)))
    {
        let kind = (text(&resource["apiVersion"]).to_owned(), text(&resource["kind"]).to_owned());
        let schema = definitions.get(&kind).unwrap_or_else(|| panic!("{owner}: nothing defines {kind:?}"));
        let validator = jsonschema::draft7::new(schema).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let wrong: Vec<String> =
            validator.iter_errors(resource).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{owner}: {}: {}", resource["metadata"]["name"], wrong.join("\n"));
        kinds.insert(kind.1);
    }
    kinds
}

#[test]
fn custom_resources_fit_their_definitions() {
    let Some(definitions) = definitions() else { return };
    let mut kinds = BTreeSet::new();
    for variant in rendered() {
        kinds.extend(validate(&definitions, &variant.resources, &variant.name));
    }
    if !rendered().is_empty() {
        let expected = ["PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor", "TriggerAuthentication"];
        assert!(kinds.iter().eq(&expected), "{kinds:?}");
    }
}

#[test]
fn printed_manifests_fit_the_definitions_of_rabbitmq() {
    let Some(definitions) = definitions() else { return };
    for namespace in ["", "eu."] {
        let set = format!("broker.namespace={namespace}");
        let arguments = ["topology", "manifests", "--cluster", "rabbitmq", "--set", &set];
        let printed = succeed(wildrydes().args(arguments));
        let kinds = validate(&definitions, &resources(&printed), "topology manifests");
        let expected = ["Binding", "Exchange", "Permission", "Queue", "TopicPermission", "User"];
        assert!(kinds.iter().eq(&expected), "{kinds:?}");
    }
}

#[test]
fn rendered_rules_are_rules_of_prometheus() {
    let all: Vec<&Value> =
        rendered().iter().flat_map(|of| of.resources.iter().filter(is_kind("PrometheusRule"))).collect();
    for rule in all.iter().filter(|rule| !rule["spec"]["groups"].as_array().is_none_or(Vec::is_empty)) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("rules.json");
        fs::write(&file, rule["spec"].to_string()).expect("a file");
        let Ok(ended) = Command::new("promtool").args(["check", "rules"]).arg(&file).stdin(Stdio::null()).output()
        else {
            pipeline_tests::print_uncaptured("not run: no promtool, which comes with Prometheus");
            return;
        };
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}
