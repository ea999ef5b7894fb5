//! Real failovers of Postgres: a streaming replica, its promotion, and data folders that take each other's place at one
//! address. Running services keep their DATABASE_URL, and find another history behind it.

use crate::binary::until;
use crate::harness::{append, folder, migrate, postgres_program, run, start_postgres_on, stream, to};
use order_views::CATEGORIES;
use servers::Postgres;
use sqlx::{Connection, PgConnection, query_as, query_scalar};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use store::connect::{self, Role};
use store::{Appender, ExpectedVersion, Log, Position, StreamId};
use tokio::process::Command;

/// What serves at one address. Its data folder can be replaced by another one.
pub(crate) struct Primary {
    postgres: Postgres,
    data_dir: PathBuf,
}

/// A streaming replica, at an address of its own.
pub(crate) struct Replica {
    postgres: Postgres,
    data_dir: PathBuf,
}

/// A complete data folder that no server runs on.
pub(crate) struct DataFolder(PathBuf);

/// What tells the histories of two servers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct History {
    /// The same for a primary, its replicas and its copies.
    pub(crate) system_identifier: i64,
    /// One more after each promotion.
    pub(crate) timeline: u32,
}

impl Primary {
    /// A durable primary with a migrated database.
    pub(crate) async fn start() -> Self {
        let data_dir = folder("primary").await;
        let primary = Self { postgres: start_postgres_on(data_dir.clone()).await, data_dir };
        migrate(&primary.url()).await;
        primary
    }

    /// Of the migrated database. It stays the same whatever serves there.
    pub(crate) fn url(&self) -> String {
        self.postgres.url("postgres")
    }

    /// Makes a replica. Returns once it streams, and has replayed all that is committed.
    pub(crate) async fn replica(&self) -> Replica {
        let data_dir = folder("replica").await;
        self.base_backup(&data_dir).await;
        let replica = Replica { postgres: start_postgres_on(data_dir.clone()).await, data_dir };
        until("the replica streams", async || replica.streams().await.then_some(())).await;
        replica.catch_up(self).await;
        replica
    }

    /// Postgres does not run as root, and so neither does what makes its data folders.
    async fn base_backup(&self, data_dir: &Path) {
        let owner = fs::metadata(&self.data_dir).unwrap();
        fs::DirBuilder::new().mode(0o700).create(data_dir).unwrap();
        chown(data_dir, Some(owner.uid()), Some(owner.gid())).unwrap();
        let mut command = Command::new(postgres_program("pg_basebackup").await);
        // Without the user's PGDATA and their like, which are for others.
        command.env_clear().env("LC_ALL", "C").current_dir("/").uid(owner.uid()).gid(owner.gid()).kill_on_drop(true);
        command.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]);
        command.arg("--dbname").arg(self.url()).arg("--pgdata").arg(data_dir);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Kills it. What no replica has received by then is only in its data folder.
    pub(crate) async fn kill(&mut self) {
        self.postgres.kill9().await;
    }

    /// Stops it, copies its data folder, and starts it again: a backup to go back to.
    pub(crate) async fn copy(&mut self) -> DataFolder {
        let copy = DataFolder(folder("copy").await);
        self.postgres.stop().await;
        let copied = Command::new("cp").arg("-a").arg(&self.data_dir).arg(&copy.0).status().await.unwrap();
        assert!(copied.success());
        self.postgres.restart().await.unwrap();
        copy
    }

    /// Serves this data folder from now on, at the same address. Returns the one that was served until now, which can
    /// be put back.
    pub(crate) async fn replace(&mut self, by: DataFolder) -> DataFolder {
        let replaced = DataFolder(folder("replaced").await);
        self.postgres.stop().await;
        fs::rename(&self.data_dir, &replaced.0).unwrap();
        fs::rename(&by.0, &self.data_dir).unwrap();
        self.postgres.restart().await.unwrap();
        replaced
    }

    /// Kills the primary, promotes the replica, and puts it in its place. Returns the data folder of the old primary.
    pub(crate) async fn fail_over(&mut self, to: Replica) -> DataFolder {
        self.kill().await;
        to.promote().await;
        self.replace(to.stop().await).await
    }

    pub(crate) async fn history(&self) -> History {
        history(&self.url()).await
    }
}

impl Replica {
    /// Of the migrated database, which can only be read until the replica is promoted.
    pub(crate) fn url(&self) -> String {
        self.postgres.url("postgres")
    }

    async fn streams(&self) -> bool {
        ask(&self.url(), "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')").await
    }

    /// Returns once it has replayed all that is committed on the primary now.
    pub(crate) async fn catch_up(&self, primary: &Primary) {
        let committed: String = ask(&primary.url(), "SELECT pg_current_wal_flush_lsn()::text").await;
        let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{committed}', false)");
        until("the replica has caught up", async || ask::<bool>(&self.url(), &replayed).await.then_some(())).await;
    }

    /// Cuts it off from its primary: it receives nothing more. To pause its replay would not do, for a promotion
    /// replays all that was received.
    pub(crate) async fn cut_off(&self) {
        run(&self.url(), "ALTER SYSTEM RESET primary_conninfo").await;
        run(&self.url(), "SELECT pg_reload_conf()").await;
        let receives = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver)";
        until("the replica is cut off", async || (!ask::<bool>(&self.url(), receives).await).then_some(())).await;
    }

    /// Makes a primary of it, at its own address. It begins a timeline of its own, whether its primary lives or not.
    pub(crate) async fn promote(&self) {
        let (before, promoted) = ("SELECT timeline_id FROM pg_control_checkpoint()", "SELECT pg_promote()");
        let before: i32 = ask(&self.url(), before).await;
        assert!(ask::<bool>(&self.url(), promoted).await);
        let recovers = "SELECT pg_is_in_recovery()";
        until("the replica is promoted", async || (!ask::<bool>(&self.url(), recovers).await).then_some(())).await;
        assert!(history(&self.url()).await.timeline > before.cast_unsigned());
    }

    /// Stops it in order, and leaves its data folder.
    pub(crate) async fn stop(mut self) -> DataFolder {
        self.postgres.stop().await;
        DataFolder(self.data_dir)
    }
}

/// Of a primary: a replica has no timeline of its own. It is not asked of `pg_control_checkpoint`, which still shows the
/// old timeline after a promotion, until the next checkpoint.
pub(crate) async fn history(url: &str) -> History {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let asked = "SELECT system_identifier, pg_walfile_name(pg_current_wal_lsn()) FROM pg_control_system()";
    let (system_identifier, segment): (i64, String) = query_as(asked).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    History { system_identifier, timeline: u32::from_str_radix(&segment[..8], 16).unwrap() }
}

/// The one value that a query of the superuser yields.
async fn ask<T>(url: &str, sql: &str) -> T
where
    T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
{
    let mut connection = PgConnection::connect(url).await.unwrap();
    let value = query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    value
}

/// Appends one event to a new stream, through a new appender, and returns its position.
async fn append_one(url: &str, to_stream: StreamId) -> Position {
    let appender = Appender::start(url).unwrap();
    appender.append(append(vec![to(to_stream, ExpectedVersion::NoStream, 1)])).await.unwrap().position
}

/// The streams of all events, in the order of the log.
async fn streams(url: &str) -> Vec<StreamId> {
    let log = Log::new(connect::pool(url, Role::Read, 1).unwrap(), CATEGORIES);
    log.read_all(0, 10).await.unwrap().into_iter().map(|event| event.stream).collect()
}

#[tokio::test]
async fn a_replica_that_missed_the_last_event_takes_the_place_of_its_primary() {
    let mut primary = Primary::start().await;
    let (url, before) = (primary.url(), primary.history().await);
    append_one(&url, stream(1)).await;
    let replica = primary.replica().await;
    append_one(&url, stream(2)).await;
    replica.catch_up(&primary).await;
    replica.cut_off().await;
    append_one(&url, stream(3)).await;
    assert_eq!(streams(&replica.url()).await, [stream(1), stream(2)]);

    let old = primary.fail_over(replica).await;
    assert_eq!(primary.url(), url);
    let promoted = primary.history().await;
    assert_eq!(promoted.system_identifier, before.system_identifier);
    assert!(promoted.timeline > before.timeline, "{promoted:?}, {before:?}");
    assert_eq!(streams(&url).await, [stream(1), stream(2)]);
    assert_eq!(append_one(&url, stream(4)).await, 3);

    // The old primary comes back, and then the promoted one again.
    let new = primary.replace(old).await;
    assert_eq!(primary.history().await, before);
    assert_eq!(streams(&url).await, [stream(1), stream(2), stream(3)]);
    primary.replace(new).await;
    assert_eq!(primary.history().await, promoted);
    assert_eq!(streams(&url).await, [stream(1), stream(2), stream(4)]);
}

#[tokio::test]
async fn a_copy_of_the_data_folder_is_put_back() {
    let mut primary = Primary::start().await;
    let (url, before) = (primary.url(), primary.history().await);
    append_one(&url, stream(1)).await;
    let copy = primary.copy().await;
    append_one(&url, stream(2)).await;
    assert_eq!(streams(&url).await, [stream(1), stream(2)]);

    primary.replace(copy).await;
    assert_eq!(primary.history().await, before, "nothing tells it from the one that it replaces");
    assert_eq!(streams(&url).await, [stream(1)]);
    assert_eq!(append_one(&url, stream(3)).await, 2);
}
