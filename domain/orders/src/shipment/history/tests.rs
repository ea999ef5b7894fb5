//! What is a history of a shipment, and what is not.

use super::*;
use crate::id::{CaptureId, PaymentId, ShipmentId};
use crate::money::Amount;
use crate::order::{CaptureShare, ShipmentOrder, StockLine};
use crate::shipment::{ShipmentCancelled, ShipmentDelivered, ShipmentDispatched, ShipmentPlanned};
use crate::testing::*;

fn planned() -> ShipmentPlanned {
    let (shipment_id, payment_id) = (ShipmentId::of_seller(ORDER, POTTER), PaymentId::of_order(ORDER, 0));
    let capture_id = CaptureId::of_shipment(payment_id, shipment_id);
    let shipment = ShipmentOrder {
        shipment_id,
        seller_id: POTTER,
        customer_id: CUSTOMER,
        address_id: ADDRESS,
        lines: vec![StockLine { line: 1, sku: sku("MUG"), quantity: 2 }],
        captures: vec![CaptureShare { payment_id, capture_id, amount: Amount(2590) }],
        unreserved: true,
    };
    ShipmentPlanned { order_id: ORDER, revision: 1, shipment }
}

fn dispatched() -> ShipmentDispatched {
    let ShipmentPlanned { order_id, shipment, .. } = planned();
    let ShipmentOrder { customer_id, lines, captures, unreserved, .. } = shipment;
    ShipmentDispatched { order_id, customer_id, tracking: String::new(), lines, captures, unreserved }
}

/// The fields that are wrong after the plan.
fn faults(events: &[Event]) -> Vec<String> {
    let events = [&[planned().into()], events].concat();
    let faults = Shipment::check_history(&events).err().unwrap_or_default();
    faults.into_iter().map(|fault| fault.field).collect()
}

#[test]
fn a_shipment_may_have_arrived_without_having_left() {
    let delivered: Event = ShipmentDelivered { order_id: ORDER, lines: vec![1] }.into();
    assert_eq!(faults(&[dispatched().into(), delivered.clone()]), [] as [&str; 0]);
    assert_eq!(faults(&[delivered]), [] as [&str; 0]);
}

#[test]
fn what_does_not_fit_its_plan_is_no_history() {
    assert!(Shipment::check_history(&[]).is_err());
    assert!(Shipment::check_history(&[dispatched().into()]).is_err());
    let wrong = |change: fn(&mut ShipmentDispatched)| {
        let mut dispatched = dispatched();
        change(&mut dispatched);
        faults(&[dispatched.into()])
    };
    assert_eq!(wrong(|d| d.order_id = OTHER_ORDER), ["events[1].order_id"]);
    assert_eq!(wrong(|d| d.customer_id.0 = uuid::Uuid::nil()), ["events[1].customer_id"]);
    assert_eq!(wrong(|d| d.lines[0].quantity = 1), ["events[1].lines"]);
    assert_eq!(wrong(|d| d.captures.clear()), ["events[1].captures"]);
    assert_eq!(wrong(|d| d.unreserved = false), ["events[1].unreserved"]);
    let second = ShipmentPlanned { revision: 2, ..planned() };
    let faults_of_second = Shipment::check_history(&[second.into()]).unwrap_err();
    assert_eq!(faults_of_second[0].field, "events[0].revision");
    assert_eq!(faults(&[ShipmentDelivered { order_id: OTHER_ORDER, lines: vec![1] }.into()]), ["events[1].order_id"]);
    assert_eq!(faults(&[ShipmentDelivered { order_id: ORDER, lines: vec![1, 2] }.into()]), ["events[1].lines"]);
    assert_eq!(faults(&[ShipmentCancelled { order_id: ORDER }.into()]), ["events[1]"]);
}
