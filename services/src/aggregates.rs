//! Folded aggregates, kept between commands.
//!
//! A kept state may be ahead of the log: it holds what has been submitted and not been written yet, so that commands
//! about one stream are decided one after the other and written together. Or behind it, if others write. So whoever
//! decides on it has the log confirm its version, and continues its speculation: if that is aborted, it is read again. So it
//! is if the log has gone on from an older state than it was read from.

use crate::codec::{self, DecodeError};
use crate::execute::ExecuteError;
use domain::order::Order;
use domain::payment::Payment;
use domain::shipment::Shipment;
use domain::stock::Stock;
use domain::{Aggregate, Event};
use quick_cache::sync::Cache;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Branch, Loaded, Loader, Position, Snapshot, Speculation, StreamId, Version};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// How many aggregates are kept.
const KEPT: usize = 200_000;
/// After how many folded events a snapshot is worth its writing.
const SNAPSHOT_AFTER: usize = 500;
/// How long a stream is left to the process that won it, if that happens again and again.
const TURN: Duration = Duration::from_millis(5);
/// Within which time losing a stream is losing it again.
const CONTENDED: Duration = Duration::from_millis(100);
/// The code that folds, as a number: what a snapshot of another one says is not taken.
pub(crate) const FOLD: i64 = match i64::from_str_radix(env!("DAYBOOK_FOLD"), 10) {
    Ok(number) => number,
    Err(_) => panic!("the build script gives a number"),
};

/// The state of any aggregate. That of an order is by far the largest.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Order(Box<Order>),
    Payment(Payment),
    Stock(Stock),
    Shipment(Shipment),
}

impl State {
    fn new(stream: StreamId) -> Self {
        match stream.category.name {
            Order::CATEGORY => Self::Order(Box::default()),
            Payment::CATEGORY => Self::Payment(Payment::default()),
            Stock::CATEGORY => Self::Stock(Stock::default()),
            _ => Self::Shipment(Shipment::default()),
        }
    }

    fn evolve(&mut self, event: &Event) {
        match (self, event) {
            (Self::Order(state), Event::Order(_, event)) => state.evolve(event),
            (Self::Payment(state), Event::Payment(_, event)) => state.evolve(event),
            (Self::Stock(state), Event::Stock(_, event)) => state.evolve(event),
            (Self::Shipment(state), Event::Shipment(_, event)) => state.evolve(event),
            // A stream holds events of its category alone: the codec decodes by it.
            (Self::Order(_) | Self::Payment(_) | Self::Stock(_) | Self::Shipment(_), _) => {}
        }
    }

    fn json(&self) -> Result<String, serde_json::Error> {
        match self {
            Self::Order(state) => serde_json::to_string(state),
            Self::Payment(state) => serde_json::to_string(state),
            Self::Stock(state) => serde_json::to_string(state),
            Self::Shipment(state) => serde_json::to_string(state),
        }
    }

    fn from_json(stream: StreamId, json: &str) -> Result<Self, serde_json::Error> {
        fn of<A: DeserializeOwned>(state: fn(A) -> State, json: &str) -> Result<State, serde_json::Error> {
            serde_json::from_str(json).map(state)
        }
        match stream.category.name {
            Order::CATEGORY => of(Self::Order, json),
            Payment::CATEGORY => of(Self::Payment, json),
            Stock::CATEGORY => of(Self::Stock, json),
            _ => of(Self::Shipment, json),
        }
    }
}

/// An aggregate, as one of the states.
pub(crate) trait Kept: Aggregate {
    /// The state of a stream of the aggregate's category.
    fn of(state: &State) -> &Self;
}

macro_rules! kept {
    ($($aggregate:ident)+) => {
        $(impl Kept for $aggregate {
            fn of(state: &State) -> &Self {
                match state {
                    State::$aggregate(state) => state,
                    other => unreachable!("a stream's state is that of its category: {other:?}"),
                }
            }
        })+
    };
}
kept!(Order Payment Stock Shipment);

/// A kept state, held by the command that decides on it. Others wait for their turn.
pub(crate) struct Held {
    pub(crate) stream: StreamId,
    guard: OwnedMutexGuard<Slot>,
    /// It was kept; else it was read this moment.
    pub(crate) was_kept: bool,
}

/// Where the state of a stream is kept.
#[derive(Default)]
struct Slot {
    folded: Option<Folded>,
    /// Of what was submitted since it was read.
    speculation: Speculation,
    /// When another process was last faster.
    lost: Option<Instant>,
    /// Until when the stream is theirs; none if it was not lost again soon.
    theirs_until: Option<Instant>,
    /// What the stream came to when it was read after it was lost: if it is lost again soon, it is read on from there.
    base: Option<Folded>,
}

impl Slot {
    /// Lets go of the state if what was decided on it was not written: it is not what the log comes to. If another process
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
struct Folded {
    state: State,
    version: Version,
    /// Of the last event that was read.
    position: Position,
    /// How many events after the last snapshot it comes to.
    after_snapshot: usize,
    /// The history of the log that it was read from.
    branch: Branch,
}

impl Folded {
    fn nothing(stream: StreamId, branch: Branch) -> Self {
        Self { state: State::new(stream), version: 0, position: 0, after_snapshot: 0, branch }
    }
}

impl Held {
    fn folded(&self) -> &Folded {
        self.guard.folded.as_ref().unwrap_or_else(|| unreachable!("it is folded before it is given out"))
    }

    pub(crate) fn state(&self) -> &State {
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
    pub(crate) fn take_in(mut self, events: &[Event]) {
        if let Some(folded) = &mut self.guard.folded {
            events.iter().for_each(|event| folded.state.evolve(event));
            folded.version += events.len() as Version;
        }
    }
}

/// The kept states of a process.
pub(crate) struct Aggregates {
    loader: Loader,
    slots: Option<Cache<StreamId, Arc<Mutex<Slot>>>>,
}

impl Aggregates {
    pub(crate) fn kept(loader: Loader) -> Self {
        Self { loader, slots: Some(Cache::new(KEPT)) }
    }

    pub(crate) fn not_kept(loader: Loader) -> Self {
        Self { loader, slots: None }
    }

    /// Waits until no other command holds the stream's state, and reads it if none is kept that still counts. It also waits
    /// for the process's turn, unless the caller holds what others wait for.
    pub(crate) async fn hold(&self, stream: StreamId, waits_for_turn: bool) -> Result<Held, ExecuteError> {
        let mut guard = self.lock(stream, waits_for_turn).await;
        if guard.base.is_some() && !guard.was_lost_just_now() {
            guard.base = None;
        }
        let was_kept = guard.folded.is_some();
        if !was_kept {
            let folded = match guard.base.take() {
                Some(base) => self.read_on(stream, base).await?,
                None => self.read(stream).await?,
            };
            guard.base = guard.was_lost_just_now().then(|| folded.clone());
            guard.speculation = Speculation::on(folded.branch.clone());
            guard.folded = Some(folded);
        }
        Ok(Held { stream, guard, was_kept })
    }

    /// Waits while the stream is another process's.
    pub(crate) async fn wait_for_turn(&self, stream: StreamId) {
        drop(self.lock(stream, true).await);
    }

    async fn lock(&self, stream: StreamId, waits_for_turn: bool) -> OwnedMutexGuard<Slot> {
        let slot = match &self.slots {
            Some(slots) => {
                let Ok(slot) = slots.get_or_insert_with(&stream, || Ok::<_, Infallible>(Arc::default()));
                slot
            }
            None => Arc::default(),
        };
        loop {
            let mut guard = slot.clone().lock_owned().await;
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

    async fn read(&self, stream: StreamId) -> Result<Folded, ExecuteError> {
        loop {
            let mut loaded = self.loader.load(stream, None).await?;
            let mut folded = Folded::nothing(stream, loaded.branch.clone());
            if let Some(Snapshot { position, version, state }) = loaded.snapshot.take() {
                match State::from_json(stream, &state) {
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
    async fn read_on(&self, stream: StreamId, base: Folded) -> Result<Folded, ExecuteError> {
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
        mut folded: Folded,
        mut loaded: Loaded,
    ) -> Result<Option<Folded>, ExecuteError> {
        loop {
            if loaded.branch.is_lost() || !loaded.branch.is_same(&folded.branch) {
                return Ok(None);
            }
            folded.after_snapshot += loaded.events.len();
            fold_further(stream, &mut folded, loaded.events)?;
            // Also on the way: who is cut off in the middle of a long stream finds a part of it folded the next time.
            if folded.after_snapshot >= SNAPSHOT_AFTER
                && let Ok(state) = folded.state.json()
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

fn fold_further(stream: StreamId, folded: &mut Folded, events: Vec<store::StreamEvent>) -> Result<(), DecodeError> {
    for event in events {
        let stored = codec::Stored {
            position: event.position,
            stream,
            event_type: &event.event_type,
            schema_version: event.schema_version,
            payload: &event.payload,
        };
        folded.state.evolve(&codec::decode_stored(stored)?);
        folded.version = event.version;
        folded.position = event.position;
    }
    Ok(())
}
