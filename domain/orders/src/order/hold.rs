//! Holds, approvals and the expiry of an order: what keeps it from going on.

use super::event::{
    ApprovalDenied, ApprovalGranted, ApprovalRequested, ApprovalTimedOut, CancelReason, Event, HoldPlaced, HoldReason,
    HoldReleased, OrderExpired, OrderPlaced,
};
use super::rejection::Rejection;
use super::state::{Approval, Order, Status};
use crate::Fault;
use crate::id::{OrderId, ShipmentId};

/// The longest time that an approval may take: five days, a day less than stock is held.
pub const MAX_APPROVAL_SECONDS: u32 = 5 * 24 * 60 * 60;

impl Order {
    pub(super) fn place_hold(&self, id: OrderId, reason: HoldReason) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Unplaced | Status::Placed | Status::Confirmed => {}
            status => return Err(Rejection::Ended { order_id: id, status }),
        }
        if self.holds.contains(&reason) {
            return Ok(vec![]);
        }
        let is_first = self.holds.is_empty();
        let shipments = if is_first { self.shipments_to_come(id) } else { vec![] };
        Ok(vec![HoldPlaced { reason, hold: self.times_held + u32::from(is_first), shipments }.into()])
    }

    pub(super) fn release_hold(&self, id: OrderId, reason: HoldReason) -> Result<Vec<Event>, Rejection> {
        if !self.holds.contains(&reason) {
            return Ok(vec![]);
        }
        let mut after = self.clone();
        after.holds.remove(&reason);
        let Some(then) = after.life() else { return Err(Rejection::Ended { order_id: id, status: self.status }) };
        let shipments = if after.holds.is_empty() { self.shipments_to_come(id) } else { vec![] };
        Ok(vec![HoldReleased { reason, hold: self.times_held, shipments, then }.into()])
    }

    /// The shipments that have not arrived, as far as the order knows; none before it is confirmed.
    pub(super) fn shipments_to_come(&self, id: OrderId) -> Vec<ShipmentId> {
        if self.status != Status::Confirmed {
            return vec![];
        }
        let to_come = |seller| self.lines().any(|l| l.seller_id == seller && !self.is_settled(l.line));
        let sellers = self.sellers().into_iter().filter(|seller| to_come(*seller));
        sellers.map(|seller| ShipmentId::of_seller(id, seller)).collect()
    }

    pub(super) fn request_approval(&self, id: OrderId, within_seconds: u32) -> Result<Vec<Event>, Rejection> {
        if let Some(fault) = approval_fault("within_seconds", within_seconds) {
            return Err(Rejection::Invalid { faults: vec![fault] });
        }
        match self.status {
            Status::Unplaced | Status::Placed => {}
            Status::Confirmed => return Err(Rejection::AlreadyConfirmed { order_id: id }),
            status => return Err(Rejection::Ended { order_id: id, status }),
        }
        match self.pending_approval() {
            Some((_, before)) if before == within_seconds => Ok(vec![]),
            Some((approval, _)) => Err(Rejection::ApprovalPending { order_id: id, approval }),
            None => Ok(vec![ApprovalRequested { approval: self.approvals.len() as u32 + 1, within_seconds }.into()]),
        }
    }

    pub(super) fn grant_approval(&self, id: OrderId, approval: u32) -> Result<Vec<Event>, Rejection> {
        let granted = || vec![ApprovalGranted { approval }.into()];
        self.decided_approval(id, approval, Approval::Granted, granted)
    }

    pub(super) fn deny_approval(&self, id: OrderId, approval: u32) -> Result<Vec<Event>, Rejection> {
        let denied =
            || [vec![ApprovalDenied { approval }.into()], self.cancelled(CancelReason::ApprovalDenied)].concat();
        self.decided_approval(id, approval, Approval::Denied, denied)
    }

    pub(super) fn time_out_approval(&self, id: OrderId, approval: u32) -> Result<Vec<Event>, Rejection> {
        let late =
            || [vec![ApprovalTimedOut { approval }.into()], self.cancelled(CancelReason::ApprovalTimedOut)].concat();
        self.decided_approval(id, approval, Approval::TimedOut, late)
    }

    fn decided_approval(
        &self,
        id: OrderId,
        approval: u32,
        as_decided: Approval,
        events: impl FnOnce() -> Vec<Event>,
    ) -> Result<Vec<Event>, Rejection> {
        let Some(before) = self.approvals.get((approval as usize).wrapping_sub(1)) else {
            return Err(Rejection::UnknownApproval { order_id: id, approval });
        };
        match *before {
            // Only a placed order waits for an approval: whatever called it off was faster.
            Approval::Pending { .. } if self.status != Status::Placed => {
                Err(Rejection::Ended { order_id: id, status: self.status })
            }
            Approval::Pending { .. } => Ok(events()),
            decided if decided == as_decided => Ok(vec![]),
            decided => Err(Rejection::ApprovalDecided { order_id: id, approval, decided }),
        }
    }

    pub(super) fn expire(&self, id: OrderId, placed: &OrderPlaced) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Expired => Ok(vec![]),
            Status::Placed if self.authorised.is_empty() && !self.payments_secured => {
                Ok(vec![OrderExpired { customer_id: placed.customer_id, payments: self.payment_ids() }.into()])
            }
            Status::Unplaced | Status::Placed | Status::Confirmed => Err(Rejection::PaymentAttempted { order_id: id }),
            status @ (Status::Completed | Status::Cancelled | Status::Rejected) => {
                Err(Rejection::Ended { order_id: id, status })
            }
        }
    }
}

pub(super) fn approval_fault(field: &str, within_seconds: u32) -> Option<Fault> {
    let expected = || format!("1 to {MAX_APPROVAL_SECONDS}, which are five days");
    (!(1..=MAX_APPROVAL_SECONDS).contains(&within_seconds)).then(|| Fault::new(field, expected()))
}
