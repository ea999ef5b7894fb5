//! What the provider did not answer. It is no decline: it is asked about until it is known, and asked for again if the
//! provider never saw it.

use super::command::Call;
use super::decide::Rejection;
use super::event::{CallRetried, Event, OutcomeUnknown, PaymentRequested};
use super::state::Payment;
use crate::id::PaymentId;

impl Payment {
    pub(super) fn not_answered(
        &self,
        id: PaymentId,
        request: &PaymentRequested,
        call: Call,
    ) -> Result<Vec<Event>, Rejection> {
        if !self.awaits(id, call)? || self.unknown.contains(&call) {
            return Ok(vec![]);
        }
        let idempotency_key = call.idempotency_key(id);
        Ok(vec![OutcomeUnknown { order_id: request.order_id, call, idempotency_key }.into()])
    }

    /// The same call with the same key: should the provider get the first one after all, it does it once.
    pub(super) fn call_again(
        &self,
        id: PaymentId,
        request: &PaymentRequested,
        call: Call,
    ) -> Result<Vec<Event>, Rejection> {
        if !self.awaits(id, call)? || !self.unknown.contains(&call) {
            return Ok(vec![]);
        }
        let (order_id, currency, idempotency_key) = (request.order_id, request.currency, call.idempotency_key(id));
        let amount = request.amount;
        let whole = CallRetried { order_id, call, idempotency_key, amount, currency, method: None, capture_id: None };
        let again = match call {
            Call::Authorise => CallRetried { method: Some(request.method.clone()), ..whole },
            Call::Capture { capture_id } => match self.captures.get(&capture_id) {
                Some(capture) => CallRetried { amount: capture.amount, ..whole },
                None => whole,
            },
            Call::Refund { refund_id } => match self.refund_of(refund_id) {
                Some(refund) => CallRetried { amount: refund.amount, capture_id: Some(refund.capture_id), ..whole },
                None => whole,
            },
            Call::Void => whole,
        };
        Ok(vec![again.into()])
    }
}
