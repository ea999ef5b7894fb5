//! What is to happen if nothing else does: an arm for each event that a time begins or ends with.
//!
//! The domain has no clock. It says how many seconds after an event was recorded a command is due, and which events make
//! it needless. A command that comes too late all the same is the aggregate's to refuse.

use crate::id::{OrderId, PaymentId, StockId};
use crate::money::Amount;
use crate::order::StockLine;
use crate::stock::LineQuantity;
use crate::{Command, Event, order, payment, stock};
use uuid::Uuid;

#[cfg(test)]
mod tests;

/// How long a placed order may wait for its first payment: a day.
const ORDER_EXPIRY_SECONDS: u32 = 24 * 60 * 60;
/// How long a provider holds money that is not captured: seven days.
const AUTHORISATION_EXPIRY_SECONDS: u32 = 7 * 24 * 60 * 60;

/// What an event does to a timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerChange {
    /// `command` is due so many seconds after the event was recorded, unless the timer is cleared before.
    Set { timer: Timer, after_seconds: u32, command: Command },
    /// The command is not needed any more, if it has not been sent yet.
    Clear(Timer),
}

/// What tells a timer from all others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Timer {
    /// The stable name of what it does.
    pub kind: &'static str,
    /// The id of the stream that it is about.
    pub target: Uuid,
    /// Tells those of one kind and target from each other; empty if there is one.
    pub key: String,
}

/// What `event` does to timers.
pub fn timers(event: &Event) -> Vec<TimerChange> {
    match event {
        Event::Order(id, event) => after_order(*id, event),
        Event::Payment(id, event) => after_payment(*id, event),
        Event::Stock(id, event) => after_stock(*id, event),
        Event::Shipment(..) => vec![],
    }
}

fn after_order(id: OrderId, event: &order::Event) -> Vec<TimerChange> {
    use order::Event as E;
    let expiry = || Timer { kind: "expire_order", target: id.0, key: String::new() };
    let deadline = |approval: u32| Timer { kind: "time_out_approval", target: id.0, key: approval.to_string() };
    match event {
        E::OrderPlaced(e) if !e.payments.is_empty() => vec![TimerChange::Set {
            timer: expiry(),
            after_seconds: ORDER_EXPIRY_SECONDS,
            command: Command::Order { id, command: order::Command::Expire },
        }],
        E::PaymentsSecured(_) | E::OrderRejected(_) | E::OrderCancelled(_) | E::OrderExpired(_) => {
            vec![TimerChange::Clear(expiry())]
        }
        E::ApprovalRequested(e) => vec![TimerChange::Set {
            timer: deadline(e.approval),
            after_seconds: e.within_seconds,
            command: Command::Order { id, command: order::Command::TimeOutApproval { approval: e.approval } },
        }],
        E::ApprovalGranted(order::ApprovalGranted { approval })
        | E::ApprovalDenied(order::ApprovalDenied { approval })
        | E::ApprovalTimedOut(order::ApprovalTimedOut { approval }) => vec![TimerChange::Clear(deadline(*approval))],
        E::OrderPlaced(_)
        | E::PaymentAuthorisedRecorded(_)
        | E::PaymentRefused(_)
        | E::StockSecured(_)
        | E::OrderConfirmed(_)
        | E::LinesShort(_)
        | E::LinesBackordered(_)
        | E::BackorderFilled(_)
        | E::RestReserved(_)
        | E::ReservationReturned(_)
        | E::HoldPlaced(_)
        | E::HoldReleased(_)
        | E::LinesCancelled(_)
        | E::AddressChanged(_)
        | E::EditProposed(_)
        | E::EditStockSecured(_)
        | E::EditDiscarded(_)
        | E::EditConfirmed(_)
        | E::LinesDelivered(_)
        | E::LinesLost(_)
        | E::LinesReturnedToSender(_)
        | E::ReturnRequested(_)
        | E::ReturnApproved(_)
        | E::ReturnReceived(_)
        | E::OrderCompleted(_)
        | E::HistoryRecorded(_) => vec![],
    }
}

fn after_payment(id: PaymentId, event: &payment::Event) -> Vec<TimerChange> {
    use payment::Event as E;
    let expiry = || Timer { kind: "expire_authorisation", target: id.0, key: String::new() };
    match event {
        E::PaymentAuthorised(_) => vec![TimerChange::Set {
            timer: expiry(),
            after_seconds: AUTHORISATION_EXPIRY_SECONDS,
            command: Command::Payment { id, command: payment::Command::Expire },
        }],
        // What is left of it would be held for nothing.
        E::PaymentCaptured(e) if e.left > Amount::ZERO => vec![],
        E::PaymentCaptured(_) | E::PaymentVoided(_) | E::AuthorisationExpired(_) => vec![TimerChange::Clear(expiry())],
        E::PaymentRequested(_)
        | E::PaymentDeclined(_)
        | E::CaptureRequested(_)
        | E::CaptureDeclined(_)
        | E::VoidDeferred(_)
        | E::ExpiryDeferred(_)
        | E::VoidRequested(_)
        | E::VoidDeclined(_)
        | E::RefundDeferred(_)
        | E::RefundRequested(_)
        | E::PaymentRefunded(_)
        | E::RefundDeclined(_)
        | E::RefundDropped(_)
        | E::OutcomeUnknown(_)
        | E::CallRetried(_) => vec![],
    }
}

fn after_stock(id: StockId, event: &stock::Event) -> Vec<TimerChange> {
    use stock::Event as E;
    // Of each line its own: those of one reservation are dispatched seller by seller.
    let expiry = |order: OrderId, line: &LineQuantity| Timer {
        kind: "expire_reservation",
        target: id.0,
        key: format!("{order} {}", line.line),
    };
    let clear = |order: OrderId, lines: &[LineQuantity]| {
        lines.iter().map(|line| TimerChange::Clear(expiry(order, line))).collect()
    };
    match event {
        E::StockReserved(e) => {
            let set = |line: &LineQuantity| {
                let lines = vec![StockLine { line: line.line, sku: e.sku.clone(), quantity: line.quantity }];
                TimerChange::Set {
                    timer: expiry(e.order_id, line),
                    after_seconds: e.hold_seconds,
                    command: Command::Stock(stock::Command::Expire { order_id: e.order_id, lines }),
                }
            };
            e.lines.iter().map(set).collect()
        }
        E::StockCommitted(e) => clear(e.order_id, &e.lines),
        E::StockReleased(e) => clear(e.order_id, &e.lines),
        E::StockExpired(e) => clear(e.order_id, &e.lines),
        E::StockReceived(_)
        | E::StockBackordered(_)
        | E::BackorderNeedless(_)
        | E::BackorderDropped(_)
        | E::StockAdjusted(_)
        | E::StockRestocked(_) => vec![],
    }
}
