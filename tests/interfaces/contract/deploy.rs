//! Checks that the compose file has a service for each process, and confines each container to what it needs.

use super::project;
use common::topology::process;
use saphyr::{LoadableYamlNode, Yaml};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Looks a key up in a mapping, then in the mapping that it merges in through `<<`.
fn get<'a>(service: &'a Yaml<'a>, key: &str) -> Option<&'a Yaml<'a>> {
    let mapping = service.as_mapping()?;
    let of = |name: &str| mapping.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value);
    of(key).or_else(|| get(of("<<")?, key))
}

fn texts(node: Option<&Yaml<'_>>) -> BTreeSet<String> {
    let items = node.and_then(Yaml::as_sequence).into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn compose_file() -> String {
    fs::read_to_string(project().join("deploy/compose.yaml")).expect("the compose file")
}

/// Each process is a service that runs as its own user at the broker and sees only its own password.
#[test]
fn every_process_is_a_service_with_its_own_password() {
    let text = compose_file();
    let documents = Yaml::load_from_str(&text).expect("YAML");
    let services = get(&documents[0], "services").expect("services");
    let volumes = get(&documents[0], "volumes").expect("volumes");
    let passwords = texts(get(services, "users").and_then(|users| get(users, "volumes")));
    for name in process::ALL.map(|process| process.name) {
        let service = get(services, name).unwrap_or_else(|| panic!("no service runs {name}"));
        let url = get(service, "environment").and_then(|all| get(all, "WILDRYDES__BROKER__URL")).and_then(Yaml::as_str);
        assert!(url.is_some_and(|url| url.starts_with(&format!("amqp://{name}@"))), "{name}: {url:?}");
        assert!(texts(get(service, "volumes")).contains(&format!("password-{name}:/run/wildrydes:ro")), "{name}");
        assert!(passwords.contains(&format!("password-{name}:/passwords/{name}")), "{name}");
        assert!(get(volumes, &format!("password-{name}")).is_some(), "{name}");
    }
}

/// The image has a name for each process.
#[test]
fn the_image_has_a_link_for_every_process() {
    let file = fs::read_to_string(project().join("deploy/Dockerfile")).expect("the file");
    let links = file.split("for process in ").nth(1).and_then(|rest| rest.split_once(';')).expect("a loop").0;
    let processes = process::PROCESSES.into_iter().chain([process::GATEWAY.name]);
    assert_eq!(links.split(' ').collect::<BTreeSet<_>>(), processes.collect());
}

/// The variables for the bucket on this machine are those that the services read, and name the service of the profile.
#[test]
fn the_environment_of_the_bucket_fits_its_service() {
    let text = compose_file();
    let documents = Yaml::load_from_str(&text).expect("YAML");
    let services = get(&documents[0], "services").expect("services");
    let service = get(services, "s3").expect("a service");
    assert_eq!(texts(get(service, "profiles")), ["s3".to_owned()].into());
    let file = fs::read_to_string(project().join("deploy/s3.env")).expect("the file");
    let variables: BTreeMap<_, _> =
        file.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    for name in variables.keys() {
        assert!(text.contains(&format!("${{{name}:-")), "no service reads {name}");
    }
    let bucket =
        variables["WILDRYDES_STORE"].strip_prefix("s3://").and_then(|rest| rest.split('/').next()).expect("a bucket");
    let made =
        texts(get(service, "entrypoint")).iter().any(|line| line.contains(&format!("mkdir -p /data/{bucket}\n")));
    assert!(made, "nothing makes the bucket {bucket}");
    let port = variables["AWS_ENDPOINT_URL"].strip_prefix("http://s3:").expect("the service");
    assert!(texts(get(service, "ports")).iter().all(|published| published.ends_with(&format!(":{port}"))), "{port}");
}

/// Each container has a read-only root, gains no privileges, keeps no capabilities except those allowed below, and has
/// a memory limit; ports are published on 127.0.0.1 only.
#[test]
fn containers_are_confined() {
    let text = compose_file();
    let documents = Yaml::load_from_str(&text).expect("YAML");
    let services = get(&documents[0], "services").and_then(Yaml::as_mapping).expect("services");
    assert!(services.len() >= 9);
    for (name, service) in services {
        let name = name.as_str().expect("a name");
        assert_eq!(get(service, "read_only").and_then(Yaml::as_bool), Some(true), "{name}");
        assert!(texts(get(service, "security_opt")).contains("no-new-privileges:true"), "{name}");
        assert!(texts(get(service, "cap_drop")).contains("ALL"), "{name}");
        let added = texts(get(service, "cap_add"));
        let allowed: &[&str] = if name == "users" { &["CHOWN", "DAC_OVERRIDE"] } else { &[] };
        assert_eq!(added, allowed.iter().map(|&name| name.to_owned()).collect(), "{name}");
        assert!(get(service, "mem_limit").and_then(Yaml::as_str).is_some(), "{name}");
        // What is spooled may be larger than memory.
        let spools = matches!(name, "splitter" | "cli");
        assert_eq!(texts(get(service, "volumes")).contains("/tmp"), spools, "{name}");
        let ports = get(service, "ports").and_then(Yaml::as_sequence).into_iter().flatten();
        assert!(ports.into_iter().all(|port| port.as_str().is_some()), "{name}: ports as texts");
        for port in texts(get(service, "ports")) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}
