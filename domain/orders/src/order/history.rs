//! An order's history in another system, recorded as facts: that its events have the shape of one is checked, that they
//! could have come about here is not. Goods may have left before they were paid for.

use super::command::{PlaceLine, not_negative};
use super::event::{Event, ForeignId, OrderLine, OrderPlaced, OrderTotals, ShipmentOrder, StockLine};
use super::state::Order;
use crate::id::{LineNo, OrderId, PaymentId, ShipmentId};
use crate::money::Amount;
use crate::{Aggregate, Fault};
use std::collections::BTreeSet;
use uuid::Uuid;

#[cfg(test)]
mod tests;

impl Order {
    /// Whether `events` can be the whole history of the order `id`.
    ///
    /// # Errors
    /// Every field that is wrong, with what it should be.
    pub fn check_history(id: OrderId, events: &[Event]) -> Result<(), Vec<Fault>> {
        let Some((Event::OrderPlaced(placed), rest)) = events.split_first() else {
            return Err(vec![Fault::new("events[0]", "OrderPlaced")]);
        };
        let mut faults = Vec::new();
        placed.check(&mut faults);
        for (i, event) in (1..).zip(rest) {
            placed.check_later(id, event, &format!("events[{i}]"), &mut faults);
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

impl OrderPlaced {
    /// The shipments of an order that was paid as its payments say, more or less than it costs.
    pub fn shipments_as_paid(&self, order: OrderId) -> Vec<ShipmentOrder> {
        Order { is_history: true, ..self.order() }.shipments(order)
    }

    fn check(&self, faults: &mut Vec<Fault>) {
        let mut numbers = BTreeSet::new();
        for (i, line) in self.lines.iter().enumerate() {
            let at = format!("events[0].lines[{i}]");
            if line.line == 0 || !numbers.insert(line.line) {
                faults.push(Fault::new(format!("{at}.line"), "a number from 1 that no other line has"));
            }
            PlaceLine::from(line).check(&at, faults);
        }
        let (all_sellers, mut sellers) = (self.order().sellers(), BTreeSet::new());
        for (i, shipping) in self.shipping.iter().enumerate() {
            let at = format!("events[0].shipping[{i}]");
            if !all_sellers.contains(&shipping.seller_id) || !sellers.insert(shipping.seller_id) {
                faults.push(Fault::new(format!("{at}.seller_id"), "each seller of a line at most once"));
            }
            not_negative(shipping.amount, || format!("{at}.amount"), faults);
        }
        let mut payments = BTreeSet::new();
        for (i, payment) in self.payments.iter().enumerate() {
            let at = format!("events[0].payments[{i}]");
            if !payments.insert(payment.payment_id) {
                faults.push(Fault::new(format!("{at}.payment_id"), "an id that no other payment has"));
            }
            not_negative(payment.amount, || format!("{at}.amount"), faults);
            payment.method.check(&at, faults);
        }
        if Amount::sum(self.payments.iter().map(|p| p.amount)).is_none() {
            faults.push(Fault::new("events[0].payments", "a sum below 2^63 minor units"));
        }
        if OrderTotals::of(&self.lines, &self.shipping) != Some(self.totals) {
            faults.push(Fault::new("events[0].totals", "what lines and shipping add up to"));
        }
    }

    /// The order with which its history begins.
    fn order(&self) -> Order {
        let mut order = Order::default();
        order.evolve(&self.clone().into());
        order
    }

    fn check_later(&self, id: OrderId, event: &Event, at: &str, faults: &mut Vec<Fault>) {
        match event {
            Event::PaymentAuthorisedRecorded(e) => self.check_payment(e.payment_id, at, faults),
            Event::PaymentsSecured(e) => self.check_stock(&e.lines, at, faults),
            Event::OrderConfirmed(e) => {
                e.shipments.iter().for_each(|shipment| self.check_shipment(id, shipment, at, faults));
            }
            Event::LinesDelivered(e) => {
                self.check_shipment_id(id, e.shipment_id, at, faults);
                self.check_lines(&e.lines, at, faults);
            }
            Event::OrderCancelled(e) => {
                e.payments.iter().for_each(|payment| self.check_payment(*payment, at, faults));
                self.check_stock(&e.reserved, at, faults);
            }
            Event::OrderCompleted(_) => {}
            Event::HistoryRecorded(e) => {
                check_word(&e.source, || format!("{at}.source"), faults);
                check_word(&e.status, || format!("{at}.status"), faults);
                self.check_ids(id, &e.ids, at, faults);
            }
            // Nobody has said yet what of the others is right by itself: no history has them.
            other => {
                let expected = format!("an event that a history may have, not {}", other.event_type());
                faults.push(Fault::new(at, expected));
            }
        }
    }

    fn check_ids(&self, order: OrderId, ids: &[ForeignId], at: &str, faults: &mut Vec<Fault>) {
        let sellers = self.lines.iter().map(|line| line.seller_id.0);
        let known: BTreeSet<Uuid> = sellers.chain([order.0, self.customer_id.0]).collect();
        for (i, ForeignId { id, name }) in ids.iter().enumerate() {
            if !known.contains(id) {
                let expected = "the id of the order, of its customer or of one of its sellers";
                faults.push(Fault::new(format!("{at}.ids[{i}].id"), expected));
            }
            check_word(name, || format!("{at}.ids[{i}].name"), faults);
        }
    }

    fn check_payment(&self, payment: PaymentId, at: &str, faults: &mut Vec<Fault>) {
        if !self.payments.iter().any(|p| p.payment_id == payment) {
            faults.push(Fault::new(at, format!("a payment of the order, not {payment}")));
        }
    }

    fn check_lines(&self, lines: &[LineNo], at: &str, faults: &mut Vec<Fault>) {
        for line in lines.iter().filter(|line| !self.lines.iter().any(|l| l.line == **line)) {
            faults.push(Fault::new(at, format!("a line of the order, not {line}")));
        }
    }

    fn check_stock(&self, lines: &[StockLine], at: &str, faults: &mut Vec<Fault>) {
        for line in lines.iter().filter(|line| !self.lines.iter().any(|l| l.pieces() == **line)) {
            faults.push(Fault::new(at, format!("pieces as the order has them, not {} of {}", line.quantity, line.sku)));
        }
    }

    fn check_shipment_id(&self, id: OrderId, shipment: ShipmentId, at: &str, faults: &mut Vec<Fault>) {
        if !self.order().sellers().into_iter().any(|seller| ShipmentId::of_seller(id, seller) == shipment) {
            faults.push(Fault::new(at, format!("a shipment of one of the order's sellers, not {shipment}")));
        }
    }

    fn check_shipment(&self, id: OrderId, shipment: &ShipmentOrder, at: &str, faults: &mut Vec<Fault>) {
        self.check_shipment_id(id, shipment.shipment_id, at, faults);
        self.check_stock(&shipment.lines, at, faults);
        for capture in &shipment.captures {
            self.check_payment(capture.payment_id, at, faults);
            not_negative(capture.amount, || format!("{at}.captures"), faults);
        }
    }
}

fn check_word(word: &str, field: impl Fn() -> String, faults: &mut Vec<Fault>) {
    if !(1..=64).contains(&word.len()) || !word.bytes().all(|b| b.is_ascii_graphic()) {
        faults.push(Fault::new(field(), "1 to 64 printable ASCII characters without blanks"));
    }
}

impl From<&OrderLine> for PlaceLine {
    fn from(line: &OrderLine) -> Self {
        Self {
            sku: line.sku.clone(),
            seller_id: line.seller_id,
            quantity: line.quantity,
            unit_price: line.unit_price,
            discount: line.discount,
            tax: line.tax,
        }
    }
}
