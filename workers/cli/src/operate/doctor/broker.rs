//! Checks the broker and its exchanges, queues and bindings.

use super::{
    findings::{Findings, Severity, several},
    permissions,
};
use crate::session::{Failed, Session};
use common::topology::{self, Argument, Binding, Queue, Role, Topology, dead_queue};
use gateway::management::{Answer, Management};
use jiff::Timestamp;
use runtime::{AmqpBroker, Broker, amqp::Presence, broker::Depth, config::BrokerSettings, host};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Maximum difference between two clocks in seconds.
pub(super) const SKEW_SECONDS_MAX: i64 = 30;

/// Runs the checks. Fails if the configuration is invalid.
pub(super) async fn examine(session: &Session, findings: &mut Findings) -> Result<(), Failed> {
    let settings = session.section::<BrokerSettings>()?;
    let broker = AmqpBroker::new(settings.clone());
    let topology = Topology::of_fleet(&settings.namespace);
    let depths = match broker.inspect().await {
        Ok(found) => {
            findings.ok("broker", format!("reached {}", broker.describe()));
            check_topology(&topology, found, findings)
        }
        Err(error) => {
            findings.broken(
                "broker",
                error.to_string(),
                "check that the broker runs, that broker.url is right (host, port, user, password, vhost), and that the broker is \
                 reachable from here",
            );
            BTreeMap::new()
        }
    };
    check_depths(&settings.namespace, &depths, findings);
    let management = Management::new(&session.section::<BrokerSettings>()?).map_err(Failed::Misused)?;
    let overview = management.get(&["overview"]).await;
    version(&overview, findings);
    match &overview {
        Ok(answer) => skew("broker clock", "the broker's machine", answer.date, findings),
        Err(why) => findings.not_checked("broker clock", why),
    }
    features(management.get(&["feature-flags"]).await, findings);
    let answers = (management.get(&["nodes"]).await, management.get(&["health", "checks", "alarms"]).await);
    alarms(answers, findings);
    match management.queues().await {
        Ok(queues) if !topology.queues.iter().any(|queue| named(&queues, &queue.name).is_some()) => {
            queues_not_checked("the broker has none of the fleet's queues", findings);
        }
        Ok(queues) => {
            arguments(&topology, &queues, findings);
            policies(&topology, &queues, findings);
            space(&topology, &queues, findings);
            unacknowledged(&topology, &queues, findings);
        }
        Err(why) => queues_not_checked(&why, findings),
    }
    bindings(&topology, management.get(&["bindings", &management.vhost]).await, findings);
    permissions::examine(&settings, &broker, &management, findings).await;
    Ok(())
}

fn queues_not_checked(why: &str, findings: &mut Findings) {
    for check in ["queue arguments", "policies", "dead-letter space", "unacknowledged"] {
        findings.not_checked(check, why);
    }
}

/// Checks that the exchanges and queues exist. Returns the depths of the queues.
fn check_topology(
    topology: &Topology,
    found: Vec<(String, Presence)>,
    findings: &mut Findings,
) -> BTreeMap<String, Depth> {
    let (mut missing, mut refused, mut depths) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (what, presence) in found {
        match presence {
            Presence::Exists(Some(depth)) => drop(depths.insert(what.trim_start_matches("queue ").to_owned(), depth)),
            Presence::Exists(None) => {}
            Presence::Missing => missing.push(format!("no {what}")),
            Presence::Refused(why) => refused.push(format!("{what}: {why}")),
        }
    }
    if !refused.is_empty() {
        findings.not_checked("topology", several(&refused));
    }
    let fine = format!("{} exchanges and {} queues exist", topology.exchanges.len(), topology.queues.len());
    if refused.is_empty() || !missing.is_empty() {
        let remedy = "run `wildrydes topology apply`, or start any worker: both declare what is missing";
        findings.judge("topology", fine, missing, Severity::Broken, remedy);
    }
    depths
}

/// Checks for messages without a reader and for dead letters.
fn check_depths(namespace: &str, depths: &BTreeMap<String, Depth>, findings: &mut Findings) {
    if depths.is_empty() {
        for check in ["consumers", "dead letters"] {
            findings.not_checked(check, "no queue could be inspected");
        }
        return;
    }
    let depth = |plain: &str| depths.get(&format!("{namespace}{plain}"));
    let (mut unread, mut without_reader, mut dead) = (Vec::new(), Vec::new(), Vec::new());
    for worker in topology::queue::ALL {
        match depth(worker) {
            Some(Depth { messages, consumers: 0, .. }) if *messages > 0 => {
                unread.push(format!("{messages} messages in {worker}, and no process reads it"));
            }
            Some(Depth { consumers: 0, .. }) => without_reader.push(worker.to_owned()),
            _ => {}
        }
        if let Some(letters) = depth(&dead_queue(worker)).map(|depth| depth.messages).filter(|letters| *letters > 0) {
            dead.push(format!("{letters} in {}", dead_queue(worker)));
        }
    }
    let remedy = "start that worker, or `wildrydes resume` it if it is paused";
    match unread.is_empty() && !without_reader.is_empty() {
        true => findings.warn("consumers", format!("no process reads {}", without_reader.join(", ")), remedy),
        false => findings.judge("consumers", "every queue has a reader", unread, Severity::Warning, remedy),
    }
    let remedy = "`wildrydes dead list --summary`, then repair the cause and `wildrydes dead replay`";
    findings.judge("dead letters", "none", dead, Severity::Warning, remedy);
}

fn version(overview: &Result<Answer, String>, findings: &mut Findings) {
    let version = overview.as_ref().map(|answer| answer.body["rabbitmq_version"].as_str().unwrap_or_default());
    let version = match version {
        Ok(version) => version,
        Err(why) => return findings.not_checked("broker version", why.as_str()),
    };
    let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    let found = format!("RabbitMQ {version}");
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < (3, 10) => {
            findings.broken("broker version", found, "upgrade: the fleet needs 3.10 or later; 4.x is recommended");
        }
        (Some(3), Some(_)) => findings.warn(
            "broker version",
            format!("{found}: supported, but 3.x receives no security fixes"),
            "run `wildrydes drain`, then upgrade to 3.13 and to 4.x",
        ),
        (Some(_), Some(_)) => findings.ok("broker version", found),
        _ => findings.not_checked("broker version", format!("the broker reports the version {version:?}")),
    }
}

pub(super) fn features(flags: Result<Answer, String>, findings: &mut Findings) {
    let flags = match &flags {
        Ok(answer) => answer.body.as_array().map(Vec::as_slice).unwrap_or_default(),
        Err(why) => return findings.not_checked("feature flags", why.as_str()),
    };
    let off = |flag: &&Value| flag["state"] == "disabled";
    for (name, what) in [
        ("quorum_queue", "quorum_queue is off: work queues cannot be declared"),
        (
            "stream_queue",
            "stream_queue is off: without it the broker dead-letters at most once instead of at least once, silently; a message \
             in a retry queue, or one whose worker dies, can be lost",
        ),
    ] {
        if flags.iter().filter(off).any(|flag| flag["name"] == name) {
            let remedy = format!("rabbitmqctl enable_feature_flag {name}");
            return findings.broken("feature flags", what, remedy);
        }
    }
    let stable = flags.iter().filter(off).filter(|flag| flag["stability"] == "stable");
    let names: Vec<String> = stable.filter_map(|flag| flag["name"].as_str().map(str::to_owned)).collect();
    let remedy = "rabbitmqctl enable_feature_flag all; the next upgrade may require them";
    let complaint = if names.is_empty() { Vec::new() } else { vec![format!("off: {}", names.join(", "))] };
    findings.judge("feature flags", "every stable one is on", complaint, Severity::Warning, remedy);
}

/// Checks for alarms. A node's own figures are up to five seconds old; the API's check of alarms is current.
pub(super) fn alarms((nodes, check): (Result<Answer, String>, Result<Answer, String>), findings: &mut Findings) {
    let nodes = match &nodes {
        Ok(answer) => answer.body.as_array().map(Vec::as_slice).unwrap_or_default(),
        Err(why) => return findings.not_checked("alarms", why.as_str()),
    };
    let short_of = |name: &str, what: &str| format!("{name} is short of {what}: nothing can be published");
    let mut complaints = Vec::new();
    for node in nodes {
        let name = node["name"].as_str().unwrap_or("a node");
        if node["running"] == false {
            complaints.push(format!("{name} is down"));
        }
        for (alarm, what) in [("mem_alarm", "memory"), ("disk_free_alarm", "disk")] {
            if node[alarm] == true {
                complaints.push(short_of(name, what));
            }
        }
        if node["partitions"].as_array().is_some_and(|partitions| !partitions.is_empty()) {
            complaints.push(format!("{name} is cut off from {}", node["partitions"]));
        }
    }
    let in_effect = check.as_ref().ok().and_then(|answer| answer.body["alarms"].as_array());
    for alarm in in_effect.into_iter().flatten() {
        let complaint =
            short_of(alarm["node"].as_str().unwrap_or("a node"), alarm["resource"].as_str().unwrap_or("something"));
        if !complaints.contains(&complaint) {
            complaints.push(complaint);
        }
    }
    let remedy = "free memory or disk on that machine, or start the node; the fleet then continues automatically";
    let fine = format!("none on {} nodes", nodes.len());
    findings.judge("alarms", fine, complaints, Severity::Broken, remedy);
}

fn named<'a>(queues: &'a [Value], name: &str) -> Option<&'a Value> {
    queues.iter().find(|queue| queue["name"] == name)
}

fn arguments(topology: &Topology, queues: &[Value], findings: &mut Findings) {
    let mut complaints = Vec::new();
    for queue in &topology.queues {
        let Some(found) = named(queues, &queue.name) else { continue };
        for (argument, expected) in &queue.arguments {
            let (has, expected) = (&found["arguments"][*argument], json_of(expected));
            if *has != expected {
                complaints.push(format!("{}: {argument} is {has}, expected {expected}", queue.name));
            }
        }
    }
    let remedy = "the arguments of a queue cannot be changed: `wildrydes drain`, export or replay its dead letters, delete the \
                  queue on RabbitMQ's page, `wildrydes topology apply`; or set broker.namespace to use other queues";
    findings.judge("queue arguments", "as the fleet declares them", complaints, Severity::Broken, remedy);
}

fn json_of(argument: &Argument) -> Value {
    match argument {
        Argument::Integer(value) => Value::from(*value),
        Argument::Text(text) => Value::from(text.as_str()),
    }
}

/// Reports policies that change what the fleet's queue arguments set.
fn policies(topology: &Topology, queues: &[Value], findings: &mut Findings) {
    let mut complaints = Vec::new();
    for queue in &topology.queues {
        let Some(found) = named(queues, &queue.name) else { continue };
        for (key, value) in found["effective_policy_definition"].as_object().into_iter().flatten() {
            if let Some(what) = overrides(queue, key, value) {
                let named = |kind: &str| found[kind].as_str().filter(|name| !name.is_empty());
                let policy = named("operator_policy").or(named("policy")).unwrap_or("a policy");
                complaints.push(format!("{policy} sets {key}={value} on {}: {what}", queue.name));
            }
        }
    }
    let remedy = "rabbitmqctl list_policies, list_operator_policies; narrow the pattern so that it does not match the fleet's queues";
    findings.judge("policies", "none changes what the fleet declares", complaints, Severity::Warning, remedy);
}

/// Returns what a key of a policy changes on a queue; `None` if nothing.
///
/// RabbitMQ applies the smaller of two numbers. A policy's `overflow` overrides the argument of the queue; every other
/// text of a policy applies only if the queue has no such argument.
pub(super) fn overrides(queue: &Queue, key: &str, value: &Value) -> Option<&'static str> {
    /// How long RabbitMQ waits by default for the acknowledgement of a delivery, in milliseconds.
    const CONSUMER_TIMEOUT_MS: i64 = 30 * 60 * 1_000;
    let ours = queue.arguments.get(format!("x-{key}").as_str());
    let is_dead = matches!(queue.role, Role::Dead { .. });
    match (key, ours) {
        ("expires", _) => Some("the broker deletes the queue with its messages if it is unused"),
        ("message-ttl", None) => Some("old messages are removed or become dead letters"),
        ("max-length", None) if is_dead => Some("a worker waits if there are that many dead letters"),
        ("max-length", None) => Some("messages beyond that number are refused, or lost if overflow is drop-head"),
        ("max-length-bytes", None) => Some("messages beyond that size are refused, or lost if overflow is drop-head"),
        ("overflow", Some(Argument::Text(ours))) => (value.as_str() != Some(ours)).then_some(
            "messages beyond the queue's limit are dropped instead of refused: they are lost or become dead letters",
        ),
        ("dead-letter-exchange" | "dead-letter-routing-key", None) if is_dead => {
            Some("dead letters that the broker removes are sent to another exchange or queue")
        }
        ("consumer-timeout", _) => value.as_i64().is_some_and(|timeout_ms| timeout_ms < CONSUMER_TIMEOUT_MS).then_some(
            "a worker that needs longer for a message loses its connection, and the message is delivered again",
        ),
        ("federation-upstream" | "federation-upstream-set", _) => {
            Some("messages from other brokers enter the queue, and its own may be moved to them")
        }
        ("delivery-limit" | "message-ttl" | "max-length" | "max-length-bytes", Some(Argument::Integer(ours))) => {
            value.as_i64().is_some_and(|limit| limit < *ours).then_some("less than the fleet declares")
        }
        _ => None,
    }
}

/// Checks the space for dead letters: a worker whose dead-letter queue is full waits.
pub(super) fn space(topology: &Topology, queues: &[Value], findings: &mut Findings) {
    /// Percentage of the limit from which a queue is reported.
    const NEARLY_FULL_PERCENT: i64 = 75;
    let (mut full, mut nearly) = (Vec::new(), Vec::new());
    for queue in topology.queues.iter().filter(|queue| matches!(queue.role, Role::Dead { .. })) {
        let Some(Argument::Integer(bytes_max)) = queue.arguments.get("x-max-length-bytes") else { continue };
        let Some(found) = named(queues, &queue.name) else { continue };
        // The smaller limit of argument and policy applies. Queues declared by old versions have none.
        let limits =
            [&found["arguments"]["x-max-length-bytes"], &found["effective_policy_definition"]["max-length-bytes"]];
        let Some(limit) = limits.into_iter().filter_map(Value::as_i64).min() else { continue };
        let bytes = found["message_bytes_ready"].as_i64().unwrap_or_default();
        let text = format!("{}: {bytes} of {} bytes", queue.name, limit.min(*bytes_max));
        match () {
            () if bytes >= limit => full.push(format!("{text}: full, the worker waits")),
            () if bytes >= limit / 100 * NEARLY_FULL_PERCENT => nearly.push(text),
            () => {}
        }
    }
    let severity = if full.is_empty() { Severity::Warning } else { Severity::Broken };
    full.extend(nearly);
    let remedy = "`wildrydes dead list --summary`, repair the cause, then `wildrydes dead replay`; or `wildrydes dead export` and \
                  `wildrydes dead drop`";
    findings.judge("dead-letter space", "every dead-letter queue has space", full, severity, remedy);
}

fn unacknowledged(topology: &Topology, queues: &[Value], findings: &mut Findings) {
    let complaints = topology.queues.iter().filter(|queue| queue.role == Role::Work).filter_map(|queue| {
        let found = named(queues, &queue.name)?;
        let unacked = found["messages_unacknowledged"].as_u64().filter(|messages| *messages > 0)?;
        let text = format!("{unacked} in {} are unacknowledged, and no process reads it", queue.name);
        (found["consumers"].as_u64() == Some(0)).then_some(text)
    });
    let remedy = "a worker is shutting down, or a connection hangs: RabbitMQ's page names the channel that holds them; closing it \
                  returns them to the queue";
    findings.judge("unacknowledged", "none without a reader", complaints.collect(), Severity::Warning, remedy);
}

/// Checks the bindings; those to dead-letter queues are a check of their own.
fn bindings(topology: &Topology, answer: Result<Answer, String>, findings: &mut Findings) {
    let listed = match &answer {
        Ok(answer) => answer.body.as_array().map(Vec::as_slice).unwrap_or_default(),
        Err(why) => {
            for check in ["bindings", "dead-letter routes"] {
                findings.not_checked(check, why.as_str());
            }
            return;
        }
    };
    let existing: BTreeSet<[&str; 3]> = listed
        .iter()
        .filter_map(|b| Some([b["source"].as_str()?, b["routing_key"].as_str()?, b["destination"].as_str()?]))
        .collect();
    let missing = |binding: &&Binding| {
        !existing.contains(&[binding.exchange.as_str(), binding.routing_key.as_str(), binding.queue.as_str()])
    };
    let is_dead = |binding: &&Binding| {
        topology.queue(&binding.queue).is_some_and(|queue| matches!(queue.role, Role::Dead { .. }))
    };
    let complaint = |b: &Binding| format!("{} is not bound to {} with {:?}", b.exchange, b.queue, b.routing_key);
    let (dead, others): (Vec<&Binding>, Vec<&Binding>) = topology.bindings.iter().partition(is_dead);
    for (check, bindings) in [("bindings", others), ("dead-letter routes", dead)] {
        let fine = format!("all {} exist", bindings.len());
        let complaints = bindings.into_iter().filter(missing).map(complaint).collect();
        findings.judge(check, fine, complaints, Severity::Broken, "`wildrydes topology apply`");
    }
}

/// Compares the clock of another machine with the clock of this one.
pub(super) fn skew(check: &'static str, machine: &str, time: Option<Timestamp>, findings: &mut Findings) {
    let Some(time) = time else { return findings.not_checked(check, format!("{machine} sends no date")) };
    let seconds = host::now().duration_since(time).as_secs();
    match seconds.abs() <= SKEW_SECONDS_MAX {
        true => findings.ok(check, format!("{seconds} s between {machine} and this machine")),
        false => findings.warn(
            check,
            format!("{machine} and this machine are {seconds} s apart"),
            "synchronise both clocks by NTP: ages of dead letters and deadlines of score requests depend on them",
        ),
    }
}
