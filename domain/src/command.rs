//! Any command of the domain, with what it is aimed at.

use crate::id::{OrderId, PaymentId, ShipmentId};
use crate::{order, payment, shipment, stock};
use serde::{Deserialize, Serialize};

/// A command and its target. Its JSON is stored with a follow-up and is what a command's fingerprint is taken of, so a
/// new field is optional and left out of the JSON when it is not given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Order {
        id: OrderId,
        command: order::Command,
    },
    /// Aimed at the order and at its shipments: refused once anything was dispatched.
    CancelOrder {
        id: OrderId,
        reason: order::CancelReason,
    },
    Payment {
        id: PaymentId,
        command: payment::Command,
    },
    /// Aimed at the streams of all SKUs that it names.
    Stock(stock::Command),
    Shipment {
        id: ShipmentId,
        command: shipment::Command,
    },
}
