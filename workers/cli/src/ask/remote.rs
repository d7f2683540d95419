//! An HTTP client for a gateway.

use crate::{arguments, session::Failed};
use anyhow::{Context, anyhow};
use common::{
    features::FEATURES,
    message::{
        Assumed, Contribution, Fallback, PlaceWeather, ProbabilityInterval, Score, ScoreError, ScoreErrorCode,
        ScoreOutcome, ScoreRequest, ScoreResponse, WeatherPlace,
    },
};
use gateway::management::cause;
use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::time::Duration;

/// Deadline of an answer for commands without a deadline of their own.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A gateway.
pub(crate) struct Remote {
    client: reqwest::Client,
    base: Url,
    key: Option<String>,
}

/// An error response (RFC 9457).
#[derive(Deserialize)]
struct ProblemDetails {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

/// The response to a score request.
#[derive(Deserialize)]
struct ScoreBody {
    probability: f64,
    service: bool,
    threshold: f64,
    model: String,
    model_id: String,
    baseline: Option<Baseline>,
    fallback: Option<Fallback>,
    #[serde(default)]
    contributions: Vec<Contribution>,
    weather: Option<PlaceWeather>,
    #[serde(default)]
    assumed: Vec<Assumed>,
    interval: Option<ProbabilityInterval>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Baseline {
    log_odds: f64,
}

enum Answer<T> {
    Good(T),
    Problem(StatusCode, ProblemDetails),
}

impl Remote {
    /// Returns the gateway that the arguments name, if any.
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
        records::tls::install_cryptography();
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
        let unreachable = |error: reqwest::Error| anyhow!("{url}: {}", cause(&error));
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(unreachable)?;
        let foreign = || anyhow!("{url} answers {status} without a gateway's JSON; it may not be a gateway");
        if status.is_success() {
            return Ok(Answer::Good(serde_json::from_slice(&bytes).ok().with_context(foreign)?));
        }
        Ok(Answer::Problem(status, serde_json::from_slice(&bytes).ok().with_context(foreign)?))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failed> {
        match self.ask(Method::GET, path, None, TIMEOUT).await? {
            Answer::Good(answer) => Ok(answer),
            Answer::Problem(status, problem) => Err(Failed::Broken(refused(status, &problem))),
        }
    }

    /// Scores one ride, with the weather of `place` if there is one; returns the response in the form of the queue's, and the
    /// weather that the gateway looked up.
    pub(crate) async fn score(
        &self,
        request: &ScoreRequest,
        place: Option<&WeatherPlace>,
        timeout: Duration,
    ) -> Result<(ScoreResponse, Option<PlaceWeather>), Failed> {
        let ride = request.rides.first().context("no ride to score")?;
        let mut body = match place {
            Some(place) => json!(place),
            None => json!({
                "temperature": {
                    "value": ride.tavg, "min": ride.tmin, "max": ride.tmax, "unit": request.units.temperature,
                },
                "precipitation": { "amount": ride.prcp, "unit": request.units.precipitation },
            }),
        };
        body["impute"] = json!(request.impute);
        for feature in FEATURES.iter().filter(|feature| !feature.weather) {
            body[feature.name] = json!((feature.of)(ride));
        }
        if let Some(breed) = &ride.breed {
            body["breed"] = json!(breed);
        }
        let answer = self.ask::<ScoreBody>(Method::POST, "/v1/score", Some(&body), timeout).await?;
        let request_id = request.request_id.clone();
        match answer {
            Answer::Good(scored) => {
                let outcome = ScoreOutcome::Scored {
                    probability: scored.probability,
                    service: scored.service,
                    explanation: scored.contributions,
                    by: None,
                    fallback: scored.fallback,
                    assumed: scored.assumed,
                    interval: scored.interval,
                    warnings: scored.warnings,
                    weather: None,
                };
                let response = ScoreResponse {
                    request_id,
                    model: Some(scored.model),
                    model_id: Some(scored.model_id),
                    threshold: Some(scored.threshold),
                    baseline_log_odds: scored.baseline.map(|baseline| baseline.log_odds),
                    scores: vec![Score { ride_id: None, outcome }],
                    error: None,
                };
                Ok((response, scored.weather))
            }
            Answer::Problem(_, ProblemDetails { kind, detail }) if kind.ends_with(":no-model") => {
                let error = ScoreError { code: ScoreErrorCode::NoModel, message: detail, field: None };
                Ok((ScoreResponse::failed(request_id, error), None))
            }
            Answer::Problem(status, problem) => Err(Failed::Broken(refused(status, &problem))),
        }
    }
}

fn refused(status: StatusCode, problem: &ProblemDetails) -> anyhow::Error {
    let remedy = match status {
        StatusCode::UNAUTHORIZED => " (--key-file, or WILDRYDES_API_KEY in the environment)",
        _ => "",
    };
    anyhow!("{}{remedy}", problem.detail)
}
