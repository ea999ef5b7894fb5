//! Orders from placement to their end, through every part of the system, step by step.

use crate::harness::{System, card, order_of};
use order_services::ExecuteError;
use orders::id::OrderId;
use orders::order::CancelReason;
use orders::{Command, order};
use runtime::step::Step;
use sqlx::query_scalar;

async fn cancel(system: &System, id: OrderId) -> Result<(), ExecuteError> {
    let reason = CancelReason::CustomerRequest;
    system.execute(Command::CancelOrder { id, reason }).await.map(drop)
}

async fn captured(system: &System, order: OrderId) -> i64 {
    order_views::order_summary::get(&system.parts.read, order.0).await.unwrap().unwrap().captured
}

#[tokio::test]
async fn an_order_is_paid_reserved_shipped_and_completed() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    system.receive("hat", 5).await;
    let order = system.place(order_of(&[("mug", 2, 1), ("hat", 1, 2)])).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    assert_eq!((system.stock_of("mug").await, system.stock_of("hat").await), ((5, 2), (5, 1)));
    assert_eq!(captured(&system, order).await, 0);

    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    assert_eq!((system.stock_of("mug").await, system.stock_of("hat").await), ((3, 0), (4, 0)));
    assert_eq!(captured(&system, order).await, 3250);
    let told = r#"{"shipment_dispatched": {"tracking": "T1"}}"#;
    assert_eq!(system.notices().await, [told, told]);
    system.assert_verified().await;
}

#[tokio::test]
async fn an_order_that_costs_nothing_is_completed_without_a_payment() {
    let mut system = System::start().await;
    system.receive("leaflet", 1).await;
    let mut free = order_of(&[("leaflet", 1, 1)]);
    free.lines[0].unit_price = orders::money::Amount::ZERO;
    free.shipping.clear();
    free.payments.clear();
    let order = system.place(free).await;
    system.settle().await;
    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    assert!(!system.events_of(order).await.iter().any(|e| e.starts_with("Payment") && e != "PaymentsSecured"));
    system.assert_verified().await;
}

#[tokio::test]
async fn a_declined_payment_rejects_the_order_and_lets_the_others_go() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    let mut order = order_of(&[("mug", 1, 1)]);
    order.payments[0].amount = orders::money::Amount(250);
    order.payments.push(order::PlacePayment { method: card("tok_decline"), amount: orders::money::Amount(1000) });
    let order = system.place(order).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "rejected: card declined");
    let row = order_views::order_summary::get(&system.parts.read, order.0).await.unwrap().unwrap();
    assert_eq!((row.authorised, row.captured), (0, 0));
    assert_eq!(system.stock_of("mug").await, (5, 0));
    assert_eq!(system.notices().await, [r#""payment_declined""#]);
    system.assert_verified().await;
}

/// Invariants 21 and 25: nothing is oversold, and what a short order held is given back.
#[tokio::test]
async fn a_shortage_cancels_the_order_reserves_nothing_and_lets_the_money_go() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    system.receive("hat", 1).await;
    let order = system.place(order_of(&[("mug", 2, 1), ("hat", 2, 1), ("sock", 1, 1)])).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "cancelled: out_of_stock");
    assert_eq!((system.stock_of("mug").await, system.stock_of("hat").await), ((5, 0), (1, 0)));
    let row = order_views::order_summary::get(&system.parts.read, order.0).await.unwrap().unwrap();
    assert_eq!((row.authorised, row.captured), (0, 0));
    let reasons = query_scalar::<_, String>("SELECT reason FROM daybook.follow_ups WHERE state = 'refused'");
    assert_eq!(reasons.fetch_all(&system.parts.read).await.unwrap(), ["out of stock: hat, sock"]);
    let short = query_scalar::<_, String>("SELECT payload::text FROM daybook.events WHERE event_type = 'LinesShort'");
    assert_eq!(short.fetch_all(&system.parts.read).await.unwrap(), [r#"{"lines":[2,3]}"#]);
    system.assert_verified().await;
}

/// Invariant 25: a cancelled order nets to no money taken and no stock held, whenever it was cancelled.
#[tokio::test]
async fn a_cancelled_order_holds_no_money_and_no_stock() {
    // The further the order has come, the more there is to take back.
    let milestones = [
        "OrderPlaced",
        "PaymentRequested",
        "PaymentAuthorised",
        "PaymentsSecured",
        "StockReserved",
        "OrderConfirmed",
        "ShipmentPlanned",
    ];
    for milestone in milestones {
        let mut system = System::start().await;
        system.receive("mug", 5).await;
        let order = system.place(order_of(&[("mug", 2, 1)])).await;
        while !system.events_of(order).await.iter().any(|e| e == milestone) {
            system.project().await;
            system.sender.step().await.unwrap();
        }
        cancel(&system, order).await.unwrap();
        system.settle().await;
        assert_eq!(system.status(order).await, "cancelled: customer_request", "after {milestone}");
        assert_eq!(system.stock_of("mug").await, (5, 0), "after {milestone}");
        let row = order_views::order_summary::get(&system.parts.read, order.0).await.unwrap().unwrap();
        assert_eq!((row.authorised, row.captured), (0, 0), "after {milestone}");
        system.assert_verified().await;
    }
}

#[tokio::test]
async fn cancelling_a_cancelled_order_records_nothing() {
    let mut system = System::start().await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    cancel(&system, order).await.unwrap();
    let again = Command::CancelOrder { id: order, reason: CancelReason::CustomerRequest };
    let outcome = system.execute(again).await.unwrap();
    assert!(!outcome.recorded);
    system.settle().await;
    system.assert_verified().await;
}
