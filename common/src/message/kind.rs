//! The wire name of a message.

use std::fmt;

/// Name and major version of a message, written `name.vN`: its wire name, routing key and schema name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// Name in kebab case.
    pub name: &'static str,
    /// Major version.
    pub major: u16,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.v{}", self.name, self.major)
    }
}

impl Kind {
    /// Returns whether the message is a request, which a worker answers.
    pub fn is_request(self) -> bool {
        self.name.ends_with("-request")
    }
}
