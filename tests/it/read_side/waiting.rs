//! What orders wait for, as a team sees it: told from beginning to end of what can keep an order.

use crate::harness::{System, card, order_of};
use order_views::waiting::{self, Filter, WaitedFor, WaitingOrder};
use orders::Command;
use orders::id::{OrderId, ReceiptId};
use orders::order::{self, HoldReason, ReceivedLine, ReturnLine, ReturnReason};
use serde_json::{Value, json};
use uuid::Uuid;

async fn listed(system: &System, filter: &Filter) -> Vec<WaitingOrder> {
    waiting::list(&system.parts.read, &Filter { limit: 10, ..filter.clone() }).await.unwrap()
}

/// All that the order waits for, without since when.
async fn waits(system: &System, order: OrderId) -> Vec<Value> {
    let all = listed(system, &Filter::default()).await;
    let Some(found) = all.into_iter().find(|one| one.order_id == order.0) else { return vec![] };
    assert_eq!(found.since, found.waits[0].since);
    let without = |wait| {
        let mut wait = serde_json::to_value(wait).unwrap();
        wait.as_object_mut().unwrap().remove("since").unwrap();
        wait
    };
    found.waits.iter().map(without).collect()
}

async fn told(system: &mut System, id: OrderId, command: order::Command) {
    assert!(system.execute(Command::Order { id, command }).await.unwrap().recorded);
    system.settle().await;
}

#[tokio::test]
async fn an_order_says_what_it_waits_for_until_nothing_is_left() {
    let mut system = System::start().await;
    let placed =
        order::PlaceOrder { backorder: true, approval_within_seconds: Some(3600), ..order_of(&[("mug", 2, 1)]) };
    let order = system.place(placed).await;
    system.project().await;
    assert_eq!(waits(&system, order).await, [json!({ "for": "payment" }), json!({ "for": "approval", "approval": 1 })]);
    system.settle().await;
    let backorder = json!({ "for": "backorder", "lines": [1] });
    let expected = [json!({ "for": "approval", "approval": 1 }), json!({ "for": "stock" }), backorder];
    assert_eq!(waits(&system, order).await, expected);
    system.receive("mug", 5).await;
    system.settle().await;
    assert_eq!(waits(&system, order).await, [json!({ "for": "approval", "approval": 1 })]);
    told(&mut system, order, order::Command::PlaceHold { reason: HoldReason::Fraud }).await;
    told(&mut system, order, order::Command::GrantApproval { approval: 1 }).await;
    assert_eq!(waits(&system, order).await, [json!({ "for": "hold", "reason": "fraud" })]);
    told(&mut system, order, order::Command::ReleaseHold { reason: HoldReason::Fraud }).await;
    assert_eq!(waits(&system, order).await, [json!({ "for": "delivery" })]);
    system.ship(order).await;
    assert_eq!(waits(&system, order).await, [] as [Value; 0]);
    let lines = vec![ReturnLine { line: 1, quantity: 2 }];
    told(&mut system, order, order::Command::RequestReturn { lines, reason: ReturnReason::Unwanted }).await;
    assert_eq!(waits(&system, order).await, [json!({ "for": "return_approval", "return_no": 1, "pieces": 2 })]);
    told(&mut system, order, order::Command::ApproveReturn { return_no: 1 }).await;
    for (parcel, left) in [(1, 1), (2, 0)] {
        let lines = vec![ReceivedLine { line: 1, quantity: 1, usable: 1 }];
        let receipt_id = ReceiptId(Uuid::from_u128(parcel));
        told(&mut system, order, order::Command::ReceiveReturn { return_no: 1, receipt_id, lines }).await;
        let expected = json!({ "for": "return", "return_no": 1, "pieces": left });
        assert_eq!(waits(&system, order).await, if left > 0 { vec![expected] } else { vec![] });
    }
    system.assert_verified().await;
}

#[tokio::test]
async fn orders_are_listed_by_what_they_wait_for_with_what_could_not_be_done() {
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    let mut declining = order_of(&[("mug", 1, 1)]);
    declining.payments[0].method = card("tok_decline_capture");
    let (parked, held) = (system.place(declining).await, system.place(order_of(&[("mug", 1, 1)])).await);
    system.settle().await;
    told(&mut system, held, order::Command::PlaceHold { reason: HoldReason::Manual }).await;
    system.ship(parked).await;

    let on_hold = listed(&system, &Filter { what: Some(WaitedFor::Hold), ..Filter::default() }).await;
    assert_eq!(on_hold.iter().map(|one| one.order_id).collect::<Vec<_>>(), [held.0]);
    assert!(on_hold[0].follow_ups.is_empty());
    let all = listed(&system, &Filter::default()).await;
    assert!(all.is_sorted_by_key(|one| (one.since, one.order_id)));
    let next = Filter { after: Some((all[0].since, all[0].order_id)), ..Filter::default() };
    assert_eq!(listed(&system, &next).await, all[1..]);
    assert_eq!(listed(&system, &Filter { longer_than_seconds: Some(3600), ..Filter::default() }).await, []);
    // What is parked is told with the order that it is for, as long as that waits.
    let lines = vec![ReturnLine { line: 1, quantity: 1 }];
    told(&mut system, parked, order::Command::RequestReturn { lines, reason: ReturnReason::Unwanted }).await;
    let asked = Filter { what: Some(WaitedFor::ReturnApproval), ..Filter::default() };
    let asked = listed(&system, &asked).await;
    assert_eq!((asked.len(), asked[0].order_id), (1, parked.0));
    let trouble = &asked[0].follow_ups[0];
    assert_eq!((&*trouble.reaction, &*trouble.state), ("call_capture", "parked"));
    assert!(trouble.reason.as_deref().unwrap().contains("capture declined"), "{trouble:?}");
    system.assert_verified().await;
}
