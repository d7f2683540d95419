//! `schema`: lists and prints the JSON Schemas of messages and stored documents.

use crate::session::{Failed, Session};
use anyhow::anyhow;
use common::schema::{SCHEMAS, Schema};
use serde_json::{Value, json};

/// `schema`
pub(crate) fn schema(session: &Session, name: Option<&str>) -> Result<(), Failed> {
    match name {
        Some(name) => {
            let names = || SCHEMAS.iter().map(|schema| schema.name).collect::<Vec<_>>().join(", ");
            let schema = Schema::named(name)
                .ok_or_else(|| Failed::Misused(anyhow!("there is no schema {name:?}: expected one of {}", names())))?;
            println!("{}", schema.text.trim_end());
        }
        None if session.shared.json => {
            let list: Vec<Value> =
                SCHEMAS.iter().map(|schema| json!({ "name": schema.name, "summary": schema.summary() })).collect();
            println!("{}", Value::from(list));
        }
        None => {
            for schema in &*SCHEMAS {
                println!("{:<24}{}", schema.name, schema.summary());
            }
        }
    }
    Ok(())
}
