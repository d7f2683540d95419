//! API keys: which are known, their scopes, and how many requests they may make.

use super::{body_guard::until_sent, problem::Problem};
use crate::{
    limits::Limit,
    metrics::Metrics,
    settings::{Auth, Scope, Settings},
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use sha2::{Digest, Sha256};
use std::{num::NonZeroU32, sync::Arc};
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The API keys of the settings.
pub(crate) struct ApiKeys {
    is_off: bool,
    keys: Vec<KnownKey>,
    metrics: Arc<Metrics>,
}

/// A request whose key has the scope.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission<'a>(Option<&'a KnownKey>);

impl<'a> Admission<'a> {
    /// The name of the key; empty if the gateway needs no keys.
    pub(crate) fn name(self) -> &'a str {
        self.0.map_or("", |known| known.name.as_str())
    }

    /// Counts the request as in progress until the permit is dropped.
    ///
    /// # Errors
    /// 429 if too many requests of the key are in progress.
    pub(crate) fn begin(self) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        let Some(known) = self.0 else { return Ok(None) };
        let at_once = Arc::clone(&known.at_once).try_acquire_owned();
        at_once.map(Some).map_err(|_| Problem::too_many_at_once(known.at_once_max))
    }
}

#[derive(Debug)]
struct KnownKey {
    name: String,
    sha256: [u8; 32],
    scopes: Vec<Scope>,
    limiter: Option<DefaultDirectRateLimiter>,
    /// One permit per request in progress.
    at_once: Arc<Semaphore>,
    at_once_max: usize,
}

impl ApiKeys {
    /// Reads the keys of checked settings.
    pub(crate) fn new(settings: &Settings, metrics: &Arc<Metrics>) -> Arc<Self> {
        let known = settings.keys.iter().map(|key| {
            let mut sha256 = [0; 32];
            // The settings are checked: it has 64 hex digits.
            let _ = hex::decode_to_slice(&key.sha256, &mut sha256);
            let per_second = key.requests_per_second.and_then(NonZeroU32::new);
            let limiter = per_second.map(|rate| RateLimiter::direct(Quota::per_second(rate)));
            let at_once_max = settings.requests_per_key_max;
            let at_once = Arc::new(Semaphore::new(at_once_max));
            KnownKey { name: key.name.clone(), sha256, scopes: key.scopes.clone(), limiter, at_once, at_once_max }
        });
        Arc::new(Self { is_off: settings.auth == Auth::Off, keys: known.collect(), metrics: Arc::clone(metrics) })
    }

    /// Number of requests in progress with the key that has the most.
    pub(crate) fn at_once(&self) -> usize {
        let each = self.keys.iter().map(|known| known.at_once_max.saturating_sub(known.at_once.available_permits()));
        each.max().unwrap_or_default()
    }

    /// Admits a request with these headers if its key has `scope`.
    ///
    /// # Errors
    /// 401, 403, 429.
    pub(crate) fn admit(&self, headers: &HeaderMap, scope: Scope) -> Result<Admission<'_>, Problem> {
        if self.is_off {
            return Ok(Admission(None));
        }
        let Some(key) = key_of(headers) else {
            let detail = "send it as `Authorization: Bearer <key>` or `X-Api-Key: <key>`";
            return Err(Problem::unauthorized(detail));
        };
        let digest: [u8; 32] = Sha256::digest(key).into();
        // Every known key is compared, each in constant time: the time taken reveals nothing about any of them.
        let mut matching_key = None;
        for known in &self.keys {
            if bool::from(known.sha256.ct_eq(&digest)) {
                matching_key = Some(known);
            }
        }
        let Some(known) = matching_key else {
            return Err(Problem::unauthorized("this key is unknown; ask the operator of the gateway for one"));
        };
        if !known.scopes.contains(&scope) {
            let has: Vec<String> = known.scopes.iter().map(Scope::to_string).collect();
            let detail = format!("the key of {} has the scope {}, not {scope}", known.name, has.join(" and "));
            return Err(Problem::forbidden(detail));
        }
        if let Some(limiter) = &known.limiter
            && let Err(not_until) = limiter.check()
        {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            return Err(Problem::too_many_requests(wait));
        }
        Ok(Admission(Some(known)))
    }
}

/// The key that a request carries.
fn key_of(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.as_bytes());
    }
    let bearer = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = bearer.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

/// The name of a request's key; empty if the gateway needs no keys.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) String);

/// Passes on requests whose key has this scope.
pub(crate) async fn guard(
    State((api_keys, scope)): State<(Arc<ApiKeys>, Scope)>,
    headers: HeaderMap,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let admitted = match api_keys.admit(&headers, scope) {
        Ok(admitted) => admitted,
        Err(problem) => return problem.into_response(),
    };
    let at_once = match admitted.begin() {
        Ok(at_once) => at_once,
        Err(problem) => {
            api_keys.metrics.limits().refused(Limit::RequestsPerKey);
            return problem.into_response();
        }
    };
    request.extensions_mut().insert(Caller(admitted.name().to_owned()));
    let response = next.run(request).await;
    match at_once {
        Some(at_once) => until_sent(response, at_once),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Key;
    use axum::http::StatusCode;

    fn api_keys(settings: &Settings) -> Arc<ApiKeys> {
        ApiKeys::new(settings, &Arc::new(Metrics::new()))
    }

    fn settings(requests_per_second: Option<u32>) -> Settings {
        let key = |name: &str, secret: &str, scopes: &[Scope]| Key {
            name: name.to_owned(),
            sha256: hex::encode(Sha256::digest(secret)),
            scopes: scopes.to_vec(),
            requests_per_second,
        };
        let keys = vec![key("reader", "r", &[Scope::Read]), key("both", "b", &[Scope::Read, Scope::Write])];
        Settings { keys, ..Settings::default() }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_key_is_valid_for_its_scopes_only() {
        let api_keys = api_keys(&settings(None));
        let name = |headers: &HeaderMap, scope| api_keys.admit(headers, scope).unwrap().name().to_owned();
        assert_eq!(name(&headers("x-api-key", "r"), Scope::Read), "reader");
        assert_eq!(name(&headers("authorization", "bearer b"), Scope::Write), "both");
        let status = |headers: &HeaderMap, scope| api_keys.admit(headers, scope).unwrap_err().status();
        assert_eq!(status(&headers("x-api-key", "r"), Scope::Write), StatusCode::FORBIDDEN);
        for wrong in [headers("x-api-key", "R"), headers("authorization", "Basic b"), HeaderMap::new()] {
            assert_eq!(status(&wrong, Scope::Read), StatusCode::UNAUTHORIZED, "{wrong:?}");
        }
    }

    #[test]
    fn each_key_has_its_own_rate_limit() {
        let api_keys = api_keys(&settings(Some(2)));
        let (reader, both) = (headers("x-api-key", "r"), headers("x-api-key", "b"));
        let first: Vec<bool> = (0..3).map(|_| api_keys.admit(&reader, Scope::Read).is_ok()).collect();
        assert_eq!(first, [true, true, false]);
        assert!(api_keys.admit(&both, Scope::Read).is_ok());
        assert_eq!(api_keys.admit(&reader, Scope::Read).unwrap_err().status(), StatusCode::TOO_MANY_REQUESTS);
    }

    #[test]
    fn requests_in_progress_are_limited_per_key() {
        let settings = Settings { requests_per_key_max: 2, ..settings(None) };
        let api_keys = api_keys(&settings);
        let (reader, both) = (headers("x-api-key", "r"), headers("x-api-key", "b"));
        let begin = |headers: &HeaderMap| api_keys.admit(headers, Scope::Read).unwrap().begin();
        let first = begin(&reader).unwrap();
        let _second = begin(&reader).unwrap();
        assert_eq!(begin(&reader).unwrap_err().status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(begin(&both).is_ok());
        assert_eq!(api_keys.at_once(), 2);
        drop(first);
        assert!(begin(&reader).is_ok());
    }
}
