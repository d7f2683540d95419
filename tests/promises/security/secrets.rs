//! Secrets come from files or the environment, and nothing that is printed tells them.

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

/// With every character that needs escaping somewhere.
const SECRET: &str = "hunter2-p@ss:w/rd%\"\\ü";
/// The same in an address.
const SECRET_IN_URL: &str = "hunter2-p%40ss%3Aw%2Frd%25%22%5C%C3%BC";
/// What no output may hold: as much of it as any way of writing leaves as it is.
const TELLTALE: &str = "hunter2";

/// Everything that was printed, with what printed it.
#[derive(Default)]
struct Printed(Vec<(String, Output)>);

impl Printed {
    /// Runs it to its end, with everything logged that there is to log, the libraries' own words included; it must end with
    /// this code.
    fn run(&mut self, what: &str, mut command: Command, code: i32) {
        command.env("RUST_LOG", "trace").env("WILDRYDES__BROKER__GIVE_UP_AFTER_MS", "200");
        let ended = output(&mut command);
        let told = String::from_utf8_lossy(&ended.stderr).into_owned() + &*String::from_utf8_lossy(&ended.stdout);
        assert_eq!(ended.status.code(), Some(code), "{what}: {told}");
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
                    let found = forms.iter().find(|form| line.contains(form.as_str()));
                    assert!(found.is_none(), "{what} tells the secret, as {found:?}: {line}");
                }
            }
        }
        assert!(bytes > 10_000, "hardly anything was printed: {bytes} bytes");
    }
}

/// No worker and no command tells the password, whatever goes wrong: it is wrong, the broker is away or has something else,
/// TLS fails, the address is no address; nor where all goes well, nor in `--help`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_printed_tells_a_password() {
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

/// All that needs no topology.
fn print_everything(users: &Users) -> Printed {
    let mut printed = Printed::default();
    let address = rabbitmq().url.rsplit_once('@').unwrap().1;
    let somebody = format!("nobody:{SECRET_IN_URL}");
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let certificates = Certificates::new();
    let authority = certificates.file("ca").display().to_string();
    let store = users.store().display().to_string();
    let url = |url: String| vec![("WILDRYDES__BROKER__URL", url), ("WILDRYDES__STORE__URL", store.clone())];
    let more = |mut environment: Vec<(&'static str, String)>, name, value: &str| {
        environment.push((name, value.to_owned()));
        environment
    };
    let secret_file = users.password_file("operator").display().to_string();
    for (what, environment, code) in [
        ("a wrong password", url(format!("amqp://{somebody}@{address}")), 1),
        (
            "a wrong password in a file",
            more(url(format!("amqp://nobody@{address}")), "WILDRYDES__BROKER__PASSWORD_FILE", &secret_file),
            1,
        ),
        ("no broker", url(format!("amqp://{somebody}@127.0.0.1:{nowhere}/%2f")), 1),
        ("no such host", url(format!("amqp://{somebody}@host.invalid:5672/%2f")), 1),
        ("no such virtual host", url(format!("amqp://{somebody}@{}/nothing", address.split('/').next().unwrap())), 1),
        ("no TLS spoken there", url(format!("amqps://{somebody}@{address}")), 1),
        (
            "no TLS spoken there, with an authority",
            more(url(format!("amqps://{somebody}@{address}")), "WILDRYDES__BROKER__CA_FILE", &authority),
            1,
        ),
        (
            "an authority without TLS",
            more(url(format!("amqp://{somebody}@{address}")), "WILDRYDES__BROKER__CA_FILE", &authority),
            2,
        ),
        (
            "two passwords",
            more(url(format!("amqp://{somebody}@{address}")), "WILDRYDES__BROKER__PASSWORD_FILE", &secret_file),
            2,
        ),
        ("a port that is none", url(format!("amqp://{somebody}@127.0.0.1:port/%2f")), 1),
        ("no scheme", url(format!("{somebody}@127.0.0.1/%2f")), 2),
        ("a slash at the end", url(format!("amqp://{somebody}@127.0.0.1/")), 2),
        ("a password not escaped", url(format!("amqp://nobody:{SECRET}@127.0.0.1:{nowhere}/%2f")), 1),
        ("IPv6", url(format!("amqp://{somebody}@[::1]:5672/%2f")), 2),
        ("an unknown key", more(url(format!("amqp://{somebody}@{address}")), "WILDRYDES__BROKER__PASSWORD", SECRET), 2),
    ] {
        let configured = |mut command: Command| {
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            command
        };
        printed.run(&format!("merger: {what}"), configured(worker("merger")), code);
        let apply = with(configured(wildrydes()), &["-vv", "topology", "apply"]);
        printed.run(&format!("wildrydes: {what}"), apply, code);
    }
    for command in [worker("merger"), with(wildrydes(), &["status"])] {
        let mut help = with(command, &["--help"]);
        help.env("WILDRYDES__BROKER__URL", format!("amqp://{somebody}@{address}")).env("WILDRYDES_CONFIG", SECRET);
        printed.run("--help", help, 0);
    }
    let flag = format!("amqp://{somebody}@{address}");
    let set = format!("broker.url={flag}");
    printed.run("--broker", with(wildrydes(), &["status", "--broker", &flag]), 2);
    printed.run("--set", with(wildrydes(), &["status", "--set", &set]), 2);
    printed.run("--set of a worker", with(worker("merger"), &["--set", &set]), 2);
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
    for (name, text) in [
        ("broken", format!("[broker]\nurl = \"amqp://{somebody}@h/%2f\n")),
        ("of another type", format!("[broker]\nurl = [\"amqp://{somebody}@h/%2f\"]\n")),
        ("of another section", format!("[brokers]\nurl = \"amqp://{somebody}@h/%2f\"\n")),
    ] {
        let file = users.folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        printed.run(name, with(worker("merger"), &["--config", &file]), 2);
        printed.run(name, with(wildrydes(), &["status", "--config", &file]), 2);
    }
    for form in ["--definitions", "--rabbitmqctl", "--json"] {
        let mut passwords = users.password_file("operator");
        passwords.pop();
        passwords.pop();
        let passwords = passwords.display().to_string();
        let users = with(users.wildrydes("operator"), &["topology", "users", form, "--passwords", &passwords]);
        printed.run(form, users, 0);
    }
    printed
}

/// A password in a flag would stand in the list of processes: it is refused, with the way out; that of `guest`, which is no
/// secret, is taken.
#[test]
fn a_password_in_a_flag_is_refused() {
    for arguments in
        [["--broker", "amqp://u:hunter2@localhost/%2f"], ["--set", "broker.url=amqp://u:hunter2@localhost"]]
    {
        let ended = output(wildrydes().args(["topology", "show"]).args(arguments));
        let told = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{told}");
        assert!(told.contains("broker.password_file") && told.contains("list of processes"), "{told}");
    }
    succeed(wildrydes().args(["topology", "show", "--broker", "amqp://guest:guest@localhost/%2f"]));
}
