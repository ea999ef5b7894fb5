//! How each projection does: the log's checkpoints and leases, and the engine's parked events.

use sqlx::PgPool;
use store::{Position, lease};

/// How far a projection is, and what keeps it from being further.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub projection: String,
    pub position: Position,
    pub version: i16,
    pub paused: bool,
    /// How many events of the log it does not have.
    pub lag_events: i64,
    /// How long ago the first of them was recorded, in seconds; 0 if there is none.
    pub lag_seconds: f64,
    /// How long ago it moved, in seconds.
    pub moved_seconds_ago: f64,
    /// How long ago its owner renewed the lease, in seconds; it does so every second. `None` if nobody has the lease,
    /// because nobody ever had, or the last owner gave it back.
    pub heartbeat_seconds_ago: Option<f64>,
    /// What the last try failed with, if none has succeeded since.
    pub last_error: Option<String>,
    /// How many events are parked, or wait behind one.
    pub parked: i64,
    /// How far the generation in the making has come, if there is one.
    pub rebuilt_to: Option<Position>,
    /// Whether the generation before is kept.
    pub kept: bool,
}

/// The status of every projection, in order of their names.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn projections(pool: &PgPool) -> Result<Vec<Status>, sqlx::Error> {
    sqlx::query_as!(
        Status,
        r#"SELECT c.projection, c.position, c.version, c.paused, c.last_error,
                  greatest(head.position - c.position, 0) AS "lag_events!",
                  coalesce(extract(epoch FROM clock_timestamp() - (
                      SELECT recorded_at FROM daybook.events AS e WHERE e.position = c.position + 1)), 0)::float8
                      AS "lag_seconds!",
                  extract(epoch FROM clock_timestamp() - c.moved_at)::float8 AS "moved_seconds_ago!",
                  extract(epoch FROM clock_timestamp() - (l.expires_at - make_interval(secs => $1)))::float8
                      AS heartbeat_seconds_ago,
                  (SELECT count(*) FROM daybook.parked_events AS p
                   WHERE (p.projection, p.generation) = (c.projection, c.generation)) AS "parked!",
                  (SELECT o.position FROM daybook.checkpoints AS o
                   WHERE o.projection = c.projection AND NOT o.live AND NOT o.kept AND o.position > 0) AS rebuilt_to,
                  EXISTS (SELECT FROM daybook.checkpoints AS o
                          WHERE o.projection = c.projection AND o.kept) AS "kept!"
           FROM daybook.checkpoints AS c
           CROSS JOIN (SELECT coalesce(max(position), 0) AS position FROM daybook.events) AS head
           LEFT JOIN daybook.leases AS l ON l.name = c.projection AND isfinite(l.expires_at)
           WHERE c.live ORDER BY c.projection"#,
        lease::DURATION.as_secs_f64()
    )
    .fetch_all(pool)
    .await
}
