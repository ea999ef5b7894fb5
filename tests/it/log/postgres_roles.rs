//! Invariant 9: events never change. What each role may do, by the catalogue: on every table and function of the schema,
//! those to come included. (What the roles make of the log itself is tried in `store/tests/it/roles.rs`.)

use crate::harness::{append, database, stream, to};
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool, query_as, query_scalar};
use store::connect::{self, Role};
use store::{Appender, ExpectedVersion};

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Invariant 9, by the catalogue: what is granted on each table, those to come included.
#[tokio::test]
async fn invariant_9_nothing_is_granted_but_what_is_needed() {
    let superuser = PgPool::connect(&database().await).await.unwrap();
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
    .fetch_all(&superuser)
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
    .fetch_all(&superuser)
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
    .fetch_all(&superuser)
    .await
    .unwrap();
    assert!(open.is_empty(), "{open:?}");
    let logins: Vec<String> = query_scalar(
        "SELECT rolname::text FROM pg_roles
         WHERE rolname LIKE 'daybook\\_%' AND (rolcanlogin OR rolsuper OR rolinherit OR rolcreaterole OR rolbypassrls)",
    )
    .fetch_all(&superuser)
    .await
    .unwrap();
    assert!(logins.is_empty(), "{logins:?}");
}

/// Invariant 9: the role that appends cannot even read.
#[tokio::test]
async fn invariant_9_the_role_that_appends_may_do_nothing_else() {
    let url = database().await;
    let superuser = PgPool::connect(&url).await.unwrap();
    let mut appending = connect::options(&url, Role::Append).unwrap().connect().await.unwrap();
    let tables: Vec<String> = query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'daybook'")
        .fetch_all(&superuser)
        .await
        .unwrap();
    assert!(tables.len() >= 9, "{tables:?}");
    for table in tables {
        let select = format!("SELECT FROM daybook.{table}");
        let refused = sqlx::raw_sql(AssertSqlSafe(select)).execute(&mut appending).await.unwrap_err();
        let code = refused.as_database_error().and_then(|e| e.code()).unwrap().into_owned();
        assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{table}");
    }
    let appender = Appender::start(&url).unwrap();
    let appended = appender.append(append(vec![to(stream(3), ExpectedVersion::NoStream, 2)])).await.unwrap();
    assert_eq!(appended.position, 2);
}
