//! Who may ask what, from where, and over which wire.

use pipeline_tests::{
    gateway::{Api, Serving, ride},
    processes::{Input, output, told, wildrydes, worker},
    secrets::forms,
    tls::Certificates,
};
use reqwest::{Method, header};
use serde_json::json;
use std::process::Command;

/// Makes a key as the command does; the key, and its lines for the configuration.
fn key(name: &str, more: &[&str]) -> (String, String) {
    let made = told(wildrydes().args(["key", name]).args(more));
    let rate = made["requests_per_second"].as_u64().map(|rate| format!("requests_per_second = {rate}\n"));
    let lines = format!(
        "[[gateway.keys]]\nname = {}\nsha256 = {}\nscopes = {}\n{}",
        made["name"],
        made["sha256"],
        made["scopes"],
        rate.unwrap_or_default()
    );
    (made["key"].as_str().expect("a key").to_owned(), lines)
}

/// A key opens its scopes, at its rate, by either header; none, a wrong one and another's open nothing. Page, health and
/// document need none. No key is in any answer or any line of the log.
#[tokio::test]
async fn a_key_opens_its_scopes_at_its_rate_and_is_never_told() {
    let input = Input::of(500);
    let (reader, lines) = key("reader", &["--scope", "read"]);
    let (writer, more) = key("writer", &["--scope", "read", "--scope", "write"]);
    let (slow, most) = key("slow", &["--requests-per-second", "2"]);
    let config = input.folder().join("wildrydes.toml");
    std::fs::write(&config, [lines, more, most].concat()).unwrap();
    let serving = Serving::without_rides(&input, &["-vv", "--config", config.to_str().unwrap()]).await;
    let api = &serving.api;
    let mut told = Vec::new();
    let other = if reader.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{other}", &reader[..reader.len() - 1]);

    for request in [
        api.request(Method::GET, "/v1/batches"),
        api.request(Method::GET, "/v1/batches").header("x-api-key", &wrong),
        api.request(Method::GET, "/v1/batches").bearer_auth(&wrong),
        api.request(Method::GET, "/v1/batches").basic_auth("reader", Some(&reader)),
        api.request(Method::POST, "/v1/score").json(&ride()),
        api.request(Method::POST, "/").body("{}"),
        api.request(Method::POST, "/v2/models/service-request/infer").json(&json!({})),
        api.request(Method::POST, "/v1/batches").body("[]"),
        api.request(Method::GET, "/v1/fleet/events"),
    ] {
        let answer = api.send(request).await;
        answer.problem(401, "key-needed");
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{answer:?}");
        told.push(answer.text());
    }
    for (name, value) in [("x-api-key", reader.clone()), ("authorization", format!("BEARER {reader}"))] {
        let answer = api.send(api.request(Method::GET, "/v1/batches").header(name, value)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        told.push(answer.text());
    }
    let forbidden = api.send(api.request(Method::POST, "/v1/batches").header("x-api-key", &reader).body("[]")).await;
    forbidden.problem(403, "scope-missing");
    told.push(forbidden.text());
    let rides = std::fs::read(&input.rides).unwrap();
    let taken = api.send(api.request(Method::POST, "/v1/batches").bearer_auth(&writer).body(rides)).await;
    assert_eq!(taken.status, 202, "{}", taken.text());
    told.push(taken.text());
    let mut limited = None;
    for _ in 0..50 {
        let answer = api.send(api.request(Method::GET, "/v1/models").header("x-api-key", &slow)).await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.expect("50 requests at once are more than 2 a second");
    limited.problem(429, "rate-limited");
    told.push(limited.text());
    for path in ["/", "/docs", "/page/page.js", "/openapi.json", "/healthz", "/metrics", "/v2/health/live"] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        told.push(answer.text());
    }
    let remote = |key: Option<&str>| {
        let mut command = wildrydes();
        command.args(["status", "--url", &api.url, "--json"]).envs(key.map(|key| ("WILDRYDES_API_KEY", key)));
        output(&mut command)
    };
    assert!(remote(Some(&reader)).status.success() && !remote(None).status.success());
    told.push(serving.log());
    for secret in [&reader, &writer, &slow, &wrong] {
        for form in forms(secret) {
            assert!(told.iter().all(|text| !text.contains(&form)), "a key is told, as {form}");
        }
    }
    serving.finish().await;
}

/// Without keys it starts only where that was chosen: on this machine alone by `--serve`, else by `auth = "off"`; then it
/// warns.
#[tokio::test]
async fn keys_are_off_by_explicit_choice_only() {
    let input = Input::of(10);
    let refused = |command: &mut Command| {
        let ended = output(command);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(said.contains("gateway.keys") && said.contains("wildrydes key"), "{said}");
    };
    refused(worker("gateway").current_dir(input.folder()));
    refused(wildrydes().current_dir(input.folder()).args(["run", "--serve=0.0.0.0:0"]));
    let serving = Serving::without_rides(&input, &[]).await;
    serving.api.get("/v1/batches").await.good();
    let log = serving.log();
    assert!(log.contains("no keys are asked for"), "{log}");
    serving.finish().await;
}

/// Without keys, on this machine alone, a page of another site can neither pass for this machine by a name of its own nor
/// send anything.
#[tokio::test]
async fn other_sites_pages_have_no_way_in() {
    let input = Input::of(10);
    let serving = Serving::without_rides(&input, &[]).await;
    let api = &serving.api;
    for path in ["/v1/batches", "/", "/readyz", "/openapi.json"] {
        let named = api.request(Method::GET, path).header(header::HOST, "wildrydes.example.org");
        api.send(named).await.problem(403, "foreign-origin");
    }
    let port = api.url.rsplit(':').next().unwrap();
    for own in ["localhost".to_owned(), format!("localhost:{port}"), "127.0.0.1".to_owned(), format!("[::1]:{port}")] {
        let named = api.request(Method::GET, "/v1/batches").header(header::HOST, own);
        api.send(named).await.good();
    }
    for path in ["/v1/batches", "/v1/score", "/"] {
        for (name, value) in [("origin", "https://example.org"), ("sec-fetch-site", "cross-site")] {
            let request = api.request(Method::POST, path).header(name, value).body("{}");
            api.send(request).await.problem(403, "foreign-origin");
        }
        let own = api.request(Method::POST, path).header("origin", &api.url).header("sec-fetch-site", "same-origin");
        assert_ne!(api.send(own.body("{}")).await.status, 403);
    }
    serving.finish().await;
}

/// With a certificate it speaks TLS, HTTP/1.1 and HTTP/2, and nothing in the clear.
#[tokio::test]
async fn with_a_certificate_it_speaks_tls_alone() {
    let input = Input::of(10);
    let certificates = Certificates::new();
    let set = |name: &str, file: &str| format!("gateway.{name}={}", certificates.file(file).display());
    let (cert, key) = (set("tls_cert_file", "server"), set("tls_key_file", "server-key"));
    let serving = Serving::without_rides(&input, &["--set", &cert, "--set", &key]).await;
    let address = serving.api.url.strip_prefix("https://").expect("https");
    let (_, port) = address.rsplit_once(':').unwrap();
    let client = |authority: &str| {
        let pem = std::fs::read(certificates.file(authority)).unwrap();
        let authorities = reqwest::Certificate::from_pem_bundle(&pem).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only(authorities);
        client.resolve("localhost", address.parse().unwrap()).build().unwrap()
    };
    let url = format!("https://localhost:{port}");
    let known = Api { url: url.clone(), client: client("ca") };
    assert_eq!(known.get("/healthz").await.good(), json!({ "status": "ok" }));
    let wrong = client("other-ca").get(format!("{url}/healthz")).send().await;
    assert!(wrong.is_err_and(|error| error.is_connect()), "another authority");
    let clear = known.client.get(format!("http://{address}/healthz")).send().await;
    assert!(clear.is_err(), "in the clear");
    for version in ["--http1.1", "--http2"] {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            version,
            "--write-out",
            " %{http_version}",
            "--cacert",
        ]);
        curl.arg(certificates.file("ca")).args(["--resolve", &format!("localhost:{port}:127.0.0.1")]);
        let ended = output(curl.arg(format!("{url}/healthz")));
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success() && said.starts_with("{\"status\":\"ok\"}"), "{version}: {ended:?}");
    }
    serving.finish().await;
}
