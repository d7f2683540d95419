use super::{
    broker::{alarms, features, overrides, space},
    findings::{Findings, Severity},
    outside::waiting_workers,
    permissions::{Comparison, compare},
};
use common::{
    permissions::{Permissions, UserPermissions},
    schema::Described,
    topology::{DEAD_BYTES_MAX, Topology, queue},
    waiting::Waiting,
};
use gateway::management::Answer;
use object_store::memory::InMemory;
use records::{Store, layout, store};
use runtime::host;
use serde_json::{Value, json};
use std::sync::Arc;

#[test]
fn policy_is_reported_if_it_changes_the_queue() {
    let topology = Topology::of_fleet("");
    let queue = |name: &str| topology.queue(name).unwrap();
    for (name, key, value, expected) in [
        (queue::SPLITTER, "expires", json!(1000), true),
        (queue::SPLITTER, "delivery-limit", json!(5), true),
        (queue::SPLITTER, "delivery-limit", json!(50), false),
        (queue::SPLITTER, "max-length-bytes", json!(1), true),
        (queue::SPLITTER, "dead-letter-exchange", json!("other"), false),
        (queue::MERGER, "message-ttl", json!(60_000), true),
        ("merger.retry.0", "message-ttl", json!(60_000), false),
        ("merger.dead", "max-length", json!(10), true),
        ("merger.dead", "max-length-bytes", json!(1), true),
        ("merger.dead", "max-length-bytes", json!(i64::MAX), false),
        ("merger.dead", "delivery-limit", json!(20), true),
        ("merger.dead", "queue-leader-locator", json!("balanced"), false),
        (queue::MERGER, "max-length", json!(10), true),
        ("merger.retry.0", "max-length", json!(10), true),
        (queue::SCORER, "max-length", json!(1), true),
        (queue::SCORER, "max-length-bytes", json!(1), true),
        (queue::MERGER, "overflow", json!("drop-head"), true),
        ("merger.dead", "overflow", json!("drop-head"), true),
        (queue::MERGER, "overflow", json!("reject-publish"), false),
        ("merger.dead", "dead-letter-exchange", json!("other"), true),
        (queue::TRAINER, "consumer-timeout", json!(60_000), true),
        (queue::TRAINER, "consumer-timeout", json!(3_600_000), false),
        (queue::TRAINER, "federation-upstream-set", json!("all"), true),
    ] {
        assert_eq!(overrides(queue(name), key, &value).is_some(), expected, "{name} {key}={value}");
    }
}

/// A policy can set a smaller limit. A queue without a limit is the subject of another check.
#[test]
fn full_or_nearly_full_dead_letter_queue_is_reported_with_its_limit() {
    let topology = Topology::of_fleet("");
    let queue = |name: &str, bytes: i64, limit: Value, policy: Value| {
        json!({
            "name": name, "message_bytes_ready": bytes, "arguments": { "x-max-length-bytes": limit },
            "effective_policy_definition": policy,
        })
    };
    let finding = |queues: &[Value]| {
        let mut findings = Findings::default();
        space(&topology, queues, &mut findings);
        (findings.0[0].severity, findings.0[0].found.clone())
    };
    let limit = json!(DEAD_BYTES_MAX);
    let unlimited = queue("trainer.dead", DEAD_BYTES_MAX * 2, Value::Null, json!([]));
    let roomy = queue("merger.dead", DEAD_BYTES_MAX / 2, limit.clone(), json!([]));
    assert_eq!(finding(&[unlimited, roomy]).0, Severity::Ok);
    let nearly = queue("merger.dead", DEAD_BYTES_MAX / 5 * 4, limit.clone(), json!([]));
    assert_eq!(finding(std::slice::from_ref(&nearly)).0, Severity::Warning);
    let full = queue("splitter.dead", 10, limit, json!({ "max-length-bytes": 10 }));
    let (severity, found) = finding(&[nearly, full]);
    assert_eq!(severity, Severity::Broken);
    assert!(found.starts_with("splitter.dead: 10 of 10 bytes: full") && found.contains("merger.dead"), "{found}");
}

#[tokio::test]
async fn waiting_worker_is_reported_with_its_cause() {
    let store: Store = Arc::new(InMemory::new());
    let finding = async |store: &Store| {
        let mut findings = Findings::default();
        waiting_workers(store, &mut findings).await;
        (findings.0[0].severity, findings.0[0].found.clone())
    };
    assert_eq!(finding(&store).await, (Severity::Ok, "none".to_owned()));
    let now = host::now().to_string();
    let waiting = Waiting {
        schema: Waiting::SCHEMA.name.to_owned(),
        worker: queue::MERGER.to_owned(),
        why: "merger.dead is full".to_owned(),
        batch_id: None,
        since: now.clone(),
        at: now.clone(),
        outages: 1,
        attempt: None,
    };
    store::write(&store, &layout::waiting(queue::MERGER), serde_json::to_vec(&waiting).unwrap()).await.unwrap();
    assert_eq!(finding(&store).await, (Severity::Warning, format!("merger since {now}: merger.dead is full")));
}

/// Returns the permissions that `topology users` prints, as answers of the management API.
fn granted() -> (Vec<Value>, Vec<Value>) {
    let users = Permissions::of_fleet("n.").users;
    let topics = users.iter().flat_map(|user| user.topics.iter().map(move |topic| (user, topic)));
    let topics = topics.map(|(user, topic)| {
        json!({ "user": user.user, "exchange": topic.exchange, "write": topic.write, "read": topic.read })
    });
    let topics = topics.collect();
    let of = |user: &UserPermissions| json!({ "user": user.user, "configure": user.configure, "write": user.write, "read": user.read });
    (users.iter().map(of).collect(), topics)
}

#[test]
fn permissions_are_compared_by_the_names_they_match() {
    let (permissions, topics) = granted();
    let fine = Comparison { users: permissions.len(), ..Comparison::default() };
    assert_eq!(compare("n.", &permissions, &topics), fine);
    assert_eq!(compare("other.", &permissions, &topics), Comparison::default(), "another fleet's users");
    let with = |role: &str, right: &str, pattern: &str| {
        let mut changed = permissions.clone();
        let user = changed.iter_mut().find(|user| user["user"] == format!("n.{role}")).unwrap();
        user[right] = json!(pattern);
        compare("n.", &changed, &topics)
    };
    assert_eq!(with("merger", "configure", r"^(amq\.gen-.*)$"), fine, "another pattern for the same names");
    let too_little = with("merger", "read", "^n\\.merger$");
    assert_eq!(too_little.missing, ["n.merger may not read amq.gen-1; n.events"]);
    assert_eq!(too_little.excessive, [""; 0]);
    let too_much = with("merger", "write", ".*");
    assert!(
        too_much.missing.is_empty() && too_much.excessive[0].starts_with("n.merger may write amq.default;"),
        "{too_much:?}"
    );
    assert!(with("merger", "read", "(").missing[0].contains("is not a valid pattern"));
    assert_eq!(with("merger", "read", "").missing.len(), 1, "an empty pattern matches nothing");
    let absent = |role: &str| -> Comparison {
        let left: Vec<Value> = permissions.iter().filter(|user| user["user"] != format!("n.{role}")).cloned().collect();
        compare("n.", &left, &topics)
    };
    assert_eq!((absent("trainer").missing.len(), absent("client").missing.len()), (1, 0));
    assert_eq!(absent("client").absent, ["n.client has no permissions, or does not exist"]);
    // Without topic permissions, every topic is allowed.
    let unlimited = compare("n.", &permissions, &[]);
    assert!(unlimited.missing.is_empty(), "{unlimited:?}");
    let about = |user: &str| unlimited.excessive.iter().any(|complaint| complaint.starts_with(user));
    assert!(about("n.splitter may write at n.work with") && !about("n.operator"), "{unlimited:?}");
}

/// As in RabbitMQ 3.10 and 4.0, a node's own figures can lag behind the check of alarms.
#[test]
fn alarm_is_reported_once_and_without_delay() {
    let answer = |body: Value| Ok(Answer { body, date: None });
    let node = |memory: bool| {
        answer(json!([{ "name": "rabbit@a", "running": true, "mem_alarm": memory, "disk_free_alarm": false }]))
    };
    let in_effect = || {
        answer(json!({
            "status": "failed", "reason": "resource alarm(s) in effect in the cluster",
            "alarms": [{ "node": "rabbit@a", "resource": "memory" }, { "node": "rabbit@b", "resource": "disk" }],
        }))
    };
    let finding = |nodes, check| {
        let mut findings = Findings::default();
        alarms((nodes, check), &mut findings);
        (findings.0[0].severity, findings.0[0].found.clone())
    };
    assert_eq!(finding(node(false), answer(json!({ "status": "ok" }))).0, Severity::Ok);
    let expected =
        "rabbit@a is short of memory: nothing can be published; rabbit@b is short of disk: nothing can be published";
    for late in [false, true] {
        assert_eq!(finding(node(late), in_effect()), (Severity::Broken, expected.to_owned()));
    }
    let unanswered = Err("no answer".to_owned());
    assert_eq!(finding(node(true), unanswered).0, Severity::Broken, "without the check, the figures count");
}

/// Without streams the broker cannot dead-letter at least once, and does not report it.
#[test]
fn severity_of_a_disabled_feature_flag_depends_on_what_needs_it() {
    let finding = |name: &str| {
        let mut findings = Findings::default();
        let flags = json!([{ "name": name, "state": "disabled", "stability": "stable" }]);
        features(Ok(Answer { body: flags, date: None }), &mut findings);
        (findings.0[0].severity, findings.0[0].remedy.clone().unwrap_or_default())
    };
    assert_eq!(finding("stream_queue"), (Severity::Broken, "rabbitmqctl enable_feature_flag stream_queue".to_owned()));
    assert_eq!(finding("quorum_queue").0, Severity::Broken);
    assert_eq!(finding("another").0, Severity::Warning);
}

#[test]
fn one_refusal_of_the_management_api_is_reported_once() {
    let why = "the user ada lacks the tag monitoring, without which the management API does not answer";
    let mut findings = Findings::default();
    findings.ok("broker", "reached");
    for check in ["broker version", "feature flags", "alarms"] {
        findings.not_checked(check, why);
    }
    findings.not_checked("weather clock", "no answer with a date");
    findings.broken("weather", why, "a remedy");
    let lines = findings.lines();
    let once = lines.iter().filter(|line| line.starts_with("not checked") && line.contains(why)).count();
    assert_eq!(once, 1, "{lines:?}");
    let others = lines.iter().find(|line| line.contains("for the same reason")).unwrap();
    assert!(others.ends_with(": feature flags, alarms"), "{others}");
    assert_eq!(lines.last().unwrap(), "1 ok, 0 warning, 1 broken, 4 not checked");
    assert_eq!(findings.as_json()["findings"].as_array().unwrap().len(), 6);
}
