//! Tests of batches that are submitted over HTTP.

use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use pipeline_tests::{
    gateway::{OPEN, Serving, launch},
    processes::{Fleet, Input, dataset_sha256, json_output, succeed, wildrydes},
    proxy::{Direction, Proxy},
    rabbitmq, wait,
};
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn read(mut from: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.expect("in memory");
    bytes
}

/// Every form that the splitter reads is accepted over HTTP and answered with the id of its bytes. Its dataset is the file in
/// the store, byte by byte that of the command, with counts and rejected rides.
#[tokio::test]
async fn every_form_is_accepted_and_gives_the_dataset_of_the_command() {
    let input = Input::of(2_500);
    let serving = Serving::without_rides(&input, &[]).await;
    let plain = std::fs::read(&input.rides).unwrap();
    let mut forms = vec![
        ("travel-data", "application/json", plain.clone()),
        ("gzip", "application/gzip", read(GzipEncoder::new(plain.as_slice())).await),
        ("zstd", "application/octet-stream", read(ZstdEncoder::new(plain.as_slice())).await),
    ];
    for (form, media_type) in [
        ("array", "application/json; charset=utf-8"),
        ("ndjson", "application/x-ndjson"),
        ("concatenated", "text/plain"),
    ] {
        let file = input.folder().join(form);
        succeed(wildrydes().args(["generate", "rides", "--rides", "2500", "--form", form]).arg(&file));
        forms.push((form, media_type, std::fs::read(file).unwrap()));
    }
    let expected = input.run(&[]);
    for (form, media_type, bytes) in forms {
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let id = &sha256[..16];
        let answer = serving.api.post_bytes(&format!("/v1/batches?source={form}"), media_type, bytes.clone()).await;
        assert_eq!(answer.status, 202, "{form}: {}", answer.text());
        assert_eq!(answer.header("location"), format!("/v1/batches/{id}"));
        let accepted = answer.json();
        assert_eq!((&accepted["batch_id"], &accepted["sha256"]), (&json!(id), &json!(sha256)), "{form}");
        assert_eq!(accepted["bytes"], bytes.len());

        let batch = serving.api.until_batch_is(id, "ready").await;
        let manifest = &expected["batches"][0]["manifest"];
        for count in
            ["received", "accepted", "rejected", "labelled", "trainable", "rejected_by_reason", "without_weather"]
        {
            assert_eq!(batch["counts"][count], manifest[count], "{form}: {count}");
        }
        assert_eq!((&batch["source"], &batch["sha256"]), (&json!(form), &json!(sha256)));
        let file = |path: String| std::fs::read(serving.store().join(path)).unwrap();
        let dataset = serving.api.get(&format!("/v1/batches/{id}/dataset")).await;
        assert_eq!(dataset.header("content-type"), "text/csv; charset=utf-8");
        assert!(dataset.body == file(format!("dataset/{id}/part-00000.csv")), "{form}: the dataset is the file");
        let rejected = serving.api.get(&format!("/v1/batches/{id}/rejected")).await;
        assert!(rejected.body == file(format!("rejected/{id}.ndjson")), "{form}: the rejected rides are the file");
        assert!(!rejected.body.is_empty());
        assert_eq!(rejected.text().lines().count() as u64, batch["counts"]["rejected"].as_u64().unwrap());
        if form == "travel-data" {
            assert_eq!(batch["manifest_sha256"], dataset_sha256(&expected));
            // The same again changes nothing.
            let again = serving.api.post_bytes("/v1/batches", media_type, bytes).await.good();
            assert_eq!(again["batch_id"], id);
            assert_eq!(serving.api.until_batch_is(id, "ready").await["manifest_sha256"], batch["manifest_sha256"]);
            let remote = json_output(wildrydes().args(["status", "--url", &serving.api.url]));
            assert!(remote.to_string().contains(id), "{remote}");
            let table = succeed(wildrydes().args(["status", "--url", &serving.api.url]));
            let splitter = table.lines().find(|line| line.starts_with("splitter ")).expect("its line");
            assert_eq!(splitter.split_whitespace().collect::<Vec<_>>(), ["splitter", "0", "1", "0", "0"], "{table}");
        }
    }
    let all = serving.api.get("/v1/batches?limit=4").await.good();
    let rest = serving.api.get(&format!("/v1/batches?after={}", all["next"].as_str().unwrap())).await.good();
    let count = |page: &serde_json::Value| page["batches"].as_array().unwrap().len();
    assert_eq!((count(&all), count(&rest), rest.get("next")), (4, 2, None));
    serving.api.get("/v1/batches?after=450c7f9391a7a29b").await.problem(422, "invalid-cursor");
    serving.finish().await;
}

/// An idempotency key stands for one body, and a batch id for one file from its submission on. The same request again returns
/// the same batch. A batch that the splitter refuses is reported with its reason.
#[tokio::test]
async fn idempotency_keys_and_batch_ids_stand_for_one_body() {
    let input = Input::of(300);
    let serving = Serving::without_rides(&input, &[]).await;
    let whole = std::fs::read(&input.rides).unwrap();
    let cut = whole[..whole.len() / 2].to_vec();
    let hand_in = async |query: &str, key: &str, body: &[u8]| {
        let request = serving.api.request(Method::POST, &format!("/v1/batches{query}")).body(body.to_vec());
        serving.api.send(request.header("Idempotency-Key", key)).await
    };
    let first = hand_in("", "monday", &whole).await.good();
    assert_eq!(hand_in("", "monday", &whole).await.good()["batch_id"], first["batch_id"]);
    hand_in("", "monday", &cut).await.problem(422, "idempotency-key-reused");
    hand_in("?batch_id=another", "monday", &whole).await.problem(422, "idempotency-key-reused");
    let mine = hand_in("?batch_id=mine", "tuesday", &whole).await.good();
    assert_eq!(mine["batch_id"], "mine");
    let conflict = hand_in("?batch_id=mine", "wednesday", &cut).await.problem(409, "conflict");
    assert!(conflict["detail"].as_str().unwrap().contains("mine"), "{conflict}");
    serving.api.until_batch_is("mine", "ready").await;
    hand_in("?batch_id=mine", "thursday", &cut).await.problem(409, "conflict");

    let refused = hand_in("?batch_id=cut", "friday", &cut).await.good();
    let batch = serving.api.until_batch_is("cut", "refused").await;
    assert_eq!((&batch["refused"]["queue"], &batch["refused"]["reason"]), (&json!("splitter"), &json!("cut_short")));
    assert!(batch["refused"]["why"].as_str().unwrap().contains("line"), "{batch}");
    let letters = serving.api.get("/v1/dead-letters").await.good();
    assert_eq!((&letters["total"], &letters["letters"][0]["batch_id"]), (&json!(1), &refused["batch_id"]));
    for path in ["dataset", "rejected"] {
        serving.api.get(&format!("/v1/batches/cut/{path}")).await.problem(404, "not-found");
    }
    serving.finish().await;
}

/// A body that is not a batch is refused before it is stored: empty bodies, forms, pages, bodies that are too large by
/// declaration or by count. A body that breaks off leaves nothing behind.
#[tokio::test]
async fn a_body_that_is_not_a_batch_is_refused_and_leaves_nothing() {
    let input = Input::of(10);
    let serving = Serving::without_rides(&input, &["--set", "gateway.upload_bytes_max=1000000"]).await;
    let json = "application/json";
    serving.api.post_bytes("/v1/batches", json, "").await.problem(422, "empty-batch");
    for media_type in ["multipart/form-data; boundary=x", "text/html", "application/x-www-form-urlencoded"] {
        let refused =
            serving.api.post_bytes("/v1/batches", media_type, "[]").await.problem(415, "unsupported-media-type");
        assert!(refused["detail"].as_str().unwrap().contains("application/json"), "{refused}");
    }
    for coding in ["compress", "gzip, gzip"] {
        let coded = serving.api.request(Method::POST, "/v1/batches").header("content-encoding", coding).body("[]");
        serving.api.send(coded).await.problem(415, "unsupported-media-type");
    }
    serving.api.post_bytes("/v1/batches?mapp=latitude%3Dlat", json, "[]").await.problem(422, "invalid-query");
    serving.api.post_bytes("/v1/batches", json, vec![b' '; 1_000_001]).await.problem(413, "too-large");
    let pieces = futures::stream::iter((0..11).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100_000])));
    let chunked = serving.api.post_bytes("/v1/batches", json, reqwest::Body::wrap_stream(pieces)).await;
    chunked.problem(413, "too-large");
    for (query, code) in [("?batch_id=a%2Fb", "invalid-batch-id"), ("?batch_id=", "invalid-batch-id")] {
        serving.api.post_bytes(&format!("/v1/batches{query}"), json, "[]").await.problem(422, code);
    }
    let address = serving.api.url.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("POST /v1/batches HTTP/1.1\r\nHost: {address}\r\nContent-Length: 900000\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&vec![b' '; 300_000]).await.unwrap();
    drop(socket);
    // The upload is being stored; then its partial file is removed.
    let incoming = serving.store().join("raw/incoming");
    let is_gone = async || std::fs::read_dir(&incoming).map_or(true, |mut files| files.next().is_none());
    wait::until("the end of the partial file", is_gone).await;
    assert_eq!(serving.api.get("/v1/batches").await.good()["batches"], json!([]));
    serving.finish().await;
}

/// Of eight bodies for one batch id that are complete at the same moment, one is accepted and the others are refused at once.
/// None becomes a dead letter.
#[tokio::test]
async fn one_of_many_concurrent_bodies_gets_the_batch_id() {
    let serving = Serving::start(&Input::of(100), &[]).await;
    let all_there = tokio::sync::Barrier::new(8);
    let hand_in = |n: u64| {
        let (api, all_there) = (&serving.api, &all_there);
        async move {
            let (sender, pieces) = futures::channel::mpsc::unbounded::<Result<Vec<u8>, std::io::Error>>();
            let ride = format!(
                "[{{\"name\":\"{n}\",\"statustime\":\"2018-04-25 17:03:05\",\"latitude\":40.7,\"longitude\":-74.0,\"distance\":1,\
                 \"healthpoints\":1,\"magicpoints\":1}}"
            );
            sender.unbounded_send(Ok(ride.into_bytes())).unwrap();
            let ending = async {
                all_there.wait().await;
                sender.unbounded_send(Ok(b"]".to_vec())).unwrap();
                drop(sender);
            };
            let body = reqwest::Body::wrap_stream(pieces);
            let (answer, ()) =
                futures::join!(api.post_bytes("/v1/batches?batch_id=contested", "application/json", body), ending);
            answer
        }
    };
    let answers = futures::future::join_all((0..8).map(hand_in)).await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 202);
    assert_eq!((taken.len(), refused.len()), (1, 7));
    let won = taken[0].json()["sha256"].clone();
    for answer in refused {
        answer.problem(409, "conflict");
    }
    assert_eq!(serving.api.until_batch_is("contested", "ready").await["sha256"], won);
    assert_eq!(serving.api.get("/v1/dead-letters").await.good()["total"], 0);
    serving.finish().await;
}

/// A damaged copy of a batch in the store is replaced when the right bytes are submitted again, by command or over HTTP, and
/// the answer says so.
#[tokio::test]
async fn a_damaged_copy_is_replaced_by_the_right_bytes() {
    let input = Input::of(300);
    let serving = Serving::without_rides(&input, &[]).await;
    let whole = std::fs::read(&input.rides).unwrap();
    let hand_in =
        async || serving.api.post_bytes("/v1/batches?source=r", "application/json", whole.clone()).await.good();
    let first = hand_in().await;
    let id = first["batch_id"].as_str().unwrap();
    assert_eq!(first.get("note"), None);
    serving.api.until_batch_is(id, "ready").await;
    let raw = serving.store().join("raw").join(format!("{id}-r"));
    let mut damaged = whole.clone();
    damaged[0] = b' ';
    std::fs::write(&raw, &damaged).unwrap();
    let again = hand_in().await;
    assert!(again["note"].as_str().unwrap().contains("damaged"), "{again}");
    assert!(std::fs::read(&raw).unwrap() == whole, "the damaged copy was kept");
    assert_eq!(hand_in().await.get("note"), None);
    serving.finish().await;
}

/// A batch that the broker did not confirm reserves no id: other bytes may use it. A confirmed batch does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unconfirmed_batch_reserves_no_id() {
    let input = Input::of(10);
    let (proxy, through) = Proxy::to(&rabbitmq::settings()).await.expect("a free port");
    let settings = [&OPEN[..], &[("WILDRYDES__GATEWAY__DEADLINE_MS", "2000")]].concat();
    let mut fleet = Fleet::start_on(through, &["splitter"], 1, input.weather.as_os_str(), &settings);
    let api = launch(&mut fleet, 0);
    fleet.wait_for_sessions(&["splitter"], 1);
    let hand_in =
        async |body: &'static str| api.post_bytes("/v1/batches?batch_id=mine", "application/json", body).await;
    let first =
        async || api.post_bytes("/v1/batches?batch_id=first", "application/json", "[{}]").await.with_status(202);
    fleet.until("the gateway to connect", first).await;
    fleet.pause("splitter", 0);
    proxy.silence(Direction::Up);
    hand_in("[{}]").await.problem(504, "no-answer");
    api.get("/v1/batches/mine").await.problem(404, "not-found");
    proxy.reset();
    wait::until("the gateway to connect again", async || {
        let answer = hand_in("[{},{}]").await;
        assert!(matches!(answer.status.as_u16(), 202 | 503), "{}", answer.text());
        answer.with_status(202)
    })
    .await;
    assert_eq!(api.get("/v1/batches/mine").await.good()["state"], "queued");
    hand_in("[{}]").await.problem(409, "conflict");
    fleet.go_on("splitter", 0);
    fleet.wait_for("the claim", |store| store.join("batches/mine.json").is_file());
    let log = fleet.store().join("batch-log");
    assert!(log.join("0000000002").is_file() && !log.join("0000000003").exists(), "every attempt has the same entry");
    fleet.finish().await;
}
