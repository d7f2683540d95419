//! A gateway over HTTP, for `score` and `status`.

use crate::{
    Failed, Session, arguments,
    status::{header, letters_note, row},
};
use anyhow::{Context, anyhow};
use common::message::{
    Contribution, Fallback, Score, ScoreError, ScoreErrorCode, ScoreOutcome, ScoreRequest, ScoreResponse,
};
use gateway::management::cause;
use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::time::Duration;

/// What a command waits for an answer where it has no limit of its own.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of batches per request.
const PAGE_MAX: usize = 500;

/// A gateway.
pub(crate) struct Remote {
    client: reqwest::Client,
    base: Url,
    key: Option<String>,
}

/// What an error says (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

/// What a score request is answered with.
#[derive(Deserialize)]
struct Scored {
    probability: f64,
    service: bool,
    threshold: f64,
    model: String,
    model_id: String,
    baseline: Option<Baseline>,
    fallback: Option<Fallback>,
    #[serde(default)]
    contributions: Vec<Contribution>,
}

#[derive(Deserialize)]
struct Baseline {
    log_odds: f64,
}

enum Answer<T> {
    Good(T),
    Problem(StatusCode, Problem),
}

impl Remote {
    /// The gateway that the arguments name, if they do.
    pub(crate) fn of(options: &arguments::Remote) -> Result<Option<Self>, Failed> {
        let Some(url) = &options.url else { return Ok(None) };
        let wrong = |why: String| Failed::Misused(anyhow!("--url {url}: {why}"));
        let base =
            Url::parse(url).map_err(|error| wrong(format!("{error}; expected one as in http://127.0.0.1:8080")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong("expected http:// or https://".to_owned()));
        }
        let key = match &options.key_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("--key-file {}", file.display()));
                Some(text.map_err(Failed::Misused)?.trim().to_owned())
            }
            None => std::env::var("WILDRYDES_API_KEY").ok(),
        };
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Some(Self { client, base, key }))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<Answer<T>, Failed> {
        let url = self.base.join(path)?;
        let mut request = self.client.request(method, url.clone()).timeout(timeout);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let away = |error: reqwest::Error| anyhow!("{url}: {}", cause(&error));
        let response = request.send().await.map_err(away)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(away)?;
        let foreign = || anyhow!("{url} answers {status} with something else than a gateway's JSON: is it one?");
        if status.is_success() {
            return Ok(Answer::Good(serde_json::from_slice(&bytes).ok().with_context(foreign)?));
        }
        Ok(Answer::Problem(status, serde_json::from_slice(&bytes).ok().with_context(foreign)?))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failed> {
        match self.ask(Method::GET, path, None, TIMEOUT).await? {
            Answer::Good(answer) => Ok(answer),
            Answer::Problem(status, problem) => Err(Failed::Broken(refused(status, &problem))),
        }
    }

    /// One ride, as the queue would answer it.
    pub(crate) async fn score(&self, request: &ScoreRequest, timeout: Duration) -> Result<ScoreResponse, Failed> {
        let ride = request.rides.first().context("no ride to score")?;
        let mut body = json!({
            "distance": ride.distance,
            "healthpoints": ride.healthpoints,
            "magicpoints": ride.magicpoints,
            "temperature": { "min": ride.tmin, "max": ride.tmax, "unit": request.units.temperature },
            "precipitation": { "amount": ride.prcp, "unit": request.units.precipitation },
        });
        if let Some(breed) = &ride.breed {
            body["breed"] = json!(breed);
        }
        let answer = self.ask::<Scored>(Method::POST, "/v1/score", Some(&body), timeout).await?;
        let request_id = request.request_id.clone();
        match answer {
            Answer::Good(scored) => {
                let Scored { probability, service, threshold, model, model_id, baseline, fallback, contributions } =
                    scored;
                let outcome =
                    ScoreOutcome::Scored { probability, service, explanation: contributions, by: None, fallback };
                Ok(ScoreResponse {
                    request_id,
                    model: Some(model),
                    model_id: Some(model_id),
                    threshold: Some(threshold),
                    baseline_log_odds: baseline.map(|baseline| baseline.log_odds),
                    scores: vec![Score { ride_id: None, outcome }],
                    error: None,
                })
            }
            Answer::Problem(_, Problem { kind, detail }) if kind.ends_with(":no-model") => Ok(ScoreResponse::failed(
                request_id,
                ScoreError { code: ScoreErrorCode::NoModel, message: detail, field: None },
            )),
            Answer::Problem(status, problem) => Err(Failed::Broken(refused(status, &problem))),
        }
    }

    /// Returns at most `limit` batches, newest first (`None`: all), and whether there are older ones.
    async fn batches(&self, limit: Option<usize>) -> Result<(Vec<Value>, bool), Failed> {
        let limit = limit.unwrap_or(usize::MAX);
        let mut batches = Vec::new();
        let mut after = String::new();
        loop {
            let count = (limit - batches.len()).min(PAGE_MAX);
            let mut page: Value = self.get(&format!("/v1/batches?limit={count}{after}")).await?;
            if let Value::Array(some) = page["batches"].take() {
                batches.extend(some);
            }
            match page["next"].as_str() {
                Some(next) if batches.len() < limit => after = format!("&after={next}"),
                next => return Ok((batches, next.is_some())),
            }
        }
    }

    /// `status`
    pub(crate) async fn status(
        &self,
        session: &Session,
        batch: Option<&str>,
        limit: Option<usize>,
    ) -> Result<(), Failed> {
        if let Some(batch) = batch {
            let found: Value = self.get(&format!("/v1/batches/{batch}")).await?;
            println!("{}", serde_json::to_string_pretty(&found)?);
            return Ok(());
        }
        let fleet: Value = self.get("/v1/fleet").await?;
        let (batches, are_older) = self.batches(limit).await?;
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
            println!(
                "{}",
                serde_json::to_string_pretty(&json!({ "batches": batches, "fleet": fleet, "notes": notes }))?
            );
            return Ok(());
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
            ("ready", format!("{received} received, {rejected} rejected, {trainable} to train on"))
        }
        Some("in_progress") => {
            let of = match &batch["progress"]["rides_total"] {
                Value::Null => "a number not yet known".to_owned(),
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

fn refused(status: StatusCode, problem: &Problem) -> anyhow::Error {
    let way_out = match status {
        StatusCode::UNAUTHORIZED => " (--key-file, or WILDRYDES_API_KEY in the environment)",
        _ => "",
    };
    anyhow!("{}{way_out}", problem.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_one_line_with_its_time_and_what_came_of_it() {
        let counts = json!({ "received": 12, "rejected": 2, "trainable": 9 });
        let ready =
            json!({ "batch_id": "b", "state": "ready", "submitted_at": "2026-11-24T07:37:11Z", "counts": counts });
        let start = "b                  2026-11-24T07:37:11Z ";
        assert_eq!(line(&ready), format!("{start}ready        12 received, 2 rejected, 9 to train on"));
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
