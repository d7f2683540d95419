//! Configuration: defaults, then a TOML file, then `WILDRYDES__SECTION__KEY` environment variables, then flags.
//!
//! Every section is a plain struct with a default; it is read once at start, checked, and an error names the key, the
//! value and what would be right.

mod broker;
mod error;
mod load;
mod sections;
mod settings;

pub use broker::{AmqpUrl, BrokerSettings, Declare, refuse_visible_password};
pub use error::{ConfigError, ENVIRONMENT_PREFIX, SECTIONS};
pub use load::{Configuration, parse_override};
pub use sections::{LogFormat, LogSettings, RunSettings};
pub use settings::{Problem, Settings};

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(pairs: &[(&str, &str)]) -> Result<Configuration, ConfigError> {
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
    fn a_whole_number_is_not_made_of_anything_else() {
        for wrong in ["1.5", "-0.5", "true", "1e-3"] {
            for key in ["run.prefetch", "broker.confirm_timeout_ms"] {
                let configuration = load(&[(key, wrong)]).unwrap();
                let told = match key {
                    "run.prefetch" => configuration.section::<RunSettings>().map(drop),
                    _ => configuration.section::<BrokerSettings>().map(drop),
                };
                let told = told.expect_err(wrong).to_string();
                assert!(told.contains(key) && told.contains("a whole number"), "{wrong}: {told}");
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.toml");
        std::fs::write(&path, "[run]\nprefetch = 2.5\n").unwrap();
        let told = Configuration::load(Some(&path), &[]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        assert!(told.contains("run.prefetch = 2.5") && told.contains("WILDRYDES__RUN__PREFETCH"), "{told}");
        assert_eq!(load(&[("run.prefetch", "9")]).unwrap().section::<RunSettings>().unwrap().prefetch, Some(9));
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
        let told = load(&[("broker", "amqp://u:hunter2@h")]).unwrap().section::<BrokerSettings>();
        let told = told.unwrap_err().to_string();
        assert!(told.contains("[broker]") && !told.contains("hunter2"), "{told}");
    }
}
