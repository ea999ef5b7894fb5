//! The appender: the way into a log that is in use. (An import fills one that is empty.)
//!
//! One task a process gathers the appends that wait, and writes them in one call on one connection (group commit). It never
//! waits to fill a group. What queued up while one group was in flight is the next group, so a client alone pays nothing.

use crate::batch::{Answers, Batch, Outcome, Waiting};
use crate::branch::{History, Seen};
use crate::check::check;
use crate::connect::Role;
use crate::connection::{Connection, is_broken};
use crate::connector::Connector;
use crate::event_types::Registered;
use crate::group::{Group, Prepared};
use crate::hash_chain::Mark;
use crate::version_cache::VersionCache;
use crate::{Append, AppendError, Appended, Cause, Failure, Position, Speculation, clock};
use chrono::Utc;
use sqlx::postgres::PgConnection;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// How many appends may wait. Beyond it, callers wait for room in the queue.
const QUEUE: usize = 4096;
/// How long the log is locked at most for commands that decide again.
const LOCK_LIMIT: Duration = Duration::from_millis(20);
/// How often it is logged that stamps are ahead of the clock.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// The SQLSTATE of `append_group` for marks that the log does not have.
const OTHER_HISTORY: &str = "YH001";
/// Begins a transaction that locks the log. If this process is stopped meanwhile, Postgres ends the transaction.
const BEGIN_LOCK: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '1s'; SELECT daybook.hold_log()";

/// A handle on the process's appender. Cheap to clone; the task ends with the last handle.
///
/// ```no_run
/// # use daybook_store::{Append, AppendError, Appender};
/// # async fn example(url: &str, append: Append) -> Result<(), Box<dyn std::error::Error>> {
/// let appender = Appender::start(url)?;
/// match appender.append(append).await {
///     Ok(appended) => println!("recorded up to position {}", appended.position),
///     Err(AppendError::AlreadyRecorded { position }) => println!("recorded before, at position {position}"),
///     Err(AppendError::VersionConflict { stream, actual, .. }) => println!("{stream} is at version {actual}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Appender {
    queue: mpsc::Sender<Job>,
    head: watch::Receiver<Position>,
    history: History,
}

/// An append that waits behind those that were submitted before it. Dropping it does not take the append back.
#[derive(Debug)]
pub struct Submitted {
    answer: oneshot::Receiver<Outcome>,
}

/// While it exists, for 20 milliseconds at most, no other process appends: see [`Appender::lock_log`].
#[derive(Debug)]
pub struct LogLock {
    /// Never sent on: the appender notices when the last one is dropped.
    _owned: mpsc::Sender<Infallible>,
}

#[derive(Debug)]
enum Job {
    Append(Box<Waiting>),
    Lock(oneshot::Sender<LogLock>),
}

impl Appender {
    /// Starts the appender on the database of `url`, in the role that may only append. It connects when there is
    /// something to append. One per process is enough; it is a task of the Tokio runtime that it is started in.
    ///
    /// # Errors
    /// When `url` is no Postgres URL.
    pub fn start(url: &str) -> Result<Self, sqlx::Error> {
        Self::start_tolerating(url, clock::TOLERANCE)
    }

    /// The same with another tolerance than [`clock::TOLERANCE`] for the clocks of Postgres and of this process.
    ///
    /// # Errors
    /// As those of [`Self::start`].
    pub fn start_tolerating(url: &str, tolerance: Duration) -> Result<Self, sqlx::Error> {
        let connector = Connector::new(url, Some(Role::Append), &[])?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (moved, head) = watch::channel(0);
        let history = History::default();
        let worker = Worker {
            connection: Connection::that_writes(connector),
            history: history.clone(),
            versions: VersionCache::default(),
            registered: Registered::default(),
            moved,
            tolerance,
            warned: None,
        };
        tokio::spawn(worker.run(jobs));
        Ok(Self { queue, head, history })
    }

    /// Writes `append` if all that it expects is true, and returns once it is durable.
    ///
    /// # Errors
    /// See [`AppendError`]. An append that is refused leaves nothing, and uses up no position.
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.submit(append, vec![]).await?.written().await
    }

    /// Puts `append` into the queue. Appends are tried in the order in which they are submitted, so one may expect what those
    /// before it will have written. `speculations` are the ones that it continues: one for each of its streams, in their
    /// order, or none at all.
    ///
    /// # Errors
    /// `Refused` if it can never be written, and `Unavailable` if the appender has ended.
    pub async fn submit(&self, append: Append, speculations: Vec<Speculation>) -> Result<Submitted, AppendError> {
        check(&append)?;
        if !speculations.is_empty() && speculations.len() != append.streams.len() {
            return Err(AppendError::Refused("an append has one speculation for each stream, or none".to_owned()));
        }
        let (reply, answer) = oneshot::channel();
        let job = Job::Append(Box::new(Waiting { append: Prepared::new(append), speculations, reply }));
        self.queue.send(job).await.map_err(|_| ended())?;
        Ok(Submitted { answer })
    }

    /// Locks the log, for commands that lost a stream to another process. What they read, decide and submit before they drop
    /// the lock, within 20 milliseconds at most, cannot lose again. Without it, a process that writes to one stream without
    /// a pause would win every time.
    ///
    /// # Errors
    /// When Postgres is not available.
    pub async fn lock_log(&self) -> Result<LogLock, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Job::Lock(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| AppendError::Unavailable("the log cannot be locked".into()))
    }

    /// Returns when the appender has ended because of a defect. The process has to be started again.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    /// What the process has seen of the log, to be shared with its [`Loader`](crate::Loader).
    pub fn history(&self) -> History {
        self.history.clone()
    }

    /// The position of the last event that this appender wrote: a hint for [subscriptions](crate::Log::subscribe).
    pub fn head(&self) -> watch::Receiver<Position> {
        self.head.clone()
    }
}

impl Submitted {
    /// Returns once the append is durable or refused.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn written(self) -> Result<Appended, AppendError> {
        self.answer.await.map_err(|_| ended())?
    }
}

fn ended() -> AppendError {
    AppendError::Unavailable("the appender has ended".into())
}

/// The task that owns the connection.
struct Worker {
    connection: Connection,
    history: History,
    versions: VersionCache,
    registered: Registered,
    moved: watch::Sender<Position>,
    /// How far Postgres' clock may be from this process'.
    tolerance: Duration,
    /// When it was last logged that stamps are ahead of the clock.
    warned: Option<Instant>,
}

/// Jobs that were received and not begun yet.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    /// The append that the batch has no room for.
    beyond: Option<Waiting>,
    locks: Vec<oneshot::Sender<LogLock>>,
}

impl Gathered {
    fn add(&mut self, job: Job) {
        match job {
            Job::Append(waiting) if self.batch.has_room_for(&waiting) => self.batch.add(*waiting),
            Job::Append(waiting) => self.beyond = Some(*waiting),
            Job::Lock(reply) => self.locks.push(reply),
        }
    }

    /// Receives jobs until the batch is full. It never returns: the caller drops it.
    async fn fill(&mut self, queue: &mut mpsc::Receiver<Job>) {
        while self.beyond.is_none()
            && let Some(job) = queue.recv().await
        {
            self.add(job);
        }
        std::future::pending::<()>().await;
    }

    /// The batch to write next.
    fn next_batch(&mut self) -> Batch {
        let next = self.beyond.take().map(Batch::of).unwrap_or_default();
        std::mem::replace(&mut self.batch, next)
    }
}

impl Worker {
    /// Writes batch after batch. While one is being written, the one before is answered and the next one is gathered, so
    /// that Postgres never waits for either.
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let (mut gathered, mut answers) = (Gathered::default(), Answers::default());
        loop {
            if gathered.batch.is_empty() && gathered.locks.is_empty() {
                answers.tell();
                match queue.recv().await {
                    Some(job) => gathered.add(job),
                    None => return,
                }
            }
            while gathered.beyond.is_none()
                && let Ok(job) = queue.try_recv()
            {
                gathered.add(job);
            }
            let batch = gathered.next_batch();
            if gathered.locks.is_empty() {
                let meanwhile = async {
                    answers.tell();
                    gathered.fill(&mut queue).await;
                };
                let written = tokio::select! {
                    biased;
                    written = self.write(batch) => written,
                    () = meanwhile => unreachable!("it never returns"),
                };
                // Postgres may have been done before the other branch was polled.
                answers.tell();
                answers = written;
            } else {
                answers.tell();
                if !batch.is_empty() {
                    self.write(batch).await.tell();
                }
                answers = self.write_locked(&mut gathered, &mut queue).await;
            }
        }
    }

    async fn write(&mut self, batch: Batch) -> Answers {
        // Before anything else: nothing in the batch was decided on a state that was read later.
        let seen = self.history.seen();
        // Not earlier: when this batch was gathered, the outcome of the one before was unknown.
        let (batch, aborted) = batch.without_aborted();
        let answers = if batch.is_empty() { Answers::default() } else { self.write_decided(batch, seen).await };
        answers.and_aborted(aborted)
    }

    async fn write_decided(&mut self, batch: Batch, mut seen: Seen) -> Answers {
        let group = batch.group();
        let kept = self.connection.is_kept();
        let called = match self.call_one(group, &seen).await {
            // It is more than one event, or another process has written.
            Ok(None) => self.call(group, &seen, false).await,
            Ok(Some(outcomes)) => Ok(outcomes),
            Err(e) => Err(e),
        };
        let outcomes = match called {
            // An event id or a version that exists already fails the whole statement. With `check`, it tells which.
            Err(e) if exists_already(&e) => self.call(group, &seen, true).await,
            // The connection of an earlier call was broken, perhaps long ago. With `check`, what was written all the same is found.
            Err(e) if kept && is_broken(&e) => {
                // The new connection may end at another server. And more of the log may have been seen since this call began.
                let now = self.history.seen();
                if !now.branch.is_same(&seen.branch) {
                    return Box::pin(self.write(batch)).await;
                }
                seen = now;
                self.call(group, &seen, true).await
            }
            outcomes => outcomes,
        };
        match outcomes {
            Ok(outcomes) => self.settle(batch, &seen, outcomes),
            // What was decided on the lost history is aborted by now. The rest is written.
            Err(e) if is_other_history(&e) => Box::pin(self.write(batch)).await,
            Err(e) if Failure::of(&e) == Failure::Data && batch.len() > 1 => {
                let mut answers = Answers::default();
                for waiting in batch.into_waiting() {
                    answers.extend(Box::pin(self.write(Batch::of(waiting))).await);
                }
                answers
            }
            Err(e) => failed(batch, e),
        }
    }

    /// Locks the log until all who asked for the lock have dropped it, and writes what they have submitted.
    async fn write_locked(&mut self, gathered: &mut Gathered, queue: &mut mpsc::Receiver<Job>) -> Answers {
        let locks = std::mem::take(&mut gathered.locks);
        if let Err(e) = self.execute(BEGIN_LOCK).await {
            tracing::warn!(error = %e, "the log cannot be locked");
            // It may be in a transaction that has begun and failed.
            self.connection.give_up();
            return Answers::default();
        }
        let (owned, mut all_dropped) = mpsc::channel(1);
        let another = owned.downgrade();
        locks.into_iter().for_each(|reply| _ = reply.send(LogLock { _owned: owned.clone() }));
        drop(owned);
        let meanwhile = async {
            while gathered.beyond.is_none() {
                tokio::select! {
                    biased;
                    Some(job) = queue.recv() => match (job, another.upgrade()) {
                        (Job::Lock(reply), Some(_owned)) => _ = reply.send(LogLock { _owned }),
                        (job, _) => gathered.add(job),
                    },
                    _ = all_dropped.recv() => return,
                }
            }
        };
        _ = tokio::time::timeout(LOCK_LIMIT, meanwhile).await;
        let batch = gathered.next_batch();
        let seen = self.history.seen();
        let (batch, aborted) = batch.without_aborted();
        let answers = match self.call(batch.group(), &seen, false).await {
            Ok(outcomes) => match self.execute("COMMIT").await {
                Ok(()) => self.settle(batch, &seen, outcomes),
                Err(e) => failed(batch, e),
            },
            Err(_) => {
                _ = self.execute("ROLLBACK").await;
                self.write(batch).await
            }
        };
        answers.and_aborted(aborted)
    }

    /// Notes the outcomes of a call that is committed.
    fn settle(&mut self, batch: Batch, seen: &Seen, (outcomes, end): (Vec<Outcome>, Option<Mark>)) -> Answers {
        if let Some(end) = end {
            self.versions.note(batch.group().appends(), &outcomes, end);
            self.history.advance(seen, end);
        }
        let stamped = outcomes.iter().flatten().map(|appended| appended.recorded_at).max();
        let now = Utc::now() + self.tolerance;
        if let Some(recorded_at) = stamped.filter(|stamped| *stamped > now)
            && self.warned.is_none_or(|warned| warned.elapsed() > WARN_EVERY)
        {
            self.warned = Some(Instant::now());
            tracing::error!(%recorded_at, "an earlier event is stamped with the future: what is recorded carries its time on");
        }
        let last = outcomes.iter().flatten().map(|appended| appended.position).max();
        // The hint goes out before the answers, so that readers have begun by then.
        last.into_iter().for_each(|last| _ = self.moved.send_replace(last));
        batch.settled(outcomes)
    }

    /// One call of `append_group`: the outcome of each append, and the end of the log.
    async fn call(
        &mut self,
        group: &Group,
        seen: &Seen,
        check: bool,
    ) -> Result<(Vec<Outcome>, Option<Mark>), sqlx::Error> {
        let vouched_at = self.versions.confirms(group, &seen.marks).map(|mark| mark.position);
        let (registered, tolerance) = (&mut self.registered, self.tolerance);
        let called = self.connection.call(async |connection: &mut PgConnection| {
            registered.register(connection, group.appends()).await?;
            group.call(connection, seen, vouched_at, check, tolerance).await
        });
        let called = called.await;
        if called.as_ref().is_err_and(is_other_history) {
            self.history.lose(&seen.branch, None);
        }
        let rows = self.forget_if_failed(called)?;
        let end = Group::end(&rows);
        Ok((group.outcomes(rows), end))
    }

    /// The short way for one event, while no other process writes; `None` if it cannot be taken.
    async fn call_one(
        &mut self,
        group: &Group,
        seen: &Seen,
    ) -> Result<Option<(Vec<Outcome>, Option<Mark>)>, sqlx::Error> {
        let confirmed = self.versions.confirms(group, &seen.marks);
        let Some(mark) = confirmed.filter(|_| self.versions.is_alone() && seen.marks.len() == 1) else {
            return Ok(None);
        };
        let (registered, tolerance) = (&mut self.registered, self.tolerance);
        let called = self.connection.call(async |connection: &mut PgConnection| {
            registered.register(connection, group.appends()).await?;
            group.call_one(connection, mark, tolerance).await
        });
        let called = called.await;
        if called.as_ref().is_err_and(|e| violates(e, &["events_position"])) {
            self.versions = VersionCache::default();
            return Ok(None);
        }
        let row = self.forget_if_failed(called)?;
        Ok(row.map(|row| {
            let rows = vec![row];
            let end = Group::end(&rows);
            (group.outcomes(rows), end)
        }))
    }

    async fn execute(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        let executed =
            self.connection.call(async |connection: &mut PgConnection| sqlx::raw_sql(sql).execute(connection).await);
        let executed = executed.await;
        self.forget_if_failed(executed).map(drop)
    }

    /// After an error nothing that is cached is certain any more.
    fn forget_if_failed<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if result.is_err() {
            self.versions = VersionCache::default();
            // What was registered may be gone: in a transaction that locked the log, or on a server that was restored.
            self.registered = Registered::default();
        }
        result
    }
}

fn failed(batch: Batch, error: sqlx::Error) -> Answers {
    let error = Arc::new(error);
    let refused = if clock::differ(&error) {
        let message = error.as_database_error().map_or_else(String::new, |e| e.message().to_owned());
        AppendError::ClocksDiffer(Cause::new(message, error))
    } else {
        match Failure::of(&error) {
            Failure::Data => AppendError::Refused(format!("the database refused the append: {error}")),
            Failure::Passing => AppendError::Unavailable(Cause::new(error.to_string(), error)),
            Failure::Permanent => AppendError::Broken(Cause::new(error.to_string(), error)),
        }
    };
    tracing::warn!(appends = batch.len(), error = %refused, "appends failed");
    batch.refused(&refused)
}

fn exists_already(error: &sqlx::Error) -> bool {
    violates(error, &["events_event_id", "events_stream_version"])
}

fn violates(error: &sqlx::Error, constraints: &[&str]) -> bool {
    let constraint = error.as_database_error().and_then(|e| e.constraint());
    constraint.is_some_and(|constraint| constraints.contains(&constraint))
}

/// Whether `append_group` says that the log does not have what this process has seen of it.
fn is_other_history(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == OTHER_HISTORY)
}
