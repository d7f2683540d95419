//! Values that cannot work are refused with a sentence that names them.

use super::{chart, helms};
use std::fs;

/// What is wrong, values on top of a minimal set that works, and the words that every helm says.
const REFUSED: [(&str, &str, &[&str]); 30] = [
    ("a misspelt section", "brokr: {host: a}", &["brokr"]),
    ("a misspelt key", "broker: {hots: a}", &["hots"]),
    ("a misspelt worker", "workers: {spliter: {replicas: 2}}", &["spliter"]),
    ("no broker", "broker: {host: ''}", &["broker.host is empty"]),
    ("a broker with a scheme", "broker: {host: 'amqp://rabbitmq'}", &["host"]),
    ("a port as text", "broker: {port: '5672'}", &["port", "integer"]),
    ("a reserved namespace", "broker: {namespace: amq.}", &["broker.namespace", "amq."]),
    ("certificates without TLS", "broker: {tls: {caSecret: ca}}", &["broker.tls.enabled=true"]),
    ("no store", "store: {url: ''}", &["store.url", "s3://BUCKET/PREFIX"]),
    ("a store of another kind", "store: {url: 'ftp://a/b'}", &["store.url", "ftp://a/b", "s3://BUCKET/PREFIX"]),
    ("a folder that pods do not share", "store: {url: 'file:///data'}", &["store.existingClaim"]),
    ("a claim beside a bucket", "store: {existingClaim: rides}", &["store.existingClaim", "file:///"]),
    ("an endpoint in the clear", "store: {endpoint: 'http://ceph:80'}", &["store.allowHttp=true"]),
    ("two scalers", "keda: {enabled: true}\nhpa: {enabled: true}", &["keda.enabled and hpa.enabled"]),
    ("replicas as text", "workers: {merger: {replicas: two}}", &["replicas", "integer"]),
    ("negative replicas", "workers: {merger: {replicas: -1}}", &["replicas"]),
    (
        "more at least than at most",
        "workers: {merger: {scaling: {min: 5, max: 2}}}",
        &["merger", "scaling.min 5", "scaling.max 2"],
    ),
    (
        "no scorer at times",
        "keda: {enabled: true}\nworkers: {scorer: {scaling: {min: 0}}}",
        &["scorer", "scaling.min is 0"],
    ),
    ("a queue without a number", "workers: {merger: {scaling: {triggers: [{queue: merger}]}}}", &["messages"]),
    (
        "a misspelt key of a trigger",
        "workers: {merger: {scaling: {triggers: [{queue: a, messages: 1, mod: b}]}}}",
        &["mod"],
    ),
    (
        "nothing to start it",
        "keda: {enabled: true}\nworkers: {merger: {scaling: {triggers: []}}}",
        &["merger", "nothing would ever start it"],
    ),
    (
        "a short cooldown",
        "keda: {enabled: true}\nworkers: {trainer: {scaling: {cooldownPeriod: 60}}}",
        &["trainer", "120 s"],
    ),
    (
        "a request above the limit",
        "workers: {merger: {resources: {requests: {memory: 2Gi}}}}",
        &["merger", "requests.memory 2Gi", "limits.memory 512Mi"],
    ),
    ("an invalid quantity", "workers: {merger: {resources: {limits: {memory: lots}}}}", &["memory"]),
    ("a drain deadline of hours", "workers: {trainer: {drainDeadlineMs: 99999999}}", &["drainDeadlineMs"]),
    (
        "a setting that the chart sets",
        "workers: {merger: {settings: {broker: {url: 'amqp://a'}}}}",
        &["merger", "settings.broker"],
    ),
    ("a gateway without keys", "gateway: {auth: keys}", &["gateway.keys is empty"]),
    ("a key instead of its hash", "gateway: {keys: [{name: a, sha256: secret, scopes: [read]}]}", &["sha256"]),
    ("an Ingress without a host", "gateway: {ingress: {enabled: true}}", &["gateway.ingress.hosts is empty"]),
    ("users without an administrator", "hooks: {users: {enabled: true}}", &["hooks.users.adminSecret is empty"]),
];

#[test]
fn values_that_cannot_work_are_refused_with_a_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wrong = Vec::new();
    let minimal = chart().join("ci/minimal-values.yaml");
    for (what, values, words) in REFUSED {
        let file = folder.path().join("values.yaml");
        fs::write(&file, values).expect("a file");
        for helm in helms() {
            match helm.template(&[&minimal, &file]) {
                Ok(_) => wrong.push(format!("{what}: {} accepts it", helm.version)),
                Err(said) if words.iter().all(|word| said.contains(word)) => {}
                Err(said) => wrong.push(format!("{what}: {} says\n{said}", helm.version)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
