//! Reads a JSON document of a forecast service.

use crate::formats::{
    left_out::LeftOut,
    lines::{Parsed, Text},
    malformed::Malformed,
};
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// A JSON document that is collected and then read as a `T`.
#[derive(Debug)]
pub struct Json<T>(Vec<u8>, PhantomData<fn() -> T>);

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self(Vec::new(), PhantomData)
    }
}

impl<T: DeserializeOwned + Send> Text for Json<T> {
    type Output = T;
    const NAME: &'static str = "forecast";
    /// A gridpoint of the National Weather Service, with all its elements, has about 500,000.
    const BYTES_MAX: u64 = 8 * 1024 * 1024;

    fn feed(&mut self, piece: &[u8]) -> Result<(), Malformed> {
        self.0.extend_from_slice(piece);
        Ok(())
    }

    fn finish(self) -> Result<Parsed<T>, Malformed> {
        let value = serde_json::from_slice(&self.0).map_err(|error| Malformed::new(0, "", error))?;
        Ok(Parsed { value, left_out: LeftOut::default() })
    }
}
