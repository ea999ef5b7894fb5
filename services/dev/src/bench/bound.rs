//! What the log's own table and indexes could take at best: bare statements on one connection, nothing checked, no
//! function, nobody to answer. Positions are dense, so the log stays one.

use super::measure::Client;
use chrono::Utc;
use cli::Failure;
use rand::RngExt;
use sqlx::{Connection, PgConnection};
use std::collections::HashMap;
use std::sync::Arc;
use store::{NewEvent, Position, StreamId, Version, event_id};
use uuid::Uuid;

/// The owner's: a service could not do this.
const INSERT: &str = "INSERT INTO daybook.events
    (position, version, recorded_at, occurred_at, category, schema_version, origin, stream_id, event_id,
     correlation_id, causation_id, command_id, fingerprint, event_type, actor, traceparent, payload)
    SELECT position, version, recorded_at, occurred_at, category, schema_version, origin, stream_id, event_id,
           correlation_id, NULL, command_id, fingerprint, event_type, actor, NULL, payload::json
    FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::smallint[], $6::smallint[],
                $7::smallint[], $8::uuid[], $9::uuid[], $10::uuid[], $11::uuid[], $12::bytea[], $13::text[],
                $14::text[], $15::text[])
         AS e(position, version, recorded_at, occurred_at, category, schema_version, origin, stream_id, event_id,
              correlation_id, command_id, fingerprint, event_type, actor, payload)";

/// The one-row statement that a transaction of its own would be.
const INSERT_ONE: &str = "INSERT INTO daybook.events
    (position, version, recorded_at, occurred_at, category, schema_version, origin, stream_id, event_id,
     correlation_id, causation_id, command_id, fingerprint, event_type, actor, traceparent, payload)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, $11, $12, $13, $14, NULL, $15::json)";

const LOAD: &str = "SELECT stream_id, version, position, event_type, schema_version, payload::text
    FROM daybook.events WHERE category = $1 AND stream_id = ANY($2) ORDER BY stream_id, version";

/// Writes events at the end of the log, as nobody else may meanwhile.
pub(super) struct Bare {
    connection: PgConnection,
    position: Position,
}

impl Bare {
    pub(super) async fn connect(superuser_url: &str) -> Result<Self, Failure> {
        let mut connection = PgConnection::connect(superuser_url).await?;
        let head = sqlx::query_scalar("SELECT coalesce(max(position), 0) FROM daybook.events");
        let position = head.fetch_one(&mut connection).await?;
        Ok(Self { connection, position })
    }

    /// Inserts the events, each as if by a command of its own, and returns once they are durable.
    pub(super) async fn insert(&mut self, events: &[(StreamId, Version, NewEvent)]) -> Result<(), Failure> {
        let now = Utc::now();
        let commands: Vec<Uuid> = events.iter().map(|_| Uuid::now_v7()).collect();
        let positions: Vec<i64> = (self.position + 1..).take(events.len()).collect();
        let ids: Vec<Uuid> = commands.iter().map(|command| event_id(*command, 0)).collect();
        self.position += events.len() as Position;
        if let [(stream, version, event)] = events {
            let one = sqlx::query(INSERT_ONE)
                .bind(positions[0])
                .bind(version)
                .bind(now)
                .bind(now)
                .bind(stream.category.id)
                .bind(event.schema_version)
                .bind(0_i16)
                .bind(stream.id)
                .bind(ids[0])
                .bind(stream.id)
                .bind(commands[0])
                .bind(&[7_u8; 16][..])
                .bind(&*event.event_type)
                .bind("bench")
                .bind(&*event.payload);
            one.execute(&mut self.connection).await?;
            return Ok(());
        }
        let all = sqlx::query(INSERT)
            .bind(positions)
            .bind(events.iter().map(|(_, version, _)| *version).collect::<Vec<_>>())
            .bind(vec![now; events.len()])
            .bind(vec![now; events.len()])
            .bind(events.iter().map(|(stream, ..)| stream.category.id).collect::<Vec<_>>())
            .bind(events.iter().map(|(.., event)| event.schema_version).collect::<Vec<_>>())
            .bind(vec![0_i16; events.len()])
            .bind(events.iter().map(|(stream, ..)| stream.id).collect::<Vec<_>>())
            .bind(ids)
            .bind(events.iter().map(|(stream, ..)| stream.id).collect::<Vec<_>>())
            .bind(commands)
            .bind(vec![&[7_u8; 16][..]; events.len()])
            .bind(events.iter().map(|(.., event)| &*event.event_type).collect::<Vec<&str>>())
            .bind(vec!["bench"; events.len()])
            .bind(events.iter().map(|(.., event)| &*event.payload).collect::<Vec<&str>>());
        all.execute(&mut self.connection).await?;
        Ok(())
    }

    /// Leaves the table as it is after a while, for whatever is measured next.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        sqlx::raw_sql("VACUUM ANALYZE daybook.events").execute(&mut self.connection).await?;
        sqlx::raw_sql("CHECKPOINT").execute(&mut self.connection).await?;
        Ok(())
    }

    /// The versions of these streams, by way of all their events.
    async fn load(&mut self, streams: &[StreamId]) -> Result<HashMap<Uuid, Version>, Failure> {
        let ids: Vec<Uuid> = streams.iter().map(|stream| stream.id).collect();
        let load = sqlx::query_as::<_, (Uuid, Version, Position, String, i16, String)>(LOAD)
            .bind(streams.first().map(|stream| stream.category.id))
            .bind(ids);
        let rows = load.fetch_all(&mut self.connection).await?;
        Ok(rows.into_iter().map(|row| (row.0, row.1)).collect())
    }
}

/// Inserts groups of a size, one after the other.
pub(super) struct Inserting {
    pub(super) bare: Bare,
    pub(super) rows: usize,
    pub(super) streams: Vec<(StreamId, Version)>,
    pub(super) next: usize,
    pub(super) event: NewEvent,
}

impl Client for Inserting {
    async fn once(&mut self) -> Result<u64, Failure> {
        let mut events = Vec::with_capacity(self.rows);
        for _ in 0..self.rows {
            let count = self.streams.len();
            let (stream, version) = &mut self.streams[self.next % count];
            *version += 1;
            self.next += 1;
            events.push((*stream, *version, self.event.clone()));
        }
        self.bare.insert(&events).await?;
        Ok(self.rows as u64)
    }
}

/// Loads as many streams as it then appends to, at random.
pub(super) struct Loading {
    pub(super) bare: Bare,
    pub(super) rows: usize,
    pub(super) streams: Arc<Vec<StreamId>>,
    pub(super) event: NewEvent,
}

impl Client for Loading {
    async fn once(&mut self) -> Result<u64, Failure> {
        let mut chosen: Vec<StreamId> = Vec::with_capacity(self.rows);
        while chosen.len() < self.rows {
            let stream = self.streams[rand::rng().random_range(0..self.streams.len())];
            if !chosen.contains(&stream) {
                chosen.push(stream);
            }
        }
        let versions = self.bare.load(&chosen).await?;
        let events: Vec<_> = chosen
            .into_iter()
            .map(|stream| (stream, versions.get(&stream.id).copied().unwrap_or(0) + 1, self.event.clone()))
            .collect();
        self.bare.insert(&events).await?;
        Ok(self.rows as u64)
    }
}
