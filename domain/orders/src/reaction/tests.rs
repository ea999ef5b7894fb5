//! What follows from each event, exactly; that it all comes to a good end together stands in `choreography`.

mod after_sale;
mod change;
mod choreography;
mod waiting;

use super::*;
use crate::order::{CaptureShare, ShipmentOrder};
use crate::testing::*;

const PAYMENT: PaymentId = PaymentId(Uuid::from_u128(20));
const OTHER_PAYMENT: PaymentId = PaymentId(Uuid::from_u128(21));
const CAPTURE: CaptureId = CaptureId(Uuid::from_u128(22));
const REFUND: RefundId = RefundId(Uuid::from_u128(25));
const KEY: Uuid = Uuid::from_u128(23);
const SHIPMENT: ShipmentId = ShipmentId(Uuid::from_u128(24));
const OTHER_SHIPMENT: ShipmentId = ShipmentId(Uuid::from_u128(28));

fn after_order(event: impl Into<order::Event>) -> Vec<FollowUp> {
    react(&Event::Order(ORDER, event.into()))
}

fn after_payment(event: impl Into<payment::Event>) -> Vec<FollowUp> {
    react(&Event::Payment(PAYMENT, event.into()))
}

fn after_stock(event: impl Into<stock::Event>) -> Vec<FollowUp> {
    react(&Event::Stock((&sku("MUG")).into(), event.into()))
}

fn after_shipment(event: impl Into<shipment::Event>) -> Vec<FollowUp> {
    react(&Event::Shipment(SHIPMENT, event.into()))
}

fn follow_up(reaction: &'static str, target: Uuid, act: Act) -> FollowUp {
    FollowUp { reaction, target, act }
}

fn order_command(reaction: &'static str, command: order::Command) -> FollowUp {
    follow_up(reaction, ORDER.0, Act::Command(Command::Order { id: ORDER, command }))
}

fn payment_command(reaction: &'static str, id: PaymentId, command: payment::Command) -> FollowUp {
    follow_up(reaction, id.0, Act::Command(Command::Payment { id, command }))
}

fn stock_command(reaction: &'static str, command: stock::Command) -> FollowUp {
    follow_up(reaction, ORDER.0, Act::Command(Command::Stock(command)))
}

fn notice(message: Message) -> FollowUp {
    follow_up("notify_customer", CUSTOMER.0, Act::Notice(Notice { customer_id: CUSTOMER, order_id: ORDER, message }))
}

fn call(operation: Operation) -> ProviderCall {
    ProviderCall { payment_id: PAYMENT, idempotency_key: KEY, operation }
}

fn calling(reaction: &'static str, operation: Operation) -> FollowUp {
    follow_up(reaction, PAYMENT.0, Act::Provider(call(operation)))
}

fn void() -> payment::Command {
    payment::Command::Void { order_id: ORDER }
}

fn lines() -> Vec<StockLine> {
    vec![StockLine { line: 1, sku: sku("MUG"), quantity: 2 }]
}

fn captures() -> Vec<CaptureShare> {
    vec![
        CaptureShare { payment_id: PAYMENT, capture_id: CAPTURE, amount: Amount(400) },
        CaptureShare { payment_id: OTHER_PAYMENT, capture_id: CaptureId(KEY), amount: Amount(600) },
    ]
}

fn shipment_order(shipment_id: ShipmentId) -> ShipmentOrder {
    ShipmentOrder {
        shipment_id,
        seller_id: POTTER,
        customer_id: CUSTOMER,
        address_id: ADDRESS,
        lines: lines(),
        captures: captures(),
        unreserved: false,
    }
}

fn approved() -> Outcome {
    Outcome::Approved { reference: "ref".to_owned() }
}

#[test]
fn a_placed_order_asks_for_each_of_its_payments() {
    let command = order::Command::Place(mugs_and_hat());
    let events = order::Order::default().decide(ORDER, &command).unwrap();
    let take = |n, kind, amount| {
        let (amount, currency, method) = (Amount(amount), eur(), method(kind));
        let command = payment::Command::Authorise { order_id: ORDER, amount, currency, method };
        payment_command("take_payment", PaymentId::of_order(ORDER, n), command)
    };
    assert_eq!(after_order(events[0].clone()), [take(0, "voucher", 3000), take(1, "card", 3160)]);
}

#[test]
fn secured_payments_reserve_all_lines_at_once() {
    let reserve = stock::Command::Reserve { order_id: ORDER, lines: lines(), hold_seconds: 60, edit: None };
    assert_eq!(
        after_order(order::PaymentsSecured { lines: lines(), hold_seconds: 60 }),
        [stock_command("reserve_stock", reserve)]
    );
}

#[test]
fn a_confirmed_order_plans_a_shipment_for_each_seller() {
    let shipments = vec![shipment_order(SHIPMENT), shipment_order(ShipmentId(KEY))];
    let plan = |s: &ShipmentOrder| {
        let command = shipment::Command::Plan { order_id: ORDER, shipment: s.clone() };
        follow_up("plan_shipment", s.shipment_id.0, Act::Command(Command::Shipment { id: s.shipment_id, command }))
    };
    let expected = [plan(&shipments[0]), plan(&shipments[1])];
    assert_eq!(after_order(order::OrderConfirmed { shipments }), expected);
}

#[test]
fn a_rejected_order_lets_its_other_payments_go_and_tells_the_customer() {
    assert_eq!(
        after_order(order::OrderRejected { customer_id: CUSTOMER, payments: vec![OTHER_PAYMENT] }),
        [payment_command("void_payment", OTHER_PAYMENT, void()), notice(Message::PaymentDeclined)]
    );
}

#[test]
fn a_cancelled_order_lets_its_payments_go_and_releases_what_is_reserved() {
    let reason = CancelReason::CustomerRequest;
    let cancelled = |reserved| order::OrderCancelled {
        reason,
        customer_id: CUSTOMER,
        payments: vec![PAYMENT, OTHER_PAYMENT],
        reserved,
    };
    let voids = [PAYMENT, OTHER_PAYMENT].map(|id| payment_command("void_payment", id, void()));
    let release = stock_command("release_stock", stock::Command::Release { order_id: ORDER, lines: lines() });
    let told = notice(Message::OrderCancelled { reason });
    assert_eq!(after_order(cancelled(vec![])), [&voids[..], std::slice::from_ref(&told)].concat());
    assert_eq!(after_order(cancelled(lines())), [&voids[..], &[release, told]].concat());
}

#[test]
fn a_returned_reservation_is_released() {
    let release = stock::Command::Release { order_id: ORDER, lines: lines() };
    assert_eq!(after_order(order::ReservationReturned { lines: lines() }), [stock_command("release_stock", release)]);
}

#[test]
fn the_provider_is_called_for_each_thing_requested_with_its_key() {
    let (amount, currency, method) = (Amount(1000), eur(), method("card"));
    assert_eq!(
        after_payment(payment::PaymentRequested {
            order_id: ORDER,
            amount,
            currency,
            method: method.clone(),
            idempotency_key: KEY
        }),
        [calling("call_authorise", Operation::Authorise { order_id: ORDER, amount, currency, method })]
    );
    assert_eq!(
        after_payment(payment::CaptureRequested {
            order_id: ORDER,
            capture_id: CAPTURE,
            amount,
            currency,
            idempotency_key: KEY
        }),
        [calling("call_capture", Operation::Capture { capture_id: CAPTURE, amount, currency })]
    );
    assert_eq!(
        after_payment(payment::VoidRequested { order_id: ORDER, idempotency_key: KEY }),
        [calling("call_void", Operation::Void)]
    );
    assert_eq!(
        after_payment(payment::RefundRequested {
            order_id: ORDER,
            refund_id: REFUND,
            capture_id: CAPTURE,
            amount,
            currency,
            idempotency_key: KEY
        }),
        [calling("call_refund", Operation::Refund { refund_id: REFUND, capture_id: CAPTURE, amount, currency })]
    );
}

/// Each call that there is, as it is stored and as it is made.
fn calls() -> [(Call, Operation); 4] {
    let (amount, currency, method) = (Amount(1000), eur(), method("card"));
    [
        (Call::Authorise, Operation::Authorise { order_id: ORDER, amount, currency, method }),
        (Call::Capture { capture_id: CAPTURE }, Operation::Capture { capture_id: CAPTURE, amount, currency }),
        (Call::Void, Operation::Void),
        (
            Call::Refund { refund_id: REFUND },
            Operation::Refund { refund_id: REFUND, capture_id: CAPTURE, amount, currency },
        ),
    ]
}

#[test]
fn what_is_unknown_is_looked_up_by_its_key_and_what_was_never_seen_is_called_again() {
    for (unknown, operation) in calls() {
        let event = payment::OutcomeUnknown { order_id: ORDER, call: unknown, idempotency_key: KEY };
        assert_eq!(after_payment(event), [calling("call_lookup", Operation::Lookup { call: unknown })]);
        let retried = payment::CallRetried {
            order_id: ORDER,
            call: unknown,
            idempotency_key: KEY,
            amount: Amount(1000),
            currency: eur(),
            method: (unknown == Call::Authorise).then(|| method("card")),
            capture_id: matches!(unknown, Call::Refund { .. }).then_some(CAPTURE),
        };
        assert_eq!(after_payment(retried), [calling("call_again", operation)]);
    }
}

#[test]
fn silence_is_unknown_and_a_lookup_resolves_it() {
    let told = |command| Some(Command::Payment { id: PAYMENT, command });
    for (unknown, operation) in calls() {
        let silence = payment::Command::RecordUnknown { call: unknown };
        assert_eq!(not_answered(&call(operation.clone())), told(silence));
        assert_eq!(not_found(&call(operation)), None);
        let lookup = call(Operation::Lookup { call: unknown });
        assert_eq!(not_answered(&lookup), None);
        let resolve = |found| payment::Command::ResolveUnknown { call: unknown, found };
        assert_eq!(not_found(&lookup), told(resolve(None)));
        assert_eq!(Some(answered(&lookup, approved())), told(resolve(Some(approved()))));
    }
}

#[test]
fn the_order_is_told_what_came_of_a_payment() {
    let authorised = payment::PaymentAuthorised {
        order_id: ORDER,
        amount: Amount(1000),
        currency: eur(),
        reference: "ref".to_owned(),
    };
    assert_eq!(
        after_payment(authorised),
        [order_command("record_authorised", order::Command::RecordPaymentAuthorised { payment_id: PAYMENT })]
    );
    let reason = "no funds".to_owned();
    assert_eq!(
        after_payment(payment::PaymentDeclined { order_id: ORDER, reason: reason.clone() }),
        [order_command("record_declined", order::Command::RecordPaymentDeclined { payment_id: PAYMENT, reason })]
    );
}

#[test]
fn a_capture_that_is_declined_holds_the_order() {
    let declined = payment::CaptureDeclined {
        order_id: ORDER,
        capture_id: CAPTURE,
        amount: Amount(400),
        currency: eur(),
        reason: "no funds".to_owned(),
    };
    let hold = order::Command::PlaceHold { reason: HoldReason::Payment };
    assert_eq!(after_payment(declined), [order_command("hold_unpaid", hold)]);
}

#[test]
fn the_order_is_told_of_its_reservation_once_at_the_last_part() {
    let part = |part| stock::StockReserved {
        sku: sku("MUG"),
        order_id: ORDER,
        lines: vec![],
        hold_seconds: 60,
        part,
        parts: 2,
        edit: None,
        backorder: false,
    };
    assert_eq!(after_stock(part(1)), []);
    assert_eq!(after_stock(part(2)), [order_command("record_reserved", order::Command::RecordStockReserved)]);
    // Of an edit, it is told which one.
    let of_edit = |n| stock::StockReserved { edit: Some(3), ..part(n) };
    assert_eq!(after_stock(of_edit(1)), []);
    let reserved = order::Command::RecordEditReserved { edit: 3 };
    assert_eq!(after_stock(of_edit(2)), [order_command("record_edit_reserved", reserved)]);
}

#[test]
fn the_order_is_told_which_of_its_lines_need_not_wait_any_more() {
    let filled = stock::StockReserved {
        sku: sku("MUG"),
        order_id: ORDER,
        lines: vec![stock::LineQuantity { line: 2, quantity: 1 }, stock::LineQuantity { line: 4, quantity: 3 }],
        hold_seconds: 60,
        part: 1,
        parts: 1,
        edit: None,
        backorder: true,
    };
    let told = order::Command::RecordBackorderFilled { lines: vec![2, 4] };
    assert_eq!(after_stock(filled), [order_command("record_backorder_filled", told)]);
}

#[test]
fn a_reservation_whose_time_is_over_cancels_the_order() {
    let cancel = Command::CancelOrder { id: ORDER, reason: CancelReason::ReservationExpired };
    assert_eq!(
        after_stock(stock::StockExpired { sku: sku("MUG"), order_id: ORDER, lines: vec![] }),
        [follow_up("cancel_expired", ORDER.0, Act::Command(cancel))]
    );
}

#[test]
fn a_dispatch_takes_the_stock_out_captures_each_share_and_tells_the_customer() {
    let tracking = "T1".to_owned();
    let dispatched = shipment::ShipmentDispatched {
        order_id: ORDER,
        customer_id: CUSTOMER,
        tracking: tracking.clone(),
        lines: lines(),
        captures: captures(),
        unreserved: false,
    };
    let capture = |c: &CaptureShare| {
        let command = payment::Command::Capture { capture_id: c.capture_id, amount: c.amount };
        payment_command("capture_payment", c.payment_id, command)
    };
    assert_eq!(
        after_shipment(dispatched.clone()),
        [
            stock_command("commit_stock", stock::Command::Commit { order_id: ORDER, lines: lines() }),
            capture(&captures()[0]),
            capture(&captures()[1]),
            notice(Message::ShipmentDispatched { tracking: tracking.clone() }),
        ]
    );
    // What was never reserved here cannot be taken out.
    let imported = shipment::ShipmentDispatched { unreserved: true, ..dispatched };
    assert_eq!(
        after_shipment(imported),
        [capture(&captures()[0]), capture(&captures()[1]), notice(Message::ShipmentDispatched { tracking })]
    );
}

#[test]
fn the_order_is_told_of_a_delivery() {
    let delivery = order::Command::RecordDelivery { shipment_id: SHIPMENT, lines: vec![1, 3] };
    assert_eq!(
        after_shipment(shipment::ShipmentDelivered { order_id: ORDER, lines: vec![1, 3] }),
        [order_command("record_delivery", delivery)]
    );
}

#[test]
fn a_reservation_that_is_refused_for_a_shortage_tells_the_order_every_short_line() {
    let reserve =
        Command::Stock(stock::Command::Reserve { order_id: ORDER, lines: lines(), hold_seconds: 60, edit: None });
    let short = |line| stock::ShortLine { line, sku: sku("MUG"), wanted: 2, available: 1 };
    let out_of_stock = stock::Rejection::OutOfStock { short: vec![short(1), short(4)] }.into();
    assert_eq!(
        react_to_rejection(&reserve, &out_of_stock),
        Some(order_command("record_shortage", order::Command::RecordShortage { short: vec![1, 4] }))
    );
    let of_edit = stock::Command::Reserve { order_id: ORDER, lines: lines(), hold_seconds: 60, edit: Some(3) };
    let shortage = order::Command::RecordEditShortage { edit: 3, short: vec![1, 4] };
    assert_eq!(
        react_to_rejection(&Command::Stock(of_edit), &out_of_stock),
        Some(order_command("record_edit_shortage", shortage))
    );
}

/// A part of the order is dispatched, so it cannot be cancelled when the stock or the money for the rest is let go.
#[test]
fn what_cannot_be_cancelled_any_more_waits_for_somebody() {
    let shipment_id = SHIPMENT;
    let dispatched = |waiting| order::Rejection::AlreadyDispatched { shipment_id, waiting }.into();
    let after_dispatch =
        |reason, waiting| react_to_rejection(&Command::CancelOrder { id: ORDER, reason }, &dispatched(waiting));
    let after = |reason| after_dispatch(reason, vec![OTHER_SHIPMENT]);
    let held = |reason| Some(order_command("hold_expired", order::Command::PlaceHold { reason }));
    assert_eq!(after(CancelReason::ReservationExpired), held(HoldReason::Stock));
    assert_eq!(after(CancelReason::PaymentExpired), held(HoldReason::Payment));
    assert_eq!(after(CancelReason::CustomerRequest), None);
    // Nothing is left to be held.
    assert_eq!(after_dispatch(CancelReason::PaymentExpired, vec![]), None);
}

#[test]
fn nothing_follows_from_another_refusal() {
    let reserve =
        Command::Stock(stock::Command::Reserve { order_id: ORDER, lines: lines(), hold_seconds: 60, edit: None });
    let malformed = stock::Rejection::Invalid { faults: vec![] }.into();
    let authorise = Command::Payment { id: PAYMENT, command: void() };
    let captured = payment::Rejection::NotRequested { payment_id: PAYMENT }.into();
    assert_eq!(react_to_rejection(&reserve, &malformed), None);
    assert_eq!(react_to_rejection(&authorise, &captured), None);
}

#[test]
fn an_answer_of_the_provider_is_recorded_for_what_it_was_asked() {
    let (amount, currency, method) = (Amount(1000), eur(), method("card"));
    let recorded = |operation| match answered(&call(operation), approved()) {
        Command::Payment { id: PAYMENT, command } => command,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        recorded(Operation::Authorise { order_id: ORDER, amount, currency, method }),
        payment::Command::RecordAuthorisation { outcome: approved() }
    );
    assert_eq!(
        recorded(Operation::Capture { capture_id: CAPTURE, amount, currency }),
        payment::Command::RecordCapture { capture_id: CAPTURE, outcome: approved() }
    );
    assert_eq!(recorded(Operation::Void), payment::Command::RecordVoid { outcome: approved() });
    assert_eq!(
        recorded(Operation::Refund { refund_id: REFUND, capture_id: CAPTURE, amount, currency }),
        payment::Command::RecordRefund { refund_id: REFUND, outcome: approved() }
    );
}
