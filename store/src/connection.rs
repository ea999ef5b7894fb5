//! A connection that one task owns: made when it is needed, kept from call to call, and replaced when it is broken.

use crate::connect::is_lost;
use crate::connector::{Connected, Connector, DOUBT, late};
use crate::session::is_read_only;
use sqlx::postgres::PgConnection;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a call may take, including a new connection: somewhat longer than Postgres' own limit. If another server takes
/// writes, a call is given up much earlier.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);
/// How long connecting may take. The name of a host that is gone without a word may lead to another one at the next try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection that only reads is used before it is asked again whether its server takes writes. A connection that
/// writes finds out by itself.
const BELIEVED: Duration = Duration::from_secs(1);

pub(crate) struct Connection {
    connector: Connector,
    kept: Option<Connected>,
    /// When it was last asked whether its server takes writes; `None` if it need not be.
    asked: Option<Instant>,
}

impl Connection {
    /// For writing: on a server that takes no writes, the first call fails.
    pub(crate) fn that_writes(connector: Connector) -> Self {
        Self { connector, kept: None, asked: None }
    }

    /// For reading: a former primary would be read for ever if it were not asked.
    pub(crate) fn that_reads(connector: Connector) -> Self {
        Self { connector, kept: None, asked: Some(Instant::now()) }
    }

    /// Whether the next call uses the connection of an earlier one. It may have broken long ago.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Drops the connection, so that the next call makes a new one. It is not closed, which could wait for a dead server.
    pub(crate) fn give_up(&mut self) {
        self.kept = None;
    }

    /// Calls with the connection, which is kept for the next call unless it failed.
    pub(crate) async fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let called = async {
            let mut connected = match self.take_kept().await {
                Some(connected) => connected,
                None => timeout(CONNECT_TIMEOUT, self.connector.connect()).await.unwrap_or_else(|_| Err(late()))?,
            };
            let at = connected.server();
            let called = tokio::select! {
                biased;
                called = call(&mut connected.connection) => called,
                another = self.connector.another_than(at) => {
                    self.kept = Some(another);
                    return Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()));
                }
            };
            if !called.as_ref().is_err_and(is_lost) {
                self.kept = Some(connected);
            }
            called
        };
        timeout(CALL_TIMEOUT, called).await.unwrap_or_else(|_| Err(late()))
    }

    async fn take_kept(&mut self) -> Option<Connected> {
        let mut kept = self.kept.take()?;
        if self.asked.is_some_and(|asked| asked.elapsed() > BELIEVED) {
            let asked = timeout(DOUBT, is_read_only(&mut kept.connection)).await;
            if !asked.is_ok_and(|asked| asked.is_ok_and(|read_only| !read_only)) {
                return None;
            }
            self.asked = Some(Instant::now());
        }
        Some(kept)
    }
}

/// Whether the connection is gone or ends at the wrong server. A time-out does not count: another connection would fare no
/// better.
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(e) => e.kind() != std::io::ErrorKind::TimedOut,
        sqlx::Error::Database(_) => is_lost(error),
        _ => false,
    }
}
