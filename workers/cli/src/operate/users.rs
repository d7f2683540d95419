//! `topology users`: prints the users of the fleet and their permissions, also for import into RabbitMQ.

use crate::{
    arguments::Users,
    output::print_json,
    session::{Failed, Session},
};
use anyhow::{Context, anyhow, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use common::permissions::{Permissions, UserPermissions};
use gateway::management::Management;
use runtime::{config::BrokerSettings, host};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Number of characters of a generated password: 190 bits.
const PASSWORD_LETTERS: usize = 32;

/// `topology users`
pub(crate) async fn users(session: &Session, options: &Users) -> Result<(), Failed> {
    let Permissions { users } = Permissions::of_fleet(&session.section::<BrokerSettings>()?.namespace);
    let virtual_host = session.broker()?.virtual_host()?;
    if options.generate
        && let Some(folder) = &options.passwords
    {
        for user in &users {
            generate(&password_file(folder, user))?;
        }
    }
    if options.definitions {
        let folder = options.passwords.as_deref().context("--definitions needs --passwords")?;
        print_json(&definitions(&users, &virtual_host, folder)?)?;
    } else if options.import {
        let folder = options.passwords.as_deref().context("--import needs --passwords")?;
        let management = Management::new(&session.section::<BrokerSettings>()?).map_err(Failed::Misused)?;
        management.import(&definitions(&users, &virtual_host, folder)?).await.map_err(|why| anyhow!(why))?;
        println!("{} users and their permissions on {virtual_host} are imported", users.len());
    } else if options.rabbitmqctl {
        print!("{}", commands(&users, &virtual_host, options.passwords.as_deref())?);
    } else if session.shared.json {
        print_json(&json!({ "virtual_host": virtual_host, "users": users }))?;
    } else {
        print!("{}", table(&users)?);
    }
    Ok(())
}

fn table(users: &[UserPermissions]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for user in users {
        let tags = if user.tags.is_empty() { String::new() } else { format!("   ({})", user.tags.join(", ")) };
        writeln!(text, "{}{tags}", user.user)?;
        for (what, pattern) in [("configure", &user.configure), ("write", &user.write), ("read", &user.read)] {
            writeln!(text, "  {what:<12}{pattern}")?;
        }
        for topic in &user.topics {
            writeln!(text, "  {:<12}write {}   read {}", format!("at {}", topic.exchange), topic.write, topic.read)?;
        }
    }
    Ok(text)
}

/// Returns definitions for `load_definitions` and `rabbitmqctl import_definitions`.
fn definitions(users: &[UserPermissions], virtual_host: &str, passwords: &Path) -> anyhow::Result<Value> {
    let mut definitions = Vec::new();
    for user in users {
        let password = read(&password_file(passwords, user))?;
        definitions.push(json!({
            "name": user.user,
            "password_hash": hash(&password, host::random_range(0..=u32::MAX)),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": user.tags.join(","),
        }));
    }
    let permissions: Vec<Value> = users
        .iter()
        .map(|user| {
            json!({
                "user": user.user, "vhost": virtual_host,
                "configure": user.configure, "write": user.write, "read": user.read,
            })
        })
        .collect();
    let topics = users.iter().flat_map(|user| user.topics.iter().map(move |topic| (user, topic)));
    let topic_permissions: Vec<Value> = topics
        .map(|(user, topic)| {
            json!({
                "user": user.user, "vhost": virtual_host,
                "exchange": topic.exchange, "write": topic.write, "read": topic.read,
            })
        })
        .collect();
    Ok(json!({
        "vhosts": [{ "name": virtual_host }],
        "users": definitions,
        "permissions": permissions,
        "topic_permissions": topic_permissions,
    }))
}

/// Hashes a password as RabbitMQ does: Base64 of a salt of four bytes and the SHA-256 of salt and password.
fn hash(password: &str, salt: u32) -> String {
    let salt = salt.to_be_bytes();
    let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
    BASE64_STANDARD.encode([&salt[..], &digest[..]].concat())
}

/// Returns shell commands for the broker's machine. They read passwords from files and contain none.
fn commands(
    users: &[UserPermissions],
    virtual_host: &str,
    passwords: Option<&Path>,
) -> Result<String, std::fmt::Error> {
    let folder = passwords.unwrap_or(Path::new("PASSWORDS"));
    let virtual_host = shell(virtual_host);
    let mut text = String::new();
    for user in users {
        let name = shell(&user.user);
        writeln!(text, "rabbitmqctl add_user {name} < {}", shell(&password_file(folder, user).display().to_string()))?;
        if !user.tags.is_empty() {
            writeln!(text, "rabbitmqctl set_user_tags {name} {}", user.tags.join(" "))?;
        }
        let [configure, write, read] = [&user.configure, &user.write, &user.read].map(|pattern| shell(pattern));
        writeln!(text, "rabbitmqctl set_permissions -p {virtual_host} {name} {configure} {write} {read}")?;
        for topic in &user.topics {
            let [exchange, write, read] = [&topic.exchange, &topic.write, &topic.read].map(|text| shell(text));
            writeln!(text, "rabbitmqctl set_topic_permissions -p {virtual_host} {name} {exchange} {write} {read}")?;
        }
    }
    Ok(text)
}

/// Quotes a word for a POSIX shell.
fn shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn password_file(folder: &Path, user: &UserPermissions) -> PathBuf {
    folder.join(&user.user).join("password")
}

fn read(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("{}: write the password to this file, or add --generate", file.display()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => bail!("{}: the file contains no password", file.display()),
        password => Ok(password.to_owned()),
    }
}

/// Generates a password unless the file exists. Only its owner can read the file.
fn generate(file: &Path) -> anyhow::Result<()> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    if file.exists() {
        return Ok(());
    }
    let about = || file.display().to_string();
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(about)?;
    }
    let password: String = (0..PASSWORD_LETTERS)
        .filter_map(|_| LETTERS.get(host::random_range(0..LETTERS.len())).map(|letter| char::from(*letter)))
        .collect();
    let mut created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).with_context(about)?;
    writeln!(created, "{password}").with_context(about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hashed_as_in_rabbitmq() {
        // The example in RabbitMQ's password guide: `test12` with the salt 908DC60A.
        assert_eq!(hash("test12", 0x908D_C60A), "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
    }

    #[test]
    fn password_is_generated_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("splitter/password");
        generate(&file).unwrap();
        let first = read(&file).unwrap();
        generate(&file).unwrap();
        assert_eq!((first.len(), read(&file).unwrap()), (PASSWORD_LETTERS, first));
    }

    #[test]
    fn shell_words_are_quoted() {
        assert_eq!(shell("^a|b'c$"), r"'^a|b'\''c$'");
    }
}
