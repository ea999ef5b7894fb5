//! How far a consumer of the log has come. Here it is called a projection: whatever makes rows of events.
//!
//! A checkpoint moves in the transaction that writes the rows, and only for its owner: whoever has the
//! [`lease`], in the history of the log that the events are of. So no event is left out and none is applied
//! twice, whatever is killed, stopped or restored.
//!
//! A projection may have two generations of its rows: the live one, and one beside it that is being built or was live before.
//!
//! ```no_run
//! # use daybook_store::{Log, Mark, RecordedEvent, checkpoint::{self, AdvanceError}, lease};
//! # use sqlx::{PgConnection, PgPool};
//! # use uuid::Uuid;
//! # async fn write_rows(on: &mut PgConnection, events: &[RecordedEvent]) -> Result<(), sqlx::Error> { Ok(()) }
//! # async fn example(pool: PgPool, log: Log, owner: Uuid) -> Result<(), Box<dyn std::error::Error>> {
//! const NAME: &str = "carts";
//! const VERSION: i16 = 1; // of the code that writes the rows
//!
//! let Some(lease) = lease::acquire(&pool, NAME, owner).await? else { return Ok(()) };
//! let mut at = checkpoint::acquire(&pool, NAME, VERSION, &lease).await?;
//! let mut scan = log.scan(at.position, log.head().await?);
//! while let Some(page) = scan.next().await? {
//!     let Some(last) = page.events.last() else { continue };
//!     let mut transaction = pool.begin().await?;
//!     write_rows(&mut transaction, &page.events).await?;
//!     at = checkpoint::advance(&mut transaction, NAME, at, last.position, page.end, lease.fence).await?;
//!     transaction.commit().await?;
//!     lease::acquire(&pool, NAME, owner).await?; // renews it
//! }
//! # Ok(())
//! # }
//! ```

use crate::Position;
use crate::hash_chain::Mark;
use crate::lease::{self, Lease};
use sqlx::{PgConnection, PgExecutor, PgPool};

/// A projection's place in the log, for one generation of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// 1 or 2.
    pub generation: i32,
    /// Whether it is the generation that is served.
    pub live: bool,
    /// The rows are made of all events up to it.
    pub position: Position,
    /// How often anyone but its owner has written rows: see [`edited`].
    pub edits: i64,
    /// The mark of the events that its owner has applied. None, if it has applied none since it read the checkpoint: then
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

/// Why a checkpoint does not move. The transaction must not be committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdvanceError {
    /// Another process moved the checkpoint, or owns it now.
    #[error("the checkpoint of {0} is no longer where it was, or no longer ours")]
    Fenced(&'static str),
    /// The live rows are of another version of the code. This build must not write them.
    #[error(
        "the rows of {projection} are of version {live}, this build has version {ours}: run `daybook replay {projection}`"
    )]
    OtherVersion {
        /// The projection's name.
        projection: &'static str,
        /// The version of the live rows.
        live: i16,
        /// The version of this build.
        ours: i16,
    },
    /// The events, or those that were applied before, are not the log's: it has gone on from an older state, or they are
    /// forged.
    #[error("the log does not have the events up to position {0}")]
    NotInLog(Position),
    /// Postgres failed, or did not answer.
    #[error("the checkpoint cannot be moved: {0}")]
    Database(#[from] sqlx::Error),
}

/// Takes the live generation's checkpoint over under the lease's fence: from now on, no older owner can move it.
///
/// # Errors
/// When its rows are of another version, a newer owner has acquired it, or Postgres cannot be asked.
pub async fn acquire(
    pool: &PgPool,
    projection: &'static str,
    version: i16,
    lease: &Lease,
) -> Result<Checkpoint, AdvanceError> {
    let acquired = stored!(
        "UPDATE daybook.checkpoints SET fence = $2 WHERE projection = $1 AND live AND fence <= $2 AND version = $3
         RETURNING generation, live, position, edits",
        projection,
        lease.fence,
        version
    );
    if let Some(acquired) = acquired.fetch_optional(pool).await? {
        return Ok(acquired);
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

/// Moves the checkpoint from `from` to position `to`, in the transaction that writes the rows of the events in between.
/// `proof` is a mark at or after `to` in the history of these events.
///
/// # Errors
/// [`AdvanceError::Fenced`] if it is not at `from`, or no longer under this fence: another owner goes on.
/// [`AdvanceError::NotInLog`] if the log does not have `proof`, or the proof of the events before.
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

/// Locks the live generation's checkpoint where it is, until the transaction ends.
///
/// # Errors
/// When Postgres fails.
pub async fn lock_live(transaction: &mut PgConnection, projection: &'static str) -> Result<Checkpoint, sqlx::Error> {
    stored!(
        "SELECT generation, live, position, edits FROM daybook.checkpoints WHERE projection = $1 AND live FOR UPDATE",
        projection
    )
    .fetch_one(transaction)
    .await
}

/// Takes over the generation that is being built, if there is one of this version. Who was building it no longer can.
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
pub async fn resume_previous(
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

/// Begins the generation beside the live one, at position 0. The caller removes the rows that it had, in the same
/// transaction.
///
/// # Errors
/// When Postgres fails.
pub async fn begin(
    transaction: &mut PgConnection,
    projection: &'static str,
    version: i16,
    fence: i64,
) -> Result<Checkpoint, sqlx::Error> {
    let live = lock_live(transaction, projection).await?;
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

/// Removes the checkpoint of a generation that is being built. The caller removes its rows in the same transaction.
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

/// Makes the generation `built` the live one, and keeps the one before. The owner of that one is fenced off.
///
/// # Errors
/// [`AdvanceError::Fenced`] if it is not at that position: another process builds it.
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
    // The owner of the live rows goes on under the fence that it has, or stands still if it was paused.
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

/// The position of the live generation of each projection, in order of their names.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn live(pool: &PgPool) -> Result<Vec<(String, Position)>, sqlx::Error> {
    let rows = sqlx::query!("SELECT projection, position FROM daybook.checkpoints WHERE live ORDER BY projection");
    Ok(rows.fetch_all(pool).await?.into_iter().map(|row| (row.projection, row.position)).collect())
}

/// What may keep an owner from writing a projection's live rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// The version of the code that made them.
    pub version: i16,
    /// Of the last event that is in them.
    pub position: Position,
    /// An operator wants it to stand still.
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

/// Pauses a projection, or lets it go on. `false` if there is none of that name.
///
/// # Errors
/// When Postgres fails.
pub async fn pause(pool: &PgPool, projection: &str, paused: bool) -> Result<bool, sqlx::Error> {
    // Of the generation that is not live as well: a replay does not end a pause.
    let changed = sqlx::query!("UPDATE daybook.checkpoints SET paused = $2 WHERE projection = $1", projection, paused);
    Ok(changed.execute(pool).await?.rows_affected() > 0)
}

/// Stores the reason why a projection does not go on, until it does.
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

/// Notes that the rows were written by another than the owner, in the same transaction. The owner forgets what it has cached
/// of them.
///
/// # Errors
/// When Postgres fails.
pub async fn edited(transaction: &mut PgConnection, projection: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE daybook.checkpoints SET edits = edits + 1 WHERE projection = $1 AND live", projection)
        .execute(transaction)
        .await?;
    Ok(())
}

/// Makes the generation that is not live void: nothing goes on with it, or back to it.
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
