//! `[broker]`: address, user and authentication for RabbitMQ.

use super::{
    error::ConfigError,
    problem::Problem,
    reference::{Entry, number, text},
    settings::Settings,
};
use common::reply_address::RESERVED_PREFIX;
use serde::{Deserialize, Serialize};
use serde_with::SerializeDisplay;
use std::fmt;

/// `[broker]`: RabbitMQ.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSettings {
    /// `amqp://user@host:5672/vhost`, or `amqps://…` for TLS. `%2f` is the vhost `/`. May contain a password
    /// (`user:password@`) in a file or in the environment, where no other user can read it.
    pub url: AmqpUrl,
    /// Path of a file that contains only the password of the URL's user. Read at every connect.
    pub password_file: Option<String>,
    /// Path of the certificates (PEM) of the trusted authorities; default: the public authorities.
    pub ca_file: Option<String>,
    /// Path of the client certificate (PEM) with its chain, for a broker that requires one.
    pub client_certificate_file: Option<String>,
    /// Path of the client certificate's private key (PEM).
    pub client_key_file: Option<String>,
    /// Whether to declare missing exchanges and queues.
    pub declare: Declare,
    /// Prefix of the names of all exchanges and queues, so that several fleets can share a vhost. At most 64
    /// characters; not `amq.`, which RabbitMQ reserves.
    pub namespace: String,
    /// Deadline for connecting in milliseconds, 100 to 600,000.
    pub connect_timeout_ms: u64,
    /// Deadline for every answer of the broker, publisher confirms included, in milliseconds, 100 to 3,600,000. Does
    /// not run during an alarm.
    pub confirm_timeout_ms: u64,
    /// Time after which a process without a connection gives up, in milliseconds, 0 to 86,400,000.
    pub give_up_after_ms: u64,
    /// URL of RabbitMQ's management API, for `wildrydes doctor` and `wildrydes drain`: `http://host:15672`, with the
    /// user of `url` unless it names one. Default: the broker's host.
    pub management_url: Option<AmqpUrl>,
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
            management_url: None,
        }
    }
}

impl Settings for BrokerSettings {
    const SECTION: &'static str = "broker";
    const REFERENCE: &'static [Entry] = &[
        text("url", "amqp://user@host:5672/vhost").means("address of RabbitMQ; amqps:// for TLS, %2f for the vhost /"),
        text("password_file", "path").means("file with the password of the user in url; read at every connect"),
        text("ca_file", "path").means(
            "certificates (PEM) of the authorities trusted to sign the broker's certificate; default: the public ones",
        ),
        text("client_certificate_file", "path")
            .means("client certificate (PEM) with its chain, for a broker that requires one"),
        text("client_key_file", "path").means("private key (PEM) of the client certificate"),
        text("declare", "auto | always | never")
            .means("whether to declare missing exchanges and queues; auto: if the user may"),
        text("namespace", "text").means(
            "prefix of every exchange and queue, so that fleets can share a vhost; at most 64 of A-Z a-z 0-9 - _ .",
        ),
        number("connect_timeout_ms", "milliseconds", 100..=600_000).means("deadline for connecting"),
        number("confirm_timeout_ms", "milliseconds", 100..=3_600_000)
            .means("deadline for each answer of the broker, publisher confirms included; paused during an alarm"),
        number("give_up_after_ms", "milliseconds", 0..=86_400_000)
            .means("how long a process tries to reach a broker that is down before it ends"),
        text("management_url", "http://host:15672")
            .means("RabbitMQ's management API, for doctor and drain; default: on the broker's host"),
    ];

    fn check_rules(&self) -> Result<(), Problem> {
        self.url.check()?;
        self.check_credentials()?;
        if let Some(url) = self.management_url.as_ref().filter(|url| !url.reveal().starts_with("http")) {
            return Err(Problem::new("management_url", url, "http://host:15672, or https://…"));
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.namespace.len() > 64 || !self.namespace.bytes().all(fits) {
            return Err(Problem::new("namespace", &self.namespace, "at most 64 of A-Z a-z 0-9 - _ ."));
        }
        if self.namespace.starts_with(RESERVED_PREFIX) {
            return Err(Problem::new(
                "namespace",
                &self.namespace,
                "another beginning: RabbitMQ reserves names with amq.",
            ));
        }
        Ok(())
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

/// Whether a process declares missing exchanges and queues when it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Declare {
    /// Declares if the user has the permission; otherwise checks that everything exists.
    Auto,
    /// Declares; fails if the user has no permission.
    Always,
    /// Only checks that everything exists.
    Never,
}

/// A URL that may contain a password. Formatting it omits the password.
#[derive(Clone, PartialEq, Eq, Deserialize, SerializeDisplay)]
#[serde(transparent)]
pub struct AmqpUrl(String);

impl AmqpUrl {
    /// Wraps a URL without checking it.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// Returns the URL with the password: only for connecting.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the user as written; empty if there is none.
    pub fn user(&self) -> &str {
        self.user_info().0
    }

    fn is_encrypted(&self) -> bool {
        self.0.starts_with("amqps://")
    }

    /// Returns user (empty if there is none) and password as written.
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
        // Applies to invalid URLs as well: any text between a colon and the last @ may be a password.
        let (scheme, rest) = self.0.find("://").map_or(("", self.0.as_str()), |at| self.0.split_at(at + 3));
        match rest.rsplit_once('@') {
            Some((user_info, host)) => {
                write!(f, "{scheme}{}:…@{host}", user_info.split(':').next().unwrap_or_default())
            }
            None if scheme.is_empty() && rest.contains(':') => f.write_str("(not shown: it may hold a password)"),
            None => f.write_str(&self.0[..self.0.find('?').unwrap_or(self.0.len())]),
        }
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Refuses a password on the command line, where every user of the machine can read it. Accepts that of `guest`, which
/// is no secret: RabbitMQ accepts this user from the local machine only.
///
/// # Errors
/// Fails with the remedy, without quoting the password.
pub fn refuse_visible_password(overrides: &[(String, String)]) -> Result<(), ConfigError> {
    for (name, value) in overrides {
        let Some(key) =
            name.strip_prefix("broker.").and_then(|key| ["url", "management_url"].into_iter().find(|k| *k == key))
        else {
            continue;
        };
        let url = AmqpUrl::new(value);
        if url.user_info().1.is_some_and(|password| password != "guest") {
            let problem = Problem::new(
                key,
                url,
                "no password on the command line, where the list of processes shows it to everyone: leave it out and \
                 name a file that holds it in broker.password_file, or give the whole address in the environment or file",
            );
            return Err(ConfigError::Value { section: "broker", key, problem });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Configuration, tests::load};

    #[test]
    fn a_broker_url_is_checked_and_formatted_without_its_password() {
        let settings = |url: &str| load(&[("broker.url", url)]).unwrap().section::<BrokerSettings>();
        for wrong in [
            "u:hunter2@host:5672",
            "amqp://host/",
            "http://host",
            "host:5672",
            "amqp://[::1]:5672/%2f",
            "amqp://u:hunter2@host/",
        ] {
            let error = settings(wrong).unwrap_err().to_string();
            assert!(error.contains("broker.url") && !error.contains("hunter2"), "{error}");
        }
        let good = settings("amqps://u:hunter2@host:5671/%2f").unwrap();
        assert_eq!(good.url.to_string(), "amqps://u:…@host:5671/%2f");
        assert!(!format!("{good:?}{}", serde_json::to_string(&good).unwrap()).contains("hunter2"));
    }

    #[test]
    fn a_namespace_is_a_prefix_that_the_broker_allows() {
        let settings = |namespace: &str| load(&[("broker.namespace", namespace)]).unwrap().section::<BrokerSettings>();
        for wrong in ["amq.", "amq.gen-fleet.", "a b", &"x".repeat(65)] {
            let error = settings(wrong).unwrap_err().to_string();
            assert!(error.contains("broker.namespace"), "{error}");
        }
        for fine in ["", "fleet.", "amqp.", "a.amq."] {
            assert_eq!(settings(fine).unwrap().namespace, fine);
        }
    }

    #[test]
    fn inconsistent_credentials_are_refused_with_their_setting() {
        for (pairs, expected) in [
            (&[("url", "amqp://u:hunter2@h"), ("password_file", "/p")][..], "no password in it"),
            (&[("url", "amqp://h"), ("password_file", "/p")][..], "the user whose password"),
            (&[("url", "amqp://u@h"), ("ca_file", "/ca.pem")][..], "amqps://"),
            (&[("url", "amqps://u@h"), ("client_certificate_file", "/c.pem")][..], "broker.client_key_file"),
            (&[("url", "amqps://u@h"), ("client_key_file", "/k.pem")][..], "broker.client_certificate_file"),
        ] {
            let keys: Vec<_> =
                pairs.iter().map(|(key, value)| (format!("broker.{key}"), (*value).to_owned())).collect();
            let error = Configuration::load(None, &keys).unwrap().section::<BrokerSettings>().unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_on_the_command_line_is_refused() {
        let checked = |url: &str| refuse_visible_password(&[("broker.url".to_owned(), url.to_owned())]);
        let error = checked("amqp://u:hunter2@h/%2f").unwrap_err().to_string();
        assert!(error.contains("broker.password_file") && !error.contains("hunter2"), "{error}");
        for fine in ["amqp://u@h", "amqp://h", "amqp://guest:guest@127.0.0.1/%2f"] {
            checked(fine).unwrap();
        }
    }
}
