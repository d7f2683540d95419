//! `pause`, `resume` and `drain`.

use crate::{
    arguments::{Drain, Pause},
    output::print_json,
    session::{Failed, Session, user_and_host},
};
use anyhow::{Context, anyhow};
use common::{
    message::WorkerControl,
    topology::{queue, retry_delays_of, retry_queue},
};
use gateway::management::Management;
use indicatif::HumanCount;
use records::control;
use runtime::{
    broker::{Depth, PublishError},
    client::{Client, ClientError},
    config::BrokerSettings,
    host,
};
use serde::Serialize;
use serde_json::json;
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// Time between two inspections of the queues.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// The management API's figures of a queue are up to five seconds old, so a message may move between two stages while they are
/// read. It passes four stages: if all figures are zero for this long, no message is in flight.
const QUIET_FOR: Duration = Duration::from_secs(21);

/// `pause`
pub(crate) async fn pause(session: &Session, options: &Pause) -> Result<(), Failed> {
    set_paused(session, options, true).await
}

/// `resume`
pub(crate) async fn resume(session: &Session, options: &Pause) -> Result<(), Failed> {
    set_paused(session, options, false).await
}

async fn set_paused(session: &Session, options: &Pause, paused: bool) -> Result<(), Failed> {
    let client = Client::connect(session.broker()?.as_ref(), "wildrydes control").await?;
    let mut results = Vec::new();
    let mut unfinished = Vec::new();
    for worker in &options.workers {
        let control = control_message(worker, paused, options.by.clone(), options.why.clone());
        announce(session, &client, &control).await?;
        let readers = wait_for_readers(&client, worker, paused, options.timeout).await?;
        if !session.shared.json {
            match (paused, readers) {
                (true, Some(0)) => {
                    println!("{worker} is paused: no process reads its queue. `wildrydes resume {worker}` ends it")
                }
                (false, Some(0)) => println!("{worker} is not paused; no process of it runs at the moment"),
                (false, Some(readers)) => println!("{worker} is resumed: {} its queue", processes_read(readers)),
                (_, _) => {}
            }
        }
        if paused && readers.is_none() {
            unfinished.push(worker.as_str());
        }
        results.push(json!({ "worker": worker, "paused": paused, "heeded": readers.is_some(), "control": control }));
    }
    client.close().await;
    if session.shared.json {
        print_json(&results)?;
    }
    match unfinished.is_empty() {
        true => Ok(()),
        false => Err(Failed::Broken(anyhow!(
            "{}: a process still reads its queue, or has messages in hand, after {} s. The pause is stored and holds for every \
             process that starts; a process that ignores it is older than this command or uses another object store than {}",
            unfinished.join(", "),
            options.timeout.as_secs(),
            session.store_location()?
        ))),
    }
}

fn processes_read(processes: u64) -> String {
    match processes {
        1 => "1 process reads".to_owned(),
        more => format!("{more} processes read"),
    }
}

fn control_message(worker: &str, paused: bool, by: Option<String>, why: Option<String>) -> WorkerControl {
    let at = host::now().strftime("%FT%TZ").to_string();
    WorkerControl { worker: worker.to_owned(), paused, by: by.unwrap_or_else(user_and_host), at, why }
}

/// Writes the control message to the store, then publishes it: a process that starts in between reads it from the store, a
/// running one receives it next. Restores the store if the user may not publish it.
async fn announce(session: &Session, client: &Client, control: &WorkerControl) -> Result<(), Failed> {
    let store = session.store()?;
    let before = control::read(&store, &control.worker).await?;
    control::write(&store, control).await?;
    let Err(error) = client.publish(control).await else { return Ok(()) };
    if !matches!(error, ClientError::Publish(PublishError::Denied { .. })) {
        let stored = "the change is stored for processes that start; running ones could not be notified: try again";
        return Err(Failed::Broken(anyhow::Error::new(error).context(stored)));
    }
    match before {
        Some(before) => control::write(&store, &before).await?,
        None => control::remove(&store, &control.worker).await.context("reverting the change")?,
    }
    Err(Failed::Broken(anyhow::Error::new(error).context("only an operator may do this; nothing was changed")))
}

/// Waits until the queue has no consumers (`paused`) or some. Returns their number; `None` if a pause takes too long.
async fn wait_for_readers(
    client: &Client,
    worker: &str,
    paused: bool,
    timeout: Duration,
) -> Result<Option<u64>, Failed> {
    let started = Instant::now();
    loop {
        let consumers = client.depth(worker).await?.consumers;
        if paused == (consumers == 0) {
            return Ok(Some(consumers));
        }
        // No process may be running: do not wait for long.
        let deadline = if paused { timeout } else { timeout.min(Duration::from_secs(5)) };
        if started.elapsed() > deadline {
            return Ok((!paused).then_some(consumers));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Messages in flight between the stages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct InFlight {
    /// Queues with waiting messages, except the splitter's.
    waiting: Vec<(String, u64)>,
    /// Retry queues with messages.
    retries: Vec<(String, u64)>,
    /// Queues with unacknowledged messages; `None` if unknown.
    in_hand: Option<Vec<(String, u64)>>,
    /// Queues with messages and without a reader.
    unread: Vec<String>,
    /// Messages in the splitter's queue and its retry queues.
    batches: u64,
}

impl InFlight {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.retries.is_empty() && self.in_hand.as_ref().is_none_or(Vec::is_empty)
    }
}

impl fmt::Display for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = Vec::new();
        let in_hand = self.in_hand.as_ref().unwrap_or(&none);
        let mut parts = Vec::new();
        for (what, queues) in [("waiting", &self.waiting), ("to be retried", &self.retries), ("in hand", in_hand)] {
            parts.extend(queues.iter().map(|(queue, messages)| format!("{queue} {messages} {what}")));
        }
        if !self.unread.is_empty() {
            parts.push(format!(
                "and no process reads {}: start the worker, or `wildrydes resume` it if it is paused",
                self.unread.join(" or ")
            ));
        }
        f.write_str(&if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") })
    }
}

/// The queues that a batch passes through.
const STAGES: [&str; 4] = [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER, queue::TRAINER];

async fn in_flight(client: &Client) -> Result<InFlight, Failed> {
    let mut in_flight = InFlight::default();
    for stage in STAGES {
        let Depth { messages, consumers, .. } = client.depth(stage).await?;
        match stage {
            queue::SPLITTER => in_flight.batches += messages,
            _ if messages > 0 => in_flight.waiting.push((stage.to_owned(), messages)),
            _ => {}
        }
        let mut held = messages;
        for index in 0..retry_delays_of(stage).len() {
            let messages = client.depth(&retry_queue(stage, index)).await?.messages;
            match (stage, messages) {
                (_, 0) => {}
                // The paused splitter does not read what returns to its queue.
                (queue::SPLITTER, messages) => in_flight.batches += messages,
                (_, messages) => {
                    held += messages;
                    in_flight.retries.push((retry_queue(stage, index), messages));
                }
            }
        }
        if stage != queue::SPLITTER && held > 0 && consumers == 0 {
            in_flight.unread.push(stage.to_owned());
        }
    }
    Ok(in_flight)
}

/// Reads from the management API what workers have in hand; `None` while it has no figures for a new queue.
async fn in_hand(management: &Management, namespace: &str) -> Result<Option<Vec<(String, u64)>>, String> {
    let mut in_hand = Vec::new();
    for queue in management.queues().await? {
        let name = queue["name"].as_str().and_then(|name| name.strip_prefix(namespace)).unwrap_or_default();
        let unacked = queue["messages_unacknowledged"].as_u64();
        if STAGES.contains(&name) {
            match unacked {
                None => return Ok(None),
                Some(0) => {}
                Some(unacked) => in_hand.push((name.to_owned(), unacked)),
            }
        }
    }
    Ok(Some(in_hand))
}

/// `drain`
pub(crate) async fn drain(session: &Session, options: &Drain) -> Result<(), Failed> {
    let management = Management::new(&session.section::<BrokerSettings>()?).map_err(Failed::Misused)?;
    let namespace = session.section::<BrokerSettings>()?.namespace;
    let unavailable = in_hand(&management, &namespace).await.err();
    if let Some(why) = unavailable.as_ref().filter(|_| options.quiet_for.is_none()) {
        return Err(Failed::Broken(anyhow!(
            "only the management API knows what workers have in hand, but: {why}. Set broker.management_url, or accept queues as \
             drained that were empty for longer than the longest handler, as in --quiet-for 10m. Nothing was paused"
        )));
    }
    let client = Client::connect(session.broker()?.as_ref(), "wildrydes drain").await?;
    let splitter = queue::SPLITTER;
    let why = options.why.clone().or_else(|| Some("drain".to_owned()));
    announce(session, &client, &control_message(splitter, true, None, why)).await?;
    let started = Instant::now();
    let quiet_for = if unavailable.is_none() { QUIET_FOR } else { options.quiet_for.unwrap_or(QUIET_FOR) };
    let mut empty_since: Option<Instant> = None;
    let mut last_line = String::new();
    loop {
        let mut now = in_flight(&client).await?;
        if unavailable.is_none() {
            now.in_hand = in_hand(&management, &namespace).await.ok().flatten();
        }
        let readers = client.depth(splitter).await?.consumers;
        let is_known = unavailable.is_some() || now.in_hand.is_some();
        empty_since = match now.is_empty() && readers == 0 && is_known {
            true => empty_since.or_else(|| Some(Instant::now())),
            false => None,
        };
        if empty_since.is_some_and(|since| since.elapsed() >= quiet_for) {
            client.close().await;
            return drained(session, &now);
        }
        let line = match readers {
            0 => format!("in flight: {now}"),
            readers => format!("in flight: {now}; {} the splitter's queue still", processes_read(readers)),
        };
        if line != last_line && !session.shared.json {
            eprintln!("{line}");
            last_line = line;
        }
        if options.timeout.is_some_and(|timeout| started.elapsed() > timeout) {
            client.close().await;
            return Err(Failed::Broken(anyhow!(
                "not drained after {} s, in flight: {now}. The splitter stays paused: continue with `wildrydes drain`, or end the \
                 pause with `wildrydes resume splitter`",
                started.elapsed().as_secs()
            )));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

fn drained(session: &Session, now: &InFlight) -> Result<(), Failed> {
    match session.shared.json {
        true => println!(
            "{}",
            json!({ "drained": true, "batches_waiting": now.batches, "in_hand_seen": now.in_hand.is_some() })
        ),
        false => println!(
            "drained: nothing is in flight. {} batches wait at the splitter; `wildrydes resume splitter` lets them continue",
            HumanCount(now.batches)
        ),
    }
    Ok(())
}
