//! Tests of model reports over HTTP.

use pipeline_tests::{gateway::Serving, processes::Input, wait};

/// The report of the champion is the page in the store, with a policy that lets it load and run nothing. An unknown model has
/// none.
#[tokio::test]
async fn a_report_is_served_without_permission_to_load_or_run_anything() {
    let input = Input::of(2_500);
    let serving = Serving::start(&input, &[]).await;
    let family = serving.api.get("/v1/models/service-request").await.good();
    let id = family["champion"]["model_id"].as_str().expect("a champion");
    // The page includes the verdict once there is one.
    let version = serving.store().join("models/service-request").join(id);
    wait::until("the verdict on the champion", async || version.join("verdict.json").exists()).await;
    let answer = serving.api.get(&format!("/v1/models/service-request/versions/{id}/report")).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'unsafe-inline'; img-src data:;"), "{policy}");
    assert!(!policy.contains("script") && policy.ends_with("sandbox"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.body == std::fs::read(version.join("report.html")).unwrap(), "it is not the one in the store");
    assert!(answer.text().contains("In plain words") && answer.text().contains(id));
    for path in ["/v1/models/service-request/versions/0/report", "/v1/models/a.b/versions/champion/report"] {
        serving.api.get(path).await.problem(404, "not-found");
    }
    serving.finish().await;
}
