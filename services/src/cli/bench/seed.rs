//! A log to read: orders that took the whole way through the running system, and copies of theirs.

use super::bound::Bare;
use super::place::Place;
use crate::cli::Failure;
use crate::cli::demo;
use crate::config::{Role, Urls};
use crate::policy::Pace;
use crate::process::Process;
use sqlx::{Connection, PgConnection};

/// How many orders are played; the rest of the log are copies of their events, under ids of their own.
const ORDERS: u32 = 200;

/// All events again, under other ids: `$1` is their number.
const AGAIN: &str = "INSERT INTO daybook.events
    (position, version, recorded_at, occurred_at, category, schema_version, origin, stream_id, event_id,
     correlation_id, causation_id, command_id, fingerprint, event_type, actor, traceparent, payload)
    SELECT position + $1, version, recorded_at, occurred_at, category, schema_version, origin,
           md5(stream_id::text || $1)::uuid, md5(event_id::text || $1)::uuid, md5(correlation_id::text || $1)::uuid,
           md5(causation_id::text || $1)::uuid, md5(command_id::text || $1)::uuid, fingerprint, event_type, actor,
           traceparent, payload
    FROM daybook.events WHERE position <= $1 ORDER BY position";

/// Fills the log with at least `least` events, and returns how many there are.
pub(super) async fn orders(place: &Place, least: u32) -> Result<u64, Failure> {
    let urls = Urls { database_url: place.database_url.clone(), nats_url: place.nats_url.clone() };
    let process = Process::start(&urls, &Role::ALL, Pace::default()).await?;
    let played = demo::play(&urls, ORDERS).await;
    process.stop().await;
    played?;
    let mut connection = PgConnection::connect(&place.database_url).await?;
    let mut events: i64 = 0;
    while events < i64::from(least) {
        events = sqlx::query_scalar("SELECT max(position) FROM daybook.events").fetch_one(&mut connection).await?;
        if events < i64::from(least) {
            sqlx::query(AGAIN).bind(events).execute(&mut connection).await?;
        }
    }
    Bare::connect(&place.database_url).await?.settle().await?;
    Ok(events as u64)
}
