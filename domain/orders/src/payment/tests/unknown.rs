//! A call that the provider did not answer: not a decline, but a question that is asked until it is answered.

use super::*;

const REFUND: RefundId = RefundId(Uuid::from_u128(31));
const CAPTURE: Call = Call::Capture { capture_id: FIRST };
const GIVE_BACK: Call = Call::Refund { refund_id: REFUND };

fn silence(call: Call) -> Command {
    Command::RecordUnknown { call }
}

fn resolve(call: Call, found: Option<Outcome>) -> Command {
    Command::ResolveUnknown { call, found }
}

fn unknown(call: Call) -> Event {
    OutcomeUnknown { order_id: ORDER, call, idempotency_key: call.idempotency_key(PAYMENT) }.into()
}

fn retried(call: Call, amount: i64) -> Event {
    let method = (call == Call::Authorise).then(|| method("card"));
    let capture_id = matches!(call, Call::Refund { .. }).then_some(FIRST);
    let (amount, idempotency_key) = (Amount(amount), call.idempotency_key(PAYMENT));
    CallRetried { order_id: ORDER, call, idempotency_key, amount, currency: eur(), method, capture_id }.into()
}

fn refunding() -> Vec<Event> {
    [partly_captured(), vec![refund_requested(REFUND, 300)]].concat()
}

/// Each call while the provider is asked for it, with its amount, and what an approval and a decline of it come to.
fn calls() -> Vec<(Vec<Event>, Call, i64, Event, Event)> {
    let reason = || "no funds".to_owned();
    let (order_id, refund_id, amount) = (ORDER, REFUND, Amount(300));
    let (capture_id, reason_of_refund) = (FIRST, reason());
    let not_refunded =
        RefundDeclined { order_id, refund_id, capture_id, amount, currency: eur(), reason: reason_of_refund };
    let refunded = PaymentRefunded {
        order_id,
        refund_id,
        capture_id: FIRST,
        amount,
        currency: eur(),
        reference: "ref".to_owned(),
    };
    vec![
        (requested(), Call::Authorise, 1000, payment_authorised(), payment_declined()),
        (capturing(), CAPTURE, 400, captured(FIRST, 400), capture_declined(FIRST)),
        (voiding(), Call::Void, 1000, payment_voided(), VoidDeclined { order_id, reason: reason() }.into()),
        (refunding(), GIVE_BACK, 300, refunded.into(), not_refunded.into()),
    ]
}

#[test]
fn a_call_without_an_answer_is_unknown_once() {
    for (asked, call, ..) in calls() {
        assert_eq!(when(asked.clone(), silence(call)), Ok(vec![unknown(call)]));
        let history = [asked, vec![unknown(call)]].concat();
        assert_eq!(given::<Payment>(history.clone()).as_str(), "unknown");
        assert_eq!(when(history, silence(call)), Ok(vec![]));
    }
}

#[test]
fn what_the_provider_knows_of_it_is_its_outcome() {
    for (asked, call, _, approval, decline) in calls() {
        let history = [asked, vec![unknown(call)]].concat();
        assert_eq!(when(history.clone(), resolve(call, Some(approved()))), Ok(vec![approval.clone()]));
        assert_eq!(when(history.clone(), resolve(call, Some(declined()))), Ok(vec![decline]));
        let known = given::<Payment>([history, vec![approval]].concat());
        assert_ne!(known.as_str(), "unknown");
    }
}

#[test]
fn a_late_answer_or_a_notice_is_its_outcome_as_well_and_the_lookup_then_does_nothing() {
    for (asked, call, _, approval, _) in calls() {
        let history = [asked, vec![unknown(call)]].concat();
        let late = match call {
            Call::Authorise => answer(approved()),
            Call::Capture { capture_id } => capture_answer(capture_id, approved()),
            Call::Void => void_answer(approved()),
            Call::Refund { refund_id } => Command::RecordRefund { refund_id, outcome: approved() },
        };
        assert_eq!(when(history.clone(), late), Ok(vec![approval.clone()]));
        let notice = ProviderNotice { call, outcome: approved() };
        let notice = Command::RecordNotice { notice_id: Uuid::from_u128(40), notice };
        assert_eq!(when(history.clone(), notice.clone()), Ok(vec![approval.clone()]));
        let known = [history, vec![approval]].concat();
        for command in [notice, resolve(call, Some(declined())), resolve(call, None), silence(call)] {
            assert_eq!(when(known.clone(), command), Ok(vec![]));
        }
    }
}

#[test]
fn what_the_provider_never_saw_is_asked_again_with_the_same_key() {
    for (asked, call, amount, approval, _) in calls() {
        let history = [asked, vec![unknown(call)]].concat();
        assert_eq!(when(history.clone(), resolve(call, None)), Ok(vec![retried(call, amount)]));
        let again = [history, vec![retried(call, amount)]].concat();
        assert_ne!(given::<Payment>(again.clone()).as_str(), "unknown");
        assert_eq!(when(again.clone(), resolve(call, None)), Ok(vec![]));
        // It may be unknown again, and be answered.
        assert_eq!(when(again.clone(), silence(call)), Ok(vec![unknown(call)]));
        assert_eq!(when(again, resolve(call, Some(approved()))), Ok(vec![approval]));
    }
}

#[test]
fn what_was_never_asked_for_cannot_be_unknown() {
    for command in [silence(CAPTURE), resolve(CAPTURE, None), resolve(CAPTURE, Some(approved()))] {
        let refused = Rejection::UnknownCapture { payment_id: PAYMENT, capture_id: FIRST };
        assert_eq!(when(authorised(), command), Err(refused));
    }
    for command in [silence(GIVE_BACK), resolve(GIVE_BACK, None), resolve(GIVE_BACK, Some(approved()))] {
        let refused = Rejection::UnknownRefund { payment_id: PAYMENT, refund_id: REFUND };
        assert_eq!(when(authorised(), command), Err(refused));
    }
    for command in [silence(Call::Void), resolve(Call::Void, None), resolve(Call::Void, Some(approved()))] {
        let refused = Rejection::NotAuthorised { payment_id: PAYMENT, status: Status::Authorised };
        assert_eq!(when(authorised(), command), Err(refused));
    }
}

#[test]
fn a_void_waits_for_what_is_unknown() {
    let history = [requested(), vec![unknown(Call::Authorise)]].concat();
    assert_eq!(when(history.clone(), void()), Ok(vec![void_deferred()]));
    let history = [history, vec![void_deferred()]].concat();
    assert_eq!(
        when(history, resolve(Call::Authorise, Some(approved()))),
        Ok(vec![payment_authorised(), void_requested()])
    );
    let history = [capturing(), vec![unknown(CAPTURE)]].concat();
    assert_eq!(when(history, void()), Ok(vec![void_deferred()]));
}
