//! What changes an order before anything of it is dispatched: cancelled lines, another address, edits.

use super::*;

fn cancel_lines(lines: &[LineNo]) -> Change {
    Change::CancelLines { lines: lines.to_vec(), reason: CancelReason::CustomerRequest }
}

fn totals(goods: i64, discount: i64, tax: i64, shipping: i64) -> OrderTotals {
    let total = goods - discount + tax + shipping;
    let [goods, discount, tax, shipping, total] = [goods, discount, tax, shipping, total].map(Amount);
    OrderTotals { goods, discount, tax, shipping, total }
}

fn changed(history: Vec<Event>, change: Change) -> Result<Changed, Rejection> {
    when_changed(history, planned(0), planned(1), change)
}

fn replanned(shipment: ShipmentOrder) -> Vec<shipment::Event> {
    vec![shipment::ShipmentReplanned { order_id: ORDER, revision: 2, released: 0, shipment }.into()]
}

fn cancelled_parcel() -> Vec<shipment::Event> {
    vec![shipment::ShipmentCancelled { order_id: ORDER }.into()]
}

#[test]
fn an_order_goes_on_without_cancelled_lines_and_lets_go_what_they_needed() {
    let cancelled = LinesCancelled {
        lines: vec![2],
        reason: CancelReason::CustomerRequest,
        customer_id: CUSTOMER,
        released: vec![hat()],
        totals: totals(2000, 100, 190, 500),
        // The voucher pays for the mugs alone.
        payments: vec![card()],
    };
    assert_eq!(
        changed(confirmed(), cancel_lines(&[2])),
        Ok(Changed { order: vec![cancelled.into()], shipments: vec![vec![], cancelled_parcel()] })
    );
}

#[test]
fn captures_are_worked_out_again_over_what_is_left() {
    let Changed { order, shipments } = changed(confirmed(), cancel_lines(&[1])).unwrap();
    let [Event::LinesCancelled(cancelled)] = &order[..] else { panic!("{order:?}") };
    assert_eq!(cancelled.totals, totals(3000, 0, 570, 0), "the potter ships nothing any more");
    assert_eq!(cancelled.payments, []);
    let mut hats = order_confirmed().shipments.remove(1);
    hats.captures[0].amount = Amount(3000);
    hats.captures[1].amount = Amount(570);
    assert_eq!(shipments, [cancelled_parcel(), replanned(hats)]);
}

#[test]
fn cancelling_all_lines_that_are_left_cancels_the_order() {
    let expected = changed(confirmed(), Change::Cancel { reason: CancelReason::CustomerRequest });
    assert_eq!(changed(confirmed(), cancel_lines(&[2, 1, 2])), expected);
    let less = [confirmed(), changed(confirmed(), cancel_lines(&[1])).unwrap().order].concat();
    let cancelled = when_changed(less, cancelled_shipment(), planned(1), cancel_lines(&[2])).unwrap();
    assert!(matches!(&cancelled.order[..], [Event::OrderCancelled(c)] if c.reserved == [hat()]), "{cancelled:?}");
    assert_eq!(cancelled.shipments, [vec![], cancelled_parcel()]);
}

#[test]
fn lines_that_are_cancelled_already_are_left_alone_and_unknown_ones_are_a_fault() {
    let less = [confirmed(), changed(confirmed(), cancel_lines(&[2])).unwrap().order].concat();
    let unchanged = Changed { order: vec![], shipments: vec![vec![], vec![]] };
    assert_eq!(when_changed(less, planned(0), cancelled_shipment(), cancel_lines(&[2])), Ok(unchanged));
    let faults = vec![Fault::new("lines[1]", "a line of the order")];
    assert_eq!(changed(confirmed(), cancel_lines(&[2, 9])), Err(Rejection::Invalid { faults }));
}

#[test]
fn lines_cancelled_before_the_order_is_paid_are_neither_paid_nor_reserved() {
    let before = vec![order_placed().into(), PaymentAuthorisedRecorded { payment_id: voucher() }.into()];
    let events = given::<Order>(before).change::<&Shipment>(ORDER, &[], &cancel_lines(&[2])).unwrap().order;
    let secured = PaymentsSecured { lines: vec![mugs()], hold_seconds: 518_400 };
    assert!(matches!(&events[0], Event::LinesCancelled(c) if c.released.is_empty() && c.payments == [card()]));
    assert_eq!(events[1..], [secured.into()], "the voucher pays for the rest");
}

#[test]
fn lines_are_not_cancelled_while_they_are_being_reserved() {
    assert_eq!(changed(reserving(), cancel_lines(&[2])), Err(Rejection::BeingReserved { order_id: ORDER }));
}

#[test]
fn nothing_is_changed_after_a_dispatch_or_an_end() {
    let address_id = AddressId(Uuid::from_u128(77));
    let changes = [cancel_lines(&[2]), Change::ChangeAddress { address_id }, Change::ConfirmEdit { edit: 1 }];
    for change in changes {
        let refused = when_changed(secured_edit(), dispatched(0), planned(1), change.clone());
        let open = matches!(change, Change::CancelLines { .. });
        let edit = Rejection::EditOpen { order_id: ORDER, edit: 1 };
        let dispatched = Rejection::AlreadyDispatched { shipment_id: to_potter(), waiting: vec![to_hatter()] };
        assert_eq!(refused, Err(if open { edit } else { dispatched }));
        for history in all_ended() {
            let status = given::<Order>(history.clone()).status;
            assert_eq!(changed(history, change.clone()), Err(Rejection::Ended { order_id: ORDER, status }));
        }
    }
    let late = when_changed(confirmed(), dispatched(0), planned(1), cancel_lines(&[2]));
    assert_eq!(late, Err(Rejection::AlreadyDispatched { shipment_id: to_potter(), waiting: vec![to_hatter()] }));
}

#[test]
fn another_address_replans_every_shipment() {
    let address_id = AddressId(Uuid::from_u128(77));
    let [potter, hatter] = [0, 1].map(|n| ShipmentOrder { address_id, ..order_confirmed().shipments.remove(n) });
    assert_eq!(
        changed(confirmed(), Change::ChangeAddress { address_id }),
        Ok(Changed {
            order: vec![AddressChanged { address_id }.into()],
            shipments: vec![replanned(potter), replanned(hatter)],
        })
    );
    let unchanged = Changed { order: vec![], shipments: vec![vec![], vec![]] };
    assert_eq!(changed(confirmed(), Change::ChangeAddress { address_id: ADDRESS }), Ok(unchanged));
}

// Edits

const PENMAKER: SellerId = SellerId(Uuid::from_u128(7));

/// Two pens in place of the hat: 35.70 less for the hat, 40.00 more for the pens.
fn pens_for_hat() -> ProposeEdit {
    ProposeEdit {
        remove: vec![2],
        add: vec![line("PEN", PENMAKER, 2, 2000)],
        shipping: vec![SellerShipping { seller_id: POTTER, amount: Amount(500) }],
        payments: vec![paying("card", 430)],
    }
}

fn more() -> PaymentId {
    PaymentId::of_order(ORDER, 2)
}

fn pens() -> StockLine {
    StockLine { line: 3, sku: sku("PEN"), quantity: 2 }
}

fn edit_proposed() -> EditProposed {
    let add = OrderLine {
        line: 3,
        sku: sku("PEN"),
        seller_id: PENMAKER,
        quantity: 2,
        unit_price: Amount(2000),
        discount: Amount::ZERO,
        tax: Amount::ZERO,
    };
    EditProposed {
        edit: 1,
        currency: eur(),
        remove: vec![2],
        add: vec![add],
        shipping: pens_for_hat().shipping,
        payments: vec![OrderPayment { payment_id: more(), method: method("card"), amount: Amount(430) }],
        totals: totals(6000, 100, 190, 500),
        reserve: vec![pens()],
        hold_seconds: 518_400,
    }
}

fn proposed() -> Vec<Event> {
    [confirmed(), vec![edit_proposed().into()]].concat()
}

fn secured_edit() -> Vec<Event> {
    let authorised = PaymentAuthorisedRecorded { payment_id: more() };
    [proposed(), vec![authorised.into(), EditStockSecured { edit: 1 }.into()]].concat()
}

fn edit_discarded(reason: EditDiscardReason, reserved: Vec<StockLine>) -> Event {
    EditDiscarded { edit: 1, reason, payments: vec![more()], reserved }.into()
}

#[test]
fn an_edit_asks_for_the_difference_and_the_stock_and_numbers_its_lines_and_payments_on() {
    assert_eq!(when(confirmed(), Command::ProposeEdit(pens_for_hat())), Ok(vec![edit_proposed().into()]));
    assert_eq!(when(proposed(), Command::ProposeEdit(pens_for_hat())), Ok(vec![]));
    let other = ProposeEdit { remove: vec![1], ..pens_for_hat() };
    let open = Err(Rejection::EditOpen { order_id: ORDER, edit: 1 });
    assert_eq!(when(proposed(), Command::ProposeEdit(other)), open);
}

#[test]
fn an_edit_is_confirmed_once_its_payments_and_its_stock_are_secured() {
    let not_secured = |payments: Vec<PaymentId>, stock_secured| {
        Err(Rejection::EditNotSecured { order_id: ORDER, edit: 1, payments, stock_secured })
    };
    let confirm = || Change::ConfirmEdit { edit: 1 };
    assert_eq!(changed(proposed(), confirm()), not_secured(vec![more()], false));
    let paid = when(proposed(), authorised(more())).unwrap();
    assert_eq!(paid, [PaymentAuthorisedRecorded { payment_id: more() }.into()]);
    let paid = [proposed(), paid].concat();
    assert_eq!(changed(paid.clone(), confirm()), not_secured(vec![], false));
    let reserved = Command::RecordEditReserved { edit: 1 };
    assert_eq!(when(paid, reserved.clone()), Ok(vec![EditStockSecured { edit: 1 }.into()]));
    assert_eq!(when(secured_edit(), reserved), Ok(vec![]));

    let to_penmaker = ShipmentId::of_seller(ORDER, PENMAKER);
    let share = |payment_id, amount| CaptureShare {
        payment_id,
        capture_id: CaptureId::of_shipment(payment_id, to_penmaker),
        amount: Amount(amount),
    };
    let shipment = ShipmentOrder {
        shipment_id: to_penmaker,
        seller_id: PENMAKER,
        customer_id: CUSTOMER,
        address_id: ADDRESS,
        lines: vec![pens()],
        captures: vec![share(voucher(), 410), share(card(), 3160), share(more(), 430)],
        unreserved: false,
    };
    let edit_confirmed = EditConfirmed {
        edit: 1,
        totals: totals(6000, 100, 190, 500),
        lines: 2,
        released: vec![hat()],
        shipments: vec![shipment],
        payments: vec![],
    };
    let events = Changed { order: vec![edit_confirmed.into()], shipments: vec![vec![], cancelled_parcel()] };
    assert_eq!(changed(secured_edit(), confirm()), Ok(events.clone()));

    let history = [secured_edit(), events.order].concat();
    let unchanged = Changed { order: vec![], shipments: vec![vec![], vec![]] };
    assert_eq!(changed(history.clone(), confirm()), Ok(unchanged));
    let late = Err(Rejection::EditConfirmed { order_id: ORDER, edit: 1 });
    assert_eq!(when(history.clone(), Command::DiscardEdit { edit: 1 }), late);
    let ids: Vec<ShipmentId> = given::<Order>(history).shipment_ids(ORDER);
    assert_eq!(ids, [to_potter(), to_hatter(), to_penmaker]);
}

#[test]
fn an_edit_of_an_order_on_hold_waits() {
    let held = [secured_edit(), when(secured_edit(), Command::PlaceHold { reason: HoldReason::Fraud }).unwrap()];
    assert_eq!(changed(held.concat(), Change::ConfirmEdit { edit: 1 }), Err(Rejection::OnHold { order_id: ORDER }));
}

#[test]
fn an_edit_that_cannot_be_paid_or_supplied_is_discarded_and_the_order_stays() {
    let refused = PaymentRefused { payment_id: more(), reason: "no funds".to_owned() };
    assert_eq!(
        when(proposed(), declined(more())),
        Ok(vec![refused.into(), edit_discarded(EditDiscardReason::PaymentDeclined, vec![])])
    );
    let short = Command::RecordEditShortage { edit: 1, short: vec![3] };
    assert_eq!(when(proposed(), short.clone()), Ok(vec![edit_discarded(EditDiscardReason::OutOfStock, vec![])]));
    assert_eq!(when(secured_edit(), short), Ok(vec![]));
    let discard = Command::DiscardEdit { edit: 1 };
    let discarded = edit_discarded(EditDiscardReason::Requested, vec![pens()]);
    assert_eq!(when(secured_edit(), discard.clone()), Ok(vec![discarded.clone()]));
    let history = [secured_edit(), vec![discarded]].concat();
    assert_eq!(when(history.clone(), discard), Ok(vec![]));
    let late = changed(history.clone(), Change::ConfirmEdit { edit: 1 });
    assert_eq!(late, Err(Rejection::EditDiscarded { order_id: ORDER, edit: 1 }));
    let unknown = Err(Rejection::UnknownEdit { order_id: ORDER, edit: 2 });
    assert_eq!(when(history.clone(), Command::DiscardEdit { edit: 2 }), unknown);
    // Numbers are not used again: what comes late must not be taken for something else.
    let again = when(history, Command::ProposeEdit(pens_for_hat())).unwrap();
    let [Event::EditProposed(again)] = &again[..] else { panic!("{again:?}") };
    assert_eq!((again.edit, again.add[0].line), (2, 4));
    assert_eq!(again.payments[0].payment_id, PaymentId::of_order(ORDER, 3));
}

#[test]
fn stock_that_is_reserved_for_an_edit_too_late_goes_back_once() {
    let discarded = edit_discarded(EditDiscardReason::Requested, vec![]);
    let history = [proposed(), vec![discarded]].concat();
    let reserved = Command::RecordEditReserved { edit: 1 };
    let returned = ReservationReturned { lines: vec![pens()] };
    assert_eq!(when(history.clone(), reserved.clone()), Ok(vec![returned.clone().into()]));
    assert_eq!(when([history, vec![returned.into()]].concat(), reserved), Ok(vec![]));
}

#[test]
fn an_order_that_is_cancelled_ends_its_open_edit_first() {
    let cancelled = changed(secured_edit(), Change::Cancel { reason: CancelReason::CustomerRequest }).unwrap();
    let discarded = edit_discarded(EditDiscardReason::OrderEnded, vec![pens()]);
    assert_eq!(cancelled.order, [discarded, cancelled_by_customer(vec![mugs(), hat()])]);
}

#[test]
fn an_order_that_is_completed_ends_its_open_edit_first() {
    let history = [secured_edit(), when(secured_edit(), hat_delivered()).unwrap()].concat();
    let mugs = LinesDelivered { shipment_id: to_potter(), lines: vec![1] };
    let discarded = edit_discarded(EditDiscardReason::OrderEnded, vec![pens()]);
    assert_eq!(when(history, mugs_delivered()), Ok(vec![mugs.into(), discarded, OrderCompleted {}.into()]));
}

#[test]
fn an_edit_names_every_fault_and_the_amount_that_is_missing() {
    let faults = |edit| match when(confirmed(), Command::ProposeEdit(edit)) {
        Err(Rejection::Invalid { faults }) => faults,
        other => panic!("{other:?}"),
    };
    let bad = ProposeEdit {
        remove: vec![2, 2, 9],
        add: vec![line("PEN", PENMAKER, 0, 1)],
        shipping: vec![SellerShipping { seller_id: HATTER, amount: Amount(1) }],
        payments: vec![paying("card", 0)],
    };
    assert_eq!(
        faults(bad),
        [
            fault("remove[1]", "each line of the order at most once"),
            fault("remove[2]", "each line of the order at most once"),
            fault("add[0].quantity", "1 or more"),
            fault("shipping[0].seller_id", "each seller of a line at most once"),
            fault("payments[0].amount", "more than zero"),
        ]
    );
    let empty = ProposeEdit { remove: vec![1, 2], add: vec![], shipping: vec![], payments: vec![] };
    assert_eq!(faults(empty), [fault("add", "1 to 200 lines after the edit")]);
    let too_little = ProposeEdit { payments: vec![paying("card", 429)], ..pens_for_hat() };
    assert_eq!(faults(too_little), [fault("payments", "amounts that add up to 4.30")]);
    let cheaper = ProposeEdit { add: vec![], ..pens_for_hat() };
    assert_eq!(faults(cheaper), [fault("payments", "amounts that add up to 0.00")]);
}

#[test]
fn only_a_confirmed_order_of_which_nothing_has_arrived_is_edited() {
    let propose = || Command::ProposeEdit(pens_for_hat());
    for history in [placed(), reserving()] {
        assert_eq!(when(history, propose()), Err(Rejection::NotConfirmed { order_id: ORDER }));
    }
    let refused = Err(Rejection::AlreadyDispatched { shipment_id: to_hatter(), waiting: vec![to_potter()] });
    assert_eq!(when(partly_delivered(), propose()), refused);
    for history in all_ended() {
        let status = given::<Order>(history.clone()).status;
        assert_eq!(when(history, propose()), Err(Rejection::Ended { order_id: ORDER, status }));
    }
}
