//! What is due at some time happens once, days later and whatever was stopped in between; or not at all, if an event has
//! made it needless.
//!
//! Nobody waits: a story moves its timers' times back, as if that much time had passed.

use crate::harness::{System, order_of};
use order_services::ExecuteError;
use order_services::process::connect_to;
use order_views::Orders;
use orders::Command;
use orders::id::{OrderId, Sku};
use orders::order::StockLine;
use orders::{Rejection, shipment, stock};
use runtime::step::{Outcome, Step};
use runtime::sweeper::Sweeper;
use sqlx::{Connection, PgConnection, PgPool, query_as, query_scalar};
use std::sync::Arc;
use store::connect::{self, Role};
use tokio::sync::Notify;
use uuid::Uuid;

const DAY: i64 = 24 * 60 * 60;

/// The kinds of the timers that are set, each with how many seconds after its event it is due.
async fn set(system: &System) -> Vec<(String, i64)> {
    let set = "SELECT kind, extract(epoch FROM t.fires_at - e.recorded_at)::bigint
               FROM daybook.timers AS t JOIN daybook.events AS e USING (event_id) ORDER BY kind, key";
    query_as(set).fetch_all(&system.parts.read).await.unwrap()
}

async fn fired(system: &System) -> Vec<(String, String)> {
    let fired = "SELECT reaction, state FROM daybook.follow_ups WHERE reaction LIKE 'expire%' ORDER BY 1, 2";
    query_as(fired).fetch_all(&system.parts.read).await.unwrap()
}

async fn count_of(system: &System, order: OrderId, event_type: &str) -> usize {
    system.events_of(order).await.iter().filter(|e| *e == event_type).count()
}

/// A confirmed order of two mugs and a hat from one seller.
async fn confirmed() -> (System, OrderId) {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    system.receive("hat", 5).await;
    let order = system.place(order_of(&[("mug", 2, 1), ("hat", 1, 1)])).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    (system, order)
}

fn line(line: u32, sku: &str, quantity: u32) -> StockLine {
    StockLine { line, sku: Sku::new(sku).unwrap(), quantity }
}

fn expire_mugs(order_id: OrderId) -> Command {
    Command::Stock(stock::Command::Expire { order_id, lines: vec![line(1, "mug", 2)] })
}

async fn dispatch(system: &System, order: OrderId) -> Result<(), ExecuteError> {
    for id in system.shipments(order).await {
        let command = shipment::Command::Dispatch { revision: 1, tracking: "T1".into() };
        system.execute(Command::Shipment { id, command }).await?;
    }
    Ok(())
}

#[tokio::test]
async fn events_set_timers_and_clear_them() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    let order = system.place(order_of(&[("mug", 2, 1), ("mug", 1, 2)])).await;
    system.project().await;
    assert_eq!(set(&system).await, [("expire_order".into(), DAY)]);
    system.settle().await;
    let reserved = ("expire_reservation".to_owned(), 6 * DAY);
    assert_eq!(set(&system).await, [("expire_authorisation".into(), 7 * DAY), reserved.clone(), reserved]);
    // Nothing is due; then all would be, but is needless.
    assert_eq!(system.sweep().await, 0);
    system.ship(order).await;
    assert_eq!(set(&system).await, []);
    system.pass(30 * DAY).await;
    assert_eq!((system.sweep().await, fired(&system).await), (0, vec![]));
    assert_eq!(system.status(order).await, "completed");
    system.assert_verified().await;
}

/// Both ends of one batch: what is set and cleared before the projector has come to it is never there.
#[tokio::test]
async fn what_is_cleared_when_it_is_seen_is_not_set() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    let order = OrderId(Uuid::now_v7());
    let lines = vec![line(1, "mug", 2)];
    let reserve = stock::Command::Reserve { order_id: order, lines: lines.clone(), hold_seconds: 0, edit: None };
    system.execute(Command::Stock(reserve)).await.unwrap();
    system.execute(Command::Stock(stock::Command::Release { order_id: order, lines })).await.unwrap();
    system.project().await;
    assert_eq!((set(&system).await, system.sweep().await), (vec![], 0));
    system.assert_verified().await;
}

/// Invariant 25: a reservation that is over gives back its pieces, and its order the money.
#[tokio::test]
async fn a_reservation_past_its_expiry_ends_with_its_order_and_payment() {
    let (mut system, order) = confirmed().await;
    system.pass(6 * DAY - 60).await;
    assert_eq!(system.sweep().await, 0);
    system.pass(61).await;
    assert_eq!(system.sweep().await, 2);
    system.settle().await;
    assert_eq!(system.status(order).await, "cancelled: reservation_expired");
    assert_eq!((system.stock_of("mug").await, system.stock_of("hat").await), ((5, 0), (5, 0)));
    let row = order_views::order_summary::get(&system.parts.read, order.0).await.unwrap().unwrap();
    assert_eq!((row.authorised, row.captured), (0, 0));
    for event_type in ["StockExpired", "OrderCancelled", "PaymentVoided"] {
        let expected = if event_type == "StockExpired" { 2 } else { 1 };
        assert_eq!(count_of(&system, order, event_type).await, expected, "{event_type}");
    }
    assert_eq!((set(&system).await, system.sweep().await), (vec![], 0));
    system.assert_verified().await;
}

/// What is sent is the aggregate's to decide: whether it is accepted is told where that is decided.
#[tokio::test]
async fn orders_and_authorisations_expire_when_their_time_is_over() {
    let (mut system, _) = confirmed().await;
    system.outside.clear();
    let silent = system.place(order_of(&[("mug", 1, 1)])).await;
    system.project().await;
    system.pass(DAY).await;
    assert_eq!(system.sweep().await, 1);
    assert_eq!(fired(&system).await, [("expire_order".into(), "due".into())]);
    system.pass(6 * DAY).await;
    // And the reservations, of two lines.
    assert_eq!(system.sweep().await, 3);
    let kinds: Vec<String> = fired(&system).await.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["expire_authorisation", "expire_order", "expire_reservation", "expire_reservation"]);
    let asked = "SELECT target, correlation_id = target FROM daybook.follow_ups WHERE reaction = 'expire_order'";
    let asked: Vec<(Uuid, bool)> = query_as(asked).fetch_all(&system.parts.read).await.unwrap();
    assert_eq!(asked, [(silent.0, true)]);
    system.assert_verified().await;
}

/// The fault: duplicates. Two sweepers at once take what the other does not, and neither waits.
#[tokio::test]
async fn each_timer_fires_once_with_two_sweepers_at_once() {
    let (mut system, order) = confirmed().await;
    let other = connect_to(&system.urls).await.unwrap();
    let mut other = Sweeper::<Orders>::new(other.project.clone(), Arc::new(Notify::new()));
    system.pass(6 * DAY).await;
    // One of them is in the middle of its work, with a timer in its hands.
    let as_sweeper = connect::options(&system.urls.database_url, Role::Project).unwrap();
    let mut slow = PgConnection::connect_with(&as_sweeper).await.unwrap();
    let taken = "BEGIN; DELETE FROM daybook.timers WHERE (kind, target, key) IN (
        SELECT kind, target, key FROM daybook.timers WHERE kind = 'expire_reservation' LIMIT 1 FOR UPDATE)";
    sqlx::raw_sql(taken).execute(&mut slow).await.unwrap();
    let (a, b) = tokio::join!(system.sweeper.step(), other.step());
    let fired_now = [a.unwrap(), b.unwrap()];
    assert!(fired_now.contains(&Outcome::Worked(1)) && fired_now.contains(&Outcome::Idle), "{fired_now:?}");
    // It is killed there, and has changed nothing.
    sqlx::raw_sql("ROLLBACK").execute(&mut slow).await.unwrap();
    assert_eq!(system.sweep().await, 1);
    system.settle().await;
    assert_eq!(count_of(&system, order, "StockExpired").await, 2);
    assert_eq!(fired(&system).await.len(), 2);
    system.assert_verified().await;
}

/// Many due timers and many sweepers: none is lost, none fires twice.
#[tokio::test]
async fn many_sweepers_share_what_is_due() {
    let mut system = System::start().await;
    system.receive("mug", 2_000).await;
    for n in 0..20_u128 {
        let order = OrderId(Uuid::from_u128(n + 1));
        let lines = (1..=100).map(|n| line(n, "mug", 1)).collect();
        let reserve = stock::Command::Reserve { order_id: order, lines, hold_seconds: 0, edit: None };
        system.execute(Command::Stock(reserve)).await.unwrap();
    }
    system.project().await;
    let pool: PgPool = system.parts.project.clone();
    let sweepers = (0..4).map(|_| {
        let mut sweeper = Sweeper::<Orders>::new(pool.clone(), Arc::new(Notify::new()));
        async move {
            let mut fired = 0;
            while let Outcome::Worked(n) = sweeper.step().await.unwrap() {
                fired += n;
            }
            fired
        }
    });
    let fired: Vec<usize> = futures_util::future::join_all(sweepers).await;
    assert_eq!(fired.iter().sum::<usize>(), 2_000, "{fired:?}");
    assert_eq!(set(&system).await, []);
    let follow_ups =
        query_scalar::<_, i64>("SELECT count(*) FROM daybook.follow_ups WHERE reaction = 'expire_reservation'");
    assert_eq!(follow_ups.fetch_one(&system.parts.read).await.unwrap(), 2_000);
    system.assert_verified().await;
}

/// The fault: a kill after the act and before it was written down.
#[tokio::test]
async fn what_fired_and_was_not_written_down_has_its_effect_once() {
    let (mut system, order) = confirmed().await;
    system.pass(6 * DAY).await;
    system.sweep().await;
    system.settle().await;
    let head = system.parts.log.head().await.unwrap();
    let again = "UPDATE daybook.follow_ups SET state = 'due', settled_at = NULL";
    sqlx::query(again).execute(&system.superuser().await).await.unwrap();
    system.settle().await;
    assert_eq!(system.parts.log.head().await.unwrap(), head);
    assert_eq!(system.status(order).await, "cancelled: reservation_expired");
    system.assert_verified().await;
}

/// The race of expiry against commit, the dispatch being first: it fires, and changes nothing.
#[tokio::test]
async fn an_expiry_after_the_dispatch_changes_nothing() {
    let (mut system, order) = confirmed().await;
    system.pass(6 * DAY).await;
    assert_eq!(system.sweep().await, 2);
    // Now it is a follow-up that nothing calls off; but word of the dispatch comes first.
    dispatch(&system, order).await.unwrap();
    let lines = vec![line(1, "mug", 2), line(2, "hat", 1)];
    system.execute(Command::Stock(stock::Command::Commit { order_id: order, lines })).await.unwrap();
    system.settle().await;
    assert_eq!(fired(&system).await, vec![("expire_reservation".to_owned(), "accepted".to_owned()); 2]);
    assert_eq!((count_of(&system, order, "StockExpired").await, system.stock_of("mug").await), (0, (3, 0)));
    for id in system.shipments(order).await {
        system.execute(Command::Shipment { id, command: shipment::Command::ConfirmDelivery }).await.unwrap();
    }
    system.settle().await;
    assert_eq!(system.status(order).await, "completed");
    system.assert_verified().await;
}

/// The same, the expiry being first: nothing is dispatched any more.
#[tokio::test]
async fn a_dispatch_after_the_expiry_is_refused() {
    let (mut system, order) = confirmed().await;
    system.pass(6 * DAY).await;
    system.sweep().await;
    system.settle().await;
    let refused = dispatch(&system, order).await;
    let cancelled =
        matches!(refused, Err(ExecuteError::Rejected(Rejection::Shipment(shipment::Rejection::Cancelled { .. }))));
    assert!(cancelled, "{refused:?}");
    assert_eq!(
        (system.status(order).await, system.stock_of("mug").await),
        ("cancelled: reservation_expired".into(), (5, 0))
    );
    system.assert_verified().await;
}

/// The same, the expiry being between the dispatch and word of it: what has left the house is not in the books, and
/// somebody has to look at it. The order is not cancelled; nor is it held, for nothing of it is left to be sent.
#[tokio::test]
async fn an_expiry_between_a_dispatch_and_its_commit_is_seen() {
    let (mut system, order) = confirmed().await;
    dispatch(&system, order).await.unwrap();
    system.execute(expire_mugs(order)).await.unwrap();
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    let told = "SELECT reaction, reason FROM daybook.follow_ups WHERE state NOT IN ('due', 'accepted') ORDER BY 1";
    let told: Vec<(String, String)> = query_as(told).fetch_all(&system.parts.read).await.unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].0 == "cancel_expired" && told[0].1.contains("is dispatched"), "{told:?}");
    assert!(told[1].0 == "commit_stock" && told[1].1.contains("holds nothing for its lines [1]"), "{told:?}");
    system.assert_verified().await;
}
