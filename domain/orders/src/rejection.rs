//! Why a command is refused: typed, with the values that matter.

use crate::{order, payment, shipment, stock};
use serde::Serialize;

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

impl Rejection {
    /// Whether it is about something that ends by itself, so that the same command may succeed a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Order(rejection) => rejection.is_passing(),
            Self::Payment(_) | Self::Stock(_) | Self::Shipment(_) => false,
        }
    }
}
