//! Any command of the domain, with what it is aimed at.

use crate::id::{AddressId, LineNo, OrderId, PaymentId, ShipmentId};
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
    /// Aimed at the order and at its shipments, as all that changes them: the order goes on without these lines.
    CancelLines {
        id: OrderId,
        lines: Vec<LineNo>,
        reason: order::CancelReason,
    },
    /// The order is now what the edit proposed.
    ConfirmEdit {
        id: OrderId,
        edit: u32,
    },
    /// The order is to be shipped elsewhere.
    ChangeAddress {
        id: OrderId,
        address_id: AddressId,
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
