//! Invariant 9: events never change. Who may do what to the log, tried on a real Postgres in each role; and what the one
//! function that writes it makes of a caller that lies.

use crate::harness::{database, run};
use order_services::verify::verify;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, query_as, query_scalar};
use std::time::Duration;
use store::connect::{self, Role};
use uuid::Uuid;

const INSUFFICIENT_PRIVILEGE: &str = "42501";
const UNIQUE_VIOLATION: &str = "23505";
const NOT_NULL_VIOLATION: &str = "23502";

/// The roles that services act in.
const ROLES: [Role; 3] = [Role::Append, Role::Project, Role::Read];

/// A database with four events in two streams, and its superuser.
struct Log {
    url: String,
    superuser: PgPool,
}

impl Log {
    async fn start() -> Self {
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

    async fn connect(&self, role: Role) -> PgConnection {
        connect::options(&self.url, role).unwrap().connect().await.unwrap()
    }

    /// A session of the superuser, who has run this SQL.
    async fn session(&self, sql: &str) -> PgConnection {
        let mut session = PgConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut session).await.unwrap();
        session
    }

    /// How many events there are, and a digest of all that is in the log's tables.
    async fn state(&self) -> (i64, String) {
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
    async fn assert_dense(&self) {
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
async fn refusal(connection: &mut PgConnection, sql: &str) -> String {
    match sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await {
        Ok(_) => panic!("not refused: {sql}"),
        Err(e) => code(&e),
    }
}

fn code(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|e| e.code());
    code.unwrap_or_else(|| panic!("not Postgres' own: {error}")).into_owned()
}

/// An event in all its columns, at a position and version of one's own choice.
fn insert(position: i64) -> String {
    format!(
        "INSERT INTO daybook.events (position, version, recorded_at, occurred_at, category, schema_version, origin,
             stream_id, event_id, correlation_id, command_id, fingerprint, event_type, actor, payload)
         VALUES ({position}, 1, now(), now(), 1, 1, 0, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
             gen_random_uuid(), '\\x00', 'Forged', 'forger', '{{}}')"
    )
}

/// What changes an event that is there, or takes it away.
fn changes() -> Vec<String> {
    let merge = "MERGE INTO daybook.events AS e USING (VALUES (1)) AS v(p) ON e.position = v.p";
    vec![
        "UPDATE daybook.events SET payload = '{}' WHERE position = 1".into(),
        "UPDATE daybook.events SET position = position + 100".into(),
        // Refused even where it would change nothing.
        "UPDATE daybook.events SET actor = 'nobody' WHERE false".into(),
        "DELETE FROM daybook.events WHERE position = 4".into(),
        "DELETE FROM daybook.events".into(),
        "TRUNCATE daybook.events".into(),
        "TRUNCATE daybook.events CASCADE".into(),
        format!("{merge} WHEN MATCHED THEN UPDATE SET actor = 'x'"),
        format!("{merge} WHEN MATCHED THEN DELETE"),
        format!("{} ON CONFLICT ON CONSTRAINT events_position DO UPDATE SET actor = 'x'", insert(1)),
    ]
}

/// What opens the way to such a change, or touches what the log is known by.
fn preparations() -> Vec<String> {
    [
        "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only",
        "ALTER TABLE daybook.events DISABLE TRIGGER ALL",
        "ALTER TABLE daybook.events ENABLE REPLICA TRIGGER events_append_only",
        "ALTER TABLE daybook.events ADD COLUMN note text",
        "ALTER TABLE daybook.events OWNER TO current_user",
        "DROP TRIGGER events_append_only ON daybook.events",
        "DROP TABLE daybook.events",
        "DROP SCHEMA daybook CASCADE",
        "DROP FUNCTION daybook.append_group",
        "DROP FUNCTION daybook.refuse_change CASCADE",
        "CREATE OR REPLACE FUNCTION daybook.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE RULE quiet AS ON INSERT TO daybook.events DO INSTEAD NOTHING",
        "CREATE TABLE daybook.mine ()",
        "CREATE INDEX ON daybook.events (actor)",
        "SET session_replication_role = replica",
        "LOCK TABLE daybook.events IN ACCESS EXCLUSIVE MODE",
        // Whoever holds this lock holds up every append.
        "SELECT FROM daybook.log FOR UPDATE",
        "INSERT INTO daybook.log DEFAULT VALUES",
        "UPDATE daybook.log SET epoch = 2",
        "DELETE FROM daybook.log",
        "TRUNCATE daybook.log",
        "INSERT INTO daybook.categories VALUES (99, 'mine')",
        "UPDATE daybook.categories SET name = 'payment_2' WHERE id = 2",
        "DELETE FROM daybook.categories",
        "DROP FUNCTION daybook.register_event_types",
        "ALTER TABLE daybook.event_types DROP CONSTRAINT event_types_type_version",
        "INSERT INTO daybook.event_types VALUES (1, 'Forged', 1)",
        "UPDATE daybook.event_types SET schema_version = 2",
        "UPDATE daybook.event_types SET event_type = 'Forged' WHERE false",
        "DELETE FROM daybook.event_types",
        "TRUNCATE daybook.event_types",
        "MERGE INTO daybook.event_types AS t USING (VALUES (1)) AS v(c) ON t.category = v.c WHEN MATCHED THEN DELETE",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Invariant 9.
#[tokio::test]
async fn invariant_9_no_role_of_a_service_can_touch_the_log() {
    let log = Log::start().await;
    let before = log.state().await;
    for role in ROLES {
        let mut connection = log.connect(role).await;
        // To who has any privilege, Postgres says no more than a warning.
        _ = sqlx::raw_sql("GRANT ALL ON daybook.events, daybook.log TO PUBLIC").execute(&mut connection).await;
        let all = changes().into_iter().chain(preparations()).chain([insert(5), insert(1), insert(-1)]);
        for sql in all {
            let refusal = refusal(&mut connection, &sql).await;
            // Outside of a transaction nobody may.
            let expected = if sql.starts_with("LOCK") { "25P01" } else { INSUFFICIENT_PRIVILEGE };
            assert_eq!(refusal, expected, "{role:?}: {sql}");
        }
        let mut transaction = connection.begin().await.unwrap();
        let lock = refusal(&mut transaction, "LOCK TABLE daybook.events IN SHARE MODE").await;
        assert_eq!(lock, INSUFFICIENT_PRIVILEGE, "{role:?}");
    }
    assert_eq!(log.state().await, before);
}

/// Invariant 9: the trigger stops those as well whom no privilege stops, and also as "replica", which switches ordinary
/// triggers off. (They may take the trigger away: that is DDL, and for nobody who serves orders.)
#[tokio::test]
async fn invariant_9_not_even_the_owner_and_the_superuser_change_an_event() {
    let log = Log::start().await;
    let before = log.state().await;
    for session in [
        "SET ROLE daybook_owner",
        "SELECT 1",
        "SET session_replication_role = replica; SET ROLE daybook_owner",
        "SET session_replication_role = replica",
        "SET session_replication_role = local",
    ] {
        let mut connection = log.session(session).await;
        for sql in changes() {
            let refused = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut connection).await;
            let Err(refused) = refused else { panic!("{session}: not refused: {sql}") };
            assert_eq!(code(&refused), INSUFFICIENT_PRIVILEGE, "{session}: {sql}");
            let message = refused.as_database_error().unwrap().message();
            assert_eq!(message, "events are append-only", "{session}: {sql}");
        }
    }
    assert_eq!(log.state().await, before);
    let fires: String = query_scalar("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'events_append_only'")
        .fetch_one(&log.superuser)
        .await
        .unwrap();
    assert_eq!(fires, "A", "always");
}

/// Invariants 4, 8: what is inserted past the function, by those who can, does not double what is there.
#[tokio::test]
async fn constraints_refuse_the_owner_a_second_event_in_the_place_of_one() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut owner = log.session("SET ROLE daybook_owner").await;
    let copy = |columns: &str| {
        format!(
            "INSERT INTO daybook.events
             SELECT (jsonb_populate_record(e, jsonb_build_object({columns}))).* FROM daybook.events AS e
             WHERE position = 1"
        )
    };
    let (new_id, new_version) = ("'event_id', gen_random_uuid()", "'version', 50");
    for (constraint, columns) in [
        ("events_position", format!("{new_id}, {new_version}")),
        ("events_stream_version", format!("'position', 5, {new_id}")),
        ("events_event_id", format!("'position', 5, {new_version}")),
    ] {
        let refused = sqlx::raw_sql(AssertSqlSafe(copy(&columns))).execute(&mut owner).await.unwrap_err();
        assert_eq!(code(&refused), UNIQUE_VIOLATION);
        assert_eq!(refused.as_database_error().unwrap().constraint(), Some(constraint));
    }
    assert_eq!(log.state().await, before);
}

/// Invariant 9, by the catalogue: what is granted on each table, those to come included.
#[tokio::test]
async fn invariant_9_nothing_is_granted_but_what_is_needed() {
    let log = Log::start().await;
    let granted: Vec<(String, String, String)> = query_as(
        "SELECT role, relname::text, string_agg(privilege, ' ' ORDER BY privilege)
         FROM unnest(ARRAY['daybook_append', 'daybook_project', 'daybook_read']) AS role
         CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER',
                                 'MAINTAIN']) AS privilege
         CROSS JOIN pg_class
         WHERE relnamespace = 'daybook'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
           AND (has_table_privilege(role, pg_class.oid, privilege)
                OR privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
                   AND has_any_column_privilege(role, pg_class.oid, privilege))
         GROUP BY role, relname ORDER BY role, relname",
    )
    .fetch_all(&log.superuser)
    .await
    .unwrap();
    let of = |role: &str| -> Vec<_> { granted.iter().filter(|g| g.0 == role).collect() };
    assert!(of("daybook_append").is_empty(), "{:?}", of("daybook_append"));
    for (_, table, privileges) in of("daybook_read") {
        assert_eq!(privileges, "SELECT", "{table}");
    }
    for (_, table, privileges) in of("daybook_project") {
        // A generation of a read model is emptied by itself, and written through the table that it is a part of.
        if table.ends_with("_1") || table.ends_with("_2") {
            assert_eq!(privileges, "SELECT TRUNCATE", "{table}");
            continue;
        }
        if table == "lost_events" {
            assert_eq!(privileges, "INSERT SELECT");
            continue;
        }
        let the_logs_own = ["events", "log", "categories", "event_types", "epochs"].contains(&&**table);
        assert!(!privileges.contains("TRUNCATE") && !privileges.contains("TRIGGER"), "{table}: {privileges}");
        assert_eq!(privileges == "SELECT", the_logs_own, "{table}: {privileges}");
    }
    assert!(of("daybook_read").len() > 6 && of("daybook_project").len() > 6, "{granted:?}");

    let executable: Vec<(String, String)> = query_as(
        "SELECT role, proname::text FROM pg_proc CROSS JOIN unnest($1::text[]) AS role
         WHERE pronamespace = 'daybook'::regnamespace AND prorettype <> 'trigger'::regtype
           AND has_function_privilege(role, pg_proc.oid, 'EXECUTE') ORDER BY proname, role",
    )
    .bind(["daybook_append", "daybook_project", "daybook_read", "public"].map(str::to_owned).to_vec())
    .fetch_all(&log.superuser)
    .await
    .unwrap();
    let only = [
        ("daybook_append", "append_group"),
        ("daybook_append", "append_one"),
        ("daybook_append", "applied_migrations"),
        ("daybook_project", "applied_migrations"),
        ("daybook_read", "applied_migrations"),
        ("daybook_project", "begin_epoch"),
        ("daybook_append", "check_clock"),
        ("daybook_project", "check_clock"),
        ("daybook_append", "clocks_agree"),
        ("daybook_project", "clocks_agree"),
        ("daybook_project", "confirm_server"),
        ("daybook_project", "event_digest"),
        ("daybook_read", "event_digest"),
        ("daybook_project", "has_marks"),
        ("daybook_read", "has_marks"),
        ("daybook_append", "hold_log"),
        ("daybook_append", "register_event_types"),
        ("daybook_project", "server"),
        ("daybook_read", "server"),
    ];
    assert_eq!(executable, only.map(|(role, function)| (role.to_owned(), function.to_owned())));

    // Whoever runs with its owner's rights says itself where names are looked up.
    let open: Vec<String> = query_scalar(
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'daybook'::regnamespace AND prosecdef
         AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY(proconfig), false)",
    )
    .fetch_all(&log.superuser)
    .await
    .unwrap();
    assert!(open.is_empty(), "{open:?}");
    let logins: Vec<String> = query_scalar(
        "SELECT rolname::text FROM pg_roles
         WHERE rolname LIKE 'daybook\\_%' AND (rolcanlogin OR rolsuper OR rolinherit OR rolcreaterole OR rolbypassrls)",
    )
    .fetch_all(&log.superuser)
    .await
    .unwrap();
    assert!(logins.is_empty(), "{logins:?}");
}

/// Invariant 9: the role that appends cannot even read.
#[tokio::test]
async fn invariant_9_the_role_that_appends_may_do_nothing_else() {
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    let tables: Vec<String> = query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'daybook'")
        .fetch_all(&log.superuser)
        .await
        .unwrap();
    assert!(tables.len() >= 9, "{tables:?}");
    for table in tables {
        let refused = refusal(&mut append, &format!("SELECT FROM daybook.{table}")).await;
        assert_eq!(refused, INSUFFICIENT_PRIVILEGE, "{table}");
    }
    assert_eq!(Call::to(3).run(&mut append).await.unwrap()[0].first_position, Some(5));
}

/// Invariant 9: who reads and who projects cannot append.
#[tokio::test]
async fn invariant_9_no_other_role_may_append() {
    let log = Log::start().await;
    let before = log.state().await;
    for role in [Role::Project, Role::Read] {
        let mut connection = log.connect(role).await;
        let refused = Call::to(3).run(&mut connection).await.unwrap_err();
        assert_eq!(code(&refused), INSUFFICIENT_PRIVILEGE, "{role:?}");
        let refused = refusal(&mut connection, &register("'{1}'", "'{Forged}'", "'{1}'")).await;
        assert_eq!(refused, INSUFFICIENT_PRIVILEGE, "{role:?}");
    }
    assert_eq!(log.state().await, before);
}

/// Invariant 9, as it should be deployed: a service logs in as somebody who is a member of its role and no more; giving
/// the role back gains nothing.
#[tokio::test]
async fn invariant_9_a_login_of_a_services_own_has_no_way_out_of_its_role() {
    let log = Log::start().await;
    let before = log.state().await;
    let login = format!("service_{}", Uuid::now_v7().simple());
    run(&log.url, &format!("CREATE ROLE {login} LOGIN; GRANT daybook_read TO {login}")).await;
    let url = log.url.replacen("://postgres@", &format!("://{login}@"), 1);
    let mut connection = connect::options(&url, Role::Read).unwrap().connect().await.unwrap();
    for way_out in ["SELECT 1", "RESET ROLE", "SET ROLE NONE", "RESET ALL"] {
        sqlx::raw_sql(AssertSqlSafe(way_out.to_owned())).execute(&mut connection).await.unwrap();
        for sql in changes().into_iter().chain(preparations()).filter(|sql| !sql.starts_with("LOCK")) {
            assert_eq!(refusal(&mut connection, &sql).await, INSUFFICIENT_PRIVILEGE, "after {way_out}: {sql}");
        }
        for role in ["daybook_owner", "daybook_append", "daybook_project", "postgres"] {
            let refused = refusal(&mut connection, &format!("SET ROLE {role}")).await;
            assert_eq!(refused, INSUFFICIENT_PRIVILEGE, "after {way_out}: {role}");
        }
        let refused = Call::to(3).run(&mut connection).await.unwrap_err();
        assert_eq!(code(&refused), INSUFFICIENT_PRIVILEGE, "after {way_out}");
    }
    for role in [Role::Append, Role::Project] {
        assert!(connect::options(&url, role).unwrap().connect().await.is_err(), "{role:?}");
    }
    assert_eq!(log.state().await, before);
}

/// A call of `register_event_types` by hand.
fn register(categories: &str, event_types: &str, schema_versions: &str) -> String {
    format!("SELECT daybook.register_event_types({categories}, {event_types}, {schema_versions})")
}

/// Who appends can register, also again and the same twice; what does not fit, or lacks something, registers nothing.
#[tokio::test]
async fn event_types_are_registered_whole_or_not_at_all() {
    let log = Log::start().await;
    let registered = async || -> Vec<(i16, String, i16)> {
        query_as("SELECT * FROM daybook.event_types ORDER BY 1, 2, 3").fetch_all(&log.superuser).await.unwrap()
    };
    let mut append = log.connect(Role::Append).await;
    for _ in 0..2 {
        let twice = register("'{1,2,1}'", "'{First,First,First}'", "'{1,1,1}'");
        sqlx::raw_sql(AssertSqlSafe(twice)).execute(&mut append).await.unwrap();
    }
    assert_eq!(registered().await, [(1, "First".to_owned(), 1), (2, "First".to_owned(), 1)]);
    for (categories, event_types, schema_versions) in [
        ("'{1,2}'", "'{Second}'", "'{1,1}'"),
        ("'{1}'", "'{Second,Third}'", "'{1}'"),
        ("'{1}'", "'{Second}'", "'{}'"),
        ("'{1}'", "'{Second}'", "NULL"),
        ("'{1,NULL}'", "'{Second,Third}'", "'{1,1}'"),
        ("'{1,1}'", "'{Second,NULL}'", "'{1,1}'"),
    ] {
        let refused = refusal(&mut append, &register(categories, event_types, schema_versions)).await;
        assert_eq!(refused, NOT_NULL_VIOLATION, "{categories} {event_types} {schema_versions}");
        assert_eq!(registered().await.len(), 2);
    }
    for nothing in ["NULL", EMPTY] {
        let sql = register(nothing, nothing, nothing);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut append).await.unwrap();
    }
    assert_eq!(registered().await.len(), 2);
}

/// Two that register the same in opposite orders, each held up where the other is, both come through.
#[tokio::test]
async fn event_types_are_registered_in_one_order_whoever_does() {
    let log = Log::start().await;
    let mut holder = log.session("BEGIN; INSERT INTO daybook.event_types VALUES (1, 'B', 1)").await;
    let mut both = tokio::task::JoinSet::new();
    for event_types in ["'{A,B,C}'", "'{C,B,A}'"] {
        let mut append = log.connect(Role::Append).await;
        let sql = register("'{1,1,1}'", event_types, "'{1,1,1}'");
        both.spawn(async move { sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut append).await.map(|_| ()) });
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'daybook_append' AND wait_event_type = 'Lock'";
    while query_scalar::<_, i64>(waiting).fetch_one(&log.superuser).await.unwrap() < 2 {}
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    both.join_all().await.into_iter().for_each(|registered| registered.unwrap());
    let registered: i64 =
        query_scalar("SELECT count(*) FROM daybook.event_types").fetch_one(&log.superuser).await.unwrap();
    assert_eq!(registered, 3);
}

/// A call of `append_group` by hand: two events to one stream, which does not exist yet, unless changed.
#[derive(Clone)]
struct Call(Vec<(&'static str, String)>);

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Answer {
    append: Option<i32>,
    outcome: String,
    first_position: Option<i64>,
    actual_version: Option<i64>,
}

/// What `append_group` refuses a caller with that has seen another history.
const OTHER_HISTORY: &str = "YH001";
/// And one whose clock is another.
const CLOCKS_DIFFER: &str = "YH002";

/// An array of nothing, of the parameter's own type.
const EMPTY: &str = "'{}'";

impl Call {
    fn to(stream: u128) -> Self {
        let command = Uuid::now_v7();
        let (stream, first, second) =
            (Uuid::from_u128(stream), store::event_id(command, 0), store::event_id(command, 1));
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

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        let parameter = self.0.iter_mut().find(|(n, _)| *n == name).expect("it has such a parameter");
        parameter.1 = value.into();
        self
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Vec<Answer>, sqlx::Error> {
        let arguments: Vec<String> = self.0.iter().map(|(name, value)| format!("{name} => {value}")).collect();
        let sql = format!(
            "SELECT append, outcome, first_position, actual_version FROM daybook.append_group({})",
            arguments.join(", ")
        );
        query_as(AssertSqlSafe(sql)).fetch_all(connection).await
    }
}

/// Invariants 2, 4, 6: a version that is not the next one is a conflict, and burns no position.
#[tokio::test]
async fn forged_versions_are_conflicts() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    // Of a stream that does not exist, and of one that is at 2; with and without the long way round.
    for (stream, actual, forged) in [
        (3, [0, 0], ["{2,3}", "{0,1}", "{-1,0}", "{1000,1001}"].as_slice()),
        (3, [0, 1], &["{1,3}", "{1,1}", "{1,0}", "{NULL,7}"]),
        (1, [2, 2], &["{1,2}", "{2,3}", "{4,5}", "{-5,-4}", "{4,NULL}"]),
        (1, [2, 3], &["{3,3}", "{3,5}", "{NULL,3}"]),
    ] {
        for forged in forged {
            for checked in ["false", "true", "NULL"] {
                let call = Call::to(stream).with("event_version", format!("'{forged}'")).with("checked", checked);
                let answers = call.run(&mut append).await.unwrap();
                let [answer] = &answers[..] else { panic!("{forged}: {answers:?}") };
                assert_eq!((&*answer.outcome, answer.append), ("conflict", Some(1)), "{stream}: {forged}");
                assert!(actual.map(Some).contains(&answer.actual_version), "{forged}: {answer:?}");
            }
        }
    }
    assert_eq!(log.state().await, before);
    assert_eq!(Call::to(3).run(&mut append).await.unwrap()[0].first_position, Some(5));
    log.assert_dense().await;
}

/// What the caller says of the order within the group is looked at, too, and never believed.
#[tokio::test]
async fn a_forged_order_within_the_group_leaves_no_gap() {
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    let mut stream = 10;
    for previous in ["{NULL,NULL}", "{NULL,2}", "{2,1}", "{1,1}", "{NULL,9}", "{NULL,0}", "{NULL,-1}", "{9,9}"] {
        for versions in ["{1,2}", "{NULL,NULL}", "{2,1}", "{1,1}", "{7,8}", "{1,9}"] {
            stream += 1;
            let before = log.state().await;
            let call = Call::to(stream).with("event_previous", format!("'{previous}'"));
            let answer = call.with("event_version", format!("'{versions}'")).run(&mut append).await;
            if ["{1,2}", "{NULL,NULL}"].contains(&versions) {
                assert_eq!(answer.unwrap()[0].outcome, "written", "{previous} {versions}");
                assert_eq!(log.state().await.0, before.0 + 2);
                continue;
            }
            match answer {
                Ok(answers) => assert_eq!(answers[0].outcome, "conflict", "{previous} {versions}"),
                // Two firsts of one stream: each fits, both do not.
                Err(e) => assert_eq!((code(&e).as_str(), versions), (UNIQUE_VIOLATION, "{1,1}"), "{previous}"),
            }
            assert_eq!(log.state().await, before, "{previous} {versions}");
        }
    }
    log.assert_dense().await;
}

/// The same stream under two numbers would be two streams to the probe: the constraint knows better.
#[tokio::test]
async fn a_stream_that_is_listed_twice_is_not_written_twice() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    let stream = Uuid::from_u128(3);
    let twice = |stream_number: u128| {
        Call::to(stream_number)
            .with("stream_category", "'{1,1}'")
            .with("stream_ids", format!("'{{{stream},{stream}}}'"))
            .with("event_stream", "'{1,2}'")
            .with("event_previous", "'{NULL,NULL}'")
    };
    let refused = twice(3).with("event_version", "'{1,1}'").run(&mut append).await.unwrap_err();
    assert_eq!(code(&refused), UNIQUE_VIOLATION);
    assert_eq!(refused.as_database_error().unwrap().constraint(), Some("events_stream_version"));
    let conflict = twice(3).with("event_version", "'{1,2}'").run(&mut append).await.unwrap();
    assert_eq!(conflict[0].outcome, "conflict");
    assert_eq!(log.state().await, before);
}

/// A caller that has seen another history writes nothing, whatever it expects; what the log has, but not at its end, vouches
/// for nothing.
#[tokio::test]
async fn a_false_head_vouches_for_no_version() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    let link = |position: i64| format!("(SELECT link FROM daybook.events WHERE position = {position})");
    let seen = |marks: &[(&str, &str)]| {
        let (positions, links): (Vec<_>, Vec<_>) = marks.iter().copied().unzip();
        Call::to(3)
            .with("seen_positions", format!("ARRAY[{}]::bigint[]", positions.join(", ")))
            .with("seen_links", format!("ARRAY[{}]::bytea[]", links.join(", ")))
    };
    let other = "decode(repeat('ab', 32), 'hex')";
    // The role itself cannot read links: it knows those that it was told.
    let mut links = Vec::new();
    for position in 1..=4 {
        let link: Option<Vec<u8>> =
            query_scalar(AssertSqlSafe(format!("SELECT {}", link(position)))).fetch_one(&log.superuser).await.unwrap();
        links.extend(link.map(|link| (position, format!("decode('{}', 'hex')", hex(&link)))));
    }
    for (position, link) in
        [("-1", other), ("4", other), ("5", other), ("1000000", other), ("9223372036854775807", other)]
    {
        let last = &*links.last().unwrap().1;
        for marks in [&[(position, link)][..], &[(position, link), ("4", last)], &[("4", last), (position, link)]] {
            for vouched_at in [position, "4", "NULL"] {
                let refused = seen(marks).with("vouched_at", vouched_at).run(&mut append).await.unwrap_err();
                assert_eq!(code(&refused), OTHER_HISTORY, "{marks:?}");
            }
        }
    }
    let (last, rest) = links.split_last().unwrap();
    let refused = seen(&[(&last.0.to_string(), &rest[0].1)]).run(&mut append).await.unwrap_err();
    assert_eq!(code(&refused), OTHER_HISTORY, "a link of another position");
    let refused = seen(&[("4", "NULL")]).run(&mut append).await.unwrap_err();
    assert_eq!(code(&refused), OTHER_HISTORY, "no link");
    let refused = seen(&[("4", &last.1)]).with("seen_links", "'{}'").run(&mut append).await.unwrap_err();
    assert_eq!(code(&refused), "22023", "a position without a link");
    let rest: Vec<_> = rest.iter().map(|(position, link)| (position.to_string(), link)).collect();
    let rest: Vec<_> = rest.iter().map(|(position, link)| (&**position, &***link)).collect();
    for marks in rest.iter().map(std::slice::from_ref).chain([&rest[..], &[]]) {
        for (stream, forged) in [(3, "{5,6}"), (1, "{1,2}"), (1, "{9,10}")] {
            let call = seen(marks).with("stream_ids", format!("'{{{}}}'", Uuid::from_u128(stream)));
            let vouched_at = marks.first().map_or("NULL", |(position, _)| position);
            let call = call.with("event_version", format!("'{forged}'")).with("vouched_at", vouched_at);
            assert_eq!(call.run(&mut append).await.unwrap()[0].outcome, "conflict", "{marks:?}: {forged}");
        }
    }
    assert_eq!(log.state().await, before);
}

/// Whatever the group is, and whatever the log has.
#[tokio::test]
async fn a_group_is_refused_while_the_clocks_differ() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    for clock in ["now() - interval '6 s'", "now() + interval '6 s'", "'infinity'", "NULL"] {
        for checked in ["false", "true"] {
            let late = Call::to(9).with("callers_clock", clock).with("checked", checked);
            assert_eq!(code(&late.run(&mut append).await.unwrap_err()), CLOCKS_DIFFER, "{clock}");
        }
    }
    let unlimited = Call::to(9).with("clock_tolerance", "NULL");
    assert_eq!(code(&unlimited.run(&mut append).await.unwrap_err()), CLOCKS_DIFFER);
    assert_eq!(log.state().await, before);
    let within = Call::to(9).with("callers_clock", "now() - interval '4 s'");
    assert_eq!(within.run(&mut append).await.unwrap()[0].outcome, "written");
}

/// The short way writes only after the mark that the caller has seen, and only while that is the head.
#[tokio::test]
async fn one_event_is_written_after_the_head_that_was_seen_and_nowhere_else() {
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    let links = "SELECT position, encode(link, 'hex') FROM daybook.events WHERE link IS NOT NULL ORDER BY position";
    let links: Vec<(i64, String)> = query_as(links).fetch_all(&log.superuser).await.unwrap();
    let one = |position: i64, link: &str, stream: u128, version: i64| {
        let (stream, command) = (Uuid::from_u128(stream), Uuid::now_v7());
        format!(
            "SELECT recorded IS NOT NULL FROM daybook.append_one({position}, decode('{link}', 'hex'), 1::smallint,
                 '{stream}', {version}, '{stream}', NULL, '{command}', '\\x000102030405060708090a0b0c0d0e0f', 'hand',
                 0::smallint, now(), NULL, '{}', 'First', 1::smallint, '{{}}', decode(repeat('00', 40), 'hex'), now(), 5)",
            store::event_id(command, 0)
        )
    };
    let before = log.state().await;
    let (head, link) = links.last().unwrap();
    // The log does not have it: another position, another link.
    for (position, link) in [(*head + 1, &**link), (*head, &*"ab".repeat(32)), (0, &*"00".repeat(32))] {
        let written: bool =
            query_scalar(AssertSqlSafe(one(position, link, 9, 1))).fetch_one(&mut append).await.unwrap();
        assert!(!written, "{position}");
    }
    // The clocks differ.
    for clock in ["now() - interval '6 s'", "now() + interval '6 s'", "'infinity'", "NULL"] {
        let late = one(*head, link, 9, 1).replace("now(), 5)", &format!("{clock}, 5)"));
        let written: bool = query_scalar(AssertSqlSafe(late)).fetch_one(&mut append).await.unwrap();
        assert!(!written, "{clock}");
    }
    // It has it, and has gone on since.
    let (position, earlier) = &links[0];
    let refused = query_scalar::<_, bool>(AssertSqlSafe(one(*position, earlier, 9, 1))).fetch_one(&mut append).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().constraint(), Some("events_position"));
    // A version that is there.
    let refused = query_scalar::<_, bool>(AssertSqlSafe(one(*head, link, 1, 2))).fetch_one(&mut append).await;
    assert_eq!(refused.unwrap_err().as_database_error().unwrap().constraint(), Some("events_stream_version"));
    assert_eq!(log.state().await, before);

    sqlx::raw_sql("SET synchronous_commit = off; BEGIN").execute(&mut append).await.unwrap();
    let written: bool = query_scalar(AssertSqlSafe(one(*head, link, 9, 1))).fetch_one(&mut append).await.unwrap();
    let set: String = query_scalar("SHOW synchronous_commit").fetch_one(&mut append).await.unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut append).await.unwrap();
    assert!(written);
    assert_eq!(set, "on", "an acknowledgement is durability");
    log.assert_dense().await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An acknowledgement is durability, whatever the session was told.
#[tokio::test]
async fn an_append_waits_for_the_disk_whatever_the_connection_is_set_to() {
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    for (session, appended) in
        [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")]
    {
        let begin = format!("SET synchronous_commit = {session}; BEGIN");
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut append).await.unwrap();
        Call::to(Uuid::now_v7().as_u128()).run(&mut append).await.unwrap();
        let set: String = query_scalar("SHOW synchronous_commit").fetch_one(&mut append).await.unwrap();
        assert_eq!(set, appended, "{session}");
        sqlx::raw_sql("COMMIT").execute(&mut append).await.unwrap();
    }
}

/// The true head is the one claim that is believed: whoever appends in this role is Daybook's own appender, and the
/// probe that it saves is most of what a group costs. What a liar gets by it: nothing over what is there (a constraint
/// stands before it), no position of its choice, no gap in those. A gap in the versions of a stream: and that,
/// `verify` finds.
#[tokio::test]
async fn who_lies_at_the_true_head_doubles_nothing_and_is_found_out() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    let link: Vec<u8> =
        query_scalar("SELECT link FROM daybook.events WHERE position = 4").fetch_one(&log.superuser).await.unwrap();
    let link = format!("decode('{}', 'hex')", hex(&link));
    let at_head = |call: Call| {
        call.with("vouched_at", "4").with("seen_positions", "'{4}'").with("seen_links", format!("ARRAY[{link}]"))
    };
    for doubled in ["{1,2}", "{2,3}", "{3,2}", "{3,3}"] {
        let call = at_head(Call::to(1).with("event_version", format!("'{doubled}'")));
        let refused = call.run(&mut append).await.unwrap_err();
        assert_eq!(code(&refused), UNIQUE_VIOLATION, "{doubled}");
        assert_eq!(refused.as_database_error().unwrap().constraint(), Some("events_stream_version"), "{doubled}");
    }
    assert_eq!(log.state().await, before);

    let gap = at_head(Call::to(1).with("event_version", "'{7,8}'"));
    assert_eq!(gap.run(&mut append).await.unwrap()[0].first_position, Some(5));
    let positions: Vec<i64> =
        query_scalar("SELECT position FROM daybook.events ORDER BY position").fetch_all(&log.superuser).await.unwrap();
    assert_eq!(positions, [1, 2, 3, 4, 5, 6]);
    let read = connect::pool(&log.url, Role::Read, 1).unwrap();
    let report = verify(&read, None, Duration::ZERO).await.unwrap();
    let versions = report.checks.iter().find(|c| c.name == "versions").unwrap();
    assert!(versions.differences[0].contains("has version 7 after 2, at position 5"), "{report}");
}

/// Invariant 5: an array that is missing, empty, too short, of two dimensions or begun at another index fails the
/// call; nothing of it is written.
#[tokio::test]
async fn arrays_that_do_not_fit_are_refused() {
    // These may be left out: whatever comes next, no cause, no trace, no expectation, no claim.
    let optional = ["causation_ids", "traceparents", "event_version", "event_previous"];
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    let mut stream = 10;
    for (name, fitting) in Call::to(10).0 {
        let array = fitting.starts_with("'{") || fitting.starts_with("ARRAY");
        let counts = ["event_ids", "command_ids"].contains(&name);
        if !array || counts || name.starts_with("expect_") || name.starts_with("seen_") {
            continue;
        }
        let elements = if fitting.contains(',') { 2 } else { 1 };
        let cut = format!("(({fitting})::{}[])[1:{}]", type_of(name), elements - 1);
        let nested = format!("ARRAY[({fitting})::{}[]]", type_of(name));
        let shifted = format!("array_prepend(NULL, ({fitting})::{0}[])", type_of(name));
        for ill in ["NULL", EMPTY, &cut, &nested, &shifted] {
            stream += 1;
            let before = log.state().await;
            let answer = Call::to(stream).with(name, ill).run(&mut append).await;
            let after = log.state().await;
            log.assert_dense().await;
            match answer {
                Err(e) => {
                    assert_eq!(after, before, "{name} {ill}");
                    let class = code(&e)[..2].to_owned();
                    assert!(["22", "23"].contains(&&*class), "{name} {ill}: {e}");
                }
                Ok(answers) if optional.contains(&name) => {
                    let outcomes: Vec<&str> = answers.iter().map(|a| &*a.outcome).collect();
                    assert!(["written", "conflict"].contains(&outcomes[0]), "{name} {ill}: {answers:?}");
                    let written = if outcomes[0] == "written" { 2 } else { 0 };
                    assert_eq!(after.0, before.0 + written, "{name} {ill}");
                }
                Ok(answers) => panic!("{name} {ill}: {answers:?}"),
            }
        }
    }
}

/// Arrays that do not fit each other are refused, whichever of them is too short or too long.
#[tokio::test]
async fn arrays_that_do_not_fit_each_other_are_refused() {
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    let call = Call::to(3);
    let ids = call.0.iter().find(|(name, _)| *name == "event_ids").unwrap().1.clone();
    let before = log.state().await;
    for (name, ill) in [
        ("event_ids", EMPTY.into()),
        ("event_ids", "ARRAY[gen_random_uuid()]".into()),
        ("command_ids", EMPTY.into()),
        ("command_ids", "ARRAY[gen_random_uuid(), gen_random_uuid()]".into()),
        ("event_ids", format!("{ids}::uuid[] || gen_random_uuid()")),
        ("event_ids", format!("ARRAY[{ids}::uuid[]]")),
        ("event_ids", format!("array_prepend(NULL, {ids}::uuid[])")),
        ("event_ids", "ARRAY[gen_random_uuid(), NULL]".into()),
        ("command_ids", "NULL".into()),
        ("command_ids", "'{NULL}'".into()),
        ("seen_positions", "NULL".into()),
        ("seen_positions", "'{4}'".into()),
        ("seen_links", "NULL".into()),
        ("seen_links", "ARRAY['\\x00'::bytea]".into()),
    ] {
        let refused = call.clone().with(name, &ill).run(&mut append).await.unwrap_err();
        assert!(["22", "23"].contains(&&code(&refused)[..2]), "{name} {ill}: {refused}");
        assert_eq!(log.state().await, before, "{name} {ill}");
    }
    log.assert_dense().await;
}

fn type_of(parameter: &str) -> &'static str {
    match parameter {
        "stream_category" | "origins" | "schema_versions" => "smallint",
        "fingerprints" => "bytea",
        "actors" | "traceparents" | "event_types" | "payloads" => "text",
        "occurred_ats" => "timestamptz",
        "event_append" | "event_stream" | "event_previous" => "int",
        "event_version" => "bigint",
        _ => "uuid",
    }
}

/// Invariant 7: a snapshot older than the lock is an error, never a wrong log.
#[tokio::test]
async fn a_stale_snapshot_writes_nothing() {
    let log = Log::start().await;
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let mut stale = log.connect(Role::Append).await;
        let begin = format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1");
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut stale).await.unwrap();
        let mut append = log.connect(Role::Append).await;
        let stream = Uuid::now_v7().as_u128();
        Call::to(stream).run(&mut append).await.unwrap();
        let before = log.state().await;
        let refused = Call::to(stream + 1).run(&mut stale).await.unwrap_err();
        assert!([UNIQUE_VIOLATION, "40001"].contains(&&*code(&refused)), "{isolation}: {refused}");
        stale.close().await.unwrap();
        assert_eq!(log.state().await, before, "{isolation}");
    }
    log.assert_dense().await;
}

/// Invariant 5: what was appended in a transaction that is rolled back never was, and its positions are given anew.
#[tokio::test]
async fn a_transaction_that_is_rolled_back_leaves_no_gap() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    let mut transaction = append.begin().await.unwrap();
    assert_eq!(Call::to(3).run(&mut transaction).await.unwrap()[0].first_position, Some(5));
    transaction.rollback().await.unwrap();
    assert_eq!(log.state().await, before);
    assert_eq!(Call::to(3).run(&mut append).await.unwrap()[0].first_position, Some(5));
    log.assert_dense().await;
}

/// Decision 10: the time is this server's, and does not fall even if its clock does.
#[tokio::test]
async fn no_caller_says_when_it_was_recorded() {
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    let call = Call::to(3).with("occurred_ats", "'{1999-12-31T23:59:59Z}'");
    assert_eq!(call.run(&mut append).await.unwrap()[0].outcome, "written");
    let recent = "SELECT count(*) FROM daybook.events WHERE recorded_at > now() - interval '1 hour'";
    let recent: i64 = query_scalar(recent).fetch_one(&log.superuser).await.unwrap();
    assert_eq!(recent, 6);
    // As if the clock had been an hour ahead until now.
    let ahead = "INSERT INTO daybook.events
                 SELECT (jsonb_populate_record(e, jsonb_build_object('position', 7, 'event_id', gen_random_uuid(),
                     'stream_id', gen_random_uuid(), 'recorded_at', now() + interval '1 hour'))).*
                 FROM daybook.events AS e WHERE position = 1";
    run(&log.url, ahead).await;
    assert_eq!(Call::to(4).run(&mut append).await.unwrap()[0].first_position, Some(8));
    let falls: i64 = query_scalar(
        "SELECT count(*) FROM (SELECT recorded_at < lag(recorded_at) OVER (ORDER BY position) AS falls
                               FROM daybook.events) AS e WHERE falls",
    )
    .fetch_one(&log.superuser)
    .await
    .unwrap();
    assert_eq!(falls, 0);
}

/// A log that has lost its identity takes nothing: nobody could say of what log it is.
#[tokio::test]
async fn a_log_without_its_row_takes_nothing() {
    let log = Log::start().await;
    run(&log.url, "DELETE FROM daybook.log").await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    let refused = Call::to(3).run(&mut append).await.unwrap_err();
    assert_eq!(code(&refused), "55000");
    assert_eq!(log.state().await, before);
}
