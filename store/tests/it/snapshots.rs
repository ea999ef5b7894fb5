//! Streams of many events: the snapshot that is kept of one, and when it is not used.

use crate::bank::{Answer, Bank, account, balances, deposit, withdraw};
use crate::harness::{database, id, log};
use sqlx::PgPool;
use uuid::Uuid;

/// More than are loaded at once.
const DEPOSITS: i64 = 1200;
/// As many are: the rest is too little for another snapshot.
const KEPT: i64 = 1000;

const RENT: Uuid = id(1);

async fn put_in(bank: &Bank, account: Uuid) {
    let (command_id, command) = deposit(account, 1);
    bank.execute(command_id, &command).await.unwrap();
}

/// The balance to a process that has read nothing yet: it is asked for more than there may be.
async fn balance(bank: &Bank) -> i64 {
    let (command_id, command) = withdraw(&[RENT], i64::MAX, Uuid::now_v7());
    match bank.execute(command_id, &command).await.unwrap() {
        Answer::Short(short) => short[0].1,
        other => panic!("{other:?}"),
    }
}

/// A stream that is long enough, and a process that has read it, and so left a snapshot.
async fn long_stream() -> (String, PgPool) {
    let url = database().await;
    let bank = Bank::start(&url, 7);
    futures_util::future::join_all((0..DEPOSITS).map(|_| put_in(&bank, RENT))).await;
    let reading = Bank::start(&url, 7);
    assert_eq!(balance(&reading).await, DEPOSITS);
    // What is asked of a loader later is done later.
    put_in(&reading, id(2)).await;
    put_in(&reading, id(3)).await;
    let superuser = PgPool::connect(&url).await.unwrap();
    (url, superuser)
}

const FORGED: &str = "UPDATE daybook.snapshots SET state = jsonb_set(state::jsonb, '{balance}', '5')::json";

#[tokio::test]
async fn a_long_account_is_read_from_its_snapshot_on() {
    let (url, superuser) = long_stream().await;
    let kept: (i16, i64, i64) =
        sqlx::query_as("SELECT category, version, fold FROM daybook.snapshots WHERE stream_id = $1")
            .bind(RENT)
            .fetch_one(&superuser)
            .await
            .unwrap();
    assert_eq!(kept, (account(RENT).category.id, KEPT, 7));
    put_in(&Bank::start(&url, 7), RENT).await;
    assert_eq!(balance(&Bank::start(&url, 7)).await, DEPOSITS + 1);
    // A balance that no event has made shows that it is what was read.
    sqlx::query(FORGED).execute(&superuser).await.unwrap();
    assert_eq!(balance(&Bank::start(&url, 7)).await, 5 + DEPOSITS + 1 - KEPT);
    // It is for who folds. Who reads the log is shown every event.
    assert_eq!(balances(&log(&url), RENT).await.last(), Some(&(DEPOSITS + 1)));
}

#[tokio::test]
async fn a_snapshot_of_another_version_of_the_code_is_not_used() {
    let (url, superuser) = long_stream().await;
    assert_eq!(sqlx::query(FORGED).execute(&superuser).await.unwrap().rows_affected(), 1);
    assert_eq!(balance(&Bank::start(&url, 8)).await, DEPOSITS);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_not_used() {
    let (url, superuser) = long_stream().await;
    let damaged = r#"UPDATE daybook.snapshots SET state = '{"balance":"much"}'"#;
    assert_eq!(sqlx::query(damaged).execute(&superuser).await.unwrap().rows_affected(), 1);
    assert_eq!(balance(&Bank::start(&url, 7)).await, DEPOSITS);
}
