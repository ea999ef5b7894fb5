//! What follows when an order has to wait: for a hold to be released, for stock, for its time to be over.

use super::*;
use crate::order::Life;

fn shipment_command(reaction: &'static str, id: ShipmentId, command: shipment::Command) -> FollowUp {
    follow_up(reaction, id.0, Act::Command(Command::Shipment { id, command }))
}

#[test]
fn a_hold_has_every_shipment_wait_and_its_release_lets_them_go() {
    let shipments = vec![SHIPMENT, ShipmentId(KEY)];
    let reason = HoldReason::Fraud;
    let hold = shipment::Command::Hold { order_id: ORDER, hold: 2 };
    assert_eq!(
        after_order(order::HoldPlaced { reason, hold: 2, shipments: shipments.clone() }),
        [SHIPMENT, ShipmentId(KEY)].map(|id| shipment_command("hold_shipment", id, hold.clone()))
    );
    let release = shipment::Command::Release { order_id: ORDER, hold: 2 };
    assert_eq!(
        after_order(order::HoldReleased { reason, hold: 2, shipments, then: Life::Confirmed }),
        [SHIPMENT, ShipmentId(KEY)].map(|id| shipment_command("release_shipment", id, release.clone()))
    );
}

#[test]
fn a_hold_before_the_order_is_confirmed_concerns_no_shipment() {
    let reason = HoldReason::Address;
    assert_eq!(after_order(order::HoldPlaced { reason, hold: 1, shipments: vec![] }), []);
    assert_eq!(after_order(order::HoldReleased { reason, hold: 1, shipments: vec![], then: Life::Placed }), []);
}

#[test]
fn a_capture_that_is_declined_holds_the_order() {
    let reason = "no funds".to_owned();
    assert_eq!(
        after_payment(payment::CaptureDeclined {
            order_id: ORDER,
            capture_id: CAPTURE,
            amount: Amount(400),
            currency: eur(),
            reason,
        }),
        [order_command("hold_unpaid", order::Command::PlaceHold { reason: HoldReason::Payment })]
    );
}

#[test]
fn an_expired_order_lets_its_payments_go_and_tells_the_customer() {
    assert_eq!(
        after_order(order::OrderExpired { customer_id: CUSTOMER, payments: vec![PAYMENT, OTHER_PAYMENT] }),
        [
            payment_command("void_payment", PAYMENT, void()),
            payment_command("void_payment", OTHER_PAYMENT, void()),
            notice(Message::OrderExpired),
        ]
    );
}

#[test]
fn an_authorisation_whose_time_is_over_cancels_the_order() {
    let cancel = Command::CancelOrder { id: ORDER, reason: CancelReason::PaymentExpired };
    assert_eq!(
        after_payment(payment::AuthorisationExpired { order_id: ORDER }),
        [follow_up("cancel_expired", ORDER.0, Act::Command(cancel))]
    );
}

#[test]
fn lines_on_backorder_wait_at_the_stock_and_the_rest_is_reserved() {
    let rest = vec![StockLine { line: 2, sku: sku("HAT"), quantity: 1 }];
    let backordered = |rest| order::LinesBackordered { short: lines(), rest, hold_seconds: 60 };
    let wait = stock::Command::Backorder { order_id: ORDER, lines: lines(), hold_seconds: 60 };
    let wait = stock_command("backorder_stock", wait);
    let reserve = stock::Command::Reserve { order_id: ORDER, lines: rest.clone(), hold_seconds: 60, edit: None };
    assert_eq!(after_order(backordered(rest)), [wait.clone(), stock_command("reserve_rest", reserve)]);
    assert_eq!(after_order(backordered(vec![])), [wait]);
}
