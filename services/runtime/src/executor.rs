//! From a command to its outcome: load, decide, append; and again, if the race for a stream was lost.
//!
//! Every stream that is loaded is an expectation of the append, so no answer rests on a state that has passed. A refusal, or
//! "unchanged", that was decided on a cached state is confirmed by the log as well before it is given.

pub use crate::cache::State;

use crate::cache::{Cache, StateGuard};
use crate::wire::ErrorBody;
use bytestring::ByteString;
use chrono::{DateTime, Utc};
use engine::Domain;
use engine::codec::DecodeError;
use serde::Serialize;
use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use store::{
    Append, AppendError, Appended, Appender, Branch, ExpectedVersion, Failure, Fingerprint, History, Loader, Log, Mark,
    Metadata, NewEvent, Origin, Position, ReadError, RecordedEvent, Speculation, StreamAppend, StreamId, Version,
};
use uuid::Uuid;

/// How the commands of a domain are decided. The type itself is a name, without a value of its own.
pub trait Decide: Copy + Debug + Send + Sync + 'static {
    type Domain: Domain;
    /// Any command of the domain. Its JSON tells it from another command under the same id, so that may only change by
    /// optional fields.
    type Command: Serialize + Clone + Debug + Send + Sync + 'static;
    /// Why the domain refuses a command.
    type Rejection: Error + Send + Sync + 'static;
    /// The state of any aggregate.
    type State: State<Event = EventOf<Self>>;

    /// The code that folds events, as a number. A snapshot of another version is not used.
    const SNAPSHOT_VERSION: i64;
    /// The actors of the domain's own programs. No client may call itself so.
    const RESERVED_ACTORS: &'static [&'static str] = &[];

    /// What is stored for an event.
    fn encode(event: &EventOf<Self>) -> NewEvent;

    /// Loads the streams that the command is about, and says what to append to them. All commands load streams in one order,
    /// so that no two wait for each other.
    ///
    /// # Errors
    /// When the domain refuses the command, or a stream cannot be loaded.
    fn decide(
        command: &Self::Command,
        session: &mut Session<'_, Self>,
    ) -> impl Future<Output = Result<(), ExecuteError<Self>>> + Send;

    /// A rejection as clients are told it; `message` is its sentence.
    fn refusal(rejection: &Self::Rejection, message: String) -> ErrorBody;
}

/// Any event of the domain that is decided in.
pub type EventOf<D> = <<D as Decide>::Domain as Domain>::Event;

/// A command, and what it came with.
#[derive(Debug, Clone)]
pub struct Envelope<C> {
    pub command_id: Uuid,
    pub command: C,
    pub actor: ByteString,
    /// What it belongs to, if that is known: else, the order that it is about.
    pub correlation_id: Option<Uuid>,
    /// The event that led to it.
    pub causation_id: Option<Uuid>,
    pub occurred_at: DateTime<Utc>,
    pub traceparent: Option<ByteString>,
}

impl<C: Serialize> Envelope<C> {
    /// Tells this command, sent again, from another one under its id. Time, trace and what led to it do not count.
    pub fn fingerprint(&self) -> Fingerprint {
        #[derive(Serialize)]
        struct Canonical<'a, C> {
            command: &'a C,
            actor: &'a str,
        }
        let canonical = serde_json::to_vec(&Canonical { command: &self.command, actor: &self.actor });
        Fingerprint::of(&canonical.unwrap_or_else(|e| unreachable!("commands are plain data: {e}")))
    }
}

/// What a command came to, if it was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the log has events of it. If not, nothing had to change.
    pub recorded: bool,
    pub position: Position,
    pub streams: Vec<(StreamId, Version)>,
    /// A log that has this mark has what was written, or found. None of what was just read, and written nothing.
    pub mark: Option<Mark>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<D: Decide> {
    #[error(transparent)]
    Rejected(D::Rejection),
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

impl<D: Decide> From<ReadError> for ExecuteError<D> {
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

/// Executes commands. Cheap to clone; the clones share the cached states and the appender.
pub struct Executor<D: Decide> {
    log: Log,
    loader: Loader,
    appender: Appender,
    cache: Arc<Cache<D>>,
}

impl<D: Decide> Clone for Executor<D> {
    fn clone(&self) -> Self {
        Self {
            log: self.log.clone(),
            loader: self.loader.clone(),
            appender: self.appender.clone(),
            cache: self.cache.clone(),
        }
    }
}

/// What a command is decided on, and what it is to write.
pub struct Session<'a, D: Decide> {
    cache: &'a Cache<D>,
    loaded: Vec<LoadedStream<D>>,
    /// What the events belong to.
    correlation_id: Uuid,
    /// No other process can append: it must not wait for one.
    locks_log: bool,
}

struct LoadedStream<D: Decide> {
    guard: StateGuard<D>,
    events: Vec<EventOf<D>>,
}

impl<D: Decide> Session<'_, D> {
    /// Says what the events of the command belong to.
    pub fn correlate(&mut self, id: Uuid) {
        self.correlation_id = id;
    }

    /// Loads a stream, and gives its state. Streams are numbered from 0, in the order in which they are loaded.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn load(&mut self, stream: StreamId) -> Result<&D::State, ExecuteError<D>> {
        let waits_for_turn = !self.locks_log && self.loaded.is_empty();
        let guard = self.cache.load(stream, waits_for_turn).await?;
        self.loaded.push(LoadedStream { guard, events: vec![] });
        Ok(self.state(self.loaded.len() - 1))
    }

    /// The state of the stream that was loaded as the `index`th.
    pub fn state(&self, index: usize) -> &D::State {
        self.loaded[index].guard.state()
    }

    /// Appends to the stream that was loaded as the `index`th.
    pub fn append(&mut self, index: usize, events: impl IntoIterator<Item = EventOf<D>>) {
        self.loaded[index].events.extend(events);
    }

    /// Numbers the streams anew: the one that was loaded as the `n`th gets the number `places[n]`.
    pub fn renumber(&mut self, places: &[usize]) {
        debug_assert_eq!(places.len(), self.loaded.len(), "each stream has a place");
        let loaded = std::mem::take(&mut self.loaded);
        let mut placed: Vec<(usize, LoadedStream<D>)> = places.iter().copied().zip(loaded).collect();
        placed.sort_unstable_by_key(|(place, _)| *place);
        self.loaded = placed.into_iter().map(|(_, loaded)| loaded).collect();
    }

    fn has_events(&self) -> bool {
        self.loaded.iter().any(|l| !l.events.is_empty())
    }

    /// A state just read from one stream was true at one moment. A cached one, or several together, need not have been.
    fn needs_confirmation(&self) -> bool {
        self.loaded.len() > 1 || self.loaded.iter().any(|l| l.guard.was_cached)
    }

    /// The versions that its streams come to: those that it writes to, or, if it writes nothing, all of them.
    fn versions(&self) -> Vec<(StreamId, Version)> {
        let has_events = self.has_events();
        let told = self.loaded.iter().filter(|l| !has_events || !l.events.is_empty());
        told.map(|l| (l.guard.stream, l.guard.version() + l.events.len() as Version)).collect()
    }

    fn to_append(&self, envelope: &Envelope<D::Command>, fingerprint: Fingerprint) -> Append {
        let stream = |LoadedStream { guard, events }: &LoadedStream<D>| StreamAppend {
            stream: guard.stream,
            expected: match guard.version() {
                0 => ExpectedVersion::NoStream,
                version => ExpectedVersion::Exact(version),
            },
            events: events.iter().map(D::encode).collect(),
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
        Append { metadata, streams: self.loaded.iter().map(stream).collect() }
    }

    fn speculations(&self) -> Vec<Speculation> {
        self.loaded.iter().map(|l| l.guard.speculation()).collect()
    }

    /// Whether all states were read from this history of the log.
    fn is_on(&self, branch: &Branch) -> bool {
        self.loaded.iter().all(|l| l.guard.speculation().is_on(branch))
    }

    /// Gives the next command its turn, on what this one makes of the states.
    fn release(self) {
        self.loaded.into_iter().for_each(|l| l.guard.release_with(&l.events));
    }
}

impl<D: Decide> Executor<D> {
    pub fn new(log: Log, loader: Loader, appender: Appender) -> Self {
        Self { log, appender, cache: Arc::new(Cache::new(loader.clone())), loader }
    }

    /// One that reads what it decides on anew for every command.
    pub fn without_cache(log: Log, loader: Loader, appender: Appender) -> Self {
        Self { log, appender, cache: Arc::new(Cache::empty(loader.clone())), loader }
    }

    /// What loads streams for it.
    pub(crate) fn loader(&self) -> Loader {
        self.loader.clone()
    }

    /// What the process has seen of the log.
    pub fn history(&self) -> History {
        self.appender.history()
    }

    /// Decides and records the command, once for its id.
    ///
    /// # Errors
    /// See [`ExecuteError`]. After `Unavailable` and `Unreadable` it is unknown whether it was recorded.
    pub async fn execute(&self, envelope: &Envelope<D::Command>) -> Result<Outcome, ExecuteError<D>> {
        self.execute_within(envelope, None).await
    }

    /// The same for a command that follows from what was read from `branch`. If the log has another history by now, it is a
    /// conflict: the command would follow from nothing.
    ///
    /// # Errors
    /// As those of [`Self::execute`].
    pub async fn execute_on(
        &self,
        envelope: &Envelope<D::Command>,
        branch: &Branch,
    ) -> Result<Outcome, ExecuteError<D>> {
        self.execute_within(envelope, Some(branch)).await
    }

    async fn execute_within(
        &self,
        envelope: &Envelope<D::Command>,
        branch: Option<&Branch>,
    ) -> Result<Outcome, ExecuteError<D>> {
        // A server that neither answers nor goes away must not hold up those whose turn is next.
        let executed = tokio::time::timeout(DEADLINE, self.execute_in_time(envelope, branch)).await;
        executed.unwrap_or_else(|_| Err(ExecuteError::Unavailable("no answer in time".into())))
    }

    async fn execute_in_time(
        &self,
        envelope: &Envelope<D::Command>,
        branch: Option<&Branch>,
    ) -> Result<Outcome, ExecuteError<D>> {
        let fingerprint = envelope.fingerprint();
        let (mut conflict, mut lock) = (None, None);
        for attempt in 1..=MAX_ATTEMPTS {
            let mut session =
                Session { cache: &*self.cache, loaded: vec![], correlation_id: Uuid::nil(), locks_log: lock.is_some() };
            let refused = match D::decide(&envelope.command, &mut session).await {
                Ok(()) => None,
                Err(ExecuteError::Rejected(rejection)) => Some(rejection),
                Err(e) => return Err(e),
            };
            if branch.is_some_and(|branch| !session.is_on(branch)) {
                return Err(ExecuteError::Conflict(AppendError::DependencyAborted));
            }
            if refused.is_some() {
                session.loaded.iter_mut().for_each(|l| l.events.clear());
            }
            let (has_events, streams) = (session.has_events(), session.versions());
            if !has_events && !session.needs_confirmation() {
                let position = session.loaded.first().map_or(0, |l| l.guard.position());
                drop((session, lock.take()));
                let found = Outcome { recorded: false, position, streams, mark: None };
                return self.unrecorded(envelope, fingerprint, refused, found).await;
            }
            let loaded: Vec<StreamId> = session.loaded.iter().map(|l| l.guard.stream).collect();
            let appended =
                match self.appender.submit(session.to_append(envelope, fingerprint), session.speculations()).await {
                    Ok(submitted) => {
                        session.release();
                        drop(lock.take());
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
                // Another process was faster, and would be again.
                AppendError::VersionConflict { .. } | AppendError::DependencyAborted => {
                    // Or what was before it had been recorded already, and so may it itself: clients that were cut off
                    // send everything again, and each would fail all that follow.
                    if attempt > 1
                        && let Some(recorded) = self.recorded(envelope, fingerprint).await?
                    {
                        return Ok(recorded);
                    }
                    for stream in loaded {
                        self.cache.wait_for_turn(stream).await;
                    }
                    lock = self.appender.lock_log().await.ok();
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

    /// The answer to a command that wrote nothing; unless an earlier sending of it did. That is looked up last, for it
    /// may be what the command was decided on.
    async fn unrecorded(
        &self,
        envelope: &Envelope<D::Command>,
        fingerprint: Fingerprint,
        refused: Option<D::Rejection>,
        found: Outcome,
    ) -> Result<Outcome, ExecuteError<D>> {
        match (self.recorded(envelope, fingerprint).await?, refused) {
            (Some(recorded), _) => Ok(recorded),
            (None, Some(rejection)) => Err(ExecuteError::Rejected(rejection)),
            (None, None) => Ok(found),
        }
    }

    /// What an earlier sending of the command was answered, if the log has events of it.
    async fn recorded(
        &self,
        envelope: &Envelope<D::Command>,
        fingerprint: Fingerprint,
    ) -> Result<Option<Outcome>, ExecuteError<D>> {
        let events = self.log.read_command(envelope.command_id).await?;
        let Some(last) = events.last() else { return Ok(None) };
        if last.metadata.fingerprint != fingerprint {
            return Err(ExecuteError::IdSpent);
        }
        let mark = self.log.mark_after(last.position).await?;
        Ok(Some(Outcome { recorded: true, position: last.position, streams: versions(&events), mark }))
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
