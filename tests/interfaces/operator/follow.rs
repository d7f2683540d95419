//! Tests that `wildrydes ingest` reports batches that finished or were refused while its connection was lost.

use pipeline_tests::{
    processes::{Fleet, Input, succeed},
    proxy::Proxy,
};
use std::{
    path::Path,
    process::{Child, Output, Stdio},
};

/// Submits a file through a proxy, and cuts the connection once the batch is in the splitter's queue.
async fn cut_off(fleet: &Fleet, rides: &Path) -> (Proxy, Child) {
    let (proxy, through) = Proxy::to(&fleet.broker).await.unwrap();
    let mut ingest = fleet.wildrydes();
    ingest.arg("ingest").arg(rides).env("WILDRYDES__BROKER__URL", through.url.reveal());
    let child = ingest.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fleet.until_depth("splitter", |messages| messages > 0).await;
    proxy.refuse(true);
    proxy.reset();
    (proxy, child)
}

async fn output_of(child: Child) -> Output {
    tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap()
}

/// The dataset and the model are made while there is no connection: they are found in the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_finished_while_the_connection_was_lost_is_reported() {
    let input = Input::of(1_500);
    let mut fleet = Fleet::start_some(&[], 0, &input.weather, &[]);
    drop(super::connected(&fleet).await);
    let (proxy, child) = cut_off(&fleet, &input.rides).await;
    for worker in common::topology::PROCESSES {
        fleet.launch(worker, 0);
    }
    fleet.champion();
    proxy.refuse(false);
    let Output { status, stdout, stderr } = output_of(child).await;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{stdout}\n{stderr}");
    for words in ["the connection to the broker is lost", "connected to the broker again"] {
        assert!(stderr.contains(words), "{words} is missing\n{stderr}");
    }
    assert!(stdout.contains("ROC AUC"), "the model is reported\n{stdout}");
    fleet.finish().await;
}

/// The batch is refused while there is no connection: its dead letter is found in the queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_refused_while_the_connection_was_lost_is_reported() {
    let input = Input::of(10);
    std::fs::write(&input.rides, r#"{"data": [{"name": "Nightmare"}]}"#).unwrap();
    let mut fleet = Fleet::start_some(&[], 0, &input.weather, &[]);
    drop(super::connected(&fleet).await);
    let (proxy, child) = cut_off(&fleet, &input.rides).await;
    fleet.launch("splitter", 0);
    fleet.until_depth("splitter.dead", |messages| messages > 0).await;
    proxy.refuse(false);
    let Output { status, stdout, stderr } = output_of(child).await;
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(3), "{}\n{stderr}", String::from_utf8_lossy(&stdout));
    assert!(stderr.contains("refused by the splitter: not_a_batch"), "{stderr}");
    succeed(fleet.wildrydes().args(["dead", "drop", "--all", "--yes"]));
    fleet.finish().await;
}
