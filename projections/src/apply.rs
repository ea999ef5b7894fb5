//! Rows and checkpoint, in one transaction.

use crate::{Projection, Recorded, Rows, follow_up, timer};
use sqlx::PgPool;
use std::sync::Arc;
use store::checkpoint::{self, AdvanceError, Checkpoint};

/// Takes events into a projection's rows, and keeps those of a read model in memory from one batch to the next.
pub struct Applier {
    projection: Projection,
    rows: Option<Rows>,
}

impl Applier {
    pub fn new(projection: Projection) -> Self {
        Self { projection, rows: None }
    }

    /// Takes in `events`, which follow the checkpoint without a gap; events at or below it are skipped.
    ///
    /// # Errors
    /// When the checkpoint has moved or has another owner, or Postgres fails: then nothing is written.
    pub async fn apply(
        &mut self,
        pool: &PgPool,
        from: Checkpoint,
        fence: i64,
        events: &[Arc<Recorded>],
    ) -> Result<Checkpoint, AdvanceError> {
        let known = events.partition_point(|e| e.record.position <= from.position);
        let events = &events[known..];
        let Some(last) = events.last() else { return Ok(from) };
        // Unless all is committed, what is in memory is not what is stored.
        let rows = self.rows.take().filter(|rows| rows.generation() == from.generation);
        let mut transaction = pool.begin().await?;
        let to = checkpoint::advance(&mut transaction, self.projection.name(), from, &last.record, fence).await?;
        let rows = match self.projection {
            Projection::ReadModel(model) => {
                let mut rows = rows.unwrap_or_else(|| model.rows(from.generation, from.position == 0));
                rows.take(&mut transaction, events).await?;
                rows.flush(&mut transaction).await?;
                Some(rows)
            }
            Projection::FollowUps => follow_up::record(&mut transaction, events).await.map(|()| None)?,
            Projection::Timers => timer::record(&mut transaction, events).await.map(|()| None)?,
        };
        transaction.commit().await?;
        self.rows = rows;
        Ok(to)
    }

    /// Forgets the rows in memory: somebody else may have written since.
    pub fn forget(&mut self) {
        self.rows = None;
    }
}
