//! Connections to Postgres, each with the one role that it needs, and each asked before it is used whether this is a server
//! to rely on.

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

/// What a connection may do. The login of the URL must be a member of these roles; `migrate` makes it one.
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
    /// As Postgres knows it.
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
    /// Another server may be the writable one by now, or this one later.
    #[error("{0}")]
    ReadOnly(Finding),
    /// Somebody has to mend it.
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

    /// What was found, if that is what the error says; else the error.
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
/// The same with several hosts: a pool that waits for one that is gone without a word is to try the next one soon.
const ACQUIRE_TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(3);
/// How long a connection that lies idle may take to answer. A server that is gone without a word costs no more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a read-only server is good enough for who only reads, before it is looked for a better one again.
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
/// A connection is asked whether its server takes writes each time that it is taken out of the pool (in place of the ping that
/// sqlx would send), and closed if it does not. sqlx keeps connections whatever error they have met: to a former primary,
/// for ever.
///
/// # Errors
/// When `url` is no Postgres URL.
pub fn pool(url: &str, role: Role, size: u32) -> Result<PgPool, sqlx::Error> {
    let connector = Arc::new(Connector::new(url, Some(role), &[])?);
    let (arriving, idling, changes) = (connector.clone(), connector.clone(), connector.serving().changes());
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
        .connect_lazy_with(connector.options_of(connector.serving().host()).clone());
    if connector.has_several_hosts() {
        tokio::spawn(follow(pool.clone(), connector, changes));
    }
    Ok(pool)
}

/// Has the pool connect to the host that is the writable one. A pool has one host at a time: if that does not answer, it has
/// nothing to ask. The pool itself is not touched: that it is busy says nothing of its host.
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

/// Asks the server whether sessions in these roles can rely on it, before there is a pool that can only say that it has waited
/// in vain. Waits for a server that starts, or for one that takes writes, as long as a pool would. If none of several hosts
/// takes writes, and who reads has one of them, that is no hindrance: there will be a primary again. Returns what somebody
/// should know, though it is no hindrance.
///
/// # Errors
/// [`Unusable`], as the cause of an error of sqlx's, or that no server answers.
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

/// Refuses a pooler that services cannot work behind, as far as it can be told. Once a process is enough.
///
/// # Errors
/// As those of [`check`].
pub async fn check_pooler(url: &str) -> Result<(), sqlx::Error> {
    let connector = Connector::new(url, None, &[])?;
    patiently(async || connector.refuse_unfit_pooler().await).await
}

/// All that there is to say of the server for a session in `role`: all that [`check`] and each connect refuse, and more.
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

/// As [`pool`], of a server that was asked before.
///
/// # Errors
/// As those of [`check`].
pub async fn checked_pool(url: &str, role: Role, size: u32) -> Result<PgPool, sqlx::Error> {
    check(url, &[role]).await?;
    pool(url, role, size)
}

/// A connection as the login of `url`, to migrate with: to a server that takes writes, and that a schema of Daybook can be on.
///
/// # Errors
/// As those of [`check`].
pub async fn to_migrate(url: &str) -> Result<PgConnection, sqlx::Error> {
    Ok(Connector::new(url, None, &[])?.connect().await?.connection)
}

/// Whether a connection that has come to this is not to be used again: it is gone, it is about to go, or it ends at a server
/// that is not the primary (any more).
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
