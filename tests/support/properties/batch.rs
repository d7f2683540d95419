//! Properties of a batch that goes through the whole splitter, and of rides that are read with a mapping.

use super::{INPUT_BYTES_MAX, legible, pieces, split_first};
use common::{
    envelope::{Envelope, Properties},
    message::{BatchSplit, Message, decode},
    outcome::{Failure, Outgoing},
    reading::Reading,
};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use records::{Store, layout, store};
use runtime::Worker;
use serde_json::value::RawValue;
use splitter::{
    IncomingBatch, Settings, Splitter,
    document::{Document, FromObject, Options},
    ride::{Outline, Validation},
};
use std::sync::Arc;

const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];
const COLUMNS: [&str; 8] =
    ["name", "statustime", "latitude", "longitude", "distance", "healthpoints", "magicpoints", "fieldservice"];

/// The outputs of the splitter for a batch.
#[derive(Debug, PartialEq)]
enum Ended {
    Split {
        /// Bodies of its messages.
        messages: Vec<Vec<u8>>,
        rejects: Vec<u8>,
    },
    Refused {
        reason: String,
        why: String,
    },
}

/// Splits a batch that is read in pieces of so many bytes.
fn split(body: &[u8], piece_bytes: usize) -> Ended {
    let store: Store = Arc::new(InMemory::new());
    let settings = Settings { read_buffer_bytes: piece_bytes, chunk_size: 3, ..Settings::default() };
    let splitter = Splitter::new(settings, Arc::clone(&store));
    let payload = IncomingBatch(body.to_vec().into());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let split = async {
        let outputs = splitter.handle(Envelope { payload, properties: Properties::default() }).await?;
        let messages: Vec<Outgoing> = outputs.into_stream().try_collect().await?;
        let account: BatchSplit = decode(&messages.last().expect("an account").body).expect("the merger reads it");
        account.check().expect("the account adds up");
        let rejects = store::read(&store, &layout::rejected(&account.batch_id)).await?.unwrap_or_default();
        // The name of a splitting differs each time.
        let named = account.split_id.expect("a splitting that sends chunks has a name");
        let without = |message: Outgoing| String::from_utf8_lossy(&message.body).replace(&named, "s").into_bytes();
        Ok::<_, Failure>((messages.into_iter().map(without).collect(), rejects.to_vec()))
    };
    match runtime.block_on(split) {
        Ok((messages, rejects)) => Ended::Split { messages, rejects },
        Err(Failure::Permanent { reason, why, .. }) => {
            Ended::Refused { reason: reason.to_string(), why: why.to_string() }
        }
        Err(other) => panic!("a batch in memory is never retried: {other:?}"),
    }
}

/// A table below a header: the result does not depend on how its bytes are cut; every row that another reader finds is
/// received, or the table is refused because it may hide rows.
pub fn csv(data: &[u8]) {
    let Some(([how, piece], rows)) = split_first(data) else { return };
    let delimiter = DELIMITERS[usize::from(how) % DELIMITERS.len()];
    let header = COLUMNS.join(&delimiter.to_string()) + "\n";
    let text = [header.as_bytes(), rows].concat();
    let ended = split(&text, INPUT_BYTES_MAX * 2);
    assert_eq!(split(&text, 1 + usize::from(piece)), ended, "in pieces");
    let starts_json = matches!(rows.trim_ascii_start().first(), Some(b'{' | b'['));
    let counts = Rows::of(&text, delimiter);
    match ended {
        Ended::Refused { reason, why } => {
            legible(&why);
            let may_hide_rows = rows.contains(&b'"') || counts.cells_max > 2 * (COLUMNS.len() - 1);
            let is_text = std::str::from_utf8(&text).is_ok();
            assert!(may_hide_rows || !is_text || starts_json, "{reason}: {why}");
            assert!(starts_json || reason == "invalid_csv", "{reason}: {why}");
        }
        Ended::Split { messages, rejects } => {
            let account: BatchSplit = decode(messages.last().expect("an account")).expect("the merger reads it");
            let lines = rejects.iter().filter(|byte| **byte == b'\n').count() as u64;
            assert_eq!(account.rejected, lines);
            // A byte order mark at the beginning of a row is skipped, and so is a row with nothing else in it.
            if !starts_json && !rows.windows(3).any(|bytes| bytes == b"\xef\xbb\xbf") {
                let received = account.received;
                assert!((counts.filled..=counts.all).contains(&received), "{received} rows: {counts:?}");
            }
        }
    }
}

/// The rows that the `csv` crate finds below the header.
#[derive(Debug, Default)]
struct Rows {
    all: u64,
    /// The rows without those that may be blank lines.
    filled: u64,
    cells_max: usize,
}

/// White space, and what DOS writes at the end of a file.
fn is_blank_byte(byte: &u8) -> bool {
    byte.is_ascii_whitespace() || *byte == 0x1A
}

impl Rows {
    fn of(text: &[u8], delimiter: char) -> Self {
        let delimiter = u8::try_from(delimiter).expect("ASCII");
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text);
        let mut rows = Self::default();
        for record in reader.byte_records() {
            let record = record.expect("bytes are enough for it");
            let is_blank = record.len() == 1 && record[0].iter().all(is_blank_byte);
            rows.all += 1;
            rows.filled += u64::from(!is_blank);
            rows.cells_max = rows.cells_max.max(record.len());
        }
        rows
    }
}

/// Lines of mappings, the first of which may locate the rides, an empty line, and a document. A valid reading is written and
/// read back unchanged; with it, the document gives the same result however its bytes are cut; with the default reading, a ride
/// read member by member equals the ride read at once.
pub fn mapping(data: &[u8]) {
    let Some(([cut], rest)) = split_first(data) else { return };
    let text = String::from_utf8_lossy(rest);
    let (how, document) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = how.lines();
    let mut reading = Reading::default();
    match lines.next().unwrap_or_default() {
        "" => {}
        at => match at.parse() {
            Ok(at) => reading.rides_at = Some(at),
            Err(why) => legible(&format!("{why}")),
        },
    }
    for line in lines {
        let before = reading.map.clone();
        if let Err(why) = reading.map.add(line) {
            legible(&why.to_string());
            reading.map = before;
        }
    }
    check_written(&reading);
    let document = document.as_bytes();
    let elements = read(&reading, &[document]);
    assert_eq!(read(&reading, &pieces(cut, document)), elements, "in pieces");
    if serde_json::from_slice::<&RawValue>(document).is_ok() && document.trim_ascii().starts_with(b"{") {
        let none = Reading::default().map;
        if let Ok(at_once) = serde_json::from_slice::<Validation>(document) {
            assert_eq!(Validation::from_members(document, &none), at_once);
        }
        if let Ok(at_once) = serde_json::from_slice::<Outline>(document) {
            assert_eq!(Outline::from_members(document, &none), at_once);
        }
        let (judged, outline) =
            (Validation::from_members(document, &reading.map), Outline::from_members(document, &reading.map));
        // The first pass counted the ids that the second finds.
        if let Validation::Accepted(ride) = judged {
            assert_eq!(outline.has_ride_id, !ride.ride_id.is_empty(), "{ride:?}");
        }
    }
}

fn check_written(reading: &Reading) {
    let json = serde_json::to_string(reading).expect("it can be written");
    assert_eq!(&serde_json::from_str::<Reading>(&json).expect("what was written is read"), reading, "{json}");
    assert_eq!(reading.batch_id(&"0".repeat(64)).len(), 16);
    let mut again = Reading {
        rides_at: reading.rides_at.as_ref().map(|at| at.to_string().parse().expect("a path")),
        ..Reading::default()
    };
    for (field, source) in reading.map.iter() {
        again.map.add(&format!("{field}={source}")).expect("what was written is read");
    }
    assert_eq!(&again, reading);
}

/// The outcome of each element, or why the document is refused.
fn read(reading: &Reading, pieces: &[&[u8]]) -> Result<Vec<String>, String> {
    let options = Options { lines: false, records: false, ride_bytes_max: 1024 };
    let mut document = Document::new(options).with_reading(reading.clone());
    let mut elements = Vec::new();
    for nth in 0..=pieces.len() {
        match pieces.get(nth) {
            Some(piece) => document.push(piece),
            None => document.end(),
        }
        while let Some(element) = document.next_element::<Validation>().map_err(|refusal| refusal.to_string())? {
            elements.push(format!("{element:?}"));
        }
    }
    Ok(elements)
}
