//! `topology manifests`: the topology and its users as resources of RabbitMQ's messaging topology operator.

use crate::{
    arguments::Manifests,
    session::{Failed, Session},
};
use anyhow::anyhow;
use common::{
    permissions::{Permissions, UserPermissions},
    topology::{ExchangeKind, Queue, Topology},
};
use runtime::config::BrokerSettings;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const API: &str = "rabbitmq.com/v1beta1";

/// `topology manifests`: returns YAML, one document per resource, each in the form of JSON, which YAML includes.
pub(crate) fn manifests(session: &Session, options: &Manifests) -> Result<String, Failed> {
    let namespace = session.section::<BrokerSettings>()?.namespace;
    let virtual_host = session.broker()?.virtual_host()?;
    let resources = resources(&namespace, &virtual_host, options);
    let mut names = BTreeSet::new();
    let mut text = String::new();
    for resource in resources {
        let name = format!("{} {}", resource["kind"], resource["metadata"]["name"]);
        if !names.insert(name.clone()) {
            return Err(anyhow!("two resources are named {name}: choose another broker.namespace").into());
        }
        text += &format!("---\n{resource:#}\n");
    }
    Ok(text)
}

fn resources(namespace: &str, virtual_host: &str, options: &Manifests) -> Vec<Value> {
    let topology = Topology::of_fleet(namespace);
    let mut cluster = json!({ "name": options.cluster });
    if let Some(namespace) = &options.cluster_namespace {
        cluster["namespace"] = json!(namespace);
    }
    let resource = |kind: &str, name: String, spec: Value| {
        let mut spec = spec;
        spec["rabbitmqClusterReference"] = cluster.clone();
        json!({ "apiVersion": API, "kind": kind, "metadata": { "name": resource_name(&name) }, "spec": spec })
    };
    let mut resources = Vec::new();
    for exchange in &topology.exchanges {
        let kind = match exchange.kind {
            ExchangeKind::Direct => "direct",
            ExchangeKind::Topic => "topic",
        };
        let spec = json!({ "name": exchange.name, "type": kind, "durable": true, "vhost": virtual_host });
        resources.push(resource("Exchange", exchange.name.clone(), spec));
    }
    resources.extend(
        topology.queues.iter().map(|queue| resource("Queue", queue.name.clone(), of_queue(queue, virtual_host))),
    );
    for binding in &topology.bindings {
        let key = binding.routing_key.trim_end_matches(".#").replace('#', "all");
        let spec = json!({
            "source": binding.exchange, "destination": binding.queue, "destinationType": "queue",
            "routingKey": binding.routing_key, "vhost": virtual_host,
        });
        resources.push(resource("Binding", format!("{}-{key}-{}", binding.exchange, binding.queue), spec));
    }
    for user in &Permissions::of_fleet(namespace).users {
        resources
            .extend(of_user(user, virtual_host, &options.secrets).map(|(kind, name, spec)| resource(kind, name, spec)));
    }
    resources
}

fn of_queue(queue: &Queue, virtual_host: &str) -> Value {
    let mut arguments = json!(queue.arguments);
    // The operator sets the type itself.
    let kind = arguments.as_object_mut().and_then(|arguments| arguments.remove("x-queue-type"));
    json!({
        "name": queue.name, "type": kind, "durable": true, "arguments": arguments, "vhost": virtual_host,
        "deletionPolicy": "retain",
    })
}

/// Returns kind, name and specification of each resource of a user.
fn of_user<'a>(
    user: &'a UserPermissions,
    virtual_host: &'a str,
    secrets: &'a str,
) -> impl Iterator<Item = (&'static str, String, Value)> {
    let account =
        json!({ "tags": user.tags, "importCredentialsSecret": { "name": format!("{secrets}{}", user.role) } });
    let permissions = json!({
        "user": user.user, "vhost": virtual_host,
        "permissions": { "configure": user.configure, "write": user.write, "read": user.read },
    });
    let topics = user.topics.iter().map(move |topic| {
        let permissions = json!({ "exchange": topic.exchange, "write": topic.write, "read": topic.read });
        let spec = json!({ "user": user.user, "vhost": virtual_host, "permissions": permissions });
        ("TopicPermission", format!("{}-{}", user.user, topic.exchange), spec)
    });
    [("User", user.user.clone(), account), ("Permission", user.user.clone(), permissions)].into_iter().chain(topics)
}

/// Returns a name that Kubernetes allows: of a-z, 0-9, `.` and `-`, beginning and ending with a letter or digit.
fn resource_name(name: &str) -> String {
    let allowed = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || c == '.' => c,
        _ => '-',
    };
    name.chars().map(allowed).collect::<String>().trim_matches(['-', '.']).replace(".-", "-").replace("-.", "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_fleet(namespace: &str) -> Vec<Value> {
        let options = Manifests {
            cluster: "rabbitmq".to_owned(),
            cluster_namespace: Some("messaging".to_owned()),
            secrets: "fleet-".to_owned(),
        };
        resources(namespace, "/", &options)
    }

    #[test]
    fn every_queue_outlives_its_resource() {
        let all = of_fleet("eu.");
        let queues: Vec<&Value> = all.iter().filter(|resource| resource["kind"] == "Queue").collect();
        assert_eq!(queues.len(), Topology::of_fleet("").queues.len());
        for queue in queues {
            let spec = &queue["spec"];
            assert_eq!((&spec["deletionPolicy"], &spec["durable"]), (&json!("retain"), &json!(true)), "{queue}");
            assert!(spec["arguments"].get("x-queue-type").is_none() && spec["type"].is_string(), "{queue}");
        }
    }

    #[test]
    fn names_are_unique_and_allowed() {
        for namespace in ["", "eu.", "A_b-"] {
            let mut names = BTreeSet::new();
            for resource in of_fleet(namespace) {
                let name = resource["metadata"]["name"].as_str().unwrap().to_owned();
                assert!(
                    name.split('.').all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')),
                    "{name}"
                );
                assert!(names.insert((resource["kind"].to_string(), name.clone())), "{name} occurs twice");
            }
        }
    }

    #[test]
    fn users_take_their_passwords_from_secrets() {
        let all = of_fleet("eu.");
        let scorer = all.iter().find(|of| of["kind"] == "User" && of["metadata"]["name"] == "eu.scorer").unwrap();
        assert_eq!(scorer["spec"]["importCredentialsSecret"]["name"], "fleet-scorer");
        assert_eq!(scorer["spec"]["rabbitmqClusterReference"], json!({ "name": "rabbitmq", "namespace": "messaging" }));
        let permission = all.iter().find(|of| of["kind"] == "Permission" && of["spec"]["user"] == "eu.scorer").unwrap();
        assert_eq!(permission["spec"]["permissions"]["read"], r"^(amq\.gen-.*|eu\.events|eu\.scorer)$");
    }
}
