//! Takes in again what a projection could not, once that is mended: by this build, or in the rows.

use crate::codec::{self, DecodeError};
use crate::search::{Query, Search};
use projections::parked::{self, KeyedBy};
use projections::{Delivered, Projection};
use sqlx::PgPool;
use std::sync::Arc;
use store::checkpoint;
use store::{Filter, Log, Position, ReadError, RecordedEvent};
use uuid::Uuid;

/// How many events are read at a time.
const PAGE: i64 = 500;

#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error("it still cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("it cannot be written: {0}")]
    Database(#[from] sqlx::Error),
}

/// Takes in all that is parked of a key, in one transaction; returns how many events that were. Of a read model, the rows
/// of the key are folded anew from the log, up to where the projection has come: so it does no harm to do it twice.
///
/// # Errors
/// When the events still cannot be read or written: then all stays as it was.
pub async fn redrive(
    log: &Log,
    read: &PgPool,
    pool: &PgPool,
    projection: Projection,
    key: Uuid,
) -> Result<usize, RedriveError> {
    let mut transaction = pool.begin().await?;
    let live = checkpoint::hold_live(&mut transaction, projection.name()).await?;
    let positions = parked::of_key(&mut transaction, projection, key).await?;
    if positions.is_empty() {
        return Ok(0);
    }
    let records = match projection {
        Projection::ReadModel(model) => {
            let mut records = all_of(log, read, projection.keyed_by(), key, live.position).await?;
            records.retain(|record| model.categories().contains(&record.stream.category.name));
            records
        }
        Projection::FollowUps | Projection::Timers => log.read_positions(&positions).await?,
    };
    let events: Vec<Delivered> = records
        .into_iter()
        .map(|record| codec::decode(record).map(|event| Delivered::Event(Arc::new(event))))
        .collect::<Result<_, _>>()?;
    parked::redrive(&mut transaction, projection, live, key, &events).await?;
    transaction.commit().await?;
    Ok(positions.len())
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
        KeyedBy::Order => {
            let filter = Filter { correlation_id: Some(key), ..Filter::default() };
            let mut search = Search::begin(log.clone(), read.clone(), Query { filter, ..Query::default() }).await?;
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
