//! Tests of what `wildrydes doctor` reports about users.

use super::users::Users;
use pipeline_tests::{
    processes::{Input, output, succeed},
    rabbitmq::settings,
};
use runtime::{AmqpBroker, config::BrokerSettings};
use serde_json::Value;
use std::process::Command;

/// Runs `doctor` and returns its findings, whatever its exit code.
fn findings(mut doctor: Command) -> Value {
    let ended = output(doctor.args(["doctor", "--json"]));
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn finding_of<'a>(report: &'a Value, check: &str) -> (&'a str, &'a str, &'a str) {
    let findings = report["findings"].as_array().expect("findings");
    let finding =
        findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check}: {report}"));
    let text = |name: &str| finding[name].as_str().unwrap_or_default();
    (text("verdict"), text("found"), text("remedy"))
}

/// For the documented operator, whose tag is `monitoring`, doctor names the tag that shows other users' permissions, and checks
/// the operator's own. For an administrator it checks every user: missing permissions are broken, superfluous ones a warning,
/// and the remedy repairs them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_checks_the_permissions_of_every_user() {
    let checked = tokio::task::block_in_place(|| {
        let users = Users::make(|_, _| {})?;
        check(&users);
        Some(users)
    });
    let Some(users) = checked else { return };
    let all = BrokerSettings { namespace: users.namespace.clone(), ..settings() };
    AmqpBroker::new(all).remove_topology().await.expect("the queues can be removed");
}

fn check(users: &Users) {
    let input = Input::of(10);
    succeed(users.wildrydes("operator").args(["topology", "apply"]));
    let doctor = |role: &str, administrator: bool| {
        let mut doctor = users.wildrydes(role);
        doctor.env("WILDRYDES__BROKER__MANAGEMENT_URL", users.management_url(administrator));
        doctor.env("WILDRYDES__WEATHER__SOURCE", &input.weather);
        findings(doctor)
    };

    let well = doctor("operator", false);
    let (verdict, text, _) = finding_of(&well, "permissions");
    assert!(verdict == "not_checked" && text.contains("lacks the tag administrator"), "{well}");
    assert_eq!(finding_of(&well, "own permissions").0, "ok", "{well}");
    for check in ["alarms", "queue arguments", "policies", "bindings", "dead-letter routes", "unacknowledged"] {
        assert_eq!(finding_of(&well, check).0, "ok", "{check}: {well}");
    }
    assert_eq!(finding_of(&doctor("merger", false), "own permissions").0, "not_checked");
    let well = doctor("operator", true);
    assert_eq!(finding_of(&well, "permissions").0, "ok", "{well}");

    let (merger, operator) = (users.name("merger"), users.name("operator"));
    users.permit(&merger, ["^$", ".*", "^nothing$"]);
    let wrong = doctor("operator", true);
    let (verdict, text, remedy) = finding_of(&wrong, "permissions");
    assert_eq!(verdict, "broken", "{wrong}");
    assert!(text.contains(&format!("{merger} may not read")) && text.contains("which it does not need"), "{wrong}");
    assert!(remedy.contains("`wildrydes topology users --definitions`") && !remedy.contains(".*"), "{wrong}");
    users.permit(&merger, [".*"; 3]);
    let much = doctor("operator", true);
    let (verdict, text, _) = finding_of(&much, "permissions");
    assert!(verdict == "warning" && text.contains(&format!("{merger} may configure")), "{much}");

    let exchanges = format!("^{}(ingest|work)$", users.namespace.replace('.', "\\."));
    users.permit(&operator, [&exchanges, &exchanges, ".*"]);
    let little = doctor("operator", false);
    let (verdict, text, remedy) = finding_of(&little, "own permissions");
    assert_eq!(verdict, "broken", "{little}");
    assert!(text.contains(&format!("configure exchange {}events", users.namespace)), "{little}");
    assert!(
        !text.contains(&format!("exchange {}work:", users.namespace)) && remedy.contains("topology users"),
        "{little}"
    );

    users.import();
    assert_eq!(finding_of(&doctor("operator", true), "permissions").0, "ok", "the remedy mends it");
    assert_eq!(finding_of(&doctor("operator", false), "own permissions").0, "ok");
}

/// A refused pause leaves no record behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_pause_leaves_nothing_behind() {
    let checked = tokio::task::block_in_place(|| {
        let users = Users::make(|_, _| {})?;
        succeed(users.wildrydes("operator").args(["topology", "apply"]));
        let refused = output(users.wildrydes("publisher").args(["pause", "trainer"]));
        let stderr_text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{stderr_text}");
        assert!(stderr_text.contains("nothing was changed"), "{stderr_text}");
        assert!(!users.store().join("control/trainer.json").exists(), "a word was left behind");
        Some(users)
    });
    let Some(users) = checked else { return };
    let all = BrokerSettings { namespace: users.namespace.clone(), ..settings() };
    AmqpBroker::new(all).remove_topology().await.expect("the queues can be removed");
}
