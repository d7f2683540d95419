//! Who may do what, held to what each user of the fleet needs.

use super::findings::{Findings, Verdict, several};
use common::{
    permissions::{OPERATOR, Permissions, UserPermissions},
    topology::{PROCESSES, Topology},
};
use gateway::management::Management;
use regex::Regex;
use runtime::{AmqpBroker, config::BrokerSettings};
use serde_json::Value;
use std::collections::BTreeSet;

const REMEDY: &str =
    "`wildrydes topology users --definitions`, or --rabbitmqctl, prints what each user needs: import that again";
/// What a user may do where no permission for topics is set.
const EVERYTHING: &str = ".*";

/// Looks at every user of the fleet, which takes an administrator, and at what the own user is allowed.
pub(super) async fn examine(
    settings: &BrokerSettings,
    broker: &AmqpBroker,
    management: &Management,
    findings: &mut Findings,
) {
    of_everyone(&settings.namespace, management, findings).await;
    let check = "own permissions";
    let user = settings.url.user();
    let theirs = Permissions::of_fleet(&settings.namespace).users.into_iter().find(|of| of.user == user);
    if let Some(UserPermissions { role, .. }) = theirs.filter(|theirs| theirs.role != OPERATOR) {
        return findings.not_checked(check, format!("{user} is a user for one thing, {role}; an operator needs more"));
    }
    match broker.refused().await {
        Ok(refused) => {
            let fine = "this user may declare, bind and publish all that is there";
            findings.judge(check, fine, refused, Verdict::Broken, REMEDY);
        }
        Err(error) => findings.not_checked(check, error.to_string()),
    }
}

async fn of_everyone(namespace: &str, management: &Management, findings: &mut Findings) {
    let check = "permissions";
    let list = async |what: &str| management.get(&["vhosts", &management.vhost, what]).await;
    let (permissions, topics) = match (list("permissions").await, list("topic-permissions").await) {
        (Ok(permissions), Ok(topics)) => (permissions.body, topics.body),
        (Err(why), _) | (_, Err(why)) => return findings.not_checked(check, why),
    };
    let of = |told: &Value| told.as_array().cloned().unwrap_or_default();
    let Compared { here, missing, beyond, absent } = compare(namespace, &of(&permissions), &of(&topics));
    let mut complaints = missing;
    let broken = !complaints.is_empty();
    complaints.extend(beyond);
    complaints.extend(absent);
    let verdict = if broken { Verdict::Broken } else { Verdict::Warning };
    match here {
        0 => findings.ok(check, "none of the fleet's own users is here; whoever runs it does so as another"),
        here => findings.judge(
            check,
            format!("all {here} users may do what they need and no more"),
            complaints,
            verdict,
            REMEDY,
        ),
    }
}

/// Where the users of a broker differ from those the fleet needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Users of the fleet that are there.
    pub(super) here: usize,
    /// What is needed and not allowed.
    pub(super) missing: Vec<String>,
    /// What is allowed and not needed.
    pub(super) beyond: Vec<String>,
    /// Users outside of the fleet that are not there: nobody may need them.
    pub(super) absent: Vec<String>,
}

/// Compares what patterns match among the names that matter, however they are written.
pub(super) fn compare(namespace: &str, permissions: &[Value], topics: &[Value]) -> Compared {
    let topology = Topology::of_fleet(namespace);
    let mut names: BTreeSet<String> = topology.exchanges.iter().map(|exchange| exchange.name.clone()).collect();
    names.extend(topology.queues.iter().map(|queue| queue.name.clone()));
    names.extend(["amq.default", "amq.gen-1", "amq.topic", "another"].map(str::to_owned));
    let mut keys: BTreeSet<String> = topology.queues.iter().map(|queue| queue.name.clone()).collect();
    keys.extend(topology.publications.iter().map(|publication| format!("{}.v1", publication.message)));
    keys.extend(topology.subscriptions.iter().map(|subscription| subscription.routing_key.clone()));
    keys.insert("another".to_owned());
    let mut compared = Compared::default();
    for user in Permissions::of_fleet(namespace).users {
        let Some(has) = permissions.iter().find(|has| has["user"] == user.user.as_str()) else {
            let nothing = format!("{} has no permissions here, or is not there", user.user);
            match PROCESSES.contains(&user.role) {
                true => compared.missing.push(nothing),
                false => compared.absent.push(nothing),
            }
            continue;
        };
        compared.here += 1;
        for (right, wanted) in [("configure", &user.configure), ("write", &user.write), ("read", &user.read)] {
            compared.add(&user.user, right, &names, wanted, text(&has[right]));
        }
        for exchange in topology.exchanges.iter().map(|exchange| exchange.name.as_str()) {
            let wanted = user.topics.iter().find(|topic| topic.exchange == exchange);
            let has = topics.iter().find(|has| has["user"] == user.user.as_str() && has["exchange"] == exchange);
            for (right, at, limit) in [
                ("write", &user.write, wanted.map(|topic| topic.write.as_str())),
                ("read", &user.read, wanted.map(|topic| topic.read.as_str())),
            ] {
                if Regex::new(at).is_ok_and(|at| at.is_match(exchange)) {
                    let has = has.map_or(EVERYTHING, |has| text(&has[right]));
                    let right = format!("{right} at {exchange} with");
                    compared.add(&user.user, &right, &keys, limit.unwrap_or(EVERYTHING), has);
                }
            }
        }
    }
    // Without any of its own users the fleet runs as somebody else.
    if compared.here == 0 { Compared::default() } else { compared }
}

impl Compared {
    fn add(&mut self, user: &str, right: &str, names: &BTreeSet<String>, wanted: &str, has: &str) {
        // An empty pattern matches no name.
        let pattern = |text: &str| Regex::new(if text.is_empty() { "^$" } else { text });
        let (wanted, has) = match (pattern(wanted), pattern(has)) {
            (Ok(wanted), Ok(has)) => (wanted, has),
            (_, Err(error)) | (Err(error), _) => {
                return self.missing.push(format!("{user}, {right}: {has:?} cannot be read as a pattern: {error}"));
            }
        };
        let differing = |more: &Regex, less: &Regex| -> Vec<String> {
            names.iter().filter(|name| more.is_match(name) && !less.is_match(name)).cloned().collect()
        };
        let (missing, beyond) = (differing(&wanted, &has), differing(&has, &wanted));
        if !missing.is_empty() {
            self.missing.push(format!("{user} may not {right} {}", several(&missing)));
        }
        if !beyond.is_empty() {
            self.beyond.push(format!("{user} may {right} {}, and need not", several(&beyond)));
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
