//! What is a history, and what is not; and that what was paid goes to the shipments, whatever was owed.

use super::*;
use crate::id::{CaptureId, SellerId};
use crate::money::Amount;
use crate::order::{
    CancelReason, Command, ForeignId, HistoryRecorded, HoldReason, LinesDelivered, OrderCancelled, OrderCompleted,
    OrderConfirmed, OrderPlaced, PaymentAuthorisedRecorded, PaymentsSecured, SellerShipping, StockSecured,
};
use crate::testing::*;
use proptest::prelude::*;
use uuid::Uuid;

fn placed() -> OrderPlaced {
    match Order::default().decide(ORDER, &Command::Place(mugs_and_hat())).unwrap().remove(0) {
        Event::OrderPlaced(placed) => placed,
        other => panic!("{other:?}"),
    }
}

fn recorded(status: &str) -> Event {
    HistoryRecorded { source: "elsewhere".to_owned(), status: status.to_owned(), ids: vec![] }.into()
}

/// A whole life, and an end that no life has: cancelled after it was completed.
fn whole(placed: &OrderPlaced) -> Vec<Event> {
    let shipments = placed.shipments_as_paid(ORDER);
    let mut events: Vec<Event> = vec![placed.clone().into()];
    events.extend(placed.payments.iter().map(|p| PaymentAuthorisedRecorded { payment_id: p.payment_id }.into()));
    events.push(PaymentsSecured { lines: placed.order().pieces(|_| true), hold_seconds: 0 }.into());
    events.push(OrderConfirmed { shipments: shipments.clone() }.into());
    events.extend(shipments.iter().map(|s| {
        let lines = s.lines.iter().map(|l| l.line).collect();
        Event::from(LinesDelivered { shipment_id: s.shipment_id, lines })
    }));
    events.push(OrderCompleted {}.into());
    let (payments, reserved) = (placed.order().payment_ids(), placed.order().pieces(|_| true));
    let (reason, customer_id) = (CancelReason::NotTold, CUSTOMER);
    events.push(OrderCancelled { reason, customer_id, payments, reserved }.into());
    events.push(recorded("canceled"));
    events
}

/// The fields that are wrong.
fn faults(events: &[Event]) -> Vec<String> {
    let faults = Order::check_history(ORDER, events).err().unwrap_or_default();
    faults.into_iter().map(|fault| fault.field).collect()
}

#[test]
fn a_history_need_not_be_a_life_that_could_be_lived_here() {
    assert_eq!(faults(&whole(&placed())), [] as [&str; 0]);
    // Without items it was paid for, without payments it was delivered.
    let [goods, discount, tax, shipping, total] = [Amount::ZERO; 5];
    let totals = OrderTotals { goods, discount, tax, shipping, total };
    let nothing = OrderPlaced { lines: vec![], shipping: vec![], totals, ..placed() };
    assert_eq!(faults(&whole(&nothing)), [] as [&str; 0]);
    assert_eq!(faults(&whole(&OrderPlaced { payments: vec![], ..placed() })), [] as [&str; 0]);
    let mut of_zero = placed();
    of_zero.payments[0].amount = Amount::ZERO;
    assert_eq!(faults(&whole(&of_zero)), [] as [&str; 0]);
}

#[test]
fn an_order_that_does_not_add_up_in_itself_is_no_history() {
    let wrong = |change: fn(&mut OrderPlaced)| {
        let mut placed = placed();
        change(&mut placed);
        faults(&[placed.into()])
    };
    assert_eq!(wrong(|p| p.lines[1].line = 1), ["events[0].lines[1].line"]);
    assert_eq!(wrong(|p| p.lines[0].line = 0), ["events[0].lines[0].line"]);
    assert_eq!(wrong(|p| p.lines[1].quantity = 0), ["events[0].lines[1].quantity", "events[0].totals"]);
    assert_eq!(wrong(|p| p.lines[0].tax = Amount(-1)), ["events[0].lines[0].tax", "events[0].totals"]);
    assert_eq!(wrong(|p| p.totals.total.0 += 1), ["events[0].totals"]);
    assert_eq!(wrong(|p| p.payments[1].amount = Amount(-1)), ["events[0].payments[1].amount"]);
    assert_eq!(wrong(|p| p.payments[1].payment_id = p.payments[0].payment_id), ["events[0].payments[1].payment_id"]);
    assert_eq!(wrong(|p| p.payments[0].amount = Amount(i64::MAX)), ["events[0].payments"]);
    assert_eq!(wrong(|p| p.payments[0].method.kind = "Card".into()), ["events[0].payments[0].method.kind"]);
    assert_eq!(wrong(|p| p.shipping.push(p.shipping[0].clone()))[0], "events[0].shipping[1].seller_id");
    let nobodys = SellerShipping { seller_id: SellerId(Uuid::nil()), amount: Amount::ZERO };
    assert_eq!(
        faults(&[OrderPlaced { shipping: [placed().shipping, vec![nobodys]].concat(), ..placed() }.into()]),
        ["events[0].shipping[1].seller_id"]
    );
}

#[test]
fn what_names_nothing_of_the_order_is_no_history() {
    assert_eq!(faults(&[]), ["events[0]"]);
    assert_eq!(faults(&[recorded("new")]), ["events[0]"]);
    let after = |event: Event| faults(&[placed().into(), event]);
    let stranger = PaymentId(Uuid::nil());
    assert_eq!(after(placed().into()), ["events[1]"]);
    assert_eq!(after(StockSecured {}.into()), ["events[1]"], "stock is not told of");
    assert_eq!(after(PaymentAuthorisedRecorded { payment_id: stranger }.into()), ["events[1]"]);
    let shipment_id = placed().order().shipments(ORDER)[0].shipment_id;
    assert_eq!(after(LinesDelivered { shipment_id, lines: vec![1, 9] }.into()), ["events[1]"]);
    let shipment_id = ShipmentId(Uuid::nil());
    assert_eq!(after(LinesDelivered { shipment_id, lines: vec![1] }.into()), ["events[1]"]);
    let mut lines = placed().order().pieces(|_| true);
    lines[0].quantity += 1;
    assert_eq!(after(PaymentsSecured { lines: lines.clone(), hold_seconds: 0 }.into()), ["events[1]"]);
    let mut shipments = placed().order().shipments(ORDER);
    shipments[0].lines = lines[..1].to_vec();
    shipments[1].captures[0].payment_id = stranger;
    assert_eq!(after(OrderConfirmed { shipments }.into()), ["events[1]"; 2]);
    assert_eq!(after(recorded("")), ["events[1].status"]);
    assert_eq!(after(recorded("in transit")), ["events[1].status"]);
    let named = |id: Uuid, name: &str| {
        let ids = vec![ForeignId { id, name: name.to_owned() }];
        after(HistoryRecorded { source: "elsewhere".to_owned(), status: "new".to_owned(), ids }.into())
    };
    for id in [ORDER.0, CUSTOMER.0, placed().lines[0].seller_id.0] {
        assert_eq!(named(id, "ORD_000001"), [] as [&str; 0]);
        assert_eq!(named(id, "ORD 1"), ["events[1].ids[0].name"]);
    }
    assert_eq!(named(Uuid::nil(), "ORD_000001"), ["events[1].ids[0].id"]);
}

proptest! {
    #[test]
    fn every_payment_is_captured_whole_whatever_was_owed(
        order in any_order(),
        paid in proptest::collection::vec(0..2_000_i64, 1..4),
    ) {
        let Event::OrderPlaced(mut placed) = Order::default().decide(ORDER, &Command::Place(order)).unwrap().remove(0)
        else { unreachable!() };
        placed.payments = (0..).zip(&paid).map(|(n, amount)| crate::order::OrderPayment {
            payment_id: PaymentId::of_order(ORDER, n),
            method: method("card"),
            amount: Amount(*amount),
        }).collect();
        let shipments = placed.shipments_as_paid(ORDER);
        let captures = || shipments.iter().flat_map(|s| &s.captures);
        for payment in &placed.payments {
            let of_it = captures().filter(|c| c.payment_id == payment.payment_id);
            prop_assert_eq!(of_it.map(|c| c.amount.0).sum::<i64>(), payment.amount.0);
        }
        prop_assert!(captures().all(|c| c.amount > Amount::ZERO));
        let ids: BTreeSet<CaptureId> = captures().map(|c| c.capture_id).collect();
        prop_assert_eq!(ids.len(), captures().count());
        prop_assert_eq!(faults(&whole(&placed)), [] as [&str; 0]);
    }
}

/// Of an order that has no payments in its history nobody knows whether it was paid: nothing is taken to be.
#[test]
fn a_history_without_payments_is_not_taken_to_be_paid() {
    let mut order = Order::default();
    let placed = OrderPlaced { payments: vec![], ..placed() };
    for event in [placed.into(), recorded("created")] {
        order.evolve(&event);
    }
    let reason = HoldReason::Manual;
    for command in [Command::PlaceHold { reason }, Command::ReleaseHold { reason }] {
        let events = order.decide(ORDER, &command).unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        events.iter().for_each(|event| order.evolve(event));
    }
}
