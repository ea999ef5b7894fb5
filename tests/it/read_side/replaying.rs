//! A read model, rebuilt from the log beside the live one.

use crate::harness::{System, order_of, run};
use engine::ReadModel as _;
use engine::codec;
use engine::rebuild::Rebuild;
use engine::{Batch, Comparison};
use order_views::Orders;
use order_views::ReadModel;
use runtime::replay::{Mode, ReplayError, Replayed, replay};
use runtime::step::{Outcome, Step};
use sqlx::{AssertSqlSafe, query_scalar};
use store::lease;
use uuid::Uuid;

/// The rows that are served.
async fn rows(system: &System, model: ReadModel) -> Vec<String> {
    let name = model.name();
    let sql = format!(
        "SELECT (to_jsonb(t) - 'generation')::text FROM daybook.{name} t
         WHERE generation = (SELECT generation FROM daybook.checkpoints WHERE projection = '{name}' AND live) ORDER BY 1"
    );
    query_scalar(AssertSqlSafe(sql)).fetch_all(&system.parts.read).await.unwrap()
}

async fn tried(system: &System, model: ReadModel, mode: Mode) -> Result<Replayed, ReplayError> {
    replay(&system.parts.log, &system.parts.project, model, mode, |_, _| {}).await
}

async fn rebuild(system: &System, model: ReadModel) -> (Replayed, Comparison) {
    let replayed = tried(system, model, Mode::Switch).await.unwrap();
    let compared = replayed.compared.clone().unwrap();
    (replayed, compared)
}

async fn with_orders() -> System {
    let mut system = System::start().await;
    system.receive("mug", 4).await;
    for quantity in [1, 5, 2] {
        let order = system.place(order_of(&[("mug", quantity, 1)])).await;
        system.settle().await;
        system.ship(order).await;
    }
    // One that is not over.
    system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    system
}

/// What somebody did to the rows by hand: one is otherwise, one is missing, and one is too many.
const SPOIL: &str = "
    UPDATE daybook.order_summary SET total = total + 1 WHERE status = 'cancelled';
    INSERT INTO daybook.order_summary
    SELECT generation, '00000000-0000-0000-0000-000000000001', customer_id, status, reason, currency, total, authorised,
           captured, lines, delivered, payments, placed_at, changed_at, version
    FROM daybook.order_summary WHERE status = 'cancelled';
    DELETE FROM daybook.order_summary WHERE order_id = (
        SELECT order_id FROM daybook.order_summary WHERE status = 'completed' LIMIT 1)";

/// Invariant 17.
#[tokio::test]
async fn a_rebuilt_read_model_equals_the_live_one() {
    let mut system = with_orders().await;
    for model in ReadModel::ALL.iter().copied() {
        let live = rows(&system, model).await;
        assert!(!live.is_empty());
        let (replayed, compared) = rebuild(&system, model).await;
        assert_eq!((compared.differences(), compared.rows, compared.examples), (0, live.len() as i64, vec![]));
        let head = system.parts.log.head().await.unwrap();
        assert_eq!((replayed.switched, replayed.position, replayed.events), (true, head, head));
        assert_eq!(rows(&system, model).await, live);
    }
    // The live projection goes on, in the new generation.
    system.receive("mug", 7).await;
    system.project().await;
    let level = order_views::stock_level::get(&system.parts.read, "mug").await.unwrap().unwrap();
    assert_eq!(level.on_hand, 8);
    system.assert_verified().await;
}

#[tokio::test]
async fn what_was_wrong_is_told_and_right_afterwards_and_the_rows_before_can_be_gone_back_to() {
    let mut system = with_orders().await;
    let (model, database) = (ReadModel::OrderSummary, system.urls.database_url.clone());
    let nothing = tried(&system, model, Mode::Undo).await;
    assert!(matches!(nothing, Err(ReplayError::NothingKept("order_summary"))), "{nothing:?}");
    let right = rows(&system, model).await;
    run(&database, SPOIL).await;
    let spoiled = rows(&system, model).await;

    let dry = tried(&system, model, Mode::DryRun).await.unwrap();
    let compared = dry.compared.unwrap();
    assert_eq!((compared.different, compared.missing, compared.surplus, compared.rows), (1, 1, 1, 4));
    let total = |of: &Option<serde_json::Value>| of.as_ref().map(|row| row["total"].as_i64().unwrap());
    let totals: Vec<_> = compared.examples.iter().map(|d| (total(&d.before), total(&d.rebuilt))).collect();
    assert!(totals.contains(&(Some(5251), None)), "{totals:?}");
    assert!(totals.contains(&(Some(5251), Some(5250))), "{totals:?}");
    assert!(totals.iter().any(|(before, rebuilt)| before.is_none() && rebuilt.is_some()), "{totals:?}");
    assert!(!dry.switched);
    assert_eq!(rows(&system, model).await, spoiled, "it was only compared");

    let (_, compared) = rebuild(&system, model).await;
    assert_eq!(compared.differences(), 3);
    assert_eq!(rows(&system, model).await, right);
    // The rows that were live before have what has happened since.
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    let undone = tried(&system, model, Mode::Undo).await.unwrap();
    assert_eq!((undone.switched, undone.compared), (true, None));
    assert_eq!(rows(&system, model).await.len(), spoiled.len() + 1);
    assert!(!system.verify().await.agrees());
    assert_eq!(system.status(order).await, "cancelled: out_of_stock");
    // And back again.
    tried(&system, model, Mode::Undo).await.unwrap();
    assert_eq!(rows(&system, model).await.len(), right.len() + 1);
    system.receive("mug", 1).await;
    system.settle().await;
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
    for model in ReadModel::ALL.iter().copied() {
        rebuild(&system, model).await;
    }
    system.settle().await;
    assert_eq!(state(&system).await, before);
}

/// A replay that was killed leaves the live rows as they are, and the next one goes on where it was.
#[tokio::test]
async fn a_replay_that_was_cut_off_is_gone_on_with() {
    let mut system = with_orders().await;
    let (pool, head) = (system.parts.project.clone(), system.parts.log.head().await.unwrap());
    for model in ReadModel::ALL.iter().copied() {
        let live = rows(&system, model).await;
        let mut begun = Rebuild::begin(&pool, model, 1).await.unwrap();
        let page = system.parts.log.read_all(0, head / 2).await.unwrap();
        let last = page.last().unwrap().position;
        let events = page.into_iter().map(|e| codec::deliver::<Orders>(e).unwrap()).collect();
        let batch = Batch { events, proof: system.parts.log.end().await.unwrap() };
        begun.apply(&pool, &batch, last).await.unwrap();
        begun.write(&pool).await.unwrap();
        assert_eq!(rows(&system, model).await, live);
        let (replayed, compared) = rebuild(&system, model).await;
        assert_eq!((replayed.events, compared.differences()), (head - head / 2, 0), "{}", model.name());
        assert_eq!(rows(&system, model).await, live);
        // Should it not have been killed after all, it finds that it is too late.
        begun.apply(&pool, &batch, last + 1).await.unwrap();
        assert!(begun.write(&pool).await.is_err());
        assert_eq!(rows(&system, model).await, live);
    }
    system.settle().await;
    system.assert_verified().await;
}

#[tokio::test]
async fn one_process_at_a_time_replays_a_read_model() {
    let system = with_orders().await;
    let model = ReadModel::StockLevel;
    let other = lease::acquire(&system.parts.project, model.replay_name(), Uuid::now_v7()).await.unwrap().unwrap();
    let busy = tried(&system, model, Mode::Switch).await;
    assert!(matches!(busy, Err(ReplayError::Busy("stock_level"))), "{busy:?}");
    rebuild(&system, ReadModel::OrderSummary).await;
    lease::release(&system.parts.project, &other).await.unwrap();
    rebuild(&system, model).await;
    system.assert_verified().await;
}

/// Of instances whose code is of two versions, each writes the rows of its own only.
#[tokio::test]
async fn rows_of_another_version_are_left_alone_until_they_are_replayed() {
    let mut system = with_orders().await;
    let other = "UPDATE daybook.checkpoints SET version = 99 WHERE projection = 'stock_level'";
    run(&system.urls.database_url, other).await;
    let live = rows(&system, ReadModel::StockLevel).await;
    system.receive("mug", 7).await;
    system.relay().await;
    let head = system.parts.log.head().await.unwrap();
    while system.feed.position() < head {
        system.feed.step().await.unwrap();
    }
    let stock = &mut system.projectors[1];
    assert_eq!(stock.name(), "stock_level");
    stock.end().await;
    for _ in 0..3 {
        assert_eq!(stock.step().await.unwrap(), Outcome::Idle);
    }
    assert_eq!(rows(&system, ReadModel::StockLevel).await, live);
    // Whoever has that version can have the lease.
    let lease = lease::acquire(&system.parts.project, "stock_level", Uuid::now_v7()).await.unwrap().unwrap();
    lease::release(&system.parts.project, &lease).await.unwrap();
    rebuild(&system, ReadModel::StockLevel).await;
    system.project().await;
    let level = order_views::stock_level::get(&system.parts.read, "mug").await.unwrap().unwrap();
    assert_eq!(level.on_hand, 8);
    system.assert_verified().await;
}
