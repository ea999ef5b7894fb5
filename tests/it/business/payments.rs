//! Invariant 22, with a provider that does not behave: captured ≤ authorised, refunded ≤ captured, and each call done
//! once, by the provider's own books. A time-out is no decline.

use crate::harness::{System, card, envelope, order_of};
use dev::provider::{self, Moved, moved};
use order_services::policy::Timeouts;
use order_services::verbs;
use order_services::{Envelope, ExecuteError};
use orders::id::{CaptureId, OrderId, PaymentId, ReceiptId, RefundId, SellerId, ShipmentId};
use orders::money::Amount;
use orders::order::{CancelReason, PlaceOrder};
use orders::payment::{Call, Outcome};
use orders::reaction::{LookupAnswer, Operation, ProviderCall};
use orders::{Command, payment, shipment};
use runtime::executor::Outcome as Executed;
use runtime::step::Outcome as Stepped;
use runtime::step::Step;
use serde_json::json;
use sqlx::query_scalar;
use std::time::Duration;
use uuid::Uuid;

/// Gives up soon, and tries again at once.
const IMPATIENT: Timeouts = Timeouts {
    answer: Duration::from_millis(400),
    longest_wait: Duration::ZERO,
    clock_tolerance: store::clock::TOLERANCE,
};

/// Two mugs for 22.50, by a card of this token.
fn paid_by(token: &str) -> PlaceOrder {
    let mut order = order_of(&[("mug", 2, 1)]);
    token.clone_into(&mut order.payments[0].method.token);
    order
}

const TOTAL: i64 = 2250;

async fn start() -> System {
    let system = System::start_at(IMPATIENT).await;
    system.receive("mug", 10).await;
    system
}

async fn count(system: &System, sql: &'static str) -> i64 {
    query_scalar(sql).fetch_one(&system.superuser().await).await.unwrap()
}

async fn run(system: &System, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&system.superuser().await).await.unwrap();
}

fn of(events: &[String], event_type: &str) -> usize {
    events.iter().filter(|e| *e == event_type).count()
}

/// What the provider's books say of an order.
async fn books(system: &System, order: OrderId) -> Moved {
    let mut books = moved(&system.parts.read, &[order.0]).await.unwrap();
    assert_eq!(books.len(), 1, "{books:?}");
    books.remove(0)
}

async fn assert_moved(system: &System, order: OrderId, held: i64, captured: i64, refunded: i64) {
    let expected = Moved { order_id: order.0, currency: "EUR".into(), held, captured, refunded };
    assert_eq!(books(system, order).await, expected);
}

/// What a payment of the order is in the read model, and what of it is given back.
async fn payment(system: &System, order: OrderId) -> (payment::Status, i64) {
    let row = order_views::order_summary::get(&system.parts.read, order.0).await.unwrap().unwrap();
    (row.payments[0].status, row.payments[0].refunded)
}

/// Asks for a refund, as a follow-up of the order's would.
async fn give_back(system: &System, order_id: OrderId, n: u32, amount: i64) -> Result<Executed, ExecuteError> {
    let id = PaymentId::of_order(order_id, 0);
    let capture_id = CaptureId::of_shipment(id, ShipmentId::of_seller(order_id, SellerId(crate::harness::id(1))));
    let (refund_id, amount) =
        (RefundId::of_return(capture_id, ReceiptId(crate::harness::id(n.into()))), Amount(amount));
    let command = payment::Command::Refund { order_id, refund_id, capture_id, amount };
    let command = Command::Payment { id, command };
    let envelope = Envelope { correlation_id: Some(order_id.0), ..envelope(Uuid::now_v7(), command) };
    system.executor.execute(&envelope).await
}

/// Up to where the sender has given up waiting for the provider.
async fn until_unknown(system: &mut System, order: OrderId) {
    for _ in 0..100 {
        system.project().await;
        if of(&system.events_of(order).await, "OutcomeUnknown") > 0 {
            return;
        }
        system.sender.step().await.unwrap();
    }
    panic!("the provider's silence is not written down");
}

async fn stop_the_outside(system: &mut System) {
    for service in system.outside.drain(..) {
        service.stop().await;
    }
}

async fn start_the_provider(system: &mut System) {
    let (client, pool) = (&system.parts.client, system.parts.project.clone());
    system.outside.push(provider::start(client, pool, Duration::ZERO).await.unwrap());
    system.parts.client.flush().await.unwrap();
}

/// Placed, shipped, partly given back, each by a provider that behaves as the token says.
async fn bought_and_partly_returned(token: &str) -> (System, OrderId) {
    let mut system = start().await;
    let order = system.place(paid_by(token)).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    assert_moved(&system, order, TOTAL, 0, 0).await;
    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    assert_moved(&system, order, 0, TOTAL, 0).await;
    give_back(&system, order, 1, 1000).await.unwrap();
    system.settle().await;
    assert_moved(&system, order, 0, TOTAL, 1000).await;
    assert_eq!(payment(&system, order).await, (payment::Status::Authorised, 1000));
    assert_eq!(count(&system, "SELECT count(*) FROM daybook.provider_ledger").await, 3);
    assert_eq!(count(&system, "SELECT count(*) FROM daybook.follow_ups WHERE state <> 'accepted'").await, 0);
    system.assert_verified().await;
    (system, order)
}

#[tokio::test]
async fn invariant_22_a_provider_that_times_out_after_success_does_each_thing_once() {
    let (system, order) = bought_and_partly_returned("tok_timeout_after").await;
    let events = system.events_of(order).await;
    assert!(of(&events, "OutcomeUnknown") >= 3, "{events:?}");
    assert_eq!(of(&events, "CallRetried"), 0, "{events:?}");
    assert_eq!((of(&events, "PaymentCaptured"), of(&events, "PaymentDeclined")), (1, 0), "{events:?}");
}

#[tokio::test]
async fn invariant_22_a_provider_that_never_saw_the_call_is_asked_again() {
    let (system, order) = bought_and_partly_returned("tok_timeout_before").await;
    let events = system.events_of(order).await;
    assert!(of(&events, "OutcomeUnknown") >= 3, "{events:?}");
    assert!(of(&events, "CallRetried") >= 3, "{events:?}");
    assert_eq!((of(&events, "PaymentCaptured"), of(&events, "PaymentDeclined")), (1, 0), "{events:?}");
}

#[tokio::test]
async fn invariant_22_a_late_answer_is_found_out_before_it_comes() {
    let (system, order) = bought_and_partly_returned("tok_late").await;
    let events = system.events_of(order).await;
    assert!(of(&events, "OutcomeUnknown") >= 3, "{events:?}");
    assert_eq!((of(&events, "PaymentCaptured"), of(&events, "PaymentDeclined")), (1, 0), "{events:?}");
}

#[tokio::test]
async fn invariant_22_a_call_that_is_answered_twice_is_done_once() {
    let (system, order) = bought_and_partly_returned("tok_twice").await;
    let events = system.events_of(order).await;
    assert_eq!((of(&events, "PaymentCaptured"), of(&events, "PaymentRefunded")), (1, 1), "{events:?}");
}

#[tokio::test]
async fn invariant_22_no_more_is_given_back_than_was_taken() {
    let (mut system, order) = bought_and_partly_returned("tok_approve").await;
    let too_much = give_back(&system, order, 2, 1251).await;
    assert!(matches!(too_much, Err(ExecuteError::Rejected(_))));
    for _ in 0..2 {
        give_back(&system, order, 2, 1250).await.unwrap();
    }
    system.settle().await;
    assert_moved(&system, order, 0, TOTAL, TOTAL).await;
    assert!(matches!(give_back(&system, order, 3, 1).await, Err(ExecuteError::Rejected(_))));
    system.assert_verified().await;
}

#[tokio::test]
async fn an_order_cancelled_while_its_payment_is_unknown_takes_no_money() {
    for token in ["tok_timeout_after", "tok_timeout_before"] {
        let mut system = start().await;
        let order = system.place(paid_by(token)).await;
        until_unknown(&mut system, order).await;
        system.execute(Command::CancelOrder { id: order, reason: CancelReason::CustomerRequest }).await.unwrap();
        system.settle().await;
        assert_eq!(system.status(order).await, "cancelled: customer_request");
        assert_moved(&system, order, 0, 0, 0).await;
        assert_eq!(payment(&system, order).await, (payment::Status::Voided, 0));
        assert_eq!(of(&system.events_of(order).await, "VoidDeferred"), 1);
        system.assert_verified().await;
    }
}

#[tokio::test]
async fn an_authorisation_that_expires_holds_nothing() {
    let mut system = start().await;
    let order = system.place(paid_by("tok_timeout_after")).await;
    system.settle().await;
    let expire = Command::Payment { id: PaymentId::of_order(order, 0), command: payment::Command::Expire };
    system.execute(expire).await.unwrap();
    system.project().await;
    assert_eq!(payment(&system, order).await, (payment::Status::AuthorisationExpired, 0));
    assert_moved(&system, order, TOTAL, 0, 0).await;
    system.settle().await;
    assert_eq!(payment(&system, order).await, (payment::Status::Voided, 0));
    assert_moved(&system, order, 0, 0, 0).await;
    system.assert_verified().await;
}

#[tokio::test]
async fn invariant_22_a_provider_that_was_away_captures_once_when_it_is_back() {
    // As in production: the next attempt waits for its time.
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    let order = system.place(paid_by("tok_approve")).await;
    system.settle().await;
    stop_the_outside(&mut system).await;
    system.ship(order).await;
    let waits = "SELECT count(*) FROM daybook.follow_ups
        WHERE state = 'due' AND reaction = 'call_capture' AND attempts > 0 AND reason LIKE '%no responders%'";
    assert_eq!(count(&system, waits).await, 1);
    assert_moved(&system, order, TOTAL, 0, 0).await;
    // Another instance, which knows what the first one did from the books alone.
    start_the_provider(&mut system).await;
    run(&system, "UPDATE daybook.follow_ups SET due_at = '-infinity'").await;
    system.settle().await;
    assert_moved(&system, order, 0, TOTAL, 0).await;
    system.assert_verified().await;
}

#[tokio::test]
async fn a_call_that_was_tried_often_enough_is_parked_with_its_reason_and_can_be_taken_up_again() {
    let mut system = start().await;
    stop_the_outside(&mut system).await;
    let order = system.place(paid_by("tok_approve")).await;
    system.settle().await;
    let parked = "SELECT count(*) FROM daybook.follow_ups WHERE state = 'parked' AND reaction = 'call_authorise'
        AND attempts = 60 AND reason LIKE 'given up after 60 attempts: %no responders%'";
    assert_eq!(count(&system, parked).await, 1);
    assert_eq!(system.status(order).await, "placed");
    assert_eq!(of(&system.events_of(order).await, "PaymentDeclined"), 0);
    start_the_provider(&mut system).await;
    run(&system, "UPDATE daybook.follow_ups SET state = 'due', attempts = 0 WHERE state = 'parked'").await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    assert_moved(&system, order, TOTAL, 0, 0).await;
    system.assert_verified().await;
}

/// The provider is asked what became of a call, for as long as it does not answer that either.
#[tokio::test]
async fn what_is_unknown_stays_unknown_until_the_provider_says_what_it_is() {
    let mut system = start().await;
    let order = system.place(paid_by("tok_timeout_after")).await;
    until_unknown(&mut system, order).await;
    stop_the_outside(&mut system).await;
    system.project().await;
    while matches!(system.sender.step().await.unwrap(), Stepped::Worked(_)) {}
    let events = system.events_of(order).await;
    assert_eq!(events.last().map(String::as_str), Some("OutcomeUnknown"), "{events:?}");
    let parked = "SELECT count(*) FROM daybook.follow_ups WHERE state = 'parked' AND reaction = 'call_lookup'";
    assert_eq!(count(&system, parked).await, 1);
    start_the_provider(&mut system).await;
    run(&system, "UPDATE daybook.follow_ups SET state = 'due', attempts = 0 WHERE state = 'parked'").await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    assert_moved(&system, order, TOTAL, 0, 0).await;
    system.assert_verified().await;
}

/// A webhook may be faster than the answer, come twice, or tell what nobody asked for.
#[tokio::test]
async fn a_notice_of_the_provider_says_what_its_answer_would_have_said() {
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    let api = verbs::start(&system.parts.client, system.executor.clone()).await.unwrap();
    system.parts.client.flush().await.unwrap();
    stop_the_outside(&mut system).await;
    let order = system.place(paid_by("tok_approve")).await;
    system.settle().await;
    let told = async |n: u128, call: serde_json::Value| -> serde_json::Value {
        let outcome = json!({ "approved": { "reference": format!("ref{}", "\u{7}é".repeat(300)) } });
        let payment_id = PaymentId::of_order(order, 0);
        let notice_id = Uuid::from_u128(n);
        let data = json!({ "payment_id": payment_id, "notice_id": notice_id, "call": call, "outcome": outcome });
        let body = json!({ "command_id": Uuid::now_v7(), "actor": "webhook", "data": data }).to_string();
        let answer = system.parts.client.request("daybook.cmd.v1.payment.record_notice", body.into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    assert_eq!(told(1, json!("authorise")).await["recorded"], true);
    assert_eq!(told(1, json!("authorise")).await["recorded"], false);
    assert_eq!(told(2, json!({ "capture": { "capture_id": order } })).await["detail"]["reason"], "unknown_capture");
    assert_eq!(told(3, json!({ "capture": { "capture_id": 7 } })).await["code"], "invalid");
    let event = system.parts.log.read_all(0, 100).await.unwrap();
    let event = event.iter().find(|e| e.event_type == "PaymentAuthorised").unwrap();
    assert_eq!(event.metadata.correlation_id, order.0);
    assert!(event.payload.ends_with(&format!("\"ref{}\"}}", "é".repeat(197))), "{}", &*event.payload);
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    // The answer comes after all.
    start_the_provider(&mut system).await;
    run(&system, "UPDATE daybook.follow_ups SET due_at = '-infinity'").await;
    system.settle().await;
    assert_eq!(of(&system.events_of(order).await, "PaymentAuthorised"), 1);
    assert_eq!(
        count(
            &system,
            "SELECT count(*) FROM daybook.follow_ups WHERE reaction = 'call_authorise' AND state = 'accepted'"
        )
        .await,
        1
    );
    system.assert_verified().await;
    api.stop().await;
}

#[tokio::test]
async fn a_capture_that_the_provider_declines_is_parked_and_holds_the_order_for_somebody_to_see() {
    let mut system = start().await;
    let order = system.place(paid_by("tok_decline_capture")).await;
    system.settle().await;
    let parcel = system.shipments(order).await[0];
    let dispatch = shipment::Command::Dispatch { revision: 1, tracking: "T1".into() };
    system.execute(Command::Shipment { id: parcel, command: dispatch }).await.unwrap();
    system.settle().await;
    assert_eq!(system.status(order).await, "on_hold");
    let parked = "SELECT count(*) FROM daybook.follow_ups WHERE state = 'parked' AND reaction = 'call_capture'
        AND reason = 'the provider declined: capture declined'";
    assert_eq!(count(&system, parked).await, 1);
    assert_eq!(of(&system.events_of(order).await, "CaptureDeclined"), 1);
    assert_moved(&system, order, TOTAL, 0, 0).await;
    system.assert_verified().await;
}

/// What the provider answers to a call, or to a lookup.
async fn ask(system: &System, verb: &str, call: &ProviderCall) -> LookupAnswer {
    let body = serde_json::to_vec(call).unwrap().into();
    let answer = system.parts.client.request(format!("daybook.provider.v1.{verb}"), body).await.unwrap();
    match verb {
        "lookup" => serde_json::from_slice(&answer.payload).unwrap(),
        _ => LookupAnswer::Found(serde_json::from_slice(&answer.payload).unwrap()),
    }
}

fn approved(verb: &str, key: Uuid) -> LookupAnswer {
    LookupAnswer::Found(Outcome::Approved { reference: format!("sim-{verb}-{}", key.simple()) })
}

fn is_declined(answer: &LookupAnswer) -> bool {
    matches!(answer, LookupAnswer::Found(Outcome::Declined { .. }))
}

/// Whoever asks, and whatever our own events say: the provider's books add up, also after a restart.
#[tokio::test]
async fn invariant_22_the_provider_keeps_its_books_over_a_restart() {
    let mut system = start().await;
    let order_id = OrderId(Uuid::now_v7());
    let (payment_id, currency) = (PaymentId::of_order(order_id, 0), "EUR".parse().unwrap());
    let call = |key, operation| ProviderCall { payment_id, idempotency_key: key, operation };
    let method = card("tok_approve");
    let authorise = call(payment_id.0, Operation::Authorise { order_id, amount: Amount(1000), currency, method });
    let capture = |n, amount| {
        let capture_id = CaptureId(Uuid::from_u128(n));
        call(capture_id.0, Operation::Capture { capture_id, amount: Amount(amount), currency })
    };
    let refund_of = |capture, n, amount| {
        let (capture_id, refund_id) = (CaptureId(Uuid::from_u128(capture)), RefundId(Uuid::from_u128(n)));
        call(refund_id.0, Operation::Refund { refund_id, capture_id, amount: Amount(amount), currency })
    };
    let refund = |n, amount| refund_of(1, n, amount);
    let lookup = |n| call(Uuid::from_u128(n), Operation::Lookup { call: Call::Void });
    for _ in 0..2 {
        assert_eq!(ask(&system, "authorise", &authorise).await, approved("authorise", payment_id.0));
        for _ in 0..2 {
            assert_eq!(ask(&system, "capture", &capture(1, 600)).await, approved("capture", Uuid::from_u128(1)));
            assert!(is_declined(&ask(&system, "capture", &capture(2, 401)).await));
            assert!(is_declined(&ask(&system, "refund", &refund(3, 601)).await));
            assert_eq!(ask(&system, "refund", &refund(4, 500)).await, approved("refund", Uuid::from_u128(4)));
            assert!(is_declined(&ask(&system, "refund", &refund(5, 101)).await));
            // One capture is not given back for another.
            assert_eq!(ask(&system, "capture", &capture(8, 100)).await, approved("capture", Uuid::from_u128(8)));
            assert!(is_declined(&ask(&system, "refund", &refund_of(8, 9, 101)).await));
        }
        assert_eq!(ask(&system, "lookup", &lookup(1)).await, approved("capture", Uuid::from_u128(1)));
        assert_eq!(ask(&system, "lookup", &lookup(6)).await, LookupAnswer::NotFound);
        assert_moved(&system, order_id, 300, 700, 500).await;
        stop_the_outside(&mut system).await;
        start_the_provider(&mut system).await;
    }
    // What is not held any more cannot be taken.
    assert_eq!(
        ask(&system, "void", &call(payment_id.void_key(), Operation::Void)).await,
        approved("void", payment_id.void_key())
    );
    assert!(is_declined(&ask(&system, "capture", &capture(7, 1)).await));
    assert_moved(&system, order_id, 0, 700, 500).await;
}
