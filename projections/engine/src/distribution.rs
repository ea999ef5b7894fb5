//! How far a relay has published the log, as it reports itself: for monitoring.

use sqlx::PgPool;
use store::Position;

/// How the distribution of the log does.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The last that was acknowledged.
    pub position: Position,
    /// How many events of the log come after it.
    pub lag_events: i64,
    /// How long ago the first of them was recorded, in seconds; 0 if there is none.
    pub lag_seconds: f64,
    /// How long ago it moved, in seconds.
    pub moved_seconds_ago: f64,
    /// How long ago a relay last said anything, in seconds: it does every second.
    pub told_seconds_ago: f64,
    /// What the last try failed with, if none has succeeded since.
    pub last_error: Option<String>,
}

/// Says how far it is, if that is known, and what went wrong, if something did.
///
/// # Errors
/// When Postgres fails.
pub async fn tell(pool: &PgPool, position: Option<Position>, error: Option<&str>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO daybook.relay AS r (position, last_error) VALUES (coalesce($1::bigint, 0), $2)
         ON CONFLICT ON CONSTRAINT relay_only_row DO UPDATE
         SET position = coalesce($1, r.position), told_at = clock_timestamp(), last_error = $2,
             moved_at = CASE coalesce($1, r.position) WHEN r.position THEN r.moved_at ELSE clock_timestamp() END",
        position,
        error
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// How it does; `None` if there never was a relay.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn status(pool: &PgPool) -> Result<Option<Status>, sqlx::Error> {
    sqlx::query_as!(
        Status,
        r#"SELECT r.position, r.last_error,
                  greatest(head.position - r.position, 0) AS "lag_events!",
                  coalesce(extract(epoch FROM clock_timestamp() - (
                      SELECT recorded_at FROM daybook.events AS e WHERE e.position = r.position + 1)), 0)::float8
                      AS "lag_seconds!",
                  extract(epoch FROM clock_timestamp() - r.moved_at)::float8 AS "moved_seconds_ago!",
                  extract(epoch FROM clock_timestamp() - r.told_at)::float8 AS "told_seconds_ago!"
           FROM daybook.relay AS r
           CROSS JOIN (SELECT coalesce(max(position), 0) AS position FROM daybook.events) AS head"#
    )
    .fetch_optional(pool)
    .await
}
