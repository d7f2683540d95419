use super::{
    Findings, Verdict,
    broker::{alarms, features, overrides, space},
    outside::waiting_workers,
    permissions::{Compared, compare},
};
use common::{
    permissions::{Permissions, UserPermissions},
    topology::{DEAD_BYTES_MAX, Topology, queue},
    waiting::{WAITING_SCHEMA, Waiting},
};
use gateway::management::Answer;
use object_store::memory::InMemory;
use records::{Store, layout, store};
use runtime::host;
use serde_json::{Value, json};
use std::sync::Arc;

#[test]
fn a_policy_is_complained_of_where_it_changes_something() {
    let topology = Topology::of_fleet("");
    let queue = |name: &str| topology.queue(name).unwrap();
    for (name, key, value, complained) in [
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
        assert_eq!(overrides(queue(name), key, &value).is_some(), complained, "{name} {key}={value}");
    }
}

/// A queue of dead letters that is full, or will be soon, is named with its limit, also where a policy sets a smaller one; a queue
/// without a limit, from before there was one, is another check's affair.
#[test]
fn dead_letters_that_fill_their_queue_are_told_before_a_worker_waits() {
    let topology = Topology::of_fleet("");
    let queue = |name: &str, bytes: i64, limit: Value, policy: Value| {
        json!({
            "name": name, "message_bytes_ready": bytes, "arguments": { "x-max-length-bytes": limit },
            "effective_policy_definition": policy,
        })
    };
    let told = |queues: &[Value]| {
        let mut findings = Findings::default();
        space(&topology, queues, &mut findings);
        (findings.0[0].verdict, findings.0[0].found.clone())
    };
    let limit = json!(DEAD_BYTES_MAX);
    let unlimited = queue("trainer.dead", DEAD_BYTES_MAX * 2, Value::Null, json!([]));
    let roomy = queue("merger.dead", DEAD_BYTES_MAX / 2, limit.clone(), json!([]));
    assert_eq!(told(&[unlimited, roomy]).0, Verdict::Ok);
    let nearly = queue("merger.dead", DEAD_BYTES_MAX / 5 * 4, limit.clone(), json!([]));
    assert_eq!(told(std::slice::from_ref(&nearly)).0, Verdict::Warning);
    let full = queue("splitter.dead", 10, limit, json!({ "max-length-bytes": 10 }));
    let (verdict, found) = told(&[nearly, full]);
    assert_eq!(verdict, Verdict::Broken);
    assert!(found.starts_with("splitter.dead: 10 of 10 bytes: full") && found.contains("merger.dead"), "{found}");
}

/// What a worker recorded that it waits for is told with its cause.
#[tokio::test]
async fn what_a_worker_waits_for_is_told() {
    let store: Store = Arc::new(InMemory::new());
    let told = async |store: &Store| {
        let mut findings = Findings::default();
        waiting_workers(store, &mut findings).await;
        (findings.0[0].verdict, findings.0[0].found.clone())
    };
    assert_eq!(told(&store).await, (Verdict::Ok, "none".to_owned()));
    let now = host::now().to_string();
    let waiting = Waiting {
        schema: WAITING_SCHEMA.to_owned(),
        worker: queue::MERGER.to_owned(),
        why: "merger.dead is full".to_owned(),
        batch_id: None,
        since: now.clone(),
        at: now.clone(),
        outages: 1,
        attempt: None,
    };
    store::write(&store, &layout::waiting(queue::MERGER), serde_json::to_vec(&waiting).unwrap()).await.unwrap();
    assert_eq!(told(&store).await, (Verdict::Warning, format!("merger since {now}: merger.dead is full")));
}

/// What `topology users` prints, as the management API tells it.
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

/// Every user is held to what it needs: too little is missing, too much is named, and it does not matter how a pattern is
/// written.
#[test]
fn permissions_are_compared_by_what_they_allow() {
    let (permissions, topics) = granted();
    let fine = Compared { here: permissions.len(), ..Compared::default() };
    assert_eq!(compare("n.", &permissions, &topics), fine);
    assert_eq!(compare("other.", &permissions, &topics), Compared::default(), "another fleet's users");
    let with = |role: &str, right: &str, pattern: &str| {
        let mut changed = permissions.clone();
        let user = changed.iter_mut().find(|user| user["user"] == format!("n.{role}")).unwrap();
        user[right] = json!(pattern);
        compare("n.", &changed, &topics)
    };
    assert_eq!(with("merger", "configure", r"^(amq\.gen-.*)$"), fine, "the same in other words");
    let little = with("merger", "read", "^n\\.merger$");
    assert_eq!(little.missing, ["n.merger may not read amq.gen-1; n.events"]);
    assert_eq!(little.beyond, [""; 0]);
    let much = with("merger", "write", ".*");
    assert!(much.missing.is_empty() && much.beyond[0].starts_with("n.merger may write amq.default;"), "{much:?}");
    assert!(with("merger", "read", "(").missing[0].contains("cannot be read"));
    assert_eq!(with("merger", "read", "").missing.len(), 1, "an empty pattern covers nothing");
    let absent = |role: &str| -> Compared {
        let left: Vec<Value> = permissions.iter().filter(|user| user["user"] != format!("n.{role}")).cloned().collect();
        compare("n.", &left, &topics)
    };
    assert_eq!((absent("trainer").missing.len(), absent("client").missing.len()), (1, 0));
    assert_eq!(absent("client").absent, ["n.client has no permissions here, or is not there"]);
    // Where no topic is limited, all of them are allowed.
    let unlimited = compare("n.", &permissions, &[]);
    assert!(unlimited.missing.is_empty(), "{unlimited:?}");
    let about = |user: &str| unlimited.beyond.iter().any(|beyond| beyond.starts_with(user));
    assert!(about("n.splitter may write at n.work with") && !about("n.operator"), "{unlimited:?}");
}

/// As RabbitMQ 3.10 and 4.0 say it: a node's own figures may not know yet what the check of alarms knows.
#[test]
fn an_alarm_is_told_once_and_at_once() {
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
    let told = |nodes, check| {
        let mut findings = Findings::default();
        alarms((nodes, check), &mut findings);
        (findings.0[0].verdict, findings.0[0].found.clone())
    };
    assert_eq!(told(node(false), answer(json!({ "status": "ok" }))).0, Verdict::Ok);
    let expected =
        "rabbit@a is short of memory: nothing can be published; rabbit@b is short of disk: nothing can be published";
    for late in [false, true] {
        assert_eq!(told(node(late), in_effect()), (Verdict::Broken, expected.to_owned()));
    }
    let unseen = Err("no answer".to_owned());
    assert_eq!(told(node(true), unseen).0, Verdict::Broken, "without the check the figures have to do");
}

/// Without streams the broker cannot park at least once, and does not say so.
#[test]
fn a_feature_flag_that_is_off_is_told_by_what_it_breaks() {
    let told = |name: &str| {
        let mut findings = Findings::default();
        let flags = json!([{ "name": name, "state": "disabled", "stability": "stable" }]);
        features(Ok(Answer { body: flags, date: None }), &mut findings);
        (findings.0[0].verdict, findings.0[0].remedy.clone().unwrap_or_default())
    };
    assert_eq!(told("stream_queue"), (Verdict::Broken, "rabbitmqctl enable_feature_flag stream_queue".to_owned()));
    assert_eq!(told("quorum_queue").0, Verdict::Broken);
    assert_eq!(told("another").0, Verdict::Warning);
}

/// A cause that prevents several checks is one line and a list of these checks; every check is counted.
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
