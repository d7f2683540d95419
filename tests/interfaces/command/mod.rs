//! Tests of the `wildrydes` command: its output and its failures.

mod imputation;
mod job;
mod models;
mod notebook;
mod readme;
mod status;

use common::topology::{PROCESSES, Topology, process::GATEWAY};
use pipeline_tests::processes::{Input, json_output, output, succeed, wildrydes, worker};
use std::{
    path::Path,
    process::{Command, Output},
};

fn failed(command: &mut Command, code: i32) -> String {
    let Output { status, stdout, stderr } = output(command);
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(code), "{command:?}\n{out}\n{err}");
    format!("{out}{err}")
}

/// The demo prints a report, and the command that it suggests works as printed.
#[test]
fn the_demo_ends_with_the_report_and_the_next_command_works() {
    let folder = tempfile::tempdir().unwrap();
    let demo = || {
        let mut demo = wildrydes();
        // Not called through cargo, so the report names the command as it was called.
        demo.current_dir(folder.path()).env_remove("CARGO").args(["demo", "--rides", "4000"]);
        demo
    };
    let report = succeed(&mut demo());
    for part in [
        "received",
        "4,000",
        "rejected",
        "odds multiplied by",
        "truth",
        "ROC AUC",
        "actual: service",
        "sha256",
        "Next, score a ride",
    ] {
        assert!(report.contains(part), "{part} is missing\n{report}");
    }
    let next = report.lines().skip_while(|line| !line.contains("Next, score a ride")).nth(1).expect("a command").trim();
    assert!(next.contains("wildrydes score --store"), "{next}");
    let mut copied = Command::new("sh");
    let scored = succeed(copied.current_dir(folder.path()).env_remove("WILDRYDES_CONFIG").args(["-c", next]));
    assert!(scored.contains("% likely to end in a service request"), "{scored}");
    let again = succeed(&mut demo());
    assert!(again.ends_with(&report), "the same seed, the same report\n{again}");
    assert!(again.contains("is from an earlier run") && again.contains("none would have other weather now"), "{again}");
}

/// Under the name of a process, the command is that process: the image has one executable.
#[test]
fn the_command_is_a_process_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in PROCESSES.into_iter().chain([GATEWAY.name]) {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(wildrydes().get_program(), &link).unwrap();
        let help = succeed(Command::new(&link).arg("--help"));
        assert_eq!(help, succeed(worker(name).arg("--help")), "{name}");
        assert!(help.contains(&format!("Usage: {name} ")), "{help}");
    }
}

/// The demo and the benchmark make stores of their own, whatever the configuration says about that of the fleet.
#[test]
fn commands_with_a_store_of_their_own_do_not_read_the_settings_of_the_configured_one() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        "[store]\nurl = \"s3://rides\"\nendpoint = \"http://127.0.0.1:1\"\nallow_http = true\nregion = \"here\"\n";
    std::fs::write(folder.path().join("wildrydes.toml"), settings).unwrap();
    for command in ["demo --rides 2000 --dir .", "bench --rides 2000 --runs 1 --dir ."] {
        let mut own = wildrydes();
        own.current_dir(folder.path()).args(["--config", "wildrydes.toml", "--json"]).args(command.split(' '));
        json_output(&mut own);
    }
}

/// A truncated document is refused as a whole, with the place and what was expected.
#[test]
fn a_truncated_document_is_refused_with_the_place() {
    let input = Input::of(50);
    let whole = std::fs::read(&input.rides).unwrap();
    let (cut, store) = (input.folder().join("cut.json"), input.folder().join("store"));
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let mut run = wildrydes();
    run.arg("run").arg(&cut).arg("--weather").arg(&input.weather).arg("--store").arg(&store);
    let text = failed(&mut run, 3);
    for part in ["cut.json was refused by the splitter", "cut_short", &format!("{}", whole.len() / 2), "line"] {
        assert!(text.contains(part), "{part} is missing\n{text}");
    }
    assert!(!store.join("dataset").exists() && !store.join("staging").exists(), "nothing of it was ingested");
}

/// Rides without labels give a dataset, no model, the reason, and exit code 4.
#[test]
fn without_labels_there_is_a_dataset_and_a_reason_for_no_model() {
    let input = Input::of(10);
    let rides = input.folder().join("unlabelled.ndjson");
    succeed(wildrydes().args(["generate", "rides", "--unlabelled", "--form", "ndjson", "--rides", "500"]).arg(&rides));
    let mut run = wildrydes();
    run.arg("run").arg(&rides).arg("--weather").arg(&input.weather).arg("--store").arg(input.folder().join("store"));
    let text = failed(&mut run, 4);
    assert!(text.contains("No model:") && text.contains("too_few_rides"), "{text}");
}

/// No command replaces an existing file without `--force`.
#[test]
fn existing_files_are_replaced_only_if_forced() {
    let input = Input::of(10);
    let (rides, weather) = (input.rides.to_str().unwrap(), input.weather.to_str().unwrap());
    for arguments in [["rides", rides], ["weather", weather]] {
        let generate = |more: &[&str]| {
            let mut command = wildrydes();
            command.arg("generate").args(arguments).args(["--seed", "7"]).args(more);
            command
        };
        let before = std::fs::read(&input.rides).unwrap();
        let text = failed(&mut generate(&[]), 2);
        assert!(text.contains("exists: --force"), "{text}");
        assert!(std::fs::read(&input.rides).unwrap() == before, "{arguments:?}: it was replaced");
        succeed(&mut generate(&["--force"]));
    }
}

#[test]
fn configuration_errors_name_the_key_and_what_would_be_right() {
    let input = Input::of(10);
    let mut run = wildrydes();
    run.arg("run").arg(&input.rides).args(["--chunk-size", "0"]).arg("--store").arg(input.folder().join("store"));
    let text = failed(&mut run, 2);
    for part in ["splitter.chunk_size = 0", "WILDRYDES__SPLITTER__CHUNK_SIZE", "1 to"] {
        assert!(text.contains(part), "{part} is missing\n{text}");
    }
    let text = failed(wildrydes().args(["topology", "apply", "--broker", "amqp://user:hunter2@host/"]), 2);
    assert!(text.contains("broker.url") && !text.contains("hunter2"), "{text}");
}

#[test]
fn help_shows_examples_and_every_command() {
    let help = succeed(wildrydes().arg("--help"));
    for part in [
        "Examples:",
        "demo",
        "run",
        "ingest",
        "score",
        "status",
        "export",
        "describe",
        "dead",
        "replay",
        "pause",
        "resume",
        "drain",
        "doctor",
        "generate",
        "topology",
        "up",
        "Exit codes",
    ] {
        assert!(help.contains(part), "{part} is missing\n{help}");
    }
    for command in [
        &["dead", "list"][..],
        &["dead", "show"],
        &["dead", "replay"],
        &["dead", "drop"],
        &["dead", "export"],
        &["dead", "restore"],
        &["model", "prune"],
        &["export"],
        &["describe"],
        &["replay"],
        &["pause"],
        &["resume"],
        &["drain"],
        &["doctor"],
        &["schema"],
    ] {
        let help = succeed(wildrydes().args(command).arg("--help"));
        assert!(help.contains("Examples:"), "{command:?}\n{help}");
    }
    assert!(succeed(wildrydes().args(["completions", "bash"])).contains("dead__subcmd__replay"));
}

/// The command lists and prints exactly the schemas of the folder `schemas`.
#[test]
fn every_schema_is_listed_and_printed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    let list = json_output(wildrydes().arg("schema"));
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|schema| schema["name"].as_str().unwrap()).collect();
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
        .collect();
    files.sort();
    assert_eq!(names, files);
    for name in names {
        let file = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        assert_eq!(succeed(wildrydes().args(["schema", name])), file, "{name}");
    }
    assert!(failed(wildrydes().args(["schema", "ride.v1"]), 2).contains("expected one of batch-split.v1"));
}

#[test]
fn the_topology_is_shown_as_table_json_and_picture() {
    let topology = Topology::of_fleet("");
    let table = succeed(wildrydes().args(["topology", "show"]));
    let dot = succeed(wildrydes().args(["topology", "show", "--dot"]));
    let json = json_output(wildrydes().args(["topology", "show"]));
    assert_eq!(json, serde_json::to_value(&topology).unwrap());
    for queue in &topology.queues {
        assert!(table.contains(&queue.name) && dot.contains(&format!("\"{}\"", queue.name)), "{}", queue.name);
    }
    assert!(dot.starts_with("digraph") && dot.trim_end().ends_with('}'));
}

/// A reader may close the pipe early, as `head -1` does: the command ends without a message and without a failure.
#[test]
fn a_closed_output_pipe_is_no_failure() {
    for arguments in [&["topology", "show"][..], &["topology", "show", "--json"], &["completions", "bash"], &["--help"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = wildrydes();
        let ended = command.args(arguments).stdout(writer).output().unwrap();
        let stderr_text = String::from_utf8_lossy(&ended.stderr);
        assert!(
            ended.status.success() && stderr_text.is_empty(),
            "{arguments:?} ended with {}\n{stderr_text}",
            ended.status
        );
    }
}

/// A worker that cannot start logs the cause once, as an event in the format of its log.
#[test]
fn a_worker_that_cannot_start_logs_the_cause_once() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("amqp://127.0.0.1:{port}/%2f");
    let a_file = folder.path().join("file");
    std::fs::write(&a_file, "").unwrap();
    let a_file = a_file.to_str().unwrap();
    for (arguments, code, why) in [
        (&["--set", "splitter.chunk_size=0"][..], 2, "splitter.chunk_size = 0"),
        (&["--config", "not-there.toml"], 2, "not-there.toml"),
        (&["--set", "no_section.key=1"], 2, "no_section"),
        (&["--set", &format!("store.url={a_file}")], 2, "store.url"),
        (&["--set", &format!("broker.url={nobody}"), "--set", "broker.give_up_after_ms=1000"], 1, "gave up after 1 s"),
    ] {
        let mut splitter = worker("splitter");
        splitter.current_dir(folder.path()).env("WILDRYDES__LOG__FORMAT", "json").args(arguments);
        let text = failed(&mut splitter, code);
        let events: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{text}")))
            .collect();
        let errors: Vec<_> = events.iter().filter(|event| event["level"] == "ERROR").collect();
        let [error] = errors[..] else { panic!("{} errors\n{text}", errors.len()) };
        assert!(error["error"].as_str().unwrap().contains(why), "{error}");
    }
}

/// Commands that only read do not create a store. They say that there is none, and which option names it.
#[test]
fn reading_commands_create_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let wildrydes = || {
        let mut command = wildrydes();
        command.current_dir(folder.path()).args(["--store", "nowhere"]);
        command
    };
    let ride = ["--distance", "30", "--healthpoints", "300", "--magicpoints", "300"];
    let weather = ["--tmin", "180", "--tmax", "270", "--prcp", "0"];
    for text in [
        succeed(wildrydes().arg("status")),
        failed(wildrydes().args(["status", "a-batch"]), 1),
        failed(wildrydes().args(["replay", "--all"]), 1),
        failed(wildrydes().arg("score").args(ride).args(weather), 4),
        failed(wildrydes().args(["score", "--json"]).args(ride).args(weather), 4),
    ] {
        assert!(text.contains("there is no store nowhere") && text.contains("--store"), "{text}");
    }
    assert_eq!(json_output(wildrydes().arg("status"))["batches"], serde_json::json!([]));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
}

/// A queue with other arguments is reported with both values and what to do, and nothing is changed.
#[tokio::test]
async fn a_mismatch_with_the_broker_is_reported_with_both_values() {
    use lapin::{options::QueueDeclareOptions, types::FieldTable};
    let settings = pipeline_tests::rabbitmq::settings();
    // Before the first connection: the first test that needs the binaries waits here until they are built.
    let mut apply = wildrydes();
    let connection = lapin::Connection::connect(settings.url.reveal(), Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let name = format!("{}splitter", settings.namespace);
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), lapin::types::AMQPValue::LongString("classic".into()));
    channel.queue_declare(name.as_str().into(), durable, arguments).await.unwrap();
    apply.args(["topology", "apply", "--broker", settings.url.reveal(), "--set"]);
    apply.arg(format!("broker.namespace={}", settings.namespace));
    let text = tokio::task::spawn_blocking(move || failed(&mut apply, 1)).await.unwrap();
    for part in [name.as_str(), "this fleet declares", "the broker has", "broker.namespace"] {
        assert!(text.contains(part), "{part} is missing\n{text}");
    }
    channel.queue_delete(name.as_str().into(), Default::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
}
