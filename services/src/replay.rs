//! Rebuilds one read model from the log, beside the live one, and switches to it.
//!
//! It reads the log and writes rows of a generation of its own; the live rows are served, and kept current, all the
//! while. No follow-up can be reached from here: a [`ReadModel`] is all that it takes.

use crate::codec::{self, DecodeError};
use projections::{ReadModel, Recorded, apply};
use serde::Serialize;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use std::sync::Arc;
use store::checkpoint::{self, AdvanceError, Checkpoint};
use store::{Log, Position, ReadError};

/// How many events are folded at a time.
const BATCH: i64 = 2000;
/// A generation in the making has no owner but the replay that began it.
const NO_FENCE: i64 = 0;

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the rows cannot be written: {0}")]
    Database(#[from] sqlx::Error),
    #[error("another replay of this read model has taken over ({0})")]
    Overtaken(#[from] AdvanceError),
}

/// What a replay came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// How many events were read.
    pub events: Position,
    /// How many rows there are now.
    pub rows: i64,
    /// How many rows the live generation had that were not so, or lacked; 0 if it was right.
    pub differences: i64,
    pub generation: i32,
}

/// Rebuilds `model` and switches to what it built. `progress` is told each position, and the one to come to.
///
/// # Errors
/// When the log cannot be read or the rows cannot be written: the live rows stay as they were.
pub async fn replay(
    log: &Log,
    pool: &PgPool,
    model: ReadModel,
    mut progress: impl FnMut(Position, Position),
) -> Result<Replayed, ReplayError> {
    let mut transaction = begin(pool).await?;
    let mut built = checkpoint::begin(&mut transaction, model.name()).await?;
    apply::keep_only(model, &mut transaction, &[built.generation - 1]).await?;
    transaction.commit().await?;
    // Close to the live one first, without holding it up; never beyond it, for the two are to be compared.
    loop {
        let target = live_position(pool, model).await?;
        if target - built.position < BATCH / 2 {
            break;
        }
        let mut transaction = pool.begin().await?;
        built = build_on(log, &mut transaction, model, built, target).await?;
        transaction.commit().await?;
        progress(built.position, target);
    }
    finish(log, pool, model, built).await
}

/// A transaction that may take as long as the read model is large.
async fn begin(pool: &PgPool) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::raw_sql("SET LOCAL transaction_timeout = 0; SET LOCAL statement_timeout = 0")
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

async fn live_position(pool: &PgPool, model: ReadModel) -> Result<Position, ReplayError> {
    let live = checkpoint::live(pool).await?;
    Ok(live.into_iter().find(|(name, _)| name == model.name()).map_or(0, |(_, position)| position))
}

/// Takes a batch of events in, up to `target`.
async fn build_on(
    log: &Log,
    transaction: &mut PgConnection,
    model: ReadModel,
    built: Checkpoint,
    target: Position,
) -> Result<Checkpoint, ReplayError> {
    let page = log.read_all(built.position, BATCH.min(target - built.position)).await?;
    let events: Vec<Arc<Recorded>> =
        page.into_iter().map(|record| codec::decode(record).map(Arc::new)).collect::<Result<_, _>>()?;
    let Some(last) = events.last() else { return Ok(built) };
    apply::write(model, transaction, built.generation, &events).await?;
    Ok(checkpoint::advance(transaction, model.name(), built, &last.record, NO_FENCE).await?)
}

/// In one transaction, which holds the live checkpoint still: brings the new generation to it, compares the two, and
/// switches.
async fn finish(log: &Log, pool: &PgPool, model: ReadModel, mut built: Checkpoint) -> Result<Replayed, ReplayError> {
    let mut transaction = begin(pool).await?;
    let live = checkpoint::hold_live(&mut transaction, model.name()).await?;
    while built.position < live.position {
        built = build_on(log, &mut transaction, model, built, live.position).await?;
    }
    let compared = apply::compare(model, &mut transaction, live.generation, built.generation).await?;
    checkpoint::switch(&mut transaction, model.name(), built).await?;
    apply::keep_only(model, &mut transaction, &[built.generation]).await?;
    transaction.commit().await?;
    Ok(Replayed {
        events: built.position,
        rows: compared.rows,
        differences: compared.differences,
        generation: built.generation,
    })
}
