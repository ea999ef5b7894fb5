//! The schema: its parts, the migrations of each, and whether a database has those that this build needs.
//!
//! The log is one part. What is built on it (an engine, the tables of a domain) are others. Each part is owned by one
//! crate, which embeds its migrations; their numbers are its own. All parts are in the schema `daybook` of one database.

use crate::connect;
use crate::finding::Finding;
use sqlx::Connection;
use sqlx::migrate::{Migrate, Migration, Migrator};
use sqlx::postgres::PgConnection;
use std::sync::{LazyLock, PoisonError, RwLock};

/// The log's own part of the schema.
pub static LOG: LazyLock<Part> = LazyLock::new(|| Part::new("log", sqlx::migrate!("../migrations/log")));

/// What this process relies on beside the log. A part is named once a process, and is checked on each connect.
static RELIED_ON: RwLock<Vec<&'static Part>> = RwLock::new(Vec::new());

/// Tables that one crate owns, and the migrations that make them.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    migrator: Migrator,
}

impl Part {
    /// The part of this name. Its migrations are kept in the table `daybook.<name>_migrations`, and the first of them adds
    /// the name to `daybook.schema_parts`.
    pub fn new(name: &'static str, mut migrator: Migrator) -> Self {
        migrator.dangerous_set_table_name(format!("daybook.{name}_migrations"));
        // `migrate` has the lock, for all parts.
        migrator.set_locking(false);
        Self { name, migrator }
    }

    /// The number of its last migration.
    pub fn newest(&self) -> i64 {
        self.migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// A migration as its file is named.
    fn file(&self, version: i64) -> String {
        let name = self.name;
        match self.migrator.iter().find(|migration| migration.version == version) {
            Some(Migration { description, .. }) => format!("{name}/{version:04}_{}.sql", description.replace(' ', "_")),
            None => format!("migration {version} of {name}"),
        }
    }

    /// Where the part stands in a database that has these migrations; or what keeps this build from working with it.
    fn judge(&self, applied: &[Applied]) -> Result<String, Finding> {
        let applied: Vec<&Applied> = applied.iter().filter(|applied| applied.part == self.name).collect();
        let faults = [Self::failed, Self::too_new, Self::lacking, Self::changed];
        if let Some((text, remedy)) = faults.iter().find_map(|fault| fault(self, &applied)) {
            return Err(Finding::wrong("schema", text, remedy));
        }
        let (name, newest, known) = (self.name, newest(&applied), self.newest());
        if newest > known {
            return Ok(format!("{name} {newest} (this build knows {known}, and can work with it)"));
        }
        Ok(format!("{name} {newest}"))
    }

    fn failed(&self, applied: &[&Applied]) -> Option<(String, String)> {
        let failed = self.file(applied.iter().find(|applied| !applied.success)?.version);
        Some((
            format!("{failed} failed when it was applied, and may have left a part of its work"),
            format!("undo that, delete its row in daybook.{}_migrations, and run `daybook migrate`", self.name),
        ))
    }

    fn too_new(&self, applied: &[&Applied]) -> Option<(String, String)> {
        let (name, newest, known) = (self.name, newest(applied), self.newest());
        let knows_enough = applied.iter().all(|applied| applied.least_known <= known);
        (!knows_enough).then(|| {
            let text =
                format!("the schema is at migration {newest} of {name}, and this build knows no more than {known}");
            (text, "run a newer build".to_owned())
        })
    }

    fn lacking(&self, applied: &[&Applied]) -> Option<(String, String)> {
        let is_lacking = |ours: &&Migration| applied.iter().all(|theirs| theirs.version != ours.version);
        let lacking: Vec<&Migration> = self.migrator.iter().filter(is_lacking).collect();
        let (first, others) = lacking.split_first()?;
        let first = self.file(first.version);
        let text = match others.len() {
            0 => format!("the schema lacks {first}"),
            others => format!("the schema lacks {first}, and {others} more of {}", self.name),
        };
        Some((text, "run `daybook migrate`".to_owned()))
    }

    fn changed(&self, applied: &[&Applied]) -> Option<(String, String)> {
        let theirs = |ours: &&Migration| applied.iter().find(|theirs| theirs.version == ours.version);
        let is_other = |ours: &&Migration| theirs(ours).is_some_and(|theirs| theirs.checksum != ours.checksum[..]);
        let changed = self.file(self.migrator.iter().find(is_other)?.version);
        let remedy = "run the build that made the schema, or one that was released after it";
        Some((format!("{changed} is another one than the schema was made with"), remedy.to_owned()))
    }
}

/// The highest number of a part's migrations.
fn newest(applied: &[&Applied]) -> i64 {
    applied.iter().map(|applied| applied.version).max().unwrap_or(0)
}

/// Has each connect of this process check that the database has all migrations of `part`.
pub fn rely_on(part: &'static Part) {
    let mut parts = RELIED_ON.write().unwrap_or_else(PoisonError::into_inner);
    if !parts.iter().any(|known| known.name == part.name) {
        parts.push(part);
    }
}

/// The log, and what this process relies on beside it.
fn relied_on() -> Vec<&'static Part> {
    let others = RELIED_ON.read().unwrap_or_else(PoisonError::into_inner);
    std::iter::once(&*LOG).chain(others.iter().copied()).collect()
}

/// A migration that a database has: a row of `daybook.applied_migrations()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) part: String,
    /// The last migration of the part that a build has to know to work with the schema.
    pub(crate) least_known: i64,
    pub(crate) version: i64,
    pub(crate) success: bool,
    pub(crate) checksum: Vec<u8>,
}

/// Whether this process can work with a schema that has these migrations.
pub(crate) fn judge(applied: &[Applied]) -> Finding {
    match relied_on().into_iter().map(|part| part.judge(applied)).collect::<Result<Vec<_>, _>>() {
        Ok(parts) => Finding::ok("schema", format!("the schema is at {}", parts.join(", "))),
        Err(finding) => finding,
    }
}

/// What is said of a schema that has none of the tables that migrations are kept in.
pub(crate) fn too_old() -> Finding {
    Finding::wrong(
        "schema",
        "the schema is from before the migrations were rewritten, and cannot be brought up to date",
        "export its events with the build that made it (`daybook export`), and import them into a new database with this one \
         (`daybook migrate`, `daybook import log`)",
    )
}

/// Why a schema was not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// No connection, one that a schema cannot be made on, or one that is lost.
    #[error(transparent)]
    Database(sqlx::Error),
    /// The files before this one are applied, and nothing of this one is.
    #[error("{file} has failed, and has left nothing: {source}")]
    Failed {
        /// The file of the migration.
        file: String,
        /// What Postgres says.
        source: sqlx::Error,
    },
    /// The database has migrations that this build does not have.
    #[error("the schema has {0}, which this build does not know: run a newer build")]
    Unknown(String),
    /// The database was given another file of this number.
    #[error(
        "{0} is another one than the schema was made with: run the build that made it, or one that was released after it"
    )]
    Changed(String),
    /// It was applied outside a transaction.
    #[error("{0} failed when it was applied before, and may have left a part of its work")]
    Unfinished(String),
    /// Another failure of the migration library.
    #[error("{part}: {source}")]
    Other {
        /// The name of the part.
        part: &'static str,
        /// What the library says.
        source: sqlx::migrate::MigrateError,
    },
}

impl MigrateError {
    fn of(part: &Part, cause: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError as Cause;
        match cause {
            Cause::Execute(cause) => Self::Database(cause),
            Cause::ExecuteMigration(source, version) => Self::Failed { file: part.file(version), source },
            Cause::VersionMissing(version) => Self::Unknown(part.file(version)),
            Cause::VersionMismatch(version) => Self::Changed(part.file(version)),
            Cause::Dirty(version) => Self::Unfinished(part.file(version)),
            source => Self::Other { part: part.name, source },
        }
    }
}

/// Gives a database the migrations that it does not have yet: of the log, and of `parts` in this order. Each is a transaction
/// of its own; the first that fails ends it.
///
/// # Errors
/// When the server is none that a schema of Daybook can be on, when the schema is too old or too new, or a migration fails.
pub async fn migrate(url: &str, parts: &[&'static Part]) -> Result<(), MigrateError> {
    let mut connection = connect::to_migrate(url).await.map_err(MigrateError::Database)?;
    let migrated = migrate_on(&mut connection, parts).await;
    // The lock and the role end with the session.
    _ = connection.close().await;
    migrated
}

async fn migrate_on(connection: &mut PgConnection, parts: &[&'static Part]) -> Result<(), MigrateError> {
    connection.lock().await.map_err(|e| MigrateError::of(&LOG, e))?;
    begin(connection).await?;
    for part in std::iter::once(&*LOG).chain(parts.iter().copied()) {
        part.migrator.run(&mut *connection).await.map_err(|e| MigrateError::of(part, e))?;
    }
    Ok(())
}

/// Makes the roles and the schema, if they are not there: the table that the log's migrations are kept in needs them. From
/// then on the session acts as the schema's owner.
async fn begin(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let Some(roles) = LOG.migrator.iter().next() else { return Ok(()) };
    let exists = sqlx::query_scalar!(r#"SELECT to_regnamespace('daybook') IS NOT NULL AS "exists!""#);
    if !exists.fetch_one(&mut *connection).await.map_err(MigrateError::Database)? {
        let run = async {
            let mut transaction = connection.begin().await?;
            sqlx::raw_sql(roles.sql.clone()).execute(&mut *transaction).await?;
            transaction.commit().await
        };
        run.await.map_err(|source| MigrateError::Failed { file: LOG.file(roles.version), source })?;
    }
    sqlx::raw_sql("SET ROLE daybook_owner").execute(&mut *connection).await.map_err(MigrateError::Database)?;
    // Notes that it was applied, unless that is noted already.
    LOG.migrator.skip(connection, Some(roles.version)).await.map_err(|e| MigrateError::of(&LOG, e))
}
