//! A connection of one task's own: made when it is needed, kept from call to call, given up when it is broken.

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgSeverity};
use std::time::Duration;

/// How long a call may take, with the making of its connection: somewhat longer than Postgres' own limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);

pub(crate) struct Connection {
    options: PgConnectOptions,
    kept: Option<PgConnection>,
}

impl Connection {
    pub(crate) fn new(options: PgConnectOptions) -> Self {
        Self { options, kept: None }
    }

    /// Whether the next call takes the connection of an earlier one: it may have broken long ago.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// The next call makes a new one. Closing this one could wait for what does not answer.
    pub(crate) fn give_up(&mut self) {
        self.kept = None;
    }

    /// Calls with the connection, which is kept for the next call unless it failed.
    pub(crate) async fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let called = async {
            let mut connection = match self.kept.take() {
                Some(connection) => connection,
                None => self.options.connect().await?,
            };
            let called = call(&mut connection).await;
            if is_usable_after(&called) {
                self.kept = Some(connection);
            }
            called
        };
        let late = || sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(CALL_TIMEOUT, called).await.unwrap_or_else(|_| Err(late()))
    }
}

/// The connection is gone; not: nobody answers.
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(e) if e.kind() != std::io::ErrorKind::TimedOut) || is_farewell(error)
}

/// Whether the connection of a call that came to this may have another one.
fn is_usable_after<T>(result: &Result<T, sqlx::Error>) -> bool {
    match result {
        Ok(_) => true,
        Err(e) => e.as_database_error().is_some() && !is_farewell(e),
    }
}

/// Postgres says that it ends the session: it is being stopped, or the session was idle for too long.
fn is_farewell(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|e| matches!(e.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}
