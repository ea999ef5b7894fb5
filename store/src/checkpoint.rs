//! How far a projection has come. A checkpoint moves in the transaction that writes the rows, and for its owner alone.

use crate::Position;
use crate::lease::Lease;
use sqlx::{PgConnection, PgPool};

/// A projection's place in the log, in one generation of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub generation: i32,
    pub position: Position,
}

/// Somebody else moved the checkpoint, or owns it now: what was in the transaction must not be committed.
#[derive(Debug, thiserror::Error)]
pub enum AdvanceError {
    #[error("the checkpoint of {0} is no longer where it was, or no longer ours")]
    Fenced(&'static str),
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

/// Moves the checkpoint, within the transaction that writes the rows of the events in between.
///
/// # Errors
/// When it is not at `from` or no longer under this fence: another owner has moved on.
pub async fn advance(
    transaction: &mut PgConnection,
    projection: &'static str,
    from: Checkpoint,
    to: Position,
    fence: i64,
) -> Result<Checkpoint, AdvanceError> {
    let moved = sqlx::query!(
        "UPDATE daybook.checkpoints SET position = $4, moved_at = clock_timestamp()
         WHERE projection = $1 AND generation = $2 AND position = $3 AND fence = $5",
        projection,
        from.generation,
        from.position,
        to,
        fence
    )
    .execute(transaction)
    .await?;
    if moved.rows_affected() == 1 {
        Ok(Checkpoint { position: to, ..from })
    } else {
        Err(AdvanceError::Fenced(projection))
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

/// Makes `generation` the live one and the only one. Whoever writes the old one finds its checkpoint gone.
///
/// # Errors
/// When Postgres fails.
pub async fn switch(
    transaction: &mut PgConnection,
    projection: &'static str,
    generation: i32,
) -> Result<(), sqlx::Error> {
    keep_only(transaction, projection, generation).await?;
    sqlx::query!(
        "UPDATE daybook.checkpoints SET live = true WHERE projection = $1 AND generation = $2",
        projection,
        generation
    )
    .execute(transaction)
    .await?;
    Ok(())
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
