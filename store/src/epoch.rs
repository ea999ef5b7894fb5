//! The epochs of a log. A new one begins when the log goes on from an older state, and events that it has lost had been
//! distributed: published to a broker, for example. What was distributed and lost is kept, for a person to look at.

use crate::Position;
use sqlx::{PgConnection, PgPool};

/// An epoch that is to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEpoch {
    /// Its number: one more than the log's.
    pub epoch: i64,
    /// The last position that the log and what had been distributed have in common.
    pub forked_after: Position,
    /// The last position that had been distributed; `None` if that is unknown.
    pub distributed_to: Option<Position>,
    /// How many of the messages in between are kept: see [`save_lost`].
    pub kept: i64,
    /// For people.
    pub why: String,
}

/// Begins an epoch: what was distributed in earlier ones and is not in the log is void. `false` if the epoch has begun
/// already.
///
/// # Errors
/// When Postgres fails.
pub async fn begin(transaction: &mut PgConnection, new: &NewEpoch) -> Result<bool, sqlx::Error> {
    let begun = sqlx::query_scalar!(
        "SELECT daybook.begin_epoch($1, $2, $3, $4, $5)",
        new.epoch,
        new.forked_after,
        new.distributed_to,
        new.kept,
        new.why
    );
    Ok(begun.fetch_one(transaction).await?.is_some())
}

/// Confirms that the log goes on in its epoch on its present server, because all that had been distributed is in it.
///
/// # Errors
/// When Postgres fails.
pub async fn confirm_server(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT daybook.confirm_server()").execute(pool).await.map(drop)
}

/// The server that the log was last confirmed to be on; `None` if it never was.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn confirmed(pool: &PgPool) -> Result<Option<crate::Server>, sqlx::Error> {
    let confirmed = sqlx::query_as!(
        crate::Server,
        "SELECT system_identifier, timeline FROM daybook.epochs ORDER BY epoch DESC LIMIT 1"
    );
    confirmed.fetch_optional(pool).await
}

/// A message that was distributed and is not in the log, as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Of the lost event.
    pub position: Position,
    /// What the message was published under.
    pub subject: String,
    /// A JSON object: the values of each header.
    pub headers: String,
    /// The message's body.
    pub payload: Vec<u8>,
}

/// Saves messages in the transaction that begins the epoch without them.
///
/// # Errors
/// When Postgres fails.
pub async fn save_lost(transaction: &mut PgConnection, epoch: i64, lost: &[Lost]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO daybook.lost_events (epoch, position, subject, headers, payload)
         SELECT $1, l.position, l.subject, l.headers::json, l.payload
         FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bytea[]) AS l (position, subject, headers, payload)
         ON CONFLICT ON CONSTRAINT lost_events_position DO NOTHING",
        epoch,
        &lost.iter().map(|l| l.position).collect::<Vec<_>>(),
        &lost.iter().map(|l| &*l.subject).collect::<Vec<_>>() as &[&str],
        &lost.iter().map(|l| &*l.headers).collect::<Vec<_>>() as &[&str],
        &lost.iter().map(|l| &l.payload[..]).collect::<Vec<_>>() as &[&[u8]]
    )
    .execute(transaction)
    .await
    .map(drop)
}

/// An epoch that began because something distributed was not in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Its number, from 2 on.
    pub epoch: i64,
    /// By Postgres' clock.
    pub began_at: chrono::DateTime<chrono::Utc>,
    /// The last position that the log and what had been distributed have in common.
    pub forked_after: Position,
    /// The last position that had been distributed; `None` if that is unknown.
    pub distributed_to: Option<Position>,
    /// How many of the messages in between are kept.
    pub kept: i64,
    /// For people.
    pub why: String,
}

/// The epochs after the first, in order.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn all(pool: &PgPool) -> Result<Vec<Epoch>, sqlx::Error> {
    sqlx::query_as!(
        Epoch,
        "SELECT epoch, began_at, forked_after, distributed_to, kept, why FROM daybook.epochs
         WHERE epoch > 1 ORDER BY epoch"
    )
    .fetch_all(pool)
    .await
}

/// Up to `limit` of the messages that an epoch began without, after position `after`.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn lost(pool: &PgPool, epoch: i64, after: Position, limit: i64) -> Result<Vec<Lost>, sqlx::Error> {
    sqlx::query_as!(
        Lost,
        r#"SELECT position, subject, headers::text AS "headers!", payload FROM daybook.lost_events
           WHERE epoch = $1 AND position > $2 ORDER BY position LIMIT $3"#,
        epoch,
        after,
        limit
    )
    .fetch_all(pool)
    .await
}
