//! Folded states of aggregates, cached between commands.
//!
//! A cached state may be ahead of the log: it has what was submitted and is not written yet, so that commands about one
//! stream are decided one after the other and written together. Or it is behind the log, if others write. So whoever decides
//! on it has the log confirm its version, and continues its speculative appends. If these are aborted, the state is read
//! again. The same holds if the log has another history than the one that the state was read from.

use crate::executor::{Decide, EventOf, ExecuteError};
use engine::codec::{self, DecodeError};
use quick_cache::sync::Cache as Entries;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Branch, Loaded, Loader, Position, Snapshot, Speculation, StreamId, Version};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// How many states are cached.
const CACHED: usize = 200_000;
/// After how many folded events a snapshot is worth its writing.
const SNAPSHOT_AFTER: usize = 500;
/// How long a stream is left to the process that won it, if that happens again and again.
const TURN: Duration = Duration::from_millis(5);
/// Within which time losing a stream is losing it again.
const CONTENDED: Duration = Duration::from_millis(100);
/// The state of any aggregate of a domain.
pub trait State: Clone + fmt::Debug + Send + Sync + 'static {
    type Event;

    /// The state of a stream before its first event.
    fn new(stream: StreamId) -> Self;

    /// Folds an event into the state. It never fails: the event has happened.
    fn evolve(&mut self, event: &Self::Event);

    /// For snapshots.
    ///
    /// # Errors
    /// When it cannot be told as JSON: then there is no snapshot.
    fn to_json(&self) -> Result<String, serde_json::Error>;

    /// A snapshot's state.
    ///
    /// # Errors
    /// When the snapshot is not one: then all events are read.
    fn from_json(stream: StreamId, json: &str) -> Result<Self, serde_json::Error>;
}

/// A state, guarded for the command that decides on it. Others wait for their turn.
pub(crate) struct StateGuard<D: Decide> {
    pub(crate) stream: StreamId,
    guard: OwnedMutexGuard<Entry<D>>,
    /// It was cached; else it was read this moment.
    pub(crate) was_cached: bool,
}

/// Where the state of a stream is cached.
struct Entry<D: Decide> {
    folded: Option<Folded<D>>,
    /// Of what was submitted since it was read.
    speculation: Speculation,
    /// When another process was last faster.
    lost: Option<Instant>,
    /// Until when the stream is theirs; none if it was not lost again soon.
    theirs_until: Option<Instant>,
    /// What the stream came to when it was read after it was lost: if it is lost again soon, it is read on from there.
    base: Option<Folded<D>>,
}

impl<D: Decide> Default for Entry<D> {
    fn default() -> Self {
        Self { folded: None, speculation: Speculation::default(), lost: None, theirs_until: None, base: None }
    }
}

impl<D: Decide> Entry<D> {
    /// Releases the state if what was decided on it was not written: it is not what the log comes to. If another process
    /// was faster, again and again, the stream is left to them for a while: two that took it from each other group by
    /// group would do little else.
    fn look_back(&mut self) {
        if !self.speculation.is_aborted() {
            return;
        }
        if self.speculation.lost_race() {
            self.theirs_until = self.was_lost_just_now().then(|| Instant::now() + TURN);
            self.lost = Some(Instant::now());
        }
        self.folded = None;
        self.speculation = Speculation::default();
    }

    fn was_lost_just_now(&self) -> bool {
        self.lost.is_some_and(|lost| lost.elapsed() < CONTENDED)
    }
}

#[derive(Debug, Clone)]
struct Folded<D: Decide> {
    state: D::State,
    version: Version,
    /// Of the last event that was read.
    position: Position,
    /// How many events after the last snapshot it comes to.
    after_snapshot: usize,
    /// The history of the log that it was read from.
    branch: Branch,
}

impl<D: Decide> Folded<D> {
    fn nothing(stream: StreamId, branch: Branch) -> Self {
        Self { state: D::State::new(stream), version: 0, position: 0, after_snapshot: 0, branch }
    }
}

impl<D: Decide> StateGuard<D> {
    fn folded(&self) -> &Folded<D> {
        self.guard.folded.as_ref().unwrap_or_else(|| unreachable!("it is folded before it is given out"))
    }

    pub(crate) fn state(&self) -> &D::State {
        &self.folded().state
    }

    pub(crate) fn version(&self) -> Version {
        self.folded().version
    }

    pub(crate) fn position(&self) -> Position {
        self.folded().position
    }

    /// What an append that is decided on it continues.
    pub(crate) fn speculation(&self) -> Speculation {
        self.guard.speculation.clone()
    }

    /// Lets the next command go on from what `events` make of the state, though they are not written yet.
    pub(crate) fn release_with(mut self, events: &[EventOf<D>]) {
        if let Some(folded) = &mut self.guard.folded {
            events.iter().for_each(|event| folded.state.evolve(event));
            folded.version += events.len() as Version;
        }
    }
}

/// The cached states of a process.
pub(crate) struct Cache<D: Decide> {
    loader: Loader,
    entries: Option<Entries<StreamId, Arc<Mutex<Entry<D>>>>>,
}

impl<D: Decide> Cache<D> {
    pub(crate) fn new(loader: Loader) -> Self {
        Self { loader, entries: Some(Entries::new(CACHED)) }
    }

    /// One that keeps nothing.
    pub(crate) fn empty(loader: Loader) -> Self {
        Self { loader, entries: None }
    }

    /// Waits until no other command guards the stream's state, and reads it if none is cached that still counts. It also
    /// waits for the process's turn, unless the caller owns what others wait for.
    pub(crate) async fn load(&self, stream: StreamId, waits_for_turn: bool) -> Result<StateGuard<D>, ExecuteError<D>> {
        let mut guard = self.lock(stream, waits_for_turn).await;
        if guard.base.is_some() && !guard.was_lost_just_now() {
            guard.base = None;
        }
        let was_cached = guard.folded.is_some();
        if !was_cached {
            let folded = match guard.base.take() {
                Some(base) => self.read_on(stream, base).await?,
                None => self.read(stream).await?,
            };
            guard.base = guard.was_lost_just_now().then(|| folded.clone());
            guard.speculation = Speculation::on(folded.branch.clone());
            guard.folded = Some(folded);
        }
        Ok(StateGuard { stream, guard, was_cached })
    }

    /// Waits while the stream is another process's.
    pub(crate) async fn wait_for_turn(&self, stream: StreamId) {
        drop(self.lock(stream, true).await);
    }

    async fn lock(&self, stream: StreamId, waits_for_turn: bool) -> OwnedMutexGuard<Entry<D>> {
        let entry = match &self.entries {
            Some(entries) => {
                let Ok(entry) = entries.get_or_insert_with(&stream, || Ok::<_, Infallible>(Arc::default()));
                entry
            }
            None => Arc::default(),
        };
        loop {
            let mut guard = entry.clone().lock_owned().await;
            guard.look_back();
            match guard.theirs_until {
                Some(until) if waits_for_turn && until > Instant::now() => {
                    drop(guard);
                    tokio::time::sleep_until(until.into()).await;
                }
                _ => return guard,
            }
        }
    }

    async fn read(&self, stream: StreamId) -> Result<Folded<D>, ExecuteError<D>> {
        loop {
            let mut loaded = self.loader.load(stream, None).await?;
            let mut folded = Folded::nothing(stream, loaded.branch.clone());
            if let Some(Snapshot { position, version, state }) = loaded.snapshot.take() {
                match D::State::from_json(stream, &state) {
                    Ok(state) => folded = Folded { state, version, position, ..folded },
                    Err(e) => {
                        tracing::warn!(%stream, column = e.column(), "a snapshot is not one: all events are read");
                        loaded = self.loader.load(stream, Some(0)).await?;
                        folded.branch = loaded.branch.clone();
                    }
                }
            }
            if let Some(folded) = self.fold(stream, folded, loaded).await? {
                return Ok(folded);
            }
        }
    }

    /// Reads what has come after `base`; or all, if the log has another history by now.
    async fn read_on(&self, stream: StreamId, base: Folded<D>) -> Result<Folded<D>, ExecuteError<D>> {
        let loaded = self.loader.load(stream, Some(base.version)).await?;
        match self.fold(stream, base, loaded).await? {
            Some(folded) => Ok(folded),
            None => self.read(stream).await,
        }
    }

    /// Folds what was loaded, and what follows it; `None` if that is not all of one history.
    async fn fold(
        &self,
        stream: StreamId,
        mut folded: Folded<D>,
        mut loaded: Loaded,
    ) -> Result<Option<Folded<D>>, ExecuteError<D>> {
        loop {
            if loaded.branch.is_lost() || !loaded.branch.is_same(&folded.branch) {
                return Ok(None);
            }
            folded.after_snapshot += loaded.events.len();
            fold_further(stream, &mut folded, loaded.events)?;
            // Also on the way: who is cut off in the middle of a long stream finds a part of it folded the next time.
            if folded.after_snapshot >= SNAPSHOT_AFTER
                && let Ok(state) = folded.state.to_json()
            {
                let Folded { version, position, .. } = folded;
                self.loader.save_snapshot(stream, Snapshot { position, version, state }, folded.branch.clone());
                folded.after_snapshot = 0;
            }
            if !loaded.more {
                return Ok(Some(folded));
            }
            loaded = self.loader.load(stream, Some(folded.version)).await?;
        }
    }
}

fn fold_further<D: Decide>(
    stream: StreamId,
    folded: &mut Folded<D>,
    events: Vec<store::StreamEvent>,
) -> Result<(), DecodeError> {
    for event in events {
        let stored = codec::Stored {
            position: event.position,
            stream,
            event_type: &event.event_type,
            schema_version: event.schema_version,
            payload: &event.payload,
        };
        folded.state.evolve(&codec::decode_stored::<D::Domain>(stored)?);
        folded.version = event.version;
        folded.position = event.position;
    }
    Ok(())
}
