//! What follows from an event elsewhere: the whole choreography, an arm for each event.
//!
//! A reaction needs nothing but the event. It says what is to be done; that it is done, once, is the sender's part.

use crate::id::{CaptureId, CustomerId, LineNo, OrderId, PaymentId, ShipmentId};
use crate::money::{Amount, Currency};
use crate::order::{CancelReason, PaymentMethod, StockLine};
use crate::payment::Outcome;
use crate::{Command, Event, Rejection, order, payment, shipment, stock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[cfg(test)]
mod tests;

/// Something to be done because of an event.
///
/// Its id is derived from the event, `reaction` and `target`: one event asks for one thing of one target once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// The stable name of the reaction.
    pub reaction: &'static str,
    /// What it is aimed at: the id of a stream, or of a customer.
    pub target: Uuid,
    pub act: Act,
}

/// What a follow-up does. Stored as JSON until it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    Command(Command),
    Provider(ProviderCall),
    Notice(Notice),
}

/// A request to the payment provider: what is asked, for which payment. Also the body that is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderCall {
    /// The attempt that it is about.
    pub payment_id: PaymentId,
    /// The same key, the same effect: the provider does it once.
    pub idempotency_key: Uuid,
    pub operation: Operation,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Authorise { order_id: OrderId, amount: Amount, currency: Currency, method: PaymentMethod },
    Capture { capture_id: CaptureId, amount: Amount, currency: Currency },
    Void,
}

/// Something that a customer is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub customer_id: CustomerId,
    pub order_id: OrderId,
    pub message: Message,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    PaymentDeclined,
    OrderCancelled { reason: CancelReason },
    ShipmentDispatched { tracking: String },
}

/// What follows from `event`.
pub fn react(event: &Event) -> Vec<FollowUp> {
    match event {
        Event::Order(id, event) => after_order(*id, event),
        Event::Payment(id, event) => after_payment(*id, event),
        Event::Stock(_, event) => after_stock(event),
        Event::Shipment(id, event) => after_shipment(*id, event),
    }
}

fn after_order(id: OrderId, event: &order::Event) -> Vec<FollowUp> {
    use order::Event as E;
    match event {
        E::OrderPlaced(e) => {
            let take = |p: &order::OrderPayment| {
                let (amount, currency, method) = (p.amount, e.currency, p.method.clone());
                let command = payment::Command::Authorise { order_id: id, amount, currency, method };
                to_payment("take_payment", p.payment_id, command)
            };
            e.payments.iter().map(take).collect()
        }
        E::PaymentsSecured(e) => {
            let (lines, hold_seconds) = (e.lines.clone(), e.hold_seconds);
            vec![to_stock(
                "reserve_stock",
                id,
                stock::Command::Reserve { order_id: id, lines, hold_seconds, edit: None },
            )]
        }
        E::OrderConfirmed(e) => {
            let plan = |s: &order::ShipmentOrder| FollowUp {
                reaction: "plan_shipment",
                target: s.shipment_id.0,
                act: Act::Command(Command::Shipment {
                    id: s.shipment_id,
                    command: shipment::Command::Plan { order_id: id, shipment: s.clone() },
                }),
            };
            e.shipments.iter().map(plan).collect()
        }
        E::OrderRejected(e) => {
            let mut all = voids(id, &e.payments);
            all.push(notify(e.customer_id, id, Message::PaymentDeclined));
            all
        }
        E::OrderCancelled(e) => {
            let mut all = voids(id, &e.payments);
            if !e.reserved.is_empty() {
                all.push(release(id, &e.reserved));
            }
            all.push(notify(e.customer_id, id, Message::OrderCancelled { reason: e.reason }));
            all
        }
        E::ReservationReturned(e) => vec![release(id, &e.lines)],
        E::PaymentAuthorisedRecorded(_)
        | E::PaymentRefused(_)
        | E::StockSecured(_)
        | E::LinesShort(_)
        | E::LinesDelivered(_)
        | E::OrderCompleted(_) => vec![],
    }
}

fn after_payment(id: PaymentId, event: &payment::Event) -> Vec<FollowUp> {
    use payment::Event as E;
    match event {
        E::PaymentRequested(e) => {
            let (order_id, amount, currency, method) = (e.order_id, e.amount, e.currency, e.method.clone());
            let operation = Operation::Authorise { order_id, amount, currency, method };
            vec![to_provider("call_authorise", id, e.idempotency_key, operation)]
        }
        E::PaymentAuthorised(e) => {
            let command = order::Command::RecordPaymentAuthorised { payment_id: id };
            vec![to_order("record_authorised", e.order_id, command)]
        }
        E::PaymentDeclined(e) => {
            let command = order::Command::RecordPaymentDeclined { payment_id: id, reason: e.reason.clone() };
            vec![to_order("record_declined", e.order_id, command)]
        }
        E::CaptureRequested(e) => {
            let (capture_id, amount, currency) = (e.capture_id, e.amount, e.currency);
            let operation = Operation::Capture { capture_id, amount, currency };
            vec![to_provider("call_capture", id, e.idempotency_key, operation)]
        }
        E::VoidRequested(e) => vec![to_provider("call_void", id, e.idempotency_key, Operation::Void)],
        E::PaymentCaptured(_)
        | E::CaptureDeclined(_)
        | E::VoidDeferred(_)
        | E::VoidDeclined(_)
        | E::PaymentVoided(_) => vec![],
    }
}

fn after_stock(event: &stock::Event) -> Vec<FollowUp> {
    use stock::Event as E;
    match event {
        E::StockReserved(e) if e.backorder => {
            let lines = e.lines.iter().map(|l| l.line).collect();
            vec![to_order("record_backorder_filled", e.order_id, order::Command::RecordBackorderFilled { lines })]
        }
        E::StockReserved(e) if e.part == e.parts => vec![match e.edit {
            None => to_order("record_reserved", e.order_id, order::Command::RecordStockReserved),
            Some(edit) => to_order("record_edit_reserved", e.order_id, order::Command::RecordEditReserved { edit }),
        }],
        E::StockExpired(e) => vec![FollowUp {
            reaction: "cancel_expired",
            target: e.order_id.0,
            act: Act::Command(Command::CancelOrder { id: e.order_id, reason: CancelReason::ReservationExpired }),
        }],
        E::StockReserved(_)
        | E::StockReceived(_)
        | E::StockBackordered(_)
        | E::BackorderDropped(_)
        | E::StockCommitted(_)
        | E::StockReleased(_)
        | E::StockAdjusted(_)
        | E::StockRestocked(_) => vec![],
    }
}

fn after_shipment(id: ShipmentId, event: &shipment::Event) -> Vec<FollowUp> {
    use shipment::Event as E;
    match event {
        E::ShipmentDispatched(e) => {
            let commit = stock::Command::Commit { order_id: e.order_id, lines: e.lines.clone() };
            let mut all = vec![to_stock("commit_stock", e.order_id, commit)];
            all.extend(e.captures.iter().map(|c| {
                let command = payment::Command::Capture { capture_id: c.capture_id, amount: c.amount };
                to_payment("capture_payment", c.payment_id, command)
            }));
            let message = Message::ShipmentDispatched { tracking: e.tracking.clone() };
            all.push(notify(e.customer_id, e.order_id, message));
            all
        }
        E::ShipmentDelivered(e) => {
            let (shipment_id, lines) = (id, e.lines.clone());
            let command = order::Command::RecordDelivery { shipment_id, lines };
            vec![to_order("record_delivery", e.order_id, command)]
        }
        E::ShipmentPlanned(_) | E::ShipmentCancelled(_) => vec![],
    }
}

/// What follows from a follow-up's command being refused: the way back, where there is one.
pub fn react_to_rejection(command: &Command, rejection: &Rejection) -> Option<FollowUp> {
    match (command, rejection) {
        (
            Command::Stock(stock::Command::Reserve { order_id, edit, .. }),
            Rejection::Stock(stock::Rejection::OutOfStock { short }),
        ) => {
            let short: Vec<LineNo> = short.iter().map(|s| s.line).collect();
            Some(match *edit {
                None => to_order("record_shortage", *order_id, order::Command::RecordShortage { short }),
                Some(edit) => {
                    let command = order::Command::RecordEditShortage { edit, short };
                    to_order("record_edit_shortage", *order_id, command)
                }
            })
        }
        _ => None,
    }
}

/// What the provider's answer to `call` is to the payment.
pub fn answered(call: &ProviderCall, outcome: Outcome) -> Command {
    let command = match call.operation {
        Operation::Authorise { .. } => payment::Command::RecordAuthorisation { outcome },
        Operation::Capture { capture_id, .. } => payment::Command::RecordCapture { capture_id, outcome },
        Operation::Void => payment::Command::RecordVoid { outcome },
    };
    Command::Payment { id: call.payment_id, command }
}

fn to_order(reaction: &'static str, id: OrderId, command: order::Command) -> FollowUp {
    FollowUp { reaction, target: id.0, act: Act::Command(Command::Order { id, command }) }
}

fn to_payment(reaction: &'static str, id: PaymentId, command: payment::Command) -> FollowUp {
    FollowUp { reaction, target: id.0, act: Act::Command(Command::Payment { id, command }) }
}

/// Aimed at the stock that an order is about, so its target is the order.
fn to_stock(reaction: &'static str, order: OrderId, command: stock::Command) -> FollowUp {
    FollowUp { reaction, target: order.0, act: Act::Command(Command::Stock(command)) }
}

fn to_provider(reaction: &'static str, payment_id: PaymentId, idempotency_key: Uuid, operation: Operation) -> FollowUp {
    let call = ProviderCall { payment_id, idempotency_key, operation };
    FollowUp { reaction, target: payment_id.0, act: Act::Provider(call) }
}

fn voids(order_id: OrderId, payments: &[PaymentId]) -> Vec<FollowUp> {
    let void = |id: &PaymentId| to_payment("void_payment", *id, payment::Command::Void { order_id });
    payments.iter().map(void).collect()
}

fn release(order_id: OrderId, lines: &[StockLine]) -> FollowUp {
    to_stock("release_stock", order_id, stock::Command::Release { order_id, lines: lines.to_vec() })
}

fn notify(customer_id: CustomerId, order_id: OrderId, message: Message) -> FollowUp {
    let notice = Notice { customer_id, order_id, message };
    FollowUp { reaction: "notify_customer", target: customer_id.0, act: Act::Notice(notice) }
}
