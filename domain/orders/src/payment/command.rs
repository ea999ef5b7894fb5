//! What a payment is asked to do, and what is said about it.

use crate::id::{CaptureId, OrderId, PaymentId, RefundId};
use crate::money::{Amount, Currency};
use crate::order::PaymentMethod;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Authorise {
        order_id: OrderId,
        amount: Amount,
        currency: Currency,
        method: PaymentMethod,
    },
    /// What the provider said to the authorisation.
    RecordAuthorisation {
        outcome: Outcome,
    },
    /// Takes a part of what is authorised; what it is for is its id.
    Capture {
        capture_id: CaptureId,
        amount: Amount,
    },
    /// What the provider said to the capture.
    RecordCapture {
        capture_id: CaptureId,
        outcome: Outcome,
    },
    /// Lets the money go, as soon as it is known what is held and what is taken.
    Void {
        order_id: OrderId,
    },
    /// What the provider said to the void.
    RecordVoid {
        outcome: Outcome,
    },
    /// Gives back a part of a capture; what it is for is its id.
    Refund {
        order_id: OrderId,
        refund_id: RefundId,
        capture_id: CaptureId,
        amount: Amount,
    },
    /// What the provider said to the refund.
    RecordRefund {
        refund_id: RefundId,
        outcome: Outcome,
    },
    /// The provider did not answer in time: it may have done what it was asked, or not.
    RecordUnknown {
        call: Call,
    },
    /// What the provider knows of a call that it did not answer; `None` if it never saw it.
    ResolveUnknown {
        call: Call,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<Outcome>,
    },
    /// The authorisation is past the time that providers hold money for.
    Expire,
    /// What the provider tells without being asked. Its id says which of its notices it is.
    RecordNotice {
        notice_id: Uuid,
        notice: ProviderNotice,
    },
}

/// What the provider answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Approved { reference: String },
    Declined { reason: String },
}

/// Something that the provider is asked to do for a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Call {
    Authorise,
    Capture { capture_id: CaptureId },
    Void,
    Refund { refund_id: RefundId },
}

impl Call {
    /// The key by which the provider does it once.
    pub fn idempotency_key(self, payment: PaymentId) -> Uuid {
        match self {
            Self::Authorise => payment.0,
            Self::Capture { capture_id } => capture_id.0,
            Self::Void => payment.void_key(),
            Self::Refund { refund_id } => refund_id.0,
        }
    }
}

/// What came of a call, as the provider tells it on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderNotice {
    pub call: Call,
    pub outcome: Outcome,
}
