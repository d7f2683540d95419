//! Tests of `wildrydes model`.

use pipeline_tests::processes::{Input, json_output, output, succeed, wildrydes};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

/// A store with a champion, and with a version trained on the weather features of the same rides.
struct Store {
    folder: TempDir,
    champion: String,
    challenger: String,
}

impl Store {
    fn new() -> Self {
        let input = Input::of(8_000);
        let folder = tempfile::tempdir().unwrap();
        let mut run = wildrydes();
        run.arg("run").arg(&input.rides).arg("--weather").arg(&input.weather).arg("--store").arg(folder.path());
        let champion = json_output(&mut run)["model"]["model_id"].as_str().unwrap().to_owned();
        let mut store = Self { folder, champion, challenger: String::new() };
        let rejected = json_output(&mut store.model(&["retrain", "--set", "trainer.features=weather"]));
        assert_eq!(rejected["rejected"]["reason"], "worse_than_champion", "{rejected}");
        store.challenger = rejected["rejected"]["model_id"].as_str().unwrap().to_owned();
        store
    }

    fn model(&self, arguments: &[&str]) -> Command {
        let mut command = wildrydes();
        command.arg("model").args(arguments).arg("--store").arg(self.folder.path());
        command
    }

    fn champion_now(&self) -> Value {
        let path = self.folder.path().join("models/service-request/champion.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let ended = output(&mut self.model(arguments));
        assert_eq!(ended.status.code(), Some(code), "{ended:?}");
        String::from_utf8_lossy(&ended.stderr).into_owned()
    }
}

/// A worse version becomes challenger, is compared with the champion, promoted by an operator and rolled back. Each record
/// names who did it and why.
#[test]
fn versions_are_listed_compared_promoted_and_rolled_back() {
    let store = Store::new();
    let (champion, challenger) = (store.champion.as_str(), store.challenger.as_str());
    let list = succeed(&mut store.model(&["list"]));
    let line = |id: &str| list.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{list}")).to_owned();
    assert!(line(champion).contains("champion") && line(champion).ends_with("first"), "{list}");
    assert!(line(challenger).contains("challenger") && line(challenger).ends_with("worse_than_champion"), "{list}");
    assert!(list.contains("breeds have breed models"), "{list}");

    let diff = succeed(&mut store.model(&["diff"]));
    assert!(diff.contains("distance") && diff.contains("on the same"), "{diff}");
    assert!(diff.contains(r#"setting features: "all" → "weather""#), "{diff}");
    let show = succeed(&mut store.model(&["show", &challenger[..6]]));
    assert!(show.contains("not promoted after training (worse_than_champion)") && !show.contains("distance"), "{show}");
    assert!(succeed(&mut store.model(&["show"])).contains("report.html"));

    succeed(&mut store.model(&["promote", "challenger", "--why", "to see it", "--by", "ada"]));
    let now = store.champion_now();
    assert_eq!((&now["model_id"], &now["by"], &now["why"]), (&challenger.into(), &"ada".into(), &"to see it".into()));
    assert_eq!(now["history"][0]["model_id"], champion);
    succeed(&mut store.model(&["rollback", "--why", "seen", "--by", "ada"]));
    assert_eq!(store.champion_now()["model_id"], champion);
    // Retraining does not promote again what was rolled back.
    assert!(store.refused(&["rollback"], 1).contains("it has no predecessor"));
    assert_eq!(store.champion_now()["model_id"], champion);
    // The same command finishes a roll-back that was interrupted before the alias was written.
    let path = store.folder.path().join("models/service-request/champion.json");
    let generation =
        |n: u32| fs::read(store.folder.path().join(format!("models/service-request/champion/{n:010}.json"))).unwrap();
    fs::write(&path, generation(2)).unwrap();
    assert_eq!(store.champion_now()["model_id"], challenger);
    succeed(&mut store.model(&["rollback"]));
    assert_eq!(store.champion_now()["model_id"], champion);
    store.refused(&["rollback"], 1);
    let now = store.champion_now();
    assert_eq!(now["history"].as_array().unwrap().len(), 2);
    // The breed models were switched with it, both times.
    let families = fs::read_dir(store.folder.path().join("models")).unwrap().flatten();
    let breeds: Vec<_> = families.filter(|family| family.file_name().to_string_lossy().contains("--")).collect();
    assert!(!breeds.is_empty());
    for breed in breeds {
        let alias: Value = serde_json::from_slice(&fs::read(breed.path().join("champion.json")).unwrap()).unwrap();
        let artefact = store.folder.path().join(alias["object"].as_str().unwrap());
        let artefact: Value = serde_json::from_slice(&fs::read(artefact).unwrap()).unwrap();
        assert_eq!((&artefact["centre"], &alias["by"]), (&champion.into(), &"ada".into()));
    }
    // A decision is not made twice.
    assert_eq!(json_output(&mut store.model(&["retrain"]))["promoted"][0]["model_id"], champion);
    assert_eq!(store.champion_now(), now);
}

/// The same command finishes an interrupted roll-back and goes no further back. A breed model is not promoted without its
/// release.
#[test]
fn an_interrupted_roll_back_goes_no_further_when_it_is_repeated() {
    let store = Store::new();
    let folder = store.folder.path();
    let (first, second) = (store.champion.clone(), store.challenger.clone());
    succeed(&mut store.model(&["promote", "challenger"]));
    let rejected = json_output(&mut store.model(&[
        "retrain",
        "--set",
        "trainer.features=mileage",
        "--set",
        "trainer.promotion=by_hand",
    ]));
    let third = rejected["rejected"]["model_id"].as_str().unwrap().to_owned();
    succeed(&mut store.model(&["promote", &third]));
    succeed(&mut store.model(&["rollback"]));
    assert_eq!(store.champion_now()["model_id"], *second);

    let champion = folder.join("models/service-request/champion.json");
    fs::write(&champion, fs::read(folder.join("models/service-request/champion/0000000003.json")).unwrap()).unwrap();
    assert_eq!(store.champion_now()["model_id"], *third);
    succeed(&mut store.model(&["rollback"]));
    assert_eq!(store.champion_now()["model_id"], *second);

    let of_release = |id: &str| -> Vec<(String, String)> {
        let path = folder.join("models/service-request").join(id).join("breeds.json");
        let breeds: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        breeds["breeds"].as_array().unwrap().iter().map(|b| (text(&b["model"]), text(&b["model_id"]))).collect()
    };
    let (family, of_second) = of_release(&second).remove(0);
    let breed = |file: &str| folder.join("models").join(&family).join(file);
    let now = || serde_json::from_slice::<Value>(&fs::read(breed("champion.json")).unwrap()).unwrap();
    assert_eq!((&now()["model_id"], &now()["generation"]), (&Value::from(of_second.as_str()), &Value::from(4)));
    fs::remove_file(breed("champion/0000000004.json")).unwrap();
    fs::copy(breed("champion/0000000003.json"), breed("champion.json")).unwrap();
    assert_ne!(now()["model_id"], *of_second);
    succeed(&mut store.model(&["rollback"]));
    assert_eq!((&store.champion_now()["model_id"], &now()["model_id"]), (&second.as_str().into(), &of_second.into()));

    let (family, of_third) = of_release(&third).remove(0);
    let alone = store.refused(&["promote", &of_third, "--model", &family], 1);
    assert!(alone.contains(&format!("wildrydes model promote {third}")), "{alone}");
    succeed(&mut store.model(&["rollback"]));
    assert_eq!(store.champion_now()["model_id"], *first);
}

/// A command that names something missing lists what exists.
#[test]
fn missing_models_are_reported_with_existing_ones() {
    let store = Store::new();
    assert!(store.refused(&["show", "ffffffffffffffff"], 1).contains("`wildrydes model list` shows"));
    assert!(store.refused(&["show", "--model", "../x"], 2).contains("a model family"));
    assert!(
        store
            .refused(&["promote", "challenger", "--model", "service-request--nobody"], 1)
            .contains("has no challenger")
    );
    assert!(store.refused(&["rollback"], 1).contains("it has no predecessor"));
    let mut nowhere = wildrydes();
    let ended = output(nowhere.args(["model", "list", "--store"]).arg(store.folder.path().join("nowhere")));
    assert!(!ended.status.success() && String::from_utf8_lossy(&ended.stderr).contains("there is no store"));
}

/// The exported Python function gives the probability of `score`. Every other format is complete.
#[test]
fn an_exported_model_gives_the_same_scores() {
    let store = Store::new();
    let python = store.folder.path().join("exported.py");
    succeed(store.model(&["export", "--format", "python"]).arg("--out").arg(&python));
    let mut score = wildrydes();
    score.args(["score", "--distance", "29.5", "--healthpoints", "320", "--magicpoints", "305", "--tmin", "-20"]);
    let answer = json_output(score.args(["--tmax", "131", "--prcp", "48", "--store"]).arg(store.folder.path()));
    let expected = answer["scores"][0]["probability"].as_f64().unwrap();
    let call = "import exported; print(repr(exported.probability(distance=29.5, healthpoints=320, magicpoints=305, tmin=-20, \
                tmax=131, prcp=48)), exported.MODEL_ID, exported.service(29.5, 320, 305, -20, 131, 48))";
    let text = succeed(Command::new("python3").args(["-c", call]).current_dir(store.folder.path()));
    let mut words = text.split_whitespace();
    let probability: f64 = words.next().unwrap().parse().unwrap();
    assert!((probability - expected).abs() < 1e-14, "{probability} is not {expected}");
    assert_eq!(words.next(), Some(store.champion.as_str()));
    assert_eq!(words.next(), Some(if answer["scores"][0]["service"] == true { "True" } else { "False" }));

    let exported = |format: &str| succeed(&mut store.model(&["export", "--format", format]));
    let artefact: Value = serde_json::from_str(&exported("json")).unwrap();
    assert_eq!(artefact["model_id"].as_str(), Some(store.champion.as_str()));
    for coefficient in artefact["coefficients"].as_array().unwrap() {
        let weight = format!("{:?}", coefficient["per_unit"].as_f64().unwrap().abs());
        for format in ["formula", "sql", "pmml"] {
            assert!(exported(format).contains(&weight), "{format} lacks {coefficient}");
        }
    }
}

/// Versions with an alias, versions that a roll-back needs, and recent versions stay. Confirmed, the rest is removed, with its
/// breed models, serving statistics and scored rides.
#[test]
fn old_versions_and_days_are_pruned() {
    let store = Store::new();
    let folder = store.folder.path();
    let version = |id: &str| folder.join("models/service-request").join(id);
    let challenger = store.challenger.clone();
    succeed(&mut store.model(&["promote", "challenger", "--why", "to have a line"]));
    let rejected = json_output(&mut store.model(&[
        "retrain",
        "--set",
        "trainer.features=mileage",
        "--set",
        "trainer.promotion=by_hand",
    ]));
    let third = rejected["rejected"]["model_id"].as_str().unwrap().to_owned();
    assert!(![&store.champion, &challenger].contains(&&third), "{rejected}");
    for (date, file) in [("2018-04-25", "a.json"), ("2018-04-26", "a.json"), ("2999-01-01", "b.json")] {
        for prefix in ["served", "scored"] {
            let day = folder.join(prefix).join("service-request").join(&third).join(date);
            fs::create_dir_all(&day).unwrap();
            fs::write(day.join(file), "{}").unwrap();
        }
    }
    // A version whose trainer was killed.
    fs::create_dir_all(version("0123456789abcdef")).unwrap();
    fs::write(version("0123456789abcdef").join("report.html"), "").unwrap();

    let young = json_output(&mut store.model(&["prune", "--keep", "0", "--yes"]));
    assert_eq!((&young["versions"], young["days"].as_array().unwrap().len()), (&serde_json::json!([]), 4), "{young}");
    assert!(!folder.join("served/service-request").join(&third).join("2018-04-25").exists());
    assert!(folder.join("served/service-request").join(&third).join("2999-01-01/b.json").exists());

    let aged = SystemTime::now() - Duration::from_secs(40 * 86_400);
    for entry in walk(&folder.join("models")) {
        fs::File::options().append(true).open(entry).unwrap().set_modified(aged).unwrap();
    }
    let breeds_of = |id: &str| -> Vec<PathBuf> {
        let breeds: Value = serde_json::from_slice(&fs::read(version(id).join("breeds.json")).unwrap()).unwrap();
        let path = |breed: &Value| {
            folder.join("models").join(breed["model"].as_str().unwrap()).join(breed["model_id"].as_str().unwrap())
        };
        breeds["breeds"].as_array().unwrap().iter().map(path).collect()
    };
    let (first_breeds, champion_breeds) = (breeds_of(&store.champion), breeds_of(&challenger));
    assert!(!first_breeds.is_empty() && !champion_breeds.is_empty());
    let unsaid = store.refused(&["prune", "--keep", "0"], 2);
    assert!(unsaid.contains("would be removed") && unsaid.contains("--yes"), "{unsaid}");
    let dry = succeed(&mut store.model(&["prune", "--dry-run"]));
    assert!(dry.contains("0123456789abcdef") && !dry.contains(&store.champion), "{dry}");
    assert!(version("0123456789abcdef").exists() && version(&store.champion).exists());

    // Ten previous champions stay unless `--keep` is smaller, and a roll-back finds all it needs.
    succeed(&mut store.model(&["prune", "--yes"]));
    assert!(!version("0123456789abcdef").exists());
    succeed(&mut store.model(&["rollback"]));
    assert_eq!(store.champion_now()["model_id"].as_str(), Some(store.champion.as_str()));
    assert!(first_breeds.iter().chain(&champion_breeds).all(|path| path.join("model.json").exists()));

    succeed(&mut store.model(&["prune", "--keep", "0", "--yes"]));
    assert!(version(&store.champion).join("model.json").exists() && version(&third).join("model.json").exists());
    assert!(!version(&challenger).exists(), "it was champion once, and none before is kept");
    assert!(first_breeds.iter().all(|path| path.join("model.json").exists()));
    assert!(champion_breeds.iter().all(|path| first_breeds.contains(path) || !path.exists()));
    assert!(folder.join("models/service-request/champion/0000000002.json").exists(), "who was champion stays");
    let list = succeed(&mut store.model(&["list"]));
    assert!(list.contains(&store.champion) && !list.contains(&challenger), "{list}");
    assert!(succeed(&mut store.model(&["prune", "--keep", "0", "--yes"])).contains("nothing to remove"));
}

/// All files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path().is_dir() {
            true => files.extend(walk(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}
