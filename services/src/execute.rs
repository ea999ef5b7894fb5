//! From a command to its outcome: load, decide, append; again, if somebody was faster.
//!
//! Every stream that is looked at is an expectation of the append, so no answer rests on a state that has passed: also
//! a refusal, or "already so", that was decided on a cached state is confirmed by the log before it is given.

use crate::aggregates::{Aggregates, CACHED, Kept};
use crate::codec::{self, DecodeError};
use bytestring::ByteString;
use chrono::{DateTime, Utc};
use domain::id::StockId;
use domain::order::{self, Order};
use domain::payment::Payment;
use domain::shipment::Shipment;
use domain::stock::{self, Stock};
use domain::{Aggregate, Command, Rejection};
use moka::sync::Cache;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use store::{
    Append, AppendError, Appender, ExpectedVersion, Fingerprint, Log, Metadata, Origin, Position, ReadError,
    RecordedEvent, StreamAppend, StreamId, Version,
};
use tokio::sync::{Mutex, OwnedMutexGuard};
use uuid::Uuid;

/// A command, and what it came with.
#[derive(Debug, Clone)]
pub struct Envelope {
    pub command_id: Uuid,
    pub command: Command,
    pub actor: ByteString,
    /// What it belongs to, if that is known: else, the order that it is about.
    pub correlation_id: Option<Uuid>,
    /// The event that led to it.
    pub causation_id: Option<Uuid>,
    pub occurred_at: DateTime<Utc>,
    pub traceparent: Option<ByteString>,
}

impl Envelope {
    /// Tells this command, sent again, from another one under its id. Time, trace and what led to it do not count.
    pub fn fingerprint(&self) -> Fingerprint {
        #[derive(Serialize)]
        struct Canonical<'a> {
            command: &'a Command,
            actor: &'a str,
        }
        let canonical = serde_json::to_vec(&Canonical { command: &self.command, actor: &self.actor });
        Fingerprint::of(&canonical.unwrap_or_else(|e| unreachable!("commands are plain data: {e}")))
    }
}

/// What a command came to, if it was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the log has events of it; if not, all was so already.
    pub recorded: bool,
    pub position: Position,
    pub streams: Vec<(StreamId, Version)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("{0}: try again")]
    Conflict(AppendError),
    #[error("the command id was used for another command: make a new one")]
    IdSpent,
    #[error("{0}")]
    Refused(String),
    #[error("the command may or may not have been recorded: send it again with its id ({0})")]
    Unavailable(String),
    #[error(transparent)]
    Unreadable(#[from] DecodeError),
}

impl From<ReadError> for ExecuteError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// How long a command may take, its turn included.
const DEADLINE: Duration = Duration::from_secs(14);
/// How often a command is decided anew because others write to its streams.
const MAX_ATTEMPTS: usize = 32;

/// Executes commands. Cheap to clone; the clones share the cache and the appender.
#[derive(Clone)]
pub struct Executor {
    log: Log,
    appender: Appender,
    aggregates: Arc<Aggregates>,
    /// Commands of this process that are about one stream take turns: else all but one of them would be in vain.
    turns: Cache<StreamId, Arc<Mutex<()>>>,
}

/// What a command was decided on, and what it is to write.
#[derive(Default)]
struct Session {
    looked_at: Vec<LookedAt>,
    /// What the events belong to.
    correlation_id: Uuid,
}

struct LookedAt {
    stream: StreamId,
    version: Version,
    position: Position,
    from_cache: bool,
    events: Vec<domain::Event>,
}

impl Session {
    fn has_events(&self) -> bool {
        self.looked_at.iter().any(|l| !l.events.is_empty())
    }

    /// A state just read from one stream was true at one moment. A cached one, or several together, need not have been.
    fn needs_confirmation(&self) -> bool {
        self.looked_at.len() > 1 || self.looked_at.iter().any(|l| l.from_cache)
    }

    fn position(&self) -> Position {
        self.looked_at.iter().map(|l| l.position).max().unwrap_or(0)
    }

    /// Adds to the stream that was looked at `index`th.
    fn write<A: Aggregate>(&mut self, index: usize, events: Vec<A::Event>) {
        let looked_at = &mut self.looked_at[index];
        looked_at.events.extend(events.into_iter().map(|event| A::event(looked_at.stream.id, event)));
    }
}

impl Executor {
    pub fn new(log: Log, appender: Appender) -> Self {
        Self::keeping(CACHED, log, appender)
    }

    /// One that reads what it decides on anew for every command.
    pub fn without_cache(log: Log, appender: Appender) -> Self {
        Self::keeping(0, log, appender)
    }

    fn keeping(cached: u64, log: Log, appender: Appender) -> Self {
        let aggregates = Arc::new(Aggregates::new(log.clone(), cached));
        Self { log, appender, aggregates, turns: Cache::new(CACHED) }
    }

    /// Decides and records the command, once for its id.
    ///
    /// # Errors
    /// See [`ExecuteError`]. After `Unavailable` and `Unreadable` it is unknown whether it was recorded.
    pub async fn execute(&self, envelope: &Envelope) -> Result<Outcome, ExecuteError> {
        // A server that neither answers nor goes away must not hold up those whose turn is next.
        let executed = tokio::time::timeout(DEADLINE, self.take_turn(envelope)).await;
        executed.unwrap_or_else(|_| Err(ExecuteError::Unavailable("no answer in time".into())))
    }

    async fn take_turn(&self, envelope: &Envelope) -> Result<Outcome, ExecuteError> {
        let _turn = self.turn(&envelope.command).await;
        let mut conflict = None;
        for _ in 0..MAX_ATTEMPTS {
            let mut session = Session::default();
            let refused = match self.decide(&envelope.command, &mut session).await {
                Ok(()) => None,
                Err(ExecuteError::Rejected(rejection)) => Some(rejection),
                Err(e) => return Err(e),
            };
            if refused.is_some() {
                session.looked_at.iter_mut().for_each(|l| l.events.clear());
            }
            if !session.has_events() {
                if let Some(recorded) = self.recorded(envelope).await? {
                    return Ok(recorded);
                }
                if !session.needs_confirmation() {
                    return unrecorded(session, refused);
                }
            }
            let append = self.append(envelope, &session).await;
            match append {
                Ok(_) if !session.has_events() => return unrecorded(session, refused),
                Ok(appended) => {
                    let (position, versions) = (appended.position, appended.versions);
                    return Ok(self.keep(session, position, &versions));
                }
                Err(AppendError::AlreadyRecorded { .. }) => {
                    return self.recorded(envelope).await?.ok_or(ExecuteError::IdSpent);
                }
                Err(error @ AppendError::VersionConflict { .. }) => {
                    // It may have been this very command that was faster.
                    if let Some(recorded) = self.recorded(envelope).await? {
                        return Ok(recorded);
                    }
                    self.refresh(&session, &error).await?;
                    conflict = Some(error);
                }
                Err(AppendError::Refused(why)) => return Err(ExecuteError::Refused(why)),
                Err(AppendError::Unavailable(why)) => return Err(ExecuteError::Unavailable(why)),
            }
        }
        let tries = || AppendError::Unavailable("it was never tried".into());
        Err(ExecuteError::Conflict(conflict.unwrap_or_else(tries)))
    }

    /// Waits until no other command of this process is about the same streams.
    async fn turn(&self, command: &Command) -> Vec<OwnedMutexGuard<()>> {
        let mut streams = match command {
            Command::Order { id, .. } | Command::CancelOrder { id, .. } => vec![codec::stream::<Order>(id.0)],
            Command::Payment { id, .. } => vec![codec::stream::<Payment>(id.0)],
            Command::Shipment { id, .. } => vec![codec::stream::<Shipment>(id.0)],
            Command::Stock(command) => {
                command.skus().iter().map(|sku| codec::stream::<Stock>(StockId::from(sku).0)).collect()
            }
        };
        // In one order for all, so that no two wait for each other.
        streams.sort_unstable();
        let mut turns = Vec::with_capacity(streams.len());
        for stream in streams {
            turns.push(self.turns.get_with(stream, Arc::default).lock_owned().await);
        }
        turns
    }

    /// Looks at the streams that the command is about, and says what to write to them.
    async fn decide(&self, command: &Command, session: &mut Session) -> Result<(), ExecuteError> {
        match command {
            Command::Order { id, command } => {
                session.correlation_id = id.0;
                let order = self.look_at::<Order>(session, id.0).await?;
                session.write::<Order>(0, order.decide(*id, command).map_err(Rejection::from)?);
            }
            Command::CancelOrder { id, reason } => {
                session.correlation_id = id.0;
                let order = self.look_at::<Order>(session, id.0).await?;
                let mut shipments = Vec::new();
                for shipment_id in order.shipment_ids(*id) {
                    shipments.push((shipment_id, self.look_at::<Shipment>(session, shipment_id.0).await?));
                }
                let cancelled = order::cancel(&order, *id, &shipments, *reason).map_err(Rejection::from)?;
                session.write::<Order>(0, cancelled.order);
                for (index, events) in (1..).zip(cancelled.shipments) {
                    session.write::<Shipment>(index, events);
                }
            }
            Command::Payment { id, command } => {
                let payment = self.look_at::<Payment>(session, id.0).await?;
                session.correlation_id = id.0;
                session.write::<Payment>(0, payment.decide(*id, command).map_err(Rejection::from)?);
            }
            Command::Stock(command) => {
                let mut stocks = Vec::new();
                for sku in command.skus() {
                    stocks.push(self.look_at::<Stock>(session, StockId::from(&sku).0).await?);
                }
                let first = session.looked_at.first().map(|l| l.stream.id);
                session.correlation_id = command.order_id().map(|id| id.0).or(first).unwrap_or_default();
                let decided = stock::decide(command, &stocks).map_err(Rejection::from)?;
                for (index, events) in decided.into_iter().enumerate() {
                    session.write::<Stock>(index, events);
                }
            }
            Command::Shipment { id, command } => {
                let shipment = self.look_at::<Shipment>(session, id.0).await?;
                session.correlation_id = shipment.order_id().map_or(id.0, |order| order.0);
                session.write::<Shipment>(0, shipment.decide(*id, command).map_err(Rejection::from)?);
            }
        }
        Ok(())
    }

    async fn look_at<A: Kept>(&self, session: &mut Session, id: Uuid) -> Result<Arc<A>, ExecuteError> {
        let (folded, from_cache) = self.aggregates.load::<A>(id).await?;
        session.looked_at.push(LookedAt {
            stream: codec::stream::<A>(id),
            version: folded.version,
            position: folded.position,
            from_cache,
            events: vec![],
        });
        Ok(folded.state)
    }

    /// Takes in what others wrote to the streams that were looked at.
    async fn refresh(&self, session: &Session, conflict: &AppendError) -> Result<(), ExecuteError> {
        for looked_at in &session.looked_at {
            // A stream that is shorter than it was: the database was restored to an older state.
            let lost = matches!(conflict, AppendError::VersionConflict { stream, actual, .. }
                if *stream == looked_at.stream && *actual < looked_at.version);
            self.aggregates.refresh(looked_at.stream, lost).await?;
        }
        Ok(())
    }

    async fn append(&self, envelope: &Envelope, session: &Session) -> Result<store::Appended, AppendError> {
        let stream = |looked_at: &LookedAt| StreamAppend {
            stream: looked_at.stream,
            expected: match looked_at.version {
                0 => ExpectedVersion::NoStream,
                version => ExpectedVersion::Exact(version),
            },
            events: looked_at.events.iter().map(codec::encode).collect(),
        };
        let metadata = Metadata {
            correlation_id: envelope.correlation_id.unwrap_or(session.correlation_id),
            causation_id: envelope.causation_id,
            command_id: envelope.command_id,
            fingerprint: envelope.fingerprint(),
            actor: envelope.actor.clone(),
            origin: Origin::Live,
            occurred_at: envelope.occurred_at,
            traceparent: envelope.traceparent.clone(),
        };
        self.appender.append(Append { metadata, streams: session.looked_at.iter().map(stream).collect() }).await
    }

    /// Keeps the states that the written events lead to.
    fn keep(&self, session: Session, position: Position, versions: &[Version]) -> Outcome {
        let mut streams = Vec::new();
        for (looked_at, version) in session.looked_at.into_iter().zip(versions) {
            if !looked_at.events.is_empty() {
                self.aggregates.keep(looked_at.stream, looked_at.version, &looked_at.events, *version, position);
                streams.push((looked_at.stream, *version));
            }
        }
        Outcome { recorded: true, position, streams }
    }

    /// What an earlier sending of the command was answered, if the log has events of it.
    async fn recorded(&self, envelope: &Envelope) -> Result<Option<Outcome>, ExecuteError> {
        let events = self.log.read_command(envelope.command_id).await?;
        let Some(last) = events.last() else { return Ok(None) };
        if last.metadata.fingerprint != envelope.fingerprint() {
            return Err(ExecuteError::IdSpent);
        }
        Ok(Some(Outcome { recorded: true, position: last.position, streams: versions(&events) }))
    }
}

/// The streams of the events, in their order, with the last version of each.
fn versions(events: &[RecordedEvent]) -> Vec<(StreamId, Version)> {
    let mut streams: Vec<(StreamId, Version)> = Vec::new();
    for event in events {
        match streams.iter_mut().find(|(stream, _)| *stream == event.stream) {
            Some((_, version)) => *version = event.version,
            None => streams.push((event.stream, event.version)),
        }
    }
    streams
}

fn unrecorded(session: Session, refused: Option<Rejection>) -> Result<Outcome, ExecuteError> {
    match refused {
        Some(rejection) => Err(ExecuteError::Rejected(rejection)),
        None => Ok(Outcome {
            recorded: false,
            position: session.position(),
            streams: session.looked_at.into_iter().map(|l| (l.stream, l.version)).collect(),
        }),
    }
}
