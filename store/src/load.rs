//! The loader: streams to be folded.
//!
//! One task a process gathers the loads that wait and reads them in one statement, on one connection, as the appender
//! does for appends. A long stream comes with the last snapshot of it that the same fold has made.

use crate::chain::{Link, Mark};
use crate::connect::Role;
use crate::connection::{Connection, is_broken};
use crate::connector::Connector;
use crate::event::Payload;
use crate::history::{Branch, Found, History, Seen};
use crate::read::ReadError;
use crate::{Failure, Position, StreamId, Version};
use bytestring::ByteString;
use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// How many streams are loaded at once.
const MAX_BATCH: usize = 128;
/// How many events of a stream are loaded at once.
const PAGE: usize = 1000;
const QUEUE: usize = 4096;

/// An event, as far as folding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEvent {
    pub position: Position,
    pub version: Version,
    pub event_id: Uuid,
    pub event_type: ByteString,
    pub schema_version: i16,
    pub payload: Payload,
}

/// A state of a stream, as JSON: what all events up to `version` come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the event at `version`.
    pub position: Position,
    pub version: Version,
    pub state: String,
}

/// What is to be folded.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// What to begin with, if it was not said after which version.
    pub snapshot: Option<Snapshot>,
    /// What follows, in order.
    pub events: Vec<StreamEvent>,
    /// There may be more after them.
    pub more: bool,
    /// The history of the log that it was read from.
    pub branch: Branch,
}

/// A handle on the process's loader. Cheap to clone; the task ends with the last handle.
#[derive(Debug, Clone)]
pub struct Loader {
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
enum Job {
    Load { stream: StreamId, after: Option<Version>, reply: oneshot::Sender<Result<Loaded, ReadError>> },
    Keep { stream: StreamId, snapshot: Snapshot, branch: Branch },
}

impl Loader {
    /// Starts the loader on the database of `url`. It connects when there is something to load. `fold` is another
    /// number whenever the code that folds is another: snapshots are taken of the same one only. `history` is what the
    /// process has seen of the log: the appender has the same.
    ///
    /// # Errors
    /// When `url` is no Postgres URL.
    pub fn start(url: &str, fold: i64, history: History) -> Result<Self, sqlx::Error> {
        // A plan made while the log was a page long would scan it whole for every stream, until the next ANALYZE.
        let connector = Connector::new(url, Some(Role::Project), &[("enable_seqscan", "off")])?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(Worker { connection: Connection::that_reads(connector), history, fold }.run(jobs));
        Ok(Self { queue })
    }

    /// The stream's events after version `after`; without one, a snapshot, if there is one, and what follows it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn load(&self, stream: StreamId, after: Option<Version>) -> Result<Loaded, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Job::Load { stream, after, reply }).await.map_err(|_| ReadError::Ended)?;
        answer.await.map_err(|_| ReadError::Ended)?
    }

    /// Returns when the loader can load no more, by a defect: the process has to be started again.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Keeps a snapshot of what was loaded from `branch`, in place of an older one. It is for speed alone: if it cannot be
    /// kept now, or the log has another history by now, it is not.
    pub fn keep(&self, stream: StreamId, snapshot: Snapshot, branch: Branch) {
        _ = self.queue.try_send(Job::Keep { stream, snapshot, branch });
    }
}

struct Worker {
    connection: Connection,
    history: History,
    fold: i64,
}

struct Wanted {
    stream: StreamId,
    after: Option<Version>,
    reply: oneshot::Sender<Result<Loaded, ReadError>>,
}

/// An event; or the snapshot before the events, which has no id and no type; or, as number 0, where the log ends.
struct Row {
    number: i64,
    version: Option<Version>,
    position: Option<Position>,
    event_id: Option<Uuid>,
    event_type: Option<String>,
    schema_version: Option<i16>,
    payload: Option<String>,
    /// The rest is of where the log ends.
    link: Option<Link>,
    /// Whether the log has the marks that it was asked for.
    has_seen: Option<bool>,
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(MAX_BATCH);
        while queue.recv_many(&mut jobs, MAX_BATCH).await > 0 {
            let (mut wanted, mut kept) = (Vec::new(), Vec::new());
            for job in jobs.drain(..) {
                match job {
                    Job::Load { stream, after, reply } => wanted.push(Wanted { stream, after, reply }),
                    Job::Keep { stream, snapshot, branch } => kept.push((stream, snapshot, branch)),
                }
            }
            self.answer(wanted).await;
            for (stream, snapshot, branch) in kept {
                if let Err(e) = self.keep(stream, snapshot, &branch).await {
                    tracing::warn!(%stream, error = %e, "a snapshot was not kept");
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
                for (wanted, loaded) in wanted.into_iter().zip(loaded) {
                    _ = wanted.reply.send(Ok(loaded));
                }
            }
            Err(e) => {
                let (why, failure) = (e.to_string(), Failure::of(&e));
                for wanted in wanted {
                    _ = wanted.reply.send(Err(ReadError::NotLoaded { why: why.clone(), failure }));
                }
            }
        }
    }

    /// A connection that had been kept may have broken long ago: then it is tried with a new one.
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
        let (fold, seen) = (self.fold, self.history.seen());
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
                    PAGE as i64,
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
            let Some(loaded) = loaded.get_mut(row.number as usize - 1) else { continue };
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
            // They come in order, though Postgres does not promise it: it would sort all of them for that.
            loaded.events.sort_by_key(|event| event.version);
            loaded.more = loaded.events.len() == PAGE;
        }
        Ok(loaded)
    }

    /// The branch that the rows were read from. All of them are of one moment, and so is where the log ended.
    fn branch_of(&self, seen: Seen, end: Option<&Row>) -> Branch {
        let Some(row) = end else { return seen.branch };
        let end = row.position.zip(row.link).map(|(position, link)| Mark { position, link });
        self.history.note(seen, Found { has_seen: row.has_seen == Some(true), end })
    }

    /// In the log that has all that was seen of the branch, and so what the snapshot was made of.
    async fn keep(&mut self, stream: StreamId, snapshot: Snapshot, branch: &Branch) -> Result<(), sqlx::Error> {
        let (fold, seen) = (self.fold, self.history.seen());
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
