//! What a payment may do, and how it is authorised.

use super::command::{Call, Command, Outcome};
use super::event::{Event, PaymentAuthorised, PaymentDeclined, PaymentRequested};
use super::state::{Payment, RefundStage, Status};
use super::void::void_requested;
use crate::Aggregate;
use crate::id::{CaptureId, PaymentId, RefundId};
use crate::money::Amount;
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Rejection {
    #[error("payment {payment_id} was asked for already, with another amount or method")]
    AlreadyRequested { payment_id: PaymentId },
    #[error("there is no payment {payment_id}")]
    NotRequested { payment_id: PaymentId },
    #[error("payment {payment_id} is not authorised: it is {status}")]
    NotAuthorised { payment_id: PaymentId, status: Status },
    #[error("payment {payment_id} was let go before it was asked for")]
    LetGo { payment_id: PaymentId },
    #[error(
        "payment {payment_id} is authorised for {} minor units and has {} captured: {} more is too much",
        authorised.0, captured.0, requested.0
    )]
    ExceedsAuthorised { payment_id: PaymentId, authorised: Amount, captured: Amount, requested: Amount },
    #[error("capture {capture_id} was asked for already, with another amount")]
    CaptureIdSpent { capture_id: CaptureId },
    #[error("there is no capture {capture_id} of payment {payment_id}")]
    UnknownCapture { payment_id: PaymentId, capture_id: CaptureId },
    #[error("payment {payment_id} is captured, or being captured: there is nothing left that expires")]
    AlreadyCaptured { payment_id: PaymentId },
    #[error(
        "capture {capture_id} is of {} minor units and has {} refunded: {} more is too much",
        captured.0, refunded.0, requested.0
    )]
    ExceedsCaptured { capture_id: CaptureId, captured: Amount, refunded: Amount, requested: Amount },
    #[error("refund {refund_id} was asked for already, with another amount or capture")]
    RefundIdSpent { refund_id: RefundId },
    #[error("there is no refund {refund_id} of payment {payment_id} that the provider was asked for")]
    UnknownRefund { payment_id: PaymentId, refund_id: RefundId },
}

impl Payment {
    /// What `command` makes of the payment `id`; no events if nothing changes.
    ///
    /// # Errors
    /// When the payment's state forbids it.
    pub fn decide(&self, id: PaymentId, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Authorise { order_id, amount, currency, method } => self.authorise(
                id,
                PaymentRequested {
                    order_id: *order_id,
                    amount: *amount,
                    currency: *currency,
                    method: method.clone(),
                    idempotency_key: Call::Authorise.idempotency_key(id),
                },
            ),
            Command::RecordAuthorisation { outcome } => self.record(id, Call::Authorise, outcome),
            Command::Capture { capture_id, amount } => self.capture(id, self.request(id)?, *capture_id, *amount),
            Command::RecordCapture { capture_id, outcome } => {
                self.record(id, Call::Capture { capture_id: *capture_id }, outcome)
            }
            Command::Void { order_id } => Ok(self.void(id, *order_id)),
            Command::RecordVoid { outcome } => self.record(id, Call::Void, outcome),
            Command::Refund { refund_id, capture_id, amount, .. } => {
                self.refund(id, self.request(id)?, *refund_id, *capture_id, *amount)
            }
            Command::RecordRefund { refund_id, outcome } => {
                self.record(id, Call::Refund { refund_id: *refund_id }, outcome)
            }
            Command::RecordUnknown { call } => self.not_answered(id, self.request(id)?, *call),
            Command::ResolveUnknown { call, found: Some(outcome) } => self.record(id, *call, outcome),
            Command::ResolveUnknown { call, found: None } => self.call_again(id, self.request(id)?, *call),
            Command::Expire => self.expire(id, self.request(id)?),
            Command::RecordNotice { notice, .. } => self.record(id, notice.call, &notice.outcome),
        }
    }

    pub(super) fn request(&self, payment_id: PaymentId) -> Result<&PaymentRequested, Rejection> {
        self.request.as_ref().ok_or(Rejection::NotRequested { payment_id })
    }

    /// The state after `events`, which are not in the log yet.
    pub(super) fn after(&self, events: &[Event]) -> Self {
        let mut state = self.clone();
        events.iter().for_each(|event| state.evolve(event));
        state
    }

    /// Takes in what came of a call. What is known already changes nothing, whatever it says.
    fn record(&self, id: PaymentId, call: Call, outcome: &Outcome) -> Result<Vec<Event>, Rejection> {
        let request = self.request(id)?;
        if !self.awaits(id, call)? {
            return Ok(vec![]);
        }
        Ok(match call {
            Call::Authorise => self.authorisation(id, request, outcome),
            Call::Capture { capture_id } => self.capture_outcome(id, request, capture_id, outcome),
            Call::Void => self.void_outcome(request, outcome),
            Call::Refund { refund_id } => self.refund_outcome(request, refund_id, outcome),
        })
    }

    /// Whether the provider was asked for it and its outcome is not known; refused, if it never was asked.
    pub(super) fn awaits(&self, payment_id: PaymentId, call: Call) -> Result<bool, Rejection> {
        match call {
            Call::Authorise => Ok(self.awaits_authorisation()),
            Call::Capture { capture_id } => match self.captures.get(&capture_id) {
                Some(capture) => Ok(capture.settled.is_none()),
                None => Err(Rejection::UnknownCapture { payment_id, capture_id }),
            },
            Call::Void => match self.status {
                Status::VoidRequested | Status::AuthorisationExpired => Ok(true),
                Status::VoidDeclined | Status::Voided => Ok(false),
                status @ (Status::Unrequested
                | Status::Requested
                | Status::VoidDeferred
                | Status::Authorised
                | Status::ExpiryDeferred
                | Status::Declined) => Err(Rejection::NotAuthorised { payment_id, status }),
            },
            Call::Refund { refund_id } => match self.refund_of(refund_id).map(|r| r.stage) {
                Some(RefundStage::Requested) => Ok(true),
                Some(RefundStage::Refunded | RefundStage::Failed) => Ok(false),
                Some(RefundStage::Deferred) | None => Err(Rejection::UnknownRefund { payment_id, refund_id }),
            },
        }
    }

    /// A void is deferred by a capture under way as well, but there is none before the authorisation.
    fn awaits_authorisation(&self) -> bool {
        match self.status {
            Status::Requested => true,
            Status::VoidDeferred => self.captures.is_empty(),
            Status::Unrequested
            | Status::Authorised
            | Status::Declined
            | Status::ExpiryDeferred
            | Status::AuthorisationExpired
            | Status::VoidRequested
            | Status::VoidDeclined
            | Status::Voided => false,
        }
    }

    fn authorise(&self, payment_id: PaymentId, request: PaymentRequested) -> Result<Vec<Event>, Rejection> {
        match &self.request {
            Some(before) if *before == request => Ok(vec![]),
            Some(_) => Err(Rejection::AlreadyRequested { payment_id }),
            None if self.status == Status::Voided => Err(Rejection::LetGo { payment_id }),
            None => Ok(vec![request.into()]),
        }
    }

    fn authorisation(&self, id: PaymentId, request: &PaymentRequested, outcome: &Outcome) -> Vec<Event> {
        let order_id = request.order_id;
        let reference = match outcome {
            Outcome::Declined { reason } => return vec![PaymentDeclined { order_id, reason: reason.clone() }.into()],
            Outcome::Approved { reference } => reference.clone(),
        };
        let (amount, currency) = (request.amount, request.currency);
        let mut events = vec![PaymentAuthorised { order_id, amount, currency, reference }.into()];
        if self.status == Status::VoidDeferred {
            events.push(void_requested(id, order_id));
        }
        events
    }
}
