//! A read model, rebuilt from the log beside the live one.

use crate::harness::{System, order_of, run};
use projections::ReadModel;
use services::replay::{Replayed, replay};
use sqlx::{AssertSqlSafe, query_scalar};

async fn rows(system: &System, model: ReadModel) -> Vec<String> {
    let sql = format!("SELECT (to_jsonb(t) - 'generation')::text FROM daybook.{} t ORDER BY 1", model.name());
    query_scalar(AssertSqlSafe(sql)).fetch_all(&system.parts.read).await.unwrap()
}

async fn rebuild(system: &System, model: ReadModel) -> Replayed {
    replay(&system.parts.log, &system.parts.project, model, |_, _| {}).await.unwrap()
}

async fn with_orders() -> System {
    let mut system = System::start().await;
    system.receive("mug", 3).await;
    for quantity in [1, 5, 2] {
        let order = system.place(order_of(&[("mug", quantity, 1)])).await;
        system.settle().await;
        system.ship(order).await;
    }
    system
}

/// Invariant 17.
#[tokio::test]
async fn a_rebuilt_read_model_equals_the_live_one() {
    let mut system = with_orders().await;
    for model in ReadModel::ALL {
        let live = rows(&system, model).await;
        assert!(!live.is_empty());
        let replayed = rebuild(&system, model).await;
        assert_eq!((replayed.differences, replayed.rows), (0, live.len() as i64));
        assert_eq!(replayed.events, system.parts.log.head().await.unwrap());
        assert_eq!(rows(&system, model).await, live);
    }
    // The live projection goes on, in the new generation.
    system.receive("mug", 7).await;
    system.project().await;
    let level = projections::stock_level::get(&system.parts.read, "mug").await.unwrap().unwrap();
    assert_eq!(level.on_hand, 7);
    system.assert_verified().await;
}

#[tokio::test]
async fn what_was_wrong_is_counted_and_right_afterwards() {
    let system = with_orders().await;
    let right = rows(&system, ReadModel::OrderSummary).await;
    let spoil = "UPDATE daybook.order_summary SET total = total + 1 WHERE status = 'cancelled';
        DELETE FROM daybook.order_summary WHERE order_id = (
            SELECT order_id FROM daybook.order_summary WHERE status = 'completed' LIMIT 1)";
    run(&system.urls.database_url, spoil).await;
    let replayed = rebuild(&system, ReadModel::OrderSummary).await;
    // One row that is otherwise, on either side, and one that is missing.
    assert_eq!(replayed.differences, 3);
    assert_eq!(rows(&system, ReadModel::OrderSummary).await, right);
    system.assert_verified().await;
}

/// A replay writes rows, and nothing else: no follow-up is done again.
#[tokio::test]
async fn a_replay_leaves_follow_ups_and_the_log_alone() {
    let mut system = with_orders().await;
    let state = async |system: &System| {
        let sql = "SELECT f::text FROM daybook.follow_ups f ORDER BY 1";
        let follow_ups: Vec<String> = query_scalar(sql).fetch_all(&system.parts.read).await.unwrap();
        (follow_ups, system.parts.log.head().await.unwrap())
    };
    let before = state(&system).await;
    for model in ReadModel::ALL {
        rebuild(&system, model).await;
    }
    system.settle().await;
    assert_eq!(state(&system).await, before);
}

/// A replay that was killed leaves the live rows as they are; the next one begins anew.
#[tokio::test]
async fn a_replay_that_was_cut_off_leaves_the_live_rows() {
    let system = with_orders().await;
    let live = rows(&system, ReadModel::StockLevel).await;
    let mut transaction = system.parts.project.begin().await.unwrap();
    let begun = store::checkpoint::begin(&mut transaction, ReadModel::StockLevel.name()).await.unwrap();
    transaction.commit().await.unwrap();
    let half = format!("INSERT INTO daybook.stock_level VALUES ({}, 'mug', 1, 1, now(), 1)", begun.generation);
    run(&system.urls.database_url, &half).await;
    assert_eq!(projections::stock_level::list(&system.parts.read, None, 10).await.unwrap().len(), live.len());
    let replayed = rebuild(&system, ReadModel::StockLevel).await;
    assert_eq!((replayed.differences, replayed.generation), (0, begun.generation));
    assert_eq!(rows(&system, ReadModel::StockLevel).await, live);
}
