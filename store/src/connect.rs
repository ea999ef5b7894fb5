//! Connections to Postgres. Each acts in the one role that it needs, and is checked before it is used: the server's version,
//! the schema, the role, the settings that durability and time-outs rely on, and whether the server takes writes.
//!
//! A URL may name several hosts, as in libpq (`postgresql://user@first:5432,second/database`). The one that takes writes is
//! used, also after a failover.

use crate::connector::{Connected, Connector, late};
use crate::finding::{Finding, Level};
use crate::session;
use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgPool, PgPoolOptions, PgSeverity};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub use crate::hosts::with_hosts;
pub use crate::session::SETTINGS;

/// What a connection may do. The login of the URL must be a member of the role; `migrate` makes its own login one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Execute `append_group`, `append_one`, `hold_log` and `register_event_types`, and nothing else.
    Append,
    /// Read the log, and write read models, follow-ups, snapshots, checkpoints and leases.
    Project,
    /// Read.
    Read,
    /// Own the schema: for what an operator does, never for a service.
    Owner,
}

impl Role {
    /// Its name in Postgres.
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "daybook_append",
            Self::Project => "daybook_project",
            Self::Read => "daybook_read",
            Self::Owner => "daybook_owner",
        }
    }
}

/// Why a server is not used, though it answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It takes no writes now. Another server may, or this one later.
    #[error("{0}")]
    ReadOnly(Finding),
    /// An operator has to change something.
    #[error("{0}")]
    Unfit(Finding),
}

impl Unusable {
    /// Why the server was not used, if that is what the error says.
    pub fn of(error: &sqlx::Error) -> Option<&Self> {
        match error {
            sqlx::Error::Configuration(cause) => cause.downcast_ref(),
            _ => None,
        }
    }

    /// The finding, if that is what the error says.
    ///
    /// # Errors
    /// The error that it was called with.
    pub fn finding(error: sqlx::Error) -> Result<Finding, sqlx::Error> {
        match Self::of(&error) {
            Some(Self::ReadOnly(finding) | Self::Unfit(finding)) => Ok(finding.clone()),
            None => Err(error),
        }
    }
}

impl From<Unusable> for sqlx::Error {
    fn from(unusable: Unusable) -> Self {
        Self::Configuration(Box::new(unusable))
    }
}

/// How long to wait for a connection before saying that Postgres is unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same with several hosts: a pool that waits for one that is gone without a word should try the next one soon.
const ACQUIRE_TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(3);
/// How long an idle connection may take to answer. It bounds the wait for a server that is gone without a word.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection that only reads stays with a read-only server before a writable one is looked for again.
const SECOND_BEST: Duration = Duration::from_secs(1);
/// How long to wait before a server that starts is asked again.
const RETRY: Duration = Duration::from_millis(50);

/// Options for connections in `role` to the database of `url`, on one of its hosts: the one that was found last.
///
/// # Errors
/// When `url` is no Postgres URL.
pub fn options(url: &str, role: Role) -> Result<PgConnectOptions, sqlx::Error> {
    let connector = Connector::new(url, Some(role), &[])?;
    Ok(connector.options_of(connector.serving().host()).clone())
}

/// A pool of up to `size` connections in `role`. It connects when it is first used.
///
/// Each time that a connection leaves the pool, it is asked whether its server takes writes (in place of sqlx's ping), and is
/// closed if not. sqlx keeps connections whatever error they have met; to a former primary it would keep them for ever.
///
/// # Errors
/// When `url` is no Postgres URL.
pub fn pool(url: &str, role: Role, size: u32) -> Result<PgPool, sqlx::Error> {
    let connector = Arc::new(Connector::new(url, Some(role), &[])?);
    let (arriving, idling, leaving) = (connector.clone(), connector.clone(), connector.clone());
    let changes = connector.serving().changes();
    let pool = PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(if connector.has_several_hosts() { ACQUIRE_TIMEOUT_OF_SEVERAL } else { ACQUIRE_TIMEOUT })
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let connector = arriving.clone();
            Box::pin(async move { connector.admit_or_replace(connection).await })
        })
        .before_acquire(move |connection, idle| {
            let is_of_another_host = idling.serving().has_changed_within(idle.age);
            Box::pin(async move {
                // It may not even answer.
                if is_of_another_host {
                    return Ok(false);
                }
                let asked = tokio::time::timeout(ANSWER_TIMEOUT, session::is_read_only(connection)).await;
                let read_only = asked.map_err(|_| late())??;
                Ok(!read_only || role == Role::Read && idle.age < SECOND_BEST)
            })
        })
        .after_release(move |_, used| {
            // sqlx would ask it, without a limit, and keep its place meanwhile: a statement that was given up on a host that is
            // gone without a word would hold it until TCP gives up.
            let is_of_another_host = leaving.serving().has_changed_within(used.age);
            Box::pin(async move { Ok(!is_of_another_host) })
        })
        .connect_lazy_with(connector.options_of(connector.serving().host()).clone());
    if connector.has_several_hosts() {
        tokio::spawn(follow(pool.clone(), connector, changes));
    }
    Ok(pool)
}

/// Has the pool connect to the host that is the writable one. A pool knows one host at a time, so if that does not answer, the
/// pool cannot find another by itself. No connection is taken from the pool: that it is busy says nothing about its host.
async fn follow(pool: PgPool, connector: Arc<Connector>, mut changes: watch::Receiver<(usize, Instant)>) {
    let told = async {
        while changes.changed().await.is_ok() {
            let host = changes.borrow_and_update().0;
            pool.set_connect_options(connector.options_of(host).clone());
        }
    };
    // Until it is closed.
    _ = pool.close_event().do_until(async { tokio::join!(connector.watch(), told) }).await;
}

/// Checks that sessions in these roles can rely on the server. A pool could only say that it has timed out. Waits for a server
/// that starts, or for one that takes writes, as long as a pool would: 5 seconds. If none of several hosts takes writes, and
/// one can be read in a role that only reads, that is a warning: there will be a primary again. Returns warnings.
///
/// # Errors
/// [`Unusable`], as the cause of sqlx's error; and when no server answers.
pub async fn check(url: &str, roles: &[Role]) -> Result<Vec<Finding>, sqlx::Error> {
    let asked = join_all(roles.iter().map(async |&role| {
        let connector = Connector::new(url, Some(role), &[])?;
        let session = patiently(async || Ok(connector.connect().await?.session)).await;
        Ok::<_, sqlx::Error>((role, connector.has_several_hosts(), session))
    }));
    let mut warnings = Vec::new();
    for asked in asked.await {
        let (role, has_several_hosts, session) = asked?;
        match session {
            Ok(session) => {
                let known = |finding: &Finding| finding.level == Level::Ok || finding.subject == "writable";
                warnings.extend(session.findings(role).into_iter().filter(|finding| !known(finding)));
            }
            Err(e) => match Unusable::of(&e) {
                Some(Unusable::ReadOnly(Finding { subject, text, remedy, .. }))
                    if has_several_hosts && roles.contains(&Role::Read) =>
                {
                    warnings.push(Finding::warning(subject, text, remedy));
                }
                _ => return Err(e),
            },
        }
    }
    warnings.dedup();
    Ok(warnings)
}

/// Refuses a pooler that connections cannot work behind, as far as that can be found out. Once a process is enough.
///
/// # Errors
/// As those of [`check`].
pub async fn check_pooler(url: &str) -> Result<(), sqlx::Error> {
    let connector = Connector::new(url, None, &[])?;
    patiently(async || connector.refuse_unfit_pooler().await).await
}

/// All findings about the server for a session in `role`: what [`check`] and each connect refuse, and more.
///
/// # Errors
/// When no server answers.
pub async fn findings(url: &str, role: Role) -> Result<Vec<Finding>, sqlx::Error> {
    let connector = Connector::new(url, Some(role), &[])?;
    match tokio::time::timeout(ACQUIRE_TIMEOUT, connector.connect()).await.map_err(|_| late())? {
        Ok(Connected { session, .. }) => Ok(session.findings(role)),
        Err(e) => Ok(vec![Unusable::finding(e)?]),
    }
}

/// Tries again while a server starts, or none takes writes.
async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
    let given_up = tokio::time::Instant::now() + ACQUIRE_TIMEOUT;
    let mut before = None;
    loop {
        let error = match tokio::time::timeout_at(given_up, attempt()).await {
            Ok(Err(e)) if may_pass(&e) && tokio::time::Instant::now() + RETRY < given_up => e,
            Ok(result) => return result,
            // What the last attempt found says more than that this one is late.
            Err(_) => return Err(before.unwrap_or_else(late)),
        };
        tracing::debug!(%error, "trying to connect again");
        before = Some(error);
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether it may be another one in a moment: too many connections, or a server that starts, stops, or takes no writes.
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(e) => e.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(e) => e.code().is_some_and(|code| ["53300", "57P01", "57P02", "57P03"].contains(&&*code)),
        _ => matches!(Unusable::of(error), Some(Unusable::ReadOnly(_))),
    }
}

/// As [`pool`], after [`check`].
///
/// # Errors
/// As those of [`check`].
pub async fn checked_pool(url: &str, role: Role, size: u32) -> Result<PgPool, sqlx::Error> {
    check(url, &[role]).await?;
    pool(url, role, size)
}

/// A connection as the login of `url`, to migrate with: to a server that takes writes and that the schema can be on.
///
/// # Errors
/// As those of [`check`].
pub async fn to_migrate(url: &str) -> Result<PgConnection, sqlx::Error> {
    Ok(Connector::new(url, None, &[])?.connect().await?.connection)
}

/// Whether a connection that met this error must not be used again: it is gone or about to go, or its server is not the
/// primary.
pub fn is_lost(error: &sqlx::Error) -> bool {
    let Some(database) = error.as_database_error() else { return true };
    let severity = database.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
    if matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic)) {
        return true;
    }
    let code = database.code().unwrap_or_default();
    // A pooler passes some of these on without ending the session.
    code.starts_with("08") || ["25006", "57P01", "57P02", "57P03"].contains(&&*code)
}
