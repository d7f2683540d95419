//! Joined datasets for a notebook, as a file and in numbers. Depends on `session`, `output` and `arguments`.

mod dataset;
mod describe;
mod dictionary;
mod export;

pub(crate) use describe::describe;
pub(crate) use export::export;
