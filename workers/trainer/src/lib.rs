//! Trains the model that predicts how likely a ride is to end in a service request.
//!
//! ```text
//! dataset-ready ─▶ manifests of all datasets ─▶ model id
//!                                                 │ already decided? ────────────────────────┐
//!            data      files or cache ─▶ rides    │                                          │
//!                         train / held out        ▼                                          ▼
//!            artefact  select ─▶ fit ─▶ evaluate ─▶ global model ─▶ model.json
//!            release      └─ breed models, shrunk towards the global model │
//!                      verdict against the champion ─▶ champion or challenger ─▶ model-promoted / -rejected
//!                         └─ no model ─▶ rejected.json ─▶ model-rejected
//! ```
//!
//! | folder or file | content |
//! |---|---|
//! | [`data`] | datasets become rides |
//! | [`fit`] | rides become coefficients; pure |
//! | [`select`] | penalty and threshold by cross-validation; pure |
//! | [`evaluate`] | metrics, curves, intervals, evidence; pure |
//! | [`artefact`] | all of these to one artefact; pure |
//! | [`release`] | breed models, registry, verdict, promotion |
//! | [`report`] | the page that shows a model; pure |
//! | [`settings`], [`process`] | the section `[trainer]`; the process |
//! | [`worker`] | the worker: one message, one training |
//!
//! A model and its id are a pure function of its dataset manifests and settings. A set of datasets that has a model or a refusal is not
//! trained on again, however many messages announce its datasets. Two processes that start on the same set at the same time both train,
//! and write the same bytes.

pub mod artefact;
pub mod data;
pub mod evaluate;
pub mod fit;
pub mod process;
pub mod release;
pub mod report;
pub mod select;
pub mod settings;
pub mod worker;

pub use settings::Settings;
pub use worker::Trainer;
