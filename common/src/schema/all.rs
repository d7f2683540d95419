//! All schemas. Depends on `message`, `document` and `delivery`.

use crate::{delivery::dead_letter, document, message, schema::Schema};
use std::sync::LazyLock;

/// All schemas, sorted by name.
pub static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    let mut schemas = [message::SCHEMAS, document::SCHEMAS, dead_letter::SCHEMAS].concat();
    schemas.sort_by_key(|schema| schema.name);
    schemas
});

impl Schema {
    /// Returns the schema of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SCHEMAS.iter().find(|schema| schema.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn schemas_have_distinct_names_and_are_described() {
        assert!(SCHEMAS.is_sorted_by(|a, b| a.name < b.name));
        for schema in &*SCHEMAS {
            let value: Value = serde_json::from_str(schema.text).unwrap();
            assert_eq!(value["$id"], format!("urn:wildrydes:{}", schema.name));
            assert!(!schema.summary().is_empty(), "{} has no description", schema.name);
        }
    }
}
