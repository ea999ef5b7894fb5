//! What can happen to a shipment. These shapes are stored for ever.

use crate::aggregate::events;
use crate::id::{CustomerId, LineNo, OrderId};
use crate::order::{CaptureShare, ShipmentOrder, StockLine};
use serde::{Deserialize, Serialize};

events! {
    /// A seller is to ship lines of an order.
    ShipmentPlanned = 1,
    /// What the seller is to ship, or where to, has changed.
    ShipmentReplanned = 1,
    /// The parcel is packed.
    ShipmentReady = 1,
    /// It is not to be dispatched for now.
    ShipmentHeld = 1,
    /// It need not wait any longer.
    ShipmentReleased = 1,
    /// The parcel was handed to the carrier.
    ShipmentDispatched = 1,
    /// The parcel has arrived.
    ShipmentDelivered = 1,
    /// The parcel was lost on its way.
    ShipmentLost = 1,
    /// The parcel could not be delivered, and came back.
    ShipmentReturnedToSender = 1,
    /// It will not be dispatched.
    ShipmentCancelled = 1,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentPlanned {
    pub order_id: OrderId,
    /// Which plan of the shipment it is, from 1: who packs by it names it.
    pub revision: u32,
    pub shipment: ShipmentOrder,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentReplanned {
    pub order_id: OrderId,
    /// It takes the place of all plans before.
    pub revision: u32,
    /// Which time on hold of the order is over, and with it all before; 0 if none is.
    pub released: u32,
    pub shipment: ShipmentOrder,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentReady {
    pub order_id: OrderId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentHeld {
    pub order_id: OrderId,
    /// Which time the order is on hold, from 1.
    pub hold: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentReleased {
    pub order_id: OrderId,
    /// Which time on hold is over, and with it all before.
    pub hold: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentDispatched {
    pub order_id: OrderId,
    pub customer_id: CustomerId,
    pub tracking: String,
    pub lines: Vec<StockLine>,
    pub captures: Vec<CaptureShare>,
    /// Whether no stock was reserved for it here: none is to be committed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreserved: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentDelivered {
    pub order_id: OrderId,
    pub lines: Vec<LineNo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentLost {
    pub order_id: OrderId,
    pub lines: Vec<LineNo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentReturnedToSender {
    pub order_id: OrderId,
    pub lines: Vec<LineNo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentCancelled {
    pub order_id: OrderId,
}
