//! disintegrate-postgres, the Postgres store of disintegrate. It has no streams, but events that are found by their
//! fields, and no versions: an append names the last event that its decision saw, and is refused if there is a later one
//! that its query would find (in a serializable transaction).
//!
//! It stores no metadata.

use crate::event::NoteEvent;
use crate::{Outcome, Peer, Result};
use disintegrate::serde::json::Json;
use disintegrate::{Decision, DecisionError, EventStore, NoSnapshot, StateMutate, StateQuery, StreamItem, query};
use disintegrate_postgres::{Error, PgDecisionMaker, PgEventStore, decision_maker};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::convert::Infallible;
use uuid::Uuid;

#[derive(Clone, Serialize, Deserialize, StateQuery)]
#[state_query(NoteEvent)]
struct Notes {
    #[id]
    stream_id: Uuid,
    count: u32,
}

impl StateMutate for Notes {
    fn mutate(&mut self, event: NoteEvent) {
        match event {
            NoteEvent::Noted { .. } => self.count += 1,
        }
    }
}

struct Note {
    stream: Uuid,
}

impl Decision for Note {
    type Event = NoteEvent;
    type StateQuery = Notes;
    type Error = Infallible;

    fn state_query(&self) -> Notes {
        Notes { stream_id: self.stream, count: 0 }
    }

    fn process(&self, notes: &Notes) -> std::result::Result<Vec<NoteEvent>, Infallible> {
        Ok(vec![NoteEvent::after(notes.count, self.stream)])
    }
}

pub struct DisintegratePostgres {
    store: PgEventStore<NoteEvent, Json<NoteEvent>>,
    decisions: PgDecisionMaker<NoteEvent, Json<NoteEvent>, NoSnapshot>,
}

impl Peer for DisintegratePostgres {
    const PACKAGE: &'static str = "disintegrate-postgres";

    async fn create(pool: PgPool) -> Result<Self> {
        let store = PgEventStore::try_new(pool, Json::default()).await?;
        let decisions = decision_maker(store.clone(), NoSnapshot);
        Ok(Self { store, decisions })
    }

    async fn seed(&self, events: Vec<NoteEvent>) -> Result<()> {
        self.store.append_without_validation(events).await?;
        Ok(())
    }

    /// Random: ids that lie side by side in an index look like conflicts to serializable transactions.
    fn new_stream() -> Uuid {
        Uuid::new_v4()
    }

    async fn append(&self, stream: Uuid) -> Result<Outcome> {
        let of_this_stream = query!(NoteEvent; stream_id == stream);
        match self.store.append(vec![NoteEvent::after(0, stream)], of_this_stream, 0).await {
            Ok(_) => Ok(Outcome::Recorded),
            Err(error) if is_conflict(&error) => Ok(Outcome::Conflict),
            Err(error) => Err(error.into()),
        }
    }

    async fn command(&self, stream: Uuid) -> Result<Outcome> {
        match self.decisions.make(Note { stream }).await {
            Ok(_) => Ok(Outcome::Recorded),
            Err(DecisionError::StateStore(error)) if error.downcast_ref().is_some_and(is_conflict) => {
                Ok(Outcome::Conflict)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn read(&self, mut each: impl FnMut(NoteEvent) + Send) -> Result<()> {
        let all = query!(NoteEvent);
        let mut events = self.store.stream(&all);
        while let Some(item) = events.try_next().await? {
            if let StreamItem::Event(event) = item {
                each(event.into_inner());
            }
        }
        Ok(())
    }
}

/// The library knows a serialization failure as a conflict at COMMIT; Postgres may also answer an earlier statement so.
fn is_conflict(error: &Error) -> bool {
    match error {
        Error::Concurrency => true,
        Error::Database(sqlx::Error::Database(error)) => error.code().is_some_and(|code| code == "40001"),
        _ => false,
    }
}
