//! A type per identifier, so that none can be taken for another.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident,)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, uuid::Error> { s.parse().map(Self) }
        }
    )+};
}

ids! {
    /// An order; the id of its stream, and the correlation id of all that follows from it.
    OrderId,
    /// One attempt to take money; the id of its stream, and the attempt id at the provider.
    PaymentId,
    /// What one seller ships for one order; the id of its stream.
    ShipmentId,
    /// One capture of an authorised payment; its idempotency key at the provider.
    CaptureId,
    /// One refund of what is captured; its idempotency key at the provider.
    RefundId,
    /// A customer; who that is, is personal data and kept elsewhere.
    CustomerId,
    /// A postal address; what it says is personal data and kept elsewhere.
    AddressId,
    /// A seller.
    SellerId,
    /// The id of a SKU's stock stream.
    StockId,
    /// What brought pieces of an order back into stock: a receipt of a return, or a parcel that came back.
    RestockId,
    /// A parcel of a return, as who takes it in names it.
    ReceiptId,
}

impl PaymentId {
    /// The payment for the `n`th method of an order, from 0. Derived, so that placing an order twice names the same.
    pub fn of_order(order: OrderId, n: usize) -> Self {
        Self(Uuid::new_v5(&order.0, format!("payment {n}").as_bytes()))
    }

    /// The idempotency key of the void of this payment.
    pub fn void_key(self) -> Uuid {
        Uuid::new_v5(&self.0, b"void")
    }
}

impl ShipmentId {
    /// The shipment of `seller` for `order`.
    pub fn of_seller(order: OrderId, seller: SellerId) -> Self {
        Self(Uuid::new_v5(&order.0, format!("shipment {seller}").as_bytes()))
    }
}

impl CaptureId {
    /// The capture of `payment` for `shipment`.
    pub fn of_shipment(payment: PaymentId, shipment: ShipmentId) -> Self {
        Self(Uuid::new_v5(&payment.0, format!("capture {shipment}").as_bytes()))
    }
}

impl RestockId {
    /// A parcel of a return of an order.
    pub fn of_return(order: OrderId, receipt: ReceiptId) -> Self {
        Self(Uuid::new_v5(&order.0, format!("restock {receipt}").as_bytes()))
    }

    /// The way back of a shipment that was not delivered.
    pub fn of_shipment(shipment: ShipmentId) -> Self {
        Self(Uuid::new_v5(&shipment.0, b"restock"))
    }
}

impl RefundId {
    /// The refund of `capture` for what came back with a parcel of a return.
    pub fn of_return(capture: CaptureId, receipt: ReceiptId) -> Self {
        Self(Uuid::new_v5(&capture.0, format!("refund return {receipt}").as_bytes()))
    }

    /// The refund of `capture`, whose shipment was lost, or came back to the sender.
    pub fn of_shipment(capture: CaptureId) -> Self {
        Self(Uuid::new_v5(&capture.0, b"refund shipment"))
    }

    /// The refund of `capture`, whose payment is let go.
    pub fn of_void(capture: CaptureId) -> Self {
        Self(Uuid::new_v5(&capture.0, b"refund void"))
    }
}

/// The namespace of stock stream ids (RFC 9562, section 5.5). Never changes: it is in every stock stream's name.
const STOCK_NAMESPACE: Uuid = Uuid::from_u128(0x6d1f_0d1c_5b0a_4c0e_9f7e_3a52_c86b_41d7);

impl From<&Sku> for StockId {
    fn from(sku: &Sku) -> Self {
        Self(Uuid::new_v5(&STOCK_NAMESPACE, sku.0.as_bytes()))
    }
}

/// A stock keeping unit: 1 to 64 printable ASCII characters without blanks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(extend("pattern" = "^[!-~]{1,64}$")))]
#[serde(try_from = "String", into = "String")]
pub struct Sku(String);

/// Why a text is no SKU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a sku is 1 to 64 printable ASCII characters without blanks")]
pub struct BadSku;

impl Sku {
    /// # Errors
    /// When `s` is empty, longer than 64 characters, or holds anything but printable ASCII without blanks.
    pub fn new(s: impl Into<String>) -> Result<Self, BadSku> {
        let s = s.into();
        let fits = (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic());
        if fits { Ok(Self(s)) } else { Err(BadSku) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Sku {
    type Error = BadSku;
    fn try_from(s: String) -> Result<Self, BadSku> {
        Self::new(s)
    }
}

impl From<Sku> for String {
    fn from(sku: Sku) -> Self {
        sku.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a line within its order, from 1.
pub type LineNo = u32;
