//! Rows and checkpoint, in one transaction.

use crate::{Comparison, Projection, ReadModel, Recorded, event_index, follow_up, order_summary, stock_level, timer};
use sqlx::{PgConnection, PgPool};
use std::sync::Arc;
use store::checkpoint::{self, AdvanceError, Checkpoint};

/// Takes in `events`, which follow the checkpoint without a gap; events at or below it are skipped.
///
/// # Errors
/// When the checkpoint has moved or has another owner, or Postgres fails: then nothing is written.
pub async fn apply(
    pool: &PgPool,
    projection: Projection,
    from: Checkpoint,
    fence: i64,
    events: &[Arc<Recorded>],
) -> Result<Checkpoint, AdvanceError> {
    let known = events.partition_point(|e| e.record.position <= from.position);
    let events = &events[known..];
    let Some(last) = events.last() else { return Ok(from) };
    let mut transaction = pool.begin().await?;
    let to = checkpoint::advance(&mut transaction, projection.name(), from, &last.record, fence).await?;
    match projection {
        Projection::ReadModel(model) => write(model, &mut transaction, from.generation, events).await?,
        Projection::FollowUps => follow_up::record(&mut transaction, events).await?,
        Projection::Timers => timer::record(&mut transaction, events).await?,
    }
    transaction.commit().await?;
    Ok(to)
}

/// Writes what `events` change in one generation of a read model's rows.
///
/// # Errors
/// When Postgres fails.
pub async fn write(
    model: ReadModel,
    transaction: &mut PgConnection,
    generation: i32,
    events: &[Arc<Recorded>],
) -> Result<(), sqlx::Error> {
    match model {
        ReadModel::OrderSummary => order_summary::write(transaction, generation, events).await,
        ReadModel::StockLevel => stock_level::write(transaction, generation, events).await,
        ReadModel::EventIndex => event_index::write(transaction, generation, events).await,
    }
}

/// Compares the rows of two generations.
///
/// # Errors
/// When Postgres fails.
pub async fn compare(
    model: ReadModel,
    transaction: &mut PgConnection,
    old: i32,
    new: i32,
) -> Result<Comparison, sqlx::Error> {
    match model {
        ReadModel::OrderSummary => order_summary::compare(transaction, old, new).await,
        ReadModel::StockLevel => stock_level::compare(transaction, old, new).await,
        ReadModel::EventIndex => event_index::compare(transaction, old, new).await,
    }
}

/// Removes the rows of all generations but these.
///
/// # Errors
/// When Postgres fails.
pub async fn keep_only(
    model: ReadModel,
    transaction: &mut PgConnection,
    generations: &[i32],
) -> Result<(), sqlx::Error> {
    match model {
        ReadModel::OrderSummary => order_summary::keep_only(transaction, generations).await,
        ReadModel::StockLevel => stock_level::keep_only(transaction, generations).await,
        ReadModel::EventIndex => event_index::keep_only(transaction, generations).await,
    }
}
