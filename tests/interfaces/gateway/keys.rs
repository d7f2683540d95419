//! Tests of access to the gateway: keys, origins, host names and TLS.

use pipeline_tests::{
    gateway::{Api, Serving, ride},
    processes::{Input, json_output, output, wildrydes, worker},
    secrets::forms,
    tls::Certificates,
    wait,
};
use reqwest::{Method, header};
use serde_json::json;
use std::process::Command;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Makes a key with the command. Returns the key, and its lines for the configuration.
pub(super) fn key(name: &str, more: &[&str]) -> (String, String) {
    let made = json_output(wildrydes().args(["key", name]).args(more));
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

/// A key gives access to its scopes, at its rate, by either header. Without a key, or with a wrong or another scope's key,
/// access is refused. Page, health and document need no key. No answer and no log contains a key.
#[tokio::test]
async fn a_key_gives_its_scopes_at_its_rate_and_is_never_printed() {
    let input = Input::of(500);
    let (reader, lines) = key("reader", &["--scope", "read"]);
    let (writer, more) = key("writer", &["--scope", "read", "--scope", "write"]);
    let (slow, most) = key("slow", &["--requests-per-second", "2"]);
    let config = input.folder().join("wildrydes.toml");
    std::fs::write(&config, [lines, more, most].concat()).unwrap();
    let serving = Serving::without_rides(&input, &["-vv", "--config", config.to_str().unwrap()]).await;
    let api = &serving.api;
    let mut outputs = Vec::new();
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
        outputs.push(answer.text());
    }
    for (name, value) in [("x-api-key", reader.clone()), ("authorization", format!("BEARER {reader}"))] {
        let answer = api.send(api.request(Method::GET, "/v1/batches").header(name, value)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        outputs.push(answer.text());
    }
    let forbidden = api.send(api.request(Method::POST, "/v1/batches").header("x-api-key", &reader).body("[]")).await;
    forbidden.problem(403, "scope-missing");
    outputs.push(forbidden.text());
    let rides = std::fs::read(&input.rides).unwrap();
    let taken = api.send(api.request(Method::POST, "/v1/batches").bearer_auth(&writer).body(rides)).await;
    assert_eq!(taken.status, 202, "{}", taken.text());
    outputs.push(taken.text());
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
    outputs.push(limited.text());
    for path in ["/", "/docs", "/page/page.js", "/openapi.json", "/healthz", "/metrics", "/v2/health/live"] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        outputs.push(answer.text());
    }
    let remote = |key: Option<&str>| {
        let mut command = wildrydes();
        command.args(["status", "--url", &api.url, "--json"]).envs(key.map(|key| ("WILDRYDES_API_KEY", key)));
        output(&mut command)
    };
    assert!(remote(Some(&reader)).status.success() && !remote(None).status.success());
    outputs.push(serving.log());
    for secret in [&reader, &writer, &slow, &wrong] {
        for form in forms(secret) {
            assert!(
                outputs.iter().all(|text| !text.contains(&form)),
                "an answer or the log contains the key, as {form}"
            );
        }
    }
    serving.finish().await;
}

/// Without keys the gateway starts only by choice: bound to this machine by `--serve`, or with `auth = "off"`; then it warns.
#[tokio::test]
async fn keys_are_off_by_explicit_choice_only() {
    let input = Input::of(10);
    let refused = |command: &mut Command| {
        let ended = output(command);
        let stderr_text = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{stderr_text}");
        assert!(stderr_text.contains("gateway.keys") && stderr_text.contains("wildrydes key"), "{stderr_text}");
    };
    refused(worker("gateway").current_dir(input.folder()));
    refused(wildrydes().current_dir(input.folder()).args(["run", "--serve=0.0.0.0:0"]));
    let serving = Serving::without_rides(&input, &[]).await;
    serving.api.get("/v1/batches").await.good();
    let log = serving.log();
    assert!(log.contains("API keys are off"), "{log}");
    serving.finish().await;
}

/// Without keys, bound to this machine, the gateway refuses pages of other sites, under any host name, and their requests.
#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let input = Input::of(10);
    let serving = Serving::without_rides(&input, &[]).await;
    let api = &serving.api;
    for path in ["/v1/batches", "/", "/readyz", "/openapi.json"] {
        let named = api.request(Method::GET, path).header(header::HOST, "wildrydes.example.org");
        let problem_json = api.send(named).await.problem(421, "unknown-host");
        assert!(problem_json["detail"].as_str().unwrap().contains("gateway.hosts"), "{problem_json}");
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

/// Bound to every address and without keys, the gateway gives a page that resolved its own name to it (DNS rebinding) nothing
/// and accepts no upload, over HTTP/1.1 and HTTP/2. It answers under the hosts of the settings.
#[tokio::test]
async fn a_rebound_host_name_is_refused_wherever_the_gateway_listens() {
    let input = Input::of(10);
    let open = ["-v", "--set", "gateway.auth=off"];
    let serving = Serving::on("0.0.0.0:0", 1_024, &input, &open).await;
    let port = serving.api.url.rsplit(':').next().unwrap().to_owned();
    let api = Api::at(&format!("http://127.0.0.1:{port}"));
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/healthz"),
        (Method::GET, "/v1/batches"),
        (Method::POST, "/v1/batches"),
        (Method::POST, "/v1/score"),
        (Method::GET, "/nowhere"),
    ] {
        for host in ["evil.example", &format!("evil.example:{port}"), "localhost.evil.example", "192.0.2.1"] {
            let rebound = api.request(method.clone(), path).header(header::HOST, host).body("[]");
            let problem_json = api.send(rebound).await.problem(421, "unknown-host");
            assert!(problem_json["detail"].as_str().unwrap().contains("gateway.hosts"), "{problem_json}");
        }
    }
    for own in [format!("localhost:{port}"), "LOCALHOST.".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()] {
        api.send(api.request(Method::GET, "/v1/batches").header(header::HOST, own)).await.good();
    }
    for (heads, status) in [
        ("GET /healthz HTTP/1.0\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        ("GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 421),
    ] {
        let mut socket = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
        socket.write_all(heads.as_bytes()).await.unwrap();
        let mut answer = String::new();
        wait::soon("an answer", socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.split(' ').nth(1) == Some(&status.to_string()), "{heads}{answer}");
    }
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for (host, status) in [("evil.example", "421"), ("localhost", "200")] {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--noproxy", "*", version, "--write-out", "%{http_code}"]);
            curl.args(["--output", "/dev/null", "--resolve", &format!("{host}:{port}:127.0.0.1")]);
            let ended = output(curl.arg(format!("http://{host}:{port}/v1/batches")));
            assert_eq!(String::from_utf8_lossy(&ended.stdout), status, "{version} {host}: {ended:?}");
        }
    }
    api.get("/v1/batches").await.good();
    serving.finish().await;

    let hosts = "gateway.hosts=rides.example.org,127.0.0.1";
    let serving = Serving::without_rides(&input, &["--set", hosts]).await;
    let api = &serving.api;
    for (host, status) in
        [("Rides.Example.Org.:8443", 200), ("127.0.0.1", 200), ("localhost", 421), ("evil.example", 421)]
    {
        let answer = api.send(api.request(Method::GET, "/healthz").header(header::HOST, host)).await;
        assert_eq!(answer.status, status, "{host}: {}", answer.text());
    }
    serving.finish().await;
}

/// Every answer forbids guessing its type. No cache may store an answer of the API. The page keeps its caching.
#[tokio::test]
async fn answers_say_who_may_store_them() {
    // The process checks the weather source once it has started.
    let input = Input::of(10);
    let serving = Serving::without_rides(&input, &["--set", "gateway.ops_bind=127.0.0.1:0", "-v"]).await;
    let ops = serving.ops();
    for (api, path, caching) in [
        (&serving.api, "/", "no-cache"),
        (&serving.api, "/docs", "no-cache"),
        (&serving.api, "/page/page.js", "no-cache"),
        (&serving.api, "/page/none.js", "no-store"),
        (&serving.api, "/openapi.json", "no-store"),
        (&serving.api, "/v1/batches", "no-store"),
        (&serving.api, "/v1/batches/none", "no-store"),
        (&serving.api, "/v2/nowhere", "no-store"),
        (&serving.api, "/metrics", "no-store"),
        (&ops, "/metrics", "no-store"),
        (&ops, "/nowhere", "no-store"),
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.header("cache-control"), caching, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("strict-transport-security"), "", "{path}: this is not TLS");
    }
    let events = serving.api.request(Method::GET, "/v1/fleet/events").send().await.unwrap();
    assert_eq!(events.headers()["cache-control"], "no-store");
    drop(events);
    serving.finish().await;
}

/// With a certificate the gateway accepts TLS only, with HTTP/1.1 and HTTP/2.
#[tokio::test]
async fn with_a_certificate_the_gateway_accepts_tls_only() {
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
    let alive = known.get("/healthz").await;
    assert_eq!(alive.header("strict-transport-security"), "max-age=31536000");
    assert_eq!(alive.good(), json!({ "status": "ok" }));
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
        let stdout_text = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success() && stdout_text.starts_with("{\"status\":\"ok\"}"), "{version}: {ended:?}");
    }
    serving.finish().await;
}
