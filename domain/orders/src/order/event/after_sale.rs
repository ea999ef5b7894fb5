//! What happens to an order's pieces after they were dispatched, other than that they arrive.

use super::StockLine;
use crate::id::{CaptureId, CustomerId, LineNo, PaymentId, ReceiptId, RefundId, ShipmentId};
use crate::money::Amount;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReturnRequested {
    /// The number of the return within its order, from 1.
    pub return_no: u32,
    pub lines: Vec<ReturnLine>,
    pub reason: ReturnReason,
}

/// A number of pieces of a line that the customer sends back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReturnLine {
    pub line: LineNo,
    pub quantity: u32,
}

/// Why pieces are sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReturnReason {
    Unwanted,
    Damaged,
    WrongItem,
    NotAsDescribed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReturnApproved {
    pub return_no: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReturnReceived {
    pub return_no: u32,
    /// The parcel that they came with: it is taken in once.
    pub receipt_id: ReceiptId,
    pub customer_id: CustomerId,
    pub lines: Vec<ReceivedLine>,
    pub refunds: Vec<RefundShare>,
    /// The pieces that can be sold again.
    pub restock: Vec<StockLine>,
}

/// A number of pieces of a line that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReceivedLine {
    pub line: LineNo,
    pub quantity: u32,
    /// How many of them can be sold again.
    pub usable: u32,
}

/// What is given back of what was captured of a payment for a shipment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefundShare {
    pub payment_id: PaymentId,
    pub capture_id: CaptureId,
    pub refund_id: RefundId,
    pub amount: Amount,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LinesLost {
    pub shipment_id: ShipmentId,
    pub customer_id: CustomerId,
    pub lines: Vec<LineNo>,
    pub refunds: Vec<RefundShare>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LinesReturnedToSender {
    pub shipment_id: ShipmentId,
    pub customer_id: CustomerId,
    pub lines: Vec<LineNo>,
    pub refunds: Vec<RefundShare>,
    pub restock: Vec<StockLine>,
}
