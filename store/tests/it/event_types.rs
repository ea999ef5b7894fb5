//! What types of events a log holds: each is registered before it is written for the first time.

use crate::bank::CATEGORIES;
use crate::harness::{append_as, database, run};
use daybook_store::connect::{self, Role};
use daybook_store::event_types::{self, EventType, Presence};
use daybook_store::{Append, AppendError, Appender, Category, ExpectedVersion, NewEvent, StreamAppend, StreamId};
use sqlx::{PgPool, query_as};
use std::time::Duration;
use uuid::Uuid;

/// A log, and what appends to it.
struct Log {
    url: String,
    superuser: PgPool,
    appender: Appender,
}

impl Log {
    async fn new() -> Self {
        let url = database().await;
        let superuser = PgPool::connect(&url).await.unwrap();
        let appender = Appender::start(&url).unwrap();
        Self { url, superuser, appender }
    }

    /// Appends an event to a stream of its own.
    async fn write(&self, category: Category, event_type: &'static str, version: i16) {
        self.try_write(&[(category, event_type, version)], ExpectedVersion::NoStream).await.unwrap();
    }

    async fn try_write(
        &self,
        events: &[(Category, &'static str, i16)],
        expected: ExpectedVersion,
    ) -> Result<(), AppendError> {
        self.appender.append(append(Uuid::now_v7(), events, expected)).await.map(|_| ())
    }

    async fn registered(&self) -> Vec<(i16, String, i16)> {
        let registered = "SELECT category, event_type, schema_version FROM daybook.event_types ORDER BY 1, 2, 3";
        query_as(registered).fetch_all(&self.superuser).await.unwrap()
    }

    async fn written(&self) -> Vec<(i16, String, i16)> {
        let written = "SELECT DISTINCT category, event_type, schema_version FROM daybook.events ORDER BY 1, 2, 3";
        query_as(written).fetch_all(&self.superuser).await.unwrap()
    }
}

fn append(command_id: Uuid, events: &[(Category, &'static str, i16)], expected: ExpectedVersion) -> Append {
    let streams = events.iter().map(|&(category, event_type, schema_version)| StreamAppend {
        stream: StreamId { category, id: Uuid::now_v7() },
        expected,
        events: vec![NewEvent { event_type: event_type.into(), schema_version, payload: "{}".into() }],
    });
    append_as(command_id, streams.collect())
}

const ACCOUNT: Category = CATEGORIES[0];
const VAULT: Category = CATEGORIES[1];

#[tokio::test]
async fn what_is_written_was_registered_before() {
    let log = Log::new().await;
    log.write(ACCOUNT, "Tested", 1).await;
    log.write(ACCOUNT, "Tested", 1).await;
    let several = [(ACCOUNT, "Tested", 2), (VAULT, "Tested", 1), (ACCOUNT, "Tested", 1), (ACCOUNT, "Tested", 2)];
    log.try_write(&several, ExpectedVersion::NoStream).await.unwrap();
    let expected = [(11, "Tested".to_owned(), 1), (11, "Tested".to_owned(), 2), (12, "Tested".to_owned(), 1)];
    assert_eq!(log.written().await, expected);
    assert_eq!(log.registered().await, expected);
    // Another process registers what is there already.
    let other = Log { appender: Appender::start(&log.url).unwrap(), ..log };
    other.write(ACCOUNT, "Tested", 1).await;
    assert_eq!(other.registered().await, expected);
}

/// Nothing is written before it is registered; what is, is not registered again.
#[tokio::test]
async fn what_cannot_be_registered_is_not_written() {
    let log = Log::new().await;
    log.write(ACCOUNT, "Tested", 1).await;
    run(&log.url, "REVOKE EXECUTE ON FUNCTION daybook.register_event_types FROM daybook_append").await;
    log.write(ACCOUNT, "Tested", 1).await;
    let refused = log.try_write(&[(ACCOUNT, "Tested", 2)], ExpectedVersion::NoStream).await;
    assert!(matches!(refused, Err(AppendError::Broken(_))), "{refused:?}");
    assert_eq!(log.written().await, [(11, "Tested".to_owned(), 1)]);
    // And the other way round: what then cannot be written has been registered.
    run(&log.url, "GRANT EXECUTE ON FUNCTION daybook.register_event_types TO daybook_append").await;
    run(&log.url, "REVOKE EXECUTE ON FUNCTION daybook.append_group FROM daybook_append").await;
    let refused = log.try_write(&[(ACCOUNT, "Tested", 2)], ExpectedVersion::NoStream).await;
    assert!(matches!(refused, Err(AppendError::Broken(_))), "{refused:?}");
    assert_eq!(log.written().await, [(11, "Tested".to_owned(), 1)]);
    assert_eq!(log.registered().await, [(11, "Tested".to_owned(), 1), (11, "Tested".to_owned(), 2)]);
}

/// A server that comes back from a backup lacks what was registered since: who connects to it registers anew.
#[tokio::test]
async fn what_a_lost_connection_had_registered_is_registered_again() {
    let log = Log::new().await;
    log.write(ACCOUNT, "Tested", 1).await;
    run(&log.url, "DELETE FROM daybook.event_types").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'daybook_append'";
    run(&log.url, end).await;
    // Until it has noticed.
    while let Err(lost) = log.try_write(&[(ACCOUNT, "Tested", 1)], ExpectedVersion::NoStream).await {
        assert!(matches!(lost, AppendError::Unavailable(_)), "{lost}");
    }
    assert_eq!(log.registered().await, log.written().await);
}

/// What was registered in a transaction that locked the log is registered again if that is rolled back.
#[tokio::test]
async fn what_was_registered_while_the_log_was_locked_is_not_lost_with_it() {
    let log = Log::new().await;
    let spent = Uuid::now_v7();
    let append_to =
        |command_id, version| append(command_id, &[(ACCOUNT, "Tested", version)], ExpectedVersion::NoStream);
    log.appender.append(append_to(spent, 1)).await.unwrap();
    let lock = log.appender.lock_log().await.unwrap();
    let written = log.appender.submit(append_to(Uuid::now_v7(), 2), vec![]).await.unwrap();
    // It fails the whole group, which is then written anew without the lock.
    let refused = log.appender.submit(append_to(spent, 3), vec![]).await.unwrap();
    drop(lock);
    written.written().await.unwrap();
    assert!(matches!(refused.written().await, Err(AppendError::AlreadyRecorded { position: 1 })));
    assert_eq!(log.written().await, [(11, "Tested".to_owned(), 1), (11, "Tested".to_owned(), 2)]);
    let registered = log.registered().await;
    assert!(log.written().await.iter().all(|written| registered.contains(written)), "{registered:?}");
}

/// What a build asks before it starts: what may be in the log, and whether it is. Time that is too short tells nothing.
#[tokio::test]
async fn whether_the_log_holds_a_type_is_found_out_or_unknown() {
    let log = Log::new().await;
    log.write(VAULT, "Tested", 1).await;
    log.write(ACCOUNT, "Tested", 2).await;
    // Registered, and not written: the stream that it expects is not there.
    let refused = log.try_write(&[(ACCOUNT, "Never", 1)], ExpectedVersion::Exact(7)).await;
    assert!(matches!(refused, Err(AppendError::VersionConflict { .. })), "{refused:?}");
    let pool = connect::pool(&log.url, Role::Read, 2).unwrap();
    let registered = event_types::registered(&pool).await.unwrap();
    let of = |category: Category, event_type: &str, schema_version| EventType {
        category: category.id,
        category_name: category.name.into(),
        domain: category.domain.into(),
        event_type: event_type.into(),
        schema_version,
    };
    let [never, second, first] = [of(ACCOUNT, "Never", 1), of(ACCOUNT, "Tested", 2), of(VAULT, "Tested", 1)];
    assert_eq!(registered, [never.clone(), second.clone(), first.clone()]);
    for (event_type, expected) in [(&first, Presence::From(1)), (&second, Presence::From(2)), (&never, Presence::Never)]
    {
        let found = event_types::presence(&pool, event_type, Duration::from_secs(60)).await.unwrap();
        assert_eq!(found, expected, "{event_type:?}");
    }
    let mut lock = log.superuser.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE daybook.events IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let found = event_types::presence(&pool, &first, Duration::from_millis(50)).await.unwrap();
    assert_eq!(found, Presence::Unknown);
    lock.rollback().await.unwrap();
}
