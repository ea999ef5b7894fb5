//! The appender: the only way into the log.
//!
//! One task a process gathers the appends that wait and writes them in one call, on one connection. It never waits to
//! fill a group: what queued up while one group was in flight is the next one, and a client alone pays nothing.

use crate::event::{Metadata, NewEvent};
use crate::group::Group;
use crate::{ExpectedVersion, Position, StreamId, Version, connect};
use chrono::{DateTime, Datelike, Utc};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// What one command writes: to one stream or several, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub metadata: Metadata,
    /// Each stream at most once.
    pub streams: Vec<StreamAppend>,
}

/// What an append expects of a stream, and what it adds to it; nothing, if it only expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAppend {
    pub stream: StreamId,
    pub expected: ExpectedVersion,
    pub events: Vec<NewEvent>,
}

/// An append that is in the log, durably.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Of its last event; of an append without events, the end of the log when its expectations held.
    pub position: Position,
    /// Of its events.
    pub recorded_at: DateTime<Utc>,
    /// The streams' versions now, in the append's order.
    pub versions: Vec<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("version conflict on {stream}: expected {expected}, found {actual}")]
    VersionConflict { stream: StreamId, expected: ExpectedVersion, actual: Version },
    /// The command id is spent: its first event stands at `position`.
    #[error("the command has been recorded already, at position {position}")]
    AlreadyRecorded { position: Position },
    /// It can never be written as it is.
    #[error("{0}")]
    Refused(String),
    /// Whether it was written is not known. The same append may be sent again: it is written once.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
}

/// The largest payload, in bytes: NATS carries it with its headers in a message of less than 1 MiB.
const MAX_PAYLOAD: usize = 128 * 1024;
/// The most events that one append may hold.
const MAX_EVENTS: usize = 1000;
/// How deep a payload may be nested: Postgres parses it with a stack.
const MAX_DEPTH: usize = 64;
/// The longest event type or actor, in bytes.
const MAX_NAME: usize = 128;
/// What one group may come to, in bytes of payload and in appends.
const MAX_GROUP_BYTES: usize = 4 * 1024 * 1024;
const MAX_GROUP: usize = 256;
/// How many appends may wait. Beyond it, senders wait to be let in.
const QUEUE: usize = 4096;
/// How long one call may take before the connection is given up: somewhat longer than Postgres' own limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);

/// A handle on the process's appender. Cheap to clone; the task ends with the last handle.
#[derive(Debug, Clone)]
pub struct Appender {
    queue: mpsc::Sender<Job>,
    head: watch::Receiver<Position>,
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) append: Append,
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
        tokio::spawn(Worker { options, connection: None, known: Known::default(), moved }.run(jobs));
        Ok(Self { queue, head })
    }

    /// Writes `append` if all that it expects is so, and returns once it is durable.
    ///
    /// # Errors
    /// See [`AppendError`]; of those that are not written nothing is, and no position is spent on them.
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        check(&append)?;
        let (reply, answer) = oneshot::channel();
        let ended = |_| AppendError::Unavailable("the appender has ended".into());
        self.queue.send(Job { append, reply }).await.map_err(|_| ended(()))?;
        answer.await.map_err(|_| ended(()))?
    }

    /// The position of the last event that this appender wrote: a hint that there is more to read.
    pub fn head(&self) -> watch::Receiver<Position> {
        self.head.clone()
    }
}

/// Refuses what would fail the whole group that it is in.
fn check(append: &Append) -> Result<(), AppendError> {
    let refuse = |what: String| Err(AppendError::Refused(what));
    let events = || append.streams.iter().flat_map(|s| &s.events);
    if append.streams.is_empty() || events().count() > MAX_EVENTS {
        return refuse(format!("an append is to 1 stream or more, of at most {MAX_EVENTS} events"));
    }
    for (i, a) in append.streams.iter().enumerate() {
        if append.streams[..i].iter().any(|b| b.stream == a.stream) {
            return refuse(format!("{} is in the append twice", a.stream));
        }
    }
    if events().map(|e| e.payload.len()).sum::<usize>() > MAX_GROUP_BYTES {
        return refuse(format!("the payloads of an append come to {MAX_GROUP_BYTES} bytes at most"));
    }
    if !(1..=9999).contains(&append.metadata.occurred_at.year()) {
        return refuse("occurred_at is of the years 1 to 9999".to_owned());
    }
    // It travels in a NATS header, which keeps neither blanks at its ends nor line breaks.
    let is_name =
        |name: &str| (1..=MAX_NAME).contains(&name.len()) && name.trim() == name && !name.contains(char::is_control);
    let traceparent = append.metadata.traceparent.as_deref();
    if !is_name(&append.metadata.actor) || !traceparent.is_none_or(is_name) {
        return refuse(format!(
            "actor and traceparent are 1 to {MAX_NAME} bytes without control characters or blanks at the ends"
        ));
    }
    for event in events() {
        if !is_name(&event.event_type) {
            return refuse(format!(
                "an event type is 1 to {MAX_NAME} bytes without control characters or blanks at the ends"
            ));
        }
        if event.payload.len() > MAX_PAYLOAD {
            return refuse(format!("the payload of {} is larger than {MAX_PAYLOAD} bytes", event.event_type));
        }
        check_json(event)?;
    }
    Ok(())
}

/// Refuses JSON that Postgres would choke on, now or when it is taken apart.
fn check_json(event: &NewEvent) -> Result<(), AppendError> {
    let refuse = |what: &str| Err(AppendError::Refused(format!("the payload of {} {what}", event.event_type)));
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in event.payload.bytes().enumerate() {
        match byte {
            0 => return refuse("holds NUL"),
            b'u' if escaped && event.payload[at..].starts_with("u0000") => return refuse("holds NUL"),
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return refuse(&format!("is nested deeper than {MAX_DEPTH}"));
        }
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(&event.payload) {
        Ok(_) => Ok(()),
        Err(e) => refuse(&format!("is no JSON: {e}")),
    }
}

/// The task that owns the connection.
struct Worker {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    known: Known,
    moved: watch::Sender<Position>,
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut waiting = Vec::with_capacity(MAX_GROUP);
        while queue.recv_many(&mut waiting, MAX_GROUP).await > 0 {
            while !waiting.is_empty() {
                let rest = waiting.split_off(group_length(&waiting));
                self.write(std::mem::replace(&mut waiting, rest)).await;
            }
        }
    }

    async fn write(&mut self, jobs: Vec<Job>) {
        let outcomes = match self.call(&jobs, false).await {
            // An event id or a stream that exists already fails the whole statement. Asked to check, it tells which.
            Err(e) if is_taken(&e) => self.call(&jobs, true).await,
            outcomes => outcomes,
        };
        match outcomes {
            Ok(outcomes) => {
                let last = outcomes.iter().flatten().map(|appended| appended.position).max();
                // The hint goes out before the replies, so that what follows from it is under way.
                last.into_iter().for_each(|last| _ = self.moved.send_replace(last));
                for (job, outcome) in jobs.into_iter().zip(outcomes) {
                    _ = job.reply.send(outcome);
                }
            }
            Err(e) if is_data_error(&e) && jobs.len() > 1 => {
                for job in jobs {
                    Box::pin(self.write(vec![job])).await;
                }
            }
            Err(e) => {
                let error = refused_or_unavailable(&e);
                tracing::warn!(appends = jobs.len(), error = %e, "appends failed");
                for job in jobs {
                    _ = job.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// One call of `append_group`. After an error of the connection the next call makes a new one.
    async fn call(&mut self, jobs: &[Job], check: bool) -> Result<Vec<Result<Appended, AppendError>>, sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => timed(self.options.connect()).await?,
        };
        let group = Group::of(jobs.iter().map(|job| &job.append));
        let known_head = self.known.vouches_for(&group).then_some(self.known.head);
        let rows = match timed(group.call(&mut connection, known_head, check)).await {
            Ok(rows) => rows,
            Err(e) => {
                self.known = Known::default();
                // After any other error the connection is dropped: closing it could wait for what does not answer.
                if matches!(e, sqlx::Error::Database(_)) {
                    self.connection = Some(connection);
                }
                return Err(e);
            }
        };
        self.connection = Some(connection);
        let outcomes = group.outcomes(rows);
        self.known.take_in(jobs, &outcomes);
        Ok(outcomes)
    }
}

/// The versions of the streams that this process wrote to last, while it is the only one that writes.
#[derive(Default)]
struct Known {
    /// The end of the log after the last group. Every event since `versions` was begun is this process's own.
    head: Position,
    versions: HashMap<StreamId, Version>,
}

/// How many streams' versions are known at most.
const KNOWN_STREAMS: usize = 200_000;

impl Known {
    /// Whether all versions that the group claims are known to fit, if the log still ends at `head`.
    fn vouches_for(&self, group: &Group<'_>) -> bool {
        // Of a stream that does not exist, the first version is always the next one; if it does, a constraint says so.
        let fits = |(stream, claim): &(StreamId, Version)| *claim == 0 || self.versions.get(stream) == Some(claim);
        group.claims().is_some_and(|claims| claims.iter().all(fits))
    }

    fn take_in(&mut self, jobs: &[Job], outcomes: &[Result<Appended, AppendError>]) {
        let written =
            || jobs.iter().zip(outcomes).filter_map(|(job, outcome)| Some((&job.append, outcome.as_ref().ok()?)));
        let events = |append: &Append| append.streams.iter().map(|s| s.events.len() as Position).sum::<Position>();
        let Some(first) = written().map(|(append, appended)| appended.position - events(append)).min() else { return };
        if first != self.head || self.versions.len() > KNOWN_STREAMS {
            // Somebody else has written in between, to any stream.
            self.versions.clear();
        }
        for (append, appended) in written() {
            self.head = self.head.max(appended.position);
            let versions = append.streams.iter().zip(&appended.versions);
            self.versions
                .extend(versions.filter(|(s, _)| !s.events.is_empty()).map(|(s, version)| (s.stream, *version)));
        }
    }
}

async fn timed<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = || sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(late()))
}

/// How many of the first jobs fit into one group; at least one.
fn group_length(jobs: &[Job]) -> usize {
    let size = |job: &Job| job.append.streams.iter().flat_map(|s| &s.events).map(|e| e.payload.len()).sum::<usize>();
    let mut bytes = 0;
    let fits = |job: &&Job| {
        bytes += size(job);
        bytes <= MAX_GROUP_BYTES
    };
    jobs.iter().take_while(fits).count().max(1)
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

fn refused_or_unavailable(error: &sqlx::Error) -> AppendError {
    if is_data_error(error) {
        AppendError::Refused(format!("the database refused the append: {error}"))
    } else {
        AppendError::Unavailable(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(payload: &str) -> NewEvent {
        NewEvent { event_type: "T".into(), schema_version: 1, payload: payload.into() }
    }

    #[test]
    fn json_that_postgres_would_choke_on_is_refused_before_the_queue() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check_json(&payload(&nested(64))), Ok(()));
        assert_eq!(check_json(&payload(r#"{"a":"[[\"{{"}"#)), Ok(()));
        assert_eq!(check_json(&payload(r#""not NUL: \\u0000""#)), Ok(()));
        for bad in [nested(65).as_str(), r#""\u0000""#, "\0", "{", "", "{\"a\":1}{}"] {
            assert!(check_json(&payload(bad)).is_err(), "{bad}");
        }
    }
}
