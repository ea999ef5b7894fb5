//! What is given back: never more of a capture than it is of, each refund once, and what comes before its capture waits
//! for that one.

use super::*;

const RETURN: RefundId = RefundId(Uuid::from_u128(31));
const LOSS: RefundId = RefundId(Uuid::from_u128(32));

/// Of the first capture.
fn refund(refund_id: RefundId, amount: i64) -> Command {
    refund_of(FIRST, refund_id, amount)
}

fn refund_of(capture_id: CaptureId, refund_id: RefundId, amount: i64) -> Command {
    Command::Refund { order_id: ORDER, refund_id, capture_id, amount: Amount(amount) }
}

fn refund_answer(refund_id: RefundId, outcome: Outcome) -> Command {
    Command::RecordRefund { refund_id, outcome }
}

fn refund_deferred(refund_id: RefundId, amount: i64) -> Event {
    refund_deferred_of(FIRST, refund_id, amount)
}

fn refund_deferred_of(capture_id: CaptureId, refund_id: RefundId, amount: i64) -> Event {
    RefundDeferred { order_id: ORDER, refund_id, capture_id, amount: Amount(amount), currency: eur() }.into()
}

fn refunded(refund_id: RefundId, amount: i64) -> Event {
    let (amount, reference) = (Amount(amount), "ref".to_owned());
    PaymentRefunded { order_id: ORDER, refund_id, capture_id: FIRST, amount, currency: eur(), reference }.into()
}

fn refund_declined(refund_id: RefundId, amount: i64) -> Event {
    let (amount, reason) = (Amount(amount), "no funds".to_owned());
    RefundDeclined { order_id: ORDER, refund_id, capture_id: FIRST, amount, currency: eur(), reason }.into()
}

fn refund_dropped(refund_id: RefundId, amount: i64, reason: &str) -> Event {
    let (amount, reason) = (Amount(amount), reason.to_owned());
    RefundDropped { order_id: ORDER, refund_id, capture_id: FIRST, amount, currency: eur(), reason }.into()
}

fn refunding() -> Vec<Event> {
    [partly_captured(), vec![refund_requested(RETURN, 300)]].concat()
}

fn exceeds(captured: i64, refunded: i64, requested: i64) -> Result<Vec<Event>, Rejection> {
    Err(Rejection::ExceedsCaptured {
        capture_id: FIRST,
        captured: Amount(captured),
        refunded: Amount(refunded),
        requested: Amount(requested),
    })
}

#[test]
fn a_refund_is_requested_and_its_outcome_recorded() {
    assert_eq!(when(partly_captured(), refund(RETURN, 300)), Ok(vec![refund_requested(RETURN, 300)]));
    assert_eq!(when(refunding(), refund_answer(RETURN, approved())), Ok(vec![refunded(RETURN, 300)]));
    assert_eq!(when(refunding(), refund_answer(RETURN, declined())), Ok(vec![refund_declined(RETURN, 300)]));
}

#[test]
fn a_repeated_refund_or_answer_does_nothing() {
    let done = [refunding(), vec![refunded(RETURN, 300)]].concat();
    let not_done = [refunding(), vec![refund_declined(RETURN, 300)]].concat();
    let waiting = [capturing(), vec![refund_deferred(RETURN, 300)]].concat();
    for history in [refunding(), done.clone(), not_done.clone(), waiting] {
        assert_eq!(when(history.clone(), refund(RETURN, 300)), Ok(vec![]));
        let spent = Err(Rejection::RefundIdSpent { refund_id: RETURN });
        assert_eq!(when(history.clone(), refund(RETURN, 299)), spent);
        assert_eq!(when(history, refund_of(SECOND, RETURN, 300)), spent);
    }
    for history in [done, not_done] {
        assert_eq!(when(history.clone(), refund_answer(RETURN, approved())), Ok(vec![]));
        assert_eq!(when(history, refund_answer(RETURN, declined())), Ok(vec![]));
    }
}

#[test]
fn an_answer_to_a_refund_that_the_provider_was_not_asked_for_is_refused() {
    let unknown = Err(Rejection::UnknownRefund { payment_id: PAYMENT, refund_id: LOSS });
    assert_eq!(when(refunding(), refund_answer(LOSS, approved())), unknown);
    let waiting = [capturing(), vec![refund_deferred(LOSS, 300)]].concat();
    assert_eq!(when(waiting, refund_answer(LOSS, approved())), unknown);
}

#[test]
fn invariant_22_refunds_are_refused_beyond_what_is_captured() {
    // All that may be captured is: 1000 of 1000.
    let whole = [authorised(), vec![capture_requested(FIRST, 1000), captured(FIRST, 1000)]].concat();
    assert_eq!(when(whole.clone(), refund(RETURN, 1000)), Ok(vec![refund_requested(RETURN, 1000)]));
    for amount in [1001, i64::MAX, 0, -1, i64::MIN] {
        assert_eq!(when(whole.clone(), refund(RETURN, amount)), exceeds(1000, 0, amount));
    }
    // What is being given back counts as much as what was given back.
    let refunding = [whole, vec![refund_requested(RETURN, 700)]].concat();
    let refunded = [refunding.clone(), vec![refunded(RETURN, 700)]].concat();
    for history in [refunding.clone(), refunded] {
        assert_eq!(when(history.clone(), refund(LOSS, 301)), exceeds(1000, 700, 301));
        assert_eq!(when(history.clone(), refund(LOSS, i64::MAX)), exceeds(1000, 700, i64::MAX));
        assert_eq!(when(history, refund(LOSS, 300)), Ok(vec![refund_requested(LOSS, 300)]));
    }
    // What was declined is free again.
    let declined = [refunding, vec![refund_declined(RETURN, 300)]].concat();
    assert_eq!(when(declined, refund(LOSS, 1000)), Ok(vec![refund_requested(LOSS, 1000)]));
}

#[test]
fn of_what_is_never_captured_nothing_is_given_back() {
    let dropped = refund_dropped(RETURN, 1, "nothing is captured any more of this payment");
    for history in [deferred(), refused(), voiding(), voided()] {
        let events = when(history.clone(), refund(RETURN, 1)).unwrap();
        let history = [history, events].concat();
        assert_eq!(history.last(), Some(&dropped));
        assert_eq!(when(history, refund(RETURN, 1)), Ok(vec![]));
    }
    let early = Rejection::NotAuthorised { payment_id: PAYMENT, status: Status::Requested };
    assert_eq!(when(requested(), refund(RETURN, 1)), Err(early));
}

#[test]
fn a_refund_waits_for_the_capture_under_way() {
    assert_eq!(when(capturing(), refund(RETURN, 300)), Ok(vec![refund_deferred(RETURN, 300)]));
    let waiting = [capturing(), vec![refund_deferred(RETURN, 300)]].concat();
    assert_eq!(
        when(waiting.clone(), capture_answer(FIRST, approved())),
        Ok(vec![captured(FIRST, 400), refund_requested(RETURN, 300)])
    );
    assert_eq!(
        when(waiting, capture_answer(FIRST, declined())),
        Ok(vec![capture_declined(FIRST), refund_dropped(RETURN, 300, "no funds")])
    );
}

#[test]
fn a_refund_that_overtakes_the_capture_waits_for_it() {
    assert_eq!(when(authorised(), refund(RETURN, 300)), Ok(vec![refund_deferred(RETURN, 300)]));
    assert_eq!(when(authorised(), refund(RETURN, 1001)), exceeds(1000, 0, 1001));
    let waiting = [authorised(), vec![refund_deferred(RETURN, 300)]].concat();
    assert_eq!(when(waiting.clone(), refund(LOSS, 701)), exceeds(1000, 300, 701));
    assert_eq!(when(waiting.clone(), capture(FIRST, 400)), Ok(vec![capture_requested(FIRST, 400)]));
    let capturing = [waiting, vec![capture_requested(FIRST, 400)]].concat();
    assert_eq!(
        when(capturing, capture_answer(FIRST, approved())),
        Ok(vec![captured(FIRST, 400), refund_requested(RETURN, 300)])
    );
}

#[test]
fn what_was_declined_is_not_waited_for() {
    let history = [authorised(), vec![capture_requested(FIRST, 1000), capture_declined(FIRST)]].concat();
    let dropped = refund_dropped(RETURN, 1000, "the capture was declined");
    assert_eq!(when(history, refund(RETURN, 1000)), Ok(vec![dropped]));
}

#[test]
fn a_refund_is_of_its_own_capture() {
    // The second capture is done, the first is not known: neither is given back for the other.
    let second = [capturing(), vec![capture_requested(SECOND, 600), captured_with(SECOND, 600, 400)]].concat();
    assert_eq!(when(second.clone(), refund(RETURN, 400)), Ok(vec![refund_deferred(RETURN, 400)]));
    let exceeds = Rejection::ExceedsCaptured {
        capture_id: FIRST,
        captured: Amount(400),
        refunded: Amount(0),
        requested: Amount(401),
    };
    assert_eq!(when(second.clone(), refund(RETURN, 401)), Err(exceeds));
    let of_second = Ok(vec![refund_requested_of(SECOND, LOSS, 600)]);
    assert_eq!(when(second.clone(), refund_of(SECOND, LOSS, 600)), of_second);
    let waiting = [second, vec![refund_deferred(RETURN, 400)]].concat();
    assert_eq!(when(waiting.clone(), refund_of(SECOND, LOSS, 600)), of_second);
    assert_eq!(
        when(waiting, capture_answer(FIRST, declined())),
        Ok(vec![capture_declined(FIRST), refund_dropped(RETURN, 400, "no funds")])
    );
}

#[test]
fn the_refunds_of_a_capture_go_when_it_is_done_and_the_others_wait_on() {
    let waiting = vec![refund_deferred_of(SECOND, LOSS, 400), refund_deferred(RETURN, 200)];
    let waiting = [capturing(), waiting].concat();
    let first = vec![captured(FIRST, 400), refund_requested(RETURN, 200)];
    assert_eq!(when(waiting.clone(), capture_answer(FIRST, approved())), Ok(first.clone()));
    let second = [waiting, first, vec![capture_requested(SECOND, 600)]].concat();
    assert_eq!(
        when(second, capture_answer(SECOND, approved())),
        Ok(vec![captured(SECOND, 600), refund_requested_of(SECOND, LOSS, 400)])
    );
}

#[test]
fn of_less_than_was_waited_for_what_fits_is_given_back() {
    let waiting = vec![refund_deferred(LOSS, 400), refund_deferred(RETURN, 300), capture_requested(FIRST, 500)];
    assert_eq!(
        when([authorised(), waiting].concat(), capture_answer(FIRST, approved())),
        Ok(vec![
            captured(FIRST, 500),
            refund_requested(LOSS, 400),
            refund_dropped(RETURN, 300, "less than that was captured"),
        ])
    );
}

#[test]
fn a_refund_that_waits_is_dropped_when_the_payment_is_let_go_or_expires() {
    let waiting = [authorised(), vec![refund_deferred(RETURN, 300)]].concat();
    let let_go = "the payment is let go, and nothing more is captured of it";
    assert_eq!(when(waiting.clone(), void()), Ok(vec![refund_dropped(RETURN, 300, let_go), void_requested()]));
    let expired = AuthorisationExpired { order_id: ORDER }.into();
    let dropped = refund_dropped(RETURN, 300, "the authorisation has expired");
    assert_eq!(when(waiting, Command::Expire), Ok(vec![expired, dropped, void_requested()]));
}

#[test]
fn what_was_refunded_before_is_not_given_back_by_a_void() {
    let history = [refunding(), vec![refunded(RETURN, 300)]].concat();
    let rest = refund_requested(RefundId::of_void(FIRST), 100);
    assert_eq!(when(history, void()), Ok(vec![rest, void_requested()]));
}

#[test]
fn a_payment_is_called_after_what_became_of_its_money() {
    let called = |history: Vec<Event>| given::<Payment>(history).as_str();
    assert_eq!(called(authorised()), "authorised");
    assert_eq!(called(capturing()), "authorised");
    assert_eq!(called(partly_captured()), "partially_captured");
    let whole = [partly_captured(), vec![capture_requested(SECOND, 600), captured(SECOND, 600)]].concat();
    assert_eq!(called(whole), "captured");
    assert_eq!(called(refunding()), "partially_captured");
    let partly = [refunding(), vec![refunded(RETURN, 300)]].concat();
    assert_eq!(called(partly.clone()), "partially_refunded");
    let all = [partly, vec![refund_requested(LOSS, 100), refunded(LOSS, 100)]].concat();
    assert_eq!(called(all), "refunded");
}
