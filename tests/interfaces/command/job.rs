//! Tests of `run` and `ingest` in the foreground: sources of rides, progress messages, and results that exist already.

use super::failed;
use pipeline_tests::{
    noaa::{Data, Fault, Noaa},
    processes::{Fleet, Input, json_output, succeed, wildrydes},
    wait::SOON,
};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
};

/// Rides of the input of each test in this module.
const RIDES: u64 = 12;

/// A running command, and its standard error so far.
struct Running {
    child: Child,
    lines: Receiver<String>,
    stderr: String,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
        let stderr = child.stderr.take().expect("it is piped");
        let (line, lines) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, stderr: String::new() }
    }

    /// Reads lines of standard error until one contains this part.
    fn until(&mut self, part: &str) {
        while !self.stderr.lines().any(|line| line.contains(part)) {
            let line =
                self.lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("{part:?} was not printed\n{}", self.stderr));
            self.stderr += &format!("{line}\n");
        }
    }

    /// Waits for the end. Returns exit code, standard output, and all of standard error.
    fn wait_for_end(mut self) -> (Option<i32>, String, String) {
        let mut out = String::new();
        self.child.stdout.take().expect("it is piped").read_to_string(&mut out).expect("text");
        let status = self.child.wait().expect("it ends");
        self.stderr.extend(self.lines.iter().map(|line| line + "\n"));
        (status.code(), out, self.stderr)
    }
}

/// `run` on its own store, without the ride file.
fn run(input: &Input, store: &Path) -> Command {
    let mut command = wildrydes();
    command.arg("run").arg("--json").arg("--weather").arg(&input.weather).arg("--store").arg(store);
    command.current_dir(input.folder());
    command
}

/// The report of `run` on its only batch. So few rides give no model.
fn batch(out: &str, code: Option<i32>, err: &str) -> Value {
    assert_eq!(code, Some(4), "{out}\n{err}");
    let report: Value = serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    report["batches"][0].clone()
}

/// Rides arrive through pipes as from files: standard input under its names, `<(…)`, and a named pipe.
#[test]
fn rides_come_through_every_kind_of_pipe() {
    let input = Input::of(RIDES);
    let of_file = {
        let Output { status, stdout, stderr } =
            run(&input, &input.folder().join("file")).arg(&input.rides).output().unwrap();
        batch(&String::from_utf8_lossy(&stdout), status.code(), &String::from_utf8_lossy(&stderr))
    };
    succeed(Command::new("mkfifo").arg(input.folder().join("pipe")));
    for (name, script, file) in [
        ("dash", r#"cat rides.json | "$0" "$@" -"#, "stdin"),
        ("stdin", r#"cat rides.json | "$0" "$@" /dev/stdin"#, "stdin"),
        ("redirected", r#""$0" "$@" - < rides.json"#, "stdin"),
        ("substituted", r#""$0" "$@" <(cat rides.json)"#, "/dev/fd/"),
        ("named", r#"cat rides.json > pipe & "$0" "$@" pipe"#, "pipe"),
    ] {
        let command = run(&input, &input.folder().join(name));
        let mut shell = Command::new("bash");
        shell.current_dir(input.folder()).args(["-c", script]).arg(command.get_program()).args(command.get_args());
        let Output { status, stdout, stderr } = shell.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        let text = batch(&out, status.code(), &err);
        assert_eq!(text["manifest"], of_file["manifest"], "{name}");
        assert!(text["file"].as_str().unwrap().starts_with(file), "{name}: {text}");
        let claim = input.folder().join(name).join(format!("batches/{}.json", text["batch_id"].as_str().unwrap()));
        let claim: Value = serde_json::from_slice(&fs::read(claim).unwrap()).unwrap();
        assert!(claim["source"].as_str().unwrap().starts_with(file), "{name}: {claim}");
    }
}

/// Standard input can be one of several files.
#[test]
fn standard_input_is_one_file_of_several() {
    let input = Input::of(RIDES);
    let other = input.folder().join("other.ndjson");
    succeed(wildrydes().args(["generate", "rides", "--form", "ndjson", "--rides", "7", "--seed", "9"]).arg(&other));
    let mut both = run(&input, &input.folder().join("store"));
    let ended = both.args(["other.ndjson", "-"]).stdin(File::open(&input.rides).unwrap()).output().unwrap();
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let received: Vec<_> =
        report["batches"].as_array().unwrap().iter().map(|b| b["manifest"]["received"].clone()).collect();
    assert_eq!(received, [7, RIDES], "{report}");
}

/// A command that reads a pipe without a writer says so, and reads the pipe once there is a writer.
#[test]
fn a_pipe_without_a_writer_is_reported() {
    let input = Input::of(RIDES);
    let pipe = input.folder().join("pipe");
    succeed(Command::new("mkfifo").arg(&pipe));
    let mut running = Running::start(run(&input, &input.folder().join("store")).arg("pipe").stdin(Stdio::null()));
    running.until("pipe: waits for a writer");
    let mut writer = File::options().write(true).open(&pipe).unwrap();
    running.until("pipe: waits for the first byte");
    writer.write_all(&fs::read(&input.rides).unwrap()).unwrap();
    drop(writer);
    let (code, out, err) = running.wait_for_end();
    assert_eq!(batch(&out, code, &err)["manifest"]["received"], RIDES);
}

/// A path that is not a source of rides is refused before anything is read or published. The error says what it is.
#[test]
fn an_unreadable_path_is_refused_with_its_remedy() {
    let input = Input::of(RIDES);
    let store = input.folder().join("store");
    let with = |arguments: &[&str], code: i32, expected: &str| {
        let text = failed(run(&input, &store).args(arguments), code);
        assert!(text.contains(expected), "{arguments:?}: {expected:?} is missing\n{text}");
    };
    // The helper passes /dev/null as standard input, which ends at once, like an empty pipe.
    with(&["-"], 1, "stdin is empty: the pipe ended");
    with(&["rides.json", "/dev/stdin"], 1, "stdin is empty: the pipe ended");
    with(&["rides.json", "weather"], 1, "weather is a folder: name the files in it");
    with(&["rides.json", "missing.json"], 1, "missing.json: there is no such file");
    with(&["-", "/dev/stdin"], 2, "standard input can be read only once");
    let batches = store.join("batches");
    assert!(!batches.exists() || fs::read_dir(batches).unwrap().count() == 0, "nothing was published");
}

/// While the weather service is down, the command prints the service's answer. Then the job continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_run_names_the_worker_and_the_cause() {
    let input = tokio::task::block_in_place(|| Input::of(RIDES));
    let noaa = Noaa::start(Data::Folder(input.weather.clone())).await.unwrap();
    noaa.fail_next("ghcnd-stations.txt", 8, Fault::Status(503, None));
    let (code, out, err) = tokio::task::block_in_place(|| {
        let mut command = wildrydes();
        command.arg("run").arg(&input.rides).arg("--json").arg("--store").arg(input.folder().join("store"));
        command.args(["--weather", &noaa.url(), "--set", "run.patience_ms=0"]);
        let mut running = Running::start(command.stdin(Stdio::null()));
        running.until("weather-fetcher waits: ");
        running.wait_for_end()
    });
    assert_eq!(batch(&out, code, &err)["manifest"]["received"], RIDES);
    let cause = err.lines().find(|line| line.starts_with("weather-fetcher waits: ")).unwrap();
    assert!(cause.contains("503") && cause.ends_with("retrying until it succeeds"), "{cause}");
    assert!(!err.contains("may be away"), "a cause, not a guess\n{err}");
}

/// A batch without a reader is reported once, as no failure. If the worker is paused, the command says so, and who paused it.
#[test]
fn ingest_reports_a_queue_without_a_reader_and_a_paused_worker() {
    let input = Input::of(RIDES);
    let mut fleet = Fleet::start_some(&[], 1, &input.weather, &[]);
    let ingest = |fleet: &Fleet| {
        let mut command = fleet.wildrydes();
        command.args(["ingest", "--until", "dataset", "--set", "run.patience_ms=0"]).arg(&input.rides);
        Running::start(command.stdin(Stdio::null()))
    };
    let mut running = ingest(&fleet);
    running.until("no process reads the queue `splitter` yet; the batch waits there");
    for worker in ["splitter", "weather-fetcher", "merger"] {
        fleet.launch(worker, 0);
    }
    let (code, _, err) = running.wait_for_end();
    assert_eq!((code, err.matches("no process reads the queue `splitter`").count()), (Some(0), 1), "{err}");

    succeed(fleet.wildrydes().args(["pause", "merger", "--why", "a test"]));
    let other = input.folder().join("other.json");
    succeed(wildrydes().args(["generate", "rides", "--rides", "9", "--seed", "9"]).arg(&other));
    let mut command = fleet.wildrydes();
    command.args(["ingest", "--until", "dataset", "--set", "run.patience_ms=0"]).arg(&other);
    let mut running = Running::start(command.stdin(Stdio::null()));
    running.until("merger is paused since ");
    running.until(": a test; `wildrydes resume merger` lets it continue");
    succeed(fleet.wildrydes().args(["resume", "merger"]));
    let (code, _, err) = running.wait_for_end();
    assert_eq!(code, Some(0), "{err}");
    assert!(!err.contains("no process reads the queue `merger`"), "{err}");
}

/// A weather folder with only the first lines of each file.
fn cut_weather(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            cut_weather(&entry, &target);
        } else if entry.extension().is_some_and(|extension| extension == "csv") {
            let text = fs::read_to_string(&entry).unwrap();
            fs::write(target, text.lines().take(4).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        } else {
            fs::copy(&entry, target).unwrap();
        }
    }
}

/// A dataset of an earlier run is not reported as new: the run prints when it was made, how the weather differs now, and how to
/// join again. Joining again as described adds the weather.
#[test]
fn a_dataset_of_an_earlier_run_is_reported_with_its_differences() {
    let input = Input::of(160);
    let (store, cut) = (input.folder().join("store"), input.folder().join("cut"));
    cut_weather(&input.weather, &cut);
    let with = |weather: &Path, json: bool| {
        let mut command = wildrydes();
        command.arg("run").arg(&input.rides).arg("--weather").arg(weather).arg("--store").arg(&store);
        if json {
            command.arg("--json");
        }
        let Output { stdout, stderr, .. } = command.stdin(Stdio::null()).output().unwrap();
        (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
    };
    let batch = |weather: &Path| {
        let (out, err) = with(weather, true);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
        report["batches"][0].clone()
    };
    let first = batch(&cut);
    assert!(first["earlier"].is_null(), "{first}");
    let without =
        first["manifest"]["without_weather"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert!(without > 100, "{first}");

    let second = batch(&input.weather);
    let earlier = &second["earlier"];
    assert_eq!(
        (&second["manifest"], earlier["without_weather"].as_u64()),
        (&first["manifest"], Some(without)),
        "{second}"
    );
    let again = &earlier["looked_up_again"];
    assert!(again["rides"] == 160 && again["would_have_weather"].as_u64().unwrap() > 100, "{earlier}");
    let (out, err) = with(&input.weather, false);
    let folder = store.join("dataset").join(first["batch_id"].as_str().unwrap());
    for part in [
        "is from an earlier run",
        &format!("{without} of its 160 rides are without weather"),
        "without weather would have weather now",
        &format!("--refresh, or wildrydes refresh {}", first["batch_id"].as_str().unwrap()),
    ] {
        assert!(out.contains(part), "{part:?} is missing\n{out}");
    }
    assert!(!err.contains("joining rides.json"), "nothing was joined\n{err}");

    fs::remove_dir_all(&folder).unwrap();
    let joined = batch(&input.weather);
    assert!(
        joined["earlier"].is_null() && joined["manifest"]["without_weather"] != first["manifest"]["without_weather"]
    );
    let unchanged = &batch(&input.weather)["earlier"]["looked_up_again"];
    let counts =
        ["would_have_weather", "other_values", "would_have_none", "failed"].map(|name| unchanged[name].clone());
    assert_eq!(counts, [0, 0, 0, 0].map(Value::from), "{unchanged}");
}

/// An invalid reading is refused before anything is read, and the error names the expected form. A valid reading is part of the
/// batch's identity.
#[test]
fn the_reading_of_a_file_is_part_of_its_batch() {
    let input = Input::of(RIDES);
    let store = input.folder().join("store");
    for (arguments, expected) in [
        (&["rides.json", "--map", "altitude=alt"][..], "a field of a ride"),
        (&["rides.json", "--rides-at", "data[0]"], "payload.items"),
        (&["rides.json", "--map", "latitude=a", "--map", "latitude=b"], "each field once"),
    ] {
        let text = failed(run(&input, &store).args(arguments), 2);
        assert!(text.contains(expected), "{arguments:?}\n{text}");
    }
    let fleet = Fleet::start_some(&[], 1, &input.weather, &[]);
    let ingested = |more: &[&str]| {
        let mut ingest = fleet.wildrydes();
        ingest.args(["ingest", "--detach"]).arg(&input.rides).args(more);
        json_output(&mut ingest)["batch_id"].as_str().unwrap().to_owned()
    };
    let ids = [&[][..], &["--map", "latitude=lat"], &["--rides-at", "travel_data"]].map(ingested);
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}
