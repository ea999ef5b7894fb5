//! Makes follow-ups of timers that are due; the sender does the rest. As many as like may do it at once.

use crate::step::{Outcome, Step};
use projections::timer;
use sqlx::PgPool;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How many timers become follow-ups at a time.
const BATCH: i64 = 500;
/// How often to look: how late a timer may be, beside what the sender has to do.
const POLL: Duration = Duration::from_secs(1);

pub struct Sweeper {
    pool: PgPool,
    /// The sender is told that there are follow-ups.
    written: Arc<Notify>,
}

impl Sweeper {
    pub fn new(pool: PgPool, written: Arc<Notify>) -> Self {
        Self { pool, written }
    }
}

impl Step for Sweeper {
    type Error = sqlx::Error;

    fn name(&self) -> &'static str {
        "timers"
    }

    async fn step(&mut self) -> Result<Outcome, sqlx::Error> {
        match timer::fire(&self.pool, BATCH).await? {
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
