//! What can happen to an order. These shapes are stored for ever.

use crate::aggregate::events;
use crate::id::{AddressId, CaptureId, CustomerId, LineNo, PaymentId, SellerId, ShipmentId, Sku};
use crate::money::{Amount, Currency};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

mod after_sale;
mod change;
mod waiting;

pub use after_sale::*;
pub use change::*;
pub use waiting::*;

events! {
    /// The order exists, with all that it will cost.
    OrderPlaced = 2,
    /// One of the payments is authorised.
    PaymentAuthorisedRecorded = 1,
    /// All money is authorised: the stock can be reserved.
    PaymentsSecured = 1,
    /// One of the payments was declined.
    PaymentRefused = 1,
    /// The order ended because it could not be paid.
    OrderRejected = 1,
    /// The stock of every line is reserved.
    StockSecured = 1,
    /// Money and stock are secured: the sellers can ship.
    OrderConfirmed = 1,
    /// There is too little stock for these lines, so none is reserved.
    LinesShort = 1,
    /// The order ended before anything was dispatched; in a history, whenever that tells.
    OrderCancelled = 2,
    /// Stock was reserved after the order had ended, and goes back.
    ReservationReturned = 1,
    /// These lines have arrived.
    LinesDelivered = 1,
    /// All lines have arrived, or never will.
    OrderCompleted = 1,
    /// What stands before it in its stream is the order's history in another system, as far as that tells it.
    HistoryRecorded = 2,
    /// The order is not to go on, for this reason.
    HoldPlaced = 1,
    /// This reason to hold the order has gone.
    HoldReleased = 1,
    /// A person is to decide whether the order may go on.
    ApprovalRequested = 1,
    /// The order may go on.
    ApprovalGranted = 1,
    /// The order may not go on.
    ApprovalDenied = 1,
    /// Nobody decided in time.
    ApprovalTimedOut = 1,
    /// The order ended because nobody paid in time.
    OrderExpired = 1,
    /// There is too little stock for these lines: they wait for more, and the rest is reserved by itself.
    LinesBackordered = 1,
    /// These lines waited for stock, and are reserved now.
    BackorderFilled = 1,
    /// The lines that need not wait are reserved.
    RestReserved = 1,
    /// The order goes on without these lines.
    LinesCancelled = 1,
    /// The order is to be shipped elsewhere.
    AddressChanged = 1,
    /// The order may become another one: the money and the stock for that are asked for.
    EditProposed = 1,
    /// The stock of the lines that an edit adds is reserved.
    EditStockSecured = 1,
    /// The order stays as it is.
    EditDiscarded = 1,
    /// The order is now what was proposed.
    EditConfirmed = 1,
    /// The customer wants to send pieces back.
    ReturnRequested = 1,
    /// The customer may send the pieces back.
    ReturnApproved = 1,
    /// Pieces came back, and are refunded.
    ReturnReceived = 1,
    /// These lines were lost on their way, and are refunded.
    LinesLost = 1,
    /// These lines could not be delivered and came back, and are refunded.
    LinesReturnedToSender = 1,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderPlaced {
    pub customer_id: CustomerId,
    pub currency: Currency,
    pub shipping_address_id: AddressId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_address_id: Option<AddressId>,
    pub lines: Vec<OrderLine>,
    pub shipping: Vec<SellerShipping>,
    pub payments: Vec<OrderPayment>,
    pub totals: OrderTotals,
    pub rounding: Rounding,
    /// Whether lines that there is too little stock for wait for more, or else end the order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backorder: bool,
    /// Whether a person is to decide that it may go on, and within how many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_within_seconds: Option<u32>,
}

/// One line of an order. Amounts are in minor units of the order's currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderLine {
    pub line: LineNo,
    pub sku: Sku,
    pub seller_id: SellerId,
    pub quantity: u32,
    /// For one piece.
    pub unit_price: Amount,
    /// For the whole line.
    pub discount: Amount,
    /// For the whole line, on top of the price.
    pub tax: Amount,
}

/// What a seller takes for shipping its lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SellerShipping {
    pub seller_id: SellerId,
    pub amount: Amount,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderPayment {
    pub payment_id: PaymentId,
    pub method: PaymentMethod,
    pub amount: Amount,
}

/// What an order costs: `total = goods - discount + tax + shipping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderTotals {
    pub goods: Amount,
    pub discount: Amount,
    pub tax: Amount,
    pub shipping: Amount,
    pub total: Amount,
}

/// How the order's tax amounts were rounded, so that a later refund rounds alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rounding {
    pub mode: RoundingMode,
    pub level: RoundingLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RoundingMode {
    #[default]
    HalfEven,
    HalfUp,
    Up,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RoundingLevel {
    #[default]
    Line,
    Order,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PaymentAuthorisedRecorded {
    pub payment_id: PaymentId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PaymentsSecured {
    /// What is to be reserved.
    pub lines: Vec<StockLine>,
    /// How long the stock is to be held, in seconds from the reservation's recording.
    pub hold_seconds: u32,
}

/// A number of pieces of a SKU, for a line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockLine {
    pub line: LineNo,
    pub sku: Sku,
    pub quantity: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PaymentRefused {
    pub payment_id: PaymentId,
    /// In the provider's words.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderRejected {
    pub customer_id: CustomerId,
    /// The order's other payments, whose money is to be let go.
    pub payments: Vec<PaymentId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockSecured {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderConfirmed {
    /// One for each seller.
    pub shipments: Vec<ShipmentOrder>,
}

/// What a seller is to ship, and what is taken from which payment once it is dispatched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentOrder {
    pub shipment_id: ShipmentId,
    pub seller_id: SellerId,
    pub customer_id: CustomerId,
    pub address_id: AddressId,
    pub lines: Vec<StockLine>,
    pub captures: Vec<CaptureShare>,
    /// Whether its stock was never reserved here, as that of an imported order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreserved: bool,
}

/// A part of a payment that is captured for one shipment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CaptureShare {
    pub payment_id: PaymentId,
    pub capture_id: CaptureId,
    pub amount: Amount,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LinesShort {
    pub lines: Vec<LineNo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderCancelled {
    pub reason: CancelReason,
    pub customer_id: CustomerId,
    /// The order's payments, whose money is to be let go.
    pub payments: Vec<PaymentId>,
    /// What is reserved and is to be released.
    pub reserved: Vec<StockLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReservationReturned {
    pub lines: Vec<StockLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LinesDelivered {
    pub shipment_id: ShipmentId,
    pub lines: Vec<LineNo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderCompleted {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HistoryRecorded {
    /// Which system.
    pub source: String,
    /// What it called the order's status last.
    pub status: String,
    /// The ids that are derived from that system's own: of the order, its customer, its sellers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<ForeignId>,
}

/// An id that is derived from that of another system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ForeignId {
    pub id: Uuid,
    /// As the other system writes it.
    pub name: String,
}

/// Why an order was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    CustomerRequest,
    SellerRequest,
    OutOfStock,
    ApprovalDenied,
    ApprovalTimedOut,
    PaymentExpired,
    ReservationExpired,
    Fraud,
    // The history that it stands in does not tell.
    NotTold,
}

impl CancelReason {
    /// The word that it is stored and sent as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CustomerRequest => "customer_request",
            Self::SellerRequest => "seller_request",
            Self::OutOfStock => "out_of_stock",
            Self::ApprovalDenied => "approval_denied",
            Self::ApprovalTimedOut => "approval_timed_out",
            Self::PaymentExpired => "payment_expired",
            Self::ReservationExpired => "reservation_expired",
            Self::Fraud => "fraud",
            Self::NotTold => "not_told",
        }
    }
}

/// How a payment is made: its kind, and the provider's token for it. A card number never enters the domain.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PaymentMethod {
    /// `credit_card`, `voucher` …: 1 to 32 of a-z, 0-9 and underscore.
    pub kind: String,
    /// The provider's token, 1 to 128 characters. A secret: it is left out of `Debug`.
    pub token: String,
}

impl fmt::Debug for PaymentMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentMethod").field("kind", &self.kind).finish_non_exhaustive()
    }
}
