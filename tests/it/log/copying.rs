//! Copies of read models: as they were, or of a part of the log.

use crate::harness::{System, daybook_on, order_of, run};
use engine::ReadModel as _;
use engine::rebuild::Rebuild;
use order_views::ReadModel;
use runtime::replay::{Mode, ReplayError, Replayed, replay};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool, query_scalar};
use std::process::Output;
use store::lease;
use uuid::Uuid;

async fn daybook(system: &System, arguments: &str) -> Output {
    daybook_on(&system.urls).args(arguments.split(' ')).output().await.unwrap()
}

/// What the verb prints in the end, as JSON.
async fn copied(system: &System, arguments: &str) -> Value {
    let output = daybook(system, &format!("replay {arguments} --json")).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn refused(system: &System, arguments: &str) -> (Option<i32>, String) {
    let output = daybook(system, &format!("replay {arguments}")).await;
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The rows of a table, without what only a read model has.
async fn rows(pool: &PgPool, table: &str) -> Vec<String> {
    let sql = format!("SELECT (to_jsonb(t) - 'generation')::text FROM {table} t ORDER BY 1");
    query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap()
}

/// The rows that are served.
async fn live(pool: &PgPool, model: &str) -> Vec<String> {
    let live = format!(
        "(SELECT * FROM daybook.{model} WHERE generation = (
              SELECT generation FROM daybook.checkpoints WHERE projection = '{model}' AND live))"
    );
    rows(pool, &live).await
}

async fn undo(system: &System) -> Result<Replayed, ReplayError> {
    replay(&system.parts.log, &system.parts.project, ReadModel::OrderSummary, Mode::Undo, |_, _| ()).await
}

/// A copy as of each time is what the live rows were then.
#[tokio::test]
async fn every_read_model_can_be_seen_as_it_was() {
    let mut system = System::start().await;
    let read = system.parts.read.clone();
    system.receive("mug", 4).await;
    let first = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    let last = system.parts.log.read_all_backward(i64::MAX, 1).await.unwrap().remove(0);
    let (then, head) = (last.recorded_at.to_rfc3339(), last.position);
    let mut were = Vec::new();
    for model in ReadModel::ALL.iter().copied() {
        were.push(live(&read, model.name()).await);
    }
    system.ship(first).await;
    system.place(order_of(&[("mug", 2, 1)])).await;
    system.settle().await;
    let mut are = Vec::new();
    for (model, were) in ReadModel::ALL.iter().copied().zip(were) {
        let name = model.name();
        let are_live = live(&read, name).await;
        assert_ne!(are_live, were, "{name} has moved on");
        let was = copied(&system, &format!("{name} --as-of {then} --into was_{name}")).await;
        assert_eq!((&was["position"], &was["events"]), (&head.into(), &head.into()), "{was}");
        assert_eq!(was["rows"], were.len(), "{was}");
        assert_eq!(rows(&read, &format!("daybook_copies.was_{name}")).await, were);
        let to = copied(&system, &format!("{name} --to {head} --into to_{name}")).await;
        assert_eq!(to["position"], head, "{to}");
        assert_eq!(rows(&read, &format!("daybook_copies.to_{name}")).await, were);
        // Of the whole log, it is what the live rows are.
        copied(&system, &format!("{name} --into is_{name}")).await;
        assert_eq!(rows(&read, &format!("daybook_copies.is_{name}")).await, are_live);
        assert_eq!(live(&read, name).await, are_live, "the live rows are as they were");
        are.push(are_live);
    }
    system.assert_verified().await;
    // A copy stays as it is.
    system.receive("mug", 9).await;
    system.project().await;
    let copy = rows(&read, "daybook_copies.is_stock_level").await;
    assert_eq!(copy, are[1]);
    assert_ne!(live(&read, "stock_level").await, copy);
}

#[tokio::test]
async fn a_part_of_the_log_makes_rows_of_its_own() {
    let mut system = System::start().await;
    let read = system.parts.read.clone();
    system.receive("mug", 10).await;
    let first = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    let middle = system.parts.log.head().await.unwrap();
    let second = system.place(order_of(&[("mug", 2, 1)])).await;
    system.settle().await;
    let ids = async |table: &str| -> Vec<String> {
        let sql = format!("SELECT order_id::text FROM {table} ORDER BY placed_at");
        query_scalar(AssertSqlSafe(sql)).fetch_all(&read).await.unwrap()
    };
    // An order is more than its stream.
    copied(&system, &format!("order_summary --only order-{} --into one", first.0)).await;
    let live = format!("(SELECT * FROM daybook.order_summary WHERE order_id = '{}')", first.0);
    assert_eq!(rows(&read, "daybook_copies.one").await, rows(&read, &live).await);
    copied(&system, "order_summary --only order --into orders").await;
    assert_eq!(ids("daybook_copies.orders").await, [first.0.to_string(), second.0.to_string()]);
    let authorised = "SELECT sum(authorised)::bigint FROM daybook_copies.orders";
    let authorised: i64 = query_scalar(authorised).fetch_one(&read).await.unwrap();
    assert_eq!(authorised, 0, "without the events of payments");
    // What began before has no row.
    let late = copied(&system, &format!("order_summary --from {} --into late", middle + 1)).await;
    assert_eq!(late["events"], system.parts.log.head().await.unwrap() - middle, "{late}");
    assert_eq!(ids("daybook_copies.late").await, [second.0.to_string()]);
    let none = copied(&system, "order_summary --as-of 2001-01-01T00:00:00Z --into none").await;
    assert_eq!((&none["rows"], &none["position"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn a_copy_is_refused_by_name_and_none_is_gone_on_with() {
    let mut system = System::start().await;
    let read = system.parts.read.clone();
    system.receive("mug", 10).await;
    system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    copied(&system, "stock_level --into mine").await;
    let (code, told) = refused(&system, "stock_level --into mine").await;
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("daybook_copies.mine already: take another name"), "{told}");
    for (bad, why) in [
        ("stock_level --into Mine", "small letters"),
        ("stock_level --as-of 2001-01-01T00:00:00Z", "--into"),
        ("stock_level --into x --only shelf", "order, payment, stock, shipment"),
        ("stock_level --into x --from 3 --to 2", "--from 3 is after --to 2"),
        ("stock_level --into x --undo", "cannot be used with"),
    ] {
        let (code, told) = refused(&system, bad).await;
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(why), "{told}");
    }
    // Killed in the middle, a copy of a part leaves rows that no replay takes for its own.
    let lease = lease::acquire(&system.parts.project, "test", Uuid::now_v7()).await.unwrap().unwrap();
    Rebuild::of_part(&system.parts.project, ReadModel::OrderSummary, lease.fence).await.unwrap();
    let begun = "UPDATE daybook.checkpoints SET position = 3 WHERE NOT live";
    run(&system.urls.database_url, begun).await;
    let are_live = live(&read, "order_summary").await;
    let (log, pool) = (&system.parts.log, &system.parts.project);
    let replayed = replay(log, pool, ReadModel::OrderSummary, Mode::Switch, |_, _| ()).await.unwrap();
    assert_eq!((replayed.events, replayed.compared.unwrap().differences()), (replayed.position, 0));
    assert_eq!(live(&read, "order_summary").await, are_live);
    // A copy takes the place of what was kept.
    copied(&system, "order_summary --into other").await;
    let nothing = undo(&system).await;
    assert!(matches!(nothing, Err(ReplayError::NothingKept(_))), "{nothing:?}");
    system.assert_verified().await;
}
