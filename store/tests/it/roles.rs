//! Invariant 9: events never change. Who may do what to the log, tried on a real Postgres in each role.

use crate::by_hand::{Call, Log, code, refusal, register};
use crate::harness::run;
use daybook_store::connect::{self, Role};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, query_scalar};
use uuid::Uuid;

const INSUFFICIENT_PRIVILEGE: &str = "42501";

const UNIQUE_VIOLATION: &str = "23505";

/// The roles that services act in.
const ROLES: [Role; 3] = [Role::Append, Role::Project, Role::Read];

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
