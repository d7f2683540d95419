//! Configuration in layers: defaults, a TOML file, `WILDRYDES__SECTION__KEY` environment variables, command line flags;
//! later layers override earlier ones.
//!
//! Every section is a plain struct with defaults and a [reference] of its settings. It is read and checked once at start;
//! an error names the key, the value and the expected value.

mod broker;
mod error;
mod load;
mod problem;
pub mod reference;
mod sections;
mod settings;

pub use broker::{AmqpUrl, BrokerSettings, Declare, refuse_visible_password};
pub use error::{ConfigError, ENVIRONMENT_PREFIX, SECTIONS};
pub use load::{Configuration, parse_override};
pub use problem::Problem;
pub use sections::{LogFormat, LogSettings, RunSettings, TelemetrySettings};
pub use settings::{Settings, list};

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(pairs: &[(&str, &str)]) -> Result<Configuration, ConfigError> {
        let overrides: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Configuration::load(None, &overrides)
    }

    #[test]
    fn overrides_take_precedence_over_defaults() {
        let configuration = load(&[("broker.confirm_timeout_ms", "500")]).unwrap();
        let broker: BrokerSettings = configuration.section().unwrap();
        assert_eq!((broker.confirm_timeout_ms, broker.connect_timeout_ms), (500, 10_000));
        assert_eq!(configuration.section::<RunSettings>().unwrap().drain_deadline_ms, 20_000);
    }

    #[test]
    fn an_invalid_file_is_reported_with_its_line_number_and_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.toml");
        std::fs::write(&path, "[run]\n[broker]\nurl = \"amqp://u:hunter2@h/%2f\n").unwrap();
        let error = Configuration::load(Some(&path), &[]).unwrap_err().to_string();
        assert!(error.contains("broken.toml") && error.contains("line 3") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn overrides_take_precedence_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.toml");
        std::fs::write(&path, "[run]\nconcurrency = 3\nprefetch = 9\n[store]\nurl = \"/tmp/x\"\n").unwrap();
        let overrides = [("run.prefetch".to_owned(), "7".to_owned())];
        let configuration = Configuration::load(Some(&path), &overrides).unwrap();
        let run: RunSettings = configuration.section().unwrap();
        assert_eq!((run.concurrency, run.prefetch), (Some(3), Some(7)));
    }

    #[test]
    fn a_whole_number_accepts_no_other_type() {
        for wrong in ["1.5", "-0.5", "true", "1e-3"] {
            for key in ["run.prefetch", "broker.confirm_timeout_ms"] {
                let configuration = load(&[(key, wrong)]).unwrap();
                let result = match key {
                    "run.prefetch" => configuration.section::<RunSettings>().map(drop),
                    _ => configuration.section::<BrokerSettings>().map(drop),
                };
                let error = result.expect_err(wrong).to_string();
                assert!(error.contains(key) && error.contains("a whole number"), "{wrong}: {error}");
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.toml");
        std::fs::write(&path, "[run]\nprefetch = 2.5\n").unwrap();
        let error = Configuration::load(Some(&path), &[]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        assert!(error.contains("run.prefetch = 2.5") && error.contains("WILDRYDES__RUN__PREFETCH"), "{error}");
        assert_eq!(load(&[("run.prefetch", "9")]).unwrap().section::<RunSettings>().unwrap().prefetch, Some(9));
    }

    #[test]
    fn errors_name_the_key_the_value_and_the_expected_value() {
        let error = load(&[("run.prefetch", "0")]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        for part in ["run.prefetch = 0", "1 to 10000", "WILDRYDES__RUN__PREFETCH", "--set run.prefetch"] {
            assert!(error.contains(part), "{error}");
        }
        let error = load(&[("run.prefech", "1")]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        assert!(error.contains("prefech") && error.contains("prefetch"), "{error}");
        let error = load(&[("runn.prefetch", "1")]).unwrap_err().to_string();
        assert!(error.contains("runn") && error.contains("weather"), "{error}");
        let error = load(&[("run.prefetch", "many")]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        assert!(error.contains("many") && error.contains("prefetch"), "{error}");
        let result = load(&[("broker", "amqp://u:hunter2@h")]).unwrap().section::<BrokerSettings>();
        let error = result.unwrap_err().to_string();
        assert!(error.contains("[broker]") && !error.contains("hunter2"), "{error}");
    }
}
