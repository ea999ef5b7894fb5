//! Leases: at most one owner of a name at a time, by Postgres' clock.

use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// How long a lease holds without being renewed: what a take-over waits for after a kill -9.
pub const DURATION: Duration = Duration::from_secs(3);

/// A lease that was held when it was acquired or renewed. Guarded transactions check its fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub name: &'static str,
    pub owner: Uuid,
    /// Higher for every new owner.
    pub fence: i64,
}

/// Takes the lease if it is free, expired or already `owner`'s, and renews it.
///
/// A stored end that is further away than [`DURATION`] is of a clock that has gone back since, or of another server's. Whoever
/// asks brings it down to that: so another owner has the same time as ever to renew it, and one that is dead keeps nobody
/// waiting longer than that.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn acquire(pool: &PgPool, name: &'static str, owner: Uuid) -> Result<Option<Lease>, sqlx::Error> {
    let row = sqlx::query!(
        "INSERT INTO daybook.leases AS lease (name, owner, fence, expires_at)
         VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
         ON CONFLICT ON CONSTRAINT leases_name DO UPDATE
         SET owner = CASE WHEN lease.expires_at < clock_timestamp() THEN $2 ELSE lease.owner END,
             fence = lease.fence + (lease.expires_at < clock_timestamp() AND lease.owner <> $2)::int,
             expires_at = clock_timestamp() + make_interval(secs => $3)
         WHERE lease.owner = $2 OR lease.expires_at < clock_timestamp()
            OR lease.expires_at > clock_timestamp() + make_interval(secs => $3)
         RETURNING owner, fence",
        name,
        owner,
        DURATION.as_secs_f64()
    );
    let ours = row.fetch_optional(pool).await?.filter(|row| row.owner == owner);
    Ok(ours.map(|row| Lease { name, owner, fence: row.fence }))
}

/// Raises the fence of a lease that is still held above that of its projection's checkpoint. That can only be higher if its
/// owner acquired the lease in a history that the database has lost since, and took the checkpoint in this one: who has the
/// lease now could never take it.
///
/// # Errors
/// When Postgres cannot be asked.
pub(crate) async fn outrank(pool: &PgPool, lease: &Lease) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE daybook.leases AS l SET fence = c.fence + 1
         FROM daybook.checkpoints AS c
         WHERE l.name = $1 AND l.owner = $2 AND l.fence = $3
           AND c.projection = l.name AND c.live AND c.fence > l.fence",
        lease.name,
        lease.owner,
        lease.fence
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Gives the lease back, so that another owner need not wait for its expiry.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn release(pool: &PgPool, lease: &Lease) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE daybook.leases SET expires_at = '-infinity' WHERE name = $1 AND owner = $2 AND fence = $3",
        lease.name,
        lease.owner,
        lease.fence
    )
    .execute(pool)
    .await?;
    Ok(())
}
