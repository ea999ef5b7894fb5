//! What becomes of an order's shipments: they arrive, are lost, or come back to the sender.

use super::event::{Event, LinesDelivered, LinesLost, LinesReturnedToSender, OrderPlaced, RefundShare};
use super::refund::take_back;
use super::rejection::Rejection;
use super::state::{Order, Status};
use crate::id::{CaptureId, LineNo, OrderId, RefundId, ShipmentId};
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
        let customer_id = placed.customer_id;
        self.not_delivered(id, shipment_id, lines, |lines, refunds| {
            LinesLost { shipment_id, customer_id, lines, refunds }.into()
        })
    }

    pub(super) fn returned_to_sender(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        shipment_id: ShipmentId,
        lines: &[LineNo],
    ) -> Result<Vec<Event>, Rejection> {
        let customer_id = placed.customer_id;
        self.not_delivered(id, shipment_id, lines, |lines, refunds| {
            let restock = self.pieces(|line| lines.contains(&line));
            LinesReturnedToSender { shipment_id, customer_id, lines, refunds, restock }.into()
        })
    }

    /// All that was captured for the shipment is given back: its lines, and its shipping.
    fn not_delivered(
        &self,
        id: OrderId,
        shipment_id: ShipmentId,
        lines: &[LineNo],
        event: impl FnOnce(Vec<LineNo>, Vec<RefundShare>) -> Event,
    ) -> Result<Vec<Event>, Rejection> {
        let lines = self.to_settle(id, lines)?;
        if lines.is_empty() {
            return Ok(vec![]);
        }
        let refunds = self.take_back(id, shipment_id, Amount(i64::MAX), RefundId::of_shipment);
        Ok(vec![event(lines, refunds)])
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

    /// Up to `owed` of what was captured for a shipment and is not refunded.
    pub(super) fn take_back(
        &self,
        id: OrderId,
        shipment_id: ShipmentId,
        owed: Amount,
        refund_id: impl Fn(CaptureId) -> RefundId,
    ) -> Vec<RefundShare> {
        let shipment = self.shipments(id).into_iter().find(|s| s.shipment_id == shipment_id);
        shipment.map_or(vec![], |s| take_back(&s.captures, &self.refunded, owed, refund_id))
    }
}
