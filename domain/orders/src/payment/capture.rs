//! Taking what is authorised, part by part.

use super::command::{Call, Outcome};
use super::decide::Rejection;
use super::event::{CaptureDeclined, CaptureRequested, Event, PaymentCaptured, PaymentRequested};
use super::state::{Payment, Status};
use crate::id::{CaptureId, PaymentId};
use crate::money::Amount;

impl Payment {
    pub(super) fn capture(
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
        // What is being captured counts as much as what is captured.
        let captured = self.captured().saturating_add(self.capturing());
        let fits = captured.checked_add(amount).is_some_and(|sum| sum <= request.amount);
        if amount <= Amount::ZERO || !fits {
            let authorised = request.amount;
            return Err(Rejection::ExceedsAuthorised { payment_id, authorised, captured, requested: amount });
        }
        let (order_id, currency) = (request.order_id, request.currency);
        let idempotency_key = Call::Capture { capture_id }.idempotency_key(payment_id);
        Ok(vec![CaptureRequested { order_id, capture_id, amount, currency, idempotency_key }.into()])
    }

    /// What waited for the capture goes on or is given up: the refunds of it, and the void.
    pub(super) fn capture_outcome(
        &self,
        id: PaymentId,
        request: &PaymentRequested,
        capture_id: CaptureId,
        outcome: &Outcome,
    ) -> Vec<Event> {
        let (order_id, currency) = (request.order_id, request.currency);
        let amount = self.captures.get(&capture_id).map_or(Amount::ZERO, |capture| capture.amount);
        let mut events = match outcome {
            Outcome::Approved { reference } => {
                let left = request.amount.saturating_sub(self.captured()).saturating_sub(amount);
                let reference = reference.clone();
                let captured = PaymentCaptured { order_id, capture_id, amount, left, currency, reference }.into();
                [vec![captured], self.refunds_now_possible(id, request, capture_id)].concat()
            }
            Outcome::Declined { reason } => {
                let declined =
                    CaptureDeclined { order_id, capture_id, amount, currency, reason: reason.clone() }.into();
                [vec![declined], self.drop_refunds_of(capture_id, request, reason)].concat()
            }
        };
        let after = self.after(&events);
        if after.capturing() == Amount::ZERO {
            match after.status {
                Status::VoidDeferred => events.extend(after.let_go(id, request)),
                Status::ExpiryDeferred => events.extend(after.expired(id, request)),
                _ => {}
            }
        }
        events
    }
}
