//! An event that cannot be taken in: it is kept with its cause, what is about the same order waits, and all others go on.
//! (Invariant 20.)

use crate::harness::{System, append_orders, daybook_on, new_order, order_of, run};
use domain::Command;
use domain::id::OrderId;
use domain::order::{self, HoldReason};
use projections::parked::{self, KeyedBy, Parked};
use projections::{Projection, ReadModel, order_summary};
use services::redrive::{RedriveError, redrive};
use services::replay::{Mode, Replayed, replay};
use services::step::{Outcome, Step};
use services::verify::verify;
use sqlx::{AssertSqlSafe, query_scalar};
use std::collections::HashMap;
use std::time::Duration;
use store::{Origin, checkpoint, lease};

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

/// Invariant 20, in the size in which it matters: of a thousand orders one waits, with what comes later for it.
#[tokio::test]
async fn invariant_20_of_a_thousand_orders_999_are_current_and_one_waits() {
    let mut system = System::start().await;
    let orders = append_orders(&system.parts.appender, 1000, 1, Origin::Live).await;
    let poisoned = orders[617];
    let payload = rewrite(&system, poisoned, "HoldPlaced", r#"{"hold": "none"}"#).await;
    system.project().await;
    let head = system.parts.log.head().await.unwrap();
    assert!(checkpoint::live(&system.parts.read).await.unwrap().iter().all(|(_, position)| *position == head));
    let versions = async || {
        let filter = order_summary::Filter { limit: 2000, ..order_summary::Filter::default() };
        let rows = order_summary::list(&system.parts.read, &filter).await.unwrap();
        rows.into_iter().map(|row| (row.order_id, row.version)).collect::<HashMap<_, _>>()
    };
    let version = |order: &OrderId| if *order == poisoned { 1 } else { 3 };
    let expected: HashMap<_, _> = orders.iter().map(|order| (order.0, version(order))).collect();
    assert_eq!(versions().await, expected);
    let found = parked(&system).await;
    let waits = |p: &Projection| [(p.name(), "HoldPlaced", false), (p.name(), "HoldReleased", true)];
    assert_eq!(named(&found), by_order().iter().flat_map(waits).collect::<Vec<_>>());
    assert!(found.iter().all(|p| p.key == poisoned.0));

    rewrite(&system, poisoned, "HoldPlaced", &payload).await;
    for projection in by_order() {
        // By two at once, and once more: it is taken in once.
        let (one, other) = tokio::join!(again(&system, projection, poisoned), again(&system, projection, poisoned));
        assert_eq!(one.unwrap() + other.unwrap(), 2, "{}", projection.name());
        assert_eq!(again(&system, projection, poisoned).await.unwrap(), 0);
    }
    assert_eq!(parked(&system).await, []);
    assert!(versions().await.values().all(|version| *version == 3));
    assert_folded(&system).await;
}

/// A read model whose rows are made of what stands beside the payload takes in what cannot be read. A row of it that
/// cannot be written stops it alone, with the cause, until that is mended.
#[tokio::test]
async fn a_read_model_that_can_leave_nothing_out_stops_and_goes_on_when_it_is_mended() {
    let mut system = System::start().await;
    let index = Projection::ReadModel(ReadModel::EventIndex);
    assert_eq!(index.keyed_by(), KeyedBy::Nothing);
    system.receive("mug", 10).await;
    let unreadable = system.place(order_of(&[("mug", 1, 1)])).await;
    let payload = rewrite(&system, unreadable, "OrderPlaced", "{}").await;
    system.project().await;
    assert!(parked(&system).await.iter().all(|p| p.projection != index.name()));
    let at = async |system: &System| {
        let status = checkpoint::status(&system.parts.read).await.unwrap();
        let of_index = status.iter().find(|status| status.projection == index.name()).unwrap().clone();
        let others = status.into_iter().filter(|status| status.projection != index.name());
        (of_index.position, of_index.last_error, others.map(|other| other.position).min().unwrap())
    };
    assert_eq!(at(&system).await, (2, None, 2));

    let url = system.urls.database_url.clone();
    let order = new_order();
    let broken = format!("ALTER TABLE daybook.event_index ADD CONSTRAINT broken CHECK (key <> '{order}')");
    run(&url, &broken).await;
    system.receive("mug", 1).await;
    let place = order::Command::Place(order_of(&[("mug", 1, 1)]));
    system.execute(Command::Order { id: order, command: place }).await.unwrap();
    system.receive("mug", 1).await;
    system.relay().await;
    while system.feed.position() < 5 {
        system.feed.step().await.unwrap();
    }
    for (projector, projection) in system.projectors.iter_mut().zip(Projection::ALL) {
        let last = loop {
            match projector.step().await {
                Ok(Outcome::Worked(_)) => {}
                last => break last,
            }
        };
        assert_eq!(last.is_err(), projection == index);
    }
    // What comes before is taken in.
    let (position, error, others) = at(&system).await;
    assert!(error.unwrap().contains("violates check constraint"));
    assert_eq!((position, others), (3, 5));
    assert!(parked(&system).await.iter().all(|p| p.projection != index.name()));
    run(&url, "ALTER TABLE daybook.event_index DROP CONSTRAINT broken").await;
    rewrite(&system, unreadable, "OrderPlaced", &payload).await;
    system.project().await;
    for projection in by_order() {
        again(&system, projection, unreadable).await.unwrap();
    }
    assert_eq!(at(&system).await, (5, None, 5));
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

async fn replayed(system: &System, model: ReadModel, mode: Mode) -> Replayed {
    replay(&system.parts.log, &system.parts.project, model, mode, |_, _| {}).await.unwrap()
}

/// What a replay meets that it cannot take in, it parks as live projecting does; and a row that Postgres would not have
/// does not keep the others from being rebuilt.
#[tokio::test]
async fn a_rebuild_parks_what_it_cannot_take_in_and_goes_on() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let mut orders = Vec::new();
    for quantity in [1, 2, 3, 4] {
        orders.push(system.place(order_of(&[("mug", quantity, 1)])).await);
        system.settle().await;
    }
    let (unwanted, unreadable) = (orders[2], orders[3]);
    // The row is there, and may not be written again.
    let url = system.urls.database_url.clone();
    run(&url, "ALTER TABLE daybook.order_summary ADD CONSTRAINT broken CHECK (total <> 3250) NOT VALID").await;
    let payload = rewrite(&system, unreadable, "OrderConfirmed", "[]").await;
    let replayed_once = replayed(&system, ReadModel::OrderSummary, Mode::Switch).await;
    let compared = replayed_once.compared.unwrap();
    assert_eq!((compared.missing, compared.surplus, compared.different), (0, 1, 1), "{compared:?}");
    assert_eq!(
        (system.status(orders[0]).await, system.status(orders[1]).await),
        ("confirmed".into(), "confirmed".into())
    );
    assert!(projections::order_summary::get(&system.parts.read, unwanted.0).await.unwrap().is_none());
    assert_eq!(system.status(unreadable).await, "placed");
    let found = parked(&system).await;
    assert!(found.iter().all(|p| p.projection == "order_summary"), "{found:?}");
    let causes: Vec<_> = found.iter().filter_map(|p| Some((p.key, p.cause.as_deref()?))).collect();
    assert_eq!(causes.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [unwanted.0, unreadable.0]);
    assert!(causes[0].1.contains("violates check constraint"), "{causes:?}");
    // Once more it comes to the same, and what is new is taken in.
    let other = system.place(order_of(&[("mug", 5, 1)])).await;
    system.settle().await;
    let again = replayed(&system, ReadModel::OrderSummary, Mode::Switch).await;
    assert_eq!(again.compared.unwrap().differences(), 0);
    assert_eq!(parked(&system).await.len(), found.len());
    assert_eq!(system.status(other).await, "confirmed");

    run(&url, "ALTER TABLE daybook.order_summary DROP CONSTRAINT broken").await;
    rewrite(&system, unreadable, "OrderConfirmed", &payload).await;
    for order in [unwanted, unreadable] {
        self::again(&system, SUMMARY, order).await.unwrap();
    }
    assert_folded(&system).await;
}

/// The rows from before a replay lack what was parked when they were live; when they are live again, it is parked again.
#[tokio::test]
async fn what_was_mended_since_is_parked_again_when_a_replay_is_undone() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let (order, other) =
        (system.place(order_of(&[("mug", 1, 1)])).await, system.place(order_of(&[("mug", 2, 1)])).await);
    let payload = rewrite(&system, order, "OrderPlaced", "{}").await;
    system.project().await;
    let found = parked(&system).await;
    replayed(&system, ReadModel::OrderSummary, Mode::Switch).await;
    assert_eq!(named(&parked(&system).await), named(&found));
    rewrite(&system, order, "OrderPlaced", &payload).await;
    for projection in by_order() {
        again(&system, projection, order).await.unwrap();
    }
    system.settle().await;
    assert_folded(&system).await;

    replayed(&system, ReadModel::OrderSummary, Mode::Undo).await;
    assert_eq!(system.status(other).await, "confirmed");
    let parked_again = parked(&system).await;
    assert!(parked_again.iter().all(|p| p.key == order.0 && p.projection == "order_summary"), "{parked_again:?}");
    let first = found.iter().find(|p| p.projection == "order_summary");
    assert!(parked_again.len() > 1 && parked_again.first() == first, "{parked_again:?}");
    again(&system, SUMMARY, order).await.unwrap();
    assert_eq!(system.status(order).await, "confirmed");
    assert_folded(&system).await;
    // And back again, to rows that never lacked it.
    replayed(&system, ReadModel::OrderSummary, Mode::Undo).await;
    assert_eq!(parked(&system).await, []);
    assert_folded(&system).await;
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
