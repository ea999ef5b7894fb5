//! Why a command is refused: typed, with the values that matter.

use crate::{order, payment, shipment, stock};
use serde::{Deserialize, Serialize};

/// A command that cannot be done in the present state. Its JSON holds `reason` (a stable code) and the values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(untagged)]
#[error(transparent)]
pub enum Rejection {
    Order(#[from] order::Rejection),
    Payment(#[from] payment::Rejection),
    Stock(#[from] stock::Rejection),
    Shipment(#[from] shipment::Rejection),
}

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
