//! Keeps one projection at the end of the log. Of all processes that would, the one with the lease does.

use crate::feed::{FeedError, Reader};
use crate::lease::{Keeper, RENEW};
use crate::step::{Outcome, Step};
use engine::apply::Applier;
use engine::follow_up::storable;
use engine::{Domain, Projection};
use sqlx::PgPool;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Position;
use store::checkpoint::{self, AdvanceError, Checkpoint};
use store::lease::Lease;
use tokio::sync::Notify;
use uuid::Uuid;

/// How many events one transaction takes in if there are as many: at least, and at most.
const FEWEST: usize = 1000;
const MOST: usize = 10_000;
/// A batch that took longer is followed by a smaller one: meanwhile the lease is not renewed, and the feed waits for it not
/// much longer.
const LONG: Duration = Duration::from_millis(250);
/// How long events are gathered for a batch, from the beginning of the one before, where nobody waits for them.
const GATHER: Duration = Duration::from_millis(20);
/// How often a process without the lease asks for it.
const STANDBY: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum ProjectorError {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error(transparent)]
    Advance(#[from] AdvanceError),
    #[error("the lease cannot be asked for: {0}")]
    Lease(#[from] sqlx::Error),
}

pub struct Projector<D: Domain> {
    pool: PgPool,
    projection: Projection<D>,
    applier: Applier<D>,
    feed: Reader<D>,
    keeper: Keeper,
    held: Option<Held>,
    /// Whether the rows were found to be of another version.
    is_other: bool,
    /// After which position there is an event that this build does not know.
    stuck_at: Option<Position>,
    /// How many events the next transaction takes in if there are as many.
    batch: usize,
    /// It is not begun before.
    gathers_until: Option<Instant>,
    /// The sender is told that there are follow-ups.
    written: Arc<Notify>,
}

/// The lease, and the checkpoint taken under its fence.
struct Held {
    lease: Lease,
    checkpoint: Checkpoint,
}

impl<D: Domain> Projector<D> {
    /// `owner` is this process; `written` is told when there may be follow-ups to send.
    pub fn new(pool: PgPool, projection: Projection<D>, feed: Reader<D>, owner: Uuid, written: Arc<Notify>) -> Self {
        let applier = Applier::new(projection);
        Self {
            pool,
            projection,
            applier,
            feed,
            keeper: Keeper::new(projection.name(), owner),
            held: None,
            is_other: false,
            stuck_at: None,
            batch: FEWEST,
            gathers_until: None,
            written,
        }
    }

    /// Has the lease held and fresh; `false` if another process has it, or the rows are of another version.
    async fn hold(&mut self) -> Result<bool, ProjectorError> {
        if self.held.is_some() && self.keeper.fresh().is_some() {
            return Ok(true);
        }
        let (name, version) = (self.projection.name(), self.projection.version());
        let before = self.held.take();
        // Who cannot write the rows must not keep those from it who can.
        let live = checkpoint::live_rows(&self.pool, name).await?;
        let is_other = live.is_some_and(|live| live.version != version);
        if is_other && !self.is_other {
            tracing::warn!(name, ?live, ours = version, "the rows are of another version: run `daybook replay`");
        }
        self.is_other = is_other;
        if is_other || live.is_some_and(|live| live.paused) {
            self.keeper.release(&self.pool).await?;
            return Ok(false);
        }
        let Some(lease) = self.keeper.renew(&self.pool).await? else { return Ok(false) };
        let checkpoint = match before {
            // A failover may have lost what the rows had, and not the log: no event comes to tell that.
            Some(held) if held.lease == lease && live.is_some_and(|live| live.position == held.checkpoint.position) => {
                held.checkpoint
            }
            _ => {
                self.applier.forget();
                checkpoint::acquire(&self.pool, name, version, &lease).await?
            }
        };
        self.held = Some(Held { lease, checkpoint });
        Ok(true)
    }

    /// How long after a batch the next one is begun. Each costs Postgres a transaction, however small it is; so what only
    /// queries read, and timers, to which it is nothing, leave the processors to what is waited for.
    fn gathers(&self) -> Duration {
        if self.projection.is_awaited() { Duration::ZERO } else { GATHER }
    }

    /// Takes in what the feed has.
    async fn apply(&mut self) -> Result<Outcome, ProjectorError> {
        if !self.hold().await? {
            return Ok(Outcome::Idle);
        }
        let (begun, gathers, batch) = (Instant::now(), self.gathers(), self.batch);
        let Self { pool, applier, feed, held: Some(held), .. } = self else { return Ok(Outcome::Idle) };
        let events = match feed.next(held.checkpoint.position, batch).await {
            Ok(Some(events)) => events,
            Ok(None) => return Ok(Outcome::Idle),
            // The checkpoint and the rows in memory may be of lost events.
            Err(FeedError::OtherHistory) => {
                self.begin_anew();
                return Ok(Outcome::Again);
            }
            Err(e) => return Err(e.into()),
        };
        let applied = applier.apply(pool, held.checkpoint, held.lease.fence, &events).await;
        match applied {
            Ok(checkpoint) => {
                let applied = (checkpoint.position - held.checkpoint.position) as usize;
                held.checkpoint = checkpoint;
                self.batch = next_batch(batch, applied, begun.elapsed());
                // When it is behind, there is enough for the next.
                self.gathers_until = (applied < FEWEST).then(|| begun + gathers);
                if self.projection == Projection::FollowUps {
                    self.written.notify_one();
                }
                Ok(Outcome::Worked(applied))
            }
            // Another owner, a replay that has switched generations, or somebody who has written rows: nothing was
            // written, and nothing is wrong. The checkpoint in the database is the truth.
            Err(AdvanceError::Fenced(_)) => {
                self.begin_anew();
                Ok(Outcome::Again)
            }
            Err(AdvanceError::NotInLog(position)) => {
                let name = self.projection.name();
                tracing::error!(name, position, "events that the log does not have were kept out of the rows");
                self.feed.doubt();
                self.begin_anew();
                Ok(Outcome::Again)
            }
            Err(e) => {
                self.begin_anew();
                _ = checkpoint::failed(&self.pool, self.projection.name(), &storable(&e.to_string())).await;
                Err(e.into())
            }
        }
    }

    /// Goes on from the checkpoint that is stored.
    fn begin_anew(&mut self) {
        self.held = None;
        self.keeper.forget();
        self.applier.forget();
        self.batch = FEWEST;
    }

    /// Leaves the lease to processes that know what comes next.
    async fn leave(&mut self, why: &ProjectorError) {
        self.stuck_at = self.held.as_ref().map(|held| held.checkpoint.position);
        _ = checkpoint::failed(&self.pool, self.projection.name(), &storable(&why.to_string())).await;
        self.end().await;
    }
}

/// How many events are taken in after a batch that was of `applied` instead of `batch` events, and took so long.
fn next_batch(batch: usize, applied: usize, took: Duration) -> usize {
    let next = if took > LONG {
        batch / 2
    } else if applied >= batch && took < LONG / 2 {
        batch * 2
    } else {
        batch
    };
    next.clamp(FEWEST, MOST)
}

impl<D: Domain> Step for Projector<D> {
    type Error = ProjectorError;

    fn name(&self) -> &'static str {
        self.projection.name()
    }

    async fn step(&mut self) -> Result<Outcome, ProjectorError> {
        if let Some(position) = self.stuck_at {
            self.feed.next(position, 1).await?;
            self.stuck_at = None;
        }
        let applied = self.apply().await;
        if self.held.is_some()
            && let Err(e @ ProjectorError::Feed(FeedError::Decode(_))) = &applied
        {
            self.leave(e).await;
        }
        applied
    }

    async fn wait(&mut self) {
        let pause = if self.held.is_some() { RENEW } else { STANDBY };
        let grown = async { if self.held.is_some() { self.feed.grown().await } else { std::future::pending().await } };
        _ = tokio::time::timeout(pause, grown).await;
    }

    fn rest(&self) -> Duration {
        self.gathers_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    async fn end(&mut self) {
        self.held = None;
        _ = self.keeper.release(&self.pool).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_while_they_are_full_and_shrink_when_they_take_long() {
        let quick = Duration::from_millis(100);
        assert_eq!(next_batch(FEWEST, FEWEST, quick), 2 * FEWEST);
        assert_eq!(next_batch(8000, 8000, quick), MOST);
        assert_eq!(next_batch(8000, 10, quick), 8000);
        assert_eq!(next_batch(8000, 8000, LONG), 8000);
        assert_eq!(next_batch(8000, 8000, LONG * 2), 4000);
        assert_eq!(next_batch(FEWEST, 10, LONG * 2), FEWEST);
    }
}
