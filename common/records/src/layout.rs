//! Paths of all objects in the object store. Every path derives from its inputs.
//!
//! ```text
//! raw/<name>                            uploads of publishers
//! raw/incoming/<random>                 an HTTP upload whose bytes are arriving
//! raw/inline/<sha256>[.ndjson][.br]     an inline batch, stored by the splitter for a replay; or with `.deflate`
//! uploads/<batch_id>.json               the record of a batch uploaded over HTTP
//! idempotency/<sha256>.json             the batch accepted under an idempotency key
//! batches/<batch_id>.json               the claim: binds a batch id to its bytes and its chunk size
//! batch-log/<n>                         the id of the n-th batch to arrive; n from 1, as ten digits; written once
//! batch-log/earlier.txt                 the ids of the batches older than the log, oldest first, one per line
//! rejected/<batch_id>.ndjson            rejected rides with index, field and reason
//! staging/<batch_id>/<split_id>/...     enriched chunks waiting for the batch to be complete, by splitting
//! dataset/<batch_id>/part-00000.csv     the joined rides: the first revision of the dataset
//! dataset/<batch_id>/manifest.json      written last: the revision is complete
//! dataset/<batch_id>/r<n>/...           the same for revision n, from 2
//! refreshes/<batch_id>/<k>.json         the k-th attempt to join a batch again, k from 1 in ten digits, written once
//! refreshes/<batch_id>/<k>.outcome.json its outcome, written once
//! weather/<station>/<year>.csv          cached weather
//! weather/warnings/<station>.json       rows and days left out of a station's file, for people
//! models/<model>/<id>/model.json        the artefact
//! models/<model>/<id>/report.html       its report, for people
//! models/<model>/<id>/<file>            documents beside it; `common::document` names their files
//! models/<model>/<id>/rejected.json     alone, without a model: why training was refused
//! models/<model>/champion/<n>.json      the n-th generation of the alias, n from 1 in ten digits, written once
//! models/<model>/champion.json          a copy of the highest generation, which scorers follow
//! models/<model>/challenger…            the same for the challenger, which scores in shadow
//! served/<model>/<id>/<date>/<scorer>.json   serving statistics of one scorer process and day (UTC)
//! scored/<model>/<id>/<date>/<scorer>.csv    ids and probabilities of the rides it scored
//! cache/trainer/<format>/<hash>         parsed rides of many datasets; used by trainers only, safe to delete
//! control/<worker>.json                 whether a worker is paused: by whom, when, why
//! control/waiting/<worker>.json         why messages of a worker wait for their next attempt, for people
//! dead/<queue>/<id>.json                a dead letter that was dropped, or whose broker ended with its process
//! scratch/<name>                        written and removed at once, to try the store
//! ```

pub use common::object_path::{DATASET, MODELS, RAW, is_below};
use common::{
    coding::Coding, dataset::FIRST_REVISION, document::VersionDocument, features::breed_name, model::AliasName,
};
use sha2::{Digest, Sha256};
use std::num::NonZeroU32;

/// Prefix of the records of batches uploaded over HTTP.
pub const UPLOADS: &str = "uploads";
/// Prefix of the claims.
pub const BATCHES: &str = "batches";
/// Prefix of the serving statistics.
pub const SERVED: &str = "served";
/// Prefix of the files of scored rides.
pub const SCORED: &str = "scored";
/// Prefix of the trainer's cache of parsed rides. Only trainers read and write it; it is safe to delete at any time.
pub const TRAINER_CACHE: &str = "cache/trainer";
/// Name of the global model's family.
pub const GLOBAL_MODEL: &str = "service-request";

/// Path of the claim on a batch id.
pub fn claim(batch_id: &str) -> String {
    format!("{BATCHES}/{batch_id}.json")
}

/// Prefix of the batch log.
pub const BATCH_LOG: &str = "batch-log";

/// Path of entry `number` of the batch log, from 1. The entry holds a batch id and is created only after all entries
/// before it.
pub fn batch_log_entry(number: u64) -> String {
    format!("{BATCH_LOG}/{number:010}")
}

/// Path of the list of batches that are older than the batch log: their ids, oldest first, each followed by a line end.
pub fn batch_log_earlier() -> String {
    format!("{BATCH_LOG}/earlier.txt")
}

/// Folder of the HTTP uploads whose bytes are arriving.
pub const INCOMING: &str = "raw/incoming";

/// Path of an HTTP upload whose bytes are arriving; `random` makes it unique.
pub fn incoming(random: u128) -> String {
    format!("{INCOMING}/{random:032x}")
}

/// Path of a publisher's upload: the first 16 digits of the SHA-256 of its bytes, and its name with other characters
/// replaced.
pub fn raw_upload(sha256: &str, name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    raw_upload_prefix(sha256) + &name.chars().map(fits).collect::<String>()
}

/// Start of the path of every publisher's upload whose bytes have this SHA-256.
pub fn raw_upload_prefix(sha256: &str) -> String {
    format!("{RAW}/{}-", sha256.get(..16).unwrap_or(sha256))
}

/// Path of the record of a batch uploaded over HTTP.
pub fn upload(batch_id: &str) -> String {
    format!("{UPLOADS}/{batch_id}.json")
}

/// Path of the record of an idempotency key; `fingerprint` is the SHA-256 of the key and its owner.
pub fn idempotency(fingerprint: &str) -> String {
    format!("idempotency/{fingerprint}.json")
}

/// Path of an inline batch that the splitter stores. Suffixes replace the message's properties: `.ndjson` if the batch
/// is read line by line, and that of a compression without a signature.
pub fn raw_inline(sha256: &str, lines: bool, coding: Option<Coding>) -> String {
    let form = if lines { ".ndjson" } else { "" };
    let compression = coding.and_then(Coding::suffix).unwrap_or_default();
    format!("{RAW}/inline/{sha256}{form}{compression}")
}

/// Path of the record whether a worker is paused.
pub fn control(worker: &str) -> String {
    format!("control/{worker}.json")
}

/// Path of the record why messages of a worker wait for their next attempt.
pub fn waiting(worker: &str) -> String {
    format!("control/waiting/{worker}.json")
}

/// Path of an object that is written and removed to try the store.
pub fn scratch(name: &str) -> String {
    format!("scratch/{name}")
}

/// Prefix of the copies of dead letters.
pub const DEAD: &str = "dead";

/// Folder of the copies of a work queue's dead letters.
pub fn dropped_from(queue: &str) -> String {
    format!("{DEAD}/{queue}")
}

/// Path of the copy of a dead letter that was dropped, or whose broker ended with its process.
pub fn dropped(queue: &str, id: &str) -> String {
    format!("{}/{id}.json", dropped_from(queue))
}

/// Path of the rejected rides of a batch.
pub fn rejected(batch_id: &str) -> String {
    format!("rejected/{batch_id}.ndjson")
}

/// Prefix of the staging area: enriched chunks that wait for their batch to be complete.
pub const STAGING: &str = "staging";

/// Staging folder of a batch.
pub fn staging(batch_id: &str) -> String {
    format!("{STAGING}/{batch_id}")
}

/// Staging folder of one splitting of a batch; the batch's own staging folder if its messages name no splitting.
pub fn splitting(batch_id: &str, split_id: Option<&str>) -> String {
    match split_id {
        Some(split_id) => format!("{STAGING}/{batch_id}/{split_id}"),
        None => staging(batch_id),
    }
}

/// Path of a staged chunk. Its number has ten digits, so that a listing is in the order of the batch.
pub fn staged_chunk(batch_id: &str, split_id: Option<&str>, chunk: u32) -> String {
    format!("{}/chunk-{chunk:010}", splitting(batch_id, split_id))
}

/// Path of the staged `batch-split` message.
pub fn staged_split(batch_id: &str, split_id: Option<&str>) -> String {
    format!("{}/split.json", splitting(batch_id, split_id))
}

/// Folder of a dataset with all its revisions.
pub fn dataset(batch_id: &str) -> String {
    format!("{DATASET}/{batch_id}")
}

/// Folder of a revision of a dataset. The first one is in the dataset's own folder.
pub fn dataset_revision(batch_id: &str, revision: NonZeroU32) -> String {
    match revision.get() {
        1 => dataset(batch_id),
        later => format!("{DATASET}/{batch_id}/r{later}"),
    }
}

/// Path of a part of a dataset's revision; `part` counts from 0.
pub fn dataset_part(batch_id: &str, revision: NonZeroU32, part: u32) -> String {
    format!("{}/part-{part:05}.csv", dataset_revision(batch_id, revision))
}

/// Name of every manifest.
const MANIFEST: &str = "manifest.json";

/// Path of the manifest of a dataset's revision.
pub fn manifest(batch_id: &str, revision: NonZeroU32) -> String {
    format!("{}/{MANIFEST}", dataset_revision(batch_id, revision))
}

/// Splits the path of a manifest into its batch id and revision; `None` for other paths.
pub(crate) fn manifest_parts(path: &str) -> Option<(&str, NonZeroU32)> {
    let mut parts = path.strip_prefix(DATASET)?.strip_prefix('/')?.split('/');
    let batch_id = parts.next()?;
    let revision = match (parts.next()?, parts.next(), parts.next()) {
        (MANIFEST, None, None) => FIRST_REVISION,
        (folder, Some(MANIFEST), None) => folder.strip_prefix('r')?.parse().ok()?,
        _ => return None,
    };
    (manifest(batch_id, revision) == path).then_some((batch_id, revision))
}

/// Prefix of the attempts to join batches again.
pub const REFRESHES: &str = "refreshes";

/// Folder of the attempts to join a batch again.
pub fn refreshes(batch_id: &str) -> String {
    format!("{REFRESHES}/{batch_id}")
}

/// Path of an attempt to join a batch again.
pub fn refresh(batch_id: &str, attempt: NonZeroU32) -> String {
    format!("{REFRESHES}/{batch_id}/{attempt:010}.json")
}

/// Path of the outcome of an attempt to join a batch again.
pub fn refresh_outcome(batch_id: &str, attempt: NonZeroU32) -> String {
    format!("{REFRESHES}/{batch_id}/{attempt:010}.outcome.json")
}

/// Path of the cached weather of one station in one year.
pub fn weather(station: &str, year: i16) -> String {
    format!("weather/{station}/{year:04}.csv")
}

/// Prefix of the warnings about weather files.
pub const WEATHER_WARNINGS: &str = "weather/warnings";

/// Path of the warnings about a station's weather file.
pub fn weather_warnings(station: &str) -> String {
    format!("{WEATHER_WARNINGS}/{station}.json")
}

/// Path of a pack of the trainer's cache: parsed rides of many datasets, in `format`; `name` is a hash of its bytes.
pub fn trainer_cache(format: &str, name: &str) -> String {
    format!("{TRAINER_CACHE}/{format}/{name}")
}

/// Returns whether a text can be the name of a model family or the id of a version: ASCII letters, digits, `-` and `_`.
pub fn is_model_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// Folder of a model family.
pub fn model_family(model: &str) -> String {
    format!("{MODELS}/{model}")
}

/// Folder of a version of a model.
pub fn model_version(model: &str, model_id: &str) -> String {
    format!("{MODELS}/{model}/{model_id}")
}

/// Returns whether a folder of a model family holds the generations of an alias, not a version.
pub fn is_alias(folder: &str) -> bool {
    [AliasName::Champion, AliasName::Challenger].iter().any(|alias| alias.as_str() == folder)
}

/// Path of a model artefact.
pub fn model(model: &str, model_id: &str) -> String {
    format!("{MODELS}/{model}/{model_id}/model.json")
}

/// Path of a document beside a model.
pub fn version_document<D: VersionDocument>(model: &str, model_id: &str) -> String {
    format!("{}/{}", model_version(model, model_id), D::FILE)
}

/// Path of the report on a model, for people.
pub fn report(model: &str, model_id: &str) -> String {
    format!("{MODELS}/{model}/{model_id}/report.html")
}

/// Path of a generation of an alias; `generation` counts from 1.
pub fn alias_generation(model: &str, alias: AliasName, generation: u64) -> String {
    format!("{MODELS}/{model}/{}/{generation:010}.json", alias.as_str())
}

/// Folder of the generations of an alias.
pub fn alias_generations(model: &str, alias: AliasName) -> String {
    format!("{MODELS}/{model}/{}", alias.as_str())
}

/// Path of an alias: a copy of its highest generation.
pub fn alias(model: &str, alias: AliasName) -> String {
    format!("{MODELS}/{model}/{}.json", alias.as_str())
}

/// Path of the alias that scorers follow.
pub fn champion(model: &str) -> String {
    alias(model, AliasName::Champion)
}

/// Folder of the serving statistics of a model version.
pub fn served_by(model: &str, model_id: &str) -> String {
    format!("{SERVED}/{model}/{model_id}")
}

/// Path of the serving statistics of one scorer process and model version on a date (`YYYY-MM-DD`, UTC).
pub fn served(model: &str, model_id: &str, date: &str, scorer: &str) -> String {
    format!("{SERVED}/{model}/{model_id}/{date}/{scorer}.json")
}

/// Path of the file of rides that one scorer process scored with a model version on a date (`YYYY-MM-DD`, UTC).
pub fn scored(model: &str, model_id: &str, date: &str, scorer: &str) -> String {
    format!("{SCORED}/{model}/{model_id}/{date}/{scorer}.csv")
}

/// Splits the family of a breed model into the family of its global model and the breed, as [`breed_model`] joins them;
/// `None` for other families.
pub fn of_breed(model: &str) -> Option<(&str, &str)> {
    model.rsplit_once("--")
}

/// Returns the family of a breed model, `<family>--<breed>`; `None` for a blank breed. Case and surrounding blanks are
/// ignored. ASCII letters and digits stay; a breed with other characters, or longer than 40, gets eight hex digits of
/// its SHA-256 appended to stay distinct.
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

    /// Every breed has a distinct family name that is valid in a path.
    #[test]
    fn breeds_have_distinct_family_names() {
        let name = |breed: &str| breed_model("f", breed);
        assert_eq!(name(" Qilin "), Some("f--qilin".to_owned()));
        assert_eq!((name(""), name(" \t")), (None, None));
        let breeds =
            ["a b", "a_b", "a-b", "a/b", "ab", "é", "..", &"x".repeat(41), &"x".repeat(42), "a_b-c8687a08", "Ⅷ"];
        let names: std::collections::BTreeSet<String> = breeds.iter().filter_map(|breed| name(breed)).collect();
        assert_eq!(names.len(), breeds.len(), "{names:?}");
        assert!(names.iter().all(|name| name.len() < 60 && is_model_name(name)), "{names:?}");
    }

    /// A claim may come from anybody who can write to the store.
    #[test]
    fn the_prefix_of_an_upload_takes_any_text() {
        for (sha256, expected) in [
            ("", "raw/-"),
            ("short", "raw/short-"),
            ("0123456789abcdef0123", "raw/0123456789abcdef-"),
            // A character that would be cut.
            ("0123456789abcdeé", "raw/0123456789abcdeé-"),
        ] {
            assert_eq!(raw_upload_prefix(sha256), expected);
        }
        assert!(raw_upload("0123456789abcdef0123", "a b").ends_with("-a_b"));
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
        let part = |batch_id| dataset_part(batch_id, FIRST_REVISION, 7);
        assert!(is_below(&dataset("b"), &part("b")) && !is_below(&dataset("b"), &part("bb")));
    }

    #[test]
    fn the_path_of_a_manifest_names_its_revision() {
        for revision in [1, 2, 10, u32::MAX].map(|revision| NonZeroU32::new(revision).unwrap()) {
            assert_eq!(manifest_parts(&manifest("r2", revision)), Some(("r2", revision)));
            assert_eq!(manifest_parts(&dataset_part("r2", revision, 0)), None);
        }
        for other in [
            "b/r1/manifest.json",
            "b/r02/manifest.json",
            "b/r0/manifest.json",
            "b/r2/c/manifest.json",
            "b/q2/manifest.json",
        ] {
            assert_eq!(manifest_parts(&format!("dataset/{other}")), None, "{other}");
        }
    }
}
