//! What can happen to the stock of a SKU. These shapes are stored for ever.

use crate::aggregate::events;
use crate::id::{LineNo, OrderId, RestockId, Sku};
use serde::{Deserialize, Serialize};

events! {
    /// Pieces came in.
    StockReceived = 1,
    /// Pieces are held for lines of an order.
    StockReserved = 2,
    /// Lines of an order wait for pieces to come in: first come, first served.
    StockBackordered = 1,
    /// Lines of an order were to wait, but hold their pieces already.
    BackorderNeedless = 1,
    /// Lines of an order wait no more: they are not wanted.
    BackorderDropped = 1,
    /// Held pieces went out: they were dispatched.
    StockCommitted = 1,
    /// Held pieces are free again.
    StockReleased = 1,
    /// Held pieces are free again, for their time was over.
    StockExpired = 1,
    /// There are more or fewer pieces than was thought.
    StockAdjusted = 1,
    /// Pieces that were dispatched came back, and can be sold again.
    StockRestocked = 1,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockReceived {
    pub sku: Sku,
    pub quantity: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockReserved {
    pub sku: Sku,
    pub order_id: OrderId,
    pub lines: Vec<LineQuantity>,
    /// How long the pieces are held, in seconds from the recording.
    pub hold_seconds: u32,
    /// A reservation is one event for each SKU, all appended at once. This is number `part` of `parts`, from 1: at the
    /// last one, the order has all.
    pub part: u32,
    pub parts: u32,
    /// The edit of the order that the lines are for, if they are for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<u32>,
    /// Whether the lines had to wait for the pieces; left out if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backorder: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockBackordered {
    pub sku: Sku,
    pub order_id: OrderId,
    pub lines: Vec<LineQuantity>,
    /// How long the pieces will be held once they have come in, in seconds from the recording of that.
    pub hold_seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BackorderNeedless {
    pub sku: Sku,
    pub order_id: OrderId,
    pub lines: Vec<LineQuantity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BackorderDropped {
    pub sku: Sku,
    pub order_id: OrderId,
    pub lines: Vec<LineQuantity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockCommitted {
    pub sku: Sku,
    pub order_id: OrderId,
    pub lines: Vec<LineQuantity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockReleased {
    pub sku: Sku,
    pub order_id: OrderId,
    pub lines: Vec<LineQuantity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockExpired {
    pub sku: Sku,
    pub order_id: OrderId,
    pub lines: Vec<LineQuantity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockAdjusted {
    pub sku: Sku,
    /// How many pieces more; negative if they are fewer.
    pub by: i64,
    pub reason: AdjustReason,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockRestocked {
    pub sku: Sku,
    pub order_id: OrderId,
    pub lines: Vec<LineQuantity>,
    /// What brought them back; the same never does it twice.
    pub restock_id: RestockId,
}

/// A number of pieces, for a line of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LineQuantity {
    pub line: LineNo,
    pub quantity: u32,
}

/// Why there are more or fewer pieces than was thought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AdjustReason {
    Count,
    Damage,
    Theft,
    Other,
}

impl Event {
    /// The SKU that it is about.
    pub fn sku(&self) -> &Sku {
        match self {
            Self::StockReceived(e) => &e.sku,
            Self::StockReserved(e) => &e.sku,
            Self::StockBackordered(e) => &e.sku,
            Self::BackorderNeedless(e) => &e.sku,
            Self::BackorderDropped(e) => &e.sku,
            Self::StockCommitted(e) => &e.sku,
            Self::StockReleased(e) => &e.sku,
            Self::StockExpired(e) => &e.sku,
            Self::StockAdjusted(e) => &e.sku,
            Self::StockRestocked(e) => &e.sku,
        }
    }

    /// The order that it is about, if it is about one. It need not be the one whose command led to it: what one order
    /// gives back, another one may have waited for.
    pub fn order_id(&self) -> Option<OrderId> {
        match self {
            Self::StockReceived(_) | Self::StockAdjusted(_) => None,
            Self::StockReserved(e) => Some(e.order_id),
            Self::StockBackordered(e) => Some(e.order_id),
            Self::BackorderNeedless(e) => Some(e.order_id),
            Self::BackorderDropped(e) => Some(e.order_id),
            Self::StockCommitted(e) => Some(e.order_id),
            Self::StockReleased(e) => Some(e.order_id),
            Self::StockExpired(e) => Some(e.order_id),
            Self::StockRestocked(e) => Some(e.order_id),
        }
    }
}
