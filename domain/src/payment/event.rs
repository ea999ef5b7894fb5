//! What can happen to a payment. These shapes are stored for ever.

use crate::aggregate::events;
use crate::id::{CaptureId, OrderId};
use crate::money::{Amount, Currency};
use crate::order::PaymentMethod;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

events! {
    /// The provider is to be asked for the money.
    PaymentRequested = 1,
    /// The money is held for us.
    PaymentAuthorised = 1,
    /// The provider would not hold the money for us.
    PaymentDeclined = 1,
    /// The provider is to be asked to hand over a part of the money.
    CaptureRequested = 1,
    /// The provider has handed that part of the money over.
    PaymentCaptured = 1,
    /// The provider would not hand that part over: somebody has to look at it.
    CaptureDeclined = 1,
    /// The money is no longer wanted, but whether it is held is not known yet.
    VoidDeferred = 1,
    /// The provider is to be asked to let the money go.
    VoidRequested = 1,
    /// The provider would not let the money go: somebody has to look at it.
    VoidDeclined = 1,
    /// No money is held, and none will be.
    PaymentVoided = 1,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PaymentRequested {
    pub order_id: OrderId,
    pub amount: Amount,
    pub currency: Currency,
    pub method: PaymentMethod,
    pub idempotency_key: Uuid,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PaymentAuthorised {
    pub order_id: OrderId,
    pub amount: Amount,
    pub currency: Currency,
    /// The provider's name for the authorisation.
    pub reference: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PaymentDeclined {
    pub order_id: OrderId,
    /// In the provider's words.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CaptureRequested {
    pub order_id: OrderId,
    pub capture_id: CaptureId,
    pub amount: Amount,
    pub currency: Currency,
    pub idempotency_key: Uuid,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PaymentCaptured {
    pub order_id: OrderId,
    pub capture_id: CaptureId,
    pub amount: Amount,
    pub currency: Currency,
    /// The provider's name for the capture.
    pub reference: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CaptureDeclined {
    pub order_id: OrderId,
    pub capture_id: CaptureId,
    /// In the provider's words.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VoidDeferred {
    pub order_id: OrderId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VoidRequested {
    pub order_id: OrderId,
    pub idempotency_key: Uuid,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VoidDeclined {
    pub order_id: OrderId,
    /// In the provider's words.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PaymentVoided {
    pub order_id: OrderId,
}
