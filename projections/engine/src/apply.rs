//! Rows and checkpoint, in one transaction.

use crate::parked::Parked;
use crate::projection::ReadModel;
use crate::row::Fold;
use crate::{Batch, Delivered, Domain, Projection, follow_up, timer};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use store::checkpoint::{self, AdvanceError, Checkpoint};
use store::{Failure, Mark};

/// Applies events to a projection's rows, and keeps those of a read model in memory from one batch to the next.
pub struct Applier<D: Domain> {
    projection: Projection<D>,
    known: Option<Known<D>>,
}

/// What is in memory of what is stored; void, unless all was committed.
struct Known<D: Domain> {
    generation: i32,
    /// Of a read model.
    rows: Option<RowsOf<D>>,
    parked: Parked<D>,
}

type RowsOf<D> = <<D as Domain>::ReadModel as ReadModel>::Rows;

impl<D: Domain> Applier<D> {
    pub fn new(projection: Projection<D>) -> Self {
        Self { projection, known: None }
    }

    /// Applies `delivered`, which follows the checkpoint without a gap, or the first part of it; what is at or below the
    /// checkpoint is skipped. A batch that cannot be written is halved until the event is found that is to blame: that is
    /// parked.
    ///
    /// # Errors
    /// When the checkpoint has moved or has another owner, the log does not have the events, one cannot be applied and nothing
    /// goes on without it, or Postgres fails: then nothing is written.
    pub async fn apply(
        &mut self,
        pool: &PgPool,
        from: Checkpoint,
        fence: i64,
        Batch { events: delivered, proof }: &Batch<D>,
    ) -> Result<Checkpoint, AdvanceError> {
        let known = delivered.partition_point(|one| one.record().position <= from.position);
        let mut batch = &delivered[known..];
        loop {
            match self.try_apply(pool, from, fence, batch, *proof, None).await {
                Err(AdvanceError::Database(e)) if is_about_data(&e) && batch.len() > 1 => {
                    batch = &batch[..batch.len() / 2];
                }
                Err(AdvanceError::Database(e)) if is_about_data(&e) => {
                    return self.try_apply(pool, from, fence, batch, *proof, Some(e)).await;
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
        batch: &[Delivered<D>],
        proof: Mark,
        refused: Option<sqlx::Error>,
    ) -> Result<Checkpoint, AdvanceError> {
        let Some(last) = batch.last().map(Delivered::record) else { return Ok(from) };
        let known = self.known.take().filter(|known| known.generation == from.generation);
        let mut transaction = match self.projection {
            Projection::ReadModel(_) => begin_of_rows(pool).await?,
            // An effect must not be forgotten once it may have been done.
            Projection::FollowUps | Projection::Timers => pool.begin().await?,
        };
        let to =
            checkpoint::advance(&mut transaction, self.projection.name(), from, last.position, proof, fence).await?;
        let mut known = match known {
            Some(known) => known,
            None => self.begin(&mut transaction, from).await?,
        };
        let events = match refused {
            None => known.parked.split(batch),
            Some(refused) if known.parked.park(last, &refused.to_string()) => vec![],
            Some(refused) => return Err(refused.into()),
        };
        self.write(&mut transaction, &mut known, &events).await?;
        known.parked.write(&mut transaction).await?;
        transaction.commit().await?;
        self.known = Some(known);
        Ok(to)
    }

    async fn begin(&self, connection: &mut PgConnection, from: Checkpoint) -> Result<Known<D>, sqlx::Error> {
        let rows = match self.projection {
            Projection::ReadModel(model) => Some(model.rows(from.generation, from.position == 0)),
            Projection::FollowUps | Projection::Timers => None,
        };
        let parked = Parked::read(connection, self.projection, from.generation).await?;
        Ok(Known { generation: from.generation, rows, parked })
    }

    async fn write(
        &self,
        transaction: &mut PgConnection,
        known: &mut Known<D>,
        events: &[Delivered<D>],
    ) -> Result<(), sqlx::Error> {
        match (self.projection, &mut known.rows) {
            (Projection::ReadModel(_), Some(rows)) => {
                rows.apply(transaction, events).await?;
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

/// A transaction that writes rows of a read model, with the checkpoint that they are at. Its commit is not waited for until
/// it is on disk: if Postgres fails before, rows and checkpoint are together as they were, and are folded again from the log.
async fn begin_of_rows(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    pool.begin_with("BEGIN; SET LOCAL synchronous_commit = off").await
}

/// Whether it is the rows that Postgres would not have, and not that it cannot be reached or is busy.
pub(crate) fn is_about_data(error: &sqlx::Error) -> bool {
    Failure::of(error) == Failure::Data
}
