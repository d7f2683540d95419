//! `config reference`: prints all settings with type, unit, range and default.

#[cfg(test)]
mod tests;

use crate::{
    arguments::ConfigCommand,
    output::print_json,
    session::{Failed, Session},
};
use records::StoreSettings;
use runtime::config::{
    BrokerSettings, ENVIRONMENT_PREFIX, LogSettings, RunSettings, SECTIONS, Settings, TelemetrySettings,
    reference::Entry,
};
use serde::Serialize;
use serde_json::Value;

/// One setting, as it is printed.
#[derive(Debug, Clone, Serialize)]
struct Setting {
    section: &'static str,
    key: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Unit of a number or form of a text.
    unit: &'static str,
    /// The accepted numbers, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    /// `null` if there is none.
    default: Value,
    meaning: &'static str,
}

fn default<S: Settings>() -> Value {
    serde_json::to_value(S::default()).unwrap_or_default()
}

/// Returns the entries and default values of each section, in the order of [`SECTIONS`].
fn sections() -> [(&'static str, &'static [Entry], Value); SECTIONS.len()] {
    fn of<S: Settings>() -> (&'static str, &'static [Entry], Value) {
        (S::SECTION, S::REFERENCE, default::<S>())
    }
    [
        of::<BrokerSettings>(),
        of::<StoreSettings>(),
        of::<RunSettings>(),
        of::<LogSettings>(),
        of::<TelemetrySettings>(),
        of::<splitter::Settings>(),
        of::<weather_fetcher::Settings>(),
        of::<merger::Settings>(),
        of::<trainer::settings::Settings>(),
        of::<scorer::Settings>(),
        of::<gateway::settings::Settings>(),
    ]
}

/// Returns all settings, section by section.
fn settings() -> Vec<Setting> {
    let of = |(section, entries, defaults): (&'static str, &'static [Entry], Value)| {
        entries.iter().map(move |Entry { key, kind, unit, meaning }| {
            let default = defaults[key].clone();
            Setting { section, key, kind: kind.name(), unit, range: kind.range(), default, meaning }
        })
    };
    sections().into_iter().flat_map(of).collect()
}

/// `config`
pub(crate) fn config(session: &Session, command: &ConfigCommand) -> Result<(), Failed> {
    let ConfigCommand::Reference { section } = command;
    if let Some(section) = section
        && !SECTIONS.contains(&section.as_str())
    {
        let why = format!("no section {section:?}: expected one of {}", SECTIONS.join(", "));
        return Err(Failed::Misused(anyhow::anyhow!(why)));
    }
    let mut settings = settings();
    settings.retain(|setting| section.as_ref().is_none_or(|section| section == setting.section));
    if session.shared.json {
        print_json(&settings)?;
    } else {
        print!("{}", as_toml(&settings));
    }
    Ok(())
}

/// Formats a configuration file with every setting commented out. Set defaults would change behaviour: `status` asks the
/// broker if `broker.url` is set.
fn as_toml(settings: &[Setting]) -> String {
    let mut text = format!(
        "# Every setting with its default. Remove the # before a key to change it. Each is also an environment variable,\n\
         # {ENVIRONMENT_PREFIX}__SECTION__KEY, and an option, --set section.key=value, which wins over the variable, which wins\n\
         # over the file (--config FILE).\n"
    );
    let mut section = "";
    for setting in settings {
        if setting.section != section {
            section = setting.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let Setting { key, kind, unit, range, default, meaning, .. } = setting;
        let range = range.as_ref().map_or(String::new(), |range| format!(", {range}"));
        let (value, note) = match default {
            Value::Null => (String::new(), "; no default".to_owned()),
            // The password of a default is not printed, so the printed text is not the default.
            Value::String(redacted) if redacted.contains('…') => (String::new(), format!("; default {redacted}")),
            default => (format!(" {default}"), String::new()),
        };
        text.push_str(&format!("# {meaning} ({kind}, {unit}{range}{note})\n#{key} ={value}\n"));
    }
    text
}
