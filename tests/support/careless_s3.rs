//! An S3 service that accepts a condition and ignores it, as some do: every writer of an object is told that it created it.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Starts the service on a thread of its own, for the rest of this process. Returns the variables with which a process reaches
/// it; every bucket exists.
///
/// # Panics
/// If there is no free port.
pub fn start() -> Vec<(String, String)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    listener.set_nonblocking(true).expect("a socket option");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let service = Router::new().fallback(answer).with_state(Objects::default());
            axum::serve(listener, service).await.expect("it serves");
        });
    });
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

async fn answer(State(objects): State<Objects>, method: Method, uri: Uri, body: Bytes) -> Response {
    let mut objects = objects.lock().expect("nobody panics");
    let query = uri.query().unwrap_or_default();
    if method == Method::PUT {
        objects.insert(uri.path().to_owned(), body);
        return ([(header::ETAG, "\"1\"")], "").into_response();
    }
    if method == Method::POST {
        return "<DeleteResult></DeleteResult>".into_response();
    }
    if query.contains("list-type") {
        return "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>".into_response();
    }
    let headers = [(header::ETAG, "\"1\""), (header::LAST_MODIFIED, "Tue, 01 Dec 2026 00:00:00 GMT")];
    match objects.get(uri.path()) {
        Some(object) => (headers, object.clone()).into_response(),
        None => (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response(),
    }
}
