//! Waits for a system in motion: the window and a domain's projections are to come to where the log was at the start.

use super::{Check, VerifyError, window};
use async_nats::jetstream;
use engine::{Domain, Projection};
use sqlx::PgPool;
use std::time::Duration;
use store::Position;
use store::checkpoint;
use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(100);

/// Whoever has not come there when `patience` is over is a difference.
///
/// # Errors
/// When Postgres or NATS cannot be asked.
pub async fn check<D: Domain>(
    pool: &PgPool,
    jetstream: Option<&jetstream::Context>,
    patience: Duration,
) -> Result<Check, VerifyError> {
    let deadline = Instant::now() + patience;
    let head = sqlx::query_scalar!(r#"SELECT coalesce(max(position), 0) AS "head!" FROM daybook.events"#);
    let head: Position = head.fetch_one(pool).await?;
    loop {
        let followers = followers::<D>(pool, jetstream).await?;
        if followers.iter().any(|(_, position)| *position < head) && Instant::now() < deadline {
            sleep(POLL).await;
            continue;
        }
        let mut check = Check::new("caught up");
        for (name, position) in followers {
            check.checked += 1;
            if position < head {
                check.differs(|| format!("{name} is at {position}, the log at {head}"));
            }
        }
        return Ok(check);
    }
}

async fn followers<D: Domain>(
    pool: &PgPool,
    jetstream: Option<&jetstream::Context>,
) -> Result<Vec<(String, Position)>, VerifyError> {
    let mut followers = checkpoint::live(pool).await?;
    followers.retain(|(name, _)| Projection::<D>::from_name(name).is_some());
    if let Some(jetstream) = jetstream {
        let stream = window::find(jetstream).await?;
        let last = stream.map_or(0, |s| s.cached_info().state.last_sequence);
        followers.push((format!("the {}", window::NAME), last.cast_signed()));
    }
    Ok(followers)
}
