//! The loader: reads streams that are to be folded into a state.
//!
//! One task a process gathers the loads that wait, and reads them in one statement on one connection, as the appender
//! does for appends. A long stream comes with its last snapshot, if the same code has made it.

use crate::branch::{Branch, Found, History, Seen};
use crate::connect::Role;
use crate::connection::{Connection, is_broken};
use crate::connector::Connector;
use crate::event::Payload;
use crate::hash_chain::{Link, Mark};
use crate::read::ReadError;
use crate::stream::count;
use crate::{Position, StreamId, Version};
use bytestring::ByteString;
use sqlx::postgres::PgConnection;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// How many streams are loaded at once.
const MAX_BATCH: usize = 128;
/// How many events of a stream are loaded at once.
const PAGE: usize = 1000;
/// How many jobs may wait. Beyond it, callers wait for room in the queue.
const QUEUE: usize = 4096;

/// An event, as far as folding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEvent {
    /// Its place in the log.
    pub position: Position,
    /// Its place in the stream.
    pub version: Version,
    /// Unique in the log.
    pub event_id: Uuid,
    /// As it was appended.
    pub event_type: ByteString,
    /// Of the payload.
    pub schema_version: i16,
    /// As it was appended, byte for byte.
    pub payload: Payload,
}

/// The state of a stream after all its events up to a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The position of the event at `version`.
    pub position: Position,
    /// The version up to which it is the state.
    pub version: Version,
    /// JSON.
    pub state: String,
}

/// What was loaded of a stream, to be folded.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The state to begin with, if there is one and the load did not name a version.
    pub snapshot: Option<Snapshot>,
    /// The events that follow, in order.
    pub events: Vec<StreamEvent>,
    /// Whether there may be more events after these. Load again after the last version.
    pub more: bool,
    /// The history of the log that it was read from. The pages of a stream must be of the same branch.
    pub branch: Branch,
}

/// A handle on the process's loader. Cheap to clone; the task ends with the last handle.
///
/// ```no_run
/// # use daybook_store::{Appender, Loader, Snapshot, StreamId};
/// # async fn example(url: &str, stream: StreamId) -> Result<(), Box<dyn std::error::Error>> {
/// /// Changes with the code that folds: snapshots of other code are not used.
/// const SNAPSHOT_VERSION: i64 = 1;
/// let appender = Appender::start(url)?;
/// let loader = Loader::start(url, SNAPSHOT_VERSION, appender.history())?;
/// let loaded = loader.load(stream, None).await?;
/// let mut total: i64 = loaded.snapshot.map_or(Ok(0), |snapshot| snapshot.state.parse())?;
/// for event in &loaded.events {
///     total += i64::try_from(event.payload.len())?;
/// }
/// if let Some(last) = loaded.events.last() {
///     let snapshot = Snapshot { position: last.position, version: last.version, state: total.to_string() };
///     loader.save_snapshot(stream, snapshot, loaded.branch);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Loader {
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
enum Job {
    Load { stream: StreamId, after: Option<Version>, reply: oneshot::Sender<Result<Loaded, ReadError>> },
    Save { stream: StreamId, snapshot: Snapshot, branch: Branch },
}

impl Loader {
    /// Starts the loader on the database of `url`. It connects when there is something to load. `snapshot_version` changes
    /// with the code that folds: only snapshots of the same version are used. `history` is that of the process's
    /// [`Appender`](crate::Appender::history).
    ///
    /// # Errors
    /// When `url` is no Postgres URL.
    pub fn start(url: &str, snapshot_version: i64, history: History) -> Result<Self, sqlx::Error> {
        // A plan made while the log was a page long would scan it whole for every stream, until the next ANALYZE.
        let connector = Connector::new(url, Some(Role::Project), &[("enable_seqscan", "off")])?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(Worker { connection: Connection::that_reads(connector), history, snapshot_version }.run(jobs));
        Ok(Self { queue })
    }

    /// Loads the stream's events after version `after`, 1,000 at most. Without a version: the snapshot, if there is one, and
    /// the events that follow it.
    ///
    /// # Errors
    /// When the stream cannot be read, or the loader has ended.
    pub async fn load(&self, stream: StreamId, after: Option<Version>) -> Result<Loaded, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Job::Load { stream, after, reply }).await.map_err(|_| ReadError::Ended)?;
        answer.await.map_err(|_| ReadError::Ended)?
    }

    /// Returns when the loader has ended because of a defect. The process has to be started again.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Saves a snapshot of what was loaded from `branch`, in place of an older one. Snapshots are for speed alone: if it
    /// cannot be saved now, or the log has another history by now, it is dropped.
    pub fn save_snapshot(&self, stream: StreamId, snapshot: Snapshot, branch: Branch) {
        _ = self.queue.try_send(Job::Save { stream, snapshot, branch });
    }
}

struct Worker {
    connection: Connection,
    history: History,
    snapshot_version: i64,
}

struct Wanted {
    stream: StreamId,
    after: Option<Version>,
    reply: oneshot::Sender<Result<Loaded, ReadError>>,
}

/// An event; or a snapshot, which has no id and no type; or, as number 0, the end of the log.
struct Row {
    number: i64,
    version: Option<Version>,
    position: Option<Position>,
    event_id: Option<Uuid>,
    event_type: Option<String>,
    schema_version: Option<i16>,
    payload: Option<String>,
    /// The link at the end of the log.
    link: Option<Link>,
    /// Whether the log has the marks that were asked for; with the end of the log.
    has_seen: Option<bool>,
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(MAX_BATCH);
        while queue.recv_many(&mut jobs, MAX_BATCH).await > 0 {
            let (mut wanted, mut snapshots) = (Vec::new(), Vec::new());
            for job in jobs.drain(..) {
                match job {
                    Job::Load { stream, after, reply } => wanted.push(Wanted { stream, after, reply }),
                    Job::Save { stream, snapshot, branch } => snapshots.push((stream, snapshot, branch)),
                }
            }
            self.answer(wanted).await;
            for (stream, snapshot, branch) in snapshots {
                if let Err(e) = self.save(stream, snapshot, &branch).await {
                    tracing::warn!(%stream, error = %e, "a snapshot was not saved");
                }
            }
        }
    }

    async fn answer(&mut self, wanted: Vec<Wanted>) {
        if wanted.is_empty() {
            return;
        }
        match self.load(&wanted).await {
            Ok(loaded) => {
                debug_assert_eq!(loaded.len(), wanted.len(), "an answer for each load");
                for (wanted, loaded) in wanted.into_iter().zip(loaded) {
                    _ = wanted.reply.send(Ok(loaded));
                }
            }
            Err(e) => {
                let error = Arc::new(e);
                for wanted in wanted {
                    _ = wanted.reply.send(Err(ReadError::NotLoaded(error.clone())));
                }
            }
        }
    }

    /// The connection of an earlier call may have broken long ago. Then a new one is tried.
    async fn load(&mut self, wanted: &[Wanted]) -> Result<Vec<Loaded>, sqlx::Error> {
        let kept = self.connection.is_kept();
        match self.load_once(wanted).await {
            Err(e) if kept && is_broken(&e) => self.load_once(wanted).await,
            loaded => loaded,
        }
    }

    async fn load_once(&mut self, wanted: &[Wanted]) -> Result<Vec<Loaded>, sqlx::Error> {
        let categories: Vec<i16> = wanted.iter().map(|w| w.stream.category.id).collect();
        let ids: Vec<Uuid> = wanted.iter().map(|w| w.stream.id).collect();
        let after: Vec<Option<Version>> = wanted.iter().map(|w| w.after).collect();
        let (fold, seen) = (self.snapshot_version, self.history.seen());
        let (seen_positions, seen_links) = seen.columns();
        let rows = self
            .connection
            .call(async |connection: &mut PgConnection| {
                sqlx::query_as!(
                    Row,
                    r#"SELECT 0::bigint AS "number!", NULL::bigint AS version, log.position, NULL::uuid AS event_id,
                              NULL::text AS event_type, NULL::smallint AS schema_version, NULL::text AS payload,
                              log.link AS "link: Link", log.has_seen
                       FROM (SELECT (SELECT position FROM daybook.events ORDER BY position DESC LIMIT 1) AS position,
                                    (SELECT link FROM daybook.events ORDER BY position DESC LIMIT 1) AS link,
                                    daybook.has_marks($6::bigint[], $7::bytea[]) AS has_seen) AS log
                       UNION ALL
                       SELECT wanted.number, found.version, found.position, found.event_id, found.event_type,
                              found.schema_version, found.payload, NULL, NULL
                       FROM unnest($1::smallint[], $2::uuid[], $3::bigint[])
                            WITH ORDINALITY AS wanted(category, stream_id, after, number)
                       LEFT JOIN daybook.snapshots AS s
                              ON s.category = wanted.category AND s.stream_id = wanted.stream_id
                             AND s.fold = $4 AND wanted.after IS NULL
                       CROSS JOIN LATERAL (
                           SELECT s.version, s.position, NULL::uuid AS event_id, NULL::text AS event_type,
                                  0::smallint AS schema_version, s.state::text AS payload
                           WHERE s.version IS NOT NULL
                           UNION ALL
                           (SELECT e.version, e.position, e.event_id, e.event_type, e.schema_version,
                                   e.payload::text
                            FROM daybook.events AS e
                            WHERE e.category = wanted.category AND e.stream_id = wanted.stream_id
                              AND e.version > coalesce(s.version, wanted.after, 0)
                            ORDER BY e.version LIMIT $5)) AS found"#,
                    &categories,
                    &ids,
                    &after as &[Option<Version>],
                    fold,
                    count(PAGE),
                    &seen_positions,
                    &seen_links as &[&[u8]]
                )
                .fetch_all(connection)
                .await
            })
            .await?;
        let branch = self.branch_of(seen, rows.iter().find(|row| row.number == 0));
        let mut loaded = vec![Loaded { branch, ..Loaded::default() }; wanted.len()];
        for row in rows {
            let Row { version: Some(version), position: Some(position), payload: Some(payload), .. } = row else {
                continue;
            };
            let place = usize::try_from(row.number).ok().and_then(|number| number.checked_sub(1));
            debug_assert!(place.is_some_and(|place| place < wanted.len()), "a row for what was wanted: {}", row.number);
            let Some(loaded) = place.and_then(|place| loaded.get_mut(place)) else { continue };
            match row.event_id.zip(row.event_type) {
                None => loaded.snapshot = Some(Snapshot { position, version, state: payload }),
                Some((event_id, event_type)) => loaded.events.push(StreamEvent {
                    position,
                    version,
                    event_id,
                    event_type: event_type.into(),
                    schema_version: row.schema_version.unwrap_or_default(),
                    payload: payload.into(),
                }),
            }
        }
        for loaded in &mut loaded {
            // They come in order. Postgres does not promise it, and would sort all rows to do so.
            loaded.events.sort_by_key(|event| event.version);
            loaded.more = loaded.events.len() == PAGE;
        }
        Ok(loaded)
    }

    /// The branch that the rows were read from. All rows are of one moment, and so is the end of the log.
    fn branch_of(&self, seen: Seen, end: Option<&Row>) -> Branch {
        let Some(row) = end else { return seen.branch };
        let end = row.position.zip(row.link).map(|(position, link)| Mark { position, link });
        self.history.note(seen, Found { has_seen: row.has_seen == Some(true), end })
    }

    /// Saves it only in a log that has all that was seen of the branch, and so all that the snapshot was made of.
    async fn save(&mut self, stream: StreamId, snapshot: Snapshot, branch: &Branch) -> Result<(), sqlx::Error> {
        let (fold, seen) = (self.snapshot_version, self.history.seen());
        if !seen.branch.is_same(branch) || seen.marks.is_empty() {
            return Ok(());
        }
        let (seen_positions, seen_links) = seen.columns();
        self.connection
            .call(async |connection: &mut PgConnection| {
                sqlx::query!(
                    "INSERT INTO daybook.snapshots (category, stream_id, version, position, fold, state)
                 SELECT $1, $2, $3, $4, $5, $6::text::json
                 WHERE daybook.has_marks($7::bigint[], $8::bytea[])
                 ON CONFLICT ON CONSTRAINT snapshots_stream DO UPDATE
                 SET version = excluded.version, position = excluded.position, fold = excluded.fold,
                     state = excluded.state
                 WHERE snapshots.fold <> excluded.fold OR snapshots.version <= excluded.version",
                    stream.category.id,
                    stream.id,
                    snapshot.version,
                    snapshot.position,
                    fold,
                    snapshot.state,
                    &seen_positions,
                    &seen_links as &[&[u8]]
                )
                .execute(connection)
                .await
            })
            .await
            .map(drop)
    }
}
