//! Returns: pieces that have arrived come back, some or all of them, and are refunded by allocation of what was paid.

use super::event::{
    Event, OrderLine, OrderPlaced, ReceivedLine, RefundShare, ReturnApproved, ReturnLine, ReturnReason, ReturnReceived,
    ReturnRequested, StockLine,
};
use super::refund::share;
use super::rejection::Rejection;
use super::state::{Order, Return, Status};
use crate::Fault;
use crate::id::{LineNo, OrderId, ReceiptId, RefundId, ShipmentId};
use crate::money::Amount;
use std::collections::{BTreeMap, BTreeSet};

impl Order {
    pub(super) fn request_return(
        &self,
        id: OrderId,
        lines: &[ReturnLine],
        reason: ReturnReason,
    ) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Confirmed | Status::Completed => {}
            Status::Unplaced | Status::Placed => return Err(Rejection::NotConfirmed { order_id: id }),
            status => return Err(Rejection::Ended { order_id: id, status }),
        }
        check(lines.iter().map(|l| (l.line, l.quantity)))?;
        // The same once more, before somebody has looked at it, is a repetition.
        if self.returns.iter().any(|r| !r.approved && r.lines == lines && r.reason == reason) {
            return Ok(vec![]);
        }
        for l in lines {
            let returnable = self.returnable(l.line);
            if l.quantity > returnable {
                return Err(Rejection::NotReturnable { order_id: id, line: l.line, returnable });
            }
        }
        let return_no = self.returns.len() as u32 + 1;
        Ok(vec![ReturnRequested { return_no, lines: lines.to_vec(), reason }.into()])
    }

    /// The pieces of a line that have arrived and for which no return was asked.
    fn returnable(&self, line: LineNo) -> u32 {
        let arrived = self.line(line).filter(|_| self.delivered.contains(&line)).map_or(0, |l| l.quantity);
        let asked: u32 =
            self.returns.iter().flat_map(|r| &r.lines).filter(|l| l.line == line).map(|l| l.quantity).sum();
        arrived - asked
    }

    pub(super) fn approve_return(&self, id: OrderId, return_no: u32) -> Result<Vec<Event>, Rejection> {
        let asked = self.asked(id, return_no)?;
        Ok(if asked.approved { vec![] } else { vec![ReturnApproved { return_no }.into()] })
    }

    fn asked(&self, order_id: OrderId, return_no: u32) -> Result<&Return, Rejection> {
        let asked = self.returns.get((return_no as usize).wrapping_sub(1));
        asked.ok_or(Rejection::UnknownReturn { order_id, return_no })
    }

    pub(super) fn receive_return(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        return_no: u32,
        receipt_id: ReceiptId,
        lines: &[ReceivedLine],
    ) -> Result<Vec<Event>, Rejection> {
        let asked = self.asked(id, return_no)?;
        if !asked.approved {
            return Err(Rejection::ReturnNotApproved { order_id: id, return_no });
        }
        let known = self.returns.iter().zip(1..).find_map(|(r, no)| Some((no, r.receipts.get(&receipt_id)?)));
        match known {
            Some((no, before)) if no == return_no && before == lines => return Ok(vec![]),
            Some(_) => return Err(Rejection::ReceiptIdSpent { order_id: id, receipt_id }),
            None => {}
        }
        check(lines.iter().map(|l| (l.line, l.quantity)))?;
        if let Some(i) = lines.iter().position(|l| l.usable > l.quantity) {
            let faults = vec![Fault::new(format!("lines[{i}].usable"), "no more than the quantity")];
            return Err(Rejection::Invalid { faults });
        }
        for l in lines {
            let approved = asked.lines.iter().find(|a| a.line == l.line).map_or(0, |a| a.quantity);
            let returnable = approved - asked.received(l.line);
            if l.quantity > returnable {
                return Err(Rejection::NotReturnable { order_id: id, line: l.line, returnable });
            }
        }
        let usable = |l: &ReceivedLine| {
            let line = self.line(l.line).filter(|_| l.usable > 0)?;
            Some(StockLine { quantity: l.usable, ..line.pieces() })
        };
        Ok(vec![
            ReturnReceived {
                return_no,
                receipt_id,
                customer_id: placed.customer_id,
                lines: lines.to_vec(),
                refunds: self.refunds(id, placed, receipt_id, lines),
                restock: lines.iter().filter_map(usable).collect(),
            }
            .into(),
        ])
    }

    /// What the pieces cost, taken back from the payments of their shipments.
    fn refunds(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        receipt_id: ReceiptId,
        lines: &[ReceivedLine],
    ) -> Vec<RefundShare> {
        let mut owed: BTreeMap<ShipmentId, Amount> = BTreeMap::new();
        for received in lines {
            let Some(line) = self.line(received.line) else { continue };
            let before = self.came_back(line);
            let share = |pieces| share(line.cost(), pieces, line.quantity, placed.rounding.mode);
            let owed = owed.entry(ShipmentId::of_seller(id, line.seller_id)).or_default();
            let cost = share(before.saturating_add(received.quantity)).saturating_sub(share(before));
            *owed = owed.saturating_add(cost);
        }
        let refund_id = |capture_id| RefundId::of_return(capture_id, receipt_id);
        owed.into_iter().flat_map(|(shipment_id, owed)| self.take_back(id, shipment_id, owed, refund_id)).collect()
    }

    /// The pieces of a line that came back.
    pub fn came_back(&self, line: &OrderLine) -> u32 {
        self.returns.iter().map(|r| r.received(line.line)).sum()
    }
}

fn check(lines: impl IntoIterator<Item = (LineNo, u32)>) -> Result<(), Rejection> {
    let (mut faults, mut seen) = (Vec::new(), BTreeSet::new());
    for (i, (line, quantity)) in lines.into_iter().enumerate() {
        if !seen.insert(line) {
            faults.push(Fault::new(format!("lines[{i}].line"), "each line once"));
        }
        if quantity == 0 {
            faults.push(Fault::new(format!("lines[{i}].quantity"), "1 or more"));
        }
    }
    if seen.is_empty() {
        faults.push(Fault::new("lines", "1 or more lines"));
    }
    if faults.is_empty() { Ok(()) } else { Err(Rejection::Invalid { faults }) }
}
