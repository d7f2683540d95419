//! Refreshes read the weather anew; everything else may come from the cache.

use super::*;
use common::message::{Refresh, new_split_id};
use jiff::Timestamp;
use runtime::host;

/// The chunk of a refresh that was requested at this time.
async fn refresh_one(fetcher: &WeatherFetcher, asked_at: Timestamp) -> Result<Weather, Failure> {
    let refresh = Some(Refresh { attempt: 1.try_into().unwrap(), asked_at });
    let split_id = Some(new_split_id("s", refresh, 1));
    let rides = vec![in_harlem("2018-04-25 12:00:00")];
    let payload = RideChunk { batch_id: "b".to_owned(), chunk: 3, split_id, digest: None, refresh, rides };
    let outputs = fetcher.handle(Envelope { payload, properties: Properties::default() }).await?;
    let messages: Vec<_> = outputs.into_stream().map(Result::unwrap).collect().await;
    let mut chunk: EnrichedChunk = decode(&messages[0].body).unwrap();
    assert_eq!(chunk.refresh, refresh);
    Ok(chunk.rides.remove(0).weather)
}

/// Corrected weather of a settled year is read once per refresh, and replaces what is cached in memory and in the store.
#[tokio::test]
async fn a_refresh_reads_the_weather_of_settled_years_anew() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let store = memory_store();
    let fetcher = fetcher(of(noaa.url()), &store);
    assert_eq!(enrich_one(&fetcher).await, Ok(park(111, 156, 241)));
    noaa.publish(new_york().with_file(&format!("csv/by_station/{PARK}.csv"), "").with_day(
        PARK,
        "20180425",
        (99, 156, 0),
    ));
    assert_eq!(enrich_one(&fetcher).await, Ok(park(111, 156, 241)), "from the cache");
    let asked_at = host::now();
    for _ in 0..2 {
        assert_eq!(refresh_one(&fetcher, asked_at).await, Ok(park(99, 156, 0)));
    }
    assert_eq!((noaa.requests(PARK), noaa.requests(GAUGE)), (2, 2), "once for the first join, once for the refresh");
    assert_eq!(enrich_one(&fetcher).await, Ok(park(99, 156, 0)));
    let cached = store::read(&store, &format!("weather/{PARK}/2018.csv")).await.unwrap().unwrap();
    assert_eq!(cached, "date,tmin,tmax,prcp\n2018-04-25,99,156,0\n");
    // The next refresh reads it again, also what the store has.
    assert_eq!(refresh_one(&super::fetcher(of(noaa.url()), &store), asked_at).await, Ok(park(99, 156, 0)));
    refresh_one(&fetcher, host::now()).await.unwrap();
    assert_eq!(noaa.requests(PARK), 4);
}

/// A station without a complete day in a settled year is left out of the index of that year, until its weather is corrected.
#[tokio::test]
async fn a_station_that_was_corrected_is_found_again() {
    let near = "USC00300000";
    let data = new_york().with_station(near, 40.81, -73.94);
    let noaa = Noaa::start(
        data.clone().with_file(&format!("csv/by_station/{near}.csv"), format!("{near},20180425,PRCP,200,,,N,0700\n")),
    )
    .await
    .unwrap();
    let fetcher = fetcher(of(noaa.url()), &memory_store());
    let rides = || (0..200).map(|_| in_harlem("2018-04-25 12:00:00")).collect::<Vec<_>>();
    for _ in 0..80 {
        assert_eq!(enrich(&fetcher, rides()).await.unwrap()[0], park(111, 156, 241));
    }
    noaa.publish(data.with_day(near, "20180425", (1, 2, 3)));
    let corrected = |weather: &Weather| matches!(weather, Weather::Observed(found) if found.groundstation == near && found.prcp == 3);
    assert!(corrected(&refresh_one(&fetcher, host::now()).await.unwrap()));
    assert!(enrich(&fetcher, rides()).await.unwrap().iter().all(corrected));
}

/// During a refresh, too, an outage waits and is no missing weather.
#[tokio::test]
async fn an_outage_during_a_refresh_waits() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let fetcher = fetcher(of(noaa.url()), &memory_store());
    assert_eq!(enrich_one(&fetcher).await, Ok(park(111, 156, 241)));
    noaa.fail_next(PARK, 3, Fault::Status(503, None));
    let asked_at = host::now();
    assert!(matches!(refresh_one(&fetcher, asked_at).await, Err(Failure::Outage { .. })));
    assert_eq!(refresh_one(&fetcher, asked_at).await, Ok(park(111, 156, 241)));
}
