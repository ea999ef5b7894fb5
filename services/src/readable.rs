//! Whether this build can read all that the log holds: asked before anything is started on it.

use crate::codec::{self, CATEGORIES};
use crate::process::StartError;
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
        "the log holds {}, first at position {first}, which this build does not know: run a build that knows it",
        Shown(event_type)
    )]
    Held { event_type: EventType, first: Position },
    #[error(
        "the log may hold {}, which this build does not know; whether it does could not be found out within {} s: run \
         a build that knows it",
        Shown(event_type),
        limit.as_secs_f32()
    )]
    NotExcluded { event_type: EventType, limit: Duration },
}

/// `StockReceived of schema version 1 (stock)`.
struct Shown<'a>(&'a EventType);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EventType { category, event_type, schema_version } = self.0;
        write!(f, "{event_type} of schema version {schema_version} (")?;
        match category_name(*category) {
            Some(name) => write!(f, "{name})"),
            None => write!(f, "category {category})"),
        }
    }
}

fn category_name(id: i16) -> Option<&'static str> {
    CATEGORIES.iter().find(|category| category.id == id).map(|category| category.name)
}

/// Checks that this build reads every event type that the log holds, in each of its schema versions. One that was
/// registered and never written is no hindrance, but to know that, the log is looked through. `pool` is in the role that
/// reads.
///
/// # Errors
/// [`StartError::Unreadable`], or when the log cannot be asked.
pub async fn check(pool: &PgPool) -> Result<(), StartError> {
    check_within(pool, PATIENCE).await
}

/// The same, looking for each unknown type for as long as `limit`.
///
/// # Errors
/// As those of [`check`].
pub async fn check_within(pool: &PgPool, limit: Duration) -> Result<(), StartError> {
    let reads = |t: &EventType| {
        category_name(t.category).is_some_and(|name| codec::reads(name, &t.event_type, t.schema_version))
    };
    let registered = registered(pool).await.map_err(ReadError::from)?;
    for event_type in registered.into_iter().filter(|event_type| !reads(event_type)) {
        match presence(pool, &event_type, limit).await.map_err(ReadError::from)? {
            Presence::From(first) => return Err(Unreadable::Held { event_type, first }.into()),
            Presence::Unknown => return Err(Unreadable::NotExcluded { event_type, limit }.into()),
            Presence::Never => {
                tracing::info!(unknown = %Shown(&event_type), "registered by another build, and never written");
            }
        }
    }
    Ok(())
}
