//! Rows and checkpoint, in one transaction.

use crate::parked::{self, ToPark};
use crate::{Delivered, Projection, ReadModel, Rows, follow_up, timer};
use sqlx::{PgConnection, PgPool};
use std::collections::HashSet;
use store::checkpoint::{self, AdvanceError, Checkpoint};
use uuid::Uuid;

/// Takes events into a projection's rows, and keeps those of a read model in memory from one batch to the next.
pub struct Applier {
    projection: Projection,
    /// The name under which is parked what cannot be taken in.
    parked_under: &'static str,
    known: Option<Known>,
}

/// What is in memory of what is stored; void, unless all was committed.
struct Known {
    generation: i32,
    /// Of a read model.
    rows: Option<Rows>,
    /// The keys of which something is parked.
    parked: HashSet<Uuid>,
}

impl Applier {
    pub fn new(projection: Projection) -> Self {
        Self { projection, parked_under: projection.name(), known: None }
    }

    /// Of a generation in the making.
    pub(crate) fn of_rebuild(model: ReadModel) -> Self {
        Self { projection: Projection::ReadModel(model), parked_under: model.replay_name(), known: None }
    }

    /// Takes in `delivered`, which follows the checkpoint without a gap, or the first part of it; what is at or below the
    /// checkpoint is skipped. A batch that cannot be written is halved until the event is found that is to blame: that is
    /// parked.
    ///
    /// # Errors
    /// When the checkpoint has moved or has another owner, an event cannot be taken in and nothing goes on without it, or
    /// Postgres fails: then nothing is written.
    pub async fn apply(
        &mut self,
        pool: &PgPool,
        from: Checkpoint,
        fence: i64,
        delivered: &[Delivered],
    ) -> Result<Checkpoint, AdvanceError> {
        let known = delivered.partition_point(|one| one.record().position <= from.position);
        let mut batch = &delivered[known..];
        loop {
            match self.try_apply(pool, from, fence, batch, None).await {
                Err(AdvanceError::Database(e)) if is_about_data(&e) && batch.len() > 1 => {
                    batch = &batch[..batch.len() / 2];
                }
                Err(AdvanceError::Database(e)) if is_about_data(&e) => {
                    return self.try_apply(pool, from, fence, batch, Some(e)).await;
                }
                done => return done,
            }
        }
    }

    /// `refused` is why the only event of the batch is to be parked.
    async fn try_apply(
        &mut self,
        pool: &PgPool,
        from: Checkpoint,
        fence: i64,
        batch: &[Delivered],
        refused: Option<sqlx::Error>,
    ) -> Result<Checkpoint, AdvanceError> {
        let Some(last) = batch.last().map(Delivered::record) else { return Ok(from) };
        let known = self.known.take().filter(|known| known.generation == from.generation);
        let mut transaction = pool.begin().await?;
        let to = checkpoint::advance(&mut transaction, self.projection.name(), from, last, fence).await?;
        let mut known = match known {
            Some(known) => known,
            None => self.begin(&mut transaction, from).await?,
        };
        let mut to_park = ToPark::default();
        let events = match (refused, self.projection.keyed_by().key(last)) {
            (None, _) => parked::split(self.projection, batch, &mut known.parked, &mut to_park),
            (Some(refused), Some(key)) => {
                to_park.push(last, key, Some(&refused.to_string()));
                known.parked.insert(key);
                vec![]
            }
            (Some(refused), None) => return Err(refused.into()),
        };
        self.write(&mut transaction, &mut known, &events).await?;
        to_park.insert(&mut transaction, self.parked_under).await?;
        transaction.commit().await?;
        self.known = Some(known);
        Ok(to)
    }

    async fn begin(&self, connection: &mut PgConnection, from: Checkpoint) -> Result<Known, sqlx::Error> {
        let rows = match self.projection {
            Projection::ReadModel(model) => Some(model.rows(from.generation, from.position == 0)),
            Projection::FollowUps | Projection::Timers => None,
        };
        let parked = parked::keys(connection, self.parked_under).await?;
        Ok(Known { generation: from.generation, rows, parked })
    }

    async fn write(
        &self,
        transaction: &mut PgConnection,
        known: &mut Known,
        events: &[Delivered],
    ) -> Result<(), sqlx::Error> {
        match (self.projection, &mut known.rows) {
            (Projection::ReadModel(_), Some(rows)) => {
                rows.take(transaction, events).await?;
                rows.flush(transaction).await
            }
            (Projection::FollowUps, _) => follow_up::record(transaction, events).await,
            (Projection::Timers, _) => timer::record(transaction, events).await,
            (Projection::ReadModel(_), None) => Ok(()),
        }
    }

    /// Forgets what is in memory: somebody else may have written since.
    pub fn forget(&mut self) {
        self.known = None;
    }
}

/// Whether it is the rows that Postgres would not have, and not that it cannot be reached or is busy.
pub(crate) fn is_about_data(error: &sqlx::Error) -> bool {
    // PostgreSQL 18, appendix A: data exceptions, integrity constraints, and limits that a row or a value exceeds.
    let classes = ["22", "23", "54"];
    let code = error.as_database_error().and_then(|e| e.code());
    code.is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
}
