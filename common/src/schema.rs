//! The JSON Schemas of all messages and stored documents, embedded.
//!
//! A type gets its schema from a row in the table of its folder: `messages!` in `message`, `documents!` in `document`.

mod all;
#[cfg(test)]
pub(crate) mod generate;

pub use all::SCHEMAS;

use serde_json::Value;

/// One JSON Schema (draft 2020-12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// `name.vN`, as in the `type` of a message and the member `schema` of a document.
    pub name: &'static str,
    /// The schema itself, JSON.
    pub text: &'static str,
}

/// A message or stored document, which a schema describes.
pub trait Described {
    /// The schema of the JSON form.
    const SCHEMA: Schema;
}

/// Names the schema of each type, `<name>.json` in the folder `schemas`, and embeds it. A row says whether the schema is
/// `written` by hand or `generated` from the type.
macro_rules! described {
    ($($described:ty = $origin:ident $($name:literal)+,)*) => {
        $(impl $crate::schema::Described for $described {
            const SCHEMA: $crate::schema::Schema = $crate::schema::Schema {
                name: concat!($($name),+),
                text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/", $($name,)+ ".json")),
            };
        })*

        /// The schemas of the table.
        pub(crate) const SCHEMAS: &[$crate::schema::Schema] =
            &[$(<$described as $crate::schema::Described>::SCHEMA),*];

        /// Returns each generated schema of the table with the text that its type gives now.
        #[cfg(test)]
        pub(crate) fn generated() -> Vec<($crate::schema::Schema, String)> {
            [$($crate::schema::generated!($origin $described)),*].into_iter().flatten().collect()
        }
    };
}
pub(crate) use described;

/// Generates the schema of a type, if the origin of its row says so.
#[cfg(test)]
macro_rules! generated {
    (written $described:ty) => {
        None
    };
    (generated $described:ty) => {
        Some($crate::schema::generate::generated::<$described>())
    };
}
#[cfg(test)]
pub(crate) use generated;

impl Schema {
    /// Returns the first sentence of the description, without its full stop.
    pub fn summary(&self) -> String {
        let value: Value = serde_json::from_str(self.text).unwrap_or_default();
        let description = value["description"].as_str().unwrap_or_default();
        description.split_once(". ").map_or(description, |(first, _)| first).trim_end_matches('.').to_owned()
    }
}
