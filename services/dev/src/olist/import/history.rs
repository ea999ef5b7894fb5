//! What the rows of an order prove to have happened, as events. Which status proves what stands in `docs/domain.md`.

use super::report::{DerivedId, Note, NoteKind};
use super::rows::{OrderRow, Status};
use crate::olist::IdOf;
use crate::olist::rows::{ItemRow, PaymentRow, sum};
use crate::olist::shipping;
use chrono::{DateTime, Utc};
use order_views::stream;
use orders::id::{AddressId, OrderId, PaymentId};
use orders::money::{Amount, Currency};
use orders::order::{
    self, CancelReason, ForeignId, HistoryRecorded, LinesDelivered, Order, OrderCancelled, OrderCompleted,
    OrderConfirmed, OrderLine, OrderPayment, OrderPlaced, OrderTotals, PaymentAuthorisedRecorded, PaymentMethod,
    PaymentsSecured, ShipmentOrder, StockLine,
};
use orders::payment::{self, CaptureRequested, Payment, PaymentAuthorised, PaymentCaptured, PaymentRequested};
use orders::shipment::{self, Shipment, ShipmentDelivered, ShipmentDispatched, ShipmentPlanned};
use orders::{Event, Fault};
use serde::Serialize;
use std::collections::BTreeSet;
use store::StreamId;
use uuid::Uuid;

/// The name of the system that the history is of.
pub(super) const SOURCE: &str = order_services::decide::IMPORT_ACTOR;
/// The data has no payment tokens; this one is nobody's.
const TOKEN: &str = "imported";

/// What happened to an order, step by step in the order of its life, whatever their times say.
pub(super) struct History {
    pub(super) order_id: OrderId,
    pub(super) steps: Vec<Step>,
    pub(super) untidy: BTreeSet<Untidy>,
    /// Each once: the order's, the customer's, the sellers' in the order of their first lines.
    pub(super) derived: Vec<DerivedId>,
    /// What its events do not show.
    pub(super) notes: Vec<Note>,
}

/// What happened at one time: one append.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) occurred_at: DateTime<Utc>,
    /// Each stream once.
    pub(super) streams: Vec<(StreamId, Vec<Event>)>,
}

/// What is odd about an order, and recorded as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Untidy {
    SeveralSellers,
    SeveralPayments,
    NoItems,
    NoPayments,
    /// Paid more or less than its items and their freight cost.
    PaymentsDiffer,
    PaymentOfZero,
    TimesOutOfOrder,
    /// Something that is known to have happened has no time.
    TimeMissing,
}

impl Untidy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SeveralSellers => "several sellers",
            Self::SeveralPayments => "several payments",
            Self::NoItems => "no items",
            Self::NoPayments => "no payments",
            Self::PaymentsDiffer => "payments differ from the price",
            Self::PaymentOfZero => "a payment of 0.00",
            Self::TimesOutOfOrder => "times out of order",
            Self::TimeMissing => "a time is missing",
        }
    }
}

/// What is proven to have happened after the purchase: by a time of its own, or by what comes after it.
struct Proven {
    approved: bool,
    confirmed: bool,
    dispatched: bool,
    delivered: bool,
    cancelled: Option<CancelReason>,
}

impl Proven {
    fn by(order: &OrderRow) -> Self {
        use Status as S;
        let delivered = order.to_customer.is_some() || order.status == S::Delivered;
        let dispatched = delivered || order.to_carrier.is_some() || order.status == S::Shipped;
        let confirmed = dispatched || matches!(order.status, S::Processing | S::Invoiced);
        let approved = confirmed || order.approved.is_some() || order.status == S::Approved;
        let cancelled = match order.status {
            S::Canceled => Some(CancelReason::NotTold),
            S::Unavailable => Some(CancelReason::OutOfStock),
            S::Created | S::Approved | S::Processing | S::Invoiced | S::Shipped | S::Delivered => None,
        };
        Self { approved, confirmed, dispatched, delivered, cancelled }
    }
}

impl History {
    /// # Errors
    /// When it is not in the shape of a history; every field that is wrong.
    pub(super) fn of(
        order: &OrderRow,
        items: &[ItemRow],
        payments: &[PaymentRow],
        currency: Currency,
    ) -> Result<Self, Vec<Fault>> {
        let placed = placed(order, items, payments, currency);
        let proven = Proven::by(order);
        let shipments = if proven.confirmed { placed.shipments_as_paid(order.id) } else { vec![] };
        let mut telling = Telling {
            order,
            placed: &placed,
            shipments: &shipments,
            history: Self {
                order_id: order.id,
                steps: vec![],
                untidy: untidy(order, &placed),
                derived: derived(order, items),
                notes: vec![],
            },
        };
        telling.purchase();
        if proven.approved {
            telling.approval(proven.confirmed);
        }
        if proven.dispatched {
            telling.dispatch();
        }
        if proven.delivered {
            telling.delivery(proven.cancelled.is_none());
        }
        if let Some(reason) = proven.cancelled {
            telling.cancellation(reason);
        }
        let history = telling.end();
        history.check()?;
        Ok(history)
    }

    /// Holds each stream against what the domain says a history is.
    fn check(&self) -> Result<(), Vec<Fault>> {
        let mut streams: Vec<(StreamId, Vec<&Event>)> = Vec::new();
        for (stream, events) in self.steps.iter().flat_map(|step| &step.streams) {
            match streams.iter_mut().find(|(other, _)| other == stream) {
                Some((_, all)) => all.extend(events),
                None => streams.push((*stream, events.iter().collect())),
            }
        }
        let mut faults = Vec::new();
        for (stream, events) in streams {
            let checked = match events[0] {
                Event::Order(id, _) => Order::check_history(*id, &of_order(&events)),
                Event::Payment(..) => Payment::check_history(&of_payment(&events)),
                Event::Shipment(..) => Shipment::check_history(&of_shipment(&events)),
                // What was on hand, the data does not tell.
                Event::Stock(..) => Err(vec![Fault::new("events", "of an order, a payment or a shipment")]),
            };
            let of_stream = |f: Fault| Fault::new(format!("{stream} {}", f.field), f.expected);
            faults.extend(checked.err().into_iter().flatten().map(of_stream));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

fn of_order(events: &[&Event]) -> Vec<order::Event> {
    events.iter().filter_map(|e| if let Event::Order(_, e) = e { Some(e.clone()) } else { None }).collect()
}

fn of_payment(events: &[&Event]) -> Vec<payment::Event> {
    events.iter().filter_map(|e| if let Event::Payment(_, e) = e { Some(e.clone()) } else { None }).collect()
}

fn of_shipment(events: &[&Event]) -> Vec<shipment::Event> {
    events.iter().filter_map(|e| if let Event::Shipment(_, e) = e { Some(e.clone()) } else { None }).collect()
}

/// A history that is being told.
struct Telling<'a> {
    order: &'a OrderRow,
    placed: &'a OrderPlaced,
    /// None before it is confirmed.
    shipments: &'a [ShipmentOrder],
    history: History,
}

impl Telling<'_> {
    fn purchase(&mut self) {
        let mut events = vec![self.of_order(self.placed.clone())];
        events.extend(self.placed.payments.iter().map(|p| {
            let request = PaymentRequested {
                order_id: self.order.id,
                amount: p.amount,
                currency: self.placed.currency,
                method: p.method.clone(),
                idempotency_key: p.payment_id.0,
            };
            Event::Payment(p.payment_id, request.into())
        }));
        self.step("placed", self.order.purchased, events);
    }

    /// The payments are approved. An order that went on from there was confirmed then, and had been paid: what Olist
    /// approves is a payment that was made, so it is captured for the shipments.
    fn approval(&mut self, confirmed: bool) {
        let (order_id, currency) = (self.order.id, self.placed.currency);
        let mut events = Vec::new();
        for payment in &self.placed.payments {
            let (id, amount) = (payment.payment_id, payment.amount);
            // The files have no name for it but the payment's own.
            let reference = format!("{SOURCE} {id}");
            let authorised = PaymentAuthorised { order_id, amount, currency, reference: reference.clone() };
            events.push(Event::Payment(id, authorised.into()));
            let mut left = amount;
            for share in self.shipments.iter().flat_map(|s| &s.captures).filter(|share| share.payment_id == id) {
                let (capture_id, amount, idempotency_key) = (share.capture_id, share.amount, share.capture_id.0);
                left.0 -= amount.0;
                let requested = CaptureRequested { order_id, capture_id, amount, currency, idempotency_key };
                let reference = reference.clone();
                let captured = PaymentCaptured { order_id, capture_id, amount, left, currency, reference };
                events.extend([Event::Payment(id, requested.into()), Event::Payment(id, captured.into())]);
            }
        }
        for payment in &self.placed.payments {
            events.push(self.of_order(PaymentAuthorisedRecorded { payment_id: payment.payment_id }));
        }
        // Nothing is held for it here.
        events.push(self.of_order(PaymentsSecured { lines: stock_lines(self.placed), hold_seconds: 0 }));
        if confirmed {
            events.push(self.of_order(OrderConfirmed { shipments: self.shipments.to_vec() }));
            events.extend(self.shipments.iter().map(|s| {
                let planned = ShipmentPlanned { order_id, revision: 1, shipment: s.clone() };
                Event::Shipment(s.shipment_id, planned.into())
            }));
        }
        let at = self.time("approval", self.order.approved, [self.order.to_carrier, self.order.to_customer], []);
        self.step("approved", at, events);
    }

    fn dispatch(&mut self) {
        let events = self.shipments.iter().map(|s| {
            let dispatched = ShipmentDispatched {
                order_id: self.order.id,
                customer_id: s.customer_id,
                // The files have none.
                tracking: String::new(),
                lines: s.lines.clone(),
                captures: s.captures.clone(),
                unreserved: s.unreserved,
            };
            Event::Shipment(s.shipment_id, dispatched.into())
        });
        let events = events.collect();
        let at = self.time(
            "handover to the carrier",
            self.order.to_carrier,
            [self.order.to_customer],
            [self.order.approved],
        );
        if self.shipments.is_empty() {
            let note = format!("handed to the carrier at {at}, but without items there is no shipment");
            self.note(NoteKind::SentWithoutItems, note);
        }
        self.step("dispatched", at, events);
    }

    fn delivery(&mut self, completed: bool) {
        let order_id = self.order.id;
        let lines = |s: &ShipmentOrder| s.lines.iter().map(|l| l.line).collect::<Vec<_>>();
        let mut events = Vec::new();
        for s in self.shipments {
            events.push(Event::Shipment(s.shipment_id, ShipmentDelivered { order_id, lines: lines(s) }.into()));
        }
        for s in self.shipments {
            events.push(self.of_order(LinesDelivered { shipment_id: s.shipment_id, lines: lines(s) }));
        }
        if completed {
            events.push(self.of_order(OrderCompleted {}));
        }
        let before = [self.order.to_carrier, self.order.approved];
        let at = self.time("delivery", self.order.to_customer, [], before);
        self.step("delivered", at, events);
    }

    /// When it was, the files do not tell: not before the last time that they have.
    fn cancellation(&mut self, reason: CancelReason) {
        // What became of the money, they do not tell either.
        let (customer_id, payments, reserved) = (self.order.customer, vec![], vec![]);
        let cancelled = self.of_order(OrderCancelled { reason, customer_id, payments, reserved });
        self.step("cancelled", self.last_time(), vec![cancelled]);
    }

    fn end(mut self) -> History {
        let (source, status) = (SOURCE.to_owned(), self.order.status.as_str().to_owned());
        let ids = self.history.derived.iter().map(|d| ForeignId { id: d.id, name: d.name.clone() }).collect();
        let recorded = self.of_order(HistoryRecorded { source, status, ids });
        self.step("recorded", self.last_time(), vec![recorded]);
        self.history
    }

    fn note(&mut self, kind: NoteKind, note: String) {
        self.history.notes.push(Note { kind, order: self.order.olist_id.clone(), note });
    }

    fn last_time(&self) -> DateTime<Utc> {
        let times = [self.order.approved, self.order.to_carrier, self.order.to_customer];
        times.into_iter().flatten().fold(self.order.purchased, DateTime::max)
    }

    fn of_order(&self, event: impl Into<order::Event>) -> Event {
        Event::Order(self.order.id, event.into())
    }

    fn step(&mut self, name: &'static str, occurred_at: DateTime<Utc>, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut step = Step { name, occurred_at, streams: vec![] };
        events.into_iter().for_each(|event| step.add(event));
        self.history.steps.push(step);
    }

    /// When it happened: by its own time; else by the next one that there is, by which it had happened; else by the one
    /// before, after which it did. That is noted.
    fn time<const A: usize, const B: usize>(
        &mut self,
        what: &str,
        own: Option<DateTime<Utc>>,
        after: [Option<DateTime<Utc>>; A],
        before: [Option<DateTime<Utc>>; B],
    ) -> DateTime<Utc> {
        if let Some(own) = own {
            return own;
        }
        let other = after.into_iter().chain(before).flatten().next().unwrap_or(self.order.purchased);
        self.history.untidy.insert(Untidy::TimeMissing);
        let note = format!("its {what} has no time in the files: {other} is the nearest that they have");
        self.note(NoteKind::TimeMissing, note);
        other
    }
}

impl Step {
    fn add(&mut self, event: Event) {
        let stream = stream_of(&event);
        match self.streams.iter_mut().find(|(other, _)| *other == stream) {
            Some((_, events)) => events.push(event),
            None => self.streams.push((stream, vec![event])),
        }
    }
}

fn stream_of(event: &Event) -> StreamId {
    match event {
        Event::Order(id, _) => stream::<Order>(id.0),
        Event::Payment(id, _) => stream::<Payment>(id.0),
        Event::Stock(id, _) => stream::<orders::stock::Stock>(id.0),
        Event::Shipment(id, _) => stream::<Shipment>(id.0),
    }
}

fn placed(order: &OrderRow, items: &[ItemRow], payments: &[PaymentRow], currency: Currency) -> OrderPlaced {
    let line = |item: &ItemRow| OrderLine {
        line: item.number,
        sku: item.sku.clone(),
        seller_id: item.seller,
        quantity: 1,
        unit_price: item.price,
        discount: Amount::ZERO,
        tax: Amount::ZERO,
    };
    let payment = |(n, payment): (usize, &PaymentRow)| OrderPayment {
        payment_id: PaymentId::of_order(order.id, n),
        method: PaymentMethod { kind: payment.kind.clone(), token: TOKEN.to_owned() },
        amount: payment.amount,
    };
    let (goods, freight) = (sum(items.iter().map(|i| i.price)), sum(items.iter().map(|i| i.freight)));
    OrderPlaced {
        customer_id: order.customer,
        currency,
        // The files have no addresses; a customer's is the same however often they are read.
        shipping_address_id: AddressId(Uuid::new_v5(&order.customer.0, b"address")),
        billing_address_id: None,
        lines: items.iter().map(line).collect(),
        shipping: shipping(&items.iter().collect::<Vec<_>>()),
        payments: payments.iter().enumerate().map(payment).collect(),
        totals: OrderTotals {
            goods,
            discount: Amount::ZERO,
            tax: Amount::ZERO,
            shipping: freight,
            // It fits, as the sum of both columns does.
            total: Amount(goods.0 + freight.0),
        },
        rounding: Default::default(),
        backorder: false,
        approval_within_seconds: None,
    }
}

fn derived(order: &OrderRow, items: &[ItemRow]) -> Vec<DerivedId> {
    let mut derived = order.derived.clone();
    for item in items {
        let seller = DerivedId::of(IdOf::Seller, item.seller.0, item.seller_name.as_ref());
        derived.extend(seller.filter(|seller| !derived.contains(seller)));
    }
    derived
}

fn stock_lines(placed: &OrderPlaced) -> Vec<StockLine> {
    placed.lines.iter().map(|l| StockLine { line: l.line, sku: l.sku.clone(), quantity: l.quantity }).collect()
}

fn untidy(order: &OrderRow, placed: &OrderPlaced) -> BTreeSet<Untidy> {
    let times = [Some(order.purchased), order.approved, order.to_carrier, order.to_customer];
    let times: Vec<_> = times.into_iter().flatten().collect();
    let paid = sum(placed.payments.iter().map(|p| p.amount));
    let odd = [
        (Untidy::SeveralSellers, placed.shipping.len() > 1),
        (Untidy::SeveralPayments, placed.payments.len() > 1),
        (Untidy::NoItems, placed.lines.is_empty()),
        (Untidy::NoPayments, placed.payments.is_empty()),
        (Untidy::PaymentsDiffer, paid != placed.totals.total),
        (Untidy::PaymentOfZero, placed.payments.iter().any(|p| p.amount == Amount::ZERO)),
        (Untidy::TimesOutOfOrder, !times.is_sorted()),
    ];
    odd.into_iter().filter(|(_, is_so)| *is_so).map(|(what, _)| what).collect()
}
