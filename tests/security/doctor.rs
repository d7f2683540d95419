//! What `wildrydes doctor` says of the users.

use super::users::Users;
use pipeline_tests::{
    processes::{Input, output, succeed},
    rabbitmq::settings,
};
use runtime::{AmqpBroker, config::BrokerSettings};
use serde_json::Value;
use std::process::Command;

/// What doctor finds, whether or not something is broken.
fn findings(mut doctor: Command) -> Value {
    let ended = output(doctor.args(["doctor", "--json"]));
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn found<'a>(told: &'a Value, check: &str) -> (&'a str, &'a str, &'a str) {
    let findings = told["findings"].as_array().expect("findings");
    let finding =
        findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check}: {told}"));
    let text = |name: &str| finding[name].as_str().unwrap_or_default();
    (text("verdict"), text("found"), text("remedy"))
}

/// The documented operator, whose tag is `monitoring`, is told which tag shows the others' permissions, and has its own
/// checked; an administrator has every user checked: too little is broken, too much a warning, and the remedy mends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_holds_every_user_to_what_it_needs() {
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
    let (verdict, said, _) = found(&well, "permissions");
    assert!(verdict == "not_checked" && said.contains("lacks the tag administrator"), "{well}");
    assert_eq!(found(&well, "own permissions").0, "ok", "{well}");
    for check in ["alarms", "queue arguments", "policies", "bindings", "dead-letter routes", "unacknowledged"] {
        assert_eq!(found(&well, check).0, "ok", "{check}: {well}");
    }
    assert_eq!(found(&doctor("merger", false), "own permissions").0, "not_checked");
    let well = doctor("operator", true);
    assert_eq!(found(&well, "permissions").0, "ok", "{well}");

    let (merger, operator) = (users.name("merger"), users.name("operator"));
    users.permit(&merger, ["^$", ".*", "^nothing$"]);
    let wrong = doctor("operator", true);
    let (verdict, said, remedy) = found(&wrong, "permissions");
    assert_eq!(verdict, "broken", "{wrong}");
    assert!(said.contains(&format!("{merger} may not read")) && said.contains("which it does not need"), "{wrong}");
    assert!(remedy.contains("`wildrydes topology users --definitions`") && !remedy.contains(".*"), "{wrong}");
    users.permit(&merger, [".*"; 3]);
    let much = doctor("operator", true);
    let (verdict, said, _) = found(&much, "permissions");
    assert!(verdict == "warning" && said.contains(&format!("{merger} may configure")), "{much}");

    let exchanges = format!("^{}(ingest|work)$", users.namespace.replace('.', "\\."));
    users.permit(&operator, [&exchanges, &exchanges, ".*"]);
    let little = doctor("operator", false);
    let (verdict, said, remedy) = found(&little, "own permissions");
    assert_eq!(verdict, "broken", "{little}");
    assert!(said.contains(&format!("configure exchange {}events", users.namespace)), "{little}");
    assert!(
        !said.contains(&format!("exchange {}work:", users.namespace)) && remedy.contains("topology users"),
        "{little}"
    );

    users.import();
    assert_eq!(found(&doctor("operator", true), "permissions").0, "ok", "the remedy mends it");
    assert_eq!(found(&doctor("operator", false), "own permissions").0, "ok");
}

/// Whoever may not say that a worker is to pause leaves no word of it behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_is_not_allowed_leaves_nothing_behind() {
    let checked = tokio::task::block_in_place(|| {
        let users = Users::make(|_, _| {})?;
        succeed(users.wildrydes("operator").args(["topology", "apply"]));
        let refused = output(users.wildrydes("publisher").args(["pause", "trainer"]));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("nothing was changed"), "{said}");
        assert!(!users.store().join("control/trainer.json").exists(), "a word was left behind");
        Some(users)
    });
    let Some(users) = checked else { return };
    let all = BrokerSettings { namespace: users.namespace.clone(), ..settings() };
    AmqpBroker::new(all).remove_topology().await.expect("the queues can be removed");
}
