//! Carries out decisions about dead letters: follow-ups are sent again and events applied, once what was wrong is mended, or
//! both are given up.

use crate::search::{Query, Search};
use engine::codec::{self, DecodeError};
use engine::dead_letter::{self, DeadLetter, Decision};
use engine::parked::{self, KeyedBy};
use engine::{Delivered, Domain, Projection, ReadModel};
use sqlx::PgPool;
use store::checkpoint::{self, AdvanceError};
use store::{Filter, Log, Position, ReadError, RecordedEvent};
use uuid::Uuid;

/// How many events are read at a time.
const PAGE: i64 = 500;

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error("the dead letters cannot be written: {0}")]
    Database(#[from] sqlx::Error),
}

/// What came of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    /// The dead letters that it was carried out for.
    pub done: Vec<Uuid>,
    /// Those that are as they were, for it cannot be carried out; each with the reason.
    pub left: Vec<(Uuid, String)>,
}

/// Carries out a decision about all dead letters that are parked and that `filter` means. It makes no difference how often
/// this is said.
///
/// Of an event, that is one transaction: its projection applies what is parked of its key, or all of that but the event,
/// up to the next event that cannot be applied. Of a read model, the rows of the key are folded anew from the log, up to
/// where it has come.
///
/// # Errors
/// When Postgres fails: of some of them it may be carried out, of the others all is as it was.
pub async fn resolve<D: Domain>(
    read: &PgPool,
    project: &PgPool,
    filter: &dead_letter::Filter,
    decision: &Decision<'_>,
) -> Result<Resolved, ResolveError> {
    let parked = dead_letter::Filter { discarded: false, ..filter.clone() };
    let letters = dead_letter::list(read, &parked, None, i64::MAX).await?;
    let (events, follow_ups): (Vec<DeadLetter>, _) = letters.into_iter().partition(|letter| letter.kind == "event");
    let follow_ups: Vec<Uuid> = follow_ups.into_iter().map(|letter| letter.id).collect();
    let mut resolved = Resolved { done: vec![], left: vec![] };
    if !follow_ups.is_empty() {
        resolved.done = dead_letter::resolve_follow_ups(project, &follow_ups, decision).await?;
    }
    for letter in events {
        match resolve_event::<D>(read, project, &letter, decision).await {
            Ok(true) => resolved.done.push(letter.id),
            Ok(false) => {}
            Err(EventError::Left(reason)) => resolved.left.push((letter.id, reason)),
            Err(EventError::Failed(e)) => return Err(e),
        }
    }
    Ok(resolved)
}

/// Why an event is as it was.
enum EventError {
    /// It cannot be otherwise.
    Left(String),
    Failed(ResolveError),
}

impl From<sqlx::Error> for EventError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ReadError> for EventError {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<DecodeError> for EventError {
    fn from(error: DecodeError) -> Self {
        Self::Left(error.to_string())
    }
}

/// `false` if somebody else has seen to it.
async fn resolve_event<D: Domain>(
    read: &PgPool,
    project: &PgPool,
    letter: &DeadLetter,
    decision: &Decision<'_>,
) -> Result<bool, EventError> {
    let name = letter.projection.as_deref().unwrap_or_default();
    let projection = Projection::<D>::from_name(name);
    let projection = projection.ok_or_else(|| EventError::Left(format!("this build has no projection {name:?}")))?;
    let (name, ours) = (projection.name(), projection.version());
    let mut transaction = project.begin().await?;
    let live = checkpoint::lock_live(&mut transaction, name).await?;
    if let Some(rows) = checkpoint::live_rows(&mut *transaction, name).await?.filter(|rows| rows.version != ours) {
        let other = AdvanceError::OtherVersion { projection: name, live: rows.version, ours };
        return Err(EventError::Left(other.to_string()));
    }
    let decided = parked::decide(&mut transaction, projection, live, letter.id, decision).await?;
    let Some(head) = decided else { return Ok(false) };
    let log = Log::new(read.clone(), D::CATEGORIES);
    let mut records = match projection {
        Projection::ReadModel(model) => {
            let mut records = all_of(&log, read, projection.keyed_by(), head.key, live.position).await?;
            records.retain(|record| model.categories().contains(&record.stream.category));
            records
        }
        Projection::FollowUps | Projection::Timers => {
            log.read_positions(&parked::of_key(&mut transaction, projection, live, head.key).await?).await?
        }
    };
    let discarded = parked::discarded(&mut transaction, projection).await?;
    records.retain(|record| !discarded.contains(&record.position));
    let events: Vec<Delivered<D>> = records.into_iter().map(codec::deliver).collect::<Result<_, _>>()?;
    let still = parked::retry(&mut transaction, projection, live, head, decision, &events).await?;
    if let Some(cause) = still {
        return Err(EventError::Left(cause));
    }
    transaction.commit().await?;
    Ok(true)
}

/// All events of a key, in order, up to a position.
async fn all_of(
    log: &Log,
    read: &PgPool,
    keyed_by: KeyedBy,
    key: Uuid,
    to: Position,
) -> Result<Vec<RecordedEvent>, ReadError> {
    let mut records = Vec::new();
    match keyed_by {
        KeyedBy::Correlation => {
            let filter = Filter { correlation_id: Some(key), ..Filter::default() };
            let mut search =
                Search::begin(log.clone(), read.clone(), Query { filter, own: true, ..Query::default() }).await?;
            loop {
                let page = search.next(PAGE).await?;
                if page.is_empty() {
                    break;
                }
                records.extend(page);
            }
        }
        KeyedBy::Stream => {
            // Which category it is of, its first event says.
            for category in log.categories() {
                let stream = store::StreamId { category: *category, id: key };
                loop {
                    let last = records.last().map_or(0, |record: &RecordedEvent| record.version);
                    let page = log.read_stream(stream, last, PAGE).await?;
                    if page.is_empty() {
                        break;
                    }
                    records.extend(page);
                }
                if !records.is_empty() {
                    break;
                }
            }
        }
        // Nothing is parked of these.
        KeyedBy::Nothing => {}
    }
    records.retain(|record| record.position <= to);
    Ok(records)
}
