//! An aggregate as it was: folded from its stream up to a version, or up to a moment.

use crate::codec::{self, DecodeError};
use chrono::{DateTime, Utc};
use domain::Aggregate;
use serde::Serialize;
use store::{Log, ReadError, StreamId, Version};
use uuid::Uuid;

/// How many events of a stream are read at a time.
const PAGE: i64 = 1000;

/// Where to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// After the event of this version, from 1.
    Version(Version),
    /// After the last event that was recorded at this time or before, by Postgres' clock.
    Time(DateTime<Utc>),
}

/// A state, and the last event that it was folded from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateAt<A> {
    /// `order-0199…`
    pub stream: String,
    pub version: Version,
    pub recorded_at: DateTime<Utc>,
    pub state: A,
}

#[derive(Debug, thiserror::Error)]
pub enum StateAtError {
    #[error("there is no {0}")]
    NoStream(StreamId),
    #[error("{stream} has no version {version}: it ends with version {actual}")]
    NoVersion { stream: StreamId, version: Version, actual: Version },
    #[error("{stream} had no events at {time}: its first was recorded at {began}")]
    NotBegun { stream: StreamId, time: DateTime<Utc>, began: DateTime<Utc> },
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The aggregate `id` as it was.
///
/// # Errors
/// When it was not there yet, or has not come to that version, or its events cannot be read.
pub async fn state_at<A: Aggregate>(log: &Log, id: Uuid, at: At) -> Result<StateAt<A>, StateAtError> {
    let stream = codec::stream::<A>(id);
    let mut found =
        StateAt { stream: stream.to_string(), version: 0, recorded_at: DateTime::default(), state: A::default() };
    loop {
        let limit = match at {
            At::Version(version) => PAGE.min(version - found.version),
            At::Time(_) => PAGE,
        };
        let page = log.read_stream(stream, found.version, limit).await?;
        let more = page.len() == PAGE as usize;
        for record in page {
            if let At::Time(time) = at
                && record.recorded_at > time
            {
                return match found.version {
                    0 => Err(StateAtError::NotBegun { stream, time, began: record.recorded_at }),
                    _ => Ok(found),
                };
            }
            let recorded = codec::decode(record)?;
            found.version = recorded.record.version;
            found.recorded_at = recorded.record.recorded_at;
            if let Some(event) = A::event_of(&recorded.event) {
                found.state.evolve(event);
            }
        }
        if !more {
            break;
        }
    }
    match at {
        _ if found.version == 0 => Err(StateAtError::NoStream(stream)),
        At::Version(version) if version != found.version => {
            Err(StateAtError::NoVersion { stream, version, actual: found.version })
        }
        At::Version(_) | At::Time(_) => Ok(found),
    }
}
