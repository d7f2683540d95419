//! Tests of refreshes over HTTP.

use pipeline_tests::{gateway::Serving, processes::Input, wait};
use serde_json::json;
use std::fs;

/// A refresh is accepted with the place of its state, which shows the outcome once it has ended. The download and the batch are
/// those of the newest revision.
#[tokio::test]
async fn a_refresh_over_http_makes_the_next_revision() {
    let input = Input::of(500);
    let stations = input.weather.join("csv/by_station");
    let published: Vec<_> = fs::read_dir(&stations)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| (fs::read_to_string(&path).unwrap(), path))
        .collect();
    for (text, path) in &published {
        // Without its second half.
        let kept: Vec<&str> = text.lines().take(text.lines().count() / 2).collect();
        fs::write(path, kept.join("\n") + "\n").unwrap();
    }
    let serving = Serving::without_rides(&input, &[]).await;
    let api = &serving.api;
    let bytes = fs::read(&input.rides).unwrap();
    let batch = api.post_bytes("/v1/batches", "application/json", bytes).await.good();
    let id = batch["batch_id"].as_str().unwrap();
    let first = api.until_batch_is(id, "ready").await;
    assert_eq!(first["revision"], 1);
    let path = format!("/v1/batches/{id}/refresh");
    api.get(&path).await.problem(404, "not-found");
    api.post("/v1/batches/unknown/refresh", &json!({})).await.problem(404, "not-found");

    for (text, path) in &published {
        fs::write(path, text).unwrap();
    }
    let answer = api.post(&path, &json!({})).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (202, path.as_str()));
    let accepted = answer.json();
    assert_eq!(
        (&accepted["attempt"], &accepted["base_revision"], &accepted["joined"]),
        (&1.into(), &1.into(), &false.into())
    );
    let ended = wait::until("the refresh to end", async || {
        let state = api.get(&path).await.good();
        if state["outcome"].is_object() { Ok(state) } else { Err(state) }
    })
    .await;
    let outcome = &ended["outcome"];
    assert_eq!((&outcome["revision"], &outcome["lost"]), (&2.into(), &0.into()), "{ended}");
    assert!(outcome["gained"].as_u64().is_some_and(|gained| gained > 0), "{ended}");
    let second = api.get(&format!("/v1/batches/{id}")).await.good();
    assert_eq!(second["revision"], 2);
    assert_ne!(second["manifest_sha256"], first["manifest_sha256"]);
    let downloaded = api.get(&format!("/v1/batches/{id}/dataset")).await.body;
    let stored = fs::read(serving.store().join(second["files"][0]["path"].as_str().unwrap())).unwrap();
    assert!(downloaded == stored, "the newest revision is downloaded");
    serving.finish().await;
}
