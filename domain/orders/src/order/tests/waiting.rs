//! What keeps an order from going on: holds, approvals, its expiry, and stock that has to come in first.

use super::*;

fn hold(reason: HoldReason) -> Command {
    Command::PlaceHold { reason }
}

fn release(reason: HoldReason) -> Command {
    Command::ReleaseHold { reason }
}

/// The history, and what the commands make of it one after the other.
fn after(mut history: Vec<Event>, commands: &[Command]) -> Vec<Event> {
    for command in commands {
        history.extend(when(history.clone(), command.clone()).unwrap());
    }
    history
}

const FRAUD: HoldReason = HoldReason::Fraud;
const MANUAL: HoldReason = HoldReason::Manual;

#[test]
fn an_order_on_hold_is_confirmed_when_its_last_hold_is_released() {
    let held = after(reserving(), &[hold(FRAUD), hold(MANUAL)]);
    let secured = when(held.clone(), Command::RecordStockReserved).unwrap();
    assert_eq!(secured, [StockSecured {}.into()], "it is on hold");
    let secured = [held, secured].concat();
    assert_eq!(given::<Order>(secured.clone()).life(), Some(Life::OnHold));
    let released = |reason, then| Event::from(HoldReleased { reason, hold: 1, shipments: vec![], then });
    let one = when(secured.clone(), release(FRAUD)).unwrap();
    assert_eq!(one, [released(FRAUD, Life::OnHold)]);
    assert_eq!(
        when([secured, one].concat(), release(MANUAL)),
        Ok(vec![released(MANUAL, Life::Placed), order_confirmed().into()])
    );
}

#[test]
fn a_hold_of_a_confirmed_order_makes_the_shipments_wait_that_have_not_arrived() {
    let placed = |hold, shipments| vec![HoldPlaced { reason: FRAUD, hold, shipments }.into()];
    assert_eq!(when(confirmed(), hold(FRAUD)), Ok(placed(1, vec![to_potter(), to_hatter()])));
    assert_eq!(when(partly_delivered(), hold(FRAUD)), Ok(placed(1, vec![to_potter()])));
    assert_eq!(when(reserving(), hold(FRAUD)), Ok(placed(1, vec![])));

    let held = after(confirmed(), &[hold(FRAUD)]);
    let second = HoldPlaced { reason: MANUAL, hold: 1, shipments: vec![] };
    assert_eq!(when(held.clone(), hold(MANUAL)), Ok(vec![second.into()]), "they wait already");
    let shipments = vec![to_potter(), to_hatter()];
    let released = HoldReleased { reason: FRAUD, hold: 1, shipments, then: Life::Confirmed };
    assert_eq!(when(held.clone(), release(FRAUD)), Ok(vec![released.into()]));
    let again = after(held, &[release(FRAUD), hold(FRAUD)]);
    assert!(matches!(again.last(), Some(Event::HoldPlaced(HoldPlaced { hold: 2, .. }))), "{again:?}");
}

#[test]
fn a_hold_is_placed_and_released_once_for_each_reason() {
    for history in [placed(), reserving(), confirmed()] {
        let held = after(history.clone(), &[hold(FRAUD)]);
        assert_eq!(when(held, hold(FRAUD)), Ok(vec![]));
        assert_eq!(when(history, release(FRAUD)), Ok(vec![]));
    }
}

#[test]
fn what_has_ended_is_not_held() {
    for history in all_ended() {
        let status = given::<Order>(history.clone()).status;
        assert_eq!(when(history, hold(FRAUD)), Err(Rejection::Ended { order_id: ORDER, status }));
    }
}

fn request() -> Command {
    Command::RequestApproval { within_seconds: 3600 }
}

fn waiting() -> Vec<Event> {
    after(reserving(), &[request(), Command::RecordStockReserved])
}

#[test]
fn an_order_waits_for_its_approval_and_is_confirmed_by_it() {
    assert_eq!(when(placed(), request()), Ok(vec![ApprovalRequested { approval: 1, within_seconds: 3600 }.into()]));
    assert_eq!(given::<Order>(waiting()).life(), Some(Life::AwaitingApproval));
    assert_eq!(
        when(waiting(), Command::GrantApproval { approval: 1 }),
        Ok(vec![ApprovalGranted { approval: 1 }.into(), order_confirmed().into()])
    );
}

#[test]
fn an_order_that_is_not_approved_is_cancelled_with_what_it_holds() {
    let cancelled = |reason| Event::from(order_cancelled(reason, vec![mugs(), hat()]));
    assert_eq!(
        when(waiting(), Command::DenyApproval { approval: 1 }),
        Ok(vec![ApprovalDenied { approval: 1 }.into(), cancelled(CancelReason::ApprovalDenied)])
    );
    assert_eq!(
        when(waiting(), Command::TimeOutApproval { approval: 1 }),
        Ok(vec![ApprovalTimedOut { approval: 1 }.into(), cancelled(CancelReason::ApprovalTimedOut)])
    );
}

#[test]
fn an_approval_is_decided_once_and_a_late_decision_is_told_which() {
    let grant = Command::GrantApproval { approval: 1 };
    let deny = Command::DenyApproval { approval: 1 };
    let time_out = Command::TimeOutApproval { approval: 1 };
    let all = [(&grant, Approval::Granted), (&deny, Approval::Denied), (&time_out, Approval::TimedOut)];
    for (first, decided) in all {
        let history = after(waiting(), std::slice::from_ref(first));
        for (late, _) in all {
            let refused = Err(Rejection::ApprovalDecided { order_id: ORDER, approval: 1, decided });
            let expected = if late == first { Ok(vec![]) } else { refused };
            assert_eq!(when(history.clone(), late.clone()), expected);
        }
    }
    let cancelled = [waiting(), vec![cancelled_by_customer(vec![mugs(), hat()])]].concat();
    let ended = Err(Rejection::Ended { order_id: ORDER, status: Status::Cancelled });
    assert_eq!(when(cancelled, grant), ended);
    let unknown = |approval| Err(Rejection::UnknownApproval { order_id: ORDER, approval });
    assert_eq!(when(waiting(), Command::GrantApproval { approval: 2 }), unknown(2));
    assert_eq!(when(waiting(), Command::GrantApproval { approval: 0 }), unknown(0));
}

#[test]
fn one_approval_is_asked_for_at_a_time_and_only_before_the_order_is_confirmed() {
    assert_eq!(when(waiting(), request()), Ok(vec![]), "it is the same");
    let other = Command::RequestApproval { within_seconds: 1 };
    assert_eq!(when(waiting(), other), Err(Rejection::ApprovalPending { order_id: ORDER, approval: 1 }));
    assert_eq!(when(confirmed(), request()), Err(Rejection::AlreadyConfirmed { order_id: ORDER }));
    let granted = after(placed(), &[request(), Command::GrantApproval { approval: 1 }]);
    let second = ApprovalRequested { approval: 2, within_seconds: 3600 };
    assert_eq!(when(granted, request()), Ok(vec![second.into()]));
    for within_seconds in [0, 90 * 24 * 60 * 60 + 1] {
        let refused = when(placed(), Command::RequestApproval { within_seconds });
        assert!(matches!(refused, Err(Rejection::Invalid { .. })), "{refused:?}");
    }
}

#[test]
fn an_order_expires_only_as_long_as_no_payment_has_an_outcome() {
    let expired = OrderExpired { customer_id: CUSTOMER, payments: vec![voucher(), card()] };
    let history = after(placed(), &[Command::Expire]);
    assert_eq!(history.last(), Some(&expired.into()));
    assert_eq!(when(history.clone(), Command::Expire), Ok(vec![]));
    assert_eq!(when(history, authorised(card())), Ok(vec![]), "its void lets the money go");
    for history in [partly_authorised(), reserving(), confirmed()] {
        assert_eq!(when(history, Command::Expire), Err(Rejection::PaymentAttempted { order_id: ORDER }));
    }
    for history in all_ended() {
        let status = given::<Order>(history.clone()).status;
        assert_eq!(when(history, Command::Expire), Err(Rejection::Ended { order_id: ORDER, status }));
    }
}

/// Paid, and content to wait for stock.
fn patient() -> Vec<Event> {
    let placed = OrderPlaced { backorder: true, ..order_placed() };
    let paid = reserving().into_iter().skip(1);
    [placed.into()].into_iter().chain(paid).collect()
}

fn filled(lines: &[LineNo]) -> Command {
    Command::RecordBackorderFilled { lines: lines.to_vec() }
}

fn backordered(short: Vec<StockLine>, rest: Vec<StockLine>) -> Event {
    LinesBackordered { short, rest, hold_seconds: 518_400 }.into()
}

#[test]
fn a_shortage_of_an_order_that_can_wait_has_the_lines_wait_and_the_rest_reserved() {
    let history = after(patient(), &[short(&[2])]);
    assert_eq!(history.last(), Some(&backordered(vec![hat()], vec![mugs()])));
    assert_eq!(when(history.clone(), short(&[2])), Ok(vec![]), "it is known");
    let both = [when(history, short(&[1])), when(patient(), short(&[1, 2]))];
    assert_eq!(both, [Ok(vec![backordered(vec![mugs()], vec![])]), Ok(vec![backordered(vec![mugs(), hat()], vec![])])]);
}

#[test]
fn an_order_with_backorders_is_confirmed_once_all_is_reserved_in_either_order() {
    let history = after(patient(), &[short(&[2])]);
    let secured = || vec![StockSecured {}.into(), order_confirmed().into()];
    let rest_first = after(history.clone(), &[Command::RecordStockReserved]);
    assert_eq!(rest_first.last(), Some(&RestReserved { lines: vec![1] }.into()));
    assert_eq!(when(rest_first.clone(), Command::RecordStockReserved), Ok(vec![]));
    let fill = BackorderFilled { lines: vec![2] }.into();
    assert_eq!(when(rest_first, filled(&[2])), Ok([vec![fill], secured()].concat()));
    let fill_first = after(history, &[filled(&[2])]);
    assert_eq!(fill_first.last(), Some(&BackorderFilled { lines: vec![2] }.into()));
    assert_eq!(when(fill_first.clone(), filled(&[2])), Ok(vec![]));
    assert_eq!(when(fill_first, Command::RecordStockReserved), Ok(secured()));
}

#[test]
fn an_order_that_ends_while_it_waits_releases_all_that_it_holds_or_waits_for() {
    let history = after(patient(), &[short(&[2]), Command::RecordStockReserved]);
    let ended = when_cancelled(history.clone(), Shipment::default(), Shipment::default()).unwrap().order;
    assert_eq!(ended, [cancelled_by_customer(vec![mugs(), hat()])]);
    let history = [history, ended].concat();
    let returned = ReservationReturned { lines: vec![hat()] };
    assert_eq!(when(history.clone(), filled(&[2])), Ok(vec![returned.clone().into()]));
    assert_eq!(when([history, vec![returned.into()]].concat(), filled(&[2])), Ok(vec![]), "once");

    let unanswered = after(patient(), &[short(&[2])]);
    let ended = when_cancelled(unanswered.clone(), Shipment::default(), Shipment::default()).unwrap().order;
    assert_eq!(ended, [cancelled_by_customer(vec![hat()])]);
    let late = ReservationReturned { lines: vec![mugs()] };
    assert_eq!(when([unanswered, ended].concat(), Command::RecordStockReserved), Ok(vec![late.into()]));
}
