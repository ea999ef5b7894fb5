//! postgres-es, the Postgres store of cqrs-es. Versions are checked by the primary key (type, id, sequence).
//!
//! It stores no order across streams: reading everything is in the order of `sequence` alone, so first the first event
//! of every stream, then the second of every stream.

use crate::event::{AGGREGATE, NoteEvent};
use crate::{Outcome, Peer, Result};
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{EventStoreAggregateContext, PersistedEventRepository, PersistedEventStore, SerializedEvent};
use cqrs_es::{Aggregate, AggregateError, EventEnvelope, EventStore};
use postgres_es::{PostgresCqrs, PostgresEventRepository, postgres_cqrs};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::collections::HashMap;
use std::convert::Infallible;
use uuid::Uuid;

#[derive(Default, Serialize, Deserialize)]
struct Notes {
    count: u32,
}

impl Aggregate for Notes {
    const TYPE: &'static str = AGGREGATE;
    type Command = Uuid;
    type Event = NoteEvent;
    type Error = Infallible;
    type Services = ();

    async fn handle(&mut self, stream: Uuid, _: &(), sink: &EventSink<Self>) -> std::result::Result<(), Infallible> {
        sink.write(NoteEvent::after(self.count, stream), self).await;
        Ok(())
    }

    fn apply(&mut self, event: NoteEvent) {
        match event {
            NoteEvent::Noted { .. } => self.count += 1,
        }
    }
}

pub struct PostgresEs {
    pool: PgPool,
    store: PersistedEventStore<PostgresEventRepository, Notes>,
    framework: PostgresCqrs<Notes>,
}

impl Peer for PostgresEs {
    const PACKAGE: &'static str = "postgres-es";

    async fn create(pool: PgPool) -> Result<Self> {
        // From the crate's db/init.sql, which also makes tables and a user that are not needed here.
        sqlx::query(
            "CREATE TABLE events (
                aggregate_type text NOT NULL,
                aggregate_id text NOT NULL,
                sequence bigint CHECK (sequence >= 0) NOT NULL,
                event_type text NOT NULL,
                event_version text NOT NULL,
                payload json NOT NULL,
                metadata json NOT NULL,
                PRIMARY KEY (aggregate_type, aggregate_id, sequence)
            )",
        )
        .execute(&pool)
        .await?;
        let store = PersistedEventStore::new_event_store(PostgresEventRepository::new(pool.clone()));
        let framework = postgres_cqrs(pool.clone(), vec![], ());
        Ok(Self { pool, store, framework })
    }

    /// The library's statement, of many rows; it has the library make each row's values.
    async fn seed(&self, events: Vec<NoteEvent>) -> Result<()> {
        let rows = events.into_iter().map(|event| {
            let NoteEvent::Noted { stream_id, number, .. } = event;
            let (aggregate_id, sequence) = (stream_id.to_string(), number as usize);
            let envelope: EventEnvelope<Notes> =
                EventEnvelope { aggregate_id, sequence, payload: event, metadata: metadata() };
            SerializedEvent::try_from(&envelope)
        });
        let rows = rows.collect::<std::result::Result<Vec<_>, _>>()?;
        sqlx::query(
            "INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata)
             SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::jsonb[], $7::jsonb[])",
        )
        .bind(rows.iter().map(|row| row.aggregate_type.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.aggregate_id.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.sequence as i32).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.event_type.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.event_version.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| &row.payload).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| &row.metadata).collect::<Vec<_>>())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn append(&self, stream: Uuid) -> Result<Outcome> {
        let context = EventStoreAggregateContext {
            aggregate_id: stream.to_string(),
            aggregate: Notes::default(),
            current_sequence: 0,
            current_snapshot: None,
        };
        outcome(self.store.commit(vec![NoteEvent::after(0, stream)], context, metadata()).await)
    }

    async fn command(&self, stream: Uuid) -> Result<Outcome> {
        outcome(self.framework.execute_with_metadata(&stream.to_string(), stream, metadata()).await)
    }

    async fn read(&self, mut each: impl FnMut(NoteEvent) + Send) -> Result<()> {
        let repository = PostgresEventRepository::new(self.pool.clone());
        let mut events = repository.stream_all_events::<Notes>().await?;
        while let Some(event) = events.next::<Notes>(&[]).await {
            each(event?.payload);
        }
        Ok(())
    }
}

fn outcome<T>(result: std::result::Result<T, AggregateError<Infallible>>) -> Result<Outcome> {
    match result {
        Ok(_) => Ok(Outcome::Recorded),
        Err(AggregateError::AggregateConflict) => Ok(Outcome::Conflict),
        Err(error) => Err(error.into()),
    }
}

/// About 125 bytes of JSON.
fn metadata() -> HashMap<String, String> {
    HashMap::from([
        ("actor".to_owned(), "peers".to_owned()),
        ("command_id".to_owned(), Uuid::now_v7().to_string()),
        ("correlation_id".to_owned(), Uuid::now_v7().to_string()),
    ])
}
