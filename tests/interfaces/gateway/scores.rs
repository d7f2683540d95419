//! Tests of every way to request a score from one model.

use super::{probability, same};
use common::{
    features::FEATURE_COUNT,
    message::{PrecipitationUnit, ScoreOutcome, ScoreRequest, ScoreRide, TemperatureUnit, Units},
    model::logistic,
};
use pipeline_tests::{
    gateway::{OPEN, Serving, launch, ride},
    processes::{Fleet, Input, json_output, succeed},
    wait::SOON,
};
use runtime::{AmqpBroker, client::Client};
use serde_json::{Value, json};
use std::process::Command;

const FEATURES: [&str; 6] = ["distance", "healthpoints", "magicpoints", "tmin", "tmax", "prcp"];

/// The same ride by RPC, `/v1/score`, tensors by name, as one, in binary, the workshop's curl, and three kinds of `wildrydes
/// score` has the same probability bit by bit, in each unit.
#[tokio::test]
async fn every_form_of_request_gives_the_same_probability() {
    let input = Input::of(3_000);
    let mut fleet = Fleet::start_with(1, &input.weather, &OPEN);
    succeed(fleet.wildrydes().arg("ingest").arg(&input.rides));
    let api = launch(&mut fleet, 0);
    api.until_a_model_answers().await;
    let client = Client::connect(&AmqpBroker::new(fleet.broker.clone()), "test").await.unwrap();
    let by_rpc = async |tmin: f64, tmax: f64, prcp: f64, units: Units| {
        let (distance, healthpoints, magicpoints) = (Some(30.5), Some(330.0), Some(300.0));
        let (tmin, tmax, prcp) = (Some(tmin), Some(tmax), Some(prcp));
        let ride = ScoreRide { distance, healthpoints, magicpoints, tmin, tmax, prcp, ..ScoreRide::default() };
        let request =
            ScoreRequest { request_id: "one".to_owned(), units, explain: false, impute: true, rides: vec![ride] };
        match &client.score(&request, SOON).await.unwrap().scores[0].outcome {
            ScoreOutcome::Scored { probability, .. } => *probability,
            other => panic!("{other:?}"),
        }
    };
    let expected = by_rpc(97.0, 176.0, 48.0, Units::default()).await;

    let scored = api.score(&ride()).await;
    same(probability(&scored), expected, "/v1/score");
    let many = api.post("/v1/score?explain=false", &json!([ride(), ride()])).await.good();
    for score in many["scores"].as_array().unwrap() {
        same(probability(score), expected, "an array");
    }
    let version = scored["model_id"].as_str().unwrap();
    assert_eq!(version, fleet.champion()["model_id"]);

    let tensor = |name: &str| json!({ "name": name, "shape": [1], "datatype": "FP64", "data": [ride()[name]] });
    let named = json!({ "id": "mine", "inputs": FEATURES.map(tensor) });
    let row: Vec<f64> = FEATURES.iter().map(|name| ride()[*name].as_f64().unwrap()).collect();
    let one = json!({ "inputs": [{ "name": "features", "shape": [1, 6], "datatype": "FP64", "data": [row] }] });
    for path in ["/v2/models/service-request/infer", &format!("/v2/models/service-request/versions/{version}/infer")] {
        let answer = api.post(path, &named).await.good();
        same(probability(&answer), expected, "tensors by name");
        assert_eq!((&answer["model_version"], &answer["id"]), (&json!(version), &json!("mine")));
        same(probability(&api.post(path, &one).await.good()), expected, "one tensor");
    }
    let head = json!({
        "inputs": [{ "name": "features", "shape": [1, 6], "datatype": "FP64", "parameters": { "binary_data_size": 48 } }],
        "outputs": [{ "name": "probability", "parameters": { "binary_data": true } }],
    });
    let mut body = serde_json::to_vec(&head).unwrap();
    let length = body.len();
    row.iter().for_each(|number| body.extend(number.to_le_bytes()));
    let request = api.request(reqwest::Method::POST, "/v2/models/service-request/infer");
    let request = request.header("inference-header-content-length", length).body(body);
    let answer = api.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json_length: usize = answer.header("inference-header-content-length").parse().unwrap();
    let binary: [u8; 8] = answer.body[json_length..].try_into().expect("one number");
    same(f64::from_le_bytes(binary), expected, "binary tensors");

    let rounded = (expected * 100.0).round() / 100.0;
    let workshop = r#"{"distance":30.5,"healthpoints":330,"magicpoints":300,"TMAX":176,"TMIN":97,"PRCP":48}"#;
    for path in ["/", "/v1/score/workshop"] {
        let url = format!("{}{path}", api.url);
        let printed = succeed(Command::new("curl").args(["--silent", "--noproxy", "*", "-d", workshop, &url]));
        same(printed.parse().unwrap_or_else(|_| panic!("a bare number: {printed}")), rounded, path);
    }

    let asked = |weather: [&str; 3], more: &[&str]| {
        let mut command = fleet.wildrydes();
        command.args(["score", "--distance", "30.5", "--healthpoints", "330", "--magicpoints", "300"]);
        command.args(["--tmin", weather[0], "--tmax", weather[1], "--prcp", weather[2]]).args(more);
        json_output(&mut command)
    };
    let of_command = |report: &Value| probability(&report["scores"][0]);
    for how in [&["--fleet"][..], &[], &["--url", &api.url]] {
        same(of_command(&asked(["97", "176", "48"], how)), expected, &format!("wildrydes score {how:?}"));
    }

    for (name, temperature, precipitation, units, [tmin, tmax, prcp]) in [
        (
            "celsius",
            TemperatureUnit::Celsius,
            PrecipitationUnit::Millimetre,
            ["celsius", "millimetre"],
            [9.7, 17.6, 4.8],
        ),
        (
            "fahrenheit",
            TemperatureUnit::Fahrenheit,
            PrecipitationUnit::Inch,
            ["fahrenheit", "inch"],
            [49.5, 63.7, 0.19],
        ),
    ] {
        let expected = by_rpc(tmin, tmax, prcp, Units { temperature, precipitation }).await;
        let body = json!({
            "distance": 30.5, "healthpoints": 330, "magicpoints": 300,
            "temperature": { "min": tmin, "max": tmax, "unit": units[0] },
            "precipitation": { "amount": prcp, "unit": units[1] },
        });
        same(probability(&api.score(&body).await), expected, name);
        let weather = [tmin, tmax, prcp].map(|number| number.to_string());
        let weather = [weather[0].as_str(), &weather[1], &weather[2]];
        for how in ["--fleet", "--url"] {
            let how: &[&str] = if how == "--url" { &["--units", name, how, &api.url] } else { &["--units", name, how] };
            same(of_command(&asked(weather, how)), expected, &format!("wildrydes score {how:?}"));
        }
    }
    client.close().await;
    fleet.finish().await;
}

/// Contributions relative to the training mean come largest first and add up to the probability. A value outside the training
/// range is marked. Without `explain` there are none.
#[tokio::test]
async fn contributions_add_up_to_the_probability() {
    let serving = Serving::start(&Input::of(2_000), &[]).await;
    for distance in [0.5, 30.5, 80.0] {
        let mut ride = ride();
        ride["distance"] = json!(distance);
        let scored = serving.api.score(&ride).await;
        let reasons = scored["contributions"].as_array().expect("reasons");
        let log_odds: Vec<f64> = reasons.iter().map(|reason| reason["log_odds"].as_f64().unwrap()).collect();
        assert_eq!(log_odds.len(), FEATURE_COUNT, "{scored}");
        assert!(log_odds.is_sorted_by(|a, b| a.abs() >= b.abs()), "{scored}");
        let sum = scored["baseline"]["log_odds"].as_f64().unwrap() + log_odds.iter().sum::<f64>();
        assert!((logistic(sum) - probability(&scored)).abs() < 1e-12, "{scored}");
        let outside =
            reasons.iter().find(|reason| reason["feature"] == "distance").unwrap()["outside_training"] == true;
        assert_eq!(outside, distance != 30.5, "{scored}");
        let bare = serving.api.post("/v1/score?explain=false", &ride).await.good();
        assert!(bare.get("contributions").is_none() && bare.get("baseline").is_none(), "{bare}");
        same(probability(&bare), probability(&scored), "with and without reasons");
    }
    serving.finish().await;
}

/// The weather that is looked up by a ride's place and time is the weather that the pipeline joined, and gives the same score
/// as these values. If the pipeline finds none, the answer says so.
#[tokio::test]
async fn looked_up_weather_is_that_of_the_dataset() {
    let input = Input::of(2_000);
    let serving = Serving::start(&input, &[]).await;
    let batches = serving.api.get("/v1/batches").await.good();
    let id = batches["batches"][0]["batch_id"].as_str().unwrap().to_owned();
    let dataset = serving.api.get(&format!("/v1/batches/{id}/dataset")).await;
    let mut reader = csv::Reader::from_reader(dataset.body.as_slice());
    let columns = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let field = |row: &csv::StringRecord, name: &str| {
        let column = columns.iter().position(|column| column == name).unwrap_or_else(|| panic!("no {name}"));
        row[column].to_owned()
    };
    let number = |row: &csv::StringRecord, name: &str| field(row, name).parse::<f64>().ok();
    // A sample of the rides, and all without weather.
    let asked: Vec<_> = rows
        .iter()
        .enumerate()
        .filter(|(n, row)| n % 13 == 0 || field(row, "tmin").is_empty())
        .map(|(_, row)| row)
        .collect();
    let bodies = |weather: bool| -> Vec<Value> {
        let body = |row: &&csv::StringRecord| {
            let mut body = json!({});
            let names: &[&str] = if weather { &FEATURES } else { &FEATURES[..3] };
            for name in names.iter().copied().chain(["latitude", "longitude"].into_iter().filter(|_| !weather)) {
                body[name] = json!(number(row, name));
            }
            if !weather {
                body["statustime"] = json!(field(row, "statustime"));
            }
            body
        };
        asked.iter().map(body).collect()
    };
    let looked_up = serving.api.post("/v1/score", &json!(bodies(false))).await.good();
    let given = serving.api.post("/v1/score", &json!(bodies(true))).await.good();
    let mut without = 0;
    for (row, (looked_up, given)) in
        asked.iter().zip(looked_up["scores"].as_array().unwrap().iter().zip(given["scores"].as_array().unwrap()))
    {
        if field(row, "tmin").is_empty() {
            assert!(looked_up["warnings"][0].as_str().unwrap().contains("no station"), "{looked_up}");
            same(probability(looked_up), probability(given), "assumed and not given");
            without += 1;
            continue;
        }
        for name in ["tmin", "tmax", "prcp", "station_km"] {
            assert_eq!(looked_up["weather"][name].as_f64(), number(row, name), "{name}: {looked_up} {row:?}");
        }
        assert_eq!(looked_up["weather"]["groundstation"], field(row, "groundstation"));
        same(probability(looked_up), probability(given), "looked up and given");
    }
    assert!(without > 0 && asked.len() > 100, "{without} of {}", asked.len());
    serving.finish().await;
}
