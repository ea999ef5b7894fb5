//! What an order may do.

use super::command::{Command, PlaceOrder};
use super::event::{
    CancelReason, Event, LinesDelivered, LinesShort, OrderCancelled, OrderCompleted, OrderConfirmed, OrderPlaced,
    OrderRejected, PaymentAuthorisedRecorded, PaymentRefused, PaymentsSecured, ReservationReturned, StockSecured,
};
use super::state::{Order, Status};
use crate::Fault;
use crate::id::{LineNo, OrderId, PaymentId, ShipmentId};
use crate::shipment::{self, Shipment};
use serde::Serialize;
use std::borrow::Borrow;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Rejection {
    #[error("the order is malformed")]
    Invalid { faults: Vec<Fault> },
    #[error("order {order_id} exists already, with other contents")]
    AlreadyPlaced { order_id: OrderId },
    #[error("there is no order {order_id}")]
    NotPlaced { order_id: OrderId },
    #[error("order {order_id} has ended: it is {status}")]
    Ended { order_id: OrderId, status: Status },
    #[error("shipment {shipment_id} is dispatched: what is under way can only be returned")]
    AlreadyDispatched { shipment_id: ShipmentId },
    #[error("order {order_id} has no payment {payment_id}")]
    UnknownPayment { order_id: OrderId, payment_id: PaymentId },
    #[error("order {order_id} is not confirmed: nothing of it can have been delivered")]
    NotConfirmed { order_id: OrderId },
    #[error("order {order_id} does not wait for that")]
    NotOpen { order_id: OrderId },
    #[error("the payments of order {order_id} are not secured: nothing can have been reserved for it")]
    PaymentsNotSecured { order_id: OrderId },
}

/// How long stock is held for a paid order: three days.
const HOLD_SECONDS: u32 = 3 * 24 * 60 * 60;

impl Order {
    /// What `command` makes of the order `id`; nothing, if it is so already.
    ///
    /// # Errors
    /// When the order's state forbids it.
    pub fn decide(&self, id: OrderId, command: &Command) -> Result<Vec<Event>, Rejection> {
        if let Command::Place(order) = command {
            return self.place(id, order);
        }
        let Some(placed) = &self.placed else { return Err(Rejection::NotPlaced { order_id: id }) };
        match command {
            Command::Place(order) => self.place(id, order),
            Command::RecordPaymentAuthorised { payment_id } => self.payment_authorised(id, placed, *payment_id),
            Command::RecordPaymentDeclined { payment_id, reason } => {
                self.payment_declined(id, placed, *payment_id, reason)
            }
            Command::RecordStockReserved => self.stock_reserved(id, placed),
            Command::RecordShortage { short } => self.shortage(id, placed, short),
            Command::RecordBackorderFilled { .. }
            | Command::RecordEditReserved { .. }
            | Command::RecordEditShortage { .. }
            | Command::TimeOutApproval { .. }
            | Command::Expire => Err(Rejection::NotOpen { order_id: id }),
            Command::RecordDelivery { shipment_id, lines } => self.delivery(id, placed, *shipment_id, lines),
        }
    }

    /// What was placed, if anything was.
    pub fn placed(&self) -> Option<&OrderPlaced> {
        self.placed.as_deref()
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
        };
        match &self.placed {
            Some(before) if **before == placed => Ok(vec![]),
            Some(_) => Err(Rejection::AlreadyPlaced { order_id: id }),
            // Nothing to pay is paid.
            None if placed.payments.is_empty() => {
                let secured = payments_secured(&placed);
                Ok(vec![placed.into(), secured])
            }
            None => Ok(vec![placed.into()]),
        }
    }

    fn payment_authorised(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        payment_id: PaymentId,
    ) -> Result<Vec<Event>, Rejection> {
        known_payment(id, placed, payment_id)?;
        // An order that ended has told its payments already: they let the money go themselves.
        if self.status != Status::Placed || self.authorised.contains(&payment_id) {
            return Ok(vec![]);
        }
        let mut events = vec![PaymentAuthorisedRecorded { payment_id }.into()];
        if self.authorised.len() + 1 == placed.payments.len() {
            events.push(payments_secured(placed));
        }
        Ok(events)
    }

    fn payment_declined(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        payment_id: PaymentId,
        reason: &str,
    ) -> Result<Vec<Event>, Rejection> {
        known_payment(id, placed, payment_id)?;
        if self.status != Status::Placed || self.authorised.contains(&payment_id) {
            return Ok(vec![]);
        }
        let others = placed.payment_ids().into_iter().filter(|other| *other != payment_id);
        Ok(vec![
            PaymentRefused { payment_id, reason: reason.to_owned() }.into(),
            OrderRejected { customer_id: placed.customer_id, payments: others.collect() }.into(),
        ])
    }

    fn stock_reserved(&self, id: OrderId, placed: &OrderPlaced) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Placed if !self.payments_secured => Err(Rejection::PaymentsNotSecured { order_id: id }),
            Status::Placed => {
                Ok(vec![StockSecured {}.into(), OrderConfirmed { shipments: placed.shipments(id) }.into()])
            }
            Status::Unplaced | Status::Confirmed | Status::Completed => Ok(vec![]),
            // A cancelled order released what it knew of; this was reserved while it was cancelled.
            Status::Cancelled | Status::Rejected if self.reservation_known => Ok(vec![]),
            Status::Cancelled | Status::Rejected => {
                Ok(vec![ReservationReturned { lines: placed.stock_lines() }.into()])
            }
        }
    }

    fn shortage(&self, id: OrderId, placed: &OrderPlaced, short: &[LineNo]) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Placed if !self.payments_secured => Err(Rejection::PaymentsNotSecured { order_id: id }),
            Status::Placed => Ok(vec![
                LinesShort { lines: short.to_vec() }.into(),
                cancelled(placed, CancelReason::OutOfStock, false),
            ]),
            Status::Unplaced | Status::Confirmed | Status::Completed | Status::Cancelled | Status::Rejected => {
                Ok(vec![])
            }
        }
    }

    fn delivery(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        shipment_id: ShipmentId,
        lines: &[LineNo],
    ) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Confirmed | Status::Completed => {}
            Status::Unplaced | Status::Placed => return Err(Rejection::NotConfirmed { order_id: id }),
            status @ (Status::Cancelled | Status::Rejected) => return Err(Rejection::Ended { order_id: id, status }),
        }
        let new = |line: &LineNo| !self.delivered.contains(line) && placed.lines.iter().any(|l| l.line == *line);
        let arrived: BTreeSet<LineNo> = lines.iter().copied().filter(new).collect();
        if arrived.is_empty() {
            return Ok(vec![]);
        }
        let complete = self.delivered.len() + arrived.len() == placed.lines.len();
        let mut events = vec![LinesDelivered { shipment_id, lines: arrived.into_iter().collect() }.into()];
        if complete {
            events.push(OrderCompleted {}.into());
        }
        Ok(events)
    }
}

/// What cancelling an order writes: to its own stream, and to each of its shipments' in the order they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancellation {
    pub order: Vec<Event>,
    pub shipments: Vec<Vec<shipment::Event>>,
}

/// Cancels an order with its shipments, all or nothing.
///
/// Both are written in one append, so that a dispatch of the same moment either comes first, and the cancellation is
/// refused, or finds its shipment cancelled.
///
/// # Errors
/// When a shipment is dispatched, or the order has ended otherwise.
pub fn cancel<S: Borrow<Shipment>>(
    order: &Order,
    id: OrderId,
    shipments: &[(ShipmentId, S)],
    reason: CancelReason,
) -> Result<Cancellation, Rejection> {
    let Some(placed) = &order.placed else { return Err(Rejection::NotPlaced { order_id: id }) };
    match order.status {
        Status::Unplaced | Status::Placed | Status::Confirmed => {}
        Status::Cancelled => return Ok(Cancellation { order: vec![], shipments: vec![vec![]; shipments.len()] }),
        status @ (Status::Completed | Status::Rejected) => return Err(Rejection::Ended { order_id: id, status }),
    }
    let cancel_shipment = |shipment_id: ShipmentId, shipment: &Shipment| {
        let command = shipment::Command::Cancel { order_id: id };
        shipment.decide(shipment_id, &command).map_err(|_| Rejection::AlreadyDispatched { shipment_id })
    };
    Ok(Cancellation {
        order: vec![cancelled(placed, reason, order.stock_secured)],
        shipments: shipments
            .iter()
            .map(|(id, shipment)| cancel_shipment(*id, shipment.borrow()))
            .collect::<Result<_, _>>()?,
    })
}

fn cancelled(placed: &OrderPlaced, reason: CancelReason, stock_secured: bool) -> Event {
    OrderCancelled {
        reason,
        customer_id: placed.customer_id,
        payments: placed.payment_ids(),
        reserved: if stock_secured { placed.stock_lines() } else { vec![] },
    }
    .into()
}

fn payments_secured(placed: &OrderPlaced) -> Event {
    PaymentsSecured { lines: placed.stock_lines(), hold_seconds: HOLD_SECONDS }.into()
}

fn known_payment(order_id: OrderId, placed: &OrderPlaced, payment_id: PaymentId) -> Result<(), Rejection> {
    if placed.payments.iter().any(|p| p.payment_id == payment_id) {
        Ok(())
    } else {
        Err(Rejection::UnknownPayment { order_id, payment_id })
    }
}
