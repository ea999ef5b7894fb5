//! Giving back what is captured, part by part: a refund is of one capture.

use super::command::{Call, Outcome};
use super::decide::Rejection;
use super::event::{
    Event, PaymentRefunded, PaymentRequested, RefundDeclined, RefundDeferred, RefundDropped, RefundRequested,
};
use super::state::{Capture, Payment, Refund, RefundStage, Settled, Status};
use crate::id::{CaptureId, PaymentId, RefundId};
use crate::money::Amount;

/// Refunded, being refunded, or waiting for the capture.
const ALIVE: [RefundStage; 3] = [RefundStage::Deferred, RefundStage::Requested, RefundStage::Refunded];
/// Refunded or being refunded.
const UNDER_WAY: [RefundStage; 2] = [RefundStage::Requested, RefundStage::Refunded];

impl Payment {
    /// Asks the provider at once for what is captured. A capture that may still come is waited for: it may be under
    /// way, or be asked for after its refund, if messages overtake one another. Of one that never comes, there is
    /// nothing to give back.
    pub(super) fn refund(
        &self,
        payment_id: PaymentId,
        request: &PaymentRequested,
        refund_id: RefundId,
        capture_id: CaptureId,
        amount: Amount,
    ) -> Result<Vec<Event>, Rejection> {
        match self.refund_of(refund_id) {
            Some(before) if (before.capture_id, before.amount) == (capture_id, amount) => return Ok(vec![]),
            Some(_) => return Err(Rejection::RefundIdSpent { refund_id }),
            None => {}
        }
        let capture = self.captures.get(&capture_id);
        let (captured, refunded) = (capture.map_or(request.amount, |c| c.amount), self.refunds(capture_id, &ALIVE));
        if amount <= Amount::ZERO || refunded.checked_add(amount).is_none_or(|sum| sum > captured) {
            return Err(Rejection::ExceedsCaptured { capture_id, captured, refunded, requested: amount });
        }
        let refund = Refund::new(refund_id, capture_id, amount, RefundStage::Requested);
        let dropped = |reason| dropped(request, &refund, reason);
        Ok(vec![match (capture, self.status) {
            (Some(Capture { settled: Some(Settled::Captured), .. }), _) => requested(payment_id, request, &refund),
            (Some(Capture { settled: Some(Settled::Declined), .. }), _) => dropped("the capture was declined"),
            (Some(Capture { settled: None, .. }), _) | (None, Status::Authorised) => {
                RefundDeferred { order_id: request.order_id, refund_id, capture_id, amount, currency: request.currency }
                    .into()
            }
            (None, status @ (Status::Unrequested | Status::Requested)) => {
                return Err(Rejection::NotAuthorised { payment_id, status });
            }
            (
                None,
                Status::VoidDeferred
                | Status::Declined
                | Status::ExpiryDeferred
                | Status::AuthorisationExpired
                | Status::VoidRequested
                | Status::VoidDeclined
                | Status::Voided,
            ) => dropped("nothing is captured any more of this payment"),
        }])
    }

    pub(super) fn refund_outcome(
        &self,
        request: &PaymentRequested,
        refund_id: RefundId,
        outcome: &Outcome,
    ) -> Vec<Event> {
        let (order_id, currency) = (request.order_id, request.currency);
        let Some(&Refund { capture_id, amount, .. }) = self.refund_of(refund_id) else { return vec![] };
        vec![match outcome.clone() {
            Outcome::Approved { reference } => {
                PaymentRefunded { order_id, refund_id, capture_id, amount, currency, reference }.into()
            }
            Outcome::Declined { reason } => {
                RefundDeclined { order_id, refund_id, capture_id, amount, currency, reason }.into()
            }
        }]
    }

    /// The refunds that waited for a capture, which is done now, the first asked for first; what exceeds it is given up.
    pub(super) fn refunds_now_possible(
        &self,
        id: PaymentId,
        request: &PaymentRequested,
        capture_id: CaptureId,
    ) -> Vec<Event> {
        let captured = self.captures.get(&capture_id).map_or(Amount::ZERO, |c| c.amount);
        let mut free = captured.saturating_sub(self.refunds(capture_id, &UNDER_WAY));
        let decide = |refund: &Refund| {
            if refund.amount <= free {
                free = free.saturating_sub(refund.amount);
                requested(id, request, refund)
            } else {
                dropped(request, refund, "less than that was captured")
            }
        };
        self.deferred(|r| r.capture_id == capture_id).map(decide).collect()
    }

    /// Gives up the refunds that wait for a capture: it will not come.
    pub(super) fn drop_refunds_of(
        &self,
        capture_id: CaptureId,
        request: &PaymentRequested,
        reason: &str,
    ) -> Vec<Event> {
        self.deferred(|r| r.capture_id == capture_id).map(|r| dropped(request, r, reason)).collect()
    }

    /// Gives up all refunds that wait: nothing more is captured.
    pub(super) fn drop_deferred(&self, request: &PaymentRequested, reason: &str) -> Vec<Event> {
        self.deferred(|_| true).map(|r| dropped(request, r, reason)).collect()
    }

    fn deferred(&self, of: impl Fn(&Refund) -> bool) -> impl Iterator<Item = &Refund> {
        self.refunds.iter().filter(move |r| r.stage == RefundStage::Deferred && of(r))
    }

    /// The refunds of all that is captured and not given back yet, but where that was declined before.
    pub(super) fn refunds_of_the_rest(&self, id: PaymentId, request: &PaymentRequested) -> Vec<Event> {
        let captured = self.captures.iter().filter(|(_, c)| c.settled == Some(Settled::Captured));
        let rest = captured.filter_map(|(capture_id, capture)| {
            let amount = capture.amount.saturating_sub(self.refunds(*capture_id, &UNDER_WAY));
            let refund_id = RefundId::of_void(*capture_id);
            let is_new = amount > Amount::ZERO && self.refund_of(refund_id).is_none();
            let refund = Refund::new(refund_id, *capture_id, amount, RefundStage::Requested);
            is_new.then(|| requested(id, request, &refund))
        });
        rest.collect()
    }
}

fn requested(payment_id: PaymentId, request: &PaymentRequested, refund: &Refund) -> Event {
    let Refund { id: refund_id, capture_id, amount, .. } = *refund;
    let (order_id, currency) = (request.order_id, request.currency);
    let idempotency_key = Call::Refund { refund_id }.idempotency_key(payment_id);
    RefundRequested { order_id, refund_id, capture_id, amount, currency, idempotency_key }.into()
}

fn dropped(request: &PaymentRequested, refund: &Refund, reason: &str) -> Event {
    let Refund { id: refund_id, capture_id, amount, .. } = *refund;
    let (order_id, currency) = (request.order_id, request.currency);
    RefundDropped { order_id, refund_id, capture_id, amount, currency, reason: reason.to_owned() }.into()
}
