//! From a command to its outcome: load, decide, append; again, if somebody was faster.
//!
//! Every stream that is looked at is an expectation of the append, so no answer rests on a state that has passed: also
//! a refusal, or "already so", that was decided on a cached state is confirmed by the log before it is given.

use crate::aggregates::{Aggregates, Held, Kept};
use crate::codec::{self, DecodeError};
use bytestring::ByteString;
use chrono::{DateTime, Utc};
use domain::id::StockId;
use domain::order::Order;
use domain::payment::Payment;
use domain::shipment::Shipment;
use domain::stock::{self, Stock};
use domain::{Aggregate, Command, Rejection};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use store::{
    Append, AppendError, Appended, Appender, Branch, ExpectedVersion, Failure, Fingerprint, History, Loader, Log, Mark,
    Metadata, Origin, Position, ReadError, RecordedEvent, Speculation, StreamAppend, StreamId, Version,
};
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
    /// A log that has this mark has what was written, or found. None of what was just read, and written nothing.
    pub mark: Option<Mark>,
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
    /// It fails until somebody changes something. It may or may not have been recorded.
    #[error("{0}")]
    Broken(String),
    #[error(transparent)]
    Unreadable(#[from] DecodeError),
}

impl From<ReadError> for ExecuteError {
    fn from(error: ReadError) -> Self {
        match error.failure() {
            Failure::Passing => Self::Unavailable(error.to_string()),
            // What is read is no client's data, but ids that this build has made.
            Failure::Data | Failure::Permanent => Self::Broken(error.to_string()),
        }
    }
}

/// How long a command may take, its turn included.
const DEADLINE: Duration = Duration::from_secs(14);
/// How often a command is decided anew because others write to its streams.
const MAX_ATTEMPTS: usize = 32;

/// Executes commands. Cheap to clone; the clones share the kept aggregates and the appender.
#[derive(Clone)]
pub struct Executor {
    log: Log,
    appender: Appender,
    aggregates: Arc<Aggregates>,
}

/// What a command is decided on, and what it is to write.
#[derive(Default)]
struct Session {
    looked_at: Vec<LookedAt>,
    /// What the events belong to.
    correlation_id: Uuid,
    /// No other process can append: it must not wait for one.
    holds_log: bool,
}

struct LookedAt {
    held: Held,
    events: Vec<domain::Event>,
}

impl Session {
    fn has_events(&self) -> bool {
        self.looked_at.iter().any(|l| !l.events.is_empty())
    }

    /// A state just read from one stream was true at one moment. A kept one, or several together, need not have been.
    fn needs_confirmation(&self) -> bool {
        self.looked_at.len() > 1 || self.looked_at.iter().any(|l| l.held.was_kept)
    }

    /// The state that was looked at `index`th.
    fn state<A: Kept>(&self, index: usize) -> &A {
        A::of(self.looked_at[index].held.state())
    }

    /// Adds to the stream that was looked at `index`th.
    fn write<A: Aggregate>(&mut self, index: usize, events: Vec<A::Event>) {
        let LookedAt { held, events: all } = &mut self.looked_at[index];
        all.extend(events.into_iter().map(|event| A::event(held.stream.id, event)));
    }

    /// The versions that its streams come to: those that it writes to, or, if it writes nothing, all of them.
    fn versions(&self) -> Vec<(StreamId, Version)> {
        let has_events = self.has_events();
        let told = self.looked_at.iter().filter(|l| !has_events || !l.events.is_empty());
        told.map(|l| (l.held.stream, l.held.version() + l.events.len() as Version)).collect()
    }

    fn append(&self, envelope: &Envelope, fingerprint: Fingerprint) -> Append {
        let stream = |LookedAt { held, events }: &LookedAt| StreamAppend {
            stream: held.stream,
            expected: match held.version() {
                0 => ExpectedVersion::NoStream,
                version => ExpectedVersion::Exact(version),
            },
            events: events.iter().map(codec::encode).collect(),
        };
        let metadata = Metadata {
            correlation_id: envelope.correlation_id.unwrap_or(self.correlation_id),
            causation_id: envelope.causation_id,
            command_id: envelope.command_id,
            fingerprint,
            actor: envelope.actor.clone(),
            origin: Origin::Live,
            occurred_at: envelope.occurred_at,
            traceparent: envelope.traceparent.clone(),
        };
        Append { metadata, streams: self.looked_at.iter().map(stream).collect() }
    }

    fn speculations(&self) -> Vec<Speculation> {
        self.looked_at.iter().map(|l| l.held.speculation()).collect()
    }

    /// Whether all states were read from this history of the log.
    fn is_on(&self, branch: &Branch) -> bool {
        self.looked_at.iter().all(|l| l.held.speculation().is_on(branch))
    }

    /// Gives the next command its turn, on what this one makes of the states.
    fn let_go(self) {
        self.looked_at.into_iter().for_each(|l| l.held.take_in(&l.events));
    }
}

impl Executor {
    pub fn new(log: Log, loader: Loader, appender: Appender) -> Self {
        Self { log, appender, aggregates: Arc::new(Aggregates::kept(loader)) }
    }

    /// One that reads what it decides on anew for every command.
    pub fn without_cache(log: Log, loader: Loader, appender: Appender) -> Self {
        Self { log, appender, aggregates: Arc::new(Aggregates::not_kept(loader)) }
    }

    /// What the process has seen of the log.
    pub fn history(&self) -> History {
        self.appender.history()
    }

    /// Decides and records the command, once for its id.
    ///
    /// # Errors
    /// See [`ExecuteError`]. After `Unavailable` and `Unreadable` it is unknown whether it was recorded.
    pub async fn execute(&self, envelope: &Envelope) -> Result<Outcome, ExecuteError> {
        self.execute_within(envelope, None).await
    }

    /// The same for a command that follows from what was read from `branch`. If the log has another history by now, it is a
    /// conflict: the command would follow from nothing.
    ///
    /// # Errors
    /// As those of [`Self::execute`].
    pub async fn execute_on(&self, envelope: &Envelope, branch: &Branch) -> Result<Outcome, ExecuteError> {
        self.execute_within(envelope, Some(branch)).await
    }

    async fn execute_within(&self, envelope: &Envelope, branch: Option<&Branch>) -> Result<Outcome, ExecuteError> {
        // A server that neither answers nor goes away must not hold up those whose turn is next.
        let executed = tokio::time::timeout(DEADLINE, self.execute_in_time(envelope, branch)).await;
        executed.unwrap_or_else(|_| Err(ExecuteError::Unavailable("no answer in time".into())))
    }

    async fn execute_in_time(&self, envelope: &Envelope, branch: Option<&Branch>) -> Result<Outcome, ExecuteError> {
        let fingerprint = envelope.fingerprint();
        let (mut conflict, mut hold) = (None, None);
        for attempt in 1..=MAX_ATTEMPTS {
            let mut session = Session { holds_log: hold.is_some(), ..Session::default() };
            let refused = match self.decide(&envelope.command, &mut session).await {
                Ok(()) => None,
                Err(ExecuteError::Rejected(rejection)) => Some(rejection),
                Err(e) => return Err(e),
            };
            if branch.is_some_and(|branch| !session.is_on(branch)) {
                return Err(ExecuteError::Conflict(AppendError::DependencyAborted));
            }
            if refused.is_some() {
                session.looked_at.iter_mut().for_each(|l| l.events.clear());
            }
            let (has_events, streams) = (session.has_events(), session.versions());
            if !has_events && !session.needs_confirmation() {
                let position = session.looked_at.first().map_or(0, |l| l.held.position());
                drop((session, hold.take()));
                let found = Outcome { recorded: false, position, streams, mark: None };
                return self.unrecorded(envelope, fingerprint, refused, found).await;
            }
            let looked_at: Vec<StreamId> = session.looked_at.iter().map(|l| l.held.stream).collect();
            let appended =
                match self.appender.submit(session.append(envelope, fingerprint), session.speculations()).await {
                    Ok(submitted) => {
                        session.let_go();
                        drop(hold.take());
                        submitted.written().await
                    }
                    Err(e) => Err(e),
                };
            let error = match appended {
                Ok(Appended { position, end, .. }) => {
                    let outcome = Outcome { recorded: has_events, position, streams, mark: Some(end) };
                    return match has_events {
                        true => Ok(outcome),
                        false => self.unrecorded(envelope, fingerprint, refused, outcome).await,
                    };
                }
                Err(error) => error,
            };
            match error {
                AppendError::AlreadyRecorded { .. } => {
                    return self.recorded(envelope, fingerprint).await?.ok_or(ExecuteError::IdSpent);
                }
                // Somebody else was faster, in another process, and would be again.
                AppendError::VersionConflict { .. } | AppendError::DependencyAborted => {
                    // Or what was before it had been recorded already, and so may it itself: clients that were cut off
                    // send everything again, and each would fail all that follow.
                    if attempt > 1
                        && let Some(recorded) = self.recorded(envelope, fingerprint).await?
                    {
                        return Ok(recorded);
                    }
                    for stream in looked_at {
                        self.aggregates.wait_for_turn(stream).await;
                    }
                    hold = self.appender.lock_log().await.ok();
                    conflict = Some(error);
                }
                AppendError::Refused(why) => return Err(ExecuteError::Refused(why)),
                AppendError::Unavailable(why) => return Err(ExecuteError::Unavailable(why.to_string())),
                broken @ AppendError::Broken(_) => return Err(ExecuteError::Broken(broken.to_string())),
                // Clocks that differ, and whatever else the log may say one day: it can be sent again.
                other => return Err(ExecuteError::Unavailable(other.to_string())),
            }
        }
        let tries = || AppendError::Unavailable("it was never tried".into());
        Err(ExecuteError::Conflict(conflict.unwrap_or_else(tries)))
    }

    /// Looks at the streams that the command is about, and says what to write to them. Streams are held in one order
    /// by all, so that no two commands wait for each other: that of their ids, and an order before its shipments.
    async fn decide(&self, command: &Command, session: &mut Session) -> Result<(), ExecuteError> {
        match command {
            Command::Order { id, command } => {
                session.correlation_id = id.0;
                self.look_at::<Order>(session, id.0).await?;
                let decided = session.state::<Order>(0).decide(*id, command);
                session.write::<Order>(0, decided.map_err(Rejection::from)?);
            }
            Command::CancelOrder { .. }
            | Command::CancelLines { .. }
            | Command::ConfirmEdit { .. }
            | Command::ChangeAddress { .. } => {
                let Some((id, change)) = command.change() else { return Ok(()) };
                session.correlation_id = id.0;
                self.look_at::<Order>(session, id.0).await?;
                let mut ids = session.state::<Order>(0).shipment_ids(id);
                ids.sort_unstable();
                for shipment_id in &ids {
                    self.look_at::<Shipment>(session, shipment_id.0).await?;
                }
                let shipments: Vec<_> =
                    (1..).zip(ids).map(|(index, id)| (id, session.state::<Shipment>(index))).collect();
                let decided = session.state::<Order>(0).change(id, &shipments, &change);
                let changed = decided.map_err(Rejection::from)?;
                session.write::<Order>(0, changed.order);
                for (index, events) in (1..).zip(changed.shipments) {
                    session.write::<Shipment>(index, events);
                }
            }
            Command::Payment { id, command } => {
                self.look_at::<Payment>(session, id.0).await?;
                let payment = session.state::<Payment>(0);
                let (order_id, decided) = (payment.order_id(), payment.decide(*id, command));
                session.correlation_id = order_id.map_or(id.0, |order| order.0);
                session.write::<Payment>(0, decided.map_err(Rejection::from)?);
            }
            Command::Stock(command) => {
                let ids: Vec<Uuid> = command.skus().iter().map(|sku| StockId::from(sku).0).collect();
                session.correlation_id = command.order_id().map(|id| id.0).or(ids.first().copied()).unwrap_or_default();
                let mut in_order: Vec<usize> = (0..ids.len()).collect();
                in_order.sort_unstable_by_key(|n| ids[*n]);
                for n in &in_order {
                    self.look_at::<Stock>(session, ids[*n]).await?;
                }
                session.looked_at = reordered(std::mem::take(&mut session.looked_at), &in_order);
                let stocks: Vec<&Stock> = (0..ids.len()).map(|index| session.state(index)).collect();
                let decided = stock::decide(command, &stocks).map_err(Rejection::from)?;
                for (index, events) in decided.into_iter().enumerate() {
                    session.write::<Stock>(index, events);
                }
            }
            Command::Shipment { id, command } => {
                self.look_at::<Shipment>(session, id.0).await?;
                let shipment = session.state::<Shipment>(0);
                let (order_id, decided) = (shipment.order_id(), shipment.decide(*id, command));
                session.correlation_id = order_id.map_or(id.0, |order| order.0);
                session.write::<Shipment>(0, decided.map_err(Rejection::from)?);
            }
        }
        Ok(())
    }

    async fn look_at<A: Aggregate>(&self, session: &mut Session, id: Uuid) -> Result<(), ExecuteError> {
        let waits_for_turn = !session.holds_log && session.looked_at.is_empty();
        let held = self.aggregates.hold(codec::stream::<A>(id), waits_for_turn).await?;
        session.looked_at.push(LookedAt { held, events: vec![] });
        Ok(())
    }

    /// The answer to a command that wrote nothing; unless an earlier sending of it did. That is looked up last, for it
    /// may be what the command was decided on.
    async fn unrecorded(
        &self,
        envelope: &Envelope,
        fingerprint: Fingerprint,
        refused: Option<Rejection>,
        found: Outcome,
    ) -> Result<Outcome, ExecuteError> {
        match (self.recorded(envelope, fingerprint).await?, refused) {
            (Some(recorded), _) => Ok(recorded),
            (None, Some(rejection)) => Err(ExecuteError::Rejected(rejection)),
            (None, None) => Ok(found),
        }
    }

    /// What an earlier sending of the command was answered, if the log has events of it.
    async fn recorded(&self, envelope: &Envelope, fingerprint: Fingerprint) -> Result<Option<Outcome>, ExecuteError> {
        let events = self.log.read_command(envelope.command_id).await?;
        let Some(last) = events.last() else { return Ok(None) };
        if last.metadata.fingerprint != fingerprint {
            return Err(ExecuteError::IdSpent);
        }
        let mark = self.log.mark_after(last.position).await?;
        Ok(Some(Outcome { recorded: true, position: last.position, streams: versions(&events), mark }))
    }
}

/// The `n`th goes to the place that is `n`th in `places`.
fn reordered(looked_at: Vec<LookedAt>, places: &[usize]) -> Vec<LookedAt> {
    let mut placed: Vec<(usize, LookedAt)> = places.iter().copied().zip(looked_at).collect();
    placed.sort_unstable_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, looked_at)| looked_at).collect()
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
