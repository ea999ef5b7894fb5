//! Whether the log is being distributed: what the relay says of itself.

use sqlx::PgPool;

/// What is known of the relay.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// By Postgres' clock; `None` if it never has.
    pub worked_seconds_ago: Option<f64>,
    /// What its last try failed with, if none has succeeded since.
    pub last_error: Option<String>,
}

/// Says that a relay has done what there was to do.
///
/// # Errors
/// When Postgres fails.
pub async fn worked(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE daybook.distribution SET worked_at = clock_timestamp(), last_error = NULL")
        .execute(pool)
        .await
        .map(drop)
}

/// Says what has kept it from that.
///
/// # Errors
/// When Postgres fails.
pub async fn failed(pool: &PgPool, error: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE daybook.distribution SET last_error = $1", error).execute(pool).await.map(drop)
}

/// # Errors
/// When Postgres cannot be asked.
pub async fn status(pool: &PgPool) -> Result<Distribution, sqlx::Error> {
    sqlx::query_as!(
        Distribution,
        "SELECT extract(epoch FROM clock_timestamp() - worked_at)::float8 AS worked_seconds_ago, last_error
         FROM daybook.distribution"
    )
    .fetch_one(pool)
    .await
}
