//! Edits: an order becomes another one, once what that costs and needs is secured.

use super::change::Next;
use super::command::{
    MAX_LINES, MAX_PAYMENTS, ProposeEdit, check_lines, check_payments, check_shipping, numbered_lines,
    numbered_payments, too_large,
};
use super::decide::HOLD_SECONDS;
use super::event::{
    EditConfirmed, EditDiscardReason, EditDiscarded, EditProposed, EditStockSecured, Event, OrderLine, OrderPlaced,
    OrderTotals, ReservationReturned,
};
use super::rejection::Rejection;
use super::state::{EditEnd, OpenEdit, Order, Status};
use crate::Fault;
use crate::id::{LineNo, OrderId, PaymentId, SellerId, ShipmentId};
use crate::money::Amount;
use std::collections::BTreeSet;

impl OpenEdit {
    /// Its end, if it is not confirmed.
    pub(super) fn discarded(&self, reason: EditDiscardReason) -> Event {
        EditDiscarded {
            edit: self.proposed.edit,
            reason,
            payments: self.proposed.payments.iter().map(|p| p.payment_id).collect(),
            reserved: if self.stock_secured { self.proposed.reserve.clone() } else { vec![] },
        }
        .into()
    }
}

impl Order {
    pub(super) fn propose_edit(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        edit: &ProposeEdit,
    ) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Confirmed if self.is_history => return Err(Rejection::Imported { order_id: id }),
            Status::Confirmed => {}
            Status::Unplaced | Status::Placed => return Err(Rejection::NotConfirmed { order_id: id }),
            status => return Err(Rejection::Ended { order_id: id, status }),
        }
        if let Some(line) = self.lines().find(|l| self.is_settled(l.line)) {
            let shipment_id = ShipmentId::of_seller(id, line.seller_id);
            return Err(Rejection::AlreadyDispatched { shipment_id, waiting: self.shipments_to_come(id) });
        }
        let open = self.edit.as_ref().map(|open| &*open.proposed);
        let number = |edit| self.proposed(id, placed, edit, open).map_err(|faults| Rejection::Invalid { faults });
        match (number(edit), open) {
            (Ok(proposed), Some(open)) if proposed == *open => Ok(vec![]),
            (_, Some(open)) => Err(Rejection::EditOpen { order_id: id, edit: open.edit }),
            (proposed, None) => Ok(vec![proposed?.into()]),
        }
    }

    /// The edit as it would be if it took the place of `open`.
    fn proposed(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        edit: &ProposeEdit,
        open: Option<&EditProposed>,
    ) -> Result<EditProposed, Vec<Fault>> {
        let (lines_of_open, payments_of_open) = open.map_or((0, 0), |open| (open.add.len(), open.payments.len()));
        let mut faults = Vec::new();
        let mut seen = BTreeSet::new();
        for (i, line) in edit.remove.iter().enumerate() {
            if !self.has_line(*line) || !seen.insert(*line) {
                faults.push(Fault::new(format!("remove[{i}]"), "each line of the order at most once"));
            }
        }
        check_lines("add", &edit.add, &mut faults);
        let kept: Vec<&OrderLine> = self.lines().filter(|l| !edit.remove.contains(&l.line)).collect();
        let sellers: BTreeSet<SellerId> =
            kept.iter().map(|l| l.seller_id).chain(edit.add.iter().map(|l| l.seller_id)).collect();
        check_shipping(&edit.shipping, &sellers, &mut faults);
        if !(1..=MAX_LINES).contains(&(kept.len() + edit.add.len())) {
            faults.push(Fault::new("add", format!("1 to {MAX_LINES} lines after the edit")));
        }
        check_payments(&edit.payments, &mut faults);
        if self.payments().count() + edit.payments.len() > MAX_PAYMENTS {
            faults.push(Fault::new("payments", format!("at most {MAX_PAYMENTS} payments of the order")));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let add = numbered_lines(&edit.add, self.lines_numbered - lines_of_open as LineNo + 1);
        let totals = OrderTotals::of(kept.into_iter().chain(&add), &edit.shipping);
        let totals = totals.ok_or_else(|| vec![too_large("add")])?;
        let missing = totals.total.saturating_sub(self.to_be_paid()).max(Amount::ZERO);
        if Amount::sum(edit.payments.iter().map(|p| p.amount)) != Some(missing) {
            let expected = format!("amounts that add up to {}", missing.display(placed.currency));
            return Err(vec![Fault::new("payments", expected)]);
        }
        Ok(EditProposed {
            edit: self.edits.len() as u32 + 1,
            currency: placed.currency,
            remove: edit.remove.clone(),
            reserve: add.iter().map(OrderLine::pieces).collect(),
            add,
            shipping: edit.shipping.clone(),
            payments: numbered_payments(&edit.payments, id, self.payments_numbered - payments_of_open),
            totals,
            hold_seconds: HOLD_SECONDS,
        })
    }

    /// The edit, if it is open; `Err` with what became of it, if it is not.
    fn open_edit(&self, id: OrderId, edit: u32) -> Result<Result<&OpenEdit, &EditEnd>, Rejection> {
        match &self.edit {
            Some(open) if open.proposed.edit == edit => Ok(Ok(open)),
            _ => match self.edits.get((edit as usize).wrapping_sub(1)) {
                Some(end) => Ok(Err(end)),
                None => Err(Rejection::UnknownEdit { order_id: id, edit }),
            },
        }
    }

    pub(super) fn edit_reserved(&self, id: OrderId, edit: u32) -> Result<Vec<Event>, Rejection> {
        Ok(match self.open_edit(id, edit)? {
            Ok(open) if !open.stock_secured => vec![EditStockSecured { edit }.into()],
            // Its end released what it knew of; this was reserved while it ended.
            Err(EditEnd::Discarded(unknown)) if !unknown.is_empty() => {
                vec![ReservationReturned { lines: unknown.clone() }.into()]
            }
            Ok(_) | Err(EditEnd::Discarded(_) | EditEnd::Confirmed) => vec![],
        })
    }

    pub(super) fn edit_short(&self, id: OrderId, edit: u32) -> Result<Vec<Event>, Rejection> {
        Ok(match self.open_edit(id, edit)? {
            Ok(open) if !open.stock_secured => vec![open.discarded(EditDiscardReason::OutOfStock)],
            Ok(_) | Err(_) => vec![],
        })
    }

    pub(super) fn discard_edit(&self, id: OrderId, edit: u32) -> Result<Vec<Event>, Rejection> {
        match self.open_edit(id, edit)? {
            Ok(open) => Ok(vec![open.discarded(EditDiscardReason::Requested)]),
            Err(EditEnd::Discarded(_)) => Ok(vec![]),
            Err(EditEnd::Confirmed) => Err(Rejection::EditConfirmed { order_id: id, edit }),
        }
    }

    /// See [`Order::change`].
    pub(super) fn confirm_edit(&self, id: OrderId, edit: u32) -> Result<Option<Next>, Rejection> {
        let open = match self.open_edit(id, edit)? {
            Ok(open) => open,
            Err(EditEnd::Confirmed) => return Ok(None),
            Err(EditEnd::Discarded(_)) => return Err(Rejection::EditDiscarded { order_id: id, edit }),
        };
        if !self.holds.is_empty() {
            return Err(Rejection::OnHold { order_id: id });
        }
        let payments: Vec<PaymentId> = open
            .proposed
            .payments
            .iter()
            .map(|p| p.payment_id)
            .filter(|payment| !self.authorised.contains(payment))
            .collect();
        let stock_secured = open.stock_secured;
        if !payments.is_empty() || !stock_secured {
            return Err(Rejection::EditNotSecured { order_id: id, edit, payments, stock_secured });
        }
        let mut after = self.clone();
        after.become_as(&open.proposed);
        let (old, shipments) = (self.shipment_ids(id), after.shipments(id));
        let confirmed = EditConfirmed {
            edit,
            totals: open.proposed.totals,
            lines: after.lines().count() as u32,
            released: self.pieces(|line| open.proposed.remove.contains(&line)),
            shipments: shipments.iter().filter(|s| !old.contains(&s.shipment_id)).cloned().collect(),
            payments: after.unneeded(&shipments),
        };
        Ok(Some(Next { events: vec![confirmed.into()], shipments }))
    }
}
