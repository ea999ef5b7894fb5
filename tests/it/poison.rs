//! An event that cannot be taken in: it is kept with its cause, what is about the same order waits, and all others go on.
//! (Invariant 20.)

use crate::harness::{System, daybook_on, order_of, run};
use domain::Command;
use domain::id::OrderId;
use domain::order::{self, HoldReason};
use projections::parked::{self, KeyedBy, Parked};
use projections::{Projection, ReadModel};
use services::redrive::{RedriveError, redrive};
use services::replay::{Mode, replay};
use services::step::{Outcome, Step};
use services::verify::verify;
use sqlx::{AssertSqlSafe, query_scalar};
use std::time::Duration;
use store::checkpoint;
use store::lease;

const SUMMARY: Projection = Projection::ReadModel(ReadModel::OrderSummary);

/// Gives an event of the order's own stream another payload, as nobody but a broken disk or a defect could; returns the one
/// that it had.
async fn rewrite(system: &System, order: OrderId, event_type: &str, payload: &str) -> String {
    let found =
        format!("SELECT payload::text FROM daybook.events WHERE stream_id = '{order}' AND event_type = '{event_type}'");
    let before: String = query_scalar(AssertSqlSafe(found)).fetch_one(&system.superuser().await).await.unwrap();
    let rewritten = format!(
        "ALTER TABLE daybook.events DISABLE TRIGGER ALL;
         UPDATE daybook.events SET payload = '{payload}' WHERE stream_id = '{order}' AND event_type = '{event_type}';
         ALTER TABLE daybook.events ENABLE TRIGGER ALL"
    );
    run(&system.urls.database_url, &rewritten).await;
    before
}

async fn parked(system: &System) -> Vec<Parked> {
    parked::list(&system.parts.read, None, 100).await.unwrap()
}

/// What is parked, and whether each of it only waits.
fn named(parked: &[Parked]) -> Vec<(&str, &str, bool)> {
    parked.iter().map(|p| (&*p.projection, &*p.event_type, p.cause.is_none())).collect()
}

async fn again(system: &System, projection: Projection, order: OrderId) -> Result<usize, RedriveError> {
    redrive(&system.parts.log, &system.parts.read, &system.parts.project, projection, order.0).await
}

/// The log against all that is folded from it. JetStream still has the event as it was relayed.
async fn assert_folded(system: &System) {
    let report = verify(&system.parts.read, None, Duration::ZERO).await.unwrap();
    assert!(report.agrees(), "{report}");
}

async fn verb(system: &System, arguments: &str) -> std::process::Output {
    let arguments = arguments.split_whitespace();
    daybook_on(&system.urls).arg("projections").args(arguments).output().await.unwrap()
}

/// The projections of which an order waits for its own events alone.
fn by_order() -> Vec<Projection> {
    let mut all = Projection::ALL.to_vec();
    all.retain(|projection| projection.keyed_by() == KeyedBy::Order);
    all.sort_by_key(|projection| projection.name());
    all
}

#[tokio::test]
async fn invariant_20_of_many_orders_one_waits_and_the_others_go_on() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let mut orders = Vec::new();
    for _ in 0..10 {
        orders.push(system.place(order_of(&[("mug", 1, 1)])).await);
    }
    let poisoned = orders.remove(4);
    let payload = rewrite(&system, poisoned, "OrderPlaced", r#"{"customer_id": "nobody"}"#).await;
    system.settle().await;
    for order in &orders {
        assert_eq!(system.status(*order).await, "confirmed");
    }
    assert!(projections::order_summary::get(&system.parts.read, poisoned.0).await.unwrap().is_none());
    let found = parked(&system).await;
    let by_order = by_order();
    assert_eq!(named(&found), by_order.iter().map(|p| (p.name(), "OrderPlaced", false)).collect::<Vec<_>>());
    for one in &found {
        assert_eq!((one.key, one.correlation_id), (poisoned.0, poisoned.0));
        let cause = one.cause.as_deref().unwrap();
        assert!(cause.starts_with("the OrderPlaced at position "), "{cause}");
        assert!(!cause.contains("nobody"), "{cause}");
    }
    let head = system.parts.log.head().await.unwrap();
    assert!(checkpoint::live(&system.parts.read).await.unwrap().iter().all(|(_, position)| *position == head));

    let told = verb(&system, "parked --json").await;
    assert_eq!(String::from_utf8(told.stdout).unwrap().lines().count(), found.len());

    // As long as it is what it is, it stays where it is.
    let still = verb(&system, &format!("redrive order_summary {poisoned}")).await;
    let stderr = String::from_utf8(still.stderr).unwrap();
    assert!(still.status.code() == Some(3) && stderr.contains("it still cannot be read"), "{stderr}");
    let refused = again(&system, SUMMARY, poisoned).await;
    assert!(matches!(refused, Err(RedriveError::Decode(_))), "{refused:?}");
    assert_eq!(parked(&system).await, found);

    rewrite(&system, poisoned, "OrderPlaced", &payload).await;
    let taken_in = verb(&system, &format!("redrive waiting {poisoned}")).await;
    let expected = format!("waiting: 1 events of {poisoned} are taken in\n");
    assert_eq!(String::from_utf8(taken_in.stdout).unwrap(), expected);
    for projection in by_order.into_iter().filter(|projection| projection.name() != "waiting") {
        assert_eq!(again(&system, projection, poisoned).await.unwrap(), 1);
        assert_eq!(again(&system, projection, poisoned).await.unwrap(), 0, "once is enough");
    }
    assert!(parked(&system).await.is_empty());
    system.settle().await;
    assert_eq!(system.status(poisoned).await, "confirmed");
    assert_folded(&system).await;
}

#[tokio::test]
async fn what_comes_later_for_the_same_order_waits_in_order() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let (order, other) =
        (system.place(order_of(&[("mug", 1, 1)])).await, system.place(order_of(&[("mug", 2, 1)])).await);
    system.settle().await;
    let reason = HoldReason::Address;
    for order in [order, other] {
        for command in [order::Command::PlaceHold { reason }, order::Command::ReleaseHold { reason }] {
            system.execute(Command::Order { id: order, command }).await.unwrap();
        }
    }
    let payload = rewrite(&system, order, "HoldPlaced", "{}").await;
    system.project().await;
    let found = parked(&system).await;
    assert_eq!(named(&found)[..2], [("follow_ups", "HoldPlaced", false), ("follow_ups", "HoldReleased", true)]);
    assert_eq!(named(&found)[2..4], [("order_history", "HoldPlaced", false), ("order_history", "HoldReleased", true)]);
    assert_eq!(named(&found)[4..6], [("order_summary", "HoldPlaced", false), ("order_summary", "HoldReleased", true)]);
    // Another process takes over, and knows it.
    for projector in &mut system.projectors {
        projector.end().await;
    }
    let hold = order::Command::PlaceHold { reason: HoldReason::Fraud };
    system.execute(Command::Order { id: order, command: hold }).await.unwrap();
    system.project().await;
    assert_eq!(system.status(order).await, "confirmed");
    assert_eq!(named(&parked(&system).await)[8], ("order_summary", "HoldPlaced", true));

    rewrite(&system, order, "HoldPlaced", &payload).await;
    for projection in by_order() {
        assert_eq!(again(&system, projection, order).await.unwrap(), 3, "{}", projection.name());
    }
    assert_eq!(system.status(order).await, "on_hold");
    // The owner goes on with the rows as they are now, not as it remembers them.
    let release = order::Command::ReleaseHold { reason: HoldReason::Fraud };
    system.execute(Command::Order { id: order, command: release }).await.unwrap();
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    assert_folded(&system).await;
}

/// A row that Postgres would not have is found among many, and parked with what it said.
#[tokio::test]
async fn a_row_that_cannot_be_written_is_found_in_its_batch() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    run(&system.urls.database_url, "ALTER TABLE daybook.order_summary ADD CONSTRAINT broken CHECK (total <> 3250)")
        .await;
    let mut orders = Vec::new();
    for quantity in [1, 2, 3, 4] {
        orders.push(system.place(order_of(&[("mug", quantity, 1)])).await);
    }
    system.settle().await;
    for order in [orders[0], orders[1], orders[3]] {
        assert_eq!(system.status(order).await, "confirmed");
    }
    let found = parked(&system).await;
    assert!(
        found.len() > 3 && found.iter().all(|p| p.projection == "order_summary" && p.key == orders[2].0),
        "{found:?}"
    );
    assert!(found[0].cause.as_deref().unwrap().contains("violates check constraint"), "{found:?}");
    // Its follow-ups were done all the same.
    assert!(system.events_of(orders[2]).await.contains(&"OrderConfirmed".to_owned()));
    assert!(matches!(again(&system, SUMMARY, orders[2]).await, Err(RedriveError::Database(_))));
    run(&system.urls.database_url, "ALTER TABLE daybook.order_summary DROP CONSTRAINT broken").await;
    assert_eq!(again(&system, SUMMARY, orders[2]).await.unwrap(), found.len());
    assert_eq!(system.status(orders[2]).await, "confirmed");
    system.settle().await;
    system.assert_verified().await;
}

#[tokio::test]
async fn a_paused_projection_stands_still_until_it_is_resumed() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.project().await;
    assert!(checkpoint::pause(&system.parts.project, "stock_level", true).await.unwrap());
    assert!(!checkpoint::pause(&system.parts.project, "no_such", true).await.unwrap());
    system.receive("mug", 1).await;
    system.relay().await;
    let head = system.parts.log.head().await.unwrap();
    while system.feed.position() < head {
        system.feed.step().await.unwrap();
    }
    let stock = &mut system.projectors[1];
    assert_eq!(stock.name(), "stock_level");
    // It looks when it renews its lease.
    stock.end().await;
    assert_eq!(stock.step().await.unwrap(), Outcome::Idle);
    let level = async |system: &System| {
        projections::stock_level::get(&system.parts.read, "mug").await.unwrap().unwrap().on_hand
    };
    assert_eq!(level(&system).await, 1);
    // It does not keep others from it either.
    let other = lease::acquire(&system.parts.project, "stock_level", uuid::Uuid::now_v7()).await.unwrap().unwrap();
    lease::release(&system.parts.project, &other).await.unwrap();
    // Nor does a replay end the pause; it comes to where the live rows stand.
    let model = ReadModel::StockLevel;
    let replayed = replay(&system.parts.log, &system.parts.project, model, Mode::Switch, |_, _| {}).await.unwrap();
    assert_eq!((replayed.switched, replayed.position), (true, 1));
    assert_eq!(system.projectors[1].step().await.unwrap(), Outcome::Idle);
    checkpoint::pause(&system.parts.project, "stock_level", false).await.unwrap();
    system.project().await;
    assert_eq!(level(&system).await, 2);
    system.assert_verified().await;
}
