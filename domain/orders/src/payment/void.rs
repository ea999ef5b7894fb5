//! Letting the money go: because it is no longer wanted, or because it was held for too long.

use super::command::{Call, Outcome};
use super::decide::Rejection;
use super::event::{
    AuthorisationExpired, Event, ExpiryDeferred, PaymentRequested, PaymentVoided, VoidDeclined, VoidDeferred,
    VoidRequested,
};
use super::state::{Payment, Status};
use crate::id::{OrderId, PaymentId};
use crate::money::Amount;

impl Payment {
    pub(super) fn void(&self, id: PaymentId, order_id: OrderId) -> Vec<Event> {
        match (self.status, &self.request) {
            // It was cancelled faster than it was asked for: that it never will be is written down here.
            (Status::Unrequested, _) => vec![PaymentVoided { order_id }.into()],
            (Status::Requested, _) => vec![VoidDeferred { order_id }.into()],
            (Status::Authorised | Status::ExpiryDeferred, _) if self.capturing() > Amount::ZERO => {
                vec![VoidDeferred { order_id }.into()]
            }
            (Status::Authorised | Status::ExpiryDeferred, Some(request)) => self.let_go(id, request),
            (
                Status::Authorised
                | Status::VoidDeferred
                | Status::Declined
                | Status::ExpiryDeferred
                | Status::AuthorisationExpired
                | Status::VoidRequested
                | Status::VoidDeclined
                | Status::Voided,
                _,
            ) => vec![],
        }
    }

    /// Nothing is under way: what is captured is given back, and what is only held is voided.
    pub(super) fn let_go(&self, id: PaymentId, request: &PaymentRequested) -> Vec<Event> {
        let mut events = self.drop_deferred(request, "the payment is let go, and nothing more is captured of it");
        events.extend(self.refunds_of_the_rest(id, request));
        if self.captured() < request.amount {
            events.push(void_requested(id, request.order_id));
        }
        events
    }

    pub(super) fn void_outcome(&self, request: &PaymentRequested, outcome: &Outcome) -> Vec<Event> {
        let order_id = request.order_id;
        vec![match outcome {
            Outcome::Approved { .. } => PaymentVoided { order_id }.into(),
            Outcome::Declined { reason } => VoidDeclined { order_id, reason: reason.clone() }.into(),
        }]
    }

    pub(super) fn expire(&self, payment_id: PaymentId, request: &PaymentRequested) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Authorised if self.capturing() > Amount::ZERO => {
                Ok(vec![ExpiryDeferred { order_id: request.order_id }.into()])
            }
            Status::Authorised if self.captured() == request.amount => Err(Rejection::AlreadyCaptured { payment_id }),
            Status::Authorised => Ok(self.expired(payment_id, request)),
            Status::ExpiryDeferred | Status::AuthorisationExpired => Ok(vec![]),
            status @ (Status::Unrequested
            | Status::Requested
            | Status::VoidDeferred
            | Status::Declined
            | Status::VoidRequested
            | Status::VoidDeclined
            | Status::Voided) => Err(Rejection::NotAuthorised { payment_id, status }),
        }
    }

    /// Nothing is under way: what is held and not captured is let go; nothing, if there is none.
    pub(super) fn expired(&self, id: PaymentId, request: &PaymentRequested) -> Vec<Event> {
        let order_id = request.order_id;
        let mut events = self.drop_deferred(request, "the authorisation has expired");
        if self.captured() < request.amount {
            events.insert(0, AuthorisationExpired { order_id }.into());
            events.push(void_requested(id, order_id));
        }
        events
    }
}

pub(super) fn void_requested(id: PaymentId, order_id: OrderId) -> Event {
    VoidRequested { order_id, idempotency_key: Call::Void.idempotency_key(id) }.into()
}
