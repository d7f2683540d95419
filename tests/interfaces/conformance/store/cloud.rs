//! What only a service has: credentials, a network, unfinished uploads; and a whole fleet on it. Runs on S3 and on Azure.

use super::{content, listed};
use common::topology::{PROCESSES, process::GATEWAY};
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, WriteMultipart, path::Path};
use pipeline_tests::{
    azure::azure,
    careless_s3,
    processes::{Input, dataset_sha256, json_output, output, succeed, wildrydes, worker},
    s3::{WITH_RULE, s3},
    service::Service,
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

/// The services that this machine has.
fn services() -> impl Iterator<Item = &'static Service> {
    [s3(), azure()].into_iter().flatten()
}

/// The variables that differ between the services: of the secret, of the endpoint, and of the time limit of a request.
fn names(service: &Service) -> [&'static str; 3] {
    match service.new_url().starts_with("s3://") {
        true => ["AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_TIMEOUT"],
        false => ["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT", "AZURE_TIMEOUT"],
    }
}

/// The variables of a service, one of them with another value.
fn with(service: &Service, name: &str, value: &str) -> Vec<(String, String)> {
    let mut environment: Vec<_> = service.environment.iter().filter(|(known, _)| known != name).cloned().collect();
    environment.push((name.to_owned(), value.to_owned()));
    environment
}

/// A command with the credentials of the service.
fn on(s3: &Service, command: &mut Command) -> Command {
    let mut with = std::mem::replace(command, Command::new("true"));
    with.envs(s3.environment.iter().cloned());
    with
}

/// A bucket holds several stores.
#[tokio::test]
async fn stores_with_different_prefixes_share_nothing() {
    for service in services() {
        let (outer, inner) = (service.new_url(), service.new_url());
        let stores = [service.open(&outer), service.open(&inner), service.open(&format!("{outer}/below"))];
        for (number, store) in stores.iter().enumerate() {
            write(store, "batches/b.json", number.to_string()).await.unwrap();
        }
        for (number, store) in stores.iter().enumerate() {
            assert_eq!(read(store, "batches/b.json").await, Ok(Some(number.to_string().into())));
            assert_eq!(listed(store, "batches").await, BTreeSet::from(["batches/b.json".to_owned()]));
        }
    }
}

/// A wrong key, a missing bucket and a service that is down are told apart, and no text has the secret.
#[tokio::test]
async fn refusals_are_final_and_name_no_secret() {
    // moto accepts any key.
    for service in services().filter(|service| !service.origin.contains("moto")) {
        let (url, [secret, endpoint, _]) = (service.new_url(), names(service));
        let scheme = url.split_once("://").unwrap().0;
        // In base64, as Azure's keys are.
        let wrong = open_with(&settings(&url), &with(service, secret, "c2hpYmJvbGV0aA==")).unwrap();
        let refused = prove(&wrong, 1, 1).await.unwrap_err();
        assert!(matches!(&refused, Unproven::Refused(why) if !why.contains("c2hpYmJ")), "{refused}");
        let failure = read(&wrong, "batches/b.json").await.unwrap_err().to_string();
        assert!(failure.contains("object store is away") && !failure.contains("c2hpYmJ"), "{failure}");

        let elsewhere = settings(&format!("{scheme}://no-such-bucket-here/x"));
        let elsewhere = open_with(&elsewhere, &service.environment).unwrap();
        let failure = read(&elsewhere, "batches/b.json").await.unwrap_err().to_string();
        assert!(failure.contains("the bucket does not exist"), "{failure}");
        assert!(matches!(prove(&elsewhere, 1, 1).await, Err(Unproven::Refused(_))));

        let away = open_with(&settings(&url), &with(service, endpoint, "http://127.0.0.1:9")).unwrap();
        assert!(matches!(prove(&away, 1, 1).await, Err(Unproven::Unavailable(_))));
    }
}

/// A reader may be busy for longer than a request may take: the splitter waits for the broker, the gateway for its client.
#[tokio::test]
async fn a_slow_reader_outlives_the_time_limit_of_a_request() {
    for service in services() {
        let (url, [.., timeout]) = (service.new_url(), names(service));
        let bytes = content(19_000_000, 5);
        write(&service.open(&url), "raw/rides", bytes.clone()).await.unwrap();
        let store = open_with(&settings(&url), &with(service, timeout, "2s")).unwrap();
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
}

/// The gateway writes an upload under a temporary name and moves it to the name with its SHA-256.
#[tokio::test]
async fn an_upload_over_http_gets_its_name() {
    for service in services() {
        let (store, bytes) = (service.store(), content(9_000_000, 2));
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

/// The rule of a bucket may cover a part of it.
#[tokio::test]
async fn a_lifecycle_rule_is_found_for_the_prefix_that_it_covers() {
    // A bucket that others have given may have other rules.
    let Some(s3) = s3().filter(|s3| !s3.origin.starts_with("WILDRYDES_TEST_S3_URL")) else { return };
    let bucket = s3.new_url().rsplit_once('/').unwrap().0.to_owned();
    for (url, expected) in [
        (format!("{bucket}/{WITH_RULE}"), LifecycleRule::After(7)),
        (format!("{bucket}/{WITH_RULE}/fleet"), LifecycleRule::After(7)),
        (s3.new_url(), LifecycleRule::None),
        (bucket, LifecycleRule::None),
    ] {
        let uploads = store::unfinished_uploads_with(&settings(&url), &s3.environment).unwrap().expect("S3 has them");
        assert_eq!(uploads.lifecycle_rule().await.unwrap(), expected, "{url}");
    }
}

/// A laptop's store becomes a bucket, and a bucket a folder; the report of the fleet stays the same.
#[test]
fn a_store_is_copied_to_a_service_and_back() {
    for service in services() {
        let input = Input::of(2_000);
        let (first, last) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let url = service.new_url();
        let run = |store: &str| {
            let mut run = wildrydes();
            run.arg("run").arg(&input.rides).arg("--weather").arg(&input.weather).args(["--store", store]);
            json_output(&mut on(service, &mut run))
        };
        let report = run(first.path().to_str().unwrap());
        let copy = |from: &str, to: &str| {
            let mut copy = wildrydes();
            copy.args(["store", "copy", from, to]);
            json_output(&mut on(service, &mut copy))
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
}

/// The same rides give the same dataset and the same model in a folder and on a service.
#[test]
fn a_fleet_on_a_service_makes_the_same_dataset_and_model() {
    let input = Input::of(20_000);
    let in_folder = input.run(&[]);
    let model = |report: &Value| report["model"]["model_id"].clone();
    assert!(model(&in_folder).is_string(), "{in_folder:#}");
    for service in services() {
        let url = service.new_url();
        let mut run = wildrydes();
        run.arg("run").arg(&input.rides).arg("--weather").arg(&input.weather).args(["--store", &url]);
        let on_service = json_output(&mut on(service, &mut run));
        assert_eq!(dataset_sha256(&on_service), dataset_sha256(&in_folder), "{url}");
        assert_eq!(model(&on_service), model(&in_folder), "{url}");
        let mut status = wildrydes();
        let text = succeed(&mut on(service, status.args(["status", "--store", &url])));
        assert!(text.contains("ready"), "{text}");
    }
}

/// A service that ignores the condition of a conditional write is refused by name: by every process, `up`, `doctor` and `store copy`.
#[test]
fn a_service_that_ignores_conditions_is_refused() {
    let environment = careless_s3::start();
    let mut up = wildrydes();
    up.arg("up");
    let workers = PROCESSES.into_iter().chain([GATEWAY.name]).map(worker);
    for mut process in workers.chain([up]) {
        process.envs(environment.iter().cloned()).args(["--set", "store.url=s3://careless/fleet"]);
        process.envs([("WILDRYDES__GATEWAY__AUTH", "off"), ("WILDRYDES__GATEWAY__BIND", "127.0.0.1:0")]);
        let ended = output(&mut process);
        let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert_eq!(ended.status.code(), Some(2), "{process:?}: {said}");
        for part in ["store.url = s3://careless/fleet", "16 of 16 simultaneous writers", "If-None-Match"] {
            assert!(said.contains(part), "{process:?}: {part}: {said}");
        }
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
    for service in services() {
        let url = service.new_url();
        let mut doctor = wildrydes();
        // Nothing listens there: only the findings about the store count.
        doctor.args(["doctor", "--json", "--store", &url, "--broker", "amqp://127.0.0.1:9/%2f"]);
        let printed: Value = serde_json::from_slice(&output(&mut on(service, &mut doctor)).stdout).unwrap();
        let verdict = |check: &str| verdict(&printed, check);
        assert_eq!((verdict("store"), verdict("store races")), ("ok".into(), "ok".into()), "{printed:#}");
        if url.starts_with("s3://") {
            let found = (verdict("unfinished uploads"), verdict("lifecycle rule"));
            assert_eq!(found, ("ok".into(), "warning".into()), "{printed:#}");
        }
        let mut refused = wildrydes();
        refused.args(["status", "--store", &url, "--set", "store.fsync=true"]);
        let ended = output(&mut on(service, &mut refused));
        let error = String::from_utf8_lossy(&ended.stderr);
        let scheme = url.split_once("://").unwrap().0;
        let expected = format!("store.fsync: not with {scheme}://");
        assert!(ended.status.code() == Some(2) && error.contains(&expected), "{error}");
    }
}
