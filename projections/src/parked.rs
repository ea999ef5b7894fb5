//! Events that cannot be taken into a projection. They are parked with their cause; what comes later for the same key waits
//! behind them, and all other keys go on.

use crate::follow_up::storable;
use crate::{Delivered, Projection, ReadModel, follow_up, timer};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use std::collections::HashSet;
use store::checkpoint::{self, Checkpoint};
use store::{Position, RecordedEvent};
use uuid::Uuid;

/// What waits together with an event that cannot be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyedBy {
    /// All that is about the same order, which is the correlation id.
    Order,
    /// The event's stream.
    Stream,
    /// Nothing: its rows are made of what stands beside the payload, and take in what cannot be read as well. If they
    /// cannot be written, it stops.
    Nothing,
}

impl KeyedBy {
    pub(crate) fn key(self, record: &RecordedEvent) -> Option<Uuid> {
        match self {
            Self::Order => Some(record.metadata.correlation_id),
            Self::Stream => Some(record.stream.id),
            Self::Nothing => None,
        }
    }
}

/// An event that is parked, or waits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parked {
    pub projection: String,
    pub position: Position,
    pub key: Uuid,
    pub correlation_id: Uuid,
    pub event_type: String,
    /// Why it cannot be taken in; `None` if it waits for one before it.
    pub cause: Option<String>,
    pub parked_at: DateTime<Utc>,
}

/// The keys of which something is parked.
pub(crate) async fn keys(connection: &mut PgConnection, projection: &str) -> Result<HashSet<Uuid>, sqlx::Error> {
    let keys = sqlx::query_scalar!("SELECT DISTINCT key FROM daybook.parked_events WHERE projection = $1", projection);
    Ok(keys.fetch_all(connection).await?.into_iter().collect())
}

/// Events to be parked, as columns.
#[derive(Default)]
pub(crate) struct ToPark {
    position: Vec<Position>,
    key: Vec<Uuid>,
    correlation_id: Vec<Uuid>,
    event_type: Vec<String>,
    cause: Vec<Option<String>>,
}

impl ToPark {
    pub(crate) fn push(&mut self, record: &RecordedEvent, key: Uuid, cause: Option<&str>) {
        self.position.push(record.position);
        self.key.push(key);
        self.correlation_id.push(record.metadata.correlation_id);
        self.event_type.push(record.event_type.to_string());
        self.cause.push(cause.map(storable));
    }

    pub(crate) async fn insert(self, connection: &mut PgConnection, projection: &str) -> Result<(), sqlx::Error> {
        if self.position.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO daybook.parked_events (projection, position, key, correlation_id, event_type, cause)
             SELECT $1, * FROM unnest($2::bigint[], $3::uuid[], $4::uuid[], $5::text[], $6::text[])
             ON CONFLICT ON CONSTRAINT parked_events_position DO NOTHING",
            projection,
            &self.position,
            &self.key,
            &self.correlation_id,
            &self.event_type,
            &self.cause as &[Option<String>]
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// What of `delivered` is taken in. What cannot be read is parked, and what waits behind it with it.
pub(crate) fn split(
    projection: Projection,
    delivered: &[Delivered],
    parked: &mut HashSet<Uuid>,
    to_park: &mut ToPark,
) -> Vec<Delivered> {
    let mut events = Vec::with_capacity(delivered.len());
    for one in delivered.iter().filter(|one| projection.concerns(one.record())) {
        let (record, key) = (one.record(), projection.keyed_by().key(one.record()));
        match (one, key) {
            (_, Some(key)) if parked.contains(&key) => to_park.push(record, key, None),
            (Delivered::Unreadable { cause, .. }, Some(key)) => {
                parked.insert(key);
                to_park.push(record, key, Some(cause));
            }
            (Delivered::Event(_), _) | (Delivered::Unreadable { .. }, None) => events.push(one.clone()),
        }
    }
    events
}

/// Forgets all that is parked under a name.
pub(crate) async fn forget(connection: &mut PgConnection, projection: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM daybook.parked_events WHERE projection = $1", projection).execute(connection).await?;
    Ok(())
}

/// Has what is parked under one name be parked under another as well, and nothing else there.
async fn copy(connection: &mut PgConnection, from: &str, to: &str) -> Result<(), sqlx::Error> {
    forget(connection, to).await?;
    sqlx::query!(
        "INSERT INTO daybook.parked_events (projection, position, key, correlation_id, event_type, cause, parked_at)
         SELECT $2, position, key, correlation_id, event_type, cause, parked_at
         FROM daybook.parked_events WHERE projection = $1",
        from,
        to
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Has what is parked under each of two names be parked under the other one.
pub(crate) async fn exchange(connection: &mut PgConnection, one: &str, other: &str) -> Result<(), sqlx::Error> {
    let apart = format!("{one} and {other}");
    copy(connection, one, &apart).await?;
    copy(connection, other, one).await?;
    copy(connection, &apart, other).await?;
    forget(connection, &apart).await
}

/// What is parked of the projections' live rows, and waits, in order of projection and position, from after `after`.
///
/// # Errors
/// When Postgres fails.
pub async fn list(pool: &PgPool, after: Option<(&str, Position)>, limit: i64) -> Result<Vec<Parked>, sqlx::Error> {
    let (projection, position) = after.unzip();
    sqlx::query_as!(
        Parked,
        "SELECT projection, position, key, correlation_id, event_type, cause, parked_at FROM daybook.parked_events
         WHERE ($1::text IS NULL OR (projection, position) > ($1, $2::bigint))
           AND projection IN (SELECT projection FROM daybook.checkpoints)
         ORDER BY projection, position LIMIT $3",
        projection,
        position,
        limit
    )
    .fetch_all(pool)
    .await
}

/// What is parked of a key, and waits, in order of position.
///
/// # Errors
/// When Postgres fails.
pub async fn of_key(
    connection: &mut PgConnection,
    projection: Projection,
    key: Uuid,
) -> Result<Vec<Position>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT position FROM daybook.parked_events WHERE projection = $1 AND key = $2 ORDER BY position",
        projection.name(),
        key
    )
    .fetch_all(connection)
    .await
}

/// Takes in what was parked of a key, in the transaction that holds the live checkpoint: of a read model its rows, folded
/// from all `events` of the key up to that checkpoint; of the others, the `events` that were parked.
///
/// # Errors
/// When Postgres fails, also because the rows still cannot be written.
pub async fn redrive(
    transaction: &mut PgConnection,
    projection: Projection,
    live: Checkpoint,
    key: Uuid,
    events: &[Delivered],
) -> Result<(), sqlx::Error> {
    match projection {
        Projection::ReadModel(model) => rebuilt(transaction, model, live, events).await?,
        Projection::FollowUps => follow_up::record(transaction, events).await?,
        Projection::Timers => timer::record(transaction, events).await?,
    }
    sqlx::query!("DELETE FROM daybook.parked_events WHERE projection = $1 AND key = $2", projection.name(), key)
        .execute(&mut *transaction)
        .await?;
    checkpoint::edited(transaction, projection.name()).await
}

async fn rebuilt(
    transaction: &mut PgConnection,
    model: ReadModel,
    live: Checkpoint,
    events: &[Delivered],
) -> Result<(), sqlx::Error> {
    // From nothing: the rows that are stored are without what was parked.
    let mut rows = model.rows(live.generation, true);
    rows.take(transaction, events).await?;
    rows.flush(transaction).await
}
