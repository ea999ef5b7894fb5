//! What becomes of an order's shipments: they arrive, are lost, or come back to the sender.

use super::event::{Event, LinesDelivered, LinesLost, LinesReturnedToSender, OrderPlaced, RefundShare};
use super::refund::take_back;
use super::rejection::Rejection;
use super::state::{Order, Status};
use crate::id::{LineNo, OrderId, RefundId, ShipmentId};
use crate::money::Amount;
use std::collections::BTreeSet;

impl Order {
    pub(super) fn delivery(
        &self,
        id: OrderId,
        shipment_id: ShipmentId,
        lines: &[LineNo],
    ) -> Result<Vec<Event>, Rejection> {
        let lines = self.to_settle(id, lines)?;
        Ok(if lines.is_empty() { vec![] } else { vec![LinesDelivered { shipment_id, lines }.into()] })
    }

    pub(super) fn loss(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        shipment_id: ShipmentId,
        lines: &[LineNo],
    ) -> Result<Vec<Event>, Rejection> {
        let lines = self.to_settle(id, lines)?;
        if lines.is_empty() {
            return Ok(vec![]);
        }
        let refunds = self.refund_of_shipment(id, shipment_id);
        Ok(vec![LinesLost { shipment_id, customer_id: placed.customer_id, lines, refunds }.into()])
    }

    pub(super) fn returned_to_sender(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        shipment_id: ShipmentId,
        lines: &[LineNo],
    ) -> Result<Vec<Event>, Rejection> {
        let lines = self.to_settle(id, lines)?;
        if lines.is_empty() {
            return Ok(vec![]);
        }
        let refunds = self.refund_of_shipment(id, shipment_id);
        let restock = self.pieces(|line| lines.contains(&line));
        let customer_id = placed.customer_id;
        Ok(vec![LinesReturnedToSender { shipment_id, customer_id, lines, refunds, restock }.into()])
    }

    /// Those of the lines of which nothing is known yet, each once.
    fn to_settle(&self, id: OrderId, lines: &[LineNo]) -> Result<Vec<LineNo>, Rejection> {
        match self.status {
            Status::Confirmed | Status::Completed => {}
            Status::Unplaced | Status::Placed => return Err(Rejection::NotConfirmed { order_id: id }),
            status @ (Status::Cancelled | Status::Rejected | Status::Expired) => {
                return Err(Rejection::Ended { order_id: id, status });
            }
        }
        let new = |line: &LineNo| !self.is_settled(*line) && self.has_line(*line);
        let new: BTreeSet<LineNo> = lines.iter().copied().filter(new).collect();
        Ok(new.into_iter().collect())
    }

    /// All that was captured for a shipment: its lines, and its shipping.
    fn refund_of_shipment(&self, id: OrderId, shipment_id: ShipmentId) -> Vec<RefundShare> {
        let shares = self.take_back(id, shipment_id, Amount(i64::MAX));
        let share = |(payment_id, amount)| {
            let refund_id = RefundId::of_shipment(payment_id, shipment_id);
            RefundShare { payment_id, shipment_id, refund_id, amount }
        };
        shares.into_iter().map(share).collect()
    }

    /// Up to `owed` of what was captured for a shipment and is not refunded.
    pub(super) fn take_back(
        &self,
        id: OrderId,
        shipment_id: ShipmentId,
        owed: Amount,
    ) -> Vec<(crate::id::PaymentId, Amount)> {
        let refunded = self.refunded.get(&shipment_id);
        let refunded = |payment| refunded.and_then(|r| r.get(&payment)).copied().unwrap_or_default();
        let shipment = self.shipments(id).into_iter().find(|s| s.shipment_id == shipment_id);
        shipment.map_or(vec![], |s| take_back(&s.captures, refunded, owed))
    }
}
