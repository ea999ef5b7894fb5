//! What a payment does with every command in every state; its void races above all.

mod machine;
mod refund;
mod unknown;

use super::*;
use crate::id::{CaptureId, PaymentId, RefundId};
use crate::money::Amount;
use crate::testing::*;
use uuid::Uuid;

const PAYMENT: PaymentId = PaymentId(Uuid::from_u128(20));
const FIRST: CaptureId = CaptureId(Uuid::from_u128(21));
const SECOND: CaptureId = CaptureId(Uuid::from_u128(22));

#[expect(clippy::needless_pass_by_value, reason = "a sentence without ampersands")]
fn when(history: Vec<Event>, command: Command) -> Result<Vec<Event>, Rejection> {
    given::<Payment>(history).decide(PAYMENT, &command)
}

fn authorise(amount: i64) -> Command {
    Command::Authorise { order_id: ORDER, amount: Amount(amount), currency: eur(), method: method("card") }
}

fn approved() -> Outcome {
    Outcome::Approved { reference: "ref".to_owned() }
}

fn declined() -> Outcome {
    Outcome::Declined { reason: "no funds".to_owned() }
}

fn answer(outcome: Outcome) -> Command {
    Command::RecordAuthorisation { outcome }
}

fn capture(capture_id: CaptureId, amount: i64) -> Command {
    Command::Capture { capture_id, amount: Amount(amount) }
}

fn capture_answer(capture_id: CaptureId, outcome: Outcome) -> Command {
    Command::RecordCapture { capture_id, outcome }
}

fn void() -> Command {
    Command::Void { order_id: ORDER }
}

fn payment_requested() -> Event {
    PaymentRequested {
        order_id: ORDER,
        amount: Amount(1000),
        currency: eur(),
        method: method("card"),
        idempotency_key: PAYMENT.0,
    }
    .into()
}

fn payment_authorised() -> Event {
    PaymentAuthorised { order_id: ORDER, amount: Amount(1000), currency: eur(), reference: "ref".to_owned() }.into()
}

fn payment_declined() -> Event {
    PaymentDeclined { order_id: ORDER, reason: "no funds".to_owned() }.into()
}

fn capture_requested(capture_id: CaptureId, amount: i64) -> Event {
    CaptureRequested {
        order_id: ORDER,
        capture_id,
        amount: Amount(amount),
        currency: eur(),
        idempotency_key: capture_id.0,
    }
    .into()
}

fn captured(capture_id: CaptureId, amount: i64) -> Event {
    let left = if capture_id == FIRST { 1000 } else { 600 };
    captured_with(capture_id, amount, left - amount)
}

fn captured_with(capture_id: CaptureId, amount: i64, left: i64) -> Event {
    let (amount, left, reference) = (Amount(amount), Amount(left), "ref".to_owned());
    PaymentCaptured { order_id: ORDER, capture_id, amount, left, currency: eur(), reference }.into()
}

fn capture_declined(capture_id: CaptureId) -> Event {
    let (amount, reason) = (Amount(if capture_id == FIRST { 400 } else { 600 }), "no funds".to_owned());
    CaptureDeclined { order_id: ORDER, capture_id, amount, currency: eur(), reason }.into()
}

fn void_deferred() -> Event {
    VoidDeferred { order_id: ORDER }.into()
}

fn void_requested() -> Event {
    VoidRequested { order_id: ORDER, idempotency_key: PAYMENT.void_key() }.into()
}

/// Of the first capture.
fn refund_requested(refund_id: RefundId, amount: i64) -> Event {
    refund_requested_of(FIRST, refund_id, amount)
}

fn refund_requested_of(capture_id: CaptureId, refund_id: RefundId, amount: i64) -> Event {
    let (amount, idempotency_key) = (Amount(amount), refund_id.0);
    RefundRequested { order_id: ORDER, refund_id, capture_id, amount, currency: eur(), idempotency_key }.into()
}

fn payment_voided() -> Event {
    PaymentVoided { order_id: ORDER }.into()
}

// The states that a payment can be in, as the events that lead there.

fn requested() -> Vec<Event> {
    vec![payment_requested()]
}

fn authorised() -> Vec<Event> {
    vec![payment_requested(), payment_authorised()]
}

fn refused() -> Vec<Event> {
    vec![payment_requested(), payment_declined()]
}

fn deferred() -> Vec<Event> {
    vec![payment_requested(), void_deferred()]
}

fn voiding() -> Vec<Event> {
    [authorised(), vec![void_requested()]].concat()
}

fn voided() -> Vec<Event> {
    [voiding(), vec![payment_voided()]].concat()
}

fn let_go() -> Vec<Event> {
    vec![payment_voided()]
}

fn capturing() -> Vec<Event> {
    [authorised(), vec![capture_requested(FIRST, 400)]].concat()
}

fn partly_captured() -> Vec<Event> {
    [capturing(), vec![captured(FIRST, 400)]].concat()
}

fn all_requested() -> Vec<Vec<Event>> {
    vec![
        requested(),
        authorised(),
        refused(),
        deferred(),
        [deferred(), vec![payment_declined()]].concat(),
        voiding(),
        voided(),
        capturing(),
        partly_captured(),
    ]
}

// Authorising

#[test]
fn a_payment_is_asked_for_before_the_provider_is() {
    assert_eq!(when(vec![], authorise(1000)), Ok(vec![payment_requested()]));
}

#[test]
fn a_payment_is_asked_for_once_in_any_state() {
    for history in all_requested() {
        assert_eq!(when(history.clone(), authorise(1000)), Ok(vec![]));
        assert_eq!(when(history, authorise(1001)), Err(Rejection::AlreadyRequested { payment_id: PAYMENT }));
    }
}

#[test]
fn what_the_provider_says_to_the_authorisation_is_recorded() {
    assert_eq!(when(requested(), answer(approved())), Ok(vec![payment_authorised()]));
    assert_eq!(when(requested(), answer(declined())), Ok(vec![payment_declined()]));
}

#[test]
fn a_repeated_or_contradicting_answer_changes_nothing_once_the_outcome_is_known() {
    for history in [authorised(), refused(), voiding(), voided(), capturing(), partly_captured()] {
        assert_eq!(when(history.clone(), answer(approved())), Ok(vec![]));
        assert_eq!(when(history, answer(declined())), Ok(vec![]));
    }
}

#[test]
fn a_payment_that_was_never_asked_for_refuses_what_is_said_about_it() {
    for history in [vec![], let_go()] {
        let about = [
            answer(approved()),
            answer(declined()),
            capture(FIRST, 1),
            capture_answer(FIRST, approved()),
            void_answer(approved()),
            Command::Refund {
                order_id: ORDER,
                refund_id: RefundId::of_shipment(FIRST),
                capture_id: FIRST,
                amount: Amount(1),
            },
            Command::RecordUnknown { call: Call::Authorise },
            Command::ResolveUnknown { call: Call::Authorise, found: None },
            Command::Expire,
        ];
        for command in about {
            assert_eq!(when(history.clone(), command), Err(Rejection::NotRequested { payment_id: PAYMENT }));
        }
    }
}

// Voiding

fn void_answer(outcome: Outcome) -> Command {
    Command::RecordVoid { outcome }
}

#[test]
fn a_void_that_the_provider_declines_is_seen_and_holds_the_money() {
    let declined_void: Event = VoidDeclined { order_id: ORDER, reason: "no funds".to_owned() }.into();
    assert_eq!(when(voiding(), void_answer(declined())), Ok(vec![declined_void.clone()]));
    let history = [voiding(), vec![declined_void]].concat();
    assert_eq!(when(history.clone(), void_answer(declined())), Ok(vec![]));
    assert_eq!(when(history, void()), Ok(vec![]));
}

#[test]
fn a_void_of_an_authorised_payment_asks_the_provider_and_then_records_it() {
    assert_eq!(when(authorised(), void()), Ok(vec![void_requested()]));
    assert_eq!(when(voiding(), void_answer(approved())), Ok(vec![payment_voided()]));
    assert_eq!(when(voided(), void_answer(approved())), Ok(vec![]));
}

#[test]
fn a_payment_that_was_let_go_before_it_was_asked_for_is_never_asked_for() {
    assert_eq!(when(vec![], void()), Ok(vec![payment_voided()]));
    assert_eq!(when(let_go(), void()), Ok(vec![]));
    assert_eq!(when(let_go(), authorise(1000)), Err(Rejection::LetGo { payment_id: PAYMENT }));
}

#[test]
fn a_void_while_authorising_waits_for_the_outcome() {
    assert_eq!(when(requested(), void()), Ok(vec![void_deferred()]));
}

#[test]
fn an_authorisation_after_a_void_is_voided_at_once() {
    assert_eq!(when(deferred(), answer(approved())), Ok(vec![payment_authorised(), void_requested()]));
}

#[test]
fn a_decline_after_a_void_leaves_nothing_to_void() {
    assert_eq!(when(deferred(), answer(declined())), Ok(vec![payment_declined()]));
    let history = [deferred(), vec![payment_declined()]].concat();
    assert_eq!(when(history, void()), Ok(vec![]));
}

#[test]
fn a_void_of_what_is_declined_or_being_voided_does_nothing() {
    for history in [refused(), deferred(), voiding(), voided()] {
        assert_eq!(when(history, void()), Ok(vec![]));
    }
}

#[test]
fn a_void_waits_for_a_capture_under_way_and_becomes_a_refund_of_it() {
    assert_eq!(when(capturing(), void()), Ok(vec![void_deferred()]));
    let deferred = [capturing(), vec![void_deferred()]].concat();
    assert_eq!(when(deferred.clone(), void()), Ok(vec![]));
    assert_eq!(
        when(deferred.clone(), capture_answer(FIRST, approved())),
        Ok(vec![captured(FIRST, 400), refund_requested(RefundId::of_void(FIRST), 400), void_requested()])
    );
    assert_eq!(
        when(deferred.clone(), capture_answer(FIRST, declined())),
        Ok(vec![capture_declined(FIRST), void_requested()])
    );
    // Whatever the provider says to the authorisation meanwhile: it is known.
    assert_eq!(when(deferred.clone(), answer(approved())), Ok(vec![]));
    assert_eq!(
        when(deferred, capture(SECOND, 1)),
        Err(Rejection::NotAuthorised { payment_id: PAYMENT, status: Status::VoidDeferred })
    );
}

#[test]
fn a_void_waits_for_the_last_capture_under_way() {
    let both = [capturing(), vec![capture_requested(SECOND, 600), void_deferred()]].concat();
    let second = captured_with(SECOND, 600, 400);
    assert_eq!(when(both.clone(), capture_answer(SECOND, approved())), Ok(vec![second.clone()]));
    let one_left = [both, vec![second]].concat();
    let second_back = refund_requested_of(SECOND, RefundId::of_void(SECOND), 600);
    assert_eq!(
        when(one_left.clone(), capture_answer(FIRST, approved())),
        Ok(vec![captured_with(FIRST, 400, 0), refund_requested(RefundId::of_void(FIRST), 400), second_back.clone(),])
    );
    assert_eq!(
        when(one_left, capture_answer(FIRST, declined())),
        Ok(vec![capture_declined(FIRST), second_back, void_requested()])
    );
}

#[test]
fn a_void_of_what_is_captured_gives_it_back_and_lets_the_rest_go() {
    let refund = refund_requested(RefundId::of_void(FIRST), 400);
    assert_eq!(when(partly_captured(), void()), Ok(vec![refund.clone(), void_requested()]));
    assert_eq!(when([partly_captured(), vec![refund, void_requested()]].concat(), void()), Ok(vec![]));
    let captured_whole = [authorised(), vec![capture_requested(FIRST, 1000), captured(FIRST, 1000)]].concat();
    let refund = refund_requested(RefundId::of_void(FIRST), 1000);
    assert_eq!(when(captured_whole.clone(), void()), Ok(vec![refund.clone()]));
    // Nothing is left to let go.
    let history = [captured_whole, vec![refund]].concat();
    assert_eq!(when(history.clone(), void()), Ok(vec![]));
    // Nor is the provider asked again for what it would not give back.
    let reason = "no funds".to_owned();
    let refund_id = RefundId::of_void(FIRST);
    let (capture_id, amount) = (FIRST, Amount(1000));
    let declined = RefundDeclined { order_id: ORDER, refund_id, capture_id, amount, currency: eur(), reason }.into();
    assert_eq!(when([history, vec![declined]].concat(), void()), Ok(vec![]));
}

// Expiry

#[test]
fn an_authorisation_that_expires_is_let_go() {
    let expired: Event = AuthorisationExpired { order_id: ORDER }.into();
    assert_eq!(when(authorised(), Command::Expire), Ok(vec![expired.clone(), void_requested()]));
    let history = [authorised(), vec![expired, void_requested()]].concat();
    assert_eq!(given::<Payment>(history.clone()).as_str(), "authorisation_expired");
    assert_eq!(when(history.clone(), Command::Expire), Ok(vec![]));
    assert_eq!(when(history.clone(), void()), Ok(vec![]));
    assert_eq!(
        when(history.clone(), capture(FIRST, 400)),
        Err(Rejection::NotAuthorised { payment_id: PAYMENT, status: Status::AuthorisationExpired })
    );
    assert_eq!(when(history, void_answer(approved())), Ok(vec![payment_voided()]));
}

#[test]
fn what_is_captured_or_no_longer_held_does_not_expire() {
    let whole = [authorised(), vec![capture_requested(FIRST, 1000), captured(FIRST, 1000)]].concat();
    assert_eq!(when(whole, Command::Expire), Err(Rejection::AlreadyCaptured { payment_id: PAYMENT }));
    let refused_in = |history, status| {
        let refused = Err(Rejection::NotAuthorised { payment_id: PAYMENT, status });
        assert_eq!(when(history, Command::Expire), refused);
    };
    refused_in(requested(), Status::Requested);
    refused_in(deferred(), Status::VoidDeferred);
    refused_in(refused(), Status::Declined);
    refused_in(voiding(), Status::VoidRequested);
    refused_in(voided(), Status::Voided);
}

#[test]
fn what_is_left_of_a_payment_expires_and_what_is_captured_stays() {
    let expired = AuthorisationExpired { order_id: ORDER }.into();
    assert_eq!(when(partly_captured(), Command::Expire), Ok(vec![expired, void_requested()]));
}

#[test]
fn an_expiry_waits_for_the_capture_under_way() {
    let deferred = ExpiryDeferred { order_id: ORDER }.into();
    let expired: Event = AuthorisationExpired { order_id: ORDER }.into();
    assert_eq!(when(capturing(), Command::Expire), Ok(vec![deferred]));
    let history = after(capturing(), Command::Expire);
    assert_eq!(when(history.clone(), Command::Expire), Ok(vec![]));
    let late = Rejection::NotAuthorised { payment_id: PAYMENT, status: Status::ExpiryDeferred };
    assert_eq!(when(history.clone(), capture(SECOND, 600)), Err(late));
    let taken = vec![captured(FIRST, 400), expired.clone(), void_requested()];
    assert_eq!(when(history.clone(), capture_answer(FIRST, approved())), Ok(taken));
    let not_taken = vec![capture_declined(FIRST), expired, void_requested()];
    assert_eq!(when(history.clone(), capture_answer(FIRST, declined())), Ok(not_taken));
    // What is no longer wanted at all is let go instead.
    assert_eq!(when(history, void()), Ok(vec![void_deferred()]));
    // Of what is captured whole, nothing is left.
    let whole = after([authorised(), vec![capture_requested(FIRST, 1000)]].concat(), Command::Expire);
    assert_eq!(when(whole.clone(), capture_answer(FIRST, approved())), Ok(vec![captured(FIRST, 1000)]));
    let back = refund_requested(RefundId::of_void(FIRST), 1000);
    assert_eq!(when(after(whole, capture_answer(FIRST, approved())), void()), Ok(vec![back]));
}

fn after(history: Vec<Event>, command: Command) -> Vec<Event> {
    let events = when(history.clone(), command).unwrap();
    [history, events].concat()
}

#[test]
fn a_payment_whose_captures_were_all_declined_can_be_voided() {
    let history = [capturing(), vec![capture_declined(FIRST)]].concat();
    assert_eq!(when(history, void()), Ok(vec![void_requested()]));
}

#[test]
fn a_void_that_was_not_requested_cannot_have_happened() {
    let refused_in = |history, status| {
        let refused = Err(Rejection::NotAuthorised { payment_id: PAYMENT, status });
        assert_eq!(when(history, void_answer(approved())), refused);
    };
    refused_in(requested(), Status::Requested);
    refused_in(deferred(), Status::VoidDeferred);
    refused_in(authorised(), Status::Authorised);
    refused_in(capturing(), Status::Authorised);
    refused_in(refused(), Status::Declined);
}

// Capturing

#[test]
fn a_capture_is_requested_and_its_outcome_recorded() {
    assert_eq!(when(authorised(), capture(FIRST, 400)), Ok(vec![capture_requested(FIRST, 400)]));
    assert_eq!(when(capturing(), capture_answer(FIRST, approved())), Ok(vec![captured(FIRST, 400)]));
    assert_eq!(when(capturing(), capture_answer(FIRST, declined())), Ok(vec![capture_declined(FIRST)]));
}

#[test]
fn a_repeated_capture_does_nothing_even_after_its_outcome() {
    let declined_before = [capturing(), vec![capture_declined(FIRST)]].concat();
    for history in [capturing(), partly_captured(), declined_before] {
        assert_eq!(when(history, capture(FIRST, 400)), Ok(vec![]));
    }
}

#[test]
fn a_capture_id_is_spent_on_one_amount() {
    for history in [capturing(), partly_captured()] {
        assert_eq!(when(history, capture(FIRST, 399)), Err(Rejection::CaptureIdSpent { capture_id: FIRST }));
    }
}

#[test]
fn a_repeated_or_contradicting_answer_to_a_capture_does_nothing() {
    let declined_before = [capturing(), vec![capture_declined(FIRST)]].concat();
    for history in [partly_captured(), declined_before] {
        assert_eq!(when(history.clone(), capture_answer(FIRST, approved())), Ok(vec![]));
        assert_eq!(when(history, capture_answer(FIRST, declined())), Ok(vec![]));
    }
}

#[test]
fn an_answer_to_a_capture_that_was_not_requested_is_refused() {
    assert_eq!(
        when(capturing(), capture_answer(SECOND, approved())),
        Err(Rejection::UnknownCapture { payment_id: PAYMENT, capture_id: SECOND })
    );
}

#[test]
fn only_an_authorised_payment_is_captured() {
    let refused_in = |history, status| {
        let refused = Err(Rejection::NotAuthorised { payment_id: PAYMENT, status });
        assert_eq!(when(history, capture(FIRST, 400)), refused);
    };
    refused_in(requested(), Status::Requested);
    refused_in(deferred(), Status::VoidDeferred);
    refused_in(refused(), Status::Declined);
    refused_in(voiding(), Status::VoidRequested);
    refused_in(voided(), Status::Voided);
}

#[test]
fn invariant_22_captures_are_refused_beyond_what_is_authorised() {
    let exceeds = |captured, requested| {
        Err(Rejection::ExceedsAuthorised {
            payment_id: PAYMENT,
            authorised: Amount(1000),
            captured: Amount(captured),
            requested: Amount(requested),
        })
    };
    assert_eq!(when(authorised(), capture(FIRST, 1001)), exceeds(0, 1001));
    assert_eq!(when(authorised(), capture(FIRST, i64::MAX)), exceeds(0, i64::MAX));
    assert_eq!(when(authorised(), capture(FIRST, 1000)), Ok(vec![capture_requested(FIRST, 1000)]));
    // What is being captured counts as much as what is captured.
    for history in [capturing(), partly_captured()] {
        assert_eq!(when(history.clone(), capture(SECOND, 601)), exceeds(400, 601));
        assert_eq!(when(history.clone(), capture(SECOND, i64::MAX)), exceeds(400, i64::MAX));
        assert_eq!(when(history, capture(SECOND, 600)), Ok(vec![capture_requested(SECOND, 600)]));
    }
}

#[test]
fn a_declined_capture_gives_its_amount_free() {
    let history = [capturing(), vec![capture_declined(FIRST)]].concat();
    assert_eq!(when(history, capture(SECOND, 1000)), Ok(vec![capture_requested(SECOND, 1000)]));
}

#[test]
fn a_capture_of_nothing_or_less_is_refused() {
    for amount in [0, -1] {
        let (authorised_amount, requested) = (Amount(1000), Amount(amount));
        let refused = Rejection::ExceedsAuthorised {
            payment_id: PAYMENT,
            authorised: authorised_amount,
            captured: Amount(0),
            requested,
        };
        assert_eq!(when(authorised(), capture(FIRST, amount)), Err(refused));
    }
}
