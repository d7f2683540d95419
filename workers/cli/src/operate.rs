//! The operator's commands. Depends on all other rooms but `notebook`, `model` and `generate`.

mod control;
mod dead;
mod doctor;
mod key;
mod manifests;
mod reference;
mod replay;
mod schema;
mod status;
mod store;
mod topology;
mod up;
mod users;

pub(crate) use control::{drain, pause, resume};
pub(crate) use dead::dead;
pub(crate) use doctor::doctor;
pub(crate) use key::key;
pub(crate) use reference::config;
pub(crate) use replay::replay;
pub(crate) use schema::schema;
pub(crate) use status::status;
pub(crate) use store::store;
pub(crate) use topology::topology;
pub(crate) use up::up;
