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
use records::{Store, batches, refreshes};
use runtime::{Broker, client::Client, host};
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
    if world.plan.refreshes > 0 {
        let batch_ids = input.datasets().into_iter().map(str::to_owned).collect();
        clients.spawn(refresh_all(Arc::clone(world), batch_ids));
    }
    clients
}

/// Joins every batch again, as often as the plan says. The weather changes while no batch is being joined, so that the result of a
/// revision does not depend on the time of its chunks; messages of earlier attempts may still arrive.
async fn refresh_all(world: Arc<World>, batch_ids: Vec<String>) {
    /// Time between two looks at the store's memory.
    const LOOK_EVERY: Duration = Duration::from_secs(5);
    let objects: Store = world.objects.clone();
    for batch_id in &batch_ids {
        while !batches::is_complete(&objects, batch_id).await.expect("memory can be read") {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    for _ in 0..world.plan.refreshes {
        let edition = world.edition.fetch_add(1, SeqCst) + 1;
        world.tell("weather", format_args!("edition {edition}"));
        let mut requests = JoinSet::new();
        for batch_id in &batch_ids {
            // Two at the same time: they share an attempt, or the later one finds nothing to change.
            for copy in 0..1 + u64::from(!world.plan.rates.is_empty() && world.below(3) == 0) {
                let process = Process::new(&world, "refresher", format!("refresher.{batch_id}.{copy}"), false);
                requests.spawn(refresh(process, batch_id.clone()));
            }
        }
        while let Some(ended) = requests.join_next().await {
            ended.expect("a client does not fail");
        }
    }
}

/// Requests a refresh until the broker has confirmed it, and waits for its end.
async fn refresh(process: Arc<Process>, batch_id: String) {
    let world = &process.world;
    let store: Store = Arc::new(SimulatedStore::new(&process));
    let attempt = loop {
        tokio::time::sleep(world.moment(Duration::from_secs(3))).await;
        let done = async {
            let begun = refreshes::begin(&store, &batch_id, host::now(), &process.name).await;
            let begun = begun.map_err(|failure| failure.to_string())?;
            let message = Outgoing::message(&begun.message).map_err(|failure| failure.to_string())?;
            publish_once(&process, message.clone()).await?;
            Ok::<_, String>((begun.attempt.refresh.attempt, message))
        };
        match done.await {
            Ok((attempt, message)) => {
                process.tell(format_args!("attempt {attempt} submitted"));
                if !world.plan.rates.is_empty() && world.below(3) == 0 {
                    world.publish_later(message);
                }
                break attempt;
            }
            Err(why) => process.tell(format_args!("refresh not confirmed: {why}")),
        }
    };
    let objects: Store = world.objects.clone();
    while refreshes::ended(&objects, &batch_id, attempt).await.expect("memory can be read").is_none() {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    process.tell(format_args!("attempt {attempt} ended"));
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

/// Sends one request for rides with weather and one for a ride with a place, and checks their answers. Returns whether there were both.
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
    let rides = vec![promises::ride_at_a_place()];
    let located = ScoreRequest { request_id: format!("located-{number}"), rides, ..request.clone() };
    let with_weather = ask_for_scores(process, request, deadline).await;
    ask_for_scores(process, located, deadline).await && with_weather
}

async fn ask_for_scores(process: &Arc<Process>, request: ScoreRequest, deadline: Duration) -> bool {
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
