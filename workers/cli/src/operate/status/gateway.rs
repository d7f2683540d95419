//! The state of batches and queues, from a gateway.

use super::table::{header, letters_note, row};
use crate::{
    ask::remote::Remote,
    output::print_json,
    session::{Failed, Session},
};
use serde_json::{Value, json};

/// Maximum number of batches per request.
const PAGE_MAX: usize = 500;

/// `status`
pub(super) async fn status(
    session: &Session,
    remote: &Remote,
    batch: Option<&str>,
    limit: Option<usize>,
) -> Result<(), Failed> {
    if let Some(batch) = batch {
        let document: Value = remote.get(&format!("/v1/batches/{batch}")).await?;
        return print_json(&document);
    }
    let fleet: Value = remote.get("/v1/fleet").await?;
    let (batches, are_older) = batches(remote, limit).await?;
    let mut notes: Vec<String> = Vec::new();
    if are_older {
        notes.push(format!(
            "only the newest {} batches are shown: --limit N shows more, --all shows all",
            batches.len()
        ));
    }
    for q in fleet["queues"].as_array().into_iter().flatten() {
        let (queue, dead) = (q["queue"].as_str().unwrap_or_default(), q["dead"].as_u64().unwrap_or_default());
        notes.extend(letters_note(queue, dead));
    }
    if session.shared.json {
        return print_json(&json!({ "batches": batches, "fleet": fleet, "notes": notes }));
    }
    match batches.is_empty() {
        true => println!("no batches yet"),
        false => println!("{}", header()),
    }
    // The gateway lists the newest first; a terminal shows its last lines.
    for batch in batches.iter().rev() {
        println!("{}", line(batch));
    }
    for note in &notes {
        println!("{note}");
    }
    println!("\n{:<18}{:>10}{:>11}{:>9}{:>7}", "queue", "messages", "consumers", "retries", "dead");
    for q in fleet["queues"].as_array().into_iter().flatten() {
        let name = q["queue"].as_str().unwrap_or_default();
        let [ready, consumers, retries, dead] =
            ["ready", "consumers", "retries", "dead"].map(|count| q[count].as_u64().unwrap_or_default());
        println!("{name:<18}{ready:>10}{consumers:>11}{retries:>9}{dead:>7}");
    }
    Ok(())
}

/// Returns at most `limit` batches, newest first (`None`: all), and whether there are older ones.
async fn batches(remote: &Remote, limit: Option<usize>) -> Result<(Vec<Value>, bool), Failed> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut batches = Vec::new();
    let mut after = String::new();
    loop {
        let count = (limit - batches.len()).min(PAGE_MAX);
        let mut page: Value = remote.get(&format!("/v1/batches?limit={count}{after}")).await?;
        if let Value::Array(some) = page["batches"].take() {
            batches.extend(some);
        }
        match page["next"].as_str() {
            Some(next) if batches.len() < limit => after = format!("&after={next}"),
            next => return Ok((batches, next.is_some())),
        }
    }
}

fn line(batch: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (id, source, counts) = (text(&batch["batch_id"]), text(&batch["source"]), &batch["counts"]);
    // The gateway does not know the time of batches that others published.
    let submitted_at = batch["submitted_at"].as_str().unwrap_or("-");
    let (state, what) = match batch["state"].as_str() {
        Some("ready") if batch["note"].is_string() => ("ready", format!("0 rides: {}", text(&batch["note"]))),
        Some("ready") => {
            let [received, rejected, trainable] = ["received", "rejected", "trainable"].map(|count| &counts[count]);
            ("ready", format!("{received} received, {rejected} rejected, {trainable} trainable"))
        }
        Some("in_progress") => {
            let of = match &batch["progress"]["rides_total"] {
                Value::Null => "an unknown number".to_owned(),
                total => total.to_string(),
            };
            ("in progress", format!("{} of {of} rides joined", batch["progress"]["rides_joined"]))
        }
        Some("refused") => {
            let [queue, reason, why] = ["queue", "reason", "why"].map(|part| text(&batch["refused"][part]));
            ("refused", format!("by the {queue}: {reason}: {why}"))
        }
        _ => ("queued", String::new()),
    };
    row(&id, submitted_at, state, &format!("{what}   {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_is_one_line_with_time_state_and_outcome() {
        let counts = json!({ "received": 12, "rejected": 2, "trainable": 9 });
        let ready =
            json!({ "batch_id": "b", "state": "ready", "submitted_at": "2026-11-24T07:37:11Z", "counts": counts });
        let start = "b                  2026-11-24T07:37:11Z ";
        assert_eq!(line(&ready), format!("{start}ready        12 received, 2 rejected, 9 trainable"));
        let mut empty = ready;
        empty["note"] = json!("the batch holds no rides");
        assert_eq!(line(&empty), format!("{start}ready        0 rides: the batch holds no rides"));
        let published = json!({ "batch_id": "b", "state": "queued" });
        assert_eq!(line(&published), "b                  -                    queued");
        let refused = json!({ "queue": "splitter", "reason": "cut_short", "why": "at byte 7" });
        let refused = json!({ "batch_id": "b", "state": "refused", "refused": refused, "source": "a.json" });
        let end = "-                    refused      by the splitter: cut_short: at byte 7   a.json";
        assert_eq!(line(&refused), format!("b                  {end}"));
    }
}
