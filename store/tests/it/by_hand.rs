//! The log's functions, called by hand: in each role, and with whatever arguments.

use crate::harness::database;
use daybook_store::connect::{self, Role};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, query_as, query_scalar};
use uuid::Uuid;

/// A database with four events in two streams, and its superuser.
pub(crate) struct Log {
    pub(crate) url: String,
    pub(crate) superuser: PgPool,
}

impl Log {
    pub(crate) async fn start() -> Self {
        let url = database().await;
        let superuser = PgPool::connect(&url).await.unwrap();
        let log = Self { url, superuser };
        let mut append = log.connect(Role::Append).await;
        for stream in [1, 2] {
            assert_eq!(Call::to(stream).run(&mut append).await.unwrap()[0].outcome, "written");
        }
        append.close().await.unwrap();
        assert_eq!(log.state().await.0, 4);
        log
    }

    pub(crate) async fn connect(&self, role: Role) -> PgConnection {
        connect::options(&self.url, role).unwrap().connect().await.unwrap()
    }

    /// A session of the superuser, who has run this SQL.
    pub(crate) async fn session(&self, sql: &str) -> PgConnection {
        let mut session = PgConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut session).await.unwrap();
        session
    }

    /// How many events there are, and a digest of all that is in the log's tables.
    pub(crate) async fn state(&self) -> (i64, String) {
        let state = query_as(
            "SELECT (SELECT count(*) FROM daybook.events),
                    md5(concat((SELECT string_agg(e::text, ';' ORDER BY position) FROM daybook.events AS e),
                               (SELECT string_agg(l::text, ';') FROM daybook.log AS l),
                               (SELECT string_agg(c::text, ';' ORDER BY id) FROM daybook.categories AS c),
                               (SELECT string_agg(t::text, ';' ORDER BY t) FROM daybook.event_types AS t)))",
        );
        state.fetch_one(&self.superuser).await.unwrap()
    }

    /// Invariants 4 and 8, by the table alone.
    pub(crate) async fn assert_dense(&self) {
        let gaps: i64 = query_scalar(
            "SELECT count(*) FROM (
                 SELECT position, row_number() OVER (ORDER BY position) AS n,
                        version, row_number() OVER (PARTITION BY category, stream_id ORDER BY version) AS v
                 FROM daybook.events) AS numbered
             WHERE position <> n OR version <> v",
        )
        .fetch_one(&self.superuser)
        .await
        .unwrap();
        assert_eq!(gaps, 0, "positions or versions have a gap");
    }
}

/// The SQLSTATE that Postgres refuses this with.
pub(crate) async fn refusal(connection: &mut PgConnection, sql: &str) -> String {
    match sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await {
        Ok(_) => panic!("not refused: {sql}"),
        Err(e) => code(&e),
    }
}

pub(crate) fn code(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|e| e.code());
    code.unwrap_or_else(|| panic!("not Postgres' own: {error}")).into_owned()
}

/// A call of `register_event_types` by hand.
pub(crate) fn register(categories: &str, event_types: &str, schema_versions: &str) -> String {
    format!("SELECT daybook.register_event_types({categories}, {event_types}, {schema_versions})")
}

/// A call of `append_group` by hand: two events to one stream, which does not exist yet, unless changed.
#[derive(Clone)]
pub(crate) struct Call(pub(crate) Vec<(&'static str, String)>);

#[derive(Debug, PartialEq, sqlx::FromRow)]
pub(crate) struct Answer {
    pub(crate) append: Option<i32>,
    pub(crate) outcome: String,
    pub(crate) first_position: Option<i64>,
    pub(crate) actual_version: Option<i64>,
}

/// An array of nothing, of the parameter's own type.
pub(crate) const EMPTY: &str = "'{}'";

impl Call {
    pub(crate) fn to(stream: u128) -> Self {
        let command = Uuid::now_v7();
        let (stream, first, second) =
            (Uuid::from_u128(stream), daybook_store::event_id(command, 0), daybook_store::event_id(command, 1));
        Self(vec![
            ("stream_category", "'{1}'".into()),
            ("stream_ids", format!("'{{{stream}}}'")),
            ("correlation_ids", format!("'{{{stream}}}'")),
            ("causation_ids", "'{NULL}'".into()),
            ("command_ids", format!("'{{{command}}}'")),
            ("fingerprints", "ARRAY['\\x000102030405060708090a0b0c0d0e0f'::bytea]".into()),
            ("actors", "'{hand}'".into()),
            ("origins", "'{0}'".into()),
            ("occurred_ats", "'{2026-01-02T03:04:05Z}'".into()),
            ("traceparents", "'{NULL}'".into()),
            ("event_append", "'{1,1}'".into()),
            ("event_stream", "'{1,1}'".into()),
            ("event_version", "'{1,2}'".into()),
            ("event_previous", "'{NULL,1}'".into()),
            ("event_ids", format!("'{{{first},{second}}}'")),
            ("event_types", "'{First,Second}'".into()),
            ("schema_versions", "'{1,1}'".into()),
            ("payloads", "ARRAY['{}','{}']".into()),
            ("expect_append", EMPTY.into()),
            ("expect_stream", EMPTY.into()),
            ("expect_version", EMPTY.into()),
            ("event_entries", "decode(repeat('00', 80), 'hex')".into()),
            ("seen_positions", "'{}'".into()),
            ("seen_links", "'{}'".into()),
            ("vouched_at", "NULL".into()),
            ("checked", "false".into()),
            ("callers_clock", "clock_timestamp()".into()),
            ("clock_tolerance", "5".into()),
        ])
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        let parameter = self.0.iter_mut().find(|(n, _)| *n == name).expect("it has such a parameter");
        parameter.1 = value.into();
        self
    }

    pub(crate) async fn run(&self, connection: &mut PgConnection) -> Result<Vec<Answer>, sqlx::Error> {
        let arguments: Vec<String> = self.0.iter().map(|(name, value)| format!("{name} => {value}")).collect();
        let sql = format!(
            "SELECT append, outcome, first_position, actual_version FROM daybook.append_group({})",
            arguments.join(", ")
        );
        query_as(AssertSqlSafe(sql)).fetch_all(connection).await
    }
}
