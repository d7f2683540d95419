//! Scores of rides of today, whose weather no station has published.

use super::{probability, same};
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use pipeline_tests::{
    forecasts::{CELL, FORECAST, Forecasts, Mood},
    gateway::Serving,
    processes::{Input, json_output, wildrydes},
};
use serde_json::{Value, json};
use std::{fmt::Write, fs, path::Path};

const LA_GUARDIA: &str = "USW00014732";
const HEATHROW: &str = "UKM00003772";
/// The history of both stations: tenths of °C, °C and mm.
const USUAL: [i32; 3] = [40, 100, 25];

/// Adds two stations to a folder of weather, with the days around that of `today` in the three years before.
fn add_history(weather: &Path, today: Date) {
    let append = |name: &str, text: &str| {
        let path = weather.join(name);
        let before = fs::read_to_string(&path).expect("a list");
        fs::write(path, before + text).expect("written");
    };
    for (station, latitude, longitude) in [(LA_GUARDIA, 40.7794, -73.8803), (HEATHROW, 51.478, -0.461)] {
        let line = format!("{station:<11} {latitude:>8.4} {longitude:>9.4} {:>6}", "-999.9");
        append("ghcnd-stations.txt", &format!("{line:<85}\n"));
        let mut text = "ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME\n".to_owned();
        for (element, value) in ["TMIN", "TMAX", "PRCP"].into_iter().zip(USUAL) {
            let years = format!("{} {}", today.year() - 4, today.year());
            append("ghcnd-inventory.txt", &format!("{station} {latitude:>8.4} {longitude:>9.4} {element} {years}\n"));
            for year in 1..=3 {
                let first = today.saturating_sub(year.years()).saturating_sub(20.days());
                for day in first.series(1.day()).take(41) {
                    let _ = writeln!(text, "{station},{},{element},{value},,,W,2400", day.strftime("%Y%m%d"));
                }
            }
        }
        fs::write(weather.join(format!("csv/by_station/{station}.csv")), text).expect("written");
    }
}

fn ride(more: Value) -> Value {
    let mut ride = json!({ "distance": 12, "healthpoints": 300, "magicpoints": 300 });
    ride.as_object_mut().expect("an object").append(&mut more.as_object().expect("an object").clone());
    ride
}

fn at(latitude: f64, longitude: f64, statustime: &str) -> Value {
    ride(json!({ "latitude": latitude, "longitude": longitude, "statustime": statustime }))
}

/// A ride of today gets a forecast in the United States and climatology elsewhere, and climatology if the forecast service is silent;
/// a ride of 2018 gets an observation. Each answer says which, and has the score of these values. The command shows the same.
#[tokio::test]
async fn a_ride_of_today_is_scored_with_a_forecast_or_climatology() {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let input = Input::of(2_000);
    add_history(&input.weather, today);
    let forecasts = Forecasts::start(&today.to_string()).await.unwrap();
    let url = format!("weather.nws_url={}", forecasts.url());
    let settings = ["--set", "weather.live=nws,climatology", "--set", &url, "--set", "gateway.deadline_ms=4000"];
    let serving = Serving::start(&input, &settings).await;
    let score = async |body: &Value| serving.api.post("/v1/score", body).await.good();
    let checked = async |scored: Value, [tmin, tmax, prcp]: [i32; 3]| {
        let weather = scored["weather"].clone();
        assert_eq!(
            [&weather["tmin"], &weather["tmax"], &weather["prcp"]],
            [tmin, tmax, prcp].map(|value| json!(value)).each_ref()
        );
        let given = score(&ride(json!({ "tmin": tmin, "tmax": tmax, "prcp": prcp }))).await;
        same(probability(&scored), probability(&given), "looked up and given");
        weather
    };

    let forecast = checked(score(&at(40.7, -74.0, "now")).await, FORECAST).await;
    assert_eq!(
        (&forecast["kind"], &forecast["source"], &forecast["cell"]),
        (&json!("forecast"), &json!("nws"), &json!(CELL))
    );
    assert_eq!(forecast["issued"], format!("{today} 00:24:41.000"));
    let elsewhere = checked(score(&at(51.5, -0.12, "now")).await, USUAL).await;
    assert_eq!((&elsewhere["kind"], &elsewhere["source"]), (&json!("climatology"), &json!("ghcn-daily")));
    assert_eq!((&elsewhere["groundstation"], &elsewhere["years"]), (&json!(HEATHROW), &json!(3)));
    let observed = score(&at(40.7, -74.0, "2018-04-25 17:03:05")).await;
    assert_eq!((&observed["weather"]["kind"], &observed["weather"]["cell"]), (&json!("observed"), &Value::Null));

    let mut command = wildrydes();
    command.args(["score", "--url", &serving.api.url, "--at", "40.7,-74.0", "--time", "now"]);
    let printed = json_output(command.args(["--distance", "12", "--healthpoints", "300", "--magicpoints", "300"]));
    assert_eq!(printed["weather"]["kind"], "forecast");
    // Without a fleet, by a scorer and a lookup in the command's own process.
    let mut command = wildrydes();
    command.args(["score", "--at", "51.5,-0.12", "--set", "weather.live=climatology", "--store"]).arg(serving.store());
    command.args(["--set", &format!("weather.source={}", input.weather.display())]);
    let printed = json_output(command.args(["--distance", "12", "--healthpoints", "300", "--magicpoints", "300"]));
    assert_eq!(
        (&printed["weather"]["kind"], &printed["weather"]["groundstation"]),
        (&json!("climatology"), &json!(HEATHROW))
    );

    forecasts.be("/points/", Mood::Silent);
    let fallen_back = checked(score(&at(40.79, -73.9, "now")).await, USUAL).await;
    assert_eq!((&fallen_back["kind"], &fallen_back["groundstation"]), (&json!("climatology"), &json!(LA_GUARDIA)));
    // Neither a forecast nor a history.
    let nowhere = serving.api.post("/v1/score", &at(0.0, 0.0, "now")).await;
    nowhere.problem(503, "no-weather");
    serving.finish().await;
}
