//! An HTTP proxy before an S3 service that counts requests, by the kind that the service bills.

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use std::{
    collections::BTreeMap,
    ops::Sub,
    sync::{Arc, Mutex},
};

/// Numbers of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// PUT, COPY, POST and LIST.
    pub writes: u64,
    /// GET and HEAD.
    pub reads: u64,
    /// DELETE, which no service bills. A request that deletes several objects counts once.
    pub deletes: u64,
}

impl Sub for Requests {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            writes: self.writes - before.writes,
            reads: self.reads - before.reads,
            deletes: self.deletes - before.deletes,
        }
    }
}

impl Requests {
    fn count(&mut self, method: &Method, query: &str) {
        let is_list = ["list-type", "uploads", "lifecycle"].iter().any(|name| query.contains(name));
        match *method {
            Method::DELETE => self.deletes += 1,
            Method::POST if query.split('&').any(|part| part.trim_end_matches('=') == "delete") => self.deletes += 1,
            Method::GET | Method::HEAD if !is_list => self.reads += 1,
            _ => self.writes += 1,
        }
    }
}

/// A running proxy.
#[derive(Debug, Clone)]
pub struct Counter {
    /// Its address, `http://…`.
    pub endpoint: String,
    counted: Arc<Mutex<Requests>>,
}

impl Counter {
    /// Starts a proxy before the service at `endpoint` on a thread of its own, for the rest of this process.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn start(endpoint: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        listener.set_nonblocking(true).expect("a socket option");
        let counted = Arc::new(Mutex::new(Requests::default()));
        let client = reqwest::Client::builder().no_proxy().no_gzip().build().expect("a client");
        let proxy = Proxy { counted: Arc::clone(&counted), service: endpoint.trim_end_matches('/').to_owned(), client };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                axum::serve(listener, Router::new().fallback(pass_on).with_state(proxy)).await.expect("it serves");
            });
        });
        Self { endpoint: address, counted }
    }

    /// The requests so far.
    ///
    /// # Panics
    /// If the proxy panicked.
    pub fn requests(&self) -> Requests {
        *self.counted.lock().expect("nobody panics")
    }
}

#[derive(Debug, Clone)]
struct Proxy {
    counted: Arc<Mutex<Requests>>,
    service: String,
    client: reqwest::Client,
}

async fn pass_on(
    State(proxy): State<Proxy>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Response {
    proxy.counted.lock().expect("nobody panics").count(&method, uri.query().unwrap_or_default());
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { return StatusCode::BAD_REQUEST.into_response() };
    // The headers are signed, that of the host included.
    let request = proxy.client.request(method, format!("{}{uri}", proxy.service)).headers(headers).body(body);
    match request.send().await {
        Ok(answer) => {
            let mut response = Response::builder().status(answer.status());
            for (name, value) in answer.headers() {
                response = response.header(name, value);
            }
            response.body(Body::from_stream(answer.bytes_stream())).expect("a response is a response")
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// Requests by process.
pub type ByProcess = BTreeMap<String, Requests>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_count_as_they_are_billed() {
        let mut counted = Requests::default();
        for (method, query) in [
            (Method::PUT, ""),
            (Method::PUT, "partNumber=1&uploadId=x"),
            (Method::POST, "uploads="),
            (Method::GET, "list-type=2&prefix=p"),
            (Method::GET, ""),
            (Method::HEAD, ""),
            (Method::DELETE, ""),
            (Method::POST, "delete"),
        ] {
            counted.count(&method, query);
        }
        assert_eq!(counted, Requests { writes: 4, reads: 2, deletes: 2 });
    }
}
