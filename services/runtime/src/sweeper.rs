//! Makes follow-ups of timers that are due; the sender does the rest. As many as like may do it at once.

use crate::step::{Outcome, Step};
use engine::{Domain, timer};
use sqlx::PgPool;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use store::clock;
use tokio::sync::Notify;

/// How many timers become follow-ups at a time.
const BATCH: i64 = 500;
/// How often to look: how late a timer may be, beside what the sender has to do.
const POLL: Duration = Duration::from_secs(1);

/// Of the timers of one domain.
pub struct Sweeper<D> {
    pool: PgPool,
    /// The sender is told that there are follow-ups.
    written: Arc<Notify>,
    clock_tolerance: Duration,
    domain: PhantomData<D>,
}

impl<D: Domain> Sweeper<D> {
    pub fn new(pool: PgPool, written: Arc<Notify>) -> Self {
        Self { pool, written, clock_tolerance: clock::TOLERANCE, domain: PhantomData }
    }

    /// The same, where Postgres' clock and this process' may be so far apart.
    #[must_use]
    pub fn tolerating(self, clock_tolerance: Duration) -> Self {
        Self { clock_tolerance, ..self }
    }
}

impl<D: Domain> Step for Sweeper<D> {
    type Error = sqlx::Error;

    fn name(&self) -> &'static str {
        "timers"
    }

    async fn step(&mut self) -> Result<Outcome, sqlx::Error> {
        // A clock that has jumped ahead must not end what has time left.
        clock::check(&self.pool, self.clock_tolerance).await?;
        timer::recount::<D>(&self.pool).await?;
        match timer::fire::<D>(&self.pool, BATCH).await? {
            0 => Ok(Outcome::Idle),
            fired => {
                self.written.notify_one();
                Ok(Outcome::Worked(fired as usize))
            }
        }
    }

    async fn wait(&mut self) {
        tokio::time::sleep(POLL).await;
    }
}
