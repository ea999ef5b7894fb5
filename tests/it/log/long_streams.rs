//! Streams of many events: what is kept of them, and when it is not believed.

use crate::harness::{System, envelope, receive};
use order_services::{ExecuteError, Executor};
use order_views::stream as stream_of;
use orders::id::{Sku, StockId};
use orders::stock::Stock;
use orders::{Command, stock};
use sqlx::PgPool;
use store::{Appender, Loader};
use uuid::Uuid;

/// More than are read at once.
const RECEIVED: u32 = 1200;
/// As many are: the rest is too little for another snapshot.
const KEPT: u32 = 1000;

fn sku() -> Sku {
    Sku::new("mug").unwrap()
}

/// Another process, which folds with the code of this number.
fn another(system: &System, fold: i64) -> Executor {
    let url = &system.urls.database_url;
    let appender = Appender::start(url).unwrap();
    let loader = Loader::start(url, fold, appender.history()).unwrap();
    Executor::new(system.parts.log.clone(), loader, appender)
}

/// How many pieces there are to a process that has read nothing yet: it is asked for one more than there may be.
async fn on_hand(executor: &Executor) -> u64 {
    let line = orders::order::StockLine { line: 1, sku: sku(), quantity: u32::MAX };
    let order_id = orders::id::OrderId(Uuid::now_v7());
    let reserve = stock::Command::Reserve { order_id, lines: vec![line], hold_seconds: 60, edit: None };
    match executor.execute(&envelope(Uuid::now_v7(), Command::Stock(reserve))).await {
        Err(ExecuteError::Rejected(orders::Rejection::Stock(stock::Rejection::OutOfStock { short }))) => {
            short[0].available
        }
        other => panic!("{other:?}"),
    }
}

/// A stream that is long enough, and a process that has read it, and so left a snapshot.
async fn long_stream() -> (System, PgPool) {
    let system = System::start().await;
    let received = (0..RECEIVED).map(|_| receive(&system.executor, "mug", 1));
    futures_util::future::join_all(received).await;
    let reading = another(&system, 7);
    assert_eq!(on_hand(&reading).await, u64::from(RECEIVED));
    // What is asked of a loader later is done later.
    receive(&reading, "hat", 1).await;
    receive(&reading, "pen", 1).await;
    let superuser = system.superuser().await;
    (system, superuser)
}

#[tokio::test]
async fn a_long_stream_is_read_from_its_snapshot_on() {
    let (system, superuser) = long_stream().await;
    let id = StockId::from(&sku()).0;
    let kept: (i16, i64, i64) =
        sqlx::query_as("SELECT category, version, fold FROM daybook.snapshots WHERE stream_id = $1")
            .bind(id)
            .fetch_one(&superuser)
            .await
            .unwrap();
    assert_eq!(kept, (stream_of::<Stock>(id).category.id, i64::from(KEPT), 7));
    receive(&system.executor, "mug", 1).await;
    assert_eq!(on_hand(&another(&system, 7)).await, u64::from(RECEIVED) + 1);
    // A mark that no event has made shows that it is what was read.
    let marked = "UPDATE daybook.snapshots SET state = jsonb_set(state::jsonb, '{on_hand}', '5')::json";
    sqlx::query(marked).execute(&superuser).await.unwrap();
    assert_eq!(on_hand(&another(&system, 7)).await, u64::from(5 + RECEIVED + 1 - KEPT));
}

#[tokio::test]
async fn a_snapshot_that_another_fold_has_made_is_not_believed() {
    let (system, superuser) = long_stream().await;
    let marked = "UPDATE daybook.snapshots SET state = jsonb_set(state::jsonb, '{on_hand}', '5')::json";
    assert_eq!(sqlx::query(marked).execute(&superuser).await.unwrap().rows_affected(), 1);
    assert_eq!(on_hand(&another(&system, 8)).await, u64::from(RECEIVED));
}

#[tokio::test]
async fn a_snapshot_that_is_none_is_not_believed() {
    let (system, superuser) = long_stream().await;
    let damaged = r#"UPDATE daybook.snapshots SET state = '{"on_hand":"many"}'"#;
    assert_eq!(sqlx::query(damaged).execute(&superuser).await.unwrap().rows_affected(), 1);
    assert_eq!(on_hand(&another(&system, 7)).await, u64::from(RECEIVED));
}
