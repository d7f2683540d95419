//! Generates `schemas/asyncapi.yaml` from the topology, the permissions and the schemas, and compares it with the file.

use super::project;
use common::{
    message::{KINDS, Kind, ROUTES, Route},
    permissions::{Permissions, TopicPermissions, UserPermissions},
    schema::Schema,
    topology::{
        Argument, Binding, Exchange, RETRY_DELAYS_MS, Subscription, Topology, dead_queue, queue, retry_delays_of,
        retry_queue, topic_matches,
    },
};
use regex::Regex;
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::{Value, json};
use std::{collections::BTreeSet, env, fs};

const FILE: &str = "schemas/asyncapi.yaml";
/// Environment variable that makes the test rewrite the file.
const UPDATE: &str = "UPDATE_SCHEMAS";

/// The beginning of the document.
const HEAD: &str = "\
# The fleet's exchanges, queues and messages, without a namespace. Generated from the topology: see README.md.
#
# AsyncAPI cannot express bindings between exchanges and queues, nor the arguments of queues: `x-bindings` lists the
# bindings of a queue, `x-arguments` its arguments, `x-worker` the worker of an operation, `x-users` the users that are
# allowed to perform it.
asyncapi: 3.0.0
info:
  title: Wild Rydes fleet
  version: 1.0.0
  license:
    name: Apache-2.0
  description: |
    From rides to a probability. Publish `ride-batch.v1` to the exchange `ingest`; `dataset-ready.v1` and
    `model-promoted.v1` on `events` announce the results. Send `score-request.v1` to `rpc` with `reply_to`,
    `correlation_id` and `expiration`, and read `score-response.v1` from your own queue; `weather-request.v1` is answered
    with `weather-response.v1` in the same way.

    Routing key and AMQP `type` of every message are its name and major version. Publish persistent, mandatory and with
    publisher confirms: only a confirmed batch counts as submitted.
defaultContentType: application/json

servers:
  local:
    host: localhost:5672
    protocol: amqp
    protocolVersion: 0.9.1
    description: RabbitMQ 3.10 or later.

channels:
";

/// The description of each retry queue.
const RETRY: &str = "A retry queue, in which a message waits before its next attempt.";
/// What the topology does not say about a channel.
const DESCRIPTIONS: [(&str, &str); 16] = [
    ("ingest", "Batches of publishers. Accepts any routing key. The splitter also reads raw documents, see README.md."),
    ("work", "Work between the stages."),
    ("events", "Events. Bind your own queue to follow them."),
    ("rpc", "Requests for scores and for weather."),
    ("retry", "Messages on their way to a retry queue and back. For the fleet itself."),
    ("dead", "Dead letters on their way to `<queue>.dead`. For the fleet itself."),
    (
        "reply",
        "The queue that a request names in `reply_to`, reached through the default exchange. It is \
         `amq.rabbitmq.reply-to` (direct reply-to), or a queue declared with an empty name (`amq.gen-…`); a request with \
         any other becomes a dead letter.",
    ),
    (
        "scorer",
        "Requests live for seconds. One without `expiration` waits at most a minute; an expired request does not become a \
         dead letter.",
    ),
    (
        "weather-lookup",
        "Read by the weather-fetcher beside its work, so that a request never waits behind a batch. Requests expire as \
         the scorer's do.",
    ),
    ("model-promoted-subscription", "A temporary queue, one per scorer, named by the broker."),
    ("worker-control-subscription", "A temporary queue, one per process of any worker, named by the broker."),
    ("retry-0", RETRY),
    ("retry-1", RETRY),
    ("retry-2", RETRY),
    ("retry-3", RETRY),
    ("dead-letters", "Dead letters, unchanged, with the reason in the headers `x-reason` and `x-why`."),
];

/// The end of the document, before the messages.
const COMPONENTS: &str = "
components:
  messageTraits:
    common:
      contentType: application/json
      headers:
        type: object
        properties:
          traceparent:
            type: string
            description: W3C Trace Context, carried from message to message.
          x-attempt:
            type: integer
            minimum: 1
            description: Number of the attempt; absent means the first.

  messages:
";

/// The kinds whose messages a pattern of an exchange matches.
fn matching(exchange: &str, pattern: &str) -> Vec<Kind> {
    let matches = |route: &&Route| route.exchange == exchange && topic_matches(pattern, &route.kind.to_string());
    let mut kinds: Vec<Kind> = ROUTES.iter().filter(matches).map(|route| route.kind).collect();
    // A message may have several senders.
    let mut seen = BTreeSet::new();
    kinds.retain(|kind| seen.insert(*kind));
    kinds
}

/// A text as a YAML scalar on one line.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_alphanumeric()) && !text.contains(": ") && !text.contains(" #");
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

/// Describes a channel in one line, if there is something to say about it.
fn description(channel: &str) -> String {
    let known = DESCRIPTIONS.iter().find(|(of, _)| *of == channel);
    known.map_or(String::new(), |(_, text)| format!("    description: {}\n", scalar(text)))
}

/// Lists the messages of a channel.
fn messages(kinds: &[Kind]) -> String {
    let message = |kind: &Kind| format!("      {0}: {{ $ref: '#/components/messages/{0}' }}\n", kind.name);
    let head = if kinds.is_empty() { "" } else { "    messages:\n" };
    format!("{head}{}", kinds.iter().map(message).collect::<String>())
}

/// The channel of an exchange.
fn exchange(exchange: &Exchange) -> String {
    let name = &exchange.name;
    let (parameter, meaning) = match name.as_str() {
        "retry" => ("queue", "Name of a retry queue or of a work queue."),
        "dead" => ("queue", "Name of a work queue."),
        _ => ("kind", "Name and major version of the message, such as `ride-batch.v1`."),
    };
    let (about, carried) = (description(name), messages(&matching(name, "#")));
    let kind = json!(exchange.kind);
    format!(
        "  {name}:
    address: '{{{parameter}}}'
{about}    parameters:
      {parameter}: {{ description: '{meaning}' }}
{carried}    bindings:
      amqp: {{ is: routingKey, exchange: {{ name: {name}, type: {kind}, durable: true, autoDelete: false }} }}
"
    )
}

/// The channel of a durable queue that belongs to the work queue `of`. A channel for one such queue of each of several work
/// queues, `all`, has the parameter `queue` instead of the name.
fn queue_channel(topology: &Topology, channel: &str, name: &str, of: &str, all: &[&str]) -> String {
    let general = |text: &str| scalar(&if all.is_empty() { text.to_owned() } else { text.replace(of, "{queue}") });
    let bound: Vec<&Binding> = topology.bindings.iter().filter(|binding| binding.queue == name).collect();
    let kinds: Vec<Kind> = bound.iter().flat_map(|b| matching(&b.exchange, &b.routing_key)).collect();
    let bindings: String = bound
        .iter()
        .map(|b| format!("      - {{ exchange: {}, routingKey: {} }}\n", b.exchange, general(&b.routing_key)))
        .collect();
    let arguments: String =
        topology.queue(name).expect("a queue").arguments.iter().fold(String::new(), |all, argument| {
            let value = match argument.1 {
                Argument::Integer(value) => value.to_string(),
                Argument::Text(text) => general(text),
            };
            format!("{all}      {}: {value}\n", argument.0)
        });
    let parameters = match all {
        [] => String::new(),
        all => {
            format!("    parameters:\n      queue: {{ description: The work queue., enum: [{}] }}\n", all.join(", "))
        }
    };
    let (about, carried, name) = (description(channel), messages(&kinds), general(name));
    format!(
        "  {channel}:
    address: {name}
{about}{parameters}{carried}    bindings:
      amqp: {{ is: queue, queue: {{ name: {name}, durable: true, exclusive: false, autoDelete: false }} }}
    x-bindings:
{bindings}    x-arguments:
{arguments}"
    )
}

/// The channel of the temporary queues that are bound to an exchange with one pattern.
fn subscription(exchange: &str, pattern: &str) -> String {
    let kinds = matching(exchange, pattern);
    let channel = subscribed(kinds[0]);
    let (about, carried) = (description(&channel), messages(&kinds));
    format!(
        "  {channel}:
    address: null
{about}{carried}    bindings:
      amqp: {{ is: queue, queue: {{ durable: false, exclusive: true, autoDelete: true }} }}
    x-bindings:
      - {{ exchange: {exchange}, routingKey: '{pattern}' }}
"
    )
}

/// The name of the channel of the temporary queues for events of this kind.
fn subscribed(kind: Kind) -> String {
    format!("{}-subscription", kind.name)
}

/// All channels.
fn channels(topology: &Topology) -> String {
    let mut channels: Vec<String> = topology.exchanges.iter().map(exchange).collect();
    let answers = messages(&matching("", "#"));
    channels.push(format!("  reply:\n    address: null\n{}{answers}", description("reply")));
    channels.extend(queue::ALL.map(|name| queue_channel(topology, name, name, name, &[])));
    let events: BTreeSet<_> = topology.subscriptions.iter().map(|s| (&s.exchange, &s.routing_key)).collect();
    channels.extend(events.into_iter().map(|(exchange, pattern)| subscription(exchange, pattern)));
    // One channel stands for the queues of several work queues: they must not differ in anything but the name.
    let mut of_each = |channel: &str, all: &[&str], name: &dyn Fn(&str) -> String| {
        let alike: BTreeSet<String> =
            all.iter().map(|of| queue_channel(topology, channel, &name(of), of, all)).collect();
        assert_eq!(alike.len(), 1, "the queues of {channel} differ: {alike:#?}");
        channels.extend(alike);
    };
    for index in 0..RETRY_DELAYS_MS.len() {
        let all: Vec<&str> = queue::ALL.into_iter().filter(|of| retry_delays_of(of).len() > index).collect();
        of_each(&format!("retry-{index}"), &all, &|of| retry_queue(of, index));
    }
    of_each("dead-letters", &queue::ALL, &dead_queue);
    channels.concat()
}

/// The users that have the permission to do something.
fn users(permissions: &Permissions, may: impl Fn(&UserPermissions) -> bool) -> String {
    let users = permissions.users.iter().filter(|user| may(user)).map(|user| user.role);
    users.collect::<Vec<_>>().join(", ")
}

/// Returns whether a user may use this routing key at an exchange; `of` is what it may write or read there.
fn may_use(user: &UserPermissions, exchange: &str, key: &str, of: fn(&TopicPermissions) -> &String) -> bool {
    let restriction = user.topics.iter().find(|topic| topic.exchange == exchange);
    restriction.is_none_or(|topic| is_match(of(topic), key))
}

fn is_match(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).expect("a pattern").is_match(text)
}

/// One operation: a worker or a client sends or receives the messages of a kind.
fn operation(by: &str, action: &str, kind: Kind, channel: &str, users: &str, binding: &str) -> String {
    let reply = match (action, kind.is_request()) {
        ("receive", true) => format!(
            "    reply:
      channel: {{ $ref: '#/channels/reply' }}
      address:
        location: '$message.header#/reply_to'
        description: The AMQP property `reply_to` of the request; the answer repeats its `correlation_id`.
      messages: [{{ $ref: '#/channels/reply/messages/{}' }}]
",
            kind.name.replace("-request", "-response")
        ),
        _ => String::new(),
    };
    let name = kind.name;
    format!(
        "  {by}-{action}s-{name}:
    action: {action}
    x-worker: {by}
    x-users: [{users}]
    channel: {{ $ref: '#/channels/{channel}' }}
    messages: [{{ $ref: '#/channels/{channel}/messages/{name}' }}]
{reply}    bindings:
      amqp: {binding}
"
    )
}

/// All operations: what each worker and client sends, then what each receives.
fn operations(topology: &Topology) -> String {
    let permissions = Permissions::of_fleet("");
    let sends = ROUTES.iter().filter(|route| !route.exchange.is_empty()).map(|route| {
        let Route { kind, sender, exchange, readers } = route;
        let may_write = |user: &UserPermissions| {
            is_match(&user.write, exchange) && may_use(user, exchange, &kind.to_string(), |topic| &topic.write)
        };
        let mode = if kind.is_request() { 1 } else { 2 };
        let binding = format!("{{ deliveryMode: {mode}, mandatory: {} }}", !readers.is_empty());
        operation(sender, "send", *kind, exchange, &users(&permissions, may_write), &binding)
    });
    let receives = queue::ALL.into_iter().flat_map(|queue| {
        let bound = topology.bindings.iter().filter(move |binding| binding.queue == queue);
        let kinds = bound.flat_map(|binding| matching(&binding.exchange, &binding.routing_key));
        let users = users(&permissions, |user| is_match(&user.read, queue));
        kinds.map(move |kind| operation(queue, "receive", kind, queue, &users, "{ ack: true }"))
    });
    let subscribes = topology.subscriptions.iter().map(|subscription| {
        let Subscription { worker, exchange, routing_key } = subscription;
        let may_bind = |user: &UserPermissions| {
            is_match(&user.read, exchange) && may_use(user, exchange, routing_key, |topic| &topic.read)
        };
        let kind = matching(exchange, routing_key)[0];
        operation(worker, "receive", kind, &subscribed(kind), &users(&permissions, may_bind), "{ ack: true }")
    });
    sends.chain(receives).chain(subscribes).collect()
}

/// The description of a kind of message.
fn message(kind: Kind) -> String {
    let wire = kind.to_string();
    let schema = Schema::named(&wire).expect("a schema");
    let title = serde_json::from_str::<Value>(schema.text).expect("JSON")["title"].clone();
    let (name, title, summary) = (kind.name, scalar(title.as_str().expect("a title")), scalar(&schema.summary()));
    let correlation = match name.rsplit_once('-') {
        Some((_, "request")) => Some("The AMQP property; the answer repeats it."),
        Some((_, "response")) => Some("That of the request."),
        _ => None,
    };
    let correlation = correlation.map_or(String::new(), |meaning| {
        format!(
            "      correlationId:
        location: '$message.header#/correlation_id'
        description: {meaning}
"
        )
    });
    format!(
        "    {name}:
      name: {wire}
      title: {title}
      summary: {summary}
{correlation}      traits: [{{ $ref: '#/components/messageTraits/common' }}]
      bindings:
        amqp: {{ messageType: {wire} }}
      payload: {{ schemaFormat: application/schema+json;version=draft-2020-12, schema: {{ $ref: {wire}.json }} }}
"
    )
}

fn document() -> String {
    let topology = Topology::of_fleet("");
    let messages: String = KINDS.iter().copied().map(message).collect();
    format!("{HEAD}{}\noperations:\n{}{COMPONENTS}{messages}", channels(&topology), operations(&topology))
}

#[test]
fn asyncapi_is_generated_from_the_topology_the_permissions_and_the_schemas() {
    let text = fs::read_to_string(project().join(FILE)).unwrap_or_default();
    let generated = document();
    if text != generated {
        assert!(env::var_os(UPDATE).is_some(), "{FILE} is not generated from the code; {UPDATE}=1 rewrites it");
        fs::write(project().join(FILE), generated).expect("the file");
    }
}

#[test]
fn asyncapi_is_yaml_and_every_reference_has_a_target() {
    fn references<'a>(node: &'a Yaml<'a>, targets: &mut Vec<&'a str>) {
        for (key, value) in node.as_mapping().into_iter().flatten() {
            match value.as_str() {
                Some(target) if key.as_str() == Some("$ref") => targets.push(target),
                _ => references(value, targets),
            }
        }
        node.as_sequence().into_iter().flatten().for_each(|element| references(element, targets));
    }
    let text = document();
    let documents = Yaml::load_from_str(&text).expect("YAML");
    let mut targets = Vec::new();
    references(&documents[0], &mut targets);
    assert!(targets.len() > 50, "{targets:?}");
    for target in targets {
        match target.strip_prefix("#/") {
            Some(path) => {
                let found = path.split('/').try_fold(&documents[0], |node, key| {
                    node.as_mapping()?.iter().find(|(other, _)| other.as_str() == Some(key)).map(|(_, value)| value)
                });
                assert!(found.is_some(), "{target}");
            }
            None => assert!(project().join("schemas").join(target).is_file(), "{target}"),
        }
    }
}
