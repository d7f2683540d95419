//! The job: submits rides and follows each batch to its dataset and its model. Depends on `session`, `output`, `arguments`,
//! `generate` and `model`.
//!
//! ```text
//! run, demo, bench       the whole job in this process    ingest          with a fleet
//! input, submit          files become batches             follow, missed  until their datasets and models
//! refresh, schedule      batches are joined again         recheck         whether that would change anything
//! waits, progress        what is shown meanwhile          report          the result
//! fleet, serve           the workers and the gateway      earlier         a dataset of an earlier command
//! ```

mod bench;
pub(crate) mod dead_letters;
mod demo;
mod earlier;
pub(crate) mod fleet;
mod follow;
mod in_process;
mod ingest;
mod input;
mod missed;
mod options;
mod outcome;
mod progress;
mod recheck;
mod refresh;
mod report;
mod run;
pub(crate) mod schedule;
pub(crate) mod serve;
mod submit;
#[cfg(test)]
mod tests;
mod waits;

pub(crate) use bench::bench;
pub(crate) use demo::demo;
pub(crate) use follow::Follower;
pub(crate) use ingest::{follow_to_the_end, ingest, print_submitted};
pub(crate) use options::{FollowOptions, Goal};
pub(crate) use outcome::Submission;
pub(crate) use refresh::refresh;
pub(crate) use report::warning_in_words;
pub(crate) use run::run;
