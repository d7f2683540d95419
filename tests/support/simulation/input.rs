//! The submissions of a run: valid batches in every form, invalid ones, and two with the same id.

use super::plan::Plan;
use bytes::Bytes;
use common::{
    envelope::Properties,
    exchange::{INGEST, WORK},
    message::{BatchContent, Message, RideBatch},
    outcome::Outgoing,
    reading::Reading,
    topology::queue,
};
use object_store::{ObjectStoreExt, path::Path};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use records::Store;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// The expected outcome of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The dataset of this batch has its rides, except the rejected ones.
    Dataset(String),
    /// A dead letter of this queue with this reason.
    DeadLetter(&'static str, &'static str),
    /// One of all submissions under this batch id becomes the dataset, the others become dead letters of the splitter.
    Contested(String),
}

/// One message that is published, at least once.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Name in the trace.
    pub name: String,
    /// The published message.
    pub message: Outgoing,
    /// Objects that are in the store before the message is published.
    pub object: Option<(String, Bytes)>,
    /// Number of rides.
    pub rides: usize,
    /// SHA-256 of the batch's bytes.
    pub sha256: String,
    /// Expected outcome.
    pub fate: Fate,
}

/// All submissions of a run.
#[derive(Debug, Clone)]
pub struct Input {
    /// Number of the input.
    pub number: u64,
    /// In the order in which they are published if there are no faults.
    pub submissions: Vec<Submission>,
}

impl Input {
    pub fn of_plan(plan: &Plan) -> Self {
        let mut random = SmallRng::seed_from_u64(plan.input ^ 0x1d_0ea7);
        let batches = random.random_range(1..=4);
        let mut submissions: Vec<Submission> = (0..batches).map(|number| good(&mut random, number)).collect();
        if random.random_bool(0.5) {
            submissions.push(cut_short(&mut random));
        }
        if random.random_bool(0.4) {
            submissions.push(of_the_future(INGEST, "ride-batch.v2", queue::SPLITTER));
        }
        if random.random_bool(0.4) {
            submissions.push(of_the_future(WORK, "enriched-chunk.v7", queue::MERGER));
        }
        if random.random_bool(0.4) {
            for variant in 0..2 {
                let document = json!({ "batch_id": "contested", "rides": rides(&mut random, 5 + variant, false) });
                let name = format!("contested {variant}");
                submissions.push(inline(
                    name,
                    document.to_string(),
                    Fate::Contested("contested".to_owned()),
                    5 + variant,
                ));
            }
        }
        Self { number: plan.input, submissions }
    }

    /// Ids of the batches that get a dataset, sorted.
    pub fn datasets(&self) -> BTreeSet<&str> {
        let fates = self.submissions.iter().map(|submission| &submission.fate);
        let batch_ids = fates.filter_map(|fate| match fate {
            Fate::Dataset(batch_id) | Fate::Contested(batch_id) => Some(batch_id.as_str()),
            Fate::DeadLetter(..) => None,
        });
        batch_ids.collect()
    }

    /// The submissions without those that lost a contest for a batch id.
    pub fn won_by(&self, winner: usize) -> Self {
        let mut contested = 0;
        let mut submissions = self.submissions.clone();
        submissions.retain(|submission| match submission.fate {
            Fate::Contested(_) => {
                contested += 1;
                contested == winner + 1
            }
            _ => true,
        });
        Self { number: self.number, submissions }
    }
}

/// Rides around the stations: some too far away, some invalid, most labelled.
fn rides(random: &mut SmallRng, count: usize, with_bad_ones: bool) -> Vec<Value> {
    let ride = |index: usize| {
        let service = random.random_bool(0.4);
        let distance = 20.0 + random.random_range(0.0..10.0) + if service { 2.0 } else { 0.0 };
        let far = random.random_bool(0.05);
        let mut ride = json!({
            "name": format!("Unicorn {}", index % 7),
            "statustime": format!("2018-04-{:02} {:02}:30:00.{:03}", 1 + index % 7, index % 24, index % 1000),
            "latitude": if far { -10.0 } else { 40.75 + random.random_range(-0.4..0.4) },
            "longitude": -73.95 + random.random_range(-0.4..0.4),
            "distance": distance,
            "healthpoints": 290 + index % 20,
            "magicpoints": format!("{}", (distance * 10.0) as i64),
        });
        if !random.random_bool(0.1) {
            ride["fieldservice"] = json!(u8::from(service));
        }
        if with_bad_ones && random.random_bool(0.08) {
            match random.random_range(0..3) {
                0 => ride["latitude"] = json!(123.0),
                1 => ride["statustime"] = json!("yesterday"),
                _ => drop(ride.as_object_mut().map(|ride| ride.remove("longitude"))),
            }
        }
        ride
    };
    (0..count).map(ride).collect()
}

fn good(random: &mut SmallRng, number: usize) -> Submission {
    let count = [0, 1, 40, 90, 250][random.random_range(0..5)];
    let rides = rides(random, count, true);
    let lines = |between: &str| rides.iter().map(Value::to_string).collect::<Vec<_>>().join(between);
    let form = random.random_range(0..4);
    let document = match form {
        0 => json!(rides).to_string(),
        1 => json!({ "travel_data": rides }).to_string(),
        2 if count > 0 => lines("\n"),
        3 if count > 0 => lines(""),
        _ => json!({ "rides": rides }).to_string(),
    };
    let sha256 = sha256(&document);
    let fate = Fate::Dataset(sha256[..16].to_owned());
    let name = format!("batch {number} of {count}");
    if random.random_bool(0.5) { referenced(name, document, fate, count) } else { inline(name, document, fate, count) }
}

fn cut_short(random: &mut SmallRng) -> Submission {
    let mut document = json!(rides(random, 30, true)).to_string();
    document.truncate(document.len() / 2);
    // Cutting within a character of a name would give another reason.
    while !document.is_char_boundary(document.len()) {
        document.pop();
    }
    inline("cut short".to_owned(), document, Fate::DeadLetter(queue::SPLITTER, "cut_short"), 0)
}

fn of_the_future(exchange: &'static str, kind: &'static str, taken_by: &'static str) -> Submission {
    let mut submission = inline(
        kind.to_owned(),
        r#"{"hello":"from the future"}"#.to_owned(),
        Fate::DeadLetter(taken_by, "unknown_version"),
        0,
    );
    submission.message.exchange = exchange;
    submission.message.routing_key = kind.to_owned();
    submission.message.properties.kind = Some(kind.to_owned());
    submission
}

fn inline(name: String, document: String, fate: Fate, rides: usize) -> Submission {
    let sha256 = sha256(&document);
    let properties = Properties {
        kind: Some(RideBatch::KIND.to_string()),
        message_id: Some(name.replace(' ', "-")),
        persistent: true,
        ..Properties::default()
    };
    let message = Outgoing {
        exchange: INGEST,
        routing_key: RideBatch::KIND.to_string(),
        properties,
        body: document.into(),
        mandatory: true,
    };
    Submission { name, message, object: None, rides, sha256, fate }
}

fn referenced(name: String, document: String, fate: Fate, rides: usize) -> Submission {
    let sha256 = sha256(&document);
    let object = format!("raw/{}.json", &sha256[..16]);
    let content = BatchContent::Reference { object: object.clone(), sha256: sha256.clone() };
    let batch =
        RideBatch { batch_id: None, source: Some(name.clone()), reading: Reading::default(), refresh: None, content };
    let message = Outgoing::message(&batch).expect("a batch can be written");
    Submission { name, message, object: Some((object, document.into())), rides, sha256, fate }
}

fn sha256(document: &str) -> String {
    hex::encode(Sha256::digest(document.as_bytes()))
}

/// Uploads what a submission refers to.
pub async fn upload(store: &Store, submission: &Submission) -> object_store::Result<()> {
    if let Some((path, bytes)) = &submission.object {
        store.put(&Path::from(path.as_str()), bytes.clone().into()).await?;
    }
    Ok(())
}
