//! Reading the log: a stream, all of it in order, what a command wrote, and where a time is.

use crate::chain::{Link, Mark};
use crate::copy::{COLUMNS, Decoder};
use crate::event::{Fingerprint, Metadata, Origin, RecordedEvent, event_id};
use crate::scan::{self, Scan};
use crate::{Category, Failure, Position, StreamId, Version};
use bytes::Bytes;
use bytestring::ByteString;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::{PgConnection, PgPool};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use uuid::Uuid;

/// The log, to read from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    pool: PgPool,
    categories: &'static [Category],
    /// These and the others that the database names, as far as they are known. The clones share it.
    all: Arc<RwLock<&'static [Category]>>,
}

/// Which log this is: another log has another id; the same log, restored to an older state, another epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIdentity {
    pub log_id: Uuid,
    pub epoch: i64,
}

/// The Postgres that the log is on. A replica that was promoted, and a restore to a point in time, have the same system
/// identifier and a higher timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    pub system_identifier: i64,
    pub timeline: i32,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the log cannot be read: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the stream cannot be loaded: {why}")]
    NotLoaded { why: String, failure: Failure },
    #[error("the loader has ended")]
    Ended,
    #[error("the log cannot be read: {0}")]
    Task(tokio::task::JoinError),
    #[error("the event at position {position} is of category {category}, which this build does not know")]
    UnknownCategory { position: Position, category: i16 },
    #[error("the log has gone on from an older state: it does not have the event at position {0} that was read before")]
    OtherHistory(Position),
    #[error("the event at position {position} is malformed: {what}")]
    Malformed { position: Position, what: &'static str },
    #[error("the database calls category {id} {stored:?}, this build {expected:?}: it is not this build's database")]
    OtherCategories { id: i16, stored: Option<String>, expected: &'static str },
}

impl ReadError {
    /// What somebody can do about it.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Database(e) => Failure::of(e),
            Self::NotLoaded { failure, .. } => *failure,
            // The process is ending, or to be started again; what was read before is decided anew.
            Self::Ended | Self::Task(_) | Self::OtherHistory(_) => Failure::Passing,
            Self::UnknownCategory { .. } | Self::Malformed { .. } | Self::OtherCategories { .. } => Failure::Permanent,
        }
    }
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
    pub(crate) link: Option<Link>,
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
            link: self.link,
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
                      payload::text AS "payload!", link AS "link: Link"
               FROM daybook.events "# + $condition,
            $($argument),*
        )
    };
}

/// Consecutive events of one moment, up to the end of a group or of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub events: Vec<RecordedEvent>,
    /// The end of the last event's group: a log that has it has all events of the page.
    pub end: Mark,
}

impl Page {
    fn of(events: Vec<RecordedEvent>) -> Result<Option<Self>, ReadError> {
        let Some(last) = events.last() else { return Ok(None) };
        let position = last.position;
        let link = last.link.ok_or(ReadError::Malformed { position, what: "link" })?;
        Ok(Some(Self { events, end: Mark { position, link } }))
    }
}

/// The condition of the events after `after`, up to the end of the group that has the one `limit` after `from`.
fn groups(after: Position, from: Position, limit: i64) -> String {
    let last = from.saturating_add(limit);
    format!(
        "position > {after} AND position <= coalesce(
             (SELECT position FROM daybook.events WHERE position >= {last} AND link IS NOT NULL
              ORDER BY position LIMIT 1), {})",
        Position::MAX
    )
}

impl Log {
    /// The log of `pool`'s database, whose streams are of these categories.
    pub fn new(pool: PgPool, categories: &'static [Category]) -> Self {
        Self { pool, categories, all: Arc::new(RwLock::new(categories)) }
    }

    /// The log's id and epoch; after checking that its categories are the ones that this build takes it to have.
    ///
    /// # Errors
    /// When it cannot be read, or a category has another name.
    pub async fn identity(&self) -> Result<LogIdentity, ReadError> {
        self.learn_categories().await?;
        let log = sqlx::query_as!(LogIdentity, "SELECT log_id, epoch FROM daybook.log").fetch_one(&self.pool).await?;
        Ok(log)
    }

    /// Reads which categories the database names, after checking the caller's own. Others are of other domains. The log does
    /// so by itself when it reads an event of a category that it does not know yet.
    ///
    /// # Errors
    /// When they cannot be read, or one of the caller's has another name.
    pub async fn learn_categories(&self) -> Result<(), ReadError> {
        self.learn_on(&mut *self.pool.acquire().await?).await
    }

    async fn learn_on(&self, connection: &mut PgConnection) -> Result<(), ReadError> {
        let stored = sqlx::query!("SELECT id, name FROM daybook.categories").fetch_all(connection).await?;
        let mut stored: Vec<(i16, String)> = stored.into_iter().map(|row| (row.id, row.name)).collect();
        for Category { id, name } in self.categories {
            let stored = stored.iter().find(|(stored, _)| stored == id).map(|(_, name)| name.clone());
            if stored.as_deref() != Some(name) {
                return Err(ReadError::OtherCategories { id: *id, stored, expected: name });
            }
        }
        stored.sort_unstable();
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = interned(stored);
        Ok(())
    }

    /// The log's epoch.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn epoch(&self) -> Result<i64, ReadError> {
        Ok(sqlx::query_scalar!("SELECT epoch FROM daybook.log").fetch_one(&self.pool).await?)
    }

    /// The server that the log is on.
    ///
    /// # Errors
    /// When it cannot be asked, or is a replica.
    pub async fn server(&self) -> Result<Server, ReadError> {
        let server = sqlx::query_as!(
            Server,
            r#"SELECT system_identifier AS "system_identifier!", timeline AS "timeline!" FROM daybook.server()"#
        );
        Ok(server.fetch_one(&self.pool).await?)
    }

    /// The mark of the group that has the event at `position`; `None` if the log has none there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn mark_after(&self, position: Position) -> Result<Option<Mark>, ReadError> {
        let mark = sqlx::query_as!(
            Mark,
            r#"SELECT position, link AS "link!: Link" FROM daybook.events WHERE position >= $1 AND link IS NOT NULL
               ORDER BY position LIMIT 1"#,
            position
        );
        Ok(mark.fetch_optional(&self.pool).await?)
    }

    /// The last mark at `position` or before.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn mark_before(&self, position: Position) -> Result<Mark, ReadError> {
        let mark = sqlx::query_as!(
            Mark,
            r#"SELECT position, link AS "link!: Link" FROM daybook.events WHERE position <= $1 AND link IS NOT NULL
               ORDER BY position DESC LIMIT 1"#,
            position
        );
        Ok(mark.fetch_optional(&self.pool).await?.unwrap_or(Mark::GENESIS))
    }

    /// The position of the last event; 0 if there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn head(&self) -> Result<Position, ReadError> {
        let head = sqlx::query_scalar!(r#"SELECT coalesce(max(position), 0) AS "head!" FROM daybook.events"#);
        Ok(head.fetch_one(&self.pool).await?)
    }

    /// The mark at `position`: `None` if the log has no event there, or its group goes on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn mark(&self, position: Position) -> Result<Option<Mark>, ReadError> {
        if position == 0 {
            return Ok(Some(Mark::GENESIS));
        }
        let link =
            sqlx::query_scalar!(r#"SELECT link AS "link: Link" FROM daybook.events WHERE position = $1"#, position);
        let link = link.fetch_optional(&self.pool).await?.flatten();
        Ok(link.map(|link| Mark { position, link }))
    }

    /// The mark at the end of the log.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn end(&self) -> Result<Mark, ReadError> {
        self.mark_before(Position::MAX).await
    }

    /// Whether the log has the history that the mark is of.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn has(&self, mark: Mark) -> Result<bool, ReadError> {
        Ok(self.mark(mark.position).await? == Some(mark))
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
        self.recorded(rows.fetch_all(&self.pool).await?).await
    }

    /// Up to `limit` events in order of position, from the one after `after`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_all(&self, after: Position, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        self.copy_in_task(format!("position > {after}"), limit).await
    }

    /// Some `limit` events, from the one after `after`, and what else the group of the last has; fewer only where the log
    /// ends, and `None` if nothing follows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_groups(&self, after: Position, limit: i64) -> Result<Option<Page>, ReadError> {
        Page::of(self.copy_in_task(groups(after, after, limit), Position::MAX).await?)
    }

    /// The same from the first event after `mark`, of the history that has it.
    ///
    /// # Errors
    /// When the log has another history, or cannot be read.
    pub async fn read_after(&self, mark: Mark, limit: i64) -> Result<Option<Page>, ReadError> {
        if mark.position == 0 {
            return self.read_groups(0, limit).await;
        }
        // With the event at the mark: that it is there with this link, at the same moment, proves that the others follow.
        let events = self.copy_in_task(groups(mark.position - 1, mark.position, limit), Position::MAX).await?;
        let mut events = VecDeque::from(events);
        match events.pop_front() {
            Some(at) if (at.position, at.link) == (mark.position, Some(mark.link)) => Page::of(events.into()),
            _ => Err(ReadError::OtherHistory(mark.position)),
        }
    }

    /// In a task of its own: a COPY that its reader gave up would leave the connection in the middle of it, and in the pool.
    async fn copy_in_task(&self, condition: String, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        let copied = tokio::spawn(self.clone().copy(condition, limit)).await;
        copied.unwrap_or_else(|e| Err(ReadError::Task(e)))
    }

    async fn copy(self, condition: String, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        let query = format!(
            "COPY (SELECT {COLUMNS} FROM daybook.events WHERE {condition} ORDER BY position LIMIT {limit})
             TO STDOUT (FORMAT binary)"
        );
        let mut connection = self.pool.acquire().await?;
        let mut copied = self.copied(&mut connection, &query).await;
        if matches!(copied, Err(ReadError::UnknownCategory { .. })) {
            self.learn_on(&mut connection).await?;
            copied = self.copied(&mut connection, &query).await;
        }
        if matches!(copied, Err(ReadError::Database(_))) {
            // A COPY that is refused leaves an answer unread, which the next query would take for its own.
            connection.close_on_drop();
        }
        copied
    }

    async fn copied(&self, connection: &mut PgConnection, query: &str) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut messages = connection.copy_out_raw(query).await?;
        let (mut decoder, mut events, mut decoded) = (Decoder::default(), Vec::new(), Ok(()));
        let categories = self.all_categories();
        // To the end, whatever comes: the connection is used again.
        while let Some(message) = messages.try_next().await? {
            decoded = decoded.and_then(|()| decoder.take(message, categories, &mut events));
        }
        decoded.map(|()| events)
    }

    /// The events after `after` up to `to`, in order, page by page: the next page is read while one is worked on.
    pub fn scan(&self, after: Position, to: Position) -> Scan {
        Scan::start(self.clone(), scan::From::Position(after), to)
    }

    /// The events that follow `mark`, in order, page by page.
    pub fn scan_after(&self, mark: Mark) -> Scan {
        Scan::start(self.clone(), scan::From::Mark(mark), Position::MAX)
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
        self.recorded(rows.fetch_all(&self.pool).await?).await
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

    /// The categories that it was opened with: the caller's own.
    pub fn categories(&self) -> &'static [Category] {
        self.categories
    }

    /// The caller's own categories and those of other domains, as far as they are known.
    pub fn all_categories(&self) -> &'static [Category] {
        *self.all.read().unwrap_or_else(PoisonError::into_inner)
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
        self.recorded(rows.fetch_all(&self.pool).await?).await
    }

    /// Up to `limit` events, newest first, from the one before position `before`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_all_backward(&self, before: Position, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        let rows = events!("WHERE position < $1 ORDER BY position DESC LIMIT $2", before, limit);
        self.recorded(rows.fetch_all(&self.pool).await?).await
    }

    /// The events at these positions, in order of position; none for a position that is beyond the end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_positions(&self, positions: &[Position]) -> Result<Vec<RecordedEvent>, ReadError> {
        let rows = events!("WHERE position = ANY($1) ORDER BY position", positions);
        self.recorded(rows.fetch_all(&self.pool).await?).await
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

    async fn recorded(&self, rows: Vec<Row>) -> Result<Vec<RecordedEvent>, ReadError> {
        let known = self.all_categories();
        if rows.iter().any(|row| known.iter().all(|category| category.id != row.category)) {
            self.learn_categories().await?;
        }
        let known = self.all_categories();
        rows.into_iter().map(|row| row.event(known)).collect()
    }
}

/// The categories of these ids and names. A list of them is allocated once a process, and never freed: names of categories
/// are used everywhere, and a database has few.
fn interned(stored: Vec<(i16, String)>) -> &'static [Category] {
    static LISTS: Mutex<Vec<&'static [Category]>> = Mutex::new(Vec::new());
    let mut lists = LISTS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_same = |list: &&'static [Category]| {
        list.iter().map(|category| (category.id, category.name)).eq(stored.iter().map(|(id, name)| (*id, &**name)))
    };
    if let Some(list) = lists.iter().copied().find(is_same) {
        return list;
    }
    let list: Vec<Category> = stored.into_iter().map(|(id, name)| Category { id, name: name.leak() }).collect();
    let list: &'static [Category] = list.leak();
    lists.push(list);
    list
}
