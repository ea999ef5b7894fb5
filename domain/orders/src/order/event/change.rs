//! What changes an order before anything of it is dispatched.

use super::{CancelReason, OrderLine, OrderPayment, OrderTotals, SellerShipping, ShipmentOrder, StockLine};
use crate::id::{AddressId, CustomerId, LineNo, PaymentId};
use crate::money::Currency;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LinesCancelled {
    pub lines: Vec<LineNo>,
    pub reason: CancelReason,
    pub customer_id: CustomerId,
    /// What of the lines is reserved or waits for stock, and is to be released.
    pub released: Vec<StockLine>,
    /// What the order costs without them.
    pub totals: OrderTotals,
    /// The payments that are no longer needed at all, whose money is to be let go.
    pub payments: Vec<PaymentId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AddressChanged {
    pub address_id: AddressId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EditProposed {
    /// The number of the edit within its order, from 1.
    pub edit: u32,
    pub currency: Currency,
    pub remove: Vec<LineNo>,
    pub add: Vec<OrderLine>,
    /// What the sellers take for shipping after the edit.
    pub shipping: Vec<SellerShipping>,
    /// What is to be paid in addition.
    pub payments: Vec<OrderPayment>,
    /// What the order costs after the edit.
    pub totals: OrderTotals,
    /// What is to be reserved in addition.
    pub reserve: Vec<StockLine>,
    /// How long the stock is to be held, in seconds from the reservation's recording.
    pub hold_seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EditStockSecured {
    pub edit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EditDiscarded {
    pub edit: u32,
    pub reason: EditDiscardReason,
    /// The payments of the edit, whose money is to be let go.
    pub payments: Vec<PaymentId>,
    /// What is reserved for the edit and is to be released.
    pub reserved: Vec<StockLine>,
}

/// Why an edit was discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EditDiscardReason {
    Requested,
    PaymentDeclined,
    OutOfStock,
    OrderEnded,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EditConfirmed {
    pub edit: u32,
    /// What the order costs now.
    pub totals: OrderTotals,
    /// How many lines the order has now.
    pub lines: u32,
    /// What was reserved for the lines that have gone, and is to be released.
    pub released: Vec<StockLine>,
    /// Those of the sellers that had none.
    pub shipments: Vec<ShipmentOrder>,
    /// The payments that are no longer needed at all, whose money is to be let go.
    pub payments: Vec<PaymentId>,
}
