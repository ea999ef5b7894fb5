//! What can happen to a payment. These shapes are stored for ever.

use super::command::Call;
use crate::aggregate::events;
use crate::id::{CaptureId, OrderId, RefundId};
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
    /// The money is no longer wanted, but whether it is held, or handed over, is not known yet.
    VoidDeferred = 1,
    /// The provider is to be asked to let the money go.
    VoidRequested = 1,
    /// The provider would not let the money go: somebody has to look at it.
    VoidDeclined = 1,
    /// No money is held, and none will be.
    PaymentVoided = 1,
    /// The money was held for longer than it may be, but what came of a capture under way is not known yet.
    ExpiryDeferred = 1,
    /// The money was held for longer than it may be: it is let go.
    AuthorisationExpired = 1,
    /// A part of a capture is to be given back, but it is not captured yet: that is waited for.
    RefundDeferred = 1,
    /// The provider is to be asked to give a part of a capture back.
    RefundRequested = 1,
    /// The provider has given that part back.
    PaymentRefunded = 1,
    /// The provider would not give that part back: somebody has to look at it.
    RefundDeclined = 1,
    /// What was to be given back is not captured after all.
    RefundDropped = 1,
    /// The provider did not answer in time: whether it did what it was asked is not known. It is asked about that.
    OutcomeUnknown = 1,
    /// The provider never saw the call: it is asked again, with the same key.
    CallRetried = 1,
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
    /// What is still authorised, and not captured.
    pub left: Amount,
    pub currency: Currency,
    /// The provider's name for the capture.
    pub reference: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CaptureDeclined {
    pub order_id: OrderId,
    pub capture_id: CaptureId,
    pub amount: Amount,
    pub currency: Currency,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExpiryDeferred {
    pub order_id: OrderId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuthorisationExpired {
    pub order_id: OrderId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefundDeferred {
    pub order_id: OrderId,
    pub refund_id: RefundId,
    /// What it gives back from.
    pub capture_id: CaptureId,
    pub amount: Amount,
    pub currency: Currency,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefundRequested {
    pub order_id: OrderId,
    pub refund_id: RefundId,
    /// What it gives back from.
    pub capture_id: CaptureId,
    pub amount: Amount,
    pub currency: Currency,
    pub idempotency_key: Uuid,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PaymentRefunded {
    pub order_id: OrderId,
    pub refund_id: RefundId,
    pub capture_id: CaptureId,
    pub amount: Amount,
    pub currency: Currency,
    /// The provider's name for the refund.
    pub reference: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefundDeclined {
    pub order_id: OrderId,
    pub refund_id: RefundId,
    pub capture_id: CaptureId,
    pub amount: Amount,
    pub currency: Currency,
    /// In the provider's words.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefundDropped {
    pub order_id: OrderId,
    pub refund_id: RefundId,
    /// What it gives back from.
    pub capture_id: CaptureId,
    pub amount: Amount,
    pub currency: Currency,
    /// In the provider's words, if it would not hand the money over.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutcomeUnknown {
    pub order_id: OrderId,
    /// What the provider was asked for.
    pub call: Call,
    pub idempotency_key: Uuid,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CallRetried {
    pub order_id: OrderId,
    /// What the provider is asked for again.
    pub call: Call,
    /// The same as before.
    pub idempotency_key: Uuid,
    /// Of the call; of a void, what is authorised.
    pub amount: Amount,
    pub currency: Currency,
    /// Of an authorisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<PaymentMethod>,
    /// Of a refund.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_id: Option<CaptureId>,
}
