//! What follows from an event elsewhere: the whole choreography, an arm for each event.
//!
//! A reaction needs nothing but the event. It says what is to be done; that it is done, once, is the sender's part.

use crate::id::{CaptureId, CustomerId, LineNo, OrderId, PaymentId, RefundId, RestockId, ShipmentId};
use crate::money::{Amount, Currency};
use crate::order::{CancelReason, HoldReason, PaymentMethod, StockLine};
use crate::payment::{Call, CallRetried, Outcome};
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
    /// What it is aimed at: the id of a stream, of a refund, or of a customer.
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
    Authorise {
        order_id: OrderId,
        amount: Amount,
        currency: Currency,
        method: PaymentMethod,
    },
    Capture {
        capture_id: CaptureId,
        amount: Amount,
        currency: Currency,
    },
    Void,
    Refund {
        refund_id: RefundId,
        /// What it is given back from.
        capture_id: CaptureId,
        amount: Amount,
        currency: Currency,
    },
    /// What became of this call, which has the same idempotency key.
    Lookup {
        call: Call,
    },
}

/// What the provider answers to a lookup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LookupAnswer {
    Found(Outcome),
    /// It has done nothing under this key.
    NotFound,
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
    OrderExpired,
    LinesCancelled { lines: Vec<LineNo>, reason: CancelReason },
    ShipmentDispatched { tracking: String },
    ShipmentLost { lines: Vec<LineNo> },
    ShipmentReturnedToSender { lines: Vec<LineNo> },
    ReturnReceived { return_no: u32 },
}

/// The reaction that makes a call that the provider has never seen, with the key that it had before.
pub const CALL_AGAIN: &str = "call_again";

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
        E::OrderPlaced(e) => e.payments.iter().map(|p| take(id, e.currency, p)).collect(),
        E::PaymentsSecured(e) => vec![reserve("reserve_stock", id, &e.lines, e.hold_seconds, None)],
        E::LinesBackordered(e) => {
            let (lines, hold_seconds) = (e.short.clone(), e.hold_seconds);
            let wait = stock::Command::Backorder { order_id: id, lines, hold_seconds };
            let mut all = vec![to_stock("backorder_stock", id, wait)];
            if !e.rest.is_empty() {
                all.push(reserve("reserve_rest", id, &e.rest, e.hold_seconds, None));
            }
            all
        }
        E::OrderConfirmed(e) => e.shipments.iter().map(|s| plan(id, s)).collect(),
        E::HoldPlaced(e) => {
            let hold = shipment::Command::Hold { order_id: id, hold: e.hold };
            e.shipments.iter().map(|s| to_shipment("hold_shipment", *s, hold.clone())).collect()
        }
        E::HoldReleased(e) => {
            let release = shipment::Command::Release { order_id: id, hold: e.hold };
            e.shipments.iter().map(|s| to_shipment("release_shipment", *s, release.clone())).collect()
        }
        E::OrderExpired(e) => {
            let mut all = voids(id, &e.payments);
            all.push(notify(e.customer_id, id, Message::OrderExpired));
            all
        }
        E::EditProposed(e) => {
            let mut all: Vec<FollowUp> = e.payments.iter().map(|p| take(id, e.currency, p)).collect();
            if !e.reserve.is_empty() {
                all.push(reserve("reserve_stock", id, &e.reserve, e.hold_seconds, Some(e.edit)));
            }
            all
        }
        E::EditDiscarded(e) => [voids(id, &e.payments), release(id, &e.reserved)].concat(),
        E::EditConfirmed(e) => {
            let plans = e.shipments.iter().map(|s| plan(id, s)).collect();
            [plans, release(id, &e.released), voids(id, &e.payments)].concat()
        }
        E::LinesCancelled(e) => {
            let message = Message::LinesCancelled { lines: e.lines.clone(), reason: e.reason };
            let told = vec![notify(e.customer_id, id, message)];
            [voids(id, &e.payments), release(id, &e.released), told].concat()
        }
        E::ReturnReceived(e) => {
            let restock_id = RestockId::of_return(id, e.receipt_id);
            let told = vec![notify(e.customer_id, id, Message::ReturnReceived { return_no: e.return_no })];
            [refunds(id, &e.refunds), restock(id, restock_id, &e.restock), told].concat()
        }
        E::LinesLost(e) => {
            let told = vec![notify(e.customer_id, id, Message::ShipmentLost { lines: e.lines.clone() })];
            [refunds(id, &e.refunds), told].concat()
        }
        E::LinesReturnedToSender(e) => {
            let restock_id = RestockId::of_shipment(e.shipment_id);
            let message = Message::ShipmentReturnedToSender { lines: e.lines.clone() };
            let told = vec![notify(e.customer_id, id, message)];
            [refunds(id, &e.refunds), restock(id, restock_id, &e.restock), told].concat()
        }
        E::OrderRejected(e) => {
            let mut all = voids(id, &e.payments);
            all.push(notify(e.customer_id, id, Message::PaymentDeclined));
            all
        }
        E::OrderCancelled(e) => {
            let told = vec![notify(e.customer_id, id, Message::OrderCancelled { reason: e.reason })];
            [voids(id, &e.payments), release(id, &e.reserved), told].concat()
        }
        E::ReservationReturned(e) => release(id, &e.lines),
        E::PaymentAuthorisedRecorded(_)
        | E::PaymentRefused(_)
        | E::StockSecured(_)
        | E::LinesShort(_)
        | E::BackorderFilled(_)
        | E::RestReserved(_)
        | E::ApprovalRequested(_)
        | E::ApprovalGranted(_)
        | E::ApprovalDenied(_)
        | E::ApprovalTimedOut(_)
        | E::AddressChanged(_)
        | E::EditStockSecured(_)
        | E::LinesDelivered(_)
        | E::ReturnRequested(_)
        | E::ReturnApproved(_)
        | E::OrderCompleted(_)
        | E::HistoryRecorded(_) => vec![],
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
        E::RefundRequested(e) => {
            let (refund_id, capture_id, amount, currency) = (e.refund_id, e.capture_id, e.amount, e.currency);
            let operation = Operation::Refund { refund_id, capture_id, amount, currency };
            vec![to_provider("call_refund", id, e.idempotency_key, operation)]
        }
        E::OutcomeUnknown(e) => {
            vec![to_provider("call_lookup", id, e.idempotency_key, Operation::Lookup { call: e.call })]
        }
        E::CallRetried(e) => {
            again(e).map(|operation| to_provider(CALL_AGAIN, id, e.idempotency_key, operation)).into_iter().collect()
        }
        E::CaptureDeclined(e) => {
            vec![to_order("hold_unpaid", e.order_id, order::Command::PlaceHold { reason: HoldReason::Payment })]
        }
        E::AuthorisationExpired(e) => vec![cancel_expired(e.order_id, CancelReason::PaymentExpired)],
        E::PaymentCaptured(_)
        | E::VoidDeferred(_)
        | E::ExpiryDeferred(_)
        | E::VoidDeclined(_)
        | E::PaymentVoided(_)
        | E::RefundDeferred(_)
        | E::PaymentRefunded(_)
        | E::RefundDeclined(_)
        | E::RefundDropped(_) => vec![],
    }
}

/// The call as it was the first time; an authorisation is one with its method, a refund with its capture.
fn again(e: &CallRetried) -> Option<Operation> {
    let (order_id, amount, currency) = (e.order_id, e.amount, e.currency);
    Some(match e.call {
        Call::Authorise => Operation::Authorise { order_id, amount, currency, method: e.method.clone()? },
        Call::Capture { capture_id } => Operation::Capture { capture_id, amount, currency },
        Call::Void => Operation::Void,
        Call::Refund { refund_id } => Operation::Refund { refund_id, capture_id: e.capture_id?, amount, currency },
    })
}

fn after_stock(event: &stock::Event) -> Vec<FollowUp> {
    use stock::Event as E;
    match event {
        E::StockReserved(e) if e.backorder => {
            let lines = e.lines.iter().map(|l| l.line).collect();
            vec![to_order("record_backorder_filled", e.order_id, order::Command::RecordBackorderFilled { lines })]
        }
        E::BackorderNeedless(e) => {
            let lines = e.lines.iter().map(|l| l.line).collect();
            vec![to_order("record_backorder_filled", e.order_id, order::Command::RecordBackorderFilled { lines })]
        }
        E::StockReserved(e) if e.part == e.parts => vec![match e.edit {
            None => to_order("record_reserved", e.order_id, order::Command::RecordStockReserved),
            Some(edit) => to_order("record_edit_reserved", e.order_id, order::Command::RecordEditReserved { edit }),
        }],
        E::StockExpired(e) => vec![cancel_expired(e.order_id, CancelReason::ReservationExpired)],
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
            let mut all = Vec::new();
            if !e.unreserved {
                let commit = stock::Command::Commit { order_id: e.order_id, lines: e.lines.clone() };
                all.push(to_stock("commit_stock", e.order_id, commit));
            }
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
        E::ShipmentLost(e) => {
            let (shipment_id, lines) = (id, e.lines.clone());
            vec![to_order("record_loss", e.order_id, order::Command::RecordLoss { shipment_id, lines })]
        }
        E::ShipmentReturnedToSender(e) => {
            let (shipment_id, lines) = (id, e.lines.clone());
            let command = order::Command::RecordReturnedToSender { shipment_id, lines };
            vec![to_order("record_returned_to_sender", e.order_id, command)]
        }
        E::ShipmentPlanned(_)
        | E::ShipmentReplanned(_)
        | E::ShipmentReady(_)
        | E::ShipmentHeld(_)
        | E::ShipmentReleased(_)
        | E::ShipmentCancelled(_) => vec![],
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
        // Something else of the order is dispatched. What is not must not be, without stock or money.
        (
            Command::CancelOrder { id, reason },
            Rejection::Order(order::Rejection::AlreadyDispatched { waiting, .. }),
        ) if !waiting.is_empty() => {
            let reason = match reason {
                CancelReason::ReservationExpired => HoldReason::Stock,
                CancelReason::PaymentExpired => HoldReason::Payment,
                _ => return None,
            };
            Some(to_order("hold_expired", *id, order::Command::PlaceHold { reason }))
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
        Operation::Refund { refund_id, .. } => payment::Command::RecordRefund { refund_id, outcome },
        Operation::Lookup { call } => payment::Command::ResolveUnknown { call, found: Some(outcome) },
    };
    Command::Payment { id: call.payment_id, command }
}

/// What it is to the payment that the provider has never seen the call that it was asked about; nothing, if it was not
/// asked about one.
pub fn not_found(call: &ProviderCall) -> Option<Command> {
    let Operation::Lookup { call: unknown } = call.operation else { return None };
    let command = payment::Command::ResolveUnknown { call: unknown, found: None };
    Some(Command::Payment { id: call.payment_id, command })
}

/// What it is to the payment that the provider did not answer `call` in time; nothing, if it was only asked about one.
pub fn not_answered(call: &ProviderCall) -> Option<Command> {
    let unknown = match call.operation {
        Operation::Authorise { .. } => Call::Authorise,
        Operation::Capture { capture_id, .. } => Call::Capture { capture_id },
        Operation::Void => Call::Void,
        Operation::Refund { refund_id, .. } => Call::Refund { refund_id },
        Operation::Lookup { .. } => return None,
    };
    let command = payment::Command::RecordUnknown { call: unknown };
    Some(Command::Payment { id: call.payment_id, command })
}

fn to_order(reaction: &'static str, id: OrderId, command: order::Command) -> FollowUp {
    FollowUp { reaction, target: id.0, act: Act::Command(Command::Order { id, command }) }
}

fn cancel_expired(id: OrderId, reason: CancelReason) -> FollowUp {
    FollowUp { reaction: "cancel_expired", target: id.0, act: Act::Command(Command::CancelOrder { id, reason }) }
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

/// Nothing, if there is nothing to release.
fn release(order_id: OrderId, lines: &[StockLine]) -> Vec<FollowUp> {
    let release = || to_stock("release_stock", order_id, stock::Command::Release { order_id, lines: lines.to_vec() });
    if lines.is_empty() { vec![] } else { vec![release()] }
}

fn reserve(
    reaction: &'static str,
    order_id: OrderId,
    lines: &[StockLine],
    hold_seconds: u32,
    edit: Option<u32>,
) -> FollowUp {
    to_stock(reaction, order_id, stock::Command::Reserve { order_id, lines: lines.to_vec(), hold_seconds, edit })
}

/// Nothing, if nothing can be sold again.
fn restock(order_id: OrderId, restock_id: RestockId, lines: &[StockLine]) -> Vec<FollowUp> {
    let lines = lines.to_vec();
    if lines.is_empty() {
        return vec![];
    }
    vec![to_stock("restock", order_id, stock::Command::Restock { order_id, restock_id, lines })]
}

fn take(order_id: OrderId, currency: Currency, payment: &order::OrderPayment) -> FollowUp {
    let (amount, method) = (payment.amount, payment.method.clone());
    let command = payment::Command::Authorise { order_id, amount, currency, method };
    to_payment("take_payment", payment.payment_id, command)
}

/// Each aimed at its refund: a payment may have paid for several of the shipments that pieces came back of.
fn refunds(order_id: OrderId, shares: &[order::RefundShare]) -> Vec<FollowUp> {
    let refund = |share: &order::RefundShare| {
        let order::RefundShare { refund_id, capture_id, amount, .. } = *share;
        let command = payment::Command::Refund { order_id, refund_id, capture_id, amount };
        FollowUp { target: refund_id.0, ..to_payment("refund_payment", share.payment_id, command) }
    };
    shares.iter().map(refund).collect()
}

fn to_shipment(reaction: &'static str, id: ShipmentId, command: shipment::Command) -> FollowUp {
    FollowUp { reaction, target: id.0, act: Act::Command(Command::Shipment { id, command }) }
}

fn plan(order_id: OrderId, shipment: &order::ShipmentOrder) -> FollowUp {
    let command = shipment::Command::Plan { order_id, shipment: shipment.clone() };
    to_shipment("plan_shipment", shipment.shipment_id, command)
}

fn notify(customer_id: CustomerId, order_id: OrderId, message: Message) -> FollowUp {
    let notice = Notice { customer_id, order_id, message };
    FollowUp { reaction: "notify_customer", target: customer_id.0, act: Act::Notice(notice) }
}
