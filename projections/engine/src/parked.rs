//! Events that a projection cannot apply. They are parked with their cause, and are dead letters. What comes later for the
//! same key waits behind them, and all other keys go on.

use crate::apply::is_about_data;
use crate::dead_letter::Decision;
use crate::follow_up::storable;
use crate::projection::ReadModel;
use crate::row::Fold;
use crate::{Delivered, Domain, Projection, follow_up, timer};
use sqlx::{Connection, PgConnection, PgPool};
use std::collections::{HashMap, HashSet};
use store::checkpoint::{self, Checkpoint};
use store::{Position, RecordedEvent, derive_id};
use uuid::Uuid;

/// What waits together with an event that cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyedBy {
    /// All that has the same correlation id.
    Correlation,
    /// The event's stream.
    Stream,
    /// Nothing: its rows are made of what stands beside the payload, also of an event that cannot be read. If they
    /// cannot be written, it stops.
    Nothing,
}

impl KeyedBy {
    pub(crate) fn key(self, record: &RecordedEvent) -> Option<Uuid> {
        match self {
            Self::Correlation => Some(record.metadata.correlation_id),
            Self::Stream => Some(record.stream.id),
            Self::Nothing => None,
        }
    }
}

/// The id of the dead letter of an event that a projection cannot apply.
pub fn letter_id(event_id: Uuid, projection: &str) -> Uuid {
    derive_id(event_id, &[b"parked", projection.as_bytes()])
}

/// How many events are parked in each generation of a projection, those that wait behind others included.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn counts(pool: &PgPool) -> Result<HashMap<(String, i32), i64>, sqlx::Error> {
    let counts = sqlx::query!(
        r#"SELECT projection, generation, count(*) AS "events!" FROM daybook.parked_events
           GROUP BY projection, generation"#
    );
    let counts = counts.fetch_all(pool).await?;
    Ok(counts.into_iter().map(|row| ((row.projection, row.generation), row.events)).collect())
}

/// What a generation of a projection's rows goes on without.
pub(crate) struct Parked<D: Domain> {
    projection: Projection<D>,
    generation: i32,
    /// The keys of which something is parked.
    keys: HashSet<Uuid>,
    /// The events that were discarded by a decision.
    discarded: HashSet<Position>,
    /// What is not written yet.
    new: Rows,
}

/// Events to be parked, as columns.
#[derive(Default)]
struct Rows {
    id: Vec<Uuid>,
    position: Vec<Position>,
    key: Vec<Uuid>,
    cause: Vec<Option<String>>,
}

impl<D: Domain> Parked<D> {
    pub(crate) async fn read(
        connection: &mut PgConnection,
        projection: Projection<D>,
        generation: i32,
    ) -> Result<Self, sqlx::Error> {
        let keys = keys(connection, projection.name(), generation).await?;
        let discarded = discarded(connection, projection).await?;
        Ok(Self { projection, generation, keys, discarded, new: Rows::default() })
    }

    /// The events of `delivered` to apply. What cannot be read is parked, and what waits behind it with it.
    pub(crate) fn split(&mut self, delivered: &[Delivered<D>]) -> Vec<Delivered<D>> {
        let mut events = Vec::with_capacity(delivered.len());
        let projection = self.projection;
        for one in delivered.iter().filter(|one| projection.concerns(one.record())) {
            let record = one.record();
            let key = projection.keyed_by().key(record);
            if self.discarded.contains(&record.position) {
                continue;
            }
            match (one, key) {
                (_, Some(key)) if self.keys.contains(&key) => self.push(record, key, None),
                (Delivered::Unreadable { cause, .. }, Some(key)) => self.push(record, key, Some(cause)),
                (Delivered::Event(_), _) | (Delivered::Unreadable { .. }, None) => events.push(one.clone()),
                // It concerns no projection of the domain.
                (Delivered::Foreign(_), _) => {}
            }
        }
        events
    }

    /// Parks an event; `false`, if nothing goes on without it.
    pub(crate) fn park(&mut self, record: &RecordedEvent, cause: &str) -> bool {
        let key = self.projection.keyed_by().key(record);
        if let Some(key) = key {
            self.push(record, key, Some(cause));
        }
        key.is_some()
    }

    fn push(&mut self, record: &RecordedEvent, key: Uuid, cause: Option<&str>) {
        self.keys.insert(key);
        self.new.id.push(letter_id(record.event_id, self.projection.name()));
        self.new.position.push(record.position);
        self.new.key.push(key);
        self.new.cause.push(cause.map(storable));
    }

    /// Goes back to what is written.
    pub(crate) fn forget_unwritten(&mut self) {
        self.new = Rows::default();
    }

    pub(crate) async fn write(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Rows { id, position, key, cause } = std::mem::take(&mut self.new);
        if position.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO daybook.parked_events (projection, generation, id, position, key, cause)
             SELECT $1, $2, * FROM unnest($3::uuid[], $4::bigint[], $5::uuid[], $6::text[])
             ON CONFLICT ON CONSTRAINT parked_events_position DO NOTHING",
            self.projection.name(),
            self.generation,
            &id,
            &position,
            &key,
            &cause as &[Option<String>]
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The keys of which something is parked.
pub(crate) async fn keys(
    connection: &mut PgConnection,
    projection: &str,
    generation: i32,
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let keys = sqlx::query_scalar!(
        "SELECT DISTINCT key FROM daybook.parked_events WHERE projection = $1 AND generation = $2",
        projection,
        generation
    );
    Ok(keys.fetch_all(connection).await?.into_iter().collect())
}

/// Forgets all that is parked of a generation, for its rows are removed.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    projection: &str,
    generation: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM daybook.parked_events WHERE projection = $1 AND generation = $2", projection, generation)
        .execute(connection)
        .await?;
    Ok(())
}

/// The events that a projection goes on without, by a decision.
///
/// # Errors
/// When Postgres fails.
pub async fn discarded<D: Domain>(
    connection: &mut PgConnection,
    projection: Projection<D>,
) -> Result<HashSet<Position>, sqlx::Error> {
    let positions = sqlx::query_scalar!(
        r#"SELECT position AS "position!" FROM daybook.resolutions WHERE projection = $1 AND outcome = 'discarded'"#,
        projection.name()
    );
    Ok(positions.fetch_all(connection).await?.into_iter().collect())
}

/// An event that cannot be applied, and the key whose later events wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub position: Position,
    pub key: Uuid,
}

/// Writes down what was decided of a dead letter that is an event, in the transaction that holds the live checkpoint;
/// `None` if it does not wait (any more).
///
/// # Errors
/// When Postgres fails.
pub async fn decide<D: Domain>(
    transaction: &mut PgConnection,
    projection: Projection<D>,
    live: Checkpoint,
    id: Uuid,
    decision: &Decision<'_>,
) -> Result<Option<Head>, sqlx::Error> {
    sqlx::query_as!(
        Head,
        r#"INSERT INTO daybook.resolutions
               (dead_letter, outcome, parked_at, reason, resolved_by, why, projection, position, key)
           SELECT id, $4, parked_at, cause, $5, $6, projection, position, key FROM daybook.parked_events
           WHERE projection = $1 AND generation = $2 AND id = $3 AND cause IS NOT NULL
           RETURNING position AS "position!", key AS "key!""#,
        projection.name(),
        live.generation,
        id,
        decision.outcome(),
        storable(decision.by()),
        decision.why().map(storable)
    )
    .fetch_optional(transaction)
    .await
}

/// What is parked of a key, and waits, in order of position.
///
/// # Errors
/// When Postgres fails.
pub async fn of_key<D: Domain>(
    connection: &mut PgConnection,
    projection: Projection<D>,
    live: Checkpoint,
    key: Uuid,
) -> Result<Vec<Position>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT position FROM daybook.parked_events WHERE projection = $1 AND generation = $2 AND key = $3
         ORDER BY position",
        projection.name(),
        live.generation,
        key
    )
    .fetch_all(connection)
    .await
}

/// Applies what was parked of a key, in the transaction that holds the live checkpoint, up to the next event that cannot be
/// applied. The others then wait for that one. `events` are those of the key up to that checkpoint, of follow-ups and timers
/// only those that are parked; without those that were discarded.
///
/// `Some(cause)` if the retry failed at or before `head`. The caller must roll back.
///
/// # Errors
/// When Postgres fails.
pub async fn retry<D: Domain>(
    transaction: &mut PgConnection,
    projection: Projection<D>,
    live: Checkpoint,
    head: Head,
    decision: &Decision<'_>,
    events: &[Delivered<D>],
) -> Result<Option<String>, sqlx::Error> {
    let (applied, cause) = apply(transaction, projection, live, events).await?;
    let before = events.partition_point(|event| event.record().position < head.position);
    let least = match decision {
        Decision::Redrive { .. } => before + 1,
        Decision::Discard { .. } => before,
    };
    if applied < least {
        return Ok(cause);
    }
    let next = events.get(applied).map(|event| event.record().position);
    sqlx::query!(
        "DELETE FROM daybook.parked_events
         WHERE projection = $1 AND generation = $2 AND key = $3 AND ($4::bigint IS NULL OR position < $4)",
        projection.name(),
        live.generation,
        head.key,
        next
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "UPDATE daybook.parked_events SET cause = $4 WHERE projection = $1 AND generation = $2 AND position = $3",
        projection.name(),
        live.generation,
        next,
        cause.as_deref().map(storable)
    )
    .execute(&mut *transaction)
    .await?;
    checkpoint::edited(transaction, projection.name()).await?;
    if matches!(decision, Decision::Discard { .. }) {
        checkpoint::void_other(transaction, projection.name()).await?;
    }
    Ok(None)
}

/// Applies as many of `events` as can be, one after the other. Returns how many these are, and why not one more.
async fn apply<D: Domain>(
    transaction: &mut PgConnection,
    projection: Projection<D>,
    live: Checkpoint,
    events: &[Delivered<D>],
) -> Result<(usize, Option<String>), sqlx::Error> {
    let unreadable = events.iter().enumerate().find_map(|(n, event)| match event {
        Delivered::Unreadable { cause, .. } => Some((n, cause.clone())),
        Delivered::Event(_) | Delivered::Foreign(_) => None,
    });
    let readable = unreadable.as_ref().map_or(events.len(), |(n, _)| *n);
    let mut cause = unreadable.map(|(_, cause)| cause);
    // So many are written, and so many are too many. All that can be read are tried first.
    let (mut written, mut too_many, mut attempt) = (0, readable + 1, readable);
    while written + 1 < too_many {
        let mut part = transaction.begin().await?;
        match write(&mut part, projection, live, &events[..attempt]).await {
            Ok(()) => {
                part.commit().await?;
                written = attempt;
            }
            Err(e) if is_about_data(&e) => {
                part.rollback().await?;
                (too_many, cause) = (attempt, Some(e.to_string()));
            }
            Err(e) => return Err(e),
        }
        attempt = written.midpoint(too_many);
    }
    Ok((written, cause))
}

/// Of a read model from nothing: the rows that are stored are without what was parked.
async fn write<D: Domain>(
    transaction: &mut PgConnection,
    projection: Projection<D>,
    live: Checkpoint,
    events: &[Delivered<D>],
) -> Result<(), sqlx::Error> {
    match projection {
        Projection::ReadModel(model) => {
            let mut rows = model.rows(live.generation, true);
            rows.apply(transaction, events).await?;
            rows.flush(transaction).await
        }
        Projection::FollowUps => follow_up::record(transaction, events).await,
        Projection::Timers => timer::record(transaction, events).await,
    }
}
