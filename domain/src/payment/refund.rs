//! Giving back what is captured, part by part.

use super::command::{Call, Outcome};
use super::decide::Rejection;
use super::event::{
    Event, PaymentRefunded, PaymentRequested, RefundDeclined, RefundDeferred, RefundDropped, RefundRequested,
};
use super::state::{Payment, RefundStage, Settled, Status};
use crate::id::{PaymentId, RefundId};
use crate::money::Amount;

/// Refunded, being refunded, or waiting for a capture.
const ALIVE: [RefundStage; 3] = [RefundStage::Deferred, RefundStage::Requested, RefundStage::Refunded];
/// Refunded or being refunded.
const UNDER_WAY: [RefundStage; 2] = [RefundStage::Requested, RefundStage::Refunded];

impl Payment {
    /// Asks the provider at once for what is captured. What may still be captured is waited for: the capture may be
    /// under way, or be asked for after its refund, if messages overtake one another.
    pub(super) fn refund(
        &self,
        payment_id: PaymentId,
        request: &PaymentRequested,
        refund_id: RefundId,
        amount: Amount,
    ) -> Result<Vec<Event>, Rejection> {
        match self.refunds.iter().find(|r| r.id == refund_id) {
            Some(before) if before.amount == amount => return Ok(vec![]),
            Some(_) => return Err(Rejection::RefundIdSpent { refund_id }),
            None => {}
        }
        let (captured, refunded) = (self.captured(), self.refunds(&ALIVE));
        let fits = |within: Amount| refunded.checked_add(amount).is_some_and(|sum| sum <= within);
        if amount > Amount::ZERO && fits(captured) {
            Ok(vec![requested(payment_id, request, refund_id, amount)])
        } else if amount > Amount::ZERO && fits(self.capturable(request)) {
            Ok(vec![RefundDeferred { order_id: request.order_id, refund_id, amount }.into()])
        } else {
            Err(Rejection::ExceedsCaptured { payment_id, captured, refunded, requested: amount })
        }
    }

    /// What is captured, and what may still be. What was declined once is not counted on.
    fn capturable(&self, request: &PaymentRequested) -> Amount {
        let under_way = Amount(self.captured().0 + self.capturing().0);
        if self.status != Status::Authorised {
            return under_way;
        }
        // Neither is negative.
        under_way.max(Amount(request.amount.0 - self.captures(Some(Settled::Declined)).0))
    }

    pub(super) fn refund_outcome(
        &self,
        request: &PaymentRequested,
        refund_id: RefundId,
        outcome: &Outcome,
    ) -> Vec<Event> {
        let (order_id, currency) = (request.order_id, request.currency);
        let amount = self.refunds.iter().find(|r| r.id == refund_id).map_or(Amount::ZERO, |r| r.amount);
        vec![match outcome {
            Outcome::Approved { reference } => {
                PaymentRefunded { order_id, refund_id, amount, currency, reference: reference.clone() }.into()
            }
            Outcome::Declined { reason } => RefundDeclined { order_id, refund_id, reason: reason.clone() }.into(),
        }]
    }

    /// The refunds that waited, as far as what is captured now allows them, the first asked for first.
    pub(super) fn refunds_now_possible(&self, id: PaymentId, request: &PaymentRequested) -> Vec<Event> {
        // No more is under way than is captured.
        let mut free = self.captured().0 - self.refunds(&UNDER_WAY).0;
        let mut events = Vec::new();
        for refund in self.refunds.iter().filter(|r| r.stage == RefundStage::Deferred) {
            if refund.amount.0 <= free {
                free -= refund.amount.0;
                events.push(requested(id, request, refund.id, refund.amount));
            }
        }
        events
    }

    /// Gives up the refunds that wait: what they wait for will not come.
    pub(super) fn drop_deferred(&self, request: &PaymentRequested, reason: &str) -> Vec<Event> {
        let (order_id, reason) = (request.order_id, reason.to_owned());
        let deferred = self.refunds.iter().filter(|r| r.stage == RefundStage::Deferred);
        deferred.map(|r| RefundDropped { order_id, refund_id: r.id, reason: reason.clone() }.into()).collect()
    }

    /// The refund of all that is captured and not given back yet; none, if there is nothing, or if it was declined.
    pub(super) fn refund_of_the_rest(&self, id: PaymentId, request: &PaymentRequested) -> Option<Event> {
        let refund_id = RefundId::of_void(id);
        let rest = Amount(self.captured().0 - self.refunds(&UNDER_WAY).0);
        let is_new = self.refunds.iter().all(|r| r.id != refund_id);
        (is_new && rest > Amount::ZERO).then(|| requested(id, request, refund_id, rest))
    }
}

fn requested(payment_id: PaymentId, request: &PaymentRequested, refund_id: RefundId, amount: Amount) -> Event {
    let (order_id, currency) = (request.order_id, request.currency);
    let idempotency_key = Call::Refund { refund_id }.idempotency_key(payment_id);
    RefundRequested { order_id, refund_id, amount, currency, idempotency_key }.into()
}
