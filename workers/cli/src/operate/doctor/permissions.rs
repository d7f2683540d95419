//! Compares the permissions of each user with those that the fleet needs.

use super::findings::{Findings, Severity, several};
use common::{
    permissions::{OPERATOR, Permissions, UserPermissions},
    topology::{PROCESSES, Topology},
};
use gateway::management::Management;
use regex::Regex;
use runtime::{AmqpBroker, config::BrokerSettings};
use serde_json::Value;
use std::collections::BTreeSet;

const REMEDY: &str = "`wildrydes topology users --definitions`, or --rabbitmqctl, prints the permissions of each user: import them again";
/// The topic permission of a user that has none set.
const EVERYTHING: &str = ".*";

/// Checks the permissions of every user of the fleet, which only an administrator can read, and of the connected user.
pub(super) async fn examine(
    settings: &BrokerSettings,
    broker: &AmqpBroker,
    management: &Management,
    findings: &mut Findings,
) {
    check_users(&settings.namespace, management, findings).await;
    let check = "own permissions";
    let user = settings.url.user();
    let known = Permissions::of_fleet(&settings.namespace).users.into_iter().find(|known| known.user == user);
    if let Some(UserPermissions { role, .. }) = known.filter(|known| known.role != OPERATOR) {
        return findings.not_checked(check, format!("{user} has the role {role}; run doctor as an operator"));
    }
    match broker.refused().await {
        Ok(refused) => {
            let fine = "this user may declare, bind and publish everything";
            findings.judge(check, fine, refused, Severity::Broken, REMEDY);
        }
        Err(error) => findings.not_checked(check, error.to_string()),
    }
}

async fn check_users(namespace: &str, management: &Management, findings: &mut Findings) {
    let check = "permissions";
    let list = async |what: &str| management.get(&["vhosts", &management.vhost, what]).await;
    let (permissions, topics) = match (list("permissions").await, list("topic-permissions").await) {
        (Ok(permissions), Ok(topics)) => (permissions.body, topics.body),
        (Err(why), _) | (_, Err(why)) => return findings.not_checked(check, why),
    };
    let list = |answer: &Value| answer.as_array().cloned().unwrap_or_default();
    let Comparison { users, missing, excessive, absent } = compare(namespace, &list(&permissions), &list(&topics));
    let mut complaints = missing;
    let is_broken = !complaints.is_empty();
    complaints.extend(excessive);
    complaints.extend(absent);
    let severity = if is_broken { Severity::Broken } else { Severity::Warning };
    match users {
        0 => findings.ok(check, "the broker has none of the fleet's users; the fleet runs as another user"),
        users => findings.judge(
            check,
            format!("all {users} users have the permissions they need and no others"),
            complaints,
            severity,
            REMEDY,
        ),
    }
}

/// Differences between the users of a broker and those that the fleet needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Number of the fleet's users that the broker has.
    pub(super) users: usize,
    /// Permissions that are needed and not granted.
    pub(super) missing: Vec<String>,
    /// Permissions that are granted and not needed.
    pub(super) excessive: Vec<String>,
    /// External users that the broker lacks; they are optional.
    pub(super) absent: Vec<String>,
}

/// Compares patterns by the relevant names that they match, not by their text.
pub(super) fn compare(namespace: &str, permissions: &[Value], topics: &[Value]) -> Comparison {
    let topology = Topology::of_fleet(namespace);
    let mut names: BTreeSet<String> = topology.exchanges.iter().map(|exchange| exchange.name.clone()).collect();
    names.extend(topology.queues.iter().map(|queue| queue.name.clone()));
    names.extend(["amq.default", "amq.gen-1", "amq.topic", "another"].map(str::to_owned));
    let mut keys: BTreeSet<String> = topology.queues.iter().map(|queue| queue.name.clone()).collect();
    keys.extend(topology.publications.iter().map(|publication| format!("{}.v1", publication.message)));
    keys.extend(topology.subscriptions.iter().map(|subscription| subscription.routing_key.clone()));
    keys.insert("another".to_owned());
    let mut comparison = Comparison::default();
    for user in Permissions::of_fleet(namespace).users {
        let Some(has) = permissions.iter().find(|has| has["user"] == user.user.as_str()) else {
            let complaint = format!("{} has no permissions, or does not exist", user.user);
            match PROCESSES.contains(&user.role) {
                true => comparison.missing.push(complaint),
                false => comparison.absent.push(complaint),
            }
            continue;
        };
        comparison.users += 1;
        for (right, needed) in [("configure", &user.configure), ("write", &user.write), ("read", &user.read)] {
            comparison.add(&user.user, right, &names, needed, text(&has[right]));
        }
        for exchange in topology.exchanges.iter().map(|exchange| exchange.name.as_str()) {
            let needed = user.topics.iter().find(|topic| topic.exchange == exchange);
            let has = topics.iter().find(|has| has["user"] == user.user.as_str() && has["exchange"] == exchange);
            for (right, at, limit) in [
                ("write", &user.write, needed.map(|topic| topic.write.as_str())),
                ("read", &user.read, needed.map(|topic| topic.read.as_str())),
            ] {
                if Regex::new(at).is_ok_and(|at| at.is_match(exchange)) {
                    let has = has.map_or(EVERYTHING, |has| text(&has[right]));
                    let right = format!("{right} at {exchange} with");
                    comparison.add(&user.user, &right, &keys, limit.unwrap_or(EVERYTHING), has);
                }
            }
        }
    }
    // Without any of these users the fleet runs as another user.
    if comparison.users == 0 { Comparison::default() } else { comparison }
}

impl Comparison {
    fn add(&mut self, user: &str, right: &str, names: &BTreeSet<String>, needed: &str, has: &str) {
        // An empty pattern matches no name.
        let pattern = |text: &str| Regex::new(if text.is_empty() { "^$" } else { text });
        let (needed, has) = match (pattern(needed), pattern(has)) {
            (Ok(needed), Ok(has)) => (needed, has),
            (_, Err(error)) | (Err(error), _) => {
                return self.missing.push(format!("{user}, {right}: {has:?} is not a valid pattern: {error}"));
            }
        };
        let difference = |more: &Regex, less: &Regex| -> Vec<String> {
            names.iter().filter(|name| more.is_match(name) && !less.is_match(name)).cloned().collect()
        };
        let (missing, excessive) = (difference(&needed, &has), difference(&has, &needed));
        if !missing.is_empty() {
            self.missing.push(format!("{user} may not {right} {}", several(&missing)));
        }
        if !excessive.is_empty() {
            self.excessive.push(format!("{user} may {right} {}, which it does not need", several(&excessive)));
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
