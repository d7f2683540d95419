//! Who may do what on the broker: the table of the runbook (`deploy/README.md`, *Who is trusted with what*), which is written
//! independently of the patterns of the permissions.
//!
//! The tests here compare the patterns of `wildrydes topology users` with the table by what they allow; the tests in `security`
//! compare a real broker with it.

use common::{
    exchange,
    message::ROUTES,
    permissions::{Permissions, UserPermissions},
    topology::{self, PROCESSES, Topology, process_of, queue, retry_queue},
};
use regex::Regex;
use std::sync::LazyLock;

/// What a user may read, and therefore remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// This work queue.
    Queue(&'static str),
    /// Copies of this event, from its subscription on.
    Event(&'static str),
    /// Its own temporary queues, without a binding to any exchange.
    Answers,
    /// Copies of every event, from its subscription on.
    AllEvents,
    /// Copies of every dead letter, from its subscription on.
    NewDeadLetters,
    /// Every queue of dead letters.
    DeadLetterQueues,
    /// Every queue, and copies of every message.
    Everything,
}

/// What a user may publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// This message, in any version.
    Message(&'static str),
    /// Batches, with any routing key.
    Batches,
    /// To the retry queues of its work queues.
    Retries,
    /// To the dead-letter queues of its work queues.
    DeadLetters,
    /// To any queue, through the default exchange.
    AnyQueue,
    /// Everything; only this user declares and deletes exchanges and queues.
    Everything,
}

/// One user: a row of the table.
#[derive(Debug)]
pub struct Trust {
    /// Name of a worker or of a client.
    pub role: &'static str,
    /// What it may read. Every worker also receives worker-control events.
    pub reads: Vec<Reads>,
    /// What it may publish.
    pub writes: Vec<Writes>,
    /// What its holder could do at worst.
    pub worst: &'static str,
}

/// Every user, in the order of the runbook.
pub static TRUST: LazyLock<Vec<Trust>> = LazyLock::new(|| {
    let runbook = include_str!("../../deploy/README.md");
    let (_, section) = runbook.split_once("### Who is trusted with what").expect("the section");
    let table = section.lines().skip_while(|line| !line.starts_with("| user |"));
    table.skip(2).take_while(|line| line.starts_with('|')).map(Trust::of_row).collect()
});

/// Returns the name between the backticks.
fn quoted(phrase: &'static str) -> &'static str {
    phrase.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).unwrap_or_else(|| panic!("{phrase:?} is unknown"))
}

/// Returns the phrases of a cell; none if it says `nothing`.
fn phrases(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split(", ").filter(|phrase| *phrase != "nothing")
}

impl Reads {
    fn of_phrase(phrase: &'static str) -> Self {
        match phrase {
            "its answers" => Self::Answers,
            "all events" => Self::AllEvents,
            "all dead letters from then on" => Self::NewDeadLetters,
            "every `<queue>.dead`" => Self::DeadLetterQueues,
            "everything of the fleet" => Self::Everything,
            name if queue::ALL.contains(&quoted(name)) => Self::Queue(quoted(name)),
            name => Self::Event(quoted(name)),
        }
    }
}

impl Writes {
    fn of_phrase(phrase: &'static str) -> Self {
        match phrase {
            "anything at `ingest`" => Self::Batches,
            "its retries" => Self::Retries,
            "its dead letters" => Self::DeadLetters,
            "answers: **into any queue**" => Self::AnyQueue,
            "everything of the fleet; it alone makes and removes exchanges and queues" => Self::Everything,
            name => Self::Message(quoted(name)),
        }
    }
}

impl Trust {
    fn of_row(row: &'static str) -> Self {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [role, reads, writes, worst] = cells[..] else { panic!("{row}: expected four cells") };
        Self {
            role: quoted(role),
            reads: phrases(reads).map(Reads::of_phrase).collect(),
            writes: phrases(writes).map(Writes::of_phrase).collect(),
            worst,
        }
    }

    /// Returns whether it is a worker's user.
    pub fn is_worker(&self) -> bool {
        PROCESSES.contains(&self.role)
    }

    /// Returns whether it may declare temporary queues.
    pub fn listens(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Returns whether it may declare and delete exchanges and queues, other than queues that the broker names.
    pub fn declares(&self) -> bool {
        self.writes.contains(&Writes::Everything)
    }

    /// Returns whether it may read and purge the queue of that name (without namespace).
    pub fn reads_queue(&self, name: &str) -> bool {
        self.reads.iter().any(|reads| match reads {
            Reads::Queue(own) => *own == name,
            Reads::DeadLetterQueues => name.ends_with(".dead"),
            Reads::Everything => true,
            Reads::Event(_) | Reads::Answers | Reads::AllEvents | Reads::NewDeadLetters => false,
        })
    }

    /// Returns whether it may bind a temporary queue to the exchange with that key.
    pub fn binds(&self, exchange: &str, key: &str) -> bool {
        let pauses = self.is_worker() && (exchange, key) == (exchange::EVENTS, topology::CONTROL_PATTERN);
        pauses
            || self.reads.iter().any(|reads| match reads {
                Reads::Event(name) => (exchange, key) == (exchange::EVENTS, format!("{name}.#").as_str()),
                Reads::AllEvents => exchange == exchange::EVENTS,
                Reads::NewDeadLetters => exchange == exchange::DEAD,
                Reads::Everything => true,
                Reads::Queue(_) | Reads::Answers | Reads::DeadLetterQueues => false,
            })
    }

    /// Returns whether it may publish to the exchange with that routing key; keys that are names of queues have no namespace.
    pub fn publishes(&self, exchange: &str, key: &str) -> bool {
        let own = || queue::ALL.into_iter().filter(|worker| process_of(worker) == self.role);
        self.writes.iter().any(|writes| match writes {
            Writes::Message(name) => {
                let version = key.strip_prefix(name).and_then(|rest| rest.strip_prefix(".v"));
                let is_version = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                exchange == exchange_of(name, self.role) && version.is_some_and(is_version)
            }
            Writes::Batches => exchange == exchange::INGEST,
            Writes::Retries => {
                let retries = |worker: &'static str| 0..topology::retry_delays_of(worker).len();
                let mut names = own().flat_map(|worker| retries(worker).map(move |retry| retry_queue(worker, retry)));
                exchange == exchange::RETRY && names.any(|name| name == key)
            }
            Writes::DeadLetters => exchange == exchange::DEAD && own().any(|worker| worker == key),
            Writes::AnyQueue => exchange.is_empty(),
            Writes::Everything => true,
        })
    }
}

/// Where a user publishes a message to: a worker may have a route of its own.
fn exchange_of(message: &str, role: &str) -> &'static str {
    let routes = || ROUTES.iter().filter(|route| route.kind.name == message);
    let own = routes().find(|route| queue::ALL.contains(&route.sender) && process_of(route.sender) == role);
    own.or_else(|| routes().next()).expect("a message").exchange
}

/// The trust in the user of that role.
///
/// # Panics
/// Without such a role.
pub fn of_role(role: &str) -> &'static Trust {
    TRUST.iter().find(|trust| trust.role == role).unwrap_or_else(|| panic!("nobody is called {role}"))
}

/// Returns whether a pattern of RabbitMQ allows a name; an empty pattern allows none.
fn allows(pattern: &str, name: &str) -> bool {
    !pattern.is_empty() && Regex::new(pattern).expect("a pattern").is_match(name)
}

/// Returns whether the topic permissions allow the user that key at that exchange.
fn topic_allows(user: &UserPermissions, exchange: &str, key: &str, write: bool) -> bool {
    let limit = user.topics.iter().find(|topic| topic.exchange == exchange);
    limit.is_none_or(|topic| allows(if write { &topic.write } else { &topic.read }, key))
}

/// The differences between what the permissions of a fleet allow and [`TRUST`].
pub fn differences(namespace: &str) -> Vec<String> {
    let permissions = Permissions::of_fleet(namespace);
    let topology = Topology::of_fleet("");
    let roles: Vec<&str> = permissions.users.iter().map(|user| user.role).collect();
    let mut wrong = Vec::new();
    if !TRUST.iter().map(|trust| trust.role).eq(roles.iter().copied()) {
        wrong.push(format!("the users are {roles:?}"));
    }
    let mut messages: Vec<String> = topology.publications.iter().map(|of| format!("{}.v1", of.message)).collect();
    messages.extend(
        ["ride-chunk.v12", "ride-chunk.v", "ride-chunk.v1.x", "x.ride-chunk.v1", "rides", ""].map(str::to_owned),
    );
    let mut queues: Vec<&str> = topology.queues.iter().map(|queue| queue.name.as_str()).collect();
    queues.push("another");
    let mut bindings: Vec<&str> = topology.subscriptions.iter().map(|of| of.routing_key.as_str()).collect();
    bindings.extend(["#", "model-promoted.v1", "dataset-ready.#", queue::SPLITTER]);
    for user in &permissions.users {
        let trust = of_role(user.role);
        let mut compare = |what: String, allowed: bool, trusted: bool| {
            if allowed != trusted {
                wrong.push(format!("{}: {what}: allowed {allowed}, trusted {trusted}", user.role));
            }
        };
        for name in &queues {
            let (full, of_the_fleet) = (format!("{namespace}{name}"), *name != "another");
            compare(format!("read {name}"), allows(&user.read, &full), of_the_fleet && trust.reads_queue(name));
            compare(format!("declare {name}"), allows(&user.configure, &full), of_the_fleet && trust.declares());
        }
        for exchange in topology.exchanges.iter().map(|exchange| exchange.name.as_str()) {
            let full = format!("{namespace}{exchange}");
            let by_queue = [exchange::RETRY, exchange::DEAD].contains(&exchange);
            compare(format!("declare {exchange}"), allows(&user.configure, &full), trust.declares());
            let keys: Vec<String> = match by_queue {
                true => queues.iter().map(|name| (*name).to_owned()).collect(),
                false => messages.clone(),
            };
            for key in keys {
                let on_wire = if by_queue { format!("{namespace}{key}") } else { key.clone() };
                let allowed = allows(&user.write, &full) && topic_allows(user, &full, &on_wire, true);
                compare(format!("publish {key:?} at {exchange}"), allowed, trust.publishes(exchange, &key));
            }
            for key in &bindings {
                let allowed = allows(&user.read, &full) && topic_allows(user, &full, key, false);
                compare(format!("bind {key:?} to {exchange}"), allowed, trust.binds(exchange, key));
            }
        }
        compare("the default exchange".to_owned(), allows(&user.write, "amq.default"), trust.publishes("", "any"));
        compare("temporary queues".to_owned(), allows(&user.configure, "amq.gen-x"), trust.listens());
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::reply_address::is_reply_address;

    #[test]
    fn the_runbook_names_the_worst_that_each_user_can_do() {
        assert!(TRUST.len() > PROCESSES.len());
        for Trust { role, worst, .. } in TRUST.iter() {
            assert!(worst.len() > 10, "{role}");
        }
    }

    #[test]
    fn the_printed_permissions_allow_exactly_the_listed_operations() {
        for namespace in ["", "n.", "a-fleet_7."] {
            let wrong = differences(namespace);
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
    }

    /// A worker answers any client, so its user may publish to any queue. Only workers have such a user, and they answer to no
    /// queue of the fleet.
    #[test]
    fn users_of_the_default_exchange_answer_to_reply_addresses_only() {
        for trust in TRUST.iter().filter(|trust| trust.writes.contains(&Writes::AnyQueue)) {
            let answers = |worker: &&str| process_of(worker) == trust.role && topology::holds_requests(worker);
            assert!(queue::ALL.iter().any(answers), "{} answers nobody", trust.role);
        }
        for name in Topology::of_fleet("").queues.into_iter().map(|queue| queue.name) {
            assert!(!is_reply_address(&name), "{name}");
        }
    }
}
