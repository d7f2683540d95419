//! Scores a ride: by the fleet, by a gateway over HTTP, or in this process. Depends on `session`, `output` and `arguments`.

pub(crate) mod remote;
mod score;
mod weather;

pub(crate) use score::score;
pub(crate) use weather::in_words as weather_in_words;
