//! Several numbers in one setting: a number, a list, or a text of numbers separated by commas, as in an environment variable.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(f64),
    Many(Vec<f64>),
    Text(String),
}

pub(super) fn serialize<S: Serializer>(numbers: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    numbers.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    Ok(match Input::deserialize(deserializer)? {
        Input::One(number) => vec![number],
        Input::Many(numbers) => numbers,
        Input::Text(text) => {
            let number =
                |part: &str| part.trim().parse().map_err(|_| D::Error::custom(format!("{part:?} is not a number")));
            text.trim_matches(['[', ']']).split(',').map(number).collect::<Result<_, _>>()?
        }
    })
}
