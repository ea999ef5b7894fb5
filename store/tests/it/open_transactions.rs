//! Invariant 8, and what others hold open meanwhile: an append that is not committed yet, or something beside the log.

use crate::harness::{append, appenders_waiting, database, log, open_append, run, stream, to};
use daybook_store::ExpectedVersion::NoStream;
use daybook_store::{Appender, Filter, RecordedEvent};
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// An append stands open in its transaction; others wait behind it, and a subscriber polls. Whether it is committed or
/// rolled back in the end, the subscriber is shown every event once, in the order of dense positions.
#[tokio::test]
async fn nothing_is_skipped_over_an_append_that_is_still_open() {
    for end in ["COMMIT", "ROLLBACK"] {
        let url = database().await;
        let log = log(&url);
        let appenders = [Appender::start(&url).unwrap(), Appender::start(&url).unwrap()];
        appenders[0].append(append(vec![to(stream(1), NoStream, 2)])).await.unwrap();
        let mut subscription = log.subscribe(0, Filter::default(), appenders[0].head());
        assert_eq!(subscription.next().await.unwrap().len(), 2);

        let mut open = open_append(&url).await;
        let subscriber = tokio::spawn(async move {
            let mut seen: Vec<RecordedEvent> = Vec::new();
            while seen.iter().filter(|event| *event.metadata.actor == *"test").count() < 6 {
                seen.extend(subscription.next().await.unwrap());
            }
            seen
        });
        let waiting = (2..).zip(appenders).map(|(n, appender)| {
            tokio::spawn(async move { appender.append(append(vec![to(stream(n), NoStream, 3)])).await.unwrap() })
        });
        let waiting: Vec<_> = waiting.collect();
        appenders_waiting(&url, 2).await;
        assert_eq!(log.head().await.unwrap(), 2);
        assert!(log.read_all(2, 10).await.unwrap().is_empty());
        assert!(!subscriber.is_finished());
        sqlx::raw_sql(end).execute(&mut open).await.unwrap();

        let mut positions: Vec<_> = join_all(waiting).await.into_iter().map(|w| w.unwrap().position).collect();
        positions.sort_unstable();
        let seen = subscriber.await.unwrap();
        let first = if end == "COMMIT" { "hung" } else { "test" };
        assert_eq!(*seen[0].metadata.actor, *first);
        assert!((3..).zip(&seen).all(|(n, event)| event.position == n), "{end}: {seen:?}");
        assert_eq!(positions, if end == "COMMIT" { [6, 9] } else { [5, 8] });
        assert_eq!(seen.len() as i64, positions[1] - 2);
    }
}

/// A transaction of somebody else that has written (so that the horizon of transactions stands still), looks at an old
/// snapshot and locks every table that appends and polls do not need: they go on to their end under it.
#[tokio::test]
async fn a_foreign_transaction_that_writes_and_locks_stalls_nobody() {
    let url = database().await;
    run(&url, "CREATE TABLE foreign_table (n int)").await;
    let mut foreign = PgConnection::connect(&url).await.unwrap();
    // Each connect reads which parts and migrations the schema has.
    let others = "SELECT string_agg(format('daybook.%I', tablename), ', ') FROM pg_tables
                  WHERE schemaname = 'daybook'
                    AND tablename <> ALL (ARRAY['events', 'log', 'event_types', 'schema_parts'])
                    AND tablename NOT LIKE '%migrations'";
    let others: String = sqlx::query_scalar(others).fetch_one(&mut foreign).await.unwrap();
    assert!(["checkpoints", "leases", "snapshots", "epochs"].iter().all(|table| others.contains(table)), "{others}");
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ;
         SELECT count(*) FROM daybook.events;
         INSERT INTO foreign_table VALUES (1);
         LOCK TABLE foreign_table, {others} IN ACCESS EXCLUSIVE MODE"
    );
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut foreign).await.unwrap();
    let log = log(&url);
    let appenders = [Appender::start(&url).unwrap(), Appender::start(&url).unwrap()];
    let mut subscription = log.subscribe(0, Filter::default(), appenders[0].head());
    let appending = join_all((0..200).map(|n| {
        let appender = &appenders[n as usize % 2];
        async move { appender.append(append(vec![to(stream(n), NoStream, 1)])).await.unwrap() }
    }));
    let polling = async {
        let mut seen = Vec::new();
        while seen.len() < 200 {
            seen.extend(subscription.next().await.unwrap().into_iter().map(|event| event.position));
        }
        seen
    };
    let (_, seen) = tokio::join!(appending, polling);
    assert_eq!(seen, (1..=200).collect::<Vec<_>>());
    // It was open all the while, and saw nothing of it.
    let count = "SELECT count(*) FROM daybook.events";
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut foreign).await.unwrap(), 0);
    sqlx::raw_sql("COMMIT").execute(&mut foreign).await.unwrap();
}
