//! Seeded mutations of small valid inputs. Each run ends, accounts for every object that a plain reader finds, and
//! names its cause.
//!
//! `document` forms, wrappings, expectations · `values` `structure` `table` `damage` kinds of mutations of a document
//! · `weather` those of weather · `plain` the reader that judges · `routes` a sample over HTTP and RabbitMQ

mod damage;
mod document;
mod draw;
mod plain;
mod routes;
mod structure;
mod table;
mod values;
mod weather;

use super::{Job, Outcome};
use common::reading::Reading;
use document::{Expected, Mutation};
use draw::Draw;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    time::Duration,
};

/// Mutations of documents and of weather in one run of the tests, unless `WILDRYDES_TEST_MUTATIONS` says how many of each.
const DOCUMENTS: u64 = 220;
const WEATHER: u64 = 80;

fn seeds(default: u64) -> u64 {
    std::env::var("WILDRYDES_TEST_MUTATIONS").map_or(default, |seeds| seeds.parse().expect("a number of mutations"))
}

/// A kind of mutation of a document.
type Kind = (&'static str, fn(&mut Draw) -> Mutation);

const KINDS: [Kind; 22] = [
    ("cut", damage::cut),
    ("byte", damage::byte),
    ("bytes", damage::span),
    ("lines", damage::lines),
    ("not finite", values::not_finite),
    ("label", values::label),
    ("time", values::time),
    ("number", values::number),
    ("key", values::key),
    ("near miss", values::near_miss),
    ("mapping", values::mapping),
    ("member", values::member),
    ("ride_id", values::ride_id),
    ("envelope", structure::envelope),
    ("frame", structure::frame),
    ("layout", structure::layout),
    ("element", structure::element),
    ("other member", structure::other_member),
    ("padding", structure::padding),
    ("compression", structure::packed),
    ("character set", structure::encoding),
    ("format", structure::foreign),
];
/// Further kinds, for CSV only.
const TABLES: [Kind; 2] = [("dialect of CSV", table::dialect), ("damaged CSV", table::damage)];

/// The mutation of a document with that seed, and its kind.
fn document_of(seed: u64) -> (&'static str, Mutation) {
    let kinds = KINDS.len() + TABLES.len();
    let nth = (seed % kinds as u64) as usize;
    let (kind, make) = KINDS.iter().chain(&TABLES).nth(nth).expect("a kind");
    (kind, make(&mut Draw::of_seed(seed)))
}

/// Command-line options of a reading.
fn options_of(reading: &Reading) -> Vec<String> {
    let at = reading.rides_at.iter().flat_map(|at| ["--rides-at".to_owned(), at.to_string()]);
    let map = reading.map.iter().flat_map(|(field, source)| ["--map".to_owned(), format!("{field}={source}")]);
    at.chain(map).collect()
}

fn run_document(mutation: &Mutation) -> Outcome {
    let mut job = Job::new();
    job.options = options_of(&mutation.reading);
    job.run(mutation.name, &mutation.bytes)
}

/// Checks an outcome against the expected one; returns the outcome in one or two words.
fn check(about: &str, expected: &Expected, outcome: &Outcome) -> String {
    match expected {
        Expected::Damaged(damaged) => return damage::check(about, damaged, outcome),
        Expected::Read { elements, cells, words } => {
            check_read(about, elements, outcome);
            check_cells(about, cells, outcome);
            let text = outcome.json["mostly_rejected"].to_string();
            for part in words {
                assert!(text.contains(part), "{about}: {part} is missing: {text}");
            }
        }
        Expected::Refused { codes, words } => {
            let (code, why) = outcome.refusal_of_document();
            assert!(outcome.is_refused() && outcome.code == 3 && codes.contains(&code), "{about}: {outcome:?}");
            for part in words {
                assert!(why.to_lowercase().contains(&part.to_lowercase()), "{about}: {part} is missing: {why}");
            }
        }
        Expected::ReadOrRefused { codes } => {
            let (code, why) = outcome.refusal_of_document();
            if outcome.is_refused() {
                assert!(codes.contains(&code), "{about}: {code}: {why}");
            } else {
                check_read(about, &document::all_accepted(), outcome);
            }
        }
    }
    match outcome.is_refused() {
        true => outcome.refusal_of_document().0.to_owned(),
        false if outcome.count("rejected") == 0 => "read".to_owned(),
        false => "read, some rejected".to_owned(),
    }
}

/// Every element is in its place: a row of the dataset, or a reject with its reason and field.
fn check_read(about: &str, elements: &[Option<&'static str>], outcome: &Outcome) {
    assert!(!outcome.is_refused(), "{about}: {outcome:?}");
    outcome.check_account(about);
    assert_eq!(outcome.count("received"), elements.len() as u64, "{about}: {outcome:?}");
    for (position, expected) in elements.iter().enumerate() {
        let reject = outcome.reject(position);
        let reason = reject.map(|reject| reject["reason"].as_str().unwrap_or_default());
        assert_eq!(reason, *expected, "{about}: element {position}: {outcome:?}");
        if let Some((reason, reject)) = reason.zip(reject) {
            assert_eq!(reject["field"].as_str(), values::field_of(reason), "{about}: {reject}");
            assert!(!reject["ride"].is_null() || reason == "not_an_object", "{about}: {reject}");
        }
    }
    let (_, accepted, rejected) = outcome.rides();
    let code = if accepted == 0 && rejected > 0 { 3 } else { 4 };
    assert_eq!(outcome.code, code, "{about}: too few rides for a model, or none at all: {outcome:?}");
}

fn check_cells(about: &str, cells: &[(usize, &'static str, String)], outcome: &Outcome) {
    for (position, column, expected) in cells {
        // Rides with an id of their own cannot be found by position.
        let row = outcome.row(*position).or_else(|| outcome.dataset.get(*position));
        let cell = &row.unwrap_or_else(|| panic!("{about}: no row {position}: {outcome:?}"))[*column];
        let same = match (cell.parse::<f64>(), expected.parse::<f64>()) {
            (Ok(cell), Ok(expected)) => (cell - expected).abs() <= 1e-12 * expected.abs(),
            _ => cell == expected,
        };
        assert!(same, "{about}: row {position}, {column}: {cell:?}, expected {expected:?}");
    }
}

/// How often each kind had each outcome, and the longest time that a run took.
#[derive(Default)]
struct Table {
    counts: BTreeMap<(&'static str, String), u64>,
    slowest: Duration,
    failures: Vec<String>,
}

impl Table {
    fn print(&self, title: &str) {
        println!("{title}; the slowest took {} ms", self.slowest.as_millis());
        for ((kind, outcome), count) in &self.counts {
            println!("{kind:>16}  {count:>4}  {outcome}");
        }
    }
}

/// Runs every seed on two threads; fails with all failures, each with its seed.
fn all_seeds(seeds: u64, run: impl Fn(u64) -> (&'static str, String, Duration) + Sync) -> Table {
    let next = Mutex::new(0..seeds);
    let table = Mutex::new(Table::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = { next.lock().expect("seeds").next() } {
                    let ended = catch_unwind(AssertUnwindSafe(|| run(seed)));
                    let mut table = table.lock().expect("a table");
                    match ended {
                        Ok((kind, outcome, took)) => {
                            *table.counts.entry((kind, outcome)).or_default() += 1;
                            table.slowest = table.slowest.max(took);
                        }
                        Err(why) => {
                            let words = why.downcast_ref::<String>().cloned().unwrap_or_default();
                            table.failures.push(format!("seed {seed}: {words:.1500}"));
                        }
                    }
                }
            });
        }
    });
    table.into_inner().expect("a table")
}

#[test]
fn mutated_documents_have_their_expected_outcome() {
    let seeds = seeds(DOCUMENTS);
    let table = all_seeds(seeds, |seed| {
        let (kind, mutation) = document_of(seed);
        let about = format!("seed {seed}, {kind}: {}, as {}", mutation.words, mutation.name);
        let outcome = run_document(&mutation);
        (kind, check(&about, &mutation.expected, &outcome), outcome.took)
    });
    table.print("mutations of documents");
    assert!(table.failures.is_empty(), "{} failed:\n{}", table.failures.len(), table.failures.join("\n"));
    assert_eq!(table.counts.values().sum::<u64>(), seeds);
    let kinds: std::collections::BTreeSet<_> = table.counts.keys().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.len(), (KINDS.len() + TABLES.len()).min(seeds as usize));
}

#[test]
fn mutated_weather_has_its_expected_outcome() {
    let seeds = seeds(WEATHER);
    let table = all_seeds(seeds, weather::run);
    table.print("mutations of weather");
    assert!(table.failures.is_empty(), "{} failed:\n{}", table.failures.len(), table.failures.join("\n"));
    assert_eq!(table.counts.values().sum::<u64>(), seeds);
}

/// The same seed always makes the same mutation.
#[test]
fn a_seed_determines_a_mutation() {
    for seed in 0..100 {
        let [(_, one), (_, other)] = [document_of(seed), document_of(seed)];
        assert_eq!((one.words, one.name, one.bytes), (other.words, other.name, other.bytes), "seed {seed}");
    }
}
