//! What becomes of Postgres' errors: each class is met for real, and the answers of the APIs say whether to try again.

use crate::harness::{System, database, daybook_on, receipt, run};
use order_services::queries;
use runtime::subject;
use runtime::wire::{Code, ErrorBody};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor as _};
use std::fmt::Write as _;
use store::Failure::{self, Data, Passing, Permanent};

async fn connected(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

/// What the statements fail with, in a session of their own.
async fn failed(url: &str, sql: &str) -> sqlx::Error {
    let mut session = connected(url).await;
    let failed = session.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
    failed.map(|_| ()).expect_err(sql)
}

fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|e| e.code()).unwrap_or_else(|| panic!("{error}")).into_owned()
}

#[tokio::test]
async fn what_real_failures_mean() {
    let url = &database().await;
    let crowd = format!("crowd_{}", std::process::id());
    run(url, &format!("CREATE ROLE {crowd} LOGIN CONNECTION LIMIT 0; INSERT INTO daybook.leases VALUES ('a', gen_random_uuid(), 1, now())")).await;
    for (sql, expected, means) in [
        ("SELECT 1 / 0", "22012", Data),
        ("SELECT convert_from('\\x00', 'UTF8')", "22021", Data),
        ("SELECT '4000-01-01 BC'::timestamptz - interval '10000 years'", "22008", Data),
        ("SELECT 'x'::uuid", "22P02", Data),
        ("INSERT INTO daybook.categories VALUES (1, 'order', 'orders')", "23505", Data),
        ("INSERT INTO daybook.log (only_row) VALUES (false)", "23514", Data),
        ("BEGIN READ ONLY; CREATE TABLE public.x ()", "25006", Passing),
        ("SET transaction_timeout = 1; BEGIN; SELECT pg_sleep(1)", "25P04", Passing),
        ("EXECUTE nothing", "26000", Permanent),
        ("SET ROLE daybook_read; DELETE FROM daybook.leases", "42501", Permanent),
        ("SELECT FROM daybook.nothing", "42P01", Permanent),
        ("SELECT DISTINCT name FROM daybook.leases FOR UPDATE", "0A000", Permanent),
        (
            "SET work_mem = '64kB'; SET temp_file_limit = '1kB'; SELECT count(*) FROM (SELECT generate_series(1, 99999) ORDER BY 1 DESC) AS s",
            "53400",
            Passing,
        ),
        ("SELECT repeat('abc', 2000000000)", "54000", Data),
        ("CREATE TEMPORARY SEQUENCE s; SELECT currval('s')", "55000", Permanent),
        ("SET statement_timeout = 1; SELECT pg_sleep(1)", "57014", Passing),
        ("SELECT pg_terminate_backend(pg_backend_pid())", "57P01", Passing),
        ("LOAD 'nothing'", "58P01", Permanent),
        ("DO $$ BEGIN RAISE EXCEPTION 'x'; END $$", "P0001", Permanent),
        ("SELECT daybook.check_clock(now() - interval '1 h', 5)", "YH002", Passing),
    ] {
        let error = failed(url, sql).await;
        assert_eq!((code(&error), Failure::of(&error)), (expected.to_owned(), means), "{sql}");
    }
    // What two sessions do to each other.
    let (mut one, mut other) = (connected(url).await, connected(url).await);
    one.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM daybook.leases").await.unwrap();
    other.execute("UPDATE daybook.leases SET fence = 2").await.unwrap();
    let overtaken = one.execute("UPDATE daybook.leases SET fence = 3").await.unwrap_err();
    assert_eq!((code(&overtaken).as_str(), Failure::of(&overtaken)), ("40001", Passing));
    one.execute("ROLLBACK; BEGIN; SELECT FROM daybook.leases FOR UPDATE").await.unwrap();
    let locked = other.execute("SELECT FROM daybook.leases FOR UPDATE NOWAIT").await.unwrap_err();
    assert_eq!((code(&locked).as_str(), Failure::of(&locked)), ("55P03", Passing));
    drop((one, other));
    // What keeps from connecting.
    let options: PgConnectOptions = url.parse().unwrap();
    for (options, expected, means) in [
        (options.clone().database("nothing"), Some("3D000"), Permanent),
        (options.clone().username("daybook_read"), Some("28000"), Permanent),
        (options.clone().username(&crowd), Some("53300"), Passing),
        (options.clone().socket("/nowhere"), None, Passing),
    ] {
        let error = options.connect().await.map(|_| ()).unwrap_err();
        let code = error.as_database_error().map(|e| e.code().unwrap().into_owned());
        assert_eq!((code.as_deref(), Failure::of(&error)), (expected, means), "{error}");
    }
    run(url, &format!("DROP ROLE {crowd}")).await;
}

/// Codes of every class that PostgreSQL has, those that differ from their class, and those of our own.
const CODES: [&str; 58] = [
    "01000", "02000", "03000", "08006", "08P01", "09000", "0A000", "0B000", "0F000", "0L000", "0P000", "0Z000",
    "20000", "21000", "22012", "22021", "23505", "23514", "24000", "25000", "25001", "25006", "25P02", "25P03",
    "25P04", "26000", "27000", "28000", "28P01", "2B000", "2D000", "2F000", "34000", "38000", "39000", "3B000",
    "3D000", "3F000", "40001", "40P01", "42501", "42P01", "44000", "53100", "53200", "53300", "54000", "55000",
    "55006", "55P03", "57014", "57P01", "57P04", "58030", "F0000", "HV000", "P0001", "XX001",
];

/// What is permanent is never answered as something that passes.
#[tokio::test]
async fn an_answer_says_whether_a_failure_passes() {
    let mut system = System::start().await;
    let service = queries::start(&system.parts.client, system.parts.read.clone()).await.unwrap();
    let url = system.urls.database_url.clone();
    system.receive("mug", 1).await;
    system.project().await;
    let fails = "CREATE TABLE public.failing (code text);
        INSERT INTO public.failing VALUES (NULL);
        CREATE FUNCTION public.fails() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
        DECLARE
            made text := (SELECT code FROM public.failing);
        BEGIN
            IF made IS NOT NULL THEN
                RAISE EXCEPTION 'made to fail' USING ERRCODE = made;
            END IF;
            RETURN true;
        END
        $$;
        CREATE FUNCTION public.fails_row() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM public.fails();
            RETURN NEW;
        END
        $$;
        CREATE TRIGGER fails BEFORE INSERT ON daybook.events FOR EACH ROW EXECUTE FUNCTION public.fails_row();
        ALTER TABLE daybook.stock_level ENABLE ROW LEVEL SECURITY;
        CREATE POLICY fails ON daybook.stock_level USING (public.fails())";
    run(&url, fails).await;
    let head = system.parts.log.head().await.unwrap();
    let mut shown = String::new();
    for code in CODES {
        run(&url, &format!("UPDATE public.failing SET code = '{code}'")).await;
        let command = ErrorBody::from(system.executor.execute(&receipt("mug", 1)).await.unwrap_err());
        let query = format!("{}.stock_level.list", subject::QUERIES);
        let query = system.parts.client.request(query, json!({}).to_string().into()).await.unwrap();
        let query: ErrorBody = serde_json::from_slice(&query.payload).unwrap();
        for error in [&command, &query] {
            let (kind, retry) = match Failure::of_sqlstate(code) {
                Passing => (Code::Unavailable, true),
                Data => (Code::Invalid, false),
                Permanent => (Code::Internal, false),
            };
            assert_eq!((error.code, error.retry), (kind, retry), "{code}: {error}");
            assert!(error.message.contains("made to fail"), "{error}");
        }
        _ = writeln!(
            shown,
            "{code} {}{}",
            json!(query.code).as_str().unwrap(),
            if query.retry { ", retry" } else { "" }
        );
    }
    assert_eq!(system.parts.log.head().await.unwrap(), head);
    // Then it goes on.
    run(&url, "UPDATE public.failing SET code = NULL").await;
    system.receive("mug", 1).await;
    let found = system.parts.client.request(format!("{}.stock_level.list", subject::QUERIES), "".into()).await.unwrap();
    let found: Value = serde_json::from_slice(&found.payload).unwrap();
    assert_eq!(found["data"][0]["sku"], "mug");
    insta::assert_snapshot!(shown);
    service.stop().await;
}

/// A verb that reads says by its exit code whether it is worth waiting for a server.
#[tokio::test]
async fn a_verb_says_whether_a_failed_read_passes() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.project().await;
    let url = &system.urls.database_url;
    let fails = "CREATE TABLE public.failing (code text);
        CREATE FUNCTION public.fails() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            RAISE EXCEPTION 'made to fail' USING ERRCODE = (SELECT code FROM public.failing);
        END
        $$;
        ALTER TABLE daybook.events ENABLE ROW LEVEL SECURITY;
        CREATE POLICY fails ON daybook.events USING (public.fails());
        INSERT INTO public.failing VALUES ('')";
    run(url, fails).await;
    for (code, exit_code) in [("57014", 4), ("P0001", 5)] {
        run(url, &format!("UPDATE public.failing SET code = '{code}'")).await;
        for verb in ["events read", "verify --wait 0", "replay stock_level --dry-run"] {
            let output = daybook_on(&system.urls).args(verb.split(' ')).output().await.unwrap();
            assert_eq!(output.status.code(), Some(exit_code), "{code} {verb}: {output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("made to fail"), "{code} {verb}: {output:?}");
        }
    }
}
