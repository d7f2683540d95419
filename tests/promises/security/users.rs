//! A fleet on RabbitMQ in which every process and client has its own user, made from the output of `wildrydes topology users`.

use pipeline_tests::{
    processes::{output, succeed, wildrydes, worker},
    rabbitmq::{rabbitmq, settings},
    trust::TRUST,
};
use runtime::config::BrokerSettings;
use serde_json::Value;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// The users of a namespace, their passwords, and the processes that run under them.
pub(super) struct Users {
    pub(super) namespace: String,
    pub(super) folder: TempDir,
    management: String,
    running: Vec<(String, Child)>,
}

impl Users {
    /// Makes users for a new namespace, with generated passwords; existing password files stay. Prints a line and returns
    /// `None` without a management API, which imports the definitions.
    pub(super) fn make(prepare: impl FnOnce(&Path, &str)) -> Option<Self> {
        let Some(management) = rabbitmq().management.clone() else {
            let origin = &rabbitmq().origin;
            pipeline_tests::print_uncaptured(format_args!(
                "not run: {origin} has no management API (and curl is needed to see it)"
            ));
            return None;
        };
        let namespace = settings().namespace;
        let folder = tempfile::tempdir().expect("a temporary folder");
        prepare(&folder.path().join("passwords"), &namespace);
        let users =
            Self { namespace, folder, management: management.trim_end_matches('/').to_owned(), running: Vec::new() };
        let mut print = wildrydes();
        print.args(["topology", "users", "--definitions", "--generate", "--passwords"]).arg(users.passwords());
        print.args(["--set", &format!("broker.namespace={}", users.namespace)]);
        std::fs::write(users.definitions(), succeed(&mut print)).expect("a file");
        users.import();
        Some(users)
    }

    fn definitions(&self) -> PathBuf {
        self.folder.path().join("definitions.json")
    }

    /// Imports the definitions of all users, as an operator does.
    pub(super) fn import(&self) {
        let data = format!("@{}", self.definitions().display());
        self.api(&["--request", "POST", "--data-binary", &data], "definitions");
    }

    /// Revokes a user's permission to publish; its own temporary queues stay.
    pub(super) fn forbid_publishing(&self, role: &str) {
        let path = format!("permissions/%2F/{}", self.name(role));
        let mut permissions = self.managed(&path);
        permissions["write"] = r"^amq\.gen.*$".into();
        self.api(&["--request", "PUT", "--data-binary", &permissions.to_string()], &path);
    }

    /// Sets a user's permissions.
    pub(super) fn permit(&self, user: &str, [configure, write, read]: [&str; 3]) {
        let permissions = serde_json::json!({ "configure": configure, "write": write, "read": read }).to_string();
        self.api(&["--request", "PUT", "--data-binary", &permissions], &format!("permissions/%2F/{user}"));
    }

    /// URL of the management API, with an administrator's credentials or without.
    pub(super) fn management_url(&self, administrator: bool) -> String {
        match self.management.split_once("://").zip(self.management.rsplit_once('@')) {
            Some(((scheme, _), (_, address))) if !administrator => format!("{scheme}://{address}"),
            _ => self.management.clone(),
        }
    }

    fn api(&self, arguments: &[&str], path: &str) -> Vec<u8> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "60"]);
        curl.args(["--header", "content-type: application/json"]).args(arguments);
        let ended = output(curl.arg(format!("{}/api/{path}", self.management)));
        let stdout_text = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success(), "{path}: {stdout_text}{}", String::from_utf8_lossy(&ended.stderr));
        ended.stdout
    }

    /// Gets a document of the broker's management API.
    pub(super) fn managed(&self, path: &str) -> Value {
        serde_json::from_slice(&self.api(&[], path)).expect("JSON")
    }

    fn passwords(&self) -> PathBuf {
        self.folder.path().join("passwords")
    }

    /// A user's name.
    pub(super) fn name(&self, role: &str) -> String {
        format!("{}{role}", self.namespace)
    }

    /// The file with a user's password.
    pub(super) fn password_file(&self, role: &str) -> PathBuf {
        self.passwords().join(self.name(role)).join("password")
    }

    /// URL of the broker, without credentials.
    fn address() -> &'static str {
        rabbitmq().url.rsplit_once('@').expect("a URL with a user").1
    }

    /// URL of the broker for a user, with the password.
    pub(super) fn url(&self, role: &str) -> String {
        let password = std::fs::read_to_string(self.password_file(role)).expect("a password");
        format!("amqp://{}:{}@{}", self.name(role), password.trim(), Self::address())
    }

    /// Settings of a user, with the password in a file.
    pub(super) fn settings(&self, role: &str) -> BrokerSettings {
        BrokerSettings {
            url: runtime::config::AmqpUrl::new(format!("amqp://{}@{}", self.name(role), Self::address())),
            password_file: Some(self.password_file(role).display().to_string()),
            namespace: self.namespace.clone(),
            give_up_after_ms: 60_000,
            ..BrokerSettings::default()
        }
    }

    /// Folder of the store.
    pub(super) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// A command that runs under a user.
    pub(super) fn configured(&self, mut command: Command, role: &str) -> Command {
        command
            .env("WILDRYDES__BROKER__URL", format!("amqp://{}@{}", self.name(role), Self::address()))
            .env("WILDRYDES__BROKER__PASSWORD_FILE", self.password_file(role))
            .env("WILDRYDES__BROKER__NAMESPACE", &self.namespace)
            .env("WILDRYDES__STORE__URL", self.store())
            .env("WILDRYDES__LOG__LEVEL", "debug");
        command
    }

    /// A `wildrydes` command that runs under a user.
    pub(super) fn wildrydes(&self, role: &str) -> Command {
        self.configured(wildrydes(), role)
    }

    /// Starts a worker under its own user.
    pub(super) fn launch(&mut self, name: &str, environment: &[(&str, &str)]) {
        let log = File::create(self.log_file(name)).expect("a log");
        let mut command = self.configured(worker(name), name);
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.running.push((name.to_owned(), command.spawn().expect("the worker starts")));
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// The log of a worker.
    pub(super) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }

    /// Ends every worker. Each must still be running and end with success.
    pub(super) fn stop(&mut self) {
        for (name, mut child) in std::mem::take(&mut self.running) {
            let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
            assert!(asked.success());
            let status = child.wait().expect("it ends");
            assert!(status.success(), "{name} ended with {status}\n{}", self.log(&name));
        }
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            // After a failed test: no process may stay behind.
            let _ = child.kill();
            let _ = child.wait();
        }
        for role in TRUST.iter().map(|trust| trust.role) {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--max-time", "60", "--request", "DELETE"]);
            let _ = output(curl.arg(format!("{}/api/users/{}", self.management, self.name(role))));
        }
    }
}
