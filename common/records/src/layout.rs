//! Where everything is in the object store: every name derives from its inputs.
//!
//! ```text
//! raw/<name>                            what publishers upload
//! raw/inline/<sha256>[.ndjson][.br]     an inline batch, kept by the splitter for a replay; or with `.deflate`
//! uploads/<batch_id>.json               what was handed in over HTTP, and when
//! idempotency/<sha256>.json             which batch was promised under an idempotency key
//! batches/<batch_id>.json               the claim: which bytes a batch id stands for, and how they are cut
//! batch-log/<n>                         the id of the n-th batch to arrive; n from 1, as ten digits; written once
//! batch-log/earlier.txt                 the ids of the batches older than the log, oldest first, one per line
//! rejected/<batch_id>.ndjson            index, field, reason, the ride as it came
//! staging/<batch_id>/<split_id>/...     enriched chunks waiting for the batch to be complete, by splitting
//! dataset/<batch_id>/part-00000.csv     the joined rides
//! dataset/<batch_id>/manifest.json      written last: the dataset is complete
//! weather/<station>/<year>.csv          the cache
//! weather/warnings/<station>.json       what was left out of a station's file, for people
//! models/<model>/<id>/model.json        the artefact
//! models/<model>/<id>/metrics.json      how good it is
//! models/<model>/<id>/report.html       the same to look at
//! models/<model>/<id>/breeds.json       which breeds got a model of their own beside it, and what that brings
//! models/<model>/<id>/verdict.json      whether it became champion when it was trained, and why
//! models/<model>/<id>/realised.json     what became of the rides it scored, as far as they came with a label later
//! models/<model>/<id>/rejected.json     instead of all: why no model came of these datasets
//! models/<model>/champion/<n>.json      the n-th champion, n from 1 in ten digits, written once
//! models/<model>/champion.json          the alias scorers follow: a copy of the highest
//! models/<model>/challenger…            the same for the challenger, which scores in shadow
//! served/<model>/<id>/<date>/<scorer>.json   what one scorer process was asked that day (UTC) and what it answered
//! scored/<model>/<id>/<date>/<scorer>.csv    rides it scored, by id
//! cache/trainer/<format>/<hash>         parsed rides of many datasets; used by trainers only, safe to delete
//! control/<worker>.json                 whether a worker is paused: who said so, when, why
//! control/waiting/<worker>.json         why messages of a worker wait for their next attempt, for people
//! dead/<queue>/<id>.json                a dead letter that was dropped, or whose broker ended with its process
//! ```

pub use common::object_path::{DATASET, MODELS, RAW, is_below};
use common::{coding::Coding, features::breed_name, model::AliasName};
use sha2::{Digest, Sha256};

/// Prefix of what was handed in over HTTP.
pub const UPLOADS: &str = "uploads";
/// Prefix of the claims.
pub const BATCHES: &str = "batches";
/// Prefix of what scorers were asked and answered.
pub const SERVED: &str = "served";
/// Prefix of the rides that scorers scored.
pub const SCORED: &str = "scored";
/// Prefix of the trainer's cache of parsed rides. Only trainers read and write it; it is safe to delete at any time.
pub const TRAINER_CACHE: &str = "cache/trainer";
/// The model family trained on all rides.
pub const GLOBAL_MODEL: &str = "service-request";

/// The claim on a batch id.
pub fn claim(batch_id: &str) -> String {
    format!("{BATCHES}/{batch_id}.json")
}

/// Prefix of the batch log.
pub const BATCH_LOG: &str = "batch-log";

/// Entry `number` of the batch log, counted from 1: a batch id. An entry is created only after all entries before it.
pub fn batch_log_entry(number: u64) -> String {
    format!("{BATCH_LOG}/{number:010}")
}

/// The ids of the batches that are older than the batch log, oldest first, each followed by a line end.
pub fn batch_log_earlier() -> String {
    format!("{BATCH_LOG}/earlier.txt")
}

/// What a publisher uploads: by its bytes' fingerprint and its name, as far as a name may go into a path.
pub fn raw_upload(sha256: &str, name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    format!("{RAW}/{}-{}", &sha256[..16], name.chars().map(fits).collect::<String>())
}

/// The record of a batch that was handed in over HTTP.
pub fn upload(batch_id: &str) -> String {
    format!("{UPLOADS}/{batch_id}.json")
}

/// What was promised under an idempotency key; `fingerprint` is the SHA-256 of the key and whose it is.
pub fn idempotency(fingerprint: &str) -> String {
    format!("idempotency/{fingerprint}.json")
}

/// An inline batch that the splitter keeps. Its name replaces the message's properties: it says whether the batch is
/// read line by line, and names a compression that its bytes do not show.
pub fn raw_inline(sha256: &str, lines: bool, coding: Option<Coding>) -> String {
    let form = if lines { ".ndjson" } else { "" };
    let compression = coding.and_then(Coding::suffix).unwrap_or_default();
    format!("{RAW}/inline/{sha256}{form}{compression}")
}

/// Whether a worker is paused.
pub fn control(worker: &str) -> String {
    format!("control/{worker}.json")
}

/// Why messages of a worker wait for their next attempt.
pub fn waiting(worker: &str) -> String {
    format!("control/waiting/{worker}.json")
}

/// Prefix of the copies of dead letters.
pub const DEAD: &str = "dead";

/// The copy of a dead letter that was dropped, or whose broker ended with its process.
pub fn dropped(queue: &str, id: &str) -> String {
    format!("{DEAD}/{queue}/{id}.json")
}

/// The rejected rides of a batch.
pub fn rejected(batch_id: &str) -> String {
    format!("rejected/{batch_id}.ndjson")
}

/// Prefix of what is in progress.
pub const STAGING: &str = "staging";

/// Everything of a batch that is in progress.
pub fn staging(batch_id: &str) -> String {
    format!("{STAGING}/{batch_id}")
}

/// Folder in which one splitting of a batch is staged; the batch's own staging folder where its messages name no
/// splitting.
pub fn splitting(batch_id: &str, split_id: Option<&str>) -> String {
    match split_id {
        Some(split_id) => format!("{STAGING}/{batch_id}/{split_id}"),
        None => staging(batch_id),
    }
}

/// A staged chunk. Ten digits, so that a listing is in the order of the batch.
pub fn staged_chunk(batch_id: &str, split_id: Option<&str>, chunk: u32) -> String {
    format!("{}/chunk-{chunk:010}", splitting(batch_id, split_id))
}

/// The staged account of the splitter.
pub fn staged_split(batch_id: &str, split_id: Option<&str>) -> String {
    format!("{}/split.json", splitting(batch_id, split_id))
}

/// Everything of a dataset.
pub fn dataset(batch_id: &str) -> String {
    format!("{DATASET}/{batch_id}")
}

/// A part of a dataset.
pub fn dataset_part(batch_id: &str, part: u32) -> String {
    format!("{DATASET}/{batch_id}/part-{part:05}.csv")
}

/// The manifest of a dataset.
pub fn manifest(batch_id: &str) -> String {
    format!("{DATASET}/{batch_id}/manifest.json")
}

/// The cached weather of one station in one year.
pub fn weather(station: &str, year: i16) -> String {
    format!("weather/{station}/{year:04}.csv")
}

/// Prefix of the warnings about weather files.
pub const WEATHER_WARNINGS: &str = "weather/warnings";

/// What was left out of a station's weather file.
pub fn weather_warnings(station: &str) -> String {
    format!("{WEATHER_WARNINGS}/{station}.json")
}

/// A pack of the trainer's cache: parsed rides of many datasets, in `format`; `name` is a hash of its bytes.
pub fn trainer_cache(format: &str, name: &str) -> String {
    format!("{TRAINER_CACHE}/{format}/{name}")
}

/// A model artefact.
pub fn model(model: &str, model_id: &str) -> String {
    format!("{MODELS}/{model}/{model_id}/model.json")
}

/// The metrics of a model, for tools that want no coefficients.
pub fn metrics(model: &str, model_id: &str) -> String {
    format!("{MODELS}/{model}/{model_id}/metrics.json")
}

/// Why no model came of the inputs that `model_id` derives from.
pub fn model_rejected(model: &str, model_id: &str) -> String {
    format!("{MODELS}/{model}/{model_id}/rejected.json")
}

/// The report on a model, for people.
pub fn report(model: &str, model_id: &str) -> String {
    format!("{MODELS}/{model}/{model_id}/report.html")
}

/// Which breeds got a model of their own beside a model of all rides.
pub fn breeds(model: &str, model_id: &str) -> String {
    format!("{MODELS}/{model}/{model_id}/breeds.json")
}

/// Whether a model became champion when it was trained.
pub fn verdict(model: &str, model_id: &str) -> String {
    format!("{MODELS}/{model}/{model_id}/verdict.json")
}

/// What became of the rides a model scored.
pub fn realised(model: &str, model_id: &str) -> String {
    format!("{MODELS}/{model}/{model_id}/realised.json")
}

/// The n-th version that had a name, from 1.
pub fn alias_generation(model: &str, alias: AliasName, generation: u64) -> String {
    format!("{MODELS}/{model}/{}/{generation:010}.json", alias.as_str())
}

/// Which version has a name now.
pub fn alias(model: &str, alias: AliasName) -> String {
    format!("{MODELS}/{model}/{}.json", alias.as_str())
}

/// The alias scorers follow.
pub fn champion(model: &str) -> String {
    alias(model, AliasName::Champion)
}

/// What all scorer processes were asked and answered with a version.
pub fn served_by(model: &str, model_id: &str) -> String {
    format!("{SERVED}/{model}/{model_id}")
}

/// What one scorer process was asked and answered with a version on a date (`YYYY-MM-DD`).
pub fn served(model: &str, model_id: &str, date: &str, scorer: &str) -> String {
    format!("{SERVED}/{model}/{model_id}/{date}/{scorer}.json")
}

/// Rides that all scorer processes scored with a version.
pub fn scored_by(model: &str, model_id: &str) -> String {
    format!("{SCORED}/{model}/{model_id}")
}

/// Rides that one scorer process scored with a version on a date (`YYYY-MM-DD`).
pub fn scored(model: &str, model_id: &str, date: &str, scorer: &str) -> String {
    format!("{SCORED}/{model}/{model_id}/{date}/{scorer}.csv")
}

/// The model family of all rides and the breed, as in [`breed_model`], that the model family of one breed is named by; `None` for
/// others.
pub fn of_breed(model: &str) -> Option<(&str, &str)> {
    model.rsplit_once("--")
}

/// The model family of one breed beside that of all rides, `<family>--<breed>`: upper and lower case and blanks around are of no
/// account. Letters and digits of ASCII stay as they are; a breed with others, or of more than 40 of them, is told from all others
/// by eight hex digits of its SHA-256. `None` for a blank breed.
pub fn breed_model(family: &str, breed: &str) -> Option<String> {
    const LENGTH_MAX: usize = 40;
    let breed = breed_name(breed)?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if breed.len() <= LENGTH_MAX && breed.chars().all(plain) {
        return Some(format!("{family}--{breed}"));
    }
    let readable: String = breed.chars().take(LENGTH_MAX).map(|c| if plain(c) { c } else { '_' }).collect();
    let fingerprint = hex::encode(Sha256::digest(&breed));
    Some(format!("{family}--{readable}-{}", &fingerprint[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every breed has a model name of its own, fit for a path.
    #[test]
    fn breeds_have_names_of_their_own() {
        let name = |breed: &str| breed_model("f", breed);
        assert_eq!(name(" Qilin "), Some("f--qilin".to_owned()));
        assert_eq!((name(""), name(" \t")), (None, None));
        let breeds =
            ["a b", "a_b", "a-b", "a/b", "ab", "é", "..", &"x".repeat(41), &"x".repeat(42), "a_b-c8687a08", "Ⅷ"];
        let names: std::collections::BTreeSet<String> = breeds.iter().filter_map(|breed| name(breed)).collect();
        assert_eq!(names.len(), breeds.len(), "{names:?}");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        assert!(names.iter().all(|name| name.len() < 60 && name.chars().all(plain)), "{names:?}");
    }

    #[test]
    fn a_path_stays_below_its_prefix() {
        for path in ["raw/a", "raw/a/b.json.gz", "raw/é {x}", "raw/a..b"] {
            assert!(is_below(RAW, path), "{path}");
        }
        for path in [
            "raw",
            "raw/",
            "/raw/a",
            "raw//a",
            "raw/a/",
            "raw/../dataset/a",
            "raw/..",
            "raw/./a",
            "raw/.hidden",
            "raw/..\\a",
            "raw/a\\..\\b",
            "raw/%2e%2e/a",
            "raw/a%2fb",
            "raw/a\0",
            "raw/a\n",
            "rawer/a",
            "dataset/a",
            "file:///raw/a",
            "",
        ] {
            assert!(!is_below(RAW, path), "{path:?}");
        }
        assert!(is_below(&dataset("b"), &dataset_part("b", 7)) && !is_below(&dataset("b"), &dataset_part("bb", 7)));
    }
}
