//! `score`: one ride, answered by the fleet or by a scorer in this process.

use crate::{
    Failed, Session,
    arguments::{Score, UnitSystem},
};
use common::{
    contract::message::{
        PrecipitationUnit, ScoreErrorCode, ScoreOutcome, ScoreRequest, ScoreResponse, ScoreRide, TemperatureUnit, Units,
    },
    runtime::{Broker, MemoryBroker, Shutdown, client::Client, process::run_options, worker::run},
};
use std::{sync::Arc, time::Duration};

/// `score`
pub(crate) async fn score(session: &Session, options: &Score) -> Result<(), Failed> {
    let (temperature, precipitation) = match options.units {
        UnitSystem::Noaa => (TemperatureUnit::CelsiusTenths, PrecipitationUnit::MillimetreTenths),
        UnitSystem::Celsius => (TemperatureUnit::Celsius, PrecipitationUnit::Millimetre),
        UnitSystem::Fahrenheit => (TemperatureUnit::Fahrenheit, PrecipitationUnit::Inch),
    };
    let ride = ScoreRide {
        ride_id: None,
        distance: Some(options.distance),
        healthpoints: Some(options.healthpoints),
        magicpoints: Some(options.magicpoints),
        tmin: Some(options.tmin),
        tmax: Some(options.tmax),
        prcp: Some(options.prcp),
    };
    let request_id = format!("{:032x}", rand::random::<u128>());
    let units = Units { temperature, precipitation };
    let request = ScoreRequest { request_id, units, explain: false, rides: vec![ride] };
    let deadline = Duration::from_millis(options.timeout_ms);
    let response = match options.fleet || session.shared.broker.is_some() {
        true => ask(session.broker()?.as_ref(), &request, deadline).await?,
        false => ask_here(session, &request, deadline).await?,
    };
    tell(session, &response)
}

async fn ask(broker: &dyn Broker, request: &ScoreRequest, deadline: Duration) -> Result<ScoreResponse, Failed> {
    let client = Client::connect(broker, "wildrydes").await?;
    let response = client.score(request, deadline).await;
    client.close().await;
    Ok(response?)
}

/// The same scorer behind the same queue, in this process.
async fn ask_here(session: &Session, request: &ScoreRequest, deadline: Duration) -> Result<ScoreResponse, Failed> {
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new());
    let scorer = scorer::Scorer::new(session.section()?, session.store()?);
    let options = run_options::<scorer::Scorer>(&session.section()?, &session.section()?);
    let shutdown = Shutdown::new();
    let running = tokio::spawn(run(Arc::new(scorer), Arc::clone(&broker), options, shutdown.clone()));
    let response = ask(broker.as_ref(), request, deadline).await;
    shutdown.cancel();
    running.await??;
    response
}

fn tell(session: &Session, response: &ScoreResponse) -> Result<(), Failed> {
    if session.shared.json {
        println!("{}", serde_json::to_string(response)?);
    }
    let outcome = response.scores.first().map(|score| &score.outcome);
    match (&response.error, outcome) {
        (Some(error), _) | (None, Some(ScoreOutcome::Failed { error })) => {
            let way_out = match error.code {
                ScoreErrorCode::NoModel => " (`wildrydes demo` or `wildrydes run` make one; --store names where it is)",
                _ => "",
            };
            if !session.shared.json {
                eprintln!("error: {}{way_out}", error.message);
            }
            match error.code {
                ScoreErrorCode::NoModel => Err(Failed::NoModel),
                _ => Err(Failed::Told),
            }
        }
        (None, Some(ScoreOutcome::Scored { probability, service, .. })) => {
            if !session.shared.json {
                let threshold = response.threshold.unwrap_or_default();
                let decision = if *service { "service is likely" } else { "no service expected" };
                println!(
                    "{:.1} % likely to end in a service request: {decision} (threshold {:.0} %)",
                    probability * 100.0,
                    threshold * 100.0
                );
                println!(
                    "model {} {}",
                    response.model.as_deref().unwrap_or_default(),
                    response.model_id.as_deref().unwrap_or_default()
                );
            }
            Ok(())
        }
        (None, None) => Err(Failed::Broken(anyhow::anyhow!("the answer holds neither a score nor an error"))),
    }
}
