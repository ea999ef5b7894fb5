//! What happens after the dispatch: losses, parcels that come back, returns; and what is refunded of it.

use super::*;
use crate::id::{CaptureId, ReceiptId, RefundId};

fn request(lines: &[(LineNo, u32)]) -> Command {
    let lines = lines.iter().map(|&(line, quantity)| ReturnLine { line, quantity }).collect();
    Command::RequestReturn { lines, reason: ReturnReason::Damaged }
}

fn parcel(n: u128) -> ReceiptId {
    ReceiptId(Uuid::from_u128(n))
}

/// With the first parcel.
fn receive(return_no: u32, lines: &[(LineNo, u32, u32)]) -> Command {
    receive_with(return_no, 1, lines)
}

fn receive_with(return_no: u32, n: u128, lines: &[(LineNo, u32, u32)]) -> Command {
    let line = |&(line, quantity, usable): &(LineNo, u32, u32)| ReceivedLine { line, quantity, usable };
    Command::ReceiveReturn { return_no, receipt_id: parcel(n), lines: lines.iter().map(line).collect() }
}

fn after(mut history: Vec<Event>, commands: &[Command]) -> Vec<Event> {
    for command in commands {
        history.extend(when(history.clone(), command.clone()).unwrap());
    }
    history
}

/// All of the order may come back.
fn approved() -> Vec<Event> {
    after(completed(), &[request(&[(1, 2), (2, 1)]), Command::ApproveReturn { return_no: 1 }])
}

fn of_return(payment_id: PaymentId, shipment_id: ShipmentId, n: u128, amount: i64) -> RefundShare {
    let capture_id = CaptureId::of_shipment(payment_id, shipment_id);
    RefundShare {
        payment_id,
        capture_id,
        refund_id: RefundId::of_return(capture_id, parcel(n)),
        amount: Amount(amount),
    }
}

fn of_shipment(payment_id: PaymentId, shipment_id: ShipmentId, amount: i64) -> RefundShare {
    let capture_id = CaptureId::of_shipment(payment_id, shipment_id);
    RefundShare { payment_id, capture_id, refund_id: RefundId::of_shipment(capture_id), amount: Amount(amount) }
}

#[test]
fn a_lost_shipment_is_refunded_with_its_shipping_and_may_complete_the_order() {
    let loss = Command::RecordLoss { shipment_id: to_potter(), lines: vec![1] };
    let lost = LinesLost {
        shipment_id: to_potter(),
        customer_id: CUSTOMER,
        lines: vec![1],
        // The mugs for 20.90, and 5.00 for shipping.
        refunds: vec![of_shipment(voucher(), to_potter(), 2590)],
    };
    assert_eq!(when(confirmed(), loss.clone()), Ok(vec![lost.clone().into()]));
    assert_eq!(when(partly_delivered(), loss.clone()), Ok(vec![lost.into(), OrderCompleted {}.into()]));
    let known = after(confirmed(), std::slice::from_ref(&loss));
    assert_eq!(when(known.clone(), loss), Ok(vec![]));
    assert_eq!(when(known, mugs_delivered()), Ok(vec![]), "it is refunded already");
}

#[test]
fn a_shipment_that_came_back_is_refunded_and_restocked() {
    let back = LinesReturnedToSender {
        shipment_id: to_hatter(),
        customer_id: CUSTOMER,
        lines: vec![2],
        refunds: vec![of_shipment(voucher(), to_hatter(), 410), of_shipment(card(), to_hatter(), 3160)],
        restock: vec![hat()],
    };
    let command = Command::RecordReturnedToSender { shipment_id: to_hatter(), lines: vec![2] };
    assert_eq!(when(confirmed(), command.clone()), Ok(vec![back.into()]));
    assert_eq!(when(partly_delivered(), command), Ok(vec![]));
}

#[test]
fn what_has_arrived_can_be_sent_back_once_it_is_approved() {
    let requested = ReturnRequested {
        return_no: 1,
        lines: vec![ReturnLine { line: 2, quantity: 1 }],
        reason: ReturnReason::Damaged,
    };
    assert_eq!(when(partly_delivered(), request(&[(2, 1)])), Ok(vec![requested.clone().into()]));
    assert_eq!(when(completed(), request(&[(2, 1)])), Ok(vec![requested.into()]));
    let asked = after(completed(), &[request(&[(2, 1)])]);
    assert_eq!(when(asked.clone(), request(&[(2, 1)])), Ok(vec![]), "it is the same");
    let early = Err(Rejection::ReturnNotApproved { order_id: ORDER, return_no: 1 });
    assert_eq!(when(asked.clone(), receive(1, &[(2, 1, 1)])), early);
    let approve = Command::ApproveReturn { return_no: 1 };
    assert_eq!(when(asked, approve.clone()), Ok(vec![ReturnApproved { return_no: 1 }.into()]));
    assert_eq!(when(approved(), approve), Ok(vec![]));
    let unknown = Err(Rejection::UnknownReturn { order_id: ORDER, return_no: 2 });
    assert_eq!(when(approved(), Command::ApproveReturn { return_no: 2 }), unknown);
    assert_eq!(when(approved(), receive(2, &[(2, 1, 1)])), unknown);
}

#[test]
fn pieces_are_refunded_one_by_one_to_the_last_unit_and_only_usable_ones_are_restocked() {
    let first = when(approved(), receive(1, &[(1, 1, 0)])).unwrap();
    let received = |n, line: ReceivedLine, refunds, restock| {
        Event::from(ReturnReceived {
            return_no: 1,
            receipt_id: parcel(n),
            customer_id: CUSTOMER,
            lines: vec![line],
            refunds,
            restock,
        })
    };
    let mug = |usable| ReceivedLine { line: 1, quantity: 1, usable };
    let refund = |n, amount| vec![of_return(voucher(), to_potter(), n, amount)];
    assert_eq!(first, [received(1, mug(0), refund(1, 1045), vec![])]);
    let history = [approved(), first].concat();
    let restock = vec![StockLine { line: 1, sku: sku("MUG"), quantity: 1 }];
    assert_eq!(
        when(history.clone(), receive_with(1, 2, &[(1, 1, 1)])),
        Ok(vec![received(2, mug(1), refund(2, 1045), restock)])
    );
    let hat_back = ReceivedLine { line: 2, quantity: 1, usable: 1 };
    let both = vec![of_return(voucher(), to_hatter(), 2, 410), of_return(card(), to_hatter(), 2, 3160)];
    assert_eq!(when(history, receive_with(1, 2, &[(2, 1, 1)])), Ok(vec![received(2, hat_back, both, vec![hat()])]));
}

#[test]
fn a_parcel_is_taken_in_once() {
    let mug = receive(1, &[(1, 1, 1)]);
    let received = after(approved(), std::slice::from_ref(&mug));
    assert_eq!(when(received.clone(), mug), Ok(vec![]));
    let spent = Err(Rejection::ReceiptIdSpent { order_id: ORDER, receipt_id: parcel(1) });
    assert_eq!(when(received.clone(), receive(1, &[(2, 1, 1)])), spent);
    // Another parcel may have the same in it.
    assert_eq!(when(received, receive_with(1, 2, &[(1, 1, 1)])).unwrap().len(), 1);
    // Nor is it one of another return.
    let second = [request(&[(2, 1)]), Command::ApproveReturn { return_no: 2 }];
    let mugs = [request(&[(1, 2)]), Command::ApproveReturn { return_no: 1 }, receive(1, &[(1, 1, 1)])];
    let received = after(after(completed(), &mugs), &second);
    assert_eq!(when(received, receive(2, &[(1, 1, 1)])), spent);
}

/// Invariant 24: no more comes back than was shipped, however it is asked for.
#[test]
fn invariant_24_no_more_is_returned_than_has_arrived() {
    let not_returnable = |line, returnable| Err(Rejection::NotReturnable { order_id: ORDER, line, returnable });
    assert_eq!(when(partly_delivered(), request(&[(1, 1)])), not_returnable(1, 0));
    assert_eq!(when(completed(), request(&[(1, 3)])), not_returnable(1, 2));
    assert_eq!(when(completed(), request(&[(9, 1)])), not_returnable(9, 0));
    let asked = after(completed(), &[request(&[(1, 1)])]);
    assert_eq!(when(asked.clone(), request(&[(1, 2)])), not_returnable(1, 1));
    let approved = after(asked, &[Command::ApproveReturn { return_no: 1 }]);
    assert_eq!(when(approved.clone(), receive(1, &[(1, 2, 0)])), not_returnable(1, 1));
    assert_eq!(when(approved.clone(), receive(1, &[(2, 1, 0)])), not_returnable(2, 0));
    let received = after(approved, &[receive(1, &[(1, 1, 1)])]);
    assert_eq!(when(received, receive_with(1, 2, &[(1, 1, 1)])), not_returnable(1, 0));
    let lost = after(partly_delivered(), &[Command::RecordLoss { shipment_id: to_potter(), lines: vec![1] }]);
    assert_eq!(when(lost, request(&[(1, 1)])), not_returnable(1, 0));
}

#[test]
fn a_return_names_its_faults() {
    let faults = |command| match when(approved(), command) {
        Err(Rejection::Invalid { faults }) => faults,
        other => panic!("{other:?}"),
    };
    assert_eq!(faults(request(&[])), [fault("lines", "1 or more lines")]);
    let expected = [fault("lines[0].quantity", "1 or more"), fault("lines[1].line", "each line once")];
    assert_eq!(faults(request(&[(1, 0), (1, 1)])), expected);
    assert_eq!(faults(receive(1, &[(1, 1, 2)])), [fault("lines[0].usable", "no more than the quantity")]);
}

#[test]
fn nothing_is_returned_of_an_order_that_was_called_off_or_not_confirmed() {
    for history in [all_cancelled(), vec![rejected()]].concat() {
        let status = given::<Order>(history.clone()).status;
        assert_eq!(when(history, request(&[(1, 1)])), Err(Rejection::Ended { order_id: ORDER, status }));
    }
    assert_eq!(when(reserving(), request(&[(1, 1)])), Err(Rejection::NotConfirmed { order_id: ORDER }));
}
