//! esrs. Versions are checked by a unique index (aggregate, sequence number).
//!
//! It stores no metadata, and no order across streams but the clock of who wrote (`occurred_on`).

use crate::event::{AGGREGATE, NoteEvent};
use crate::{Outcome, Peer, Result};
use esrs::manager::AggregateManager;
use esrs::store::EventStore;
use esrs::store::postgres::{PgStore, PgStoreBuilder, PgStoreError};
use esrs::{Aggregate, AggregateState};
use futures_util::TryStreamExt;
use sqlx::PgPool;
use std::convert::Infallible;
use uuid::Uuid;

#[derive(Default)]
struct Notes {
    count: u32,
}

struct Note {
    stream: Uuid,
}

impl Aggregate for Notes {
    const NAME: &'static str = AGGREGATE;
    type State = Self;
    type Command = Note;
    type Event = NoteEvent;
    type Error = Infallible;

    fn handle_command(notes: &Self, command: Note) -> std::result::Result<Vec<NoteEvent>, Infallible> {
        Ok(vec![NoteEvent::after(notes.count, command.stream)])
    }

    fn apply_event(notes: Self, event: NoteEvent) -> Self {
        match event {
            NoteEvent::Noted { .. } => Self { count: notes.count + 1 },
        }
    }
}

pub struct Esrs {
    pool: PgPool,
    store: PgStore<Notes>,
    manager: AggregateManager<PgStore<Notes>>,
}

impl Peer for Esrs {
    const PACKAGE: &'static str = "esrs";

    async fn create(pool: PgPool) -> Result<Self> {
        let store = PgStoreBuilder::<Notes>::new(pool.clone()).try_build().await?;
        let manager = AggregateManager::new(store.clone());
        Ok(Self { pool, store, manager })
    }

    /// The library's statement, of many rows.
    async fn seed(&self, events: Vec<NoteEvent>) -> Result<()> {
        let payloads = events.iter().map(serde_json::to_value).collect::<std::result::Result<Vec<_>, _>>()?;
        let (streams, numbers): (Vec<_>, Vec<_>) =
            events.iter().map(|NoteEvent::Noted { stream_id, number, .. }| (*stream_id, *number as i32)).unzip();
        sqlx::query(
            "INSERT INTO note_events (id, aggregate_id, payload, occurred_on, sequence_number)
             SELECT id, stream, payload, statement_timestamp(), number
             FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::int[]) AS event (id, stream, payload, number)",
        )
        .bind(events.iter().map(|_| Uuid::new_v4()).collect::<Vec<_>>())
        .bind(streams)
        .bind(payloads)
        .bind(numbers)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Each client that waits for the lock holds a connection, and who has it needs another.
    fn hot_pool(clients: u32) -> u32 {
        clients + 16
    }

    async fn append(&self, stream: Uuid) -> Result<Outcome> {
        outcome(self.store.persist(&mut AggregateState::with_id(stream), vec![NoteEvent::after(0, stream)]).await)
    }

    async fn command(&self, stream: Uuid) -> Result<Outcome> {
        let notes = self.manager.load(stream).await?.unwrap_or_else(|| AggregateState::with_id(stream));
        outcome(self.manager.handle_command(notes, Note { stream }).await)
    }

    /// With the library's own lock, an advisory one: more round trips than `command`, but no conflicts.
    async fn contended_command(&self, stream: Uuid) -> Result<Outcome> {
        let notes = self.manager.lock_and_load(stream).await?.unwrap_or_default();
        outcome(self.manager.handle_command(notes, Note { stream }).await)
    }

    async fn read(&self, mut each: impl FnMut(NoteEvent) + Send) -> Result<()> {
        let mut events = self.store.stream_events(&self.pool);
        while let Some(event) = events.try_next().await? {
            each(event.payload);
        }
        Ok(())
    }
}

fn outcome<T>(result: std::result::Result<T, PgStoreError>) -> Result<Outcome> {
    match result {
        Ok(_) => Ok(Outcome::Recorded),
        Err(PgStoreError::Sqlx(sqlx::Error::Database(error))) if error.is_unique_violation() => Ok(Outcome::Conflict),
        Err(error) => Err(error.into()),
    }
}
