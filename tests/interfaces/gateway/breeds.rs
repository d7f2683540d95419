//! Tests of scores by breed models, over HTTP and from the command line, and of their serving statistics.

use super::same;
use common::model::{AliasName, Model};
use pipeline_tests::{
    gateway::{OPEN, launch},
    models::{model, name, write},
    processes::{Fleet, json_output},
    wait,
};
use records::{
    StoreSettings, layout,
    store::{self, Store},
};
use serde_json::{Value, json};
use std::path::Path;

fn ride(distance: f64, breed: Option<&str>) -> Value {
    let mut ride = json!({ "distance": distance, "healthpoints": 300, "magicpoints": 300, "tmin": 50, "tmax": 60,
        "prcp": 0 });
    if let Some(breed) = breed {
        ride["breed"] = json!(breed);
    }
    ride
}

fn expected(model: &Model, distance: f64) -> f64 {
    model.probability(&[distance, 300.0, 300.0, 50.0, 60.0, 0.0])
}

async fn put(store: &Store, model: &Model, alias: AliasName) {
    name(store, alias, &write(store, model).await).await;
}

fn open(path: &Path) -> Store {
    store::open(&StoreSettings { url: path.display().to_string(), ..StoreSettings::default() }).unwrap()
}

/// `/v1/score` and `wildrydes score` name the model of each score: the breed model, or the global model with the reason. The
/// explanation is that model's. `wildrydes model drift` and `/metrics` then show the serving statistics, with the challenger's
/// shadow scores.
#[tokio::test]
async fn scores_are_by_breed_models_and_counted_in_serving_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [OPEN[0], OPEN[1], ("WILDRYDES__SCORER__SERVED_WRITE_MS", "50")];
    let mut fleet = Fleet::start_some(&["scorer"], 1, folder.path(), &environment);
    let store = open(&fleet.store());
    let family = layout::breed_model(layout::GLOBAL_MODEL, "Qilin").unwrap();
    let all = model(layout::GLOBAL_MODEL, "all", -2.0, 0.04);
    let qilin = Model { threshold: 0.25, ..model(&family, "qilin", -1.0, 0.01) };
    let challenger = model(layout::GLOBAL_MODEL, "other", -2.0, 0.05);
    put(&store, &all, AliasName::Champion).await;
    put(&store, &challenger, AliasName::Challenger).await;
    put(&store, &qilin, AliasName::Champion).await;
    let api = launch(&mut fleet, 0);
    api.until_a_model_answers().await;

    let one = api.score(&ride(30.0, Some("qilin"))).await;
    same(one["probability"].as_f64().unwrap(), expected(&qilin, 30.0), "the model of the breed");
    assert_eq!((&one["model"], &one["model_id"], &one["threshold"]), (&json!(family), &json!("qilin"), &json!(0.25)));
    assert_eq!((&one["service"], &one["fallback"], &one["by"]), (&json!(true), &Value::Null, &Value::Null));
    assert_eq!(one["baseline"]["log_odds"], json!(qilin.intercept_standardised));
    let other = api.score(&ride(30.0, Some("pegasus"))).await;
    same(other["probability"].as_f64().unwrap(), expected(&all, 30.0), "the global model");
    assert_eq!((&other["model_id"], &other["fallback"]), (&json!("all"), &json!("no_breed_model")));

    let rides = [ride(10.0, None), ride(20.0, Some(" QILIN")), ride(30.0, Some("nobody")), ride(40.0, Some(""))];
    let many = api.post("/v1/score?explain=false", &json!(rides)).await.good();
    assert_eq!(many["model_id"], "all");
    let scores = many["scores"].as_array().unwrap();
    for (place, (model, distance)) in [(&all, 10.0), (&qilin, 20.0), (&all, 30.0), (&all, 40.0)].into_iter().enumerate()
    {
        let score = &scores[place];
        same(score["probability"].as_f64().unwrap(), expected(model, distance), "in an array");
        let by = score["by"]["model_id"].as_str().unwrap_or("all");
        assert_eq!(by, model.model_id);
    }
    let fallbacks: Vec<&Value> = scores.iter().map(|score| &score["fallback"]).collect();
    assert_eq!(fallbacks, [&Value::Null, &Value::Null, &json!("no_breed_model"), &Value::Null]);
    let long = api.post("/v1/score", &ride(1.0, Some(&"x".repeat(129)))).await;
    long.problem(422, "breed-too-long");

    let flags = ["--distance", "30", "--healthpoints", "300", "--magicpoints", "300", "--tmin", "50", "--tmax", "60"];
    for kind in [vec![], vec!["--fleet"], vec!["--url", api.url.as_str()]] {
        let mut command = fleet.wildrydes();
        command.args(["score", "--prcp", "0", "--breed", "qilin"]).args(flags).args(&kind);
        let answer = json_output(&mut command);
        same(answer["scores"][0]["probability"].as_f64().unwrap(), expected(&qilin, 30.0), "wildrydes score");
    }

    // Scores without the fleet are not counted; scores by the fleet are counted some milliseconds later.
    let drift_of = async |family: &str, enough: fn(&Value) -> bool| {
        wait::until(format!("the statistics of {family}"), async || {
            let drift = json_output(fleet.wildrydes().args(["model", "drift", "--model", family]));
            if enough(&drift) { Ok(drift) } else { Err(drift) }
        })
        .await
    };
    // Seven over HTTP and two from the command line, by any scorer.
    let drift = drift_of(layout::GLOBAL_MODEL, |drift| {
        drift["rides"].as_u64() >= Some(9) && drift["fallbacks"]["no_breed_model"] == 2
    });
    let drift = drift.await;
    let shadow = &drift["shadows"][0];
    assert_eq!((&shadow["model_id"], &shadow["rides"]), (&json!("other"), &drift["rides"]));
    assert!(shadow["difference_sum"].as_f64().unwrap() > 0.0, "{drift}");
    assert!(drift["features"][0]["psi"].as_f64().unwrap() > 0.25, "{drift}");
    let of_breed = drift_of(&family, |drift| drift["rides"].as_u64() >= Some(4)).await;
    assert_eq!(of_breed["rides"], 4, "two over HTTP, two from the command line");
    let metrics = api.get("/metrics").await.text();
    let rides =
        format!("wildrydes_gateway_served_rides{{model=\"service-request\",model_id=\"all\"}} {}", drift["rides"]);
    for line in [
        rides.as_str(),
        "wildrydes_gateway_served_psi{model=\"service-request\",feature=\"distance\"}",
        "wildrydes_gateway_shadow_rides{model=\"service-request\",model_id=\"other\"}",
        "wildrydes_gateway_breed_fallbacks{model=\"service-request\",reason=\"no_breed_model\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }

    let families = api.get("/v1/models").await.good();
    assert_eq!(
        families["models"],
        json!([{ "model": "service-request", "champion": "all", "versions": 2, "breeds": 1 }])
    );
    let answer_json = api.get("/v1/models/service-request").await.good();
    assert_eq!(
        (&answer_json["challenger"]["model_id"], &answer_json["history"][0]["by"]),
        (&json!("other"), &json!("test"))
    );
    fleet.finish().await;
}
