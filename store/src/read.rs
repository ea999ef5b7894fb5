//! Reading the log: a stream, all of it in order, what a command wrote, and where a time is.

use crate::copy::{COLUMNS, Decoder};
use crate::event::{Fingerprint, Metadata, Origin, RecordedEvent, event_id};
use crate::scan::Scan;
use crate::{Category, Position, StreamId, Version, connect};
use bytes::Bytes;
use bytestring::ByteString;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use std::collections::HashMap;
use uuid::Uuid;

/// The log, to read from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    pool: PgPool,
    categories: &'static [Category],
}

/// Which log this is: another log has another id; the same log, restored to an older state, another epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIdentity {
    pub log_id: Uuid,
    pub epoch: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the log cannot be read: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the stream cannot be loaded: {0}")]
    NotLoaded(String),
    #[error("the loader has ended")]
    Ended,
    #[error("the log cannot be read: {0}")]
    Task(tokio::task::JoinError),
    #[error("the event at position {position} is of category {category}, which this build does not know")]
    UnknownCategory { position: Position, category: i16 },
    #[error("the event at position {position} is malformed: {what}")]
    Malformed { position: Position, what: &'static str },
    #[error("the database calls category {id} {stored:?}, this build {expected:?}: it is not this build's database")]
    OtherCategories { id: i16, stored: Option<String>, expected: &'static str },
}

/// Begins the log's next epoch, as its owner: what was distributed of the earlier ones is void. `distributed` is the
/// epoch that JetStream carries: a log that was restored may not remember it.
///
/// # Errors
/// When the URL's login may not act as `daybook_owner`, or Postgres fails.
pub async fn begin_epoch(url: &str, distributed: i64) -> Result<(), sqlx::Error> {
    let mut connection = connect::options(url, connect::Role::Owner)?.connect().await?;
    sqlx::query!("UPDATE daybook.log SET epoch = greatest(epoch, $1) + 1", distributed)
        .execute(&mut connection)
        .await?;
    connection.close().await
}

/// An event as the table has it.
pub(crate) struct Row {
    pub(crate) position: i64,
    pub(crate) version: i64,
    pub(crate) recorded_at: DateTime<Utc>,
    pub(crate) occurred_at: DateTime<Utc>,
    pub(crate) category: i16,
    pub(crate) schema_version: i16,
    pub(crate) origin: i16,
    pub(crate) stream_id: Uuid,
    pub(crate) event_id: Uuid,
    pub(crate) correlation_id: Uuid,
    pub(crate) causation_id: Option<Uuid>,
    pub(crate) command_id: Uuid,
    pub(crate) fingerprint: Bytes,
    pub(crate) event_type: ByteString,
    pub(crate) actor: ByteString,
    pub(crate) traceparent: Option<String>,
    pub(crate) payload: ByteString,
}

impl Row {
    pub(crate) fn event(self, categories: &[Category]) -> Result<RecordedEvent, ReadError> {
        let position = self.position;
        let category = categories.iter().find(|c| c.id == self.category);
        let category = *category.ok_or(ReadError::UnknownCategory { position, category: self.category })?;
        let fingerprint = <[u8; 16]>::try_from(&*self.fingerprint);
        Ok(RecordedEvent {
            position,
            stream: StreamId { category, id: self.stream_id },
            version: self.version,
            event_id: self.event_id,
            event_type: self.event_type,
            schema_version: self.schema_version,
            recorded_at: self.recorded_at,
            metadata: Metadata {
                correlation_id: self.correlation_id,
                causation_id: self.causation_id,
                command_id: self.command_id,
                fingerprint: Fingerprint(
                    fingerprint.map_err(|_| ReadError::Malformed { position, what: "fingerprint" })?,
                ),
                actor: self.actor,
                origin: Origin::from_code(self.origin).ok_or(ReadError::Malformed { position, what: "origin" })?,
                occurred_at: self.occurred_at,
                traceparent: self.traceparent.map(ByteString::from),
            },
            payload: self.payload.into(),
        })
    }
}

/// The events that a condition holds for, all columns of them.
macro_rules! events {
    ($condition:literal, $($argument:expr),*) => {
        sqlx::query_as!(
            Row,
            r#"SELECT position, version, recorded_at, occurred_at, category, schema_version, origin, stream_id, event_id,
                      correlation_id, causation_id, command_id, fingerprint, event_type, actor, traceparent,
                      payload::text AS "payload!"
               FROM daybook.events "# + $condition,
            $($argument),*
        )
    };
}

impl Log {
    /// The log of `pool`'s database, whose streams are of these categories.
    pub fn new(pool: PgPool, categories: &'static [Category]) -> Self {
        Self { pool, categories }
    }

    /// The log's id and epoch; after checking that its categories are the ones that this build takes it to have.
    ///
    /// # Errors
    /// When it cannot be read, or a category has another name.
    pub async fn identity(&self) -> Result<LogIdentity, ReadError> {
        let stored = sqlx::query!("SELECT id, name FROM daybook.categories").fetch_all(&self.pool).await?;
        for Category { id, name } in self.categories {
            let stored = stored.iter().find(|row| row.id == *id).map(|row| row.name.clone());
            if stored.as_deref() != Some(name) {
                return Err(ReadError::OtherCategories { id: *id, stored, expected: name });
            }
        }
        let log = sqlx::query_as!(LogIdentity, "SELECT log_id, epoch FROM daybook.log").fetch_one(&self.pool).await?;
        Ok(log)
    }

    /// The position of the last event; 0 if there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn head(&self) -> Result<Position, ReadError> {
        let head = sqlx::query_scalar!(r#"SELECT coalesce(max(position), 0) AS "head!" FROM daybook.events"#);
        Ok(head.fetch_one(&self.pool).await?)
    }

    /// Up to `limit` events of a stream, from the one after `after`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_stream(
        &self,
        stream: StreamId,
        after: Version,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let rows = events!(
            "WHERE category = $1 AND stream_id = $2 AND version > $3 ORDER BY version LIMIT $4",
            stream.category.id,
            stream.id,
            after,
            limit
        );
        self.recorded(rows.fetch_all(&self.pool).await?)
    }

    /// Up to `limit` events in order of position, from the one after `after`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_all(&self, after: Position, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        // In a task of its own: a COPY that its reader gave up would leave the connection in the middle of it, and in
        // the pool.
        let copied = tokio::spawn(self.clone().copy(after, limit)).await;
        copied.unwrap_or_else(|e| Err(ReadError::Task(e)))
    }

    async fn copy(self, after: Position, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        let query = format!(
            "COPY (SELECT {COLUMNS} FROM daybook.events WHERE position > {after} ORDER BY position LIMIT {limit})
             TO STDOUT (FORMAT binary)"
        );
        let mut connection = self.pool.acquire().await?;
        let copied = self.copied(&mut connection, &query).await;
        if matches!(copied, Err(ReadError::Database(_))) {
            // A COPY that is refused leaves an answer unread, which the next query would take for its own.
            connection.close_on_drop();
        }
        copied
    }

    async fn copied(&self, connection: &mut PgConnection, query: &str) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut messages = connection.copy_out_raw(query).await?;
        let (mut decoder, mut events, mut decoded) = (Decoder::default(), Vec::new(), Ok(()));
        // To the end, whatever comes: the connection is used again.
        while let Some(message) = messages.try_next().await? {
            decoded = decoded.and_then(|()| decoder.take(message, self.categories, &mut events));
        }
        decoded.map(|()| events)
    }

    /// The events after `after` up to `to`, in order, page by page: the next page is read while one is worked on.
    pub fn scan(&self, after: Position, to: Position) -> Scan {
        Scan::start(self.clone(), after, to)
    }

    /// What the command wrote, in order; empty if it wrote nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_command(&self, command_id: Uuid) -> Result<Vec<RecordedEvent>, ReadError> {
        // A command's events are appended at once, so they stand together from its first one on.
        let rows = events!(
            "WHERE position >= (SELECT position FROM daybook.events WHERE event_id = $1)
               AND position < (SELECT position FROM daybook.events WHERE event_id = $1) + 1000
               AND command_id = $2
             ORDER BY position",
            event_id(command_id, 0),
            command_id
        );
        self.recorded(rows.fetch_all(&self.pool).await?)
    }

    /// Which of these commands have been recorded, with their fingerprints.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn recorded_commands(&self, command_ids: &[Uuid]) -> Result<HashMap<Uuid, Fingerprint>, ReadError> {
        let first: Vec<Uuid> = command_ids.iter().map(|id| event_id(*id, 0)).collect();
        let rows = sqlx::query!(
            "SELECT position, command_id, fingerprint FROM daybook.events WHERE event_id = ANY($1)",
            &first
        );
        let recorded = rows.fetch_all(&self.pool).await?.into_iter().map(|row| {
            let fingerprint = row.fingerprint.try_into();
            let malformed = |_| ReadError::Malformed { position: row.position, what: "fingerprint" };
            Ok((row.command_id, Fingerprint(fingerprint.map_err(malformed)?)))
        });
        recorded.collect()
    }

    /// The categories of its streams.
    pub fn categories(&self) -> &'static [Category] {
        self.categories
    }

    /// Up to `limit` events of a stream, newest first, from the one before `before`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_stream_backward(
        &self,
        stream: StreamId,
        before: Version,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let rows = events!(
            "WHERE category = $1 AND stream_id = $2 AND version < $3 ORDER BY version DESC LIMIT $4",
            stream.category.id,
            stream.id,
            before,
            limit
        );
        self.recorded(rows.fetch_all(&self.pool).await?)
    }

    /// Up to `limit` events, newest first, from the one before position `before`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_all_backward(&self, before: Position, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        let rows = events!("WHERE position < $1 ORDER BY position DESC LIMIT $2", before, limit);
        self.recorded(rows.fetch_all(&self.pool).await?)
    }

    /// The events at these positions, in order of position; none for a position that is beyond the end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_positions(&self, positions: &[Position]) -> Result<Vec<RecordedEvent>, ReadError> {
        let rows = events!("WHERE position = ANY($1) ORDER BY position", positions);
        self.recorded(rows.fetch_all(&self.pool).await?)
    }

    /// The last position that was recorded at `time` or before; 0 if none was.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, ReadError> {
        // Times never fall with position, so the positions are bisected: no index by time is needed. The one that is
        // looked for is never below `low` nor above `high`.
        let position = sqlx::query_scalar!(
            r#"WITH RECURSIVE bisected (low, high) AS (
                   SELECT coalesce(min(position) - 1, 0), coalesce(max(position), 0) FROM daybook.events
                   UNION ALL
                   SELECT CASE WHEN recorded THEN middle ELSE low END, CASE WHEN recorded THEN high ELSE middle - 1 END
                   FROM (SELECT low, high, middle,
                                (SELECT recorded_at <= $1 FROM daybook.events WHERE position = middle) AS recorded
                         FROM (SELECT low, high, (low + high + 1) / 2 AS middle
                               FROM bisected WHERE low < high) AS halved) AS probed)
               SELECT low AS "low!" FROM bisected WHERE low = high"#,
            time
        );
        Ok(position.fetch_one(&self.pool).await?)
    }

    fn recorded(&self, rows: Vec<Row>) -> Result<Vec<RecordedEvent>, ReadError> {
        rows.into_iter().map(|row| row.event(self.categories)).collect()
    }
}
