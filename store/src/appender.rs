//! The appender: the way into a log that is in use. (An import fills one that is empty.)
//!
//! One task a process gathers the appends that wait and writes them in one call, on one connection. It never waits to
//! fill a group: what queued up while one group was in flight is the next one, and a client alone pays nothing.

use crate::batch::{Answers, Batch, Outcome, Waiting};
use crate::chain::Mark;
use crate::check::check;
use crate::connect::Role;
use crate::connection::{Connection, is_broken};
use crate::connector::Connector;
use crate::event_types::Registered;
use crate::group::{Group, Prepared};
use crate::history::{History, Seen};
use crate::known::Known;
use crate::{Alarm, Append, AppendError, Appended, Failure, Position, Speculation, clock};
use chrono::Utc;
use sqlx::postgres::PgConnection;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How many appends may wait. Beyond it, senders wait to be let in.
const QUEUE: usize = 4096;
/// How long the log is held at most for those who decide again.
const HOLD: Duration = Duration::from_millis(20);
/// The SQLSTATE of `append_group` for marks that the log does not have.
const OTHER_HISTORY: &str = "YH001";
/// What begins a transaction that holds the log. Should this process be stopped meanwhile, Postgres ends it.
const BEGIN_HOLD: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '1s'; SELECT daybook.hold_log()";

/// A handle on the process's appender. Cheap to clone; the task ends with the last handle.
#[derive(Debug, Clone)]
pub struct Appender {
    queue: mpsc::Sender<Job>,
    head: watch::Receiver<Position>,
    history: History,
}

/// An append that waits for its turn, behind those that were submitted before it.
#[derive(Debug)]
pub struct Submitted {
    answer: oneshot::Receiver<Outcome>,
}

/// While it is kept, for 20 milliseconds at most, no other process appends: see [`Appender::hold`].
#[derive(Debug)]
pub struct Hold {
    /// Never sent on: the appender notices when the last one is dropped.
    _held: mpsc::Sender<Infallible>,
}

#[derive(Debug)]
enum Job {
    Append(Box<Waiting>),
    Hold(oneshot::Sender<Hold>),
}

impl Appender {
    /// Starts the appender on the database of `url`, in the role that may only append. It connects when there is
    /// something to append.
    ///
    /// # Errors
    /// When `url` is no Postgres URL.
    pub fn start(url: &str) -> Result<Self, sqlx::Error> {
        Self::start_tolerating(url, clock::TOLERANCE)
    }

    /// The same, where Postgres' clock and this process' may be so far apart.
    ///
    /// # Errors
    /// As those of [`Self::start`].
    pub fn start_tolerating(url: &str, tolerance: Duration) -> Result<Self, sqlx::Error> {
        let connector = Connector::new(url, Some(Role::Append), &[])?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (moved, head) = watch::channel(0);
        let (known, registered, history) = (Known::default(), Registered::default(), History::default());
        let (connection, ahead) = (Connection::that_writes(connector), Alarm::default());
        let worker = Worker { connection, history: history.clone(), known, registered, moved, tolerance, ahead };
        tokio::spawn(worker.run(jobs));
        Ok(Self { queue, head, history })
    }

    /// Writes `append` if all that it expects is so, and returns once it is durable.
    ///
    /// # Errors
    /// See [`AppendError`]; of those that are not written nothing is, and no position is spent on them.
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.submit(append, vec![]).await?.written().await
    }

    /// Puts `append` into the queue. What is submitted later is tried later: so an append may expect what those before
    /// it will have written. `speculations` are those that it continues, one for each of its streams, in their order; or
    /// none.
    ///
    /// # Errors
    /// `Refused`, if it can never be written, and `Unavailable`, if the appender has ended.
    pub async fn submit(&self, append: Append, speculations: Vec<Speculation>) -> Result<Submitted, AppendError> {
        check(&append)?;
        let (reply, answer) = oneshot::channel();
        let job = Job::Append(Box::new(Waiting { append: Prepared::new(append), speculations, reply }));
        self.queue.send(job).await.map_err(|_| ended())?;
        Ok(Submitted { answer })
    }

    /// Holds the log for those who lost a stream to another process: what they read, decide and submit before they let
    /// go of it, 20 milliseconds at most, cannot be too late again. Without it, a process that writes to one stream
    /// without a pause would always be faster.
    ///
    /// # Errors
    /// When Postgres is not available.
    pub async fn hold(&self) -> Result<Hold, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Job::Hold(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| AppendError::Unavailable("the log cannot be held".into()))
    }

    /// Returns when the appender can append no more, by a defect: the process has to be started again.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    /// What the process has seen of the log. Who decides on what a loader reads gives it to that as well.
    pub fn history(&self) -> History {
        self.history.clone()
    }

    /// The position of the last event that this appender wrote: a hint that there is more to read.
    pub fn head(&self) -> watch::Receiver<Position> {
        self.head.clone()
    }
}

impl Submitted {
    /// Returns once it is durable, or refused.
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
    known: Known,
    registered: Registered,
    moved: watch::Sender<Position>,
    /// How far Postgres' clock may be from this process'.
    tolerance: Duration,
    /// Somebody is told that stamps are ahead of the clock.
    ahead: Alarm,
}

/// What was taken out of the queue, and not begun yet.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    /// What the batch has no room for.
    beyond: Option<Waiting>,
    holds: Vec<oneshot::Sender<Hold>>,
}

impl Gathered {
    fn take(&mut self, job: Job) {
        match job {
            Job::Append(waiting) if self.batch.has_room_for(&waiting) => self.batch.add(*waiting),
            Job::Append(waiting) => self.beyond = Some(*waiting),
            Job::Hold(reply) => self.holds.push(reply),
        }
    }

    /// Takes jobs until the batch is full; else it goes on for ever.
    async fn fill(&mut self, queue: &mut mpsc::Receiver<Job>) {
        while self.beyond.is_none()
            && let Some(job) = queue.recv().await
        {
            self.take(job);
        }
        std::future::pending::<()>().await;
    }

    /// What is written next.
    fn next_batch(&mut self) -> Batch {
        let next = self.beyond.take().map(Batch::of).unwrap_or_default();
        std::mem::replace(&mut self.batch, next)
    }
}

impl Worker {
    /// Writes batch after batch. While one is being written, the one before is answered and the next one gathered: so
    /// Postgres waits for neither.
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let (mut gathered, mut answers) = (Gathered::default(), Answers::default());
        loop {
            if gathered.batch.is_empty() && gathered.holds.is_empty() {
                answers.tell();
                match queue.recv().await {
                    Some(job) => gathered.take(job),
                    None => return,
                }
            }
            while gathered.beyond.is_none()
                && let Ok(job) = queue.try_recv()
            {
                gathered.take(job);
            }
            let batch = gathered.next_batch();
            if gathered.holds.is_empty() {
                let meanwhile = async {
                    answers.tell();
                    gathered.fill(&mut queue).await;
                };
                let written = tokio::select! {
                    biased;
                    written = self.write(batch) => written,
                    () = meanwhile => unreachable!("it goes on for ever"),
                };
                // If Postgres was done before there was a meanwhile.
                answers.tell();
                answers = written;
            } else {
                answers.tell();
                if !batch.is_empty() {
                    self.write(batch).await.tell();
                }
                answers = self.write_held(&mut gathered, &mut queue).await;
            }
        }
    }

    async fn write(&mut self, batch: Batch) -> Answers {
        // First: what is decided on a state that was read later is not in the batch.
        let seen = self.history.seen();
        // Only now: what came of the batch before this one was not known when this one was gathered.
        let (batch, aborted) = batch.without_aborted();
        let answers = if batch.is_empty() { Answers::default() } else { self.write_decided(batch, seen).await };
        answers.and_aborted(aborted)
    }

    async fn write_decided(&mut self, batch: Batch, mut seen: Seen) -> Answers {
        let group = batch.group();
        let kept = self.connection.is_kept();
        let called = match self.call_one(group, &seen).await {
            // There is no short way, or somebody else has written.
            Ok(None) => self.call(group, &seen, false).await,
            Ok(Some(outcomes)) => Ok(outcomes),
            Err(e) => Err(e),
        };
        let outcomes = match called {
            // An event id or a stream that exists already fails the whole statement. Asked to check, it tells which.
            Err(e) if is_taken(&e) => self.call(group, &seen, true).await,
            // A connection that had been kept was broken: perhaps long ago. What it did write after all is found.
            Err(e) if kept && is_broken(&e) => {
                // Behind the new one there may be another server. Meanwhile, more was seen of the log than when this began.
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
            // What was decided on the other history is aborted by now. The others are written.
            Err(e) if is_other_history(&e) => Box::pin(self.write(batch)).await,
            Err(e) if Failure::of(&e) == Failure::Data && batch.len() > 1 => {
                let mut answers = Answers::default();
                for waiting in batch.into_waiting() {
                    answers.extend(Box::pin(self.write(Batch::of(waiting))).await);
                }
                answers
            }
            Err(e) => failed(batch, &e),
        }
    }

    /// Holds the log until all who asked for it have submitted what they came to, and writes that.
    async fn write_held(&mut self, gathered: &mut Gathered, queue: &mut mpsc::Receiver<Job>) -> Answers {
        let holds = std::mem::take(&mut gathered.holds);
        if let Err(e) = self.execute(BEGIN_HOLD).await {
            tracing::warn!(error = %e, "the log cannot be held");
            // It may be in a transaction that has begun, and failed.
            self.connection.give_up();
            return Answers::default();
        }
        let (held, mut all_let_go) = mpsc::channel(1);
        let another = held.downgrade();
        holds.into_iter().for_each(|reply| _ = reply.send(Hold { _held: held.clone() }));
        drop(held);
        let meanwhile = async {
            while gathered.beyond.is_none() {
                tokio::select! {
                    biased;
                    Some(job) = queue.recv() => match (job, another.upgrade()) {
                        (Job::Hold(reply), Some(_held)) => _ = reply.send(Hold { _held }),
                        (job, _) => gathered.take(job),
                    },
                    _ = all_let_go.recv() => return,
                }
            }
        };
        _ = tokio::time::timeout(HOLD, meanwhile).await;
        let batch = gathered.next_batch();
        let seen = self.history.seen();
        let (batch, aborted) = batch.without_aborted();
        let answers = match self.call(batch.group(), &seen, false).await {
            Ok(outcomes) => match self.execute("COMMIT").await {
                Ok(()) => self.settle(batch, &seen, outcomes),
                Err(e) => failed(batch, &e),
            },
            Err(_) => {
                _ = self.execute("ROLLBACK").await;
                self.write(batch).await
            }
        };
        answers.and_aborted(aborted)
    }

    /// Notes what a call came to that is committed.
    fn settle(&mut self, batch: Batch, seen: &Seen, (outcomes, end): (Vec<Outcome>, Option<Mark>)) -> Answers {
        if let Some(end) = end {
            self.known.note(batch.group().appends(), &outcomes, end);
            self.history.advance(seen, end);
        }
        let stamped = outcomes.iter().flatten().map(|appended| appended.recorded_at).max();
        let now = Utc::now() + self.tolerance;
        if let Some(recorded_at) = stamped.filter(|stamped| *stamped > now)
            && self.ahead.rings().is_some()
        {
            tracing::error!(%recorded_at, "an earlier event is stamped with the future: what is recorded carries its time on");
        }
        let last = outcomes.iter().flatten().map(|appended| appended.position).max();
        // The hint goes out before the answers, so that what follows from it is under way.
        last.into_iter().for_each(|last| _ = self.moved.send_replace(last));
        batch.settled(outcomes)
    }

    /// One call of `append_group`: what came of each append, and where the log ends then.
    async fn call(
        &mut self,
        group: &Group,
        seen: &Seen,
        check: bool,
    ) -> Result<(Vec<Outcome>, Option<Mark>), sqlx::Error> {
        let vouched_at = self.known.vouches_for(group, &seen.marks).map(|mark| mark.position);
        let (registered, tolerance) = (&mut self.registered, self.tolerance);
        let called = self.connection.call(async |connection: &mut PgConnection| {
            registered.register(connection, group.appends()).await?;
            group.call(connection, seen, vouched_at, check, tolerance).await
        });
        let called = called.await;
        if called.as_ref().is_err_and(is_other_history) {
            self.history.lose(&seen.branch, None);
        }
        let rows = self.heed(called)?;
        let end = Group::end(&rows);
        Ok((group.outcomes(rows), end))
    }

    /// The short way, for one event of a process that is alone; `None` if that is not so.
    async fn call_one(
        &mut self,
        group: &Group,
        seen: &Seen,
    ) -> Result<Option<(Vec<Outcome>, Option<Mark>)>, sqlx::Error> {
        let vouched = self.known.vouches_for(group, &seen.marks);
        let Some(mark) = vouched.filter(|_| self.known.is_alone() && seen.marks.len() == 1) else { return Ok(None) };
        let (registered, tolerance) = (&mut self.registered, self.tolerance);
        let called = self.connection.call(async |connection: &mut PgConnection| {
            registered.register(connection, group.appends()).await?;
            group.call_one(connection, mark, tolerance).await
        });
        let called = called.await;
        if called.as_ref().is_err_and(|e| violates(e, &["events_position"])) {
            self.known = Known::default();
            return Ok(None);
        }
        let row = self.heed(called)?;
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
        self.heed(executed).map(drop)
    }

    /// After an error nothing is known any more.
    fn heed<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if result.is_err() {
            self.known = Known::default();
            // A transaction that held the log took with it what was registered in it; a server that was restored, too.
            self.registered = Registered::default();
        }
        result
    }
}

fn failed(batch: Batch, error: &sqlx::Error) -> Answers {
    let refused = if clock::differ(error) {
        AppendError::ClocksDiffer(error.as_database_error().map_or_else(String::new, |e| e.message().to_owned()))
    } else {
        match Failure::of(error) {
            Failure::Data => AppendError::Refused(format!("the database refused the append: {error}")),
            Failure::Passing => AppendError::Unavailable(error.to_string()),
            Failure::Permanent => AppendError::Broken(error.to_string()),
        }
    };
    tracing::warn!(appends = batch.len(), error = %refused, "appends failed");
    batch.refused(&refused)
}

fn is_taken(error: &sqlx::Error) -> bool {
    violates(error, &["events_event_id", "events_stream_version"])
}

fn violates(error: &sqlx::Error, constraints: &[&str]) -> bool {
    let constraint = error.as_database_error().and_then(|e| e.constraint());
    constraint.is_some_and(|constraint| constraints.contains(&constraint))
}

/// `append_group` says that the log does not have what this process has seen of it.
fn is_other_history(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == OTHER_HISTORY)
}
