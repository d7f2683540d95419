//! Configuration: defaults, then a TOML file, then `WILDRYDES__SECTION__KEY` environment variables, then flags.
//!
//! Every section is a plain struct with a default; it is read once at start, checked, and an error names the key, the
//! value and what would be right.

use config::{Environment, File, FileFormat};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use std::{fmt, path::Path};

/// Prefix of the environment variables.
pub const ENVIRONMENT_PREFIX: &str = "WILDRYDES";
/// Every section there is.
pub const SECTIONS: [&str; 9] = ["broker", "store", "run", "log", "splitter", "weather", "merger", "trainer", "scorer"];

/// One section of the configuration. A missing section, and a missing key in it, takes its default; an unknown key is an
/// error (`#[serde(default, deny_unknown_fields)]` on the struct).
pub trait Settings: DeserializeOwned + Serialize + Default + Send + 'static {
    /// Name of the section: `[splitter]` in the file, `WILDRYDES__SPLITTER__…` in the environment.
    const SECTION: &'static str;

    /// What the types of the fields alone cannot say.
    ///
    /// # Errors
    /// The key, its value and what would be right.
    fn check(&self) -> Result<(), Problem> {
        Ok(())
    }
}

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: expected {expected}")]
pub struct Problem {
    /// Key within its section.
    pub key: &'static str,
    /// As given.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

impl Problem {
    /// A problem with `key`.
    pub fn new(key: &'static str, value: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { key, value: value.to_string(), expected: expected.into() }
    }

    /// A problem unless `value` lies within `range`.
    ///
    /// # Errors
    /// The problem.
    pub fn unless_within<T: PartialOrd + fmt::Display>(
        key: &'static str,
        value: T,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<(), Self> {
        if range.contains(&value) {
            return Ok(());
        }
        Err(Self::new(key, value, format!("{} to {}", range.start(), range.end())))
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that is there, but wrong.
    #[error(
        "configuration: {section}.{problem}. It can be set as {key} = … under [{section}] in the file, as \
         {ENVIRONMENT_PREFIX}__{}__{} in the environment, or with --set {section}.{key}=…",
        .section.to_uppercase(), .key.to_uppercase()
    )]
    Value {
        /// Section.
        section: &'static str,
        /// Key.
        key: &'static str,
        /// What is wrong.
        problem: Problem,
    },
    /// A value of another type, or an unknown key.
    #[error("configuration: in [{section}]: {why}")]
    Shape {
        /// Section.
        section: &'static str,
        /// As the reader says it.
        why: String,
    },
    /// A section nobody reads.
    #[error("configuration: there is no section {section:?}; there are {}", SECTIONS.join(", "))]
    UnknownSection {
        /// As given.
        section: String,
    },
    /// The file cannot be read, or is no TOML.
    #[error("configuration: {0}")]
    Source(String),
}

/// All of the configuration, its layers merged.
#[derive(Debug, Clone)]
pub struct Configuration(config::Config);

impl Configuration {
    /// Merges the layers. `overrides` are `section.key` and value, the strongest layer.
    ///
    /// # Errors
    /// An unreadable file, an unknown section.
    pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        let source = |error: config::ConfigError| ConfigError::Source(error.to_string());
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::Source(format!("{}: {error}", path.display())))?;
            // Parsed by itself first: an error of the merged configuration shows the line, which may hold a password.
            let parsed = config::Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).build();
            if let Err(error) = parsed {
                return Err(ConfigError::Source(format!(
                    "{}: {}",
                    path.display(),
                    without_excerpt(&error.to_string())
                )));
            }
            builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        }
        let environment =
            Environment::with_prefix(ENVIRONMENT_PREFIX).prefix_separator("__").separator("__").try_parsing(true);
        builder = builder.add_source(environment);
        for (key, value) in overrides {
            builder = builder.set_override(key, parsed(value)).map_err(source)?;
        }
        let merged = builder.build().map_err(source)?;
        let table = merged.clone().try_deserialize::<std::collections::BTreeMap<String, config::Value>>();
        let unknown = table.map_err(source)?.into_keys().find(|section| !SECTIONS.contains(&section.as_str()));
        match unknown {
            Some(section) => Err(ConfigError::UnknownSection { section }),
            None => Ok(Self(merged)),
        }
    }

    /// Whether a layer sets this key.
    pub fn sets(&self, key: &str) -> bool {
        self.0.get::<config::Value>(key).is_ok()
    }

    /// Reads and checks one section.
    ///
    /// # Errors
    /// [`ConfigError::Value`] and [`ConfigError::Shape`].
    pub fn section<S: Settings>(&self) -> Result<S, ConfigError> {
        let section = S::SECTION;
        let settings = match self.0.get::<config::Value>(section) {
            Ok(table) => serde_path_to_error::deserialize::<_, S>(table).map_err(|error| {
                let key = error.path().to_string();
                let why = error.into_inner().to_string();
                ConfigError::Shape { section, why: if key == "." { why } else { format!("{section}.{key}: {why}") } }
            })?,
            Err(config::ConfigError::NotFound(_)) => S::default(),
            Err(error) => return Err(ConfigError::Shape { section, why: error.to_string() }),
        };
        settings.check().map_err(|problem| ConfigError::Value { section, key: problem.key, problem })?;
        Ok(settings)
    }
}

/// A TOML error without the line it quotes: where and why, not what stands there.
fn without_excerpt(error: &str) -> String {
    let quoted = |line: &&str| {
        line.trim_start()
            .split_once('|')
            .is_some_and(|(number, _)| number.trim().parse::<u32>().is_ok() || number.trim().is_empty())
    };
    error.lines().filter(|line| !quoted(line)).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// `--set` gives text: numbers and truth values are read as such.
fn parsed(text: &str) -> config::Value {
    if let Ok(value) = text.parse::<i64>() {
        return value.into();
    }
    if let Ok(value) = text.parse::<f64>() {
        return value.into();
    }
    match text {
        "true" => true.into(),
        "false" => false.into(),
        other => other.into(),
    }
}

/// `[broker]`: RabbitMQ.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSettings {
    /// `amqp://user@host:5672/vhost`, or `amqps://…` for TLS. `%2f` is the vhost `/`. May hold a password
    /// (`user:password@`) where nobody else reads it: in a file or in the environment.
    pub url: AmqpUrl,
    /// A file that holds the password of the address's user and nothing else. Read at every connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// Certificates (PEM) of the authorities one of which must have signed the broker's. Without it the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Our own certificate (PEM) with its chain, for a broker that asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_file: Option<String>,
    /// Its private key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_file: Option<String>,
    /// Whether to make the exchanges and queues that are missing.
    pub declare: Declare,
    /// Prefix of every exchange and queue, so that several fleets can share a vhost.
    pub namespace: String,
    /// Deadline for connecting.
    pub connect_timeout_ms: u64,
    /// Deadline for every answer of the broker, a publisher's confirm among them. Does not run during an alarm.
    pub confirm_timeout_ms: u64,
    /// How long to try to reach a broker that is away before the process gives up.
    pub give_up_after_ms: u64,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            url: AmqpUrl("amqp://guest:guest@127.0.0.1:5672/%2f".to_owned()),
            password_file: None,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            declare: Declare::Auto,
            namespace: String::new(),
            connect_timeout_ms: 10_000,
            confirm_timeout_ms: 30_000,
            give_up_after_ms: 300_000,
        }
    }
}

impl Settings for BrokerSettings {
    const SECTION: &'static str = "broker";

    fn check(&self) -> Result<(), Problem> {
        self.url.check()?;
        self.check_credentials()?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.namespace.len() > 64 || !self.namespace.bytes().all(fits) {
            return Err(Problem::new("namespace", &self.namespace, "at most 64 of A-Z a-z 0-9 - _ ."));
        }
        Problem::unless_within("connect_timeout_ms", self.connect_timeout_ms, 100..=600_000)?;
        Problem::unless_within("confirm_timeout_ms", self.confirm_timeout_ms, 100..=3_600_000)?;
        Problem::unless_within("give_up_after_ms", self.give_up_after_ms, 0..=86_400_000)
    }
}

impl BrokerSettings {
    fn check_credentials(&self) -> Result<(), Problem> {
        let (user, password) = self.url.user_info();
        if self.password_file.is_some() && password.is_some() {
            return Err(Problem::new("url", &self.url, "no password in it, since broker.password_file is set"));
        }
        if self.password_file.is_some() && user.is_empty() {
            let expected = "the user whose password is in broker.password_file, as in amqp://splitter@host";
            return Err(Problem::new("url", &self.url, expected));
        }
        let files = [
            ("ca_file", &self.ca_file),
            ("client_certificate_file", &self.client_certificate_file),
            ("client_key_file", &self.client_key_file),
        ];
        for (key, file) in files.iter().filter_map(|(key, file)| Some((*key, file.as_ref()?))) {
            if !self.url.is_encrypted() {
                return Err(Problem::new(key, file, "broker.url to be amqps://…: nothing is encrypted without it"));
            }
        }
        match (&self.client_certificate_file, &self.client_key_file) {
            (Some(file), None) => Err(Problem::new("client_certificate_file", file, "broker.client_key_file with it")),
            (None, Some(file)) => Err(Problem::new("client_key_file", file, "broker.client_certificate_file with it")),
            _ => Ok(()),
        }
    }
}

/// Whether a process makes the exchanges and queues that are missing when it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Declare {
    /// Where its user may; else it looks whether everything is there.
    Auto,
    /// It must be allowed to.
    Always,
    /// It only looks.
    Never,
}

/// A broker's address. Printing it leaves the password out.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct AmqpUrl(String);

impl AmqpUrl {
    /// The address as given.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The whole address, password included: only for connecting.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn is_encrypted(&self) -> bool {
        self.0.starts_with("amqps://")
    }

    /// User, empty for none, and password, as they are written.
    fn user_info(&self) -> (&str, Option<&str>) {
        let rest = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        let user_info = rest.rsplit_once('@').map_or("", |(user_info, _)| user_info);
        user_info.split_once(':').map_or((user_info, None), |(user, password)| (user, Some(password)))
    }

    fn check(&self) -> Result<(), Problem> {
        let wrong = |expected: &str| Err(Problem::new("url", self, expected));
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return wrong("amqp://user@host:5672/vhost");
        };
        if !matches!(scheme, "amqp" | "amqps") {
            return wrong("the scheme amqp, or amqps for TLS");
        }
        let (authority, vhost) =
            rest.split_once('/').map_or((rest, None), |(authority, vhost)| (authority, Some(vhost)));
        if vhost == Some("") {
            return wrong(
                "no slash at the end (it would mean the vhost named \"\"): leave it out, or name the vhost; / is %2f",
            );
        }
        if authority.contains('[') {
            return wrong("a host name or an IPv4 address (IPv6 literals are not understood by the client library)");
        }
        Ok(())
    }
}

impl fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Also where it is no URL at all: whatever stands between a colon and the last @ may be a password.
        let (scheme, rest) = match self.0.find("://") {
            Some(at) => self.0.split_at(at + 3),
            None => ("", self.0.as_str()),
        };
        match rest.rsplit_once('@') {
            Some((user_info, host)) => {
                write!(f, "{scheme}{}:…@{host}", user_info.split(':').next().unwrap_or_default())
            }
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for AmqpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Refuses a password on the command line, where every user of the machine can read it. That of `guest` is no secret:
/// RabbitMQ takes it from its own machine only.
///
/// # Errors
/// What to do instead, without the password.
pub fn refuse_visible_password(overrides: &[(String, String)]) -> Result<(), ConfigError> {
    for (_, value) in overrides.iter().filter(|(key, _)| key == "broker.url") {
        let url = AmqpUrl::new(value);
        if url.user_info().1.is_some_and(|password| password != "guest") {
            let problem = Problem::new(
                "url",
                url,
                "no password on the command line, where the list of processes shows it to everyone: leave it out and \
                 name a file that holds it in broker.password_file, or give the whole address in the environment or file",
            );
            return Err(ConfigError::Value { section: "broker", key: "url", problem });
        }
    }
    Ok(())
}

/// `[store]`: the object store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// A folder's path (or `file:///…`). All workers of a fleet name the same place.
    pub url: String,
    /// Whether a write is on the disk before it counts: survives a power failure of the machine, at the price of speed.
    pub fsync: bool,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { url: "wildrydes-data".to_owned(), fsync: false }
    }
}

impl Settings for StoreSettings {
    const SECTION: &'static str = "store";
}

/// `[run]`: the loop around a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Messages handled at the same time; each worker has its own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u16>,
    /// Deliveries held at most; each worker has its own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<u16>,
    /// How long running handlers may take to finish once a shutdown was asked for.
    pub drain_deadline_ms: u64,
    /// How long one handler may take. Keep it below the broker's `consumer_timeout` (30 minutes by default).
    pub handle_timeout_ms: u64,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { concurrency: None, prefetch: None, drain_deadline_ms: 20_000, handle_timeout_ms: 20 * 60 * 1_000 }
    }
}

impl Settings for RunSettings {
    const SECTION: &'static str = "run";

    fn check(&self) -> Result<(), Problem> {
        Problem::unless_within("concurrency", self.concurrency.unwrap_or(1), 1..=1_000)?;
        let at_least = self.concurrency.unwrap_or(1);
        Problem::unless_within("prefetch", self.prefetch.unwrap_or(at_least), at_least..=10_000)?;
        Problem::unless_within("drain_deadline_ms", self.drain_deadline_ms, 0..=3_600_000)?;
        Problem::unless_within("handle_timeout_ms", self.handle_timeout_ms, 1_000..=86_400_000)
    }
}

/// `[log]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// As in `RUST_LOG`, which wins: `info`, `debug`, `common=debug,info`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl Settings for LogSettings {
    const SECTION: &'static str = "log";
}

/// For options like `--set section.key=value`.
///
/// # Errors
/// When there is no `=`, or no section.
pub fn parse_override(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err(format!("{text:?}: expected section.key=value, as in splitter.chunk_size=500")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Configuration, ConfigError> {
        let overrides: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Configuration::load(None, &overrides)
    }

    #[test]
    fn defaults_hold_and_overrides_win() {
        let configuration = load(&[("broker.confirm_timeout_ms", "500")]).unwrap();
        let broker: BrokerSettings = configuration.section().unwrap();
        assert_eq!((broker.confirm_timeout_ms, broker.connect_timeout_ms), (500, 10_000));
        assert_eq!(configuration.section::<RunSettings>().unwrap().drain_deadline_ms, 20_000);
    }

    #[test]
    fn a_broken_file_is_named_with_the_place_and_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.toml");
        std::fs::write(&path, "[run]\n[broker]\nurl = \"amqp://u:hunter2@h/%2f\n").unwrap();
        let told = Configuration::load(Some(&path), &[]).unwrap_err().to_string();
        assert!(told.contains("broken.toml") && told.contains("line 3") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn a_file_is_read_below_the_overrides() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.toml");
        std::fs::write(&path, "[run]\nconcurrency = 3\nprefetch = 9\n[store]\nurl = \"/tmp/x\"\n").unwrap();
        let overrides = [("run.prefetch".to_owned(), "7".to_owned())];
        let configuration = Configuration::load(Some(&path), &overrides).unwrap();
        let run: RunSettings = configuration.section().unwrap();
        assert_eq!((run.concurrency, run.prefetch), (Some(3), Some(7)));
    }

    #[test]
    fn errors_name_key_value_and_what_would_be_right() {
        let told = load(&[("run.prefetch", "0")]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        for part in ["run.prefetch = 0", "1 to 10000", "WILDRYDES__RUN__PREFETCH", "--set run.prefetch"] {
            assert!(told.contains(part), "{told}");
        }
        let told = load(&[("run.prefech", "1")]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        assert!(told.contains("prefech") && told.contains("prefetch"), "{told}");
        let told = load(&[("runn.prefetch", "1")]).unwrap_err().to_string();
        assert!(told.contains("runn") && told.contains("weather"), "{told}");
        let told = load(&[("run.prefetch", "many")]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        assert!(told.contains("many") && told.contains("prefetch"), "{told}");
    }

    #[test]
    fn a_broker_url_is_checked_and_never_shows_its_password() {
        let settings = |url: &str| load(&[("broker.url", url)]).unwrap().section::<BrokerSettings>();
        for wrong in [
            "u:hunter2@host:5672",
            "amqp://host/",
            "http://host",
            "host:5672",
            "amqp://[::1]:5672/%2f",
            "amqp://u:hunter2@host/",
        ] {
            let told = settings(wrong).unwrap_err().to_string();
            assert!(told.contains("broker.url") && !told.contains("hunter2"), "{told}");
        }
        let good = settings("amqps://u:hunter2@host:5671/%2f").unwrap();
        assert_eq!(good.url.to_string(), "amqps://u:…@host:5671/%2f");
        assert!(!format!("{good:?}{}", serde_json::to_string(&good).unwrap()).contains("hunter2"));
    }

    #[test]
    fn credentials_that_do_not_fit_each_other_are_named() {
        for (pairs, told) in [
            (&[("url", "amqp://u:hunter2@h"), ("password_file", "/p")][..], "no password in it"),
            (&[("url", "amqp://h"), ("password_file", "/p")][..], "the user whose password"),
            (&[("url", "amqp://u@h"), ("ca_file", "/ca.pem")][..], "amqps://"),
            (&[("url", "amqps://u@h"), ("client_certificate_file", "/c.pem")][..], "broker.client_key_file"),
            (&[("url", "amqps://u@h"), ("client_key_file", "/k.pem")][..], "broker.client_certificate_file"),
        ] {
            let keys: Vec<_> = pairs.iter().map(|(key, value)| (format!("broker.{key}"), (*value).to_owned())).collect();
            let error = Configuration::load(None, &keys).unwrap().section::<BrokerSettings>().unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_on_the_command_line_is_refused() {
        let given = |url: &str| refuse_visible_password(&[("broker.url".to_owned(), url.to_owned())]);
        let told = given("amqp://u:hunter2@h/%2f").unwrap_err().to_string();
        assert!(told.contains("broker.password_file") && !told.contains("hunter2"), "{told}");
        for fine in ["amqp://u@h", "amqp://h", "amqp://guest:guest@127.0.0.1/%2f"] {
            given(fine).unwrap();
        }
    }
}
