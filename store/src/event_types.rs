//! The event types that a log may have, in their schema versions. Each is registered before it is written for the first time,
//! so that a build can check before it starts whether it can read them all.

use crate::{Append, Position};
use sqlx::{PgConnection, PgPool};
use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

/// An event type of a category, in one of its schema versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType {
    /// The category's id.
    pub category: i16,
    /// The category's name.
    pub category_name: String,
    /// The domain that the category belongs to.
    pub domain: String,
    /// The type's name.
    pub event_type: String,
    /// Of the payload.
    pub schema_version: i16,
}

/// Whether the log has an event of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Yes, the first one at this position.
    From(Position),
    /// No: the type was registered and never written.
    Never,
    /// It could not be found out in time.
    Unknown,
}

/// All registered types: those that the log has, and perhaps others.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn registered(pool: &PgPool) -> Result<Vec<EventType>, sqlx::Error> {
    let registered = sqlx::query_as!(
        EventType,
        "SELECT category, name AS category_name, domain, event_type, schema_version
         FROM daybook.event_types JOIN daybook.categories ON id = category
         ORDER BY category, event_type, schema_version"
    );
    registered.fetch_all(pool).await
}

/// Looks for the first event of a type, for as long as `limit`. There is no index by type, so it may read the whole log.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn presence(pool: &PgPool, event_type: &EventType, limit: Duration) -> Result<Presence, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // The pool's limits are for short statements.
    let limits = sqlx::query!(
        "SELECT set_config(name, value, true)
         FROM (VALUES ('transaction_timeout', '0'), ('lock_timeout', '0'), ('statement_timeout', $1)) AS l(name, value)",
        limit.as_millis().to_string()
    );
    limits.fetch_all(&mut *transaction).await?;
    let first = sqlx::query_scalar!(
        "SELECT position FROM daybook.events WHERE category = $1 AND event_type = $2 AND schema_version = $3
         ORDER BY position LIMIT 1",
        event_type.category,
        event_type.event_type,
        event_type.schema_version
    );
    match first.fetch_optional(&mut *transaction).await {
        Ok(first) => Ok(first.map_or(Presence::Never, Presence::From)),
        Err(sqlx::Error::Database(e)) if e.code().is_some_and(|code| code == QUERY_CANCELED) => Ok(Presence::Unknown),
        Err(e) => Err(e),
    }
}

/// Registers all types that the log has, as its owner, after an import.
///
/// # Errors
/// When Postgres fails.
pub(crate) async fn register_all(transaction: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO daybook.event_types (category, event_type, schema_version)
         SELECT DISTINCT category, event_type, schema_version FROM daybook.events
         ON CONFLICT ON CONSTRAINT event_types_type_version DO NOTHING"
    )
    .execute(transaction)
    .await
    .map(drop)
}

/// The SQLSTATE for a statement that has run into its time-out.
const QUERY_CANCELED: &str = "57014";

/// The types that an appender has registered.
#[derive(Debug, Default)]
pub(crate) struct Registered(HashSet<(i16, Cow<'static, str>, i16)>);

impl Registered {
    /// Registers, durably, the types that `appends` are about to write and that are new.
    pub(crate) async fn register(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
    ) -> Result<(), sqlx::Error> {
        let new = self.unregistered(appends);
        if new.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "SELECT daybook.register_event_types($1, $2, $3)",
            &new.iter().map(|(category, ..)| *category).collect::<Vec<_>>(),
            &new.iter().map(|(_, event_type, _)| &**event_type).collect::<Vec<_>>() as &[&str],
            &new.iter().map(|(.., version)| *version).collect::<Vec<_>>()
        )
        .fetch_one(connection)
        .await?;
        self.0.extend(
            new.into_iter()
                .map(|(category, event_type, version)| (category, Cow::Owned(event_type.into_owned()), version)),
        );
        Ok(())
    }

    /// This runs for every event that is written and nearly always finds nothing, so it allocates only if it does.
    fn unregistered<'a>(&self, appends: &'a [Append]) -> Vec<(i16, Cow<'a, str>, i16)> {
        // The same set with a shorter lifetime, so that it can be asked for borrowed names.
        let registered: &HashSet<(i16, Cow<'a, str>, i16)> = &self.0;
        let mut new = Vec::new();
        for write in appends.iter().flat_map(|append| &append.streams) {
            for event in &write.events {
                let of = (write.stream.category.id, Cow::Borrowed(&*event.event_type), event.schema_version);
                if !registered.contains(&of) && !new.contains(&of) {
                    new.push(of);
                }
            }
        }
        new
    }
}
