//! Tests that secrets come from files or the environment, and that no output contains one.

use super::users::Users;
use common::topology::queue;
use lapin::{Connection, options::QueueDeclareOptions, types::FieldTable};
use pipeline_tests::{
    processes::{Input, output, succeed, wildrydes, worker},
    rabbitmq::{rabbitmq, settings},
    secrets::forms,
    tls::Certificates,
};
use runtime::{AmqpBroker, config::BrokerSettings};
use std::{
    net::TcpListener,
    process::{Command, Output},
};

/// A secret with every character that needs escaping somewhere.
const SECRET: &str = "hunter2-p@ss:w/rd%\"\\ü";
/// The same, escaped for a URL.
const SECRET_IN_URL: &str = "hunter2-p%40ss%3Aw%2Frd%25%22%5C%C3%BC";
/// The part of the secret that every way of escaping leaves unchanged. No output may contain it.
const TELLTALE: &str = "hunter2";

/// Every output, with the name of its command.
#[derive(Default)]
struct Printed(Vec<(String, Output)>);

impl Printed {
    /// Runs a command with all logs, including those of libraries. It must end with this code.
    fn run(&mut self, what: &str, mut command: Command, code: i32) {
        command.env("RUST_LOG", "trace").env("WILDRYDES__BROKER__GIVE_UP_AFTER_MS", "200");
        let ended = output(&mut command);
        let stderr_text =
            String::from_utf8_lossy(&ended.stderr).into_owned() + &*String::from_utf8_lossy(&ended.stdout);
        assert_eq!(ended.status.code(), Some(code), "{what}: {stderr_text}");
        self.0.push((what.to_owned(), ended));
    }

    fn add(&mut self, what: &str, text: String) {
        let status = std::process::ExitStatus::default();
        self.0.push((what.to_owned(), Output { status, stdout: text.into_bytes(), stderr: Vec::new() }));
    }

    fn check(&self) {
        let mut bytes = 0;
        let forms = forms(TELLTALE);
        for (what, Output { stdout, stderr, .. }) in &self.0 {
            for text in [stdout, stderr].map(|text| String::from_utf8_lossy(text)) {
                bytes += text.len();
                for line in text.lines() {
                    let leaked_form = forms.iter().find(|form| line.contains(form.as_str()));
                    assert!(leaked_form.is_none(), "{what} tells the secret, as {leaked_form:?}: {line}");
                }
            }
        }
        assert!(bytes > 10_000, "hardly anything was printed: {bytes} bytes");
    }
}

/// No worker and no command prints the password, whatever fails: a wrong password, an absent broker, another topology, TLS, an
/// invalid address; nor if everything succeeds, nor in `--help`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_output_contains_a_password() {
    let printed = tokio::task::block_in_place(|| {
        let made = Users::make(|passwords, namespace| {
            for role in ["operator", "publisher", "splitter"] {
                let folder = passwords.join(format!("{namespace}{role}"));
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join("password"), format!("{SECRET}\n")).unwrap();
            }
        });
        made.map(|users| (print_everything(&users), users))
    });
    let Some((mut printed, mut users)) = printed else { return };
    let raw = Connection::connect(&rabbitmq().url, Default::default()).await.unwrap();
    let channel = raw.create_channel().await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(users.name("splitter").into(), durable, FieldTable::default()).await.unwrap();
    tokio::task::block_in_place(|| {
        printed.run("a mismatch", with(users.wildrydes("operator"), &["topology", "apply"]), 1);
    });
    channel.queue_delete(users.name("splitter").into(), Default::default()).await.unwrap();
    raw.close(200, "done".into()).await.unwrap();
    tokio::task::block_in_place(|| {
        let input = Input::of(100);
        printed.run("topology apply", with(users.wildrydes("operator"), &["topology", "apply"]), 0);
        users.launch(queue::SPLITTER, &[("RUST_LOG", "trace")]);
        let mut ingest = users.wildrydes("publisher");
        ingest.args(["-vv", "ingest", "--detach"]).arg(&input.rides);
        printed.run("ingest", ingest, 0);
        users.stop();
        printed.add("the splitter", users.log(queue::SPLITTER));
        printed.check();
    });
    let all = BrokerSettings { namespace: users.namespace.clone(), ..settings() };
    AmqpBroker::new(all).remove_topology().await.unwrap();
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// Runs everything that needs no topology.
fn print_everything(users: &Users) -> Printed {
    let mut printed = Printed::default();
    let url = &rabbitmq().url;
    let address = url.rsplit_once('@').unwrap().1;
    print_connections(&mut printed, users, address);
    print_arguments(&mut printed, address);
    print_weather_sources(&mut printed, users, address);
    print_configuration_files(&mut printed, users);
    print_users(&mut printed, users);
    printed
}

/// Credentials of a user that no broker has.
fn nobody() -> String {
    format!("nobody:{SECRET_IN_URL}")
}

/// Every failure of a connection, in a worker and in the command.
fn print_connections(printed: &mut Printed, users: &Users, address: &str) {
    let nobody = nobody();
    let closed_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let certificates = Certificates::new();
    let ca_file = ("WILDRYDES__BROKER__CA_FILE", certificates.file("ca").display().to_string());
    let password_file = ("WILDRYDES__BROKER__PASSWORD_FILE", users.password_file("operator").display().to_string());
    let unknown_key = ("WILDRYDES__BROKER__PASSWORD", SECRET.to_owned());
    let virtual_host = format!("{}/nothing", address.split('/').next().unwrap());
    let right = format!("amqp://{nobody}@{address}");
    let tls = format!("amqps://{nobody}@{address}");
    for (what, url, more, code) in [
        ("a wrong password", right.clone(), None, 1),
        ("a wrong password in a file", format!("amqp://nobody@{address}"), Some(&password_file), 1),
        ("no broker", format!("amqp://{nobody}@127.0.0.1:{closed_port}/%2f"), None, 1),
        ("no such host", format!("amqp://{nobody}@host.invalid:5672/%2f"), None, 1),
        ("no such virtual host", format!("amqp://{nobody}@{virtual_host}"), None, 1),
        ("a broker without TLS", tls.clone(), None, 1),
        ("a broker without TLS, with an authority", tls, Some(&ca_file), 1),
        ("an authority without TLS", right.clone(), Some(&ca_file), 2),
        ("two passwords", right.clone(), Some(&password_file), 2),
        ("an invalid port", format!("amqp://{nobody}@127.0.0.1:port/%2f"), None, 1),
        ("no scheme", format!("{nobody}@127.0.0.1/%2f"), None, 2),
        ("a slash at the end", format!("amqp://{nobody}@127.0.0.1/"), None, 2),
        ("an unescaped password", format!("amqp://nobody:{SECRET}@127.0.0.1:{closed_port}/%2f"), None, 1),
        ("IPv6", format!("amqp://{nobody}@[::1]:5672/%2f"), None, 2),
        ("an unknown key", right, Some(&unknown_key), 2),
    ] {
        let configured = |mut command: Command| {
            command.env("WILDRYDES__BROKER__URL", &url).env("WILDRYDES__STORE__URL", users.store());
            command.envs(more.map(|(name, value)| (name, value)));
            command
        };
        printed.run(&format!("merger: {what}"), configured(worker("merger")), code);
        let apply = with(configured(wildrydes()), &["-vv", "topology", "apply"]);
        printed.run(&format!("wildrydes: {what}"), apply, code);
    }
}

/// Secrets in arguments, and beside `--help`.
fn print_arguments(printed: &mut Printed, address: &str) {
    let url = format!("amqp://{}@{address}", nobody());
    for command in [worker("merger"), with(wildrydes(), &["status"])] {
        let mut help = with(command, &["--help"]);
        help.env("WILDRYDES__BROKER__URL", &url).env("WILDRYDES_CONFIG", SECRET);
        printed.run("--help", help, 0);
    }
    let set = format!("broker.url={url}");
    printed.run("--broker", with(wildrydes(), &["status", "--broker", &url]), 2);
    printed.run("--set", with(wildrydes(), &["status", "--set", &set]), 2);
    printed.run("--set of a worker", with(worker("merger"), &["--set", &set]), 2);
}

/// Weather services with a password in their address.
fn print_weather_sources(printed: &mut Printed, users: &Users, address: &str) {
    for key in ["WILDRYDES__WEATHER__SOURCE", "WILDRYDES__WEATHER__STATIONS"] {
        for scheme in ["https", "ncei+https", "ftp"] {
            let store = users.store().display().to_string();
            let address = format!("{scheme}://somebody:{SECRET_IN_URL}@{address}");
            let weather = |mut command: Command| {
                command.envs([(key, &address), ("WILDRYDES__STORE__URL", &store)]);
                command
            };
            printed.run(&format!("weather-fetcher: {key}"), weather(worker("weather-fetcher")), 2);
            printed.run(&format!("doctor: {key}"), with(weather(wildrydes()), &["doctor"]), 2);
        }
    }
}

/// Configuration files that hold a secret and are refused.
fn print_configuration_files(printed: &mut Printed, users: &Users) {
    let nobody = nobody();
    for (name, text) in [
        ("broken", format!("[broker]\nurl = \"amqp://{nobody}@h/%2f\n")),
        ("of another type", format!("[broker]\nurl = [\"amqp://{nobody}@h/%2f\"]\n")),
        ("of another section", format!("[brokers]\nurl = \"amqp://{nobody}@h/%2f\"\n")),
    ] {
        let file = users.folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        printed.run(name, with(worker("merger"), &["--config", &file]), 2);
        printed.run(name, with(wildrydes(), &["status", "--config", &file]), 2);
    }
}

/// Users of the fleet, made from password files.
fn print_users(printed: &mut Printed, users: &Users) {
    for form in ["--definitions", "--rabbitmqctl", "--json"] {
        let mut passwords = users.password_file("operator");
        passwords.pop();
        passwords.pop();
        let passwords = passwords.display().to_string();
        let users = with(users.wildrydes("operator"), &["topology", "users", form, "--passwords", &passwords]);
        printed.run(form, users, 0);
    }
}

/// A password in a flag would be visible in the list of processes: it is refused, with what to do instead. The password of
/// `guest`, which is public, is accepted.
#[test]
fn a_password_in_a_flag_is_refused() {
    for arguments in
        [["--broker", "amqp://u:hunter2@localhost/%2f"], ["--set", "broker.url=amqp://u:hunter2@localhost"]]
    {
        let ended = output(wildrydes().args(["topology", "show"]).args(arguments));
        let stderr_text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{stderr_text}");
        assert!(
            stderr_text.contains("broker.password_file") && stderr_text.contains("list of processes"),
            "{stderr_text}"
        );
    }
    succeed(wildrydes().args(["topology", "show", "--broker", "amqp://guest:guest@localhost/%2f"]));
}
