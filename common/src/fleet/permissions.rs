//! One RabbitMQ user for each worker and each kind of external client, with the least permissions that suffice: derived
//! from the [`Topology`], so that the two always agree.
//!
//! ```text
//! configure   declare and delete         for operators; others only declare temporary queues, whose names the
//!                                        broker assigns
//! write       publish to an exchange     for its messages, its own retries and dead letters
//! read        consume from a queue,      for its own queue and the exchanges it subscribes to
//!             bind to an exchange
//! topics      allowed routing keys, at an exchange it may write to or bind to
//! ```
//!
//! RabbitMQ searches a pattern anywhere in a name (PCRE), so every pattern has anchors; an empty pattern matches no
//! name. Permissions name the default exchange `amq.default`. It routes to any queue and allows no restriction of
//! routing keys, so the user of a worker that answers requests may publish into any queue. The worker itself publishes
//! only to reply addresses ([`super::reply_address`]), whatever a request names. A passive declaration of an existing
//! queue needs no permission; purging a queue needs the permission to read it.

use crate::{
    delivery::reply_address::TEMPORARY_PREFIX,
    fleet::{
        exchange::{self, DEAD, RETRY},
        topology::{self, Process, Role, Topology, process},
    },
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The user who declares the topology and operates the fleet.
pub const OPERATOR: &str = topology::OPERATOR;
/// The default exchange, as permissions name it.
const DEFAULT_EXCHANGE: &str = r"amq\.default";
/// Matches no name and no routing key.
pub const NOTHING: &str = "^$";

/// The users of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Permissions {
    /// One user for each process in the order of the flow, then the external clients, the operator last.
    pub users: Vec<UserPermissions>,
}

/// Permissions of one user in the fleet's virtual host. All patterns are PCRE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserPermissions {
    /// Name of the user: the role, prefixed by the namespace.
    pub user: String,
    /// The role: a process, or a kind of external client.
    pub role: &'static str,
    /// RabbitMQ's user tags: access to the management interface.
    pub tags: &'static [&'static str],
    /// Exchanges and queues it may declare and delete.
    pub configure: String,
    /// Exchanges it may publish to, queues it may bind.
    pub write: String,
    /// Queues it may consume from, exchanges it may bind to.
    pub read: String,
    /// Restrictions of routing keys at these topic exchanges.
    pub topics: Vec<TopicPermissions>,
}

/// Patterns of the routing keys that a user may use at one topic exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicPermissions {
    /// Name of the exchange, with the namespace.
    pub exchange: String,
    /// Routing keys it may publish with.
    pub write: String,
    /// Routing keys it may bind with.
    pub read: String,
}

impl Permissions {
    /// Returns the users of the fleet with this namespace.
    pub fn of_fleet(namespace: &str) -> Self {
        let topology = Topology::of_fleet(namespace);
        let workers = process::ALL.iter().filter(|process| !process.queues.is_empty());
        let mut users: Vec<UserPermissions> =
            workers.map(|process| of_process(&topology, process, namespace)).collect();
        users.push(of_publisher(&topology, namespace));
        users.push(of_client(&topology, namespace));
        users.push(of_gateway(&topology, namespace));
        users.push(of_scaler(namespace));
        users.push(of_operator(&topology, namespace));
        Self { users }
    }

    /// Returns the user with this role.
    pub fn of_role(&self, role: &str) -> Option<&UserPermissions> {
        self.users.iter().find(|user| user.role == role)
    }
}

/// Collects the names that a user needs access to.
#[derive(Default)]
struct Needs {
    configure: BTreeSet<String>,
    write: BTreeSet<String>,
    read: BTreeSet<String>,
    /// Patterns of routing keys to publish with and to bind with, by exchange.
    topics: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>,
}

impl Needs {
    /// Adds a temporary queue to read from; `bound` is whether it is bound to an exchange.
    fn temporary_queue(&mut self, bound: bool) {
        // The broker assigns the names of temporary queues.
        let temporary = format!("{}.*", quoted(TEMPORARY_PREFIX));
        if bound {
            self.write.insert(temporary.clone());
        }
        self.configure.insert(temporary.clone());
        self.read.insert(temporary);
    }

    fn publishes(&mut self, topology: &Topology, by: &str) {
        for publication in topology.publications.iter().filter(|publication| publication.by == by) {
            if publication.exchange.is_empty() {
                self.write.insert(DEFAULT_EXCHANGE.to_owned());
            } else {
                // Any version of the message: a user outlives a release of the software.
                self.publishes_with(&publication.exchange, format!(r"{}\.v[0-9]+", quoted(&publication.message)));
            }
        }
    }

    fn publishes_with(&mut self, exchange: &str, keys: String) {
        self.write.insert(quoted(exchange));
        self.topics.entry(exchange.to_owned()).or_default().0.insert(keys);
    }

    fn subscribes_to(&mut self, exchange: &str, keys: String) {
        self.temporary_queue(true);
        self.read.insert(quoted(exchange));
        self.topics.entry(exchange.to_owned()).or_default().1.insert(keys);
    }

    fn into_user(self, role: &'static str, namespace: &str) -> UserPermissions {
        let topics = self.topics.into_iter().map(|(exchange, (write, read))| TopicPermissions {
            exchange,
            write: any_of(&write),
            read: any_of(&read),
        });
        UserPermissions {
            user: format!("{namespace}{role}"),
            role,
            tags: &[],
            configure: any_of(&self.configure),
            write: any_of(&self.write),
            read: any_of(&self.read),
            topics: topics.collect(),
        }
    }
}

/// Returns the permissions of one process, which runs one worker or two.
fn of_process(topology: &Topology, process: &Process, namespace: &str) -> UserPermissions {
    let mut needs = Needs::default();
    for worker in process.queues {
        let own = format!("{namespace}{worker}");
        needs.read.insert(quoted(&own));
        needs.publishes(topology, worker);
        for queue in &topology.queues {
            match &queue.role {
                Role::Retry { of, .. } if *of == own => {
                    needs.publishes_with(&format!("{namespace}{RETRY}"), quoted(&queue.name));
                }
                Role::Dead { of } if *of == own => needs.publishes_with(&format!("{namespace}{DEAD}"), quoted(&own)),
                Role::Work | Role::Retry { .. } | Role::Dead { .. } => {}
            }
        }
        for subscription in topology.subscriptions.iter().filter(|subscription| subscription.worker == *worker) {
            needs.subscribes_to(&subscription.exchange, quoted(&subscription.routing_key));
        }
    }
    needs.into_user(process.name, namespace)
}

/// Publishes batches with any routing key and follows them: reads events, and dead letters for the reasons of refusals.
fn of_publisher(topology: &Topology, namespace: &str) -> UserPermissions {
    let mut needs = Needs::default();
    needs.publishes(topology, topology::PUBLISHER);
    needs.topics.clear();
    for exchange in [exchange::EVENTS, DEAD] {
        needs.subscribes_to(&format!("{namespace}{exchange}"), ".*".to_owned());
    }
    // The command declares a queue for answers even if it only publishes.
    needs.temporary_queue(true);
    needs.into_user(topology::PUBLISHER, namespace)
}

/// Publishes batches and requests with their own routing keys, reads the answers from a temporary queue, follows the
/// batches, and browses dead letters. It could also remove dead letters, because RabbitMQ does not distinguish browsing
/// from consuming.
fn of_gateway(topology: &Topology, namespace: &str) -> UserPermissions {
    let mut needs = Needs::default();
    needs.publishes(topology, topology::PUBLISHER);
    needs.publishes(topology, topology::CLIENT);
    for exchange in [exchange::EVENTS, DEAD] {
        needs.subscribes_to(&format!("{namespace}{exchange}"), ".*".to_owned());
    }
    let dead = topology.queues.iter().filter(|queue| matches!(queue.role, Role::Dead { .. }));
    needs.read.extend(dead.map(|queue| quoted(&queue.name)));
    // The management interface tells how many messages of its virtual host are unacknowledged.
    UserPermissions { tags: &["management"], ..needs.into_user(process::GATEWAY.name, namespace) }
}

/// Asks the management interface for the lengths of queues, which needs no permission.
fn of_scaler(namespace: &str) -> UserPermissions {
    UserPermissions { tags: &["management"], ..Needs::default().into_user(topology::SCALER, namespace) }
}

/// Requests scores and weather, and reads the answers from a temporary queue.
fn of_client(topology: &Topology, namespace: &str) -> UserPermissions {
    let mut needs = Needs::default();
    needs.publishes(topology, topology::CLIENT);
    needs.temporary_queue(false);
    needs.into_user(topology::CLIENT, namespace)
}

/// Has all permissions for the fleet's own names, and none for others in the virtual host.
fn of_operator(topology: &Topology, namespace: &str) -> UserPermissions {
    let mut needs = Needs::default();
    let queues = topology.queues.iter().map(|queue| &queue.name);
    let names: BTreeSet<String> =
        topology.exchanges.iter().map(|exchange| &exchange.name).chain(queues).map(|name| quoted(name)).collect();
    needs.configure.extend(names.iter().cloned());
    needs.write.extend(names.iter().cloned());
    needs.read.extend(names);
    needs.write.insert(DEFAULT_EXCHANGE.to_owned());
    needs.temporary_queue(true);
    UserPermissions { tags: &["monitoring"], ..needs.into_user(OPERATOR, namespace) }
}

/// Returns a pattern that matches exactly the names that one of `patterns` matches.
fn any_of(patterns: &BTreeSet<String>) -> String {
    let mut all = patterns.iter();
    match (all.next(), all.next()) {
        (None, _) => NOTHING.to_owned(),
        (Some(only), None) => format!("^{only}$"),
        _ => format!("^({})$", patterns.iter().map(String::as_str).collect::<Vec<_>>().join("|")),
    }
}

/// Returns a pattern that matches exactly `name`.
fn quoted(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for c in name.chars() {
        if !(c.is_alphanumeric() || matches!(c, '-' | '_')) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::topology::queue;

    fn user(role: &str) -> UserPermissions {
        Permissions::of_fleet("n.").of_role(role).cloned().unwrap()
    }

    #[test]
    fn a_worker_reads_its_queue_and_writes_its_messages_retries_and_dead_letters() {
        let splitter = user("splitter");
        assert_eq!(splitter.user, "n.splitter");
        // The temporary queue receives pause and resume events.
        assert_eq!(splitter.configure, r"^amq\.gen-.*$");
        assert_eq!(splitter.read, r"^(amq\.gen-.*|n\.events|n\.splitter)$");
        assert_eq!(splitter.write, r"^(amq\.gen-.*|n\.dead|n\.retry|n\.work)$");
        let topics: Vec<_> = splitter.topics.iter().map(|t| (t.exchange.as_str(), t.write.as_str())).collect();
        let retry = r"^(n\.splitter\.retry\.0|n\.splitter\.retry\.1|n\.splitter\.retry\.2|n\.splitter\.retry\.3)$";
        let expected = [
            ("n.dead", r"^n\.splitter$"),
            ("n.events", NOTHING),
            ("n.retry", retry),
            ("n.work", r"^(batch-split\.v[0-9]+|ride-chunk\.v[0-9]+)$"),
        ];
        assert_eq!(topics, expected);
        let bound = splitter.topics.iter().filter(|topic| topic.read != NOTHING);
        let bound: Vec<_> = bound.map(|topic| (topic.exchange.as_str(), topic.read.as_str())).collect();
        assert_eq!(bound, [("n.events", r"^worker-control\.\#$")]);
    }

    #[test]
    fn a_scorer_answers_and_subscribes_to_events() {
        let scorer = user("scorer");
        assert_eq!(scorer.configure, r"^amq\.gen-.*$");
        assert_eq!(scorer.write, r"^(amq\.default|amq\.gen-.*|n\.dead|n\.work)$");
        assert_eq!(scorer.read, r"^(amq\.gen-.*|n\.events|n\.scorer)$");
        let events = scorer.topics.iter().find(|topic| topic.exchange == "n.events").unwrap();
        assert_eq!((events.write.as_str(), events.read.as_str()), ("^$", r"^(model-promoted\.\#|worker-control\.\#)$"));
        let work = scorer.topics.iter().find(|topic| topic.exchange == "n.work").unwrap();
        assert_eq!(work.write, r"^score-request\.v[0-9]+$");
    }

    #[test]
    fn a_weather_fetcher_answers_lookups_and_sends_score_requests_on_beside_its_work() {
        let fetcher = user("weather-fetcher");
        assert_eq!(fetcher.write, r"^(amq\.default|amq\.gen-.*|n\.dead|n\.retry|n\.rpc|n\.work)$");
        assert_eq!(fetcher.read, r"^(amq\.gen-.*|n\.events|n\.weather-fetcher|n\.weather-lookup)$");
        let dead = fetcher.topics.iter().find(|topic| topic.exchange == "n.dead").unwrap();
        assert_eq!(dead.write, r"^(n\.weather-fetcher|n\.weather-lookup)$");
        assert!(Permissions::of_fleet("n.").of_role("weather-lookup").is_none());
    }

    #[test]
    fn external_clients_reach_only_their_exchanges_and_queues() {
        let publisher = user("publisher");
        assert_eq!(publisher.write, r"^(amq\.gen-.*|n\.ingest)$");
        assert_eq!(publisher.read, r"^(amq\.gen-.*|n\.dead|n\.events)$");
        let client = user("client");
        assert_eq!((client.write.as_str(), client.read.as_str()), (r"^n\.rpc$", r"^amq\.gen-.*$"));
        let gateway = user("gateway");
        assert_eq!(gateway.configure, r"^amq\.gen-.*$");
        assert_eq!(gateway.write, r"^(amq\.gen-.*|n\.ingest|n\.rpc)$");
        let dead = queue::ALL.map(|name| format!(r"n\.{name}\.dead"));
        assert!(dead.iter().all(|name| gateway.read.contains(name)) && !gateway.read.contains(r"retry"), "{gateway:?}");
        let keys = |exchange: &str| gateway.topics.iter().find(|topic| topic.exchange == exchange).unwrap();
        assert_eq!(keys("n.ingest").write, r"^ride-batch\.v[0-9]+$");
        assert_eq!(keys("n.rpc").write, r"^(score-request\.v[0-9]+|weather-request\.v[0-9]+)$");
        assert_eq!((keys("n.dead").write.as_str(), keys("n.dead").read.as_str()), (NOTHING, "^.*$"));
    }

    #[test]
    fn a_scaler_has_no_permission() {
        let scaler = user("scaler");
        let patterns = [scaler.configure.as_str(), scaler.write.as_str(), scaler.read.as_str()];
        assert_eq!((patterns, scaler.tags, scaler.topics.len()), ([NOTHING; 3], ["management"].as_slice(), 0));
    }

    #[test]
    fn an_operator_has_the_whole_fleet_and_no_other_names() {
        let operator = user("operator");
        for name in [r"n\.work", r"n\.merger\.retry\.2", r"n\.scorer\.dead"] {
            for pattern in [&operator.configure, &operator.write, &operator.read] {
                assert!(pattern.contains(name), "{pattern}");
            }
        }
        assert!(!operator.configure.contains("default"));
    }

    #[test]
    fn special_characters_of_names_are_quoted() {
        assert_eq!(quoted("a-b_c.d#*"), r"a-b_c\.d\#\*");
        assert_eq!(any_of(&BTreeSet::new()), "^$");
    }
}
