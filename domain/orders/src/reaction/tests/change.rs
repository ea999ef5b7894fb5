//! What follows when an order changes before it is dispatched.

use super::*;
use crate::order::{EditDiscardReason, OrderLine, OrderPayment, OrderTotals};

fn totals() -> OrderTotals {
    let amount = Amount(1000);
    OrderTotals { goods: amount, discount: Amount::ZERO, tax: Amount::ZERO, shipping: Amount::ZERO, total: amount }
}

fn release() -> FollowUp {
    stock_command("release_stock", stock::Command::Release { order_id: ORDER, lines: lines() })
}

fn void_of(id: PaymentId) -> FollowUp {
    payment_command("void_payment", id, void())
}

#[test]
fn cancelled_lines_are_released_with_the_payments_that_they_needed_and_the_customer_is_told() {
    let reason = CancelReason::SellerRequest;
    let cancelled = |released, payments| order::LinesCancelled {
        lines: vec![1],
        reason,
        customer_id: CUSTOMER,
        released,
        totals: totals(),
        payments,
    };
    let told = notice(Message::LinesCancelled { lines: vec![1], reason });
    assert_eq!(after_order(cancelled(lines(), vec![PAYMENT])), [void_of(PAYMENT), release(), told.clone()]);
    assert_eq!(after_order(cancelled(vec![], vec![])), [told]);
}

#[test]
fn a_proposed_edit_takes_its_payments_and_reserves_what_it_adds() {
    let proposed = |reserve, payments| order::EditProposed {
        edit: 3,
        currency: eur(),
        remove: vec![2],
        add: vec![OrderLine {
            line: 1,
            sku: sku("MUG"),
            seller_id: POTTER,
            quantity: 2,
            unit_price: Amount(500),
            discount: Amount::ZERO,
            tax: Amount::ZERO,
        }],
        shipping: vec![],
        payments,
        totals: totals(),
        reserve,
        hold_seconds: 60,
    };
    let (amount, currency) = (Amount(400), eur());
    let more = vec![OrderPayment { payment_id: PAYMENT, method: method("card"), amount }];
    let take = payment::Command::Authorise { order_id: ORDER, amount, currency, method: method("card") };
    let take = payment_command("take_payment", PAYMENT, take);
    let reserve = stock::Command::Reserve { order_id: ORDER, lines: lines(), hold_seconds: 60, edit: Some(3) };
    let reserve = stock_command("reserve_stock", reserve);
    assert_eq!(after_order(proposed(lines(), more.clone())), [take.clone(), reserve]);
    assert_eq!(after_order(proposed(vec![], more)), [take]);
    assert_eq!(after_order(proposed(vec![], vec![])), []);
}

#[test]
fn a_discarded_edit_lets_its_payments_and_its_stock_go() {
    let reason = EditDiscardReason::OutOfStock;
    let discarded = |payments, reserved| order::EditDiscarded { edit: 3, reason, payments, reserved };
    assert_eq!(after_order(discarded(vec![PAYMENT], lines())), [void_of(PAYMENT), release()]);
    assert_eq!(after_order(discarded(vec![], vec![])), []);
}

#[test]
fn a_confirmed_edit_plans_the_shipments_of_new_sellers_and_lets_go_what_is_no_longer_needed() {
    let shipment = shipment_order(SHIPMENT);
    let plan = shipment::Command::Plan { order_id: ORDER, shipment: shipment.clone() };
    let plan = follow_up("plan_shipment", SHIPMENT.0, Act::Command(Command::Shipment { id: SHIPMENT, command: plan }));
    let confirmed = order::EditConfirmed {
        edit: 3,
        totals: totals(),
        lines: 1,
        released: lines(),
        shipments: vec![shipment],
        payments: vec![OTHER_PAYMENT],
    };
    assert_eq!(after_order(confirmed.clone()), [plan, release(), void_of(OTHER_PAYMENT)]);
    let cheaper = order::EditConfirmed { released: vec![], shipments: vec![], payments: vec![], ..confirmed };
    assert_eq!(after_order(cheaper), []);
}

/// Its shipments are planned anew in the same append.
#[test]
fn nothing_follows_from_another_address() {
    assert_eq!(after_order(order::AddressChanged { address_id: ADDRESS }), []);
}
