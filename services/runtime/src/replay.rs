//! Rebuilds one read model from the log, beside the live one, and switches to it.
//!
//! It reads the log and writes the generation that is not live; the live rows are served, and kept current, all the
//! while. No follow-up can be reached from here: a [`ReadModel`] is all that it takes.

mod copy;

pub use copy::{Copied, CopyName, Part, copy};

use crate::lease::{Keeper, RENEW};
use engine::codec::{self, DecodeError};
use engine::rebuild::Rebuild;
use engine::{Batch, Comparison, Domain, ReadModel};
use serde::Serialize;
use sqlx::{PgPool, Postgres, Transaction};
use std::time::{Duration, Instant};
use store::checkpoint::{self, AdvanceError};
use store::lease::Lease;
use store::{Category, Failure, Filter, Log, Position, ReadError};
use tokio::sync::mpsc;
use uuid::Uuid;

/// How far behind the live rows it may be when these are held for it to catch up.
const NEAR: Position = 2000;
/// How often what was built is written at least: a replay that is killed loses no more than that of its work.
const WRITTEN: Duration = Duration::from_secs(1);
/// How many rows that differ are told.
const EXAMPLES: i64 = 20;

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the rows cannot be written: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the rows cannot be written: {0}")]
    Advance(#[from] AdvanceError),
    #[error("{0} is being replayed by another process: wait for it, or end it and wait three seconds")]
    Busy(&'static str),
    #[error("no earlier rows of {0} are kept that this build could go back to")]
    NothingKept(&'static str),
    #[error("there is a copy daybook_copies.{0} already: take another name, or drop that table")]
    NameTaken(String),
}

impl ReplayError {
    /// What can be done about it.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Log(e) => e.failure(),
            Self::Database(e) | Self::Advance(AdvanceError::Database(e)) => Failure::of(e),
            // Another process is at it.
            Self::Busy(_) | Self::Advance(AdvanceError::Fenced(_)) => Failure::Passing,
            Self::Decode(_) | Self::Advance(_) | Self::NothingKept(_) | Self::NameTaken(_) => Failure::Permanent,
        }
    }
}

/// What a replay is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Rebuild, compare, and switch.
    Switch,
    /// Rebuild and compare, and leave everything as it was.
    DryRun,
    /// Bring the rows up to date that were live before the last replay, and switch back to them.
    Undo,
}

/// What a replay came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replayed {
    pub projection: &'static str,
    /// Whether the rebuilt rows are live now.
    pub switched: bool,
    /// The position that they have come to.
    pub position: Position,
    /// How many events were read.
    pub events: Position,
    pub seconds: f64,
    /// The live rows against the rebuilt ones; nothing is compared by an undo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<Comparison>,
}

/// Replays `model`. `progress` is told each position, and the one to come to.
///
/// One that was killed is gone on with: what it built under this version of the code is kept.
///
/// # Errors
/// When another process replays it, the log cannot be read or the rows cannot be written: the live rows stay as they were.
pub async fn replay<M: ReadModel>(
    log: &Log,
    pool: &PgPool,
    model: M,
    mode: Mode,
    mut progress: impl FnMut(Position, Position),
) -> Result<Replayed, ReplayError> {
    let mut owner = Owner::new(pool, model);
    owner.hold().await?;
    let replayed = run(log, &mut owner, mode, &mut progress).await;
    owner.release().await?;
    replayed
}

async fn run<M: ReadModel>(
    log: &Log,
    owner: &mut Owner<'_, M>,
    mode: Mode,
    progress: &mut impl FnMut(Position, Position),
) -> Result<Replayed, ReplayError> {
    let (begun, pool, model, fence) = (Instant::now(), owner.pool, owner.model, owner.hold().await?.fence);
    let rebuild = match mode {
        Mode::Switch | Mode::DryRun => Rebuild::begin(pool, model, fence).await?,
        Mode::Undo => Rebuild::of_kept(pool, model, fence).await?.ok_or(ReplayError::NothingKept(model.name()))?,
    };
    let from = rebuild.position();
    let filter = Filter::default();
    let mut replay = Replay { log, owner, rebuild, written: Instant::now(), filter, after: 0 };
    let (compared, position) = match replay.finish(mode, progress).await {
        Err(ReplayError::Advance(refused)) => {
            replay.rebuild.look_closely(refused)?;
            replay.finish(mode, progress).await?
        }
        finished => finished?,
    };
    let switched = mode != Mode::DryRun;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Replayed { projection: model.name(), switched, position, events: position - from, seconds, compared })
}

async fn live_position(pool: &PgPool, model: impl ReadModel) -> Result<Position, ReplayError> {
    let live = checkpoint::live(pool).await?;
    Ok(live.into_iter().find(|(name, _)| name == model.name()).map_or(0, |(_, position)| position))
}

/// One process replays a read model.
struct Owner<'a, M> {
    pool: &'a PgPool,
    model: M,
    keeper: Keeper,
}

impl<'a, M: ReadModel> Owner<'a, M> {
    fn new(pool: &'a PgPool, model: M) -> Self {
        Self { pool, model, keeper: Keeper::new(model.replay_name(), Uuid::now_v7()) }
    }

    /// The lease, renewed when it is time.
    async fn hold(&mut self) -> Result<Lease, ReplayError> {
        self.keeper.keep(self.pool).await?.ok_or(ReplayError::Busy(self.model.name()))
    }

    async fn release(mut self) -> Result<(), sqlx::Error> {
        self.keeper.release(self.pool).await
    }
}

struct Replay<'a, 'b, M: ReadModel> {
    log: &'a Log,
    owner: &'a mut Owner<'b, M>,
    rebuild: Rebuild<M>,
    /// When it was last seen to that what was built is written.
    written: Instant,
    /// Of a part of the log: which events, after which position.
    filter: Filter,
    after: Position,
}

/// A page of the log, with the events that matter decoded.
struct Page<D: Domain> {
    batch: Batch<D>,
    /// The last position of the page, whether that event matters or not.
    last: Position,
}

impl<M: ReadModel> Replay<'_, '_, M> {
    /// All that is left to do; what came of the comparison, and the position that it has come to.
    async fn finish(
        &mut self,
        mode: Mode,
        progress: &mut impl FnMut(Position, Position),
    ) -> Result<(Option<Comparison>, Position), ReplayError> {
        loop {
            let target = live_position(self.owner.pool, self.owner.model).await?;
            if target - self.rebuild.position() < NEAR {
                break;
            }
            self.build_to(target, progress).await?;
        }
        let compared = match mode {
            Mode::Switch | Mode::DryRun => Some(self.compare().await?),
            Mode::Undo => None,
        };
        let position = match mode {
            Mode::Switch | Mode::Undo => self.switch().await?,
            Mode::DryRun => self.discard().await?,
        };
        Ok((compared, position))
    }

    /// Takes in the log up to `target`: a page is read and another one decoded while one is folded.
    async fn build_to(
        &mut self,
        target: Position,
        progress: &mut impl FnMut(Position, Position),
    ) -> Result<(), ReplayError> {
        let mut pages = self.pages(target);
        while let Some(page) = pages.recv().await {
            let Page { batch, last } = page?;
            self.owner.hold().await?;
            self.rebuild.apply(self.owner.pool, &batch, last).await?;
            if self.written.elapsed() >= WRITTEN {
                self.rebuild.write(self.owner.pool).await?;
                self.written = Instant::now();
            }
            progress(last, target);
        }
        // What follows is read from a position on: so what was folded up to there is proved first.
        self.rebuild.write(self.owner.pool).await?;
        Ok(())
    }

    fn pages(&self, target: Position) -> mpsc::Receiver<Result<Page<M::Domain>, ReplayError>> {
        let (sender, pages) = mpsc::channel(2);
        let mut scan = self.log.scan(self.rebuild.position().max(self.after), target);
        let (categories, filter) = (self.owner.model.categories(), self.filter.clone());
        tokio::spawn(async move {
            loop {
                let page = match scan.next().await {
                    Ok(Some(page)) => decoded(page, categories, &filter),
                    Ok(None) => return,
                    Err(e) => Err(e.into()),
                };
                if sender.send(page).await.is_err() {
                    return;
                }
            }
        });
        pages
    }

    /// Holds the live rows where they are, and comes to them.
    async fn meet(&mut self) -> Result<(Transaction<'static, Postgres>, checkpoint::Checkpoint), ReplayError> {
        let mut held = begin(self.owner.pool).await?;
        let live = checkpoint::lock_live(&mut held, self.owner.model.name()).await?;
        self.build_to(live.position, &mut |_, _| {}).await?;
        Ok((held, live))
    }

    /// Compares both generations as they are at one position. The live one is held for as long as it takes to come to it.
    async fn compare(&mut self) -> Result<Comparison, ReplayError> {
        let (held, live) = self.meet().await?;
        self.rebuild.write(self.owner.pool).await?;
        let mut snapshot = begin(self.owner.pool).await?;
        sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *snapshot).await?;
        sqlx::raw_sql("SELECT").execute(&mut *snapshot).await?;
        held.rollback().await?;
        let Self { rebuild, owner, .. } = self;
        let mut compared = std::pin::pin!(rebuild.compare(&mut snapshot, live, EXAMPLES));
        loop {
            match tokio::time::timeout(RENEW, &mut compared).await {
                Ok(compared) => return Ok(compared?),
                Err(_) => _ = owner.hold().await?,
            }
        }
    }

    async fn switch(&mut self) -> Result<Position, ReplayError> {
        let (mut held, live) = self.meet().await?;
        self.rebuild.switch(&mut held).await?;
        held.commit().await?;
        Ok(live.position)
    }

    async fn discard(&self) -> Result<Position, ReplayError> {
        let position = self.rebuild.position();
        self.rebuild.discard(self.owner.pool).await?;
        Ok(position)
    }
}

fn decoded<D: Domain>(page: store::Page, categories: &[Category], filter: &Filter) -> Result<Page<D>, ReplayError> {
    let last = page.events.last().ok_or(ReplayError::Log(ReadError::Ended))?.position;
    let ours = page.events.into_iter().filter(|event| categories.contains(&event.stream.category));
    let events = ours.filter(|event| filter.matches(event)).map(codec::deliver).collect::<Result<_, _>>()?;
    Ok(Page { batch: Batch { events, proof: page.end }, last })
}

/// A transaction that may take as long as the read model is large.
async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::raw_sql("SET LOCAL transaction_timeout = 0; SET LOCAL statement_timeout = 0")
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}
