//! Reading the log: a stream, all of it in order, what a command wrote, and the position at a time.

use crate::binary_copy::{COLUMNS, Decoder};
use crate::event::{Fingerprint, Metadata, Origin, RecordedEvent, event_id};
use crate::hash_chain::{Link, Mark};
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
///
/// ```no_run
/// # use daybook_store::{Category, Filter, Log, connect::{self, Role}};
/// # use uuid::Uuid;
/// # async fn example(url: &str, command_id: Uuid) -> Result<(), Box<dyn std::error::Error>> {
/// const CATEGORIES: &[Category] = &[Category { id: 21, name: "cart", domain: "shop" }];
/// let log = Log::new(connect::pool(url, Role::Read, 4)?, CATEGORIES);
/// // Fails if it is another program's log.
/// log.identity().await?;
///
/// // All of it, in pages of bounded size; the next one is read while one is worked on.
/// let mut scan = log.scan(0, log.head().await?);
/// while let Some(page) = scan.next().await? {
///     println!("{} events, up to {}", page.events.len(), page.end);
/// }
/// // A stream, and what a command wrote.
/// if let Some(event) = log.read_command(command_id).await?.first() {
///     let stream = log.read_stream(event.stream, 0, 100).await?;
///     println!("{} has {} events or more", event.stream, stream.len());
/// }
/// # Ok(())
/// # }
/// ```
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
    /// Made with the log.
    pub log_id: Uuid,
    /// From 1. It rises when the log goes on from an older state: see [`epoch`](crate::epoch).
    pub epoch: i64,
}

/// The Postgres that the log is on. A replica that was promoted, and a restore to a point in time, have the same system
/// identifier and a higher timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Made by `initdb`; copies share it.
    pub system_identifier: i64,
    /// From 1. Each promotion and each restore to a point in time begins a new one.
    pub timeline: i32,
}

/// Why the log could not be read. [`Self::failure`] says what can be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Postgres failed, or did not answer.
    #[error("the log cannot be read: {0}")]
    Database(#[from] sqlx::Error),
    /// The same for a stream that was to be loaded, with all that were loaded in the same statement.
    #[error("the stream cannot be loaded: {0}")]
    NotLoaded(#[source] Arc<sqlx::Error>),
    /// The loader has ended because of a defect. The process has to be started again.
    #[error("the loader has ended")]
    Ended,
    /// The task that reads was cancelled, for the runtime is shutting down, or has panicked.
    #[error("the log cannot be read: {0}")]
    Task(#[source] tokio::task::JoinError),
    /// The log is another program's, or was appended to by a newer build.
    #[error("the event at position {position} is of category {category}, which this build does not know")]
    UnknownCategory {
        /// Of the event.
        position: Position,
        /// The category's id.
        category: i16,
    },
    /// The log was restored to an older state, and has gone on from there. Begin again from what it has.
    #[error("the log has gone on from an older state: it does not have the event at position {0} that was read before")]
    OtherHistory(Position),
    /// The database is damaged, or of another build.
    #[error("the event at position {position} is malformed: {what}")]
    Malformed {
        /// Of the event.
        position: Position,
        /// The column that is not as it should be.
        what: &'static str,
    },
    /// The database is another program's.
    #[error(
        "the database calls category {} {stored:?}, this build \"{} of {}\": it is not this build's database",
        expected.id,
        expected.name,
        expected.domain
    )]
    OtherCategories {
        /// Its name and domain in the database, if it has it.
        stored: Option<String>,
        /// As this build knows it.
        expected: Category,
    },
}

impl ReadError {
    /// What can be done about it.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Database(e) => Failure::of(e),
            Self::NotLoaded(e) => Failure::of(e),
            // The process is ending, or has to be started again. On another history, the caller decides again.
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

/// Consecutive events that were read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In order, at least one. They end with a group, or with the position that the scan ends at.
    pub events: Vec<RecordedEvent>,
    /// The end of the last event's group. A log that has this mark has all events of the page.
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
    /// The log of `pool`'s database. `categories` are all kinds of streams that it has: to read an event of another one is
    /// an error. The pool may be in any role but [`Append`](crate::connect::Role::Append).
    pub fn new(pool: PgPool, categories: &'static [Category]) -> Self {
        Self { pool, categories, all: Arc::new(RwLock::new(categories)) }
    }

    /// The log's id and epoch. It first checks that the database has the categories of this build.
    ///
    /// # Errors
    /// When it cannot be read, or a category has another name in the database.
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
        let stored = sqlx::query_as!(Named, "SELECT id, name, domain FROM daybook.categories ORDER BY id");
        let stored = stored.fetch_all(connection).await?;
        for &expected in self.categories {
            let stored = stored.iter().find(|stored| stored.id == expected.id);
            if stored.is_none_or(|stored| !stored.is(&expected)) {
                let stored = stored.map(|stored| format!("{} of {}", stored.name, stored.domain));
                return Err(ReadError::OtherCategories { stored, expected });
            }
        }
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

    /// The mark of the group that the event at `position` belongs to; `None` if the log ends before it.
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

    /// The mark at `position`; `None` if no group ends there.
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

    /// Whether the log has this mark, and so all the events that led to it.
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

    /// `limit` events from the one after `after`, and the rest of the last one's group. Fewer only at the end of the log;
    /// `None` if nothing follows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_groups(&self, after: Position, limit: i64) -> Result<Option<Page>, ReadError> {
        Page::of(self.copy_in_task(groups(after, after, limit), Position::MAX).await?)
    }

    /// The same from the first event after `mark`.
    ///
    /// # Errors
    /// [`ReadError::OtherHistory`] if the log does not have the mark; and when it cannot be read.
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

    /// In a task of its own: if the caller is dropped, the COPY goes on to its end, and its connection can be used again.
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
            // A COPY that is refused leaves an answer unread. The next query would take it for its own.
            connection.close_on_drop();
        }
        copied
    }

    async fn copied(&self, connection: &mut PgConnection, query: &str) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut messages = connection.copy_out_raw(query).await?;
        let (mut decoder, mut events, mut decoded) = (Decoder::default(), Vec::new(), Ok(()));
        let categories = self.all_categories();
        // It reads to the end whatever comes, because the connection is used again.
        while let Some(message) = messages.try_next().await? {
            decoded = decoded.and_then(|()| decoder.decode(message, categories, &mut events));
        }
        decoded.map(|()| events)
    }

    /// The events after `after` up to `to`, in order and page by page. The next page is read while one is worked on.
    pub fn scan(&self, after: Position, to: Position) -> Scan {
        Scan::start(self.clone(), scan::From::Position(after), to)
    }

    /// The events that follow `mark`, to the end of the log, in order and page by page.
    pub fn scan_after(&self, mark: Mark) -> Scan {
        Scan::start(self.clone(), scan::From::Mark(mark), Position::MAX)
    }

    /// The events that the command wrote, in order; none if it wrote nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_command(&self, command_id: Uuid) -> Result<Vec<RecordedEvent>, ReadError> {
        // A command's events are appended at once, so they are consecutive.
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

    /// The events at these positions, in order of position, without those that the log does not have.
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
        // Times never fall with position, so positions are bisected, and no index by time is needed. The answer is never
        // below `low` nor above `high`.
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

/// A category as the database names it.
struct Named {
    id: i16,
    name: String,
    domain: String,
}

impl Named {
    fn is(&self, category: &Category) -> bool {
        (self.id, &*self.name, &*self.domain) == (category.id, category.name, category.domain)
    }
}

/// These categories. A list of them is allocated once a process, and never freed: names of categories
/// are used everywhere, and a database has few.
fn interned(stored: Vec<Named>) -> &'static [Category] {
    static LISTS: Mutex<Vec<&'static [Category]>> = Mutex::new(Vec::new());
    let mut lists = LISTS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_same = |list: &&'static [Category]| {
        list.len() == stored.len() && stored.iter().zip(*list).all(|(stored, category)| stored.is(category))
    };
    if let Some(list) = lists.iter().copied().find(is_same) {
        return list;
    }
    let leaked = |Named { id, name, domain }| Category { id, name: name.leak(), domain: domain.leak() };
    let list: Vec<Category> = stored.into_iter().map(leaked).collect();
    let list: &'static [Category] = list.leak();
    lists.push(list);
    list
}
