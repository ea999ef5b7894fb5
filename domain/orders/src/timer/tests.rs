//! Which timers each event sets and clears.

use super::*;
use crate::id::{CaptureId, RestockId};
use crate::money::Amount;
use crate::order::{CancelReason, Order, PlaceOrder};
use crate::testing::*;

const PAYMENT: PaymentId = PaymentId(Uuid::from_u128(20));

fn after_order(event: impl Into<order::Event>) -> Vec<TimerChange> {
    timers(&Event::Order(ORDER, event.into()))
}

fn after_payment(event: impl Into<payment::Event>) -> Vec<TimerChange> {
    timers(&Event::Payment(PAYMENT, event.into()))
}

fn after_stock(event: impl Into<stock::Event>) -> Vec<TimerChange> {
    timers(&Event::Stock((&sku("MUG")).into(), event.into()))
}

fn placed(order: PlaceOrder) -> order::Event {
    Order::default().decide(ORDER, &order::Command::Place(order)).unwrap().remove(0)
}

fn order_expiry() -> Timer {
    Timer { kind: "expire_order", target: ORDER.0, key: String::new() }
}

fn authorisation_expiry() -> Timer {
    Timer { kind: "expire_authorisation", target: PAYMENT.0, key: String::new() }
}

fn reservation_expiry(line: u32) -> Timer {
    Timer { kind: "expire_reservation", target: StockId::from(&sku("MUG")).0, key: format!("{ORDER} {line}") }
}

fn lines() -> Vec<LineQuantity> {
    vec![LineQuantity { line: 1, quantity: 2 }, LineQuantity { line: 3, quantity: 1 }]
}

#[test]
fn an_order_that_is_to_be_paid_expires_after_a_day() {
    let command = Command::Order { id: ORDER, command: order::Command::Expire };
    assert_eq!(
        after_order(placed(mugs_and_hat())),
        [TimerChange::Set { timer: order_expiry(), after_seconds: 86_400, command }]
    );
    assert_eq!(after_order(placed(order_of(vec![line("MUG", POTTER, 1, 0)], vec![]))), []);
}

#[test]
fn an_order_that_is_paid_or_has_ended_does_not_expire() {
    let (customer_id, payments, reserved) = (CUSTOMER, vec![], vec![]);
    let reason = CancelReason::CustomerRequest;
    for end in [
        order::PaymentsSecured { lines: vec![], hold_seconds: 60 }.into(),
        order::OrderRejected { customer_id, payments: vec![] }.into(),
        order::Event::from(order::OrderCancelled { reason, customer_id, payments, reserved }),
    ] {
        assert_eq!(after_order(end), [TimerChange::Clear(order_expiry())]);
    }
    assert_eq!(after_order(order::PaymentAuthorisedRecorded { payment_id: PAYMENT }), []);
}

#[test]
fn an_authorisation_expires_after_a_week_unless_all_of_it_is_captured() {
    let (order_id, amount, currency, reference) = (ORDER, Amount(100), eur(), "ref".to_owned());
    let authorised = payment::PaymentAuthorised { order_id, amount, currency, reference: reference.clone() };
    let command = Command::Payment { id: PAYMENT, command: payment::Command::Expire };
    let timer = authorisation_expiry();
    assert_eq!(after_payment(authorised), [TimerChange::Set { timer, after_seconds: 604_800, command }]);
    let capture_id = CaptureId(Uuid::from_u128(22));
    let captured = |left| {
        let (left, reference) = (Amount(left), reference.clone());
        payment::PaymentCaptured { order_id, capture_id, amount, left, currency, reference }
    };
    assert_eq!(after_payment(captured(0)), [TimerChange::Clear(authorisation_expiry())]);
    assert_eq!(after_payment(captured(1)), []);
    assert_eq!(after_payment(payment::PaymentVoided { order_id }), [TimerChange::Clear(authorisation_expiry())]);
    assert_eq!(after_payment(payment::VoidDeferred { order_id }), []);
}

#[test]
fn each_line_that_is_reserved_expires_when_its_time_is_over() {
    let reserved = |backorder| stock::StockReserved {
        sku: sku("MUG"),
        order_id: ORDER,
        lines: lines(),
        hold_seconds: 60,
        part: 1,
        parts: 2,
        edit: None,
        backorder,
    };
    let expire = |line, quantity| TimerChange::Set {
        timer: reservation_expiry(line),
        after_seconds: 60,
        command: Command::Stock(stock::Command::Expire {
            order_id: ORDER,
            lines: vec![StockLine { line, sku: sku("MUG"), quantity }],
        }),
    };
    for backorder in [false, true] {
        assert_eq!(after_stock(reserved(backorder)), [expire(1, 2), expire(3, 1)]);
    }
}

#[test]
fn a_line_that_holds_no_more_does_not_expire() {
    let (mug, order_id) = (sku("MUG"), ORDER);
    for end in [
        stock::StockCommitted { sku: mug.clone(), order_id, lines: lines() }.into(),
        stock::StockReleased { sku: mug.clone(), order_id, lines: lines() }.into(),
        stock::Event::from(stock::StockExpired { sku: mug.clone(), order_id, lines: lines() }),
    ] {
        assert_eq!(after_stock(end), [1, 3].map(|line| TimerChange::Clear(reservation_expiry(line))));
    }
    // Who waits for pieces holds none.
    let hold_seconds = 60;
    assert_eq!(after_stock(stock::StockBackordered { sku: mug.clone(), order_id, lines: lines(), hold_seconds }), []);
    let restock_id = RestockId(Uuid::nil());
    assert_eq!(after_stock(stock::StockRestocked { sku: mug, order_id, lines: lines(), restock_id }), []);
}
