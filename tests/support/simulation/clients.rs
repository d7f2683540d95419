//! The fleet's clients: a publisher, which repeats each batch until it is confirmed, and a client that requests scores and
//! weather.

use super::{
    broker::SimulatedBroker,
    input::{self, Input, Submission},
    promises,
    store::SimulatedStore,
    world::{Process, World},
};
use common::{
    message::{ScoreRequest, ScoreRide, Units},
    outcome::Outgoing,
};
use records::Store;
use runtime::{Broker, client::Client};
use std::{sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};
use tokio::task::JoinSet;

/// Longer than anything takes once there are no faults.
const SETTLED_WITHIN: Duration = Duration::from_secs(72 * 3_600);

/// Starts the clients, which end by themselves.
pub fn start(world: &Arc<World>, input: &Input) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for (number, submission) in input.submissions.iter().enumerate() {
        let process = Process::new(world, "publisher", format!("publisher.{number}"), false);
        clients.spawn(publish(process, submission.clone()));
    }
    let process = Process::new(world, "asker", "asker".to_owned(), false);
    clients.spawn(ask_now_and_then(process));
    clients
}

/// Waits for the clients, then for everything they started. Returns `false` if the fleet does not come to rest.
pub async fn until_quiet(world: &Arc<World>, mut clients: JoinSet<()>) -> bool {
    while let Ok(Some(ended)) = tokio::time::timeout(SETTLED_WITHIN, clients.join_next()).await {
        ended.expect("a client does not fail");
    }
    world.calm_down();
    let deadline = world.elapsed() + SETTLED_WITHIN;
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let left: Vec<_> = world.core.unfinished().into_iter().filter(|(queue, _)| !queue.ends_with(".dead")).collect();
        if left.is_empty() && world.late.load(SeqCst) == 0 {
            break;
        }
        if world.elapsed() > deadline || world.is_overrun() || !clients.is_empty() {
            world.break_promise(format!("1: does not come to rest: {left:?}"));
            return false;
        }
    }
    // Workers sweep every hour.
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    let process = Process::new(world, "asker", "asker.last".to_owned(), false);
    let answered = ask(&process, 0, Duration::from_secs(300)).await;
    if !answered {
        world.break_promise("5: with everything at rest, nobody answers a score request".to_owned());
    }
    if !ask_for_weather(&process, 0, Duration::from_secs(300)).await {
        world.break_promise("5: with everything at rest, nobody answers a weather request".to_owned());
    }
    true
}

async fn publish(process: Arc<Process>, submission: Submission) {
    let world = &process.world;
    tokio::time::sleep(world.moment(world.plan.busy)).await;
    let store: Store = Arc::new(SimulatedStore::new(&process));
    loop {
        let done = async {
            input::upload(&store, &submission).await.map_err(|error| error.to_string())?;
            publish_once(&process, submission.message.clone()).await
        };
        match done.await {
            Ok(()) => break,
            Err(why) => process.tell(format_args!("{} not confirmed: {why}", submission.name)),
        }
        tokio::time::sleep(world.moment(Duration::from_secs(3))).await;
    }
    process.tell(format_args!("{} submitted", submission.name));
    if !world.plan.rates.is_empty() && world.below(3) == 0 {
        world.publish_later(submission.message);
    }
}

async fn publish_once(process: &Arc<Process>, message: Outgoing) -> Result<(), String> {
    let connection = SimulatedBroker(Arc::clone(process)).connect("publisher").await.map_err(|e| e.to_string())?;
    connection.declare().await.map_err(|error| error.to_string())?;
    let publisher = connection.publisher().await.map_err(|error| error.to_string())?;
    publisher.publish(message).await.map_err(|error| error.to_string())
}

async fn ask_now_and_then(process: Arc<Process>) {
    let world = &process.world;
    for number in 1..=8 {
        tokio::time::sleep(world.moment(world.plan.busy / 4)).await;
        ask(&process, number, Duration::from_secs(30)).await;
        ask_for_weather(&process, number, Duration::from_secs(30)).await;
    }
}

/// The same for weather.
async fn ask_for_weather(process: &Arc<Process>, number: u64, deadline: Duration) -> bool {
    let broker = SimulatedBroker(Arc::clone(process));
    let answer = async {
        let client = Client::connect(&broker, "asker").await.map_err(|error| error.to_string())?;
        client.weather(&promises::weather_request(number), deadline).await.map_err(|error| error.to_string())
    };
    match answer.await {
        Ok(response) => {
            process
                .tell(format_args!("weather answered, error: {:?}", response.error.as_ref().map(|error| error.code)));
            promises::look_at_weather(&process.world, &response);
            true
        }
        Err(why) => {
            process.tell(format_args!("no weather: {why}"));
            false
        }
    }
}

/// Sends one request and checks its answer. Returns whether there was one.
async fn ask(process: &Arc<Process>, number: u64, deadline: Duration) -> bool {
    let ride = |distance: f64| ScoreRide {
        distance: Some(distance),
        healthpoints: Some(300.0),
        magicpoints: Some(10.0 * distance),
        tmin: Some(110.0),
        tmax: Some(220.0),
        prcp: Some(13.0),
        ..ScoreRide::default()
    };
    let request = ScoreRequest {
        request_id: format!("request-{number}"),
        units: Units::default(),
        explain: number % 2 == 1,
        impute: !number.is_multiple_of(3),
        rides: vec![ride(21.0), ride(25.5), ScoreRide { prcp: None, ..ride(30.0) }],
    };
    let broker = SimulatedBroker(Arc::clone(process));
    let answer = async {
        let client = Client::connect(&broker, "asker").await.map_err(|error| error.to_string())?;
        client.score(&request, deadline).await.map_err(|error| error.to_string())
    };
    match answer.await {
        Ok(response) => {
            process.tell(format_args!("scored by {}", response.model_id.as_deref().unwrap_or("nobody")));
            promises::look_at_scores(&process.world, &request, &response);
            true
        }
        Err(why) => {
            process.tell(format_args!("no score: {why}"));
            false
        }
    }
}
