//! What is wrong with a command, whatever the state is.

use serde::{Deserialize, Serialize};

/// A field of a command that is wrong whatever the state is, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The path of the field, `lines[0].quantity`.
    pub field: String,
    /// What it should be.
    pub expected: String,
}

impl Fault {
    pub fn new(field: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field: field.into(), expected: expected.into() }
    }
}
