//! What the log promises to whoever appends, on a real Postgres.

use crate::bank::CATEGORIES;
use crate::harness::{append, append_as, database, event, forge, id, log, open_append, run, stream, to};
use chrono::{DateTime, Utc};
use daybook_store::connect::{self, Role};
use daybook_store::{
    Append, AppendError, Appended, Appender, ExpectedVersion, Log, RecordedEvent, Speculation, StreamAppend, StreamId,
    event_id,
};
use sqlx::{Connection, PgConnection};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;

struct Store {
    url: String,
    log: Log,
    appender: Appender,
}

impl Store {
    async fn new() -> Self {
        let url = database().await;
        let log = log(&url);
        let appender = Appender::start(&url).unwrap();
        Self { url, log, appender }
    }

    async fn all(&self) -> Vec<RecordedEvent> {
        self.log.read_all(0, 100_000).await.unwrap()
    }

    /// Positions are 1..n, and each stream's versions 1..n in their order: invariants 4 and 8.
    async fn assert_dense(&self) -> Vec<RecordedEvent> {
        let events = self.all().await;
        let mut versions = std::collections::HashMap::new();
        for (n, event) in (1..).zip(&events) {
            assert_eq!(event.position, n);
            let version = versions.entry(event.stream).or_insert(0);
            *version += 1;
            assert_eq!(event.version, *version, "at position {n}");
        }
        assert!(events.windows(2).all(|pair| pair[0].recorded_at <= pair[1].recorded_at));
        events
    }
}

use ExpectedVersion::{Any, Exact, Exists, NoStream};

#[tokio::test]
async fn an_event_is_read_back_as_it_was_appended() {
    let store = Store::new().await;
    let payload = "{ \"b\" : [1,  2.50],\"a\":\"\u{e9}\\n\" }";
    let write = StreamAppend { stream: stream(1), expected: NoStream, events: vec![event(payload)] };
    let mut append = append(vec![write]);
    append.metadata.causation_id = Some(id(9));
    append.metadata.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    append.metadata.occurred_at = DateTime::from_timestamp_micros(1_500_000_000_123_456).unwrap();
    let appended = store.appender.append(append.clone()).await.unwrap();
    let read = store.log.read_stream(stream(1), 0, 10).await.unwrap();
    let expected = RecordedEvent {
        position: 1,
        stream: stream(1),
        version: 1,
        event_id: event_id(append.metadata.command_id, 0),
        event_type: "Tested".into(),
        schema_version: 1,
        recorded_at: appended.recorded_at,
        metadata: append.metadata,
        payload: payload.into(),
        link: Some(store.log.end().await.unwrap().link),
    };
    assert_eq!(read, [expected]);
    assert_eq!((appended.position, appended.versions), (1, vec![1]));
}

#[tokio::test]
async fn each_expectation_holds_or_is_a_typed_conflict() {
    let store = Store::new().await;
    let write = async |expected, events| {
        store.appender.append(append(vec![to(stream(1), expected, events)])).await.map(|a| a.versions[0])
    };
    let conflict = |expected, actual| Err(AppendError::VersionConflict { stream: stream(1), expected, actual });
    assert_eq!(write(Exists, 1).await, conflict(Exists, 0));
    assert_eq!(write(Exact(1), 1).await, conflict(Exact(1), 0));
    assert_eq!(write(NoStream, 2).await, Ok(2));
    assert_eq!(write(NoStream, 1).await, conflict(NoStream, 2));
    assert_eq!(write(Exact(1), 1).await, conflict(Exact(1), 2));
    assert_eq!(write(Exact(9), 1).await, conflict(Exact(9), 2));
    assert_eq!(write(Exact(2), 1).await, Ok(3));
    assert_eq!(write(Exists, 1).await, Ok(4));
    assert_eq!(write(Any, 2).await, Ok(6));
    // Expectations alone.
    assert_eq!(write(Exact(6), 0).await, Ok(6));
    assert_eq!(write(Exact(5), 0).await, conflict(Exact(5), 6));
    assert_eq!(write(NoStream, 0).await, conflict(NoStream, 6));
    assert_eq!(store.assert_dense().await.len(), 6);
}

/// Of two processes, each of one client, both write: who was alone finds that it is not, and takes the long way.
#[tokio::test]
async fn one_client_a_process_writes_whoever_else_does() {
    let store = Store::new().await;
    let other = Appender::start(&store.url).unwrap();
    for round in 0..5 {
        for (n, appender) in [(1, &store.appender), (2, &other)] {
            // The first of a turn follows the other's, the next ones its own.
            for turn in 0..4 {
                let version = round * 4 + turn;
                let expected = if version == 0 { NoStream } else { Exact(version) };
                let appended = appender.append(append(vec![to(stream(n), expected, 1)])).await.unwrap();
                assert_eq!((appended.versions, appended.end.position), (vec![version + 1], appended.position));
            }
        }
    }
    // A conflict, and an id that is taken, are told on the short way as well.
    let conflict = store.appender.append(append(vec![to(stream(1), Exact(3), 1)])).await;
    assert!(matches!(conflict, Err(AppendError::VersionConflict { actual: 20, .. })), "{conflict:?}");
    let twice = append(vec![to(stream(3), NoStream, 1)]);
    let first = store.appender.append(twice.clone()).await.unwrap();
    store.appender.append(append(vec![to(stream(4), NoStream, 1)])).await.unwrap();
    let again = store.appender.append(twice).await;
    assert_eq!(again, Err(AppendError::AlreadyRecorded { position: first.position }));
    let all = store.assert_dense().await;
    let mut chain = daybook_store::Chain::after(daybook_store::Mark::GENESIS);
    assert!(all.iter().all(|event| chain.advance(event).unwrap()), "each is a group of its own");
}

/// Invariants 2 and 5.
#[tokio::test]
async fn an_append_to_several_streams_is_all_or_nothing() {
    let store = Store::new().await;
    let both = append(vec![to(stream(1), NoStream, 2), to(stream(2), NoStream, 1)]);
    let appended = store.appender.append(both).await.unwrap();
    assert_eq!((appended.position, appended.versions), (3, vec![2, 1]));
    let half = append(vec![to(stream(1), Exact(2), 1), to(stream(2), Exact(7), 1)]);
    let conflict = AppendError::VersionConflict { stream: stream(2), expected: Exact(7), actual: 1 };
    assert_eq!(store.appender.append(half).await, Err(conflict));
    // A stream that is only expected, not written.
    let guarded = |version| append(vec![to(stream(1), Exact(2), 1), to(stream(2), Exact(version), 0)]);
    assert!(store.appender.append(guarded(0)).await.is_err());
    assert_eq!(store.appender.append(guarded(1)).await.unwrap().versions, [3, 1]);
    assert_eq!(store.assert_dense().await.len(), 4);
}

/// Invariant 6.
#[tokio::test]
async fn of_many_appends_at_one_expected_version_exactly_one_wins() {
    let store = Store::new().await;
    let other = Appender::start(&store.url).unwrap();
    for version in 0..10 {
        let expected = if version == 0 { NoStream } else { Exact(version) };
        let tries = (0..16).map(|n| {
            let appender = if n % 2 == 0 { &store.appender } else { &other };
            appender.append(append(vec![to(stream(1), expected, 1)]))
        });
        let outcomes = futures_util::future::join_all(tries).await;
        assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{outcomes:?}");
        let lost = |o: &&Result<Appended, AppendError>| matches!(o, Err(AppendError::VersionConflict { actual, .. }) if *actual == version + 1);
        assert_eq!(outcomes.iter().filter(lost).count(), 15, "{outcomes:?}");
    }
    assert_eq!(store.assert_dense().await.len(), 10);
}

/// Invariants 1 and 3: sent again, whatever came of it the first time, a command has its events once.
#[tokio::test]
async fn an_append_that_is_sent_again_is_recorded_once() {
    let store = Store::new().await;
    for (n, expected) in [(1, NoStream), (2, Any)] {
        let command = Uuid::now_v7();
        let again = || store.appender.append(append_as(command, vec![to(stream(n), expected, 2)]));
        let outcomes = futures_util::future::join_all((0..8).map(|_| again())).await;
        let written: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(written.len(), 1, "{outcomes:?}");
        let first = written[0].position - 1;
        assert_eq!(again().await, Err(AppendError::AlreadyRecorded { position: first }));
        assert_eq!(store.log.read_command(command).await.unwrap().len(), 2);
    }
    assert_eq!(store.assert_dense().await.len(), 4);
}

/// The fault: one bad append among 63 good ones in a group.
#[tokio::test]
async fn one_bad_append_among_63_good_ones_fails_alone() {
    // Each of them would fail its whole group in the database, or be refused before it can.
    type Spoil = fn(&mut Append);
    let bad: [(&str, Spoil); 4] = [
        ("a date beyond Postgres' calendar", |a| a.metadata.occurred_at = DateTime::<Utc>::MIN_UTC),
        ("NUL", |a| a.streams[0].events[0].payload = r#"{"a":"\u0000"}"#.into()),
        ("no JSON", |a| a.streams[0].events[0].payload = "{".into()),
        ("a stale version", |a| a.streams[0].expected = Exact(5)),
    ];
    for (what, spoil) in bad {
        let store = Store::new().await;
        // The connection is made first, so that the 64 wait for one another and form a group.
        store.appender.append(append(vec![to(stream(1000), NoStream, 1)])).await.unwrap();
        let appends = (0..64).map(|n| {
            let mut append = append(vec![to(stream(n), NoStream, 1)]);
            if n == 40 {
                spoil(&mut append);
            }
            store.appender.append(append)
        });
        let outcomes = futures_util::future::join_all(appends).await;
        for (n, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.is_ok(), n != 40, "{what}: {outcome:?}");
        }
        let refused = &outcomes[40];
        assert!(!matches!(refused, Err(AppendError::Unavailable(_))), "{what}: {refused:?}");
        assert_eq!(store.assert_dense().await.len(), 64, "{what}");
    }
}

/// Invariant 8: with two processes appending, a poller that remembers where it was misses nothing and sees no gap.
#[tokio::test]
async fn a_poller_sees_every_event_once_and_in_order_while_two_processes_append() {
    const EACH: u128 = 400;
    let store = Store::new().await;
    let other = Appender::start(&store.url).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let polled = tokio::spawn({
        let (log, done) = (store.log.clone(), done.clone());
        async move {
            let mut last = 0;
            loop {
                let finished = done.load(Ordering::Acquire);
                let page = log.read_all(last, 50).await.unwrap();
                for event in &page {
                    assert_eq!(event.position, last + 1);
                    last = event.position;
                }
                if finished && page.is_empty() {
                    return last;
                }
            }
        }
    });
    let burst = |appender: &Appender, first: u128| {
        let appender = appender.clone();
        let one = move |n| {
            let appender = appender.clone();
            async move { appender.append(append(vec![to(stream(n), NoStream, 1)])).await.unwrap() }
        };
        futures_util::future::join_all((first..first + EACH).map(one))
    };
    tokio::join!(burst(&store.appender, 0), burst(&other, EACH));
    done.store(true, Ordering::Release);
    assert_eq!(polled.await.unwrap() as u128, 2 * EACH);
    store.assert_dense().await;
}

/// A process that stops in the middle of its append, with the lock in its hands, must not stop the others.
#[tokio::test]
async fn an_appender_that_hangs_with_the_lock_does_not_stop_another() {
    let store = Store::new().await;
    let mut hung = open_append(&store.url).await;
    // It waits for the lock until Postgres ends the session that is idle in its transaction.
    let mut appended = store.appender.append(append(vec![to(stream(1), NoStream, 1)])).await;
    if let Err(AppendError::Unavailable(_)) = appended {
        // The wait may be cut short, in a typed way; then the same is sent again.
        appended = store.appender.append(append(vec![to(stream(1), NoStream, 1)])).await;
    }
    assert_eq!(appended.unwrap().position, 1);
    assert_eq!(store.assert_dense().await.len(), 1);
    assert!(hung.ping().await.is_err());
}

/// A transaction that somebody else holds open, however long, stalls neither appends nor readers.
#[tokio::test]
async fn a_long_foreign_transaction_stalls_nobody() {
    let store = Store::new().await;
    let mut foreign = PgConnection::connect(&store.url).await.unwrap();
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM daybook.events")
        .execute(&mut foreign)
        .await
        .unwrap();
    for version in 0..50 {
        let expected = if version == 0 { NoStream } else { Exact(version) };
        store.appender.append(append(vec![to(stream(1), expected, 1)])).await.unwrap();
        assert_eq!(store.log.read_all(version, 10).await.unwrap().len(), 1);
    }
    sqlx::raw_sql("COMMIT").execute(&mut foreign).await.unwrap();
}

/// A clock that is set back does not let `recorded_at` fall.
#[tokio::test]
async fn recorded_at_never_falls_with_position() {
    let store = Store::new().await;
    let first = store.appender.append(append(vec![to(stream(1), NoStream, 1)])).await.unwrap();
    forge(&store.url, "UPDATE daybook.events SET recorded_at = recorded_at + interval '1 hour'").await;
    let second = store.appender.append(append(vec![to(stream(1), Exact(1), 1)])).await.unwrap();
    assert_eq!(second.recorded_at, first.recorded_at + chrono::TimeDelta::hours(1));
    store.assert_dense().await;
}

/// What the process takes the versions to be is worth nothing once another one has written.
#[tokio::test]
async fn a_version_that_another_process_has_passed_is_a_conflict() {
    let store = Store::new().await;
    let other = Appender::start(&store.url).unwrap();
    store.appender.append(append(vec![to(stream(1), NoStream, 1)])).await.unwrap();
    other.append(append(vec![to(stream(1), Exact(1), 1)])).await.unwrap();
    let conflict = |expected, actual| Err(AppendError::VersionConflict { stream: stream(1), expected, actual });
    assert_eq!(store.appender.append(append(vec![to(stream(1), Exact(1), 1)])).await, conflict(Exact(1), 2));
    store.appender.append(append(vec![to(stream(1), Exact(2), 1)])).await.unwrap();
    // Not only of the streams that the other one wrote: also where this one's own knowledge is older than that.
    store.appender.append(append(vec![to(stream(2), NoStream, 1)])).await.unwrap();
    other.append(append(vec![to(stream(2), Exact(1), 1)])).await.unwrap();
    store.appender.append(append(vec![to(stream(3), NoStream, 1)])).await.unwrap();
    assert_eq!(
        store.appender.append(append(vec![to(stream(2), Exact(1), 1)])).await,
        Err(AppendError::VersionConflict { stream: stream(2), expected: Exact(1), actual: 2 })
    );
    store.assert_dense().await;
}

/// Invariant 4: what a group claims together is checked together.
#[tokio::test]
async fn two_appends_in_one_group_cannot_leave_a_gap() {
    let store = Store::new().await;
    store.appender.append(append(vec![to(stream(1), NoStream, 1)])).await.unwrap();
    let group = async |tries: &[(StreamId, ExpectedVersion)]| {
        let tries = tries.iter().map(|(stream, expected)| append(vec![to(*stream, *expected, 1)]));
        let outcomes = futures_util::future::join_all(tries.map(|append| store.appender.append(append))).await;
        outcomes.iter().map(Result::is_ok).collect::<Vec<bool>>()
    };
    assert_eq!(
        group(&[(stream(9), NoStream), (stream(1), Exact(1)), (stream(1), Exact(3))]).await,
        [true, true, false]
    );
    store.assert_dense().await;
    // Nor is a stream that this process does not know taken to fit.
    assert_eq!(group(&[(stream(9), Exact(1)), (stream(2), Any), (stream(3), Exists)]).await, [true, true, false]);
    assert_eq!(store.assert_dense().await.len(), 5);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_reaches_the_database() {
    let store = Store::new().await;
    let refused = async |streams| matches!(store.appender.append(append(streams)).await, Err(AppendError::Refused(_)));
    let with = |payload: String| vec![StreamAppend { events: vec![event(&payload)], ..to(stream(1), NoStream, 0) }];
    assert!(refused(with(format!("\"{}\"", "x".repeat(128 * 1024)))).await);
    assert!(refused(with("[".repeat(1000) + &"]".repeat(1000))).await);
    assert!(refused(vec![to(stream(1), NoStream, 1001)]).await);
    assert!(refused(vec![to(stream(1), NoStream, 1), to(stream(1), Exact(1), 1)]).await);
    assert!(refused(vec![]).await);
    let large = |n| StreamAppend {
        events: vec![event(&format!("\"{}\"", "x".repeat(100_000))); 50],
        ..to(stream(n), NoStream, 0)
    };
    assert!(refused(vec![large(1)]).await);
    let mut blank = append(vec![to(stream(1), NoStream, 1)]);
    blank.metadata.actor = " shop".into();
    assert!(matches!(store.appender.append(blank).await, Err(AppendError::Refused(_))));
    assert!(store.all().await.is_empty());
}

/// Another session has the log for longer than an appender waits: it appends again as soon as it can.
#[tokio::test]
async fn a_log_that_cannot_be_locked_does_not_stop_the_appender() {
    let store = Store::new().await;
    store.appender.append(append(vec![to(stream(1), NoStream, 1)])).await.unwrap();
    let mut other = PgConnection::connect(&store.url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT FROM daybook.log FOR UPDATE").execute(&mut other).await.unwrap();
    assert!(store.appender.lock_log().await.is_err());
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    store.appender.append(append(vec![to(stream(1), Exact(1), 1)])).await.unwrap();
    drop(store.appender.lock_log().await.unwrap());
    store.appender.append(append(vec![to(stream(1), Exact(2), 1)])).await.unwrap();
    store.assert_dense().await;
}

/// A page that is refused must not leave its answer to the next query on the same connection.
#[tokio::test]
async fn a_read_that_is_refused_leaves_nothing_to_the_next_one() {
    let store = Store::new().await;
    let command_id = Uuid::now_v7();
    store.appender.append(append_as(command_id, vec![to(stream(1), NoStream, 1)])).await.unwrap();
    let log = Log::new(connect::pool(&store.url, Role::Read, 1).unwrap(), CATEGORIES);
    assert_eq!(log.read_command(command_id).await.unwrap().len(), 1);
    let mut other = PgConnection::connect(&store.url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE daybook.events").execute(&mut other).await.unwrap();
    assert!(log.read_all(0, 10).await.is_err());
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    assert_eq!(log.read_command(command_id).await.unwrap().len(), 1);
    assert_eq!(log.read_all(0, 10).await.unwrap().len(), 1);
}

/// A caller's mistake is refused, and not cut to size.
#[tokio::test]
async fn an_append_has_one_speculation_for_each_stream_or_none() {
    let store = Store::new().await;
    let both = || append(vec![to(stream(1), NoStream, 1), to(stream(2), NoStream, 1)]);
    for speculations in [1, 3] {
        let refused = store.appender.submit(both(), vec![Speculation::default(); speculations]).await;
        assert!(matches!(refused, Err(AppendError::Refused(_))), "{speculations}: {refused:?}");
    }
    for speculations in [vec![Speculation::default(), Speculation::default()], vec![]] {
        store.appender.submit(both(), speculations).await.unwrap().written().await.ok();
    }
    assert_eq!(store.assert_dense().await.len(), 2);
}

/// An error of the database is not only told in words: a caller can look at what it came of.
#[tokio::test]
async fn a_failed_append_keeps_the_error_that_it_came_of() {
    let store = Store::new().await;
    store.appender.append(append(vec![to(stream(1), NoStream, 1)])).await.unwrap();
    run(&store.url, "REVOKE EXECUTE ON FUNCTION daybook.append_group, daybook.append_one FROM daybook_append").await;
    let failed = store.appender.append(append(vec![to(stream(2), NoStream, 1)])).await.unwrap_err();
    assert!(matches!(failed, AppendError::Broken(_)), "{failed:?}");
    let source = failed.source().and_then(|cause| cause.source()).and_then(|e| e.downcast_ref::<sqlx::Error>());
    let code = source.and_then(|e| e.as_database_error()).and_then(|e| e.code());
    assert_eq!(code.as_deref(), Some("42501"), "{failed:?}");
}
