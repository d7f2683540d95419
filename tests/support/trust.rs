//! Who may do what on the broker, written independently of the patterns of the permissions.
//!
//! The runbook's table (`deploy/README.md`, *Who is trusted with what*) describes the same for people. The tests here compare
//! both with this file: the table word by word, and the patterns of `wildrydes topology users` by what they allow. The tests in
//! `security` compare a real broker with it.

use common::{
    exchange,
    permissions::{Permissions, UserPermissions},
    topology::{self, PROCESSES, Topology, process_of, queue, retry_queue},
};
use regex::Regex;

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

/// One user.
#[derive(Debug)]
pub struct Trust {
    /// Name of a worker or of a client.
    pub role: &'static str,
    /// What it may read. Every worker also receives worker-control events.
    pub reads: &'static [Reads],
    /// What it may publish.
    pub writes: &'static [Writes],
}

/// Every user, in the order of the runbook.
pub const TRUST: [Trust; 9] = {
    use Reads::{AllEvents, Answers, DeadLetterQueues, Event, NewDeadLetters, Queue};
    use Writes::{AnyQueue, Batches, DeadLetters, Message, Retries};
    [
        Trust {
            role: "splitter",
            reads: &[Queue("splitter")],
            writes: &[Message("ride-chunk"), Message("batch-split"), Retries, DeadLetters],
        },
        Trust {
            role: "weather-fetcher",
            reads: &[Queue("weather-fetcher"), Queue("weather-lookup")],
            writes: &[Message("enriched-chunk"), Retries, DeadLetters, AnyQueue],
        },
        Trust { role: "merger", reads: &[Queue("merger")], writes: &[Message("dataset-ready"), Retries, DeadLetters] },
        Trust {
            role: "trainer",
            reads: &[Queue("trainer")],
            writes: &[Message("model-promoted"), Message("model-rejected"), Retries, DeadLetters],
        },
        Trust { role: "scorer", reads: &[Queue("scorer"), Event("model-promoted")], writes: &[DeadLetters, AnyQueue] },
        Trust { role: "publisher", reads: &[AllEvents, NewDeadLetters], writes: &[Batches] },
        Trust { role: "client", reads: &[Answers], writes: &[Message("score-request"), Message("weather-request")] },
        Trust {
            role: "gateway",
            reads: &[Answers, AllEvents, NewDeadLetters, DeadLetterQueues],
            writes: &[Message("ride-batch"), Message("score-request"), Message("weather-request")],
        },
        Trust { role: "operator", reads: &[Reads::Everything], writes: &[Writes::Everything] },
    ]
};

impl Reads {
    fn words(self) -> String {
        match self {
            Self::Queue(name) | Self::Event(name) => format!("`{name}`"),
            Self::Answers => "its answers".to_owned(),
            Self::AllEvents => "all events".to_owned(),
            Self::NewDeadLetters => "all dead letters from then on".to_owned(),
            Self::DeadLetterQueues => "every `<queue>.dead`".to_owned(),
            Self::Everything => "everything of the fleet".to_owned(),
        }
    }
}

impl Writes {
    fn words(self) -> String {
        match self {
            Self::Message(name) => format!("`{name}`"),
            Self::Batches => "anything at `ingest`".to_owned(),
            Self::Retries => "its retries".to_owned(),
            Self::DeadLetters => "its dead letters".to_owned(),
            Self::AnyQueue => "answers: **into any queue**".to_owned(),
            Self::Everything => "everything of the fleet; it alone makes and removes exchanges and queues".to_owned(),
        }
    }
}

impl Trust {
    /// The first cells of its row in the runbook.
    pub fn row(&self) -> String {
        let reads: Vec<String> = self.reads.iter().map(|reads| reads.words()).collect();
        let writes: Vec<String> = self.writes.iter().map(|writes| writes.words()).collect();
        format!("| `{}` | {} | {} |", self.role, reads.join(", "), writes.join(", "))
    }

    /// Returns whether it is a worker's user.
    pub fn is_worker(&self) -> bool {
        PROCESSES.contains(&self.role)
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
                exchange == exchange_of(name) && version.is_some_and(is_version)
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

/// Where a message is published to.
fn exchange_of(message: &str) -> &'static str {
    match message {
        "ride-batch" => exchange::INGEST,
        "ride-chunk" | "batch-split" | "enriched-chunk" => exchange::WORK,
        "score-request" | "weather-request" => exchange::RPC,
        _ => exchange::EVENTS,
    }
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
    if roles != TRUST.each_ref().map(|trust| trust.role) {
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
        compare("temporary queues".to_owned(), allows(&user.configure, "amq.gen-x"), true);
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::reply_address::is_reply_address;

    /// Each row of the runbook's table has the permissions of this file, in its order, and names the worst consequence.
    #[test]
    fn the_runbook_lists_the_permissions_of_every_user() {
        let runbook = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/README.md");
        let runbook = std::fs::read_to_string(runbook).expect("the runbook");
        let (_, section) = runbook.split_once("### Who is trusted with what").expect("the section");
        let table =
            section.lines().skip_while(|line| !line.starts_with("| user |")).take_while(|line| line.starts_with('|'));
        let rows: Vec<&str> = table.skip(2).collect();
        for (trust, row) in TRUST.iter().zip(&rows) {
            let expected = trust.row();
            let worst = row.strip_prefix(&expected).unwrap_or_else(|| panic!("expected {expected}\nfound    {row}"));
            assert!(worst.trim_matches([' ', '|']).len() > 10, "{row} does not say what the worst of it is");
        }
        assert_eq!(rows.len(), TRUST.len(), "{rows:?}");
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
