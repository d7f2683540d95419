//! What only a service has: credentials, a network, unfinished uploads; and a whole fleet on it. Runs on S3.

use super::{content, listed};
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, WriteMultipart, path::Path};
use pipeline_tests::{
    careless_s3,
    processes::{Input, dataset_sha256, json_output, output, succeed, wildrydes, worker},
    s3::{S3, s3},
};
use records::{
    StoreSettings,
    batch_log::BatchLog,
    layout,
    store::{self, LifecycleRule, Unproven, Writer, open_with, prove, read, write},
    uploads,
};
use serde_json::Value;
use std::{collections::BTreeSet, process::Command, time::Duration};

fn settings(url: &str) -> StoreSettings {
    StoreSettings { url: url.to_owned(), ..StoreSettings::default() }
}

/// A command with the credentials of the service.
fn on(s3: &S3, command: &mut Command) -> Command {
    let mut with = std::mem::replace(command, Command::new("true"));
    with.envs(s3.environment.iter().cloned());
    with
}

/// A bucket holds several stores.
#[tokio::test]
async fn stores_with_different_prefixes_share_nothing() {
    let Some(s3) = s3() else { return };
    let (outer, inner) = (s3.new_url(), s3.new_url());
    let stores = [s3.open(&outer), s3.open(&inner), s3.open(&format!("{outer}/below"))];
    for (number, store) in stores.iter().enumerate() {
        write(store, "batches/b.json", number.to_string()).await.unwrap();
    }
    for (number, store) in stores.iter().enumerate() {
        assert_eq!(read(store, "batches/b.json").await, Ok(Some(number.to_string().into())));
        assert_eq!(listed(store, "batches").await, BTreeSet::from(["batches/b.json".to_owned()]));
    }
}

/// A wrong key, a missing bucket and a service that is down are told apart, and no text has the secret.
#[tokio::test]
async fn refusals_are_final_and_name_no_secret() {
    let Some(s3) = s3() else { return };
    if s3.origin.contains("moto") {
        // It accepts any key.
        return;
    }
    let url = s3.new_url();
    let with = |name: &str, value: &str| {
        let mut environment: Vec<_> = s3.environment.iter().filter(|(known, _)| known != name).cloned().collect();
        environment.push((name.to_owned(), value.to_owned()));
        environment
    };
    let wrong = open_with(&settings(&url), &with("AWS_SECRET_ACCESS_KEY", "shibboleth")).unwrap();
    let refused = prove(&wrong, 1, 1).await.unwrap_err();
    assert!(matches!(&refused, Unproven::Refused(why) if !why.contains("shibboleth")), "{refused}");
    let failure = read(&wrong, "batches/b.json").await.unwrap_err().to_string();
    assert!(failure.contains("object store is away") && !failure.contains("shibboleth"), "{failure}");

    let elsewhere = open_with(&settings("s3://no-such-bucket-here/x"), &s3.environment).unwrap();
    let failure = read(&elsewhere, "batches/b.json").await.unwrap_err().to_string();
    assert!(failure.contains("the bucket does not exist"), "{failure}");
    assert!(matches!(prove(&elsewhere, 1, 1).await, Err(Unproven::Refused(_))));

    let away = open_with(&settings(&url), &with("AWS_ENDPOINT_URL", "http://127.0.0.1:9")).unwrap();
    let began = std::time::Instant::now();
    assert!(matches!(prove(&away, 1, 1).await, Err(Unproven::Unavailable(_))));
    assert!(began.elapsed().as_secs() < 20, "the workers wait by themselves: {:?}", began.elapsed());
}

/// A reader may be busy for longer than a request may take: the splitter waits for the broker, the gateway for its client.
#[tokio::test]
async fn a_slow_reader_outlives_the_time_limit_of_a_request() {
    let Some(s3) = s3() else { return };
    let url = s3.new_url();
    let bytes = content(19_000_000, 5);
    write(&s3.open(&url), "raw/rides", bytes.clone()).await.unwrap();
    let mut environment = s3.environment.clone();
    environment.push(("AWS_TIMEOUT".to_owned(), "2s".to_owned()));
    let store = open_with(&settings(&url), &environment).unwrap();
    let mut pieces = store::pieces(&store, "raw/rides").await.unwrap().unwrap();
    let (mut read, mut pauses) = (Vec::new(), [1, 6_000_000].into_iter().peekable());
    while let Some(piece) = pieces.try_next().await.unwrap() {
        read.extend_from_slice(&piece);
        if pauses.next_if(|at| read.len() >= *at).is_some() {
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
    }
    assert!(read == bytes && pauses.peek().is_none(), "{} bytes", read.len());
}

/// The gateway writes an upload under a temporary name and moves it to the name with its SHA-256.
#[tokio::test]
async fn an_upload_over_http_gets_its_name() {
    let Some(s3) = s3() else { return };
    let (store, bytes) = (s3.store(), content(9_000_000, 2));
    let (log, now) = (BatchLog::new(store.clone()), jiff::Timestamp::now());
    for (number, is_repaired) in [(1, false), (2, false), (3, true)] {
        let mut writer = Writer::new(&store, &layout::incoming(number));
        writer.put(bytes.clone().into()).await.unwrap();
        let written = writer.finish().await.unwrap();
        let request = uploads::Request {
            batch_id: None,
            source: Some("rides.json".to_owned()),
            reading: Default::default(),
            lines: false,
            coding: None,
            idempotency: Some(("ann", "key")),
        };
        let kept = uploads::keep(&store, &log, &written, &request, now, Duration::from_secs(5)).await;
        let (upload, repaired) = kept.unwrap();
        assert_eq!((repaired, upload.listed), (is_repaired, Some(1)), "{number}");
        assert_eq!(store::sha256(&store, &upload.object).await, Ok(Some(written.sha256)));
        assert_eq!(listed(&store, layout::INCOMING).await, BTreeSet::new());
        if number == 2 {
            write(&store, &upload.object, "damaged").await.unwrap();
        }
    }
}

/// An upload whose writer was killed is in the list of unfinished ones, and is aborted a day later.
#[tokio::test]
async fn unfinished_uploads_are_found_and_aborted() {
    let Some(s3) = s3() else { return };
    let url = s3.new_url();
    let store = s3.open(&url);
    let uploads = store::unfinished_uploads_with(&settings(&url), &s3.environment).unwrap().expect("S3 has them");
    assert_eq!(uploads.list().await.unwrap(), []);
    let upload = store.put_multipart(&Path::from("raw/incoming/1")).await.unwrap();
    let mut writer = WriteMultipart::new_with_chunk_size(upload, 5 << 20);
    writer.write(&content(6 << 20, 1));
    writer.wait_for_capacity(0).await.unwrap();
    drop(writer);
    let found = uploads.list().await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].key.ends_with("/raw/incoming/1"), "{found:?}");
    let begun_at = found[0].begun_at;
    let hour = jiff::SignedDuration::from_hours(1);
    assert_eq!(uploads.abort_abandoned(begun_at + hour).await.unwrap(), 0, "it may still be written");
    assert_eq!(uploads.abort_abandoned(begun_at + 25 * hour).await.unwrap(), 1);
    assert_eq!(uploads.list().await.unwrap(), []);
    assert_eq!(uploads.lifecycle_rule().await.unwrap(), LifecycleRule::None);
}

/// A laptop's store becomes a bucket, and a bucket a folder; the report of the fleet stays the same.
#[test]
fn a_store_is_copied_to_a_service_and_back() {
    let Some(s3) = s3() else { return };
    let input = Input::of(2_000);
    let (first, last) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = s3.new_url();
    let run = |store: &str| {
        let mut run = wildrydes();
        run.arg("run").arg(&input.rides).arg("--weather").arg(&input.weather).args(["--store", store]);
        json_output(&mut on(s3, &mut run))
    };
    let report = run(first.path().to_str().unwrap());
    let copy = |from: &str, to: &str| {
        let mut copy = wildrydes();
        copy.args(["store", "copy", from, to]);
        json_output(&mut on(s3, &mut copy))
    };
    let there = copy(first.path().to_str().unwrap(), &url);
    let back = copy(&url, last.path().to_str().unwrap());
    assert!(there["written"]["objects"].as_u64() > Some(10), "{there}");
    assert_eq!((&there["written"], &there["present"]["objects"]), (&back["written"], &Value::from(0)));
    assert_eq!(copy(&url, last.path().to_str().unwrap())["present"], there["written"]);
    for store in [url.as_str(), last.path().to_str().unwrap()] {
        assert_eq!(dataset_sha256(&run(store)), dataset_sha256(&report), "{store}");
    }
}

/// The same rides give the same dataset and the same model in a folder and on a service.
#[test]
fn a_fleet_on_a_service_makes_the_same_dataset_and_model() {
    let Some(s3) = s3() else { return };
    let input = Input::of(20_000);
    let in_folder = input.run(&[]);
    let url = s3.new_url();
    let mut run = wildrydes();
    run.arg("run").arg(&input.rides).arg("--weather").arg(&input.weather).args(["--store", &url]);
    let on_service = json_output(&mut on(s3, &mut run));
    assert_eq!(dataset_sha256(&on_service), dataset_sha256(&in_folder));
    let model = |report: &Value| report["model"]["model_id"].clone();
    assert!(model(&in_folder).is_string(), "{in_folder:#}");
    assert_eq!(model(&on_service), model(&in_folder));
    let mut status = wildrydes();
    let text = succeed(&mut on(s3, status.args(["status", "--store", &url])));
    assert!(text.contains("ready"), "{text}");
}

/// A service that ignores the condition of a conditional write is refused by name, by every worker and by `doctor`.
#[test]
fn a_service_that_ignores_conditions_is_refused() {
    let environment = careless_s3::start();
    let mut splitter = worker("splitter");
    splitter.envs(environment.iter().cloned()).args(["--set", "store.url=s3://careless/fleet"]);
    let ended = output(&mut splitter);
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(2), "{said}");
    for part in ["store.url = s3://careless/fleet", "16 of 16 simultaneous writers", "If-None-Match"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let mut doctor = wildrydes();
    doctor.args(["doctor", "--json", "--store", "s3://careless/fleet", "--broker", "amqp://127.0.0.1:9/%2f"]);
    let printed = output(doctor.envs(environment));
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(verdict(&printed, "store races"), "broken", "{printed:#}");
    let folder = tempfile::tempdir().unwrap();
    let mut copy = wildrydes();
    copy.args(["store", "copy"]).arg(folder.path()).arg("s3://careless/fleet").envs(careless_s3::start());
    let ended = output(&mut copy);
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(2) && error.contains("16 of 16"), "{error}");
}

fn verdict(printed: &Value, check: &str) -> Value {
    let findings = printed["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("{check}: {printed:#}"))["verdict"].clone()
}

/// `doctor` checks a service; a setting that does not apply is refused by its name.
#[test]
fn doctor_checks_a_service() {
    let Some(s3) = s3() else { return };
    let url = s3.new_url();
    let mut doctor = wildrydes();
    // Nothing listens there: only the findings about the store count.
    doctor.args(["doctor", "--json", "--store", &url, "--broker", "amqp://127.0.0.1:9/%2f"]);
    let printed: Value = serde_json::from_slice(&output(&mut on(s3, &mut doctor)).stdout).unwrap();
    let verdict = |check: &str| verdict(&printed, check);
    assert_eq!((verdict("store"), verdict("store races")), ("ok".into(), "ok".into()), "{printed:#}");
    assert_eq!(
        (verdict("unfinished uploads"), verdict("lifecycle rule")),
        ("ok".into(), "warning".into()),
        "{printed:#}"
    );
    let mut refused = wildrydes();
    refused.args(["status", "--store", &url, "--set", "store.fsync=true"]);
    let ended = output(&mut on(s3, &mut refused));
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(2) && error.contains("store.fsync: not with s3://"), "{error}");
}
