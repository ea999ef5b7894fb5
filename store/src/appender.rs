//! The appender: the only way into the log.
//!
//! One task a process gathers the appends that wait and writes them in one call, on one connection. It never waits to
//! fill a group: what queued up while one group was in flight is the next one, and a client alone pays nothing.

use crate::check::{MAX_BYTES, check};
use crate::event_types::Registered;
use crate::group::Group;
use crate::known::Known;
use crate::{Append, AppendError, Appended, Position, connect};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How many appends one group has at most.
const MAX_GROUP: usize = 256;
/// How many appends may wait. Beyond it, senders wait to be let in.
const QUEUE: usize = 4096;
/// How long one call may take before the connection is given up: somewhat longer than Postgres' own limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);
/// How long the log is held at most for those who decide again.
const HOLD: Duration = Duration::from_millis(20);
/// What begins a transaction that holds the log. Should this process be stopped meanwhile, Postgres ends it.
const BEGIN_HOLD: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '1s'; SELECT daybook.hold_log()";

/// A handle on the process's appender. Cheap to clone; the task ends with the last handle.
#[derive(Debug, Clone)]
pub struct Appender {
    queue: mpsc::Sender<Job>,
    head: watch::Receiver<Position>,
}

/// An append that waits for its turn, behind those that were submitted before it.
#[derive(Debug)]
pub struct Submitted {
    answer: oneshot::Receiver<Result<Appended, AppendError>>,
}

/// While it is kept, for 20 milliseconds at most, no other process appends: see [`Appender::hold`].
#[derive(Debug)]
pub struct Hold {
    /// Never sent on: the appender notices when the last one is dropped.
    _held: mpsc::Sender<Infallible>,
}

#[derive(Debug)]
enum Job {
    Append(Waiting),
    Hold(oneshot::Sender<Hold>),
}

#[derive(Debug)]
struct Waiting {
    append: Append,
    reply: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Appender {
    /// Starts the appender on the database of `url`, in the role that may only append. It connects when there is
    /// something to append.
    ///
    /// # Errors
    /// When `url` is no Postgres URL.
    pub fn start(url: &str) -> Result<Self, sqlx::Error> {
        let options = connect::options(url, connect::Role::Append)?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (moved, head) = watch::channel(0);
        let (known, registered) = (Known::default(), Registered::default());
        tokio::spawn(Worker { options, connection: None, known, registered, moved }.run(jobs));
        Ok(Self { queue, head })
    }

    /// Writes `append` if all that it expects is so, and returns once it is durable.
    ///
    /// # Errors
    /// See [`AppendError`]; of those that are not written nothing is, and no position is spent on them.
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.submit(append).await?.written().await
    }

    /// Puts `append` into the queue. What is submitted later is tried later: so an append may expect what one before it
    /// will have written, and is refused if that is.
    ///
    /// # Errors
    /// `Refused`, if it can never be written, and `Unavailable`, if the appender has ended.
    pub async fn submit(&self, append: Append) -> Result<Submitted, AppendError> {
        check(&append)?;
        let (reply, answer) = oneshot::channel();
        let job = Job::Append(Waiting { append, reply });
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
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    known: Known,
    registered: Registered,
    moved: watch::Sender<Position>,
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let (mut jobs, mut waiting, mut holds) = (Vec::with_capacity(MAX_GROUP), Vec::new(), Vec::new());
        while queue.recv_many(&mut jobs, MAX_GROUP).await > 0 {
            for job in jobs.drain(..) {
                match job {
                    Job::Append(append) => waiting.push(append),
                    Job::Hold(reply) => holds.push(reply),
                }
            }
            while !waiting.is_empty() || !holds.is_empty() {
                match waiting.is_empty() {
                    false => self.write(next_group(&mut waiting)).await,
                    true => (waiting, holds) = self.write_held(holds, &mut queue).await,
                }
            }
        }
    }

    async fn write(&mut self, group: Vec<Waiting>) {
        let connected = self.connection.is_some();
        let outcomes = match self.call(&group, false).await {
            // An event id or a stream that exists already fails the whole statement. Asked to check, it tells which.
            Err(e) if is_taken(&e) => self.call(&group, true).await,
            // A connection that had been kept was broken: perhaps long ago. What it did write after all is found.
            Err(e) if connected && is_broken(&e) => self.call(&group, true).await,
            outcomes => outcomes,
        };
        match outcomes {
            Ok(outcomes) => self.answer(group, outcomes),
            Err(e) if is_data_error(&e) && group.len() > 1 => {
                for append in group {
                    Box::pin(self.write(vec![append])).await;
                }
            }
            Err(e) => refuse(group, &e),
        }
    }

    /// Holds the log until all who asked for it have submitted what they came to, and writes that. Returns what came
    /// beyond it.
    async fn write_held(
        &mut self,
        holds: Vec<oneshot::Sender<Hold>>,
        queue: &mut mpsc::Receiver<Job>,
    ) -> (Vec<Waiting>, Vec<oneshot::Sender<Hold>>) {
        if let Err(e) = self.execute(BEGIN_HOLD).await {
            tracing::warn!(error = %e, "the log cannot be held");
            return (vec![], vec![]);
        }
        let mut waiting = Vec::new();
        let mut late = Vec::new();
        let (held, mut all_let_go) = mpsc::channel(1);
        let another = held.downgrade();
        holds.into_iter().for_each(|reply| _ = reply.send(Hold { _held: held.clone() }));
        drop(held);
        let mut take = |job| match job {
            Job::Append(append) => waiting.push(append),
            Job::Hold(reply) => match another.upgrade() {
                Some(_held) => _ = reply.send(Hold { _held }),
                None => late.push(reply),
            },
        };
        let gathered = async {
            loop {
                tokio::select! {
                    biased;
                    Some(job) = queue.recv() => take(job),
                    _ = all_let_go.recv() => return,
                }
            }
        };
        _ = tokio::time::timeout(HOLD, gathered).await;
        let group = next_group(&mut waiting);
        match self.call(&group, false).await {
            Ok(outcomes) => match self.execute("COMMIT").await {
                Ok(()) => self.answer(group, outcomes),
                Err(e) => refuse(group, &e),
            },
            Err(_) => {
                _ = self.execute("ROLLBACK").await;
                self.write(group).await;
            }
        }
        (waiting, late)
    }

    fn answer(&mut self, group: Vec<Waiting>, outcomes: Vec<Result<Appended, AppendError>>) {
        self.known.take_in(group.iter().map(|waiting| &waiting.append), &outcomes);
        let last = outcomes.iter().flatten().map(|appended| appended.position).max();
        // The hint goes out before the replies, so that what follows from it is under way.
        last.into_iter().for_each(|last| _ = self.moved.send_replace(last));
        for (waiting, outcome) in group.into_iter().zip(outcomes) {
            _ = waiting.reply.send(outcome);
        }
    }

    /// One call of `append_group`.
    async fn call(
        &mut self,
        group: &[Waiting],
        check: bool,
    ) -> Result<Vec<Result<Appended, AppendError>>, sqlx::Error> {
        let appends = group.iter().map(|waiting| &waiting.append);
        let group = Group::of(appends.clone());
        let known_head = self.known.vouches_for(&group);
        let mut connection = self.connected().await?;
        let called = async {
            self.registered.register(&mut connection, appends).await?;
            group.call(&mut connection, known_head, check).await
        };
        let rows = timed(called).await;
        Ok(group.outcomes(self.keep(connection, rows)?))
    }

    async fn execute(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        let mut connection = self.connected().await?;
        let executed = timed(sqlx::raw_sql(sql).execute(&mut connection)).await;
        self.keep(connection, executed).map(drop)
    }

    async fn connected(&mut self) -> Result<PgConnection, sqlx::Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => timed(self.options.connect()).await,
        }
    }

    /// Keeps the connection for the next call, unless it failed: closing it could wait for what does not answer.
    fn keep<T>(&mut self, connection: PgConnection, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if result.is_err() {
            self.known = Known::default();
            // A transaction that held the log took with it what was registered in it; a server that was restored, too.
            self.registered = Registered::default();
        }
        if matches!(result, Ok(_) | Err(sqlx::Error::Database(_))) {
            self.connection = Some(connection);
        }
        result
    }
}

/// Takes as many of the first as fit into one group.
fn next_group(waiting: &mut Vec<Waiting>) -> Vec<Waiting> {
    let size = |waiting: &Waiting| {
        waiting.append.streams.iter().flat_map(|s| &s.events).map(|e| e.payload.len()).sum::<usize>()
    };
    let mut bytes = 0;
    let fits = |waiting: &&Waiting| {
        bytes += size(waiting);
        bytes <= MAX_BYTES
    };
    let length = waiting.iter().take(MAX_GROUP).take_while(fits).count().max(1).min(waiting.len());
    let rest = waiting.split_off(length);
    std::mem::replace(waiting, rest)
}

fn refuse(group: Vec<Waiting>, error: &sqlx::Error) {
    let refused = if is_data_error(error) {
        AppendError::Refused(format!("the database refused the append: {error}"))
    } else {
        AppendError::Unavailable(error.to_string())
    };
    tracing::warn!(appends = group.len(), error = %refused, "appends failed");
    for waiting in group {
        _ = waiting.reply.send(Err(refused.clone()));
    }
}

async fn timed<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = || sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(late()))
}

fn is_taken(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(|e| e.constraint());
    matches!(constraint, Some("events_event_id" | "events_stream_version"))
}

/// Classes 22 (data), 23 (constraint), 54 (limits): something in the group cannot be written, whenever it is tried.
fn is_data_error(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code());
    code.is_some_and(|code| ["22", "23", "54"].contains(&&code[..2]))
}

/// The connection is gone; not: nobody answers.
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(e) if e.kind() != std::io::ErrorKind::TimedOut)
}
