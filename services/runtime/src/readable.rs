//! Whether this build can read all that the log holds of a domain: asked before anything is started on it.

use engine::{Domain, codec};
use sqlx::PgPool;
use std::fmt;
use std::time::Duration;
use store::event_types::{EventType, Presence, presence, registered};
use store::{Position, ReadError};

/// How long to look through the log for an event of a type that was registered, but that this build does not know.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why this build must not be started on this log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error(
        "the log holds {event_type}, first at position {first}, which this build does not know: run a build that knows it"
    )]
    Held { event_type: Shown, first: Position },
    #[error(
        "the log may hold {event_type}, which this build does not know; whether it does could not be found out within {} s: \
         run a build that knows it",
        limit.as_secs_f32()
    )]
    NotExcluded { event_type: Shown, limit: Duration },
}

/// `StockReceived of schema version 1 (stock)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub category: String,
    pub event_type: String,
    pub schema_version: i16,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of schema version {} ({})", self.event_type, self.schema_version, self.category)
    }
}

/// Why it is not known, or known not to be so.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// Checks that this build reads every event type that the log holds of the domain, in each of its schema versions. One that
/// was registered and never written is no hindrance, but to know that, the log is looked through. `pool` is in the role that
/// reads.
///
/// # Errors
/// When it does not, or the log cannot be asked.
pub async fn check<D: Domain>(pool: &PgPool) -> Result<(), CheckError> {
    check_within::<D>(pool, PATIENCE).await
}

/// The same, looking for each unknown type for as long as `limit`.
///
/// # Errors
/// As those of [`check`].
pub async fn check_within<D: Domain>(pool: &PgPool, limit: Duration) -> Result<(), CheckError> {
    for registered in registered(pool).await.map_err(ReadError::from)? {
        let EventType { category_name: category, domain, event_type, schema_version, .. } = &registered;
        // What is another domain's is not decoded here.
        if domain != D::NAME || codec::reads::<D>(category, event_type, *schema_version) {
            continue;
        }
        let (category, event_type) = (category.clone(), event_type.clone());
        let shown = Shown { category, event_type, schema_version: *schema_version };
        match presence(pool, &registered, limit).await.map_err(ReadError::from)? {
            Presence::From(first) => return Err(Unreadable::Held { event_type: shown, first }.into()),
            Presence::Unknown => return Err(Unreadable::NotExcluded { event_type: shown, limit }.into()),
            Presence::Never => tracing::info!(unknown = %shown, "registered by another build, and never written"),
        }
    }
    Ok(())
}
