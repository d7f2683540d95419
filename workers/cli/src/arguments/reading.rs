//! Options for files whose rides the default reading does not find.

use clap::Args;
use common::reading::{InvalidExpression, Mapping, Reading, RidesAt};

/// The place of the rides in a document, and the keys of their fields.
#[derive(Debug, Clone, Default, Args)]
pub struct ReadingOptions {
    /// Path to the array of rides, as in `--rides-at data`, `--rides-at payload.items` or
    /// `--rides-at 'features[].properties'` [default: an array, `rides`, `travel_data`, or objects one after the other]
    #[arg(long, value_name = "PATH", requires = "files")]
    pub rides_at: Option<RidesAt>,
    /// Key or path that a field of a ride is read from, a number optionally multiplied or divided by a factor; can be
    /// repeated, as in `--map latitude=lat --map 'distance=km*0.621371'` [default: the field's own name]
    #[arg(long, value_name = "FIELD=SOURCE", requires = "files", value_parser = entry)]
    pub map: Vec<String>,
}

/// Checks one `FIELD=SOURCE`.
fn entry(text: &str) -> Result<String, InvalidExpression> {
    Mapping::default().add(text).map(|()| text.to_owned())
}

impl ReadingOptions {
    /// Combines the options into one reading.
    ///
    /// # Errors
    /// Fails if a field is mapped twice.
    pub fn reading(&self) -> Result<Reading, InvalidExpression> {
        let mut map = Mapping::default();
        for entry in &self.map {
            map.add(entry)?;
        }
        Ok(Reading { rides_at: self.rides_at.clone(), map })
    }
}

#[cfg(test)]
mod tests {
    use crate::arguments::{Arguments, Command};
    use clap::Parser;

    fn parsed(more: &[&str]) -> Result<Arguments, String> {
        let all = ["wildrydes", "run", "rides.json"].iter().chain(more);
        Arguments::try_parse_from(all).map_err(|error| error.to_string())
    }

    #[test]
    fn options_combine_into_one_reading() {
        let Arguments { command: Command::Run(run), .. } =
            parsed(&["--rides-at", "features[].properties", "--map", "Latitude=lat", "--map", "distance=km*0.621371"])
                .unwrap()
        else {
            panic!("run")
        };
        let reading = run.reading.reading().unwrap();
        assert_eq!(
            reading.to_string(),
            "--rides-at features[].properties --map distance=km*0.621371 --map latitude=lat"
        );
    }

    #[test]
    fn invalid_expression_names_the_valid_form() {
        for (arguments, expected) in [
            (["--rides-at", "data[0]"], "the path of member names to the array of rides"),
            (["--map", "latitude"], "FIELD=SOURCE"),
            (["--map", "altitude=alt"], "a field of a ride: ride_id"),
            (["--map", "statustime=ts*1000"], "a key without a factor"),
        ] {
            let error = parsed(&arguments).unwrap_err();
            assert!(error.contains(expected) && error.contains(arguments[1]), "{error}");
        }
        let Command::Run(twice) = parsed(&["--map", "latitude=a", "--map", "latitude=b"]).unwrap().command else {
            panic!("run")
        };
        assert!(twice.reading.reading().unwrap_err().to_string().contains("each field once"));
        let error = Arguments::try_parse_from(["wildrydes", "run", "--serve", "--rides-at", "data"]).unwrap_err();
        assert!(error.to_string().contains("FILE"), "{error}");
    }
}
