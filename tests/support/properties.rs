//! Properties that hold for any input, shared by the fuzz targets (`tests/fuzz`) and by the test that replays their corpus.
//! Each takes at most [`INPUT_BYTES_MAX`] bytes and panics if the property is violated.

// The fuzz targets include this file by its path, and find the module below it as well.
#[path = "properties/batch.rs"]
pub mod batch;

use common::{
    envelope::{self, Header, Properties},
    message::{
        BatchSplit, DatasetReady, EnrichedChunk, KINDS, Message, ModelPromoted, ModelRejected, RideBatch, RideChunk,
        ScoreOutcome, ScoreRequest, ScoreResponse, WeatherRequest, WeatherResponse, decode, recognise,
    },
    model::Model,
    outcome::{Decision, Failure, History, RetryPolicy, decide},
    topology::topic_matches,
};
use merger::join;
use runtime::trace::TraceContext;
use scorer::{artefact, score};
use splitter::{
    document::{Content, Document, Element, FromObject, Header as BatchHeader, Options, Refusal},
    ride::{Outline, Validation},
    split::{RideIds, Split},
};
use std::fmt::Debug;
use weather_fetcher::formats::{
    ghcn::{AccessAnswer, ByStation, InventoryList, StationList},
    lines::{Lines, Parsed, Text},
    malformed::Malformed,
    station_year::StationYear,
};

/// Maximum length of an input; longer ones find nothing more.
pub const INPUT_BYTES_MAX: usize = 16 * 1024;
/// Maximum length of a reason's text, bytes: a person reads it.
const WORDS_BYTES_MAX: usize = 700;

/// A property by its name, which is also that of the fuzz target and of its corpus.
pub type Property = (&'static str, fn(&[u8]));

/// Every property.
pub const ALL: [Property; 7] = [
    ("document", document),
    ("csv", batch::csv),
    ("mapping", batch::mapping),
    ("ghcn", ghcn),
    ("message", message),
    ("score", scores),
    ("envelope", envelope),
];

/// The first `N` bytes, which control how the rest is read.
fn split_first<const N: usize>(data: &[u8]) -> Option<([u8; N], &[u8])> {
    let (first, rest) = data.split_first_chunk::<N>()?;
    (rest.len() <= INPUT_BYTES_MAX).then_some((*first, rest))
}

/// Cuts bytes into pieces, whose lengths are the digits of `how`, repeated.
fn pieces(how: u8, bytes: &[u8]) -> Vec<&[u8]> {
    let lengths = [usize::from(how % 7) + 1, usize::from(how / 7) * 3 + 1];
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for length in lengths.into_iter().cycle() {
        if rest.is_empty() {
            return pieces;
        }
        let (piece, others) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = others;
    }
    pieces
}

fn legible(words: &str) {
    assert!(!words.is_empty() && words.len() <= WORDS_BYTES_MAX, "{} bytes: {words:.200}", words.len());
}

/// A batch in any form: the rides, header and refusal do not depend on how its bytes are cut; both passes agree; every ride is
/// in a chunk or among the rejects; the next worker can read the outputs, and their size is bounded.
pub fn document(data: &[u8]) {
    let Some(([how, cut, chunk_size], bytes)) = split_first(data) else { return };
    let options =
        Options { lines: how & 1 == 1, records: false, ride_bytes_max: if how & 2 == 2 { 64 } else { 64 * 1024 } };
    let whole = read::<Outline>(options, &[bytes]);
    assert_eq!(read::<Outline>(options, &pieces(cut, bytes)), whole, "in pieces");
    let judged = read::<Validation>(options, &[bytes]);
    assert_eq!(judged.as_ref().map(outline), whole.as_ref().map(outline), "in the second pass");
    assert_eq!(read::<Validation>(options, &pieces(cut, bytes)), judged, "in the second pass, in pieces");
    match judged {
        Err(refusal) => {
            legible(&refusal.to_string());
            assert!(refusal.offset <= bytes.len() as u64 && refusal.line >= 1 && refusal.column >= 1, "{refusal:?}");
        }
        Ok((elements, _)) => split(options, bytes, &elements, u32::from(chunk_size)),
    }
}

type Whole<T> = (Vec<(Vec<u8>, Content<T>)>, BatchHeader);
type Read<T> = Result<Whole<T>, Refusal>;

fn read<T: FromObject + Debug + PartialEq>(options: Options, pieces: &[&[u8]]) -> Read<T> {
    let mut document = Document::new(options);
    let mut elements = Vec::new();
    for nth in 0..=pieces.len() {
        match pieces.get(nth) {
            Some(piece) => document.push(piece),
            None => document.end(),
        }
        while let Some(Element { index, raw, content }) = document.next_element::<T>()? {
            assert_eq!(index, elements.len() as u64);
            elements.push((raw.to_vec(), content));
        }
    }
    assert_eq!(document.elements(), elements.len() as u64);
    Ok((elements, document.header().clone()))
}

type Found<'a> = (Vec<(&'a [u8], u8)>, &'a BatchHeader);

/// The results that both passes must agree on.
fn outline<T>((elements, header): &Whole<T>) -> Found<'_> {
    let kind = |content: &Content<T>| match content {
        Content::Object(_) => b'o',
        Content::NotAnObject => b'n',
        Content::Broken => b'b',
        Content::TooLarge => b'l',
    };
    (elements.iter().map(|(raw, content)| (raw.as_slice(), kind(content))).collect(), header)
}

fn split(options: Options, bytes: &[u8], elements: &[(Vec<u8>, Content<Validation>)], chunk_size: u32) {
    let mut ride_ids = RideIds::default();
    let (outlines, _) = read::<Outline>(options, &[bytes]).expect("the first pass was content");
    for (_, content) in &outlines {
        ride_ids.count(content);
    }
    let chunk_size = chunk_size.max(1);
    let mut split = Split::new("batch", "s".to_owned(), None, chunk_size, ride_ids);
    let mut chunks = Vec::new();
    for (index, (raw, content)) in (0..).zip(elements) {
        split.take(Element { index, raw, content: content.clone() }).expect("there are few ride ids");
        chunks.extend(split.full_chunk());
    }
    chunks.extend(split.last_chunk());
    let account = split.summary(&"0".repeat(64));
    account.check().expect("the account adds up");
    assert_eq!(account.received, elements.len() as u64);
    assert_eq!(account.chunks as usize, chunks.len());
    let mut accepted = 0;
    let mut ids = std::collections::BTreeSet::new();
    for (number, chunk) in (0..).zip(chunks) {
        assert_eq!(chunk.chunk, number);
        assert!((1..=chunk_size as usize).contains(&chunk.rides.len()));
        accepted += chunk.rides.len() as u64;
        for ride in &chunk.rides {
            assert!(ids.insert(ride.ride_id.clone()), "{} twice", ride.ride_id);
        }
        let json = serde_json::to_vec(&chunk).expect("it can be written");
        assert!(json.len() <= 300 + chunk.rides.len() * 1_250, "{} bytes of {} rides", json.len(), chunk.rides.len());
        assert_eq!(decode::<RideChunk>(&json).expect("the next worker reads it"), chunk);
    }
    assert_eq!(account.accepted, accepted);
    let rejects = split.reject_lines();
    assert!(rejects.len() <= 200 * elements.len() + 12 * bytes.len(), "{} bytes of rejects", rejects.len());
    let mut lines = 0;
    for line in rejects.split_inclusive(|byte| *byte == b'\n') {
        lines += 1;
        let reject: serde_json::Value = serde_json::from_slice(line).expect("a line is JSON");
        assert!(reject["index"].is_u64() && reject["reason"].is_string() && line.ends_with(b"\n"));
    }
    assert_eq!(account.rejected, lines);
    decode::<BatchSplit>(&serde_json::to_vec(&account).expect("it can be written")).expect("the merger reads it");
}

/// NOAA's texts: the result does not depend on how the bytes are cut; a bad row is left out; what is read is written to the
/// cache and read back unchanged; every error has its place.
pub fn ghcn(data: &[u8]) {
    let Some(([which, cut], bytes)) = split_first(data) else { return };
    match which % 5 {
        0 => {
            for station in same(cut, bytes, || Lines::new(StationList::default())).unwrap_or_default() {
                assert!(station.latitude.abs() <= 90.0 && station.longitude.abs() <= 180.0 && station.id.len() == 11);
            }
        }
        1 => drop(same(cut, bytes, || Lines::new(InventoryList::default()))),
        2 => {
            let rows = bytes.split(|byte| matches!(*byte, b'\n' | b'\r')).count();
            let years_read = same(cut, bytes, years).unwrap_or_default();
            let days: usize = years_read.iter().map(|(year, days)| cached(*year, days)).sum();
            assert!(days * 3 <= rows, "{days} days of {rows} rows");
            among_broken_rows(cut, bytes);
        }
        3 => {
            if let Ok(days) = same(cut, bytes, || AccessAnswer::new(STATION, 2018)) {
                cached(2018, &days);
            }
        }
        _ => match StationYear::from_csv(2018, bytes) {
            Ok(read) => drop(cached(2018, &read.value)),
            Err(fault) => legible(&fault.to_string()),
        },
    }
}

const STATION: &str = "USW00094728";

fn years() -> Lines<ByStation> {
    Lines::new(ByStation::new(STATION, [2018, 2020]))
}

/// Clean rows give the same days whatever rows are between them, unless those are of the same station.
fn among_broken_rows(cut: u8, bytes: &[u8]) {
    let mut broken = bytes.split(|byte| *byte == b'\n').map(|row| [b"?", row, b"\n"].concat());
    let mut mixed = Vec::new();
    for clean in CLEAN_ROWS.lines() {
        mixed.extend(broken.by_ref().take(1 + usize::from(cut)).flatten());
        mixed.extend_from_slice(clean.as_bytes());
        mixed.push(b'\n');
    }
    let expected = same(cut, CLEAN_ROWS.as_bytes(), years);
    assert!(expected.as_ref().is_ok_and(|years| !years[&2018].is_empty()));
    assert_eq!(same(cut, &mixed, years), expected, "among broken rows");
}

/// Two days of a station.
const CLEAN_ROWS: &str = "\
USW00094728,20180425,TMIN,111,,,W,2400
USW00094728,20180425,TMAX,156,,,W,2400
USW00094728,20180425,PRCP,241,,,W,2400
USW00094728,20180426,TMIN,90,,,W,2400
USW00094728,20180426,TMAX,140,,,W,2400
USW00094728,20180426,PRCP,0,T,,W,2400
";

/// The result of reading a text, which may not depend on how its bytes are cut.
fn same<T: Text>(cut: u8, bytes: &[u8], text: impl Fn() -> T) -> Result<T::Output, Malformed>
where
    T::Output: Debug + PartialEq,
{
    let read = |pieces: &[&[u8]]| {
        let mut text = text();
        pieces.iter().try_for_each(|piece| text.feed(piece))?;
        text.finish()
    };
    let whole = read(&[bytes]);
    assert_eq!(whole, read(&pieces(cut, bytes)), "in pieces");
    match whole {
        Ok(Parsed { value, left_out }) => {
            left_out.samples().iter().for_each(|sample| legible(&sample.why));
            assert_eq!(left_out.is_empty(), left_out.samples().is_empty());
            Ok(value)
        }
        Err(fault) => {
            legible(&fault.to_string());
            Err(fault)
        }
    }
}

/// Writes a year to the cache and reads it back. Returns its number of days.
fn cached(year: i16, days: &StationYear) -> usize {
    let csv = days.to_csv(year);
    assert!(csv.len() <= 366 * 32 + 32);
    let read = StationYear::from_csv(year, csv.as_bytes()).expect("what was written is read");
    assert!(read.left_out.is_empty(), "{}", read.left_out);
    assert_eq!(&read.value, days);
    csv.lines().count() - 1
}

/// Every kind of message: a decoded message is written and read back unchanged; an undecodable one has a legible reason; an
/// enriched chunk becomes as many rows of a dataset as it has rides.
pub fn message(data: &[u8]) {
    let Some(([which], body)) = split_first(data) else { return };
    match which % 11 {
        0 => drop(round_trip::<RideBatch>(body)),
        1 => drop(round_trip::<RideChunk>(body)),
        2 => drop(round_trip::<BatchSplit>(body)),
        3 => drop(round_trip::<EnrichedChunk>(body).map(|chunk| rows(&chunk))),
        4 => drop(round_trip::<DatasetReady>(body)),
        5 => drop(round_trip::<ModelPromoted>(body)),
        6 => drop(round_trip::<ModelRejected>(body)),
        7 => drop(round_trip::<ScoreRequest>(body)),
        8 => drop(round_trip::<ScoreResponse>(body)),
        9 => drop(round_trip::<WeatherRequest>(body)),
        _ => drop(round_trip::<WeatherResponse>(body)),
    }
}

fn round_trip<M: Message + Debug + PartialEq>(body: &[u8]) -> Option<M> {
    match decode::<M>(body) {
        Ok(message) => {
            let json = serde_json::to_vec(&message).expect("what was read can be written");
            assert!(json.len() <= 1_000 + 100 * body.len(), "{} bytes become {}", body.len(), json.len());
            assert_eq!(decode::<M>(&json).as_ref(), Ok(&message));
            assert!(!message.message_id().is_empty());
            Some(message)
        }
        Err(why) => {
            legible(&why.to_string());
            assert!(!why.to_string().chars().any(char::is_control), "{why:?}");
            assert_eq!(why.reason(), "malformed");
            None
        }
    }
}

fn rows(chunk: &EnrichedChunk) {
    let object = join::staged(chunk).expect("it can be staged");
    let (heading, start) = join::open_staged(chunk.chunk, &object).expect("what was staged is read");
    assert_eq!(heading.statistics.rides, chunk.rides.len() as u64);
    let mut csv = records::datasets::header();
    csv.extend_from_slice(&object[start..]);
    let mut reader = csv::Reader::from_reader(csv.as_slice());
    let mut read = 0;
    for (record, ride) in reader.records().zip(&chunk.rides) {
        let record = record.expect("every reader reads it");
        let ride = &ride.ride;
        assert_eq!((&record[0], &record[1]), (ride.ride_id.as_str(), ride.name.as_str()));
        for (column, number) in
            (4..).zip([ride.latitude, ride.longitude, ride.distance, ride.healthpoints, ride.magicpoints])
        {
            assert_eq!(record[column].parse::<f64>(), Ok(number), "column {column}");
        }
        read += 1;
    }
    assert_eq!(read, chunk.rides.len());
}

/// A model artefact and a request, on two lines: any usable artefact gives every ride a probability or an error, and is written
/// and read back unchanged.
pub fn scores(data: &[u8]) {
    let Some(([], data)) = split_first(data) else { return };
    let Some(at) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (artefact, request) = data.split_at(at);
    let Ok(model) = serde_json::from_slice::<Model>(artefact) else { return };
    let servable = match artefact::servable(&model) {
        Ok(servable) => servable,
        Err(why) => return assert!(!why.to_string().is_empty()),
    };
    let json = serde_json::to_vec(&model).expect("it can be written");
    assert_eq!(serde_json::from_slice::<Model>(&json).expect("what was written is read"), model);
    let Some(request) = round_trip::<ScoreRequest>(request) else { return };
    let response = score::score(&servable, &request);
    let otherwise = score::score(&servable, &ScoreRequest { explain: !request.explain, ..request.clone() });
    assert_eq!(response.scores.len(), request.rides.len());
    for (score, otherwise) in response.scores.iter().zip(&otherwise.scores) {
        match &score.outcome {
            ScoreOutcome::Scored { probability, service, explanation, .. } => {
                assert!((0.0..=1.0).contains(probability) && *service == (*probability >= model.threshold));
                assert_eq!(explanation.len(), if request.explain { model.coefficients.len() } else { 0 });
                assert!(explanation.is_sorted_by(|a, b| a.log_odds.abs() >= b.log_odds.abs()));
                let ScoreOutcome::Scored { probability: same, .. } = otherwise.outcome else { panic!("{otherwise:?}") };
                assert_eq!(probability.to_bits(), same.to_bits(), "whether explained or not");
            }
            ScoreOutcome::Failed { error } => legible(&error.message),
        }
    }
    let json = serde_json::to_vec(&response).expect("it can be written");
    assert_eq!(decode::<ScoreResponse>(&json).as_ref(), Ok(&response), "the client reads it");
}

/// Everything beside a body: kinds, traces, counters, headers of any size, routing keys.
pub fn envelope(data: &[u8]) {
    let Some(([large, attempts_max], rest)) = split_first(data) else { return };
    let text = String::from_utf8_lossy(rest);
    for known in [KINDS, &KINDS[..1]] {
        let recognised = recognise(Some(&text), known);
        match recognised {
            Ok(kind) => assert!(text.is_empty() || kind.to_string() == text),
            Err(why) => legible(&why.to_string()),
        }
    }
    if let Some(trace) = TraceContext::parse(&text) {
        assert_eq!(TraceContext::parse(&trace.to_string()), Some(trace));
    }
    let (pattern, key) = text.split_once(' ').unwrap_or((&text, ""));
    if pattern.len() < 40 && key.len() < 40 {
        assert!(topic_matches("#", key));
        assert_eq!(topic_matches(pattern, key), matches_slowly(pattern, key), "{pattern} {key}");
    }
    let mut properties = Properties::default();
    for (nth, line) in text.lines().enumerate() {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let header = match value.parse() {
            Ok(number) => Header::Integer(number),
            Err(_) => Header::Text(value.repeat(1 + usize::from(large) * nth)),
        };
        properties.headers.insert(name.to_owned(), header);
    }
    let history = History { attempt: properties.attempt(), outages: properties.count(envelope::OUTAGES, 0) };
    let policy = RetryPolicy { delays_ms: vec![1, 10], attempts_max: attempts_max.into() };
    match decide(Err(&Failure::transient("w")), history, &policy, 0.5) {
        Decision::Ack => panic!("a failure is no success"),
        Decision::Retry { next, .. } => assert!(next.attempt > history.attempt),
        Decision::DeadLetter { .. } => assert!(history.attempt >= u32::from(attempts_max)),
    }
    let before = properties.headers.len();
    properties.fit_headers();
    let bytes = |value: &Header| if let Header::Text(text) = value { text.len() } else { 8 };
    let foreign =
        properties.headers.iter().filter(|(name, _)| !name.starts_with("x-") && *name != envelope::TRACEPARENT);
    assert!(foreign.map(|(name, value)| name.len() + bytes(value)).sum::<usize>() <= envelope::HEADER_BYTES_MAX);
    assert!(properties.headers.len() == before || properties.text(envelope::LEFT_BEHIND).is_some());
}

/// A second implementation of AMQP 0-9-1 §3.1.3.3: a table of the prefixes that match.
fn matches_slowly(pattern: &str, key: &str) -> bool {
    let key: Vec<&str> = if key.is_empty() { Vec::new() } else { key.split('.').collect() };
    let mut reached = vec![false; key.len() + 1];
    reached[0] = true;
    for word in pattern.split('.') {
        let mut next = vec![false; key.len() + 1];
        for at in 0..=key.len() {
            next[at] = match word {
                "#" => reached[at] || at > 0 && next[at - 1],
                "*" => at > 0 && reached[at - 1],
                word => at > 0 && reached[at - 1] && key[at - 1] == word,
            };
        }
        reached = next;
    }
    reached[key.len()]
}
