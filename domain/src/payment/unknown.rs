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
        let (amount, method) = match call {
            Call::Authorise => (request.amount, Some(request.method.clone())),
            Call::Capture { capture_id } => (self.captures.get(&capture_id).map_or(request.amount, |c| c.amount), None),
            Call::Refund { refund_id } => {
                let refund = self.refunds.iter().find(|r| r.id == refund_id);
                (refund.map_or(request.amount, |r| r.amount), None)
            }
            Call::Void => (request.amount, None),
        };
        let (order_id, currency, idempotency_key) = (request.order_id, request.currency, call.idempotency_key(id));
        Ok(vec![CallRetried { order_id, call, idempotency_key, amount, currency, method }.into()])
    }
}
