//! Fills an empty log with events as they were recorded elsewhere: all of them, or none.
//!
//! An append cannot do that, because it gives positions and times. So an operator imports as the owner, in one transaction
//! that locks the log from beginning to end: no append gets in between.

use crate::check::check;
use crate::checkpoint::{self, AdvanceError};
use crate::clock;
use crate::connect::{self, Role};
use crate::event_types;
use crate::group;
use crate::{Append, Chain, ExpectedVersion, Mark, NewEvent, Position, RecordedEvent, StreamAppend};
use chrono::{DateTime, Utc};
use sqlx::{Postgres, Transaction};
use std::time::Instant;
use uuid::Uuid;

/// An import under way. If it is dropped before it is committed, nothing of it stays.
///
/// ```no_run
/// # use daybook_store::{Import, Log};
/// # async fn example(from: Log, to_url: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let mut import = Import::begin(to_url).await?;
/// let mut export = from.scan(0, from.head().await?);
/// while let Some(page) = export.next().await? {
///     import.insert(page.events).await?;
/// }
/// println!("imported up to position {}", import.commit(&[]).await?);
/// # Ok(())
/// # }
/// ```
pub struct Import {
    transaction: Transaction<'static, Postgres>,
    /// How far it has come, with the group that is not complete yet.
    chain: Chain,
    /// The events of that group: they are inserted when their link is known.
    open: Vec<RecordedEvent>,
    /// Where there are no links: how large that group is.
    size: Size,
    /// Whether any event had a link: then all groups have.
    has_links: bool,
    /// Of the last event.
    recorded_at: Option<DateTime<Utc>>,
    /// What Postgres' clock said when it began, and when that was.
    began: (DateTime<Utc>, Instant),
}

/// How large a group is.
#[derive(Clone, Copy, Default)]
struct Size {
    appends: usize,
    /// The bytes of all payloads.
    bytes: usize,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// An import is only into a log without events.
    #[error("the log is not empty: it has {0} events")]
    NotEmpty(Position),
    /// The event that was to be at `position` cannot be there.
    #[error("what is to be at position {position} cannot be: {why}")]
    Refused {
        /// Where the event was to be.
        position: Position,
        /// In words.
        why: String,
    },
    /// Times never fall with positions: all that is recorded later would have the time of this event.
    #[error(
        "the event at position {position} was recorded at {recorded_at}, and here it is {now}: it is from the future"
    )]
    FromTheFuture {
        /// Of the event.
        position: Position,
        /// Of the event.
        recorded_at: DateTime<Utc>,
        /// By Postgres' clock.
        now: DateTime<Utc>,
    },
    /// Postgres failed, or did not answer.
    #[error("the log cannot be written: {0}")]
    Database(#[from] sqlx::Error),
    /// A checkpoint that was to begin after the import is no longer at the beginning.
    #[error(transparent)]
    Checkpoint(#[from] AdvanceError),
}

impl Import {
    /// Locks the log. Appends wait from now on, and are refused after 5 seconds.
    ///
    /// # Errors
    /// When the log is not empty, when the URL's login may not act as `daybook_owner`, or Postgres fails.
    pub async fn begin(url: &str) -> Result<Self, ImportError> {
        let mut transaction = connect::pool(url, Role::Owner, 1)?.begin().await?;
        // The limits are for short work; this takes as long as the archive is, and waits for whoever sends it. Plans are
        // kept: one made while the log was a page long would scan it whole, again and again.
        sqlx::raw_sql(
            "SET LOCAL transaction_timeout = 0;
             SET LOCAL statement_timeout = 0;
             SET LOCAL idle_in_transaction_session_timeout = 0;
             SET LOCAL enable_seqscan = off",
        )
        .execute(&mut *transaction)
        .await?;
        // The lock of append_group. The statement after it sees all that its last holder wrote.
        sqlx::query_scalar!("SELECT log_id FROM daybook.log FOR UPDATE").fetch_one(&mut *transaction).await?;
        let found = sqlx::query!(
            r#"SELECT coalesce(max(position), 0) AS "head!", clock_timestamp() AS "clock!" FROM daybook.events"#
        );
        let found = found.fetch_one(&mut *transaction).await?;
        match found.head {
            0 => Ok(Self {
                transaction,
                chain: Chain::after(Mark::GENESIS),
                open: vec![],
                size: Size::default(),
                has_links: false,
                recorded_at: None,
                began: (found.clock, Instant::now()),
            }),
            head => Err(ImportError::NotEmpty(head)),
        }
    }

    /// Adds the next events with all their fields; about 1,000 at once are fast. Their links are proved. In an export without
    /// links, events that were recorded at the same time are a group, up to the size of the largest that an appender writes.
    ///
    /// # Errors
    /// When an event cannot be at its position, or Postgres fails. Then nothing more can be added.
    pub async fn insert(&mut self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        let mut complete = 0;
        for event in events {
            self.check(&event)?;
            if !self.has_links && !self.continues(&event) {
                self.close();
            }
            let completes = self.chain.advance(&event);
            self.has_links |= event.link.is_some();
            self.open.push(event);
            if completes.map_err(|e| ImportError::Refused { position: e.position(), why: e.to_string() })? {
                complete = self.open.len();
            }
        }
        if !self.has_links {
            complete = self.open.partition_point(|event| event.position <= self.chain.end().position);
        }
        let open = self.open.split_off(complete);
        let complete = std::mem::replace(&mut self.open, open);
        self.write(&complete).await
    }

    /// Whether the event belongs to the group that is open, where no link tells.
    fn continues(&mut self, event: &RecordedEvent) -> bool {
        let last = self.open.last();
        let is_same_append = last.is_some_and(|last| last.metadata.command_id == event.metadata.command_id);
        let alone = Size { appends: 1, bytes: event.payload.len() };
        let Size { appends, bytes } = self.size;
        let size = Size { appends: appends + usize::from(!is_same_append), bytes: bytes + alone.bytes };
        let continues =
            last.is_none_or(|last| last.recorded_at == event.recorded_at) && group::fits(size.appends, size.bytes);
        self.size = if continues { size } else { alone };
        continues
    }

    /// Ends the group that is open. The chain goes on from there.
    fn close(&mut self) {
        if let (Some(end), Some(last)) = (self.chain.close(), self.open.last_mut()) {
            last.link = Some(end.link);
        }
    }

    async fn write(&mut self, events: &[RecordedEvent]) -> Result<(), ImportError> {
        let Some(first) = events.first().map(|event| event.position) else { return Ok(()) };
        let metadata = || events.iter().map(|e| &e.metadata);
        let inserted = sqlx::query!(
            "INSERT INTO daybook.events (
                 position, version, recorded_at, occurred_at, category, schema_version, origin,
                 stream_id, event_id, correlation_id, causation_id, command_id,
                 fingerprint, event_type, actor, traceparent, payload, link)
             SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.category, e.schema_version, e.origin,
                    e.stream_id, e.event_id, e.correlation_id, e.causation_id, e.command_id,
                    e.fingerprint, e.event_type, e.actor, e.traceparent, e.payload::json, e.link
             FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::smallint[],
                         $6::smallint[], $7::smallint[], $8::uuid[], $9::uuid[], $10::uuid[], $11::uuid[], $12::uuid[],
                         $13::bytea[], $14::text[], $15::text[], $16::text[], $17::text[], $18::bytea[])
                  AS e (position, version, recorded_at, occurred_at, category, schema_version, origin,
                        stream_id, event_id, correlation_id, causation_id, command_id,
                        fingerprint, event_type, actor, traceparent, payload, link)
             ON CONFLICT DO NOTHING",
            &events.iter().map(|e| e.position).collect::<Vec<_>>(),
            &events.iter().map(|e| e.version).collect::<Vec<_>>(),
            &events.iter().map(|e| e.recorded_at).collect::<Vec<_>>(),
            &metadata().map(|m| m.occurred_at).collect::<Vec<_>>(),
            &events.iter().map(|e| e.stream.category.id).collect::<Vec<_>>(),
            &events.iter().map(|e| e.schema_version).collect::<Vec<_>>(),
            &metadata().map(|m| m.origin.code()).collect::<Vec<_>>(),
            &events.iter().map(|e| e.stream.id).collect::<Vec<_>>(),
            &events.iter().map(|e| e.event_id).collect::<Vec<_>>(),
            &metadata().map(|m| m.correlation_id).collect::<Vec<_>>(),
            &metadata().map(|m| m.causation_id).collect::<Vec<_>>() as &[Option<Uuid>],
            &metadata().map(|m| m.command_id).collect::<Vec<_>>(),
            &metadata().map(|m| &m.fingerprint.0[..]).collect::<Vec<_>>() as &[&[u8]],
            &events.iter().map(|e| &*e.event_type).collect::<Vec<_>>() as &[&str],
            &metadata().map(|m| &*m.actor).collect::<Vec<_>>() as &[&str],
            &metadata().map(|m| m.traceparent.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
            &events.iter().map(|e| &*e.payload).collect::<Vec<_>>() as &[&str],
            &events.iter().map(|e| e.link.as_ref().map(|link| &link.0[..])).collect::<Vec<_>>() as &[Option<&[u8]>]
        )
        .execute(&mut *self.transaction)
        .await?;
        if inserted.rows_affected() != u64::try_from(events.len()).unwrap_or(u64::MAX) {
            return Err(self.taken(first, events).await?);
        }
        self.check_versions(first, events).await
    }

    /// Commits the import, and returns the log's last position. The checkpoints of the projections `begin_after` are moved
    /// there: those whose rows lead to side effects, which must not happen a second time.
    ///
    /// # Errors
    /// When one of `begin_after` is no longer at the beginning, or Postgres fails.
    pub async fn commit(mut self, begin_after: &[&'static str]) -> Result<Position, ImportError> {
        // An export that ends within a group: what there is of it is one here.
        self.close();
        let open = std::mem::take(&mut self.open);
        self.write(&open).await?;
        let position = self.chain.position();
        sqlx::query!("UPDATE daybook.log SET imported_to = $1", position).execute(&mut *self.transaction).await?;
        event_types::register_all(&mut self.transaction).await?;
        for projection in begin_after {
            checkpoint::begin_after(&mut self.transaction, projection, position).await?;
        }
        self.transaction.commit().await?;
        Ok(position)
    }

    /// What can be said of an event without the others.
    fn check(&mut self, event: &RecordedEvent) -> Result<(), ImportError> {
        let (before, position) = (self.chain.position(), self.chain.position() + 1);
        let refuse = |why: String| Err(ImportError::Refused { position, why });
        if event.position != position {
            return refuse(format!("position {} comes after {before}", event.position));
        }
        if event.version < 1 {
            return refuse(format!("{} has a version {}", event.stream, event.version));
        }
        if self.recorded_at.is_some_and(|before| event.recorded_at < before) {
            return refuse("it was recorded before the event that it comes after".to_owned());
        }
        // Of a log that is in use, events may arrive that were recorded since this has begun.
        let (clock, began) = self.began;
        let now = clock + began.elapsed();
        if event.recorded_at > now + clock::TOLERANCE {
            return Err(ImportError::FromTheFuture { position, recorded_at: event.recorded_at, now });
        }
        if let Err(e) = check(&as_append(event)) {
            return refuse(e.to_string());
        }
        self.recorded_at = Some(event.recorded_at);
        Ok(())
    }

    /// Which event, of those from `first` on, was not inserted because its id or its place is taken.
    async fn taken(&mut self, first: Position, events: &[RecordedEvent]) -> Result<ImportError, sqlx::Error> {
        let inserted = sqlx::query_scalar!("SELECT position FROM daybook.events WHERE position >= $1", first);
        let inserted = inserted.fetch_all(&mut *self.transaction).await?;
        let Some(event) = events.iter().find(|e| !inserted.contains(&e.position)) else {
            return Ok(ImportError::Refused { position: first, why: "it was not inserted".to_owned() });
        };
        let by_id = sqlx::query_scalar!("SELECT position FROM daybook.events WHERE event_id = $1", event.event_id);
        let why = match by_id.fetch_optional(&mut *self.transaction).await? {
            Some(other) => format!("its id is that of the event at position {other}"),
            None => format!("{} has a version {} already", event.stream, event.version),
        };
        Ok(ImportError::Refused { position: event.position, why })
    }

    /// Each event from `first` on must come after the one that it follows in its stream. With versions unique and from
    /// 1, that makes them dense, and in the order of positions.
    async fn check_versions(&mut self, first: Position, events: &[RecordedEvent]) -> Result<(), ImportError> {
        let wrong = sqlx::query_scalar!(
            "SELECT e.position FROM daybook.events AS e
             WHERE e.position >= $1 AND e.version > 1
               AND ((SELECT p.position FROM daybook.events AS p
                     WHERE p.category = e.category AND p.stream_id = e.stream_id AND p.version = e.version - 1)
                    < e.position) IS NOT TRUE
             ORDER BY e.position LIMIT 1",
            first
        );
        let Some(position) = wrong.fetch_optional(&mut *self.transaction).await? else { return Ok(()) };
        let place = usize::try_from(position - first).ok();
        let Some(event) = place.and_then(|place| events.get(place)) else {
            return Err(ImportError::Refused { position, why: "its version does not follow".to_owned() });
        };
        let (stream, version) = (event.stream, event.version);
        let why = format!("version {version} of {stream} does not come after version {}", version - 1);
        Err(ImportError::Refused { position, why })
    }
}

/// The append that could have written the event: what would be refused there is refused here.
fn as_append(event: &RecordedEvent) -> Append {
    let new = NewEvent {
        event_type: event.event_type.to_string().into(),
        schema_version: event.schema_version,
        payload: event.payload.clone(),
    };
    let write = StreamAppend { stream: event.stream, expected: ExpectedVersion::Any, events: vec![new] };
    Append { metadata: event.metadata.clone(), streams: vec![write] }
}
