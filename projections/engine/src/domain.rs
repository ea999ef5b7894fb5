//! What a domain supplies.

use crate::codec::Upcaster;
use crate::projection::ReadModel;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::Hash;
use store::{Category, StreamId};
use uuid::Uuid;

/// A domain: its events, what follows from them, and its read models. The type itself is a name, without a value of its own.
///
/// Several domains may live on one log. Each owns its categories, its checkpoints and its follow-ups, and nobody reads
/// another one's events.
pub trait Domain: Copy + Debug + Eq + Hash + Send + Sync + 'static {
    /// Any event of the domain.
    type Event: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// What a follow-up does. It is kept as JSON until it is done, so its shape must stay readable.
    type Effect: Serialize + DeserializeOwned + Clone + Debug + PartialEq + Send + Sync + 'static;
    /// Its read models.
    type ReadModel: ReadModel<Domain = Self>;

    /// The name of the domain, as it is stored with its follow-ups and timers.
    const NAME: &'static str;
    /// The categories of its streams.
    const CATEGORIES: &'static [Category];
    /// The checkpoint and the lease of its follow-ups.
    const FOLLOW_UPS: &'static str;
    /// The checkpoint and the lease of its timers.
    const TIMERS: &'static str;
    /// The lease of whoever sends its follow-ups.
    const SENDER: &'static str;
    /// One for each schema version of an event type that is no longer written.
    const UPCASTERS: &'static [Upcaster] = &[];

    /// The schema version that this build writes for an event type; `None` for a type that it does not know.
    fn current_version(category: &str, event_type: &str) -> Option<i16>;

    /// The event from its payload in the present schema version; `None` for a type that this build does not know.
    ///
    /// # Errors
    /// When the payload has not the shape of the type.
    fn from_payload(
        stream: StreamId,
        event_type: &str,
        payload: &str,
    ) -> Result<Option<Self::Event>, serde_json::Error>;

    /// What that which follows from an event belongs to, given what the event belongs to.
    fn correlation_id(of_event: Uuid, event: &Self::Event) -> Uuid {
        _ = event;
        of_event
    }

    /// Takes secrets out of an effect that is shown as JSON.
    fn redact(effect: &mut serde_json::Value);

    /// What follows from an event.
    fn react(event: &Self::Event) -> Vec<FollowUp<Self::Effect>>;

    /// What an event does to timers.
    fn timers(event: &Self::Event) -> Vec<TimerChange<Self::Effect>>;
}

/// Something to be done because of an event.
///
/// Its id is derived from the event, `reaction` and `target`: one event asks for one thing of one target once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp<E> {
    /// The stable name of the reaction.
    pub reaction: &'static str,
    /// The id of what it is aimed at, a stream for example.
    pub target: Uuid,
    pub effect: E,
}

/// What an event does to a timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerChange<E> {
    /// `effect` is due so many seconds after the event was recorded, unless the timer is cleared before.
    Set { timer: Timer, after_seconds: u32, effect: E },
    /// The effect is not needed any more, if it was not started yet.
    Clear(Timer),
}

/// What tells a timer from all others of its domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Timer {
    /// The stable name of what it does.
    pub kind: &'static str,
    /// The id of the stream that it is about.
    pub target: Uuid,
    /// Tells those of one kind and target from each other; empty if there is one.
    pub key: String,
}
