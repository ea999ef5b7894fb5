//! What a failure of Postgres means: the only table of its error codes.
//!
//! The classes are those of PostgreSQL 18's documentation, appendix A.

use crate::connect::Unusable;

/// What can be done about a failure.
///
/// ```
/// # use daybook_store::Failure;
/// assert_eq!(Failure::of_sqlstate("40P01"), Failure::Passing, "a deadlock");
/// assert_eq!(Failure::of_sqlstate("22P02"), Failure::Data, "text that is no JSON");
/// assert_eq!(Failure::of_sqlstate("42501"), Failure::Permanent, "a right that is missing");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// Try again: it passes by itself.
    Passing,
    /// Send other data: this can never be stored, or asked for.
    Data,
    /// Change something (rights, schema, settings, the disk, this program): until then it fails.
    Permanent,
}

impl Failure {
    /// The meaning of an error of sqlx.
    pub fn of(error: &sqlx::Error) -> Self {
        use sqlx::Error as E;
        match error {
            E::Database(e) => e.code().map_or(Self::Permanent, |code| Self::of_sqlstate(&code)),
            // Nobody answers, or the connection is gone; a server that dies in the middle of a message breaks the protocol.
            E::Io(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Protocol(_) => Self::Passing,
            // There will be another primary.
            _ if matches!(Unusable::of(error), Some(Unusable::ReadOnly(_))) => Self::Passing,
            // What was asked for is not what is there: a program that does not fit its database, or its settings.
            _ => Self::Permanent,
        }
    }

    /// The meaning of an SQLSTATE: its own, else that of its class. Unknown ones are permanent, because to repeat what never
    /// succeeds would hide it.
    pub fn of_sqlstate(code: &str) -> Self {
        match code {
            // The server is read-only: it is a standby, or the former primary. There will be another one.
            "25006" => Self::Passing,
            // Idle for too long in a transaction, or a transaction that took too long.
            "25P03" | "25P04" => Self::Passing,
            // Somebody has a lock, or uses what is to be dropped.
            "55P03" | "55006" => Self::Passing,
            // The database was dropped.
            "57P04" => Self::Permanent,
            // The clocks differ, which time servers mend; and another process' may not.
            "YH002" => Self::Passing,
            _ => Self::of_class(code.get(..2).unwrap_or_default()),
        }
    }

    fn of_class(class: &str) -> Self {
        match class {
            // Connection exception.
            "08" => Self::Passing,
            // Data exception; integrity constraint violation; with check option violation; program limit exceeded.
            "22" | "23" | "44" | "54" => Self::Data,
            // Transaction rollback: a deadlock, or what could not be serialised.
            "40" => Self::Passing,
            // Insufficient resources: disk, memory, connections. It is given back, or added to.
            "53" => Self::Passing,
            // Operator intervention: a time-out, a shutdown, a start.
            "57" => Self::Passing,
            // All others are of the program (syntax, rights, prepared statements, invalid transaction state), of the set-up
            // (authorisation, catalog and schema names, roles, configuration file) or of a broken server (system and internal
            // errors, corruption).
            _ => Self::Permanent,
        }
    }
}
