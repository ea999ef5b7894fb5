//! A log to read: orders that took the whole way through the running system, and copies of theirs.

use super::bound::Bare;
use super::place::Place;
use crate::demo;
use cli::Failure;
use order_services::policy::Timeouts;
use runtime::process::Urls;
use sqlx::{Connection, PgConnection};

/// How many orders are played; the rest of the log are copies of their events, under ids of their own.
const ORDERS: u32 = 200;

/// The first `$1` events again, for the `$2`th time: every id, also those in the payloads, gets `$3` as its
/// second group and its version, which is one that no id has.
const AGAIN: &str = r#"INSERT INTO daybook.events
    (position, version, recorded_at, occurred_at, category, schema_version, origin, stream_id, event_id,
     correlation_id, causation_id, command_id, fingerprint, event_type, actor, traceparent, payload, link)
    SELECT position + $1 * $2, version, recorded_at, occurred_at, category, schema_version, origin,
           overlay(stream_id::text PLACING $3 FROM 10 FOR 6)::uuid, overlay(event_id::text PLACING $3 FROM 10 FOR 6)::uuid,
           overlay(correlation_id::text PLACING $3 FROM 10 FOR 6)::uuid,
           overlay(causation_id::text PLACING $3 FROM 10 FOR 6)::uuid,
           overlay(command_id::text PLACING $3 FROM 10 FOR 6)::uuid, fingerprint, event_type, actor, traceparent,
           regexp_replace(payload::text, '"([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]', '"\1-' || $3, 'g')::json,
           link
    FROM daybook.events WHERE position <= $1 ORDER BY position"#;

/// Gives the copies links of their own, where their originals have links.
const LINK: &str = r"
    ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
    DO $$
    DECLARE
        last daybook.events;
        ends bigint;
    BEGIN
        SELECT * INTO last FROM daybook.events WHERE position = current_setting('bench.first')::bigint;
        FOR ends IN SELECT position FROM daybook.events WHERE position > last.position AND link IS NOT NULL
                     ORDER BY position LOOP
            UPDATE daybook.events AS e SET link = linked.link
              FROM (SELECT sha256(last.link || int8send(min(g.position)) || timestamptz_send(min(g.recorded_at))
                                  || string_agg(int8send(g.version) || daybook.event_digest(g), '' ORDER BY g.position))
                           AS link
                      FROM daybook.events AS g WHERE g.position > last.position AND g.position <= ends) AS linked
             WHERE e.position = ends RETURNING e.* INTO last;
        END LOOP;
    END
    $$;
    ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only";

/// Fills the log with at least `least` events, and returns how many there are.
pub(super) async fn orders(place: &Place, least: u32) -> Result<u64, Failure> {
    let urls = Urls { database_url: place.database_url.clone(), nats_url: place.nats_url.clone() };
    let process = crate::process::start(&urls, Timeouts::default()).await?;
    let played = demo::play(&urls, ORDERS).await;
    process.stop().await;
    played?;
    let mut connection = PgConnection::connect(&place.database_url).await?;
    let head = sqlx::query_scalar("SELECT max(position) FROM daybook.events");
    let first: i64 = head.fetch_one(&mut connection).await?;
    let mut copies: i64 = 0;
    while first * (copies + 1) < i64::from(least) {
        copies += 1;
        let again = sqlx::query(AGAIN).bind(first).bind(copies).bind(format!("{copies:04x}-f"));
        again.execute(&mut connection).await?;
    }
    let set = sqlx::query("SELECT set_config('bench.first', $1, false)").bind(first.to_string());
    set.execute(&mut connection).await?;
    sqlx::raw_sql(LINK).execute(&mut connection).await?;
    let events = first * (copies + 1);
    Bare::connect(&place.database_url).await?.settle().await?;
    Ok(events as u64)
}
