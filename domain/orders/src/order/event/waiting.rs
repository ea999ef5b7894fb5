//! What an order waits for: that a hold is released, that somebody approves it, that it is paid, that stock comes in.

use super::StockLine;
use crate::id::{CustomerId, LineNo, PaymentId, ShipmentId};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HoldPlaced {
    pub reason: HoldReason,
    /// Which time the order is on hold, from 1; one time may have several reasons.
    pub hold: u32,
    /// The shipments that must wait now; none as long as the order is not confirmed.
    pub shipments: Vec<ShipmentId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HoldReleased {
    pub reason: HoldReason,
    /// Which time the order is on hold, from 1.
    pub hold: u32,
    /// The shipments that need wait no longer; none if another reason is left.
    pub shipments: Vec<ShipmentId>,
    /// What the order is then.
    pub then: Life,
}

/// Why an order is on hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    Fraud,
    Address,
    Payment,
    Stock,
    Manual,
}

/// Where an order is that has not ended, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Life {
    Placed,
    AwaitingApproval,
    OnHold,
    Confirmed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ApprovalRequested {
    /// The number of the approval within its order, from 1.
    pub approval: u32,
    /// How long it may take, in seconds from the recording.
    pub within_seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ApprovalGranted {
    pub approval: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ApprovalDenied {
    pub approval: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ApprovalTimedOut {
    pub approval: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderExpired {
    pub customer_id: CustomerId,
    /// The order's payments, whose money is to be let go.
    pub payments: Vec<PaymentId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LinesBackordered {
    /// What is to wait for stock.
    pub short: Vec<StockLine>,
    /// What is to be reserved at once.
    pub rest: Vec<StockLine>,
    /// How long the stock is to be held, in seconds from the reservation's recording.
    pub hold_seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BackorderFilled {
    pub lines: Vec<LineNo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RestReserved {
    pub lines: Vec<LineNo>,
}
