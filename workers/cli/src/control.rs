//! `pause`, `resume` and `drain`.

use crate::{
    Failed, Session,
    arguments::{Drain, Pause},
};
use anyhow::{Context, anyhow};
use common::{
    message::WorkerControl,
    topology::{queue, retry_delays_of, retry_queue},
};
use gateway::management::Management;
use indicatif::HumanCount;
use object_store::{ObjectStoreExt, path::Path};
use records::{control, layout};
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

/// How often one looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The management API's figures of a queue are up to five seconds old, so that a message may be in one hand when the other is
/// looked at. It can pass four hands: what is said for so long is true of all of them.
const FIGURES_OLD: Duration = Duration::from_secs(21);

/// `pause`
pub(crate) async fn pause(session: &Session, options: &Pause) -> Result<(), Failed> {
    said(session, options, true).await
}

/// `resume`
pub(crate) async fn resume(session: &Session, options: &Pause) -> Result<(), Failed> {
    said(session, options, false).await
}

async fn said(session: &Session, options: &Pause, paused: bool) -> Result<(), Failed> {
    let client = Client::connect(session.broker()?.as_ref(), "wildrydes control").await?;
    let mut told = Vec::new();
    let mut left = Vec::new();
    for worker in &options.workers {
        let control = word(worker, paused, options.by.clone(), options.why.clone());
        say(session, &client, &control).await?;
        let heeded = heeded(&client, worker, paused, options.timeout).await?;
        if !session.shared.json {
            match (paused, heeded) {
                (true, Some(0)) => {
                    println!("{worker} is paused: no process reads its queue. `wildrydes resume {worker}` ends it")
                }
                (false, Some(0)) => println!("{worker} is not paused; no process of it runs at the moment"),
                (false, Some(readers)) => println!("{worker} goes on, {} its queue", reading(readers)),
                (_, _) => {}
            }
        }
        if paused && heeded.is_none() {
            left.push(worker.as_str());
        }
        told.push(json!({ "worker": worker, "paused": paused, "heeded": heeded.is_some(), "control": control }));
    }
    client.close().await;
    if session.shared.json {
        println!("{}", serde_json::to_string_pretty(&told)?);
    }
    match left.is_empty() {
        true => Ok(()),
        false => Err(Failed::Broken(anyhow!(
            "{}: a process reads its queue, or has not finished what it began, after {} s. The word is kept and holds for \
             every process that starts; one that does not heed it is older than this command or uses another object store \
             than {}",
            left.join(", "),
            options.timeout.as_secs(),
            session.store_place()?
        ))),
    }
}

fn reading(processes: u64) -> String {
    match processes {
        1 => "1 process reads".to_owned(),
        more => format!("{more} processes read"),
    }
}

fn word(worker: &str, paused: bool, by: Option<String>, why: Option<String>) -> WorkerControl {
    let at = host::now().strftime("%FT%TZ").to_string();
    WorkerControl { worker: worker.to_owned(), paused, by: by.unwrap_or_else(somebody), at, why }
}

/// This user on this machine.
pub(crate) fn somebody() -> String {
    let told = |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let user = told(&["USER", "LOGNAME", "USERNAME"]).unwrap_or_else(|| "somebody".to_owned());
    let file = || std::fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned());
    match told(&["HOSTNAME"]).or_else(file) {
        Some(host) => format!("{user}@{host}"),
        None => user,
    }
}

/// The store first: a process that starts in between sees it there, one that runs hears of it next. Whoever may not say it
/// leaves no word behind.
async fn say(session: &Session, client: &Client, control: &WorkerControl) -> Result<(), Failed> {
    let store = session.store()?;
    let before = control::read(&store, &control.worker).await?;
    control::write(&store, control).await?;
    let Err(error) = client.publish(control).await else { return Ok(()) };
    if !matches!(error, ClientError::Publish(PublishError::Denied { .. })) {
        let kept = "the word is kept for processes that start; those that run could not be told, try again";
        return Err(Failed::Broken(anyhow::Error::new(error).context(kept)));
    }
    match before {
        Some(before) => control::write(&store, &before).await?,
        None => store.delete(&Path::from(layout::control(&control.worker))).await.context("taking the word back")?,
    }
    Err(Failed::Broken(anyhow::Error::new(error).context("only an operator may say so; nothing was changed")))
}

/// Waits until the queue has no consumers, or some: how many, unless it took too long.
async fn heeded(client: &Client, worker: &str, paused: bool, timeout: Duration) -> Result<Option<u64>, Failed> {
    let started = Instant::now();
    loop {
        let consumers = client.depth(worker).await?.consumers;
        if paused == (consumers == 0) {
            return Ok(Some(consumers));
        }
        // Nobody may be running: no reason to wait for long.
        let enough = if paused { timeout } else { timeout.min(Duration::from_secs(5)) };
        if started.elapsed() > enough {
            return Ok((!paused).then_some(consumers));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is under way between the stages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct InFlight {
    /// Queues with messages that wait, the splitter's left aside.
    waiting: Vec<(String, u64)>,
    /// Queues with messages that wait for another attempt.
    retries: Vec<(String, u64)>,
    /// Queues with messages that a worker has in hand; `None` where nobody can tell.
    in_hand: Option<Vec<(String, u64)>>,
    /// Queues with messages that wait and nobody to read them.
    unread: Vec<String>,
    /// Batches that wait at the splitter.
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
        for (what, queues) in [("waiting", &self.waiting), ("for another attempt", &self.retries), ("in hand", in_hand)]
        {
            parts.extend(queues.iter().map(|(queue, messages)| format!("{queue} {messages} {what}")));
        }
        if !self.unread.is_empty() {
            parts.push(format!(
                "and no process reads {}: start it, or `wildrydes resume` it if it is paused",
                self.unread.join(" or ")
            ));
        }
        f.write_str(&if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") })
    }
}

/// The queues a batch passes through. Scores come and go all the while.
const STAGES: [&str; 4] = [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER, queue::TRAINER];

async fn in_flight(client: &Client) -> Result<InFlight, Failed> {
    let mut found = InFlight::default();
    for stage in STAGES {
        let Depth { messages, consumers, .. } = client.depth(stage).await?;
        match stage {
            queue::SPLITTER => found.batches += messages,
            _ if messages > 0 => found.waiting.push((stage.to_owned(), messages)),
            _ => {}
        }
        let mut held = messages;
        for index in 0..retry_delays_of(stage).len() {
            let messages = client.depth(&retry_queue(stage, index)).await?.messages;
            match (stage, messages) {
                (_, 0) => {}
                // It comes back to a queue that nobody reads.
                (queue::SPLITTER, messages) => found.batches += messages,
                (_, messages) => {
                    held += messages;
                    found.retries.push((retry_queue(stage, index), messages));
                }
            }
        }
        if stage != queue::SPLITTER && held > 0 && consumers == 0 {
            found.unread.push(stage.to_owned());
        }
    }
    Ok(found)
}

/// What workers have in hand, as the management API says it; `None` while it has no figures of a young queue.
async fn in_hand(management: &Management, namespace: &str) -> Result<Option<Vec<(String, u64)>>, String> {
    let mut found = Vec::new();
    for queue in management.queues().await? {
        let name = queue["name"].as_str().and_then(|name| name.strip_prefix(namespace)).unwrap_or_default();
        let unacked = queue["messages_unacknowledged"].as_u64();
        if STAGES.contains(&name) {
            match unacked {
                None => return Ok(None),
                Some(0) => {}
                Some(unacked) => found.push((name.to_owned(), unacked)),
            }
        }
    }
    Ok(Some(found))
}

/// `drain`
pub(crate) async fn drain(session: &Session, options: &Drain) -> Result<(), Failed> {
    let management = Management::new(&session.section::<BrokerSettings>()?).map_err(Failed::Misused)?;
    let namespace = session.section::<BrokerSettings>()?.namespace;
    let unseen = in_hand(&management, &namespace).await.err();
    if let Some(why) = unseen.as_ref().filter(|_| options.quiet_for.is_none()) {
        return Err(Failed::Broken(anyhow!(
            "what workers have in hand is told by the management API alone, and: {why}. Set broker.management_url, or have \
             it count as drained when all queues were empty for a while, longer than the longest handler, as in --quiet-for 10m. \
             Nothing was paused"
        )));
    }
    let client = Client::connect(session.broker()?.as_ref(), "wildrydes drain").await?;
    let splitter = queue::SPLITTER;
    let why = options.why.clone().or_else(|| Some("drain".to_owned()));
    say(session, &client, &word(splitter, true, None, why)).await?;
    let started = Instant::now();
    let needed = if unseen.is_none() { FIGURES_OLD } else { options.quiet_for.unwrap_or(FIGURES_OLD) };
    let mut empty_since: Option<Instant> = None;
    let mut told = String::new();
    loop {
        let mut now = in_flight(&client).await?;
        if unseen.is_none() {
            now.in_hand = in_hand(&management, &namespace).await.ok().flatten();
        }
        let readers = client.depth(splitter).await?.consumers;
        let told_in_hand = unseen.is_some() || now.in_hand.is_some();
        empty_since = match now.is_empty() && readers == 0 && told_in_hand {
            true => empty_since.or_else(|| Some(Instant::now())),
            false => None,
        };
        if empty_since.is_some_and(|since| since.elapsed() >= needed) {
            client.close().await;
            return drained(session, &now);
        }
        let line = match readers {
            0 => format!("in flight: {now}"),
            readers => format!("in flight: {now}; {} the splitter's queue still", reading(readers)),
        };
        if line != told && !session.shared.json {
            eprintln!("{line}");
            told = line;
        }
        if options.timeout.is_some_and(|timeout| started.elapsed() > timeout) {
            client.close().await;
            return Err(Failed::Broken(anyhow!(
                "not drained after {} s, in flight: {now}. The splitter stays paused: go on with `wildrydes drain`, or \
                 `wildrydes resume splitter`",
                started.elapsed().as_secs()
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn drained(session: &Session, now: &InFlight) -> Result<(), Failed> {
    match session.shared.json {
        true => println!(
            "{}",
            json!({ "drained": true, "batches_waiting": now.batches, "in_hand_seen": now.in_hand.is_some() })
        ),
        false => println!(
            "drained: nothing is in flight. {} batches wait at the splitter; `wildrydes resume splitter` lets them go on",
            HumanCount(now.batches)
        ),
    }
    Ok(())
}
