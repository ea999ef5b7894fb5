//! What follows when pieces come back, or never arrive.

use super::*;
use crate::id::ReceiptId;
use crate::order::{ReceivedLine, RefundShare};

fn shares() -> Vec<RefundShare> {
    let share = |payment_id, refund_id, amount| RefundShare {
        payment_id,
        capture_id: CAPTURE,
        refund_id,
        amount: Amount(amount),
    };
    vec![share(PAYMENT, REFUND, 400), share(OTHER_PAYMENT, RefundId(KEY), 600)]
}

/// Each is aimed at its refund.
fn refunds() -> Vec<FollowUp> {
    let refund = |share: RefundShare| {
        let RefundShare { payment_id: id, capture_id, refund_id, amount } = share;
        let command = payment::Command::Refund { order_id: ORDER, refund_id, capture_id, amount };
        follow_up("refund_payment", refund_id.0, Act::Command(Command::Payment { id, command }))
    };
    shares().into_iter().map(refund).collect()
}

fn restock(restock_id: RestockId) -> FollowUp {
    stock_command("restock", stock::Command::Restock { order_id: ORDER, restock_id, lines: lines() })
}

#[test]
fn what_came_back_is_refunded_and_put_into_stock_if_it_can_be_sold_again() {
    let parcel = |n| ReceiptId(Uuid::from_u128(n));
    let received = |n, restock| order::ReturnReceived {
        return_no: 2,
        receipt_id: parcel(n),
        customer_id: CUSTOMER,
        lines: vec![ReceivedLine { line: 1, quantity: 2, usable: 2 }],
        refunds: shares(),
        restock,
    };
    let told = notice(Message::ReturnReceived { return_no: 2 });
    let into_stock = |n| restock(RestockId::of_return(ORDER, parcel(n)));
    let expected = |n| [refunds(), vec![into_stock(n), told.clone()]].concat();
    assert_eq!(after_order(received(1, lines())), expected(1));
    // The second part of the return is another receipt.
    assert_eq!(after_order(received(2, lines())), expected(2));
    assert_ne!(into_stock(1), into_stock(2));
    assert_eq!(after_order(received(1, vec![])), [refunds(), vec![told]].concat());
}

#[test]
fn a_lost_shipment_is_refunded() {
    let lost = order::LinesLost { shipment_id: SHIPMENT, customer_id: CUSTOMER, lines: vec![1], refunds: shares() };
    let told = notice(Message::ShipmentLost { lines: vec![1] });
    assert_eq!(after_order(lost), [refunds(), vec![told]].concat());
}

#[test]
fn a_shipment_that_comes_back_to_the_sender_is_refunded_and_put_into_stock() {
    let returned = order::LinesReturnedToSender {
        shipment_id: SHIPMENT,
        customer_id: CUSTOMER,
        lines: vec![1],
        refunds: shares(),
        restock: lines(),
    };
    let told = notice(Message::ShipmentReturnedToSender { lines: vec![1] });
    let into_stock = restock(RestockId::of_shipment(SHIPMENT));
    assert_eq!(after_order(returned), [refunds(), vec![into_stock, told]].concat());
}

#[test]
fn the_order_is_told_of_a_shipment_that_does_not_arrive() {
    let (shipment_id, lines) = (SHIPMENT, vec![1, 3]);
    let loss = order::Command::RecordLoss { shipment_id, lines: lines.clone() };
    assert_eq!(
        after_shipment(shipment::ShipmentLost { order_id: ORDER, lines: lines.clone() }),
        [order_command("record_loss", loss)]
    );
    let returned = order::Command::RecordReturnedToSender { shipment_id, lines: lines.clone() };
    assert_eq!(
        after_shipment(shipment::ShipmentReturnedToSender { order_id: ORDER, lines }),
        [order_command("record_returned_to_sender", returned)]
    );
}

#[test]
fn nothing_follows_until_the_pieces_are_there() {
    let lines = vec![order::ReturnLine { line: 1, quantity: 1 }];
    let reason = order::ReturnReason::Unwanted;
    assert_eq!(after_order(order::ReturnRequested { return_no: 1, lines, reason }), []);
    assert_eq!(after_order(order::ReturnApproved { return_no: 1 }), []);
}
