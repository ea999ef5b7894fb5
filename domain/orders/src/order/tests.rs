//! What an order does with every command in every state, and that its money adds up.

mod after_sale;
mod changes;
mod model;
mod waiting;

use super::*;
use crate::Fault;
use crate::id::{AddressId, CaptureId, LineNo, PaymentId, SellerId, ShipmentId, Sku};
use crate::money::Amount;
use crate::shipment::{self, Shipment};
use crate::testing::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

#[expect(clippy::needless_pass_by_value, reason = "a sentence without ampersands")]
fn when(history: Vec<Event>, command: Command) -> Result<Vec<Event>, Rejection> {
    given::<Order>(history).decide(ORDER, &command)
}

/// Cancels the order while its shipments are in these states.
fn when_cancelled(history: Vec<Event>, potter: Shipment, hatter: Shipment) -> Result<Changed, Rejection> {
    when_changed(history, potter, hatter, Change::Cancel { reason: CancelReason::CustomerRequest })
}

/// Changes the order while its shipments are in these states.
#[expect(clippy::needless_pass_by_value, reason = "a sentence without ampersands")]
fn when_changed(history: Vec<Event>, potter: Shipment, hatter: Shipment, change: Change) -> Result<Changed, Rejection> {
    let shipments = [(to_potter(), Arc::new(potter)), (to_hatter(), Arc::new(hatter))];
    given::<Order>(history).change(ORDER, &shipments, &change)
}

fn place() -> Command {
    Command::Place(mugs_and_hat())
}

fn place_other() -> Command {
    Command::Place(order_of(vec![line("HAT", HATTER, 1, 0)], vec![]))
}

fn authorised(payment_id: PaymentId) -> Command {
    Command::RecordPaymentAuthorised { payment_id }
}

fn declined(payment_id: PaymentId) -> Command {
    Command::RecordPaymentDeclined { payment_id, reason: "no funds".to_owned() }
}

fn short(lines: &[LineNo]) -> Command {
    Command::RecordShortage { short: lines.to_vec() }
}

fn mugs_delivered() -> Command {
    Command::RecordDelivery { shipment_id: to_potter(), lines: vec![1] }
}

fn hat_delivered() -> Command {
    Command::RecordDelivery { shipment_id: to_hatter(), lines: vec![2] }
}

/// Every command that follows a placement.
fn records() -> Vec<Command> {
    vec![
        authorised(voucher()),
        authorised(card()),
        declined(voucher()),
        declined(card()),
        Command::RecordStockReserved,
        short(&[2]),
        mugs_delivered(),
        hat_delivered(),
    ]
}

fn voucher() -> PaymentId {
    PaymentId::of_order(ORDER, 0)
}

fn card() -> PaymentId {
    PaymentId::of_order(ORDER, 1)
}

fn to_potter() -> ShipmentId {
    ShipmentId::of_seller(ORDER, POTTER)
}

fn to_hatter() -> ShipmentId {
    ShipmentId::of_seller(ORDER, HATTER)
}

fn mugs() -> StockLine {
    StockLine { line: 1, sku: sku("MUG"), quantity: 2 }
}

fn hat() -> StockLine {
    StockLine { line: 2, sku: sku("HAT"), quantity: 1 }
}

fn order_placed() -> OrderPlaced {
    let order_line = |line, name, seller_id, quantity, unit_price, discount, tax| OrderLine {
        line,
        sku: sku(name),
        seller_id,
        quantity,
        unit_price: Amount(unit_price),
        discount: Amount(discount),
        tax: Amount(tax),
    };
    OrderPlaced {
        customer_id: CUSTOMER,
        currency: eur(),
        shipping_address_id: ADDRESS,
        billing_address_id: None,
        lines: vec![order_line(1, "MUG", POTTER, 2, 1000, 100, 190), order_line(2, "HAT", HATTER, 1, 3000, 0, 570)],
        shipping: vec![SellerShipping { seller_id: POTTER, amount: Amount(500) }],
        payments: vec![
            OrderPayment { payment_id: voucher(), method: method("voucher"), amount: Amount(3000) },
            OrderPayment { payment_id: card(), method: method("card"), amount: Amount(3160) },
        ],
        totals: OrderTotals {
            goods: Amount(5000),
            discount: Amount(100),
            tax: Amount(760),
            shipping: Amount(500),
            total: Amount(6160),
        },
        rounding: Rounding::default(),
        backorder: false,
        approval_within_seconds: None,
    }
}

fn payments_secured() -> PaymentsSecured {
    PaymentsSecured { lines: vec![mugs(), hat()], hold_seconds: 518_400 }
}

fn order_confirmed() -> OrderConfirmed {
    let shipment = |shipment_id, seller_id, line, shares: &[(PaymentId, i64)]| {
        let share = |&(payment_id, amount): &(PaymentId, i64)| CaptureShare {
            payment_id,
            capture_id: CaptureId::of_shipment(payment_id, shipment_id),
            amount: Amount(amount),
        };
        ShipmentOrder {
            shipment_id,
            seller_id,
            customer_id: CUSTOMER,
            address_id: ADDRESS,
            lines: vec![line],
            captures: shares.iter().map(share).collect(),
            unreserved: false,
        }
    };
    OrderConfirmed {
        shipments: vec![
            shipment(to_potter(), POTTER, mugs(), &[(voucher(), 2590)]),
            shipment(to_hatter(), HATTER, hat(), &[(voucher(), 410), (card(), 3160)]),
        ],
    }
}

fn order_cancelled(reason: CancelReason, reserved: Vec<StockLine>) -> OrderCancelled {
    OrderCancelled { reason, customer_id: CUSTOMER, payments: vec![voucher(), card()], reserved }
}

fn cancelled_by_customer(reserved: Vec<StockLine>) -> Event {
    order_cancelled(CancelReason::CustomerRequest, reserved).into()
}

// The states that an order can be in, as the events that lead there.

fn placed() -> Vec<Event> {
    vec![order_placed().into()]
}

fn partly_authorised() -> Vec<Event> {
    [placed(), vec![PaymentAuthorisedRecorded { payment_id: card() }.into()]].concat()
}

fn reserving() -> Vec<Event> {
    let last = PaymentAuthorisedRecorded { payment_id: voucher() };
    [partly_authorised(), vec![last.into(), payments_secured().into()]].concat()
}

fn confirmed() -> Vec<Event> {
    [reserving(), vec![StockSecured {}.into(), order_confirmed().into()]].concat()
}

fn partly_delivered() -> Vec<Event> {
    [confirmed(), vec![LinesDelivered { shipment_id: to_hatter(), lines: vec![2] }.into()]].concat()
}

fn completed() -> Vec<Event> {
    let last = LinesDelivered { shipment_id: to_potter(), lines: vec![1] };
    [partly_delivered(), vec![last.into(), OrderCompleted {}.into()]].concat()
}

fn cancelled_while_reserving() -> Vec<Event> {
    [reserving(), vec![cancelled_by_customer(vec![])]].concat()
}

fn returned() -> Vec<Event> {
    let late = ReservationReturned { lines: vec![mugs(), hat()] };
    [cancelled_while_reserving(), vec![late.into()]].concat()
}

fn cancelled_when_confirmed() -> Vec<Event> {
    [confirmed(), vec![cancelled_by_customer(vec![mugs(), hat()])]].concat()
}

fn cancelled_for_shortage() -> Vec<Event> {
    let short = LinesShort { lines: vec![2] };
    [reserving(), vec![short.into(), order_cancelled(CancelReason::OutOfStock, vec![]).into()]].concat()
}

fn rejected() -> Vec<Event> {
    let refused = PaymentRefused { payment_id: voucher(), reason: "no funds".to_owned() };
    let rejected = OrderRejected { customer_id: CUSTOMER, payments: vec![card()] };
    [partly_authorised(), vec![refused.into(), rejected.into()]].concat()
}

fn all_cancelled() -> Vec<Vec<Event>> {
    vec![
        [placed(), vec![cancelled_by_customer(vec![])]].concat(),
        [partly_authorised(), vec![cancelled_by_customer(vec![])]].concat(),
        cancelled_while_reserving(),
        returned(),
        cancelled_when_confirmed(),
        cancelled_for_shortage(),
    ]
}

fn all_confirmed() -> Vec<Vec<Event>> {
    vec![confirmed(), partly_delivered(), completed()]
}

fn all_ended() -> Vec<Vec<Event>> {
    [all_cancelled(), vec![completed(), rejected()]].concat()
}

fn all_placed() -> Vec<Vec<Event>> {
    [vec![placed(), partly_authorised(), reserving(), confirmed(), partly_delivered()], all_ended()].concat()
}

fn planned(shipment: usize) -> Shipment {
    let shipment = order_confirmed().shipments.remove(shipment);
    given([shipment::ShipmentPlanned { order_id: ORDER, revision: 1, shipment }.into()])
}

fn dispatched(shipment: usize) -> Shipment {
    let state = planned(shipment);
    let dispatch = shipment::Command::Dispatch { revision: 1, tracking: "T1".to_owned() };
    then(&state, &state.decide(to_hatter(), &dispatch).unwrap())
}

fn cancelled_shipment() -> Shipment {
    given([shipment::ShipmentCancelled { order_id: ORDER }.into()])
}

// Placing

#[test]
fn a_placed_order_is_recorded_with_its_lines_numbered_and_its_totals() {
    assert_eq!(when(vec![], place()), Ok(vec![order_placed().into()]));
}

#[test]
fn placing_the_same_order_again_in_any_state_does_nothing() {
    for history in all_placed() {
        assert_eq!(when(history, place()), Ok(vec![]));
    }
}

#[test]
fn placing_another_order_under_the_same_id_is_refused_in_any_state() {
    for history in all_placed() {
        assert_eq!(when(history, place_other()), Err(Rejection::AlreadyPlaced { order_id: ORDER }));
    }
}

#[test]
fn an_order_that_was_never_placed_refuses_everything_else() {
    for command in records() {
        assert_eq!(when(vec![], command), Err(Rejection::NotPlaced { order_id: ORDER }));
    }
    assert_eq!(
        when_cancelled(vec![], Shipment::default(), Shipment::default()),
        Err(Rejection::NotPlaced { order_id: ORDER })
    );
}

#[test]
fn an_order_that_costs_nothing_is_paid_when_it_is_placed() {
    let free = Command::Place(order_of(vec![line("PEN", POTTER, 3, 0)], vec![]));
    let pens = StockLine { line: 1, sku: sku("PEN"), quantity: 3 };
    let events = when(vec![], free).unwrap();
    assert_eq!(events.len(), 2);
    let Event::OrderPlaced(placed) = &events[0] else { panic!("{events:?}") };
    assert_eq!((placed.totals.total, placed.payments.len()), (Amount::ZERO, 0));
    assert_eq!(events[1], PaymentsSecured { lines: vec![pens.clone()], hold_seconds: 518_400 }.into());

    let shipment = ShipmentOrder {
        shipment_id: to_potter(),
        seller_id: POTTER,
        customer_id: CUSTOMER,
        address_id: ADDRESS,
        lines: vec![pens],
        captures: vec![],
        unreserved: false,
    };
    assert_eq!(
        when(events, Command::RecordStockReserved),
        Ok(vec![StockSecured {}.into(), OrderConfirmed { shipments: vec![shipment] }.into()])
    );
}

#[test]
fn an_order_that_a_discount_makes_free_takes_no_payment() {
    let gift = PlaceLine { discount: Amount(2000), ..line("MUG", POTTER, 2, 1000) };
    let paid = order_of(vec![gift.clone()], vec![paying("card", 1)]);
    assert_eq!(faults(paid), [fault("payments", "amounts that add up to the total of 0.00")]);
    assert_eq!(when(vec![], Command::Place(order_of(vec![gift], vec![]))).map(|events| events.len()), Ok(2));
}

// Validation

fn faults(order: PlaceOrder) -> Vec<Fault> {
    match when(vec![], Command::Place(order)) {
        Err(Rejection::Invalid { faults }) => faults,
        other => panic!("{other:?}"),
    }
}

fn fault(field: &str, expected: &str) -> Fault {
    Fault::new(field, expected)
}

#[test]
fn every_fault_of_an_order_is_named_with_the_path_of_its_field() {
    let bad = PlaceLine { quantity: 0, discount: Amount(-1), tax: Amount(-1), ..line("MUG", POTTER, 0, -1) };
    let too_cheap = PlaceLine { discount: Amount(2001), ..line("MUG", POTTER, 2, 1000) };
    let negative = line("MUG", POTTER, 1, -5);
    let method = |kind: &str, token: &str| PaymentMethod { kind: kind.to_owned(), token: token.to_owned() };
    let shipping = |seller_id, amount| SellerShipping { seller_id, amount: Amount(amount) };
    let order = PlaceOrder {
        shipping: vec![shipping(POTTER, -1), shipping(POTTER, 0), shipping(HATTER, 0)],
        ..order_of(
            vec![bad, too_cheap, negative],
            vec![
                PlacePayment { method: method("Card", "tok"), amount: Amount(0) },
                PlacePayment { method: method("", &"t".repeat(129)), amount: Amount(-1) },
                PlacePayment { method: method(&"k".repeat(33), ""), amount: Amount(1) },
                PlacePayment { method: method("card", "with blank"), amount: Amount(1) },
            ],
        )
    };
    assert_eq!(
        faults(order),
        [
            fault("lines[0].quantity", "1 or more"),
            fault("lines[0].unit_price", "zero or more"),
            fault("lines[0].discount", "zero or more"),
            fault("lines[0].tax", "zero or more"),
            fault("lines[1].discount", "no more than quantity times unit price"),
            fault("lines[2].unit_price", "zero or more"),
            fault("shipping[0].amount", "zero or more"),
            fault("shipping[1].seller_id", "each seller of a line at most once"),
            fault("shipping[2].seller_id", "each seller of a line at most once"),
            fault("payments[0].amount", "more than zero"),
            fault("payments[0].method.kind", "1 to 32 of a-z, 0-9 and underscore"),
            fault("payments[1].amount", "more than zero"),
            fault("payments[1].method.kind", "1 to 32 of a-z, 0-9 and underscore"),
            fault("payments[1].method.token", "1 to 128 printable ASCII characters"),
            fault("payments[2].method.kind", "1 to 32 of a-z, 0-9 and underscore"),
            fault("payments[2].method.token", "1 to 128 printable ASCII characters"),
            fault("payments[3].method.token", "1 to 128 printable ASCII characters"),
        ]
    );
}

#[test]
fn an_order_has_1_to_200_lines_and_at_most_20_payments() {
    let of = |lines, payments| order_of(vec![line("PEN", POTTER, 1, 1); lines], vec![paying("card", 1); payments]);
    assert_eq!(faults(of(0, 0)), [fault("lines", "1 to 200 lines")]);
    assert_eq!(faults(of(201, 21)), [fault("lines", "1 to 200 lines"), fault("payments", "at most 20 payments")]);
    assert!(when(vec![], Command::Place(of(20, 20))).is_ok());
    let largest = order_of(vec![line("PEN", POTTER, 1, 1); 200], vec![paying("card", 200)]);
    assert!(when(vec![], Command::Place(largest)).is_ok());
}

#[test]
fn payments_that_do_not_add_up_to_the_total_are_refused() {
    let amounts = |voucher, card| PlaceOrder {
        payments: vec![paying("voucher", voucher), paying("card", card)],
        ..mugs_and_hat()
    };
    let expected = [fault("payments", "amounts that add up to the total of 61.60")];
    assert_eq!(faults(amounts(3000, 3159)), expected);
    assert_eq!(faults(amounts(3000, 3161)), expected);
    assert_eq!(faults(amounts(i64::MAX, 1)), expected, "a sum that overflows is no sum");
    assert_eq!(faults(PlaceOrder { payments: vec![], ..mugs_and_hat() }), expected);
}

#[test]
fn a_total_of_2_to_the_63_minor_units_is_refused_and_one_less_is_taken() {
    let max = i64::MAX;
    let pay = || vec![paying("card", max)];
    let large = || line("MUG", POTTER, 1, max);
    let taxed = |unit_price, tax| PlaceLine { tax: Amount(tax), ..line("MUG", POTTER, 1, unit_price) };
    let shipped = |unit_price, amount| PlaceOrder {
        shipping: vec![SellerShipping { seller_id: POTTER, amount: Amount(amount) }],
        ..order_of(vec![line("MUG", POTTER, 1, unit_price)], pay())
    };
    let too_large = [
        order_of(vec![line("MUG", POTTER, 2, 1 << 62)], pay()),
        order_of(vec![large(), line("HAT", HATTER, 1, 1)], pay()),
        order_of(vec![taxed(0, max), taxed(0, 1)], pay()),
        order_of(vec![taxed(max, 1)], pay()),
        shipped(max, 1),
    ];
    for order in too_large {
        assert_eq!(faults(order), [fault("lines", "a total below 2^63 minor units")]);
    }
    // What a discount takes off does not overflow on its way back up.
    let discounted = PlaceLine { discount: Amount(10), tax: Amount(4), ..large() };
    let shipped_and_discounted = PlaceOrder { lines: vec![discounted], ..shipped(max, 6) };
    for order in [order_of(vec![large()], pay()), order_of(vec![taxed(max - 1, 1)], pay()), shipped_and_discounted] {
        let placed = when(vec![], Command::Place(order)).unwrap();
        let OrderConfirmed { shipments } = confirmed_after(placed);
        assert_eq!(shipments[0].captures[0].amount, Amount(max));
    }
}

#[test]
fn a_payment_token_is_not_shown() {
    let shown = format!("{:?}", mugs_and_hat());
    assert!(shown.contains("voucher") && !shown.contains("tok_"), "{shown}");
}

// Payments

#[test]
fn payments_are_secured_once_all_are_authorised() {
    assert_eq!(when(placed(), authorised(card())), Ok(vec![PaymentAuthorisedRecorded { payment_id: card() }.into()]));
    assert_eq!(
        when(partly_authorised(), authorised(voucher())),
        Ok(vec![PaymentAuthorisedRecorded { payment_id: voucher() }.into(), payments_secured().into()])
    );
}

#[test]
fn an_authorisation_that_is_known_or_comes_too_late_does_nothing() {
    assert_eq!(when(partly_authorised(), authorised(card())), Ok(vec![]));
    for history in [vec![reserving()], all_confirmed(), all_ended()].concat() {
        for payment in [voucher(), card()] {
            assert_eq!(when(history.clone(), authorised(payment)), Ok(vec![]));
        }
    }
}

#[test]
fn a_declined_payment_rejects_the_order_and_names_the_other_payments() {
    let refused = |payment_id| Event::from(PaymentRefused { payment_id, reason: "no funds".to_owned() });
    let rejected = |other| Event::from(OrderRejected { customer_id: CUSTOMER, payments: vec![other] });
    assert_eq!(when(placed(), declined(card())), Ok(vec![refused(card()), rejected(voucher())]));
    assert_eq!(when(partly_authorised(), declined(voucher())), Ok(vec![refused(voucher()), rejected(card())]));
}

#[test]
fn a_decline_of_an_authorised_payment_or_of_an_order_past_paying_does_nothing() {
    assert_eq!(when(partly_authorised(), declined(card())), Ok(vec![]));
    for history in [vec![reserving()], all_confirmed(), all_ended()].concat() {
        for payment in [voucher(), card()] {
            assert_eq!(when(history.clone(), declined(payment)), Ok(vec![]));
        }
    }
}

#[test]
fn a_payment_of_another_order_is_refused_in_any_state() {
    let payment_id = PaymentId::of_order(OTHER_ORDER, 0);
    let unknown = Err(Rejection::UnknownPayment { order_id: ORDER, payment_id });
    for history in all_placed() {
        assert_eq!(when(history.clone(), authorised(payment_id)), unknown);
        assert_eq!(when(history, declined(payment_id)), unknown);
    }
}

// Stock

#[test]
fn an_order_with_payments_and_stock_secured_is_confirmed() {
    assert_eq!(
        when(reserving(), Command::RecordStockReserved),
        Ok(vec![StockSecured {}.into(), order_confirmed().into()])
    );
}

#[test]
fn a_shortage_cancels_the_order_and_names_every_short_line() {
    let expected =
        vec![LinesShort { lines: vec![1, 2] }.into(), order_cancelled(CancelReason::OutOfStock, vec![]).into()];
    assert_eq!(when(reserving(), short(&[1, 2])), Ok(expected));
}

#[test]
fn stock_is_neither_reserved_nor_short_before_the_payments_are_secured() {
    for history in [placed(), partly_authorised()] {
        let refused = Err(Rejection::PaymentsNotSecured { order_id: ORDER });
        assert_eq!(when(history.clone(), Command::RecordStockReserved), refused);
        assert_eq!(when(history, short(&[1])), refused);
    }
}

#[test]
fn a_reservation_of_a_confirmed_order_is_known_already() {
    for history in all_confirmed() {
        assert_eq!(when(history, Command::RecordStockReserved), Ok(vec![]));
    }
}

#[test]
fn a_shortage_of_a_confirmed_or_ended_order_does_nothing() {
    for history in [all_confirmed(), all_ended()].concat() {
        assert_eq!(when(history, short(&[1])), Ok(vec![]));
    }
}

#[test]
fn a_late_reservation_for_an_ended_order_is_returned_exactly_once() {
    for history in [cancelled_while_reserving(), cancelled_for_shortage(), rejected()] {
        let returned = vec![ReservationReturned { lines: vec![mugs(), hat()] }.into()];
        assert_eq!(when(history.clone(), Command::RecordStockReserved), Ok(returned.clone()));
        assert_eq!(when([history, returned].concat(), Command::RecordStockReserved), Ok(vec![]));
    }
}

#[test]
fn a_reservation_that_the_cancellation_released_is_not_returned_again() {
    assert_eq!(when(cancelled_when_confirmed(), Command::RecordStockReserved), Ok(vec![]));
}

// Cancelling

#[test]
fn a_cancel_before_the_order_is_confirmed_releases_nothing() {
    for history in [placed(), partly_authorised(), reserving()] {
        assert_eq!(
            when_cancelled(history, Shipment::default(), Shipment::default()),
            Ok(Changed {
                order: vec![cancelled_by_customer(vec![])],
                shipments: vec![vec![shipment::ShipmentCancelled { order_id: ORDER }.into()]; 2],
            })
        );
    }
}

#[test]
fn a_cancel_of_a_confirmed_order_releases_its_stock_and_cancels_its_shipments_planned_or_not() {
    for potter in [Shipment::default(), planned(0)] {
        assert_eq!(
            when_cancelled(confirmed(), potter, planned(1)),
            Ok(Changed {
                order: vec![cancelled_by_customer(vec![mugs(), hat()])],
                shipments: vec![vec![shipment::ShipmentCancelled { order_id: ORDER }.into()]; 2],
            })
        );
    }
}

#[test]
fn a_cancel_after_a_dispatch_is_refused() {
    let delivered = then(&dispatched(1), &[shipment::ShipmentDelivered { order_id: ORDER, lines: vec![2] }.into()]);
    let refused =
        |shipment_id, other| Err(Rejection::AlreadyDispatched { shipment_id, waiting: Vec::from_iter(other) });
    assert_eq!(when_cancelled(confirmed(), planned(0), dispatched(1)), refused(to_hatter(), Some(to_potter())));
    assert_eq!(when_cancelled(confirmed(), dispatched(0), planned(1)), refused(to_potter(), Some(to_hatter())));
    assert_eq!(when_cancelled(partly_delivered(), planned(0), delivered), refused(to_hatter(), Some(to_potter())));
    assert_eq!(when_cancelled(confirmed(), dispatched(0), dispatched(1)), refused(to_potter(), None));
}

#[test]
fn cancelling_a_cancelled_order_yields_no_events() {
    for history in all_cancelled() {
        assert_eq!(
            when_cancelled(history, cancelled_shipment(), cancelled_shipment()),
            Ok(Changed { order: vec![], shipments: vec![vec![], vec![]] })
        );
    }
}

#[test]
fn a_cancel_of_an_order_that_ended_otherwise_is_refused() {
    let refused = |status| Err(Rejection::Ended { order_id: ORDER, status });
    assert_eq!(when_cancelled(completed(), dispatched(0), dispatched(1)), refused(Status::Completed));
    assert_eq!(when_cancelled(rejected(), Shipment::default(), Shipment::default()), refused(Status::Rejected));
}

// Delivery

#[test]
fn an_order_is_completed_when_its_last_line_is_delivered() {
    let hat = LinesDelivered { shipment_id: to_hatter(), lines: vec![2] };
    let mugs = LinesDelivered { shipment_id: to_potter(), lines: vec![1] };
    assert_eq!(when(confirmed(), hat_delivered()), Ok(vec![hat.into()]));
    assert_eq!(when(partly_delivered(), mugs_delivered()), Ok(vec![mugs.into(), OrderCompleted {}.into()]));
}

#[test]
fn a_delivery_that_is_known_does_nothing() {
    assert_eq!(when(partly_delivered(), hat_delivered()), Ok(vec![]));
    assert_eq!(when(completed(), hat_delivered()), Ok(vec![]));
    assert_eq!(when(completed(), mugs_delivered()), Ok(vec![]));
}

#[test]
fn a_line_that_is_named_twice_or_is_not_of_the_order_completes_nothing() {
    let lines = vec![2, 2, 9];
    assert_eq!(
        when(confirmed(), Command::RecordDelivery { shipment_id: to_hatter(), lines }),
        Ok(vec![LinesDelivered { shipment_id: to_hatter(), lines: vec![2] }.into()])
    );
}

#[test]
fn nothing_can_be_delivered_before_the_order_is_confirmed() {
    for history in [placed(), partly_authorised(), reserving()] {
        assert_eq!(when(history, mugs_delivered()), Err(Rejection::NotConfirmed { order_id: ORDER }));
    }
}

#[test]
fn nothing_can_be_delivered_of_an_order_that_was_called_off() {
    let refused = |status| Err(Rejection::Ended { order_id: ORDER, status });
    for history in all_cancelled() {
        assert_eq!(when(history, mugs_delivered()), refused(Status::Cancelled));
    }
    assert_eq!(when(rejected(), mugs_delivered()), refused(Status::Rejected));
}

// Money

/// What confirms the order that `placed` is the placement of.
fn confirmed_after(placed: Vec<Event>) -> OrderConfirmed {
    let mut order: Order = given(placed);
    let payments = order.payment_ids();
    let commands = payments.into_iter().map(authorised).chain([Command::RecordStockReserved]);
    for command in commands {
        let events = order.decide(ORDER, &command).unwrap();
        order = then(&order, &events);
        if let Some(Event::OrderConfirmed(confirmed)) = events.last() {
            return confirmed.clone();
        }
    }
    panic!("not confirmed: {order:?}");
}

#[test]
fn payments_are_used_up_one_after_the_other_to_the_last_unit() {
    let third = SellerId(uuid::Uuid::from_u128(7));
    let lines = vec![line("MUG", POTTER, 1, 100), line("HAT", HATTER, 1, 0), line("PEN", third, 3, 1)];
    let payments = vec![paying("voucher", 1), paying("voucher", 100), paying("card", 2)];
    let placed = when(vec![], Command::Place(order_of(lines, payments))).unwrap();
    let shares = |s: &ShipmentOrder| {
        let share = |c: &CaptureShare| (c.payment_id, c.capture_id, c.amount.0);
        (s.seller_id, s.captures.iter().map(share).collect::<Vec<_>>())
    };
    let paid = |n, seller, amount| {
        let payment = PaymentId::of_order(ORDER, n);
        (payment, CaptureId::of_shipment(payment, ShipmentId::of_seller(ORDER, seller)), amount)
    };
    assert_eq!(
        confirmed_after(placed).shipments.iter().map(shares).collect::<Vec<_>>(),
        [
            (POTTER, vec![paid(0, POTTER, 1), paid(1, POTTER, 99)]),
            (HATTER, vec![]),
            (third, vec![paid(1, third, 1), paid(2, third, 2)]),
        ]
    );
}

#[test]
fn the_lines_of_a_seller_go_into_one_shipment_in_the_order_of_the_sellers_first_lines() {
    let lines = vec![line("HAT", HATTER, 1, 5), line("MUG", POTTER, 1, 7), line("PEN", HATTER, 2, 1)];
    let placed = when(vec![], Command::Place(order_of(lines, vec![paying("card", 14)]))).unwrap();
    assert_eq!(given::<Order>(placed.clone()).sellers(), [HATTER, POTTER]);
    assert_eq!(given::<Order>(placed.clone()).shipment_ids(ORDER), []);
    let brief =
        |s: &ShipmentOrder| (s.shipment_id, s.lines.iter().map(|l| l.line).collect::<Vec<_>>(), s.captures[0].amount.0);
    assert_eq!(
        confirmed_after(placed).shipments.iter().map(brief).collect::<Vec<_>>(),
        [(to_hatter(), vec![1, 3], 7), (to_potter(), vec![2], 7)]
    );
}

proptest! {
    #[test]
    fn invariant_23_the_lines_tax_shipping_and_discounts_add_up_to_the_total(order in any_order()) {
        let events = when(vec![], Command::Place(order.clone())).unwrap();
        let Event::OrderPlaced(placed) = &events[0] else { panic!("{events:?}") };
        let goods: i64 = order.lines.iter().map(|l| i64::from(l.quantity) * l.unit_price.0).sum();
        let discount: i64 = order.lines.iter().map(|l| l.discount.0).sum();
        let tax: i64 = order.lines.iter().map(|l| l.tax.0).sum();
        let shipping: i64 = order.shipping.iter().map(|s| s.amount.0).sum();
        let total = goods - discount + tax + shipping;
        let amounts = [goods, discount, tax, shipping, total].map(Amount);
        let t = &placed.totals;
        prop_assert_eq!([t.goods, t.discount, t.tax, t.shipping, t.total], amounts);
        prop_assert_eq!(placed.payments.iter().map(|p| p.amount.0).sum::<i64>(), total);
    }

    #[test]
    fn the_captures_of_all_shipments_take_each_payment_whole_and_come_to_the_total(order in any_order()) {
        let events = when(vec![], Command::Place(order)).unwrap();
        let placed = given::<Order>(events.clone()).placed().unwrap().clone();
        let shipments = confirmed_after(events).shipments;

        let captures: Vec<_> = shipments.iter().flat_map(|s| &s.captures).collect();
        prop_assert!(captures.iter().all(|c| c.amount > Amount::ZERO), "{:?}", captures);
        let mut taken = BTreeMap::new();
        for capture in &captures {
            *taken.entry(capture.payment_id).or_default() += capture.amount.0;
        }
        let paid: BTreeMap<PaymentId, i64> = placed.payments.iter().map(|p| (p.payment_id, p.amount.0)).collect();
        prop_assert_eq!(&taken, &paid);
        prop_assert_eq!(taken.values().sum::<i64>(), placed.totals.total.0);

        // Each shipment is paid for what its seller takes.
        for shipment in &shipments {
            let lines = placed.lines.iter().filter(|l| l.seller_id == shipment.seller_id);
            let net: i64 = lines.map(|l| i64::from(l.quantity) * l.unit_price.0 - l.discount.0 + l.tax.0).sum();
            let carriage = placed.shipping.iter().filter(|s| s.seller_id == shipment.seller_id);
            let owed = net + carriage.map(|s| s.amount.0).sum::<i64>();
            prop_assert_eq!(shipment.captures.iter().map(|c| c.amount.0).sum::<i64>(), owed);
        }
        let mut lines: Vec<_> = shipments.into_iter().flat_map(|s| s.lines).collect();
        lines.sort_by_key(|l| l.line);
        prop_assert_eq!(lines, placed.lines.iter().map(OrderLine::pieces).collect::<Vec<_>>());
    }

    #[test]
    fn every_command_can_be_repeated(wishes in proptest::collection::vec(any_wish(), 1..30)) {
        let first = Wish::Do(place());
        each_can_be_repeated(&[vec![first], wishes].concat(), |order: &Order, wish| match wish {
            Wish::Do(command) => order.decide(ORDER, command),
            Wish::Cancel => {
                let cancel = Change::Cancel { reason: CancelReason::CustomerRequest };
                order.change::<&Shipment>(ORDER, &[], &cancel).map(|c| c.order)
            }
        })?;
    }
}

/// A command of an order, or its cancellation.
#[derive(Debug, Clone)]
enum Wish {
    Do(Command),
    Cancel,
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let commands = [records(), vec![place(), place_other()]].concat();
    prop_oneof![
        9 => proptest::sample::select(commands).prop_map(Wish::Do),
        1 => Just(Wish::Cancel),
    ]
}

/// The log takes payloads of up to 128 KiB. An order that was accepted must never be stuck because an event of it is
/// larger.
#[test]
fn no_event_of_the_largest_order_is_too_large_for_the_log() {
    let price = i64::MAX / 200 / 4;
    let lines = (0..200_u128).map(|n| PlaceLine {
        sku: Sku::new(format!("{n:0>64}")).unwrap(),
        seller_id: SellerId(Uuid::from_u128(u128::MAX - n)),
        quantity: 1,
        unit_price: Amount(price),
        discount: Amount(price / 3),
        tax: Amount(price / 3),
    });
    let lines: Vec<PlaceLine> = lines.collect();
    let total = lines.iter().map(|l| l.unit_price.0 - l.discount.0 + l.tax.0).sum::<i64>();
    let shipping: Vec<_> =
        lines.iter().map(|l| SellerShipping { seller_id: l.seller_id, amount: Amount(price) }).collect();
    let total = total + price * 200;
    let part = total / 20;
    let amounts = (0..20).map(|n| if n == 0 { total - part * 19 } else { part });
    let method = || PaymentMethod { kind: "k".repeat(32), token: "t".repeat(128) };
    let payments: Vec<_> = amounts.map(|amount| PlacePayment { method: method(), amount: Amount(amount) }).collect();
    let order = PlaceOrder { lines, shipping, payments, ..order_of(vec![], vec![]) };

    let mut events: Vec<Event> = when(vec![], Command::Place(order)).unwrap();
    let ids: Vec<PaymentId> = (0..20).map(|n| PaymentId::of_order(ORDER, n)).collect();
    for payment_id in ids {
        events.extend(when(events.clone(), Command::RecordPaymentAuthorised { payment_id }).unwrap());
    }
    events.extend(when(events.clone(), Command::RecordStockReserved).unwrap());
    let largest = events.iter().map(|e| serde_json::to_string(e).unwrap().len()).max().unwrap();
    assert!(matches!(events.last(), Some(Event::OrderConfirmed(_))));
    assert!((64 * 1024..128 * 1024).contains(&largest), "{largest}");
}
