//! What the chart renders, beyond what schemas express.

use super::{Rendered, chart, helms, is_kind, items, rendered, resources, text, variants};
use common::topology::{PROCESSES, Process, RETRY_DELAYS_MS, Topology, process};
use pipeline_tests::processes::{json_output, wildrydes};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// What a KEDA trigger of type `rabbitmq` may say. KEDA accepts any other key and ignores it.
const TRIGGER_KEYS: [&str; 13] = [
    "activationValue",
    "excludeUnacknowledged",
    "host",
    "mode",
    "operation",
    "pageSize",
    "protocol",
    "queueName",
    "timeout",
    "unsafeSsl",
    "useRegex",
    "value",
    "vhostName",
];
/// Volumes that restricted pod security allows.
const VOLUMES: [&str; 4] = ["configMap", "emptyDir", "persistentVolumeClaim", "secret"];
/// Settings that name a service as the store.
const STORE_SETTINGS: [&str; 4] = ["endpoint", "region", "path_style", "allow_http"];

/// Pod templates, each with the name of what contains it.
fn pods(resources: &[Value]) -> Vec<(String, &Value)> {
    let template = |resource: &'static str| match resource {
        "Deployment" | "Job" => "/spec/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => "",
    };
    let kinds = ["Deployment", "Job", "CronJob", "Pod"];
    let found = resources.iter().filter_map(|resource| {
        let kind = kinds.iter().find(|kind| resource["kind"] == **kind)?;
        Some((name(resource), resource.pointer(template(kind))?))
    });
    found.collect()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    items(&pod["spec"]["initContainers"]).chain(items(&pod["spec"]["containers"]))
}

fn name(resource: &Value) -> String {
    format!("{} {}", text(&resource["kind"]), text(&resource["metadata"]["name"]))
}

/// Whether labels fit a selector with `matchLabels` and `matchExpressions`.
fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = |(key, value): (&String, &Value)| labels[key] == *value;
    let fits = |expression: &Value| {
        let listed = items(&expression["values"]).any(|value| *value == labels[text(&expression["key"])]);
        match text(&expression["operator"]) {
            "In" => listed,
            "NotIn" => !listed,
            other => panic!("{other}"),
        }
    };
    selector["matchLabels"].as_object().into_iter().flatten().all(equal)
        && items(&selector["matchExpressions"]).all(fits)
}

/// Bytes, or thousandths of a CPU.
fn quantity(value: &Value) -> f64 {
    let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let split = plain.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(plain.len());
    let (number, unit) = plain.split_at(split);
    let factor = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        other => panic!("{other}"),
    };
    number.parse::<f64>().expect("a number") * factor
}

/// The environment of the only container of a Deployment, with the ConfigMaps it names.
fn environment(resources: &[Value], deployment: &Value) -> BTreeMap<String, String> {
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let mut variables = BTreeMap::new();
    for source in items(&container["envFrom"]) {
        let map = &source["configMapRef"]["name"];
        let found = resources.iter().find(|of| of["kind"] == "ConfigMap" && of["metadata"]["name"] == *map);
        for (key, value) in found.and_then(|map| map["data"].as_object()).into_iter().flatten() {
            variables.insert(key.clone(), text(value).to_owned());
        }
    }
    for variable in items(&container["env"]) {
        variables.insert(text(&variable["name"]).to_owned(), text(&variable["value"]).to_owned());
    }
    variables
}

/// Calls `check` with each variant, and fails with all its complaints.
fn of_every_variant(check: impl Fn(&Rendered, &mut Vec<String>)) {
    let mut wrong = Vec::new();
    for variant in rendered() {
        let mut found = Vec::new();
        check(variant, &mut found);
        wrong.extend(found.into_iter().map(|complaint| format!("{}: {complaint}", variant.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn both_majors_lint_every_variant_and_render_the_same() {
    for file in variants() {
        let mut all = Vec::new();
        for helm in helms() {
            let linted = helm.run(&["lint", "--strict"], &[&file]);
            assert!(linted.is_ok(), "{}: {linted:?}", helm.version);
            let mut rendered = resources(&helm.template(&[&file]).unwrap_or_else(|error| panic!("{error}")));
            rendered.sort_by_key(name);
            all.push(rendered);
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{}", file.display());
    }
}

#[test]
fn names_are_unique_and_selectors_select_pods() {
    of_every_variant(|variant, wrong| {
        let pods = pods(&variant.resources);
        let mut names = BTreeSet::new();
        for resource in &variant.resources {
            if !names.insert(name(resource)) {
                wrong.push(format!("{} occurs twice", name(resource)));
            }
            let plain = text(&resource["metadata"]["name"]);
            if plain.len() > 63 || !plain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                wrong.push(format!("{plain} is not a DNS label"));
            }
            let spec = &resource["spec"];
            let selector = match text(&resource["kind"]) {
                "Deployment" | "PodDisruptionBudget" | "PodMonitor" => spec["selector"].clone(),
                "Service" => json!({ "matchLabels": spec["selector"] }),
                // A release installs no broker.
                "NetworkPolicy" if !plain.ends_with("-broker") => spec["podSelector"].clone(),
                _ => continue,
            };
            if !pods.iter().any(|(_, pod)| selects(&selector, &pod["metadata"]["labels"])) {
                wrong.push(format!("{} selects no pod", name(resource)));
            }
        }
        for deployment in variant.resources.iter().filter(is_kind("Deployment")) {
            let selector = &deployment["spec"]["selector"];
            let selected = pods.iter().filter(|(_, pod)| selects(selector, &pod["metadata"]["labels"]));
            if selected.count() != 1 {
                wrong.push(format!("{} does not select its own pods alone", name(deployment)));
            }
        }
    });
}

#[test]
fn every_process_runs_as_its_own_user() {
    of_every_variant(|variant, wrong| {
        let namespace = if variant.name == "namespace-values" { "eu." } else { "" };
        let deployed: Vec<&Value> = variant.resources.iter().filter(is_kind("Deployment")).collect();
        let absent = match variant.name.as_str() {
            "namespace-values" => vec!["merger"],
            "external-secrets-values" => vec!["gateway"],
            _ => vec![],
        };
        for Process { name: role, .. } in process::ALL.iter().filter(|process| !absent.contains(&process.name)) {
            let found = deployed.iter().find(|of| text(&of["metadata"]["name"]).ends_with(&format!("-{role}")));
            let Some(deployment) = found else {
                wrong.push(format!("{role} is missing"));
                continue;
            };
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            let variables = environment(&variant.resources, deployment);
            let url = &variables["WILDRYDES__BROKER__URL"];
            let user = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).expect("a user").0;
            let renamed = namespace == "eu." && *role == "scorer";
            let expected = if renamed { "eu-scorer".to_owned() } else { format!("{namespace}{role}") };
            if container["command"] != json!([role]) || user != expected {
                wrong.push(format!("{role}: {url}, {}", container["command"]));
            }
            if variables["WILDRYDES__BROKER__DECLARE"] != "never" {
                wrong.push(format!("{role} may declare queues"));
            }
        }
        if deployed.len() != process::ALL.len() - absent.len() {
            wrong.push(format!("{} Deployments", deployed.len()));
        }
    });
}

#[test]
fn every_variable_is_a_setting() {
    let settings = json_output(wildrydes().args(["config", "reference"]));
    let known: BTreeSet<String> =
        items(&settings).map(|of| format!("{}.{}", text(&of["section"]), text(&of["key"]))).collect();
    of_every_variant(|variant, wrong| {
        for (owner, pod) in pods(&variant.resources) {
            let maps = variant.resources.iter().filter(is_kind("ConfigMap"));
            let shared = maps.flat_map(|map| map["data"].as_object().into_iter().flatten().map(|(key, _)| key.clone()));
            let own =
                containers(pod).flat_map(|container| items(&container["env"])).map(|of| text(&of["name"]).to_owned());
            for variable in shared.chain(own) {
                let Some(path) = variable.strip_prefix("WILDRYDES__") else { continue };
                let path = path.to_lowercase().replacen("__", ".", 1);
                let of_service = path.strip_prefix("store.").is_some_and(|key| STORE_SETTINGS.contains(&key));
                if !known.contains(&path) && !of_service {
                    wrong.push(format!("{owner}: {variable} is no setting"));
                }
            }
        }
    });
}

#[test]
fn pods_are_restricted() {
    of_every_variant(|variant, wrong| {
        for (owner, pod) in pods(&variant.resources) {
            let spec = &pod["spec"];
            let security = &spec["securityContext"];
            let expected = security["runAsNonRoot"] == true
                && security["runAsUser"].as_i64().is_some_and(|user| user > 0)
                && security["seccompProfile"]["type"] == "RuntimeDefault"
                && spec["automountServiceAccountToken"] == false;
            if !expected {
                wrong.push(format!("{owner}: {spec}"));
            }
            for container in containers(pod) {
                let own = &container["securityContext"];
                let confined = own["allowPrivilegeEscalation"] == false
                    && own["readOnlyRootFilesystem"] == true
                    && own["capabilities"] == json!({ "drop": ["ALL"] });
                let mounts_tmp = items(&container["volumeMounts"]).any(|mount| mount["mountPath"] == "/tmp");
                if !confined || !mounts_tmp {
                    wrong.push(format!("{owner}: {own}"));
                }
                for mount in items(&container["volumeMounts"]) {
                    if !items(&spec["volumes"]).any(|volume| volume["name"] == mount["name"]) {
                        wrong.push(format!("{owner}: no volume {mount}"));
                    }
                }
            }
            for volume in items(&spec["volumes"]) {
                let kinds = volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
                for kind in kinds.filter(|kind| *kind != "name" && !VOLUMES.contains(kind)) {
                    wrong.push(format!("{owner}: a volume of kind {kind}"));
                }
            }
        }
    });
}

#[test]
fn requests_stay_below_limits_and_memory_is_limited() {
    of_every_variant(|variant, wrong| {
        for (owner, pod) in pods(&variant.resources) {
            for container in containers(pod) {
                let resources = &container["resources"];
                let (requests, limits) = (&resources["requests"], &resources["limits"]);
                for (resource, limit) in limits.as_object().into_iter().flatten() {
                    if !requests[resource].is_null() && quantity(&requests[resource]) > quantity(limit) {
                        wrong.push(format!("{owner}: {resources}"));
                    }
                }
                if limits["memory"].is_null() || requests["cpu"].is_null() || !limits["cpu"].is_null() {
                    wrong.push(format!("{owner}: {resources}"));
                }
            }
        }
    });
}

#[test]
fn probes_and_services_use_ports_that_exist() {
    of_every_variant(|variant, wrong| {
        let pods = pods(&variant.resources);
        for (owner, pod) in &pods {
            for container in containers(pod) {
                let ports: Vec<&str> = items(&container["ports"]).map(|port| text(&port["name"])).collect();
                for probe in ["livenessProbe", "readinessProbe"] {
                    let port = &container[probe]["httpGet"]["port"];
                    if port.as_str().is_some_and(|port| !ports.contains(&port)) {
                        wrong.push(format!("{owner}: {probe} at {port}"));
                    }
                }
            }
        }
        for service in variant.resources.iter().filter(is_kind("Service")) {
            let selector = json!({ "matchLabels": service["spec"]["selector"] });
            for port in items(&service["spec"]["ports"]) {
                let serves = |pod: &Value| {
                    let all = containers(pod).flat_map(|container| items(&container["ports"]));
                    all.into_iter().any(|own| own["name"] == port["targetPort"])
                };
                if !pods.iter().any(|(_, pod)| selects(&selector, &pod["metadata"]["labels"]) && serves(pod)) {
                    wrong.push(format!("{}: no container has {port}", name(service)));
                }
            }
        }
    });
}

/// A process is killed only after its drain deadline.
#[test]
fn the_grace_period_is_longer_than_the_drain_deadline() {
    of_every_variant(|variant, wrong| {
        for deployment in variant.resources.iter().filter(is_kind("Deployment")) {
            let variables = environment(&variant.resources, deployment);
            let drain: i64 = variables["WILDRYDES__RUN__DRAIN_DEADLINE_MS"].parse().expect("milliseconds");
            let spec = &deployment["spec"]["template"]["spec"];
            let pause = &spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1];
            let pause: i64 = pause.as_str().map_or(0, |seconds| seconds.parse().expect("seconds"));
            let grace = spec["terminationGracePeriodSeconds"].as_i64().expect("seconds");
            let is_trainer = text(&deployment["metadata"]["name"]).ends_with("-trainer");
            if (grace - pause) * 1_000 < drain + 5_000 || (is_trainer && drain < 300_000) {
                wrong.push(format!("{}: {grace} s, drain {drain} ms, pause {pause} s", name(deployment)));
            }
        }
    });
}

#[test]
fn one_owner_decides_the_number_of_replicas() {
    of_every_variant(|variant, wrong| {
        let scalers: Vec<&Value> = variant
            .resources
            .iter()
            .filter(|of| ["ScaledObject", "HorizontalPodAutoscaler"].iter().any(|kind| of["kind"] == *kind))
            .collect();
        for deployment in variant.resources.iter().filter(is_kind("Deployment")) {
            let own = &deployment["metadata"]["name"];
            let owners = scalers.iter().filter(|of| of["spec"]["scaleTargetRef"]["name"] == *own).count();
            let has_replicas = !deployment["spec"]["replicas"].is_null();
            if owners + usize::from(has_replicas) != 1 {
                wrong.push(format!("{}: {owners} scalers, replicas {has_replicas}", name(deployment)));
            }
        }
        for scaler in &scalers {
            let target = &scaler["spec"]["scaleTargetRef"]["name"];
            let exists =
                variant.resources.iter().filter(is_kind("Deployment")).any(|of| of["metadata"]["name"] == *target);
            let behavior = scaler
                .pointer("/spec/behavior")
                .or(scaler.pointer("/spec/advanced/horizontalPodAutoscalerConfig/behavior"));
            if !exists || behavior.is_none_or(|behavior| behavior["scaleDown"].is_null()) {
                wrong.push(format!("{} scales {target}: {behavior:?}", name(scaler)));
            }
        }
    });
}

/// Every work queue scales the process that reads it, and unacknowledged messages count.
#[test]
fn every_work_queue_scales_its_process() {
    let longest = RETRY_DELAYS_MS.iter().max().expect("delays") / 1_000;
    of_every_variant(|variant, wrong| {
        let scalers: Vec<&Value> = variant.resources.iter().filter(is_kind("ScaledObject")).collect();
        if scalers.is_empty() {
            return;
        }
        let namespace = if variant.name == "namespace-values" { "eu." } else { "" };
        let topology = Topology::of_fleet(namespace);
        for process in process::ALL.iter().filter(|process| PROCESSES.contains(&process.name)) {
            let Some(scaler) =
                scalers.iter().find(|of| text(&of["metadata"]["name"]).ends_with(&format!("-{}", process.name)))
            else {
                if !(variant.name == "namespace-values" && process.name == "merger") {
                    wrong.push(format!("nothing scales {}", process.name));
                }
                continue;
            };
            let spec = &scaler["spec"];
            let triggers: Vec<&Value> = items(&spec["triggers"]).collect();
            let queues: BTreeSet<&str> =
                triggers.iter().map(|trigger| text(&trigger["metadata"]["queueName"])).collect();
            let expected: Vec<String> = process.queues.iter().map(|queue| format!("{namespace}{queue}")).collect();
            if !queues.iter().eq(expected.iter().collect::<BTreeSet<_>>().iter()) {
                wrong.push(format!("{}: {queues:?}", process.name));
            }
            for trigger in triggers {
                let metadata = trigger["metadata"].as_object().expect("metadata");
                let unknown: Vec<_> = metadata.keys().filter(|key| !TRIGGER_KEYS.contains(&key.as_str())).collect();
                let counts = trigger["type"] == "rabbitmq"
                    && metadata["protocol"] == "http"
                    && metadata["mode"] == "QueueLength";
                let is_text = metadata.values().all(Value::is_string);
                let authenticated = variant.resources.iter().any(|of| {
                    of["kind"] == "TriggerAuthentication"
                        && of["metadata"]["name"] == trigger["authenticationRef"]["name"]
                });
                if !unknown.is_empty() || !counts || !is_text || !authenticated {
                    wrong.push(format!("{}: {trigger}", process.name));
                }
                if topology.queue(text(&trigger["metadata"]["queueName"])).is_none() {
                    wrong.push(format!("{}: no queue {}", process.name, trigger["metadata"]["queueName"]));
                }
                if text(&metadata["host"]).contains('@') || !text(&metadata["host"]).contains('%') {
                    wrong.push(format!("{}: host {}", process.name, metadata["host"]));
                }
            }
            let minimum = spec["minReplicaCount"].as_u64().expect("a minimum");
            let answers = process.queues.iter().any(|queue| common::topology::holds_requests(queue));
            let cooldown = spec["cooldownPeriod"].as_u64().expect("seconds");
            if (answers && minimum == 0) || (!answers && minimum != 0) || cooldown <= longest {
                wrong.push(format!("{}: at least {minimum}, cooldown {cooldown} s", process.name));
            }
        }
    });
}

/// Without the passwords of the scaler KEDA cannot ask; in the URI a password with special characters would break.
#[test]
fn user_and_password_of_the_scaler_are_separate() {
    of_every_variant(|variant, wrong| {
        for authentication in variant.resources.iter().filter(is_kind("TriggerAuthentication")) {
            let parameters: Vec<&str> =
                items(&authentication["spec"]["secretTargetRef"]).map(|of| text(&of["parameter"])).collect();
            if !["username", "password"].iter().all(|parameter| parameters.contains(parameter)) {
                wrong.push(format!("{parameters:?}"));
            }
        }
    });
}

#[test]
fn everything_is_denied_but_what_is_needed() {
    of_every_variant(|variant, wrong| {
        let policies: Vec<&Value> = variant.resources.iter().filter(is_kind("NetworkPolicy")).collect();
        if policies.is_empty() {
            return;
        }
        let port_of =
            |url: &str| url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()?.parse::<u64>().ok());
        for (owner, pod) in pods(&variant.resources) {
            let labels = &pod["metadata"]["labels"];
            let own: Vec<&&Value> = policies.iter().filter(|of| selects(&of["spec"]["podSelector"], labels)).collect();
            let covers =
                |direction: &str| own.iter().any(|of| items(&of["spec"]["policyTypes"]).any(|of| of == direction));
            if !covers("Ingress") || !covers("Egress") {
                wrong.push(format!("{owner} is not denied anything"));
            }
            let to: BTreeSet<u64> = own
                .iter()
                .flat_map(|policy| items(&policy["spec"]["egress"]))
                .flat_map(|rule| items(&rule["ports"]))
                .filter_map(|port| port["port"].as_u64())
                .collect();
            let broker = containers(pod)
                .flat_map(|container| items(&container["env"]))
                .find(|variable| variable["name"] == "WILDRYDES__BROKER__URL")
                .and_then(|variable| port_of(text(&variable["value"])))
                .expect("a broker");
            let asks = !items(&json!(["gateway", "hooks", "maintenance", "test"]))
                .all(|component| *component != labels["app.kubernetes.io/component"]);
            let management = to.contains(&15672) || to.contains(&15671);
            if !to.contains(&broker) || management != asks {
                wrong.push(format!("{owner} reaches {to:?}"));
            }
        }
    });
}

/// Workers declare nothing, and a scaler fails on a queue that does not exist.
#[test]
fn the_topology_precedes_the_workers() {
    of_every_variant(|variant, wrong| {
        let hook = variant
            .resources
            .iter()
            .find(|of| of["kind"] == "Job" && text(&of["metadata"]["name"]).ends_with("-topology"));
        let Some(job) = hook else { return wrong.push("no Job declares the topology".to_owned()) };
        let commands: Vec<String> = containers(&job["spec"]["template"]).map(|of| of["command"].to_string()).collect();
        if job["metadata"]["annotations"]["helm.sh/hook"] != "pre-install,pre-upgrade"
            || commands != [r#"["wildrydes","topology","apply"]"#, r#"["wildrydes","doctor","--only","store"]"#]
        {
            wrong.push(format!("{commands:?}"));
        }
        // A hook runs before the chart's other resources exist.
        for hook in variant.resources.iter().filter(|of| of["kind"] == "Job") {
            for container in containers(&hook["spec"]["template"]) {
                if items(&container["envFrom"]).any(|source| !source["configMapRef"].is_null()) {
                    wrong.push(format!("{} reads a ConfigMap", name(hook)));
                }
            }
        }
    });
}

#[test]
fn a_changed_setting_restarts_the_pods() {
    of_every_variant(|variant, wrong| {
        for deployment in variant.resources.iter().filter(is_kind("Deployment")) {
            let checksum = &deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"];
            if checksum.as_str().is_none_or(|checksum| checksum.len() != 64) {
                wrong.push(name(deployment));
            }
        }
    });
}

/// Rules and dashboards are those of `deploy/`, read through links.
#[test]
fn rules_and_dashboards_are_those_of_the_fleet() {
    for (link, folder) in [("rules", "prometheus/rules"), ("dashboards", "grafana/dashboards")] {
        let original = super::project().join("deploy").join(folder);
        let linked = chart().join("files").join(link);
        if original.exists() {
            let expected = fs::canonicalize(original).expect("a path");
            assert_eq!(fs::canonicalize(&linked).ok(), Some(expected), "{} is no link to it", linked.display());
        }
    }
}

#[test]
fn the_chart_has_the_version_of_the_fleet() {
    let text = fs::read_to_string(chart().join("Chart.yaml")).expect("the chart");
    let of = &resources(&text)[0];
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((&of["version"], &of["appVersion"]), (&json!(version), &json!(version)));
}
