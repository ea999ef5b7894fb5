//! How far a projection has come. A checkpoint moves in the transaction that writes the rows, and for its owner alone.

use crate::lease::Lease;
use crate::{Position, RecordedEvent};
use sqlx::{PgConnection, PgPool};

/// A projection's place in the log, in one generation of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub generation: i32,
    pub position: Position,
}

/// What was in the transaction must not be committed.
#[derive(Debug, thiserror::Error)]
pub enum AdvanceError {
    /// Somebody else moved the checkpoint, or owns it now.
    #[error("the checkpoint of {0} is no longer where it was, or no longer ours")]
    Fenced(&'static str),
    /// The events come from somewhere else: from before a restore, say.
    #[error("the log has another event at position {0}, or none")]
    NotInLog(Position),
    #[error("the checkpoint cannot be moved: {0}")]
    Database(#[from] sqlx::Error),
}

/// The live generation's checkpoint, taken under the lease's fence: from now on, no older owner can move it.
///
/// # Errors
/// When Postgres cannot be asked, or a newer owner has taken it.
pub async fn take(pool: &PgPool, projection: &'static str, lease: &Lease) -> Result<Checkpoint, AdvanceError> {
    let taken = sqlx::query_as!(
        Checkpoint,
        "UPDATE daybook.checkpoints SET fence = $2 WHERE projection = $1 AND live AND fence <= $2
         RETURNING generation, position",
        projection,
        lease.fence
    );
    taken.fetch_optional(pool).await?.ok_or(AdvanceError::Fenced(projection))
}

/// Moves the checkpoint to the event `to`, within the transaction that writes the rows of the events in between.
///
/// # Errors
/// When it is not at `from` or no longer under this fence: another owner has moved on. When `to` is not in the log: an
/// event that is proves all before it, for two histories of a log differ from one position on.
pub async fn advance(
    transaction: &mut PgConnection,
    projection: &'static str,
    from: Checkpoint,
    to: &RecordedEvent,
    fence: i64,
) -> Result<Checkpoint, AdvanceError> {
    let moved = sqlx::query!(
        "UPDATE daybook.checkpoints SET position = $4, moved_at = clock_timestamp()
         WHERE projection = $1 AND generation = $2 AND position = $3 AND fence = $5
           AND EXISTS (SELECT FROM daybook.events WHERE position = $4 AND event_id = $6)",
        projection,
        from.generation,
        from.position,
        to.position,
        fence,
        to.event_id
    );
    if moved.execute(&mut *transaction).await?.rows_affected() == 1 {
        return Ok(Checkpoint { position: to.position, ..from });
    }
    let recorded = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM daybook.events WHERE position = $1 AND event_id = $2) AS "recorded!""#,
        to.position,
        to.event_id
    );
    match recorded.fetch_one(transaction).await? {
        true => Err(AdvanceError::Fenced(projection)),
        false => Err(AdvanceError::NotInLog(to.position)),
    }
}

/// The live generation's checkpoint, held where it is until the transaction ends.
///
/// # Errors
/// When Postgres fails.
pub async fn hold_live(transaction: &mut PgConnection, projection: &'static str) -> Result<Checkpoint, sqlx::Error> {
    sqlx::query_as!(
        Checkpoint,
        "SELECT generation, position FROM daybook.checkpoints WHERE projection = $1 AND live FOR UPDATE",
        projection
    )
    .fetch_one(transaction)
    .await
}

/// Begins the generation after the live one, at position 0. Only the live one is left beside it, so an earlier attempt
/// that is still going on finds its own gone.
///
/// # Errors
/// When Postgres fails.
pub async fn begin(transaction: &mut PgConnection, projection: &'static str) -> Result<Checkpoint, sqlx::Error> {
    let live = hold_live(transaction, projection).await?;
    keep_only(transaction, projection, live.generation).await?;
    sqlx::query_as!(
        Checkpoint,
        "INSERT INTO daybook.checkpoints (projection, generation, live) VALUES ($1, $2, false)
         RETURNING generation, position",
        projection,
        live.generation + 1
    )
    .fetch_one(transaction)
    .await
}

/// Makes the generation that is `built` the live one and the only one. Whoever writes the old one finds its checkpoint
/// gone.
///
/// # Errors
/// When it is not there, or not at that position: somebody else is building it.
pub async fn switch(
    transaction: &mut PgConnection,
    projection: &'static str,
    built: Checkpoint,
) -> Result<(), AdvanceError> {
    keep_only(transaction, projection, built.generation).await?;
    let switched = sqlx::query!(
        "UPDATE daybook.checkpoints SET live = true
         WHERE projection = $1 AND generation = $2 AND position = $3 AND NOT live",
        projection,
        built.generation,
        built.position
    );
    match switched.execute(transaction).await?.rows_affected() {
        1 => Ok(()),
        _ => Err(AdvanceError::Fenced(projection)),
    }
}

/// Moves the live checkpoint from the beginning to `to`, without the events up to there.
///
/// # Errors
/// When it is not at the beginning, or Postgres fails.
pub(crate) async fn begin_after(
    transaction: &mut PgConnection,
    projection: &'static str,
    to: Position,
) -> Result<(), AdvanceError> {
    let moved = sqlx::query!(
        "UPDATE daybook.checkpoints SET position = $2, moved_at = clock_timestamp()
         WHERE projection = $1 AND live AND position = 0",
        projection,
        to
    );
    match moved.execute(transaction).await?.rows_affected() {
        1 => Ok(()),
        _ => Err(AdvanceError::Fenced(projection)),
    }
}

async fn keep_only(
    transaction: &mut PgConnection,
    projection: &'static str,
    generation: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM daybook.checkpoints WHERE projection = $1 AND generation <> $2", projection, generation)
        .execute(transaction)
        .await?;
    Ok(())
}

/// Where the live generation of each projection is.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn live(pool: &PgPool) -> Result<Vec<(String, Position)>, sqlx::Error> {
    let rows = sqlx::query!("SELECT projection, position FROM daybook.checkpoints WHERE live ORDER BY projection");
    Ok(rows.fetch_all(pool).await?.into_iter().map(|row| (row.projection, row.position)).collect())
}
