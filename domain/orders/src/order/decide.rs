//! What an order may do: the decision of each command, and what becomes true by it.

use super::command::{Command, PlaceOrder};
use super::event::{
    ApprovalRequested, CancelReason, EditDiscardReason, Event, OrderCancelled, OrderCompleted, OrderConfirmed,
    OrderLine, OrderPlaced, OrderRejected, PaymentAuthorisedRecorded, PaymentRefused, PaymentsSecured, StockSecured,
};
use super::rejection::Rejection;
use super::state::{Order, Status};
use crate::Aggregate;
use crate::id::{OrderId, PaymentId};

/// How long stock is held for a paid order: six days, a day less than its money is.
pub(super) const HOLD_SECONDS: u32 = 6 * 24 * 60 * 60;

impl Order {
    /// What `command` makes of the order `id`; no events if nothing changes.
    ///
    /// # Errors
    /// When the order's state forbids it.
    pub fn decide(&self, id: OrderId, command: &Command) -> Result<Vec<Event>, Rejection> {
        let placed = || self.placed.as_deref().ok_or(Rejection::NotPlaced { order_id: id });
        let events = match command {
            Command::Place(order) => self.place(id, order)?,
            command => self.decide_placed(id, placed()?, command)?,
        };
        Ok(self.with_what_follows(id, events))
    }

    fn decide_placed(&self, id: OrderId, placed: &OrderPlaced, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Place(order) => self.place(id, order),
            Command::RecordPaymentAuthorised { payment_id } => self.payment_authorised(id, *payment_id),
            Command::RecordPaymentDeclined { payment_id, reason } => {
                self.payment_declined(id, placed, *payment_id, reason)
            }
            Command::RecordStockReserved => self.stock_reserved(id),
            Command::RecordShortage { short } => self.shortage(id, placed, short),
            Command::RecordBackorderFilled { lines } => Ok(self.backorder_filled(lines)),
            Command::RecordEditReserved { edit } => self.edit_reserved(id, *edit),
            Command::RecordEditShortage { edit, .. } => self.edit_short(id, *edit),
            Command::RecordDelivery { shipment_id, lines } => self.delivery(id, *shipment_id, lines),
            Command::RecordLoss { shipment_id, lines } => self.loss(id, placed, *shipment_id, lines),
            Command::RecordReturnedToSender { shipment_id, lines } => {
                self.returned_to_sender(id, placed, *shipment_id, lines)
            }
            Command::PlaceHold { reason } => self.place_hold(id, *reason),
            Command::ReleaseHold { reason } => self.release_hold(id, *reason),
            Command::RequestApproval { within_seconds } => self.request_approval(id, *within_seconds),
            Command::GrantApproval { approval } => self.grant_approval(id, *approval),
            Command::DenyApproval { approval } => self.deny_approval(id, *approval),
            Command::TimeOutApproval { approval } => self.time_out_approval(id, *approval),
            Command::Expire => self.expire(id, placed),
            Command::ProposeEdit(edit) => self.propose_edit(id, placed, edit),
            Command::DiscardEdit { edit } => self.discard_edit(id, *edit),
            Command::RequestReturn { lines, reason } => self.request_return(id, lines, *reason),
            Command::ApproveReturn { return_no } => self.approve_return(id, *return_no),
            Command::ReceiveReturn { return_no, receipt_id, lines } => {
                self.receive_return(id, placed, *return_no, *receipt_id, lines)
            }
        }
    }

    /// The events, and what has become true by them: whichever decision comes last secures, confirms or completes.
    pub(super) fn with_what_follows(&self, id: OrderId, mut events: Vec<Event>) -> Vec<Event> {
        if events.is_empty() {
            return events;
        }
        let mut after = self.clone();
        events.iter().for_each(|event| after.evolve(event));
        while let Some(event) = after.what_follows(id) {
            after.evolve(&event);
            events.push(event);
        }
        events
    }

    fn what_follows(&self, id: OrderId) -> Option<Event> {
        match self.status {
            // What another system took for it, its history tells; nothing is asked for here.
            Status::Placed if self.is_history && !self.payments_secured => None,
            // Nothing to pay is paid.
            Status::Placed if !self.payments_secured => {
                let is_paid = self.payments().all(|p| self.authorised.contains(&p.payment_id));
                let lines = || self.lines().map(OrderLine::pieces).collect();
                is_paid.then(|| PaymentsSecured { lines: lines(), hold_seconds: HOLD_SECONDS }.into())
            }
            Status::Placed if !self.stock_secured => {
                let is_held = self.unanswered.is_empty() && self.outstanding().next().is_none();
                is_held.then(|| StockSecured {}.into())
            }
            Status::Placed if self.holds.is_empty() && self.pending_approval().is_none() => {
                Some(OrderConfirmed { shipments: self.shipments(id) }.into())
            }
            // Nobody can confirm an edit any more: what it holds would be held for nothing.
            Status::Confirmed if self.lines().all(|l| self.is_settled(l.line)) => Some(match &self.edit {
                Some(edit) => edit.discarded(EditDiscardReason::OrderEnded),
                None => OrderCompleted {}.into(),
            }),
            _ => None,
        }
    }

    fn place(&self, id: OrderId, order: &PlaceOrder) -> Result<Vec<Event>, Rejection> {
        let checked = order.checked(id).map_err(|faults| Rejection::Invalid { faults })?;
        let placed = OrderPlaced {
            customer_id: order.customer_id,
            currency: order.currency,
            shipping_address_id: order.shipping_address_id,
            billing_address_id: order.billing_address_id,
            lines: checked.lines,
            shipping: order.shipping.clone(),
            payments: checked.payments,
            totals: checked.totals,
            rounding: order.rounding,
            backorder: order.backorder,
            approval_within_seconds: order.approval_within_seconds,
        };
        match &self.placed {
            Some(before) if **before == placed => Ok(vec![]),
            Some(_) => Err(Rejection::AlreadyPlaced { order_id: id }),
            None => {
                let approval = |within_seconds| ApprovalRequested { approval: 1, within_seconds }.into();
                let approval = order.approval_within_seconds.map(approval);
                Ok(std::iter::once(placed.into()).chain(approval).collect())
            }
        }
    }

    fn payment_authorised(&self, id: OrderId, payment_id: PaymentId) -> Result<Vec<Event>, Rejection> {
        self.known_payment(id, payment_id)?;
        // An order or an edit that ended has told its payments already: they let the money go themselves.
        let is_new = self.waits_for(payment_id) && !self.authorised.contains(&payment_id);
        Ok(if is_new { vec![PaymentAuthorisedRecorded { payment_id }.into()] } else { vec![] })
    }

    fn payment_declined(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        payment_id: PaymentId,
        reason: &str,
    ) -> Result<Vec<Event>, Rejection> {
        self.known_payment(id, payment_id)?;
        if !self.waits_for(payment_id) || self.authorised.contains(&payment_id) {
            return Ok(vec![]);
        }
        let refused = PaymentRefused { payment_id, reason: reason.to_owned() }.into();
        let end = match &self.edit {
            Some(edit) => edit.discarded(EditDiscardReason::PaymentDeclined),
            None => {
                let others = self.payment_ids().into_iter().filter(|other| *other != payment_id);
                OrderRejected { customer_id: placed.customer_id, payments: others.collect() }.into()
            }
        };
        Ok(vec![refused, end])
    }

    /// Whether the order, or an open edit of it, is to be paid with this payment.
    fn waits_for(&self, payment_id: PaymentId) -> bool {
        match (self.status, &self.edit) {
            (Status::Placed, _) => self.payments().any(|p| p.payment_id == payment_id),
            (Status::Confirmed, Some(edit)) => edit.proposed.payments.iter().any(|p| p.payment_id == payment_id),
            _ => false,
        }
    }

    fn known_payment(&self, order_id: OrderId, payment_id: PaymentId) -> Result<(), Rejection> {
        // Their ids are derived from their numbers.
        if (0..self.payments_numbered).any(|n| PaymentId::of_order(order_id, n) == payment_id)
            || self.payments().any(|p| p.payment_id == payment_id)
        {
            Ok(())
        } else {
            Err(Rejection::UnknownPayment { order_id, payment_id })
        }
    }

    /// The end of the order, and before it that of an open edit.
    pub(super) fn cancelled(&self, reason: CancelReason) -> Vec<Event> {
        let Some(placed) = &self.placed else { return vec![] };
        let edit = self.edit.iter().map(|edit| edit.discarded(EditDiscardReason::OrderEnded));
        let cancelled = OrderCancelled {
            reason,
            customer_id: placed.customer_id,
            payments: self.payment_ids(),
            reserved: self.reserved(),
        };
        edit.chain([cancelled.into()]).collect()
    }
}
