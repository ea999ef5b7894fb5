//! What is a history of a payment, and what is not.

use super::*;
use crate::payment::{CaptureDeclined, CaptureRequested, PaymentAuthorised, PaymentCaptured, PaymentRequested};
use crate::testing::*;
use uuid::Uuid;

const FIRST: CaptureId = CaptureId(Uuid::from_u128(21));
const SECOND: CaptureId = CaptureId(Uuid::from_u128(22));

fn requested(amount: i64) -> Event {
    let (amount, currency, method) = (Amount(amount), eur(), method("card"));
    PaymentRequested { order_id: ORDER, amount, currency, method, idempotency_key: Uuid::nil() }.into()
}

fn authorised(order_id: OrderId, amount: i64, currency: &str) -> Event {
    let (amount, currency) = (Amount(amount), currency.parse().unwrap());
    PaymentAuthorised { order_id, amount, currency, reference: "ref".to_owned() }.into()
}

fn asked(capture_id: CaptureId, amount: i64) -> Event {
    let (amount, currency, idempotency_key) = (Amount(amount), eur(), capture_id.0);
    CaptureRequested { order_id: ORDER, capture_id, amount, currency, idempotency_key }.into()
}

fn captured(capture_id: CaptureId, amount: i64, left: i64) -> Event {
    let (amount, left, currency, reference) = (Amount(amount), Amount(left), eur(), "ref".to_owned());
    PaymentCaptured { order_id: ORDER, capture_id, amount, left, currency, reference }.into()
}

/// The fields that are wrong.
fn faults(events: &[Event]) -> Vec<String> {
    let faults = Payment::check_history(events).err().unwrap_or_default();
    faults.into_iter().map(|fault| fault.field).collect()
}

#[test]
fn a_payment_may_be_of_nothing_and_captured_before_it_was_authorised() {
    let none = [] as [&str; 0];
    assert_eq!(faults(&[requested(0), authorised(ORDER, 0, "EUR")]), none);
    let parts = [asked(FIRST, 400), captured(FIRST, 400, 600), asked(SECOND, 600), captured(SECOND, 600, 0)];
    assert_eq!(faults(&[&[requested(1000)], &parts[..], &[authorised(ORDER, 1000, "EUR")]].concat()), none);
}

#[test]
fn what_does_not_fit_its_request_is_no_history() {
    assert_eq!(faults(&[]), ["events[0]"]);
    assert_eq!(faults(&[authorised(ORDER, 1000, "EUR")]), ["events[0]"]);
    assert_eq!(faults(&[requested(-1)]), ["events[0].amount"]);
    let after = |events: &[Event]| faults(&[&[requested(1000)], events].concat());
    assert_eq!(after(&[authorised(OTHER_ORDER, 1000, "EUR")]), ["events[1].order_id"]);
    assert_eq!(after(&[authorised(ORDER, 999, "EUR")]), ["events[1].amount"]);
    assert_eq!(after(&[authorised(ORDER, 1000, "USD")]), ["events[1].currency"]);
    assert_eq!(after(&[asked(FIRST, 0)]), ["events[1].amount"]);
    assert_eq!(after(&[asked(FIRST, 600), asked(SECOND, 401)]), ["events[2].amount"]);
    assert_eq!(after(&[asked(FIRST, 400), asked(FIRST, 400)]), ["events[2].capture_id"]);
    assert_eq!(after(&[captured(FIRST, 400, 600)]), ["events[1].capture_id"]);
    assert_eq!(after(&[asked(FIRST, 400), captured(FIRST, 401, 599)]), ["events[2].capture_id"]);
    assert_eq!(after(&[asked(FIRST, 400), captured(FIRST, 400, 599)]), ["events[2].left"]);
    assert_eq!(after(&[requested(1000)]), ["events[1]"]);
    let declined = CaptureDeclined {
        order_id: ORDER,
        capture_id: FIRST,
        amount: Amount(1000),
        currency: eur(),
        reason: "no funds".to_owned(),
    };
    assert_eq!(after(&[declined.into()]), ["events[1]"]);
}
