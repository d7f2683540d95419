//! API keys: which are known, what they open, how often they may ask.

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

/// Decides who may come in.
pub(crate) struct Doorkeeper {
    off: bool,
    keys: Vec<Known>,
    metrics: Arc<Metrics>,
}

/// A request that is let in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admitted<'a>(Option<&'a Known>);

impl<'a> Admitted<'a> {
    /// Whose key it is; empty where no key is asked for.
    pub(crate) fn name(self) -> &'a str {
        self.0.map_or("", |known| known.name.as_str())
    }

    /// Its place among the requests of its key that are under way.
    ///
    /// # Errors
    /// 429 if there are too many.
    pub(crate) fn begin(self) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        let Some(known) = self.0 else { return Ok(None) };
        let at_once = Arc::clone(&known.at_once).try_acquire_owned();
        at_once.map(Some).map_err(|_| Problem::too_many_at_once(known.at_once_max))
    }
}

#[derive(Debug)]
struct Known {
    name: String,
    sha256: [u8; 32],
    scopes: Vec<Scope>,
    limiter: Option<DefaultDirectRateLimiter>,
    /// One permit each request under way.
    at_once: Arc<Semaphore>,
    at_once_max: usize,
}

impl Doorkeeper {
    /// Knows the keys of checked settings.
    pub(crate) fn new(settings: &Settings, metrics: &Arc<Metrics>) -> Arc<Self> {
        let known = settings.keys.iter().map(|key| {
            let mut sha256 = [0; 32];
            // Checked: 64 hex digits.
            let _ = hex::decode_to_slice(&key.sha256, &mut sha256);
            let per_second = key.requests_per_second.and_then(NonZeroU32::new);
            let limiter = per_second.map(|rate| RateLimiter::direct(Quota::per_second(rate)));
            let at_once_max = settings.requests_per_key_max;
            let at_once = Arc::new(Semaphore::new(at_once_max));
            Known { name: key.name.clone(), sha256, scopes: key.scopes.clone(), limiter, at_once, at_once_max }
        });
        Arc::new(Self { off: settings.auth == Auth::Off, keys: known.collect(), metrics: Arc::clone(metrics) })
    }

    /// Requests under way with the key that has the most.
    pub(crate) fn at_once(&self) -> usize {
        let each = self.keys.iter().map(|known| known.at_once_max.saturating_sub(known.at_once.available_permits()));
        each.max().unwrap_or_default()
    }

    /// Lets a request with these headers in for `scope`.
    ///
    /// # Errors
    /// 401, 403, 429.
    pub(crate) fn admit(&self, headers: &HeaderMap, scope: Scope) -> Result<Admitted<'_>, Problem> {
        if self.off {
            return Ok(Admitted(None));
        }
        let Some(presented) = presented(headers) else {
            let detail = "send it as `Authorization: Bearer <key>` or `X-Api-Key: <key>`";
            return Err(Problem::unauthorized(detail));
        };
        let digest: [u8; 32] = Sha256::digest(presented).into();
        // Every known key is compared, each in constant time: how long it takes tells nothing about any of them.
        let mut found = None;
        for known in &self.keys {
            if bool::from(known.sha256.ct_eq(&digest)) {
                found = Some(known);
            }
        }
        let Some(known) = found else {
            return Err(Problem::unauthorized("this key is not known; ask whoever runs the gateway for one"));
        };
        if !known.scopes.contains(&scope) {
            let has: Vec<&str> = known.scopes.iter().map(|scope| scope.name()).collect();
            let detail = format!("the key of {} opens {}, not {}", known.name, has.join(" and "), scope.name());
            return Err(Problem::forbidden(detail));
        }
        if let Some(limiter) = &known.limiter
            && let Err(not_until) = limiter.check()
        {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            return Err(Problem::too_many_requests(wait));
        }
        Ok(Admitted(Some(known)))
    }
}

/// The key a request presents.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.as_bytes());
    }
    let bearer = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = bearer.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

/// Whose key a request bears; empty where none is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) String);

/// Lets in who has a key for this scope.
pub(crate) async fn guard(
    State((doorkeeper, scope)): State<(Arc<Doorkeeper>, Scope)>,
    headers: HeaderMap,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let admitted = match doorkeeper.admit(&headers, scope) {
        Ok(admitted) => admitted,
        Err(problem) => return problem.into_response(),
    };
    let at_once = match admitted.begin() {
        Ok(at_once) => at_once,
        Err(problem) => {
            doorkeeper.metrics.limits().refused(Limit::RequestsPerKey);
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

    fn doorkeeper(settings: &Settings) -> Arc<Doorkeeper> {
        Doorkeeper::new(settings, &Arc::new(Metrics::new()))
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
    fn a_key_opens_its_scopes_and_nothing_else() {
        let door = doorkeeper(&settings(None));
        let name = |headers: &HeaderMap, scope| door.admit(headers, scope).unwrap().name().to_owned();
        assert_eq!(name(&headers("x-api-key", "r"), Scope::Read), "reader");
        assert_eq!(name(&headers("authorization", "bearer b"), Scope::Write), "both");
        let status = |headers: &HeaderMap, scope| door.admit(headers, scope).unwrap_err().status();
        assert_eq!(status(&headers("x-api-key", "r"), Scope::Write), StatusCode::FORBIDDEN);
        for wrong in [headers("x-api-key", "R"), headers("authorization", "Basic b"), HeaderMap::new()] {
            assert_eq!(status(&wrong, Scope::Read), StatusCode::UNAUTHORIZED, "{wrong:?}");
        }
    }

    #[test]
    fn each_key_has_a_rate_of_its_own() {
        let door = doorkeeper(&settings(Some(2)));
        let (reader, both) = (headers("x-api-key", "r"), headers("x-api-key", "b"));
        let first: Vec<bool> = (0..3).map(|_| door.admit(&reader, Scope::Read).is_ok()).collect();
        assert_eq!(first, [true, true, false]);
        assert!(door.admit(&both, Scope::Read).is_ok());
        assert_eq!(door.admit(&reader, Scope::Read).unwrap_err().status(), StatusCode::TOO_MANY_REQUESTS);
    }

    #[test]
    fn each_key_has_so_many_requests_at_once() {
        let settings = Settings { requests_per_key_max: 2, ..settings(None) };
        let door = doorkeeper(&settings);
        let (reader, both) = (headers("x-api-key", "r"), headers("x-api-key", "b"));
        let begin = |headers: &HeaderMap| door.admit(headers, Scope::Read).unwrap().begin();
        let first = begin(&reader).unwrap();
        let _second = begin(&reader).unwrap();
        assert_eq!(begin(&reader).unwrap_err().status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(begin(&both).is_ok());
        assert_eq!(door.at_once(), 2);
        drop(first);
        assert!(begin(&reader).is_ok());
    }
}
