//! A read model's rows, built a second time beside the live ones. Follow-ups and timers cannot be named here.

use crate::apply::{Applier, is_about_data};
use crate::parked::{self, Parked};
use crate::projection::ReadModel;
use crate::row::Fold;
use crate::{Batch, Comparison, Projection, generation};
use sqlx::{PgConnection, PgPool};
use store::checkpoint::{self, AdvanceError, Checkpoint};
use store::{Mark, Position};

/// How many rows are folded before they are written.
const MOST: usize = 20_000;

/// The version of rows that are of a part of the log: of no code, so that no rebuild goes on with them.
const OF_PART: i16 = 0;

/// A generation in the making.
pub struct Rebuild<M: ReadModel> {
    model: M,
    fence: i64,
    at: Checkpoint,
    rows: M::Rows,
    parked: Parked<M::Domain>,
    /// How far it has come and is not written, and the proof of the events up to there.
    unwritten: Option<(Position, Mark)>,
    /// Postgres has refused a row: what is to blame is looked for.
    closely: Option<Applier<M::Domain>>,
}

impl<M: ReadModel> Rebuild<M> {
    /// Goes on with what was begun under an earlier fence, if it is of this version, or begins anew.
    ///
    /// # Errors
    /// When the live generation is of a newer version, or Postgres fails.
    pub async fn begin(pool: &PgPool, model: M, fence: i64) -> Result<Self, AdvanceError> {
        let mut transaction = pool.begin().await?;
        let at = match checkpoint::resume(&mut transaction, model.name(), model.version(), fence).await? {
            Some(at) => at,
            None => {
                let at = checkpoint::begin(&mut transaction, model.name(), model.version(), fence).await?;
                generation::empty(&mut transaction, model.name(), at.generation).await?;
                parked::forget(&mut transaction, model.name(), at.generation).await?;
                at
            }
        };
        let parked = Parked::read(&mut transaction, Projection::ReadModel(model), at.generation).await?;
        transaction.commit().await?;
        Ok(Self::at(model, fence, at, parked))
    }

    /// Begins anew what is to become a copy: of a part of the log, it may be, so that nobody goes on with it. The rows that
    /// were kept for an undo make place for it.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn of_part(pool: &PgPool, model: M, fence: i64) -> Result<Self, AdvanceError> {
        let mut transaction = pool.begin().await?;
        let at = checkpoint::begin(&mut transaction, model.name(), OF_PART, fence).await?;
        generation::empty(&mut transaction, model.name(), at.generation).await?;
        parked::forget(&mut transaction, model.name(), at.generation).await?;
        let parked = Parked::read(&mut transaction, Projection::ReadModel(model), at.generation).await?;
        transaction.commit().await?;
        Ok(Self::at(model, fence, at, parked))
    }

    /// Goes on with the generation that was kept when the live one took its place; `None` if none was.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn of_kept(pool: &PgPool, model: M, fence: i64) -> Result<Option<Self>, AdvanceError> {
        let mut transaction = pool.begin().await?;
        let kept = checkpoint::resume_previous(&mut transaction, model.name(), model.version(), fence).await?;
        let Some(at) = kept else { return Ok(None) };
        let parked = Parked::read(&mut transaction, Projection::ReadModel(model), at.generation).await?;
        transaction.commit().await?;
        Ok(Some(Self::at(model, fence, at, parked)))
    }

    fn at(model: M, fence: i64, at: Checkpoint, parked: Parked<M::Domain>) -> Self {
        let rows = model.rows(at.generation, at.position == 0);
        Self { model, fence, at, rows, parked, unwritten: None, closely: None }
    }

    /// Goes back to what is written, if it is for its rows that Postgres would not have them. What follows is then taken in
    /// as into the live ones: the event that is to blame is found, and parked.
    ///
    /// # Errors
    /// `error`, if it is another one, or the event is not one that can be parked.
    pub fn look_closely(&mut self, error: AdvanceError) -> Result<(), AdvanceError> {
        match error {
            AdvanceError::Database(e) if is_about_data(&e) && self.closely.is_none() => {
                self.rows = self.model.rows(self.at.generation, self.at.position == 0);
                self.parked.forget_unwritten();
                self.unwritten = None;
                self.closely = Some(Applier::new(Projection::ReadModel(self.model)));
                Ok(())
            }
            error => Err(error),
        }
    }

    /// The last event that it has.
    pub fn position(&self) -> Position {
        self.unwritten.map_or(self.at.position, |(position, _)| position)
    }

    /// Applies the events that follow up to position `to`, and writes the rows when there are many.
    ///
    /// # Errors
    /// When another rebuild has begun, or Postgres fails or refuses a row.
    pub async fn apply(&mut self, pool: &PgPool, batch: &Batch<M::Domain>, to: Position) -> Result<(), AdvanceError> {
        if let Some(applier) = &mut self.closely {
            loop {
                let before = self.at;
                self.at = applier.apply(pool, before, self.fence, batch).await?;
                if self.at == before {
                    break;
                }
            }
            // What is left of the page is about other categories.
            self.unwritten = (to > self.at.position).then_some((to, batch.proof));
            return Ok(());
        }
        let events = self.parked.split(&batch.events);
        // Rows that are not in memory are read outside of the transaction that writes: nobody else writes them.
        self.rows.apply(&mut *pool.acquire().await?, &events).await?;
        self.unwritten = Some((to, batch.proof));
        if self.rows.changed() > MOST { self.write(pool).await } else { Ok(()) }
    }

    /// Writes the rows, and how far they have come.
    ///
    /// # Errors
    /// When another rebuild has begun, or Postgres fails or refuses a row.
    pub async fn write(&mut self, pool: &PgPool) -> Result<(), AdvanceError> {
        let mut transaction = pool.begin().await?;
        let to = self.write_in(&mut transaction).await?;
        transaction.commit().await?;
        self.at = to;
        Ok(())
    }

    async fn write_in(&mut self, transaction: &mut PgConnection) -> Result<Checkpoint, AdvanceError> {
        let Some((to, proof)) = self.unwritten.take() else { return Ok(self.at) };
        let to = checkpoint::advance(transaction, self.model.name(), self.at, to, proof, self.fence).await?;
        self.parked.write(transaction).await?;
        self.rows.flush(transaction).await?;
        Ok(to)
    }

    /// Compares it with the live generation, with up to `examples` rows that differ. Both are at the same position, and
    /// `snapshot` is of that moment.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn compare(
        &self,
        snapshot: &mut PgConnection,
        live: Checkpoint,
        examples: i64,
    ) -> Result<Comparison, sqlx::Error> {
        generation::compare(snapshot, self.model.name(), (live.generation, self.at.generation), examples).await
    }

    /// Makes it the live one, in the transaction that holds the live checkpoint where this one has come to. The one that was
    /// is kept, with what is parked of it.
    ///
    /// # Errors
    /// When another rebuild has begun, or Postgres fails or refuses a row.
    pub async fn switch(&mut self, transaction: &mut PgConnection) -> Result<(), AdvanceError> {
        let to = self.write_in(transaction).await?;
        checkpoint::switch(transaction, self.model.name(), to).await
    }

    /// Keeps what was built as the table `daybook_copies.{name}` as well; tells how many rows it has, and how many keys have
    /// events that could not be applied. `None` if there is one of that name.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn copy(&self, transaction: &mut PgConnection, name: &str) -> Result<Option<(u64, usize)>, sqlx::Error> {
        if generation::is_copied(transaction, name).await? {
            return Ok(None);
        }
        let rows = generation::copy(transaction, self.model.name(), self.at.generation, name).await?;
        let parked = parked::keys(transaction, self.model.name(), self.at.generation).await?;
        Ok(Some((rows, parked.len())))
    }

    /// Whether there is a copy of this name.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn is_copied(pool: &PgPool, name: &str) -> Result<bool, sqlx::Error> {
        generation::is_copied(&mut *pool.acquire().await?, name).await
    }

    /// Removes what was built.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn discard(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut transaction = pool.begin().await?;
        checkpoint::discard(&mut transaction, self.model.name(), self.at).await?;
        generation::empty(&mut transaction, self.model.name(), self.at.generation).await?;
        parked::forget(&mut transaction, self.model.name(), self.at.generation).await?;
        transaction.commit().await
    }
}
