//! One attempt to take money: `Requested → Authorised → captured, shipment by shipment`; or `Declined`, or `Voided`.
//!
//! What the provider is to do is an event first, with the key that makes it happen once; what came of it is another.

use crate::Aggregate;
use crate::id::{CaptureId, OrderId, PaymentId, RefundId};
use crate::money::{Amount, Currency};
use crate::order::PaymentMethod;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

mod event;
#[cfg(test)]
mod tests;

pub use event::*;

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
    /// Gives a part of what is captured back; what it is for is its id.
    Refund {
        order_id: OrderId,
        refund_id: RefundId,
        amount: Amount,
    },
    /// Lets the money go, as soon as it is known to be held.
    Void {
        order_id: OrderId,
    },
    /// What the provider said to the void.
    RecordVoid {
        outcome: Outcome,
    },
    /// The provider holds the money no longer: its time is over.
    Expire,
}

/// What the provider answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Approved { reference: String },
    Declined { reason: String },
}

/// Where a payment is in its life; how much of it is captured, the captures say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is no such payment yet.
    #[default]
    Unrequested,
    Requested,
    /// Requested, and to be voided once its outcome is known.
    VoidDeferred,
    Authorised,
    Declined,
    VoidRequested,
    VoidDeclined,
    Voided,
}

impl Status {
    /// The word that it is stored and sent as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unrequested => "unrequested",
            Self::Requested => "requested",
            Self::VoidDeferred => "void_deferred",
            Self::Authorised => "authorised",
            Self::Declined => "declined",
            Self::VoidRequested => "void_requested",
            Self::VoidDeclined => "void_declined",
            Self::Voided => "voided",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A capture, requested or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Capture {
    amount: Amount,
    settled: Option<Settled>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Settled {
    Captured,
    Declined,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Payment {
    pub status: Status,
    request: Option<PaymentRequested>,
    captures: BTreeMap<CaptureId, Capture>,
}

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
    #[error("payment {payment_id} is captured: it can be refunded, not voided")]
    AlreadyCaptured { payment_id: PaymentId },
}

impl Payment {
    /// What `command` makes of the payment `id`; nothing, if it is so already.
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
                    idempotency_key: id.0,
                },
            ),
            Command::RecordAuthorisation { outcome } => self.authorisation(id, self.request(id)?, outcome),
            Command::Refund { .. } => Err(Rejection::NotAuthorised { payment_id: id, status: self.status }),
            Command::Capture { capture_id, amount } => self.capture(id, self.request(id)?, *capture_id, *amount),
            Command::RecordCapture { capture_id, outcome } => {
                self.capture_outcome(id, self.request(id)?, *capture_id, outcome)
            }
            Command::Void { order_id } => self.void(id, *order_id),
            Command::Expire => Err(Rejection::NotAuthorised { payment_id: id, status: self.status }),
            Command::RecordVoid { outcome } => self.void_outcome(id, self.request(id)?, outcome),
        }
    }

    fn request(&self, payment_id: PaymentId) -> Result<&PaymentRequested, Rejection> {
        self.request.as_ref().ok_or(Rejection::NotRequested { payment_id })
    }

    fn authorise(&self, payment_id: PaymentId, request: PaymentRequested) -> Result<Vec<Event>, Rejection> {
        match &self.request {
            Some(before) if *before == request => Ok(vec![]),
            Some(_) => Err(Rejection::AlreadyRequested { payment_id }),
            None if self.status == Status::Voided => Err(Rejection::LetGo { payment_id }),
            None => Ok(vec![request.into()]),
        }
    }

    fn authorisation(
        &self,
        id: PaymentId,
        request: &PaymentRequested,
        outcome: &Outcome,
    ) -> Result<Vec<Event>, Rejection> {
        let order_id = request.order_id;
        let void_deferred = match self.status {
            Status::Requested => false,
            Status::VoidDeferred => true,
            // The outcome is known: a repeated or late answer changes nothing.
            Status::Unrequested
            | Status::Authorised
            | Status::Declined
            | Status::VoidRequested
            | Status::VoidDeclined
            | Status::Voided => return Ok(vec![]),
        };
        let mut events = match outcome {
            Outcome::Declined { reason } => {
                return Ok(vec![PaymentDeclined { order_id, reason: reason.clone() }.into()]);
            }
            Outcome::Approved { reference } => vec![
                PaymentAuthorised {
                    order_id,
                    amount: request.amount,
                    currency: request.currency,
                    reference: reference.clone(),
                }
                .into(),
            ],
        };
        if void_deferred {
            events.push(VoidRequested { order_id, idempotency_key: id.void_key() }.into());
        }
        Ok(events)
    }

    fn capture(
        &self,
        payment_id: PaymentId,
        request: &PaymentRequested,
        capture_id: CaptureId,
        amount: Amount,
    ) -> Result<Vec<Event>, Rejection> {
        match self.captures.get(&capture_id) {
            Some(before) if before.amount == amount => return Ok(vec![]),
            Some(_) => return Err(Rejection::CaptureIdSpent { capture_id }),
            None => {}
        }
        if self.status != Status::Authorised {
            return Err(Rejection::NotAuthorised { payment_id, status: self.status });
        }
        let captured = self.captured();
        let fits = captured.checked_add(amount).is_some_and(|sum| sum <= request.amount);
        if amount <= Amount::ZERO || !fits {
            let authorised = request.amount;
            return Err(Rejection::ExceedsAuthorised { payment_id, authorised, captured, requested: amount });
        }
        let (order_id, currency) = (request.order_id, request.currency);
        Ok(vec![CaptureRequested { order_id, capture_id, amount, currency, idempotency_key: capture_id.0 }.into()])
    }

    fn capture_outcome(
        &self,
        payment_id: PaymentId,
        request: &PaymentRequested,
        capture_id: CaptureId,
        outcome: &Outcome,
    ) -> Result<Vec<Event>, Rejection> {
        let Some(capture) = self.captures.get(&capture_id) else {
            return Err(Rejection::UnknownCapture { payment_id, capture_id });
        };
        if capture.settled.is_some() {
            return Ok(vec![]);
        }
        let order_id = request.order_id;
        Ok(vec![match outcome {
            Outcome::Approved { reference } => PaymentCaptured {
                order_id,
                capture_id,
                amount: capture.amount,
                currency: request.currency,
                reference: reference.clone(),
            }
            .into(),
            Outcome::Declined { reason } => CaptureDeclined { order_id, capture_id, reason: reason.clone() }.into(),
        }])
    }

    fn void(&self, id: PaymentId, order_id: OrderId) -> Result<Vec<Event>, Rejection> {
        Ok(match self.status {
            // It was cancelled faster than it was asked for: that it never will be is written down here.
            Status::Unrequested => vec![PaymentVoided { order_id }.into()],
            Status::Requested => vec![VoidDeferred { order_id }.into()],
            Status::Authorised if self.captured() > Amount::ZERO => {
                return Err(Rejection::AlreadyCaptured { payment_id: id });
            }
            Status::Authorised => vec![VoidRequested { order_id, idempotency_key: id.void_key() }.into()],
            Status::VoidDeferred | Status::Declined | Status::VoidRequested | Status::VoidDeclined | Status::Voided => {
                vec![]
            }
        })
    }

    fn void_outcome(
        &self,
        payment_id: PaymentId,
        request: &PaymentRequested,
        outcome: &Outcome,
    ) -> Result<Vec<Event>, Rejection> {
        let order_id = request.order_id;
        match self.status {
            Status::VoidRequested => Ok(vec![match outcome {
                Outcome::Approved { .. } => PaymentVoided { order_id }.into(),
                Outcome::Declined { reason } => VoidDeclined { order_id, reason: reason.clone() }.into(),
            }]),
            Status::VoidDeclined | Status::Voided => Ok(vec![]),
            status @ (Status::Unrequested
            | Status::Requested
            | Status::VoidDeferred
            | Status::Authorised
            | Status::Declined) => Err(Rejection::NotAuthorised { payment_id, status }),
        }
    }

    /// What is captured or being captured.
    fn captured(&self) -> Amount {
        let live = self.captures.values().filter(|c| c.settled != Some(Settled::Declined));
        // It fits: every capture was checked against what is authorised.
        Amount(live.map(|c| c.amount.0).sum())
    }

    fn settle(&mut self, capture_id: CaptureId, settled: Settled) {
        if let Some(capture) = self.captures.get_mut(&capture_id) {
            capture.settled = Some(settled);
        }
    }
}

impl Aggregate for Payment {
    const CATEGORY: &'static str = "payment";
    type Event = Event;

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::PaymentRequested(request) => {
                self.status = Status::Requested;
                self.request = Some(request.clone());
            }
            Event::PaymentAuthorised(_) => self.status = Status::Authorised,
            Event::PaymentDeclined(_) => self.status = Status::Declined,
            Event::CaptureRequested(e) => {
                self.captures.insert(e.capture_id, Capture { amount: e.amount, settled: None });
            }
            Event::PaymentCaptured(e) => self.settle(e.capture_id, Settled::Captured),
            Event::CaptureDeclined(e) => self.settle(e.capture_id, Settled::Declined),
            Event::VoidDeferred(_) => self.status = Status::VoidDeferred,
            Event::VoidRequested(_) => self.status = Status::VoidRequested,
            Event::VoidDeclined(_) => self.status = Status::VoidDeclined,
            Event::PaymentVoided(_) => self.status = Status::Voided,
        }
    }

    fn event_of(event: &crate::Event) -> Option<&Event> {
        match event {
            crate::Event::Payment(_, event) => Some(event),
            crate::Event::Order(..) | crate::Event::Stock(..) | crate::Event::Shipment(..) => None,
        }
    }

    fn event(id: Uuid, event: Event) -> crate::Event {
        crate::Event::Payment(PaymentId(id), event)
    }
}
