//! `dead list`, `dead show` and `dead export`: leave every letter in its queue.

use super::letters::{HeldLetter, Letters};
use crate::{
    arguments::{LetterFilter, ListDead},
    output::{Output, legible, print_json, refuse_to_replace},
    session::{Failed, Session},
};
use anyhow::Context;
use common::{
    dead_letter::{Letter, whole},
    envelope,
    text::truncate,
};
use indicatif::HumanCount;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    ops::ControlFlow,
    path::Path,
};

/// Number of letters that `dead list` shows by default.
const LIST_MAX: u64 = 100;
/// Maximum number of characters of a body that `dead show` prints.
const BODY_CHARS_MAX: usize = 4_000;
/// Maximum number of bytes of a body that is not text.
const BODY_BYTES_MAX: usize = 256;

/// `dead list`
pub(super) async fn list(session: &Session, letters: &Letters<'_>, options: &ListDead) -> Result<(), Failed> {
    if options.summary {
        return summary(session, letters, &options.filter).await;
    }
    let filter = LetterFilter { limit: Some(options.filter.limit.unwrap_or(LIST_MAX)), ..options.filter.clone() };
    let held = letters.count(&filter).await?;
    let mut listed = Vec::new();
    let inspected = letters
        .walk(&filter, async |held: HeldLetter| {
            listed.push(held.letter);
            Ok(ControlFlow::Continue(()))
        })
        .await?;
    if session.shared.json {
        let document = json!({ "letters": listed, "looked_at": inspected, "held": held });
        return print_json(&document);
    }
    if listed.is_empty() {
        println!("{}", if held == 0 { "no dead letters" } else { "no dead letter matches" });
        return Ok(());
    }
    println!("{:<12}  {:<15}  {:<20}  {:<20}  {:<18}  {:>9}  why", "id", "queue", "since", "reason", "batch", "bytes");
    for letter in &listed {
        let since = letter.dead_at.map_or_else(|| "unknown".to_owned(), time);
        let batch = legible(letter.batch_id.as_deref().unwrap_or("-"), false);
        let Letter { id, queue, reason, why, body_bytes, .. } = letter;
        let (reason, why) = (legible(reason, false), one_line(why, 100));
        println!("{id:<12}  {queue:<15}  {since:<20}  {reason:<20}  {batch:<18}  {body_bytes:>9}  {why}");
    }
    if inspected < held {
        println!(
            "{} shown of {} dead letters; --limit 0 shows all that match, --summary counts them",
            listed.len(),
            HumanCount(held)
        );
    }
    Ok(())
}

/// Prints the number of letters for each queue and reason.
async fn summary(session: &Session, letters: &Letters<'_>, filter: &LetterFilter) -> Result<(), Failed> {
    /// Number of letters, and the times of the oldest and the newest.
    type Group = (u64, Option<Timestamp>, Option<Timestamp>);
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    letters
        .walk(filter, async |HeldLetter { letter, .. }: HeldLetter| {
            let group = groups.entry((letter.queue, letter.reason)).or_default();
            group.0 += 1;
            group.1 = [group.1, letter.dead_at].into_iter().flatten().min();
            group.2 = group.2.max(letter.dead_at);
            Ok(ControlFlow::Continue(()))
        })
        .await?;
    if session.shared.json {
        let rows: Vec<Value> = groups
            .iter()
            .map(|((queue, reason), (letters, oldest, newest))| {
                let [oldest, newest] = [oldest, newest].map(|at| at.map(|at| at.to_string()));
                json!({ "queue": queue, "reason": reason, "letters": letters, "oldest": oldest, "newest": newest })
            })
            .collect();
        return print_json(&rows);
    }
    if groups.is_empty() {
        println!("no dead letters");
        return Ok(());
    }
    println!("{:<15}  {:<24}  {:>9}  {:<20}  newest", "queue", "reason", "letters", "oldest");
    for ((queue, reason), (letters, oldest, newest)) in groups {
        let at = |at: Option<Timestamp>| at.map_or_else(|| "unknown".to_owned(), time);
        let reason = legible(&reason, false);
        println!(
            "{queue:<15}  {reason:<24}  {:>9}  {:<20}  {}",
            HumanCount(letters).to_string(),
            at(oldest),
            at(newest)
        );
    }
    Ok(())
}

/// `dead show`
pub(super) async fn show(session: &Session, letters: &Letters<'_>, ids: &[String], full: bool) -> Result<(), Failed> {
    let filter = LetterFilter { ids: ids.to_vec(), ..LetterFilter::default() };
    let mut missing: Vec<&String> = ids.iter().collect();
    let mut documents = Vec::new();
    letters
        .walk(&filter, async |HeldLetter { letter, delivery }: HeldLetter| {
            missing.retain(|id| **id != letter.id);
            match session.shared.json {
                true => documents.push(whole(&letter, &delivery.properties, &delivery.body)),
                false => print(&letter, &whole(&letter, &delivery.properties, &delivery.body), &delivery.body, full),
            }
            Ok(if missing.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .await?;
    if session.shared.json {
        print_json(&documents)?;
    }
    not_found(&missing)
}

pub(super) fn not_found(missing: &[&String]) -> Result<(), Failed> {
    if missing.is_empty() {
        return Ok(());
    }
    let ids = missing.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", ");
    Err(Failed::Broken(anyhow::anyhow!(
        "no dead letter {ids}: replayed or dropped meanwhile, or currently held by another `wildrydes dead`"
    )))
}

fn print(letter: &Letter, all: &Value, body: &[u8], full: bool) {
    let line = |name: &str, value: &str| println!("{name:<16}{}", legible(value, false));
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    line("dead letter", &letter.id);
    line("queue", &letter.queue);
    line("type", &or_none(&letter.kind));
    line("message id", &or_none(&letter.message_id));
    line("batch", &or_none(&letter.batch_id));
    line("dead since", &letter.dead_at.map_or_else(|| "unknown".to_owned(), time));
    line("reason", &letter.reason);
    line("why", &letter.why);
    if letter.lossy {
        line("lossy", "some bytes of its properties are not UTF-8; \u{FFFD} replaces them, also in a copy or a replay");
    }
    line("attempts", &letter.attempts.to_string());
    let headers = &all["properties"]["headers"];
    for past in headers[envelope::HISTORY].as_str().into_iter().flat_map(str::lines) {
        line("", past);
    }
    line("came from", &format!("exchange {:?}, routing key {:?}", letter.exchange, letter.routing_key));
    for (name, value) in all["properties"].as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "headers" | "type" | "message_id") {
            line(name, &plain(value));
        }
    }
    for (name, value) in headers.as_object().into_iter().flatten() {
        let printed = [envelope::REASON, envelope::WHY, envelope::DEAD_AT, envelope::HISTORY, envelope::ATTEMPT];
        let origin = [envelope::ORIGINAL_EXCHANGE, envelope::ORIGINAL_ROUTING_KEY];
        if ![&printed[..], &origin].concat().contains(&name.as_str()) {
            line("header", &format!("{name}: {}", plain(value)));
        }
    }
    println!("body            {} bytes\n{}\n", letter.body_bytes, legible(&body_text(body, full), true));
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Formats a body: JSON indented, other text unchanged, anything else in hex.
fn body_text(body: &[u8], full: bool) -> String {
    let pretty = serde_json::from_slice::<Value>(body).ok().and_then(|value| serde_json::to_string_pretty(&value).ok());
    let text = pretty.or_else(|| String::from_utf8(body.to_vec()).ok());
    match text {
        Some(text) if full => text,
        Some(text) => match text.char_indices().nth(BODY_CHARS_MAX) {
            Some((at, _)) => format!("{}\n… cut here; --full shows all", &text[..at]),
            None => text,
        },
        None if full || body.len() <= BODY_BYTES_MAX => hex::encode(body),
        None => format!("{}… cut here; --full shows all, in hex", hex::encode(&body[..BODY_BYTES_MAX])),
    }
}

/// `dead export`
pub(super) async fn export(
    session: &Session,
    letters: &Letters<'_>,
    filter: &LetterFilter,
    file: Option<&Path>,
    force: bool,
) -> Result<(), Failed> {
    let mut out: Box<dyn Write> = match file {
        Some(path) => {
            refuse_to_replace(path, force)?;
            let file = std::fs::File::create(path).with_context(|| format!("writing {}", path.display()))?;
            Box::new(io::BufWriter::new(file))
        }
        None => Box::new(io::BufWriter::new(Output)),
    };
    let mut exported = 0u64;
    letters
        .walk(filter, async |HeldLetter { letter, delivery }: HeldLetter| {
            writeln!(out, "{}", whole(&letter, &delivery.properties, &delivery.body)).context("writing the letters")?;
            exported += 1;
            Ok(ControlFlow::Continue(()))
        })
        .await?;
    out.flush().context("writing the letters")?;
    if let Some(path) = file {
        match session.shared.json {
            true => println!("{}", json!({ "exported": exported, "file": path })),
            false => println!("{} dead letters in {}; they are still in their queues", exported, path.display()),
        }
    }
    Ok(())
}

pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%FT%TZ").to_string()
}

pub(super) fn one_line(text: &str, chars_max: usize) -> String {
    truncate(&legible(&text.replace('\n', " "), false), chars_max).into_owned()
}
