//! Connections to Postgres, each with the one role that it needs.

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use std::time::Duration;

/// What a connection may do. The login of the URL must be a member of these roles; `migrate` makes it one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    fn name(self) -> &'static str {
        match self {
            Self::Append => "daybook_append",
            Self::Project => "daybook_project",
            Self::Read => "daybook_read",
            Self::Owner => "daybook_owner",
        }
    }
}

/// How long a statement may take before Postgres ends it. It bounds what a stopped or dead client can hold up.
const STATEMENT_TIMEOUT: &str = "10s";

/// How long to wait for a connection before saying that Postgres is unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Options for connections in `role` to the database of `url`.
///
/// # Errors
/// When `url` is no Postgres URL.
pub fn options(url: &str, role: Role) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options.application_name(role.name()).disable_statement_logging().options([
        ("role", role.name()),
        // An acknowledgement is durability, and append_group relies on a snapshot a statement; whatever the server's
        // or the login's defaults are.
        ("synchronous_commit", "on"),
        ("default_transaction_isolation", "read committed"),
        ("statement_timeout", STATEMENT_TIMEOUT),
        ("transaction_timeout", STATEMENT_TIMEOUT),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("client_connection_check_interval", "1s"),
    ]))
}

/// A pool of up to `size` connections in `role`. It connects when it is first used.
///
/// # Errors
/// When `url` is no Postgres URL.
pub fn pool(url: &str, role: Role, size: u32) -> Result<PgPool, sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(size).acquire_timeout(ACQUIRE_TIMEOUT);
    Ok(pool.connect_lazy_with(options(url, role)?))
}
