//! How far a projection has come. A checkpoint moves in the transaction that writes the rows, and for its owner alone.

use crate::Position;
use crate::chain::Mark;
use crate::lease::{self, Lease};
use sqlx::{PgConnection, PgExecutor, PgPool};

/// A projection's place in the log, in one generation of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub generation: i32,
    /// Whether it is the generation that is served.
    pub live: bool,
    pub position: Position,
    /// How often somebody else than its owner has written rows.
    pub edits: i64,
    /// The proof of the events that its owner has taken in. None, if it has taken in none since it read the checkpoint: then
    /// it remembers nothing of them.
    pub proof: Option<Mark>,
}

impl Checkpoint {
    fn stored(generation: i32, live: bool, position: Position, edits: i64) -> Self {
        Self { generation, live, position, edits, proof: None }
    }
}

/// A checkpoint as it is stored.
macro_rules! stored {
    ($query:literal, $($argument:expr),*) => {
        sqlx::query!($query, $($argument),*)
            .map(|row| Checkpoint::stored(row.generation, row.live, row.position, row.edits))
    };
}

/// What was in the transaction must not be committed.
#[derive(Debug, thiserror::Error)]
pub enum AdvanceError {
    /// Somebody else moved the checkpoint, or owns it now.
    #[error("the checkpoint of {0} is no longer where it was, or no longer ours")]
    Fenced(&'static str),
    /// The live rows are of other code: this build must not write them.
    #[error(
        "the rows of {projection} are of version {live}, this build has version {ours}: run `daybook replay {projection}`"
    )]
    OtherVersion { projection: &'static str, live: i16, ours: i16 },
    /// The events, or those that were taken in before, are not the log's: it has gone on from an older state, or somebody has
    /// forged them.
    #[error("the log does not have the events up to position {0}")]
    NotInLog(Position),
    #[error("the checkpoint cannot be moved: {0}")]
    Database(#[from] sqlx::Error),
}

/// The live generation's checkpoint, taken under the lease's fence: from now on, no older owner can move it.
///
/// # Errors
/// When its rows are of another version, a newer owner has taken it, or Postgres cannot be asked.
pub async fn take(
    pool: &PgPool,
    projection: &'static str,
    version: i16,
    lease: &Lease,
) -> Result<Checkpoint, AdvanceError> {
    let taken = stored!(
        "UPDATE daybook.checkpoints SET fence = $2 WHERE projection = $1 AND live AND fence <= $2 AND version = $3
         RETURNING generation, live, position, edits",
        projection,
        lease.fence,
        version
    );
    if let Some(taken) = taken.fetch_optional(pool).await? {
        return Ok(taken);
    }
    match live_rows(pool, projection).await? {
        Some(Live { version: live, .. }) if live != version => {
            Err(AdvanceError::OtherVersion { projection, live, ours: version })
        }
        _ => {
            lease::outrank(pool, lease).await?;
            Err(AdvanceError::Fenced(projection))
        }
    }
}

/// Moves the checkpoint to position `to`, within the transaction that writes the rows of the events in between. `proof` is a
/// mark at or after `to` in the history of these events.
///
/// # Errors
/// When it is not at `from` or no longer under this fence: another owner has moved on. When the log does not have `proof`,
/// or that of the events before.
pub async fn advance(
    transaction: &mut PgConnection,
    projection: &'static str,
    from: Checkpoint,
    to: Position,
    proof: Mark,
    fence: i64,
) -> Result<Checkpoint, AdvanceError> {
    debug_assert!(from.position < to && to <= proof.position, "{from:?}, {to}, {proof:?}");
    let before = from.proof.unwrap_or(proof);
    let moved = sqlx::query!(
        "UPDATE daybook.checkpoints SET position = $4, moved_at = clock_timestamp(), last_error = NULL
         WHERE projection = $1 AND generation = $2 AND position = $3 AND fence = $5 AND live = $7 AND edits = $8
           AND EXISTS (SELECT FROM daybook.events WHERE position = $6 AND link = $9)
           AND EXISTS (SELECT FROM daybook.events WHERE position = $10 AND link = $11)",
        projection,
        from.generation,
        from.position,
        to,
        fence,
        proof.position,
        from.live,
        from.edits,
        &proof.link.0[..],
        before.position,
        &before.link.0[..]
    );
    if moved.execute(&mut *transaction).await?.rows_affected() == 1 {
        return Ok(Checkpoint { position: to, proof: Some(proof), ..from });
    }
    let proved = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM daybook.events WHERE position = $1 AND link = $2)
              AND EXISTS (SELECT FROM daybook.events WHERE position = $3 AND link = $4) AS "proved!""#,
        proof.position,
        &proof.link.0[..],
        before.position,
        &before.link.0[..]
    );
    match proved.fetch_one(transaction).await? {
        true => Err(AdvanceError::Fenced(projection)),
        false => Err(AdvanceError::NotInLog(to)),
    }
}

/// The live generation's checkpoint, held where it is until the transaction ends.
///
/// # Errors
/// When Postgres fails.
pub async fn hold_live(transaction: &mut PgConnection, projection: &'static str) -> Result<Checkpoint, sqlx::Error> {
    stored!(
        "SELECT generation, live, position, edits FROM daybook.checkpoints WHERE projection = $1 AND live FOR UPDATE",
        projection
    )
    .fetch_one(transaction)
    .await
}

/// Takes over the generation in the making, if there is one of this version: whoever was making it no longer can.
///
/// # Errors
/// When Postgres fails.
pub async fn resume(
    transaction: &mut PgConnection,
    projection: &'static str,
    version: i16,
    fence: i64,
) -> Result<Option<Checkpoint>, sqlx::Error> {
    stored!(
        "UPDATE daybook.checkpoints SET fence = $3
         WHERE projection = $1 AND NOT live AND NOT kept AND version = $2
         RETURNING generation, live, position, edits",
        projection,
        version,
        fence
    )
    .fetch_optional(transaction)
    .await
}

/// Takes over the generation that was live before, if it was kept and is of this version, to bring it up to date.
///
/// # Errors
/// When Postgres fails.
pub async fn take_kept(
    transaction: &mut PgConnection,
    projection: &'static str,
    version: i16,
    fence: i64,
) -> Result<Option<Checkpoint>, sqlx::Error> {
    stored!(
        "UPDATE daybook.checkpoints SET fence = $3
         WHERE projection = $1 AND kept AND version = $2
         RETURNING generation, live, position, edits",
        projection,
        version,
        fence
    )
    .fetch_optional(transaction)
    .await
}

/// Begins the generation beside the live one, at position 0. What was there is void: its rows are to be removed in the
/// same transaction.
///
/// # Errors
/// When Postgres fails.
pub async fn begin(
    transaction: &mut PgConnection,
    projection: &'static str,
    version: i16,
    fence: i64,
) -> Result<Checkpoint, sqlx::Error> {
    let live = hold_live(transaction, projection).await?;
    stored!(
        "INSERT INTO daybook.checkpoints AS c (projection, generation, live, version, fence)
         VALUES ($1, 3 - $2, false, $3, $4)
         ON CONFLICT ON CONSTRAINT checkpoints_generation DO UPDATE
         SET position = 0, kept = false, version = $3, fence = $4, moved_at = clock_timestamp()
         RETURNING generation, live, position, edits",
        projection,
        live.generation,
        version,
        fence
    )
    .fetch_one(transaction)
    .await
}

/// Forgets a generation in the making; its rows are to be removed in the same transaction.
///
/// # Errors
/// When Postgres fails.
pub async fn discard(
    transaction: &mut PgConnection,
    projection: &'static str,
    built: Checkpoint,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM daybook.checkpoints WHERE projection = $1 AND generation = $2 AND NOT live",
        projection,
        built.generation
    )
    .execute(transaction)
    .await?;
    Ok(())
}

/// Makes the generation that is `built` the live one, and keeps the one before. Whoever writes that finds that it is not
/// live any more.
///
/// # Errors
/// When it is not there, or not at that position: somebody else is building it.
pub async fn switch(
    transaction: &mut PgConnection,
    projection: &'static str,
    built: Checkpoint,
) -> Result<(), AdvanceError> {
    let before = sqlx::query!(
        "UPDATE daybook.checkpoints SET live = false, kept = true WHERE projection = $1 AND live
         RETURNING fence, paused",
        projection
    );
    let before = before.fetch_optional(&mut *transaction).await?.ok_or(AdvanceError::Fenced(projection))?;
    // Its owner goes on under the fence that it has; or stands still, if it was paused.
    let switched = sqlx::query!(
        "UPDATE daybook.checkpoints
         SET live = true, kept = false, fence = $4, paused = $5, moved_at = clock_timestamp()
         WHERE projection = $1 AND generation = $2 AND position = $3 AND NOT live",
        projection,
        built.generation,
        built.position,
        before.fence,
        before.paused
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

/// Where the live generation of each projection is.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn live(pool: &PgPool) -> Result<Vec<(String, Position)>, sqlx::Error> {
    let rows = sqlx::query!("SELECT projection, position FROM daybook.checkpoints WHERE live ORDER BY projection");
    Ok(rows.fetch_all(pool).await?.into_iter().map(|row| (row.projection, row.position)).collect())
}

/// Of a projection's live rows, what keeps an owner from writing them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Of the code that folded them.
    pub version: i16,
    /// Of the last event that is in them.
    pub position: Position,
    /// Somebody wants it to stand still.
    pub paused: bool,
}

/// The live generation of a projection; `None` if it has none.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn live_rows(on: impl PgExecutor<'_>, projection: &str) -> Result<Option<Live>, sqlx::Error> {
    sqlx::query_as!(
        Live,
        "SELECT version, position, paused FROM daybook.checkpoints WHERE projection = $1 AND live",
        projection
    )
    .fetch_optional(on)
    .await
}

/// Has a projection stand still, or go on; `false` if there is none of that name.
///
/// # Errors
/// When Postgres fails.
pub async fn pause(pool: &PgPool, projection: &str, paused: bool) -> Result<bool, sqlx::Error> {
    // Of the generation that is not live as well: a replay does not end a pause.
    let changed = sqlx::query!("UPDATE daybook.checkpoints SET paused = $2 WHERE projection = $1", projection, paused);
    Ok(changed.execute(pool).await?.rows_affected() > 0)
}

/// Keeps why a projection does not go on, until it does.
///
/// # Errors
/// When Postgres fails.
pub async fn failed(pool: &PgPool, projection: &str, error: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE daybook.checkpoints SET last_error = $2, failed_at = clock_timestamp() WHERE projection = $1 AND live",
        projection,
        error
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Says, in the transaction that has written rows, that the owner must forget what it remembers of them.
///
/// # Errors
/// When Postgres fails.
pub async fn edited(transaction: &mut PgConnection, projection: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE daybook.checkpoints SET edits = edits + 1 WHERE projection = $1 AND live", projection)
        .execute(transaction)
        .await?;
    Ok(())
}

/// Makes the generation that is not live void: nobody goes on with it, or back to it.
///
/// # Errors
/// When Postgres fails.
pub async fn void_other(transaction: &mut PgConnection, projection: &str) -> Result<(), sqlx::Error> {
    // No code has version 0, and a replay that runs finds it is not where it left it.
    let void = sqlx::query!(
        "UPDATE daybook.checkpoints SET position = 0, version = 0, kept = false, edits = edits + 1
         WHERE projection = $1 AND NOT live",
        projection
    );
    void.execute(transaction).await?;
    Ok(())
}

/// Where a projection is, and what keeps it from being further.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub projection: String,
    pub position: Position,
    pub version: i16,
    pub paused: bool,
    /// How many events of the log it does not have.
    pub lag_events: i64,
    /// How long ago the first of them was recorded, in seconds; 0 if there is none.
    pub lag_seconds: f64,
    /// How long ago it moved, in seconds.
    pub moved_seconds_ago: f64,
    /// How long ago its owner renewed the lease, in seconds, which it does every second; `None` if nobody has it, because
    /// nobody ever had, or the last owner gave it back.
    pub heartbeat_seconds_ago: Option<f64>,
    /// What the last try failed with, if none has succeeded since.
    pub last_error: Option<String>,
    /// How many events are parked, or wait behind one.
    pub parked: i64,
    /// How far the generation in the making has come, if there is one.
    pub rebuilt_to: Option<Position>,
    /// Whether the generation before is kept.
    pub kept: bool,
}

/// The status of every projection, in order of their names.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn status(pool: &PgPool) -> Result<Vec<Status>, sqlx::Error> {
    sqlx::query_as!(
        Status,
        r#"SELECT c.projection, c.position, c.version, c.paused, c.last_error,
                  greatest(head.position - c.position, 0) AS "lag_events!",
                  coalesce(extract(epoch FROM clock_timestamp() - (
                      SELECT recorded_at FROM daybook.events AS e WHERE e.position = c.position + 1)), 0)::float8
                      AS "lag_seconds!",
                  extract(epoch FROM clock_timestamp() - c.moved_at)::float8 AS "moved_seconds_ago!",
                  extract(epoch FROM clock_timestamp() - (l.expires_at - make_interval(secs => $1)))::float8
                      AS heartbeat_seconds_ago,
                  (SELECT count(*) FROM daybook.parked_events AS p
                   WHERE (p.projection, p.generation) = (c.projection, c.generation)) AS "parked!",
                  (SELECT o.position FROM daybook.checkpoints AS o
                   WHERE o.projection = c.projection AND NOT o.live AND NOT o.kept AND o.position > 0) AS rebuilt_to,
                  EXISTS (SELECT FROM daybook.checkpoints AS o
                          WHERE o.projection = c.projection AND o.kept) AS "kept!"
           FROM daybook.checkpoints AS c
           CROSS JOIN (SELECT coalesce(max(position), 0) AS position FROM daybook.events) AS head
           LEFT JOIN daybook.leases AS l ON l.name = c.projection AND isfinite(l.expires_at)
           WHERE c.live ORDER BY c.projection"#,
        lease::DURATION.as_secs_f64()
    )
    .fetch_all(pool)
    .await
}
