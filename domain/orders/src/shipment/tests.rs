//! What a shipment does with every command in every state: who came first, the dispatch or the cancellation.

use super::*;
use crate::id::{CaptureId, PaymentId};
use crate::money::Amount;
use crate::order::{CaptureShare, StockLine};
use crate::testing::*;
use proptest::prelude::*;
use uuid::Uuid;

const SHIPMENT: ShipmentId = ShipmentId(Uuid::from_u128(40));

#[expect(clippy::needless_pass_by_value, reason = "a sentence without ampersands")]
fn when(history: Vec<Event>, command: Command) -> Result<Vec<Event>, Rejection> {
    given::<Shipment>(history).decide(SHIPMENT, &command)
}

fn lines() -> Vec<StockLine> {
    [(1, "MUG", 2), (3, "HAT", 1)].map(|(line, name, quantity)| StockLine { line, sku: sku(name), quantity }).to_vec()
}

fn captures() -> Vec<CaptureShare> {
    let payment_id = PaymentId::of_order(ORDER, 0);
    vec![CaptureShare { payment_id, capture_id: CaptureId::of_shipment(payment_id, SHIPMENT), amount: Amount(2590) }]
}

fn shipment() -> ShipmentOrder {
    ShipmentOrder {
        shipment_id: SHIPMENT,
        seller_id: POTTER,
        customer_id: CUSTOMER,
        address_id: ADDRESS,
        lines: lines(),
        captures: captures(),
        unreserved: false,
    }
}

fn plan() -> Command {
    Command::Plan { order_id: ORDER, shipment: shipment() }
}

/// As the first plan has it.
fn dispatch(tracking: &str) -> Command {
    dispatch_as(1, tracking)
}

fn dispatch_as(revision: u32, tracking: &str) -> Command {
    Command::Dispatch { revision, tracking: tracking.to_owned() }
}

fn cancel() -> Command {
    Command::Cancel { order_id: ORDER }
}

// The states that a shipment can be in, as the events that lead there.

fn planned() -> Vec<Event> {
    vec![ShipmentPlanned { order_id: ORDER, revision: 1, shipment: shipment() }.into()]
}

fn dispatched() -> Vec<Event> {
    let dispatched = ShipmentDispatched {
        order_id: ORDER,
        customer_id: CUSTOMER,
        tracking: "T1".to_owned(),
        lines: lines(),
        captures: captures(),
        unreserved: false,
    };
    [planned(), vec![dispatched.into()]].concat()
}

fn delivered() -> Vec<Event> {
    [dispatched(), vec![ShipmentDelivered { order_id: ORDER, lines: vec![1, 3] }.into()]].concat()
}

fn cancelled_unplanned() -> Vec<Event> {
    vec![ShipmentCancelled { order_id: ORDER }.into()]
}

fn cancelled() -> Vec<Event> {
    [planned(), cancelled_unplanned()].concat()
}

/// The one event that `history` has and what led there has not.
fn last(history: Vec<Event>) -> Result<Vec<Event>, Rejection> {
    Ok(history.into_iter().last().into_iter().collect())
}

#[test]
fn a_shipment_is_planned_dispatched_with_what_is_to_be_captured_and_delivered() {
    assert_eq!(when(vec![], plan()), last(planned()));
    assert_eq!(when(planned(), dispatch("T1")), last(dispatched()));
    assert_eq!(when(dispatched(), Command::ConfirmDelivery), last(delivered()));
}

#[test]
fn a_shipment_that_is_planned_or_further_is_not_planned_again() {
    for history in [planned(), dispatched(), delivered()] {
        assert_eq!(when(history, plan()), Ok(vec![]));
    }
}

#[test]
fn a_plan_after_a_cancellation_is_refused_even_if_it_is_the_first() {
    for history in [cancelled(), cancelled_unplanned()] {
        assert_eq!(when(history, plan()), Err(Rejection::Cancelled { shipment_id: SHIPMENT }));
    }
}

#[test]
fn a_repeated_dispatch_does_nothing_and_one_with_another_tracking_number_is_refused() {
    for history in [dispatched(), delivered()] {
        assert_eq!(when(history.clone(), dispatch("T1")), Ok(vec![]));
        let tracking = "T1".to_owned();
        assert_eq!(when(history, dispatch("T2")), Err(Rejection::OtherTracking { shipment_id: SHIPMENT, tracking }));
    }
}

#[test]
fn only_a_planned_shipment_is_dispatched() {
    assert_eq!(when(vec![], dispatch("T1")), Err(Rejection::NotPlanned { shipment_id: SHIPMENT }));
    for history in [cancelled(), cancelled_unplanned()] {
        assert_eq!(when(history, dispatch("T1")), Err(Rejection::Cancelled { shipment_id: SHIPMENT }));
    }
}

#[test]
fn a_tracking_number_is_1_to_64_printable_characters_whatever_the_state() {
    let faults = vec![Fault::new("tracking", "1 to 64 printable ASCII characters without blanks")];
    for history in [vec![], planned(), dispatched(), cancelled()] {
        for tracking in ["", "T 1", "T\u{e9}", &"T".repeat(65)] {
            let refused = Err(Rejection::Invalid { faults: faults.clone() });
            assert_eq!(when(history.clone(), dispatch(tracking)), refused, "{tracking}");
        }
    }
    assert!(when(planned(), dispatch(&"T".repeat(64))).is_ok());
}

#[test]
fn a_repeated_delivery_does_nothing() {
    assert_eq!(when(delivered(), Command::ConfirmDelivery), Ok(vec![]));
}

#[test]
fn only_a_dispatched_shipment_is_delivered() {
    let refused_in = |history, refused| assert_eq!(when(history, Command::ConfirmDelivery), Err(refused));
    refused_in(vec![], Rejection::NotPlanned { shipment_id: SHIPMENT });
    refused_in(planned(), Rejection::NotDispatched { shipment_id: SHIPMENT });
    refused_in(cancelled(), Rejection::Cancelled { shipment_id: SHIPMENT });
    refused_in(cancelled_unplanned(), Rejection::Cancelled { shipment_id: SHIPMENT });
}

#[test]
fn a_shipment_is_cancelled_before_its_dispatch_even_before_its_plan() {
    assert_eq!(when(vec![], cancel()), last(cancelled_unplanned()));
    assert_eq!(when(planned(), cancel()), last(cancelled()));
}

#[test]
fn cancelling_a_cancelled_shipment_yields_no_events() {
    for history in [cancelled(), cancelled_unplanned()] {
        assert_eq!(when(history, cancel()), Ok(vec![]));
    }
}

#[test]
fn a_cancel_after_the_dispatch_is_refused() {
    for history in [dispatched(), delivered()] {
        assert_eq!(when(history, cancel()), Err(Rejection::AlreadyDispatched { shipment_id: SHIPMENT }));
    }
}

fn after(mut history: Vec<Event>, commands: &[Command]) -> Vec<Event> {
    for command in commands {
        history.extend(when(history.clone(), command.clone()).unwrap());
    }
    history
}

fn hold(hold: u32) -> Command {
    Command::Hold { order_id: ORDER, hold }
}

fn release(hold: u32) -> Command {
    Command::Release { order_id: ORDER, hold }
}

#[test]
fn a_held_shipment_is_neither_packed_nor_dispatched_until_it_is_released() {
    let ready = after(planned(), &[Command::MarkReady { revision: 1 }]);
    for history in [planned(), ready, after(vec![], &[hold(1), plan()])] {
        let held = after(history, &[hold(1)]);
        assert_eq!(when(held.clone(), dispatch("T1")), Err(Rejection::Held { shipment_id: SHIPMENT }));
        assert_eq!(when(held.clone(), hold(1)), Ok(vec![]));
        let released = after(held, &[release(1)]);
        assert_eq!(when(released, dispatch("T1")), last(dispatched()));
    }
    let held = after(planned(), &[hold(1)]);
    assert_eq!(when(held, Command::MarkReady { revision: 1 }), Err(Rejection::Held { shipment_id: SHIPMENT }));
}

#[test]
fn a_hold_that_comes_after_its_release_does_nothing() {
    let released = after(vec![], &[release(1), hold(1), plan()]);
    assert_eq!(when(released.clone(), dispatch("T1")), last(dispatched()));
    let again = after(released, &[hold(2), release(1)]);
    assert_eq!(when(again, dispatch("T1")), Err(Rejection::Held { shipment_id: SHIPMENT }), "it is held anew");
}

#[test]
fn a_hold_after_the_dispatch_is_refused_and_a_release_does_nothing() {
    for history in [dispatched(), delivered()] {
        assert_eq!(when(history.clone(), hold(1)), Err(Rejection::AlreadyDispatched { shipment_id: SHIPMENT }));
        assert_eq!(when(history, release(1)), Ok(vec![]));
    }
}

#[test]
fn a_shipment_is_planned_anew_until_it_is_dispatched_and_a_plan_of_before_does_nothing() {
    let other = ShipmentOrder { lines: lines()[..1].to_vec(), ..shipment() };
    let replan = Command::Replan { order_id: ORDER, released: 0, shipment: other.clone() };
    let ready = after(planned(), &[Command::MarkReady { revision: 1 }]);
    for (history, revision) in [(vec![], 1), (planned(), 2), (ready, 2), (cancelled(), 2)] {
        let replanned = ShipmentReplanned { order_id: ORDER, revision, released: 0, shipment: other.clone() };
        assert_eq!(when(history.clone(), replan.clone()), Ok(vec![replanned.into()]));
        let history = after(history, std::slice::from_ref(&replan));
        assert_eq!(when(history.clone(), replan.clone()), Ok(vec![]));
        assert_eq!(when(history.clone(), plan()), Ok(vec![]));
        let events = when(history, dispatch_as(revision, "T1")).unwrap();
        let [Event::ShipmentDispatched(e)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(e.lines, lines()[..1]);
    }
    for history in [dispatched(), delivered()] {
        assert_eq!(when(history, replan.clone()), Err(Rejection::AlreadyDispatched { shipment_id: SHIPMENT }));
    }
}

/// It was cancelled when its order went on hold, and when that was over: nobody would release it.
#[test]
fn a_shipment_that_comes_to_life_again_is_not_held_by_what_is_over() {
    let revived = after(cancelled(), &[Command::Replan { order_id: ORDER, released: 1, shipment: shipment() }]);
    assert_eq!(when(revived.clone(), hold(1)), Ok(vec![]));
    let held = after(revived, &[hold(2)]);
    assert_eq!(when(held, dispatch_as(2, "T1")), Err(Rejection::Held { shipment_id: SHIPMENT }));
}

#[test]
fn a_parcel_that_was_packed_by_another_plan_does_not_leave() {
    let shipment = ShipmentOrder { lines: lines()[..1].to_vec(), ..shipment() };
    let replanned = after(planned(), &[Command::Replan { order_id: ORDER, released: 0, shipment }]);
    let refused = Err(Rejection::Replanned { shipment_id: SHIPMENT, revision: 2 });
    for revision in [1, 3] {
        assert_eq!(when(replanned.clone(), dispatch_as(revision, "T1")), refused);
        assert_eq!(when(replanned.clone(), Command::MarkReady { revision }), refused);
    }
    let ready = after(replanned, &[Command::MarkReady { revision: 2 }]);
    assert_eq!(when(ready.clone(), Command::MarkReady { revision: 1 }), refused);
    assert_eq!(when(ready, dispatch("T1")), refused);
}

#[test]
fn one_thing_becomes_of_a_dispatched_parcel() {
    let outcomes = [
        (Command::ConfirmDelivery, Outcome::Delivered),
        (Command::ReportLost, Outcome::Lost),
        (Command::ReportReturned, Outcome::ReturnedToSender),
    ];
    let lost = ShipmentLost { order_id: ORDER, lines: vec![1, 3] };
    assert_eq!(when(dispatched(), Command::ReportLost), Ok(vec![lost.into()]));
    let back = ShipmentReturnedToSender { order_id: ORDER, lines: vec![1, 3] };
    assert_eq!(when(dispatched(), Command::ReportReturned), Ok(vec![back.into()]));
    for (first, outcome) in &outcomes {
        let history = after(dispatched(), std::slice::from_ref(first));
        for (second, _) in &outcomes {
            let other = Err(Rejection::OtherOutcome { shipment_id: SHIPMENT, outcome: *outcome });
            assert_eq!(when(history.clone(), second.clone()), if first == second { Ok(vec![]) } else { other });
        }
        assert_eq!(when(planned(), first.clone()), Err(Rejection::NotDispatched { shipment_id: SHIPMENT }));
    }
}

proptest! {
    #[test]
    fn every_command_can_be_repeated(
        commands in proptest::collection::vec(
            proptest::sample::select(vec![
                plan(), dispatch("T1"), dispatch("T2"), Command::ConfirmDelivery, cancel(), Command::MarkReady { revision: 1 }, hold(1),
                hold(2), release(1), release(2), Command::ReportLost, Command::ReportReturned,
            ]),
            1..12,
        ),
    ) {
        each_can_be_repeated(&commands, |shipment: &Shipment, command| shipment.decide(SHIPMENT, command))?;
    }

    #[test]
    fn a_shipment_is_never_both_dispatched_and_cancelled(
        commands in proptest::collection::vec(
            proptest::sample::select(vec![plan(), dispatch("T1"), Command::ConfirmDelivery, cancel()]),
            1..12,
        ),
    ) {
        let mut state = Shipment::default();
        let mut history = Vec::new();
        for command in commands {
            let events = state.decide(SHIPMENT, &command).unwrap_or_default();
            state = then(&state, &events);
            history.extend(events);
        }
        let is = |name| history.iter().filter(|e: &&Event| e.event_type() == name).count();
        prop_assert!(is("ShipmentDispatched") + is("ShipmentCancelled") <= 1, "{:?}", history);
    }
}
