//! What every test needs: a Postgres that the run shares, with a database for each test, and appends to put into it.

use crate::bank::CATEGORIES;
use daybook_store::connect::{self, Role};
use daybook_store::{
    Append, ExpectedVersion, Fingerprint, Log, Metadata, NewEvent, Origin, StreamAppend, StreamId, migrate,
};
use servers::{Postgres, PostgresOptions, TemporaryPostgres};
use sqlx::{AssertSqlSafe, Connection, PgConnection, query_scalar};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::OnceCell;
use uuid::Uuid;

static SHARED: OnceCell<TemporaryPostgres> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);
const TEMPLATE: &str = "template_log";

/// The Postgres that a test run shares, with a migrated database to copy.
async fn shared() -> &'static TemporaryPostgres {
    SHARED
        .get_or_init(|| async {
            let server = TemporaryPostgres::start(&|_: &str| {}).await.unwrap();
            run(&server.postgres.url("postgres"), &format!("CREATE DATABASE {TEMPLATE}")).await;
            migrate(&server.postgres.url(TEMPLATE), CATEGORIES).await.unwrap();
            server
        })
        .await
}

/// Runs SQL as the superuser.
pub(crate) async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Runs SQL that changes events, which the log forbids.
pub(crate) async fn forge(url: &str, sql: &str) {
    let forge = format!(
        "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only; {sql};
         ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only"
    );
    run(url, &forge).await;
}

/// The URL of a new, migrated database.
pub(crate) async fn database() -> String {
    copy_of(TEMPLATE).await
}

/// The URL of a new database without a schema.
pub(crate) async fn empty_database() -> String {
    copy_of("template1").await
}

async fn copy_of(template: &str) -> String {
    let shared = shared().await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    run(&shared.postgres.url("postgres"), &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    shared.postgres.url(&name)
}

/// A migrated, durable Postgres of the test's own, to be killed; and the URL of its database.
pub(crate) async fn start_postgres() -> (Postgres, String) {
    let shared = shared().await;
    let data_dir = shared.dir().join(format!("postgres-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let options = PostgresOptions { data_dir, durable: true };
    let postgres = Postgres::start(&shared.binaries, options, &|_: &str| {}).await.unwrap();
    let url = postgres.url("postgres");
    migrate(&url, CATEGORIES).await.unwrap();
    (postgres, url)
}

/// The log of a database, to read from.
pub(crate) fn log(url: &str) -> Log {
    Log::new(connect::pool(url, Role::Read, 4).unwrap(), CATEGORIES)
}

/// The same id for the same number, in every run.
pub(crate) const fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// The stream of that number.
pub(crate) fn stream(n: u128) -> StreamId {
    StreamId { category: CATEGORIES[0], id: id(n) }
}

pub(crate) fn event(payload: &str) -> NewEvent {
    NewEvent { event_type: "Tested".into(), schema_version: 1, payload: payload.into() }
}

pub(crate) fn to(stream: StreamId, expected: ExpectedVersion, events: usize) -> StreamAppend {
    StreamAppend { stream, expected, events: vec![event(r#"{"a": 1}"#); events] }
}

pub(crate) fn append(streams: Vec<StreamAppend>) -> Append {
    append_as(Uuid::now_v7(), streams)
}

pub(crate) fn append_as(command_id: Uuid, streams: Vec<StreamAppend>) -> Append {
    let metadata = Metadata {
        correlation_id: id(1),
        causation_id: None,
        command_id,
        fingerprint: Fingerprint([7; 16]),
        actor: "test".into(),
        origin: Origin::Live,
        occurred_at: chrono::Utc::now(),
        traceparent: None,
    };
    Append { metadata, streams }
}

/// An append as `append_group` leaves it, were it not one statement of its own: the log is locked, nothing is committed.
pub(crate) async fn open_append(url: &str) -> PgConnection {
    let mut open = PgConnection::connect_with(&connect::options(url, Role::Append).unwrap()).await.unwrap();
    let begun = "BEGIN; SELECT * FROM daybook.append_group(
        '{11}', ARRAY[gen_random_uuid()], ARRAY[gen_random_uuid()], '{NULL}', ARRAY[gen_random_uuid()],
        ARRAY['\\x00112233445566778899aabbccddeeff'::bytea], '{hung}', '{0}', ARRAY[now()], '{NULL}',
        '{1}', '{1}', '{1}', '{NULL}', ARRAY[gen_random_uuid()], '{Tested}', '{1}', ARRAY['{}'],
        decode(repeat('00', 40), 'hex'), '{}', '{}', '{}', '{}', '{}', NULL, false, now(), 5)";
    sqlx::raw_sql(begun).execute(&mut open).await.unwrap();
    open
}

/// Returns once so many appenders wait for the log. They are let in in the order in which they came.
pub(crate) async fn appenders_waiting(url: &str, appenders: i64) {
    let mut watcher = PgConnection::connect(url).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while query_scalar::<_, i64>(waiting).fetch_one(&mut watcher).await.unwrap() < appenders {
        tokio::task::yield_now().await;
    }
}

/// Keeps every appender of a database waiting until it is opened.
pub(crate) struct Gate {
    holder: PgConnection,
    url: String,
}

impl Gate {
    pub(crate) async fn close(url: &str) -> Self {
        let mut holder = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT FROM daybook.log FOR UPDATE").execute(&mut holder).await.unwrap();
        Self { holder, url: url.to_owned() }
    }

    /// Returns once so many appenders stand before it.
    pub(crate) async fn waiting(&self, appenders: i64) {
        appenders_waiting(&self.url, appenders).await;
    }

    pub(crate) async fn open(mut self) {
        sqlx::raw_sql("COMMIT").execute(&mut self.holder).await.unwrap();
    }
}
