//! Tests of scores for rides that lack features: every way in assumes the same, and says so.

use super::{probability, same};
use pipeline_tests::{
    gateway::{Api, Serving},
    processes::{Input, json_output, output, succeed, wildrydes},
};
use serde_json::{Value, json};
use std::process::Command;

const INFER: &str = "/v2/models/service-request/infer";

/// The names of the assumed features of a score.
fn assumed(score: &Value) -> Vec<&str> {
    score["assumed"]
        .as_array()
        .map_or(Vec::new(), |all| all.iter().map(|one| one["feature"].as_str().unwrap()).collect())
}

fn ends(interval: &Value) -> (f64, f64) {
    (interval["low"].as_f64().unwrap(), interval["high"].as_f64().unwrap())
}

/// The request of an application that knows distance, rain and the mean temperature is answered, with what was assumed.
#[tokio::test]
async fn temperature_precipitation_and_mileage_are_enough() {
    let serving = Serving::start(&Input::of(2_000), &[]).await;
    let body = r#"{"temperature": {"value": 21, "unit": "celsius"}, "precipitation": {"amount": 4.8, "unit": "millimetre"}, "distance": 30}"#;
    let url = format!("{}/v1/score", serving.api.url);
    let json = ["--silent", "--noproxy", "*", "-H", "Content-Type: application/json", "-d", body, &url];
    let scored: Value = serde_json::from_str(&succeed(Command::new("curl").args(json))).unwrap();
    assert_eq!(assumed(&scored), ["healthpoints", "magicpoints", "tmin", "tmax"], "{scored}");
    let (low, high) = ends(&scored["interval"]);
    assert!(low <= probability(&scored) && probability(&scored) <= high && low < high, "{scored}");
    let value = |place: usize| scored["assumed"][place]["value"].as_f64().unwrap();
    assert!((value(2) + value(3) - 420.0).abs() < 1e-9 && value(2) < value(3), "the mean is 21 °C: {scored}");
    assert_eq!(scored["assumed"][2]["unit"], "tenth of °C");
    assert!(scored.get("warnings").is_none(), "{scored}");
    serving.finish().await;
}

/// The same three features by `/v1/score`, as one of several rides, as tensors, from the workshop's client and from the command have
/// the same probability bit by bit, and each answer says what was assumed.
#[tokio::test]
async fn every_way_in_assumes_the_same() {
    let input = Input::of(2_000);
    let serving = Serving::start(&input, &[]).await;
    let api = &serving.api;
    let known = json!({ "distance": 30.5, "tmin": 97, "prcp": 48 });
    let missing = ["healthpoints", "magicpoints", "tmax"];
    let scored = api.score(&known).await;
    assert_eq!(assumed(&scored), missing, "{scored}");
    let (expected, (low, high)) = (probability(&scored), ends(&scored["interval"]));

    let many = api.post("/v1/score", &json!({ "rides": [known, known] })).await.good();
    for score in many["scores"].as_array().unwrap() {
        same(probability(score), expected, "an array");
        assert_eq!(assumed(score), missing, "{many}");
    }
    let tensor = |name: &str| json!({ "name": name, "shape": [1], "datatype": "FP64", "data": [known[name]] });
    let inputs = ["distance", "tmin", "prcp"].map(tensor);
    let tensors = json!({ "inputs": inputs });
    let inferred = api.post(INFER, &tensors).await.good();
    let output_of = |name: &str| {
        let outputs = inferred["outputs"].as_array().unwrap();
        outputs.iter().find(|output| output["name"] == name).unwrap_or_else(|| panic!("{name}: {inferred}"))["data"][0]
            .as_f64()
            .unwrap()
    };
    same(output_of("probability"), expected, "tensors");
    assert_eq!((output_of("probability_low"), output_of("probability_high")), (low, high), "{inferred}");
    same(output_of("assumed_tmax"), scored["assumed"][2]["value"].as_f64().unwrap(), "an assumed value");
    assert_eq!(inferred["parameters"]["assumed"], missing.join(", "), "{inferred}");

    let bare =
        api.post_bytes("/", "application/x-www-form-urlencoded", r#"{"Distance":30.5,"TMIN":"97","PRCP":48}"#).await;
    same(bare.json().as_f64().unwrap(), (expected * 100.0).round() / 100.0, "the bare number");
    let names: Vec<&str> =
        bare.header("wildrydes-assumed").split(", ").map(|pair| pair.split_once('=').unwrap().0).collect();
    assert_eq!(names, missing);
    let rounded = |end: f64| ((end * 100.0).round() / 100.0).to_string();
    assert_eq!(bare.header("wildrydes-interval"), format!("{} {}", rounded(low), rounded(high)));

    let store = serving.store();
    let score = |more: &[&str]| {
        let mut command = wildrydes();
        command.args(["score", "--distance", "30.5", "--tmin", "97", "--prcp", "48"]).args(more);
        command
    };
    for how in [&["--url", &api.url][..], &["--store", store.to_str().unwrap()]] {
        let report = json_output(&mut score(how));
        same(probability(&report["scores"][0]), expected, &format!("wildrydes score {how:?}"));
        assert_eq!(assumed(&report["scores"][0]), missing, "{report}");
        let text = succeed(&mut score(how));
        assert!(text.contains("assumed, because not given: healthpoints ") && text.contains("90 % interval"), "{text}");
        let refused = output(score(how).arg("--no-impute"));
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && why.contains("healthpoints is missing"), "{why}");
    }
    serving.finish().await;
}

/// Without imputation every feature is needed; a misspelled one is never assumed; a ride without any is refused; values far outside
/// the training range are named in words.
#[tokio::test]
async fn what_must_not_be_assumed_is_refused_and_what_is_far_is_said() {
    let serving = Serving::start(&Input::of(2_000), &[]).await;
    let api = &serving.api;
    let known = r#"{"distance": 30, "healthpoints": 330, "tmin": 97, "tmax": 176, "prcp": 48"#;
    for (path, more, field, words) in [
        ("/v1/score", r#", "impute": false}"#, "magicpoints", "magicpoints is missing: the model needs it"),
        ("/v1/score?impute=false", "}", "magicpoints", "magicpoints is missing: the model needs it"),
        ("/v1/score/workshop?impute=false", "}", "magicpoints", "magicpoints is missing: the model needs it"),
        ("/v1/score", r#", "mana": 300}"#, "", ""),
        ("/v1/score", r#", "magic_points": 300}"#, "magicpoints", "did you mean `magic_points`?"),
        ("/v1/score", r#", "magicpoints": 1, "tavg": 100}"#, "tavg", "no mean temperature beside both tmin and tmax"),
    ] {
        let answer = api.post_bytes(path, "application/json", format!("{known}{more}")).await;
        if field.is_empty() {
            assert_eq!(assumed(&answer.good()), ["magicpoints"], "a key that resembles nothing");
            continue;
        }
        let problem = answer.json();
        assert_eq!((answer.status.as_u16(), &problem["errors"][0]["field"]), (422, &json!(field)), "{more}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    let unimputed = json!({ "inputs": [{ "name": "distance", "shape": [1], "datatype": "FP64", "data": [30] }],
        "parameters": { "impute": false } });
    api.post(INFER, &unimputed).await.problem(422, "missing-feature");
    for (body, words) in [
        (json!({ "breed": "Qilin" }), "and so is every feature that the model uses: expected at least one of distance"),
        (
            json!({ "temperature": { "value": 21, "min": 9, "max": 30, "unit": "celsius" } }),
            "temperature.value is given twice",
        ),
        (
            json!({ "temperature": { "value": 21, "min": 22, "unit": "celsius" } }),
            "temperature.value is 21.0: expected",
        ),
        (json!({ "temperature": { "value": 21 } }), "temperature.unit is missing"),
    ] {
        let problem = api.post("/v1/score", &body).await;
        assert_eq!(problem.status, 422, "{body}: {}", problem.text());
        assert!(problem.text().contains(words), "{}", problem.text());
    }
    far_values_are_named(api).await;
    serving.finish().await;
}

async fn far_values_are_named(api: &Api) {
    let far = api.score(&json!({ "distance": 3_000, "tmin": 97, "tmax": 176 })).await;
    let warning = far["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.starts_with("distance is 3000 miles, far outside the training rides' range of 29 to 31"), "{far}");
    let bare = api.post_bytes("/", "application/json", r#"{"distance": 3000, "tmin": 600, "tmax": 690}"#).await;
    assert!(bare.header("wildrydes-warning").contains("tmax is 69 degrees C, far outside"), "{bare:?}");
}
