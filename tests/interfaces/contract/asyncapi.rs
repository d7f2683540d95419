//! Checks that `schemas/asyncapi.yaml` describes exactly the topology and the message types.

use super::project;
use common::{
    message::{
        BatchSplit, DatasetReady, EnrichedChunk, KINDS, Message, ModelPromoted, ModelRejected, RideBatch, RideChunk,
        ScoreRequest, ScoreResponse, WeatherRequest, WeatherResponse, WorkerControl,
    },
    topology::{Topology, queue, topic_matches},
};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// A message's wire name, its exchange, and whether it is published as mandatory.
type Route = (String, &'static str, bool);

fn routes() -> Vec<Route> {
    fn of<M: Message>() -> Route {
        (M::KIND.to_string(), M::EXCHANGE, M::MANDATORY)
    }
    let routes = vec![
        of::<RideBatch>(),
        of::<RideChunk>(),
        of::<BatchSplit>(),
        of::<EnrichedChunk>(),
        of::<DatasetReady>(),
        of::<ModelPromoted>(),
        of::<ModelRejected>(),
        of::<WorkerControl>(),
        of::<ScoreRequest>(),
        of::<ScoreResponse>(),
        of::<WeatherRequest>(),
        of::<WeatherResponse>(),
    ];
    assert_eq!(routes.iter().map(|(kind, ..)| kind.clone()).collect::<Vec<_>>(), KINDS.map(|kind| kind.to_string()));
    routes
}

fn asyncapi() -> Value {
    fn to_json(yaml: &Yaml) -> Value {
        match yaml {
            Yaml::Value(Scalar::Null) => Value::Null,
            Yaml::Value(Scalar::Boolean(value)) => json!(value),
            Yaml::Value(Scalar::Integer(value)) => json!(value),
            Yaml::Value(Scalar::FloatingPoint(value)) => json!(value.into_inner()),
            Yaml::Value(Scalar::String(value)) => json!(value),
            Yaml::Sequence(elements) => elements.iter().map(to_json).collect(),
            Yaml::Mapping(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, value)| (key.as_str().expect("a text key").to_owned(), to_json(value)))
                    .collect(),
            ),
            other => panic!("asyncapi.yaml: {other:?} is beyond what it needs"),
        }
    }
    let text = fs::read_to_string(project().join("schemas/asyncapi.yaml")).expect("schemas/asyncapi.yaml");
    let documents = Yaml::load_from_str(&text).expect("YAML");
    assert_eq!(documents.len(), 1);
    to_json(&documents[0])
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("expected a text: {value}"))
}

/// The last part of `{ $ref: '#/channels/work' }`.
fn referred(reference: &Value) -> &str {
    text(&reference["$ref"]).rsplit('/').next().expect("a name")
}

fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    items.into_iter().collect()
}

/// The channels that are named queues, one for each value of the parameter in their address.
fn queues(document: &Value) -> Vec<Value> {
    let mut queues = Vec::new();
    for (_, channel) in members(&document["channels"]) {
        let bindings = &channel["bindings"]["amqp"];
        if bindings["is"] != "queue" || bindings["queue"]["name"].is_null() {
            continue;
        }
        match channel["parameters"].as_object() {
            None => queues.push(channel.clone()),
            Some(parameters) => {
                let (name, parameter) = parameters.iter().next().expect("a parameter");
                assert_eq!(parameters.len(), 1, "{channel}");
                let parameter = match parameter.get("$ref") {
                    Some(pointer) => document.pointer(&text(pointer)[1..]).expect("a parameter"),
                    None => parameter,
                };
                for value in elements(&parameter["enum"]) {
                    let expanded = channel.to_string().replace(&format!("{{{name}}}"), text(value));
                    queues.push(serde_json::from_str(&expanded).expect("JSON"));
                }
            }
        }
    }
    queues
}

#[test]
fn asyncapi_has_the_exchanges_queues_and_bindings_of_the_topology() {
    let document = asyncapi();
    let topology = Topology::of_fleet("");

    let described = members(&document["channels"]).map(|(_, channel)| &channel["bindings"]["amqp"]["exchange"]);
    let described = described.filter(|exchange| !exchange.is_null()).map(|exchange| {
        assert_eq!((&exchange["durable"], &exchange["autoDelete"]), (&json!(true), &json!(false)), "{exchange}");
        (text(&exchange["name"]).to_owned(), exchange["type"].clone().to_string())
    });
    let declared = topology.exchanges.iter().map(|e| (e.name.clone(), json!(e.kind).to_string()));
    assert_eq!(set(described), set(declared));

    let queues = queues(&document);
    let described: BTreeMap<String, Value> =
        queues.iter().map(|channel| (text(&channel["address"]).to_owned(), channel["x-arguments"].clone())).collect();
    assert_eq!(described.len(), queues.len(), "a queue stands there twice");
    let declared: BTreeMap<String, Value> =
        topology.queues.iter().map(|queue| (queue.name.clone(), json!(queue.arguments))).collect();
    assert_eq!(described, declared);
    for channel in &queues {
        let durable = json!({ "name": channel["address"], "durable": true, "exclusive": false, "autoDelete": false });
        assert_eq!(channel["bindings"]["amqp"]["queue"], durable);
    }

    let described = queues.iter().flat_map(|channel| {
        elements(&channel["x-bindings"]).map(|binding| {
            [&binding["exchange"], &binding["routingKey"], &channel["address"]].map(|part| text(part).to_owned())
        })
    });
    let declared = topology.bindings.iter().map(|b| [b.exchange.clone(), b.routing_key.clone(), b.queue.clone()]);
    assert_eq!(set(described), set(declared));
}

#[test]
fn temporary_queues_are_the_subscriptions_of_the_topology() {
    let document = asyncapi();
    let mut described = BTreeSet::new();
    for (_, operation) in members(&document["operations"]).filter(|(_, operation)| operation["action"] == "receive") {
        let channel = &document["channels"][referred(&operation["channel"])];
        let queue = &channel["bindings"]["amqp"]["queue"];
        if queue["exclusive"] == true {
            assert!(queue["name"].is_null() && queue["autoDelete"] == true && queue["durable"] == false, "{queue}");
            described.extend(elements(&channel["x-bindings"]).map(|binding| {
                [&operation["x-worker"], &binding["exchange"], &binding["routingKey"]].map(|part| text(part).to_owned())
            }));
        }
    }
    let topology = Topology::of_fleet("");
    let declared = topology.subscriptions.iter().map(|s| [s.worker.clone(), s.exchange.clone(), s.routing_key.clone()]);
    assert_eq!(described, set(declared));
}

#[test]
fn messages_are_the_kinds_with_their_schemas() {
    let document = asyncapi();
    let described = members(&document["components"]["messages"]).map(|(_, message)| {
        let name = text(&message["name"]).to_owned();
        assert_eq!(message["bindings"]["amqp"]["messageType"], json!(name));
        assert_eq!(message["payload"]["schema"]["$ref"], json!(format!("{name}.json")));
        assert_eq!(message["payload"]["schemaFormat"], "application/schema+json;version=draft-2020-12");
        name
    });
    assert_eq!(set(described), set(KINDS.map(|kind| kind.to_string())));
}

#[test]
fn channels_carry_what_the_topology_routes_to_them() {
    let document = asyncapi();
    let topology = Topology::of_fleet("");
    let carried = |channel: &str| {
        let messages = members(&document["channels"][channel]["messages"]);
        set(messages
            .map(|(_, message)| text(&document["components"]["messages"][referred(message)]["name"]).to_owned()))
    };
    for exchange in &topology.exchanges {
        let published = routes().into_iter().filter(|(_, to, _)| *to == exchange.name).map(|(kind, ..)| kind);
        assert_eq!(carried(&exchange.name), set(published), "exchange {}", exchange.name);
    }
    for queue in queue::ALL {
        let routed = routes().into_iter().filter(|(kind, exchange, _)| {
            let takes = |b: &&_| -> bool {
                let common::topology::Binding { exchange: from, routing_key, queue: to } = b;
                to == queue && from == exchange && topic_matches(routing_key, kind)
            };
            topology.bindings.iter().any(|binding| takes(&binding))
        });
        assert_eq!(carried(queue), set(routed.map(|(kind, ..)| kind)), "queue {queue}");
    }
}

#[test]
fn every_worker_reads_its_queue_and_every_message_has_one_sender() {
    let document = asyncapi();
    let operations = &document["operations"];
    for queue in queue::ALL {
        let readers: Vec<&Value> = members(operations)
            .map(|(_, operation)| operation)
            .filter(|operation| operation["action"] == "receive" && referred(&operation["channel"]) == queue)
            .collect();
        let [reader] = readers[..] else { panic!("{queue} has {} readers", readers.len()) };
        assert_eq!(reader["x-worker"], queue);
        let read = elements(&reader["messages"]).map(|message| text(&message["$ref"]).to_owned());
        let carried = members(&document["channels"][queue]["messages"]);
        assert_eq!(set(read), set(carried.map(|(name, _)| format!("#/channels/{queue}/messages/{name}"))));
    }
    for (kind, exchange, mandatory) in routes() {
        let name = kind.rsplit_once(".v").expect("a version").0;
        let sends = |operation: &Value| elements(&operation["messages"]).any(|message| referred(message) == name);
        let mut senders =
            members(operations).map(|(_, operation)| operation).filter(|o| o["action"] == "send" && sends(o));
        if exchange.is_empty() {
            assert_eq!(senders.next(), None, "{kind} is an answer");
            let answers = members(operations).filter(|(_, operation)| sends(&operation["reply"]));
            let expected = match name {
                "score-response" => "scorer-receives-score-request",
                _ => "weather-lookup-receives-weather-request",
            };
            assert_eq!(answers.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [expected]);
        } else {
            let sender = senders.next().unwrap_or_else(|| panic!("nobody sends {kind}"));
            assert_eq!(referred(&sender["channel"]), exchange, "{kind}");
            assert_eq!(sender["bindings"]["amqp"]["mandatory"], mandatory, "{kind}");
            assert_eq!(senders.next(), None, "{kind} has two senders");
        }
    }
}

#[test]
fn every_reference_has_a_target() {
    fn references(value: &Value, targets: &mut Vec<String>) {
        for (key, value) in members(value) {
            match value {
                Value::String(target) if key == "$ref" => targets.push(target.clone()),
                _ => references(value, targets),
            }
        }
        elements(value).for_each(|value| references(value, targets));
    }
    let document = asyncapi();
    let mut targets = Vec::new();
    references(&document, &mut targets);
    assert!(!targets.is_empty());
    for target in targets {
        match target.strip_prefix('#') {
            // A reference to a channel's message is resolved through the channel, where it is a reference itself.
            Some(pointer) => assert!(document.pointer(pointer).is_some(), "{target}"),
            None => assert!(project().join("schemas").join(&target).is_file(), "{target}"),
        }
    }
}
