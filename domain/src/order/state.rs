//! What an order's events come to: all that decisions need.

use super::event::{CaptureShare, Event, OrderPayment, OrderPlaced, ShipmentOrder, StockLine};
use crate::Aggregate;
use crate::id::{CaptureId, LineNo, OrderId, PaymentId, SellerId, ShipmentId};
use crate::money::Amount;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// Where an order is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is no such order yet.
    #[default]
    Unplaced,
    Placed,
    Confirmed,
    Completed,
    Cancelled,
    Rejected,
}

impl Status {
    /// The word that it is stored and sent as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unplaced => "unplaced",
            Self::Placed => "placed",
            Self::Confirmed => "confirmed",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Order {
    pub status: Status,
    /// Shared, for the state is cloned for every decision.
    pub(super) placed: Option<Arc<OrderPlaced>>,
    pub(super) authorised: BTreeSet<PaymentId>,
    pub(super) payments_secured: bool,
    pub(super) stock_secured: bool,
    /// A reservation was made and is accounted for: secured, or returned because it came too late.
    pub(super) reservation_known: bool,
    pub(super) delivered: BTreeSet<LineNo>,
}

impl Aggregate for Order {
    const CATEGORY: &'static str = "order";
    type Event = Event;

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::OrderPlaced(placed) => {
                self.status = Status::Placed;
                self.placed = Some(Arc::new(placed.clone()));
            }
            Event::PaymentAuthorisedRecorded(e) => {
                self.authorised.insert(e.payment_id);
            }
            Event::PaymentsSecured(_) => self.payments_secured = true,
            Event::OrderRejected(_) => self.status = Status::Rejected,
            Event::StockSecured(_) => {
                self.stock_secured = true;
                self.reservation_known = true;
            }
            Event::OrderConfirmed(_) => self.status = Status::Confirmed,
            Event::OrderCancelled(_) => {
                self.status = Status::Cancelled;
                self.stock_secured = false;
            }
            Event::LinesDelivered(e) => self.delivered.extend(&e.lines),
            Event::OrderCompleted(_) => self.status = Status::Completed,
            Event::ReservationReturned(_) => self.reservation_known = true,
            Event::PaymentRefused(_) | Event::LinesShort(_) | Event::HistoryRecorded(_) => {}
        }
    }

    fn event_of(event: &crate::Event) -> Option<&Event> {
        match event {
            crate::Event::Order(_, event) => Some(event),
            crate::Event::Payment(..) | crate::Event::Stock(..) | crate::Event::Shipment(..) => None,
        }
    }

    fn event(id: Uuid, event: Event) -> crate::Event {
        crate::Event::Order(OrderId(id), event)
    }
}

impl Order {
    /// The order's shipments, once it is confirmed; before that, it has none.
    pub fn shipment_ids(&self, id: OrderId) -> Vec<ShipmentId> {
        match (&self.placed, self.status) {
            (Some(placed), Status::Confirmed | Status::Completed) => {
                placed.sellers().into_iter().map(|seller| ShipmentId::of_seller(id, seller)).collect()
            }
            _ => vec![],
        }
    }
}

impl OrderPlaced {
    /// The pieces to reserve and to ship.
    pub(super) fn stock_lines(&self) -> Vec<StockLine> {
        self.lines.iter().map(|l| StockLine { line: l.line, sku: l.sku.clone(), quantity: l.quantity }).collect()
    }

    pub(super) fn payment_ids(&self) -> Vec<PaymentId> {
        self.payments.iter().map(|p| p.payment_id).collect()
    }

    /// The sellers in the order of their first line.
    pub(crate) fn sellers(&self) -> Vec<SellerId> {
        let mut sellers = Vec::new();
        for line in &self.lines {
            if !sellers.contains(&line.seller_id) {
                sellers.push(line.seller_id);
            }
        }
        sellers
    }

    /// A shipment for each seller, with what to capture for it: the payments are used up one after the other.
    pub(super) fn shipments(&self, order: OrderId) -> Vec<ShipmentOrder> {
        let mut left = self.payments.clone();
        let sellers = self.sellers().into_iter();
        sellers.map(|seller| self.shipment(order, seller, &mut left)).collect()
    }

    fn shipment(&self, order: OrderId, seller_id: SellerId, left: &mut [OrderPayment]) -> ShipmentOrder {
        let shipment_id = ShipmentId::of_seller(order, seller_id);
        let lines = self.lines.iter().filter(|l| l.seller_id == seller_id);
        ShipmentOrder {
            shipment_id,
            seller_id,
            customer_id: self.customer_id,
            address_id: self.shipping_address_id,
            captures: take(left, self.owed_for(seller_id), shipment_id),
            lines: lines.map(|l| StockLine { line: l.line, sku: l.sku.clone(), quantity: l.quantity }).collect(),
        }
    }

    /// What the lines and the shipping of a seller cost. It fits: the total of the order, which is no less, does.
    fn owed_for(&self, seller: SellerId) -> Amount {
        let lines = self.lines.iter().filter(|l| l.seller_id == seller);
        let goods: i64 = lines.map(|l| l.unit_price.0 * i64::from(l.quantity) - l.discount.0 + l.tax.0).sum();
        let shipping: i64 = self.shipping.iter().filter(|s| s.seller_id == seller).map(|s| s.amount.0).sum();
        Amount(goods + shipping)
    }
}

/// Takes `owed` from what is left of the payments, in their order.
fn take(left: &mut [OrderPayment], mut owed: Amount, shipment: ShipmentId) -> Vec<CaptureShare> {
    let mut shares = Vec::new();
    for payment in left {
        let amount = payment.amount.min(owed);
        if amount > Amount::ZERO {
            payment.amount.0 -= amount.0;
            owed.0 -= amount.0;
            let capture_id = CaptureId::of_shipment(payment.payment_id, shipment);
            shares.push(CaptureShare { payment_id: payment.payment_id, capture_id, amount });
        }
    }
    shares
}
