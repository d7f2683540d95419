use super::broker::{covered, overrides};
use common::contract::topology::{Topology, queue};
use serde_json::json;

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
        ("merger.dead", "delivery-limit", json!(20), true),
        ("merger.dead", "queue-leader-locator", json!("balanced"), false),
    ] {
        assert_eq!(overrides(queue(name), key, &value).is_some(), complained, "{name} {key}={value}");
    }
}

#[test]
fn a_permission_covers_what_its_pattern_is_found_in() {
    let names = ["splitter", "splitter.dead", "work"].map(str::to_owned);
    let missing = |pattern: &str| covered(pattern, names.iter()).unwrap();
    assert_eq!(missing(".*"), [""; 0]);
    assert_eq!(missing("^splitter"), ["work"]);
    assert_eq!(missing("^splitter$"), ["splitter.dead", "work"]);
    assert_eq!(missing("").len(), 3, "an empty pattern covers nothing");
    assert!(covered("(", names.iter()).is_err());
}
